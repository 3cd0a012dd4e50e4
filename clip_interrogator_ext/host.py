"""Where the engine runs: what it asks of the program around it."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

Progress = Callable[[str, int, int], None]

_LONGEST_NAME = 100  # of what is put into a folder


class Host(Protocol):
    """The program around the engine: a WebUI, a command line, somebody's script."""

    @property
    def device(self) -> str | None:
        """Where networks run, in torch's words; None means the best device there is."""

    @property
    def dtype(self) -> str | None:
        """Their precision, "float32" or "float16"; None means what suits the device."""

    @property
    def models_dirs(self) -> tuple[Path, ...]:
        """Where weights are looked for before the usual caches, in this order.

        The first is where they are downloaded to, and the only one where they may be deleted.
        """

    @property
    def lists_dir(self) -> Path:
        """Where the user's own word lists are kept, unless a setting names another folder."""

    @property
    def other_lists(self) -> Mapping[str, Path]:
        """Other programs' folders of word lists, by what stands before the colon of their names."""

    @property
    def after_run(self) -> str:
        """What becomes of the networks after a run: a choice of the setting `after_run`."""

    @property
    def trusted(self) -> bool:
        """Whether whoever asks may change what is installed, and name any path of this machine."""

    @property
    def paths_hidden(self) -> bool:
        """Whether nobody may name a path of this machine, nor be told one, not even if trusted."""

    @property
    def chosen_models(self) -> frozenset[str]:
        """The models that the owner has chosen in the settings, which anyone may use."""

    def exclusive(self, task: str) -> AbstractContextManager[None]:
        """Hold the device for one task: nobody else computes meanwhile; the others wait in line."""

    def others_wait(self) -> bool:
        """Say whether somebody waits for the device while we hold it."""

    def holds_device(self) -> bool:
        """Say whether this thread works for a task that has the device already."""

    def interrupted(self, task: str) -> bool:
        """Say whether a task of ours, or the one around this thread, was told to stop."""

    def progress(self, label: str, done: int, total: int) -> None:
        """Show how far a step of the running task is."""

    def on_device(self, network: Any, size_bytes: int) -> AbstractContextManager[None]:
        """Have a network of that size on the device while the context lasts."""

    def off_device(self, network: Any) -> None:
        """Let go of a network that leaves the device; it is moved to the CPU afterwards."""

    def make_room(self) -> None:
        """Free all the memory of the device that can be freed: a run is tried once more."""

    def count_tokens(self, text: str) -> tuple[int, int] | None:
        """Return (tokens of a text, of how many) as the loaded generator counts, or None."""

    def checkpoint_kind(self) -> str | None:
        """Return the target generator that is loaded ("SD 1.x", "SDXL", ...), if any."""


class StandaloneHost:
    """No WebUI: this process has the device to itself.

    `show` is called with (label, done, total) as work goes on.
    """

    def __init__(
        self,
        device: str | None = None,
        models_dir: str | Path | None = None,
        show: Progress | None = None,
    ) -> None:
        self.device = device
        self.dtype: str | None = None
        self.models_dirs: tuple[Path, ...] = () if models_dir is None else (as_path(models_dir),)
        self.other_lists: Mapping[str, Path] = {}
        self.after_run = "keep"
        self.trusted = True
        self.paths_hidden = False
        self.chosen_models: frozenset[str] = frozenset()
        self._show = show
        self._line: deque[object] = deque()
        self._turns = threading.Condition()
        self._stop = threading.Event()

    @property
    def lists_dir(self) -> Path:
        """Where the user's own word lists are kept: beside the models, or in the user's folder."""
        return (self.models_dirs[0] if self.models_dirs else user_data_dir()) / "lists"

    @contextlib.contextmanager
    def exclusive(self, task: str) -> Iterator[None]:  # noqa: ARG002 - a WebUI announces the task
        """Hold the device for one task; others wait in line."""
        place = object()
        with self._turns:
            self._line.append(place)
        try:
            with self._turns:
                self._turns.wait_for(lambda: self._line[0] is place)
            try:
                yield
            finally:
                self._stop.clear()
        finally:
            with self._turns:
                self._line.remove(place)
                self._turns.notify_all()

    def others_wait(self) -> bool:
        """Say whether somebody waits for the device while we hold it."""
        return len(self._line) > 1

    def holds_device(self) -> bool:
        """Return False: no task is around ours."""
        return False

    def interrupt(self) -> None:
        """Ask the running task to stop, or the next one where none is running."""
        self._stop.set()

    def interrupted(self, task: str = "") -> bool:  # noqa: ARG002 - whichever runs was meant
        """Say whether the running task is to stop."""
        return self._stop.is_set()

    def progress(self, label: str, done: int, total: int) -> None:
        """Pass the progress on to whoever asked for it."""
        if self._show is not None:
            self._show(label, done, total)

    @contextlib.contextmanager
    def on_device(self, network: Any, size_bytes: int) -> Iterator[None]:  # noqa: ARG002
        """Do nothing: there is nobody to make room."""
        yield

    def off_device(self, network: Any) -> None:
        """Do nothing: nobody keeps account of networks."""

    def make_room(self) -> None:
        """Do nothing: there is nobody else here."""

    def count_tokens(self, text: str) -> tuple[int, int] | None:  # noqa: ARG002
        """Return None: there is no generator here."""
        return None

    def checkpoint_kind(self) -> str | None:
        """Return None: there is no generator here."""
        return None


def as_path(name: str | Path) -> Path:
    """Return a path with the user's home in place of "~", where there is such a home."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


def is_folder(name: str | Path) -> bool:
    """Say whether a name is that of a folder; a name that can't be one is not."""
    try:
        return as_path(name).is_dir()
    except (OSError, ValueError):
        return False


def is_file(name: str | Path) -> bool:
    """Say whether a name is that of a file; a name that can't be one is not."""
    try:
        return as_path(name).is_file()
    except (OSError, ValueError):
        return False


def can_be_folder(name: str | Path) -> bool:
    """Say whether a folder of that name could be on this machine, with files in it."""
    try:
        Path(as_path(name), "x" * _LONGEST_NAME).lstat()
    except OSError as error:
        return error.errno != errno.ENAMETOOLONG
    except ValueError:  # it holds a sign that no name has
        return False
    return True


def names_a_path(name: str) -> bool:
    """Say whether a model's name is written like a path, or as architecture=FILE; looks nowhere."""
    return (
        "=" in name or "\\" in name or name.startswith(("/", "~", "."))
        or Path(name).is_absolute() or ".." in Path(name).parts
    )


def user_cache_dir() -> Path:
    """Return the folder for this package's own cached files, by each system's custom."""
    override = os.environ.get("CLIP_INTERROGATOR_EXT_CACHE")
    if override:
        return as_path(override)
    base = os.environ.get("LOCALAPPDATA") or os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "clip-interrogator-ext"


def user_data_dir() -> Path:
    """Return the folder for what the user makes with this package, by each system's custom."""
    override = os.environ.get("CLIP_INTERROGATOR_EXT_DATA")
    if override:
        return as_path(override)
    base = os.environ.get("APPDATA") or os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "clip-interrogator-ext"
