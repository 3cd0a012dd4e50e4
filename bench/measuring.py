"""Run programs, and tell time, memory, versions and what else every bench needs."""

from __future__ import annotations

import json
import math
import os
import platform
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from clip_interrogator_ext.vocabulary.lists import load_categories

ROOT = Path(__file__).resolve().parents[1]
MEBIBYTE = 2**20
PACKAGES = ("torch", "transformers", "open_clip_torch", "clip-interrogator")


@dataclass(frozen=True)
class Task:
    """One run of one side, as its process gets it on the command line.

    `pictures` is a file with a name a line, in the folder of the pictures. Texts go into the
    folder `output`, vectors of the word lists in `lists` into `cache`, and what was measured into
    `notes`.
    """

    pictures: str
    lists: str
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


def call(arguments: list[str]) -> str:
    """Run a program of ours with this very package, and return what it prints."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{Path(arguments[0]).name} failed ({done.returncode}):\n{done.stderr}")
    return done.stdout


def resident_bytes() -> int | None:
    """Return the memory that this process holds now; None where the system has no /proc."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak_bytes() -> float:
    """Return the most memory that this process has held; nan where the system has no /proc."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return math.nan
    (kibibytes,) = re.findall(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)
    return 1024.0 * int(kibibytes)


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def rounded(text: str) -> float:
    """Read a number of JSON without the digits that nobody measured."""
    return float(f"{float(text):.4g}")


def say(line: str) -> None:
    """Tell whoever waits what goes on."""
    print(line, file=sys.stderr, flush=True)


def versions() -> dict[str, str]:
    """Return the versions of all that is measured."""
    return {"Python": platform.python_version()} | {name: version(name) for name in PACKAGES}


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file."""
    return path.read_text(encoding="utf-8").splitlines()


def write_lists(folder: Path, most_lines: int = 1_000_000) -> Path:
    """Write our word lists as the peer reads them, long ones thinned out, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for category in load_categories().values():
        step = max(1, -(-len(category.lines) // most_lines))
        text = "\n".join(category.lines[::step])
        (folder / f"{category.name}.txt").write_text(text, encoding="utf-8")
    return folder
