"""Read files that are ordinary, and write them whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from clip_interrogator_ext.errors import InterrogatorError

MOST_TEXT_BYTES = 4 << 20
"""The longest text of one picture that is read."""

# What concerns every file that is still to come, not the one in hand only.
_FOR_ALL = {errno.ENOSPC, errno.EROFS, errno.EIO, getattr(errno, "EDQUOT", errno.ENOSPC)}
_LEFT = ".cliext-????????.new"
_WAIT_SECONDS = 20.0
_LOOK_SECONDS = 0.02


# Reading


def open_ordinary(path: Path, mode: str = "rb", *, follow: bool = True) -> BinaryIO:
    """Open a file that is one; raises OSError, at once, for a pipe or a device.

    These could wait or go on for ever. Where links are not to be followed they are refused too.
    """
    opener = partial(_open, follow=follow)
    return cast("BinaryIO", open(path, mode, opener=opener))


def read_file(path: Path, most: int) -> bytes:
    """Return the bytes of an ordinary file; raises OSError, also where there are more than that."""
    with open_ordinary(path) as file:
        size = min(os.fstat(file.fileno()).st_size, most)
        content = file.read(size + 1)  # room for no more than there is
        if len(content) > size:  # it has grown
            content += file.read(most - size)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most >> 20} MiB", str(path))
    return content


def read_if_there(path: Path, most: int = MOST_TEXT_BYTES) -> bytes | None:
    """Return the bytes of an ordinary file, or None where nothing is; raises OSError."""
    try:
        return read_file(path, most)
    except (FileNotFoundError, NotADirectoryError):
        return None


def leads_out(path: Path, folder: Path) -> bool:
    """Say whether a path leads out of a folder by links."""
    real = Path(os.path.realpath(path))
    return path.is_symlink() and not real.is_relative_to(os.path.realpath(folder))


def _open(path: str, flags: int, *, follow: bool) -> int:
    if not follow:
        flags |= getattr(os, "O_NOFOLLOW", 0)
    # Without waiting, or a pipe would be waited for before it is known to be one.
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # a folder is refused by Python
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not an ordinary file", path)
    return descriptor


# Writing


def make_folder(folder: Path) -> None:
    """Make a folder and those around it, where they are missing; raises OSError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except RecursionError as error:  # pathlib goes from each folder to the one around it by a call
        why = os.strerror(errno.ENAMETOOLONG)
        raise OSError(errno.ENAMETOOLONG, why, str(folder)) from error


class Put(Protocol):
    """Replaces a file; `check` may look at the new one before, and raise."""

    def __call__(self, content: bytes, check: Callable[[Path], object] = ...) -> None:
        """Write the content under a neighbouring name of the same ending, then rename it."""


@contextlib.contextmanager
def changing(path: Path) -> Iterator[Put]:
    """Hold the folder of a file, and yield what replaces the file; raises OSError.

    Other threads and processes that change files there wait meanwhile, so that what was read is
    what is replaced; and what is found there under a temporary name was left by a process that
    was killed, and is cleared. The folder is made where it is missing. Where the file is there
    already its permissions stay, and so does a link to it.
    """
    path = Path(os.path.realpath(path))
    make_folder(path.parent)
    with _held(path.parent) as alone:
        for left in path.parent.glob(f"{_LEFT}*") if alone else ():
            with contextlib.suppress(OSError):
                left.unlink()
        yield partial(_put, path)


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
        """Write a file whole, and its folder if it is missing; a link is replaced itself."""
        self.replace(self.stage(path, lambda file: file.write(content)), path)

    def stage(self, path: Path, fill: Callable[[BinaryIO], object]) -> Path:
        """Write the neighbour of a file, safe on the disk, and return it."""
        make_folder(path.parent)
        temporary = path.parent / self._name
        self.clear([path.parent])
        with _removed_on_failure(temporary):
            _fill(temporary, fill, path)
        return temporary

    def replace(self, temporary: Path, path: Path) -> None:
        """Give a staged file its name."""
        with _removed_on_failure(temporary):
            os.replace(temporary, path)  # noqa: PTH105 - names that are not UTF-8 pass either way


def _put(path: Path, content: bytes, check: Callable[[Path], object] = lambda _: None) -> None:
    temporary = path.with_name(f".cliext-{secrets.token_hex(4)}.new{path.suffix}")
    with _removed_on_failure(temporary):
        _fill(temporary, lambda file: file.write(content), path)
        check(temporary)
        os.replace(temporary, path)  # noqa: PTH105 - as above


def _fill(temporary: Path, fill: Callable[[BinaryIO], object], path: Path) -> None:
    """Write a file, safe on the disk, with the permissions of the one that it will replace."""
    with temporary.open("xb") as file:
        fill(file)
        file.flush()
        os.fsync(file.fileno())
    with contextlib.suppress(FileNotFoundError):
        shutil.copymode(path, temporary)


@contextlib.contextmanager
def _removed_on_failure(temporary: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


# Holding


def lock(descriptor: int) -> bool:
    """Hold an open file, or an open folder, as long as it is open; say whether that can be done.

    Raises BlockingIOError where somebody else holds it.
    """
    if sys.platform == "win32":
        import msvcrt

        os.lseek(descriptor, 2**40, os.SEEK_SET)  # a lock there keeps nobody from reading
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError(str(error)) from error
    else:
        import fcntl

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:  # some file systems of the network have no locks
            return False
    return True


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Hold a folder against all others who do; yields whether that can be done there."""
    try:
        if sys.platform == "win32":  # where folders can't be opened
            descriptor = os.open(folder / ".cliext.lock", os.O_RDWR | os.O_CREAT, 0o666)
        else:
            descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        yield False  # whoever writes there will say why not
        return
    try:
        last = time.monotonic() + _WAIT_SECONDS
        while True:
            try:
                alone = lock(descriptor)
                break
            except BlockingIOError as error:
                if time.monotonic() > last:
                    raise TimeoutError(
                        errno.ETIMEDOUT, "another program holds the folder", str(folder)
                    ) from error
            time.sleep(_LOOK_SECONDS)
        yield alone
    finally:
        os.close(descriptor)


# Wording


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
