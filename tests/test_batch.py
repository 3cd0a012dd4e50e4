"""A folder of pictures becomes a data set: what is read, asked, written, and left alone."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from clip_interrogator_ext import ModelOptions, Service, StandaloneHost
from clip_interrogator_ext.batch import decoding, outputs
from clip_interrogator_ext.batch import folder as folder_module
from clip_interrogator_ext.batch.folder import Batch
from clip_interrogator_ext.batch.journal import NAME, Journal
from clip_interrogator_ext.batch.keys import lists_key
from clip_interrogator_ext.batch.looks import NAME as LOOKS
from clip_interrogator_ext.batch.options import EXISTING, BatchOptions
from clip_interrogator_ext.batch.pictures import find, name_texts
from clip_interrogator_ext.batch.wording import Wording
from clip_interrogator_ext.batch.writers import WRITERS
from clip_interrogator_ext.errors import BadOption, InterrogatorError, Interrupted, MissingModel
from clip_interrogator_ext.faces import cli
from clip_interrogator_ext.options import InterrogateOptions
from clip_interrogator_ext.results import Look, Part, Prompt
from clip_interrogator_ext.vocabulary.lists import Category

if TYPE_CHECKING:
    from clip_interrogator_ext.batch.results import BatchProgress, BatchResult

pytestmark = pytest.mark.hosts

TINY = ModelOptions(backbones=("tiny",), captioner="tiny")


class Engine:
    """Stands in for the service: a picture's prompt is its color, and every question is noted."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None, tuple[str, ...]]] = []
        self.captioned: list[list[int]] = []
        self.looked: list[list[int]] = []
        self.before: Callable[[int], None] = lambda _count: None
        self.before_captions: Callable[[], None] = lambda: None

    def lists(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {}, {}

    @contextlib.contextmanager
    def series(self, _task: str) -> Iterator[Any]:
        yield SimpleNamespace(give_way=lambda: None)

    def preparer(
        self, _models: ModelOptions, *, captions: bool, vectors: bool, task: str
    ) -> Callable[[Image.Image], Any]:
        assert captions or vectors, task
        return lambda image: image.getpixel((0, 0))[0] + (0 if captions else 1000)

    def captions(
        self, pictures: list[int], _options: InterrogateOptions, _models: ModelOptions, _task: str
    ) -> list[str]:
        self.before_captions()
        assert all(red < 1000 for red in pictures), "these were prepared without captions"
        self.captioned.append(pictures)
        return [f"caption {red}" for red in pictures]

    def vectors(self, pictures: list[int], _models: ModelOptions, _task: str) -> list[Any]:
        self.looked.append([red % 1000 for red in pictures])
        return [((float(red % 1000),),) for red in pictures]

    def interrogate(
        self, look: Look, options: InterrogateOptions, models: ModelOptions, _task: str
    ) -> Prompt:
        self.before(len(self.asked))
        assert look.vectors[0][0] == int(look.vectors[0][0])
        caption = look.caption if options.caption is None else options.caption
        self.asked.append((options.mode, caption, models.backbones))
        text = f"{caption}, by {models.backbones[0]}, (fine)"
        negative = Prompt("blurry", "negative", "", 1, 0.1, 0.0) if options.negative else None
        scores = (0.2, 0.1) if options.weigh else (None, None)
        return Prompt(
            text, options.mode, caption or "", 5, 0.25, 0.5,
            (Part("(fine)", "flavors", *scores),), negative,
        )


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return tmp_path / "photos"


def draw(path: Path, red: int) -> Path:
    """Draw a picture that has its own content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (red, 0, 0)).save(path, format="PNG")
    return path


def run(engine: Any, source: object, report=None, **options: Any) -> BatchResult:
    options = {"models": TINY, **options}
    return Batch(engine, BatchOptions(str(source), **options), report).run()


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file but the journal, by its name below the folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in (NAME, LOOKS)
    }


def texts(folder: Path) -> dict[str, str]:
    return {
        name: content.decode() for name, content in tree(folder).items()
        if not name.endswith((".png", ".jpg", ".webp", ".bmp"))
    }


def without_seconds(path: Path) -> bytes:
    """Return a file's content; what a picture took is not the same twice."""
    return re.sub(rb'"seconds": [\d.e-]+', b"", path.read_bytes())


# What is read


def test_a_folder_in_natural_order_with_its_subfolders_if_asked(engine, photos):
    """2 before 10, and sub-folders only when they are asked for."""
    for number, name in enumerate(("10.png", "2.png", "sub/1.png")):
        draw(photos / name, number)
    seen: list[BatchProgress] = []
    result = run(engine, photos, seen.append)
    assert [one.picture.name for one in seen] == ["2.png", "10.png"]
    assert (result.total, result.done, result.skipped, result.failures) == (2, 2, 0, ())
    assert run(engine, photos, recursive=True).total == 3


def test_a_pattern(engine, photos):
    """Stars within names, and two of them for folders at any depth."""
    for number, name in enumerate(("a.png", "b.jpg", "sub/c.png", "sub/deep/d.png")):
        draw(photos / name, number)
    assert find(f"{photos}/*.png").names == ("a.png",)
    assert find(f"{photos}/**/*.png").names == ("a.png", "sub/c.png", "sub/deep/d.png")
    assert find(f"{photos}/s*/[a-c].*").names == ("sub/c.png",)
    with pytest.raises(BadOption, match="no pictures"):
        find(f"{photos}/*.gif")


def test_a_list_of_files(photos, tmp_path):
    """Absolute or below the list's folder, with remarks, each picture once."""
    first, second = draw(photos / "a.png", 1), draw(photos / "sub" / "# b.png", 2)
    odd = draw(photos / " c\nd.png", 3)
    listed = photos / "list.txt"
    listed.write_text(f'# mine\na.png\n./sub/# b.png\n{first}\n\n{json.dumps(odd.name)}\n')
    found = find(str(listed))
    assert found.root == photos
    assert sorted(found.names) == sorted(["a.png", "sub/# b.png", " c\nd.png"])
    (tmp_path / "lists").mkdir()
    elsewhere = tmp_path / "lists" / "elsewhere.txt"
    elsewhere.write_text(f"{first}\n{second}\n")
    assert find(str(elsewhere)).root == photos


def test_loops_of_links_do_no_harm(engine, photos):
    """A link back to the folder above is not followed."""
    draw(photos / "a.png", 1)
    (photos / "loop").symlink_to(photos, target_is_directory=True)
    assert run(engine, photos, recursive=True).total == 1
    assert find(f"{photos}/**/*.png").names == ("a.png",)


@pytest.mark.parametrize("kind", ["missing", "empty", "binary", "no list"])
def test_a_bad_input_is_a_sentence(engine, photos, kind):
    """It names what was given."""
    photos.mkdir()
    source = photos / ("none" if kind == "missing" else "")
    if kind == "binary":
        source = photos / "data.bin"
        source.write_bytes(b"\0\1")
    if kind == "no list":
        source = photos / "passwords"
        source.write_text("# mine\nroot:secret\n")
    with pytest.raises(BadOption, match="photos") as caught:
        run(engine, source)
    assert caught.value.field == "input"
    assert "secret" not in str(caught.value)
    assert not engine.asked
    assert not (photos / NAME).exists()


# Where texts go


def test_pictures_of_one_stem_never_share_a_text(engine, photos, caplog):
    """They take their whole names, which is told; the others keep their stems."""
    for number, name in enumerate(("a.png", "a.jpg", "A.webp", "b.png")):
        draw(photos / name, number)
    run(engine, photos)
    assert set(texts(photos)) == {"a.png.txt", "a.jpg.txt", "A.webp.txt", "b.txt"}
    assert texts(photos)["a.jpg.txt"].startswith("caption 1")
    assert "The texts of 3 pictures" in caplog.text


def test_names_are_free_of_others_and_depend_on_names_alone(tmp_path):
    """Texts avoid each other, also in case only, and whatever is taken."""
    names = ["a.png", "a.png.png", "a.jpg", "A.PNG", "failures.png"]
    named = name_texts(names, "{stem}.txt", tmp_path, [tmp_path / "failures.txt"])
    assert len({str(path).casefold() for path in named}) == len(names)
    assert named[-1].name == "failures.png.txt"
    assert named == name_texts(names, "{stem}.txt", tmp_path, [tmp_path / "failures.txt"])


def test_another_folder_keeps_the_tree(engine, photos, tmp_path):
    """Nothing is written among the pictures, and names follow the pattern."""
    draw(photos / "a.png", 1)
    draw(photos / "sub" / "b.png", 2)
    before = tree(photos)
    out = tmp_path / "out"
    run(engine, photos, recursive=True, output=str(out), name="{name}.caption")
    assert set(texts(out)) == {"a.png.caption", "sub/b.png.caption"}
    assert tree(photos) == before


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"form": "tsv"}, "form"),
        ({"existing": "burn"}, "existing"),
        ({"form": "csv", "existing": "append"}, "existing"),
        ({"name": "{stem}"}, "name"),
        ({"name": "{stem}.png"}, "name"),
        ({"name": "../{stem}.txt"}, "name"),
        ({"name": "all.txt"}, "name"),
        ({"name": "{stem.__class__}.txt"}, "name"),
        ({"caption_from": "{stem"}, "caption_from"),
        ({"beside": (("other",),)}, "beside"),
        ({"form": "csv", "beside": (("tiny",),)}, "beside"),
    ],
)
def test_options_check_themselves(options, field):
    """Each mistake is told before anything is begun, with the field that has it."""
    with pytest.raises(BadOption) as caught:
        BatchOptions("photos", models=TINY, **options)
    assert caught.value.field == field


