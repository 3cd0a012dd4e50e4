"""Grow a prompt as the chain does, trying few phrases of the pool at each step.

At a wide step a sample of the pool is tried: its first phrases, and others spread over the rest. A
ridge regression on vectors and lengths of phrases tells from it what the others would score, and
the most promising are tried too. At the narrow step that follows, only the best of those are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from clip_interrogator_ext.errors import Interrupted
from clip_interrogator_ext.phrases import join
from clip_interrogator_ext.search.chain import Chain
from clip_interrogator_ext.search.ranking import top_k

if TYPE_CHECKING:
    from clip_interrogator_ext.search.scorer import Scorer
    from clip_interrogator_ext.vocabulary.tables import Table

_SHARE = 20  # this part of the pool is the sample of a wide step, and as many are promising
_FEWEST = 8  # of either, where the pool is small
_NARROW = 24
_PATIENCE = 2  # a text may stay behind the best one for so many times the minimum of phrases
_MOST = 1.5  # so many times the pool's size are tried in all; `chain` tries it at each step
_RIDGE = 0.3
_LENGTHS = 13  # in tokens above the shortest phrase; longer phrases count as the longest


def turbo_chain(
    scorer: Scorer,
    head: str,
    pool: Table,
    *,
    min_count: int,
    max_count: int,
    budget: int,
    label: str,
    keep_all: bool = False,
) -> Chain:
    """Add phrases of the pool to `head`; return those of the best text met on the way.

    The budget, equal phrases, an interruption and `keep_all` are treated as by `chain`. Texts that
    go on often rise again after they have fallen, so the search ends only when the last
    `2 * min_count` phrases and one more have not led to a better text, or when enough have been
    tried.
    """
    grower = _Grower(scorer, pool, budget)
    chosen: list[str] = []
    best: tuple[str, ...] = ()
    narrow: list[int] = []
    most = max(_MOST * len(pool), 2 * _FEWEST * max_count)
    try:
        best_score = float(scorer.texts([head])[0]) if head else float("-inf")
        while len(chosen) < max_count:
            text = join([head, *chosen])
            scorer.tick(label, len(chosen), max_count)
            rows, scores = grower.try_rows(text, narrow)
            narrow = []
            if not rows and grower.tried < most:
                rows, scores = grower.try_pool(text)
                narrow = sorted(rows[place] for place in top_k(scores, _NARROW + 1))
            if not rows:
                break
            chosen_row, score = rows[int(scores.argmax())], float(scores.max())
            chosen.append(grower.take(chosen_row))
            narrow = [row for row in narrow if row != chosen_row]
            if score > best_score:
                best, best_score = tuple(chosen), score
            elif len(chosen) - len(best) > _PATIENCE * min_count:
                break
        scorer.tick(label, max_count, max_count)
    except Interrupted:
        return Chain(tuple(chosen) if keep_all else best, interrupted=True)
    return Chain(tuple(chosen) if keep_all else best)


class _Grower:
    """The rows of a pool that may still be added, in its order."""

    def __init__(self, scorer: Scorer, pool: Table, budget: int) -> None:
        self._scorer = scorer
        self._phrases = pool.phrases
        self._features = torch.cat(pool.vectors, dim=1) if pool.vectors else torch.empty(0, 0)
        self._budget = budget
        first: dict[str, int] = {}
        for row, phrase in enumerate(pool.phrases):
            first.setdefault(phrase, row)
        self._rows = list(first.values())
        self.tried = 0
        self._sample = max(_FEWEST, len(pool) // _SHARE)

    def take(self, row: int) -> str:
        """Return the phrase of a row, which is not tried again."""
        self._rows.remove(row)
        return self._phrases[row]

    def try_rows(self, text: str, rows: Sequence[int]) -> tuple[list[int], Tensor]:
        """Return those of the rows that fit behind the text, and their scores: (n,)."""
        fitting = [row for row, _ in self._fitting(text, rows)]
        return fitting, self._scores(text, fitting)

    def try_pool(self, text: str) -> tuple[list[int], Tensor]:
        """Return a sample of the rows that fit and the most promising others, with their scores."""
        fitting = self._fitting(text, self._rows)
        self._rows = rows = [row for row, _ in fitting]
        if len(rows) <= 2 * self._sample:
            return rows, self._scores(text, rows)
        places = _spread(len(rows), self._sample)
        scores = self._scores(text, [rows[place] for place in places])
        lengths = torch.tensor([tokens for _, tokens in fitting])
        lengths = (lengths - lengths.min()).clamp(max=_LENGTHS - 1)
        features = torch.cat((self._features[rows], one_hot(lengths, _LENGTHS).float()), dim=1)
        expected = _regress(features[places], scores, features)
        expected[places] = float("-inf")
        promising = top_k(expected, self._sample)
        scores = torch.cat((scores, self._scores(text, [rows[place] for place in promising])))
        together, order = torch.tensor([*places, *promising]).sort()
        return [rows[place] for place in together.tolist()], scores[order]

    def _fitting(self, text: str, rows: Sequence[int]) -> list[tuple[int, int]]:
        """Return the rows that fit behind the text, with the tokens of both."""
        counts = self._scorer.count_continuations(text, [self._phrases[row] for row in rows])
        pairs = zip(rows, counts, strict=True)
        return [(row, count) for row, count in pairs if count <= self._budget]

    def _scores(self, text: str, rows: Sequence[int]) -> Tensor:
        if not rows:
            return torch.empty(0)
        self.tried += len(rows)
        return self._scorer.continuations(text, [self._phrases[row] for row in rows])


def _spread(count: int, sample: int) -> list[int]:
    """Return so many places of `count`: half of them the first, half spread over the others."""
    first = sample // 2
    others = sample - first
    return [*range(first), *(first + place * (count - first) // others for place in range(others))]


def _regress(known: Tensor, scores: Tensor, features: Tensor) -> Tensor:
    """Return what ridge regression expects: (k, d), (k,), (n, d) -> (n,)."""
    mean = known.mean(dim=0)
    known, features = known - mean, features - mean
    products = known @ known.T + _RIDGE * torch.eye(len(known))
    weights: Tensor = torch.linalg.solve(products, scores - scores.mean())
    return features @ (known.T @ weights) + scores.mean()
