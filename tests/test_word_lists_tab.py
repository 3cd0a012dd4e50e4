"""The tab Word lists, as far as it works without a browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

gr = pytest.importorskip("gradio")

from PIL import Image

from clip_interrogator_ext.errors import BadWordList, Interrupted, NotAllowed
from clip_interrogator_ext.faces.tab import components
from clip_interrogator_ext.faces.tab.surroundings import Surroundings
from clip_interrogator_ext.faces.tab.word_lists import MOST_EDITED, MOST_SHOWN, Held, WordListsTab
from clip_interrogator_ext.host import StandaloneHost
from clip_interrogator_ext.results import Analysis
from clip_interrogator_ext.service import Service
from tests.posts import posted

pytestmark = pytest.mark.hosts

NASTY = '<img src=x onerror="alert(1)">'
EMPTY = Held()


@dataclass(frozen=True)
class Listed:
    """A word list, as the tab asks about it."""

    name: str
    phrases: tuple[str, ...]
    own: bool = False
    parts: Mapping[str, frozenset[str]] = field(default_factory=dict)
    about: str = ""
    count: int | None = None
    path: Path | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chosen:
    """A list in a set, and how many of its phrases."""

    list: str
    count: int | None = None


@dataclass(frozen=True)
class Set:
    """A set of word lists, as the tab asks about it."""

    name: str
    about: str = ""
    choices: tuple[Chosen, ...] = ()
    without: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()
    own: bool = False

    def missing(self, categories: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(one.list for one in self.choices if one.list not in categories)


OURS = {
    one.name: one for one in (
        Listed("flavors", tuple(f"flavor {number}" for number in range(1200)),
               parts={"light": frozenset({"flavor 7", "flavor 3"})}, about="How it looks."),
        Listed("mediums", ("pixel art", "an oil painting", "Oil pastel on oiled paper")),
    )
}


class Lists(Service):
    """A service whose lists are kept in memory."""

    def __init__(self, folder: Path) -> None:
        super().__init__(StandaloneHost("cpu"), cache_dir=folder / "cache")
        self.folder = folder
        self.mine: dict[str, str] = {}
        self.others: dict[str, Listed] = {}
        self.sets = {"all": Set("all", "All lists.")}
        self.have: dict[str, int] = {}
        self.asked: list[tuple[Any, ...]] = []
        self.stops = False

    def _allowed(self) -> None:
        if not self.host.trusted:
            raise NotAllowed("Changing word lists is switched off here.")

    def categories(self):
        mine = {
            name: Listed(name, tuple(text.split("\n")), own=True)
            for name, text in self.mine.items()
        }
        return {**OURS, **self.others, **mine}

    def word_sets(self):
        return self.sets

    def lists_folder(self):
        return self.folder / "lists"

    def list_text(self, name):
        return self.mine.get(name) or "\n".join(self.categories()[name].phrases)

    def save_list(self, name, text):
        self._allowed()
        if "<" in name:
            raise BadWordList(f"A list can't be named {name}.")
        self.mine[name] = text
        return [f"Line 2 of {name} can't be used."] if "{" in text else []

    def add_to_list(self, name, lines):
        self._allowed()
        before = self.mine[name].split("\n") if name in self.mine else []
        new = [line for line in lines if line not in before]
        self.mine[name] = "\n".join([*before, *new])
        return len(new)

    def import_list(self, path, name):
        self._allowed()
        called, _, suffix = name.rpartition(".")
        if suffix != "txt" or "<" in name:
            raise BadWordList(f"{name} holds no phrases.")
        if called.casefold() in map(str.casefold, self.mine):
            raise BadWordList(f"There is a list {called} already.")
        self.mine[called] = path.read_text(encoding="utf-8")
        return called

    def delete_list(self, name):
        self._allowed()
        del self.mine[name]

    def ready(self, models):
        return self.have

    def prepare(self, categories, models, task=None):
        self.asked.append(("prepare", categories, models.backbones))
        if self.stops:
            raise Interrupted("The run was stopped.")
        names = categories or ("flavors", "mediums")
        new = {name: len(self.categories()[name].phrases) for name in names}
        self.have |= new
        return new

    def get_classic(self, task=None):
        self._allowed()
        self.others["classic:flavors"] = Listed("classic:flavors", ("trending",))
        return self.folder

    def analyze(self, image, models=None, top=5, task=None, categories=None):
        self.asked.append(("analyze", image.size, top, categories))
        return Analysis({categories[0]: ((NASTY, 0.3), ("pixel art", 0.2))}, 0.1, demo=True)


@pytest.fixture
def service(tmp_path) -> Lists:
    return Lists(tmp_path)


@pytest.fixture
def tab(service) -> WordListsTab:
    return drawn(service)


def drawn(service: Service) -> WordListsTab:
    """Return the tab on a page of its own."""
    with gr.Blocks():
        other = components.image(label="Picture")
        return WordListsTab(service, Surroundings(), other)


def does(tab: WordListsTab, work: Any, *values: Any) -> dict[str, Any]:
    """Return what a button changes, by the names of the boxes."""
    names = tuple(tab.boxes)
    changed = dict(zip(names, tab.tried(names, work, *values), strict=True))
    return {name: change for name, change in changed.items() if change != components.skip()}


def shown(tab: WordListsTab, chosen: str = "", search: str = "") -> dict[str, Any]:
    """Return what is seen when the tab is opened."""
    answer = tab.show(chosen, search, "demo")
    return dict(zip(("message", "table", "sets", "chosen", "classic", "phrases"), answer,
                    strict=True))


def ends(tab: WordListsTab, steps: Any, names: Sequence[str]) -> dict[str, Any]:
    """Return how a run leaves the buttons and the boxes of these names."""
    *_, last = steps
    return dict(zip(("progress", "stop", "task", *"abc", *names), last, strict=True))


REFRESHED = ("message", "table", "sets", "chosen", "classic")


# What is seen


def test_lists_are_read_when_the_tab_is_opened(service):
    """Drawing it asks for none: the WebUI's start does not wait for them."""
    service.categories = service.word_sets = service.ready = None
    tab = drawn(service)
    for name in ("table", "sets", "winners", "message"):
        assert not tab.boxes[name].value


