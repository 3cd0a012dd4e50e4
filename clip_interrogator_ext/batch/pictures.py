"""Find the pictures of a batch, and name a text file for each."""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from clip_interrogator_ext.errors import BadImage, BadOption
from clip_interrogator_ext.files import read_file, shown
from clip_interrogator_ext.host import as_path
from clip_interrogator_ext.images import SUFFIXES, list_folder, natural_order

if TYPE_CHECKING:
    from clip_interrogator_ext.batch.results import Failure

_MOST_BYTES_OF_LIST = 256 << 20
_FOLDER_LINE = "# folder: "


@dataclass(frozen=True)
class Found:
    """Pictures in natural order, all of them below `root`; `source` is the list, if one was read.

    The names are below the root, with slashes.
    """

    root: Path
    names: tuple[str, ...]
    source: Path | None = None


def find(source: str, recursive: bool = False) -> Found:
    """Find the pictures that a folder, a picture, a pattern or a list of files stands for.

    Raises BadOption where there are none.
    """
    path = as_path(source)
    try:
        if path.is_dir():
            found = _in_folder(_absolute(path), recursive)
        elif path.is_file():
            path = _absolute(path)
            is_picture = path.suffix.lower() in SUFFIXES
            found = Found(path.parent, (path.name,)) if is_picture else _in_list(path)
        elif any(char in source for char in "*?["):
            found = _by_pattern(path)
        else:
            raise BadOption("input", f'There is no folder and no file "{shown(path)}".')
    except BadImage as error:
        raise BadOption("input", str(error)) from error
    except (OSError, ValueError) as error:
        raise BadOption("input", f'"{shown(path)}" can\'t be read ({error}).') from error
    if not found.names:
        closed = path.is_dir() and not recursive
        hint = "; its sub-folders are read only where that is asked for" if closed else ""
        raise BadOption("input", f'There are no pictures in "{shown(path)}"{hint}.')
    return found


def with_neighbours(found: Found) -> list[str]:
    """Return the names of the pictures, and of those in the same folders that were not asked for.

    So that a picture's text has one name, whether it is found in its folder or by itself.
    """
    names = set(found.names)
    for folder in {(found.root / name).parent for name in names}:
        try:
            paths = list_folder(folder)
        except BadImage:  # the folder is gone; its pictures are told of one by one
            continue
        names |= {path.relative_to(found.root).as_posix() for path in paths}
    return in_natural_order(names)


def in_natural_order(names: Iterable[str]) -> list[str]:
    """Sort names as list_folder does: 2 before 10, on every file system alike."""
    return sorted(names, key=lambda name: natural_order(Path(name)))


def list_of_failures(found: Found, folder: Path, failures: Sequence[Failure]) -> bytes:
    """Return a list of pictures with the reasons, that can be given as the next input.

    It will lie in `folder`; the root is named where that is another.
    """
    lines = [] if folder == found.root else [_FOLDER_LINE + _as_line(str(found.root))]
    for failure in failures:
        lines.append("# " + " ".join(shown(failure.reason).split()))
        lines.append(_as_line(failure.picture.relative_to(found.root).as_posix()))
    return "".join(line + "\n" for line in lines).encode("utf-8", "surrogateescape")


def name_texts(
    names: Sequence[str], pattern: str, folder: Path, taken: Iterable[Path]
) -> list[Path]:
    """Return a text file for each picture, in the same tree below `folder`.

    No two pictures share one, and none gets a name that is taken. Where names meet, also if only
    in their letters' case, the picture's whole name takes the place of its stem ("a.png.txt"),
    then it is numbered; this depends on the names alone.
    """
    pictures = [Path(name) for name in names]
    stages = [0] * len(pictures)

    def text(index: int) -> Path:
        picture, stage = pictures[index], stages[index]
        name = picture.name if stage < 2 else f"{picture.name}-{stage}"
        stem = picture.stem if stage == 0 else name
        return folder / picture.parent / pattern.format(stem=stem, name=name)

    reserved = {_key(path) for path in taken}
    texts = [text(index) for index in range(len(pictures))]
    while True:
        sharing: dict[str, list[int]] = {}
        for index, path in enumerate(texts):
            sharing.setdefault(_key(path), []).append(index)
        moved: list[int] = []
        for key, indices in sharing.items():
            if key in reserved:
                moved += indices
            elif len(indices) > 1:
                moved += [index for index in indices if stages[index] == 0] or indices[1:]
        if not moved:
            return texts
        for index in moved:
            stages[index] += 1
            texts[index] = text(index)


def _key(path: Path) -> str:
    return unicodedata.normalize("NFC", str(path)).casefold()


def _absolute(path: Path) -> Path:
    return Path(os.path.normpath(path.absolute()))


def _in_folder(folder: Path, recursive: bool) -> Found:
    paths = list_folder(folder, recursive)
    return Found(folder, tuple(path.relative_to(folder).as_posix() for path in paths))


def _by_pattern(pattern: Path) -> Found:
    """Find what a pattern matches; links to folders are not followed, so loops do no harm."""
    parts = pattern.parts
    plain = next(at for at, part in enumerate(parts) if any(char in part for char in "*?["))
    folder, patterns = _absolute(Path(*parts[:plain])), parts[plain:]
    everything = _in_folder(folder, len(patterns) > 1)
    names = tuple(name for name in everything.names if _matches(name.split("/"), patterns))
    return Found(folder, names)


def _matches(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    if not patterns:
        return not parts
    if patterns[0] == "**":
        return any(_matches(parts[at:], patterns[1:]) for at in range(len(parts) + 1))
    return (
        bool(parts) and fnmatch(parts[0], patterns[0]) and _matches(parts[1:], patterns[1:])
    )


def _in_list(file: Path) -> Found:
    """Read a list of pictures, one a line: absolute, or below the list's folder.

    Lines that begin with "#" are remarks, but for one that names another folder. A name that has
    a line break or spaces at its ends stands in quotes as JSON writes it.
    """
    content = read_file(file, _MOST_BYTES_OF_LIST)
    if b"\0" in content:
        raise ValueError("it is no list of files")
    root, paths = file.parent, []
    lines = content.decode("utf-8-sig", "surrogateescape").split("\n")
    for number, line in enumerate(map(str.strip, lines), 1):
        if line.startswith(_FOLDER_LINE):
            root = _absolute(file.parent / _from_line(line.removeprefix(_FOLDER_LINE)))
        elif line and not line.startswith("#"):
            path = _absolute(root / _from_line(line))
            if "\0" in str(path):  # which JSON may write, and no file's name has
                raise ValueError(f"line {number} names no picture")
            if path.suffix.lower() not in SUFFIXES and not path.is_file():
                raise ValueError(f"line {number} names no picture")
            paths.append(path)
    paths = list(dict.fromkeys(paths))
    if paths and not all(path.is_relative_to(root) for path in paths):
        root = Path(os.path.commonpath([path.parent for path in paths]))
    names = in_natural_order(path.relative_to(root).as_posix() for path in paths)
    return Found(root, tuple(names), file)


def _as_line(name: str) -> str:
    if name.startswith("#"):
        name = f"./{name}"
    odd = name != name.strip() or name.startswith('"') or "\n" in name or "\r" in name
    return json.dumps(name) if odd else name


def _from_line(line: str) -> str:
    return str(json.loads(line)) if line.startswith('"') and line.endswith('"') else line
