"""AUTOMATIC1111's ways with devices, memory and checkpoints."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from modules import devices, lowvram, sd_hijack, sd_models, shared

_WORKING_BYTES = 1 << 30
"""What a forward pass may need beside the network's own weights."""


class Automatic1111:
    """Makes room by the host's own helpers, and puts its checkpoint back afterwards."""

    def __init__(self) -> None:
        self._made_room_for: weakref.WeakSet[Any] = weakref.WeakSet()
        self._sent_away: Any | None = None

    def device(self) -> str:
        """Return the device of the host's own interrogator, which honours --use-cpu."""
        return str(devices.get_device_for("interrogate"))

    def dtype(self, device: str) -> str:
        """Return float32 where the host computes in it, or on a CPU, else float16."""
        full = shared.cmd_opts.no_half or devices.dtype == torch.float32
        return "float32" if full or device == "cpu" else "float16"

    @contextlib.contextmanager
    def on_device(self, network: Any, size_bytes: int, device: str) -> Iterator[None]:
        """Make room for a network once in a run; nothing needs to move for a CPU."""
        if device != "cpu" and network not in self._made_room_for:
            self._make_room(network, size_bytes, torch.device(device))
            self._made_room_for.add(network)
        yield

    def off_device(self, network: Any) -> None:
        """Do nothing but forget: the host keeps no account of our networks."""
        self._made_room_for.discard(network)

    def make_room(self, device: str) -> None:
        """Send the checkpoint away, wherever our own reckoning of the room was wrong."""
        checkpoint = self.checkpoint()
        if checkpoint is not None and _is_on(checkpoint, torch.device(device)):
            self._send_away(checkpoint)

    def end_run(self) -> None:
        """Bring the checkpoint back to its device, if it had to leave."""
        networks = list(self._made_room_for)
        self._made_room_for.clear()
        checkpoint, self._sent_away = self._sent_away, None
        if checkpoint is None or checkpoint is not self.checkpoint():
            return
        # It left because there was no room for both.
        for network in networks:
            network.to("cpu")
        devices.torch_gc()
        sd_models.send_model_to_device(checkpoint)

    def checkpoint(self) -> Any | None:
        """Return the loaded checkpoint. `shared.sd_model` would load one."""
        return sd_models.model_data.sd_model

    def token_counter(self, checkpoint: Any) -> Callable[[str], Sequence[Any]]:  # noqa: ARG002
        """Return the count that stands beside the host's own prompt boxes."""
        return sd_hijack.model_hijack.get_prompt_lengths  # type: ignore[no-any-return]

    def _make_room(self, network: Any, size_bytes: int, device: torch.device) -> None:
        checkpoint = self.checkpoint()
        if checkpoint is None:
            return
        if lowvram.is_enabled(checkpoint):
            self._send_away(checkpoint)
            return
        is_there = _is_on(network, device)
        needed = _WORKING_BYTES + (0 if is_there else size_bytes)
        if device.type == "cuda" and _free_bytes(device) < needed and _is_on(checkpoint, device):
            self._send_away(checkpoint)

    def _send_away(self, checkpoint: Any) -> None:
        if lowvram.is_enabled(checkpoint):
            lowvram.send_everything_to_cpu()
            devices.torch_gc()
            return
        self._sent_away = checkpoint  # first: a failure below may leave it half moved
        sd_models.send_model_to_cpu(checkpoint)


def _free_bytes(device: torch.device) -> int:
    """Return what torch can still have: what the driver has left, and what torch holds unused."""
    free, _total = torch.cuda.mem_get_info(device)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(free) + int(unused)


def _is_on(network: Any, device: torch.device) -> bool:
    """Say whether any part of a network is on a GPU; "cuda" without a number is the first."""
    places = {(one.device.type, one.device.index or 0) for one in network.parameters()}
    return device.type != "cpu" and (device.type, device.index or 0) in places
