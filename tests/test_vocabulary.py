"""Word lists and their vectors: read, kept, verified, extended."""

from __future__ import annotations

import logging
import stat
import unicodedata
from pathlib import Path

import pytest
import torch

from clip_interrogator_ext import catalog
from clip_interrogator_ext.errors import BadWordList, Interrupted
from clip_interrogator_ext.vocabulary import lists
from clip_interrogator_ext.vocabulary.tables import PhraseStore, Table, merge
from tests.word_encoder import WordEncoder

WORDS = [f"w{number}" for number in range(40)]


@pytest.fixture
def encoder() -> WordEncoder:
    return WordEncoder(WORDS)


@pytest.fixture
def store(tmp_path) -> PhraseStore:
    return PhraseStore(tmp_path)


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_every_bundled_category_is_there_and_tidy():
    """Each category has phrases; none repeats, none is longer than the context allows."""
    categories = lists.load_categories()
    assert set(categories) == {*catalog.CATEGORIES, catalog.NEGATIVE_CATEGORY}
    for category in categories.values():
        assert len(category.phrases) > 50, category.name
        folded = [
            unicodedata.normalize("NFKD", phrase).encode("ascii", "ignore").decode().casefold()
            for phrase in category.phrases if phrase.isascii()
        ]
        assert len(folded) == len(set(folded)), category.name
        assert all("," not in phrase and len(phrase) < 120 for phrase in category.phrases)


def test_templates_make_phrases_of_names(tmp_path):
    """Artists and sites are said in several ways, all of one way before the next."""
    write(tmp_path, "artists.txt", "Ann\nBob\n")
    category = lists.read_category(tmp_path / "artists.txt")
    assert category.phrases == ("by Ann", "by Bob", "inspired by Ann", "inspired by Bob")


def test_the_users_lists_replace_and_add_categories(tmp_path):
    """A file of a known name replaces that category, another adds one after the known ones."""
    write(tmp_path, "mediums.txt", "clay\n")
    write(tmp_path, "creatures.txt", "dragon\n")
    categories = lists.load_categories(tmp_path)
    assert categories["mediums"].phrases == ("clay",)
    assert lists.positive_names(categories) == (*catalog.CATEGORIES, "creatures")


def test_an_empty_list_empties_its_category_with_a_warning(tmp_path, caplog):
    """A user can switch a category off by an empty file, and is told."""
    write(tmp_path, "artists.txt", "# nobody\n")
    with caplog.at_level(logging.WARNING):
        assert lists.load_categories(tmp_path)["artists"].phrases == ()
    assert "has no phrases" in caplog.text


def test_lists_of_other_programs_are_named_after_them_and_wait_to_be_named(tmp_path):
    """They have their own lines and counts, and take no part where nobody names them."""
    wildcards, interrogate = tmp_path / "wildcards", tmp_path / "interrogate"
    (wildcards / "animals").mkdir(parents=True)
    interrogate.mkdir()
    write(wildcards / "animals", "cats.txt", "tabby\n")
    write(wildcards, "colors.txt", "red\n")
    write(interrogate, "flavors.top3.txt", "#film\n{a|b}\n")
    write(interrogate, "artists.txt", "Ann\n")
    categories = lists.load_categories(
        others={"wildcards": wildcards, "interrogate": interrogate}
    )
    assert categories["wildcards:animals"].parts == {"cats": {"tabby"}}
    assert categories["wildcards:colors"].phrases == ("red",)
    assert categories["interrogate:flavors"].phrases == ("#film", "{a|b}")  # as they are
    assert categories["interrogate:flavors"].count == 3
    assert categories["interrogate:artists"].phrases == ("by Ann", "inspired by Ann")
    assert lists.positive_names(categories) == catalog.CATEGORIES


