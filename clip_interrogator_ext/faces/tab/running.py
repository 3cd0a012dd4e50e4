"""Run a task of the service beside the page, which meanwhile shows how far it is."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

from clip_interrogator_ext.errors import InterrogatorError, Interrupted
from clip_interrogator_ext.faces.tab import elements
from clip_interrogator_ext.files import shown

if TYPE_CHECKING:
    from clip_interrogator_ext.results import Run
    from clip_interrogator_ext.service import Service

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")

_LOOK_SECONDS = 0.2
_OURS = "task(cliext-"


class Running(Generic[Answer]):
    """A task in a thread of its own: iterate over its progress, then ask for its answer.

    `work` is called with the name by which the service knows the run.
    """

    def __init__(self, service: Service, work: Callable[[str], Answer]) -> None:
        self._service = service
        self._work = work
        self.task = f"{_OURS}{uuid.uuid4().hex[:12]})"
        self.answer: Answer | None = None
        self.failure = ""
        self.stopped = False
        self._thread = threading.Thread(target=self._run, name=self.task, daemon=True)

    def _run(self) -> None:
        try:
            self.answer = self._work(self.task)
        except Interrupted:
            self.failure, self.stopped = "Stopped: nothing had been found yet.", True
        except InterrogatorError as error:
            self.failure = self._service.without_paths(str(error))
        except BaseException as error:  # this thread has nobody else who would tell of it
            # The page shows a sentence; whoever runs the WebUI finds the rest in the log.
            log.exception("The run failed.")
            self.failure = unforeseen(self._service, error)

    def note(self) -> str:
        """Return why there is no answer, as a line of the page."""
        return elements.note(self.failure, "warning" if self.stopped else "error")

    def __iter__(self) -> Iterator[Run | None]:
        """Start, and yield how far the run is until it has ended."""
        self._thread.start()
        while self._thread.is_alive():
            run = next((run for run in self._service.runs() if run.task == self.task), None)
            yield run
            self._thread.join(_LOOK_SECONDS)


def unforeseen(service: Service, error: BaseException) -> str:
    """Return a sentence about what nobody foresaw, in its own words to whoever may know all."""
    words = type(error).__name__
    if service.paths_open:
        words += f": {shown(str(error))}"
    return f"Something went wrong ({words}); see the log."


def from_pages(service: Service) -> list[Run]:
    """Return the runs that were started from a page, in their order."""
    return [run for run in service.runs() if run.task.startswith(_OURS)]


def stop(service: Service, task: str) -> None:
    """Stop a page's run; a page that was loaded anew and knows none stops those of all pages."""
    for name in [task] if task else [run.task for run in from_pages(service)]:
        service.interrupt(name)


def follow(service: Service) -> Iterator[Run]:
    """Yield how far the first of the pages' runs is, until it has ended."""
    tasks = [run.task for run in from_pages(service)][:1]
    while runs := [run for run in from_pages(service) if run.task in tasks]:
        yield runs[0]
        time.sleep(_LOOK_SECONDS)
