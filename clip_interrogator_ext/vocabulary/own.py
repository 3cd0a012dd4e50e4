"""The user's own word lists: written, added to, taken over from elsewhere, deleted."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from clip_interrogator_ext.errors import BadWordList
from clip_interrogator_ext.files import changing, read_file
from clip_interrogator_ext.vocabulary.lines import CONTROL, Line, Problems, phrases_of
from clip_interrogator_ext.vocabulary.lists import (
    Category,
    is_name,
    is_nearly_ours,
    list_files,
    read_category,
)
from clip_interrogator_ext.vocabulary.reading import SUFFIXES, name_of

_MOST_BYTES = 32 << 20
_lock = threading.Lock()  # of all folders: what is changed is read before


class OwnLists:
    """The lists in a folder of the user's, which is made when the first one is written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def text(self, name: str) -> str:
        """Return a list as it is written; raises BadWordList."""
        path = self._file(name)
        try:
            content = read_file(path, _MOST_BYTES)
            wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
            return content.decode("utf-16" if wide else "utf-8-sig")
        except UnicodeDecodeError as error:
            raise BadWordList(
                f"{path} is not UTF-8, so that its text can't be shown. Save the file as UTF-8."
            ) from error
        except OSError as error:
            raise BadWordList(f"{path} can't be read ({error.strerror}).") from error

    def save(self, name: str, text: str) -> tuple[str, ...]:
        """Write a list; return what is wrong with its lines. Raises BadWordList."""
        content = _bytes(text)
        with _lock, self._changing(self._place(name)) as change:
            return change(content).problems

    def add(self, name: str, lines: Iterable[str]) -> int:
        """Put lines behind a list that are not in it yet; return how many. Raises BadWordList.

        Where there is no such list one is made.
        """
        path = self._place(name)
        with _lock, self._changing(path) as change:
            there = path.is_file()
            text = self.text(name) if there else ""
            known = {line.casefold() for line in read_category(path).lines} if there else set()
            new: dict[str, str] = {}
            for line in filter(None, (" ".join(line.split()) for line in lines)):
                said = {phrase.casefold() for phrase in _read_back(line)}
                if not said <= known:
                    new.setdefault(line.casefold(), line)
            if new:
                if path.suffix.lower() != ".txt":
                    raise BadWordList(f"{path.name} is not a plain list: change it as a text.")
                glue = "" if not text or text.endswith("\n") else "\n"
                change(_bytes(f"{text}{glue}{chr(10).join(new.values())}\n"))
        return len(new)

    def take_over(self, source: Path, called: str) -> str:
        """Copy a file of phrases into the folder under its own name; return the list's name.

        Raises BadWordList where it holds no phrase, or there is a list of that name.
        """
        name, suffix = name_of(Path(called)), Path(called).suffix.lower()
        if suffix not in SUFFIXES:
            raise BadWordList(f"{called} is not a word list: it must end in {', '.join(SUFFIXES)}.")
        self._require_name(name)
        try:
            content = read_file(source, _MOST_BYTES)
        except OSError as error:
            raise BadWordList(f"{called} can't be read ({error.strerror}).") from error
        path = self.folder / Path(called).name
        with _lock, self._changing(path) as change:
            if name.casefold() in map(str.casefold, list_files(self.folder)):
                raise BadWordList(
                    f"There is a list {name!r} already. Delete it first, or rename the file."
                )
            change(content, empty=False)
        return name

    def delete(self, name: str) -> None:
        """Delete a list; raises BadWordList."""
        with _lock:
            path = self._file(name)
            try:
                path.unlink()
            except OSError as error:
                raise BadWordList(f"{path} can't be deleted ({error.strerror}).") from error

    def _file(self, name: str) -> Path:
        path = list_files(self.folder).get(name)
        if path is None:
            raise BadWordList(f"There is no list {name!r} of your own.")
        if path.is_dir():
            raise BadWordList(f"{name} is a folder of lists: change the files in it.")
        return path

    def _place(self, name: str) -> Path:
        """Return the file of a list that may be there or not."""
        there = list_files(self.folder)
        if name in there:
            return self._file(name)
        self._require_name(name)
        alike = [one for one in there if one.casefold() == name.casefold()]
        if alike:
            raise BadWordList(f"There is a list {alike[0]!r}: call yours so too, or otherwise.")
        return self.folder / f"{name}.txt"

    @staticmethod
    def _require_name(name: str) -> None:
        if is_nearly_ours(name):
            raise BadWordList(f"One of our lists is called {name.casefold()!r}: take that name.")
        if not is_name(name):
            raise BadWordList(
                f"A list can't be called {name[:100]!r}: take a short name that begins with a "
                'letter or digit, without / \\ : * ? " < > | and commas.'
            )

    @contextlib.contextmanager
    def _changing(self, path: Path) -> Iterator[Callable[..., Category]]:
        """Hold the folder while a list is changed; yields what writes it and returns the list.

        One that can't be read at all is not written, nor an empty one where it must not be so.
        """

        def change(content: bytes, *, empty: bool = True) -> Category:
            def check(draft: Path) -> None:
                try:
                    category = read_category(draft, name_of(path))
                except BadWordList as error:
                    raise BadWordList(str(error).replace(str(draft), str(path))) from error
                if not category.lines and not empty:
                    why = "".join(category.problems[:1]).replace(str(draft), path.name)
                    raise BadWordList(f"{path.name} holds no phrase that can be read. {why}")

            put(content, check)
            return read_category(path, own=True)

        try:
            with changing(path) as put:
                yield change
        except OSError as error:
            raise BadWordList(
                f"{path} can't be written ({error.strerror}). Check the folder, or choose another "
                "one in the settings."
            ) from error


def _bytes(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise BadWordList("The text holds signs that no file can hold. Write it anew.") from error


def _read_back(line: str) -> list[str]:
    """Return what a line stands for in a list; raises BadWordList where that is nothing."""
    problems = Problems()
    if CONTROL.search(line):
        raise BadWordList(f"{line[:100]!r} can't be added. It holds signs that are no text.")
    said = list(phrases_of(Path("list"), [Line(1, line)], problems))
    if not said:
        why = "".join(problems.told()).partition("line 1: ")[2] or "It is no phrase."
        raise BadWordList(f"{line[:100]!r} can't be added. {why}")
    return said
