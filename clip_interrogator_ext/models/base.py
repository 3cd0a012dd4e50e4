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


class Network(Protocol):
    """A module that lives on a device and can be moved."""

    name: str
    module: torch.nn.Module


class Captioner(Network, Protocol):
    """Says in one sentence what a picture shows."""

    def caption(self, image: Image.Image, options: CaptionOptions, tick: Tick = ...) -> str:
        """Return the caption of an RGB image as plain text without special tokens.

        `tick("caption", tokens_so_far, max_length)` is called before each generated token.
        """


class TextImageEncoder(Network, Protocol):
    """Puts pictures and texts into one space, where near means alike."""

    token_budget: int
    """How many tokens of a text are read, start and end tokens not counted."""

    @property
    def dimension(self) -> int:
        """The length of the vectors."""

    def encode_image(self, image: Image.Image) -> torch.Tensor:
        """Return the unit vector of an RGB image: (dimension,) float32 on the CPU."""

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

    def key(self) -> str:
        """Return a name for this backbone that is safe as a folder's."""
