"""Say how near texts are to one picture, by one backbone or by several together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from clip_interrogator_ext.models.base import Tick, no_tick
from clip_interrogator_ext.search.ranking import mean, mean_similarities, nearest

if TYPE_CHECKING:
    from torch import Tensor

    from clip_interrogator_ext.models.base import TextImageEncoder
    from clip_interrogator_ext.vocabulary.tables import Table


@dataclass(frozen=True)
class Scorer:
    """One picture's vector for each backbone in use; a score is the mean of their cosines.

    `images[k]` is (dimension of encoder k,), of unit length.
    """

    encoders: tuple[TextImageEncoder, ...]
    images: tuple[Tensor, ...]
    tick: Tick = no_tick

    def negated(self) -> Scorer:
        """Return the scorer for which far is near: what negative mode searches with."""
        return replace(self, images=tuple(-image for image in self.images))

    @property
    def token_budget(self) -> int:
        """How many tokens every backbone reads."""
        return min(encoder.token_budget for encoder in self.encoders)

    def table(self, table: Table) -> Tensor:
        """Return the score of each of a table's phrases: (n,)."""
        return mean_similarities(table.vectors, self.images)

    def nearest(self, table: Table, k: int) -> list[int]:
        """Return the rows of the k phrases of highest score, highest first."""
        return nearest(table.vectors, self.images, k)

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Return the score of each text: (n,)."""
        return mean(
            [
                encoder.encode_texts(texts, self.tick, "") @ image
                for encoder, image in zip(self.encoders, self.images, strict=True)
            ]
        )

    def continuations(self, prefix: str, phrases: Sequence[str]) -> Tensor:
        """Return the score of each text "prefix, phrase": (n,)."""
        return mean(
            [
                encoder.encode_continuations(prefix, phrases, self.tick, "") @ image
                for encoder, image in zip(self.encoders, self.images, strict=True)
            ]
        )

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens each text has, by the backbone that counts most."""
        counts = [encoder.count_tokens(texts) for encoder in self.encoders]
        return [max(each) for each in zip(*counts, strict=True)]

    def count_continuations(self, prefix: str, phrases: Sequence[str]) -> list[int]:
        """Return how many tokens each text "prefix, phrase" has, likewise."""
        counts = [encoder.count_continuations(prefix, phrases) for encoder in self.encoders]
        return [max(each) for each in zip(*counts, strict=True)]
