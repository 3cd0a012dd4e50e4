"""Join, de-duplicate, fit, escape, take out and put back phrases: text only."""

from __future__ import annotations

import re
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


def escape_brackets(text: str) -> str:
    r"""Write brackets as the WebUIs' prompt syntax needs them to be plain text: `\(`."""
    return re.sub(r"[\\()\[\]]", r"\\\g<0>", text)


def unescape_brackets(text: str) -> str:
    r"""Undo `escape_brackets`: `\(` is a plain bracket again."""
    return re.sub(r"\\([\\()\[\]])", r"\1", text)


def take_out(text: str, phrase: str) -> str:
    """Return a prompt without a phrase and without the comma that it leaves; else unchanged.

    A phrase between commas is meant before one inside other words, and the last before others.
    """
    items = [item for item in re.finditer(r"[^,]+", text) if item.group().strip() == phrase]
    if items:
        start, end = items[-1].span()
    else:
        inside = list(re.finditer(rf"(?<!\w){re.escape(phrase)}(?!\w)", text)) if phrase else []
        if not inside:
            return text
        start, end = inside[-1].span()
    before, after = text[:start].rstrip(" "), text[end:].lstrip(" ")
    if before.endswith(",") and (not after or after.startswith(",")):
        before = before[:-1]
    elif not before:
        after = after.lstrip(", ")
    glue = " " if before and after and not after.startswith(",") else ""
    return before + glue + after


def put_back(text: str, phrases: Sequence[str], place: int) -> str:
    """Return a prompt with one of its phrases again, in its place among those that are there."""
    items = {item.group().strip(): item for item in re.finditer(r"[^,]+", text)}
    phrase = phrases[place]
    for other in reversed(phrases[:place]):
        if other in items:
            end = items[other].end()
            return text[:end].rstrip(" ") + SEPARATOR + phrase + text[end:]
    for other in phrases[place + 1 :]:
        if other in items:
            start = items[other].start()
            before = text[:start].rstrip(" ")
            return f"{before} {phrase}{SEPARATOR}{text[start:].lstrip(' ')}".lstrip(" ")
    return join([text.rstrip(", "), phrase])


def split_parameters(parameters: str) -> tuple[str, str]:
    """Return the prompt and the negative prompt of a picture's generation data."""
    lines = re.split(r"\r?\n", parameters.strip())  # as the WebUI does, and at no other sign
    if lines and re.match(r"\s*Steps: \d", lines[-1]):
        del lines[-1]
    mark = "Negative prompt:"
    start = next((at for at, line in enumerate(lines) if line.startswith(mark)), len(lines))
    negative = "\n".join(lines[start:]).removeprefix(mark)
    return "\n".join(lines[:start]).strip(), negative.strip()
