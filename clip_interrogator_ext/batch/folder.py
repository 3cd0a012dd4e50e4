"""Interrogate the pictures of a folder one after another, so that nothing is done twice."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clip_interrogator_ext.batch import pictures, texts
from clip_interrogator_ext.batch.decoding import Loaded, Stamp, ahead, load, stamp_of
from clip_interrogator_ext.batch.files import (
    WholeFiles,
    concerns_all,
    read_if_there,
    shown,
    unwritable,
)
from clip_interrogator_ext.batch.journal import EVERY_JOB, Journal
from clip_interrogator_ext.batch.keys import answer_key, job_key, lists_key
from clip_interrogator_ext.batch.results import BatchProgress, BatchResult, Failure
from clip_interrogator_ext.batch.writers import WRITERS, Answer, Row
from clip_interrogator_ext.errors import BadImage, BadOption, InterrogatorError, Interrupted
from clip_interrogator_ext.host import as_path
from clip_interrogator_ext.options import InterrogateOptions, ModelOptions

if TYPE_CHECKING:
    from PIL import Image

    from clip_interrogator_ext.batch.options import BatchOptions
    from clip_interrogator_ext.service import Service

log = logging.getLogger(__name__)

Report = Callable[[BatchProgress], None]

FAILURES = "failures.txt"
_MIDWAY_SECONDS = 30.0  # between two writings of a file for all pictures
_MIDWAY_SHARE = 20  # and so many times what the last one took


@dataclass(frozen=True)
class _Pass:
    """One look at all pictures: for the captions, or for the prompts of one set of backbones."""

    name: str
    models: ModelOptions
    captions: bool = False
    last: bool = False


@dataclass(eq=False)
class _Item:
    """A picture on its way. It is closed when it is done, skipped or failed."""

    name: str
    path: Path
    text: Path | None
    sha256: str = ""
    stamp: Stamp | None = None
    line: dict[str, Any] | None = None
    before: str | None = None
    keeps: bool = False  # a text stands there that is not ours
    caption: str | None = None
    seen: bool = False
    closed: bool = False

    def close(self) -> None:
        """Let go of what is not needed any more."""
        self.closed, self.line, self.before, self.caption = True, None, None, None


@dataclass
class _Count:
    total: int
    done: int = 0
    earlier: int = 0
    skipped: int = 0
    failures: list[Failure] = field(default_factory=list)


class Batch:
    """A batch of pictures, to be run once.

    `report` is called after each picture. Each picture is a run of the service by the name `task`,
    so that others get the device between two of them. `stop` may be called by any thread.
    """

    def __init__(
        self,
        service: Service,
        options: BatchOptions,
        report: Report | None = None,
        task: str = "batch",
    ) -> None:
        self.service = service
        self._options = options
        self._report = report
        self._task = task
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End after the picture in flight; the next start goes on from there."""
        self._stopped.set()

    @property
    def stopping(self) -> bool:
        """Whether it was asked to stop."""
        return self._stopped.is_set()

    def run(self) -> BatchResult:
        """Interrogate all pictures that are not done, write what is asked for, and say how it went.

        A picture that fails does not stop the others. What concerns all of them (a model that is
        missing, a full disk, an output that can't be written) is raised as InterrogatorError;
        what is finished is kept, and the next start goes on from there.
        """
        options = self._options
        found = pictures.find(options.input, options.recursive)
        folder, output = _place(options, found.root)
        lists = lists_key(self.service.categories())
        journal = Journal(folder, job_key(options, found.root, folder, lists))
        try:
            work = _Work(
                self.service, options, found, journal, output, lists, self._task, self._stopped
            )
            return work.run(self._report)
        finally:
            journal.close()


def _place(options: BatchOptions, root: Path) -> tuple[Path, Path]:
    """Return the folder of the journal, and the folder or the file of the output."""
    writer = WRITERS[options.form]
    given = Path(os.path.normpath(as_path(options.output).absolute())) if options.output else root
    if options.form == "txt":
        if given.exists() and not given.is_dir():
            raise BadOption("output", f'"{shown(given)}" is a file: the form txt needs a folder.')
        return given, given
    is_folder = given.is_dir() or (options.output or "").endswith(("/", os.sep))
    output = given / writer.file_name if is_folder else given
    suffix = Path(writer.file_name).suffix
    if output.suffix.lower() != suffix:
        raise BadOption(
            "output",
            f"The form {options.form} goes into a folder, or into a file whose name ends in "
            f'{suffix}, not into "{shown(output)}".',
        )
    return output.parent, output


