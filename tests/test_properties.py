"""What holds for every text, list, name and prompt, as far as hypothesis can think."""

from __future__ import annotations

import csv
import json
import re
import shlex
import string
from contextlib import closing
from io import BytesIO, StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml
from hypothesis import assume, example, given
from hypothesis import settings as bounded
from hypothesis import strategies as st

from clip_interrogator_ext import phrases
from clip_interrogator_ext.batch.journal import NAME, Journal
from clip_interrogator_ext.batch.pictures import (
    Found,
    find,
    in_natural_order,
    list_of_failures,
    name_texts,
)
from clip_interrogator_ext.batch.results import Failure
from clip_interrogator_ext.batch.wording import Wording
from clip_interrogator_ext.batch.writers import WRITERS, Answer, Row, text_of
from clip_interrogator_ext.errors import BadOption
from clip_interrogator_ext.faces.api import body
from clip_interrogator_ext.faces.api.refusals import Refusal
from clip_interrogator_ext.options import ModelOptions, read_leave_out, read_replacements
from clip_interrogator_ext.vocabulary.lines import CONTROL, Line, Problems, expand, read_lines
from clip_interrogator_ext.vocabulary.lists import read_category
from clip_interrogator_ext.vocabulary.reading import load_yaml, read
from clip_interrogator_ext.vocabulary.sets import read_sets
from clip_interrogator_ext.words import WordRules

always = bounded(max_examples=60)

CHARACTER = st.characters(exclude_categories=["Cs"])
TEXT = st.text(CHARACTER, max_size=30)
ODD = st.text(" ,#\"'{}|\\()[]:;=-*&!%@`\t\nab\u00e9\u2028\x85\x1f\ufeff\U0001f431", max_size=12)
# A line as any editor may write it, that is not left out for what it holds.
LINE = st.one_of(TEXT, ODD).map(lambda text: re.sub(r"[\r\n]", " ", text)).filter(
    lambda text: not CONTROL.search(text)
)
WORD = st.text(string.ascii_lowercase, min_size=1, max_size=6)


# Lists


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@always
@given(st.lists(LINE, min_size=1, max_size=8))
def test_lines_are_read_as_they_were_written(encoding, lines):
    """In each encoding, none lost and none split."""
    assume(not lines[0].startswith("\ufeff"))
    with TemporaryDirectory() as folder:
        path, problems = Path(folder, "a.txt"), Problems()
        path.write_bytes("".join(f"{line}\n" for line in lines).encode(encoding))
        # Of a file in UTF-16 there is an empty line behind the last; empty ones are no phrases.
        assert [line for line in read_lines(path, problems) if line.text] == [
            Line(number, line) for number, line in enumerate(lines, 1) if line
        ]
        assert problems.told() == ()


@always
@given(st.binary(max_size=80))
def test_of_any_bytes_each_line_is_read_or_told(content):
    """Whatever they are, nothing is lost in silence."""
    assume(not content.startswith((b"\xff\xfe", b"\xfe\xff")))
    with TemporaryDirectory() as folder:
        path, problems = Path(folder, "a.txt"), Problems()
        path.write_bytes(content)
        found = read_lines(path, problems)
        rows = content.removeprefix(b"\xef\xbb\xbf").splitlines()
        assert len(found) + len(problems.told()) == len(rows)
        assert all(rows[line.number - 1] == line.text.encode() for line in found)


PIECE = st.text("ab ,", max_size=4)


@always
@given(PIECE, st.lists(st.tuples(st.lists(PIECE, min_size=1, max_size=3), PIECE), max_size=4))
def test_choices_stand_for_each_combination_in_order(head, rest):
    """As a plain recursion makes them."""

    def made(parts) -> list[str]:
        if not parts:
            return [""]
        (options, fixed), *others = parts
        return [one + fixed + end for one in options for end in made(others)]

    line = head + "".join(f"{{{'|'.join(options)}}}{fixed}" for options, fixed in rest)
    assert expand(line) == [" ".join((head + end).split()) for end in made(rest)]


NAMES = st.text(string.ascii_letters + " é", min_size=1, max_size=8).map(
    lambda text: " ".join(text.split())
).filter(bool)


