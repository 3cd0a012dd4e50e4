"""The files for all pictures of a batch: the one of prompts, and the list of failures."""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from clip_interrogator_ext.batch import pictures, texts
from clip_interrogator_ext.batch.journal import EVERY_JOB
from clip_interrogator_ext.batch.writers import WRITERS, Answer, Row
from clip_interrogator_ext.errors import BadOption, InterrogatorError
from clip_interrogator_ext.files import open_ordinary, shown, unwritable
from clip_interrogator_ext.host import as_path

if TYPE_CHECKING:
    from clip_interrogator_ext.batch.journal import Journal
    from clip_interrogator_ext.batch.options import BatchOptions
    from clip_interrogator_ext.batch.results import Failure
    from clip_interrogator_ext.files import WholeFiles

log = logging.getLogger(__name__)

FAILURES = "failures.txt"
_MIDWAY_SECONDS = 30.0  # between two writings of a file for all pictures
_MIDWAY_SHARE = 20  # and so many times what the last one took


def place_of(options: BatchOptions, root: Path) -> tuple[Path, Path]:
    """Return the folder of the journal, and the folder or the file of the output.

    Raises BadOption for a place where nothing can be.
    """
    writer = WRITERS[options.form]
    given = Path(os.path.normpath(as_path(options.output).absolute())) if options.output else root
    try:
        mode = given.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        mode = None
    except (OSError, ValueError) as error:  # too long, closed, or with a sign that no name has
        why = getattr(error, "strerror", None) or error
        raise BadOption("output", f'"{shown(given)}" can\'t be written ({why}).') from error
    is_folder = mode is not None and stat.S_ISDIR(mode)
    if options.form == "txt":
        if mode is not None and not is_folder:
            raise BadOption("output", f'"{shown(given)}" is a file: the form txt needs a folder.')
        return given, given
    is_folder = is_folder or (options.output or "").endswith(("/", os.sep))
    output = given / writer.file_name if is_folder else given
    suffix = Path(writer.file_name).suffix
    if output.suffix.lower() != suffix:
        raise BadOption(
            "output",
            f"The form {options.form} goes into a folder, or into a file whose name ends in "
            f'{suffix}, not into "{shown(output)}".',
        )
    return output.parent, output


class Outputs:
    """Writes what is made from the journal: at the end, at a stop, and now and then on the way."""

    def __init__(
        self,
        options: BatchOptions,
        found: pictures.Found,
        journal: Journal,
        files: WholeFiles,
        output: Path,
    ) -> None:
        self._options = options
        self._found = found
        self._journal = journal
        self._files = files
        self._folder = journal.path.parent
        self._output = output
        self._midway_after = time.monotonic() + _MIDWAY_SECONDS

    def claim(self) -> None:
        """See to it that a file that somebody else wrote is not lost."""
        if self._options.form == "txt":
            return
        output = self._output
        if output.is_dir():
            raise BadOption("output", f'"{shown(output)}" is a folder: name a file.')
        sha256 = _sha256(output)
        if sha256 is None or self._journal.wrote(self._below(output), sha256):
            return
        # Where the journal is damaged it may have lost that this batch wrote it.
        if self._options.existing != "replace" and not self._journal.damaged:
            raise BadOption(
                "existing",
                f'"{shown(output)}" is there already, and this batch did not write it. Choose '
                "another output, or have it replaced: then a copy is kept as .bak.",
            )
        self._keep_copy()
        self._note(output, sha256, self._journal.job)

    def write(self, failures: list[Failure]) -> None:
        """Write the file of prompts, but for pictures that have failed in this start."""
        if self._options.form == "txt" or not self._journal.done:
            return
        sha256 = _sha256(self._output)
        if sha256 is not None and not self._journal.wrote(self._below(self._output), sha256):
            log.warning("%s was changed meanwhile: a copy is kept as .bak.", shown(self._output))
            self._keep_copy()
        writer = WRITERS[self._options.form]
        failed = {failure.picture for failure in failures}
        self._write(
            self._output, lambda file: writer.write(self._rows(failed), file), self._journal.job
        )

    def write_midway(self, failures: list[Failure]) -> None:
        """Now and then write the file of prompts, so that it can be read."""
        now = time.monotonic()
        if self._options.form == "txt" or now < self._midway_after:
            return
        self.write(failures)
        ended = time.monotonic()
        self._midway_after = ended + max(_MIDWAY_SECONDS, _MIDWAY_SHARE * (ended - now))

    def write_failures(self, failures: list[Failure], *, stopped: bool) -> Path | None:
        """Write the list of failures; where there are none, take away an earlier one of ours."""
        path, number = self._folder / FAILURES, 1
        while not self._may_write(path):
            number += 1
            path = self._folder / f"failures-{number}.txt"
        if failures:
            content = pictures.list_of_failures(self._found, self._folder, failures)
            self._write(path, lambda file: file.write(content), EVERY_JOB)
            return path
        if not stopped:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise unwritable(path, error) from error
        return None

    def keep(self, failures: list[Failure]) -> None:
        """Write what is finished while an error is on its way."""
        try:
            self.write(failures)
            self.write_failures(failures, stopped=True)
        except InterrogatorError as error:
            log.warning("%s", error)

    def _rows(self, failed: set[Path]) -> Iterator[Row]:
        """Return the rows of all pictures that this job has done and that are still there.

        Those that an earlier start was given, but this one was not, are among them: a list of
        failures adds to a table and takes nothing away.
        """
        for name in pictures.in_natural_order(self._journal.done):
            path, line = self._found.root / name, self._journal.done_line(name)
            known = all(self._journal.knows(key) for key in line["keys"])
            if path in failed or not known or not path.is_file():
                continue
            answers = []
            for key, models in zip(line["keys"], self._options.sets, strict=True):
                said = self._journal.answer(key)
                prompt, negative = self._options.wording.of_answer(said)
                prompt = self._options.wording.with_trigger(prompt)
                answers.append(Answer(prompt, negative, models, said))
            yield Row(path, name, line["sha256"], tuple(answers))

    def _may_write(self, path: Path) -> bool:
        if path == self._found.source:
            return False
        try:
            sha256 = _sha256(path)
        except InterrogatorError:  # what can't be read is not ours
            return False
        return sha256 is None or self._journal.wrote(self._below(path), sha256)

    def _keep_copy(self) -> None:
        try:
            with open_ordinary(self._output) as file:
                texts.keep(self._files, self._output, file.read())
        except OSError as error:
            raise unwritable(self._output, error) from error

    def _write(self, path: Path, fill: Callable[[BinaryIO], object], job: str) -> None:
        try:
            staged = self._files.stage(path, fill)
            sha256 = _sha256(staged) or ""
            # The line first: whoever is killed in between must know the file for its own.
            if not self._journal.wrote(self._below(path), sha256):
                self._note(path, sha256, job)
            self._files.replace(staged, path)
        except OSError as error:
            raise unwritable(path, error) from error

    def _note(self, path: Path, sha256: str, job: str) -> None:
        self._journal.add(
            {"kind": "file", "job": job, "file": self._below(path), "sha256": sha256}
        )

    def _below(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()


def _sha256(path: Path) -> str | None:
    """Return the hash of a file, or None where there is none."""
    digest = hashlib.sha256()
    try:
        with open_ordinary(path) as file:
            while part := file.read(2**20):
                digest.update(part)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unwritable(path, error) from error
    return digest.hexdigest()
