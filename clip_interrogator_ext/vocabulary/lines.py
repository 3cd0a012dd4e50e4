"""Read texts of a phrase a line, and what stands for several phrases in our own format."""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from clip_interrogator_ext.errors import BadWordList
from clip_interrogator_ext.files import open_ordinary

_MOST_BYTES = 32 << 20
_MOST_LINES = 1_000_000
_MOST_CHARACTERS = 1000  # of a line
_MOST_COMBINATIONS = 256  # of a line
MOST_PHRASES = 1_000_000  # of a list
_MOST_PROBLEMS = 100
_TRIES = 3  # of reading a file that changes meanwhile
_BOMS = {b"\xef\xbb\xbf": "utf-8", b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
# Signs that steer machines, and halves of signs, which no file can hold.
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f\ud800-\udfff]")
_NO_TEXT = "It holds signs that are no text."
_CHOICE = re.compile(r"\{([^{}]*)\}")
_WEIGHT = re.compile(r"^\s*\d+(?:\.\d+)?::")
_WILDCARD_SYNTAX = re.compile(r"__|\$\$|[{}<>]")


@dataclass(frozen=True)
class Line:
    """A line that can be read, and its number in the file, from 1."""

    number: int
    text: str


class Problems:
    """What is wrong with a list: the first hundred sentences, and how many more there are."""

    def __init__(self) -> None:
        self._sentences: list[str] = []
        self._more = 0

    def add(self, sentence: str) -> None:
        """Take a sentence note."""
        if len(self._sentences) < _MOST_PROBLEMS:
            self._sentences.append(sentence)
        else:
            self._more += 1

    def told(self) -> tuple[str, ...]:
        """Return the sentences."""
        more = [f"... and {self._more:,} problems more."] if self._more else []
        return (*self._sentences, *more)


def read_lines(path: Path, problems: Problems) -> list[Line]:
    """Read the lines of a text file in UTF-8, or in UTF-16 if it says so.

    Lines that can't be read are left out and added to the problems, and so is what comes after the
    first 32 MiB or million lines. Raises BadWordList for a file that can't be read at all.
    """
    content, whole = _content(path)
    encoding = "utf-8"
    for mark, name in _BOMS.items():
        if content.startswith(mark):
            content, encoding = content[len(mark) :], name
    if encoding == "utf-8":
        rows = content.splitlines()
    else:
        text = content.decode(encoding, "replace")
        rows = [row.encode() for row in re.split(r"\r\n|\r|\n", text)]
    found = []
    for number, row in enumerate(rows[:_MOST_LINES], 1):
        try:
            text = row.decode()
        except UnicodeDecodeError:
            problems.add(_at(path, number, "It is not UTF-8: save the file as UTF-8."))
            continue
        if CONTROL.search(text):
            problems.add(_at(path, number, _NO_TEXT))
        elif len(text) > _MOST_CHARACTERS:
            problems.add(_at(path, number, _too_long(text)))
        else:
            found.append(Line(number, text))
    if len(rows) > _MOST_LINES or not whole:
        end = min(len(rows), _MOST_LINES)
        if not whole and found and found[-1].number == len(rows):
            found.pop()  # it is cut off
            end -= 1
        problems.add(
            f"{path}, line {end + 1}: The file has more than {_MOST_LINES:,} lines or "
            f"{_MOST_BYTES >> 20} MiB; the rest of it is left out. Split it."
        )
    return found


def _too_long(text: str) -> str:
    return f"It has {len(text):,} characters, more than {_MOST_CHARACTERS:,}."


def phrases_of(
    path: Path, lines: Iterable[Line], problems: Problems, form: str = "ours"
) -> Iterator[str]:
    """Yield what lines stand for; those that can't be used are added to the problems.

    The form "ours" has comments and choices in braces; "wildcards" is that of Dynamic Prompts,
    whose lines with a syntax of their own are left out; lines of the form "plain" are as they are.
    """
    foreign = made = 0
    for line in lines:
        if made >= MOST_PHRASES:
            problems.add(
                f"{path}, line {line.number}: Those before it stand for {MOST_PHRASES:,} phrases; "
                "the rest is left out. Split the list."
            )
            break
        text = line.text
        if form != "plain" and text.lstrip().startswith("#"):
            continue
        if form == "wildcards":
            text = _WEIGHT.sub("", text)
            if _WILDCARD_SYNTAX.search(text):
                foreign += 1
                continue
        if len(text) > _MOST_CHARACTERS:
            problems.add(_at(path, line.number, _too_long(text)))
            continue
        if CONTROL.search(text):  # YAML can write them in letters
            problems.add(_at(path, line.number, _NO_TEXT))
            continue
        if not any(map(str.isalnum, text)):
            continue
        if form != "ours":
            yield " ".join(text.split())
            continue
        try:
            phrases = expand(text)
        except BadWordList as error:
            problems.add(_at(path, line.number, str(error)))
        else:
            made += len(phrases)
            yield from phrases
    if foreign:
        problems.add(
            f"{path}: {foreign} lines with wildcards or choices of their own are left out."
        )


def expand(line: str) -> list[str]:
    """Return the phrases that a line stands for, its choices in their order.

    `{soft|hard} light` is two phrases, and so is `{|very} soft light`. Raises BadWordList.
    """
    fixed, choices = _CHOICE.split(line)[::2], _CHOICE.findall(line)
    if any("{" in part or "}" in part for part in fixed):
        raise BadWordList("Its braces don't close, or stand inside each other; write {a|b}.")
    options = [choice.split("|") for choice in choices]
    count = math.prod(map(len, options))
    if count > _MOST_COMBINATIONS:
        raise BadWordList(f"It stands for {count:,} phrases, more than {_MOST_COMBINATIONS}.")
    made = []
    for chosen in itertools.product(*options):
        pairs = itertools.zip_longest(fixed, chosen, fillvalue="")
        made.append(" ".join("".join(itertools.chain.from_iterable(pairs)).split()))
    return made


def _at(path: Path, number: int, sentence: str) -> str:
    return f"{path}, line {number}: {sentence} The line is left out."


def _content(path: Path) -> tuple[bytes, bool]:
    """Return a file's bytes up to the most that are read, and whether they are all of them."""
    try:
        for _ in range(_TRIES):
            with open_ordinary(path) as file:
                before = os.fstat(file.fileno())
                content = file.read(_MOST_BYTES + 1)
                after = os.fstat(file.fileno())
            if (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size):
                return content[:_MOST_BYTES], len(content) <= _MOST_BYTES
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadWordList(f"{path} can't be read ({reason}).") from error
    raise BadWordList(f"{path} changes while it is read. Try again when it is finished.")
