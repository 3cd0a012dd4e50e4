"""Words that never come out, and words that come out in place of others: text only."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from clip_interrogator_ext.errors import BadOption
from clip_interrogator_ext.phrases import take_out

_MAKERS = (
    r"(?:created|designed|directed|drawn|illustrated|inspired|made|painted|photographed|shot|taken)"
)
# What names whoever made a picture, at the end of what stands before the name.
_CREDIT = re.compile(
    rf"(?:\s*,)?\s*(?<!\w)(?:(?:{_MAKERS}\s+)?by|(?:in\s+(?:the|a)\s+)?(?:style|manner)\s+of)\s*$",
    re.IGNORECASE,
)
_WORK = re.compile(
    rf"(?<!\w)(?:\w*art|artwork|cartoon|comics?|cover|design|drawing|illustration|mural|"
    rf"\w*painting|\w*photo|photograph|picture|portrait|poster|print|render(?:ing)?|sculpture|"
    rf"sketch|statue|style|manner|watercolou?r|work|{_MAKERS})(?!\w)",
    re.IGNORECASE,
)
_LONGEST_SURNAME = 3  # words
# What is left hanging before a comma or the end when the words behind it are taken out.
_HANGING = re.compile(
    r"(?:\s+(?:an?|and|at|by|for|from|in|of|on|the|to|with))+(?=\s*(?:[,.;:]|$))", re.IGNORECASE
)


@dataclass(frozen=True)
class WordRules:
    """What is done to phrases and captions before they can come out.

    The words or phrases of `leave_out` go, in any case of letters; then each old words of
    `replacements` become the new, as they are written. `names` are people's who are not to be
    named: whole, or by the surname alone where a text says who made it.
    """

    leave_out: tuple[str, ...] = ()
    replacements: tuple[tuple[str, str], ...] = ()
    names: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.leave_out or self.replacements or self.names)

    def phrase(self, phrase: str) -> str:
        """Return a phrase in these words; empty where it holds what is left out."""
        if self._left_out is not None and self._left_out.search(phrase):
            return ""
        return "" if self.names and self._named(phrase) else self._replaced(phrase)

    def text(self, text: str) -> str:
        """Return a caption, or another text of whole sentences, in these words."""
        while self.names and (found := self._named(text)):
            start, end = found
            before, after = _CREDIT.sub("", text[:start]).rstrip(), text[end:]
            text = f"{before} {after.lstrip()}" if after[:1] not in ",.;:" else before + after
        while self._left_out is not None and (words := self._left_out.search(text)):
            shorter = take_out(text, words.group())
            if len(shorter) >= len(text):
                break
            text = _HANGING.sub("", shorter)
        return " ".join(self._replaced(text).strip(" ,").split())

    @functools.cached_property
    def _left_out(self) -> re.Pattern[str] | None:
        if not self.leave_out:
            return None
        # The longest first: "red" alone would leave "-haired" of "red-haired".
        words = sorted((one.strip() for one in self.leave_out), key=len, reverse=True)
        return _whole(words, re.IGNORECASE)

    def _replaced(self, text: str) -> str:
        for old, new in self.replacements:
            plain = new.replace("\\", r"\\")  # a replacement's backslashes mean themselves
            text = _whole([old.strip()]).sub(plain, text)
        return " ".join(text.split()) if self.replacements else text

    def _named(self, text: str) -> tuple[int, int] | None:
        """Return where the first of the names stands in a text."""
        whole, surnames = _index(self.names)
        words = [(_fold(word.group()), *word.span()) for word in re.finditer(r"\w+", text)]
        for place, (word, start, _) in enumerate(words):
            for name in whole.get(word, ()):
                end = place + len(name)
                if tuple(one for one, *_ in words[place:end]) == name:
                    return start, words[end - 1][2]
            credit = _CREDIT.search(text[:start])
            if credit is None or (text[: credit.start()].strip(" ,") and not _WORK.search(
                text[:start]
            )):
                continue
            for count in range(min(_LONGEST_SURNAME, len(words) - place), 0, -1):
                end = words[place + count - 1][2]
                # "by Jan" says somebody else where it goes on "Steen".
                if tuple(one for one, *_ in words[place : place + count]) in surnames and not (
                    re.match(r"[\s.'-]+[A-Z]", text[end:])
                ):
                    return start, end
        return None


def with_names(rules: WordRules, names: Iterable[str]) -> WordRules:
    """Return rules by which these people are not named either."""
    return replace(rules, names=rules.names | frozenset(names))


def read_leave_out(value: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the words to leave out of a list, or of a text with commas or lines between them."""
    parts = re.split(r"[,\n]", value) if isinstance(value, str) else value or ()
    words = tuple(" ".join(_text("leave_out", part).split()) for part in parts)
    return tuple(one for one in words if one) if isinstance(value, str) else words


def read_replacements(
    value: str | Mapping[str, str] | Sequence[Sequence[str]] | None
) -> tuple[tuple[str, str], ...]:
    """Return pairs of old words and new, of a mapping, of pairs, or of a text with OLD=NEW in it.

    Raises BadOption.
    """
    if isinstance(value, str):
        return tuple(_pair(part) for part in re.split(r"[,\n]", value) if part.strip())
    pairs = list(value.items() if isinstance(value, Mapping) else value or ())
    if not all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in pairs):
        raise BadOption("replacements", "Write each replacement as a pair: the old words, the new.")
    return tuple((_text("replacements", old), _text("replacements", new)) for old, new in pairs)


def check_rules(leave_out: Any, replacements: Any) -> None:
    """Raise BadOption where words to leave out or to replace are no words."""
    read_leave_out(leave_out)
    read_replacements(replacements)
    if not all(any(map(str.isalnum, words)) for words in leave_out):
        raise BadOption("leave_out", "Say which words are to be left out.")
    if not all(old.strip() for old, _ in replacements):
        raise BadOption("replacements", "Say which words are to be replaced.")


def _pair(text: str) -> tuple[str, str]:
    old, equals, new = (part.strip() for part in text.partition("="))
    if not equals or not old:
        raise BadOption(
            "replacements", f'Write each replacement as OLD=NEW, not "{text.strip()}".'
        )
    return old, new


def _text(field: str, value: Any) -> str:
    if not isinstance(value, str):
        raise BadOption(field, f"The {field} must be texts, not {value!r}.")
    return value


def _whole(words: Sequence[str], flags: int = 0) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, words))})(?!\w)", flags)


def _fold(text: str) -> str:
    """Return a text without case and accents."""
    apart = unicodedata.normalize("NFKD", text.casefold())
    return "".join(sign for sign in apart if not unicodedata.combining(sign))


@functools.lru_cache(maxsize=4)
def _index(
    names: frozenset[str]
) -> tuple[dict[str, tuple[tuple[str, ...], ...]], frozenset[tuple[str, ...]]]:
    """Return names of several words by their first, and all that may stand for a person."""
    whole: dict[str, list[tuple[str, ...]]] = {}
    surnames = set()
    for name in names:
        words = tuple(re.findall(r"\w+", _fold(name)))
        if len(words) > 1:
            whole.setdefault(words[0], []).append(words)
        surnames.update(words[start:] for start in range(len(words)))
    longest_first = {
        first: tuple(sorted(found, key=len, reverse=True)) for first, found in whole.items()
    }
    return longest_first, frozenset(one for one in surnames if one and len(one[0]) > 1)
