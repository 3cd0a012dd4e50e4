"""Named sets: read, refused with a reason, and what prompts they make."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path

import pytest

from clip_interrogator_ext import InterrogateOptions, ModelOptions, Service, StandaloneHost, catalog
from clip_interrogator_ext.errors import BadOption
from clip_interrogator_ext.vocabulary.lists import bundled_folder, check_known, load_categories
from clip_interrogator_ext.vocabulary.sets import Choice, load_sets, read_sets, set_named

pytestmark = pytest.mark.hosts

CAPTION = "a red cat on a beach by Ann Alpha"
LISTS = {
    "artists": ["Ann Alpha", "Bob Beta", "Cy Gamma"],
    "mediums": ["an oil painting", "a photo", "pixel art"],
    "movements": ["cubism", "pop art", "realism"],
    "sites": ["Somewhere", "Elsewhere"],
    "flavors": [
        *(f"{one} {two}" for one in ("soft", "hard", "blue") for two in ("light", "fog", "edges")),
        "as Bob Beta does",
    ],
    "negative": ["blurry", "watermark", "bad hands"],
    "creatures": ["dragon", "griffin", "sphinx", "hydra"],
    "classes": ["wizard", "knight", "ranger"],
}
SETS = """
character:
  about: A creature, two classes, then how it looks.
  lists:
    - creatures: 1
    - classes: 2
    - mediums
    - flavors
nobody:
  lists: [flavors, mediums]
  without: [artists]
  leave_out: [fog]
"""


@pytest.fixture(scope="module")
def lists_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lists")
    for name, lines in LISTS.items():
        (folder / f"{name}.txt").write_text("\n".join(lines), encoding="utf-8")
    (folder / "sets.yaml").write_text(SETS, encoding="utf-8")
    return folder


@pytest.fixture
def service(lists_dir, tmp_path) -> Service:
    return Service(StandaloneHost("cpu"), cache_dir=tmp_path / "cache", lists_dir=lists_dir)


@pytest.fixture
def models(backbone_folder) -> ModelOptions:
    return ModelOptions(backbones=(str(backbone_folder),), captioner="none")


def options(mode: str = "best", **changes: object) -> InterrogateOptions:
    settings: dict = {"caption": CAPTION, "min_flavors": 2, "max_flavors": 6, **changes}
    return InterrogateOptions(mode=mode, **settings)


def test_every_bundled_set_is_complete_and_says_what_it_is_about():
    """But for the one that waits for another package's lists."""
    categories = load_categories()
    sets = load_sets(categories)
    assert next(iter(sets)) == catalog.ALL_LISTS
    assert {"no artists", "photography", "anime", "fantasy character", "classic"} <= set(sets)
    for one in sets.values():
        assert one.about.endswith("."), one.name
        missing = one.missing(categories)
        assert all(name.startswith("classic:") for name in missing), (one.name, missing)
    assert sets["classic"].missing(categories)
    assert len(read_sets(bundled_folder() / "sets.yaml")) == len(sets) - 1


@pytest.mark.parametrize("mode", ["best", "turbo", "fast", "classic"])
def test_counts_and_order_of_a_set_are_those_of_the_prompt(service, models, picture, mode):
    """First one creature, then two classes, then the others as the mode has them."""
    prompt = service.interrogate(picture, options(mode, vocabulary="character"), models)
    said = [part.category for part in prompt.parts]
    assert said[:3] == ["creatures", "classes", "classes"]
    assert set(said[3:]) <= {"mediums", "flavors"}
    assert len(said) > 3
    assert prompt.text.startswith(f"{CAPTION}, ")


def test_counted_phrases_stay_where_they_lower_the_score(service, models, picture):
    """A set of counts alone gives just those, whatever the caption alone would have."""
    prompt = service.interrogate(
        picture, options(vocabulary="character", max_flavors=0, min_flavors=0), models
    )
    assert [part.category for part in prompt.parts] == ["creatures", "classes", "classes"]


def test_style_keeps_to_the_set_as_well(service, models, picture):
    """Without a caption."""
    asked = InterrogateOptions(mode="style", vocabulary="character", min_flavors=1, max_flavors=2)
    said = [part.category for part in service.interrogate(picture, asked, models).parts]
    assert said[:3] == ["creatures", "classes", "classes"]


