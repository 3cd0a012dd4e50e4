"""Models are found in every published layout, downloaded with a stop, deleted only where ours."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clip_interrogator_ext import catalog
from clip_interrogator_ext.errors import (
    Interrupted,
    MissingModel,
    NotAllowed,
    UnknownModel,
)
from clip_interrogator_ext.files import lock
from clip_interrogator_ext.models import open_clip, store
from clip_interrogator_ext.models.weights import Source
from tests.test_weights import Handler, Server

pytestmark = pytest.mark.hosts

BACKBONE = "ViT-B-32/openai"
HUB = catalog.BACKBONES[BACKBONE].hub
BIN = "open_clip_model.safetensors"
CAPTIONER = "blip-base"
CAPTIONER_HUB = catalog.CAPTIONERS[CAPTIONER].hub
SIZE = 1000


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own cache, empty; the one of whoever runs the tests stays out of sight."""
    from huggingface_hub import constants

    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    return tmp_path / "home" / "hub"


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """Our own models folder, with a file that belongs to nobody's model."""
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    return folder


def put(path: Path, size: int = SIZE) -> Path:
    """Write a file of that many bytes, and the folders that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    return path


def put_into_cache(cache: Path, hub: str, **files: int) -> Path:
    """Lay files out as huggingface_hub does: blobs, and a snapshot that links to them."""
    storage = cache / f"models--{hub.replace('/', '--')}"
    (storage / "refs").mkdir(parents=True)
    (storage / "refs" / "main").write_text("abc123", encoding="utf-8")
    snapshot = storage / "snapshots" / "abc123"
    snapshot.mkdir(parents=True)
    for name, size in files.items():
        put(storage / "blobs" / name, size)
        (snapshot / name).symlink_to(Path("../../blobs") / name)
    return storage


def tree(folder: Path) -> set[str]:
    """Return every file and link below a folder."""
    return {str(one.relative_to(folder)) for one in folder.rglob("*") if not one.is_dir()}


# --- where they are ---


def flat_backbone(folder: Path) -> Path:
    return put(folder / "ViT-B-32-openai" / BIN).parent


def backbone_file(folder: Path) -> Path:
    return put(folder / "ViT-B-32-openai.safetensors")


def backbone_in_cache(folder: Path) -> Path:
    return put_into_cache(folder, HUB, **{BIN: SIZE})


def flat_captioner(folder: Path) -> Path:
    own = folder / "captioners" / "blip-image-captioning-base"
    put(own / "config.json", 200)
    return put(own / "model.safetensors", 800).parent


def captioner_in_cache(folder: Path) -> Path:
    return put_into_cache(folder, CAPTIONER_HUB, **{"config.json": 200, "model.safetensors": 800})


LAYOUTS = [
    pytest.param(BACKBONE, flat_backbone, id="backbone, flat folder"),
    pytest.param(BACKBONE, backbone_file, id="backbone, single file"),
    pytest.param(BACKBONE, backbone_in_cache, id="backbone, hub cache"),
    pytest.param(CAPTIONER, flat_captioner, id="captioner, flat folder"),
    pytest.param(CAPTIONER, captioner_in_cache, id="captioner, hub cache"),
]


@pytest.mark.parametrize(("name", "lay"), LAYOUTS)
def test_a_model_in_our_folder_is_found_and_ours(name, lay: Callable[[Path], Path], ours):
    """Its folder or file, the bytes that it has on disk, each counted once; it may be deleted."""
    assert store.place(name, [ours]) is None
    path = lay(ours)
    found = store.place(name, [ours])
    refs = len("abc123") if (path / "refs").exists() else 0
    assert (found.path, found.size_bytes, found.deletable) == (path, SIZE + refs, True)


@pytest.mark.parametrize(("name", "lay"), LAYOUTS)
def test_a_model_in_another_folder_is_found_and_not_ours(name, lay, ours, tmp_path):
    """Only the first of the folders is ours; and without any, nothing is."""
    path = lay(tmp_path / "theirs")
    found = store.place(name, [ours, tmp_path / "theirs"])
    assert (found.path, found.deletable) == (path, False)
    assert store.place(name, [ours]) is None


@pytest.mark.parametrize(
    ("name", "lay"), [(BACKBONE, backbone_in_cache), (CAPTIONER, captioner_in_cache)]
)
def test_a_model_in_the_users_cache_is_found_and_not_ours(name, lay, ours, caches):
    """Other programs may need what lies in the usual cache."""
    path = lay(caches)
    for folders in ([], [ours]):
        found = store.place(name, folders)
        assert (found.path, found.deletable) == (path, False)


def test_a_backbone_outside_the_catalog_is_found(ours, tmp_path):
    """Every pair that open_clip lists has a place."""
    name = "ViT-B-32/laion2b_s34b_b79k"
    assert name not in catalog.BACKBONES
    assert store.place(name, [ours]) is None
    path = put(ours / "ViT-B-32-laion2b_s34b_b79k" / BIN).parent
    assert store.place(name, [ours]).path == path


def test_the_demo_is_here():
    """It comes with the package, and stays with it."""
    found = store.place("demo", [])
    assert found.path == open_clip.DEMO_FOLDER.parent
    assert found.size_bytes > 1_000_000
    assert not found.deletable
    beside = [open_clip.DEMO_FOLDER.parent.parent]
    with pytest.raises(NotAllowed, match="can't be deleted"):
        store.delete("demo", beside)
    assert store.place("demo", []) == found


@pytest.mark.parametrize("config", ["config.json", "open_clip_config.json"])
def test_a_named_folder_is_a_model_if_it_looks_like_one(config, ours):
    """A configuration and weights; anything else is not taken for one."""
    folder = put(ours / "mine" / "model.safetensors").parent
    assert store.place(str(folder), [ours]) is None
    put(folder / config, 1)
    found = store.place(str(folder), [ours])
    assert (found.path, found.size_bytes, found.deletable) == (folder, SIZE + 1, True)
    assert not store.place(str(folder), []).deletable


def test_a_named_file_is_found(ours):
    """An architecture and a checkpoint of one's own."""
    path = put(ours / "mine.safetensors")
    found = store.place(f"ViT-B-32={path}", [ours])
    assert (found.path, found.size_bytes, found.deletable) == (path, SIZE, True)
    assert store.place(f"ViT-B-32={ours / 'gone.safetensors'}", [ours]) is None


