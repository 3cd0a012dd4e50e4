"""A small stand-in for the WebUI's module of that name."""

import threading

from modules.shared import _events


class _Lock:
    def __init__(self):
        self._lock = threading.Lock()

    def acquire(self, blocking=True):
        taken = self._lock.acquire(blocking)
        if blocking:
            _events.append("lock")
        return taken

    def release(self):
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
