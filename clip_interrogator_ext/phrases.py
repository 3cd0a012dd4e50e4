"""Join, split, de-duplicate and fit phrases: text only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

SEPARATOR = ", "
CountTokens = Callable[[Sequence[str]], list[int]]


def join(phrases: Iterable[str]) -> str:
    """Join phrases into one text; empty ones leave no separator behind."""
    return SEPARATOR.join(phrase for phrase in phrases if phrase)


def unique(phrases: Iterable[str]) -> list[str]:
    """Drop blanks and repeats; the first of phrases that differ only in case stays."""
    kept: dict[str, str] = {}
    for phrase in phrases:
        stripped = phrase.strip()
        if stripped:
            kept.setdefault(stripped.casefold(), stripped)
    return list(kept.values())


def fit_words(text: str, budget: int, count_tokens: CountTokens) -> str:
    """Cut a text at the last word that keeps it within `budget` tokens.

    A first word that is too long by itself is cut by characters.
    """
    if count_tokens([text])[0] <= budget:
        return text
    words = text.split()
    pieces = [" ".join(words[:count]) for count in range(len(words))]
    if len(words) < 2 or count_tokens([pieces[1]])[0] > budget:
        pieces = [text[:count] for count in range(len(text))]
    low, high = 0, len(pieces) - 1
    while low < high:
        middle = (low + high + 1) // 2
        if count_tokens([pieces[middle]])[0] <= budget:
            low = middle
        else:
            high = middle - 1
    return pieces[low].rstrip(" ,;:")
