"""Word lists of every kind are read, and what is wrong with them is told by file and line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clip_interrogator_ext.errors import BadWordList
from clip_interrogator_ext.vocabulary import lines, reading
from clip_interrogator_ext.vocabulary.lines import expand
from clip_interrogator_ext.vocabulary.reading import Read, count_of, name_of, read


@pytest.fixture
def write(tmp_path):
    def written(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return written


def problem(found: Read) -> str:
    """Return the only problem of a list."""
    [one] = found.problems.told()
    return one


def test_comments_blank_lines_and_marks_are_not_phrases(write):
    """A list in our format may have a BOM, Windows line ends and comments."""
    path = write("a.txt", "\ufeff# a list\r\n\r\n  oil \r\n,\r\nink  wash\r\n")
    assert read(path).lines == ["oil", "ink wash"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_encodings_that_say_what_they_are_are_read(write, encoding):
    """As Windows' editor writes them."""
    mark = "\ufeff" if encoding.endswith(("-le", "-be")) else ""
    path = write("a.txt", f"{mark}naïve\r\n夜\r\n".encode(encoding))
    assert read(path).lines == ["naïve", "夜"]


def test_a_line_in_another_encoding_is_left_out_and_named(write):
    """The other lines are read."""
    path = write("a.txt", b"first\nna\xefve\nlast\n")
    found = read(path)
    assert found.lines == ["first", "last"]
    assert problem(found) == (
        f"{path}, line 2: It is not UTF-8: save the file as UTF-8. The line is left out."
    )


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("x" * 10_000, "It has 10,000 characters, more than 1,000."),
        ("a\0b", "It holds signs that are no text."),
        ("{a|b", "Its braces don't close"),
        ("a} light", "Its braces don't close"),
        ("{a|{b|c}}", "stand inside each other"),
        ("".join("{a|b|c|d}" for _ in range(6)), "It stands for 4,096 phrases, more than 256."),
    ],
    ids=["long", "binary", "open", "closed", "nested", "exploding"],
)
def test_a_line_that_can_not_be_used_is_left_out_and_named(write, line, sentence):
    """The rest of its list loads."""
    path = write("a.txt", f"first\n{line}\nlast\n")
    found = read(path)
    assert found.lines == ["first", "last"]
    assert problem(found).startswith(f"{path}, line 2: ")
    assert sentence in problem(found)


def test_of_an_endless_list_the_first_million_lines_are_read(write, monkeypatch):
    """Ten lines stand in for the million."""
    monkeypatch.setattr(lines, "_MOST_LINES", 10)
    path = write("a.txt", "".join(f"w{number}\n" for number in range(25)))
    found = read(path)
    assert found.lines == [f"w{number}" for number in range(10)]
    assert problem(found).startswith(f"{path}, line 11: The file has more than 10 lines or 32 MiB")


def test_of_a_huge_list_the_first_bytes_are_read_in_whole_lines(write, monkeypatch):
    """A line that is cut off is left out."""
    monkeypatch.setattr(lines, "_MOST_BYTES", 12)
    found = read(write("a.txt", "red\ngreen\nyellow\n"))
    assert found.lines == ["red", "green"]
    assert "line 3: The file has more" in problem(found)


def test_a_file_that_changes_while_it_is_read_is_read_again(write, monkeypatch):
    """Where it goes on changing, a sentence says so."""
    path = write("a.txt", "one\n")
    stat, changes = os.fstat, iter(range(2))

    def fstat(descriptor: int) -> os.stat_result:
        seen = stat(descriptor)
        if next(changes, None) is not None:
            path.write_text("one\ntwo, and more\n", encoding="utf-8")
        return seen

    monkeypatch.setattr(lines.os, "fstat", fstat)
    assert read(path).lines == ["one", "two, and more"]
    sizes = iter(range(100))

    def growing(descriptor: int) -> os.stat_result:
        path.write_text("x" * (next(sizes) + 1), encoding="utf-8")
        return stat(descriptor)

    monkeypatch.setattr(lines.os, "fstat", growing)
    with pytest.raises(BadWordList, match=r"a\.txt changes while it is read"):
        read(path)


