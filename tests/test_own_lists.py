"""The user's own lists: written, added to, taken over, deleted; nothing is lost on the way."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clip_interrogator_ext import InterrogateOptions, ModelOptions, Service, StandaloneHost
from clip_interrogator_ext.errors import BadWordList, NotAllowed


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "lists"


@pytest.fixture
def service(folder, tmp_path, monkeypatch) -> Service:
    monkeypatch.setenv("CLIP_INTERROGATOR_EXT_DATA", str(tmp_path))
    service = Service(StandaloneHost("cpu"), cache_dir=tmp_path / "cache")
    assert service.lists_folder() == folder
    return service


def test_a_list_is_made_read_changed_and_deleted(service, folder):
    """The folder is made with the first list."""
    assert not folder.exists()
    assert service.save_list("dragons", "hydra\n# a comment\n{red|blue} drake\n") == []
    category = service.categories()["dragons"]
    assert category.own
    assert category.phrases == ("hydra", "red drake", "blue drake")
    assert "dragons" in service.positive_categories()
    assert service.list_text("dragons") == "hydra\n# a comment\n{red|blue} drake\n"
    service.save_list("dragons", "wyvern\n")
    assert service.categories()["dragons"].phrases == ("wyvern",)
    service.delete_list("dragons")
    assert "dragons" not in service.categories()


def test_what_is_wrong_with_a_list_is_told_when_it_is_saved(service):
    """It is written all the same: nothing typed is lost."""
    [problem] = service.save_list("dragons", "hydra\n{red|blue drake\n")
    assert "line 2: Its braces don't close" in problem
    assert service.list_text("dragons") == "hydra\n{red|blue drake\n"
    assert service.categories()["dragons"].phrases == ("hydra",)


def test_lines_are_added_that_are_not_there_yet(service):
    """Case and spaces make no new phrase; what stood there stays as it was."""
    assert service.add_to_list("dragons", ["hydra", "  red   drake "]) == 2
    service.save_list("dragons", "# mine\nhydra\n{red|blue} drake")
    assert service.add_to_list("dragons", ["HYDRA", "blue drake", "", "kelpie", "Kelpie"]) == 1
    assert service.list_text("dragons") == "# mine\nhydra\n{red|blue} drake\nkelpie\n"
    assert service.add_to_list("dragons", ["kelpie"]) == 0


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "a:b", "sets", "con", ".x", "a,b"])
def test_a_name_that_can_not_be_is_refused(service, folder, name):
    """And nothing is written, here or elsewhere."""
    for act in (
        lambda: service.save_list(name, "x"), lambda: service.add_to_list(name, ["x"]),
        lambda: service.delete_list(name),
    ):
        with pytest.raises(BadWordList):
            act()
    assert not list(folder.parent.rglob("*.txt"))


def test_a_name_that_differs_in_case_only_is_refused(service):
    """It would be the same file on other systems."""
    service.save_list("Dragons", "hydra\n")
    with pytest.raises(BadWordList, match="There is a list 'Dragons'"):
        service.save_list("dragons", "x\n")


def test_bundled_lists_are_replaced_not_changed(service):
    """An own list of the same name takes its place until it is deleted."""
    bundled = service.categories()["mediums"]
    assert "an oil painting" in service.list_text("mediums").splitlines()
    with pytest.raises(BadWordList, match="no list 'mediums' of your own"):
        service.delete_list("mediums")
    service.save_list("mediums", "clay\n")
    assert service.categories()["mediums"].phrases == ("clay",)
    service.delete_list("mediums")
    assert service.categories()["mediums"] == bundled


@pytest.mark.parametrize(
    ("name", "content", "phrases"),
    [
        ("mine.txt", "one\ntwo\n", ("one", "two")),
        ("mine.top3.txt", "one\n", ("one",)),
        ("mine.csv", "phrase,kind\none,a\ntwo,b\n", ("one", "two")),
        ("mine.yaml", "a: [one]\nb: [two]\n", ("one", "two")),
    ],
)
def test_files_are_taken_over_as_they_are(service, folder, tmp_path, name, content, phrases):
    """Byte for byte; their text can be changed, and a second one of the name is refused."""
    (tmp_path / "upload").write_text(content, encoding="utf-8")
    assert service.import_list(tmp_path / "upload", name) == "mine"
    assert (folder / name).read_text(encoding="utf-8") == content
    assert service.categories()["mine"].phrases == phrases
    assert service.list_text("mine") == content
    with pytest.raises(BadWordList, match="a list 'mine' already"):
        service.import_list(tmp_path / "upload", name)
    service.save_list("mine", content)
    assert [path.name for path in folder.iterdir()] == [name]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("mine.exe", b"one", "must end in .txt"),
        ("mine.txt", b"", "holds no phrase"),
        ("mine.txt", b"\xff\xf8\n", "mine.txt, line 1: It is not UTF-8"),
        ("mine.yaml", b"a: [", "line 2: The YAML can't be read"),
        ("sets.yaml", b"a: [b]", "can't be called 'sets'"),
        ("..txt", b"x", "can't be called"),
    ],
)
def test_a_file_that_is_no_list_is_refused_and_leaves_nothing(
    service, folder, tmp_path, name, content, sentence
):
    """The sentence says why."""
    (tmp_path / "upload").write_bytes(content)
    with pytest.raises(BadWordList) as caught:
        service.import_list(tmp_path / "upload", name)
    assert sentence in str(caught.value)
    assert not folder.exists() or not list(folder.iterdir())


def test_a_tree_that_would_be_broken_keeps_its_old_text(service, tmp_path):
    """What can't be read at all is not written over what can."""
    (tmp_path / "upload").write_text("a: [one]\n", encoding="utf-8")
    service.import_list(tmp_path / "upload", "mine.yaml")
    with pytest.raises(BadWordList, match="can't be read"):
        service.save_list("mine", "a: [one\n")
    assert service.list_text("mine") == "a: [one]\n"


