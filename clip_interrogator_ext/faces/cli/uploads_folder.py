"""Where the page that runs alone keeps what is uploaded, as long as it runs."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from clip_interrogator_ext.files import lock, unwritable

_VARIABLE = "GRADIO_TEMP_DIR"
_PREFIX = "clip-interrogator-ext-uploads-"
_YOUNG_SECONDS = 60  # a folder may not be held yet


@contextlib.contextmanager
def uploads_folder() -> Iterator[Path]:
    """Have Gradio keep what is uploaded in a folder of its own, which goes when the page ends.

    Those of processes that were killed go too. To be called before Gradio is imported. Raises
    InterrogatorError where there can be no such folder.
    """
    before = os.environ.get(_VARIABLE)
    parent = Path(before or tempfile.gettempdir())
    try:
        parent.mkdir(parents=True, exist_ok=True)
        parent = parent.resolve()  # Gradio 4 compares places from which links are gone
        _clear_left(parent)
        folder = tempfile.TemporaryDirectory(
            prefix=_PREFIX, dir=parent, ignore_cleanup_errors=True
        )
    except OSError as error:
        raise unwritable(parent, error) from error
    with folder as name, _held(Path(name)), _ended_by_exception():
        # Gradio 4 keeps what is still coming where any program does.
        os.environ[_VARIABLE] = tempfile.tempdir = name
        try:
            yield Path(name)
        finally:
            tempfile.tempdir = None
            del os.environ[_VARIABLE]
            if before is not None:
                os.environ[_VARIABLE] = before


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Lock a folder, which also keeps systemd from clearing it; say whether that can be done.

    Raises OSError where somebody else holds it, or where it is no folder.
    """
    if not hasattr(os, "O_DIRECTORY"):  # Windows opens no folders
        yield False
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield lock(descriptor)
    finally:
        os.close(descriptor)


def _clear_left(parent: Path) -> None:
    oldest = time.time() - _YOUNG_SECONDS
    for folder in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError), _held(folder) as held:
            if held and folder.stat().st_mtime < oldest:
                shutil.rmtree(folder)


@contextlib.contextmanager
def _ended_by_exception() -> Iterator[None]:
    """Have SIGTERM end this process in good order, so that nothing is left."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
