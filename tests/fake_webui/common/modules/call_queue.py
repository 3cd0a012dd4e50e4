"""A small stand-in for the WebUI's module of that name."""

import threading
import time

from modules.shared import _events


class _Lock:
    """A lock with a line, whose first is woken by a release and then has to take the lock."""

    def __init__(self):
        self._lock = threading.Lock()
        self._guard = threading.Lock()
        self._pending_threads = []

    def acquire(self, blocking=True):
        woken = threading.Event()
        with self._guard:
            taken = self._lock.acquire(blocking=False)
            if blocking and not taken:
                self._pending_threads.append(woken)
        if blocking and not taken:
            woken.wait()
            time.sleep(0.02)
            taken = self._lock.acquire()
        if blocking:
            _events.append("lock")
        return taken

    def release(self):
        with self._guard:
            if self._pending_threads:
                self._pending_threads.pop(0).set()
            self._lock.release()

    __enter__ = acquire

    def __exit__(self, *_error):
        _events.append("release")
        self.release()


queue_lock = _Lock()


def wrap_queued_call(func):
    def f(*args, **kwargs):
        with queue_lock:
            return func(*args, **kwargs)

    return f


def wrap_gradio_call(func, extra_outputs=None, add_stats=False):
    return func
