"""Ranking, the chain and the modes, on vectors that can be worked out by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clip_interrogator_ext.errors import Interrupted
from clip_interrogator_ext.options import InterrogateOptions
from clip_interrogator_ext.search import ranking
from clip_interrogator_ext.search.chain import chain
from clip_interrogator_ext.search.modes import MODES, Scene, Vocabulary
from clip_interrogator_ext.search.scorer import Scorer
from clip_interrogator_ext.vocabulary.tables import Table, merge
from tests.word_encoder import WordEncoder

WORDS = ["cat", "red", "beach", "oil", "noir", "blurry", "sunny", "vast"]


@pytest.fixture
def encoder() -> WordEncoder:
    return WordEncoder(WORDS)


def scorer_for(encoder: WordEncoder, **shown: float) -> Scorer:
    return Scorer((encoder,), (encoder.image(**shown),))


def table(encoder: WordEncoder, category: str, *phrases: str) -> Table:
    return Table(phrases, (category,) * len(phrases), (encoder.encode_texts(phrases),))


def grow(scorer: Scorer, head: str, pool: list[str], **changes: int):
    settings = {"min_count": 0, "max_count": 8, "budget": 75, **changes}
    return chain(scorer, head, pool, label="", **settings)


@given(
    st.lists(st.integers(-3, 3), max_size=60), st.integers(0, 70), st.integers(1, 7)
)
def test_top_k_is_exact_and_ties_keep_their_order(values, k, chunk):
    """The k highest come first, equal ones in the order given, whatever the chunk size."""
    rows = torch.tensor(values, dtype=torch.float32).reshape(-1, 1)
    before = ranking._CHUNK_ROWS
    ranking._CHUNK_ROWS = chunk
    try:
        scores = ranking.similarities(rows, torch.ones(1))
    finally:
        ranking._CHUNK_ROWS = before
    expected = sorted(range(len(values)), key=lambda i: (-values[i], i))[:k]
    assert ranking.top_k(scores, k) == expected


@pytest.fixture
def many_rows(monkeypatch):
    """Tables of ten rows count as many."""
    monkeypatch.setattr(ranking, "_MANY", 10)
    if not ranking._has_half_products():
        pytest.skip("this torch has no quick products in half precision")


@given(
    st.integers(0, 2**32 - 1), st.sampled_from([1, 2]), st.integers(0, 450), st.booleans(),
    st.sampled_from([0.01, 1.0, 30.0]),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_first_look_in_half_precision_leaves_out_none_of_the_nearest(
    many_rows, seed, backbones, k, alike, length
):
    """The rows are those of the exact similarities, also of crowded ones and long vectors."""
    generator = torch.Generator().manual_seed(seed)
    tables, images = [], []
    for dimension in (24, 7)[:backbones]:
        rows = torch.randn(300, dimension, generator=generator).repeat(3, 1)
        if alike:  # as by a network of random weights
            rows = 1 + 0.01 * rows
        unit = torch.nn.functional.normalize(rows, dim=-1)
        tables.append(unit.half())
        images.append(length * (unit[17] if alike else unit[17] * torch.sign(rows[5])))
    exact = ranking.mean_similarities(tables, images)
    found = ranking.nearest(tables, images, k)
    assert len(set(found)) == len(found) == k
    expected = exact[ranking.top_k(exact, k)]
    assert torch.allclose(exact[found], expected, atol=3e-7 * length, rtol=0)


def test_equal_rows_keep_their_order_behind_a_first_look(many_rows):
    """Of rows that repeat the first comes first; far ones are never looked at again."""
    rows = torch.nn.functional.normalize(torch.randn(40, 16), dim=1)
    table = torch.cat((rows, -rows, rows)).half()
    image = table[7].float()
    assert ranking.nearest((table,), (image,), 2) == [7, 87]
    assert len(ranking._near_enough((table,), (image,), 2)) < 10


@pytest.mark.parametrize("product", ["missing", "rounded at every step"])
def test_a_torch_that_is_bad_at_half_products_is_not_asked(monkeypatch, product):
    """The ranking is that of float32 then, and the same."""
    multiply = torch.Tensor.__matmul__

    def other(left, right):
        if left.dtype != torch.float16:
            return multiply(left, right)
        if product == "missing":
            raise RuntimeError("not implemented for 'Half'")
        total = torch.zeros(len(left), dtype=torch.float16)
        for column in range(left.shape[1]):
            total += left[:, column] * right[column]
        return total

    monkeypatch.setattr(torch.Tensor, "__matmul__", other)
    assert not ranking._has_half_products.__wrapped__()


def test_an_older_torch_is_not_asked_for_half_products(monkeypatch):
    """It has none, or slow ones; nothing is tried."""
    monkeypatch.setattr(torch, "__version__", "2.5.1+cu124")
    assert not ranking._has_half_products.__wrapped__()
    assert ranking.nearest((), (), 3) == []


def test_the_chain_adds_the_phrase_that_brings_the_text_nearest(encoder):
    """What the picture shows most is added first, and a word of another picture never."""
    scorer = scorer_for(encoder, cat=2, red=1.8, beach=1.2)
    found = grow(scorer, "cat", ["noir", "beach", "red", "oil"])
    assert found.phrases == ("red", "beach")


def test_weaker_phrase_ends_the_chain(encoder):
    """Past the minimum, the first phrase that lowers the score ends the chain."""
    scorer = scorer_for(encoder, cat=1)
    assert grow(scorer, "cat", ["noir", "oil"]).phrases == ()


def test_the_minimum_is_tried_but_only_the_best_text_is_kept(encoder):
    """Phrases below the minimum are added even when they hurt; the best text met wins."""
    scorer = scorer_for(encoder, cat=1, red=1)
    found = grow(scorer, "cat", ["red", "oil", "noir"], min_count=3)
    assert found.phrases == ("red",)
    assert "cat, red, oil, noir" in encoder.encoded


def test_phrases_over_the_budget_are_dropped_and_shorter_ones_still_tried(encoder):
    """A phrase that does not fit is passed over for one that does."""
    scorer = scorer_for(encoder, cat=1, red=3, beach=2, vast=2)
    found = grow(scorer, "cat", ["red vast beach", "red"], budget=3)
    assert found.phrases == ("red",)


def test_repeats_in_the_pool_are_chosen_once(encoder):
    """A phrase that stands twice in the pool is said once."""
    scorer = scorer_for(encoder, cat=1, red=3)
    assert grow(scorer, "cat", ["red", "red"], min_count=2).phrases.count("red") == 1


def test_of_equal_phrases_the_first_in_the_pool_wins(encoder):
    """Ties go by the pool's order, not by hashing."""
    scorer = scorer_for(encoder, cat=1)
    for pool in (["x1", "x2", "x3"], ["x3", "x1", "x2"]):
        found = chain(scorer, "", pool, min_count=1, max_count=1, budget=75, label="")
        assert found.phrases == (pool[0],)


