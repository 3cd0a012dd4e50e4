"""The bundled word lists are rich and clean."""

from __future__ import annotations

import csv
import hashlib
import re
import unicodedata
from pathlib import Path

import pytest

from clip_interrogator_ext.models.open_clip import count_clip_tokens
from clip_interrogator_ext.vocabulary import lists
from clip_interrogator_ext.vocabulary.lines import expand
from clip_interrogator_ext.vocabulary.reading import read

DATA = Path(__file__).parents[1] / "data"
FLAVORS = sorted((DATA / "flavors").glob("*.txt"))
LISTS = sorted(DATA.glob("*.txt"))
TRADES = {
    "painting", "illustration", "concept art", "comics", "anime", "photography", "film",
    "architecture", "fashion", "games", "sculpture", "printmaking", "design", "animation",
    "street art", "digital art", "calligraphy", "textiles",
}
ERAS = {"ancient", "medieval", *(f"{number}th century" for number in range(14, 21)), "21st century"}
UNWANTED = re.compile(
    r"\b(nsfw|nudes?|nudity|naked|topless|erotic\w*|sexy|sexual\w*|porn\w*|hentai|ecchi|lingerie|"
    r"fetish\w*|bondage|bdsm|boobs?|nipples?|genital\w*|penis|vagina|orgy|stripper|pinup|pin-up)\b"
)
# Slurs, which nobody needs to read here: the first twelve digits of their SHA-256.
SLURS = {
    "08a841e99678", "120f6e5b4ea3", "158869a97379", "16ea09fc78ca", "22fc75e65a0e",
    "27a62b68179c", "333f76180929", "3b1e0d7c5dd4", "46505206c396", "4c58f5d5fe92",
    "619bc82e0d20", "626e38174f5b", "6d1833779e38", "8f5083e3e5c7",
    "96c91fa84782", "98b52c4b6b7d", "9915ba2d8222", "9d57436661e1", "a008b489625e",
    "ad6cacf3af98", "bb87adf8aa78", "bd331fb1d242", "c3de533e9b7f", "cc02032349c8",
    "dcb85fcf872e", "e84dde508a60", "eef3bd091670", "f9d0d9b18ae9",
}


def fold(text: str) -> str:
    """Return a text without case, accents and doubled spaces."""
    apart = unicodedata.normalize("NFKD", text.casefold())
    return " ".join("".join(sign for sign in apart if not unicodedata.combining(sign)).split())


def written(path: Path) -> list[str]:
    """Return a list's lines that are no comments."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@pytest.fixture(scope="module")
def artists() -> list[dict[str, str]]:
    with (DATA / "artists.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_there_is_enough_of_each():
    """Lines before their choices are made, as a reader meets them."""
    assert len(FLAVORS) >= 40
    assert sum(len(written(path)) for path in FLAVORS) >= 12_000
    assert min(len(written(path)) for path in FLAVORS) >= 90
    found = {path.stem: len(written(path)) for path in LISTS}
    assert found["mediums"] >= 300
    assert found["movements"] >= 350
    assert found["sites"] >= 60
    assert found["negative"] >= 250


def test_every_artist_has_a_trade_an_era_and_whether_they_live(artists):
    """At least 4,000, across trades and centuries, nobody twice, and nobody alive from long ago."""
    assert len(artists) >= 4000
    assert len({fold(row["name"]) for row in artists}) == len(artists)
    for row in artists:
        assert set(row["trade"].split(";")) <= TRADES, row
        assert row["era"] in ERAS, row
        assert row["living"] in ("yes", "no"), row
        assert row["living"] == "no" or row["era"] in ("20th century", "21st century"), row
    for trade in TRADES - {"textiles", "calligraphy"}:
        assert sum(trade in row["trade"].split(";") for row in artists) >= 60, trade
    assert {row["era"] for row in artists} == ERAS
    assert [row["name"] for row in artists] == sorted((r["name"] for r in artists), key=fold)


@pytest.mark.parametrize("path", [*FLAVORS, *LISTS], ids=lambda path: path.stem)
def test_each_file_is_headed_and_tidy(path):
    """What it holds, for flavors what they are about, and phrases without commas and signs."""
    first, second, *_ = path.read_text(encoding="utf-8").splitlines()
    assert re.match(r"# [A-Z][^:]*: .+\.$", first), first
    if path in FLAVORS:
        assert second in ("# about: style", "# about: subject")
    found = read(path)
    assert found.about == first.partition(": ")[2]
    assert not found.problems.told()
    assert bool(found.subjects) == (second == "# about: subject")
    for line in written(path):
        assert line == " ".join(line.split()), line
        assert not re.search(r"[^\w '&./\-{}|:+%°!]", line), line
        assert 1 <= len(expand(line)) <= 12, line
        for phrase in expand(line):
            assert count_clip_tokens(phrase)[0] <= 20, phrase


def test_nothing_stands_in_two_lists():
    """Case and accents aside, mediums, movements and flavors share no phrase, nor do two files."""
    seen: dict[str, str] = {}
    for path in [DATA / "mediums.txt", DATA / "movements.txt", *FLAVORS]:
        for line in written(path):
            for phrase in expand(line):
                key = fold(phrase)
                assert key not in seen, f"{path.stem}: {phrase!r} is in {seen[key]} too"
                seen[key] = path.stem


def test_no_phrase_is_sexual_or_a_slur():
    """In no category, and in no artist's name."""
    for category in lists.load_categories().values():
        for phrase in category.lines:
            assert not UNWANTED.search(fold(phrase)), phrase
            for word in re.findall(r"\w+", fold(phrase)):
                assert hashlib.sha256(word.encode()).hexdigest()[:12] not in SLURS, category.name


def test_flavors_name_no_artist(artists):
    """They have a list of their own, which can be switched off."""
    names = {fold(row["name"]) for row in artists if " " in row["name"]}
    for path in FLAVORS:
        for line in written(path):
            for phrase in expand(line):
                words = fold(phrase).split()
                parts = (
                    " ".join(words[a:b])
                    for a in range(len(words)) for b in range(a + 2, len(words) + 1)
                )
                assert not names.intersection(parts), f"{path.stem}: {phrase}"


def test_style_flavors_and_subject_flavors_are_told_apart():
    """So that the mode style can leave out what a picture shows."""
    flavors = lists.load_categories()["flavors"]
    assert 3000 < len(flavors.subjects) < len(flavors.phrases) - 3000
    assert flavors.subjects <= set(flavors.phrases)
    assert "unicorn" in flavors.subjects
    assert "golden hour" not in flavors.subjects
