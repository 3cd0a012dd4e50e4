"""Batches of uploaded pictures, which have a folder of their own until they are fetched."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import threading
import time
import unicodedata
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from clip_interrogator_ext.batch import journal, looks, pictures
from clip_interrogator_ext.batch.jobs import jobs_of
from clip_interrogator_ext.batch.outputs import FAILURES
from clip_interrogator_ext.batch.results import Failure
from clip_interrogator_ext.batch.writers import WRITERS
from clip_interrogator_ext.errors import BadOption, InterrogatorError
from clip_interrogator_ext.files import lock, open_ordinary, shown, unwritable
from clip_interrogator_ext.images import SUFFIXES

if TYPE_CHECKING:
    from clip_interrogator_ext.batch.options import BatchOptions
    from clip_interrogator_ext.batch.results import BatchResult, BatchState
    from clip_interrogator_ext.service import Service

log = logging.getLogger(__name__)

# The other names pictures by their full paths, which no upload tells.
FORMS = tuple(name for name in WRITERS if name != "kohya")
KEPT_DAYS = 7
TEXTS = "texts.zip"

# In the folder of an upload.
_PICTURES, _OUTPUT, _DOWNLOADS = "pictures", "output", "downloads"
_LOCK = ".lock"  # open and locked as long as a batch of the folder has not ended
_LONGEST_NAME_BYTES = 150  # there is to be room for the names of texts
_SOME_TIME = 10**9  # the same for all copies, so that an unchanged one isn't read again
_laying = threading.Lock()
_held: dict[Path, BinaryIO] = {}
_RESERVED = {  # by Windows, with any ending
    "con", "prn", "aux", "nul",
    *(f"{port}{digit}" for port in ("com", "lpt") for digit in range(10)),
}


@dataclass(frozen=True)
class Upload:
    """A file that was uploaded: its name where it comes from, and where it lies here."""

    name: str
    path: Path


def add(service: Service, uploads: Sequence[Upload], options: BatchOptions) -> BatchState:
    """Copy uploaded pictures into a folder of their own, and put a batch of them into the line.

    The same pictures get the same folder, so that the batch goes on where an earlier one was
    stopped. Of the options, those about places and about texts that are there don't count. Raises
    BadOption, and InterrogatorError where the pictures can't be copied or are in the line already.
    """
    if options.form not in FORMS:
        raise BadOption(
            "form",
            f"The form {options.form} names pictures by their full paths, which an upload doesn't "
            f"tell: choose one of {', '.join(FORMS)}.",
        )
    named = _named(uploads)
    digest = hashlib.sha256()
    for name, (_, sha256) in named.items():
        digest.update(f"{name}\0{sha256}\0".encode())
    folder = _root(service) / digest.hexdigest()[:32]
    with _laying:
        _clear_left(service)
        _take(service, folder)
        try:
            _lay(folder, {name: upload.path for name, (upload, _) in named.items()})
            return jobs_of(service).add(
                replace(
                    options, input=str(folder / _PICTURES), recursive=False, existing="skip",
                    output=str(folder / _OUTPUT) + os.sep,
                ),
                lambda name, result: _end(folder, name, options.form, result),
                {name: sha256 for name, (_, sha256) in named.items()},
            )
        except BaseException as error:
            _let_go(folder)
            if isinstance(error, OSError):
                raise unwritable(folder, error) from error
            raise


def clear_left(service: Service) -> None:
    """Clear away what processes have left that were killed, and what nobody came back to."""
    with _laying:
        _clear_left(service)


def folder_of(service: Service, state: BatchState) -> Path | None:
    """Return the folder of pictures if a batch is one of uploads, else None."""
    pictures_folder = Path(state.input)
    return pictures_folder if pictures_folder.parent.parent == _root(service) else None


def downloads(service: Service, state: BatchState) -> tuple[Path, ...]:
    """Return what can be downloaded of a batch: its file or a zip of its texts, and failures."""
    folder = folder_of(service, state)
    if folder is None or not state.ended:
        return ()
    found = (folder.parent / _DOWNLOADS / state.name).glob("*")
    return tuple(sorted(found, key=lambda path: (path.name == FAILURES, path.name)))


def _root(service: Service) -> Path:
    return Path(os.path.abspath(service.cache_dir)) / "uploads"  # noqa: PTH100 - links stay


def _in_use(service: Service) -> set[Path]:
    return {Path(state.input).parent for state in jobs_of(service).all() if not state.ended}


# Holding a folder


def _take(service: Service, folder: Path) -> None:
    """Hold a folder until its batch has ended, or this process; raises InterrogatorError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / _LOCK).open("ab")
    except OSError as error:
        raise unwritable(folder, error) from error
    try:
        lock(file.fileno())
        taken = folder in _in_use(service)
    except BlockingIOError:  # by another service, or by another process
        taken = True
    if taken:
        file.close()
        raise InterrogatorError(
            "A batch of these pictures is in the line already: wait for its end, or stop it."
        )
    _held[folder] = file


def _let_go(folder: Path) -> None:
    """Take the copies of the pictures away, then let others have the folder."""
    _clear(folder / _PICTURES)
    _held.pop(folder).close()


def _is_left(folder: Path) -> bool | None:
    """Say whether nobody has a folder any more; None where that can't be told."""
    try:
        with open_ordinary(folder / _LOCK, "r+b") as file:
            return lock(file.fileno()) or None
    except BlockingIOError:
        return False
    except OSError:  # it is another user's, or of an earlier version
        return None


