"""The modes: how phrases become a prompt, one function each."""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from clip_interrogator_ext.errors import Interrupted
from clip_interrogator_ext.phrases import SEPARATOR, fit_words
from clip_interrogator_ext.search.chain import chain
from clip_interrogator_ext.search.turbo import turbo_chain
from clip_interrogator_ext.vocabulary.tables import Table, merge

if TYPE_CHECKING:
    from clip_interrogator_ext.options import InterrogateOptions
    from clip_interrogator_ext.search.scorer import Scorer

log = logging.getLogger(__name__)

DEFAULT_MAX_FLAVORS = {"classic": 3}
_MAX_FLAVORS = 32


@dataclass(frozen=True)
class Piece:
    """A phrase of a draft, and what stands between it and the text before it."""

    phrase: str
    category: str
    glue: str = SEPARATOR


@dataclass(frozen=True)
class Draft:
    """A prompt being made: the caption or subject in front, then its phrases."""

    head: str = ""
    pieces: tuple[Piece, ...] = ()
    interrupted: bool = False

    @property
    def text(self) -> str:
        """The text so far."""
        text = self.head
        for piece in self.pieces:
            text = f"{text}{piece.glue}{piece.phrase}" if text else piece.phrase
        return text

    def without(self, index: int) -> Draft:
        """Return the draft without one piece; what followed it stands after a comma."""
        pieces = list(self.pieces)
        del pieces[index]
        if index < len(pieces):
            pieces[index] = replace(pieces[index], glue=SEPARATOR)
        return replace(self, pieces=tuple(pieces))


@dataclass(frozen=True)
class Scene:
    """One picture, looked at once: what it shows, and a scorer for texts about it."""

    caption: str
    scorer: Scorer


@dataclass(frozen=True)
class Stage:
    """Phrases that are searched together, and how many of them are wanted; None: the mode says."""

    table: Table
    count: int | None = None


@dataclass(frozen=True)
class Vocabulary:
    """The tables in use: the stages of a prompt in their order, each category's, the negative."""

    stages: tuple[Stage, ...] = ()
    tables: Mapping[str, Table] = field(default_factory=dict)
    negative: Table | None = None

    @classmethod
    def together(
        cls, tables: Mapping[str, Table], whole: Table, negative: Table | None = None
    ) -> Vocabulary:
        """Return tables that are searched as one; `whole` is all of them merged."""
        return cls((Stage(whole),), tables, negative)

    @property
    def counted(self) -> bool:
        """Whether it says itself how many phrases of some lists there are to be."""
        return any(stage.count is not None for stage in self.stages)


Mode = Callable[[Scene, Vocabulary, "InterrogateOptions"], Draft]


def max_flavors(options: InterrogateOptions) -> int:
    """Return the most phrases to add, where the options leave it to the mode."""
    if options.max_flavors is not None:
        return options.max_flavors
    return DEFAULT_MAX_FLAVORS.get(options.mode, _MAX_FLAVORS)


def token_budget(scorer: Scorer, options: InterrogateOptions) -> int:
    """Return how many tokens a prompt may have."""
    return min(options.token_budget or scorer.token_budget, scorer.token_budget)


def caption(scene: Scene, _vocabulary: Vocabulary, options: InterrogateOptions) -> Draft:
    """Return the caption alone, cut to the budget."""
    budget = token_budget(scene.scorer, options)
    fitting = fit_words(scene.caption, budget, scene.scorer.count_tokens)
    if fitting != scene.caption:
        log.warning("The caption is longer than %d tokens and is cut to: %s", budget, fitting)
    return Draft(fitting)


def fast(scene: Scene, vocabulary: Vocabulary, options: InterrogateOptions) -> Draft:
    """Return the caption and the phrases nearest to the picture, each by itself."""
    pieces: list[Piece] = []
    for stage in vocabulary.stages:
        table = _unsaid(stage.table, pieces)
        best = scene.scorer.nearest(
            table, max_flavors(options) if stage.count is None else stage.count
        )
        pieces += [Piece(table.phrases[index], table.categories[index]) for index in best]
    return _fit(caption(scene, vocabulary, options), pieces, scene.scorer, options)


def classic(scene: Scene, vocabulary: Vocabulary, options: InterrogateOptions) -> Draft:
    """Return the caption, then a medium by an artist, a site, a movement, and flavors.

    A vocabulary that says itself how many of what there are to be has its own order.
    """
    if vocabulary.counted:
        return fast(scene, vocabulary, options)
    head = caption(scene, vocabulary, options)

    def nearest(category: str, count: int) -> list[Piece]:
        table = vocabulary.tables.get(category)
        if table is None:
            return []
        best = scene.scorer.nearest(table, count)
        return [Piece(table.phrases[index], category) for index in best]

    mediums, artists = nearest("mediums", 1), nearest("artists", 1)
    named_already = bool(mediums) and scene.caption.startswith(mediums[0].phrase)
    if mediums:
        # "a painting by ...": no comma between a medium and its artist
        artists = [replace(artist, glue=" ") for artist in artists]
    pieces = [] if named_already else mediums
    pieces = [*pieces, *artists, *nearest("sites", 1), *nearest("movements", 1)]
    pieces += nearest("flavors", max_flavors(options))
    return _fit(head, pieces, scene.scorer, options)


