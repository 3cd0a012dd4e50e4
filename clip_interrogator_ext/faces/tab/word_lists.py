"""The tab Word lists: what phrases there are, what is ready, and lists of one's own."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from html import escape
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import gradio as gr

from clip_interrogator_ext import catalog
from clip_interrogator_ext.errors import InterrogatorError
from clip_interrogator_ext.faces.tab import asking, components, elements, uploaded
from clip_interrogator_ext.faces.tab.elements import element_id
from clip_interrogator_ext.faces.tab.running import Running, stop, unforeseen
from clip_interrogator_ext.faces.tab.serving import Served

if TYPE_CHECKING:
    from PIL import Image

    from clip_interrogator_ext.faces.tab.surroundings import Surroundings
    from clip_interrogator_ext.faces.tab.uploaded import Posted
    from clip_interrogator_ext.service import Service

log = logging.getLogger(__name__)

MOST_SHOWN = 500  # phrases
MOST_EDITED = 1_000_000  # characters: with more, boxes of browsers become slow
WINNERS = 25
_MOST_TOLD = 3  # problems of a list
_PHRASES = "Phrases of the list"
_OURS, _YOURS = "ours", "yours"
_HEADINGS = ("Name", "From", "Phrases", "Parts", "Vectors", "What it holds")
_HEADINGS_OF_SETS = ("Name", "What it is", "What it holds, in order", "Missing")
_NO_PHRASES = "Write one or more phrases, each on a line of its own."
_CHOOSE = "Choose a word list first."
_CLASSIC = (
    "Get the classic lists installs the package clip-interrogator, without its dependencies; its "
    "112,000 phrases become the set classic."
)
_CLOSED = (
    "Changing, importing, deleting and installing word lists is switched off, because this WebUI "
    "listens to other machines."
)
_REFRESHED = ("message", "table", "sets", "chosen", "classic")
_TESTED = ("message", "winners")


@dataclass(frozen=True)
class Held:
    """Which list is shown, and the name and text that the box for editing was given last."""

    shown: str = ""
    name: str = ""
    text: str = ""


class WordListsTab:
    """The components of the tab, and what happens when they are used.

    What happens returns the changes of some `boxes` by their names. A text that is not saved stays
    in its box, whatever else is looked at.
    """

    def __init__(
        self, service: Service, surroundings: Surroundings, other_image: gr.Image
    ) -> None:
        """Draw the tab; `other_image` is that of the tab Prompt, which stands in for none."""
        self._service = service
        self._served = Served()
        self.task = gr.State("")
        self.boxes: dict[str, Any] = {"held": gr.State(Held())}
        self._draw_lists(surroundings)
        with gr.Row(elem_classes=[elements.PREFIX + "-columns"]):
            with gr.Column():
                self._draw_chosen()
            with gr.Column():
                self._draw_own()
                self._draw_test()
        self.boxes["sets"] = components.html("lists-sets")
        self._wire(other_image, streams=surroundings.streams)

    @property
    def _may_change(self) -> bool:
        """Whether whoever opens the page may change lists, and be told this machine's folders."""
        return self._service.host.trusted

    # Drawing

    def _draw_lists(self, surroundings: Surroundings) -> None:
        with gr.Row(elem_classes=[elements.PREFIX + "-actions"]):
            self.backbones = asking.backbones_box(surroundings, "lists-backbones")
            self.refresh = gr.Button("Refresh", elem_id=element_id("lists-refresh"))
            self.prepare_all = gr.Button(
                "Prepare all", elem_id=element_id("lists-prepare-all")
            )
            self.stop = gr.Button("Stop", elem_id=element_id("lists-stop"), interactive=False)
            self.boxes["classic"] = gr.Button(
                "Get the classic lists", visible=False, elem_id=element_id("lists-classic")
            )
        self.progress = components.html("lists-progress")
        self.boxes["message"] = components.html("lists-message")
        # Filled when the tab is opened: the WebUI's start does not wait for any list.
        self.boxes["table"] = components.html("lists-table")

    def _draw_chosen(self) -> None:
        self.chosen = self.boxes["chosen"] = gr.Dropdown(
            choices=[], value=None, allow_custom_value=True, label="Word list",
            info="Or a part of one, such as flavors/light.", elem_id=element_id("lists-chosen"),
        )
        self.search = gr.Textbox(
            label="Search", placeholder="Words that a phrase holds", max_lines=1,
            elem_id=element_id("lists-search"),
        )
        self.boxes["phrases"] = components.textbox(
            label=_PHRASES, lines=12, max_lines=12, interactive=False,
            elem_id=element_id("lists-phrases"),
        )
        with gr.Row(elem_classes=[elements.PREFIX + "-actions"]):
            self.prepare = gr.Button("Prepare vectors", elem_id=element_id("lists-prepare"))
            self.export = gr.Button("Export", elem_id=element_id("lists-export"))
            self.copy = self.boxes["copy"] = gr.Button(
                "Copy into yours to change it", visible=False, elem_id=element_id("lists-copy")
            )
            self.delete = self.boxes["delete"] = gr.Button(
                "Delete", variant="stop", visible=False, elem_id=element_id("lists-delete")
            )
        self.boxes["downloads"] = gr.File(
            label="Download", visible=False, interactive=False, file_count="multiple",
            elem_id=element_id("lists-downloads"),
        )

    def _draw_own(self) -> None:
        if not self._may_change:
            components.html("lists-closed", elements.note(_CLOSED, "warning"))
        with gr.Group(visible=self._may_change):
            self.name = self.boxes["name"] = gr.Textbox(
                label="Name of your list", max_lines=1, elem_id=element_id("lists-name"),
                info="A list of yours replaces ours of the same name; deleted, ours is back.",
            )
            self.text = self.boxes["text"] = gr.Textbox(
                label="Its phrases", lines=8, max_lines=16, elem_id=element_id("lists-text"),
                placeholder="A phrase a line; {soft|hard} light is two phrases",
            )
            self.save = gr.Button("Save", variant="primary", elem_id=element_id("lists-save"))
            self.more = self.boxes["more"] = gr.Textbox(
                label="Add to the chosen list", lines=2, elem_id=element_id("lists-more"),
                placeholder="A phrase a line",
            )
            self.add = gr.Button("Add", elem_id=element_id("lists-add"))
            self.files = uploaded.files(
                label="Files to import", file_types=[".txt", ".csv", ".yaml", ".yml"], height=120,
                elem_id=element_id("lists-files"),
            )
            self.take = gr.Button("Import", elem_id=element_id("lists-import"))

    def _draw_test(self) -> None:
        self.image = components.image(
            label="Picture", elem_id=element_id("lists-image"), height=240
        )
        self.test = gr.Button("Test with a picture", elem_id=element_id("lists-test"))
        self.boxes["winners"] = components.html("lists-winners")

    # Wiring

    def _wire(self, other_image: gr.Image, *, streams: bool) -> None:
        seen = [self.chosen, self.search]
        edited = [self.text, self.boxes["held"]]
        self.asked = [*seen, self.backbones]
        self.shown = [self.boxes[name] for name in (*_REFRESHED, "phrases")]
        for event in (self.refresh.click, self.backbones.input):
            components.on(event, self.show, self.asked, self.shown)
        found = ("message", "phrases")
        searched = partial(self.tried, found, self._search)
        outputs = [self.boxes[name] for name in found]
        # While somebody types, answers may come out of order: so the last one is looked up again.
        event = components.on(self.search.change, searched, seen, outputs)
        components.on(event.then, searched, seen, outputs)
        # While the box takes over what it was given, it still shows what stood there before.
        self._on(self.chosen.change, self._choose, [*seen, *edited], js=_as_given(4))
        self._on(self.copy.click, self._copy, [self.chosen, *edited])
        self._on(self.export.click, self._export, [self.chosen], ("message", "downloads"))
        self._on(
            self.save.click, self._save, [self.name, *edited, self.search, self.backbones]
        )
        self._on(self.add.click, self._add, [self.more, *seen, *edited, self.backbones])
        self._on(self.take.click, self._import, [self.files, self.search, *edited, self.backbones])
        asked = [*seen, *edited, self.backbones]
        self._on(self.delete.click, self._delete, asked, js=self._confirmed(len(asked)))
        runs: Sequence[tuple[Any, Callable[..., Any], Sequence[Any], Sequence[str]]] = (
            (self.prepare, self._prepare_chosen, [self.backbones, self.chosen], _REFRESHED),
            (self.prepare_all, self._prepare_all, [self.backbones], _REFRESHED),
            (self.boxes["classic"], self._get_classic, [self.backbones], _REFRESHED),
            (self.test, self._test, [self.image, other_image, self.backbones, self.chosen],
             _TESTED),
        )
        for button, function, inputs, names in runs:
            outputs = [*self._run_boxes(), *(self.boxes[name] for name in names)]
            components.on(button.click, function, inputs, outputs, streams=streams)
        components.on(
            self.stop.click, lambda task: stop(self._service, task), [self.task], queue=False
        )

    def _run_boxes(self) -> list[Any]:
        """Return the boxes that every run changes."""
        return [
            self.progress, self.stop, self.task, self.prepare, self.prepare_all, self.test
        ]

    def _on(
        self,
        event: Any,
        work: Callable[..., Mapping[str, Any]],
        inputs: Sequence[Any],
        names: Sequence[str] = (),
        js: str | None = None,
    ) -> None:
        """Have an event change the boxes of these names, or any."""
        names = names or tuple(self.boxes)
        outputs = [self.boxes[name] for name in names]
        components.on(event, partial(self.tried, names, work), inputs, outputs, js)

    def _confirmed(self, count: int) -> str:
        """Return JavaScript that hands over the chosen list, unless the user says no."""
        ask = json.dumps("Delete this list of yours?")
        return (
            f"(...values) => {{ const name = document.querySelector('#{self.chosen.elem_id} input')"
            f".value.trim(); values[0] = name && confirm({ask} + '\\n' + name) ? name : '';"
            f" return values.slice(0, {count}); }}"
        )

    def tried(
        self, names: Sequence[str], work: Callable[..., Mapping[str, Any]], *values: Any
    ) -> list[Any]:
        """Return what the work changes in the boxes of these names; an error is a sentence."""
        try:
            changes = work(*values)
        except InterrogatorError as error:
            changes = {"message": self._error(str(error))}
        except Exception as error:
            # The page shows a sentence; whoever runs the WebUI finds the rest in the log.
            log.exception("The word lists can't be shown or changed.")
            changes = {"message": self._error(unforeseen(self._service, error))}
        return _only(names, changes)

    def _error(self, sentence: str) -> str:
        return elements.note(self._service.without_paths(sentence), "error")

    # What is seen

    def show(self, chosen: str | None, search: str | None, backbones: str | None) -> list[Any]:
        """Return all lists, all sets, and the phrases of the chosen list as they are now."""

        def work() -> dict[str, Any]:
            refreshed = self._refreshed(backbones)
            if not (chosen or "").strip():  # one may have been chosen while the lists were read
                return refreshed
            try:
                phrases = self._view((chosen or "").strip(), search)
            except InterrogatorError:
                phrases = self._view("", search)  # the list has gone meanwhile
            return {**refreshed, "phrases": phrases}

        return self.tried((*_REFRESHED, "phrases"), work)

    def _names(self) -> list[str]:
        return list(self._service.categories())

    def _refreshed(self, backbones: str | None, **chosen: Any) -> dict[str, Any]:
        """Return the changes after which all lists and sets are shown as they are now."""
        ready: Mapping[str, int] | None = None
        said = sets = ""
        try:
            ready = self._service.ready(asking.models_of(backbones))
        except InterrogatorError as error:
            said += self._error(str(error))
        try:
            sets = self._sets()
        except InterrogatorError as error:
            said += self._error(str(error))
        names = self._names()
        offer = self._may_change and not any(name.startswith("classic:") for name in names)
        return {
            "message": said,
            "table": self._table(ready) + (elements.note(_CLASSIC) if offer else ""),
            "sets": sets,
            "chosen": gr.update(choices=names, **chosen),
            "classic": gr.update(visible=offer, interactive=True),
        }

    def _table(self, ready: Mapping[str, int] | None) -> str:
        """Return the lists that all take part, and folded, those of other programs and parts."""
        rows: dict[str, list[tuple[str, ...]]] = {"": []}
        phrases: dict[str, int] = {}
        parts = ""
        for name, one in self._service.categories().items():
            source = name.partition(":")[0] if ":" in name else ""
            count = len(one.phrases)
            phrases[source] = phrases.get(source, 0) + count
            top = "" if one.count is None else f", top {one.count:,}"
            origin = source or (_YOURS if one.own else _OURS)
            rows.setdefault(source, []).append((
                name, origin, f"{count:,}{top}", f"{len(one.parts):,}" if one.parts else "none",
                _readiness(ready, name, count),
                self._service.without_paths(" ".join([one.about, *one.problems[:_MOST_TOLD]])),
            ))
            if one.parts and not source:
                named = ", ".join(
                    f"{name}/{part} ({len(held):,})" for part, held in one.parts.items()
                )
                parts += _fold(
                    f"{_counted(len(one.parts), 'part')} of {name}", elements.note(named)
                )
        folds = "".join(
            _fold(
                f"{source}: {_counted(len(some), 'list')} with "
                f"{_counted(phrases[source], 'phrase')}",
                elements.table(_HEADINGS, some, source),
            )
            for source, some in rows.items() if source
        )
        return elements.table(_HEADINGS, rows[""], "Word lists") + folds + parts

    def _sets(self) -> str:
        """Return the sets, and where sets of one's own go."""
        categories = self._service.categories()
        rows = []
        for name, one in self._service.word_sets().items():
            holds = [
                choice.list if choice.count is None else f"{choice.list} (top {choice.count:,})"
                for choice in one.choices
            ]
            said = ", ".join(holds) or "all lists of ours and yours"
            said += f"; without {', '.join(one.without)}" if one.without else ""
            said += f"; leaves out {', '.join(one.leave_out)}" if one.leave_out else ""
            missing = ", ".join(one.missing(categories)) or "nothing"
            rows.append((f"{name} (yours)" if one.own else name, one.about, said, missing))
        where = "the folder of one's own lists"
        if self._may_change:
            where = str(self._service.lists_folder())
        return (
            "<h3>Sets</h3>" + elements.note(f"Sets of one's own go into sets.yaml in {where}.")
            + elements.table(_HEADINGS_OF_SETS, rows, "Sets of word lists")
        )

    def _known(self, chosen: str) -> tuple[bool, Sequence[str]]:
        """Return whether a list is one's own, and its phrases or those of its part."""
        categories = self._service.categories()
        if chosen in categories:
            return categories[chosen].own, categories[chosen].phrases
        whole, _, part = chosen.partition("/")
        one = categories.get(whole)
        if one is None:
            raise InterrogatorError(
                f'There is no word list "{chosen}".'
                + catalog.did_you_mean(catalog.nearest(chosen, categories))
            )
        if part not in one.parts:
            raise InterrogatorError(
                f'The word list {whole} has no part "{part}".'
                + catalog.did_you_mean(catalog.nearest(part, one.parts))
            )
        return False, [phrase for phrase in one.phrases if phrase in one.parts[part]]

    def _view(self, chosen: str, search: str | None) -> Any:
        """Return an update that shows the phrases of a list that hold all words of the search."""
        if not chosen:
            return gr.update(value="", label=_PHRASES)
        _, phrases = self._known(chosen)
        words = (search or "").casefold().split()
        found = [one for one in phrases if all(word in one.casefold() for word in words)]
        label = _counted(len(phrases), "phrase")
        if words:
            label = f"{len(found):,} of {label} match"
        if len(found) > MOST_SHOWN:
            label += f"; the first {MOST_SHOWN:,} are shown"
        return gr.update(value="\n".join(found[:MOST_SHOWN]), label=label)

    def _search(self, chosen: str | None, search: str | None) -> dict[str, Any]:
        return {"phrases": self._view((chosen or "").strip(), search)}

    def _choose(
        self, chosen: str | None, search: str | None, text: str | None, held: Held
    ) -> dict[str, Any]:
        name = (chosen or "").strip()
        # The box also tells of what it was given after a list was saved or deleted.
        if name == held.shown:
            return {}
        try:
            return self._opened(name, search, text, held)
        except InterrogatorError as error:
            none = self._opened("", search, text, held)
            return _joined(none, {
                "message": self._error(str(error)), "held": replace(none["held"], shown=name)
            })

    def _opened(
        self, chosen: str, search: str | None, text: str | None, held: Held
    ) -> dict[str, Any]:
        """Return the changes that show a list, and open one's own where no text is lost by it."""
        own = bool(chosen) and self._known(chosen)[0]
        changes: dict[str, Any] = {
            "message": "",
            "held": replace(held, shown=chosen),
            "phrases": self._view(chosen, search),
            "copy": gr.update(visible=self._may_change and bool(chosen) and not own),
            "delete": gr.update(visible=self._may_change and own),
            "downloads": gr.update(value=None, visible=False),
        }
        if _is_changed(text, held):
            if chosen != held.name:
                changes["message"] = elements.note(
                    f"The text of {held.name or 'your new list'} is not saved: it stays in its "
                    "box. Save it, or empty the box.", "warning",
                )
            return changes
        name = kept = ""
        if own and self._may_change:
            try:
                name, kept = chosen, self._service.list_text(chosen)
            except InterrogatorError as error:  # what can be read of it is shown all the same
                name = ""
                changes["message"] = self._error(str(error))
        if len(kept) > MOST_EDITED:
            changes["message"] = elements.note(_too_long(chosen), "warning")
            name = kept = ""
        return {**changes, "held": Held(chosen, name, kept), "name": name, "text": kept}

    # What is changed

    def _save(
        self,
        name: str | None,
        text: str | None,
        held: Held,
        search: str | None,
        backbones: str | None,
    ) -> dict[str, Any]:
        wanted, written = (name or "").strip(), text or ""
        if not wanted:
            raise InterrogatorError("Give the list a name first.")
        if not written.strip():
            raise InterrogatorError(_NO_PHRASES)
        here = self._service.categories().get(wanted)
        if here is not None and here.own:
            if wanted != held.name:
                raise InterrogatorError(
                    f"You have a list {wanted} already. Choose it to change it, or take another "
                    "name."
                )
            now = self._service.list_text(wanted)
            if _lines(now) != _lines(held.text):
                return {"held": replace(held, text=now), "message": elements.note(
                    f"{wanted} was changed elsewhere since you opened it. Save once more to write "
                    "your text over it.", "warning",
                )}
        unusable = self._service.save_list(wanted, written)
        said = f"{wanted} saved."
        if here is not None and not here.own:
            said += " It replaces ours of that name until you delete it."
        return _joined(
            self._refreshed(backbones, value=wanted),
            {
                "message": elements.note(said) + self._warnings(unusable),
                "held": Held(wanted, wanted, self._service.list_text(wanted)),
                "phrases": self._view(wanted, search),
                "copy": gr.update(visible=False),
                "delete": gr.update(visible=True),
            },
        )

    def _add(
        self,
        more: str | None,
        chosen: str | None,
        search: str | None,
        text: str | None,
        held: Held,
        backbones: str | None,
    ) -> dict[str, Any]:
        lines = list(filter(None, map(str.strip, (more or "").splitlines())))
        if not lines:
            raise InterrogatorError(_NO_PHRASES)
        wanted = (chosen or "").strip()
        if not wanted:
            raise InterrogatorError(
                "Choose a list of yours first, or write a new name into the box of word lists."
            )
        here = self._service.categories().get(wanted.partition("/")[0])
        if here is not None and (not here.own or "/" in wanted):
            raise InterrogatorError(
                f"{wanted} is not a list of yours. Choose one, or copy this one into yours."
            )
        if wanted == held.name and _is_changed(text, held):
            raise InterrogatorError(f"Save what you have changed in {wanted} first.")
        count = self._service.add_to_list(wanted, lines)
        said = f"{_counted(count, 'phrase')} added to {wanted}."
        if not count:
            said = f"All of that was in {wanted} already."
        return _joined(
            self._refreshed(backbones, value=wanted),
            {"message": elements.note(said), "more": ""},
            self._opened(wanted, search, text, held),
        )

    def _copy(self, chosen: str | None, text: str | None, held: Held) -> dict[str, Any]:
        wanted = (chosen or "").strip()
        if not wanted:
            raise InterrogatorError(_CHOOSE)
        if _is_changed(text, held):
            raise InterrogatorError("Save the text in the box for your list first, or empty it.")
        copied = self._whole(wanted)
        if len(copied) > MOST_EDITED:
            raise InterrogatorError(_too_long(wanted))
        name = wanted.replace(":", "-").replace("/", "-")
        said = f"This is a copy of {wanted}. Change it and save it."
        if name == wanted:
            said += f" Saved as {name}, it replaces ours in every set"
            said += ", and has no parts." if self._service.categories()[name].parts else "."
        return {
            "message": elements.note(said), "name": name, "text": copied,
            "held": Held(held.shown, "", copied),
        }

    def _import(
        self,
        files: Sequence[tuple[str, Path]] | None,
        search: str | None,
        text: str | None,
        held: Held,
        backbones: str | None,
    ) -> dict[str, Any]:
        if not files:
            raise InterrogatorError("Choose one or more files first.")
        taken: list[str] = []
        refused = ""
        for own_name, path in files:
            try:
                name = PurePosixPath(own_name.replace("\\", "/")).name
                taken.append(self._service.import_list(path, name))
            except InterrogatorError as error:
                refused += self._error(f"{own_name}: {error}")
        if not taken:
            return {"message": refused}
        return _joined(
            self._refreshed(backbones, value=taken[-1]),
            {"message": elements.note(f"Imported: {', '.join(taken)}.") + self._problems(taken)
             + refused},
            self._opened(taken[-1], search, text, held),
        )

    def _problems(self, names: Sequence[str]) -> str:
        """Return what is wrong with some of the lists, the first of it."""
        categories = self._service.categories()
        known = [categories[name] for name in names if name in categories]
        return "".join(self._warnings(one.problems) for one in known)

    def _warnings(self, problems: Sequence[str]) -> str:
        more = len(problems) - _MOST_TOLD
        told = [*problems[:_MOST_TOLD], *([f"... and {more:,} more."] if more > 0 else [])]
        return elements.notes(map(self._service.without_paths, told), "warning")

    def _delete(
        self,
        chosen: str | None,
        search: str | None,
        text: str | None,
        held: Held,
        backbones: str | None,
    ) -> dict[str, Any]:
        wanted = (chosen or "").strip()
        if not wanted:
            return {"message": elements.note("Nothing was deleted.")}
        if not self._known(wanted)[0]:
            raise InterrogatorError(f"{wanted} is not a list of yours: only those can be deleted.")
        self._service.delete_list(wanted)
        if held.name == wanted:
            held = replace(held, name="")
        left = wanted if wanted in self._names() else ""
        said = f"{wanted} deleted." + (" Ours of that name is back." if left else "")
        return _joined(
            self._refreshed(backbones, value=left or None),
            {"message": elements.note(said)},
            self._opened(left, search, text, held),
        )

    def _export(self, chosen: str | None) -> dict[str, Any]:
        wanted = (chosen or "").strip()
        if not wanted:
            raise InterrogatorError(_CHOOSE)
        served = self._serve(wanted, self._whole(wanted))
        return {"message": "", "downloads": gr.update(value=[str(served)], visible=True)}

    def _whole(self, chosen: str) -> str:
        """Return a list as it is written, or the phrases of its part."""
        _, phrases = self._known(chosen)
        if chosen in self._service.categories():
            return self._service.list_text(chosen)
        return "\n".join(phrases) + "\n"

    def _serve(self, name: str, text: str) -> Path:
        """Return a file with a text, to be downloaded under the list's name."""
        one = self._service.categories().get(name)
        suffix = one.path.suffix if one and one.own and one.path and one.path.is_file() else ".txt"
        safe = "".join(
            letter if letter.isalnum() or letter in " ._-" else "-" for letter in name
        )
        file = (safe.strip(" .")[:100] or "list") + suffix
        return self._served.put(text, file, lambda place: place.write_bytes(text.encode()))

    # What takes a while

    def _prepare_chosen(self, backbones: str | None, chosen: str | None) -> Iterator[list[Any]]:
        wanted = (chosen or "").strip().partition("/")[0]
        if not wanted:
            yield self._refused(_CHOOSE, _REFRESHED)
            return
        yield from self._prepare((wanted,), backbones)

    def _prepare_all(self, backbones: str | None) -> Iterator[list[Any]]:
        yield from self._prepare(None, backbones)

    def _prepare(
        self, lists: Sequence[str] | None, backbones: str | None
    ) -> Iterator[list[Any]]:
        def work(task: str) -> dict[str, int]:
            return self._service.prepare(lists, asking.models_of(backbones), task)

        def ended(running: Running[dict[str, int]]) -> dict[str, Any]:
            if running.stopped:
                said = elements.note("Stopped: the vectors that were ready are kept.", "warning")
            elif running.answer is None:
                return {"message": running.note()}
            else:
                count = sum(running.answer.values())
                said = elements.note(
                    f"The vectors of {_counted(count, 'phrase')} were computed." if count
                    else "All vectors were ready."
                )
            return _joined(self._refreshed(backbones), {"message": said})

        yield from self._run(work, ended, _REFRESHED)

    def _get_classic(self, backbones: str | None) -> Iterator[list[Any]]:
        def ended(running: Running[Path]) -> dict[str, Any]:
            if running.answer is None:
                return {"message": running.note(), "classic": gr.update(interactive=True)}
            said = elements.note("The classic lists are here, and with them the set classic.")
            return _joined(self._refreshed(backbones), {"message": said})

        yield from self._run(
            self._service.get_classic, ended, _REFRESHED, classic=gr.update(interactive=False)
        )

    def _test(
        self,
        image: Posted | None,
        other: Posted | None,
        backbones: str | None,
        chosen: str | None,
    ) -> Iterator[list[Any]]:
        wanted = (chosen or "").strip()
        try:
            picture = uploaded.opened(image or other)
            if not wanted:
                raise InterrogatorError(_CHOOSE)
        except InterrogatorError as error:
            yield self._refused(str(error), _TESTED)
            return

        def ended(running: Running[str]) -> dict[str, Any]:
            if running.answer is None:
                return {"message": running.note()}
            return {"winners": running.answer}

        yield from self._run(partial(self._tested, picture, wanted, backbones), ended, _TESTED)

    def _tested(
        self, picture: Image.Image, chosen: str, backbones: str | None, task: str
    ) -> str:
        """Return the phrases of a list that are nearest to a picture, as bars."""
        analysis = self._service.analyze(
            picture, asking.models_of(backbones), WINNERS, task, categories=(chosen,)
        )
        note = elements.note(elements.DEMO_NOTE) if analysis.demo else ""
        return note + elements.bars(analysis.categories)

    def _refused(self, sentence: str, names: Sequence[str]) -> list[Any]:
        return [
            *[components.skip()] * len(self._run_boxes()),
            *_only(names, {"message": elements.note(sentence, "error")}),
        ]

    def _run(
        self,
        work: Callable[[str], Any],
        ended: Callable[[Running[Any]], dict[str, Any]],
        names: Sequence[str],
        **meanwhile: Any,
    ) -> Iterator[list[Any]]:
        """Do the work beside the page; at its end change the boxes of these names by `ended`."""
        running = Running(self._service, work)
        closed, opened = gr.update(interactive=False), gr.update(interactive=True)
        for run in running:
            busy = [elements.progress(run), opened, running.task, closed, closed, closed]
            yield [*busy, *_only(names, {"message": "", **meanwhile})]
        yield ["", closed, "", opened, opened, opened, *self.tried(names, ended, running)]


