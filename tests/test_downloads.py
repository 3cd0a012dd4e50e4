"""Downloads that are cut, killed, starved or doubled end in a whole file, or in a plain sentence.

Run as a program, this file is the one that downloads: it imports what is slow once and forks for
each start, so that a start may be killed, limited, or be another user's.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
REPOSITORY = "me/model"
NAME = "model.safetensors"
BLOCK = 1 << 16
SIZE = 46 * BLOCK + 1000
PART = 16 * BLOCK
NOBODY = 65534
LIBRARY_SECONDS = 60  # after which the hub's own library gives up; we do by ourselves after 30
AT_ONCE = 20  # seconds, in which none of the two does

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="there is no fork and no signal 9 here"
)


class Origin(ThreadingHTTPServer):
    """Publishes one file, as a hub does and under a plain address; misbehaves as it is told."""

    def __init__(self, body: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.body = body
        self.published = hashlib.sha256(body).hexdigest()
        self.ranges = True
        self.length = True
        self.pause = 0.0  # seconds before each block
        self.cuts: list[int] = []  # after so many bytes the next answers break off
        self.hangs: list[int] = []  # and here they fall silent
        self.sent = 0
        self.asked: list[str] = []
        self.go_on = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def url(self) -> str:
        return f"{self.address}/files/model-{self.published[:8]}.pt"

    def handle_error(self, *_arguments: object) -> None:
        """Say nothing of clients that hang up: they are killed on purpose."""


class Answer(BaseHTTPRequestHandler):
    """Answers one question to an Origin."""

    server: Origin

    def do_HEAD(self) -> None:
        self._begin(200, len(self.server.body))

    def do_GET(self) -> None:
        origin = self.server
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        begin = int(wanted[1]) if wanted and origin.ranges else 0
        origin.asked.append(self.headers["Range"] or "whole")
        if begin >= len(origin.body):
            self._begin(416, 0)
            return
        rest = origin.body[begin:]
        self._begin(206 if begin else 200, len(rest))
        cut = origin.cuts.pop(0) if origin.cuts else len(rest)
        hang = origin.hangs.pop(0) if origin.hangs else len(rest)
        for start in range(0, len(rest), BLOCK):
            time.sleep(origin.pause)
            block = rest[start : min(start + BLOCK, cut, hang)]
            self.wfile.write(block)
            origin.sent += len(block)
            if start + BLOCK >= cut:
                break
            if start + BLOCK >= hang:
                origin.go_on.wait()

    def _begin(self, status: int, length: int) -> None:
        self.send_response(status)
        if self.server.length:
            self.send_header("Content-Length", str(length))
        self.send_header("ETag", f'"{self.server.published}"')
        self.send_header("X-Repo-Commit", "c0ffee")
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Write nothing."""


