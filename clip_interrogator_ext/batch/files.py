"""Write files whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

from clip_interrogator_ext.errors import InterrogatorError

# What concerns every file that is still to come, not the one in hand only.
_FOR_ALL = {errno.ENOSPC, errno.EROFS, errno.EIO, getattr(errno, "EDQUOT", errno.ENOSPC)}


class WholeFiles:
    """Writes each file under a neighbouring name, then renames it.

    The neighbour's name is unique to a journal, so that what a crash left can be found and
    cleared at the next start, and nobody else's file is taken for it.
    """

    def __init__(self, journal_id: str) -> None:
        self._name = f".cliext-{journal_id}.part"

    def clear(self, folders: Iterable[Path]) -> None:
        """Remove what a crash left in these folders."""
        for folder in folders:
            with contextlib.suppress(OSError):
                (folder / self._name).unlink()

    def write(self, path: Path, content: bytes) -> None:
        """Write a file whole, and its folder if it is missing."""
        self.replace(self.stage(path, lambda file: file.write(content)), path)

    def stage(self, path: Path, fill: Callable[[BinaryIO], object]) -> Path:
        """Write the neighbour of a file, safe on the disk, and return it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / self._name
        self.clear([path.parent])
        try:
            with temporary.open("xb") as file:
                fill(file)
                file.flush()
                os.fsync(file.fileno())
            if path.exists():
                shutil.copymode(path, temporary)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        return temporary

    def replace(self, temporary: Path, path: Path) -> None:
        """Give a staged file its name."""
        try:
            os.replace(temporary, path)  # noqa: PTH105 - names that are not UTF-8 pass either way
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


def read_if_there(path: Path) -> bytes | None:
    """Return a file's bytes, or None where there is no such file."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def concerns_all(error: OSError) -> bool:
    """Say whether an error will meet every other file too: no space, a disk that fails."""
    return error.errno in _FOR_ALL


def unwritable(path: Path, error: OSError) -> InterrogatorError:
    """Say that something can't be written, and what to do."""
    remedy = (
        "make room on the disk and start again: what is finished is kept"
        if error.errno in {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
        else "check its permissions, or choose another place for the output"
    )
    return InterrogatorError(
        f"{shown(path)} can't be written ({error.strerror or error}): {remedy}."
    )


def shown(path: Path | str) -> str:
    """Return a name that any terminal, JSON or table can hold: bytes that are no text escaped."""
    return str(path).encode("utf-8", "backslashreplace").decode("utf-8")
