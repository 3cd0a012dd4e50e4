"""Every file that we keep: damaged in a byte, on a full disk, in a folder of others, or no file."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from clip_interrogator_ext.batch.folder import Batch
from clip_interrogator_ext.batch.options import BatchOptions
from clip_interrogator_ext.errors import BadWordList, InterrogatorError
from clip_interrogator_ext.files import changing
from clip_interrogator_ext.models import downloads
from clip_interrogator_ext.options import InterrogateOptions
from clip_interrogator_ext.vocabulary import lists
from clip_interrogator_ext.vocabulary.own import OwnLists
from clip_interrogator_ext.vocabulary.sets import load_sets, read_sets
from clip_interrogator_ext.vocabulary.tables import PhraseStore
from tests.faults import Disk, as_another_user, needs_posix, succeeds
from tests.test_batch import LOOKS, NAME, TINY, Engine, draw, run, texts, tree, without_seconds
from tests.test_downloads import Origin
from tests.word_encoder import WordEncoder

WORDS = [f"w{number}" for number in range(40)]
VECTORS = Path("words", "flavors.safetensors")
CURRENT = WordEncoder(WORDS).encode_texts(WORDS).half()

pytestmark = needs_posix


@pytest.fixture
def encoder() -> WordEncoder:
    return WordEncoder(WORDS)


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder, hidden ones too."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".filler"
    }


def flips(content: bytes, count: int, seed: str) -> list[bytes]:
    """Return the content with one byte changed, at so many places, all of the first ones."""
    dice = random.Random(seed)
    changed = []
    for number in range(count):
        at = number if number < count // 3 else dice.randrange(len(content))
        new = dice.choice([content[at] ^ 1 << dice.randrange(8), dice.randrange(256), 10, 48])
        if new != content[at]:
            changed.append(content[:at] + bytes([new]) + content[at + 1 :])
    return changed


# One flipped byte


def test_vectors_with_a_flipped_byte_are_built_anew(encoder, tmp_path, caplog):
    """Wherever it is, in the head too; what is ready is told without an error."""
    words = WORDS[:9]
    right = PhraseStore(tmp_path).vectors(encoder, "flavors", words)
    good = (tmp_path / VECTORS).read_bytes()
    built = 0
    for content in flips(good, 450, "vectors"):
        (tmp_path / VECTORS).write_bytes(content)
        store = PhraseStore(tmp_path)
        store.known("words", "flavors")
        caplog.clear()
        assert torch.equal(store.vectors(encoder, "flavors", words), right)
        # But for a few places that mean nothing.
        built += store.encoded == len(words) and "is built anew" in caplog.text
        assert PhraseStore(tmp_path).known("words", "flavors") == set(words)
    assert built > 440


@pytest.mark.parametrize(
    "head",
    [
        b'{"__metadata__":{"format":"1"},"phrases":{"dtype":"U8","shape":[9],"data_offsets":[0,9]},'
        b'"vectors":{"dtype":"F16","shape":[1,%d],"data_offsets":[9,%d]}}' % (2**52, 2**53 + 9),
        b"[" * 4000, b'{"__metadata__":{"format":"0"}}', b"", b"null",
    ],
    ids=["petabytes", "deep", "another version", "zeros", "null"],
)
def test_vectors_are_not_read_beyond_what_there_is(encoder, tmp_path, caplog, head):
    """A file that claims more than it has, or is endless and empty, is told before it is read."""
    path = tmp_path / VECTORS
    path.parent.mkdir()
    path.write_bytes(len(head).to_bytes(8, "little") + head)
    os.truncate(path, 2**40)  # takes no room, until somebody reads it
    store = PhraseStore(tmp_path)
    assert store.known("words", "flavors") == set()
    assert torch.equal(store.vectors(encoder, "flavors", WORDS), CURRENT)
    assert "is built anew" in caplog.text
    assert store.known("words", "flavors") == set(WORDS)


BATCHES = {
    "append": {"existing": "append"},
    "prepend": {"existing": "prepend", "asked": InterrogateOptions(negative=True)},
    "replace": {"existing": "replace"},
    "skip": {},
    "jsonl": {"form": "jsonl"},
}


@pytest.mark.parametrize("case", BATCHES)
def test_a_journal_with_a_flipped_byte_gives_the_same_files(tmp_path, caplog, case):
    """At most one picture is asked about again; no prompt is joined twice, and no text is lost."""
    photos, kept = tmp_path / "photos", tmp_path / "kept"
    for number in range(3):
        draw(photos / f"{number}.png", number)
    if case != "jsonl":
        (photos / "0.txt").write_text("what stood there\n")
        (photos / "1.txt").write_text("what stood, there,")
    run(Engine(), photos, **BATCHES[case])
    good = (photos / NAME).read_bytes()
    shutil.copytree(photos, kept)
    expected = {path.name: without_seconds(path) for path in photos.iterdir() if path.name != NAME}
    for content in flips(good, 60, case):
        shutil.rmtree(photos)
        shutil.copytree(kept, photos)
        (photos / NAME).write_bytes(content)
        engine = Engine()
        caplog.clear()
        result = run(engine, photos, **BATCHES[case])
        assert (result.done + result.skipped, len(engine.asked) < 2) == (3, True)
        left = {path.name: without_seconds(path) for path in photos.iterdir() if path.name != NAME}
        # A table whose line is damaged can't be known for our own: it is kept beside the new one.
        assert left.pop("prompts.jsonl.bak", expected.get("prompts.jsonl")) == expected.get(
            "prompts.jsonl"
        )
        assert left == expected
        assert "is damaged, skipped" in caplog.text or content[-1:] != b"\n"


def test_a_text_that_was_edited_is_not_joined_twice_either(tmp_path):
    """Though the journal has lost that we wrote in it."""
    photos = tmp_path / "photos"
    draw(photos / "a.png", 1)
    (photos / "a.txt").write_text("old")
    run(Engine(), photos, existing="append")
    assert texts(photos) == {"a.txt": "old, caption 1, by tiny, (fine)"}
    (photos / "a.txt").write_text("old, caption 1, by tiny, (fine), mine")
    lines = (photos / NAME).read_bytes().splitlines(keepends=True)
    (photos / NAME).write_bytes(b"".join(line for line in lines if b'"done"' not in line))
    run(Engine(), photos, existing="append")
    assert texts(photos) == {"a.txt": "old, caption 1, by tiny, (fine), mine"}


def test_looks_with_a_flipped_byte_are_looked_at_again(tmp_path, caplog):
    """No prompt is made from vectors that are not those of its picture."""
    photos, kept = tmp_path / "photos", tmp_path / "kept"
    for number in range(3):
        draw(photos / f"{number}.png", number)
    engine = Engine()
    batch = Batch(engine, BatchOptions(str(photos), models=TINY))
    engine.before = lambda _count: batch.stop()
    batch.run()
    shutil.copytree(photos, kept)
    for content in flips((photos / LOOKS).read_bytes(), 60, "looks"):
        shutil.rmtree(photos)
        shutil.copytree(kept, photos)
        (photos / LOOKS).write_bytes(content)
        engine, seen = Engine(), []
        inner = engine.interrogate
        engine.interrogate = lambda look, *rest, i=inner, s=seen: s.append(look) or i(look, *rest)
        caplog.clear()
        assert run(engine, photos).done == 3
        assert [look.vectors for look in seen] == [((1.0,),), ((2.0,),)]
        assert "damaged" in caplog.text
        assert engine.looked == [[1, 2]]


def test_a_journal_that_is_damaged_while_it_is_read_is_a_sentence(tmp_path):
    """A wrong answer would be written otherwise."""
    photos = tmp_path / "photos"
    for number in range(2):
        draw(photos / f"{number}.png", number)
    engine = Engine()

    def flip(count: int) -> None:
        if count == 1:
            content = (photos / NAME).read_bytes()
            (photos / NAME).write_bytes(content.replace(b"by tiny", b"by tinz"))

    engine.before = flip
    with pytest.raises(InterrogatorError, match="was damaged while it was in use"):
        run(engine, photos, form="csv")
    engine.before = lambda _count: None
    run(engine, photos, form="csv")
    assert b"tinz" not in (photos / "prompts.csv").read_bytes()


def test_journals_of_other_versions_are_refused(tmp_path):
    """They are left as they are."""
    photos = tmp_path / "photos"
    draw(photos / "a.png", 1)
    for content in (b'{"kind": "journal", "version": 1, "id": "aa"}\n{"kind": "answer"}\n',
                    b'{"kind": "journal", "version": 3, "id": "aa", "sum": 5}\n'):
        (photos / NAME).write_bytes(content)
        with pytest.raises(InterrogatorError, match="by another version"):
            run(Engine(), photos)
        assert (photos / NAME).read_bytes() == content


def test_lists_and_sets_with_a_flipped_byte_are_read_as_far_as_they_can_be(tmp_path):
    """Whatever the byte becomes, lists load, and what is left out is told."""
    for name, text in (
        ("mine.txt", "# comment\n{red|blue} drake\nnaïve\n"),
        ("mine.csv", 'name,era\n"hydra, old",ancient;modern\nkelpie,modern\n'),
        ("mine.yaml", "water:\n  - kelpie\n  - {fire: [drake, wyvern]}\n"),
        ("sets.yaml", "mine:\n  about: mine\n  lists: [mediums, flavors: 3]\n  without: [sites]\n"),
    ):
        good = text.encode()
        for content in flips(good, 3 * len(good), name):
            (tmp_path / name).write_bytes(content)
            categories = lists.load_categories(tmp_path)
            for category in categories.values():
                assert category.phrases or category.problems
            load_sets(categories, tmp_path)
        (tmp_path / name).unlink()


@pytest.mark.parametrize("length", [1, 5000, 40_000])
def test_half_a_download_with_a_flipped_byte_is_begun_anew(length, tmp_path):
    """Wherever it is, also where all of it had come; nothing else gets the file's name."""
    body = random.Random(length).randbytes(40_000)
    places = {0, length - 1, *(random.Random(length).randrange(length) for _ in range(20))}
    with Origin(body) as origin:
        thread = threading.Thread(target=origin.serve_forever, daemon=True)
        thread.start()
        target = tmp_path / origin.url.rsplit("/", 1)[-1]
        for place in places:
            half = bytearray(body[:length])
            half[place] ^= 1 << place % 8
            downloads.partial_of(target).write_bytes(half)
            downloads.fetch_url(origin.url, target, downloads.Transfer())
            assert contents(tmp_path) == {target.name: body}
            target.unlink()
        assert origin.asked == [f"bytes={length}-", "whole"] * len(places)
        origin.shutdown()
        thread.join()


