"""The tab Analyze: the nearest phrases of each category, and texts of one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import gradio as gr

from clip_interrogator_ext.errors import InterrogatorError
from clip_interrogator_ext.faces.tab import asking, components, elements, uploaded
from clip_interrogator_ext.faces.tab.elements import element_id
from clip_interrogator_ext.faces.tab.running import Running, stop

if TYPE_CHECKING:
    from PIL import Image

    from clip_interrogator_ext.faces.tab.surroundings import Surroundings
    from clip_interrogator_ext.faces.tab.uploaded import Posted
    from clip_interrogator_ext.service import Service


class AnalyzeTab:
    """The components of the tab, and what happens when they are used."""

    def __init__(
        self, service: Service, surroundings: Surroundings, other_image: gr.Image
    ) -> None:
        """Draw the tab; `other_image` is that of the tab Prompt, which stands in for none."""
        self._service = service
        self.task = gr.State("")
        with gr.Row(elem_classes=[elements.PREFIX + "-columns"]):
            with gr.Column():
                self.image = components.image(
                    label="Picture", elem_id=element_id("analyze-image"), height=360
                )
                with gr.Row(elem_classes=[elements.PREFIX + "-actions"]):
                    self.analyze = gr.Button(
                        "Analyze", variant="primary", elem_id=element_id("analyze")
                    )
                    self.stop = gr.Button(
                        "Stop", elem_id=element_id("analyze-stop"), interactive=False
                    )
                self.progress = components.html("analyze-progress")
                self.message = components.html("analyze-message")
                self.backbones = asking.backbones_box(surroundings, "analyze-backbones")
                self.top = gr.Slider(
                    1, 25, value=5, step=1, label="Phrases of each category",
                    elem_id=element_id("top"),
                )
                self.texts = gr.Textbox(
                    label="Texts of your own", lines=4, elem_id=element_id("texts"),
                    placeholder="One text a line, each scored against the picture",
                )
                self.compare = gr.Button("Score the texts", elem_id=element_id("compare"))
            with gr.Column():
                self.scores = components.html("scores")
                self.cards = components.html("cards")
        outputs = [
            self.progress, self.message, self.analyze, self.compare, self.stop, self.task
        ]
        components.on(
            self.analyze.click, self._analyze, [self.image, other_image, self.backbones, self.top],
            [*outputs, self.cards], streams=surroundings.streams,
        )
        components.on(
            self.compare.click, self._compare,
            [self.image, other_image, self.backbones, self.texts],
            [*outputs, self.scores], streams=surroundings.streams,
        )
        components.on(
            self.stop.click, lambda task: stop(service, task), [self.task], queue=False
        )

    def _analyze(
        self,
        image: Posted | None,
        other: Posted | None,
        backbones: str | None,
        top: float,
    ) -> Iterator[list[Any]]:
        def work(image: Image.Image, task: str) -> str:
            models = asking.models_of(backbones)
            analysis = self._service.analyze(image, models, int(top), task)
            note = elements.note(elements.DEMO_NOTE) if analysis.demo else ""
            return note + elements.bars(analysis.categories)

        yield from self._run(image or other, work)

    def _compare(
        self,
        image: Posted | None,
        other: Posted | None,
        backbones: str | None,
        texts: str | None,
    ) -> Iterator[list[Any]]:
        def work(image: Image.Image, task: str) -> str:
            lines = list(dict.fromkeys(filter(None, map(str.strip, (texts or "").splitlines()))))
            if not lines:
                raise InterrogatorError("Write one or more texts, each on a line of its own.")
            models = asking.models_of(backbones)
            scored = list(
                zip(lines, self._service.similarity(image, lines, models, task), strict=True)
            )
            scored.sort(key=lambda pair: -pair[1])
            return elements.bars({"Your texts": scored})

        yield from self._run(image or other, work)

    def _run(
        self, image: Posted | None, work: Callable[[Image.Image, str], str]
    ) -> Iterator[list[Any]]:
        idle = [gr.update(interactive=True), gr.update(interactive=True),
                gr.update(interactive=False), ""]
        try:
            picture = uploaded.opened(image)
        except InterrogatorError as error:
            yield ["", elements.note(str(error), "error"), *idle, components.skip()]
            return
        running = Running(self._service, lambda task: work(picture, task))
        busy = [gr.update(interactive=False), gr.update(interactive=False),
                gr.update(interactive=True), running.task]
        for run in running:
            yield [elements.progress(run), "", *busy, components.skip()]
        if running.answer is None:
            yield ["", running.note(), *idle, components.skip()]
        else:
            yield ["", "", *idle, running.answer]