@pytest.mark.parametrize("mode", ["best", "fast", "classic", "negative", "caption"])
def test_no_artists_means_none_in_any_list_nor_in_captions(service, models, picture, mode):
    """Nor do the set's own words come out."""
    asked = options(mode, vocabulary="nobody", max_flavors=12, min_flavors=12)
    prompt = service.interrogate(picture, asked, models)
    assert "Beta" not in prompt.text
    assert "Alpha" not in prompt.text
    assert "fog" not in prompt.text
    assert prompt.text
    if mode != "negative":
        assert prompt.caption == "a red cat on a beach"


@pytest.mark.parametrize("mode", ["best", "fast", "classic", "negative", "style"])
def test_words_left_out_never_come_out_and_others_take_their_place(
    service, models, picture, mode
):
    """Replaced phrases are judged in their new words; the picture's caption changes as well."""
    asked = options(
        mode, categories=("flavors",), max_flavors=5, min_flavors=5, leave_out=("FOG", "red"),
        replacements=(("light", "glow"), ("cat", "dog")),
        **({"caption": None} if mode == "style" else {}),
    )
    prompt = service.interrogate(picture, asked, models)
    assert "fog" not in prompt.text
    assert "light" not in prompt.text
    assert prompt.parts
    if mode in ("best", "fast", "classic"):
        assert prompt.text.startswith("a dog on a beach")
    for part in prompt.parts:
        alone = service.similarity(picture, [part.phrase], models)[0]
        assert part.similarity == pytest.approx(alone, abs=1e-5)


def test_a_replaced_phrase_is_found_by_its_new_words(service, models, picture):
    """All flavors are one word now, so it comes out once."""
    pairs = tuple((line, "glow") for line in LISTS["flavors"])
    asked = options("fast", categories=("flavors",), replacements=pairs)
    prompt = service.interrogate(picture, asked, models)
    assert [part.phrase for part in prompt.parts] == ["glow"]


def test_categories_stand_in_for_the_set(service, models, picture):
    """So that a program can ask for its own choice whatever the settings say."""
    asked = options("fast", vocabulary="character", categories=("mediums",))
    prompt = service.interrogate(picture, asked, models)
    assert {part.category for part in prompt.parts} == {"mediums"}


def test_categories_leave_out_what_the_set_leaves_out(service, models, picture):
    """They stand in for its lists only."""
    asked = options("fast", vocabulary="nobody", categories=("flavors", "artists"))
    prompt = service.interrogate(picture, asked, models)
    assert prompt.caption == "a red cat on a beach"
    assert {part.category for part in prompt.parts} == {"flavors"}


def test_lists_of_a_series_stay_as_its_first_question_found_them(
    service, models, picture, lists_dir
):
    """So that what a batch keeps belongs to the lists that it began with."""
    path = lists_dir / "classes.txt"
    asked = options("fast", categories=("classes",))
    try:
        with service.series("batch"):
            first = service.interrogate(picture, asked, models)
            path.write_text("sorcerer", encoding="utf-8")
            assert service.interrogate(picture, asked, models).text == first.text
        assert "sorcerer" in service.interrogate(picture, asked, models).text
    finally:
        path.write_text("\n".join(LISTS["classes"]), encoding="utf-8")


def test_replaced_words_leave_no_vectors_behind(service, models, picture, tmp_path):
    """Whatever is asked for, the list's file of vectors stays as it is."""
    service.prepare(["flavors"], models)
    [file] = (tmp_path / "cache").rglob("flavors.safetensors")
    before = file.read_bytes()
    asked = options("fast", categories=("flavors",), replacements=(("light", "glow"),))
    assert "glow" in service.interrogate(picture, replace(asked, max_flavors=32), models).text
    assert file.read_bytes() == before


def test_an_unknown_set_is_refused_with_the_nearest(service, models, picture):
    """Before any network is loaded, too."""
    for ask in (
        lambda asked: service.check(asked, models),
        lambda asked: service.interrogate(picture, asked, models),
    ):
        with pytest.raises(BadOption, match=r"no set of word lists 'charakter'.*mean character"):
            ask(options(vocabulary="charakter"))


def test_a_set_that_lacks_a_list_says_which_and_what_to_do(service, models):
    """The classic lists can be installed."""
    sets = service.word_sets()
    categories = {
        name: one for name, one in service.categories().items() if not name.startswith("classic:")
    }
    assert "classic:flavors" in sets["classic"].missing(categories)
    with pytest.raises(BadOption, match=r"lacks the lists classic:artists.*clip-interrogator"):
        set_named("classic", sets, categories)