def test_a_list_is_read_again_when_its_file_has_changed(tmp_path):
    """And only then: the same file gives the same object."""
    path = write(tmp_path, "mine.txt", "one\n")
    first = lists.load_categories(tmp_path)["mine"]
    assert lists.load_categories(tmp_path)["mine"] is first
    write(tmp_path, "mine.txt", "one\ntwo\n")
    assert lists.load_categories(tmp_path)["mine"].phrases == ("one", "two")
    path.unlink()
    assert "mine" not in lists.load_categories(tmp_path)


def test_two_lists_of_one_name_are_told_and_the_first_counts(tmp_path, caplog):
    """Letter case and endings make no second list."""
    write(tmp_path, "dragons.csv", "wyvern\n")
    write(tmp_path, "Dragons.txt", "hydra\n")
    write(tmp_path, "dragons.yaml", "- drake\n")
    with caplog.at_level(logging.WARNING):
        categories = lists.load_categories(tmp_path)
    assert [name for name in categories if name.casefold() == "dragons"] == ["Dragons"]
    assert categories["Dragons"].phrases == ("hydra",)
    assert f"{tmp_path / 'dragons.csv'} is left out: Dragons.txt has that name too" in caplog.text
    assert f"{tmp_path / 'dragons.yaml'} is left out" in caplog.text


@pytest.mark.parametrize("name", [
    "a:b", "con", "..", ".hidden", "sets", "Sets", "a,b", "tail ", "x" * 101, "夜" * 90, "a.top3",
    "a\ud800",
])
def test_a_list_can_not_have_every_name(name):
    """What would be no file elsewhere, or be taken for something else."""
    assert not lists.is_name(name)


def test_a_folder_that_is_none_is_refused(tmp_path, caplog):
    """One that is not there yet holds no list, which is told."""
    path = write(tmp_path, "file", "x")
    with pytest.raises(BadWordList, match="is not a folder"):
        lists.load_categories(path)
    with caplog.at_level(logging.WARNING):
        assert set(lists.load_categories(tmp_path / "nowhere")) == set(lists.load_categories())
    assert "it holds no word lists yet" in caplog.text


def test_a_list_that_can_not_be_read_is_empty_and_says_why(tmp_path, caplog):
    """The others load, and the sentence is told once."""
    write(tmp_path, "mine.yaml", "a: [b\n")
    write(tmp_path, "other.txt", "fine\n")
    with caplog.at_level(logging.WARNING):
        categories = lists.load_categories(tmp_path)
        lists.load_categories(tmp_path)
    assert categories["mine"].phrases == ()
    assert "mine.yaml, line 2: The YAML can't be read" in categories["mine"].problems[0]
    assert categories["other"].phrases == ("fine",)
    assert caplog.text.count("mine.yaml") == 1


def test_vectors_are_encoded_once_and_read_back_as_they_were(store, encoder):
    """A second start encodes nothing but a few probes and has the same bits."""
    first = store.vectors(encoder, "flavors", WORDS)
    encoder.encoded.clear()
    second = store.vectors(WordEncoder(WORDS), "flavors", WORDS)
    assert torch.equal(first, second)
    assert first.dtype == second.dtype == torch.float16
    assert first.float().norm(dim=-1) == pytest.approx(1, abs=1e-3)


def test_only_new_phrases_are_encoded_when_a_list_grows(store, encoder):
    """Adding three phrases to a list encodes three, and probes of the old ones."""
    store.vectors(encoder, "flavors", WORDS[:30])
    encoder.encoded.clear()
    grown = store.vectors(encoder, "flavors", [*WORDS[:30], "w35", "w36", "w37"])
    assert set(encoder.encoded) - set(WORDS[:30]) == {"w35", "w36", "w37"}
    assert len(encoder.encoded) <= 3 + 4
    assert torch.allclose(grown[-1].float(), encoder.encode_texts(["w37"])[0], atol=1e-3)


