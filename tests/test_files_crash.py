"""Whatever is kept is written while signal 9 comes at each call that changes the disk.

Run as a program, this file is the one that follows and kills: it imports what is slow once and
forks for each start.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

try:
    from tests import tracing
except ImportError:  # Windows has no such processes
    tracing = None  # type: ignore[assignment]

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(
    tracing is None or not tracing.possible(), reason="no process can be followed here"
)

OLD = "# dragons\nhydra\n{red|blue} drake\n"
NEW = "".join(f"dragon {number}\n" for number in range(3000))
WEIGHTS = bytes(range(256)) * 64
PUBLISHED = f"model-{hashlib.sha256(WEIGHTS).hexdigest()[:8]}.pt"


class Case(NamedTuple):
    """Something that is kept: what lies there before, what writes it, and what is then read.

    The work, done again, makes whole what a kill has left. `needs` are calls that it must have
    been killed at; where a case writes `many` files, each of them is the old or the new one.
    """

    lay: Callable[[Path], object]
    work: Callable[[Path], object]
    read: Callable[[Path], object]
    needs: frozenset[str]
    many: bool = False
    halfway: bool = True  # some writes are as those of other cases


# What the cases do


def store(folder: Path) -> Any:
    from clip_interrogator_ext.vocabulary.tables import PhraseStore

    return PhraseStore(folder)


def own(folder: Path) -> Any:
    from clip_interrogator_ext.vocabulary.own import OwnLists

    return OwnLists(folder)


def nothing(_folder: Path) -> None:
    """Lay nothing."""


def compute(count: int) -> Callable[[Path], str]:
    """Return what has the vectors of so many phrases, and says which they are."""

    def work(folder: Path) -> str:
        from tests.word_encoder import WordEncoder

        words = [f"w{number}" for number in range(40)]
        found = store(folder).vectors(WordEncoder(words), "flavors", words[:count])
        return hashlib.sha256(found.numpy().tobytes()).hexdigest()

    return work


def known(folder: Path) -> list[str]:
    from tests.word_encoder import WordEncoder

    compute(len(found := store(folder).known(WordEncoder([]).key(), "flavors")))(folder)
    return sorted(found)


def lists(folder: Path) -> dict[str, Any]:
    from clip_interrogator_ext.vocabulary.lists import load_categories
    from clip_interrogator_ext.vocabulary.sets import load_sets

    found = load_categories(folder)
    mine = {name: one for name, one in found.items() if one.own}
    assert all(one.phrases and not one.problems for one in mine.values())
    sets = [name for name, one in load_sets(found, folder).items() if one.own]
    return {**{name: list(one.phrases) for name, one in mine.items()}, "": sets}


def lay_lists(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "dragons.txt").write_text(OLD)
    (folder / "sets.yaml").write_text("mine:\n  lists: [mediums, dragons: 2]\n")
    (folder / "sets.yaml").chmod(0o640)


def save(folder: Path) -> None:
    own(folder).save("dragons", NEW)


def save_in_place_of_ours(folder: Path) -> None:
    own(folder).save("mediums", NEW)


def add(folder: Path) -> None:
    own(folder).add("dragons", ["wyvern", "hydra", "kelpie"])


def take_over(folder: Path) -> None:
    if not (folder / "beasts.csv").exists():
        source = folder.parent / "source.csv"
        source.write_text("name,of\nhydra,water\n" + "".join(f"b{n},air\n" for n in range(2000)))
        own(folder).take_over(source, "beasts.csv")


def delete(folder: Path) -> None:
    if (folder / "dragons.txt").exists():
        own(folder).delete("dragons")


def download(folder: Path) -> None:
    from clip_interrogator_ext.models import downloads

    source = folder.parent / "published" / PUBLISHED
    source.parent.mkdir(exist_ok=True)
    source.write_bytes(WEIGHTS)
    downloads.fetch_url(source.as_uri(), folder / PUBLISHED, downloads.Transfer())


def models(folder: Path) -> list[str]:
    from clip_interrogator_ext.models import leftovers

    leftovers.clear([folder])
    return [path.name for path in folder.glob("[!.]*")]


def lay_beginning(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f".partial-{PUBLISHED}").write_bytes(WEIGHTS[:5000])


def lay_model(folder: Path) -> None:
    (folder / "mine").mkdir(parents=True)
    for number in range(4):
        (folder / "mine" / f"{number}.safetensors").write_bytes(WEIGHTS[: 100 + number])


def remove_model(folder: Path) -> None:
    from clip_interrogator_ext.models import leftovers

    leftovers.clear([folder])
    if (folder / "mine").exists():
        leftovers.remove(folder / "mine")


def lay_pictures(folder: Path) -> None:
    from tests.test_batch import draw

    for number in range(2):
        draw(folder / f"{number}.png", number)
    (folder / "1.txt").write_text("old")


def append(folder: Path) -> None:
    from tests.test_batch import Engine, run

    run(Engine(), folder, existing="append")


def lay_uploads(folder: Path) -> None:
    lay_pictures(folder.parent / "sent")
    upload(folder)


def upload(folder: Path) -> None:
    """Have the page's batch of uploaded pictures run to its end."""
    from clip_interrogator_ext.batch import uploads
    from clip_interrogator_ext.batch.jobs import jobs_of
    from clip_interrogator_ext.batch.options import BatchOptions
    from clip_interrogator_ext.host import StandaloneHost
    from clip_interrogator_ext.options import ModelOptions
    from clip_interrogator_ext.service import Service
    from tests.test_batch import Engine

    service, engine = Service(StandaloneHost("cpu"), cache_dir=folder), Engine()
    for name in ("lists", "series", "preparer", "captions", "vectors", "interrogate"):
        setattr(service, name, getattr(engine, name))
    lay_pictures(folder.parent / "sent")
    sent = [
        uploads.Upload(path.name, path) for path in sorted(folder.parent.glob("sent/*.png"))
    ]
    models = ModelOptions(("demo",), "demo")
    ended = uploads.add(service, sent, BatchOptions("uploaded", models=models))
    while not ended.ended:
        time.sleep(0.005)
        ended = jobs_of(service).get(ended.name)
    assert (ended.state, ended.result.done, ended.failures) == ("done", 2, ()), ended