# Existing texts


def test_existing_texts_are_skipped_without_asking(engine, photos):
    """A blank one counts as none."""
    for number, name in enumerate("abc"):
        draw(photos / f"{name}.png", number)
    (photos / "a.txt").write_text("mine")
    (photos / "b.txt").write_text(" \n")
    result = run(engine, photos)
    assert (result.done, result.skipped) == (2, 1)
    assert texts(photos)["a.txt"] == "mine"
    assert texts(photos)["b.txt"].startswith("caption 1")
    assert len(engine.asked) == 2


@pytest.mark.parametrize(
    ("existing", "expected"),
    [
        ("replace", "trigger, caption 1, by tiny, (fine)"),
        ("append", "trigger, mine, caption 1, by tiny, (fine)"),
        ("prepend", "trigger, caption 1, by tiny, (fine), mine"),
    ],
)
def test_existing_texts_are_kept_or_joined(engine, photos, existing, expected):
    """Joined with one comma, the trigger word in front of all; what is replaced is kept as .bak."""
    draw(photos / "a.png", 1)
    (photos / "a.txt").write_bytes(b"\xef\xbb\xbfmine,\r\n")
    (photos / "a.txt.bak").write_text("an older one")
    wording = Wording(trigger="trigger")
    for _ in range(2):  # the second time nothing is left to do
        run(engine, photos, existing=existing, wording=wording)
        assert texts(photos)["a.txt"] == expected
    assert texts(photos)["a.txt.bak"] == "an older one"
    kept = tree(photos).get("a.txt.bak2")
    assert kept == (b"\xef\xbb\xbfmine,\r\n" if existing == "replace" else None)
    assert len(engine.asked) == 1


