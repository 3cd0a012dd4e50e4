"""Forge's ways with devices, memory and checkpoints."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from backend import memory_management
from backend.patcher.base import ModelPatcher
from modules import sd_models

_WORKING_BYTES = 1 << 30
"""What a forward pass may need beside the network's own weights."""


class Forge:
    """Hands our networks to Forge's memory manager, which evicts others and, later, ours."""

    def __init__(self) -> None:
        self._patchers: dict[int, Any] = {}  # by the id of the network, which the patcher keeps
        self._loaded_in_this_run: set[int] = set()

    def device(self) -> str:
        """Return the device of Forge's own interrogator."""
        return str(memory_management.text_encoder_device())

    def dtype(self, device: str) -> str:
        """Return float16 where Forge would use it on a device, else float32."""
        half = memory_management.should_use_fp16(device=torch.device(device))
        return "float16" if half else "float32"

    @contextlib.contextmanager
    def on_device(self, network: Any, size_bytes: int, device: str) -> Iterator[None]:  # noqa: ARG002
        """Have Forge load a network, which it weighs itself; a CPU is no concern of its manager."""
        if device == "cpu":
            yield
            return
        patcher = self._patcher(network, _as_forge_names_it(torch.device(device)))
        # Nobody else loads anything while we hold the queue, and Forge prints at each call.
        if id(network) not in self._loaded_in_this_run or not _is_loaded(patcher):
            memory_management.load_models_gpu([patcher], memory_required=_WORKING_BYTES)
            self._loaded_in_this_run.add(id(network))
        yield

    def off_device(self, network: Any) -> None:
        """Take a network out of Forge's account."""
        self._loaded_in_this_run.discard(id(network))
        patcher = self._patchers.pop(id(network), None)
        if patcher is not None:
            memory_management.unload_model_clones(patcher)

    def make_room(self, device: str) -> None:
        """Have Forge unload everything."""
        if device != "cpu":
            memory_management.unload_all_models()

    def end_run(self) -> None:
        """Do nothing but forget: Forge brings back by itself what it evicted."""
        self._loaded_in_this_run.clear()

    def checkpoint(self) -> Any | None:
        """Return the loaded checkpoint; before the first one, Forge holds a stand-in."""
        checkpoint = sd_models.model_data.sd_model
        return None if isinstance(checkpoint, sd_models.FakeInitialModel) else checkpoint

    def token_counter(self, checkpoint: Any) -> Callable[[str], Sequence[Any]]:
        """Return the count that stands beside the host's own prompt boxes."""
        return checkpoint.get_prompt_lengths_on_ui  # type: ignore[no-any-return]

    def _patcher(self, network: Any, device: torch.device) -> Any:
        patcher = self._patchers.get(id(network))
        if patcher is not None and patcher.load_device != device:
            self.off_device(network)
            patcher = None
        if patcher is None:
            patcher = ModelPatcher(
                network, load_device=device,
                offload_device=memory_management.text_encoder_offload_device(),
            )
            self._patchers[id(network)] = patcher
        return patcher


def _as_forge_names_it(device: torch.device) -> torch.device:
    """Return a device with its number: Forge evicts only for a device of the very same name."""
    its_own: torch.device = memory_management.get_torch_device()
    return its_own if device.index is None and device.type == its_own.type else device


def _is_loaded(patcher: Any) -> bool:
    return any(one.model is patcher for one in memory_management.current_loaded_models)