# A full disk


def test_vectors_on_a_full_disk_are_kept_in_memory(disk: Disk, encoder, caplog):
    """With a warning, and written when there is room; the old file stays as it was."""
    store = PhraseStore(disk.folder)
    store.vectors(encoder, "flavors", WORDS[:1])
    before = contents(disk.folder)
    with disk.full():
        for _ in range(2):
            assert torch.equal(store.vectors(encoder, "flavors", WORDS), CURRENT)
        assert contents(disk.folder) == before
    assert caplog.text.count("can't be kept") == 1
    assert store.encoded == len(WORDS)
    assert torch.equal(store.vectors(encoder, "flavors", WORDS), CURRENT)
    assert store.encoded == len(WORDS)
    again = PhraseStore(disk.folder)
    assert torch.equal(again.vectors(encoder, "flavors", WORDS), CURRENT)
    assert again.encoded == 0


def test_a_list_on_a_full_disk_keeps_its_old_text(disk: Disk):
    """A sentence says why, and nothing is left beside it."""
    own = OwnLists(disk.folder)
    own.save("dragons", "hydra\n")
    before = contents(disk.folder)
    with disk.full():
        for act in (
            lambda: own.save("dragons", "wyvern\n" * 100),
            lambda: own.add("dragons", [f"dragon {number}" for number in range(100)]),
            lambda: own.save("new", "wyvern\n" * 100),
        ):
            with pytest.raises(BadWordList, match=r"can't be written \((No space|File too large)"):
                act()
        assert contents(disk.folder) == before
    own.save("dragons", "wyvern\n" * 100)
    assert own.text("dragons") == "wyvern\n" * 100


