"""The tab Prompt: a picture goes in, a prompt comes out, is trimmed, and is sent on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from clip_interrogator_ext import catalog, phrases
from clip_interrogator_ext.errors import InterrogatorError
from clip_interrogator_ext.faces.tab import asking, components, elements, uploaded
from clip_interrogator_ext.faces.tab.elements import element_id
from clip_interrogator_ext.faces.tab.running import Running, follow, stop
from clip_interrogator_ext.faces.tab.surroundings import Boxes
from clip_interrogator_ext.settings import SETTINGS

if TYPE_CHECKING:
    from clip_interrogator_ext.faces.tab.surroundings import Surroundings
    from clip_interrogator_ext.faces.tab.uploaded import Posted
    from clip_interrogator_ext.results import Part, Prompt
    from clip_interrogator_ext.service import Service

_EARLIER = 8  # texts of a box that clicks may still bring
_COPY = "(text) => { navigator.clipboard.writeText(text); return []; }"


class PromptTab:
    """The components of the tab, and what happens when they are used."""

    def __init__(self, service: Service, surroundings: Surroundings) -> None:
        self._service = service
        self._surroundings = surroundings
        self.task = gr.State("")
        with gr.Row(elem_classes=[elements.PREFIX + "-columns"]):
            with gr.Column():
                self._draw_question()
            with gr.Column():
                self._draw_answer()
        self._wire()

    @property
    def boxes(self) -> Boxes:
        """The components that others send from and to."""
        return Boxes(self.image, self.prompt, self.negative)

    # Drawing

    def _draw_question(self) -> None:
        setting = self._surroundings.setting
        self.image = components.image(label="Picture", elem_id=element_id("image"), height=360)
        with gr.Row(elem_classes=[elements.PREFIX + "-actions"]):
            self.generate = gr.Button(
                "Generate", variant="primary", elem_id=element_id("generate")
            )
            self.stop = gr.Button("Stop", elem_id=element_id("stop"), interactive=False)
            self.unload = gr.Button("Unload", elem_id=element_id("unload"))
        self.progress = components.html("progress")
        self.message = components.html("message")
        self.mode = asking.mode_box(self._surroundings, "mode")
        self.mode_help = components.html("mode-help", asking.mode_help(setting("mode")))
        self.with_negative = asking.negative_box(self._surroundings, "with-negative")
        with gr.Row():
            self.generator = gr.Dropdown(
                choices=[*catalog.GENERATORS, asking.CUSTOM],
                value=asking.generator_of(str(setting("clip"))), label="Target generator",
                info="Chooses the CLIP backbones that it reads prompts with.",
                elem_id=element_id("generator"),
            )
            self.kind = gr.State(None)  # that of the checkpoint when it was last looked at
            # Clicked by the page's script whenever the tab is opened.
            self.from_checkpoint = gr.Button(
                "From the checkpoint", size="sm", elem_id=element_id("from-checkpoint"),
                elem_classes=[elements.PREFIX + "-hidden"],
            )
            self.backbones = asking.backbones_box(self._surroundings, "backbones")
        self.fit = components.html("fit")
        captioners = [*catalog.CAPTIONERS, catalog.DEMO, catalog.NO_CAPTIONER]
        chosen = str(setting("captioner"))
        self.captioner = gr.Dropdown(
            choices=captioners + ([] if chosen in captioners else [chosen]), value=chosen,
            allow_custom_value=True, label=SETTINGS["captioner"].label,
            info="Says what is in the picture.", elem_id=element_id("captioner"),
        )
        self.caption = gr.Textbox(
            label="Your own caption", placeholder="Instead of the captioner's",
            elem_id=element_id("caption"),
        )
        self.subject = asking.subject_box(self._surroundings, "subject")
        self.options = asking.options_box(self._surroundings, self._service)

    def _draw_answer(self) -> None:
        with gr.Group(visible=False, elem_id=element_id("embedded")) as self.embedded:
            self.parameters = components.textbox(
                label="The picture's own generation data", lines=3, max_lines=8,
                interactive=False, elem_id=element_id("parameters"),
            )
            self.use = gr.Button("Use its prompts", elem_id=element_id("use-parameters"))
        with gr.Group():
            self.prompt = components.textbox(
                label="Prompt", lines=4, max_lines=12, elem_id=element_id("prompt")
            )
            self.prompt_count = components.html("prompt-count", "", elements.PREFIX + "-count")
        with gr.Group():
            self.negative = components.textbox(
                label="Negative prompt", lines=2, max_lines=8, elem_id=element_id("negative")
            )
            self.negative_count = components.html("negative-count", "", elements.PREFIX + "-count")
        with gr.Row(elem_classes=[elements.PREFIX + "-actions"]):
            if self._surroundings.targets:
                for target in self._surroundings.targets:
                    button = gr.Button(
                        target.label, size="sm", elem_id=element_id(f"send-{target.name}")
                    )
                    target.connect(button, self.boxes)
            else:
                for label, box in (("prompt", self.prompt), ("negative prompt", self.negative)):
                    button = gr.Button(
                        f"Copy {label}", size="sm",
                        elem_id=element_id(f"copy-{label.split()[0]}"),
                    )
                    components.on(button.click, None, [box], js=_COPY)
        with gr.Row(elem_classes=[elements.PREFIX + "-scores"]):
            self.similarity = components.html("similarity")
            self.score = gr.Button(
                "Score again", visible=False, elem_id=element_id("score"), size="sm"
            )
        # What the run found, and which of it is in the boxes now.
        self.parts = gr.State([])
        self.memory = gr.State(Memory())
        self.phrases = gr.CheckboxGroup(
            choices=[], label="Phrases", visible=False, elem_id=element_id("phrases"),
            info="What each adds to the similarity. Click to take one out, again to put it back.",
        )
        self.negative_parts = gr.State([])
        self.negative_memory = gr.State(Memory())
        self.negative_phrases = gr.CheckboxGroup(
            choices=[], label="Negative phrases", visible=False,
            elem_id=element_id("negative-phrases"),
        )

    # Wiring

    def _wire(self) -> None:
        on = components.on
        asked = [
            self.image, self.mode, self.with_negative, self.backbones, self.captioner,
            self.caption, self.subject, *self.options.components,
        ]
        self._answer_boxes = [
            self.progress, self.message, self.generate, self.stop, self.task,
            self.prompt, self.negative, self.similarity, self.score,
            self.parts, self.memory, self.phrases,
            self.negative_parts, self.negative_memory, self.negative_phrases,
        ]
        streams = self._surroundings.streams
        on(self.generate.click, self._generate, asked, self._answer_boxes, streams=streams)
        on(self.stop.click, lambda task: stop(self._service, task), [self.task], queue=False)
        on(self.unload.click, self._unload, [], [self.message])
        on(self.score.click, self._score, [self.image, self.prompt, self.backbones],
           [self.progress, self.message, self.similarity, self.score], streams=streams)
        on(self.image.change, self._look_inside, [self.image], [self.embedded, self.parameters])
        on(self.use.click, phrases.split_parameters, [self.parameters],
           [self.prompt, self.negative])
        components.on_change(
            self.mode, self._show_mode, [self.mode],
            [self.mode_help, self.subject, self.caption, self.captioner, self.with_negative],
        )
        on(self.generator.input, self._choose_backbones, [self.generator, self.backbones],
           [self.backbones, self.fit])
        on(self.from_checkpoint.click, self._preset, [self.kind],
           [self.kind, self.generator, self.backbones, self.fit])
        if streams:
            on(self.from_checkpoint.click, self._follow, [], [self.progress, self.stop])
        components.on_change(
            self.backbones, asking.fit_note, [self.generator, self.backbones], [self.fit]
        )
        for box, count in (
            (self.prompt, self.prompt_count), (self.negative, self.negative_count)
        ):
            components.on_change(box, self._count, [box], [count])
        components.on_change(
            self.phrases, self._toggle, [self.prompt, self.phrases, self.memory, self.parts],
            [self.prompt, self.memory, self.score],
        )
        components.on_change(
            self.negative_phrases, self._toggle_negative,
            [self.negative, self.negative_phrases, self.negative_memory, self.negative_parts],
            [self.negative, self.negative_memory],
        )

    # What happens

    def _generate(
        self, image: Posted | None, mode: str, negative: bool, *rest: Any
    ) -> Iterator[list[Any]]:
        try:
            picture = uploaded.opened(image)
            asked = asking.request(mode, negative, *rest)
        except InterrogatorError as error:
            yield self._only(message=_error(str(error)))
            return
        running = Running(
            self._service,
            lambda task: self._service.interrogate(picture, asked.options, asked.models, task),
        )
        for run in running:
            yield self._only(
                progress=elements.progress(run),
                message="",
                generate=gr.update(interactive=False),
                stop=gr.update(interactive=True),
                task=running.task,
            )
        if running.answer is None:
            yield self._only(message=running.note())
        else:
            yield self._shown(running.answer)

    def _only(self, **changes: Any) -> list[Any]:
        """Return an update of all boxes of the answer that changes some; the run is over."""
        ended = {
            "progress": "",
            "generate": gr.update(interactive=True),
            "stop": gr.update(interactive=False),
            "task": "",
            **changes,
        }
        first = [ended.get(name, components.skip())
                 for name in ("progress", "message", "generate", "stop", "task")]
        return first + [components.skip()] * (len(self._answer_boxes) - len(first))

    def _shown(self, answer: Prompt) -> list[Any]:
        """Return an update of all boxes of the answer."""
        notes = []
        if answer.interrupted:
            notes.append(elements.note("Stopped: this is what had been found.", "warning"))
        if answer.demo:
            notes.append(elements.note(elements.DEMO_NOTE))
        # The prompt of negative mode is one for the negative field.
        positive = None if answer.mode == "negative" else answer
        negative = answer if answer.mode == "negative" else answer.negative
        return [
            "", "".join(notes), gr.update(interactive=True), gr.update(interactive=False), "",
            "" if positive is None else phrases.escape_brackets(positive.text),
            "" if negative is None else phrases.escape_brackets(negative.text),
            _similarity_line(positive, negative, answer.seconds),
            gr.update(visible=False),
            *_phrase_list(positive),
            *_phrase_list(negative),
        ]

    def _unload(self) -> str:
        held = self._service.status().size_bytes
        self._service.unload()
        return elements.note(
            f"Unloaded: {elements.size(held)} given back." if held else "Nothing was loaded."
        )

    def _score(
        self, image: Posted | None, text: str | None, backbones: str | None
    ) -> Iterator[list[Any]]:
        skip = components.skip()
        if image is None or not text or not text.strip():
            yield [skip, _error("Scoring needs a picture and a prompt."), skip, skip]
            return
        try:
            picture = uploaded.opened(image)
            models = asking.models_of(backbones)
        except InterrogatorError as error:
            yield [skip, _error(str(error)), skip, skip]
            return
        plain = phrases.unescape_brackets(text)
        running = Running(
            self._service, lambda task: self._service.similarity(picture, [plain], models, task)
        )
        for run in running:
            yield [elements.progress(run), "", skip, skip]
        if running.answer is None:
            yield ["", running.note(), skip, skip]
        else:
            line = elements.note(f"Similarity of picture and prompt: {running.answer[0]:.3f}")
            yield ["", "", line, gr.update(visible=False)]

    def _look_inside(self, image: Posted | None) -> tuple[Any, Any]:
        found = None if image is None else image.parameters()
        return gr.update(visible=bool(found)), found or ""

    def _show_mode(self, mode: str) -> tuple[Any, ...]:
        has_caption = mode not in ("style", "negative")
        return (
            asking.mode_help(mode),
            gr.update(visible=mode == "style"),
            gr.update(visible=has_caption),
            gr.update(visible=has_caption),
            gr.update(visible=mode != "negative"),
        )

    def _preset(self, before: str | None) -> tuple[Any, Any, Any, Any]:
        """Choose what suits the loaded checkpoint, unless it is the one that was there before.

        A backbone that the user has set as a default stays.
        """
        skip = components.skip()
        kind = self._service.host.checkpoint_kind()
        if kind == before or kind not in catalog.GENERATORS:
            return kind, skip, skip, skip
        mine = str(self._surroundings.setting("clip"))
        if mine != SETTINGS["clip"].default:
            return kind, gr.update(value=kind), skip, asking.fit_note(kind, mine)
        return kind, gr.update(value=kind), asking.JOINT.join(catalog.GENERATORS[kind]), ""

    def _choose_backbones(self, generator: str, backbones: str | None) -> tuple[Any, str]:
        if generator not in catalog.GENERATORS:
            return components.skip(), asking.fit_note(generator, backbones)
        wanted = asking.JOINT.join(catalog.GENERATORS[generator])
        return wanted, asking.fit_note(generator, wanted)

    def _count(self, text: str | None) -> str:
        if not text or not text.strip():
            return ""
        try:
            tokens, limit = self._service.count_tokens(text)
        except InterrogatorError:
            return ""
        return elements.note(f"{tokens}/{limit} tokens", "note" if tokens <= limit else "warning")

    def _toggle(
        self, text: str | None, kept: list[str], memory: Memory, found: list[str]
    ) -> tuple[Any, Memory, Any]:
        if memory.kept == tuple(kept):
            return components.skip(), memory, components.skip()
        memory = _toggled(text or "", kept, memory, found)
        return memory.made, memory, gr.update(visible=True)

    def _toggle_negative(
        self, text: str | None, kept: list[str], memory: Memory, found: list[str]
    ) -> tuple[Any, Memory]:
        made, memory, _ = self._toggle(text, kept, memory, found)
        return made, memory

    def _follow(self) -> Iterator[tuple[Any, Any]]:
        """Show a run that goes on from before the page was loaded, and let it be stopped."""
        followed = False
        for run in follow(self._service):
            followed = True
            yield elements.progress(run), gr.update(interactive=True)
        yield (
            ("", gr.update(interactive=False)) if followed
            else (components.skip(), components.skip())
        )


@dataclass(frozen=True)
class Memory:
    """Which phrases stood in a box after the last click, the text then, and those before it."""

    kept: tuple[str, ...] = ()
    earlier: tuple[str, ...] = ()
    made: str = ""


def _toggled(text: str, kept: Sequence[str], memory: Memory, found: Sequence[str]) -> Memory:
    """Return a text without the phrases that were just taken out, with those put back.

    `kept` holds places in `found`, the phrases as they stand in the box.
    """
    # A click that comes quickly after others brings a text from before some of them.
    goes_on = text == memory.made or text in memory.earlier
    made = memory.made if goes_on else text
    for place, phrase in enumerate(found):
        if str(place) in memory.kept and str(place) not in kept:
            made = phrases.take_out(made, phrase)
    for place in range(len(found)):
        if str(place) in kept and str(place) not in memory.kept:
            made = phrases.put_back(made, found, place)
    earlier = (*memory.earlier, text, memory.made) if goes_on else (text,)
    return Memory(tuple(kept), earlier[-_EARLIER:], made)


def _phrase_list(answer: Prompt | None) -> tuple[list[str], Memory, Any]:
    """Return the phrases as they stand in the box, which of them are in it, and their list."""
    parts = () if answer is None else answer.parts
    places = [str(place) for place in range(len(parts))]
    choices = list(zip(map(_worded, parts), places, strict=True))
    return (
        [phrases.escape_brackets(part.phrase) for part in parts], Memory(tuple(places)),
        gr.update(choices=choices, value=places, visible=bool(parts)),
    )


def _worded(part: Part) -> str:
    gain = "" if part.gain is None else f" {part.gain:+.3f}"
    return f"{part.phrase} · {part.category}{gain}"


def _similarity_line(positive: Prompt | None, negative: Prompt | None, seconds: float) -> str:
    words = [
        f"{name} {answer.similarity:.3f}"
        for name, answer in (("prompt", positive), ("negative prompt", negative))
        if answer is not None and answer.similarity is not None
    ]
    if not words:
        return ""
    return elements.note(
        f"Similarity to the picture: {', '.join(words)} · {seconds:.1f} s"
    )


def _error(sentence: str) -> str:
    return elements.note(sentence, "error")
