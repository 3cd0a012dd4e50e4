"""How much the page that runs alone takes at once, of whatever is sent to it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

pytest.importorskip("gradio")

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from fastapi.testclient import TestClient

from clip_interrogator_ext.faces.api.body import MAX_BODY_BYTES
from clip_interrogator_ext.faces.cli import modest_uploads
from clip_interrogator_ext.faces.cli.modest_uploads import MAX_UPLOAD_BYTES, ModestUploads
from clip_interrogator_ext.files import lock
from clip_interrogator_ext.images import MAX_BYTES
from tests import browser
from tests.browser import CASTLE
from tests.faults import mounted, needs_posix
from tests.posts import GRADIO, PREFIX, Poster
from tests.test_api import wait_until
from tests.test_strangers_page import png

pytestmark = pytest.mark.hosts

UPLOADS = f"{PREFIX}/upload"
OURS = "clip-interrogator-ext-uploads"


@pytest.fixture
def read() -> list[bytes]:
    """The bodies that an app behind the limit has read to their end."""
    return []


@pytest.fixture
def client(read, monkeypatch, tmp_path) -> TestClient:
    monkeypatch.setattr(modest_uploads, "MAX_UPLOAD_BYTES", 5_000)
    monkeypatch.setattr(modest_uploads, "MAX_BODY_BYTES", 1_000)
    app = FastAPI()
    app.add_middleware(ModestUploads, folder=tmp_path)

    @app.post("/{path:path}")
    async def take(request: Request) -> JSONResponse:
        read.append(await request.body())
        return JSONResponse({"bytes": len(read[-1])})

    return TestClient(app)


def parts(size: int) -> Iterator[bytes]:
    """Yield a body whose length nobody tells beforehand."""
    for _ in range(size // 500):
        yield bytes(500)


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize(
    ("path", "size", "taken"),
    [
        (UPLOADS, 5_000, True), (UPLOADS, 5_500, False), ("/run/predict", 1_000, True),
        ("/run/predict", 1_500, False), ("/interrogator/prompt", 50_000, True),
    ],
)
def test_what_is_too_much_is_a_sentence(client, read, path, size, taken, told):
    """Whether its length is told or shows on the way; routes have limits of their own."""
    answer = client.post(path, content=bytes(size) if told else parts(size))
    if taken:
        assert (answer.status_code, answer.json()) == (200, {"bytes": size})
        return
    assert answer.status_code == 413
    assert answer.text.startswith("This is more than 0 MiB: ")
    assert read == []
    assert client.post(path, content=b"x").status_code == 200


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("room", [500, 0, -500])
def test_an_upload_needs_room(client, read, monkeypatch, room, told):
    """Looked for before anything is read, and where no length is told, not all of it is taken."""
    monkeypatch.setattr(modest_uploads, "_free_bytes", lambda _: (16 << 20) + room)
    answer = client.post(UPLOADS, content=bytes(1_000) if told else parts(1_000))
    assert answer.status_code == 507
    assert answer.text == (
        f"There is no room for this: {((16 << 20) + room) >> 20} MiB are free in the temporary "
        "folder. Make room on the disk, then upload again.\n"
    )
    assert read == []
    if room > 0:
        fits = client.post(UPLOADS, content=bytes(room) if told else parts(room))
        assert fits.json() == {"bytes": room}
    assert client.post("/run/predict", content=bytes(900)).status_code == 200


def test_a_folder_that_was_cleared_away_is_told(client, read, tmp_path):
    """Some systems clear what is old in the temporary folder."""
    tmp_path.rmdir()
    answer = client.post(UPLOADS, content=b"x")
    assert (answer.status_code, read) == (507, [])
    assert "Start the page again" in answer.text
    assert client.post("/run/predict", content=b"x").status_code == 200


def test_the_limits_leave_room_for_what_is_right():
    """A picture of the largest size, and folders of usual ones."""
    assert MAX_BODY_BYTES > MAX_BYTES
    assert MAX_UPLOAD_BYTES >= 1000 * (4 << 20)


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> Iterator[str]:
    with browser.served(tmp_path_factory.mktemp("page")) as served:
        yield served


def announced(address: str, path: str, length: int) -> tuple[int, str]:
    """Say that much will be sent, and wait for the answer before anything is."""
    connection = HTTPConnection(urlsplit(address).netloc, timeout=120)
    connection.putrequest("POST", path)
    connection.putheader("Content-Length", str(length))
    connection.endheaders()
    answer = connection.getresponse()
    try:
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_the_page_has_these_limits(address):
    """And its routes say the same in their own shape."""
    if shutil.disk_usage(tempfile.gettempdir()).free < MAX_UPLOAD_BYTES + (64 << 20):
        pytest.skip("too little room for as many uploads as the page would take")
    status, told = announced(address, UPLOADS, MAX_UPLOAD_BYTES + 1)
    assert (status, told) == (
        413, "This is more than 4,096 MiB: put fewer files into the box, or name their folder.\n"
    )
    status, told = announced(address, f"{PREFIX}/run/predict", MAX_BODY_BYTES + 1)
    assert (status, told) == (413, "This is more than 357 MiB: send less.\n")
    status, told = announced(address, "/interrogator/prompt", MAX_BODY_BYTES + 1)
    assert (status, json.loads(told)["error"]) == (413, "TooLarge")
    poster = Poster(address)
    place = poster.upload("a.png", png())
    assert Path(place).read_bytes() == png()


@contextlib.contextmanager
def uploading(address: str) -> Iterator[HTTPConnection]:
    """Begin to upload a file in pieces, with no length told."""
    connection = HTTPConnection(urlsplit(address).netloc, timeout=120)
    connection.putrequest("POST", UPLOADS)
    connection.putheader("Content-Type", "multipart/form-data; boundary=xx")
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    send_piece(
        connection,
        b'--xx\r\nContent-Disposition: form-data; name="files"; filename="c.png"\r\n\r\n',
    )
    try:
        yield connection
    finally:
        connection.close()


def send_piece(connection: HTTPConnection, piece: bytes) -> None:
    connection.send(b"%x\r\n%s\r\n" % (len(piece), piece))


def killed(parent: Path, *, seconds_ago: float, name: str = OURS) -> Path:
    """Make what a page, or another program of that name, has left when it was killed."""
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=parent))
    (folder / "a.png").write_bytes(png())
    os.utime(folder, times=(time.time() - seconds_ago,) * 2)
    return folder


@needs_posix
@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM])
def test_what_was_uploaded_goes_with_the_page(tmp_path, told):
    """However it is told to end; what was broken off goes at once, and what was killed leaves."""
    parent = tmp_path / "real"
    parent.mkdir()
    linked = tmp_path / "linked"
    linked.symlink_to(parent)
    killed(parent, seconds_ago=100)
    # From a time to come: it is young however long the page takes to start.
    young, of_another = killed(parent, seconds_ago=-3600), killed(parent, seconds_ago=100)
    bench = killed(parent, seconds_ago=100, name="clip-interrogator-ext-bench")
    descriptor = os.open(of_another, os.O_RDONLY)
    lock(descriptor)
    strange = parent / f"{OURS}-link"
    strange.symlink_to(tmp_path)
    stays = {young, of_another, strange, bench}
    with browser.served(
        tmp_path, environment={"GRADIO_TEMP_DIR": str(linked), "TMPDIR": str(linked)}, ending=told
    ) as served:
        poster = Poster(served)
        whole = Path(poster.upload("a.png", png()))
        (folder,) = set(parent.glob(f"{OURS}-*")) - stays
        assert folder in whole.parents
        done, answer = poster.use(
            "generate", "click", image=poster.image(CASTLE.read_bytes()), mode="fast"
        )
        assert done, answer

        def halves() -> list[Path]:
            return list(folder.glob("tmp*"))

        with uploading(served) as connection:
            send_piece(connection, bytes(1 << 16))
            if GRADIO > 3:  # which keeps halves in no named file
                wait_until(halves)
        wait_until(lambda: not halves())
        assert whole.read_bytes() == png()
    assert set(parent.iterdir()) == stays
    assert (of_another / "a.png").read_bytes() == png()
    os.close(descriptor)


@needs_posix
def test_uploads_to_a_full_disk_are_a_sentence(tmp_path):
    """What was there stays, and the page goes on."""
    small = tmp_path / "small"
    small.mkdir()
    with mounted(small, "40m"), browser.served(
        tmp_path, environment={"GRADIO_TEMP_DIR": str(small), "TMPDIR": str(small)}
    ) as served:
        poster = Poster(served)
        kept = Path(poster.upload("a.png", png()))
        filler = small / "filler"
        filler.write_bytes(bytes(10 << 20))
        status, told = announced(served, UPLOADS, 20 << 20)
        assert status == 507
        assert told.startswith("There is no room for this: ")
        before = sorted(small.rglob("*"))
        with uploading(served) as connection:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                for _ in range(512):
                    send_piece(connection, bytes(1 << 16))
            answer = connection.getresponse()
            assert answer.status == 507
            assert answer.read().startswith(b"There is no room for this: ")
        wait_until(lambda: sorted(small.rglob("*")) == before)
        assert kept.read_bytes() == png()
        filler.unlink()
        assert Path(poster.upload("b.png", png())).read_bytes() == png()