def test_a_text_that_is_not_utf8_is_not_joined_but_can_be_replaced(engine, photos):
    """Half a file in one encoding and half in another helps nobody."""
    draw(photos / "a.png", 1)
    (photos / "a.txt").write_bytes("Gemälde".encode("latin-1"))
    result = run(engine, photos, existing="append")
    assert "not UTF-8" in result.failures[0].reason
    assert not engine.asked
    run(engine, photos, existing="replace")
    assert tree(photos)["a.txt.bak"] == "Gemälde".encode("latin-1")


def test_what_was_edited_since_is_left_alone(engine, photos):
    """A text that somebody improved is not put back, nor is the engine asked again."""
    draw(photos / "a.png", 1)
    draw(photos / "b.png", 2)
    run(engine, photos, existing="replace")
    (photos / "a.txt").write_text("better")
    (photos / "b.txt").unlink()
    result = run(engine, photos, existing="replace")
    assert (result.done, result.earlier, result.skipped) == (1, 1, 1)
    assert texts(photos)["a.txt"] == "better"
    assert texts(photos)["b.txt"].startswith("caption 2")
    assert len(engine.asked) == 2


def test_a_text_written_while_the_engine_was_busy_is_not_overwritten(engine, photos):
    """It is looked at once more before the prompt is written."""
    draw(photos / "a.png", 1)
    engine.before = lambda _count: (photos / "a.txt").write_text("mine")
    assert run(engine, photos).skipped == 1
    assert texts(photos)["a.txt"] == "mine"


# The words


def test_wording():
    """Joined with commas, the trigger once; nothing is added to a negative prompt."""
    wording = Wording(prefix="a photo,", suffix="best", trigger="sks")
    text = wording.of_prompt("a cat, a category")
    assert text == "a photo, a cat, a category, best"
    assert wording.with_trigger(text) == f"sks, {text}"
    assert wording.with_trigger("SKS, a cat") == "SKS, a cat"
    said = {"mode": "fast", "text": "a cat", "negative": {"text": "blurry"}}
    assert wording.of_answer(said) == ("a photo, a cat, best", "blurry")
    assert wording.of_answer({**said, "mode": "negative"}) == ("a cat", None)
    assert Wording().of_prompt(", odd (text") == ", odd (text"


def list_of(name: str, *phrases: str, **parts: tuple[str, ...]) -> dict[str, Category]:
    own = {part: frozenset(some) for part, some in parts.items()}
    return {name: Category(name, phrases, None, phrases, own)}


def set_of(*choices: str, count: int | None = None, **more: Any) -> Any:
    """Return a set of word lists, as far as its keys need it."""
    return SimpleNamespace(
        choices=[SimpleNamespace(list=name, count=count) for name in choices],
        **{"without": (), "leave_out": (), **more},
    )


def test_answers_depend_on_the_lists_that_may_take_part():
    """Those of ours, those of other programs that are named, and what the set takes from them."""
    lists = {**list_of("flavors", "a", "b", light=("a",)), **list_of("wildcards:cats", "c")}
    every, cats = set_of("flavors"), set_of("wildcards:cats")
    key = lists_key(lists, every, None)
    assert lists_key(dict(lists), set_of("flavors"), None) == key
    changed = {**lists, **list_of("wildcards:cats", "d")}
    assert lists_key(changed, every, None) == key
    assert lists_key(changed, cats, None) != lists_key(lists, cats, None)
    named = ("wildcards:cats",)
    assert lists_key(changed, every, named) != lists_key(lists, every, named)
    assert lists_key({**lists, **list_of("flavors", "a", "c")}, every, None) != key
    moved = {**lists, **list_of("flavors", "a", "b", light=("b",))}
    light = set_of("flavors/light")
    assert lists_key(moved, every, None) == key
    assert lists_key(moved, light, None) != lists_key(lists, light, None)
    others = [
        set_of("flavors", count=3), set_of("flavors", without=("flavors/light",)),
        set_of("flavors", leave_out=("a",)), set_of("wildcards:cats"), None,
    ]
    assert len({key, *(lists_key(lists, other, None) for other in others)}) == 6


def test_words_that_are_left_out_are_asked_anew(engine, photos):
    """For another phrase takes the place of one that is left out; what is added costs nothing."""
    draw(photos / "a.png", 1)
    for number, asked in enumerate((
        InterrogateOptions(), InterrogateOptions(leave_out=("fine",)),
        InterrogateOptions(replacements=(("fine", "good"),)),
        InterrogateOptions(vocabulary="no artists"),
    ), 1):
        for wording in (Wording(), Wording(prefix="x")):
            run(engine, photos, asked=asked, wording=wording, existing="replace")
        assert len(engine.asked) == number
    assert engine.captioned == [[1]]


