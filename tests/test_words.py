"""Words that never come out, and words that come out in place of others."""

from __future__ import annotations

import pytest

from clip_interrogator_ext.errors import BadOption
from clip_interrogator_ext.options import (
    InterrogateOptions,
    read_leave_out,
    read_replacements,
)
from clip_interrogator_ext.words import WordRules

PEOPLE = frozenset({"Vincent van Gogh", "Claude Monet", "Banksy", "Jan", "Zoë Lake"})


@pytest.mark.parametrize(
    ("phrase", "worded"),
    [
        ("red sky", ""),
        ("Red-haired", ""),
        ("redder sky", "redder sky"),
        ("a castle", "a fort"),
        ("a Castle", "a Castle"),
        ("deep snow field", ""),
    ],
)
def test_a_phrase_goes_where_it_holds_a_word_that_is_left_out(phrase, worded):
    """Whole words, in any case of letters; old words are replaced as they are written."""
    rules = WordRules(("red", "deep snow"), (("castle", "fort"),))
    assert rules.phrase(phrase) == worded


@pytest.mark.parametrize(
    ("caption", "worded"),
    [
        ("a red castle in the snow", "a fort in the snow"),
        ("a castle in the deep snow, at night", "a fort, at night"),
        ("red, a castle", "a fort"),
        ("nothing of it", "nothing of it"),
    ],
)
def test_a_caption_loses_such_words_and_keeps_the_rest(caption, worded):
    """Nothing hangs in the air behind them."""
    rules = WordRules(("red", "deep snow"), (("castle", "fort"),))
    assert rules.text(caption) == worded


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("a painting by Vincent van Gogh of a field", "a painting of a field"),
        ("a painting of a field by van gogh", "a painting of a field"),
        ("a drawing in the style of Claude Monet, in oil", "a drawing, in oil"),
        ("art by banksy", "art"),
        ("by Zoe Lake", ""),
        ("a house by lake", "a house by lake"),
        ("standing by the lake", "standing by the lake"),
        ("a painting by Jan Steen", "a painting by Jan Steen"),
        ("a painting by Jan van Eyck", "a painting by Jan van Eyck"),
        ("a painting by Jan Ångström", "a painting by Jan Ångström"),
        ("a painting by Jan'ichi", "a painting by Jan'ichi"),
        ("a painting by jan in oil", "a painting in oil"),
        ("banksy", "banksy"),
    ],
)
def test_people_are_not_named_in_captions(text, left):
    """By the whole name anywhere, by the surname where it says who made the picture."""
    assert WordRules(names=PEOPLE).text(text) == left


def test_a_phrase_that_names_somebody_goes():
    """In every list."""
    rules = WordRules(names=PEOPLE)
    assert rules.phrase("by greg and claude monet") == ""
    assert rules.phrase("inspired by Monet") == ""
    assert rules.phrase("impressionism") == "impressionism"


def test_rules_without_anything_change_nothing():
    """And say that they are none."""
    assert not WordRules()
    assert WordRules().phrase(" as  it is") == " as  it is"


def test_words_are_read_from_texts_and_lists():
    """Commas or lines between them, spaces around them do not matter."""
    assert read_leave_out("red, deep  snow\n\nsky") == ("red", "deep snow", "sky")
    assert read_leave_out(["a, b"]) == ("a, b",)
    assert read_leave_out(None) == read_leave_out("") == ()
    assert read_replacements("a=b, c d = e\nf=") == (("a", "b"), ("c d", "e"), ("f", ""))
    assert read_replacements({"a": "b"}) == read_replacements([["a", "b"]]) == (("a", "b"),)
    assert read_replacements(None) == ()


@pytest.mark.parametrize("bad", ["a", "=b", [["a"]], {"a": 1}, [1]])
def test_what_is_no_replacement_is_refused(bad):
    """With a sentence that says how to write one."""
    with pytest.raises(BadOption) as caught:
        read_replacements(bad)
    assert caught.value.field == "replacements"


def test_empty_words_are_refused():
    """They would mean everything."""
    with pytest.raises(BadOption, match="left out"):
        InterrogateOptions(leave_out=(" ",))
    with pytest.raises(BadOption, match="replaced"):
        InterrogateOptions(replacements=((" ", "b"),))