def test_sets_change_with_their_file(service, models, picture, lists_dir):
    """Networks and vectors stay loaded meanwhile."""
    asked = options("fast", vocabulary="character")
    service.interrogate(picture, asked, models)
    engine = service._interrogator
    path = lists_dir / "sets.yaml"
    try:
        path.write_text(SETS.replace("classes: 2", "classes: 1"), encoding="utf-8")
        prompt = service.interrogate(picture, asked, models)
    finally:
        path.write_text(SETS, encoding="utf-8")
    assert [part.category for part in prompt.parts][:3].count("classes") == 1
    assert service._interrogator is engine


def test_a_list_that_is_edited_is_used_at_the_next_question(service, models, picture, lists_dir):
    """Only what is new is encoded."""
    path = lists_dir / "creatures.txt"
    service.prepare(["creatures"], models)
    try:
        path.write_text("\n".join([*LISTS["creatures"], "kelpie"]), encoding="utf-8")
        assert service.ready(models)["creatures"] == 4
        with pytest.raises(BadOption, match="no category 'nothing'"):
            service.prepare(["nothing"], models)
        assert service.prepare(["creatures"], models) == {"creatures": 1}
        assert service.ready(models)["creatures"] == 5
        found = service.analyze(picture, models, top=9, categories=("creatures",))
        assert {phrase for phrase, _ in found.categories["creatures"]} == {
            *LISTS["creatures"], "kelpie",
        }
    finally:
        path.write_text("\n".join(LISTS["creatures"]), encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("- a\n", "Write each set as a name"),
        ("mine: [flavors]\n", "Name its lists"),
        ("mine:\n  lists: []\n", "Name at least one list"),
        ("mine:\n  list: [a]\n  lists: [a]\n", "It has list; a set has about, lists"),
        ("mine:\n  lists:\n    - a: many\n", "How many of a there are to be is a number"),
        ("mine:\n  lists:\n    - a: 0\n", "number from 1 to"),
        ("mine:\n  lists: {a: 1}\n", "Write lists as a list"),
        ("all:\n  lists: [a]\n", "That name is taken"),
        ("mine:\n  lists: [a\n", r"line \d: The YAML can't be read"),
    ],
)
def test_a_set_that_can_not_be_used_is_told_and_the_others_load(tmp_path, caplog, text, sentence):
    """With the file's name."""
    path = tmp_path / "sets.yaml"
    path.write_text(text, encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        assert read_sets(path) == {}
    assert str(path) in caplog.text
    assert re.search(sentence, caplog.text)
    if "YAML" not in sentence and not text.startswith("-"):
        path.write_text(text + "good:\n  lists: flavors\n", encoding="utf-8")
        assert [*read_sets(path)] == ["good"]


def test_a_list_of_a_set_may_have_a_number():
    """Others are as many as the mode adds."""
    [(_, one)] = [pair for pair in read_sets(bundled_folder() / "sets.yaml").items()
                  if pair[0] == "fantasy character"]
    assert one.choices[0] == Choice("flavors/fantasy_creatures", 1)
    assert one.choices[-1] == Choice("mediums")
    assert one.choices[0].role == "flavors"
    assert Choice("classic:artists").role == "artists"


def test_lists_and_words_may_stand_in_one_line(tmp_path):
    """With commas."""
    path = tmp_path / "sets.yaml"
    path.write_text("a:\n  lists: flavors, mediums\n  leave_out: blurry, ugly\n", encoding="utf-8")
    one = read_sets(path)["a"]
    assert one.choices == (Choice("flavors"), Choice("mediums"))
    assert one.leave_out == ("blurry", "ugly")


def test_artists_of_ones_own_let_no_other_into_a_set_without_artists(service, models, picture):
    """Those that we know are left out too."""
    asked = options("caption", vocabulary="no artists", caption="a hill by Claude Monet, Cy Gamma")
    assert service.interrogate(picture, asked, models).text == "a hill"


def test_categories_do_not_lift_what_a_set_leaves_out_and_is_not_there(service, models, picture):
    """The user's artists have no parts, so that the living ones are not known."""
    asked = options("fast", vocabulary="no living artists", categories=("flavors",))
    with pytest.raises(BadOption, match="lacks the lists artists/living"):
        service.interrogate(picture, asked, models)


def test_a_negative_list_of_another_program_is_no_category(service, tmp_path):
    """It would give a prompt without phrases."""
    (tmp_path / "wild").mkdir()
    (tmp_path / "wild" / "negative.txt").write_text("bad hands", encoding="utf-8")
    categories = load_categories(None, {"wildcards": tmp_path / "wild"})
    with pytest.raises(BadOption, match="no category 'wildcards:negative'"):
        check_known(["wildcards:negative"], categories)
    check_known(["wildcards:negative"], categories, negative=True)