def test_an_interrupted_chain_keeps_what_it_found(encoder):
    """A stop in the middle returns the phrases found so far."""
    calls = []

    def tick(label: str, done: int, total: int) -> None:
        calls.append(label)
        if len(calls) > 5:
            raise Interrupted("stop")

    scorer = Scorer((encoder,), (encoder.image(cat=2, red=2, beach=2, oil=2),), tick)
    found = grow(scorer, "cat", ["red", "beach", "oil", "noir"])
    assert found.interrupted
    assert 1 <= len(found.phrases) < 3


@pytest.fixture
def vocabulary(encoder) -> Vocabulary:
    tables = {
        "artists": table(encoder, "artists", "by noir", "by red"),
        "flavors": table(encoder, "flavors", "sunny", "vast", "red", "blurry"),
        "mediums": table(encoder, "mediums", "oil", "noir"),
        "movements": table(encoder, "movements", "beach", "blurry"),
        "sites": table(encoder, "sites", "vast site", "sunny site"),
    }
    return Vocabulary.together(
        tables, merge(list(tables.values())), table(encoder, "negative", "blurry", "noir")
    )


def ask(encoder, vocabulary, mode: str, caption: str = "cat", **options: object):
    scene = Scene(caption, scorer_for(encoder, cat=1, red=0.9, oil=0.8, beach=0.7, sunny=0.6))
    return MODES[mode](scene, vocabulary, InterrogateOptions(mode=mode, **options))


def test_caption_mode_is_the_caption(encoder, vocabulary):
    """Nothing is added, and a caption over the budget ends at a word."""
    assert ask(encoder, vocabulary, "caption", "a cat").text == "a cat"
    assert ask(encoder, vocabulary, "caption", "a cat there", token_budget=2).text == "a cat"


def test_fast_mode_adds_the_nearest_phrases_of_all_categories(encoder, vocabulary):
    """The phrases come in the order of their own nearness; of equal ones artists come first."""
    draft = ask(encoder, vocabulary, "fast", max_flavors=3)
    assert draft.text.startswith("cat, ")
    assert len(draft.pieces) == 3
    scores = scorer_for(encoder, cat=1, red=0.9, oil=0.8, beach=0.7, sunny=0.6).texts(
        [piece.phrase for piece in draft.pieces]
    )
    assert scores.tolist() == sorted(scores.tolist(), reverse=True)
    assert [piece.phrase for piece in draft.pieces] == ["by red", "red", "oil"]
    assert [piece.category for piece in draft.pieces] == ["artists", "flavors", "mediums"]


