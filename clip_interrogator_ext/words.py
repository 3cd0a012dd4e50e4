"""Words that never come out, and words that come out in place of others: text only."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_LONGEST = 4_000  # characters of a text: no prompt has so many
_LONGEST_CREDIT = 60  # characters
_LONGEST_SURNAME = 3  # words
_MAKERS = (
    r"(?:created|designed|directed|drawn|illustrated|inspired|made|painted|photographed|shot|taken)"
)
_WORKS = (
    r"(?:\w*art|artwork|cartoon|comics?|cover|design|drawing|illustration|mural|\w*painting|\w*photo|"
    r"photograph|picture|portrait|poster|print|render(?:ing)?|sculpture|sketch|statue|style|"
    r"watercolou?r|work)"
)
# What names whoever made a picture, at the end of what stands before the name.
_CREDIT = re.compile(
    rf"(?<!\w)(?:(?:{_MAKERS} )?by|(?:in (?:the|a) )?(?:style|manner) of) ?$", re.IGNORECASE
)
_WORK_BEFORE = re.compile(rf"(?<!\w)(?:{_WORKS}|{_MAKERS})(?!\w)", re.IGNORECASE)
_WORK_BEHIND = re.compile(rf"(?:['\u2019]s(?!\w)| {_WORKS}(?!\w))", re.IGNORECASE)
_ANOTHER = re.compile(r"(?: and | & |, (?:and )?| \+ |/)", re.IGNORECASE)
_PARTICLES = frozenset({
    "al", "da", "de", "del", "della", "der", "di", "dos", "du", "el", "la", "le", "ter", "van",
    "von",
})
_SUFFIXES = frozenset({
    ("the", "elder"), ("the", "younger"), ("jr",), ("sr",), ("ii",), ("iii",), ("iv",),
})
# What is left hanging where the words behind it, or before it, are taken out.
_HANGING = r"an?|and|at|by|for|from|in|of|on|the|to|with"
_HANGING_END = re.compile(rf"(?:(?:^| )(?:{_HANGING}))+$", re.IGNORECASE)
_HANGING_START = re.compile(r"^(?:(?:and|by|for|of|with) )+", re.IGNORECASE)

Span = tuple[int, int]


@dataclass(frozen=True)
class WordRules:
    """What is done to phrases and captions before they can come out.

    The words or phrases of `leave_out` go, in any case of letters; then each old words of
    `replacements` become the new, as they are written. `lines` go too, wherever they stand as
    whole words. `names` are people's who are not to be named: by their whole name anywhere, by
    the surname where a text says who made it, unless that is an ordinary word.
    """

    leave_out: tuple[str, ...] = ()
    replacements: tuple[tuple[str, str], ...] = ()
    lines: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    ordinary: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.leave_out or self.replacements or self.lines or self.names)

    def phrase(self, phrase: str) -> str:
        """Return a phrase in these words; empty where it holds what is left out."""
        if self._found(phrase) is not None or self._is_name(phrase):
            return ""
        worded = self._replaced(phrase)
        return worded if worded == phrase or self._found(worded) is None else ""

    def text(self, text: str) -> str:
        """Return a caption, or another text of whole sentences, in these words."""
        text = " ".join(text[:_LONGEST].split())
        return self._without(self._replaced(self._without(text)))

    def _without(self, text: str) -> str:
        while (found := self._found(text)) is not None:
            text = _cut(text, *found)
        return text

    def _replaced(self, text: str) -> str:
        for old, new in self._patterns:
            # Replacements of replacements may grow without end.
            text = old.sub(new, text)[:_LONGEST]
        return " ".join(text.split()) if self.replacements else text

    @functools.cached_property
    def _patterns(self) -> tuple[tuple[re.Pattern[str], str], ...]:
        return tuple(
            # A replacement's backslashes mean themselves.
            (_whole([old.strip()]), new.replace("\\", r"\\")) for old, new in self.replacements
        )

    @functools.cached_property
    def _left_out(self) -> re.Pattern[str] | None:
        # The longest first: "red" alone would leave "-haired" of "red-haired".
        words = sorted((one.strip() for one in self.leave_out), key=len, reverse=True)
        return _whole(words, re.IGNORECASE) if words else None

    def _found(self, text: str) -> Span | None:
        """Return where the first words stand that are to go."""
        found = None if self._left_out is None else self._left_out.search(text)
        if found is not None:
            return found.span()
        if not (self.lines or self.names):
            return None
        words = [(_fold(word.group()), *word.span()) for word in re.finditer(r"\w+", text)]
        for place, (_, start, _) in enumerate(words):
            end = _end_of(words, place, _index(self.lines))
            if end is not None:
                return start, end
            if self.names:
                span = self._named(text, words, place)
                if span is not None:
                    return span
        return None

    def _named(self, text: str, words: Sequence[tuple[str, int, int]], place: int) -> Span | None:
        """Return where a name stands that begins at a word, with what credits it and is credited.

        Several names behind one credit are one.
        """
        start = words[place][1]
        end = self._end_of_name(words, place)
        surname = self._end_of_surname(text, words, place)
        if end is None and surname is None:
            return None
        credit = _CREDIT.search(text, max(0, start - _LONGEST_CREDIT), start)
        if end is None and surname is not None:
            says_so = credit is not None and (
                not text[: credit.start()].strip(" ,") or _WORK_BEFORE.search(text[:start])
            )
            behind = _WORK_BEHIND.match(text, surname)
            if not says_so and behind is None:
                return None
            end = surname
        if credit is not None and end is not None:
            while (glue := _ANOTHER.match(text, end)) is not None:
                later = next((at for at, one in enumerate(words) if one[1] == glue.end()), None)
                if later is None:
                    break
                more = self._end_of_name(words, later) or self._end_of_surname(text, words, later)
                if more is None:
                    break
                end = more
        end = end or start
        owns = re.compile(r"['\u2019]s(?!\w)").match(text, end)
        return credit.start() if credit is not None else start, owns.end() if owns else end

    def _end_of_name(self, words: Sequence[tuple[str, int, int]], place: int) -> int | None:
        return _end_of(words, place, _index(_whole_names(self.names, self.ordinary)))

    def _end_of_surname(
        self, text: str, words: Sequence[tuple[str, int, int]], place: int
    ) -> int | None:
        surnames = _surnames(self.names, self.ordinary)
        for count in range(min(_LONGEST_SURNAME, len(words) - place), 0, -1):
            end = words[place + count - 1][2]
            if tuple(one for one, *_ in words[place : place + count]) in surnames:
                return None if _goes_on(text[end:]) else end
        return None

    def _is_name(self, phrase: str) -> bool:
        words = tuple(re.findall(r"\w+", _fold(phrase)))
        return bool(self.names) and len(words) == 1 and words in _surnames(
            self.names, self.ordinary
        )


def _cut(text: str, start: int, end: int) -> str:
    """Return a text without a part of it, and without what would hang in the air."""
    before, after = text[:start].rstrip(" "), text[end:].lstrip(" ")
    if not after or after[0] in ",.;:":
        before = _HANGING_END.sub("", before).rstrip(" ")
    if not before or before[-1] == ",":
        after = _HANGING_START.sub("", after)
        if not after or after[0] == ",":
            before = before.removesuffix(",")
    if not before:
        return after.lstrip(" ,")
    return before + after if not after or after[0] in ",.;:" else f"{before} {after}"


def _whole(words: Sequence[str], flags: int = 0) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, words))})(?!\w)", flags)


def _goes_on(rest: str) -> bool:
    """Say whether a name goes on: "by Jan" says somebody else where "Steen" follows."""
    if re.match(r"['\u2019-](?!s(?!\w))\w", rest):
        return True
    word = re.match(r"[ .]+(\w+)", rest)
    return word is not None and (word[1][0].isupper() or word[1] in _PARTICLES)


def _fold(text: str) -> str:
    """Return a text without case and accents."""
    apart = unicodedata.normalize("NFKD", text.casefold())
    return "".join(sign for sign in apart if not unicodedata.combining(sign))


def _end_of(
    words: Sequence[tuple[str, int, int]], place: int,
    index: dict[str, tuple[tuple[str, ...], ...]],
) -> int | None:
    """Return where the longest of the indexed texts ends that begins at a word."""
    for wanted in index.get(words[place][0], ()):
        if tuple(one for one, *_ in words[place : place + len(wanted)]) == wanted:
            return words[place + len(wanted) - 1][2]
    return None


def _split(texts: frozenset[str]) -> Iterator[tuple[str, ...]]:
    return (tuple(re.findall(r"\w+", _fold(text))) for text in texts)


def _suffix(words: tuple[str, ...]) -> int:
    """Return how many words end a name that many bear: "the Elder", "Jr."."""
    if words[-2:] in _SUFFIXES:
        return 2
    return 1 if words[-1:] in _SUFFIXES else 0


@functools.lru_cache(maxsize=8)
def _index(texts: frozenset[str]) -> dict[str, tuple[tuple[str, ...], ...]]:
    """Return texts as words, by the first of them, the longest first."""
    by_first: dict[str, list[tuple[str, ...]]] = {}
    for words in _split(texts):
        if words:
            by_first.setdefault(words[0], []).append(words)
    return {
        first: tuple(sorted(found, key=len, reverse=True)) for first, found in by_first.items()
    }


@functools.lru_cache(maxsize=4)
def _whole_names(names: frozenset[str], ordinary: frozenset[str]) -> frozenset[str]:
    """Return names of several words, and surnames of several such as "van Gogh"."""
    found = set()
    for words in _split(names):
        tails = {words[start:] for start in range(len(words)) if words[start] in _PARTICLES}
        short = words[: len(words) - _suffix(words)]
        found |= {" ".join(one) for one in {words, short, *tails} if len(one) > 1 and not (
            ordinary.issuperset(set(one) - _PARTICLES)
        )}
    return frozenset(found)


@functools.lru_cache(maxsize=4)
def _surnames(names: frozenset[str], ordinary: frozenset[str]) -> frozenset[tuple[str, ...]]:
    """Return the ends of names that may stand for a person where a text speaks of one."""
    ends = {
        words[start:end] for words in _split(names)
        for short in [len(words) - _suffix(words)]
        for start in range(short) for end in {short, len(words)}
    }
    return frozenset(
        one for one in ends if one and len(one[0]) > 1 and not ordinary.issuperset(one)
    )
