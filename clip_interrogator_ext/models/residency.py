"""Which device and precision are used, and which network is on the device now."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from clip_interrogator_ext.errors import (
    BadOption,
    BrokenModel,
    InterrogatorError,
    OutOfMemory,
    is_panic,
)
from clip_interrogator_ext.models.base import Tick, no_tick

if TYPE_CHECKING:
    from clip_interrogator_ext.host import Host
    from clip_interrogator_ext.models.base import Network, TextImageEncoder

_HALF_PRECISION_DEVICES = ("cuda", "mps")
_LONGEST_REASON = 200
_OUT_OF_MEMORY = (
    "out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory",
    "bad_alloc", "memory allocation of", "can't start new thread", "cublas_status_alloc_failed",
)


def resolve_device(device: str | torch.device | None) -> torch.device:
    """Return the device of that name, or the best there is for None.

    Raises BadOption where torch does not know the name or does not have the device.
    """
    if device is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        if torch.backends.mps.is_available():
            return torch.device("mps")
        return torch.device("cpu")
    try:
        resolved = torch.device(device)
        torch.empty(0, device=resolved)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].split(":")[0].rstrip(".")
        if reason.startswith("Expected one of"):
            reason = "torch knows no such device"
        raise BadOption(
            "device", f"The device {str(device)!r} can't be used here ({reason}). Try cpu."
        ) from error
    return resolved


def dtype_for(device: torch.device, asked: str | None = None) -> torch.dtype:
    """Return the precision that was asked for, or float16 for CUDA and MPS, else float32.

    Not every network computes in float16 on a CPU, so there it is float32 always.
    """
    if device.type == "cpu":
        return torch.float32
    if asked is not None:
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}.get(asked, torch.float16)
    return torch.float16 if device.type in _HALF_PRECISION_DEVICES else torch.float32


def size_bytes(module: torch.nn.Module) -> int:
    """Return how many bytes the parameters and buffers of a module take."""
    tensors = [*module.parameters(), *module.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def return_free_memory(*, cycles: bool = True) -> None:
    """Give memory that nothing refers to any more back to the device and to the system.

    Looking for cycles of references holds up every thread, half a second in a large process.
    """
    if cycles:
        gc.unfreeze()  # what was left aside may hold a network
        gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
    if sys.platform == "linux":
        # glibc keeps what was freed for itself until it is told to trim.
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


@contextlib.contextmanager
def memory_errors() -> Iterator[None]:
    """Turn errors that mean a lack of memory into OutOfMemory, and let go of what the run held.

    A library that breaks down for another reason becomes BrokenModel.
    """
    try:
        yield
    except BaseException as error:
        kinds = RuntimeError, MemoryError, OSError, InterrogatorError
        if isinstance(error, OutOfMemory) or not (isinstance(error, kinds) or is_panic(error)):
            raise
        if not is_out_of_memory(error):
            if is_panic(error):
                raise _broken_down(error) from error
            raise
        # The frames of the traceback would keep their tensors alive.
        traceback.clear_frames(error.__traceback__)
        return_free_memory()
        raise OutOfMemory(
            "There is not enough memory on the device. Choose a smaller backbone or captioner, "
            "a smaller chunk size, or low memory."
        ) from error


def _broken_down(error: BaseException) -> BrokenModel:
    reason = next(iter(str(error).splitlines()), "")[:_LONGEST_REASON].rstrip(".")
    return BrokenModel(
        f"A library that reads the model's files or words broke down ({reason}). Download the "
        "model again, or choose another one."
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error, or what it comes from, means that memory ran out.

    Torch words it differently everywhere, and what reads a file takes it for a damaged one.
    """
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    message = str(error).lower()
    if any(words in message for words in _OUT_OF_MEMORY):
        return True
    return error.__cause__ is not None and is_out_of_memory(error.__cause__)


class Residency:
    """Brings networks to the device, and in low memory sends the others away first."""

    def __init__(self, device: torch.device, host: Host, *, low_memory: bool = False) -> None:
        self.device = device
        self._host = host
        self._low_memory = low_memory
        self._resident: list[Network] = []

    @contextlib.contextmanager
    def on_device(self, network: Network) -> Iterator[None]:
        """Have a network on the device while the context lasts; it stays until room is needed."""
        if self._low_memory:
            for other in [one for one in self._resident if one is not network]:
                self.send_away(other)
        if network not in self._resident:
            self._resident.append(network)  # first, so that a failure below is cleared up too
        with memory_errors(), self._host.on_device(network.module, size_bytes(network.module)):
            network.module.to(self.device)
            yield

    def send_away(self, network: Network) -> None:
        """Move a network to the CPU's memory."""
        self._resident.remove(network)
        self._host.off_device(network.module)
        if self.device.type != "cpu":
            network.module.to("cpu")
            return_free_memory(cycles=False)

    def resident(self) -> list[Network]:
        """Return the networks that are on the device now."""
        return list(self._resident)

    def forget(self, network: Network) -> None:
        """Let go of one network."""
        if network in self._resident:
            self._resident.remove(network)

    def clear(self) -> None:
        """Forget all networks."""
        for network in self._resident:
            self._host.off_device(network.module)
        self._resident.clear()


class ResidentEncoder:
    """An encoder that comes to the device whenever it is asked something."""

    def __init__(self, encoder: TextImageEncoder, residency: Residency) -> None:
        self._encoder = encoder
        self._residency = residency
        self.name = encoder.name
        self.module = encoder.module
        self.preprocess = encoder.preprocess
        self.token_budget = encoder.token_budget

    @property
    def dimension(self) -> int:
        """The length of the vectors."""
        with self._residency.on_device(self._encoder):
            return self._encoder.dimension

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Return the unit vectors of prepared images."""
        with self._residency.on_device(self._encoder):
            return self._encoder.encode_images(pixels)

    def encode_texts(
        self, texts: Sequence[str], tick: Tick = no_tick, label: str = "texts"
    ) -> Tensor:
        """Return the unit vectors of texts."""
        with self._residency.on_device(self._encoder):
            return self._encoder.encode_texts(texts, tick, label)

    def encode_continuations(
        self, prefix: str, phrases: Sequence[str], tick: Tick = no_tick, label: str = "phrases"
    ) -> Tensor:
        """Return the vectors of the texts "prefix, phrase"."""
        with self._residency.on_device(self._encoder):
            return self._encoder.encode_continuations(prefix, phrases, tick, label)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens each text has."""
        return self._encoder.count_tokens(texts)

    def count_continuations(self, prefix: str, phrases: Sequence[str]) -> list[int]:
        """Return how many tokens each text "prefix, phrase" has."""
        return self._encoder.count_continuations(prefix, phrases)

    def forget(self) -> None:
        """Let go of what was kept of earlier texts."""
        self._encoder.forget()

    def key(self) -> str:
        """Return a name for this backbone that is safe as a folder's."""
        return self._encoder.key()
