"""Read word lists of every kind: a text, a table, a tree in YAML, a folder of texts."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from clip_interrogator_ext.errors import BadWordList
from clip_interrogator_ext.vocabulary.lines import (
    CONTROL,
    MOST_PHRASES,
    Line,
    Problems,
    phrases_of,
    read_lines,
)

SUFFIXES = (".txt", ".csv", ".yaml", ".yml")
_TOP = re.compile(r"\.top(\d{1,4})$", re.IGNORECASE)
_TITLE = re.compile(r"#\s*[^:]+: (.+)$")
_ABOUT = re.compile(r"#\s*about:\s*(style|subject)\s*$")
_HEADINGS = {
    "artist", "name", "phrase", "phrases", "prompt", "tag", "term", "text", "title", "word",
}
_MOST_FILES = 5000  # of a folder
_DEEPEST = 20
_MOST_PLACED = 4_000_000  # phrases in parts, each in every part that it is in
_COST_OF_A_PART = 20  # as many phrases take so much memory


@dataclass
class Read:
    """What stands in a list: lines, which of them are of a part, and what is wrong.

    `about` is the sentence at its head; `subjects` say what a picture shows, not how it looks.
    """

    lines: list[str] = field(default_factory=list)
    parts: dict[str, list[str]] = field(default_factory=dict)
    subjects: list[str] = field(default_factory=list)
    about: str = ""
    problems: Problems = field(default_factory=Problems)
    _placed: int = 0

    def place(self, part: str, said: Sequence[str], line: str) -> None:
        """Put phrases into a part, as long as there is room in all of them together."""
        if self.places_full:
            return
        self._placed += 1 + len(said) + (0 if part in self.parts else _COST_OF_A_PART)
        if self.places_full:
            self.problems.add(
                f"{line}: Those before it are in too many parts; the rest is in none. Split the "
                "list."
            )
        else:
            self.parts.setdefault(part, []).extend(said)

    @property
    def places_full(self) -> bool:
        """Whether no more phrases are put into parts."""
        return self._placed > _MOST_PLACED

    def is_full(self, place: str) -> bool:
        """Say whether there are as many lines as a list may have; if so, from where no more are."""
        full = len(self.lines) >= MOST_PHRASES
        if full:
            self.problems.add(
                f"{place}: Those before it stand for {MOST_PHRASES:,} phrases; the rest is left "
                "out. Split the list."
            )
        return full


def name_of(path: Path) -> str:
    """Return the name of the list in a file or folder: without its ending, and ".top3"."""
    stem = path.stem if path.suffix.lower() in SUFFIXES else path.name
    return _TOP.sub("", stem)


def count_of(path: Path) -> int | None:
    """Return how many phrases of it are wanted, where the name says so as in "name.top3.txt"."""
    found = _TOP.search(path.stem)
    return int(found[1]) if found else None


def beside(folder: Path) -> Path:
    """Return the text beside a folder that has its name, and so belongs to its list."""
    return folder.with_name(f"{folder.name}.txt")


def texts_below(folder: Path) -> Iterator[Path]:
    """Yield the texts at any depth of a folder, but not hidden ones."""
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() == ".txt" and not hidden and path.is_file():
            yield path


def files_of(path: Path) -> list[Path]:
    """Return the files of a list, in a stable order; of a folder those below it and beside it."""
    if not path.is_dir():
        return [path]
    below = sorted(texts_below(path), key=lambda one: one.relative_to(path).as_posix())
    return [beside(path), *below] if beside(path).is_file() else below


def read(path: Path, form: str = "ours") -> Read:
    """Read a list; `form` is that of its lines, see `phrases_of`.

    A list or line that can't be used is left out and reported in the problems, and the rest is
    read. Raises BadWordList where nothing can be.
    """
    if path.is_dir():
        return _read_folder(path, form)
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return _read_table(path, form)
    if suffix in (".yaml", ".yml"):
        return _read_tree(path, form)
    return _read_text(path, form)


def load_yaml(path: Path) -> Any:
    """Return what stands in a file of YAML: mappings, lists, and a Line for each scalar.

    Raises BadWordList. Aliases, by which a short file could stand for endless phrases, are refused.
    """
    problems = Problems()
    lines = read_lines(path, problems)
    if problems.told():
        raise BadWordList(problems.told()[0].removesuffix(" The line is left out."))
    text = "\n".join(line.text for line in lines)
    # Composing by libyaml itself would crash where a file is nested deeply enough.
    top: list[Any] = []
    open_ones: list[Any] = [top]
    names: list[str | None] = [None]
    values = 0

    def put(value: Any) -> None:
        holder = open_ones[-1]
        if isinstance(holder, list):
            holder.append(value)
        elif names[-1] is None and isinstance(value, Line) and value.text not in holder:
            names[-1] = value.text
        elif names[-1] is None:
            raise BadWordList(f"{path}, line {line}: A name is there twice, or is no text.")
        else:
            holder[names[-1]] = value
            names[-1] = None

    try:
        for event in yaml.parse(text, getattr(yaml, "CBaseLoader", yaml.BaseLoader)):
            line = event.start_mark.line + 1
            values += isinstance(event, yaml.NodeEvent)
            if values > 2 * MOST_PHRASES:
                raise BadWordList(f"{path}, line {line}: It holds too much. Split the file.")
            if isinstance(event, yaml.AliasEvent):
                raise BadWordList(f"{path}, line {line}: Aliases (*name) are not read.")
            if isinstance(event, yaml.ScalarEvent):
                put(Line(line, event.value))
            elif isinstance(event, yaml.CollectionStartEvent):
                made: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
                put(made)
                open_ones.append(made)
                names.append(None)
                if len(open_ones) > _DEEPEST:
                    raise BadWordList(f"{path}, line {line}: It is nested too deeply.")
            elif isinstance(event, yaml.CollectionEndEvent):
                open_ones.pop()
                names.pop()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark is not None else ""
        reason = getattr(error, "problem", None) or error
        raise BadWordList(f"{path}{place}: The YAML can't be read: {reason}.") from error
    return top[0] if top else []


def _read_text(path: Path, form: str) -> Read:
    read = Read()
    lines = read_lines(path, read.problems)
    read.lines = list(phrases_of(path, lines, read.problems, form))
    if form == "ours":
        heads = [line.text for line in lines[:5] if line.text.startswith("#")]
        titles = [found[1] for head in heads if not _ABOUT.match(head)
                  for found in [_TITLE.match(head)] if found]
        read.about = titles[0] if titles else ""
        if any(found[1] == "subject" for found in map(_ABOUT.match, heads) if found):
            read.subjects = read.lines
    return read


def _read_folder(path: Path, form: str) -> Read:
    read = Read()
    files = files_of(path)
    if len(files) > _MOST_FILES:
        read.problems.add(
            f"{path} holds {len(files):,} lists; only the first {_MOST_FILES:,} are read."
        )
    for file in files[:_MOST_FILES]:
        if read.is_full(f"{file}"):
            break
        try:
            part = _read_text(file, form)
        except BadWordList as error:
            read.problems.add(f"{error} The list is left out.")
            continue
        read.lines += part.lines
        read.subjects += part.subjects
        for problem in part.problems.told():
            read.problems.add(problem)
        if file.is_relative_to(path):
            read.parts[file.relative_to(path).with_suffix("").as_posix()] = part.lines
    return read


def _read_table(path: Path, form: str) -> Read:
    """Read a table: phrases in the first column, in the others what they are, `;` between several.

    What a phrase is names the parts that it is in; "yes" and "no" stand for the column's heading
    and its opposite. Without a heading there are no parts.
    """
    read = Read()
    rows: Iterator[tuple[int, list[str]]] = (
        row for row in _rows(path, read_lines(path, read.problems), read.problems)
        if not row[1][0].lstrip().startswith("#")
    )
    first = next(rows, None)
    if first is None:
        return read
    headings: list[str] = []
    if first[1][0].strip().casefold() in _HEADINGS:
        headings = [cell.strip() for cell in first[1]]
    else:
        rows = itertools.chain([first], rows)
        if len(first[1]) > 1:
            read.problems.add(
                f"{path}, line {first[0]}: Only the first column is read, because the table has no "
                "heading, a first row that begins with name."
            )
    for number, row in rows:
        if read.is_full(f"{path}, line {number}"):
            break
        said = list(phrases_of(path, [Line(number, row[0])], read.problems, form))
        read.lines += said
        if read.places_full:
            continue
        for heading, cell in zip(headings[1:], row[1:], strict=False):
            for value in dict.fromkeys(filter(None, map(str.strip, cell.split(";")))):
                named = {"yes": heading, "no": f"not {heading}"}.get(value, value)
                read.place(named, said, f"{path}, line {number}")
    read.parts = dict(sorted(read.parts.items()))
    return read


def _rows(
    path: Path, lines: Iterable[Line], problems: Problems
) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a table that are not empty, each of one line, with the line's number."""
    for line in lines:
        try:
            for row in csv.reader([line.text], strict=True):
                if any(map(str.strip, row)):
                    yield line.number, row
        except csv.Error as error:
            problems.add(f"{path}, line {line.number}: {error}. The line is left out.")


def _read_tree(path: Path, form: str) -> Read:
    """Read a tree in YAML: its leaves are phrases, its names those of the parts."""
    read = Read()
    _gather(path, load_yaml(path), (), form, read)
    return read


def _gather(path: Path, value: Any, names: tuple[str, ...], form: str, read: Read) -> None:
    if isinstance(value, dict):
        for name, below in value.items():
            if CONTROL.search(name):
                read.problems.add(
                    f"{path}: The name {name[:100]!r} holds signs that are no text. What is below "
                    "it is left out."
                )
                continue
            _gather(path, below, (*names, name), form, read)
    else:
        leaves = value if isinstance(value, list) else [value]
        for below in leaves:
            if not isinstance(below, Line):
                _gather(path, below, names, form, read)
        lines = [below for below in leaves if isinstance(below, Line)]
        if lines and read.is_full(f"{path}, line {lines[0].number}"):
            return
        said = list(phrases_of(path, lines, read.problems, form))
        read.lines += said
        line = f"{path}, line {lines[0].number}" if lines else f"{path}"
        for depth in range(1, len(names) + 1):
            read.place("/".join(names[:depth]), said, line)