@pytest.mark.parametrize("form", ["txt", "csv"])
def test_a_batch_on_a_full_disk_goes_on_when_there_is_room(disk: Disk, tmp_path, form):
    """Whatever it could not write: journal, looks, texts, table. Nothing is asked twice."""
    whole = tmp_path / "whole"
    for number in range(8):
        draw(whole / f"{number}.png", number)
    (whole / "1.txt").write_text("old")
    photos = disk.folder / "photos"
    shutil.copytree(whole, photos)
    options = {"form": form, "existing": "append" if form == "txt" else "replace"}
    run(Engine(), whole, **options)
    engine = Engine()
    for left in (0, 1, 4096, 8192, 12288):
        with disk.full(left):
            try:
                result = run(engine, photos, **options)
            except InterrogatorError as error:
                assert "can't be written" in str(error)
            else:
                assert result.failures or left > 4096
    assert run(engine, photos, **options).done == 8
    assert tree(photos) == tree(whole)
    assert not [path for path in photos.iterdir() if path.suffix == ".part"]
    assert len(engine.asked) <= 8 + 5  # what the engine said when the journal could not take it


# A folder of others, and files that can't be replaced


def test_another_users_folder_costs_a_warning_and_time(open_folder, encoder, caplog):
    """Vectors are computed, lists are read, and what can't be written is told."""
    PhraseStore(open_folder / "cache").vectors(encoder, "flavors", WORDS[:3])
    OwnLists(open_folder / "lists").save("dragons", "hydra\n")
    before = contents(open_folder)
    with as_another_user():
        store, own = PhraseStore(open_folder / "cache"), OwnLists(open_folder / "lists")
        assert torch.equal(store.vectors(encoder, "flavors", WORDS), CURRENT)
        assert torch.equal(store.vectors(encoder, "artists", WORDS), CURRENT)
        assert own.text("dragons") == "hydra\n"
        for act in (
            lambda: own.save("dragons", "wyvern"), lambda: own.add("mine", ["wyvern"]),
            lambda: own.delete("dragons"),
        ):
            with pytest.raises(BadWordList, match="Permission denied"):
                act()
    assert caplog.text.count("can't be kept") == 1
    assert contents(open_folder) == before


