"""Read word lists in our own format: a phrase a line, and `{a|b}` for what varies in it."""

from __future__ import annotations

import itertools
import logging
import math
import re
from dataclasses import dataclass
from pathlib import Path

from clip_interrogator_ext import phrases
from clip_interrogator_ext.errors import BadWordList

log = logging.getLogger(__name__)

_MOST_BYTES = 32 << 20
_MOST_CHARACTERS = 1000  # of a line
_MOST_COMBINATIONS = 256  # of a line
_MOST_WARNINGS = 5  # for a file; the others are counted
_ABOUT = re.compile(r"#\s*about:\s*(\w+)\s*$")
_CHOICE = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class WordList:
    """A list's phrases, and what it is about where it says so: "style", "subject" or ""."""

    phrases: tuple[str, ...]
    about: str = ""


def read_lines(path: Path) -> WordList:
    """Read a list: UTF-8, a phrase a line, `#` begins a comment line.

    Repeats, and lines without a letter or a digit, are dropped; a line that can't be read is left
    out with a warning that names it. Raises BadWordList for a file that can't be read at all.
    """
    about = ""
    found: list[str] = []
    refused = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        if line.startswith("#"):
            said = _ABOUT.match(line)
            about = said[1] if said and not about else about
        elif any(map(str.isalnum, line)):
            try:
                found += expand(line)
            except BadWordList as error:
                refused.append(f"{path}, line {number}: {error}")
    for sentence in refused[:_MOST_WARNINGS]:
        log.warning("%s The line is left out.", sentence)
    if len(refused) > _MOST_WARNINGS:
        log.warning("%s: %d other lines are left out.", path, len(refused) - _MOST_WARNINGS)
    return WordList(tuple(phrases.unique(found)), about)


def expand(line: str) -> list[str]:
    """Return the phrases that a line stands for, its choices in their order.

    `{soft|hard} light` is two phrases, and so is `{|very} soft light`. Raises BadWordList.
    """
    if len(line) > _MOST_CHARACTERS:
        raise BadWordList(f"It has {len(line):,} characters, more than {_MOST_CHARACTERS:,}.")
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


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise BadWordList(f"{path} can't be read ({error.strerror}).") from error
    if len(content) > _MOST_BYTES:
        raise BadWordList(
            f"{path} is larger than {_MOST_BYTES >> 20} MiB: too large for a word list. Split it."
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise BadWordList(f"{path}, line {line}, is not UTF-8. Save the file as UTF-8.") from error