def test_choices_in_braces_stand_for_all_their_combinations():
    """In their order, and an empty one leaves no space behind."""
    assert expand("{soft|hard} light") == ["soft light", "hard light"]
    assert expand("{|very} soft {light|glow}") == [
        "soft light", "soft glow", "very soft light", "very soft glow",
    ]
    assert expand("plain") == ["plain"]


def test_lines_of_others_are_as_they_are(write):
    """A brace or a hash of somebody else's means itself."""
    assert read(write("a.txt", "#film\n{a|b}\n"), "plain").lines == ["#film", "{a|b}"]


def test_wildcards_lose_weights_comments_and_lines_with_a_syntax_of_their_own(write):
    """How many were left out is told once."""
    path = write("a.txt", "# cats\n0.5::tabby\n__dogs__\n{2$$a|b}\n<lora:x:1>\ntom\n")
    found = read(path, "wildcards")
    assert found.lines == ["tabby", "tom"]
    assert problem(found) == (
        f"{path}: 3 lines with wildcards or choices of their own are left out."
    )


def test_the_head_of_a_list_says_what_it_is_about(write):
    """The sentence after the title, and whether it is about style or subject."""
    found = read(write("a.txt", "# Cats: all that purr.\n# about: subject\ntabby\n"))
    assert found.about == "all that purr."
    assert found.subjects == ["tabby"]
    assert read(write("b.txt", "# Light: how it falls.\n# about: style\nsoft\n")).subjects == []


def test_a_table_has_parts_by_its_columns(write):
    """Several in a cell, and yes and no for the heading and its opposite."""
    found = read(write("a.csv", 'name,trade,living\nAnn,film;games,yes\n"Bob, Jr.",film,no\n'))
    assert found.lines == ["Ann", "Bob, Jr."]
    assert found.parts == {
        "film": ["Ann", "Bob, Jr."], "games": ["Ann"], "living": ["Ann"],
        "not living": ["Bob, Jr."],
    }


def test_a_table_needs_no_heading(write):
    """But for its other columns, which is told."""
    assert read(write("a.csv", "red\ngreen\n")).lines == ["red", "green"]
    assert read(write("b.csv", "phrase\nred\n")).lines == ["red"]
    found = read(write("c.csv", "1girl,0,4114588\nsolo,0,3426446\n"))
    assert found.lines == ["1girl", "solo"]
    assert not found.parts
    assert "line 1: Only the first column is read" in problem(found)


def test_a_quote_that_is_not_closed_costs_one_line(write):
    """What comes after it is read."""
    path = write("a.csv", 'name\none\n"two,x\nthree\n')
    found = read(path)
    assert found.lines == ["one", "three"]
    assert problem(found).startswith(f"{path}, line 3: ")


def test_of_many_problems_the_first_are_told_and_the_others_counted(write):
    """A list of a million bad lines makes no million sentences."""
    told = read(write("a.txt", b"\xff\n" * 250)).problems.told()
    assert len(told) == 101
    assert told[-1] == "... and 150 problems more."


def test_a_list_does_not_grow_without_end(write, monkeypatch):
    """By choices in its lines."""
    monkeypatch.setattr(lines, "MOST_PHRASES", 10)
    found = read(write("a.txt", "{a|b|c|d} {1|2|3}\nlast\n"))
    assert len(found.lines) == 12
    assert "line 2: Those before it stand for 10 phrases" in problem(found)


