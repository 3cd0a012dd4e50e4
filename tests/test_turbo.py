"""The mode turbo: answers by hand, and how near it comes to `best` with how few texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from clip_interrogator_ext import InterrogateOptions, ModelOptions, Service, StandaloneHost
from clip_interrogator_ext.errors import Interrupted
from clip_interrogator_ext.images import open_image
from clip_interrogator_ext.models.base import no_tick
from clip_interrogator_ext.search.modes import MODES, Scene, Vocabulary
from clip_interrogator_ext.search.scorer import Scorer
from clip_interrogator_ext.search.turbo import _exchange, _Grower, _regress, _spread, turbo_chain
from clip_interrogator_ext.vocabulary.tables import Table
from tests.test_demo import PICTURES
from tests.word_encoder import WordEncoder

if TYPE_CHECKING:
    from clip_interrogator_ext.models import open_clip

WORDS = ["cat", "red", "beach", "oil", "noir"]


@pytest.fixture
def encoder() -> WordEncoder:
    return WordEncoder(WORDS)


def table(encoder: WordEncoder, *phrases: str) -> Table:
    return Table(phrases, ("flavors",) * len(phrases), (encoder.encode_texts(phrases),))


def grow(encoder: WordEncoder, pool: Table, head: str = "cat", tick=no_tick, **changes: int):
    scorer = Scorer((encoder,), (encoder.image(cat=2, red=1.8, beach=1.2),), tick)
    settings = {"min_count": 2, "max_count": 8, "budget": 75, **changes}
    return turbo_chain(scorer, head, pool, label="", **settings)


def test_the_nearest_phrases_of_a_large_pool_are_found(encoder):
    """And nothing that does not belong to the picture, though only a part is tried."""
    blanks = [f"x{number}" for number in range(600)]
    assert grow(encoder, table(encoder, "red", "beach", "oil", *blanks)).phrases == ("red", "beach")


def test_few_phrases_of_a_large_pool_are_tried(encoder):
    """Each step tries a small part of the pool, and so does the whole search."""
    pool = table(encoder, "red", "beach", *(f"x{number}" for number in range(998)))
    encoder.encoded.clear()
    grow(encoder, pool)
    assert len(encoder.encoded) < len(pool)


def test_no_phrase_is_better_than_one_that_hurts(encoder):
    """The text is never farther from the picture than the caption alone."""
    assert grow(encoder, table(encoder, "oil", "noir")).phrases == ()


@pytest.mark.parametrize("head", ["cat", ""])
def test_an_empty_pool_gives_nothing(encoder, head):
    """Also one from which nothing fits or nothing may be added."""
    assert grow(encoder, table(encoder), head).phrases == ()
    assert grow(encoder, Table((), (), ()), head).phrases == ()
    assert grow(encoder, table(encoder, "red"), "cat", budget=2).phrases == ()
    assert grow(encoder, table(encoder, "red"), head, max_count=0).phrases == ()


def test_phrases_over_the_budget_are_dropped_and_shorter_ones_still_tried(encoder):
    """A phrase that does not fit is passed over for one that does."""
    assert grow(encoder, table(encoder, "red red beach", "red"), budget=3).phrases == ("red",)


def test_of_equal_phrases_the_first_in_the_pool_wins(encoder):
    """Repeats are said once."""
    assert grow(encoder, table(encoder, "b red", "a red"), max_count=1).phrases == ("b red",)
    assert grow(encoder, table(encoder, "red", "red"), min_count=4).phrases == ("red",)


def test_a_stop_keeps_what_was_found(encoder):
    """Stopped after the first phrase, that one is returned."""

    def tick(_label: str, done: int, _total: int) -> None:
        if len(encoder.encoded) > 6:
            raise Interrupted("stop")

    pool = table(encoder, "red", "beach", "oil")
    found = grow(encoder, pool, tick=tick)
    assert found.interrupted
    assert found.phrases == ("red",)


class Counted:
    """An encoder that counts the texts it is given."""

    def __init__(self, encoder: open_clip.OpenClip) -> None:
        self.encoder, self.texts = encoder, 0

    def __getattr__(self, name: str):
        return getattr(self.encoder, name)

    def encode_texts(self, texts, *others):
        self.texts += len(texts)
        return self.encoder.encode_texts(texts, *others)

    def encode_continuations(self, prefix, phrases, *others):
        self.texts += len(phrases)
        return self.encoder.encode_continuations(prefix, phrases, *others)


@pytest.fixture(scope="module")
def answers(tmp_path_factory) -> dict[str, list[tuple[str, float, int]]]:
    """Text, gain over the caption, and texts encoded, of both modes for six bundled pictures."""
    service = Service(StandaloneHost("cpu"), cache_dir=tmp_path_factory.mktemp("cache"))
    models = ModelOptions(backbones=("demo",), captioner="demo")
    options = InterrogateOptions(mode="turbo")
    service.interrogate(open_image(PICTURES[0]), InterrogateOptions(mode="fast"), models)
    engine = service._interrogator
    vocabulary: Vocabulary = engine._vocabulary(options, no_tick)
    found: dict[str, list[tuple[str, float, int]]] = {"best": [], "turbo": [], "again": []}
    for path in PICTURES[:6]:
        scene = engine.look(open_image(path), options)
        for name in found:
            counted = Counted(engine.encoders[0])
            scorer = Scorer((counted,), scene.scorer.images)
            mode = "turbo" if name == "again" else name
            draft = MODES[mode](Scene(scene.caption, scorer), vocabulary, options)
            texts = counted.texts
            before, after = scorer.texts([scene.caption, draft.text]).tolist()
            found[name].append((draft.text, after - before, texts))
    return found


def test_nearly_all_that_best_gains_is_reached(answers):
    """On the mean of six pictures; a search that finds half of the phrases falls far below."""
    gained = {name: sum(gain for _, gain, _ in found) for name, found in answers.items()}
    assert gained["turbo"] >= 0.9 * gained["best"]
    assert all(gain >= 0 for _, gain, _ in answers["turbo"])


def test_at_most_an_eighth_of_the_texts_is_encoded(answers):
    """For each picture, with everything that either mode encodes."""
    for (_, _, mine), (_, _, theirs) in zip(answers["turbo"], answers["best"], strict=True):
        assert mine <= theirs / 8


def test_the_same_picture_gives_the_same_prompt(answers):
    """Nothing is left to chance."""
    assert answers["turbo"] == answers["again"]


def test_the_phrase_that_is_missed_least_gives_way_to_a_better_one(encoder):
    """Or to none, where none is better."""
    scorer = Scorer((encoder,), (encoder.image(cat=2, red=1.8, beach=1.2),))

    def exchanged(*pool: str) -> tuple[tuple[str, ...], float]:
        return _exchange(scorer, _Grower(scorer, table(encoder, *pool), 75), "cat", ("oil", "red"))

    for pool, phrases in ((("noir", "beach"), ("red", "beach")), (("noir",), ("red",))):
        score = float(scorer.texts([", ".join(("cat", *phrases))])[0])
        assert exchanged(*pool) == (phrases, pytest.approx(score))


def test_regression_needs_no_more_phrases_than_dimensions():
    """What lies on a plane is told from a few points of it, whatever the scores' mean."""
    torch.manual_seed(0)
    features = torch.randn(40, 3) * 30
    scores = features @ torch.tensor([0.2, -0.1, 0.05]) + 1
    weights = _regress(features[:8], scores[:8], torch.zeros(3))
    assert torch.allclose(weights, torch.tensor([0.2, -0.1, 0.05]), atol=1e-3)


def test_regression_keeps_what_was_known_where_nothing_new_is_said():
    """One score tells no direction apart."""
    known = torch.tensor([0.2, -0.1, 0.05])
    assert torch.equal(_regress(torch.randn(1, 3), torch.tensor([0.7]), known), known)


def test_a_sample_has_other_places_each_time():
    """No place twice, the first always, all of the pool sooner or later."""
    seen = set()
    for turn in range(60):
        places = _spread(200, 10, turn)
        assert len(set(places)) == 10
        assert set(range(5)) <= set(places) <= set(range(200))
        seen.update(places)
    assert len(seen) == 200
