"""What a batch has finished, line by line, so that it can go on after a stop at any moment."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import sys
from pathlib import Path
from typing import Any, BinaryIO

from clip_interrogator_ext.batch.sealing import seal, unseal
from clip_interrogator_ext.errors import InterrogatorError
from clip_interrogator_ext.files import lock, make_folder, open_ordinary, shown, unwritable

log = logging.getLogger(__name__)

NAME = ".clip-interrogator-ext.journal"
EVERY_JOB = ""  # whose files any job may replace
_VERSION = 2


class Journal:
    """An append-only file of JSON lines beside the output, safe on the disk line by line.

    There are four kinds of lines besides the first. "answer" holds what the engine said, under
    a key made of the picture's content and of all that the answer depends on; any job may use it.
    "captions" holds those of several pictures that were written together, likewise. "done" says
    what a job wrote for a picture, and the text that stood there before; it is written before the
    text is. Its picture is named below `root`, which is as seen from the journal's folder. "file"
    holds the hash of a file for all pictures, before it is put in its place. Only places are kept
    in memory. A last line that was torn by a crash is cut off; one that is damaged in any byte is
    skipped, and what it said is found out again. One process at a time holds the journal.
    """

    def __init__(self, folder: Path, job: str, root: str = ".") -> None:
        self.path = folder / NAME
        self.job = job
        self.root = root
        self.id = ""
        self.done: dict[str, int] = {}
        self._answers: dict[str, int] = {}
        self._captions: dict[str, int] = {}
        self._hashes: dict[tuple[str, int, int], str] = {}  # of pictures below our root
        self._written: dict[str, set[str]] = {}
        self.damaged = False
        self._file = self._open()
        try:
            self._read()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the file, and so of its lock."""
        self._file.close()

    def knows(self, key: str) -> bool:
        """Say whether the engine has answered this."""
        return key in self._answers

    def answer(self, key: str) -> dict[str, Any]:
        """Return what the engine said: a prompt as plain values."""
        said: dict[str, Any] = self._line_at(self._answers[key])["prompt"]
        return said

    def caption(self, key: str) -> str | None:
        """Return what the captioner said, or None where it was not asked."""
        if key not in self._captions:
            return None
        return str(self._line_at(self._captions[key])["captions"][key])

    def hash_of(self, picture: str, size: int, modified_ns: int) -> str:
        """Return the hash of a picture that is as a job of this root has found it, else ""."""
        return self._hashes.get((picture, size, modified_ns), "")

    def done_line(self, picture: str) -> dict[str, Any]:
        """Return the line of a picture that is done."""
        return self._line_at(self.done[picture])

    def wrote(self, file: str, sha256: str) -> bool:
        """Say whether this job, or one for all, wrote that file with that content."""
        return sha256 in self._written.get(file, ())

    def add(self, *lines: dict[str, Any]) -> None:
        """Append lines and return when they are safe on the disk."""
        start = self._file.seek(0, os.SEEK_END)
        encoded = [seal(line) + b"\n" for line in lines]
        try:
            _write_all(self._file.fileno(), b"".join(encoded))
            os.fsync(self._file.fileno())
        except OSError as error:
            # What got onto a full disk must not stand in front of the next line.
            with contextlib.suppress(OSError):
                os.truncate(self._file.fileno(), start)
            raise unwritable(self.path, error) from error
        for line, content in zip(lines, encoded, strict=True):
            self._note(line, start)
            start += len(content)

    def _open(self) -> BinaryIO:
        try:
            make_folder(self.path.parent)
            # What a link of this name leads to is not ours to write in.
            file = open_ordinary(self.path, "a+b", follow=False)
        except OSError as error:
            raise unwritable(self.path, error) from error
        try:
            if not lock(file.fileno()):
                log.debug("%s can't be locked", shown(self.path))
        except BlockingIOError as error:
            file.close()
            raise InterrogatorError(
                f"Another batch is writing in {shown(self.path.parent)}: wait until it has ended."
            ) from error
        return file

    def _read(self) -> None:
        self._file.seek(0)
        whole = 0
        for number, content in enumerate(self._file, 1):
            if not content.endswith(b"\n"):
                break
            try:
                line = unseal(content)
            except ValueError:
                self._refuse_another_version(content)
                self.damaged = True
                log.warning("Line %d of %s is damaged, skipped.", number, shown(self.path))
            else:
                self._note(line, whole)
            whole += len(content)
        if whole < self.path.stat().st_size:
            os.truncate(self._file.fileno(), whole)
        if not self.id:
            self.add({"kind": "journal", "version": _VERSION, "id": secrets.token_hex(6)})
            _sync_folder(self.path.parent)

    def _note(self, line: dict[str, Any], offset: int) -> None:
        kind = line["kind"]
        if kind == "journal":
            self._require_version(line["version"])
            self.id = line["id"]
        elif kind == "answer":
            self._answers[line["key"]] = offset
        elif kind == "captions":
            self._captions.update(dict.fromkeys(line["captions"], offset))
        elif kind == "done":
            if line["root"] == self.root:
                as_found = (line["picture"], line["size"], line["modified_ns"])
                self._hashes[as_found] = line["sha256"]
            if line["job"] == self.job:
                self.done[line["picture"]] = offset
        elif kind == "file" and line["job"] in (self.job, EVERY_JOB):
            self._written.setdefault(line["file"], set()).add(line["sha256"])

    def _refuse_another_version(self, content: bytes) -> None:
        """Raise InterrogatorError where a line without our seal is the first of another version."""
        with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
            line = json.loads(content)
            if line["kind"] == "journal":
                self._require_version(line["version"])

    def _require_version(self, version: object) -> None:
        if version != _VERSION:
            raise InterrogatorError(
                f"{shown(self.path)} was begun by another version of this program: finish with "
                "that one, or delete the file to begin anew."
            )

    def _line_at(self, offset: int) -> dict[str, Any]:
        self._file.seek(offset)
        try:
            return unseal(self._file.readline())
        except ValueError as error:
            raise InterrogatorError(
                f"{shown(self.path)} was damaged while it was in use: start the batch again."
            ) from error


def _write_all(descriptor: int, content: bytes) -> None:
    """Write bytes past every buffer of Python's own."""
    while content:
        content = content[os.write(descriptor, content) :]


def _sync_folder(folder: Path) -> None:
    """Make a new file's name safe on the disk, where the system has a way to."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:  # some file systems of the network refuse
        log.debug("%s can't be synced", folder)
    finally:
        os.close(descriptor)