def test_a_tree_has_parts_by_its_names(write):
    """As Dynamic Prompts has them."""
    found = read(write("a.yaml", "cats:\n  small: [tabby, '{big|old} tom']\ndogs:\n- pug\n"))
    assert found.lines == ["tabby", "big tom", "old tom", "pug"]
    assert set(found.parts) == {"cats", "cats/small", "dogs"}
    assert read(write("b.yaml", "- yes\n- 1.0\n")).lines == ["yes", "1.0"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: [b\nc: d", "line 2: The YAML can't be read: did not find"),
        ("a: &x [1, 2]\nb: *x\n", r"line 2: Aliases \(\*name\) are not read"),
        ("a: [b]\na: [c]\n", "line 2: A name is there twice"),
        ("\n".join("[" * 900 for _ in range(100)), "line 1: It is nested too deeply"),
    ],
    ids=["broken", "alias", "twice", "deep"],
)
def test_a_tree_that_can_not_be_read_names_the_line(write, text, sentence):
    """A tree that would grow or go down without end is refused before it does."""
    with pytest.raises(BadWordList, match=rf"a\.yaml, {sentence}"):
        read(write("a.yaml", text))


def test_a_folder_is_one_list_with_its_files_as_parts(write, tmp_path):
    """A text beside it that has its name belongs to it."""
    write("mine/cats.txt", "tabby\n")
    write("mine/deep/dogs.txt", "pug\n")
    write("mine/readme.md", "no list\n")
    write("mine.txt", "manx\n")
    found = read(tmp_path / "mine")
    assert found.lines == ["manx", "tabby", "pug"]
    assert found.parts == {"cats": ["tabby"], "deep/dogs": ["pug"]}


def test_a_name_may_say_how_many_are_wanted():
    """As AUTOMATIC1111's own interrogator has it."""
    assert (name_of(Path("flavors.top3.txt")), count_of(Path("flavors.top3.txt"))) == (
        "flavors", 3,
    )
    assert (name_of(Path("a.b.txt")), count_of(Path("a.b.txt"))) == ("a.b", None)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "name,kind\n{a|b|c|d} {1|2|3},x\nlast,y\n"),
        ("a.yaml", "one:\n- '{a|b|c|d} {1|2|3}'\ntwo:\n- last\n"),
        ("a/one.txt", "{a|b|c|d} {1|2|3}\n"),
    ],
)
def test_neither_do_tables_trees_and_folders(write, monkeypatch, name, content):
    """Their rows, branches and files count together."""
    monkeypatch.setattr(reading, "MOST_PHRASES", 10)
    path = write(name, content)
    if path.parent.name == "a":
        write("a/two.txt", "last\n")
        path = path.parent
    found = read(path)
    assert len(found.lines) == 12
    assert "Those before it stand for 10 phrases" in problem(found)


def test_a_table_may_begin_with_comments(write):
    """Its heading is the first row that is none."""
    found = read(write("a.csv", "# my painters\n#, all of them\nname,living\nAnn,yes\n"))
    assert found.lines == ["Ann"]
    assert found.parts == {"living": ["Ann"]}


def test_a_phrase_of_a_tree_is_no_longer_than_a_line_may_be(write):
    """Though it is written in many lines."""
    found = read(write("a.yaml", "- >\n" + "  word\n" * 300 + "- last\n"))
    assert found.lines == ["last"]
    assert "characters, more than 1,000" in problem(found)


def test_a_folder_has_its_texts_whatever_their_case_but_no_hidden_ones(write):
    """Such as a Mac and a notebook leave behind."""
    path = write("places/CITIES.TXT", "Rome").parent
    for hidden in ("places/._cities.txt", "places/.ipynb_checkpoints/cities.txt"):
        write(hidden, "nothing")
    assert read(path).parts == {"CITIES": ["Rome"]}


def test_a_tree_brings_no_signs_that_a_text_may_not_hold(write):
    """YAML can write them in letters; what is beside them is read."""
    written = r"""
- "a\0b"
- fine
- "c\x1b"
- below: [good]
- "d\0": [bad]
"""
    found = read(write("a.yaml", written))
    assert sorted(found.lines) == ["fine", "good"]
    assert list(found.parts) == ["below"]
    told = "\n".join(found.problems.told())
    assert "line 2: It holds signs that are no text" in told
    assert "line 4: It holds signs that are no text" in told
    assert r"The name 'd\x00' holds signs that are no text" in told