# Names


def _named(uploads: Sequence[Upload]) -> dict[str, tuple[Upload, str]]:
    """Return a name of its own for each upload, in any order the same, with its content's hash."""
    if not uploads:
        raise BadOption("input", "Choose the pictures that are to be uploaded first.")
    found = []
    for upload in uploads:
        name = _safe(upload.name)
        if Path(name).suffix.lower() not in SUFFIXES:
            raise BadOption(
                "input",
                f'"{shown(upload.name)}" is no picture, by its name. These are: '
                f"{', '.join(SUFFIXES)}.",
            )
        found.append((name, _sha256(upload), upload))
    named: dict[str, tuple[Upload, str]] = {}
    taken: dict[str, str] = {}
    for own, sha256, upload in sorted(found, key=lambda one: one[:2]):
        if taken.get(_key(own)) == sha256:
            continue  # the same picture twice
        name, path, number = own, Path(own), 1
        while _key(name) in taken:
            number += 1
            name = f"{path.stem} ({number}){path.suffix}"
        taken[_key(name)] = sha256
        named[name] = (upload, sha256)
    return named


def _safe(name: str) -> str:
    """Return the last part of a name in a way that any file system holds."""
    name = name.replace("\\", "/").rpartition("/")[2]
    name = "".join(
        "_" if char in '<>:"|?*' or unicodedata.category(char) in ("Cc", "Cs") else char
        for char in name
    )
    stem, dot, suffix = name.rpartition(".")
    stem = stem.encode()[:_LONGEST_NAME_BYTES].decode(errors="ignore").strip(" .") or "picture"
    if stem.partition(".")[0].lower() in _RESERVED:
        stem = f"_{stem}"
    return f"{stem}{dot}{suffix.strip()}"


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _sha256(upload: Upload) -> str:
    digest = hashlib.sha256()
    try:
        if not upload.path.stat().st_size:
            raise BadOption(
                "input",
                f'"{shown(upload.name)}" is empty, or its upload still goes on: wait for it, then '
                "start again.",
            )
        with open_ordinary(upload.path) as file:
            while part := file.read(2**20):
                digest.update(part)
    except OSError as error:
        raise BadOption(
            "input", f'The upload of "{shown(upload.name)}" is gone: upload it again.'
        ) from error
    return digest.hexdigest()


# The folder of an upload


def _lay(folder: Path, files: dict[str, Path]) -> None:
    """Copy the pictures; of an earlier batch all stays but the texts, which its journal has."""
    _clear(folder / _PICTURES)
    if (folder / _OUTPUT).is_dir():
        for path in (folder / _OUTPUT).iterdir():
            if path.name not in (journal.NAME, looks.NAME):
                path.unlink()
    for name in (_PICTURES, _OUTPUT):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name, path in files.items():
        copy = folder / _PICTURES / name
        shutil.copyfile(path, copy)
        os.utime(copy, (_SOME_TIME, _SOME_TIME))
    os.utime(folder)


def _end(folder: Path, name: str, form: str, result: BatchResult | None) -> None:
    """Make what can be downloaded, and take the copies of the pictures away."""
    try:
        if result is not None:
            # Under another name until it is whole, or what is half of it would be offered.
            made = folder / _DOWNLOADS / f".{name}"
            try:
                _pack(folder, made, form, result)
                made.rename(folder / _DOWNLOADS / name)
            finally:
                _clear(made)
    except OSError as error:
        raise unwritable(folder, error) from error
    finally:
        _let_go(folder)


def _pack(folder: Path, target: Path, form: str, result: BatchResult) -> None:
    target.mkdir(parents=True)
    if form == "txt":
        _zip(folder / _OUTPUT, target / TEXTS)
    elif result.output.is_file():
        shutil.copyfile(result.output, target / result.output.name)
    if result.failures:
        # Without this machine's folders, which say nothing to whoever uploaded.
        here = folder / _PICTURES
        failures = [
            Failure(failure.picture, failure.reason.replace(f"{here}{os.sep}", ""))
            for failure in result.failures
        ]
        found = pictures.Found(here, tuple(failure.picture.name for failure in failures))
        (target / FAILURES).write_bytes(pictures.list_of_failures(found, here, failures))


def _zip(folder: Path, target: Path) -> None:
    """Pack the texts below a folder with their tree; hidden files and failures are none."""
    texts = [
        path for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".") and path != folder / FAILURES
    ]
    if texts:
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in texts:
                archive.write(path, path.relative_to(folder).as_posix())


def _clear_left(service: Service) -> None:
    """Remove what nobody has come back to for days; of killed processes the copies, at once."""
    oldest = time.time() - KEPT_DAYS * 24 * 60 * 60
    in_use = _in_use(service)
    for upload in _folders(_root(service)):
        left = upload not in in_use and _is_left(upload)
        if left is False:
            continue
        for folder in (upload, *_folders(upload / _DOWNLOADS)):
            half = folder.name.startswith(".")  # of what was to be fetched
            try:
                if folder.exists() and ((left and half) or folder.stat().st_mtime < oldest):
                    shutil.rmtree(folder)
            except OSError as error:
                log.warning("%s is old, but can't be removed (%s).", shown(folder), error)
        if left:
            _clear(upload / _PICTURES)


def _folders(root: Path) -> Sequence[Path]:
    try:
        return list(root.iterdir()) if root.is_dir() else ()
    except OSError as error:
        log.warning("%s can't be looked into (%s).", shown(root), error)
        return ()


def _clear(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
