"""The batches that pages and other programs have asked for: one runs, the others wait in line."""

from __future__ import annotations

import logging
import secrets
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from clip_interrogator_ext.batch.folder import Batch
from clip_interrogator_ext.batch.results import BatchState, Failure
from clip_interrogator_ext.errors import InterrogatorError, QueueFull

if TYPE_CHECKING:
    from clip_interrogator_ext.batch.options import BatchOptions
    from clip_interrogator_ext.batch.results import BatchProgress, BatchResult
    from clip_interrogator_ext.service import Service

log = logging.getLogger(__name__)

AtEnd = Callable[[str, "BatchResult | None"], None]

WAITING_LIMIT = 16
FAILURES_TOLD = 20  # while a batch goes on; its result has them all
_REMEMBERED = 32  # batches that have ended


@dataclass(eq=False)
class _Job:
    """A batch from its being asked for until it is forgotten; `batch` is let go of at its end.

    `since` is when it was asked for, or when it began if it has.
    """

    batch: Batch | None
    state: BatchState
    since: float
    at_end: AtEnd


class BatchJobs:
    """Runs batches one after another in a thread of its own, for as long as there are any."""

    def __init__(self, service: Service) -> None:
        self._service = ref(service)  # which has us as long as it lives
        self._lock = threading.Lock()
        self._jobs: OrderedDict[str, _Job] = OrderedDict()
        self._worker: threading.Thread | None = None

    def add(
        self,
        options: BatchOptions,
        at_end: AtEnd = lambda *_: None,
        hashes: Mapping[str, str] | None = None,
    ) -> BatchState:
        """Put a batch into the line and return at once.

        `at_end` is called with its name and its result, or None where it has none, before it
        counts as ended. `hashes` are as of a Batch. Raises what Batch.check does, and QueueFull
        where the line is full.
        """
        service = self._service()
        if service is None:
            raise AssertionError("whoever asks holds the service")
        name = f"batch-{uuid.uuid4().hex[:12]}"
        batch = Batch(service, options, lambda so_far: self._note(name, so_far), name, hashes)
        total = batch.check()
        with self._lock:
            if sum(not job.state.ended for job in self._jobs.values()) > WAITING_LIMIT:
                raise QueueFull(
                    f"{WAITING_LIMIT} batches wait already: stop one of them, or wait."
                )
            token = secrets.token_urlsafe()
            state = BatchState(name, "waiting", options.input, total, token=token)
            self._jobs[name] = _Job(batch, state, time.monotonic(), at_end)
            if self._worker is None:
                self._worker = threading.Thread(
                    target=self._work, name="clip-interrogator-ext-batches", daemon=True
                )
                self._worker.start()
        return state

    def get(self, name: str) -> BatchState | None:
        """Return how far a batch is, or None where none of that name is remembered."""
        with self._lock:
            job = self._jobs.get(name)
            return None if job is None else _seen(job)

    def all(self) -> tuple[BatchState, ...]:
        """Return all batches that are remembered, in the order in which they were asked for."""
        with self._lock:
            return tuple(map(_seen, self._jobs.values()))

    def stop(self, name: str | None = None) -> bool:
        """Stop the batch of that name, or all of them; say whether there was one still to end.

        It ends at once, in the midst of a picture too. What is finished is kept, and the same
        batch asked for again goes on from there.
        """
        waited, running = [], []
        with self._lock:
            for job in list(self._jobs.values()):
                if job.batch is None or name not in (None, job.state.name):
                    continue
                job.batch.stop()
                if job.state.state == "waiting":
                    job.batch = None  # it never begins
                    waited.append(job)
                else:
                    running.append(job)
                job.state = replace(job.state, state="stopping")
        if (service := self._service()) is not None:
            for job in running:
                service.interrupt(job.state.name)
        for job in waited:
            try:
                job.at_end(job.state.name, None)
            except Exception:  # whatever one of them meets, the others are stopped too
                log.exception("What the batch %s leaves can't be put in order.", job.state.name)
            with self._lock:
                self._end(job, state="stopped")
        return bool(waited or running)

    def _work(self) -> None:
        while (job := self._next()) is not None:
            self._run(*job)

    def _next(self) -> tuple[_Job, Batch] | None:
        with self._lock:
            for job in self._jobs.values():
                if job.batch is not None:
                    job.state = replace(job.state, state="running")
                    job.since = time.monotonic()
                    return job, job.batch
            self._worker = None
            return None

    def _run(self, job: _Job, batch: Batch) -> None:
        result, error = None, ""
        try:
            try:
                result = batch.run()
            finally:
                job.at_end(job.state.name, result)
            state = "stopped" if result.stopped else "done"
        except InterrogatorError as refused:
            state, error = "failed", batch.service.without_paths(str(refused))
        except BaseException as unforeseen:  # whatever it was, the others' turn comes
            # Whoever asked sees a sentence; whoever runs the program finds the rest in the log.
            log.exception("The batch %s failed.", job.state.name)
            state = "failed"
            error = f"Something went wrong ({type(unforeseen).__name__}); the log has it."
        with self._lock:
            self._end(job, state=state, result=result, error=error)

    def _end(self, job: _Job, **became: Any) -> None:
        """Note what became of a batch, under the lock; forget those that ended long ago."""
        job.batch = None
        job.state = replace(job.state, seconds=time.monotonic() - job.since, **became)
        ended = [name for name, one in self._jobs.items() if one.state.ended]
        for name in ended[:-_REMEMBERED]:
            del self._jobs[name]

    def _note(self, name: str, progress: BatchProgress) -> None:
        with self._lock:
            job = self._jobs[name]
            failures = job.state.failures
            if progress.problem and progress.picture is not None:
                failures = (*failures, Failure(progress.picture, progress.problem))[:FAILURES_TOLD]
            job.state = replace(job.state, progress=progress, failures=failures)


def _seen(job: _Job) -> BatchState:
    if job.state.ended:
        return job.state
    return replace(job.state, seconds=time.monotonic() - job.since)


_jobs: WeakKeyDictionary[Service, BatchJobs] = WeakKeyDictionary()
_jobs_lock = threading.Lock()


def jobs_of(service: Service) -> BatchJobs:
    """Return a service's batches: the page and the routes have one line."""
    with _jobs_lock:
        return _jobs.setdefault(service, BatchJobs(service))