@pytest.fixture
def origin() -> Iterator[Origin]:
    """A server of one file on this machine."""
    with Origin(random.Random(7).randbytes(SIZE)) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.go_on.set()
        running.shutdown()
        thread.join()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty models folder, which others may enter."""
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


KINDS = [pytest.param("hub", marks=pytest.mark.hosts), "url"]


def download(
    origin: Origin | str, kind: str, folder: Path, *starts: dict[str, Any]
) -> list[dict[str, Any]]:
    """Start one download after the other; return how each ended and what it left."""
    address = origin if isinstance(origin, str) else origin.address
    plan = {
        "kind": kind, "folder": str(folder), "starts": starts or [{}],
        "url": f"{address}/files/model-00000000.pt" if isinstance(origin, str) else origin.url,
    }
    environment = {
        **os.environ, "HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HOME": str(folder.parent / "hf"),
        "HF_HUB_DOWNLOAD_TIMEOUT": str(LIBRARY_SECONDS),
        "HF_HUB_ETAG_TIMEOUT": str(LIBRARY_SECONDS),
        "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
    }
    for proxy in ("http_proxy", "https_proxy", "all_proxy"):
        environment.pop(proxy, None)
        environment.pop(proxy.upper(), None)
    program = subprocess.run(
        [sys.executable, __file__], input=json.dumps(plan), env=environment, cwd=ROOT, text=True,
        capture_output=True, timeout=1200, check=False,
    )
    assert program.returncode == 0, program.stderr
    return json.loads(program.stdout)


def final(kind: str, folder: Path, origin: Origin) -> Path:
    """Return where the file lies in the end."""
    if kind == "url":
        return folder / origin.url.rsplit("/", 1)[-1]
    return folder / "models--me--model" / "blobs" / origin.published


def partials(folder: Path) -> list[int]:
    """Return how many bytes each unfinished download has."""
    return [path.stat().st_size for path in folder.rglob(".partial-*")]


# --- broken off ---


@pytest.mark.parametrize("kind", KINDS)
def test_a_download_that_was_cut_is_gone_on_with(origin, folder, kind):
    """In a later start, and each byte comes once; huggingface_hub goes on by itself, too."""
    origin.cuts = [PART, PART // 2]
    ends = download(origin, kind, folder, {}, {}, {})
    if kind == "url":
        reason = "was cut off); what has come is kept, and the next download goes on from there"
        assert [reason in one.get("error", "") for one in ends] == [True, True, False]
        assert [one["partials"] for one in ends] == [[PART], [PART + PART // 2], []]
    assert final(kind, folder, origin).read_bytes() == origin.body
    assert SIZE <= origin.sent <= SIZE + 2 * BLOCK  # of each, the library may lose a block
    assert partials(folder) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_without_ranges_sends_all_of_it_again(origin, folder, kind):
    """What it sends is never put behind what was there."""
    origin.hangs = [PART]
    download(origin, kind, folder, {"stop_at": PART})
    assert partials(folder) != []
    origin.ranges = False
    (ended,) = download(origin, kind, folder)
    assert "path" in ended, ended
    assert final(kind, folder, origin).read_bytes() == origin.body


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [PART, SIZE, SIZE + 1000])
def test_a_spoilt_beginning_is_fetched_again(origin, folder, kind, length):
    """Of another file, or of a disk that lost power: the hash tells, and it is begun anew."""
    path = final(kind, folder, origin)
    path.parent.mkdir(parents=True, exist_ok=True)
    key = path.name if kind == "url" else origin.published
    path.with_name(f".partial-{key}").write_bytes(b"x" * length)
    (ended,) = download(origin, kind, folder)
    assert "path" in ended, ended
    assert path.read_bytes() == origin.body
    assert partials(folder) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_without_its_published_hash_is_no_model(origin, folder, kind):
    """Of the right size, but another: nothing of it stays."""
    origin.body = origin.body[:-1] + b"?"
    (ended,) = download(origin, kind, folder)
    assert "does not have its published size or hash" in ended["error"]
    assert [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size] == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_stop_keeps_what_has_come(origin, folder, kind):
    """At once, though the server has fallen silent; the next start goes on."""
    origin.hangs = [PART]
    (stopped,) = download(origin, kind, folder, {"stop_at": PART})
    assert stopped["error"] == "Interrupted: enough"
    assert stopped["seconds"] < AT_ONCE
    assert stopped["partials"] == [PART]
    (ended,) = download(origin, kind, folder)
    assert "path" in ended, ended
    assert origin.sent == SIZE
    assert origin.asked[-1] == f"bytes={PART}-"


def test_a_stopped_download_can_be_asked_for_again_at_once(origin, folder):
    """Though the thread of the first still waits for the network, it holds nothing."""
    origin.hangs = [PART]
    (ended,) = download(origin, "url", folder, {"stop_at": PART, "again": True})
    assert "path" in ended, ended
    assert ended["seconds"] < AT_ONCE
    assert final("url", folder, origin).read_bytes() == origin.body


# --- silence ---


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_falls_silent_is_given_up(origin, folder, kind):
    """After a bounded time, with a sentence; what has come is kept."""
    origin.hangs = [PART] * 9
    (ended,) = download(origin, kind, folder, {"silence": 5})
    assert "(nothing has come for 5 seconds); what has come is kept" in ended["error"]
    assert ended["seconds"] < AT_ONCE
    assert partials(folder) == [PART]


@pytest.mark.parametrize("kind", ["hub", "url", "captioner"])
def test_a_server_that_never_answers_is_given_up(folder, kind):
    """It takes the connection and says nothing at all, whatever it is asked."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"http://127.0.0.1:{mute.getsockname()[1]}"
        given_up, stopped = download(
            address, kind, folder, {"silence": 5}, {"stop_after": 0.3}
        )
    assert "nothing has come for 5 seconds" in given_up["error"]
    assert given_up["seconds"] < AT_ONCE
    assert stopped["error"] == "Interrupted: enough"
    assert stopped["seconds"] < AT_ONCE
    assert partials(folder) == []


