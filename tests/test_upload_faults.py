"""Uploaded pictures on their way: copies that change, a disk that is full."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from random import Random

import pytest

pytest.importorskip("gradio")

from PIL import Image

from clip_interrogator_ext.batch import uploads
from clip_interrogator_ext.batch.jobs import jobs_of
from clip_interrogator_ext.batch.uploads import Upload
from clip_interrogator_ext.errors import InterrogatorError
from tests.faults import Disk, needs_posix
from tests.test_api_batch import URL, client_of
from tests.test_batch_tab import Painted, ended, options, run, texts

pytestmark = pytest.mark.hosts


@pytest.fixture
def services() -> Iterator[list[Painted]]:
    """Those whose batches end with the test."""
    made: list[Painted] = []
    yield made
    for service in made:
        service.open.set()
        jobs_of(service).stop()
        for state in jobs_of(service).all():
            ended(service, state)


def painted(services: list[Painted], folder: Path) -> Painted:
    services.append(Painted(folder))
    return services[-1]


def noisy(red: int) -> bytes:
    """Return a picture of some kilobytes, by whose first pixel it is known."""
    picture = Image.frombytes("RGB", (40, 40), Random(red).randbytes(4800))
    picture.putpixel((0, 0), (red, 0, 0))
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def sent(folder: Path, *reds: int) -> list[Upload]:
    """Return uploads as Gradio hands them over, each called after its color."""
    found = []
    for red in reds:
        path = folder / f"sent-{red}" / "file.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(noisy(red))
        found.append(Upload(f"{red}.png", path))
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".filler"
    }


@pytest.mark.parametrize("kind", ["a byte", "the end", "another picture", "gone"])
def test_a_copy_that_changes_in_the_line_is_told_and_not_answered(services, tmp_path, kind):
    """Wherever it has changed; the other pictures are done, and sent again it is done too."""
    service = painted(services, tmp_path)
    files = sent(tmp_path, 1, 2)
    good = files[0].path.read_bytes()
    places = {"a byte": 12, "the end": 3}.get(kind, 1)
    for number in range(places):
        service.open.clear()
        holding = uploads.add(service, sent(tmp_path, 100 + number), options())
        state = uploads.add(service, files, options())
        copy = Path(state.input, "1.png")
        if kind == "a byte":
            at = Random(number).randrange(len(good))
            copy.write_bytes(good[:at] + bytes([good[at] ^ 1 << number % 8]) + good[at + 1 :])
        elif kind == "the end":
            copy.write_bytes(good[: -1 - number])
        elif kind == "gone":
            copy.unlink()
        else:
            copy.write_bytes(noisy(9))
        service.open.set()
        ended(service, holding)
        now = ended(service, state)
        assert now.result is not None, now.error
        (failure,) = now.result.failures
        assert failure.picture.name == "1.png"
        assert ("is gone" in failure.reason) == (kind == "gone")
        assert texts(service, now) == {"2.txt": "red 2"}
    assert texts(service, run(service, files)) == {"1.txt": "red 1", "2.txt": "red 2"}


@needs_posix
def test_uploads_on_a_full_disk_are_told_of_and_done_when_there_is_room(
    disk: Disk, services, tmp_path
):
    """However much room there is; what was there to be fetched stays as it was."""
    service = painted(services, disk.folder)
    done = run(service, sent(tmp_path, 1))
    before = contents(disk.folder)
    wanted = sent(tmp_path, 2, 3)
    told = 0
    for left in (0, 1, 4096, 8192, 16384, 24576, 32768):
        with disk.full(left):
            try:
                now = ended(service, uploads.add(service, wanted, options()))
            except InterrogatorError as error:
                told += 1
                assert "can't be written" in str(error)
                assert "make room on the disk" in str(error) or "File too large" in str(error)
            else:
                told += now.state == "failed"
                assert now.state == "done" or "can't be written" in now.error
            assert not list(disk.folder.glob("cache/uploads/*/pictures"))
            after = contents(disk.folder)
            assert {name: after.get(name) for name in before} == before
    assert told > 1
    assert texts(service, run(service, wanted)) == {"2.txt": "red 2", "3.txt": "red 3"}
    assert texts(service, done) == {"1.txt": "red 1"}


@needs_posix
def test_a_batch_that_a_route_starts_on_a_full_disk_says_so(disk: Disk, services, tmp_path):
    """It is taken into the line, and its state has the sentence; asked again, it is done."""
    service = painted(services, tmp_path)
    photos = disk.folder / "photos"
    photos.mkdir()
    for red in (1, 2):
        (photos / f"{red}.png").write_bytes(noisy(red))
    client = client_of(service)
    asked = {"input": str(photos), "clip_model_name": "demo", "captioner": "demo"}

    def state_of() -> dict:
        answer = client.post(URL, json=asked)
        assert answer.status_code == 202, answer.text
        state = jobs_of(service).get(answer.json()["id"])
        assert state is not None
        ended(service, state)
        return client.get(f"{URL}/{state.name}").json()

    before = contents(disk.folder)
    with disk.full():
        told = state_of()
        assert told["state"] == "failed"
        assert "can't be written" in told["error"]
        assert "make room on the disk" in told["error"] or "File too large" in told["error"]
        after = contents(disk.folder)
        assert {name: after.get(name) for name in before} == before
        assert not list(photos.glob("*.txt"))
    assert state_of()["state"] == "done"
    assert (photos / "1.txt").read_text() == "red 1"
