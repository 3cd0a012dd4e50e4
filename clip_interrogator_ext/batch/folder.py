"""Interrogate the pictures of a folder one group after another, so that nothing is done twice."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clip_interrogator_ext import catalog
from clip_interrogator_ext.batch import pictures, texts
from clip_interrogator_ext.batch.decoding import Load, Loaded, Prepare, Stamp, ahead, load, stamp_of
from clip_interrogator_ext.batch.journal import Journal
from clip_interrogator_ext.batch.keys import (
    answer_key,
    caption_key,
    job_key,
    lists_key,
    look_key,
    place_key,
)
from clip_interrogator_ext.batch.looks import Looks, Vectors
from clip_interrogator_ext.batch.outputs import FAILURES, Outputs, place_of
from clip_interrogator_ext.batch.pace import Pace
from clip_interrogator_ext.batch.results import BatchProgress, BatchResult, Failure
from clip_interrogator_ext.batch.writers import WRITERS
from clip_interrogator_ext.errors import BadImage, BadOption, Interrupted
from clip_interrogator_ext.files import (
    WholeFiles,
    concerns_all,
    leads_out,
    read_if_there,
    shown,
    unwritable,
)
from clip_interrogator_ext.results import Look

if TYPE_CHECKING:
    from clip_interrogator_ext.batch.options import BatchOptions
    from clip_interrogator_ext.interrogator import Prepared
    from clip_interrogator_ext.options import InterrogateOptions, ModelOptions
    from clip_interrogator_ext.service import Series, Service

log = logging.getLogger(__name__)

Report = Callable[[BatchProgress], None]

_LEADS_OUT = "is a link that leads out of the folder: put a copy of the file there."
_TOGETHER = 16  # pictures that are looked at in one group


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
    caption: str | None = None  # that was given
    prepared: Prepared | None = None
    vectors: Vectors | None = None
    look_seconds: float = 0.0
    seen: bool = False
    closed: bool = False

    def close(self) -> None:
        """Let go of what is not needed any more."""
        self.closed, self.line, self.before, self.caption = True, None, None, None
        self.prepared = self.vectors = None


@dataclass
class _Count:
    total: int
    done: int = 0
    earlier: int = 0
    skipped: int = 0
    failures: list[Failure] = field(default_factory=list)


class Batch:
    """A batch of pictures, to be run once.

    `report` is called after each picture. All runs of the service have the name `task`; others get
    the device between two pictures. `stop` may be called by any thread. `hashes`, where they are
    known, are the SHA-256 of the pictures in the folder that is the input, by their names: these
    are the pictures, and one that has another hash, or is gone, fails.
    """

    def __init__(
        self,
        service: Service,
        options: BatchOptions,
        report: Report | None = None,
        task: str = "batch",
        hashes: Mapping[str, str] | None = None,
    ) -> None:
        self.service = service
        self._options = options
        self._hashes = hashes or {}
        self._report = report
        self._task = task
        self._stopped = threading.Event()

    def check(self) -> int:
        """Raise what can be told before anything is begun; return the number of pictures."""
        options = self._options
        found = self._found()
        place_of(options, found.root)
        asked = options.asked
        if options.caption_from is not None and asked.asks_caption:
            asked = replace(asked, caption="")  # who has none is told of alone
        for models in options.sets:
            self.service.check(asked, models)
        return len(found.names)

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
        found = self._found()
        folder, output = place_of(options, found.root)
        asked = options.asked
        with self.service.series(self._task) as series:
            categories, sets = self.service.lists()
            lists = lists_key(categories, sets.get(asked.vocabulary), asked.categories)
            job = job_key(options, found.root, folder, lists)
            journal = Journal(folder, job, place_key(found.root, folder))
            with contextlib.closing(journal):
                work = _Work(
                    self.service, options, found, journal, output, lists, self._task,
                    self._stopped, series, self._report, self._hashes,
                )
                return work.run()

    def _found(self) -> pictures.Found:
        options = self._options
        if self._hashes:
            names = pictures.in_natural_order(self._hashes)
            return pictures.Found(Path(options.input), tuple(names))
        return pictures.find(options.input, options.recursive)


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
        series: Series,
        report: Report | None,
        hashes: Mapping[str, str],
    ) -> None:
        self.service = service
        self.options = options
        self.found = found
        self.journal = journal
        self.output = output
        self.lists = lists
        self.task = task
        self.stopped = stopped
        self.series = series
        self.report = report
        self.hashes = hashes
        self.folder = journal.path.parent
        self.files = WholeFiles(journal.id)
        self.looks = Looks(self.folder, self.files)
        self.outputs = Outputs(options, found, journal, self.files, output)
        self.count = _Count(len(found.names))
        self.items = self._items()
        self.passes = self._passes()
        self.together = min(_TOGETHER, options.models.chunk_size)
        self.preparers: dict[tuple[ModelOptions, bool, bool], Prepare] = {}
        self.pace = Pace()
        self.asked = 0  # questions that the engine has answered in this start
        self.seen = 0  # pictures that the passes have come to

    def run(self) -> BatchResult:
        self.files.clear({self.folder, *(item.text.parent for item in self.items if item.text)})
        self.outputs.claim()
        try:
            for one in self.passes:
                self._go_through(one)
        except Interrupted:
            self.stopped.set()
        except Exception:  # whatever it was, what is finished is written before it is told
            self.outputs.keep(self._failures())
            raise
        stopped = self.stopped.is_set()
        failures = self._failures()
        self.outputs.write(failures)
        failures_file = self.outputs.write_failures(failures, stopped=stopped)
        if not stopped:
            self.looks.clear()
        count = self.count
        return BatchResult(
            total=count.total, done=count.done, earlier=count.earlier, skipped=count.skipped,
            failures=tuple(failures), output=self.output, failures_file=failures_file,
            stopped=stopped and count.done + count.skipped + len(failures) < count.total,
        )

    def _failures(self) -> list[Failure]:
        """Return the failures in the pictures' order, which is not always that of their coming."""
        places = {item.path: place for place, item in enumerate(self.items)}
        return sorted(self.count.failures, key=lambda failure: places[failure.picture])

    def _go_through(self, one: _Pass) -> None:
        """Bring every picture through a pass; those that are to be looked at wait for a group."""
        group: list[_Item] = []
        items = ahead(self._open_items(), partial(self._load_of, one), self.together)
        with contextlib.closing(items) as queue:
            for item, loading in queue:
                if self.stopped.is_set():
                    return
                self.series.give_way()
                if self._attempt(item, one, partial(self._receive, item, loading, one)):
                    group.append(item)
                if len(group) == self.together:
                    self._work_off(group, one)
                    group = []
        self._work_off(group, one)

    def _attempt(self, item: _Item, one: _Pass, step: Callable[[], str | None]) -> bool:
        """Take a step with a picture, which returns its prompt, or None if there is more to do.

        Returns whether there is. Else it is told how far the batch is.
        """
        prompt, problem = "", ""
        try:
            answer = step()
            if answer is None:
                return True
            prompt = answer
        except (BadImage, BadOption, OSError) as error:
            problem = self._reason(item, error)
            self.count.failures.append(Failure(item.path, problem))
            item.close()
        self.seen += 1
        if self.report is not None:
            self.report(self._progress(item, one, prompt, problem))
        self.outputs.write_midway(self.count.failures)
        return False

    def _reason(self, item: _Item, error: BadImage | BadOption | OSError) -> str:
        """Return why a picture has failed; raises what concerns all of them."""
        if isinstance(error, BadImage):
            return str(error)
        if isinstance(error, BadOption):
            if error.field == "caption" and self.options.caption_from is not None:
                return f'There is no caption for "{shown(item.path)}": {error}'
            raise error
        if concerns_all(error):
            raise unwritable(Path(error.filename or self.folder), error) from error
        why = "the name is too long" if error.errno == errno.ENAMETOOLONG else error.strerror
        return f'The text of "{shown(item.path)}" can\'t be read or written: {why}.'

    # What there is to do

    def _items(self) -> list[_Item]:
        root, names = self.found.root, self.found.names
        paths = [root / name for name in names]
        written: list[Path | None] = [None] * len(names)
        if self.options.form == "txt":
            taken = [*paths, self.folder / FAILURES]
            if self.found.source is not None:
                taken.append(self.found.source)
            together = pictures.with_neighbours(self.found)
            texts_of = pictures.name_texts(together, self.options.name, self.output, taken)
            text_of = dict(zip(together, texts_of, strict=True))
            named = [text_of[name] for name in names]
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
        sets, asked = self.options.sets, self.options.asked
        passes = [_Pass("Prompts", models) for models in sets]
        if len(sets) > 1:
            passes = [replace(one, name=" + ".join(one.models.backbones)) for one in passes]
        if (
            self.options.models.low_memory and asked.asks_caption and asked.mode != "caption"
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

    def _load_of(self, one: _Pass, item: _Item) -> Load | None:
        """Return what loads a picture's file as a pass needs it, or None where it needs none."""
        try:
            if not item.seen:
                self._see(item)
        except (BadImage, OSError):
            return None  # said when its turn comes
        if item.line is None and item.keeps and self.options.existing == "skip":
            return None
        if self._is_ready(item, one):
            return None
        return self._loader(item, one)

    def _loader(self, item: _Item, one: _Pass) -> Load:
        captions = self._asks_caption(item, one) and one.models.captioner != catalog.NO_CAPTIONER
        kind = one.models, captions, not one.captions
        if kind not in self.preparers:
            self.preparers[kind] = self.service.preparer(
                one.models, captions=captions, vectors=not one.captions, task=self.task
            )
        return partial(load, item.path, self.preparers[kind])

    def _see(self, item: _Item) -> None:
        """Look at a picture's line, its text and its caption's file, not yet at the picture."""
        line = self.journal.done_line(item.name) if item.name in self.journal.done else None
        if item.text is not None:
            if line is not None and line["text"] != self._below(item.text):
                line = None  # its text had another name then
            self._check_writable(item.text)
            stand = self._standing(item.text, line)
            item.before, item.keeps = stand.before, stand.keeps
        item.line = line
        item.caption = self._caption_of(item)
        item.stamp = stamp_of(item.path)
        if item.stamp is not None:
            stamp = item.stamp
            item.sha256 = self.journal.hash_of(item.name, stamp.size, stamp.modified_ns)
        item.seen = True

    def _caption_of(self, item: _Item) -> str | None:
        """Return the caption that is given for a picture, if one is."""
        pattern = self.options.caption_from
        if pattern is not None:
            name = pattern.format(stem=item.path.stem, name=item.path.name)
            path = item.path.with_name(name)
            if path == item.text:  # our own prompt may stand there by now
                text = item.before or ""
            elif leads_out(path, self.found.root):
                raise BadImage(f'"{shown(path)}" {_LEADS_OUT}')
            else:
                text = (read_if_there(path) or b"").decode("utf-8-sig", "replace")
            if text.strip():
                return " ".join(text.split())
        return self.options.asked.caption

    def _standing(self, text: Path, line: dict[str, Any] | None) -> texts.Standing:
        """Look at a text; raises BadImage where what stands there can't be used as it is to be."""
        stand = texts.standing(text, line)
        if stand.keeps and self.options.existing != "skip":
            if leads_out(text, self.output):
                raise BadImage(f'"{shown(text)}" {_LEADS_OUT}')
            if self.options.existing != "replace":
                texts.check_joinable(text, stand.before)
        return stand

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

    def _receive(
        self, item: _Item, loading: Future[Loaded] | None, one: _Pass
    ) -> str | None:
        """Look at a picture whose turn has come: finish it if that can be done without the engine.

        Returns None where it has to wait for its group.
        """
        if not item.seen:
            self._see(item)
        if self._settled(item, known=bool(item.sha256)):
            return ""
        if loading is not None or not self._is_ready(item, one):
            if item.name in self.hashes and not item.path.is_file():
                raise BadImage(f'"{shown(item.path)}" is gone from here: give it once more.')
            with self.pace.timed("loading"):
                loaded = self._loader(item, one)() if loading is None else loading.result()
            if self.hashes.get(item.name, loaded.sha256) != loaded.sha256:
                raise BadImage(f'"{shown(item.path)}" was damaged here: give it once more.')
            if item.sha256 not in ("", loaded.sha256):
                item.sha256 = loaded.sha256  # of another picture, which needs other things
                loaded = self._loader(item, one)()
            item.sha256, item.stamp, item.prepared = loaded.sha256, loaded.stamp, loaded.prepared
            if self._settled(item, known=True):
                return ""
        return self._answer(item, one) if self._is_ready(item, one) else None

    def _settled(self, item: _Item, *, known: bool) -> bool:
        """Close an item that is done or to be left alone; `known` says whether its content is."""
        line = item.line
        stand = texts.Standing(None)
        if item.text is not None:
            stand = self._standing(item.text, line)
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
        """Say whether a pass has nothing to ask about a picture, whose hash is known."""
        if one.captions:
            return not self._asks_caption(item, one)
        return self.journal.knows(self._key(item, one))

    def _asks_caption(self, item: _Item, one: _Pass) -> bool:
        """Say whether the captioner has to be asked; if the hash is not known, it may have been."""
        if not self.options.asked.asks_caption or item.caption is not None:
            return False
        return self.journal.caption(self._caption_key(item, one)) is None

    def _caption_key(self, item: _Item, one: _Pass) -> str:
        return caption_key(item.sha256, one.models, self.options.asked)

    def _is_ready(self, item: _Item, one: _Pass) -> bool:
        """Say whether nothing has to be seen of a picture any more; notes its vectors."""
        if not item.sha256:
            return False
        if one.captions or self._is_known(item, one):
            return self._is_known(item, one)
        item.vectors = item.vectors or self.looks.get(look_key(item.sha256, one.models))
        return item.vectors is not None and not self._asks_caption(item, one)

    def _key(self, item: _Item, one: _Pass) -> str:
        return answer_key(item.sha256, one.models, self._asked(item), self.lists)

    def _keys(self, item: _Item) -> list[str]:
        """Return the keys of a picture's prompts, one for each set of backbones."""
        return [self._key(item, one) for one in self.passes if not one.captions]

    def _asked(self, item: _Item) -> InterrogateOptions:
        weighs = WRITERS[self.options.form].weighs
        return replace(self.options.asked, caption=item.caption, weigh=weighs)

    # A group of pictures

    def _work_off(self, group: Sequence[_Item], one: _Pass) -> None:
        """Look at pictures together, then answer about one after the other."""
        if not group or self.stopped.is_set():
            return
        with self.pace.timed("looking", len(group)):
            self._write_captions([item for item in group if self._asks_caption(item, one)], one)
            if not one.captions and not self.stopped.is_set():
                self._look(group, one)
        for item in group:
            if self.stopped.is_set():
                return
            self.series.give_way()
            item.look_seconds = self.pace.mean("looking")
            self._attempt(item, one, partial(self._answer, item, one))

    def _write_captions(self, group: Sequence[_Item], one: _Pass) -> None:
        """Have captions written, and keep them in one line: all of them or none."""
        seen = {item: item.prepared for item in group if item.prepared is not None}
        if not seen or one.models.captioner == catalog.NO_CAPTIONER:
            return  # whoever needs a caption says so
        pixels = list(seen.values())
        said = self.service.captions(pixels, self.options.asked, one.models, self.task)
        keys = [self._caption_key(item, one) for item in seen]
        self.journal.add({"kind": "captions", "captions": dict(zip(keys, said, strict=True))})

    def _look(self, group: Sequence[_Item], one: _Pass) -> None:
        seen = {item: item.prepared for item in group if item.prepared is not None}
        vectors = self.service.vectors(list(seen.values()), one.models, self.task)
        for item, own in zip(seen, vectors, strict=True):
            item.vectors = own
        keys = [look_key(item.sha256, one.models) for item in seen]
        self.looks.replace(dict(zip(keys, vectors, strict=True)))

    def _answer(self, item: _Item, one: _Pass) -> str:
        """Have the engine answer about a picture that was looked at; return its prompt."""
        if not one.captions and not self._is_known(item, one):
            caption = self.journal.caption(self._caption_key(item, one))
            look, asked = Look(caption, item.vectors or ()), self._asked(item)
            with self.pace.timed("answering") if self.asked else contextlib.nullcontext():
                prompt = self.service.interrogate(look, asked, one.models, self.task)
            if prompt.interrupted:
                raise Interrupted("The run was stopped.")
            self.asked += 1
            prompt = replace(prompt, seconds=prompt.seconds + item.look_seconds)
            self.journal.add(
                {"kind": "answer", "key": self._key(item, one), "prompt": prompt.as_dict()}
            )
        item.vectors = item.prepared = None
        return self._finish(item) if one.last else ""

    def _finish(self, item: _Item) -> str:
        """Note that a picture is done, then write its text; return its prompt."""
        keys = self._keys(item)
        if not all(map(self.journal.knows, keys)):
            raise BadImage(f'"{shown(item.path)}" changed between two passes: start again.')
        if item.text is not None:
            # Somebody may have written there while the engine was busy.
            stand = self._standing(item.text, item.line)
            item.before = stand.before
            if stand.keeps and self.options.existing == "skip":
                self.count.skipped += 1
                item.close()
                return ""
        stamp = item.stamp or Stamp(0, 0)
        line = {
            "kind": "done", "job": self.journal.job, "root": self.journal.root,
            "picture": item.name, "size": stamp.size, "modified_ns": stamp.modified_ns,
            "sha256": item.sha256, "keys": keys,
        }
        prompt, negative = self.options.wording.of_answer(self.journal.answer(keys[0]))
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

    def _below(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    # How far it is

    def _progress(self, item: _Item, one: _Pass, prompt: str, problem: str) -> BatchProgress:
        rate = self.pace.rate if self.asked > 1 or one.captions else None
        seconds_left = None
        if rate is not None:
            seconds_left = (len(self.passes) * self.count.total - self.seen) / rate
        return BatchProgress(
            done=self.count.done, total=self.count.total, skipped=self.count.skipped,
            failed=len(self.count.failures), rate=rate, seconds_left=seconds_left,
            step=one.name, step_done=self.seen - self.passes.index(one) * self.count.total,
            picture=item.path, prompt=prompt, problem=problem,
        )