def test_the_table_says_whence_how_many_and_what_is_ready(service, tab):
    """Counts of the phrases and of those whose vectors are kept, for each list."""
    service.mine["dragons"] = "a red dragon\na wyvern"
    service.others["wildcards:animals"] = Listed("wildcards:animals", ("cat",), count=3)
    service.have = {"flavors": 12, "dragons": 2}
    table = shown(tab)["table"]
    main, _, folded = table.partition("<details")
    rows = [row.replace("</td>", "").split("<td") for row in main.split("<tr>")[2:]]
    cells = [[cell.split(">", 1)[1].split("<")[0] for cell in row[1:]] for row in rows]
    assert cells == [
        ["flavors", "ours", "1,200", "1", "12 of 1,200", "How it looks."],
        ["mediums", "ours", "3", "none", "no", ""],
        ["dragons", "yours", "2", "none", "ready", ""],
    ]
    assert "wildcards: 1 list with 1 phrase</summary>" in folded
    assert ">1, top 3<" in folded
    assert "flavors/light (2)" in folded


def test_names_and_texts_never_become_html(service, tab):
    """Lists of other programs are called and hold whatever somebody wrote."""
    service.others = {
        name: Listed(name, (NASTY,), parts={NASTY: frozenset({NASTY})}, about=NASTY)
        for name in (NASTY, f"wildcards:{NASTY}", f"{NASTY}:x")
    }
    service.sets = {NASTY: Set(NASTY, NASTY, (Chosen(NASTY), Chosen(NASTY + "2")), (NASTY,))}
    seen = shown(tab, NASTY)
    assert "<img" not in seen["table"] + seen["sets"]
    assert "&lt;img" in seen["table"]
    assert "&lt;img" in seen["sets"]
    assert "<img" not in does(tab, tab._choose, f"no {NASTY}", "", "", EMPTY)["message"]
    picture = posted(Image.new("RGB", (8, 8)))
    names = ("message", "winners")
    assert "<img" not in ends(tab, tab._test(picture, None, "demo", NASTY), names)["winners"]
    refused = does(tab, tab._import, [(NASTY, Path("x.txt"))], "", "", EMPTY, "demo")
    assert "<img" not in refused["message"]


def test_backbones_that_are_none_leave_the_lists_readable(tab):
    """The error is a sentence beside the table."""
    message, table, *_ = tab.show("", "", "")
    assert "at least one CLIP backbone" in message
    assert "not known" in table