@always
@given(st.lists(st.tuples(
    st.text(string.ascii_letters + ", '\"é()", max_size=12).map(lambda text: f"x{text}x"),
    st.lists(NAMES, max_size=2),
), max_size=6))
def test_a_table_is_read_as_csv_writes_it(rows):
    """Quotes and commas included; each phrase is in the parts that its row names."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "a.csv")
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(
                [["name", "kind"], *([name, ";".join(kinds)] for name, kinds in rows)]
            )
        found = read(path)
    assert found.problems.told() == ()
    assert found.lines == [" ".join(name.split()) for name, _ in rows]
    meant = {"yes": "kind", "no": "not kind"}
    assert {part: set(said) for part, said in found.parts.items()} == {
        part: {" ".join(name.split()) for name, kinds in rows
               if part in (meant.get(kind, kind) for kind in kinds)}
        for _, kinds in rows for part in (meant.get(kind, kind) for kind in kinds)
    }


LEAF = st.text(CHARACTER, max_size=10)
TREE = st.recursive(
    LEAF, lambda below: st.one_of(
        st.lists(below, max_size=4), st.dictionaries(LEAF, below, max_size=4)
    ), max_leaves=12,
)


def plain(value):
    """Return a tree of lines as texts."""
    if isinstance(value, dict):
        return {name: plain(below) for name, below in value.items()}
    return [plain(one) for one in value] if isinstance(value, list) else value.text


@always
@given(TREE, st.booleans())
def test_a_tree_is_read_as_yaml_writes_it(tree, flow):
    """Our reader of events agrees with the loader that is not safe from nesting and aliases."""
    written = yaml.safe_dump(tree, default_flow_style=flow, allow_unicode=True, width=10**6)
    written = re.sub(r"(?m)^\.\.\.\n", "", written)
    expected = yaml.load(written, yaml.BaseLoader)  # noqa: S506 - it makes texts only
    with TemporaryDirectory() as folder:
        path = Path(folder, "a.yaml")
        path.write_text(written, encoding="utf-8", newline="")
        assert plain(load_yaml(path)) == expected


@always
@given(st.dictionaries(NAMES, st.lists(
    st.tuples(NAMES, st.none() | st.integers(1, 256)), min_size=1, max_size=4
), max_size=3), st.lists(NAMES, max_size=3))
def test_sets_are_read_as_they_are_written(sets, leave_out):
    """Lists with and without numbers, in their order."""
    sets = {f"set {name}": choices for name, choices in sets.items()}
    tree = {
        name: {
            "lists": [one if count is None else {one: count} for one, count in choices],
            "leave_out": leave_out,
        }
        for name, choices in sets.items()
    }
    with TemporaryDirectory() as folder:
        path = Path(folder, "sets.yaml")
        path.write_text(json.dumps(tree), encoding="utf-8")  # which is YAML
        found = read_sets(path, own=True)
    assert {
        name: [(choice.list, choice.count) for choice in one.choices]
        for name, one in found.items()
    } == sets
    assert all(one.leave_out == tuple(leave_out) for one in found.values())


@always
@given(st.lists(LINE, max_size=12))
def test_a_list_has_each_phrase_once_and_parts_of_its_own(lines):
    """Whatever stands in it."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "artists.txt")
        path.write_text("\n".join(lines), encoding="utf-8", newline="")
        category = read_category(path)
    folded = [phrase.casefold() for phrase in category.phrases]
    assert len(set(folded)) == len(folded)
    assert all(phrase == phrase.strip() != "" for phrase in category.phrases)
    assert len(category.phrases) == 2 * len(category.lines)


# Words


@always
@given(st.lists(WORD, min_size=1, max_size=4), st.lists(WORD, max_size=12), st.data())
def test_left_out_words_are_in_no_caption_and_no_phrase(words, others, data):
    """However they are mixed with commas and other words; a second time changes nothing."""
    mixed = data.draw(st.permutations([*others, *words]))
    text = "".join(
        word + data.draw(st.sampled_from([" ", ", ", ". ", " and ", "-", " by "]))
        for word in mixed
    )
    rules = WordRules(leave_out=tuple(words))
    left = rules.text(text)
    assert not {word.casefold() for word in re.findall(r"\w+", left)} & set(words)
    assert rules.text(left) == left
    assert rules.phrase(text) == ""