def test_a_caption_from_a_file_stands_in_for_the_captioners(engine, photos):
    """Also where it is the very file that the prompt is written to; without one all is as ever."""
    for number, name in enumerate("ab"):
        draw(photos / f"{name}.png", number)
    (photos / "a.txt").write_text("my\n caption")
    for _ in range(2):
        run(engine, photos, caption_from="{stem}.txt", existing="replace")
    assert texts(photos)["a.txt"].startswith("my caption, by tiny")
    assert [caption for _, caption, _ in engine.asked] == ["my caption", "caption 1"]
    for caption in ("one", "two"):
        (photos / "b.caption").write_text(caption)
        run(engine, photos, caption_from="{stem}.caption", existing="replace")
        assert texts(photos)["b.txt"].startswith(f"{caption}, by tiny")


# The forms


def test_every_form_is_documented():
    """docs/batch.md has a heading for each form and a row for each way with existing text."""
    text = (Path(__file__).parents[1] / "docs" / "batch.md").read_text(encoding="utf-8")
    for name in WRITERS:
        assert f"### {name}\n" in text
    for name in EXISTING:
        assert f"| `{name}` |" in text


def test_the_negative_prompt_in_each_form(engine, photos):
    """Below the prompt, in the script's syntax, in a column, in a field."""
    draw(photos / "a.png", 1)
    asked = InterrogateOptions(negative=True)
    for form in ("txt", "txt-one", "csv", "jsonl"):
        run(engine, photos, form=form, asked=asked)
    prompt = "caption 1, by tiny, (fine)"
    written = texts(photos)
    assert written["a.txt"] == f"{prompt}\nNegative prompt: blurry"
    assert written["prompts.txt"] == f'--prompt "{prompt}" --negative_prompt "blurry"\n'
    assert "picture,caption,prompt,negative,similarity,tokens" in written["prompts.csv"]
    assert json.loads(written["prompts.jsonl"])["negative"] == "blurry"
    assert len(engine.asked) == 2  # forms share answers; jsonl asks once more, for the scores
    assert engine.captioned == engine.looked[:1] == [[1]]


