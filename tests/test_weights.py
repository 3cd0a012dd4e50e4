"""Weights are found where they lie, downloaded whole or not at all, and read without being run."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import pickle
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from clip_interrogator_ext.errors import BrokenModel, MissingModel, UnsafeWeights
from clip_interrogator_ext.models import downloads, weights
from clip_interrogator_ext.models.weights import Source

pytestmark = pytest.mark.hosts

STATE = {"visual.proj": torch.arange(6.0).view(2, 3), "logit_scale": torch.tensor(4.6)}
HUB = Source(
    "ViT-X/openai", hub="timm/vit_x",
    folders=("ViT-X-openai", "ViT-X_openai", "vit_x", "timm--vit_x"),
)
URL = Source(
    "ViT-X/e31", url="https://example.org/v0.2-weights/vit_x-e31-d867053b.pt",
    folders=("ViT-X-e31",),
)


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def put(path: Path) -> Path:
    """Write a file of weights, and the folders that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(STATE, path)
    return path


def put_into_hub_cache(cache: Path, repository: str, name: str) -> Path:
    """Write a file as huggingface_hub keeps it."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text("abc123", encoding="utf-8")
    return put(folder / "snapshots" / "abc123" / name)


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep these tests away from the weights that the user has."""
    from huggingface_hub import constants

    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    """An empty models folder."""
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


# --- where they lie ---


@pytest.mark.parametrize(
    "place",
    [
        "ViT-X-openai/open_clip_model.safetensors",
        "ViT-X_openai/open_clip_pytorch_model.safetensors",
        "vit_x/model.safetensors",
        "timm--vit_x/open_clip_pytorch_model.bin",
        "ViT-X-openai.safetensors",
    ],
)
def test_weights_in_the_models_folder_are_found(models_dir, place):
    """A folder named after the model or its repository will do, and so will a single file."""
    path = put(models_dir / place)
    assert weights.find(HUB, [models_dir]) == path
    assert weights.is_here(HUB, [models_dir]) == path


def test_a_file_under_the_name_of_its_address_is_found(models_dir, tmp_path):
    """open_clip keeps a download under the last part of its address: found, in both places."""
    kept = put(tmp_path / "home" / ".cache" / "clip" / "vit_x-e31-d867053b.pt")
    assert weights.find(URL, [models_dir]) == kept
    assert weights.find(URL) == kept
    nearer = put(models_dir / "vit_x-e31-d867053b.pt")
    assert weights.find(URL, [models_dir]) == nearer