@always
@given(TEXT, st.dictionaries(WORD, WORD, max_size=3))
def test_words_that_are_not_there_change_nothing(text, words):
    """But for spaces, of which one is enough."""
    left_out = tuple(f"{word}0" for word in words)
    rules = WordRules(left_out, tuple((f"{old}0", new) for old, new in words.items()))
    assert rules.text(text) == " ".join(text.split())


@always
@given(st.lists(WORD, max_size=5), st.dictionaries(WORD, WORD, max_size=5), st.sampled_from(",\n"))
def test_words_in_a_field_are_those_of_a_list(words, pairs, between):
    """With spaces around them, and an empty piece here and there."""
    assert read_leave_out(f" {between} ".join(["", *words, ""])) == tuple(words)
    assert read_leave_out(words) == tuple(words)
    written = f" {between} ".join(["", *(f"{old} = {new}" for old, new in pairs.items()), ""])
    assert read_replacements(written) == read_replacements(pairs) == tuple(pairs.items())


@always
@given(st.one_of(TEXT, ODD))
def test_any_text_of_replacements_is_read_or_refused(text):
    """Nothing else is raised."""
    try:
        assert all(old and isinstance(new, str) for old, new in read_replacements(text))
    except BadOption as error:
        assert error.field == "replacements"


# Prompts