def test_a_file_of_vectors_that_may_not_be_read_is_replaced_or_left(open_folder, encoder, caplog):
    """It is told, and the vectors are right."""
    PhraseStore(open_folder).vectors(encoder, "flavors", WORDS[:3])
    (open_folder / VECTORS).chmod(0)
    with as_another_user():
        store = PhraseStore(open_folder)
        assert store.known("words", "flavors") == set()
        assert torch.equal(store.vectors(encoder, "flavors", WORDS), CURRENT)
    assert "Permission denied" in caplog.text


def test_a_batch_in_another_users_folder_is_told(open_folder):
    """Before anything is asked; nothing is left there."""
    draw(open_folder / "photos" / "a.png", 1)
    engine = Engine()
    with as_another_user(), pytest.raises(InterrogatorError, match=r"can't be written"):
        run(engine, open_folder / "photos")
    assert not engine.asked
    assert set(contents(open_folder)) == {"photos/a.png"}


@pytest.fixture(params=["immutable", "as on Windows"])
def held(request, monkeypatch) -> Callable[[Path], Callable[[], None]]:
    """Keep a file from being replaced, as Windows does while it is mapped; returns what ends it."""

    def hold(path: Path) -> Callable[[], None]:
        if request.param == "as on Windows":

            def refuse(source: object, target: object) -> None:
                raise PermissionError(13, "Access is denied", source, 5, target)

            monkeypatch.setattr(os, "replace", refuse)
            return monkeypatch.undo
        command = ["chattr", "+i", str(path)]
        if not succeeds(command):
            pytest.skip("we can make no file immutable here")
        return lambda: subprocess.run(["chattr", "-i", str(path)], check=True) and None

    return hold


def test_vectors_that_can_not_be_replaced_are_written_later(held, encoder, tmp_path, caplog):
    """As on Windows while another process has them mapped."""
    store = PhraseStore(tmp_path)
    store.vectors(encoder, "flavors", WORDS[:9])
    before = contents(tmp_path)
    let_go = held(tmp_path / VECTORS)
    try:
        assert torch.equal(store.vectors(encoder, "flavors", WORDS), CURRENT)
        assert contents(tmp_path) == before
    finally:
        let_go()
    assert "can't be kept" in caplog.text
    store.vectors(encoder, "flavors", WORDS[:9])
    assert store.known("words", "flavors") == set(WORDS)
    assert store.encoded == len(WORDS)