def test_the_models_folder_itself_is_never_ours_to_delete(ours):
    """Even where it looks like a model."""
    put(ours / "config.json")
    put(ours / "model.safetensors")
    assert not store.place(str(ours), [ours]).deletable
    with pytest.raises(NotAllowed):
        store.delete(str(ours), [ours])
    assert "model.safetensors" in tree(ours)


def test_a_captioner_with_a_broken_index_is_here(ours):
    """It lies there and can be deleted; that it does not load is told when it is loaded."""
    folder = flat_captioner(ours)
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    (folder / "model.safetensors.index.json").write_text("{", encoding="utf-8")
    assert store.place(CAPTIONER, [ours]).path == folder
    store.delete(CAPTIONER, [ours])
    assert not folder.exists()


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("blip-bas", "blip-base"), ("ViT-B-32/opena", BACKBONE), ("dem", "demo"),
     ("ViT-B-33=x.safetensors", "ViT-B-32")],
)
@pytest.mark.parametrize("act", [store.place, store.download, store.delete])
def test_an_unknown_name_is_answered_with_the_nearest(act, name, nearest, ours):
    """Captioners and backbones are asked for by one name here, so both are offered."""
    with pytest.raises(UnknownModel, match=r"Did you mean") as caught:
        act(name, [ours])
    assert nearest in caught.value.nearest
    assert nearest in str(caught.value)


# --- deleting ---


@pytest.mark.parametrize(("name", "lay"), LAYOUTS)
def test_deleting_frees_what_the_model_has_and_nothing_else(name, lay, ours):
    """Folder, file or hub cache: all of it goes, its neighbours stay."""
    put(ours / "ViT-B-32-laion2b_s34b_b79k" / BIN)
    put_into_cache(ours, "somebody/else", **{BIN: 5})
    before = tree(ours)
    path = lay(ours)
    size = store.place(name, [ours]).size_bytes
    assert store.delete(name, [ours]) == size
    assert not path.exists()
    assert tree(ours) == before
    assert store.place(name, [ours]) is None
    with pytest.raises(MissingModel, match="nothing to delete"):
        store.delete(name, [ours])