class _Work:
    """The work of one start: which pictures are done, what is asked, what is written."""

    def __init__(
        self,
        service: Service,
        options: BatchOptions,
        found: pictures.Found,
        journal: Journal,
        output: Path,
        lists: str,
        task: str,
        stopped: threading.Event,
    ) -> None:
        self.service = service
        self.options = options
        self.found = found
        self.journal = journal
        self.output = output
        self.lists = lists
        self.task = task
        self.stopped = stopped
        self.folder = journal.path.parent
        self.files = WholeFiles(journal.id)
        self.count = _Count(len(found.names))
        self.items = self._items()
        self.passes = self._passes()
        self.asked = 0  # questions that the engine has answered in this start
        self.asked_since = time.monotonic()
        self.seen = 0  # pictures that the passes have come to
        self.midway_after = time.monotonic() + _MIDWAY_SECONDS

    def run(self, report: Report | None) -> BatchResult:
        self.files.clear({self.folder, *(item.text.parent for item in self.items if item.text)})
        if self.options.form != "txt":
            self._claim_output()
        try:
            for one in self.passes:
                self._go_through(one, report)
        except Interrupted:
            self.stopped.set()
        except Exception:  # whatever it was, what is finished is written before it is told
            self._keep_what_there_is()
            raise
        stopped = self.stopped.is_set()
        self._write_output()
        failures_file = self._write_failures(stopped=stopped)
        count = self.count
        return BatchResult(
            total=count.total, done=count.done, earlier=count.earlier, skipped=count.skipped,
            failures=tuple(count.failures), output=self.output, failures_file=failures_file,
            stopped=stopped and count.done + count.skipped + len(count.failures) < count.total,
        )

    def _go_through(self, one: _Pass, report: Report | None) -> None:
        with closing(ahead(self._open_items(), self._needed(one))) as queue:
            for item, loading in queue:
                if self.stopped.is_set():
                    return
                prompt, problem = self._step(item, loading, one)
                if report is not None:
                    report(self._progress(item, one, prompt, problem))
                self._write_midway()

    # What there is to do

    def _items(self) -> list[_Item]:
        root, names = self.found.root, self.found.names
        paths = [root / name for name in names]
        written: list[Path | None] = [None] * len(names)
        if self.options.form == "txt":
            taken = [*paths, self.folder / FAILURES]
            if self.found.source is not None:
                taken.append(self.found.source)
            named = pictures.name_texts(names, self.options.name, self.output, taken)
            written[:] = named
            odd = [
                path.name for path, text in zip(paths, named, strict=True)
                if text.name != self.options.name.format(stem=path.stem, name=path.name)
            ]
            if odd:
                log.warning(
                    "The texts of %d pictures are named after the whole name, because others have "
                    "the same stem: %s%s", len(odd), ", ".join(map(shown, odd[:5])),
                    ", ..." if len(odd) > 5 else "",
                )
        return [_Item(*one) for one in zip(names, paths, written, strict=True)]

    def _passes(self) -> list[_Pass]:
        from clip_interrogator_ext.search.modes import NEEDS_CAPTION

        sets, asked = self.options.sets, self.options.asked
        passes = [_Pass("Prompts", models) for models in sets]
        if len(sets) > 1:
            passes = [replace(one, name=" + ".join(one.models.backbones)) for one in passes]
        if (
            self.options.models.low_memory
            and asked.mode in NEEDS_CAPTION - {"caption"}
            and asked.caption is None
        ):
            # Two passes: bringing captioner and backbone to the device in turns for every picture
            # costs more than decoding it twice.
            passes.insert(0, _Pass("Captions", self.options.models, captions=True))
        passes[-1] = replace(passes[-1], last=True)
        return passes

    def _open_items(self) -> Iterator[_Item]:
        for item in self.items:
            if self.stopped.is_set():
                return
            if item.closed:
                self.seen += 1
            else:
                yield item

    def _needed(self, one: _Pass) -> Callable[[_Item], Path | None]:
        """Return what says which picture's file has to be read for an item in this pass."""

        def path_of(item: _Item) -> Path | None:
            try:
                if not item.seen:
                    self._see(item)
            except (BadImage, OSError):
                return None  # said when its turn comes
            if item.line is None and item.keeps and self.options.existing == "skip":
                return None
            return None if self._is_known(item, one) else item.path

        return path_of

    def _see(self, item: _Item) -> None:
        """Look at a picture's line, its text and its caption's file, not yet at the picture."""
        line = self.journal.done_line(item.name) if item.name in self.journal.done else None
        if item.text is not None:
            if line is not None and line["text"] != self._below(item.text):
                line = None  # its text had another name then
            self._check_writable(item.text)
            stand = texts.standing(item.text, line)
            item.before, item.keeps = stand.before, stand.keeps
            if stand.keeps and self.options.existing in ("append", "prepend"):
                texts.check_joinable(item.text, item.before)
        item.line = line
        item.caption = self._caption_of(item)
        item.stamp = stamp_of(item.path)
        if line is not None and item.stamp == Stamp(line["size"], line["modified_ns"]):
            item.sha256 = line["sha256"]
        item.seen = True

    def _caption_of(self, item: _Item) -> str | None:
        """Return the caption that is given for a picture, if one is."""
        pattern = self.options.caption_from
        if pattern is not None:
            name = pattern.format(stem=item.path.stem, name=item.path.name)
            path = item.path.with_name(name)
            if path == item.text:  # our own prompt may stand there by now
                text = item.before or ""
            else:
                text = (read_if_there(path) or b"").decode("utf-8-sig", "replace")
            if text.strip():
                return " ".join(text.split())
        return self.options.asked.caption

    def _check_writable(self, text: Path) -> None:
        if text.is_dir():
            raise BadImage(f'There is a folder "{shown(text)}" in the place of the text.')
        folder = text.parent
        while not folder.exists():
            folder = folder.parent
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise BadImage(
                f'The text can\'t be written into "{shown(folder)}": change its permissions, or '
                "choose another output."
            )

    # One picture

    def _step(
        self, item: _Item, loading: Future[Loaded] | None, one: _Pass
    ) -> tuple[str, str]:
        """Do what a pass has to do for a picture; return its prompt and what went wrong."""
        self.seen += 1
        try:
            if not item.seen:
                self._see(item)
            if self._settled(item, known=bool(item.sha256)):
                return "", ""
            loaded = None
            if not self._is_known(item, one):
                loaded = load(item.path) if loading is None else loading.result()
                item.sha256, item.stamp = loaded.sha256, loaded.stamp
                if self._settled(item, known=True):
                    return "", ""
            if loaded is not None and not self._is_known(item, one):
                self._ask(item, loaded.image, one)
            return (self._finish(item) if one.last else ""), ""
        except BadImage as error:
            return "", self._fail(item, str(error))
        except BadOption as error:
            if error.field == "caption" and self.options.caption_from is not None:
                reason = f'There is no caption for "{shown(item.path)}": {error}'
                return "", self._fail(item, reason)
            raise
        except OSError as error:
            if concerns_all(error):
                raise unwritable(Path(error.filename or self.folder), error) from error
            why = "the name is too long" if error.errno == errno.ENAMETOOLONG else error.strerror
            return "", self._fail(
                item, f'The text of "{shown(item.path)}" can\'t be read or written: {why}.'
            )

    def _settled(self, item: _Item, *, known: bool) -> bool:
        """Close an item that is done or to be left alone; `known` says whether its content is."""
        line = item.line
        stand = texts.Standing(None)
        if item.text is not None:
            stand = texts.standing(item.text, line)
        if line is not None and not known:
            return False
        if line is not None and line["keys"] == self._keys(item) and self._has_answers(line):
            if stand.edited:
                log.warning(
                    "%s was changed since it was written, left as it is.", shown(item.text or "")
                )
                self.count.skipped += 1
            else:
                if item.text is not None and not stand.written:
                    texts.write(self.files, item.text, line)
                self.count.done += 1
                self.count.earlier += 1
            item.close()
        elif stand.keeps and self.options.existing == "skip":
            self.count.skipped += 1
            item.close()
        return item.closed

    def _has_answers(self, line: dict[str, Any]) -> bool:
        return all(self.journal.knows(key) for key in line["keys"])

    def _is_known(self, item: _Item, one: _Pass) -> bool:
        """Say whether a pass has nothing to ask about a picture."""
        if not item.sha256:
            return False
        if one.captions and item.caption is not None:
            return True
        return self.journal.knows(self._key(item, one))

    def _key(self, item: _Item, one: _Pass) -> str:
        return answer_key(item.sha256, one.models, self._asked(item, one), self.lists)

    def _keys(self, item: _Item) -> list[str]:
        """Return the keys of a picture's prompts, one for each set of backbones."""
        return [self._key(item, one) for one in self.passes if not one.captions]

    def _asked(self, item: _Item, one: _Pass) -> InterrogateOptions:
        asked = self.options.asked
        if one.captions:
            return InterrogateOptions(mode="caption", captioning=asked.captioning)
        return replace(asked, caption=item.caption)

    def _ask(self, item: _Item, image: Image.Image, one: _Pass) -> None:
        """Have the engine answer, and keep the answer."""
        caption = self._caption_so_far(item, one)
        asked = replace(self._asked(item, one), caption=caption)
        prompt = self.service.interrogate(image, asked, one.models, self.task)
        if prompt.interrupted:
            raise Interrupted("The run was stopped.")
        if not self.asked:
            self.asked_since = time.monotonic()
        self.asked += 1
        self.journal.add(
            {"kind": "answer", "key": self._key(item, one), "prompt": prompt.as_dict()}
        )

    def _caption_so_far(self, item: _Item, one: _Pass) -> str | None:
        """Return the caption that is given, or that an earlier pass has found."""
        if one.captions or item.caption is not None:
            return item.caption
        first = self.passes[0]
        key = self._key(item, first)
        if first is one or not self.journal.knows(key):
            return None
        return str(self.journal.answer(key)["caption"]) or None

    def _finish(self, item: _Item) -> str:
        """Note that a picture is done, then write its text; return its prompt."""
        keys = self._keys(item)
        if item.text is not None:
            # Somebody may have written there while the engine was busy.
            stand = texts.standing(item.text, item.line)
            item.before = stand.before
            if stand.keeps and self.options.existing == "skip":
                self.count.skipped += 1
                item.close()
                return ""
        stamp = item.stamp or Stamp(0, 0)
        line = {
            "kind": "done", "job": self.journal.job, "picture": item.name, "size": stamp.size,
            "modified_ns": stamp.modified_ns, "sha256": item.sha256, "keys": keys,
        }
        prompt, negative = self._worded(self.journal.answer(keys[0]))
        if item.text is not None:
            options = self.options
            line |= {
                "text": self._below(item.text), "existing": options.existing,
                "before": item.before,
                "after": texts.composed(
                    prompt, negative, item.before, options.existing, options.wording
                ),
            }
        self.journal.add(line)
        if item.text is not None:
            texts.write(self.files, item.text, line)
        self.count.done += 1
        item.close()
        return self.options.wording.with_trigger(prompt)

    def _fail(self, item: _Item, reason: str) -> str:
        self.count.failures.append(Failure(item.path, reason))
        item.close()
        return reason

    def _worded(self, said: dict[str, Any]) -> tuple[str, str | None]:
        words, negative = self.options.wording, said["negative"]
        if said["mode"] == "negative":
            return words.of_negative(said["text"]), None
        return (
            words.of_prompt(said["text"]),
            None if negative is None else words.of_negative(negative["text"]),
        )

    # Files for all pictures

    def _rows(self) -> Iterator[Row]:
        """Return the rows of all pictures that this job has done and that are still there.

        Those that an earlier start was given, but this one was not, are among them: a list of
        failures adds to a table and takes nothing away.
        """
        root = self.found.root
        failed = {failure.picture for failure in self.count.failures}
        for name in pictures.in_natural_order(self.journal.done):
            path, line = root / name, self.journal.done_line(name)
            if path in failed or not path.is_file() or not self._has_answers(line):
                continue
            answers = []
            for key, models in zip(line["keys"], self.options.sets, strict=True):
                said = self.journal.answer(key)
                prompt, negative = self._worded(said)
                prompt = self.options.wording.with_trigger(prompt)
                answers.append(Answer(prompt, negative, models, said))
            yield Row(path, name, line["sha256"], tuple(answers))

    def _claim_output(self) -> None:
        """See to it that a file that somebody else wrote is not lost."""
        if self.output.is_dir():
            raise BadOption("output", f'"{shown(self.output)}" is a folder: name a file.')
        sha256 = _sha256(self.output)
        if sha256 is None or self.journal.wrote(self._below(self.output), sha256):
            return
        if self.options.existing != "replace":
            raise BadOption(
                "existing",
                f'"{shown(self.output)}" is there already, and this batch did not write it. Choose '
                "another output, or have it replaced: then a copy is kept as .bak.",
            )
        try:
            texts.keep(self.files, self.output, self.output.read_bytes())
        except OSError as error:
            raise unwritable(self.output, error) from error
        self._note_file(self.output, sha256, self.journal.job)

    def _write_output(self) -> None:
        if self.options.form == "txt" or not self.journal.done:
            return
        writer = WRITERS[self.options.form]
        try:
            staged = self.files.stage(self.output, lambda file: writer.write(self._rows(), file))
            self._replace(staged, self.output, self.journal.job)
        except OSError as error:
            raise unwritable(self.output, error) from error

    def _write_midway(self) -> None:
        """Now and then write the file for all pictures, so that it can be read."""
        now = time.monotonic()
        if self.options.form == "txt" or now < self.midway_after:
            return
        self._write_output()
        ended = time.monotonic()
        self.midway_after = ended + max(_MIDWAY_SECONDS, _MIDWAY_SHARE * (ended - now))

    def _write_failures(self, *, stopped: bool) -> Path | None:
        """Write the list of failures; where there are none, take away an earlier one of ours."""
        path, number = self.folder / FAILURES, 1
        while not self._may_write(path):
            number += 1
            path = self.folder / f"failures-{number}.txt"
        try:
            if self.count.failures:
                content = pictures.list_of_failures(self.found, self.folder, self.count.failures)
                staged = self.files.stage(path, lambda file: file.write(content))
                self._replace(staged, path, EVERY_JOB)
                return path
            if not stopped:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise unwritable(path, error) from error
        return None

    def _may_write(self, path: Path) -> bool:
        if path == self.found.source:
            return False
        sha256 = _sha256(path)
        return sha256 is None or self.journal.wrote(self._below(path), sha256)

    def _replace(self, staged: Path, path: Path, job: str) -> None:
        sha256 = _sha256(staged) or ""
        # The line first: whoever is killed in between must know the file for its own.
        if not self.journal.wrote(self._below(path), sha256):
            self._note_file(path, sha256, job)
        self.files.replace(staged, path)

    def _note_file(self, path: Path, sha256: str, job: str) -> None:
        self.journal.add(
            {"kind": "file", "job": job, "file": self._below(path), "sha256": sha256}
        )

    def _keep_what_there_is(self) -> None:
        """Write what is finished while another error is on its way."""
        try:
            self._write_output()
            self._write_failures(stopped=True)
        except InterrogatorError as error:
            log.warning("%s", error)

    def _below(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    # How far it is

    def _progress(self, item: _Item, one: _Pass, prompt: str, problem: str) -> BatchProgress:
        rate = seconds_left = None
        elapsed = time.monotonic() - self.asked_since
        if self.asked > 1 and elapsed > 0:
            # The first answer waited for the networks and the word lists.
            rate = (self.asked - 1) / elapsed
            seconds_left = (len(self.passes) * self.count.total - self.seen) / rate
        return BatchProgress(
            done=self.count.done, total=self.count.total, skipped=self.count.skipped,
            failed=len(self.count.failures), rate=rate, seconds_left=seconds_left,
            step=one.name, step_done=self.seen - self.passes.index(one) * self.count.total,
            picture=item.path, prompt=prompt, problem=problem,
        )


def _sha256(path: Path) -> str | None:
    """Return the hash of a file, or None where there is none."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while part := file.read(2**20):
                digest.update(part)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unwritable(path, error) from error
    return digest.hexdigest()
