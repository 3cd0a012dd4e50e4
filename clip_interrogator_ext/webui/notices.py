"""What the user must see first: a neighbour in our place, an old version, a missing package."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modules import extensions

import clip_interrogator_ext
from clip_interrogator_ext import packages

PACKAGE = Path(clip_interrogator_ext.__file__).parent
OURS = PACKAGE.parent


def notices() -> Sequence[str]:
    """Return one sentence for each thing that is not as it should be."""
    said = (_neighbours(), _restart(), _missing(), *packages.outdated())
    return [sentence for sentence in said if sentence]


def _neighbours() -> str | None:
    names = [one.name for one in extensions.active() if _is_neighbour(one)]
    if names:
        return (
            f"The extension {' and '.join(names)} offers the same tab and routes as this one. "
            "Disable one of them in the Extensions tab."
        )
    return None


def _is_neighbour(extension: Any) -> bool:
    folder = Path(extension.path)
    if folder.resolve() == OURS.resolve():
        return False
    doorway = folder / "scripts" / "clip_interrogator_ext.py"
    return doorway.is_file() or "clip-interrogator-ext" in (
        extension.name.lower(), extension.canonical_name
    )


def _fingerprint() -> frozenset[tuple[str, int, int]]:
    """Return name, time and size of each source file of the package."""
    files = set()
    for path in PACKAGE.rglob("*.py"):
        try:
            status = path.stat()
        except OSError:  # it is being replaced just now
            continue
        files.add((str(path.relative_to(PACKAGE)), status.st_mtime_ns, status.st_size))
    return frozenset(files)


def _version_on_disk() -> str | None:
    try:
        text = (PACKAGE / "__init__.py").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE)
    return found.group(1) if found else None


_loaded_files = _fingerprint()  # this module is imported when the extension is, at the first start


def _restart() -> str | None:
    old, new = clip_interrogator_ext.__version__, _version_on_disk()
    if new == old and _fingerprint() == _loaded_files:
        return None
    versions = f" ({old} is loaded, {new} is installed)" if new not in (None, old) else ""
    return (
        f"The extension was updated, but its old version is still loaded{versions}. "
        "Stop the WebUI and start it again: reloading the UI is not enough."
    )


def _missing() -> str | None:
    requirements = packages.lacking()
    if not requirements:
        return None
    names = " and ".join(one.partition(">=")[0] for one in requirements)
    return f"{names} could not be found. {packages.how_to_install(requirements)}"