def test_a_folder_of_lists_is_shown_and_not_changed(service, folder):
    """Its files are the user's to change."""
    (folder / "mine").mkdir(parents=True)
    (folder / "mine" / "cats.txt").write_text("tabby\n", encoding="utf-8")
    assert service.list_text("mine") == "tabby\n"
    for act in (lambda: service.save_list("mine", "x"), lambda: service.delete_list("mine")):
        with pytest.raises(BadWordList, match="is a folder of lists"):
            act()


def test_a_list_that_can_not_be_read_is_not_written_over(service, folder):
    """It is known by its name, and its text can be mended."""
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("a: [one\n", encoding="utf-8")
    assert service.categories()["mine"].own
    assert "can't be read" in service.categories()["mine"].problems[0]
    assert service.list_text("mine") == "a: [one\n"
    with pytest.raises(BadWordList, match="can't be read"):
        service.save_list("mine", "b: [two\n")
    assert (folder / "mine.yaml").read_text(encoding="utf-8") == "a: [one\n"
    assert service.save_list("mine", "a: [one]\n") == []
    assert service.categories()["mine"].phrases == ("one",)
    service.check(InterrogateOptions(caption="a cat"), ModelOptions(("demo",), "none"))


def test_an_unreadable_list_stops_no_question(service, folder):
    """The set of all lists goes on without it."""
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("a: [one\n", encoding="utf-8")
    service.check(InterrogateOptions(caption="a cat"), ModelOptions(("demo",), "none"))


def test_a_list_in_utf16_is_shown_and_saved(service, folder):
    """As Windows' editor writes it."""
    folder.mkdir(parents=True)
    (folder / "mine.txt").write_bytes("naïve\r\n".encode("utf-16"))
    assert service.list_text("mine").splitlines() == ["naïve"]
    (folder / "other.txt").write_bytes(b"na\xefve\nfine\n")
    assert service.categories()["other"].phrases == ("fine",)
    with pytest.raises(BadWordList, match="is not UTF-8"):
        service.list_text("other")