def test_named_models_can_be_deleted(ours):
    """A folder or a checkpoint of one's own."""
    folder = put(ours / "mine" / "model.safetensors").parent
    put(folder / "config.json")
    path = put(ours / "mine.safetensors")
    assert store.delete(str(folder), [ours]) == 2 * SIZE
    assert store.delete(f"ViT-B-32={path}", [ours]) == SIZE
    assert tree(ours) == {"notes.txt"}


@pytest.mark.parametrize(("name", "lay"), LAYOUTS)
def test_what_is_not_ours_is_left_alone(name, lay, ours, tmp_path):
    """The message names the place, so that the user can delete it there."""
    path = lay(tmp_path / "theirs")
    before = tree(tmp_path)
    with pytest.raises(NotAllowed, match="left alone") as caught:
        store.delete(name, [ours, tmp_path / "theirs"])
    assert str(path) in str(caught.value)
    assert str(ours) in str(caught.value)
    assert tree(tmp_path) == before


def test_without_a_models_folder_nothing_is_deleted(caches):
    """The usual cache is not ours."""
    path = backbone_in_cache(caches)
    before = tree(path)
    with pytest.raises(NotAllowed, match="a models folder"):
        store.delete(BACKBONE, [])
    assert tree(path) == before


def link_to_folder(ours: Path, outside: Path) -> str:
    (ours / "ViT-B-32-openai").symlink_to(put(outside / "kept" / BIN).parent)
    return BACKBONE


def link_to_file(ours: Path, outside: Path) -> str:
    (ours / "ViT-B-32-openai.safetensors").symlink_to(put(outside / BIN))
    return BACKBONE


def link_in_a_folder(ours: Path, outside: Path) -> str:
    (ours / "ViT-B-32-openai").mkdir()
    (ours / "ViT-B-32-openai" / BIN).symlink_to(put(outside / BIN))
    return BACKBONE


def link_above(ours: Path, outside: Path) -> str:
    flat_captioner(outside)
    (ours / "captioners").symlink_to(outside / "captioners")
    return CAPTIONER


def blobs_elsewhere(ours: Path, outside: Path) -> str:
    storage = backbone_in_cache(ours)
    (storage / "blobs").rename(outside / "blobs")
    (storage / "blobs").symlink_to(outside / "blobs")
    return BACKBONE


def cache_elsewhere(ours: Path, outside: Path) -> str:
    storage = captioner_in_cache(outside)
    (ours / storage.name).symlink_to(storage)
    return CAPTIONER


@pytest.mark.parametrize(
    "lay",
    [link_to_folder, link_to_file, link_in_a_folder, link_above, blobs_elsewhere, cache_elsewhere],
)
def test_a_link_that_leads_out_is_not_followed(lay, ours, tmp_path):
    """What is shown as ours by a link only is somebody else's."""
    outside = tmp_path / "outside"
    outside.mkdir()
    name = lay(ours, outside)
    before = tree(tmp_path)
    found = store.place(name, [ours])
    assert SIZE <= found.size_bytes < 2 * SIZE
    assert not found.deletable
    with pytest.raises(NotAllowed, match="left alone"):
        store.delete(name, [ours])
    assert tree(tmp_path) == before


def test_a_models_folder_that_is_a_link_is_ours(ours, tmp_path):
    """It may lie on another disk; what counts is where the model is within it."""
    path = flat_backbone(ours)
    (tmp_path / "link").symlink_to(ours)
    assert store.delete(BACKBONE, [tmp_path / "link"]) == SIZE
    assert not path.exists()


def test_a_link_to_another_model_of_ours_frees_nothing_of_it(ours):
    """The link goes; the other model stays, and is not counted as freed."""
    folder = put(ours / "mine" / "config.json", 7).parent
    other = put(ours / "other.safetensors")
    (folder / "model.safetensors").symlink_to(other)
    assert store.delete(str(folder), [ours]) == 7
    assert tree(ours) == {"notes.txt", "other.safetensors"}


