"""Join, split, de-duplicate and fit phrases: text only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

SEPARATOR = ", "
_LONGEST_TOKEN = 128  # characters; no tokenizer has a longer one
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
    text = text[: budget * _LONGEST_TOKEN]
    if count_tokens([text])[0] <= budget:
        return text
    words, glue = text.split(), " "
    if count_tokens([words[0]])[0] > budget:
        words, glue = list(words[0]), ""
    low, high = 0, len(words) - 1  # so many words fit, at least and at most
    while low < high:
        middle = (low + high + 1) // 2
        if count_tokens([glue.join(words[:middle])])[0] <= budget:
            low = middle
        else:
            high = middle - 1
    return glue.join(words[:low]).rstrip(" ,;:")
