"""How fast a batch is, told from its parts."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class Pace:
    """Adds up what each kind of work takes for a picture.

    Several pictures are looked at together, then answered one by one: so the time that has passed
    says little about the pace until many groups are done, the sum of the means does.
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)
        self._pictures: dict[str, int] = defaultdict(int)

    @contextmanager
    def timed(self, kind: str, pictures: int = 1) -> Iterator[None]:
        """Count the time that the context lasts, for so many pictures."""
        started = time.monotonic()
        yield
        self._seconds[kind] += time.monotonic() - started
        self._pictures[kind] += pictures

    def mean(self, kind: str) -> float:
        """Return the seconds that one kind of work takes for a picture, 0 where there was none."""
        return self._seconds[kind] / max(1, self._pictures[kind])

    @property
    def rate(self) -> float | None:
        """Pictures a second, or None while there is nothing to go by."""
        seconds = sum(self.mean(kind) for kind in self._pictures)
        return 1 / seconds if seconds > 0 else None