def test_sets_say_what_they_hold_in_order_and_what_is_missing(service, tab):
    """With counts, what they leave out, and where one's own are written."""
    service.sets["fantasy"] = Set(
        "fantasy", "Dragons.", (Chosen("mediums", 3), Chosen("dragons")), ("artists",),
        ("blurry",), own=True,
    )
    sets = shown(tab)["sets"]
    assert "fantasy (yours)" in sets
    assert "mediums (top 3), dragons; without artists; leaves out blurry" in sets
    assert sets.count(">dragons<") == 1  # the one that is missing
    assert ">nothing<" in sets  # is missing in the set "all"
    assert f"sets.yaml in {service.folder}" in sets
    service.host.trusted = False
    assert str(service.folder) not in shown(tab)["sets"]


def test_a_search_filters_and_counts(tab):
    """All words must be there, in any case; what is not shown is counted too."""
    seen = shown(tab, "mediums", "OIL paint")["phrases"]
    assert seen["value"].splitlines() == ["an oil painting"]
    assert seen["label"] == "1 of 3 phrases match"
    seen = shown(tab, "flavors")["phrases"]
    assert len(seen["value"].splitlines()) == MOST_SHOWN
    assert seen["label"] == "1,200 phrases; the first 500 are shown"
    seen = does(tab, tab._search, "flavors", "flavor 11")["phrases"]
    assert seen["label"] == "120 of 1,200 phrases match"
    assert does(tab, tab._search, "flavors/light", "")["phrases"]["value"] == "flavor 3\nflavor 7"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("medium", "no word list &quot;medium&quot;. Did you mean mediums"),
     ("flavors/lihgt", "has no part &quot;lihgt&quot;. Did you mean light")],
)
def test_a_list_that_is_not_there_is_a_sentence(tab, name, sentence):
    """And no other list's phrases stay below its name."""
    seen = does(tab, tab._choose, name, "", "", Held(shown="mediums"))
    assert sentence in seen["message"]
    assert seen["phrases"]["value"] == ""
    assert seen["held"].shown == name


# Lists of one's own


def test_a_new_list_is_saved_shown_and_chosen(service, tab):
    """A name, phrases, Save; lines that can't be used are told."""
    answer = does(tab, tab._save, " dragons ", "a {red|green dragon", EMPTY, "", "demo")
    assert service.mine == {"dragons": "a {red|green dragon"}
    assert "dragons saved." in answer["message"]
    assert "Line 2 of dragons can&#x27;t be used." in answer["message"]
    assert answer["chosen"]["value"] == "dragons"
    assert "dragons" in answer["chosen"]["choices"]
    assert "dragons" in answer["table"]
    assert answer["held"] == Held("dragons", "dragons", "a {red|green dragon")
    assert "text" not in answer


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [("", "a wyvern", "Give the list a name first."), ("dragons", " \n", "Write one or more"),
     ("<b>", "a wyvern", "can&#x27;t be named &lt;b&gt;"),
     ("cats", "a wyvern", "You have a list cats already")],
)
def test_what_is_written_stays_when_saving_fails(service, tab, name, text, sentence):
    """Only the message changes."""
    service.mine["cats"] = "tabby"
    answer = does(tab, tab._save, name, text, EMPTY, "", "demo")
    assert sentence in answer["message"]
    assert set(answer) == {"message"}
    assert service.mine == {"cats": "tabby"}


def test_an_unforeseen_failure_is_a_sentence_and_a_log(service, tab, caplog):
    """A disk that is full, for one."""

    def full(name: str, text: str) -> list[str]:
        raise OSError("No space left on device")

    service.save_list = full
    answer = does(tab, tab._save, "dragons", "a wyvern", EMPTY, "", "demo")
    assert "OSError: No space left on device" in answer["message"]
    assert set(answer) == {"message"}
    assert caplog.records[-1].exc_info is not None


def test_a_list_changed_elsewhere_is_not_written_over_unasked(service, tab):
    """The first Save says so, the second writes; line ends alone are no change."""
    service.mine["cats"] = "tabby\r\nmanx\r\n"
    held = does(tab, tab._choose, "cats", "", "", EMPTY)["held"]
    saved = does(tab, tab._save, "cats", "tabby\nmanx\nfold", held, "", "demo")
    assert "cats saved." in saved["message"]
    held = Held("cats", "cats", "tabby\nmanx\nfold")
    service.mine["cats"] = "somebody else's"
    answer = does(tab, tab._save, "cats", "mine", held, "", "demo")
    assert "changed elsewhere" in answer["message"]
    assert service.mine["cats"] == "somebody else's"
    does(tab, tab._save, "cats", "mine", answer["held"], "", "demo")
    assert service.mine["cats"] == "mine"