def test_nothing_that_is_read_stays_mapped(backbone_folder, encoder, tmp_path):
    """A mapped file can't be replaced on Windows, by us or by another process."""
    from clip_interrogator_ext import ModelOptions, Service, StandaloneHost

    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("this system does not tell what is mapped")
    store = PhraseStore(tmp_path)
    vectors = store.vectors(encoder, "flavors", WORDS)
    vectors = PhraseStore(tmp_path).vectors(encoder, "flavors", WORDS)
    store.known("words", "flavors")
    service = Service(StandaloneHost("cpu"), cache_dir=tmp_path)
    service.similarity(_picture(), ["a cat"], ModelOptions((str(backbone_folder),), "none"))
    ours = (str(tmp_path), str(backbone_folder))
    assert [row for row in maps.read_text().splitlines() if any(one in row for one in ours)] == []
    assert len(vectors) == len(WORDS)
    service.unload()


def _picture():
    from PIL import Image

    return Image.new("RGB", (8, 8))


# What is no ordinary file


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**42)


ODD = pytest.mark.parametrize("make", [a_pipe, endless, huge])


@ODD
@pytest.mark.parametrize("existing", ["skip", "append", "replace"])
@pytest.mark.usefixtures("in_time")
def test_an_odd_text_fails_alone(tmp_path, make, existing):
    """It is not read, not waited for, and not replaced."""
    photos = tmp_path / "photos"
    for number in range(2):
        draw(photos / f"{number}.png", number)
    make(photos / "0.txt")
    result = run(Engine(), photos, existing=existing)
    (failure,) = result.failures
    assert failure.picture.name == "0.png"
    assert "is not an ordinary file" in failure.reason or "is larger than 4 MiB" in failure.reason
    assert not (photos / "0.txt").is_file() or (photos / "0.txt").stat().st_size == 2**42
    assert (photos / "1.txt").read_text() == "caption 1, by tiny, (fine)"


@ODD
@pytest.mark.usefixtures("in_time")
def test_an_odd_caption_or_copy_does_not_stop_the_others(tmp_path, make):
    """A copy takes the next name."""
    photos = tmp_path / "photos"
    for number in range(2):
        draw(photos / f"{number}.png", number)
    make(photos / "0.caption")
    make(photos / "1.txt.bak")
    (photos / "1.txt").write_text("old")
    result = run(Engine(), photos, existing="replace", caption_from="{stem}.caption")
    assert [failure.picture.name for failure in result.failures] == ["0.png"]
    assert (photos / "1.txt.bak2").read_text() == "old"


@ODD
@pytest.mark.usefixtures("in_time")
def test_odd_files_in_the_place_of_ours(tmp_path, make):
    """Looks are made anew, a list of failures takes another name, a journal or table is told."""
    photos = tmp_path / "photos"
    draw(photos / "a.png", 1)
    (photos / "bad.png").write_bytes(b"bad")
    make(photos / LOOKS)
    result = run(Engine(), photos)
    assert result.done == 1
    if make is not huge:  # which would be read to its end to know whether it is ours
        make(photos / "prompts.csv")
        with pytest.raises(InterrogatorError, match="not an ordinary file"):
            run(Engine(), photos, form="csv")
        (photos / "failures.txt").unlink()
        make(photos / "failures.txt")
        assert run(Engine(), photos).failures_file == photos / "failures-2.txt"
        (photos / NAME).unlink()
        make(photos / NAME)
        with pytest.raises(InterrogatorError, match="can't be written"):
            run(Engine(), photos)


@pytest.mark.usefixtures("in_time")
def test_links_lead_nobody_out_of_the_folder(tmp_path):
    """What they lead to is not read into a text, nor written over; links within are followed."""
    photos, secret, bashrc = tmp_path / "photos", tmp_path / "secret", tmp_path / "bashrc"
    for number in range(5):
        draw(photos / f"{number}.png", number)
    secret.write_text("the secret")
    bashrc.write_text("not a whole line")
    (photos / "0.caption").symlink_to(secret)
    (photos / "1.txt").symlink_to(secret)
    (photos / "2.caption").symlink_to("shared.caption")
    (photos / "shared.caption").write_text("all alike")
    (photos / "3.txt").symlink_to(tmp_path / "nothing")
    (photos / "failures.txt").symlink_to(secret)
    for existing in ("append", "replace"):
        result = run(Engine(), photos, existing=existing, caption_from="{stem}.caption")
        assert [failure.picture.name for failure in result.failures] == ["0.png", "1.png"]
        assert all("is a link that leads out" in failure.reason for failure in result.failures)
    assert (photos / "2.txt").read_text() == "all alike, by tiny, (fine)"
    assert not (photos / "3.txt").is_symlink()
    assert not (tmp_path / "nothing").exists()
    assert run(Engine(), photos).failures == ()  # where texts are only looked at, they are skipped
    (photos / NAME).unlink()
    (photos / NAME).symlink_to(bashrc)
    with pytest.raises(InterrogatorError, match="can't be written"):
        run(Engine(), photos)
    (photos / NAME).unlink()
    (photos / "prompts.csv").symlink_to(secret)
    run(Engine(), photos, form="csv", existing="replace")
    assert secret.read_text() == "the secret"
    assert bashrc.read_text() == "not a whole line"
    assert not [name for name, content in tree(photos).items()
                if b"the secret" in content and not name.startswith("prompts.csv.bak")
                and not (photos / name).is_symlink()]