def best(scene: Scene, vocabulary: Vocabulary, options: InterrogateOptions) -> Draft:
    """Return the best of a search over the pool, of `fast`, of `classic`, and of the caption."""
    return _best(scene, vocabulary, options, quick=False)


def turbo(scene: Scene, vocabulary: Vocabulary, options: InterrogateOptions) -> Draft:
    """Return what `best` does, by a search that tries few phrases of the pool at each step."""
    return _best(scene, vocabulary, options, quick=True)


def _best(
    scene: Scene, vocabulary: Vocabulary, options: InterrogateOptions, *, quick: bool
) -> Draft:
    head = caption(scene, vocabulary, options)
    searched = _search(scene, vocabulary, options, head.head, quick=quick)
    if searched.interrupted:
        return searched
    drafts = [fast(scene, vocabulary, options), searched]
    if not vocabulary.counted:
        drafts[:0] = [head, classic(scene, vocabulary, options)]
    drafts = [draft for draft in drafts if draft.text]
    if not drafts:
        return head
    try:
        scores = scene.scorer.texts([draft.text for draft in drafts])
    except Interrupted:
        return replace(searched, interrupted=True)
    return drafts[int(scores.argmax())]


def style(scene: Scene, vocabulary: Vocabulary, options: InterrogateOptions) -> Draft:
    """Return how the picture looks, by the search of `best`, after the user's subject if any."""
    budget = token_budget(scene.scorer, options)
    subject = " ".join((options.subject or "").split())
    subject = fit_words(subject, budget, scene.scorer.count_tokens)
    return _search(scene, vocabulary, options, subject)


def negative(scene: Scene, vocabulary: Vocabulary, options: InterrogateOptions) -> Draft:
    """Return the phrases farthest from the picture, from the flavors and the negative list.

    The sign is turned once, at the scorer: from there on far is near, and the search is that of
    `best`.
    """
    away = scene.scorer.negated()
    flavors = vocabulary.tables.get("flavors")
    candidates = []
    if flavors is not None:
        candidates.append(flavors.select(away.nearest(flavors, options.pool_size)))
    if vocabulary.negative is not None:
        candidates.append(vocabulary.negative)
    if not candidates:
        return Draft()
    return _grow(away, merge(candidates), options, "", "Negative")


MODES: dict[str, Mode] = {
    "best": best,
    "turbo": turbo,
    "fast": fast,
    "classic": classic,
    "negative": negative,
    "caption": caption,
    "style": style,
}

def _search(
    scene: Scene, vocabulary: Vocabulary, options: InterrogateOptions, head: str, *,
    quick: bool = False,
) -> Draft:
    draft = Draft(head)
    for stage in vocabulary.stages:
        table = _unsaid(stage.table, draft.pieces)
        pool = table.select(scene.scorer.nearest(table, options.pool_size))
        found = _grow(
            scene.scorer, pool, options, draft.text, "Searching", quick=quick, count=stage.count
        )
        draft = replace(
            draft, pieces=draft.pieces + found.pieces, interrupted=found.interrupted
        )
        if draft.interrupted:
            break
    return draft


def _unsaid(table: Table, pieces: Sequence[Piece]) -> Table:
    """Return a table without the phrases that earlier stages have said."""
    said = {piece.phrase.casefold() for piece in pieces}
    return table.where(lambda phrase: phrase.casefold() not in said) if said else table


def _grow(
    scorer: Scorer, pool: Table, options: InterrogateOptions, head: str, label: str, *,
    quick: bool = False, count: int | None = None,
) -> Draft:
    """Return the draft that a search makes of the head; `count` is exact."""
    find = partial(turbo_chain, pool=pool) if quick else partial(chain, pool=pool.phrases)
    found = find(
        scorer, head,
        min_count=options.min_flavors if count is None else count,
        max_count=max_flavors(options) if count is None else count,
        budget=token_budget(scorer, options),
        label=label,
        keep_all=count is not None,
    )
    category_of = dict(zip(pool.phrases, pool.categories, strict=True))
    pieces = tuple(Piece(phrase, category_of[phrase]) for phrase in found.phrases)
    return Draft(head, pieces, found.interrupted)


def _fit(
    head: Draft, pieces: Sequence[Piece], scorer: Scorer, options: InterrogateOptions
) -> Draft:
    """Add pieces as long as the text stays within the budget.

    Pieces without a comma between them stay together.
    """

    def first(end: int) -> Draft:
        return replace(head, pieces=tuple(pieces[:end]))

    def tokens(end: int) -> int:
        return scorer.count_tokens([first(end).text])[0]

    kept = bisect_right(range(1, len(pieces) + 1), token_budget(scorer, options), key=tokens)
    while 0 < kept < len(pieces) and pieces[kept].glue != SEPARATOR:
        kept -= 1
    return first(kept)
