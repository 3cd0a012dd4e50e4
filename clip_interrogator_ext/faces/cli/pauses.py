"""In a process of our own, nobody waits for Python to look through all that packages have made."""

from __future__ import annotations

import gc
import time

_LONG_SECONDS = 0.05


def shorten_collections() -> None:
    """Have what a long collection of cycles has left in place not be looked through again.

    Such a collection holds up every thread, those that answer requests too. Not for a process
    that is somebody else's: what is left aside is never found to be a cycle, unless `gc.unfreeze`
    is called before. Since it happens after long collections only, which there are few of once
    all packages are imported, what may be lost is little.
    """
    started = 0.0  # in the time of the thread that collects, as others may make it wait

    def note(phase: str, info: dict[str, int]) -> None:
        nonlocal started
        if phase == "start":
            started = time.thread_time()
        elif info["generation"] == 2 and time.thread_time() - started > _LONG_SECONDS:
            gc.freeze()

    gc.callbacks.append(note)