def test_a_slow_trickle_goes_on(origin, folder):
    """As long as something comes, it is waited for."""
    origin.pause = 0.2
    (ended,) = download(origin, "url", folder, {"silence": 6})
    assert ended["seconds"] > 7
    assert "path" in ended, ended


# --- killed ---


def kills() -> list[dict[str, Any]]:
    """Return where one start after the other is killed."""
    dice = random.Random(3)
    moments = [
        {"kill": ["write", when, dice.randint(1, 4)]}
        for when in ("before", "after", "halfway") for _ in range(2)
    ]
    moments += [{"kill_after": dice.uniform(0, 0.3)} for _ in range(4)]
    dice.shuffle(moments)
    return moments + [
        {"kill": [function, when, 1]}
        for function in ("fsync", "replace", "symlink") for when in ("before", "after")
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_any_moment_it_is_whole_in_the_end(origin, folder, kind):
    """No start finds a broken file under a final name; what had come is not asked for again."""
    origin.pause = 0.03
    moments = kills()
    *killed, last, again = download(origin, kind, folder, *moments, {}, {})
    assert sum(one["killed"] for one in killed) >= 8, killed
    assert all(one["broken"] == [] for one in killed)
    assert "path" in last, last
    assert "path" in again, again
    assert final(kind, folder, origin).read_bytes() == origin.body
    assert partials(folder) == []
    reached = [int(asked.removeprefix("bytes=")[:-1]) for asked in origin.asked if "=" in asked]
    assert len(reached) > 5
    assert reached == sorted(reached)  # no start lost what the others had brought


def test_a_killed_deletion_is_finished_by_the_next_start(folder):
    """The model is whole or gone, and what is left of it is cleared away."""
    counts = [*range(1, 9)]
    starts = [
        {"delete": True, "kill": [function, when, count]}
        for function in ("rename", "unlink", "rmdir") for when in ("before", "after")
        for count in (counts if function == "unlink" else [1])
    ]
    ends = download("http://127.0.0.1:1", "url", folder, *starts)
    assert sum(one["killed"] for one in ends) >= len(starts) - 4
    for one in ends:
        assert one["left"] in (0, 6)
    assert sum(one["leftovers"] for one in ends) > 4
    assert all(one["cleared"] == 0 for one in ends)


# --- several at once ---


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_bring_the_same_model_once(origin, folder, kind):
    """The second waits for the first, and both have the whole of it."""
    origin.pause = 0.02
    (ends,) = download(origin, kind, folder, {"together": 3})
    assert all("path" in one for one in ends), ends
    assert final(kind, folder, origin).read_bytes() == origin.body
    assert origin.sent == SIZE
    assert partials(folder) == []


def test_where_one_is_killed_the_other_goes_on(origin, folder):
    """Its hold on the file ends with it."""
    origin.pause = 0.1
    (ends,) = download(origin, "url", folder, {"together": 2, "kill_first_after": 0.5})
    assert sum("path" in one for one in ends) == 1, ends
    assert final("url", folder, origin).read_bytes() == origin.body
    assert origin.sent < SIZE + 20 * BLOCK
    assert partials(folder) == []


# --- no room, no right ---


@pytest.mark.parametrize("kind", KINDS)
def test_a_disk_that_becomes_full_is_told_and_given_back(origin, folder, kind):
    """By a limit on the size of files: what could not be finished makes room again."""
    limited, ended = download(origin, kind, folder, {"limit": PART}, {})
    assert "there is no room for it: " in limited["error"]
    assert f" MiB more are needed in {final(kind, folder, origin).parent}" in limited["error"]
    assert limited["partials"] == []
    assert "path" in ended, ended


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk of two mebibytes as the models folder."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m,mode=755", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root mounts disks")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("kind", ["hub", "url"])
def test_room_is_looked_for_before_anything_is_fetched(origin, small_disk, kind):
    """The sentence says how much is needed, and how much there is."""
    (ended,) = download(origin, kind, small_disk)
    assert "there is no room for it: 2.9 MiB more are needed in" in ended["error"]
    assert "(2.0 MiB are free)" in ended["error"]
    assert partials(small_disk) == []
    assert origin.sent < 2 << 20


def test_a_disk_that_is_full_before_its_time(origin, small_disk):
    """The server does not say how long the file is, so that it shows on the way only."""
    origin.length = False
    (ended,) = download(origin, "url", small_disk)
    assert "there is no room for it: " in ended["error"]
    assert "(No space left on device)" in ended["error"]
    assert list(small_disk.iterdir()) == []


@pytest.mark.parametrize("kind", ["hub", "url"])
def test_a_folder_that_may_not_be_written_is_named(origin, folder, kind):
    """As another user than root, whom nothing is forbidden."""
    folder.chmod(0o555)
    (ended,) = download(origin, kind, folder, {"user": NOBODY})
    assert re.search(rf"not {re.escape(str(folder))}\S* can't be written \(Permission denied\)",
                     "not " + ended["error"].split(": ", 1)[1])
    assert list(folder.iterdir()) == []


# --- leftovers ---


def test_leftovers_are_cleared_when_nobody_came_back(tmp_path):
    """Downloads after a week, deletions at once; what is under way, or not ours, stays."""
    from clip_interrogator_ext.files import lock
    from clip_interrogator_ext.models import leftovers

    blobs = tmp_path / "models--me--model" / "blobs"
    blobs.mkdir(parents=True)
    old = [tmp_path / ".partial-0123abcd", blobs / ".partial-feed", blobs / ".partial-held"]
    fresh = [tmp_path / ".partial-model.pt", tmp_path / "model.pt"]
    for path in (*old, *fresh):
        path.write_bytes(b"x")
    for path in (*old, fresh[-1]):
        os.utime(path, (0, time.time() - 8 * 24 * 3600))
    for condemned in (".deleted-01234567", "captioners/.deleted-01234567"):
        (tmp_path / condemned / "deep").mkdir(parents=True)
        (tmp_path / condemned / "deep" / "file").touch()
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / ".deleted-01234567").touch()
    with old[-1].open("r+b") as held:
        lock(held.fileno())
        leftovers.clear([tmp_path / "nowhere"])
        leftovers.clear([tmp_path, tmp_path / "second"])
    files = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {".partial-held", ".partial-model.pt", "model.pt"}


