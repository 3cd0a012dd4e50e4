"""What killed downloads and deletions leave in a models folder, and when it is cleared away."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from clip_interrogator_ext.files import lock

PARTIAL = ".partial-"
_CONDEMNED = ".deleted-"
_PLACES = ("", "*/", "models--*/blobs/", "models--*/snapshots/*/")
_KEPT_SECONDS = 7 * 24 * 3600  # for so long a download that broke off can be gone on with


def clear(models_dirs: Sequence[Path]) -> None:
    """Clear the first models folder: what was to be deleted, and downloads nobody came back for.

    Downloads under way are held by their processes, and left alone.
    """
    for folder in models_dirs[:1]:
        for place in _PLACES:
            with contextlib.suppress(OSError):
                for path in folder.glob(f"{place}{_CONDEMNED}*"):
                    _remove_now(path)
                for path in folder.glob(f"{place}{PARTIAL}*"):
                    if time.time() - path.stat().st_mtime > _KEPT_SECONDS:
                        remove_partial(path)


def remove_partial(path: Path) -> bool:
    """Delete what a download has brought so far; say no where one is under way into that file."""
    with path.open("r+b") as file:
        try:
            lock(file.fileno())
        except BlockingIOError:
            return False
        if sys.platform == "win32":
            file.close()  # it deletes nothing that is open
        path.unlink(missing_ok=True)
    return True


def remove(path: Path) -> None:
    """Delete a file or folder; a kill in the middle leaves nothing that is taken for a model.

    Raises OSError, and then all of it is still there: Windows refuses to move what is in use.
    """
    for folder, _, _ in os.walk(path):
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)
    condemned = path.with_name(f"{_CONDEMNED}{uuid.uuid4().hex[:8]}")
    path.rename(condemned)
    _remove_now(condemned)


def _remove_now(path: Path) -> None:
    """Delete a file or folder, which another process may be clearing away as well."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        if path.exists():
            shutil.rmtree(path)  # says what is in the way
    else:
        path.unlink(missing_ok=True)
