"""What every network answers, whatever library it comes from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from clip_interrogator_ext.options import CaptionOptions

Tick = Callable[[str, int, int], None]
"""Called between two forward passes as `tick(label, done, total)`.

It reports progress, unless the label is empty, and raises `errors.Interrupted` when the run is to
stop.
"""


def no_tick(_label: str, _done: int, _total: int) -> None:
    """Report nothing and never stop."""


Preprocess = Callable[["Image.Image"], "torch.Tensor"]
"""Turns an RGB image into what a network reads: (channels, height, width), on the CPU.

Any thread may call it.
"""


class Network(Protocol):
    """A module that reads pictures; it lives on a device and can be moved."""

    name: str
    module: torch.nn.Module

    @property
    def preprocess(self) -> Preprocess:
        """What prepares pictures; it does not hold the module."""


class Captioner(Network, Protocol):
    """Says in one sentence what a picture shows."""

    def captions(
        self, pixels: torch.Tensor, options: CaptionOptions, tick: Tick = ...
    ) -> list[str]:
        """Return the captions of prepared images, as plain text without special tokens.

        pixels: (n, channels, height, width). `tick("caption", tokens_so_far, max_length)` is
        called before each token that is generated for all of them.
        """


class TextImageEncoder(Network, Protocol):
    """Puts pictures and texts into one space, where near means alike."""

    token_budget: int
    """How many tokens of a text are read, start and end tokens not counted."""

    @property
    def dimension(self) -> int:
        """The length of the vectors."""

    def encode_images(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the unit vectors of prepared images: (n, dimension) float32 on the CPU.

        pixels: (n, channels, height, width).
        """

    def encode_texts(
        self, texts: Sequence[str], tick: Tick = ..., label: str = ...
    ) -> torch.Tensor:
        """Return the unit vectors of texts: (len(texts), dimension) float32 on the CPU."""

    def encode_continuations(
        self, prefix: str, phrases: Sequence[str], tick: Tick = ..., label: str = ...
    ) -> torch.Tensor:
        """Return what `encode_texts([f"{prefix}, {phrase}" ...])` returns, in less time."""

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens each text has, start and end tokens not counted."""

    def count_continuations(self, prefix: str, phrases: Sequence[str]) -> list[int]:
        """Return how many tokens each text "prefix, phrase" has."""

    def forget(self) -> None:
        """Let go of what was kept of earlier texts: what follows is as it would be without them.

        Vectors may differ in their last bits by what was computed together, or before.
        """

    def key(self) -> str:
        """Return a name for this backbone that is safe as a folder's."""
