"""Real faults for tests: a full disk, a user who may not write, a place that would hang."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

NOBODY = 65534
needs_posix = pytest.mark.skipif(resource is None, reason="Windows has no such limits and files")


class Disk:
    """A folder on a disk that can be full: a small one of its own, or files of a limited size."""

    def __init__(self, folder: Path, limit: int | None = None) -> None:
        self.folder = folder
        self._limit = limit

    @contextlib.contextmanager
    def full(self, left: int = 0) -> Iterator[None]:
        """Leave so many bytes of room, in whole pages on a small disk, as long as this is held."""
        if self._limit is not None:
            soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (max(left, self._limit), hard))
            try:
                yield
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            return
        filler = self.folder / ".filler"
        room = shutil.disk_usage(self.folder).free - left
        filler.write_bytes(bytes(max(room, 0)))
        try:
            yield
        finally:
            filler.unlink()


@pytest.fixture(params=["small disk", "limited files"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    """A disk of 256 KiB where we may mount one, and a limit on the size of files anywhere."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if request.param == "limited files":
        yield Disk(folder, 200)
        return
    with mounted(folder):
        yield Disk(folder)


def succeeds(command: list[str]) -> bool:
    """Run a program of the system's, which may not be there; say whether it did what it should."""
    return shutil.which(command[0]) is not None and not subprocess.run(
        command, check=False, capture_output=True
    ).returncode


@contextlib.contextmanager
def mounted(folder: Path, size: str = "256k") -> Iterator[None]:
    """Mount a small disk."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if not succeeds(command):
        pytest.skip("we may mount no disk here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach, unlike those of pytest."""
    folder = Path(tempfile.mkdtemp(prefix="cliext-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@contextlib.contextmanager
def as_another_user() -> Iterator[None]:
    """Be a user without rights, where we are root, who may write anywhere."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.fixture
def in_time() -> Iterator[None]:
    """Raise where a test would hang."""

    def late(_signal: int, _frame: FrameType | None) -> None:
        raise AssertionError("this takes too long")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(300)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
