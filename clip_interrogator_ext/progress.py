"""Show in a terminal how far each step is."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm


class ProgressBars:
    """One bar for each labelled step, on stderr; called as `bars(label, done, total)`.

    Bars disappear when their step ends, so that the terminal keeps the answers only. Steps of one
    pass are too short to be shown.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._bar: Any = None
        self._label = ""

    def __call__(self, label: str, done: int, total: int) -> None:
        """Show that `done` of `total` are done."""
        if self._quiet or total < 2 or not label:
            return
        if self._bar is not None and (label != self._label or total != self._bar.total):
            self.close()
        if self._bar is None:
            self._bar, self._label = tqdm(total=total, desc=label, leave=False), label
        self._bar.update(done - self._bar.n)
        if done >= total:
            self.close()

    def close(self) -> None:
        """Take the bar away, if there is one."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