# The program that downloads


def main(plan: dict[str, Any]) -> list[Any]:
    """Do each start of a plan in a process of its own."""
    import huggingface_hub.file_download  # noqa: F401 - so that no start has to
    from huggingface_hub import HfApi  # noqa: F401

    ends = []
    for start in plan["starts"]:
        if start.get("delete"):
            lay_a_model(Path(plan["folder"]))
        children = [fork(plan, start, number) for number in range(start.get("together", 1))]
        answers = [end(plan, *child) for child in children]
        ends.append(answers if "together" in start else answers[0])
    return ends


def fork(
    plan: dict[str, Any], start: dict[str, Any], number: int
) -> tuple[int, int, threading.Timer]:
    """Begin a start; return its process, where its answer is to be read, and what kills it."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            limit(start)
            answer = attempt(plan, start)
            os.write(write, json.dumps(answer).encode())
        os._exit(0)
    os.close(write)
    seconds = start.get("kill_after")
    if number == 0:
        seconds = start.get("kill_first_after", seconds)
    timer = threading.Timer(seconds or 0, os.kill, (child, signal.SIGKILL))
    if seconds is not None:
        timer.start()
    return child, read, timer


def end(plan: dict[str, Any], child: int, read: int, timer: threading.Timer) -> dict[str, Any]:
    """Wait for a start, and look at what it left."""
    with os.fdopen(read) as pipe:
        said = pipe.read()
    timer.cancel()  # before another process may have that number
    _, status = os.waitpid(child, 0)
    folder = Path(plan["folder"])
    digits = plan["url"].rsplit("-", 1)[-1][:8]
    return {
        **json.loads(said or "{}"),
        "killed": os.WIFSIGNALED(status),
        "partials": partials(folder),
        "broken": [
            str(path) for path in folder.rglob("*")
            if path.is_file() and not path.name.startswith(".") and path.stat().st_size > 1000
            and not hashlib.sha256(path.read_bytes()).hexdigest().startswith(digits)
        ],
        "left": len([*folder.glob("mine/*")]),
        "leftovers": len([*folder.glob(".deleted-*")]),
        "cleared": cleared(folder),
    }


def cleared(folder: Path) -> int:
    """Return how many leftovers of deletions stay when a start has cleared the folder."""
    from clip_interrogator_ext.models import leftovers

    leftovers.clear([folder])
    return len([*folder.glob(".deleted-*")])


def limit(start: dict[str, Any]) -> None:
    """Make this process the one that a start asks for."""
    import resource

    from clip_interrogator_ext.models import downloads

    downloads._SILENCE_SECONDS = start.get("silence", downloads._SILENCE_SECONDS)
    downloads._BLOCK_BYTES = BLOCK
    if "limit" in start:
        resource.setrlimit(resource.RLIMIT_FSIZE, (start["limit"], start["limit"]))
    if "user" in start and os.geteuid() == 0:
        os.setgroups([])
        os.setgid(start["user"])
        os.setuid(start["user"])
    if "kill" in start:
        arm(*start["kill"])


def arm(name: str, when: str, count: int) -> None:
    """Have this process killed at a call of a function that changes the disk."""
    from clip_interrogator_ext.models import downloads

    where = downloads._Arriving if name == "write" else os
    real, calls = getattr(where, name), []

    def killing(*arguments: Any, **named: Any) -> Any:
        calls.append(arguments)
        if len(calls) < count:
            return real(*arguments, **named)
        if when == "after":
            real(*arguments, **named)
        elif when == "halfway":
            real(arguments[0], arguments[1][: len(arguments[1]) // 2])
        return os.kill(os.getpid(), signal.SIGKILL)

    setattr(where, name, killing)


def attempt(plan: dict[str, Any], start: dict[str, Any]) -> dict[str, Any]:
    """Download, or delete; return the path or the error, and how long it took."""
    from clip_interrogator_ext.errors import Interrupted
    from clip_interrogator_ext.models import downloads, leftovers

    folder = Path(plan["folder"])
    began = time.monotonic()
    transfers: list[Any] = []

    def work(transfer: Any) -> Path:
        transfers.append(transfer)
        if plan["kind"] == "url":
            url = plan["url"]
            return downloads.fetch_url(url, folder / url.rsplit("/", 1)[-1], transfer)
        if plan["kind"] == "captioner":
            from huggingface_hub import HfApi

            HfApi().list_repo_files(REPOSITORY)
        return downloads.fetch(REPOSITORY, [NAME], folder, transfer)

    def tick(_label: str, _done: int, _total: int) -> None:
        nonlocal began
        come = transfers[-1].done if transfers else 0
        if len(transfers) == 1 and (
            come >= start.get("stop_at", SIZE * 2)
            or time.monotonic() - began > start.get("stop_after", 100)
        ):
            began = time.monotonic()
            raise Interrupted("enough")

    answer: dict[str, Any] = {}
    try:
        if start.get("delete"):
            leftovers.remove(folder / "mine")
        else:
            answer["path"] = str(downloads.attempt(work, tick))
    except (downloads.NoDownload, Interrupted) as error:
        answer["error"] = f"{type(error).__name__}: {error}"
        answer["seconds"] = time.monotonic() - began
        if start.get("again"):
            answer = {"path": str(downloads.attempt(work, tick))}
    return {"seconds": time.monotonic() - began, **answer}


def lay_a_model(folder: Path) -> None:
    """Write a folder of six files, as if it had been copied there."""
    (folder / "mine").mkdir(exist_ok=True)
    for number in range(6):
        (folder / "mine" / f"{number}.safetensors").write_bytes(b"weights")


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(json.loads(sys.stdin.read()))))