def test_choosing_one_of_mine_opens_it(service, tab):
    """Others are shown only, and can be copied."""
    service.mine["cats"] = "# a comment\ntabby"
    answer = does(tab, tab._choose, "cats", "", "", EMPTY)
    assert (answer["name"], answer["text"]) == ("cats", "# a comment\ntabby")
    assert answer["delete"]["visible"]
    assert not answer["copy"]["visible"]
    answer = does(tab, tab._choose, "mediums", "", "# a comment\ntabby", answer["held"])
    assert (answer["name"], answer["text"]) == ("", "")
    assert answer["copy"]["visible"]
    assert not answer["delete"]["visible"]
    assert does(tab, tab._choose, "mediums", "", "", answer["held"]) == {}


def test_a_text_that_is_not_saved_stays(service, tab):
    """Another list is shown, a sentence says so, and the box keeps what was written."""
    service.mine["cats"] = "tabby"
    held = Held("cats", "cats", "tabby")
    answer = does(tab, tab._choose, "mediums", "", "tabby\nmanx", held)
    assert "The text of cats is not saved" in answer["message"]
    assert answer["phrases"]["value"].startswith("pixel art")
    assert not {"name", "text"} & set(answer)
    assert answer["held"] == replace(held, shown="mediums")
    assert does(tab, tab._choose, "cats", "", "tabby\nmanx", answer["held"])["message"] == ""
    assert set(does(tab, tab._copy, "mediums", "tabby\nmanx", held)) == {"message"}
    assert set(does(tab, tab._add, "fold", "cats", "", "tabby\nmanx", held, "demo")) == {"message"}
    does(tab, tab._save, "cats", "tabby\nmanx", answer["held"], "", "demo")
    assert service.mine["cats"] == "tabby\nmanx"


def test_a_copy_replaces_ours_once_it_is_saved(service, tab):
    """Deleted, ours is back."""
    copied = does(tab, tab._copy, "mediums", "", Held(shown="mediums"))
    assert copied["name"] == "mediums"
    assert copied["text"].startswith("pixel art\n")
    assert "it replaces ours in every set." in copied["message"]
    saved = does(tab, tab._save, "mediums", "ink", copied["held"], "", "demo")
    assert "It replaces ours" in saved["message"]
    assert saved["phrases"]["value"] == "ink"
    answer = does(tab, tab._delete, "mediums", "", "ink", saved["held"], "demo")
    assert "mediums deleted. Ours of that name is back." in answer["message"]
    assert answer["phrases"]["value"].startswith("pixel art")
    assert (answer["name"], answer["text"]) == ("", "")


def test_a_copy_of_another_programs_list_stands_beside_ours(service, tab):
    """So does one of a part."""
    service.others["classic:mediums"] = Listed("classic:mediums", ("oil",))
    assert does(tab, tab._copy, "classic:mediums", "", EMPTY)["name"] == "classic-mediums"
    part = does(tab, tab._copy, "flavors/light", "", EMPTY)
    assert (part["name"], part["text"]) == ("flavors-light", "flavor 3\nflavor 7\n")
    assert "replaces" not in part["message"]


def test_a_very_long_list_is_not_put_into_the_box(service, tab):
    """A sentence says what to do instead."""
    service.mine["long"] = "x" * (MOST_EDITED + 1)
    answer = does(tab, tab._choose, "long", "", "", EMPTY)
    assert answer["text"] == ""
    assert "too long to be edited here" in answer["message"]
    assert set(does(tab, tab._copy, "long", "", EMPTY)) == {"message"}


