"""The tab Models: what can be chosen, what is here, and what is loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import gradio as gr

from clip_interrogator_ext import catalog
from clip_interrogator_ext.errors import InterrogatorError
from clip_interrogator_ext.faces.tab import components, elements
from clip_interrogator_ext.faces.tab.elements import element_id
from clip_interrogator_ext.faces.tab.running import Running, stop

if TYPE_CHECKING:
    from clip_interrogator_ext.results import ModelPlace
    from clip_interrogator_ext.service import Service

_HEADINGS = ("Name", "Parameters", "Download", "On this machine", "What it suits")


class ModelsTab:
    """The components of the tab, and what happens when they are used."""

    def __init__(self, service: Service, *, streams: bool) -> None:
        self._service = service
        self._streams = streams
        self.task = gr.State("")
        may_change = service.host.trusted
        self.progress = components.html("models-progress")
        self.message = components.html("models-message")
        self.loaded = components.html("loaded")
        with gr.Row(elem_classes=[elements.PREFIX + "-actions"]):
            self.refresh = gr.Button("Refresh", elem_id=element_id("models-refresh"))
            self.unload = gr.Button("Unload", elem_id=element_id("models-unload"))
        with gr.Row(elem_classes=[elements.PREFIX + "-actions"], visible=may_change):
            self.name = gr.Dropdown(
                choices=[*catalog.BACKBONES, *catalog.CAPTIONERS], value=None,
                allow_custom_value=True, label="Model", elem_id=element_id("model"),
                info="A row of the tables below, or any architecture/pretrained of open_clip.",
            )
            self.download = gr.Button("Download", elem_id=element_id("download"))
            self.stop = gr.Button("Stop", elem_id=element_id("models-stop"), interactive=False)
            self.delete = gr.Button("Delete", variant="stop", elem_id=element_id("delete"))
        if not may_change:
            components.html("models-closed", elements.note(
                "Downloading and deleting models is switched off, because this WebUI listens to "
                "other machines.", "warning",
            ))
        self.tables = components.html("models-tables")
        self._wire()

    def _wire(self) -> None:
        on = components.on
        shown = [self.loaded, self.tables]
        on(self.refresh.click, self.show, [], shown)
        on(self.unload.click, self._unload, [], [self.message, *shown])
        on(self.download.click, self._download, [self.name],
           [self.progress, self.message, self.download, self.stop, self.task, *shown],
           streams=self._streams)
        on(self.stop.click, lambda task: stop(self._service, task), [self.task], queue=False)
        ask = json.dumps("Delete the files of this model?")
        confirmed = (
            f"() => {{ const name = document.querySelector('#{self.name.elem_id} input').value;"
            f" return name && confirm({ask} + '\\n' + name) ? name : ''; }}"
        )
        on(self.delete.click, self._delete, [self.name], [self.message, *shown], js=confirmed)

    def show(self) -> tuple[str, str]:
        """Return what is loaded, and the tables of what can be chosen."""
        return self._loaded(), self._tables()

    def _loaded(self) -> str:
        status = self._service.status()
        if not status.loaded:
            return elements.note("No model is loaded.")
        rows = [
            (self._service.without_paths(one.name), one.kind, one.device,
             elements.size(one.size_bytes))
            for one in status.loaded
        ]
        return elements.note(
            f"Loaded now: {elements.size(status.size_bytes)}"
        ) + elements.table(("Name", "Kind", "Device", "Memory"), rows, "Loaded models")

    def _tables(self) -> str:
        backbones = [
            self._row(name, row, f"{row.suits[:1].upper()}{row.suits[1:]}. {row.why}")
            for name, row in catalog.BACKBONES.items()
        ]
        captioners = [self._row(name, row, row.why) for name, row in catalog.CAPTIONERS.items()]
        return (
            "<h3>CLIP backbones</h3>" + elements.table(_HEADINGS, backbones, "CLIP backbones")
            + "<h3>Captioners</h3>" + elements.table(_HEADINGS, captioners, "Captioners")
        )

    def _row(
        self, name: str, row: catalog.Backbone | catalog.CaptionerRow, suits: str
    ) -> tuple[str, ...]:
        return (
            name, f"{row.parameters} M", elements.size(row.download_bytes),
            self._where(self._place(name)), suits,
        )

    def _place(self, name: str) -> ModelPlace | None:
        try:
            return self._service.place(name)
        except InterrogatorError:
            return None  # this open_clip does not know it

    def _where(self, place: ModelPlace | None) -> str:
        if place is None:
            return "no"
        if not self._service.paths_open:
            return elements.size(place.size_bytes)
        return f"{elements.size(place.size_bytes)} in {place.path}"

    def _unload(self) -> tuple[str, str, str]:
        held = self._service.status().size_bytes
        self._service.unload()
        return elements.note(f"{elements.size(held)} given back."), *self.show()

    def _download(self, name: str | None) -> Iterator[list[Any]]:
        idle = [gr.update(interactive=True), gr.update(interactive=False), ""]
        skip = [components.skip(), components.skip()]
        if not name:
            yield ["", elements.note("Choose a model first.", "error"), *idle, *skip]
            return
        running = Running(self._service, lambda task: self._service.download(name, task))
        for run in running:
            busy = [gr.update(interactive=False), gr.update(interactive=True), running.task]
            yield [elements.progress(run), "", *busy, *skip]
        if running.answer is None:
            yield ["", running.note(), *idle, *skip]
        else:
            yield ["", elements.note(f"{name} is here."), *idle, *self.show()]

    def _delete(self, name: str | None) -> tuple[Any, ...]:
        if not name:
            return elements.note("Nothing was deleted."), components.skip(), components.skip()
        try:
            freed = self._service.delete(name)
        except InterrogatorError as error:
            told = self._service.without_paths(str(error))
            return elements.note(told, "error"), components.skip(), components.skip()
        return elements.note(f"{name} deleted: {elements.size(freed)} freed."), *self.show()