@always
@given(st.lists(st.text("abcdefg,;", min_size=1, max_size=9), max_size=12), st.integers(1, 30))
def test_a_text_is_cut_at_the_last_word_that_fits(words, budget):
    """It stays in the budget, begins as the text does, and has no room for one word more."""

    def count(texts):
        # A token for three letters of a word, and one for each comma.
        return [sum(-(-len(word) // 3) + word.count(",") for word in text.split())
                for text in texts]

    text = " ".join(words)
    cut = phrases.fit_words(text, budget, count)
    assert count([cut])[0] <= budget
    assert text.startswith(cut)
    longer = [" ".join(words[:number]) for number in range(1, len(words) + 1)]
    fitting = [one for one in longer if count([one])[0] <= budget]
    if fitting and cut != text:
        assert cut == fitting[-1].rstrip(" ,;:")


@always
@given(st.one_of(TEXT, ODD), st.lists(st.one_of(TEXT, ODD), min_size=1, max_size=3), st.data())
def test_clicks_on_phrases_never_fail(text, found, data):
    """Whatever the user has written meanwhile, a phrase that is put back is there."""
    place = data.draw(st.integers(0, len(found) - 1))
    without = phrases.take_out(text, found[place])
    assert len(without) <= len(text) + 1
    assert found[place] in phrases.put_back(without, found, place)


PROMPT_LINES = st.lists(
    st.one_of(TEXT, ODD).map(lambda text: " ".join(text.split())), min_size=1, max_size=3
).map("\n".join).map(str.strip)


@always
@given(PROMPT_LINES, PROMPT_LINES)
@example("a\x85b", "")
def test_generation_data_is_split_as_it_is_joined(prompt, negative):
    """A prompt is any text but one that says it is a negative prompt or parameters."""
    said = f"{prompt}\nNegative prompt: {negative}\nSteps: 20, Sampler: Euler"
    assert phrases.split_parameters(said) == (prompt, negative)


# A batch's files


def said_of(text: str, negative: str | None, caption: str, similarity: float | None) -> dict:
    part = {"phrase": text, "category": "flavors", "similarity": similarity, "gain": None}
    return {
        "text": text, "mode": "fast", "caption": caption, "tokens": 5, "similarity": similarity,
        "seconds": 0.5, "parts": [part], "demo": False, "interrupted": False,
        "negative": None if negative is None else {"text": negative},
    }


FILE_NAME = st.one_of(TEXT, ODD).map(lambda text: re.sub(r"[/\0]", "", text) + "x.png")
PROMPT = st.one_of(TEXT, ODD, st.sampled_from(["", "--steps 5", "-- a", 'a "b" --x', "\\"]))


@st.composite
def rows_of(draw, negatives):
    rows = []
    for name in draw(st.lists(FILE_NAME, max_size=4, unique=True)):
        text = draw(PROMPT)
        negative = draw(PROMPT) if negatives else None
        similarity = draw(st.none() | st.floats(-1, 1))
        said = said_of(text, negative, draw(TEXT), similarity)
        answer = Answer(text, negative, ModelOptions(), said)
        rows.append(Row(Path("/root", name), name, "ab", (answer,)))
    return rows


ROWS = st.booleans().flatmap(rows_of)


def written(form: str, rows) -> bytes:
    file = BytesIO()
    WRITERS[form].write(rows, file)
    return file.getvalue()


@always
@given(ROWS)
def test_csv_reads_back(rows):
    """Every cell is as it was, whatever it holds."""
    lines = list(csv.reader(StringIO(written("csv", rows).decode("utf-8-sig"), newline="")))
    assert [line[:3] for line in lines[1:]] == [
        [row.name, row.answers[0].said["caption"], row.answers[0].text] for row in rows
    ]
    if rows and rows[0].answers[0].negative is not None:
        assert [line[3] for line in lines[1:]] == [row.answers[0].negative for row in rows]


@always
@given(ROWS)
def test_jsonl_and_metadata_read_back(rows):
    """A line each, and one object."""
    lines = written("jsonl", rows).split(b"\n")
    assert lines.pop() == b""
    found = [json.loads(line) for line in lines]
    assert [(one["picture"], one["text"], one.get("negative"), one["similarity"]) for one in found
            ] == [(row.name, row.answers[0].text, row.answers[0].negative,
                   row.answers[0].said["similarity"]) for row in rows]
    assert json.loads(written("kohya", rows)) == {
        str(row.path): {"caption": row.answers[0].text} for row in rows
    }


@always
@given(ROWS)
def test_parquet_reads_back(rows):
    """A row for each picture."""
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(BytesIO(written("parquet", rows))).to_pylist()
    assert [(one["picture"], one["text"], one["negative"]) for one in table] == [
        (row.name, row.answers[0].text, row.answers[0].negative) for row in rows
    ]


def prompts_from_file(content: bytes) -> list[dict[str, str]]:
    """Read prompts by the rules of the WebUIs' script "Prompts from file or textbox"."""
    shown = "\n".join(line.strip() for line in content.decode("utf8", "ignore").split("\n"))
    found = []
    for line in filter(None, map(str.strip, shown.splitlines())):
        said: dict[str, str] = {}
        words = shlex.split(line) if "--" in line else ["--prompt", line]
        at = 0
        while at < len(words):
            name = words[at]
            assert name in ("--prompt", "--negative_prompt"), f"{name} is not ours"
            end = at + 2
            while end < len(words) and not words[end].startswith("--"):
                end += 1
            assert end <= len(words)
            said[name[2:]] = " ".join(words[at + 1 : end])
            at = end
        found.append(said)
    return found


@always
@given(ROWS)
def test_the_webui_reads_the_prompts_of_one_file(rows):
    """A line for each picture, by the script's own rules; nothing in a prompt is a command."""
    def squeezed(text):
        return None if text is None else " ".join(text.split())

    found = prompts_from_file(written("txt-one", rows))
    assert [(one["prompt"], one.get("negative_prompt")) for one in found] == [
        (squeezed(row.answers[0].text), squeezed(row.answers[0].negative)) for row in rows
        if row.answers[0].text.split() or row.answers[0].negative is not None
    ]


@always
@given(ROWS)
def test_a_text_with_its_negative_prompt_reads_as_generation_data(rows):
    """As the WebUIs read a prompt that is pasted."""
    for row in rows:
        answer = row.answers[0]
        assume("Negative prompt:" not in answer.text and "Steps:" not in answer.text)
        prompt, negative = phrases.split_parameters(text_of(answer))
        assert (prompt, negative) == (answer.text.strip(), (answer.negative or "").strip())


TRIGGER = st.text("ab ,", max_size=6)


@always
@given(TRIGGER, TRIGGER, TRIGGER, st.text("ab ,", max_size=10))
def test_a_trigger_stands_in_front_once(trigger, prefix, suffix, text):
    """However often a text is worded, also where the trigger is of several words."""
    words = Wording(prefix, suffix, trigger)
    once = words.with_trigger(words.of_prompt(text))
    assert words.with_trigger(once) == once
    bare = trigger.strip().strip(",").strip()
    assert once.casefold().startswith(bare.casefold())


STEM = st.text("ab.-1é\u0301A ", min_size=1, max_size=3).filter(lambda text: text.strip(". "))


@always
@given(
    st.sets(st.tuples(st.sampled_from(["", "b/"]), STEM, st.sampled_from(["png", "jpg", "PNG"])),
            max_size=8),
    st.sampled_from(["{stem}.txt", "{name}.caption", "a-{stem}.txt"]),
    st.sets(STEM, max_size=3),
)
def test_no_two_pictures_share_a_text_and_none_is_taken(pictures, pattern, taken):
    """Also on file systems that don't tell cases or accents apart; a picture keeps its folder."""
    names = in_natural_order(f"{folder}{stem}.{kind}" for folder, stem, kind in pictures)
    reserved = [Path("out", f"{one}.txt") for one in taken]
    found = name_texts(names, pattern, Path("out"), reserved)

    def key(path):
        import unicodedata

        return unicodedata.normalize("NFC", str(path)).casefold()

    keys = [key(path) for path in found]
    assert len(set(keys)) == len(names)
    assert not set(keys) & {key(path) for path in reserved}
    assert [path.parent for path in found] == [Path("out", name).parent for name in names]
    assert name_texts(names, pattern, Path("out"), reserved) == found


@always
@given(
    st.sets(st.one_of(FILE_NAME, st.sampled_from(["# folder: x.png", '"x".png', " x.png"])),
            min_size=1, max_size=4),
    st.sampled_from(["", "#in", " in ", 'i"n', "i\nn"]),
    st.booleans(),
    st.one_of(TEXT, ODD),
)
def test_a_list_of_failures_names_the_pictures_again(names, below, elsewhere, reason):
    """Whatever their names hold, and wherever the list lies."""
    with TemporaryDirectory() as folder:
        root = Path(folder, "root")
        list_folder = Path(folder, "out") if elsewhere else root
        list_folder.mkdir()
        relative = [f"{below}/{name}" if below else name for name in names]
        relative = [name for name in relative if name.encode().__len__() < 200]
        assume(relative)
        found = Found(root, tuple(in_natural_order(relative)))
        failures = [Failure(root / name, reason) for name in found.names]
        path = list_folder / "failures.txt"
        path.write_bytes(list_of_failures(found, list_folder, failures))
        again = find(str(path))
        assert [again.root / name for name in again.names] == [
            root / name for name in found.names
        ]


@always
@given(
    st.lists(st.tuples(WORD, TEXT), min_size=1, max_size=5, unique_by=lambda one: one[0]),
    st.data(),
)
def test_a_journal_cut_anywhere_keeps_whole_lines_and_goes_on(answers, data):
    """What is read is what was written first, and what is added after that is read as well."""
    with TemporaryDirectory() as folder:
        path = Path(folder, NAME)
        with closing(Journal(Path(folder), "job")) as journal:
            head = path.stat().st_size
            for key, text in answers:
                journal.add({"kind": "answer", "key": key, "prompt": {"text": text}})
        content = path.read_bytes()
        cut = data.draw(st.integers(head, len(content)))
        path.write_bytes(content[:cut])
        whole = content[head:cut].count(b"\n")
        with closing(Journal(Path(folder), "job")) as journal:
            known = [key for key, _ in answers if journal.knows(key)]
            assert known == [key for key, _ in answers[:whole]]
            journal.add({"kind": "captions", "captions": {"new": "caption"}})
        with closing(Journal(Path(folder), "job")) as journal:
            assert journal.caption("new") == "caption"
            assert all(
                journal.answer(key) == {"text": text} for key, text in answers[:whole]
            )


# Requests

VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**19), 10**19)
    | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda below: st.lists(below, max_size=4) | st.dictionaries(TEXT, below, max_size=4),
    max_leaves=10,
)


@always
@given(st.dictionaries(TEXT, VALUE, max_size=5), st.booleans())
def test_a_body_is_read_as_json_writes_it(content, ascii_only):
    """Whether what is not ASCII is escaped or not."""
    assert body._parsed(json.dumps(content, ensure_ascii=ascii_only).encode()) == content


@always
@given(st.one_of(st.binary(max_size=60), ODD.map(str.encode), TEXT.map(str.encode)))
def test_any_bytes_are_a_body_or_refused(content):
    """With what is wrong, and with nothing that JSON could not hold again."""
    try:
        said = body._parsed(content)
    except Refusal as refusal:
        assert (refusal.status, refusal.error) == (422, "BadRequest")
    else:
        json.dumps(said, ensure_ascii=False).encode()
