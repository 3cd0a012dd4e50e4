"""Put a prompt and the text that stands in its file together, and lose neither."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clip_interrogator_ext.errors import BadImage
from clip_interrogator_ext.files import WholeFiles, open_ordinary, read_if_there, shown
from clip_interrogator_ext.phrases import join

if TYPE_CHECKING:
    from clip_interrogator_ext.batch.wording import Wording

_BYTES = "surrogateescape"  # what is not UTF-8 comes back as it was


@dataclass(frozen=True)
class Standing:
    """What stands in a text file, seen beside the journal's line for it, if there is one.

    `before` is the text that stood there before this job. `written` says that what stands there
    is what the line says, `edited` that somebody has changed it since.
    """

    before: str | None
    written: bool = False
    edited: bool = False

    @property
    def keeps(self) -> bool:
        """Whether there was a text before."""
        return not _is_blank(self.before)


def standing(path: Path, line: dict[str, Any] | None) -> Standing:
    """Look at a text file; `line` is the journal's for the same picture and file."""
    content = read_if_there(path)
    current = None if content is None else content.decode("utf-8", _BYTES)
    if line is None:
        return Standing(current)
    if current == line["after"]:
        return Standing(line["before"], written=True)
    if _is_blank(current) or current == line["before"]:
        return Standing(line["before"])
    return Standing(current, edited=True)


def check_joinable(path: Path, before: str | None) -> None:
    """Raise BadImage where a text can't be joined to another because it is not UTF-8."""
    try:
        (before or "").encode()
    except UnicodeEncodeError as error:
        raise BadImage(
            f'The text in "{shown(path)}" is not UTF-8: convert it, or replace it.'
        ) from error


def composed(
    prompt: str, negative: str | None, before: str | None, how: str, words: Wording
) -> str:
    """Return the text to write: the prompt with what stood there, as `how` says.

    What stands there already is not joined again: the journal may have lost that we wrote it.
    """
    old = (before or "").removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")
    old = old.strip().strip(", ")
    if how in ("append", "prepend") and _stands_in(prompt, old):
        prompt = old
    elif how == "append":
        prompt = join([old, prompt])
    elif how == "prepend":
        prompt = join([prompt, old])
    text = words.with_trigger(prompt)
    below = "" if negative is None else f"\nNegative prompt: {negative}"
    return text if text.endswith(below) else f"{text}{below}"


def write(files: WholeFiles, path: Path, line: dict[str, Any]) -> None:
    """Write the text of a journal's line, and first the old one's copy if it is replaced."""
    before, after = line["before"], line["after"]
    if line["existing"] == "replace" and not _is_blank(before) and before != after:
        keep(files, path, before.encode("utf-8", _BYTES))
    files.write(path, after.encode("utf-8", _BYTES))


def keep(files: WholeFiles, path: Path, content: bytes) -> None:
    """Write content beside a file as NAME.bak, or .bak2, ... where others are kept already."""
    for number in itertools.count(1):
        backup = path.with_name(f"{path.name}.bak{number if number > 1 else ''}")
        try:
            with open_ordinary(backup) as file:
                if file.read(len(content) + 1) == content:
                    return
        except FileNotFoundError:
            files.write(backup, content)
            return
        except OSError:  # a folder, a pipe: the name is taken
            continue


def _stands_in(prompt: str, text: str) -> bool:
    """Say whether a prompt stands in a text, between commas or at the end of a line."""
    return re.search(rf"(^|[,\n])\s*{re.escape(prompt)}\s*([,\n]|$)", text) is not None


def _is_blank(text: str | None) -> bool:
    return text is None or not text.strip()
