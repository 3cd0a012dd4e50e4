"""What differs between AUTOMATIC1111 and Forge, as one set of verbs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from importlib.util import find_spec
from typing import Any, Protocol


class Flavour(Protocol):
    """The WebUI's ways with devices, memory and checkpoints."""

    def device(self) -> str:
        """Return the device for networks like ours, in torch's words."""

    def dtype(self, device: str) -> str:
        """Return their precision on a device: "float32" or "float16"."""

    def on_device(
        self, network: Any, size_bytes: int, device: str
    ) -> AbstractContextManager[None]:
        """Have room for a network on a device while the context lasts."""

    def off_device(self, network: Any) -> None:
        """Let go of a network that leaves the device."""

    def make_room(self, device: str) -> None:
        """Free all the memory of a device that can be freed until the end of the run."""

    def end_run(self) -> None:
        """Put back what was moved out of our way since the last end of a run."""

    def checkpoint(self) -> Any | None:
        """Return the loaded checkpoint, or None; loads nothing."""

    def token_counter(self, checkpoint: Any) -> Callable[[str], Sequence[Any]]:
        """Return what counts (tokens, of how many) as that checkpoint reads a prompt."""


def flavour_of_this_webui() -> Flavour:
    """Return Forge's verbs where Forge's memory manager is there, else AUTOMATIC1111's."""
    if find_spec("modules_forge") is not None and find_spec("backend") is not None:
        from clip_interrogator_ext.webui.forge import Forge

        return Forge()
    from clip_interrogator_ext.webui.a1111 import Automatic1111

    return Automatic1111()
