"""The word lists of the package clip-interrogator, read from its files without importing it."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from clip_interrogator_ext.errors import BadWordList
from clip_interrogator_ext.models.base import Tick, no_tick

PROGRAM = "classic"
"""What stands before the colon in the names of its lists."""

_REQUIREMENT = "clip-interrogator==0.6.0"
_LOOK_SECONDS = 0.2
_lock = threading.Lock()


def folders() -> dict[str, Path]:
    """Return the folder of its lists by the name that they have here; nothing if it is missing."""
    try:
        spec = importlib.util.find_spec("clip_interrogator")
    except (ImportError, ValueError):
        return {}
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        folder = Path(place, "data")
        if folder.is_dir():
            return {PROGRAM: folder}
    return {}


def install(tick: Tick = no_tick) -> Path:
    """Install the package without its dependencies, unless it is here; return its lists' folder.

    Raises BadWordList, or whatever `tick` raises to stop it.
    """
    with _lock:
        if not folders():
            _install(tick)
    return folders()[PROGRAM]


def _install(tick: Tick) -> None:
    command = [
        sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--no-deps",
        "--disable-pip-version-check", "--retries", "1", "--timeout", "10", _REQUIREMENT,
    ]
    if os.environ.get("INDEX_URL"):  # by which the WebUI's users name a mirror
        command += ["--index-url", os.environ["INDEX_URL"]]
    with tempfile.TemporaryFile() as output:
        with subprocess.Popen(  # noqa: S603 - pip, with a requirement of our own
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        ) as pip:
            try:
                while pip.poll() is None:
                    tick("Installing clip-interrogator", 0, 1)
                    time.sleep(_LOOK_SECONDS)
            except BaseException:
                pip.kill()
                raise
        output.seek(0)
        said = output.read().decode(errors="replace").strip().splitlines()
    importlib.invalidate_caches()
    if not folders():
        raise BadWordList(
            f"clip-interrogator can't be installed ({said[-1] if said else 'pip failed'}). "
            f"Run this by hand: pip install --no-deps {_REQUIREMENT}"
        )