@pytest.mark.parametrize("name", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_weights_in_a_hub_cache_are_found_without_network(models_dir, tmp_path, name):
    """What huggingface_hub downloaded is used, from the models folder before the user's own."""
    kept = put_into_hub_cache(tmp_path / "home" / "hub", "timm/vit_x", name)
    assert weights.find(HUB, [models_dir]) == kept
    nearer = put_into_hub_cache(models_dir, "timm/vit_x", name)
    assert weights.find(HUB, [models_dir]) == nearer


def test_safetensors_are_taken_before_a_pickle(models_dir):
    """Where a repository's folder holds both forms, the safe one is read."""
    put_into_hub_cache(models_dir, "timm/vit_x", "open_clip_pytorch_model.bin")
    safe = put_into_hub_cache(models_dir, "timm/vit_x", "open_clip_model.safetensors")
    assert weights.find(HUB, [models_dir]) == safe
    put(models_dir / "ViT-X-openai" / "open_clip_pytorch_model.bin")
    safe = put(models_dir / "ViT-X-openai" / "open_clip_model.safetensors")
    assert weights.find(HUB, [models_dir]) == safe


def test_a_named_file_of_a_repository_is_looked_for_as_safetensors_first(models_dir):
    """A repository with a file name of its own is asked for that file, in both forms."""
    source = Source("ViTamin/d", hub="me/ViTamin", file="pytorch_model.bin", folders=("ViTamin-d",))
    pickled = put_into_hub_cache(models_dir, "me/ViTamin", "pytorch_model.bin")
    assert weights.find(source, [models_dir]) == pickled
    safe = put_into_hub_cache(models_dir, "me/ViTamin", "pytorch_model.safetensors")
    assert weights.find(source, [models_dir]) == safe


def test_weights_that_are_nowhere_are_not_here(models_dir):
    """Asking whether weights are here downloads nothing and raises nothing."""
    assert weights.is_here(HUB, [models_dir]) is None
    assert weights.is_here(URL) is None


def test_a_missing_model_offline_says_all_that_helps(models_dir, tmp_path):
    """The message names the model, every place once, and how to put it there."""
    source = Source(
        "ViT-X/openai", hub="timm/vit_x", url="https://openaipublic.net/clip/abc/ViT-X.pt",
        folders=HUB.folders,
    )
    with pytest.raises(MissingModel) as caught:
        weights.find(source, [models_dir])
    message = str(caught.value)
    assert message.startswith("The weights of ViT-X/openai are not on this machine, and downloads")
    places = message.split("Looked in: ")[1].split(". To put them there")[0].split("; ")
    assert places == [
        *(str(models_dir / folder) for folder in HUB.folders),
        str(models_dir / "ViT-X-openai.safetensors"),
        str(models_dir / "ViT-X.pt"),
        str(models_dir / "models--timm--vit_x"),
        str(tmp_path / "home" / ".cache" / "clip" / "ViT-X.pt"),
        str(tmp_path / "home" / "hub" / "models--timm--vit_x"),
    ]
    advice = message.split("To put them there: ")[1]
    assert "hf download timm/vit_x" in advice
    assert str(models_dir / "ViT-X-openai" / "open_clip_model.safetensors") in advice
    assert "\n" not in message


def test_the_advice_of_a_plain_address_leads_to_a_place_that_is_looked_in(models_dir):
    """Who does what the message says has the model afterwards."""
    with pytest.raises(MissingModel) as caught:
        weights.find(URL, [models_dir])
    advice = str(caught.value).split("To put them there: ")[1]
    assert advice.startswith(f"bring {URL.url} as ")
    path = put(Path(advice.split(" as ")[1].rstrip(".")))
    assert weights.find(URL, [models_dir]) == path


def test_several_models_folders_are_looked_in_in_order(tmp_path):
    """The first folder that has the weights gives them, before the usual caches."""
    dirs = [tmp_path / "first", tmp_path / "second"]
    put_into_hub_cache(tmp_path / "home" / "hub", "timm/vit_x", "open_clip_model.safetensors")
    last = put(dirs[1] / "ViT-X-openai.safetensors")
    assert weights.find(HUB, dirs) == last
    first = put_into_hub_cache(dirs[0], "timm/vit_x", "open_clip_model.safetensors")
    assert weights.find(HUB, dirs) == first


def test_of_several_models_folders_all_are_named_and_the_first_is_advised(tmp_path):
    """The places stand in the order of the search; a file is best brought where ours are."""
    dirs = [tmp_path / "first", tmp_path / "second"]
    with pytest.raises(MissingModel) as caught:
        weights.find(URL, dirs)
    places, advice = str(caught.value).split("Looked in: ")[1].split(". To put them there: ")
    kept = URL.url.rsplit("/", 1)[-1]
    assert [place for place in places.split("; ") if place.endswith(kept)] == [
        *(str(folder / kept) for folder in dirs), str(tmp_path / "home" / ".cache" / "clip" / kept),
    ]
    assert str(dirs[0] / kept) in advice
    assert str(dirs[1]) not in advice


def test_a_hub_cache_that_is_the_models_folder_is_named_once(models_dir, monkeypatch):
    """A place that is looked in twice is named once."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(models_dir))
    with pytest.raises(MissingModel) as caught:
        weights.find(HUB, [models_dir])
    assert str(caught.value).count("models--timm--vit_x") == 1


# --- the hub ---


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port of this machine that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, closed_port: int) -> None:
    """Downloads are allowed, but nobody answers."""
    from huggingface_hub import constants

    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{closed_port}")


def test_a_hub_that_listens_is_reachable(no_hub, monkeypatch):
    """One connection to the hub's address tells."""
    from huggingface_hub import constants

    assert not downloads.hub_is_reachable()
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert downloads.hub_is_reachable()


def test_behind_a_proxy_the_hub_counts_as_reachable(no_hub, monkeypatch):
    """Only the proxy knows, so nothing is asked of the network."""
    monkeypatch.setenv("http_proxy", "http://proxy.example.org:3128")
    assert downloads.hub_is_reachable()


def test_without_a_network_the_answer_comes_at_once(no_hub, models_dir, caplog, capfd):
    """No retries, no lines of huggingface_hub's, one plain reason."""
    caplog.set_level(logging.DEBUG)
    started = time.monotonic()
    with pytest.raises(MissingModel, match=r", and the Hugging Face hub can't be reached\. Look"):
        weights.find(HUB, [models_dir])
    assert time.monotonic() - started < 60  # retries take minutes
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_the_hubs_logger_is_left_as_it_was():
    """huggingface_hub is quiet during our downloads only."""
    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    with contextlib.suppress(KeyError), downloads.quiet_hub():
        assert not logging.getLogger("huggingface_hub.utils._http").isEnabledFor(logging.ERROR)
        raise KeyError
    assert logger.level == before


def test_errors_of_the_hubs_network_library_are_download_errors(no_hub, models_dir, monkeypatch):
    """A connection that breaks off in the hub's library is a missing model, not a crash."""
    from huggingface_hub.utils import HfHubHTTPError

    error = HfHubHTTPError.__bases__[0]
    monkeypatch.setattr(downloads, "hub_is_reachable", lambda: True)

    def break_off(*_arguments: object, **_named: object) -> str:
        raise error("peer closed connection\nand more")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", break_off)
    with pytest.raises(MissingModel, match=r"the download failed \(peer closed connection\)\."):
        weights.find(HUB, [models_dir])


# --- downloads ---


class Server(ThreadingHTTPServer):
    """Serves a few files, cuts off those under /cut/, and remembers what it was asked."""

    files: dict[str, bytes]
    asked: list[str]

    def address(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(BaseHTTPRequestHandler):
    """Answers one question to a Server."""

    server: Server

    def _answer(self, *, whole: bool) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        body = self.server.files.get(self.path)
        if body is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", "c0ffee")
        self.end_headers()
        if whole:
            self.wfile.write(body[: len(body) // 2] if "/cut/" in self.path else body)

    def do_GET(self) -> None:
        self._answer(whole=True)

    def do_HEAD(self) -> None:
        self._answer(whole=False)

    def log_message(self, *_arguments: object) -> None:
        """Write nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    """A server of files on this machine."""
    with Server(("127.0.0.1", 0), Handler) as running:
        running.files, running.asked = {}, []
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def published(server: Server, folder: str, body: bytes, digest: str | None = None) -> Source:
    """Have the server publish a file as open_clip's releases do, its hash in its name."""
    digest = digest or hashlib.sha256(body).hexdigest()[:8]
    path = f"{folder}/vit_x-e31-{digest}.pt"
    server.files[path] = body
    return Source("ViT-X/e31", url=server.address(path), folders=("ViT-X-e31",))


def test_a_plain_address_is_downloaded_once(no_hub, server, models_dir):
    """The file arrives whole under its own name, with nothing beside it, and is kept."""
    body = os.urandom(3_000_000)
    source = published(server, "/v0.2-weights", body)
    path = weights.find(source, [models_dir])
    assert path.read_bytes() == body
    assert list(models_dir.iterdir()) == [path]
    assert weights.find(source, [models_dir]) == path
    assert len(server.asked) == 1


def test_a_download_has_its_own_name_only_when_it_is_whole(no_hub, server, models_dir, monkeypatch):
    """While the hash is being checked the file lies under another name."""
    seen: list[list[str]] = []
    check = downloads._has_digits

    def watch(*arguments: Any) -> bool:
        seen.append([one.name for one in models_dir.iterdir()])
        return check(*arguments)

    monkeypatch.setattr(downloads, "_has_digits", watch)
    path = weights.find(published(server, "/v0.2-weights", b"whole"), [models_dir])
    assert len(seen) == 1
    assert len(seen[0]) == 1
    assert seen[0] != [path.name]


def test_a_download_goes_to_the_first_folder_and_tells_how_far_it_is(no_hub, server, tmp_path):
    """Mebibytes done and of how many, up to the last."""
    dirs = [tmp_path / "first", tmp_path / "second"]
    ticks: list[tuple[str, int, int]] = []
    body = os.urandom(5 << 20)
    source = published(server, "/v0.2-weights", body)
    path = weights.find(source, dirs, lambda *tick: ticks.append(tick))
    assert path.parent == dirs[0]
    assert {label for label, _, _ in ticks} == {"Downloading"}
    assert ticks[-1] == ("Downloading", 5, 5)
    assert [done for _, done, _ in ticks] == sorted(done for _, done, _ in ticks)


def test_a_downloaded_file_can_be_read_by_others(no_hub, server, models_dir):
    """A models folder may be shared: the file has the rights that any new file has."""
    path = weights.find(published(server, "/v0.2-weights", b"whole"), [models_dir])
    (models_dir / "new").touch()
    assert path.stat().st_mode == (models_dir / "new").stat().st_mode


def test_a_download_that_was_cut_off_is_no_model(no_hub, server, models_dir):
    """It has no final name, and is kept to be gone on with."""
    source = published(server, "/cut", os.urandom(200_000))
    with pytest.raises(MissingModel, match=r"was cut off\); what has come is kept, and the next"):
        weights.find(source, [models_dir])
    assert [path.name for path in models_dir.iterdir()] == [f".partial-{Path(source.url).name}"]


def test_an_altered_download_leaves_nothing(no_hub, server, models_dir):
    """A missing model, nothing under the final name, no partial file."""
    source = published(server, "/v0.2-weights", os.urandom(200_000), "00000000")
    with pytest.raises(MissingModel, match="does not have its published size or hash"):
        weights.find(source, [models_dir])
    assert list(models_dir.iterdir()) == []


def test_an_address_without_a_hash_is_not_asked(no_hub, server, models_dir):
    """Gigabytes that could not be trusted afterwards are not fetched."""
    server.files["/v0.2-weights/vit_x.pt"] = b"weights"
    source = Source("ViT-X/e31", url=server.address("/v0.2-weights/vit_x.pt"), folders=("x",))
    with pytest.raises(MissingModel, match="publishes no hash"):
        weights.find(source, [models_dir])
    assert server.asked == []


def test_an_address_that_is_gone_is_a_missing_model(no_hub, server, models_dir):
    """The server's own answer is the reason."""
    source = Source("ViT-X/e31", url=server.address("/gone-00000000.pt"), folders=("ViT-X-e31",))
    with pytest.raises(MissingModel, match="404"):
        weights.find(source, [models_dir])
    assert list(models_dir.iterdir()) == []


def test_a_host_that_does_not_answer_is_named(no_hub, models_dir, closed_port):
    """The reason is a plain sentence."""
    url = f"http://127.0.0.1:{closed_port}/vit_x-e31-d867053b.pt"
    with pytest.raises(MissingModel, match=r"and 127\.0\.0\.1 can't be reached\. Looked in"):
        weights.find(Source("ViT-X/e31", url=url, folders=("ViT-X-e31",)), [models_dir])
    assert list(models_dir.iterdir()) == []


def test_a_plain_address_helps_out_where_the_hub_can_not_be_reached(no_hub, server, models_dir):
    """Weights that are published twice are had from whoever answers."""
    plain = published(server, "/v0.2-weights", b"whole")
    source = Source(plain.name, hub="timm/vit_x", url=plain.url, folders=plain.folders)
    assert weights.find(source, [models_dir]).read_bytes() == b"whole"


@pytest.mark.parametrize("name", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_the_hubs_own_loader_downloads_from_a_hub(server, models_dir, tmp_path, name):
    """A hub is asked for each safe name first; a second start finds the file on this machine."""
    server.files[f"/timm/vit_x/resolve/main/{name}"] = b"weights"
    program = (
        "import sys; from pathlib import Path; from clip_interrogator_ext.models import weights\n"
        "source = weights.Source('x', hub='timm/vit_x', folders=('x',))\n"
        "first = weights.find(source, [Path(sys.argv[1])])\n"
        "assert weights.is_here(source, [Path(sys.argv[1])]) == first\n"
        "print(first)"
    )
    environment = {
        **os.environ, "HF_ENDPOINT": server.address(""), "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", program, str(models_dir)],
        env=environment, capture_output=True, text=True, check=False,
        cwd=Path(__file__).parents[1],
    )
    assert done.returncode == 0, done.stderr
    found = Path(done.stdout.strip())
    assert found.name == name
    assert found.is_relative_to(models_dir)
    assert found.read_bytes() == b"weights"
    asked = [one.rsplit("/", 1)[-1] for one in server.asked if one.startswith("HEAD")]
    assert asked[0] == "open_clip_model.safetensors"


# --- published hashes ---


def test_hashes_are_read_from_the_addresses_that_hold_them(tmp_path):
    """OpenAI's addresses hold the whole hash as a folder, open_clip's its beginning in the name."""
    path = tmp_path / "file"
    path.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    good = [
        f"https://openaipublic.azureedge.net/clip/models/{digest}/ViT-X.pt",
        f"https://github.com/mlfoundations/open_clip/releases/vit_x-e31-{digest[:8]}.pt",
    ]
    for url in good:
        assert downloads.matches_published_hash(path, url)
        assert not downloads.matches_published_hash(path, url.replace(digest[:8], "01234567"))


@pytest.mark.parametrize(
    "url", ["", "https://example.org/weights.pt", "https://example.org/x-1234.pt",
            "https://openaipublic.azureedge.net/clip/models//ViT-X.pt"],
)
def test_an_address_without_a_hash_matches_nothing(tmp_path, url):
    """No published hash is no licence."""
    path = tmp_path / "file"
    path.write_bytes(b"weights")
    assert not downloads.matches_published_hash(path, url)


# --- reading ---


class Malicious:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


def test_safetensors_are_read(tmp_path):
    """Names and values come back as they were saved."""
    path = tmp_path / "model.safetensors"
    save_file(STATE, path)
    assert same(weights.read(path), STATE)


@pytest.mark.parametrize("keep", [0, 4, 60, -4])
def test_safetensors_that_were_cut_off_are_broken(tmp_path, keep):
    """The message names the file and says what to do."""
    path = tmp_path / "model.safetensors"
    save_file(STATE, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BrokenModel, match=r"model\.safetensors can't be read.*download it again\."):
        weights.read(path)


def test_an_official_pickle_is_read_as_weights_only(tmp_path):
    """A training checkpoint is unwrapped, and the prefix of parallel training dropped."""
    path = tmp_path / "open_clip_pytorch_model.bin"
    torch.save(STATE, path)
    assert same(weights.read(path, official_url=""), STATE)
    wrapped = {"epoch": 31, "state_dict": {f"module.{key}": one for key, one in STATE.items()}}
    torch.save(wrapped, path)
    assert same(weights.read(path, official_url=""), STATE)


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".pth", ".ckpt", ""])
def test_any_other_pickle_is_refused(tmp_path, suffix):
    """Even a harmless one: it is not opened at all."""
    path = tmp_path / f"model{suffix}"
    torch.save(STATE, path)
    with pytest.raises(UnsafeWeights, match="safetensors"):
        weights.read(path)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("official_url", [None, "", "https://example.org/x-00000000.pt"])
def test_a_malicious_pickle_is_never_run(tmp_path, legacy, official_url):
    """Whoever is said to have made it, and in either of torch's formats, nothing in it runs."""
    path, trace = tmp_path / "model.pt", tmp_path / "it ran"
    harm = {"state_dict": {"weight": Malicious(trace)}}
    torch.save(harm, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises((UnsafeWeights, BrokenModel)):
        weights.read(path, official_url=official_url)
    assert not trace.exists()
    pickle.loads(pickle.dumps(harm))  # noqa: S301 - shows that it would have run
    assert trace.exists()


def garbage() -> list[bytes]:
    """Return files that are no checkpoint: random, cut off, a text, a pickle of something else."""
    generator = torch.Generator().manual_seed(0)
    blocks = [
        torch.randint(0, 256, (size,), generator=generator, dtype=torch.uint8).numpy().tobytes()
        for size in [*range(1, 40), 1000]
    ]
    opcodes = [bytes([code % 256, *block[:3]]) for code, block in enumerate(blocks * 7)]
    others = [pickle.dumps(one, protocol=2) for one in (None, [1, 2], "text", {1: 2})]
    texts = [b"", b"<html>Not found</html>", b"PK\x03\x04", b"\x80\x02."]
    return [*texts, *blocks, *opcodes, *others]


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
def test_garbage_is_a_broken_model(tmp_path):
    """Whatever stands in an official file, the answer is one sentence."""
    path = tmp_path / "model.pt"
    for body in garbage():
        path.write_bytes(body)
        with pytest.raises(BrokenModel, match="can't be read as a checkpoint"):
            weights.read(path, official_url="")


@pytest.mark.parametrize("content", [torch.ones(2), [torch.ones(2)], {1: torch.ones(2)}, 7])
def test_a_pickle_of_something_else_is_a_broken_model(tmp_path, content):
    """A file that torch can read, but that is no table of tensors, is no checkpoint."""
    path = tmp_path / "model.pt"
    torch.save(content, path)
    with pytest.raises(BrokenModel, match="no tensors by name"):
        weights.read(path, official_url="")


def scripted(path: Path) -> Path:
    """Save a TorchScript archive that holds STATE and the numbers that OpenAI's archives hold."""

    class Archive(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels

    archive = Archive()
    archive.visual = torch.nn.Module()
    archive.visual.proj = torch.nn.Parameter(STATE["visual.proj"])
    archive.logit_scale = torch.nn.Parameter(STATE["logit_scale"])
    for name in ("input_resolution", "context_length", "vocab_size"):
        archive.register_buffer(name, torch.tensor(77))
    torch.jit.save(torch.jit.trace(archive, torch.ones(1)), str(path))
    return path


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_torchscript_is_read_only_after_its_published_hash_matched(tmp_path, monkeypatch):
    """OpenAI's archives are programs: one that is not the published one is never loaded."""
    path = scripted(tmp_path / "ViT-X.pt")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    url = f"https://openaipublic.azureedge.net/clip/models/{digest}/ViT-X.pt"
    assert same(weights.read(path, official_url=url), STATE)
    loaded: list[object] = []
    monkeypatch.setattr(torch.jit, "load", lambda *arguments, **_: loaded.append(arguments))
    monkeypatch.setattr(torch, "load", lambda *arguments, **_: loaded.append(arguments))
    for refused in (url.replace(digest, "0" * 64), "", "https://example.org/ViT-X.pt"):
        with pytest.raises(BrokenModel, match="a program, and does not have its published hash"):
            weights.read(path, official_url=refused)
    with pytest.raises(UnsafeWeights):
        weights.read(path)
    assert not loaded


def test_a_tar_archive_is_refused(tmp_path):
    """Torch's oldest form could run code in spite of `weights_only`, before torch 2.6."""
    path = tmp_path / "model.pt"
    with tarfile.open(path, "w") as archive:
        archive.add(Path(__file__), "pickle")
    with pytest.raises(BrokenModel, match="of a kind that torch no longer writes"):
        weights.read(path, official_url="")


def test_a_published_file_that_is_no_archive_is_broken(tmp_path):
    """A matching hash does not make a checkpoint of it."""
    path = tmp_path / "ViT-X.pt"
    path.write_bytes(json.dumps({}).encode())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(BrokenModel):
        weights.read(path, official_url=f"https://openaipublic.net/{digest}/ViT-X.pt")