@pytest.mark.parametrize("make", [a_pipe, endless])
@pytest.mark.usefixtures("in_time")
def test_lists_and_sets_that_are_no_files_are_left_alone(tmp_path, make):
    """In the user's folder, in one of another program, in a folder of lists, and by their names."""
    own, wildcards = tmp_path / "own", tmp_path / "wildcards"
    for folder in (own, wildcards, own / "inner"):
        folder.mkdir()
        (folder / "fine.txt").write_text(f"fine {folder.name}")
        make(folder / "odd.txt")
    make(own / "odd.csv")
    make(own / "sets.yaml")
    categories = lists.load_categories(own, {"wildcards": wildcards})
    assert [name for name in categories if "odd" in name] == []
    assert categories["inner"].phrases == ("fine inner",)
    load_sets(categories, own)
    assert read_sets(own / "sets.yaml", own=True) == {}
    with pytest.raises(BadWordList, match="not an ordinary file"):
        lists.read_category(own / "odd.txt")
    with pytest.raises(BadWordList, match="not an ordinary file"):
        OwnLists(own).take_over(own / "odd.csv", "new.csv")


# Two at once, and what was left


def test_what_a_killed_process_left_is_cleared_by_the_next_write(tmp_path):
    """Of any file in the folder; what is not ours stays."""
    for name in (".cliext-0123abcd.new.safetensors", ".cliext-0123abcd.new"):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / ".cliext-0123456789ab.part").write_bytes(b"of a batch")
    OwnLists(tmp_path).save("dragons", "hydra\n")
    assert set(contents(tmp_path)) == {"dragons.txt", ".cliext-0123456789ab.part"}


@pytest.mark.usefixtures("in_time")
def test_who_holds_the_folder_longer_than_others_wait_is_told(tmp_path, encoder, monkeypatch):
    """Vectors are kept in memory meanwhile, and nobody waits for ever."""
    monkeypatch.setattr("clip_interrogator_ext.files._WAIT_SECONDS", 0.2)
    store = PhraseStore(tmp_path)
    with changing(tmp_path / VECTORS):
        with pytest.raises(BadWordList, match="another program holds the folder"):
            OwnLists(tmp_path / "words").save("dragons", "hydra")
        assert torch.equal(store.vectors(encoder, "flavors", WORDS), CURRENT)
        assert contents(tmp_path) == {}
    store.vectors(encoder, "flavors", WORDS)
    assert store.known("words", "flavors") == set(WORDS)


@pytest.mark.usefixtures("in_time")
def test_a_loop_of_links_is_no_list(tmp_path):
    """And nothing can be saved there, which is told."""
    (tmp_path / "dragons.txt").symlink_to("dragons.txt")
    with pytest.raises(BadWordList, match="can't be written"):
        OwnLists(tmp_path).save("dragons", "hydra\n")
    assert OwnLists(tmp_path).save("kelpies", "kelpie\n") == ()


def test_vectors_written_by_several_threads_at_once_are_all_kept(tmp_path):
    """What one has read is old when it writes; it adds to what is there."""
    barrier = threading.Barrier(4)

    class Slow(WordEncoder):
        def encode_texts(self, texts, *rest):
            if not self.encoded:
                barrier.wait(120)
            return super().encode_texts(texts, *rest)

    def work(number: int) -> None:
        PhraseStore(tmp_path).vectors(Slow(WORDS), "flavors", WORDS[number * 9 : number * 9 + 12])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store = PhraseStore(tmp_path)
    assert store.known("words", "flavors") == set(WORDS[:39])
    assert torch.equal(store.vectors(WordEncoder(WORDS), "flavors", WORDS), CURRENT)
    assert store.encoded == 1
