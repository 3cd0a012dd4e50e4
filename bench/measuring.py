"""What the process of either side is given to do, and what it notes while it does it."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Task:
    """One run of one side, as its process gets it on the command line.

    `pictures` is a file with a name a line, in the folder of the pictures. Texts go into the
    folder `output`, vectors of word lists into `cache`, and what was measured into `notes`.
    """

    pictures: str
    mode: str
    output: str
    cache: str
    notes: str


class Meter:
    """Notes when each step of a run ended, and how much memory the process had then.

    The clock is the machine's, not the process's, so that whoever started us can compare.
    """

    def __init__(self) -> None:
        self._times: list[float] = []
        self._resident: list[int | None] = []
        self._ended = 0.0

    def step(self) -> None:
        """Note that a step has ended."""
        self._times.append(time.monotonic())
        self._resident.append(resident_bytes())

    def end(self) -> None:
        """Note that the work has ended; what follows is not measured."""
        self._ended = time.monotonic()

    def save(self, path: str, threads: int, captions: list[str]) -> None:
        """Write all notes as JSON, with torch's threads and the captions of the pictures."""
        notes = {
            "times": self._times,
            "resident": self._resident,
            "ended": self._ended,
            "threads": threads,
            "captions": captions,
        }
        Path(path).write_text(json.dumps(notes), encoding="utf-8")


def resident_bytes() -> int | None:
    """Return the memory that this process holds now; None where the system has no /proc."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file."""
    return path.read_text(encoding="utf-8").splitlines()