def test_classic_mode_has_one_of_each_in_order(encoder, vocabulary):
    """Medium and artist without a comma, then site, movement and flavors."""
    draft = ask(encoder, vocabulary, "classic", max_flavors=2)
    assert draft.text == "cat, oil by red, sunny site, beach, red, sunny"


def test_classic_mode_does_not_repeat_a_medium_that_the_caption_begins_with(encoder, vocabulary):
    """A caption that names the medium is followed by the artist at once."""
    draft = ask(encoder, vocabulary, "classic", "oil of a cat", max_flavors=1)
    assert draft.text == "oil of a cat by red, sunny site, beach, red"


def test_classic_mode_keeps_medium_and_artist_together_at_the_budget(encoder, vocabulary):
    """Where the artist does not fit the medium goes too, as one piece."""
    assert ask(encoder, vocabulary, "classic", token_budget=4).text == "cat"
    assert ask(encoder, vocabulary, "classic", token_budget=5).text == "cat, oil by red"


def test_classic_mode_leaves_out_categories_that_are_off(encoder, vocabulary):
    """Without mediums the artist stands after a comma."""
    tables = {name: vocabulary.tables[name] for name in ("artists", "flavors")}
    fewer = Vocabulary.together(tables, merge(list(tables.values())))
    assert ask(encoder, fewer, "classic", max_flavors=1).text == "cat, by red, red"


def test_best_mode_is_at_least_as_near_as_fast_classic_and_caption(encoder, vocabulary):
    """`best` never returns less than any of the others found."""
    scorer = scorer_for(encoder, cat=1, red=0.9, oil=0.8, beach=0.7, sunny=0.6)
    texts = {
        mode: ask(encoder, vocabulary, mode, max_flavors=4).text
        for mode in ("best", "fast", "classic", "caption")
    }
    scores = dict(zip(texts, scorer.texts(list(texts.values())).tolist(), strict=True))
    assert scores["best"] == max(scores.values())
    assert scores["best"] > scores["caption"]


def test_style_mode_has_no_caption_and_begins_with_the_subject(encoder, vocabulary):
    """The caption is not used; a subject of the user's stands in front."""
    assert "cat" not in ask(encoder, vocabulary, "style", min_flavors=1).text
    assert ask(encoder, vocabulary, "style", subject="my dog").text.startswith("my dog, ")


def test_negative_mode_finds_the_farthest_by_one_sign(encoder):
    """Each phrase is farther than those left out, and more than one is found."""
    flavors = table(encoder, "flavors", "cat", "red", "blurry", "noir")
    vocabulary = Vocabulary(
        tables={"flavors": flavors}, negative=table(encoder, "negative", "oil")
    )
    scene = Scene("", scorer_for(encoder, cat=1, red=1, blurry=-1, noir=-0.9, oil=-0.8))
    draft = MODES["negative"](
        scene, vocabulary, InterrogateOptions(mode="negative", min_flavors=0, pool_size=3)
    )
    assert [piece.phrase for piece in draft.pieces] == ["blurry", "noir", "oil"]
    assert [piece.category for piece in draft.pieces] == ["flavors", "flavors", "negative"]


def test_a_draft_without_a_piece_keeps_its_commas(encoder, vocabulary):
    """Taking out the medium leaves the artist after a comma."""
    draft = ask(encoder, vocabulary, "classic", max_flavors=1)
    assert draft.without(0).text == "cat, by red, sunny site, beach, red"
    assert draft.without(1).text == "cat, oil, sunny site, beach, red"


def test_two_backbones_judge_together(encoder):
    """A score is the mean of both cosines, and the smaller budget counts."""
    other = WordEncoder(WORDS, token_budget=5)
    scorer = Scorer((encoder, other), (encoder.image(cat=1), other.image(red=1)))
    single = [scorer_for(encoder, cat=1).texts(["cat"]), scorer_for(other, red=1).texts(["cat"])]
    assert scorer.texts(["cat"]).item() == pytest.approx((single[0] + single[1]).item() / 2)
    assert scorer.token_budget == 5
    both = Table(("cat", "red"), ("a", "a"), (encoder.encode_texts(["cat", "red"]),) * 2)
    assert scorer.table(both).tolist() == pytest.approx(scorer.texts(["cat", "red"]).tolist())
