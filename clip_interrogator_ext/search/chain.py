"""Grow a prompt phrase by phrase, each time by the one that brings it nearest to the picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clip_interrogator_ext.errors import Interrupted
from clip_interrogator_ext.phrases import join

if TYPE_CHECKING:
    from clip_interrogator_ext.search.scorer import Scorer


@dataclass(frozen=True)
class Chain:
    """The phrases found, in their order, and whether the search was stopped."""

    phrases: tuple[str, ...]
    interrupted: bool = False


def chain(
    scorer: Scorer,
    head: str,
    pool: Sequence[str],
    *,
    min_count: int,
    max_count: int,
    budget: int,
    label: str,
    keep_all: bool = False,
) -> Chain:
    """Add phrases of the pool to `head` greedily; return those of the best text met on the way.

    This is the search of clip-interrogator 0.6.0: the first `min_count` phrases are added even
    where they lower the score; after them the first that does ends the search. Phrases that would
    put the text over the budget of tokens are dropped. Of equal phrases the first in the pool is
    chosen. An interruption ends the search and keeps what was found. With `keep_all` all phrases
    that were added are returned.
    """
    remaining = list(dict.fromkeys(pool))
    current: list[str] = []
    best: tuple[str, ...] = ()
    try:
        current_score = best_score = float(scorer.texts([head])[0]) if head else float("-inf")
        for index in range(max_count):
            text = join([head, *current])
            scorer.tick(label, index, max_count)
            remaining = _fitting(scorer, text, remaining, budget)
            if not remaining:
                break
            scores = scorer.continuations(text, remaining)
            choice = int(scores.argmax())
            score = float(scores[choice])
            if score <= current_score and index >= min_count:
                break
            current.append(remaining.pop(choice))
            current_score = score
            if score > best_score:
                best, best_score = tuple(current), score
        scorer.tick(label, max_count, max_count)
    except Interrupted:
        return Chain(tuple(current) if keep_all else best, interrupted=True)
    return Chain(tuple(current) if keep_all else best)


def _fitting(scorer: Scorer, text: str, phrases: list[str], budget: int) -> list[str]:
    counts = scorer.count_continuations(text, phrases)
    return [phrase for phrase, count in zip(phrases, counts, strict=True) if count <= budget]