def start_page(folder: Path) -> list[Any]:
    """Clear away what a killed process has left, as the page does; return what is there still."""
    from clip_interrogator_ext.batch import uploads
    from clip_interrogator_ext.host import StandaloneHost
    from clip_interrogator_ext.service import Service

    uploads.clear_left(Service(StandaloneHost("cpu"), cache_dir=folder))
    return [path.name for path in folder.rglob("*") if path.suffix == ".png"]


WRITE = frozenset({"openat", "write", "fsync", "rename"})
CASES = {
    "vectors": Case(nothing, compute(40), known, WRITE | {"mkdir"}),
    "more vectors": Case(compute(9), compute(40), known, WRITE),
    "a list": Case(lay_lists, save, lists, WRITE),
    "a list in place of ours": Case(lay_lists, save_in_place_of_ours, lists, WRITE),
    "lines behind a list": Case(lay_lists, add, lists, WRITE),
    "a list taken over": Case(lay_lists, take_over, lists, WRITE),
    "a list deleted": Case(lay_lists, delete, lists, frozenset({"unlink"})),
    "a download": Case(nothing, download, models, WRITE | {"mkdir"}),
    "a download gone on with": Case(lay_beginning, download, models, WRITE | {"ftruncate"}),
    "a model deleted": Case(
        lay_model, remove_model, models, frozenset({"rename", "unlinkat", "rmdir"})
    ),
    "a batch": Case(lay_pictures, append, nothing, WRITE, many=True),
    "uploads": Case(nothing, upload, start_page, WRITE | {"mkdir", "unlinkat"}, True, False),
    "uploads again": Case(lay_uploads, upload, start_page, WRITE | {"mkdir"}, True, False),
}