def test_a_table_has_the_backbones_side_by_side(engine, photos):
    """One pass for each set, which hands its caption on; names and quotes as CSV has them."""
    draw(photos / "a, b.png", 1)
    draw(photos / "é.png", 2)
    run(engine, photos, form="csv", beside=(("other", "third"),))
    assert [backbones for *_, backbones in engine.asked] == [("tiny",)] * 2 + [
        ("other", "third")] * 2
    assert [caption for _, caption, _ in engine.asked] == ["caption 1", "caption 2"] * 2
    assert engine.captioned == [[1, 2]]
    with (photos / "prompts.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["picture"] for row in rows] == ["a, b.png", "é.png"]
    assert rows[0]["prompt (tiny)"] == "caption 1, by tiny, (fine)"
    assert rows[0]["prompt (other + third)"] == "caption 1, by other, (fine)"
    run(engine, photos, form="jsonl", beside=(("other", "third"),))
    line = json.loads((photos / "prompts.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert [answer["backbones"] for answer in line["answers"]] == [["tiny"], ["other", "third"]]
    assert engine.captioned == [[1, 2]]


def test_a_picture_that_changes_between_two_passes_fails_alone(engine, photos):
    """It has no answer of the first backbones any more; the others go on."""
    for number in range(2):
        draw(photos / f"{number}.png", number)
    engine.before = lambda count: draw(photos / "0.png", 77) if count == 1 else None
    result = run(engine, photos, form="csv", beside=(("other",),))
    assert (result.done, len(result.failures)) == (1, 1)
    assert "changed between two passes" in result.failures[0].reason
    engine.before = lambda _count: None
    assert run(engine, photos, form="csv", beside=(("other",),)).done == 2


def test_jsonl_tells_all_that_is_known(engine, photos):
    """Scores, phrases, caption, models and seconds; the worded text beside the engine's own."""
    picture = draw(photos / "a.png", 1)
    run(engine, photos, form="jsonl", wording=Wording(trigger="sks"))
    line = json.loads((photos / "prompts.jsonl").read_text())
    assert line == {
        "picture": "a.png", "sha256": hashlib.sha256(picture.read_bytes()).hexdigest(),
        "caption": "caption 1", "text": "sks, caption 1, by tiny, (fine)",
        "prompt": "caption 1, by tiny, (fine)", "mode": "best", "similarity": 0.25, "tokens": 5,
        "seconds": pytest.approx(0.5, abs=0.2), "backbones": ["tiny"], "captioner": "tiny",
        "demo": False,
        "phrases": [
            {"phrase": "(fine)", "category": "flavors", "similarity": 0.2, "gain": 0.1}
        ],
    }


def test_kohya_names_pictures_by_their_full_paths(engine, photos):
    """As merge_captions_to_metadata.py --full_path does."""
    draw(photos / "sub" / "a.png", 1)
    run(engine, photos, recursive=True, form="kohya")
    assert json.loads((photos / "metadata.json").read_text()) == {
        str(photos / "sub" / "a.png"): {"caption": "caption 1, by tiny, (fine)"}
    }


def test_parquet_without_pyarrow(photos, monkeypatch):
    """A sentence says what to install."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(BadOption, match="pip install pyarrow"):
        BatchOptions(str(photos), form="parquet")


def test_parquet(engine, photos):
    """It holds what jsonl holds."""
    parquet = pytest.importorskip("pyarrow.parquet")
    draw(photos / "a.png", 1)
    run(engine, photos, form="parquet", beside=(("other",),))
    rows = parquet.read_table(photos / "prompts.parquet").to_pylist()
    assert [row["backbones"] for row in rows] == [["tiny"], ["other"]]
    assert rows[0]["phrases"][0]["phrase"] == "(fine)"
    assert rows[0]["negative"] is None


def test_a_file_that_somebody_else_wrote_is_not_lost(engine, photos):
    """It is refused before anything is asked, or kept as .bak; our own is simply replaced."""
    draw(photos / "a.png", 1)
    table = photos / "prompts.csv"
    table.write_text("precious")
    with pytest.raises(BadOption, match="there already"):
        run(engine, photos, form="csv")
    assert not engine.asked
    run(engine, photos, form="csv", existing="replace")
    assert (photos / "prompts.csv.bak").read_text() == "precious"
    draw(photos / "b.png", 2)
    run(engine, photos, form="csv", existing="replace")
    assert table.read_text(encoding="utf-8-sig").count("\n") == 3
    assert set(texts(photos)) == {"prompts.csv", "prompts.csv.bak"}


# Going on


def test_nothing_is_asked_twice(engine, photos, tmp_path):
    """Not for a picture that was renamed, nor for its copy, nor for another wording."""
    draw(photos / "a.png", 1)
    run(engine, photos)
    (photos / "a.png").rename(photos / "c.png")
    draw(photos / "b.png", 1)
    run(engine, photos, wording=Wording(prefix="x"))
    assert len(engine.asked) == 1
    assert texts(photos)["b.txt"] == "x, caption 1, by tiny, (fine)"


def test_other_options_and_other_content_are_asked(engine, photos):
    """A mode, a backbone, another picture under the same name; not the size of chunks."""
    draw(photos / "a.png", 1)
    for number, options in enumerate((
        {}, {"asked": InterrogateOptions(mode="fast")}, {"models": replace(TINY, captioner="x")},
    ), 1):
        run(engine, photos, existing="replace", **options)
        assert len(engine.asked) == number
    run(engine, photos, models=replace(TINY, chunk_size=7), existing="replace")
    assert len(engine.asked) == 3
    draw(photos / "a.png", 2)
    run(engine, photos)
    assert len(engine.asked) == 3  # a text is there
    run(engine, photos, existing="replace")
    assert len(engine.asked) == 4
    assert texts(photos)["a.txt"].startswith("caption 2")


def test_a_stop_ends_after_the_picture_in_flight_and_the_next_start_goes_on(engine, photos):
    """With the same result as a run never stopped, in a table too."""
    for number in range(4):
        draw(photos / f"{number}.png", number)
    batch = Batch(engine, BatchOptions(str(photos), form="csv", models=TINY))
    engine.before = lambda count: batch.stop() if count == 1 else None
    result = batch.run()
    assert (result.stopped, result.done, len(engine.asked)) == (True, 2, 2)
    assert (photos / "prompts.csv").read_text(encoding="utf-8-sig").count("\n") == 3
    result = run(engine, photos, form="csv")
    assert (result.stopped, result.done, result.earlier, len(engine.asked)) == (False, 4, 2, 4)
    whole = (photos / "prompts.csv").read_bytes()
    for path in (photos / "prompts.csv", photos / NAME):
        path.unlink()
    run(engine, photos, form="csv")
    assert (photos / "prompts.csv").read_bytes() == whole


def test_a_run_stopped_from_outside_stops_the_batch(engine, photos):
    """A WebUI's Interrupt, or a stop of the service's run: the picture in flight is left."""
    for number in range(3):
        draw(photos / f"{number}.png", number)

    def interrupt(count: int) -> None:
        if count == 1:
            raise Interrupted("The run was stopped.")

    engine.before = interrupt
    result = run(engine, photos)
    assert (result.stopped, result.done) == (True, 1)
    assert set(texts(photos)) == {"0.txt"}


def test_a_torn_last_line_and_a_damaged_one_are_survived(engine, photos):
    """The torn one is cut off, the damaged one skipped; what they held is asked again."""
    for number in range(3):
        draw(photos / f"{number}.png", number)
    run(engine, photos, form="jsonl")
    expected = without_seconds(photos / "prompts.jsonl")
    lines = (photos / NAME).read_bytes().splitlines(keepends=True)
    first = next(at for at, line in enumerate(lines) if b'"kind": "answer"' in line)
    lines[first] = b"\0" * 20 + b"\n"
    (photos / NAME).write_bytes(b"".join(lines) + b'{"kind": "ans')
    result = run(engine, photos, form="jsonl")
    assert (result.done, len(engine.asked)) == (3, 4)
    assert without_seconds(photos / "prompts.jsonl") == expected
    assert (photos / NAME).read_bytes().count(b'{"kind": "ans"') == 0


def test_one_batch_at_a_time_writes_into_a_folder(engine, photos):
    """A second one is told to wait, and a stray file of another is not touched."""
    draw(photos / "a.png", 1)
    journal = Journal(photos, "job")
    (photos / ".cliext-other.part").write_text("somebody's")
    try:
        with pytest.raises(InterrogatorError, match="Another batch"):
            run(engine, photos)
    finally:
        journal.close()
    run(engine, photos)
    assert (photos / ".cliext-other.part").exists()


def test_another_root_with_the_same_output_loses_nothing(engine, tmp_path):
    """Pictures of one name from two folders: the first one's text stays."""
    for number, name in enumerate(("one", "two")):
        draw(tmp_path / name / "a.png", number)
    run(engine, tmp_path / "one", output=str(tmp_path / "out"))
    result = run(engine, tmp_path / "two", output=str(tmp_path / "out"))
    assert result.skipped == 1
    assert texts(tmp_path / "out")["a.txt"].startswith("caption 0")


def test_pictures_of_two_folders_are_never_taken_for_one_another(engine, tmp_path):
    """Though they have one name, size and date, and one journal."""
    for number, name in enumerate(("one", "two"), 1):
        path = tmp_path / name / "a.bmp"
        path.parent.mkdir()
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
        os.utime(path, ns=(10**18, 10**18))
        run(engine, tmp_path / name, form="csv", output=str(tmp_path / "out" / f"{name}.csv"))
    assert "caption 2, by tiny" in (tmp_path / "out" / "two.csv").read_text(encoding="utf-8-sig")
    assert engine.captioned == [[1], [2]]


def test_a_table_that_somebody_edits_meanwhile_is_kept(engine, photos, caplog):
    """As .bak, when it is written anew."""
    for number in range(2):
        draw(photos / f"{number}.png", number)
    run(engine, photos, form="csv")
    draw(photos / "2.png", 2)
    engine.before = lambda _count: (photos / "prompts.csv").write_text("mine")
    run(engine, photos, form="csv")
    assert (photos / "prompts.csv.bak").read_text() == "mine"
    assert "caption 2" in (photos / "prompts.csv").read_text(encoding="utf-8-sig")
    assert "prompts.csv was changed meanwhile" in caplog.text


def test_a_text_has_one_name_whether_its_picture_is_found_alone_or_not(engine, photos):
    """A list, or a pattern, gives it the name that it has among its neighbours."""
    (photos / "sub").mkdir(parents=True)
    (photos / "2.jpg").write_bytes(b"bad")
    draw(photos / "2.png", 1)
    failed = run(engine, photos)
    draw(photos / "2.jpg", 2)
    run(engine, failed.failures_file)
    assert run(engine, f"{photos}/*.png").done == 1
    assert set(texts(photos)) == {"2.png.txt", "2.jpg.txt"}


# Failures


def test_a_picture_that_fails_is_reported_and_can_be_fed_back(engine, photos, tmp_path):
    """The others are done; the list, given as the input, adds what was repaired to the table."""
    for number, name in enumerate(("a.png", "sub/b.png", "c.png", "d.png")):
        draw(photos / name, number)
    (photos / "sub" / "b.png").write_bytes((photos / "c.png").read_bytes()[:50])
    options = {"recursive": True, "form": "jsonl", "output": str(tmp_path / "out") + "/"}
    engine.before = lambda _count: (photos / "d.png").unlink(missing_ok=True)
    seen: list[BatchProgress] = []
    result = run(engine, photos, seen.append, **options)
    # d.png may have been read ahead of its turn
    assert "sub/b.png" in {one.picture.relative_to(photos).as_posix() for one in result.failures}
    assert sum(bool(one.problem) for one in seen) == seen[-1].failed == len(result.failures)
    listed = result.failures_file.read_text()
    assert "damaged" in listed
    assert "\nsub/b.png\n" in listed
    draw(photos / "sub" / "b.png", 9)
    draw(photos / "d.png", 3)
    again = run(engine, result.failures_file, **options)
    assert not again.failures
    lines = (tmp_path / "out" / "prompts.jsonl").read_text().splitlines()
    names = [json.loads(line)["picture"] for line in lines]
    assert names[0] == "a.png"
    assert {"sub/b.png", "c.png"} <= set(names)
    run(engine, photos, **options)
    assert not (tmp_path / "out" / "failures.txt").exists()


def test_what_concerns_every_picture_ends_the_batch_with_a_sentence(engine, photos, monkeypatch):
    """A missing model, a full disk: what was finished is written, and the next start goes on."""
    for number in range(3):
        draw(photos / f"{number}.png", number)

    def missing(count: int) -> None:
        if count == 1:
            raise MissingModel("The weights are not here.")

    engine.before = missing
    with pytest.raises(MissingModel):
        run(engine, photos, form="csv")
    assert (photos / "prompts.csv").read_text(encoding="utf-8-sig").count("\n") == 2
    engine.before = lambda _count: None

    real = os.fsync

    def full(descriptor: int) -> None:
        if len(engine.asked) == 2:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InterrogatorError, match="make room"):
        run(engine, photos)
    monkeypatch.undo()
    assert run(engine, photos).done == 3


def test_a_name_that_is_not_utf8(engine, photos):
    """Its text stands beside it, and tables name it with escapes."""
    photos.mkdir()
    odd = os.fsdecode(b"\xff odd.png")
    try:
        draw(photos / odd, 1)
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    (photos / "bad.png").write_bytes(b"bad")
    result = run(engine, photos)
    assert result.done == 1
    assert (photos / os.fsdecode(b"\xff odd.txt")).is_file()
    for form in ("csv", "jsonl", "kohya"):
        run(engine, photos, form=form)
    assert r"\udcff odd.png" in (photos / "prompts.csv").read_text(encoding="utf-8-sig")
    assert json.loads((photos / "prompts.jsonl").read_text())["picture"].endswith(" odd.png")
    (photos / odd).write_bytes(b"bad too")
    assert len(run(engine, photos, form="csv").failures) == 2
    assert len(run(engine, photos / "failures.txt", form="csv").failures) == 2


def test_a_name_that_is_too_long_for_its_text_fails_alone(engine, photos):
    """The others go on."""
    draw(photos / "a.png", 1)
    draw(photos / ("x" * 250 + ".png"), 2)
    result = run(engine, photos, name="{name}.caption")
    assert result.done == 1
    assert "too long" in result.failures[0].reason


# The engine


def test_low_memory_makes_all_captions_first(engine, photos):
    """Two passes over the pictures; the captions outlive a stop in between."""
    for number in range(2):
        draw(photos / f"{number}.png", number)
    little = replace(TINY, low_memory=True)

    def interrupt(count: int) -> None:
        if count == 1:
            raise Interrupted("The run was stopped.")

    engine.before = interrupt
    seen: list[BatchProgress] = []
    assert run(engine, photos, seen.append, models=little).stopped
    assert engine.captioned == [[0, 1]]
    engine.before = lambda _count: None
    run(engine, photos, seen.append, models=little)
    assert engine.captioned == [[0, 1]]
    assert [caption for _, caption, _ in engine.asked] == ["caption 0", "caption 1"]
    assert [one.step for one in seen[:3]] == ["Captions", "Captions", "Prompts"]
    style = InterrogateOptions(mode="style")
    run(engine, photos, models=little, asked=style, existing="replace")
    assert len(engine.asked) == 4
    assert engine.captioned == [[0, 1]]


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_module, "_TOGETHER", 4)


@pytest.mark.usefixtures("small_groups")
def test_pictures_are_looked_at_in_groups(engine, photos):
    """Those that fail, are skipped, or are known take no place in them."""
    for number in range(12):
        draw(photos / f"{number}.png", number)
    (photos / "1.png").write_bytes(b"bad")
    (photos / "2.txt").write_text("mine")
    (photos / "3.caption").write_text("given")
    assert run(engine, photos, caption_from="{stem}.caption").done == 10
    assert engine.captioned == [[0, 4, 5], [6, 7, 8, 9], [10, 11]]
    assert engine.looked == [[0, 3, 4, 5], [6, 7, 8, 9], [10, 11]]
    run(engine, photos, existing="replace", caption_from="{stem}.caption")
    assert engine.looked[3:] == [[2]]


@pytest.mark.usefixtures("small_groups")
@pytest.mark.parametrize("stopped_at", [0, 1, 2, 3, 4, 5, 9])
def test_what_was_looked_at_is_not_looked_at_again(engine, photos, stopped_at):
    """After a stop anywhere the groups are those of a run never stopped."""
    for number in range(10):
        draw(photos / f"{number}.png", number)
    (photos / "2.png").write_bytes(b"bad")

    def interrupt(count: int) -> None:
        if count == stopped_at:
            raise Interrupted("The run was stopped.")

    engine.before = interrupt
    assert run(engine, photos).stopped == (stopped_at < 9)
    assert (photos / LOOKS).is_file() == (stopped_at < 9)
    engine.before = lambda _count: None
    assert run(engine, photos).done == 9
    assert engine.looked == engine.captioned == [[0, 1, 3, 4], [5, 6, 7, 8], [9]]
    assert len(engine.asked) == 9
    assert not (photos / LOOKS).exists()


@pytest.mark.usefixtures("small_groups")
def test_damaged_looks_are_looked_at_again(engine, photos, caplog):
    """With a warning; the captions are kept in the journal."""
    for number in range(3):
        draw(photos / f"{number}.png", number)
    batch = Batch(engine, BatchOptions(str(photos), models=TINY))
    engine.before = lambda _count: batch.stop()
    batch.run()
    (photos / LOOKS).write_bytes(b"{torn")
    assert run(engine, photos).done == 3
    assert "damaged" in caplog.text
    assert engine.captioned == [[0, 1, 2]]
    assert engine.looked == [[0, 1, 2], [1, 2]]


def test_no_captioner_fails_only_where_no_caption_is_given(engine, photos):
    """Where captions come from files; else it concerns all pictures."""
    for number in range(2):
        draw(photos / f"{number}.png", number)
    (photos / "1.caption").write_text("given")

    def needs(look: Look, options: InterrogateOptions, *others: Any) -> Prompt:
        if look.caption is None and options.caption is None:
            raise BadOption("caption", "The mode best needs a caption.")
        return real(look, options, *others)

    real, engine.interrogate = engine.interrogate, needs
    models = replace(TINY, captioner="none")
    result = run(engine, photos, models=models, caption_from="{stem}.caption")
    assert (result.done, len(result.failures)) == (1, 1)
    assert "There is no caption for" in result.failures[0].reason
    with pytest.raises(BadOption, match="needs a caption"):
        run(engine, photos, models=models)
    assert not engine.captioned


def test_a_picture_that_changes_midway_is_seen_as_it_is_read(engine, photos):
    """Known by its name and date, it turns out to be another: it is asked, with a caption."""
    photos.mkdir()
    path = photos / "a.bmp"
    Image.new("RGB", (8, 8), (1, 0, 0)).save(path)
    run(engine, photos)
    stamp = path.stat()
    Image.new("RGB", (8, 8), (2, 0, 0)).save(path)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    fast = InterrogateOptions(mode="fast")
    assert path.stat().st_size == stamp.st_size
    run(engine, photos, asked=fast, existing="replace")
    assert texts(photos)["a.txt"] == "caption 2, by tiny, (fine)"
    assert engine.captioned == [[1], [2]]


def test_decoding_runs_ahead_but_not_far(engine, photos, monkeypatch):
    """While the engine is busy with a group, the next one is being loaded, not all."""
    for number in range(12):
        draw(photos / f"{number}.png", number)
    monkeypatch.setattr(folder_module, "_TOGETHER", 2)
    loaded, ready, real = [], threading.Event(), decoding.load

    def load(path: Path, prepare: Any) -> Any:
        loaded.append(path)
        if len(loaded) > 3:
            ready.set()
        return real(path, prepare)

    def wait(count: int) -> None:
        if count == 0:
            assert ready.wait(60)
        assert len(loaded) <= count // 2 * 2 + 2 * 2 + 1

    monkeypatch.setattr(folder_module, "load", load)
    engine.before = wait
    assert run(engine, photos).done == 12


def test_a_table_can_be_read_midway(engine, photos, monkeypatch):
    """It is written now and then, whole each time."""
    monkeypatch.setattr(outputs, "_MIDWAY_SECONDS", 0.0)
    monkeypatch.setattr(outputs, "_MIDWAY_SHARE", 0)
    for number in range(3):
        draw(photos / f"{number}.png", number)
    sizes = []

    def look(_count: int) -> None:
        path = photos / "prompts.jsonl"
        sizes.append(len(path.read_text().splitlines()) if path.exists() else 0)

    engine.before = look
    run(engine, photos, form="jsonl")
    assert sizes == [0, 1, 2]


def test_the_real_engine_and_the_command_line(backbone_folder, tmp_path, capfd):
    """A summary on stdout, prompts in files only, and the exit codes of the other commands."""
    lists = tmp_path / "lists"
    lists.mkdir()
    for name in ("artists", "flavors", "mediums", "movements", "sites", "negative"):
        (lists / f"{name}.txt").write_text(f"{name} one\n{name} two")
    for number in range(2):
        draw(tmp_path / "photos" / f"{number}.png", number * 100)
    arguments = [
        "batch", str(tmp_path / "photos"), "--mode", "style", "--subject", "a cat",
        "--clip", str(backbone_folder), "--lists-dir", str(lists), "--device", "cpu",
        "--cache-dir", str(tmp_path / "cache"), "--trigger", "sks", "--replace", "one=1",
        "--leave-out", "two",
    ]
    assert cli.main(arguments) == 0
    printed = capfd.readouterr()
    assert printed.out == "2 of 2 done, 0 skipped.\n"
    assert "Prompts:" in printed.err
    text = (tmp_path / "photos" / "0.txt").read_text()
    assert text.startswith("sks, a cat, ")
    assert " 1" in text
    assert not {"one", "two"} & set(text.replace(",", "").split())
    assert cli.main([*arguments, "--quiet"]) == 0
    printed = capfd.readouterr()
    assert printed.out == "2 of 2 done (2 of them earlier), 0 skipped.\n"
    assert not printed.err
    (tmp_path / "photos" / "bad.png").write_bytes(b"bad")
    assert cli.main([*arguments, "--quiet"]) == 1
    printed = capfd.readouterr()
    assert "1 failed. Those that failed are listed in" in printed.out
    assert "bad.png" in printed.err
    assert cli.main(["batch", str(tmp_path / "none"), *arguments[2:]]) == 2
    assert "There is no folder" in capfd.readouterr().err


def test_generation_gets_its_turn_between_pictures(backbone_folder, tmp_path):
    """Whoever waits for the device has it before the next picture, and while none is asked."""
    for number in range(6):
        draw(tmp_path / "photos" / f"{number}.png", number * 40)
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "flavors.txt").write_text("one\ntwo")
    host, order = StandaloneHost("cpu"), []
    service = Service(host, cache_dir=tmp_path / "cache", lists_dir=lists)

    def generate() -> None:
        with host.exclusive("generation"):
            order.append("generation")

    def report(progress: BatchProgress) -> None:
        order.append(progress.done)
        if progress.done in (2, 4):
            waiting.append(threading.Thread(target=generate))
            waiting[-1].start()
            while not host.others_wait():
                pass

    waiting: list[threading.Thread] = []
    models = ModelOptions(backbones=(str(backbone_folder),), captioner="none")
    asked = InterrogateOptions(
        mode="style", categories=("flavors",), min_flavors=1, max_flavors=2
    )
    run(service, tmp_path / "photos", report, models=models, asked=asked)
    assert order == [1, 2, "generation", 3, 4, "generation", 5, 6]