def test_phrases_are_added_to_mine(service, tab):
    """Those that are not there yet; a new name makes a list, ours stay as they are."""
    service.mine["cats"] = "tabby"
    answer = does(tab, tab._add, " manx \n\ntabby\n", "cats", "", "tabby",
                  Held("cats", "cats", "tabby"), "demo")
    assert service.mine["cats"] == "tabby\nmanx"
    assert "1 phrase added to cats." in answer["message"]
    assert answer["text"] == "tabby\nmanx"
    assert answer["phrases"]["value"] == "tabby\nmanx"
    assert answer["more"] == ""
    again = does(tab, tab._add, "manx", "cats", "", "", EMPTY, "demo")
    assert "All of that was in cats already." in again["message"]
    does(tab, tab._add, "puppy", "dogs", "", "", EMPTY, "demo")
    assert service.mine["dogs"] == "puppy"
    for name, sentence in (("mediums", "is not a list of yours"), ("", "Choose a list of yours"),
                           ("cats/x", "is not a list of yours")):
        refused = does(tab, tab._add, "ink", name, "", "", EMPTY, "demo")
        assert sentence in refused["message"]
        assert set(refused) == {"message"}
    assert set(service.mine) == {"cats", "dogs"}


def test_files_are_imported_under_their_own_names(service, tab, tmp_path):
    """One that can't be taken does not keep the others away; mine are not written over."""
    service.mine["cats"] = "tabby"
    files = []
    named = {"my dragons.txt": "a.txt", "Cats.txt": "b.txt", "x.yaml": "c.yaml"}
    for own_name, file in named.items():
        (tmp_path / file).write_text("a wyvern", encoding="utf-8")
        files.append((own_name, tmp_path / file))
    answer = does(tab, tab._import, files, "", "", EMPTY, "demo")
    assert service.mine == {"cats": "tabby", "my dragons": "a wyvern"}
    assert "Imported: my dragons." in answer["message"]
    assert "Cats.txt: There is a list Cats already." in answer["message"]
    assert "x.yaml: " in answer["message"]
    assert answer["chosen"]["value"] == "my dragons"
    assert answer["text"] == "a wyvern"
    assert "files first" in does(tab, tab._import, None, "", "", EMPTY, "demo")["message"]


def test_deleting_asks_and_spares_what_is_not_mine(service, tab):
    """Nothing is chosen where the user said no; a text that is not saved outlives its list."""
    service.mine["cats"] = "tabby"
    assert "Nothing was deleted." in does(tab, tab._delete, "", "", "", EMPTY, "demo")["message"]
    assert "only those" in does(tab, tab._delete, "mediums", "", "", EMPTY, "demo")["message"]
    held = Held("cats", "cats", "tabby")
    answer = does(tab, tab._delete, "cats", "", "tabby\nmanx", held, "demo")
    assert service.mine == {}
    assert "cats deleted." in answer["message"]
    assert answer["chosen"]["value"] is None
    assert "text" not in answer
    assert set(does(tab, tab._copy, "mediums", "tabby\nmanx", answer["held"])) == {"message"}
    does(tab, tab._save, "cats", "tabby\nmanx", answer["held"], "", "demo")
    assert service.mine == {"cats": "tabby\nmanx"}


def test_an_export_is_a_file_named_like_its_list(service, tab, tmp_path):
    """Whole, in a folder that every Gradio serves from."""
    service.others["wildcards:a/../b<c>"] = Listed("wildcards:a/../b<c>", ("ü", "b"))
    for name, file, text in (
        ("flavors", "flavors.txt", "\n".join(OURS["flavors"].phrases)),
        ("flavors/light", "flavors-light.txt", "flavor 3\nflavor 7\n"),
        ("wildcards:a/../b<c>", "wildcards-a-..-b-c-.txt", "ü\nb"),
    ):
        (served,) = does(tab, tab._export, name)["downloads"]["value"]
        assert Path(served).name == file
        assert Path(served).read_text(encoding="utf-8") == text
        assert Path(served).parent.parent == Path(tab._served._folder.name)
    assert "Choose a word list first." in does(tab, tab._export, None)["message"]


# Strangers


