"""The tab Batch: many pictures, of a folder or uploaded, become texts for a data set."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from clip_interrogator_ext.batch import uploads
from clip_interrogator_ext.batch.jobs import jobs_of
from clip_interrogator_ext.batch.options import EXISTING, BatchOptions
from clip_interrogator_ext.batch.wording import Wording
from clip_interrogator_ext.batch.writers import WRITERS
from clip_interrogator_ext.errors import InterrogatorError, NotAllowed
from clip_interrogator_ext.faces.tab import asking, batch_report, components, elements, uploaded
from clip_interrogator_ext.faces.tab.elements import element_id
from clip_interrogator_ext.faces.tab.running import unforeseen
from clip_interrogator_ext.faces.tab.serving import Served
from clip_interrogator_ext.files import shown
from clip_interrogator_ext.images import SUFFIXES

if TYPE_CHECKING:
    from clip_interrogator_ext.batch.results import BatchState
    from clip_interrogator_ext.faces.tab.prompt import PromptTab
    from clip_interrogator_ext.faces.tab.surroundings import Surroundings
    from clip_interrogator_ext.service import Service

log = logging.getLogger(__name__)

FOLDER, UPLOADED = "In a folder", "Uploaded"
_TOKENS_KEPT = 8
# The browser remembers the tokens of the batches that were started in it, so that a page loaded
# anew shows them.
_KEEP = "(tokens) => { window.localStorage.setItem('cliext-batches', tokens); return []; }"
_KEPT = "() => [window.localStorage.getItem('cliext-batches') || '', null]"
_IDLE = elements.note(
    "No batch goes on. One that was stopped goes on where it was when it is started again, and "
    "closing this page stops none."
)
_OTHERS = "<div data-going-on>" + elements.note(
    "Somebody else's batch goes on. One that you start waits in line, and closing this page stops "
    "none."
) + "</div>"


class BatchTab:
    """The components of the tab, and what happens when they are used.

    Backbone, captioner and options are those of the tab Prompt: drawing them twice would make every
    start of the WebUI slower.
    """

    def __init__(self, service: Service, surroundings: Surroundings, prompt: PromptTab) -> None:
        self._service = service
        self._surroundings = surroundings
        self._prompt = prompt
        self._jobs = jobs_of(service)
        self._served = Served()
        uploads.clear_left(service)
        self._draw_hidden()
        with gr.Row(elem_classes=[elements.PREFIX + "-columns"]):
            with gr.Column():
                self._draw_pictures()
                self._draw_answer()
            with gr.Column():
                self._draw_question()
        self._wire()

    # Drawing

    def _draw_hidden(self) -> None:
        hidden = [elements.PREFIX + "-hidden"]
        self.mine = gr.Textbox(elem_id=element_id("batch-mine"), elem_classes=hidden)
        self.offered = gr.State("")  # the batch whose files can be downloaded now
        # Clicked by the page's script when the tab comes into view, and while a batch goes on.
        self.look = gr.Button("Look", elem_id=element_id("batch-look"), elem_classes=hidden)

    def _draw_pictures(self) -> None:
        folders = self._service.paths_open
        self.source = gr.Radio(
            choices=[FOLDER, UPLOADED], value=FOLDER if folders else UPLOADED, label="Pictures",
            visible=folders, elem_id=element_id("batch-source"),
        )
        if not folders:
            components.html("batch-closed", elements.note(_reason(self._service), "warning"))
        with gr.Group(visible=folders) as self.of_folder:
            self.folder = gr.Textbox(
                label="Folder", max_lines=1, elem_id=element_id("batch-folder"),
                placeholder="A folder, a pattern like photos/**/*.png, or a list of pictures",
            )
            self.recursive = gr.Checkbox(
                label="Sub-folders too", elem_id=element_id("batch-recursive")
            )
        with gr.Group(visible=not folders) as self.of_upload:
            self.files = uploaded.files(
                label="Pictures to upload", file_types=list(SUFFIXES), height=180,
                elem_id=element_id("batch-files"),
            )
        with gr.Row(elem_classes=[elements.PREFIX + "-actions"]):
            self.start = gr.Button("Start", variant="primary", elem_id=element_id("batch-start"))
            self.stop = gr.Button("Stop", elem_id=element_id("batch-stop"), interactive=False)
            self.empty = gr.Button(
                "Stop those that wait", visible=False, elem_id=element_id("batch-empty")
            )
        self.message = components.html("batch-message")

    def _draw_question(self) -> None:
        self.mode = asking.mode_box(self._surroundings, "batch-mode")
        self.mode_help = components.html(
            "batch-mode-help", asking.mode_help(self._surroundings.setting("mode"))
        )
        self.subject = asking.subject_box(self._surroundings, "batch-subject")
        self.negative = asking.negative_box(self._surroundings, "batch-negative")
        self.models = components.html("batch-models")
        self.written = self._draw_written(visible=self._service.paths_open)

    def _draw_written(self, *, visible: bool) -> dict[str, Any]:
        """Draw what is written and how; return the boxes by their fields in BatchOptions."""
        boxes: dict[str, Any] = {}
        forms = {name: writer.why for name, writer in WRITERS.items()}
        boxes["form"] = _choice("form", "Form", forms)
        with gr.Group(visible=visible) as self.places:
            boxes["existing"] = _choice("existing", "Where a picture has a text", EXISTING)
            boxes["output"] = _line(
                "output", "Output", "Beside the pictures, or another folder or file"
            )
        with gr.Accordion("Words and names", open=False, elem_id=element_id("batch-words")):
            with gr.Row():
                boxes["trigger"] = _line("trigger", "Trigger word", "First, once")
                boxes["prefix"] = _line("prefix", "Prefix", "Before each prompt")
                boxes["suffix"] = _line("suffix", "Suffix", "Behind each prompt")
            with gr.Row():
                boxes["name"] = _line("name", "Names of text files", "{stem}.txt")
                boxes["caption_from"] = _line(
                    "caption-from", "Captions from files", "Such as {stem}.caption"
                )
            boxes["beside"] = _lines(
                "beside", "Other backbones beside",
                "One set a line, such as A, B: a prompt of its own, in csv, jsonl and parquet",
            )
        return boxes

    def _draw_answer(self) -> None:
        self.status = components.html("batch-status", _IDLE)
        self.downloads = gr.File(
            label="Download", visible=False, interactive=False, file_count="multiple",
            elem_id=element_id("batch-downloads"),
        )
        self.line = components.html("batch-line")

    # Wiring

    def _wire(self) -> None:
        on = components.on
        prompt = self._prompt
        seen = [
            self.status, self.line, self.stop, self.empty, self.downloads, self.offered
        ]
        remembered = [self.mine, self.offered]
        on(
            self.start.click, self._start,
            [
                self.mine, self.offered, self.source, self.folder, self.recursive, self.files,
                self.mode, self.negative, self.subject, prompt.backbones, prompt.captioner,
                *self.written.values(), *prompt.options.components,
            ],
            [self.message, self.start, self.mine, *seen], streams=self._surroundings.streams,
        )
        on(self.mine.change, None, [self.mine], js=_KEEP)
        on(self.look.click, self._look, remembered, seen, js=_KEPT, queue=False)
        for button, states in ((self.stop, ("running",)), (self.empty, ("waiting",))):
            on(button.click, partial(self._stop, states), remembered, seen, js=_KEPT, queue=False)
        components.on_change(
            self.mode, self._show_mode, [self.mode],
            [self.mode_help, self.subject, self.negative],
        )
        on(self.source.change, self._choose_source, [self.source],
           [self.of_folder, self.of_upload, self.places])

    # What happens

    def name_models(self, backbones: str | None, captioner: str | None) -> str:
        """Say which models a batch asks."""
        names = " + ".join(asking.split_backbones(backbones)) or "no backbone"
        return elements.note(
            f"Asks {names} and the captioner {captioner or 'none'}, with the options of the tab "
            "Prompt: change them there."
        )

    def _show_mode(self, mode: str) -> tuple[Any, ...]:
        return (
            asking.mode_help(mode),
            gr.update(visible=mode == "style"),
            gr.update(visible=mode != "negative"),
        )

    def _choose_source(self, source: str) -> tuple[Any, Any, Any]:
        folder = source == FOLDER
        return gr.update(visible=folder), gr.update(visible=not folder), gr.update(visible=folder)

    def _start(
        self, mine: str, offered: str, source: str, folder: str, recursive: bool,
        files: Sequence[tuple[str, Path]], *rest: Any,
    ) -> Iterator[list[Any]]:
        skip = components.skip()
        words = "Finding the pictures" if source == FOLDER else "Taking the pictures over"
        yield [elements.bar(0, words), gr.update(interactive=False), *[skip] * 7]
        try:
            options = self._options(source, folder, recursive, *rest)
            if source == UPLOADED:
                chosen = [uploads.Upload(name, path) for name, path in files]
                state = uploads.add(self._service, chosen, options)
            else:
                state = self._jobs.add(options)
        except InterrogatorError as error:
            sentence = self._service.without_paths(shown(str(error)))
        except Exception as error:
            # The page shows a sentence; whoever runs the WebUI finds the rest in the log.
            log.exception("The batch can't be started.")
            sentence = unforeseen(self._service, error)
        else:
            sentence = ""
            mine = " ".join([*_tokens(mine), state.token][-_TOKENS_KEPT:])
        note = elements.note(sentence, "error")
        yield [note, gr.update(interactive=True), mine, *self._look(mine, offered)]

    def _options(
        self, source: str, folder: str, recursive: bool, mode: str, negative: bool,
        subject: str | None, backbones: str | None, captioner: str, *rest: Any,
    ) -> BatchOptions:
        """Return what the boxes ask for; raises BadOption and NotAllowed."""
        # An empty box is None under Gradio 6.
        written = {name: text or "" for name, text in zip(self.written, rest, strict=False)}
        asked = asking.request(
            mode, negative, backbones, captioner, "", subject or "", *rest[len(self.written):],
        )
        places: dict[str, Any] = {"input": UPLOADED}
        if source == FOLDER:
            self._service.require_folders()
            places = {
                "input": _path(folder), "recursive": recursive,
                "existing": _chosen(written["existing"]),
                "output": _path(written["output"]) or None,
            }
        return BatchOptions(
            form=_chosen(written["form"]),
            name=written["name"].strip() or "{stem}.txt",
            caption_from=written["caption_from"].strip() or None,
            wording=Wording(
                prefix=written["prefix"], suffix=written["suffix"], trigger=written["trigger"]
            ),
            asked=asked.options,
            models=asked.models,
            beside=tuple(
                asking.split_backbones(names.replace(",", asking.JOINT))
                for names in _split(written["beside"])
            ),
            **places,
        )

    def _stop(self, states: Sequence[str], mine: str, offered: str) -> list[Any]:
        for state in self._jobs.all():
            if state.state in states and self._is_open_to(_tokens(mine), state):
                self._jobs.stop(state.name)
        return self._look(mine, offered)

    # What is seen

    def _look(self, mine: str, offered: str) -> list[Any]:
        """Return how far the batches are that whoever asks may see, and what they have to fetch."""
        tokens = _tokens(mine)
        states = self._jobs.all()
        going_on = [
            state for state in states if not state.ended and self._is_open_to(tokens, state)
        ]
        ended = [state for state in states if state.ended and state.token in tokens]
        # Of those that have ended, one that was stopped in the line has the least to tell.
        told_last = sorted(ended, key=lambda state: bool(state.result or state.error))
        shown_one = next(iter([*going_on, *reversed(told_last)]), None)
        others = [
            state for state in states if not state.ended and not self._is_open_to(tokens, state)
        ]
        status = _OTHERS if others else _IDLE
        if shown_one is not None:
            status = self._report(shown_one)
        listed = [
            (state, "Somebody else's" if state in others else self._title(state))
            for state in states if not state.ended or state.token in tokens
        ]
        in_line = others or (going_on and len(listed) > 1)
        return [
            status,
            batch_report.line(listed) if in_line else "",
            gr.update(interactive=any(state.state == "running" for state in going_on)),
            gr.update(visible=any(state.state == "waiting" for state in going_on)),
            *self._offer(ended, offered),
        ]

    def _is_open_to(self, tokens: Sequence[str], state: BatchState) -> bool:
        """Say whether a batch may be looked at and stopped by whoever has these tokens.

        Those are one's own, and all where whoever opens the page may do anything.
        """
        return self._service.host.trusted or state.token in tokens

    def _title(self, state: BatchState) -> str:
        if uploads.folder_of(self._service, state) is None:
            return shown(state.input)
        return "1 uploaded picture" if state.total == 1 else f"{state.total} uploaded pictures"

    def _report(self, state: BatchState) -> str:
        folder = uploads.folder_of(self._service, state)

        def worded(text: str) -> str:
            if folder is not None:
                text = text.replace(f"{folder}{os.sep}", "")
            return self._service.without_paths(text)

        run = next((run for run in self._service.runs() if run.task == state.name), None)
        return batch_report.report(
            state, self._title(state), run, worded, uploaded=folder is not None
        )

    def _offer(self, ended: Sequence[BatchState], offered: str) -> tuple[Any, Any]:
        """Return the files of the last batch that has any, unless they are offered already."""
        for state in reversed(ended):
            files = uploads.downloads(self._service, state)
            if files:
                if state.name == offered:
                    return components.skip(), components.skip()
                serve = partial(self._served.put, state.token)
                try:
                    value = [
                        str(serve(file.name, partial(shutil.copyfile, file))) for file in files
                    ]
                except OSError as error:
                    log.warning(
                        "The files of the batch %s can't be offered (%s): make room in the "
                        "temporary folder and load the page anew.",
                        state.name, error.strerror or error,
                    )
                    return gr.update(value=None, visible=False), state.name
                return gr.update(value=value, visible=True), state.name
        return gr.update(value=None, visible=False), ""


def _reason(service: Service) -> str:
    """Say why folders can't be named."""
    try:
        service.require_folders()
    except NotAllowed as closed:
        return str(closed)
    return ""


