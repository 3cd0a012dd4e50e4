"""An encoder whose vectors can be worked out by hand: one direction for each word."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from clip_interrogator_ext.models.base import Tick, no_tick


class WordEncoder:
    """A text's vector is the sum of its words' directions; its tokens are its words and commas."""

    def __init__(self, words: Sequence[str], token_budget: int = 75) -> None:
        self.name = "words"
        self.module = torch.nn.Identity()
        self.words = list(words)
        self.token_budget = token_budget
        self.encoded: list[str] = []

    @property
    def dimension(self) -> int:
        return len(self.words) + 1

    def image(self, **weights: float) -> Tensor:
        """Return the unit vector of a picture that shows these words so strongly."""
        vector = torch.zeros(self.dimension)
        for word, weight in weights.items():
            vector[self.words.index(word)] = weight
        return normalize(vector, dim=0)

    def preprocess(self, image: object) -> Tensor:
        raise AssertionError("pictures are given as vectors here")

    def encode_images(self, pixels: object) -> Tensor:
        raise AssertionError("pictures are given as vectors here")

    def encode_texts(
        self, texts: Sequence[str], tick: Tick = no_tick, label: str = "texts"
    ) -> Tensor:
        tick(label, 0, len(texts))
        self.encoded += texts
        rows = torch.zeros(len(texts), self.dimension)
        for row, text in zip(rows, texts, strict=True):
            row[-1] = 0.1  # so that no text has a zero vector
            for word in re.findall(r"[\w-]+", text):
                if word in self.words:
                    row[self.words.index(word)] += 1
        return normalize(rows, dim=-1)

    def encode_continuations(
        self, prefix: str, phrases: Sequence[str], tick: Tick = no_tick, label: str = "phrases"
    ) -> Tensor:
        texts = [f"{prefix}, {phrase}" if prefix else phrase for phrase in phrases]
        return self.encode_texts(texts, tick, label)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(re.findall(r"[\w-]+|,", text)) for text in texts]

    def count_continuations(self, prefix: str, phrases: Sequence[str]) -> list[int]:
        return self.count_tokens(
            [f"{prefix}, {phrase}" if prefix else phrase for phrase in phrases]
        )

    def forget(self) -> None:
        """Do nothing: no vector depends on what was asked before."""

    def key(self) -> str:
        return "words"