def test_strangers_look_only(service):
    """Whatever changes something is hidden and refused, and a sentence says why."""
    service.mine["cats"] = "tabby"
    service.host.trusted = False
    with gr.Blocks() as blocks:
        tab = WordListsTab(service, Surroundings(), components.image(label="Picture"))
    config = blocks.get_config_file()
    assert "switched off" in str(
        next(one["props"]["value"] for one in config["components"]
             if one["props"].get("elem_id") == "cliext-lists-closed")
    )
    assert not shown(tab)["classic"]["visible"]
    answer = does(tab, tab._choose, "mediums", "", "", EMPTY)
    assert not answer["copy"]["visible"]
    answer = does(tab, tab._choose, "cats", "", "", EMPTY)
    assert not answer["delete"]["visible"]
    assert answer["phrases"]["value"] == "tabby"
    refused = "Changing word lists is switched off here."
    for work, values in (
        (tab._save, ("x", "y", EMPTY, "", "demo")),
        (tab._add, ("manx", "cats", "", "", EMPTY, "demo")),
        (tab._import, ([("x.txt", Path("x.txt"))], "", "", EMPTY, "demo")),
        (tab._delete, ("cats", "", "", EMPTY, "demo")),
    ):
        answer = does(tab, work, *values)
        assert refused in answer["message"]
        assert set(answer) == {"message"}
    assert service.mine == {"cats": "tabby"}
    assert refused in ends(tab, tab._get_classic("demo"), REFRESHED)["message"]
    assert "downloads" in does(tab, tab._export, "cats")
    assert "computed" in ends(tab, tab._prepare_all("demo"), REFRESHED)["message"]


def test_what_changes_lists_is_hidden_from_strangers(service):
    """And there for the owner; looking, testing and preparing are there for all."""
    changing = ("lists-name", "lists-text", "lists-save", "lists-add", "lists-files",
                "lists-import")
    for trusted in (True, False):
        service.host.trusted = trusted
        with gr.Blocks() as blocks:
            WordListsTab(service, Surroundings(), components.image(label="Picture"))
        for name in changing:
            assert is_visible(blocks, name) == trusted, name
        for name in ("lists-chosen", "lists-search", "lists-prepare", "lists-test"):
            assert is_visible(blocks, name), name


def is_visible(blocks: gr.Blocks, name: str) -> bool:
    """Say whether an element and all that it stands in are visible."""
    config = blocks.get_config_file()
    by_id = {component["id"]: component["props"] for component in config["components"]}

    def search(node: dict, visible: bool) -> bool | None:
        own = by_id.get(node["id"], {})
        visible = visible and own.get("visible", True) is not False
        if own.get("elem_id") == f"cliext-{name}":
            return visible
        found = (search(child, visible) for child in node.get("children") or [])
        return next((one for one in found if one is not None), None)

    return bool(search(config["layout"], True))


# What takes a while


def test_vectors_are_prepared_for_one_list_or_all(service, tab):
    """A part stands for its list; the table says that they are ready."""
    end = ends(tab, tab._prepare_chosen("demo", "flavors/light"), REFRESHED)
    assert "The vectors of 1,200 phrases were computed." in end["message"]
    assert ">ready<" in end["table"]
    assert end["task"] == ""
    ends(tab, tab._prepare_all("a/b + c/d"), REFRESHED)
    assert service.asked == [
        ("prepare", ("flavors",), ("demo",)), ("prepare", None, ("a/b", "c/d")),
    ]
    assert "Choose a word list first." in ends(
        tab, tab._prepare_chosen("demo", None), REFRESHED
    )["message"]
    assert "at least one CLIP backbone" in ends(tab, tab._prepare_all(""), REFRESHED)["message"]


def test_a_stop_keeps_what_was_ready(service, tab):
    """The sentence says so, and the table is drawn anew."""
    service.stops = True
    end = ends(tab, tab._prepare_all("demo"), REFRESHED)
    assert "the vectors that were ready are kept" in end["message"]
    assert "flavors" in end["table"]


def test_the_classic_lists_are_offered_until_they_are_here(service, tab):
    """With a sentence that says what the button does."""
    seen = shown(tab)
    assert seen["classic"]["visible"]
    assert "installs the package clip-interrogator" in seen["table"]
    end = ends(tab, tab._get_classic("demo"), REFRESHED)
    assert "The classic lists are here" in end["message"]
    assert "classic:flavors" in end["chosen"]["choices"]
    assert not end["classic"]["visible"]
    assert "installs the package" not in end["table"]


def test_a_picture_tells_which_phrases_of_a_list_win(service, tab):
    """Of the list or part that is chosen; the picture of the tab Prompt stands in for none."""
    mine, theirs = (posted(Image.new("RGB", (side, side))) for side in (8, 16))
    names = ("message", "winners")
    end = ends(tab, tab._test(mine, theirs, "demo", "flavors/light"), names)
    assert "pixel art" in end["winners"]
    assert "Demo models are in use" in end["winners"]
    ends(tab, tab._test(None, theirs, "demo", "mediums"), names)
    assert service.asked == [
        ("analyze", (8, 8), 25, ("flavors/light",)), ("analyze", (16, 16), 25, ("mediums",)),
    ]
    for image, chosen, sentence in (
        (None, "mediums", "Put a picture into the box first."), (mine, "", "Choose a word list"),
    ):
        end = ends(tab, tab._test(image, None, "demo", chosen), names)
        assert sentence in end["message"]