def test_a_list_in_another_order_gives_rows_in_that_order(store, encoder):
    """Rows belong to phrases, not to places in the file; repeats get equal rows."""
    store.vectors(encoder, "flavors", WORDS)
    turned = store.vectors(encoder, "flavors", ["w9", "w1", "w9"])
    assert torch.allclose(turned.float(), encoder.encode_texts(["w9", "w1", "w9"]), atol=1e-3)


def test_vectors_of_an_empty_list_are_an_empty_table(store, encoder):
    """No phrases, no rows; and one phrase, one row."""
    assert store.vectors(encoder, "nothing", []).shape == (0, encoder.dimension)
    assert store.vectors(encoder, "single", ["w1"]).shape == (1, encoder.dimension)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "emptied", "garbage", "header"])
def test_a_damaged_file_is_rebuilt_with_a_warning(store, encoder, tmp_path, caplog, damage):
    """Whatever happened to the file, the vectors are right and the next start finds them."""
    right = store.vectors(encoder, "flavors", WORDS)
    path = tmp_path / "words" / "flavors.safetensors"
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        content = content[: len(content) // 2]
    elif damage == "flipped":
        content[-10] ^= 1
    elif damage == "emptied":
        content = bytearray()
    elif damage == "garbage":
        content = bytearray(b"not a safetensors file at all" * 9)
    else:
        content[20] ^= 0xFF
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(store.vectors(encoder, "flavors", WORDS), right)
    assert "is built anew" in caplog.text
    caplog.clear()
    assert torch.equal(store.vectors(encoder, "flavors", WORDS), right)
    assert not caplog.text


def test_vectors_of_another_network_are_not_trusted(store, encoder, caplog):
    """A network of the same name with other weights gets its own vectors."""
    store.vectors(encoder, "flavors", WORDS)
    turned = WordEncoder(list(reversed(WORDS)))
    with caplog.at_level(logging.WARNING):
        vectors = store.vectors(turned, "flavors", WORDS)
    assert "another network" in caplog.text
    assert torch.allclose(vectors.float(), turned.encode_texts(WORDS), atol=1e-3)


def test_stopped_encoding_keeps_what_was_encoded(store, encoder):
    """The next run goes on where the stopped one ended."""
    many = [f"w{number % 40} x{number}" for number in range(1500)]
    calls = []

    def stop(label: str, done: int, total: int) -> None:
        calls.append((done, total))
        if len(calls) == 3:
            raise Interrupted("stop")

    with pytest.raises(Interrupted):
        store.vectors(encoder, "flavors", many, stop)
    assert calls == [(0, 1500), (512, 1500), (1024, 1500)]
    encoder.encoded.clear()
    store.vectors(encoder, "flavors", many)
    assert 1500 - 1024 <= len(encoder.encoded) <= 1500 - 1024 + 4


def test_a_folder_that_cannot_be_written_costs_only_time(encoder, tmp_path, caplog):
    """The vectors are there all the same, with a warning that says where they can't be kept."""
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with caplog.at_level(logging.WARNING):
        vectors = PhraseStore(blocked).vectors(encoder, "flavors", WORDS)
    assert vectors.shape == (40, encoder.dimension)
    assert "can't be kept" in caplog.text


def test_files_are_replaced_whole(store, encoder, tmp_path):
    """No temporary file stays behind, and the file can be read by its owner."""
    store.vectors(encoder, "flavors", WORDS)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path.name for path in files] == ["flavors.safetensors"]
    assert files[0].stat().st_mode & stat.S_IRUSR


def test_merging_keeps_the_first_of_phrases_that_repeat():
    """Phrases that differ only in case are one, at the place of the first."""
    one = Table(("a", "B"), ("x", "x"), (torch.eye(4)[:2],))
    two = Table(("b", "c"), ("y", "y"), (torch.eye(4)[2:],))
    merged = merge([one, two])
    assert merged.phrases == ("a", "B", "c")
    assert merged.categories == ("x", "x", "y")
    assert torch.equal(merged.vectors[0], torch.eye(4)[[0, 1, 3]])
