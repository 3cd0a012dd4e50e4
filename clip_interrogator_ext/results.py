"""Frozen answers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Part:
    """One phrase of a prompt.

    `similarity` is that of the phrase alone to the picture; `gain` is what the prompt's
    similarity loses without the phrase (in a negative prompt, by how much the picture comes
    nearer without it). Both are None where the run was stopped before they were known.
    """

    phrase: str
    category: str
    similarity: float | None
    gain: float | None


@dataclass(frozen=True)
class Prompt:
    """The answer about one picture.

    `similarity` is the cosine of the text's vector and the picture's, the mean where
    several backbones judge; None where there is no text. `demo` says that a bundled demo model
    took part. `interrupted` says that the run was stopped and this is what had been found.
    """

    text: str
    mode: str
    caption: str
    tokens: int
    similarity: float | None
    seconds: float
    parts: tuple[Part, ...] = ()
    negative: Prompt | None = None
    demo: bool = False
    interrupted: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the answer as plain values, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Analysis:
    """The phrases of each category nearest to a picture: (phrase, similarity), nearest first."""

    categories: dict[str, tuple[tuple[str, float], ...]]
    seconds: float
    demo: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the answer as plain values, ready for JSON."""
        return asdict(self)