# With the engine itself


def test_lists_are_files_of_the_users_folder(tmp_path):
    """Saved, added to, prepared, tested with the demo models, and deleted."""
    service = Service(StandaloneHost("cpu"), cache_dir=tmp_path / "c", lists_dir=tmp_path / "l")
    (tmp_path / "l").mkdir()
    tab = drawn(service)
    saved = does(tab, tab._save, "dragons", "a red dragon\n# a comment\n", EMPTY, "", "demo")
    assert "dragons saved." in saved["message"]
    (file,) = (tmp_path / "l").iterdir()
    assert file.name == "dragons.txt"
    assert "# a comment" in file.read_text(encoding="utf-8")
    opened = does(tab, tab._choose, "dragons", "", "", EMPTY)
    assert "# a comment" in opened["text"]
    assert opened["phrases"]["value"] == "a red dragon"
    more = does(tab, tab._add, "a wyvern", "dragons", "", "", EMPTY, "demo")
    assert more["phrases"]["value"] == "a red dragon\na wyvern"
    end = ends(tab, tab._prepare_chosen("demo", "dragons"), REFRESHED)
    assert "The vectors of 2 phrases were computed." in end["message"]
    row = end["table"].split(">dragons<")[1].split("</tr>")[0]
    assert ">yours<" in row
    assert ">ready<" in row
    again = ends(tab, tab._prepare_chosen("demo", "dragons"), REFRESHED)
    assert "All vectors were ready." in again["message"]
    picture = posted(Image.new("RGB", (32, 32), "red"))
    tested = ends(tab, tab._test(picture, None, "demo", "dragons"), ("message", "winners"))
    assert "a wyvern" in tested["winners"]
    assert "artists" not in tested["winners"]
    does(tab, tab._delete, "dragons", "", "", EMPTY, "demo")
    assert not file.exists()


def test_the_engine_refuses_strangers(tmp_path):
    """Each handler shows the engine's own sentence, and no file is made."""
    (tmp_path / "l").mkdir()
    (tmp_path / "l" / "cats.txt").write_text("tabby", encoding="utf-8")
    service = Service(StandaloneHost("cpu"), cache_dir=tmp_path / "c", lists_dir=tmp_path / "l")
    service.host.trusted = False
    tab = drawn(service)
    upload = tmp_path / "x.txt"
    upload.write_text("puppy", encoding="utf-8")
    for work, values in (
        (tab._save, ("x", "y", EMPTY, "", "demo")),
        (tab._add, ("manx", "cats", "", "", EMPTY, "demo")),
        (tab._import, ([("x.txt", upload)], "", "", EMPTY, "demo")),
        (tab._delete, ("cats", "", "", EMPTY, "demo")),
    ):
        answer = does(tab, work, *values)
        assert "switched off here" in answer["message"]
        assert set(answer) == {"message"}
    (file,) = (tmp_path / "l").iterdir()
    assert file.read_text(encoding="utf-8") == "tabby"
    assert str(tmp_path) not in "".join(map(str, tab.show("cats", "", "demo")))


def test_files_are_taken_over_by_the_engine(tmp_path):
    """A text as it is; an export brings the same phrases back."""
    (tmp_path / "l").mkdir()
    service = Service(StandaloneHost("cpu"), cache_dir=tmp_path / "c", lists_dir=tmp_path / "l")
    tab = drawn(service)
    upload = tmp_path / "odd.txt"
    upload.write_text("a red dragon\na wyvern\n", encoding="utf-8")
    answer = does(tab, tab._import, [("dragons.txt", upload)], "", "", EMPTY, "demo")
    assert "Imported: dragons." in answer["message"]
    assert service.categories()["dragons"].phrases == ("a red dragon", "a wyvern")
    (served,) = does(tab, tab._export, "dragons")["downloads"]["value"]
    assert Path(served).read_text(encoding="utf-8").split("\n")[:2] == ["a red dragon", "a wyvern"]