def _choice(name: str, label: str, reasons: Mapping[str, str]) -> gr.Dropdown:
    """Return a choice whose first is chosen; under Gradio 3 a choice can't have another value."""
    choices = [f"{one}: {why}" for one, why in reasons.items()]
    return gr.Dropdown(
        choices=choices, value=choices[0], label=label, elem_id=element_id(f"batch-{name}")
    )


def _chosen(choice: str) -> str:
    return choice.partition(":")[0]


def _line(name: str, label: str, placeholder: str) -> gr.Textbox:
    return gr.Textbox(
        label=label, placeholder=placeholder, max_lines=1, elem_id=element_id(f"batch-{name}")
    )


def _lines(name: str, label: str, placeholder: str) -> gr.Textbox:
    return gr.Textbox(
        label=label, placeholder=placeholder, lines=2, elem_id=element_id(f"batch-{name}")
    )


def _tokens(kept: str | None) -> list[str]:
    """Return the tokens of the batches that a browser remembers."""
    return (kept or "").split()


def _path(written: str | None) -> str:
    """Return a path without the quotes that Windows puts around one that is copied."""
    return (written or "").strip().removeprefix('"').removesuffix('"')


def _split(written: str) -> tuple[str, ...]:
    return tuple(filter(None, map(str.strip, written.splitlines())))
