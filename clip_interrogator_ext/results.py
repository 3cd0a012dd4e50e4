"""Frozen answers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Part:
    """One phrase of a prompt.

    `similarity` is that of the phrase alone to the picture; `gain` is what the prompt's
    similarity loses without the phrase (in a negative prompt, by how much the picture comes
    nearer without it). Both are None where they were not asked for, or the run was stopped before
    they were known.
    """

    phrase: str
    category: str
    similarity: float | None
    gain: float | None


@dataclass(frozen=True)
class Look:
    """What was seen of a picture, so that it is not needed any more.

    `caption` is None where none was asked for; `vectors` are the picture's of unit length, one
    for each backbone.
    """

    caption: str | None
    vectors: tuple[tuple[float, ...], ...]


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


@dataclass(frozen=True)
class Run:
    """A task that is running, or waiting for the device.

    `label` is its step, of which `done` of `total` are done; `seconds_left` is an estimate for
    that step, None while there is nothing to go by. `running` is false while it waits, `stopping`
    true once it was asked to stop.
    """

    task: str
    kind: str
    running: bool
    stopping: bool
    label: str
    done: int
    total: int
    seconds: float
    seconds_left: float | None


@dataclass(frozen=True)
class Loaded:
    """A network in memory: `kind` is "backbone" or "captioner", `device` in torch's words."""

    name: str
    kind: str
    device: str
    size_bytes: int


@dataclass(frozen=True)
class Status:
    """What the service does and holds now: its runs in their order, and its networks."""

    runs: tuple[Run, ...]
    loaded: tuple[Loaded, ...]

    @property
    def size_bytes(self) -> int:
        """How much memory the networks hold."""
        return sum(network.size_bytes for network in self.loaded)

    def as_dict(self) -> dict[str, Any]:
        """Return the status as plain values, ready for JSON."""
        return {**asdict(self), "size_bytes": self.size_bytes}


@dataclass(frozen=True)
class ModelPlace:
    """Where a model's weights are: a file or folder, its size, and whether we may delete it."""

    path: Path
    size_bytes: int
    deletable: bool
