"""Grow a prompt as the chain does, trying few phrases of the pool at each step.

At each step a sample of the pool is tried, a large one at the first. Ridge regression on vectors
and lengths of phrases, together with what is left of each phrase's own score, tells what the others
would score, and the most promising are tried too. Regression begins where that of the step before
ended. In the end phrases are exchanged that the text hardly misses.
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

_FIRST = 10  # this part of the pool is the first sample,
_SAMPLE = 100  # this part the samples that follow,
_PROMISING = 20  # and this part is promising
_FEWEST = 8  # of each, where the pool is small
_PATIENCE = 2  # a text may stay behind the best one for so many times the minimum of phrases
_EXCHANGES = 4
_RIDGE = 1.0
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
    `2 * min_count` phrases and one more have not led to a better text.
    """
    grower = _Grower(scorer, pool, budget)
    chosen: list[str] = []
    best: tuple[str, ...] = ()
    try:
        best_score = float(scorer.texts([head])[0]) if head else float("-inf")
        while len(chosen) < max_count:
            scorer.tick(label, len(chosen), max_count)
            rows, scores = grower.try_pool(join([head, *chosen]))
            if not rows:
                break
            chosen.append(grower.take(rows[int(scores.argmax())]))
            if float(scores.max()) > best_score:
                best, best_score = tuple(chosen), float(scores.max())
            elif len(chosen) - len(best) > _PATIENCE * min_count:
                break
        for _ in range(0 if keep_all else _EXCHANGES):
            scorer.tick(label, max_count, max_count)
            better, score = _exchange(scorer, grower, head, best)
            if score <= best_score:
                break
            best, best_score = better, score
        scorer.tick(label, max_count, max_count)
    except Interrupted:
        return Chain(tuple(chosen) if keep_all else best, interrupted=True)
    return Chain(tuple(chosen) if keep_all else best)


def _exchange(
    scorer: Scorer, grower: _Grower, head: str, phrases: tuple[str, ...]
) -> tuple[tuple[str, ...], float]:
    """Leave out the phrase that is missed least; return what is best then, and its score.

    That is the rest alone, or with another phrase behind it.
    """
    if len(phrases) < 2:
        return phrases, float("-inf")
    shorter = [phrases[:place] + phrases[place + 1 :] for place in range(len(phrases))]
    scores = scorer.texts([join([head, *rest]) for rest in shorter])
    rest, score = shorter[int(scores.argmax())], float(scores.max())
    rows, scores = grower.try_promising(join([head, *rest]))
    if rows and float(scores.max()) > score:
        return (*rest, grower.take(rows[int(scores.argmax())])), float(scores.max())
    return rest, score


class _Grower:
    """The rows of a pool that may still be added, in its order, and what is known of them."""

    def __init__(self, scorer: Scorer, pool: Table, budget: int) -> None:
        self._scorer = scorer
        self._phrases = pool.phrases
        vectors = torch.cat(pool.vectors, dim=1) if pool.vectors else torch.empty(0, 0)
        self._features = vectors - vectors.mean(dim=0)
        self._budget = budget
        first: dict[str, int] = {}
        for row, phrase in enumerate(pool.phrases):
            first.setdefault(phrase, row)
        self._rows = list(first.values())  # that were not taken
        self._steps = 0
        self._weights = torch.zeros(vectors.shape[1] + _LENGTHS)
        self._own = torch.zeros(len(pool))  # what regression left of the score of a row, when tried

    def take(self, row: int) -> str:
        """Return the phrase of a row, which is not tried again."""
        self._rows.remove(row)
        return self._phrases[row]

    def try_pool(self, text: str) -> tuple[list[int], Tensor]:
        """Return a sample of the rows that fit and the most promising others, with their scores."""
        rows, features = self._fitting(text)
        sample = self._part(_SAMPLE if self._steps else _FIRST)
        promising = self._part(_PROMISING)
        if len(rows) <= sample + promising:
            return rows, self._scores(text, rows)
        self._steps += 1
        places = _spread(len(rows), sample, self._steps)
        scores = self._scores(text, [rows[place] for place in places])
        weights = _regress(features[places], scores, self._weights)
        expected = features @ weights + self._own[rows]
        expected[places] = float("-inf")
        more = top_k(expected, promising)
        scores = torch.cat((scores, self._scores(text, [rows[place] for place in more])))
        places = [*places, *more]
        self._weights = _regress(features[places], scores, self._weights)
        left = scores - features[places] @ self._weights
        self._own[[rows[place] for place in places]] = left - left.mean()
        together, order = torch.tensor(places).sort()
        return [rows[place] for place in together.tolist()], scores[order]

    def try_promising(self, text: str) -> tuple[list[int], Tensor]:
        """Return the most promising of the rows that fit, with their scores."""
        rows, features = self._fitting(text)
        if rows:
            expected = features @ self._weights + self._own[rows]
            rows = sorted(rows[place] for place in top_k(expected, self._part(_PROMISING)))
        return rows, self._scores(text, rows)

    def _fitting(self, text: str) -> tuple[list[int], Tensor]:
        """Return the rows that fit behind the text, and their features: (n, d)."""
        counts = self._scorer.count_continuations(text, [self._phrases[row] for row in self._rows])
        pairs = [
            (row, tokens) for row, tokens in zip(self._rows, counts, strict=True)
            if tokens <= self._budget
        ]
        rows = [row for row, _ in pairs]
        if not rows:
            return [], torch.empty(0, len(self._weights))
        lengths = torch.tensor([tokens for _, tokens in pairs])
        lengths = (lengths - lengths.min()).clamp(max=_LENGTHS - 1)
        return rows, torch.cat((self._features[rows], one_hot(lengths, _LENGTHS).float()), dim=1)

    def _part(self, divisor: int) -> int:
        return max(_FEWEST, len(self._phrases) // divisor)

    def _scores(self, text: str, rows: Sequence[int]) -> Tensor:
        if not rows:
            return torch.empty(0)
        return self._scorer.continuations(text, [self._phrases[row] for row in rows])


def _spread(count: int, sample: int, turn: int) -> list[int]:
    """Return so many places of `count`: half of them the first, half spread over the others.

    Each turn those others are others.
    """
    first = sample // 2
    step = max(1, (count - first) // (sample - first))
    shift = 7 * turn % step
    return [*range(first), *range(first + shift, count, step)][:sample]


def _regress(known: Tensor, scores: Tensor, weights: Tensor) -> Tensor:
    """Return weights near those given that tell scores apart: (k, d), (k,), (d,) -> (d,).

    That is ridge regression of what the given weights leave, whatever the scores' mean.
    """
    known = known - known.mean(dim=0)
    left = scores - known @ weights
    products = known @ known.T + _RIDGE * torch.eye(len(known))
    change: Tensor = known.T @ torch.linalg.solve(products, left - left.mean())
    return weights + change
