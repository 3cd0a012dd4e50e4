"""The page, whose searches wait as long as a folder is there: each takes one of its files.

So a run lasts as long as a test needs it, on any machine: `python -m tests.held_page page ...`.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from clip_interrogator_ext import runs
from clip_interrogator_ext.faces.cli import main
from clip_interrogator_ext.interrogator import Interrogator

GATE = "CI_GATE"  # the folder


def may_pass(gate: Path) -> bool:
    """Take a file out of the folder; say whether there was one, or no folder."""
    with suppress(FileNotFoundError):
        for leave in gate.iterdir():
            leave.unlink()
            return True
    return not gate.exists()


def hold(gate: Path) -> None:
    """Have every search wait after its first step until it may pass; it can be stopped there."""
    interrogate = Interrogator.interrogate
    # However slow the machine is, a stopped run has the time to hand over what it has found.
    runs._PATIENCE_SECONDS = runs._LONGEST_SECONDS

    def held(self: Interrogator, image: Any, options: Any, tick: Any) -> Any:
        passed = False

        def wait(label: str, done: int, total: int) -> None:
            nonlocal passed
            tick(label, done, total)
            while label == "Searching" and done and not passed:
                passed = may_pass(gate)
                time.sleep(0.0 if passed else 0.05)
                tick(label, done, total)

        return interrogate(self, image, options, wait)

    Interrogator.interrogate = held  # type: ignore[method-assign]


if __name__ == "__main__":
    hold(Path(os.environ[GATE]))
    sys.exit(main())