# What is asked of them


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Any]:
    """For each case the calls that it was killed at, and what was wrong afterwards."""
    program = subprocess.run(
        [sys.executable, __file__], cwd=ROOT, text=True, timeout=1200, capture_output=True,
        check=False, env={
            **os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
    )
    assert program.returncode == 0, program.stdout + program.stderr
    return json.loads(program.stdout)


@pytest.mark.parametrize("case", CASES)
def test_killed_at_any_call_it_is_the_old_or_the_new_one(outcomes, case):
    """Byte for byte; nothing that is left is taken for it, and doing it again makes it whole."""
    tried = outcomes[case]
    assert tried["wrong"] == []
    # Not every machine has both names of a call.
    killed = {name.partition("at")[0] for name in tried["killed"]}
    assert {name.partition("at")[0] for name in CASES[case].needs} <= killed
    assert tried["halfway"] > 0 or not {"write"} & CASES[case].needs or not CASES[case].halfway


# The program that follows and kills


def main() -> dict[str, Any]:
    """Try each case at each of its calls."""
    logging.disable(logging.ERROR)  # what is found damaged would be told
    for case in CASES.values():  # in this process first, so that no start imports anything
        with tempfile.TemporaryDirectory() as scratch:
            laid(case, Path(scratch) / "kept")
            case.work(Path(scratch) / "kept")
    told = {}
    for name, case in CASES.items():
        with tempfile.TemporaryDirectory() as scratch:
            told[name] = tried(case, Path(os.path.realpath(scratch)))
    return told


def laid(case: Case, folder: Path) -> Path:
    folder.parent.mkdir(exist_ok=True)
    case.lay(folder)
    return folder


def tried(case: Case, scratch: Path) -> dict[str, Any]:
    """Kill the work of a case at each of its calls, and look at what is there each time."""
    old = laid(case, scratch / "old" / "kept")
    new = laid(case, scratch / "new" / "kept")
    followed = tracing.follow(lambda: case.work(new) and None, new)
    assert followed.answer is None, followed.answer
    right = {"old": (files(old), case.read(old)), "new": (files(new), case.read(new))}
    told: dict[str, Any] = {"killed": Counter(), "halfway": 0, "wrong": []}
    # After a call is before the next one.
    kills = [tracing.Kill(call, "before") for call in range(len(followed.calls))]
    kills += [
        tracing.Kill(call, "halfway") for call, name in enumerate(followed.calls)
        if name == "write" and case.halfway
    ]
    kills.append(tracing.Kill(len(followed.calls) - 1, "after"))
    for number, kill in enumerate(kills):
        folder = laid(case, scratch / str(number) / "kept")
        ended = tracing.follow(lambda folder=folder: case.work(folder) and None, folder, kill)
        if not ended.killed:  # threads change places
            continue
        told["killed"][ended.calls[-1]] += 1
        told["halfway"] += kill.when == "halfway"
        try:
            wrong = [*faults(case, folder, right), *faults_of_another_try(case, folder, right)]
        except Exception as error:  # noqa: BLE001 - which is what is looked for
            wrong = [repr(error)]
        told["wrong"] += [f"{ended.calls[-1]}, {kill}: {one}" for one in wrong]
    return told


def files(folder: Path) -> dict[str, str]:
    """Return every file by its name, hidden ones too: its rights and what stands in it."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != ".lock":
            parts = path.relative_to(folder).parts
            name = "/".join("batch" if part.startswith("batch-") else part for part in parts)
            found[name] = content(path)
    return found


def content(path: Path) -> str:
    """Return what stands in a file, apart from what is different each time."""
    data = path.read_bytes()
    if path.suffix == ".zip" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return repr({name: archive.read(name) for name in archive.namelist()})
    if path.suffix == ".safetensors" and data[:1] not in (b"", b"\0"):
        end = 8 + int.from_bytes(data[:8], "little")  # names in the head come in any order
        data = json.dumps(json.loads(data[8:end]), sort_keys=True).encode() + data[end:]
    if path.name.endswith((".journal", ".looks")):
        return ""  # they have numbers and times of their own; tests/test_batch_crash.py reads them
    return f"{path.stat().st_mode:o} {hashlib.sha256(data).hexdigest()}"


def faults(case: Case, folder: Path, right: dict[str, Any]) -> list[str]:
    """Return what is wrong with what lies there after a kill."""
    wrong = []
    (old, old_read), (new, new_read) = right["old"], right["new"]
    there = visible(files(folder))
    if case.many:
        for name, found in there.items():
            if found not in (old.get(name), new.get(name)) and not is_copy(name):
                wrong.append(f"{name} is neither the old nor the new one")
        lost = {*visible(old)} & {*visible(new)} - {*there}
        if not all(map(is_copy, lost)):
            wrong.append(f"{lost} are gone")
    elif there not in (visible(old), visible(new)):
        wrong.append(f"{there} is neither the old nor the new one")
    if (read := case.read(folder)) not in (old_read, new_read):
        wrong.append(f"it is read as {read}")
    return wrong


def faults_of_another_try(case: Case, folder: Path, right: dict[str, Any]) -> list[str]:
    """Return what is wrong when the work was done again."""
    case.work(folder)
    new, new_read = right["new"]
    wrong = []
    if files(folder) != new:
        wrong.append(f"done again, it is {files(folder)}")
    if (read := case.read(folder)) != new_read:
        wrong.append(f"done again, it is read as {read}")
    return wrong


def visible(found: dict[str, str]) -> dict[str, str]:
    return {
        name: what for name, what in found.items()
        if not any(part.startswith(".") for part in name.split("/"))
    }


def is_copy(name: str) -> bool:
    """Say whether a file is of an upload that nobody but its own batch reads."""
    return "/pictures/" in name or "/output/" in name


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main()))
