"""Words that never come out, and words that come out in place of others: text only."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

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
_PARTICLES = frozenset({
    "al", "da", "de", "del", "della", "der", "di", "dos", "du", "el", "la", "le", "ter", "van",
    "von",
})
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
                if tuple(one for one, *_ in words[place : place + count]) in surnames and not (
                    _goes_on(text[end:])
                ):
                    return start, end
        return None


def _goes_on(rest: str) -> bool:
    """Say whether a name goes on: "by Jan" says somebody else where "Steen" follows."""
    if re.match(r"['\u2019-]\w", rest):
        return True
    word = re.match(r"[\s.]+(\w+)", rest)
    return word is not None and (word[1][0].isupper() or word[1] in _PARTICLES)


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
