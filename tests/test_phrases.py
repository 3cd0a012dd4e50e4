"""Prompts as text: brackets, phrases taken out and put back, a picture's generation data."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_interrogator_ext import phrases

pytestmark = pytest.mark.hosts

# Comma-free, with the characters that prompts and patterns give a meaning to.
PHRASE = st.text(string.ascii_letters + " ()[]\\:.*+?|0123456789é-", min_size=1, max_size=20).map(
    lambda text: " ".join(text.split())
).filter(bool)
PHRASES = st.lists(PHRASE, min_size=1, max_size=8, unique=True)


@given(st.text())
def test_escaping_is_undone_exactly(text):
    """Backslashes are escaped too, so that there is one way back."""
    assert phrases.unescape_brackets(phrases.escape_brackets(text)) == text


def test_only_brackets_and_backslashes_are_escaped():
    """Everything else of the prompt syntax has no meaning outside brackets."""
    escaped = phrases.escape_brackets(r"castle (1900) [old] a\b: {x}, <y>")
    assert escaped == r"castle \(1900\) \[old\] a\\b: {x}, <y>"


def test_unescaping_leaves_other_backslashes_alone():
    """A user's own backslash before a letter is no escape."""
    assert phrases.unescape_brackets(r"C:\new \(x\) \\ \n") == "C:\\new (x) \\ \\n"


@given(PHRASES, st.data())
def test_a_phrase_taken_out_and_put_back_gives_the_prompt_again(found, data):
    """Whatever its place."""
    text = phrases.join(found)
    place = data.draw(st.integers(0, len(found) - 1))
    without = phrases.take_out(text, found[place])
    assert without == phrases.join(found[:place] + found[place + 1 :])
    assert phrases.put_back(without, found, place) == text


@given(PHRASES, st.data())
def test_all_phrases_come_back_in_their_order(found, data):
    """In whatever order they are taken out and put back."""
    text = phrases.join(found)
    for place in data.draw(st.permutations(range(len(found)))):
        text = phrases.take_out(text, found[place])
    assert text == ""
    for place in data.draw(st.permutations(range(len(found)))):
        text = phrases.put_back(text, found, place)
    assert text == phrases.join(found)


@pytest.mark.parametrize(
    ("text", "phrase", "without"),
    [
        ("a, b, c", "b", "a, c"),
        ("a, b, c", "a", "b, c"),
        ("a, b, c", "c", "a, b"),
        ("a", "a", ""),
        ("a, b", "x", "a, b"),
        ("a, b", "", "a, b"),
        # The caption holds the words too, but the phrase between commas is the one that we added.
        ("night in fog, fog, x", "fog", "night in fog, x"),
        ("fog, x, fog", "fog", "fog, x"),
        # `classic` writes artists without a comma before them.
        ("a cat, pixel art by Ann, x", "by Ann", "a cat, pixel art, x"),
        ("pixel art by Ann", "pixel art", "by Ann"),
        ("an artful cat", "art", "an artful cat"),
        # What the user wrote around it stays as it is.
        ("(hill:1.2), a,b , c", "a", "(hill:1.2),b , c"),
    ],
)
def test_exactly_one_phrase_is_taken_out(text, phrase, without):
    """With the comma that it leaves, and nothing else."""
    assert phrases.take_out(text, phrase) == without


@pytest.mark.parametrize(
    ("text", "place", "whole"),
    [
        ("a, c", 1, "a, b, c"),
        ("b, c", 0, "a, b, c"),
        ("mine, c, (hill:1.2)", 1, "mine, b, c, (hill:1.2)"),
        ("mine, a, (hill:1.2)", 1, "mine, a, b, (hill:1.2)"),
        ("mine", 1, "mine, b"),
        ("mine, ", 1, "mine, b"),
        ("", 1, "b"),
    ],
)
def test_a_phrase_returns_beside_its_neighbours(text, place, whole):
    """After the nearest one before it that is there, else before the next, else at the end."""
    assert phrases.put_back(text, ["a", "b", "c"], place) == whole


@pytest.mark.parametrize(
    ("parameters", "prompt", "negative"),
    [
        ("a fort\nNegative prompt: fog\nSteps: 20, Seed: 1", "a fort", "fog"),
        ("a fort\nSteps: 20, Seed: 1", "a fort", ""),
        ("a fort", "a fort", ""),
        ("Negative prompt: fog\nSteps: 20", "", "fog"),
        ("one\ntwo\nNegative prompt: fog\nrain\nSteps: 20", "one\ntwo", "fog\nrain"),
        ("Steps: to the castle\nNegative prompt: x", "Steps: to the castle", "x"),
        ("", "", ""),
    ],
)
def test_generation_data_is_split_into_its_prompts(parameters, prompt, negative):
    """As the WebUIs write it: prompt, negative prompt, and a last line that begins with Steps."""
    assert phrases.split_parameters(parameters) == (prompt, negative)