@pytest.mark.parametrize("name", [BACKBONE, CAPTIONER])
def test_what_a_download_left_unfinished_can_be_deleted(name, ours):
    """Not while it is under way; it is gone on with for a week, or makes room at once."""
    hub = HUB if name == BACKBONE else CAPTIONER_HUB
    partial = put(ours / f"models--{hub.replace('/', '--')}" / "blobs" / ".partial-feed")
    with partial.open("r+b") as arriving:
        lock(arriving.fileno())
        with pytest.raises(NotAllowed, match="is being downloaded"):
            store.delete(name, [ours])
    assert store.place(name, [ours]) is None
    assert store.delete(name, [ours]) == SIZE
    assert tree(ours) == {"notes.txt"}
    with pytest.raises(MissingModel, match="nothing to delete"):
        store.delete(name, [ours])


@pytest.mark.skipif(os.name == "nt", reason="rights are others there")
def test_a_model_that_may_not_be_deleted_is_left_whole(ours, tmp_path):
    """A folder below it is read-only: nothing of the model goes. As another user than root."""
    folder = flat_backbone(ours)
    put(folder / "deep" / "more.safetensors")
    (folder / "deep").chmod(0o555)
    for one in (ours, folder):
        one.chmod(0o777)
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    before = tree(ours)
    child = os.fork()
    if child == 0:
        refused = False
        with contextlib.suppress(BaseException):
            if os.geteuid() == 0:
                os.setuid(65534)
            try:
                store.delete(BACKBONE, [ours])
            except NotAllowed as error:
                refused = "Permission denied" in str(error)
        os._exit(0 if refused else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert tree(ours) == before


def test_a_model_in_use_is_left_whole(ours, monkeypatch):
    """Windows moves nothing that is open: then all of it stays, and the user is told why."""
    folder = flat_backbone(ours)
    before = tree(ours)

    def refuse(_path: Path, _target: Path) -> None:
        raise PermissionError(13, "The process cannot access the file")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(NotAllowed, match=r"\(The process cannot access the file\)\.") as caught:
        store.delete(BACKBONE, [ours])
    assert str(folder) in str(caught.value)
    assert tree(ours) == before


# --- downloading ---


class Hub(Handler):
    """Serves files as a hub does; of those that the server holds back, only the beginning.

    The bytes of a backbone lie on a host of another name, as they do at the real hub.
    """

    server: HubServer

    def _answer(self, *, whole: bool) -> None:
        body = self.server.files.get(self.path, b"")
        if body and self.path.startswith(f"/{HUB}/"):
            self._lead_elsewhere(body)
        elif whole and self.path.endswith(self.server.held_back) and len(body) > 1 << 20:
            self._hang_halfway(body)
        else:
            super()._answer(whole=whole)
        if self.path.startswith("/elsewhere/") and self.headers["Authorization"]:
            self.server.asked.append("a stranger was given the token")

    def _lead_elsewhere(self, body: bytes) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        path = f"/elsewhere{self.path}"
        self.server.files[path] = body
        self.send_response(302)
        self.send_header("Location", f"http://localhost:{self.server.server_port}{path}")
        self.send_header("X-Linked-Size", str(len(body)))
        self.send_header("X-Linked-Etag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", "c0ffee")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _hang_halfway(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):  # whoever stopped has hung up
            self.wfile.write(body[: len(body) // 2])
            self.server.halfway.set()
            self.server.go_on.wait(300)
            self.wfile.write(body[len(body) // 2 :])


class HubServer(Server):
    """A hub whose files may stop halfway, until it is told to go on."""

    held_back: str

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Hub)
        self.files, self.asked, self.held_back = {}, [], "nothing"
        self.halfway, self.go_on = threading.Event(), threading.Event()

    def publish(self, hub: str, **files: bytes) -> None:
        """Have a repository of these files."""
        for name, body in files.items():
            self.files[f"/{hub}/resolve/main/{name}"] = body
        rows = [
            {"type": "file", "path": name, "size": len(body), "oid": "0"}
            for name, body in files.items()
        ]
        listing = json.dumps(rows).encode()
        for query in ("recursive=True&expand=False", "recursive=true&expand=false"):
            self.files[f"/api/models/{hub}/tree/main?{query}"] = listing


@pytest.fixture
def hub() -> Iterator[HubServer]:
    """A hub on this machine."""
    with HubServer() as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.go_on.set()
        running.shutdown()
        thread.join()


PROGRAM = """
import json, os, sys, time
from clip_interrogator_ext.errors import InterrogatorError, Interrupted
from clip_interrogator_ext.models import store
from pathlib import Path
name, folders, stop_at = sys.argv[1], [Path(one) for one in sys.argv[3:]], int(sys.argv[2])
ticks, stopped = [], None
if os.environ.get("NO_LINKS"):
    import huggingface_hub.file_download
    huggingface_hub.file_download.are_symlinks_supported = lambda _folder=None: False

def tick(label, done, total):
    global stopped
    ticks.append((label, done, total))
    if total and done >= stop_at:
        stopped = time.monotonic()
        raise Interrupted("enough")

try:
    found = store.download(name, folders, tick)
    answer = {"path": str(found.path), "size": found.size_bytes, "deletable": found.deletable}
except InterrogatorError as error:
    answer = {"error": type(error).__name__, "message": str(error)}
    answer["seconds"] = time.monotonic() - stopped if stopped else None
print(json.dumps({**answer, "ticks": ticks}))
"""


def download(
    hub: HubServer, name: str, *folders: Path, stop_at: int = 10**9, links: bool = True
) -> dict:
    """Download in a fresh process, because huggingface_hub reads its settings once."""
    environment = {
        **os.environ, "HF_ENDPOINT": hub.address(""), "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(Path.home() / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_TOKEN": "hf_secret", "NO_LINKS": "" if links else "1",
    }
    for proxy in ("http_proxy", "https_proxy", "all_proxy"):
        environment.pop(proxy, None)
        environment.pop(proxy.upper(), None)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, name, str(stop_at), *map(str, folders)],
        env=environment, capture_output=True, text=True, check=False, timeout=600,
        cwd=Path(__file__).parents[1],
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("links", [True, False])
def test_a_backbone_is_downloaded_from_a_hub(hub, ours, links):
    """Into the first folder, in the hub's own layout, with progress; then it is here and ours.

    Where the disk can't hold links (Windows, mostly), the file lies there once all the same.
    """
    body = os.urandom(30 << 20)
    hub.publish(HUB, **{BIN: body})
    answer = download(hub, BACKBONE, ours, ours.parent / "second", links=links)
    assert answer.get("message") is None
    assert {label for label, _, _ in answer["ticks"]} == {"Downloading"}
    assert answer["ticks"][-1][1:] == [30, 30]
    found = store.place(BACKBONE, [ours])
    assert str(found.path) == answer["path"] == str(ours / f"models--{HUB.replace('/', '--')}")
    assert found.size_bytes == answer["size"] == len(body) + len("c0ffee")
    assert found.deletable and answer["deletable"]
    file = found.path / "snapshots" / "c0ffee" / BIN
    assert file.is_symlink() == links
    assert file.read_bytes() == body
    assert not [one for one in tree(ours) if "partial" in one]
    assert [one for one in hub.asked if one.startswith("GET")] == [
        f"GET /{HUB}/resolve/main/{BIN}", f"GET /elsewhere/{HUB}/resolve/main/{BIN}",
    ]
    assert "a stranger was given the token" not in hub.asked

    ticks: list[tuple[str, int, int]] = []
    assert store.download(BACKBONE, [ours], lambda *tick: ticks.append(tick)) == found
    assert ticks == []
    assert store.delete(BACKBONE, [ours]) == found.size_bytes
    assert store.place(BACKBONE, [ours]) is None


def test_a_captioner_is_downloaded_from_a_hub(hub, ours):
    """Its small files and its weights as safetensors, one sum of bytes for all of them."""
    files = {
        "config.json": b'{"model_type": "blip"}', "vocab.txt": b"a\nb\n", "README.md": b"no",
        "model.safetensors": os.urandom(3 << 20), "pytorch_model.bin": b"no", "tf_model.h5": b"no",
    }
    hub.publish(CAPTIONER_HUB, **files)
    answer = download(hub, CAPTIONER, ours)
    assert answer.get("message") is None
    assert answer["ticks"][-1] == ["Downloading", 3, 3]
    snapshot = Path(answer["path"]) / "snapshots" / "c0ffee"
    assert {one.name: one.read_bytes() for one in snapshot.iterdir()} == {
        name: body for name, body in files.items() if body != b"no"
    }
    assert store.place(CAPTIONER, [ours]).path == Path(answer["path"])


@pytest.mark.parametrize(
    ("name", "repository", "file"),
    [(BACKBONE, HUB, BIN), (CAPTIONER, CAPTIONER_HUB, "model.safetensors")],
)
def test_a_download_from_a_hub_can_be_stopped(hub, ours, name, repository, file):
    """At once, though the network hangs; and the model is not taken for whole."""
    body = os.urandom(30 << 20)
    hub.publish(repository, **{"config.json": b"{}", file: body})
    hub.held_back = file
    answer = download(hub, name, ours, stop_at=15)
    assert hub.halfway.is_set()
    assert answer["error"] == "Interrupted"
    assert answer["seconds"] < 25
    digest = hashlib.sha256(body).hexdigest()
    assert not list(ours.rglob(digest))
    assert store.place(name, [ours]) is None


def test_a_hub_without_the_model_is_a_missing_model(hub, ours):
    """The sentence says why it can't be had."""
    answer = download(hub, CAPTIONER, ours)
    assert answer["error"] == "MissingModel"
    assert CAPTIONER_HUB in answer["message"]
    assert "the download failed (" in answer["message"]
    assert "\n" not in answer["message"]


@pytest.fixture
def plain(hub, monkeypatch) -> Source:
    """A backbone that is published at a plain address; the Hugging Face hub is not asked."""
    body = os.urandom(20 << 20)
    path = f"/v0.2-weights/vit_b_32-x-{hashlib.sha256(body).hexdigest()[:8]}.pt"
    hub.files[path] = body
    source = Source(BACKBONE, url=hub.address(path), folders=("ViT-B-32-openai",))
    monkeypatch.setattr(open_clip, "published_source", lambda _name: source)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "http_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return source


def test_a_plain_address_is_downloaded_with_progress(hub, plain, ours):
    """Into our folder, as a file that may be deleted again."""
    ticks: list[tuple[str, int, int]] = []
    found = store.download(BACKBONE, [ours], lambda *tick: ticks.append(tick))
    assert found.path == ours / plain.url.rsplit("/", 1)[-1]
    assert (found.size_bytes, found.deletable) == (20 << 20, True)
    assert ticks[-1] == ("Downloading", 20, 20)
    assert store.delete(BACKBONE, [ours]) == 20 << 20
    assert tree(ours) == {"notes.txt"}


def test_a_download_from_a_plain_address_can_be_stopped(hub, plain, ours):
    """At once, though the server hangs; what had come is kept, and is no model."""
    hub.held_back = ".pt"
    beats: list[float] = []
    stopped = []

    def tick(_label: str, done: int, total: int) -> None:
        beats.append(time.monotonic())
        if total == 20 and done == 10 and len(beats) > 5:
            stopped.append(time.monotonic())
            raise Interrupted("enough")

    with pytest.raises(Interrupted, match="enough"):
        store.download(BACKBONE, [ours], tick)
    assert time.monotonic() - stopped[0] < 25
    assert max(later - earlier for earlier, later in itertools.pairwise(beats)) < 25
    assert len(stopped) == 1
    assert store.place(BACKBONE, [ours]) is None
    partial = f".partial-{Path(plain.url).name}"
    assert tree(ours) == {"notes.txt", partial}
    hub.held_back = "nothing"
    assert store.download(BACKBONE, [ours]).size_bytes == 20 << 20
    assert tree(ours) == {"notes.txt", Path(plain.url).name}


def test_offline_nothing_is_downloaded(ours, monkeypatch):
    """The sentence says what forbids it and where the model could be put."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in (BACKBONE, CAPTIONER):
        with pytest.raises(MissingModel, match="downloads are switched off") as caught:
            store.download(name, [ours])
        assert str(ours) in str(caught.value)


def test_what_is_not_published_is_not_downloaded(ours):
    """A place of one's own can't be filled by us."""
    for name in (str(ours), f"ViT-B-32={ours / 'mine.safetensors'}"):
        with pytest.raises(MissingModel, match="only published ones can be downloaded"):
            store.download(name, [ours])