def _as_given(count: int) -> str:
    """Return JavaScript that hands over the boxes' own values."""
    return f"(...values) => values.slice(0, {count})"


def _only(names: Sequence[str], changes: Mapping[str, Any]) -> list[Any]:
    """Return an update of the boxes of these names that changes some."""
    return [changes.get(name, components.skip()) for name in names]


def _joined(*changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return several changes as one, with all that they say."""
    joined = {name: change for some in changes for name, change in some.items()}
    return {**joined, "message": "".join(some.get("message", "") for some in changes)}


def _lines(text: str | None) -> list[str]:
    """Return the lines of a text, whatever ends them and it; browsers write ends of their own."""
    return [line.rstrip() for line in (text or "").strip().splitlines()]


def _is_changed(text: str | None, held: Held) -> bool:
    """Say whether the box for editing holds a text that would be lost."""
    return _lines(text) not in ([], _lines(held.text))


def _too_long(name: str) -> str:
    return (
        f"{name} is too long to be edited here. Export it, change it in a text editor, and import "
        "it under another name."
    )


def _readiness(ready: Mapping[str, int] | None, name: str, count: int) -> str:
    """Say how many of a list's phrases have their vectors."""
    if ready is None:
        return "not known"
    have = ready.get(name, 0)
    if have >= count:
        return "ready"
    return f"{have:,} of {count:,}" if have else "no"


def _counted(count: int, thing: str) -> str:
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def _fold(summary: str, content: str) -> str:
    """Return content that is folded away."""
    return (
        f'<details class="{elements.PREFIX}-fold"><summary>{escape(summary)}</summary>{content}'
        "</details>"
    )
