"""The runs of a service: how far each is, and how it is stopped."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from clip_interrogator_ext.errors import InterrogatorError, Interrupted, OutOfMemory, QueueFull
from clip_interrogator_ext.results import Run

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")

MOST_RUNS = 64
"""How many may be under way at once, those included that were stopped and have not ended yet."""

_LOOK_SECONDS = 0.05
_PATIENCE_SECONDS = 0.4  # with a stopped run, beside what its step takes between two reports
_LONGEST_SECONDS = 10.0
# A thread that has no memory for its first steps dies unheard, and Python waits for it for ever.
_THREAD_BYTES = 16 << 20
_numbers = itertools.count(1)


@dataclass(eq=False)
class RunState:
    """A task from its being asked for to its end, as other threads may see and stop it."""

    task: str
    kind: str
    stopped: threading.Event = field(default_factory=threading.Event)
    running: bool = False
    label: str = ""
    done: int = 0
    total: int = 0
    asked_at: float = field(default_factory=time.monotonic)
    step_at: float = 0.0
    reported_at: float = 0.0
    pause_seconds: float = 0.0  # the longest between two reports of this step

    def report(self, label: str, done: int, total: int) -> None:
        """Note how far the running step is."""
        now = time.monotonic()
        if label != self.label:
            self.step_at, self.pause_seconds = now, 0.0
        else:
            self.pause_seconds = max(self.pause_seconds, now - self.reported_at)
        self.reported_at = now
        self.label, self.done, self.total = label, done, total

    def seen(self) -> Run:
        """Return the run as it is now."""
        now, left = time.monotonic(), None
        label, done, total = self.label, self.done, self.total
        if self.running and 0 < done <= total:
            left = (now - self.step_at) / done * (total - done)
        return Run(
            task=self.task,
            kind=self.kind,
            running=self.running,
            stopping=self.stopped.is_set(),
            label=label,
            done=done,
            total=total,
            seconds=now - self.asked_at,
            seconds_left=left,
        )


class Runs:
    """All runs that are under way, in their order."""

    def __init__(self) -> None:
        self._runs: list[RunState] = []
        self._lock = threading.Lock()

    def seen(self) -> tuple[Run, ...]:
        """Return all of them as they are now."""
        with self._lock:
            return tuple(run.seen() for run in self._runs)

    def stop(self, task: str | None = None) -> bool:
        """Have the run of that name stop, or all of them; say whether there was one."""
        with self._lock:
            found = [run for run in self._runs if task in (None, run.task)]
        for run in found:
            run.stopped.set()
        return bool(found)

    @contextmanager
    def announced(self, kind: str, task: str | None) -> Iterator[RunState]:
        """List a run while the context lasts; raises QueueFull where there are too many."""
        run = self._begin(kind, task)
        with self._ending(run):
            yield run

    def answer(
        self,
        kind: str,
        task: str | None,
        work: Callable[[RunState], Answer],
        interrupted: Callable[[str], bool],
    ) -> Answer:
        """Do the work of a run in a thread of its own, and return or raise what it does.

        Once the run is stopped, or `interrupted` says so of its name while it runs, it is waited
        for as long as its step takes from one report to the next, so that it can hand over what it
        has found. What takes longer, such as loading a model or waiting for the device, ends by
        itself, unheard: Interrupted is raised meanwhile. Raises QueueFull, too.
        """
        run = self._begin(kind, task)
        outcome: Future[Answer] = Future()
        left = threading.Event()

        def do() -> None:
            try:
                with self._ending(run):
                    answer = work(run)
            except BaseException as error:
                if left.is_set() and not isinstance(error, InterrogatorError):
                    log.exception("%s failed after it had been stopped.", run.task)
                outcome.set_exception(error if isinstance(error, Exception) else _told(error))
            else:
                outcome.set_result(answer)

        try:
            bytearray(_THREAD_BYTES)
            threading.Thread(target=do, name=run.task, daemon=True).start()
        except (RuntimeError, MemoryError) as error:
            self._end(run)
            raise OutOfMemory(
                "There is not enough memory to begin: close other programs, or ask again later."
            ) from error
        try:
            _wait_for(outcome, run, interrupted)
        except BaseException:
            left.set()
            run.stopped.set()
            raise
        return outcome.result()

    def _begin(self, kind: str, task: str | None) -> RunState:
        run = RunState(task or f"{kind}-{next(_numbers)}", kind)
        with self._lock:
            if len(self._runs) >= MOST_RUNS:
                raise QueueFull(f"{MOST_RUNS} runs are under way already; ask again later.")
            self._runs.append(run)
        return run

    def _end(self, run: RunState) -> None:
        with self._lock:
            self._runs.remove(run)

    @contextmanager
    def _ending(self, run: RunState) -> Iterator[None]:
        try:
            yield
        finally:
            self._end(run)


def _told(error: BaseException) -> InterrogatorError:
    """Return as an error of ours what would end the caller's thread, or its program."""
    told = InterrogatorError(f"A library ended the run ({type(error).__name__}: {error}).")
    told.__cause__ = error
    return told


def _wait_for(outcome: Future[Any], run: RunState, interrupted: Callable[[str], bool]) -> None:
    """Wait for a run's outcome; raises Interrupted where it takes too long to stop."""
    stopped_at: float | None = None
    while not wait([outcome], timeout=_LOOK_SECONDS).done:
        if run.stopped.is_set() or (run.running and interrupted(run.task)):
            stopped_at = stopped_at or time.monotonic()
            patience = min(_LONGEST_SECONDS, _PATIENCE_SECONDS + run.pause_seconds)
            if time.monotonic() - stopped_at > patience:
                log.info("%s was stopped, and ends when its step does.", run.task)
                raise Interrupted("The run was stopped.")