@pytest.mark.parametrize("line", ["#tag", "{a|b", "!!"])
def test_what_would_not_be_read_back_is_not_added(service, line):
    """And nothing else of the same try either."""
    service.save_list("mine", "one\n")
    with pytest.raises(BadWordList, match="can't be added"):
        service.add_to_list("mine", ["two", line])
    assert service.list_text("mine") == "one\n"


def test_signs_that_no_file_can_hold_are_refused(service):
    """A half of a sign, as a browser may send it."""
    for act in (service.save_list, lambda name, text: service.add_to_list(name, [text])):
        with pytest.raises(BadWordList, match=r"signs that (no file can hold|are no text)"):
            act("mine", "a\ud800b")


def test_lines_added_at_once_are_all_there(service):
    """By several pages."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: service.add_to_list("mine", [f"w{number}"]), range(40)))
    assert len(service.categories()["mine"].phrases) == 40


def test_strangers_change_nothing(service, tmp_path):
    """They may read."""
    service.save_list("dragons", "hydra\n")
    service.host.trusted = False
    for act in (
        lambda: service.save_list("dragons", "x"), lambda: service.add_to_list("dragons", ["x"]),
        lambda: service.delete_list("dragons"), lambda: service.import_list(tmp_path, "x.txt"),
        service.get_classic,
    ):
        with pytest.raises(NotAllowed):
            act()
    assert service.list_text("dragons") == "hydra\n"


def test_a_folder_that_can_not_be_written_is_told(service, folder):
    """A file stands where the folder should be."""
    folder.parent.mkdir(exist_ok=True)
    folder.write_text("no folder", encoding="utf-8")
    with pytest.raises(BadWordList, match="can't be written"):
        service.save_list("dragons", "hydra\n")


def test_what_the_reader_would_refuse_is_not_added(service):
    """Otherwise it would be added again and again."""
    for line in ("x" * 1001, "a\x01b"):
        with pytest.raises(BadWordList, match="can't be added"):
            service.add_to_list("dragons", [line])


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_permissions_and_links_stay(service, folder, tmp_path):
    """A list that others read, and one that lies elsewhere."""
    service.save_list("dragons", "hydra")
    assert (folder / "dragons.txt").stat().st_mode & 0o777 == 0o666 & ~_umask()
    (folder / "dragons.txt").chmod(0o640)
    elsewhere = tmp_path / "elsewhere.txt"
    elsewhere.write_text("griffin", encoding="utf-8")
    (folder / "linked.txt").symlink_to(elsewhere)
    for name in ("dragons", "linked"):
        service.save_list(name, "wyvern")
    assert (folder / "dragons.txt").stat().st_mode & 0o777 == 0o640
    assert (folder / "linked.txt").is_symlink()
    assert elsewhere.read_text(encoding="utf-8") == "wyvern"


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def test_a_name_that_is_ours_but_for_its_case_is_refused(service, folder, caplog):
    """Negative words would come into prompts otherwise."""
    with pytest.raises(BadWordList, match="'negative': take that name"):
        service.save_list("Negative", "bad hands")
    folder.mkdir()
    (folder / "Negative.txt").write_text("bad hands", encoding="utf-8")
    assert "Negative" not in service.categories()
    assert "Negative" not in service.positive_categories()
    assert "write its name in small letters" in caplog.text


def test_parts_spell_a_phrase_as_their_list_does(service, folder):
    """Where two spell it differently the first counts for both."""
    for part, phrase in (("a", "Paris"), ("b", "paris\n{|a}")):
        (folder / "places").mkdir(parents=True, exist_ok=True)
        (folder / "places" / f"{part}.txt").write_text(phrase, encoding="utf-8")
    category = service.categories()["places"]
    assert category.parts == {"a": frozenset({"Paris"}), "b": frozenset({"Paris", "a"})}


@pytest.mark.skipif(os.name == "nt", reason="Windows does not tell the two names apart")
def test_sets_of_another_name_are_told(service, folder, caplog):
    """On Linux they are not found."""
    folder.mkdir()
    (folder / "Sets.yaml").write_text("mine: {lists: [flavors]}", encoding="utf-8")
    assert "mine" not in service.word_sets()
    assert not service.categories()["flavors"].own
    assert "call it sets.yaml" in caplog.text
