"""The WebUI as the engine sees it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from modules import devices, shared
from modules.paths_internal import data_path, extensions_dir, models_path, script_path

from clip_interrogator_ext.host import as_path, is_folder
from clip_interrogator_ext.webui.flavour import flavour_of_this_webui
from clip_interrogator_ext.webui.jobs import Jobs, is_inside_webui_job
from clip_interrogator_ext.webui.settings import setting, wildcard_dir

log = logging.getLogger(__name__)

_OWN_FOLDER = "clip-interrogator"
_FOLDERS_OF_THE_WEBUI = ("CLIP", "BLIP")  # of SD 3, and of the host's own interrogator
_DYNAMIC_PROMPTS = "sd-dynamic-prompts"

# The attributes of a checkpoint that say what it is, the telling ones first.
_KINDS = (
    ("is_sd3", "SD 3"), ("is_sdxl", "SDXL"), ("is_ssd", "SDXL"),
    ("is_sd2", "SD 2.x"), ("is_sd1", "SD 1.x"),
)
_KIND_OF_ENGINE = {"Flux": "Flux"}  # Forge has no attribute for it


class WebuiHost:
    """Implements Host by the WebUI's queue, devices, memory and settings, read when asked."""

    def __init__(self) -> None:
        self._flavour = flavour_of_this_webui()
        self._jobs = Jobs()

    @property
    def device(self) -> str:
        """Where networks run: the user's choice, else the WebUI's."""
        return str(setting("device") or self._flavour.device())

    @property
    def dtype(self) -> str:
        """Their precision on that device."""
        return self._flavour.dtype(self.device)

    @property
    def models_dirs(self) -> tuple[Path, ...]:
        """Our own models folder first, then those where the WebUI keeps such networks."""
        models = Path(models_path)
        own = setting("models_dir")
        clip = shared.cmd_opts.clip_models_path
        return (
            as_path(own) if own else models / _OWN_FOLDER,
            *([Path(clip)] if clip else []),
            *(models / name for name in _FOLDERS_OF_THE_WEBUI),
        )

    @property
    def lists_dir(self) -> Path:
        """Where the user's own word lists are kept: in our models folder."""
        return self.models_dirs[0] / "lists"

    @property
    def other_lists(self) -> dict[str, Path]:
        """The folders of the WebUI's own interrogator and of the extension Dynamic Prompts."""
        found = {
            # The WebUI has it in the folder that it runs in, which is that of its program.
            "interrogate": _first_folder(
                Path(data_path, "interrogate"), Path(script_path, "interrogate")
            ),
            "wildcards": _first_folder(
                wildcard_dir(), Path(extensions_dir, _DYNAMIC_PROMPTS, "wildcards"),
                Path(script_path, "wildcards"),
            ),
        }
        return {name: folder for name, folder in found.items() if folder is not None}

    @property
    def after_run(self) -> str:
        """What becomes of the networks after a run, by the user's settings."""
        return str(setting("after_run"))

    @property
    def trusted(self) -> bool:
        """Whether the WebUI lets whoever asks change what is installed, and name any path."""
        return not shared.cmd_opts.disable_extension_access

    @property
    def paths_hidden(self) -> bool:
        """Whether the WebUI keeps this machine's folders to its owner."""
        return bool(shared.cmd_opts.hide_ui_dir_config)

    @property
    def chosen_models(self) -> frozenset[str]:
        """The models that the WebUI's owner has chosen in the settings."""
        return frozenset({str(setting("clip")), str(setting("captioner"))})

    def exclusive(self, task: str) -> AbstractContextManager[None]:
        """Hold the WebUI's queue for one task, and put its checkpoint back at the end."""
        return self._jobs.exclusive(task, at_end=self._flavour.end_run)

    def others_wait(self) -> bool:
        """Say whether somebody waits for the WebUI's queue."""
        return self._jobs.others_wait()

    def holds_device(self) -> bool:
        """Say whether this thread is in the middle of a job of the WebUI's own."""
        return is_inside_webui_job()

    def interrupted(self, task: str) -> bool:
        """Say whether the WebUI was told to stop a job of ours, or the one around this thread."""
        return self._jobs.interrupted(task)

    def progress(self, label: str, done: int, total: int) -> None:
        """Show how far a step is, in the page's progress bar and in /sdapi/v1/progress."""
        self._jobs.progress(label, done, total)

    @contextlib.contextmanager
    def on_device(self, network: Any, size_bytes: int) -> Iterator[None]:
        """Have room for a network on the device while the context lasts."""
        with self._flavour.on_device(network, size_bytes, self.device):
            yield

    def off_device(self, network: Any) -> None:
        """Let go of a network."""
        self._flavour.off_device(network)

    def make_room(self) -> None:
        """Free all the memory of the device that the WebUI can do without for now."""
        self._flavour.make_room(self.device)
        devices.torch_gc()

    def count_tokens(self, text: str) -> tuple[int, int] | None:
        """Return the loaded checkpoint's count of a text's tokens, of how many; None for none."""
        try:
            checkpoint = self._flavour.checkpoint()
            if checkpoint is None:
                return None
            count, limit = self._flavour.token_counter(checkpoint)(text)
            return int(count), int(limit)
        except Exception:  # extensions replace text encoders; then ours counts
            log.debug("The WebUI's token count failed.", exc_info=True)
            return None

    def checkpoint_kind(self) -> str | None:
        """Return the target generator of the loaded checkpoint; causes no load."""
        checkpoint = self._flavour.checkpoint()
        if checkpoint is None:
            return None
        for attribute, kind in _KINDS:
            if getattr(checkpoint, attribute, False):
                return kind
        return _KIND_OF_ENGINE.get(type(checkpoint).__name__)


def _first_folder(*names: Any) -> Path | None:
    """Return the first of the names that is that of a folder; None and "" are those of none."""
    return next((as_path(name) for name in names if name and is_folder(name)), None)
