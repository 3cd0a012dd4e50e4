"""The WebUI's queue and job state, borrowed for one task."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import CodeType, FrameType

from modules import progress, shared
from modules.call_queue import queue_lock

_OURS, _OF_THE_WEBUI = "ours", "of the webui"
_HAND_OVER_SECONDS = 0.3

_GENERATIONS = {
    ("modules.processing", "process_images"),
    ("modules_forge.main_thread", "work"),  # Forge generates in its main thread
}


class Jobs:
    """Takes the WebUI's queue lock and keeps its job state, as its own wrapper does."""

    def __init__(self) -> None:
        self._here = threading.local()
        self._task: str | None = None  # that of ours which has the queue

    @contextmanager
    def exclusive(self, task: str, at_end: Callable[[], None]) -> Iterator[None]:
        """Hold the queue for one task; `at_end` is called before it is given back.

        Within a job of the WebUI's own, which holds the queue already, nothing is taken.
        """
        whose = _OF_THE_WEBUI if is_inside_webui_job() else _OURS
        # What was begun is ended in the reverse order, also where beginning or ending fails.
        with ExitStack() as ending:
            if whose is _OURS:
                ending.callback(progress.pending_tasks.pop, task, None)
                progress.add_task_to_queue(task)
                next_in_line: list[object] = []
                ending.callback(_hand_over, next_in_line)
                ending.enter_context(queue_lock)
                ending.callback(lambda: next_in_line.extend(_line()))
                ending.callback(_forget_stops)
                ending.callback(shared.state.end)
                shared.state.begin(job=task)
                ending.callback(progress.finish_task, task)
                progress.start_task(task)
                ending.callback(setattr, self, "_task", None)
                self._task = task
            before = getattr(self._here, "job", None)
            ending.callback(setattr, self._here, "job", before)
            self._here.job = whose
            ending.callback(at_end)
            yield

    def others_wait(self) -> bool:
        """Say whether a thread waits for the queue, or a task is announced to."""
        return bool(_line() or progress.pending_tasks)

    def interrupted(self, task: str) -> bool:
        """Say whether a job of ours is to stop, or within one of the WebUI's own, that one.

        To skip, or to stop after the current picture, means the end of a job of ours; in a
        generation these have a meaning of their own.
        """
        state = shared.state
        if getattr(self._here, "job", None) is _OF_THE_WEBUI:
            return bool(state.interrupted)
        return task == self._task and bool(
            state.interrupted or state.skipped or state.stopping_generation
        )

    def progress(self, label: str, done: int, total: int) -> None:
        """Show how far a step is, where the job is ours.

        The WebUI reckons the time left from the start of the job, as if it were one step: so each
        step begins the reckoning anew.
        """
        state = shared.state
        if getattr(self._here, "job", None) is not _OURS:
            return
        if label != state.textinfo:
            state.sampling_step = 0
            state.time_start = time.time()
        state.textinfo = label
        state.job_count, state.job_no = 1, 0
        state.sampling_steps = max(total, 0)
        state.sampling_step = min(max(done, 0), max(total, 0))


def is_inside_webui_job() -> bool:
    """Say whether this thread is in the middle of a job of the WebUI's own.

    Then the queue lock is held on our behalf and taking it, which can't be done twice, would wait
    for ever. The lock does not know its owner, and a job state tells of any thread's job; the
    functions that this thread is in the middle of are what tells reliably: the generation
    itself, or, while the lock is held by somebody, any function that works with the lock.
    """
    codes = [(name, code) for name, code in _stack() if name != __name__]
    if any((name, code.co_name) in _GENERATIONS for name, code in codes):
        return True
    return any(_mentions_lock(code) for _, code in codes) and _is_held()


def _stack() -> Iterator[tuple[str, CodeType]]:
    """Yield the module's name and the code of each function that this thread is in."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame.f_globals.get("__name__", ""), frame.f_code
        frame = frame.f_back


def _mentions_lock(code: CodeType) -> bool:
    return "queue_lock" in code.co_names or "queue_lock" in code.co_freevars


def _is_held() -> bool:
    if queue_lock.acquire(blocking=False):
        queue_lock.release()
        return False
    return True


def _line() -> list[object]:
    """Return the threads that wait for the queue, of which the lock tells nobody."""
    return list(getattr(queue_lock, "_pending_threads", ()))


def _hand_over(next_in_line: list[object]) -> None:
    """See to it that the queue, just let go of, goes to the thread that was next in its line.

    The lock wakes that thread, which then has to take it, and forgets it: whoever takes the lock
    again at once is quicker, and would keep it waiting unseen.
    """
    inner = getattr(queue_lock, "_lock", None)
    deadline = time.monotonic() + _HAND_OVER_SECONDS
    while next_in_line and time.monotonic() < deadline:
        if inner is not None and inner.locked():
            return
        time.sleep(0.002)


def _forget_stops() -> None:
    """Leave no stop behind that was meant for our job."""
    shared.state.skipped = False
    shared.state.interrupted = False
    shared.state.stopping_generation = False
    shared.state.job_count = 0
    shared.state.job = ""
