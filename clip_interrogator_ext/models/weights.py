"""Find a backbone's weights on this machine or download them, and read them safely."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import logging
import os
import pickle
import socket
import struct
import tarfile
import threading
import urllib.error
import urllib.request
import uuid
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from clip_interrogator_ext.errors import BrokenModel, Interrupted, MissingModel, UnsafeWeights
from clip_interrogator_ext.models.base import Tick, no_tick

log = logging.getLogger(__name__)

SAFETENSORS_NAMES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "model.safetensors",
)
OFFICIAL_PICKLE_NAMES = ("open_clip_pytorch_model.bin",)
_OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_REACH_SECONDS = 5
_TICK_SECONDS = 0.1
_STOP_SECONDS = 0.5  # how long a stopped download is waited for, which may hang in the network
_UNREADABLE = (  # what torch's reader of pickles raises when it is given something else
    pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, TypeError, LookupError,
    AttributeError, AssertionError, OverflowError, struct.error, zipfile.BadZipFile,
)


@dataclass(frozen=True)
class Source:
    """Where a published checkpoint comes from.

    `hub` is a repository, with the name of a file in it where that is not the usual one; `url`
    is a plain address, whose own text holds the first digits of the file's SHA-256.
    """

    name: str
    hub: str = ""
    file: str = ""
    url: str = ""
    folders: tuple[str, ...] = ()
    """Names that a folder of these weights may have inside the models folder."""


@dataclass
class _Places:
    """The places that were looked in, for the message when nothing was found."""

    tried: list[str] = field(default_factory=list)

    def add(self, place: Path) -> None:
        if str(place) not in self.tried:
            self.tried.append(str(place))


@dataclass
class Transfer:
    """A download under way: one thread counts its bytes, another watches and may stop it."""

    done: int = 0
    total: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Raise Interrupted once the download was stopped."""
        if self.stopped.is_set():
            raise Interrupted("The download was stopped.")


class _Unreachable(OSError):
    """Nobody answers at the place that holds the weights; the text says so."""


def offline() -> bool:
    """Say whether the user has forbidden downloads."""
    values = (os.environ.get(name, "") for name in _OFFLINE_VARIABLES)
    return any(value.upper() in ("1", "ON", "YES", "TRUE") for value in values)


def hub_is_reachable() -> bool:
    """Say within seconds whether the Hugging Face hub answers.

    Without a network, huggingface_hub itself would try for half a minute. Behind a proxy only the
    proxy knows, so there the answer is yes.
    """
    from huggingface_hub import constants

    address = urlsplit(constants.ENDPOINT)
    proxies = urllib.request.getproxies()
    if proxies.get(address.scheme) or proxies.get("all"):
        return True
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        with socket.create_connection((address.hostname or "", port), timeout=_REACH_SECONDS):
            return True
    except OSError:
        return False


@contextlib.contextmanager
def quiet_hub() -> Iterator[None]:
    """Keep huggingface_hub from logging each of its tries twice, and from drawing its own bars.

    Its errors still tell all.
    """
    from huggingface_hub import constants, utils

    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    bars = "huggingface_hub.http_get"
    # Where the user has decided on the bars, by a variable or a call, it stays so.
    hidden = constants.HF_HUB_DISABLE_PROGRESS_BARS is None and not (
        utils.are_progress_bars_disabled(bars)
    )
    logger.setLevel(logging.CRITICAL)
    if hidden:
        utils.disable_progress_bars(bars)
    try:
        yield
    finally:
        logger.setLevel(level)
        if hidden:
            utils.enable_progress_bars(bars)


def network_errors() -> tuple[type[Exception], ...]:
    """Return what a download may raise: huggingface_hub's network library has its own errors."""
    from huggingface_hub.utils import HfHubHTTPError

    return (OSError, ValueError, http.client.HTTPException, *HfHubHTTPError.__bases__)


def find(source: Source, models_dirs: Sequence[Path] = (), tick: Tick = no_tick) -> Path:
    """Return the path of a checkpoint file: found on this machine, or downloaded.

    Each models folder is looked in, then the usual caches; a download goes to the first folder.
    While it is downloaded, tick("Downloading", mebibytes, of how many) is called several times a
    second. Raises MissingModel, which names every place that was looked in.
    """
    models_dir = first_of(models_dirs)
    places = _Places()
    found = _find_local(source, models_dirs, places)
    if found is not None:
        return found
    reason = "downloads are switched off (HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set)"
    if not offline():
        try:
            return watched(lambda transfer: _download(source, models_dir, transfer), tick)
        except _Unreachable as error:
            reason = str(error)
        except network_errors() as error:
            reason = f"the download failed ({_first_line(error)})"
    raise MissingModel(
        f"The weights of {source.name} are not on this machine, and {reason}. Looked in: "
        + "; ".join(places.tried)
        + f". To put them there: {_advice(source, models_dir)}"
    )


def is_here(source: Source, models_dirs: Sequence[Path] = ()) -> Path | None:
    """Return the path of a checkpoint file on this machine, or None; downloads nothing."""
    return _find_local(source, models_dirs, _Places())


def first_of(models_dirs: Sequence[Path]) -> Path | None:
    """Return the folder that downloads go to; None means the usual caches."""
    return next(iter(models_dirs), None)


def _find_local(source: Source, models_dirs: Sequence[Path], places: _Places) -> Path | None:
    for folder in (*models_dirs, None):
        for place, candidate in _candidate_files(source, folder):
            places.add(place)
            if candidate.is_file():
                return candidate
        if source.hub and (found := _find_in_hub_cache(source, folder, places)):
            return found
    return None


def _candidate_files(source: Source, models_dir: Path | None) -> Iterator[tuple[Path, Path]]:
    """Yield the files of a models folder that may be the checkpoint, or of the usual cache.

    Each stands behind the place to name for it.
    """
    file_of_url = source.url.rsplit("/", 1)[-1]
    if models_dir is None:
        if file_of_url:
            path = Path.home() / ".cache" / "clip" / file_of_url
            yield path, path
        return
    names = [*SAFETENSORS_NAMES, *([source.file] if source.file else OFFICIAL_PICKLE_NAMES)]
    for folder in source.folders:
        for name in names:
            yield models_dir / folder, models_dir / folder / name
    for name in (f"{source.folders[0]}.safetensors" if source.folders else "", file_of_url):
        if name:
            yield models_dir / name, models_dir / name


def _hub_file_names(source: Source) -> tuple[str, ...]:
    if not source.file:
        return (*SAFETENSORS_NAMES[:2], *OFFICIAL_PICKLE_NAMES)
    stem = source.file.rsplit(".", 1)[0]
    return tuple(dict.fromkeys((f"{stem}.safetensors", source.file)))


def _find_in_hub_cache(source: Source, cache: Path | None, places: _Places) -> Path | None:
    from huggingface_hub import constants, try_to_load_from_cache

    folder = f"models--{source.hub.replace('/', '--')}"
    places.add(Path(cache or constants.HF_HUB_CACHE) / folder)
    for name in _hub_file_names(source):
        found = try_to_load_from_cache(source.hub, name, cache_dir=cache)
        if isinstance(found, str):
            return Path(found)
    return None


def _download(source: Source, models_dir: Path | None, transfer: Transfer) -> Path:
    if source.hub and hub_is_reachable():
        return _download_from_hub(source, models_dir, transfer)
    if not source.url:
        raise _Unreachable("the Hugging Face hub can't be reached")
    target = models_dir or Path.home() / ".cache" / "clip"
    try:
        return _download_url(source.url, target / source.url.rsplit("/", 1)[-1], transfer)
    except _Unreachable as error:
        if source.hub:
            raise _Unreachable(f"the Hugging Face hub can't be reached, and {error}") from error
        raise


def _download_from_hub(source: Source, models_dir: Path | None, transfer: Transfer) -> Path:
    from huggingface_hub.utils import EntryNotFoundError

    names = _hub_file_names(source)
    for name in names:
        try:
            return fetch(source.hub, [name], models_dir, transfer)
        except EntryNotFoundError as error:
            if "LocalEntryNotFound" in type(error).__name__:
                raise OSError(_first_line(error)) from error
            log.info("%s has no %s", source.hub, name)
    raise OSError(f"{source.hub} has none of {', '.join(names)}")


def watched(work: Callable[[Transfer], Path], tick: Tick) -> Path:
    """Return what a download returns, calling tick("Downloading", mebibytes, of how many).

    The work is done in a thread of its own, because one block can take longer than whoever wants
    to stop it may wait.
    """
    transfer, answer = Transfer(), Future[Path]()

    def run() -> None:
        try:
            answer.set_result(work(transfer))
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            answer.set_exception(error)

    thread = threading.Thread(target=run, name="download", daemon=True)
    thread.start()
    try:
        while not answer.done():
            tick("Downloading", transfer.done >> 20, transfer.total >> 20)
            wait([answer], timeout=_TICK_SECONDS)
    finally:
        transfer.stopped.set()
        thread.join(_STOP_SECONDS)
    path = answer.result()
    tick("Downloading", transfer.total >> 20, transfer.total >> 20)
    return path


def fetch(hub: str, names: Sequence[str], cache: Path | None, transfer: Transfer) -> Path:
    """Download files of a repository into huggingface_hub's cache; return the last one's path.

    huggingface_hub's own way can neither be watched nor stopped in all its versions. So it only
    carries the bytes, to a place where it finds them when it then enters them into its books.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.file_download import are_symlinks_supported, http_get
    from huggingface_hub.utils import build_hf_headers

    root = Path(cache or constants.HF_HUB_CACHE)
    storage = root / f"models--{hub.replace('/', '--')}"
    with quiet_hub():
        published = {name: get_hf_file_metadata(hf_hub_url(hub, name)) for name in names}
        transfer.total = sum(metadata.size or 0 for metadata in published.values())
        links = are_symlinks_supported(root)
        for name, metadata in published.items():
            transfer.check()
            if metadata.etag is None or metadata.commit_hash is None:
                raise OSError(f"{constants.ENDPOINT} does not answer as the Hugging Face hub does")
            entry = storage / "snapshots" / metadata.commit_hash / name
            # Without links it would copy a blob, which then lay there twice.
            target = storage / "blobs" / metadata.etag if links else entry
            if entry.is_file() or target.is_file():
                transfer.done += metadata.size or 0
            else:
                with _arriving(target, transfer) as file:
                    http_get(
                        hf_hub_url(hub, name), file, headers=build_hf_headers(),
                        expected_size=metadata.size,
                    )
            path = hf_hub_download(hub, name, cache_dir=cache)
    return Path(path)


def _download_url(url: str, target: Path, transfer: Transfer) -> Path:
    """Download a file, and check its hash before it gets its own name."""
    try:
        with (
            urllib.request.urlopen(url, timeout=30) as answer,  # noqa: S310 - open_clip's own
            _arriving(target, transfer) as file,
        ):
            transfer.total = int(answer.headers.get("Content-Length") or 0)
            while block := answer.read1(1 << 20):  # what has come, not a block that is full
                file.write(block)
            if transfer.done < transfer.total:
                raise OSError(f"the file from {url} was cut off")
            if not matches_published_hash(Path(file.name), url):
                raise OSError(f"the file from {url} does not have its published hash")
    except urllib.error.HTTPError:
        raise
    except urllib.error.URLError as error:
        raise _Unreachable(f"{urlsplit(url).hostname} can't be reached") from error
    return target


class _Arriving(io.FileIO):
    """A file that is being downloaded: counts what it is given, and takes no more once stopped."""

    def __init__(self, path: Path, transfer: Transfer) -> None:
        super().__init__(path, "x")
        self.name: str = str(path)
        self._transfer = transfer
        self._before = transfer.done

    def write(self, block: Any) -> int:
        """Write a block; raises Interrupted where nobody waits for the file any more."""
        self._transfer.check()
        written = super().write(block)
        self._transfer.done = self._before + self.tell()  # a second try may begin anew
        return written


@contextlib.contextmanager
def _arriving(target: Path, transfer: Transfer) -> Iterator[_Arriving]:
    """Yield a file under a neighbouring name; it gets its own name if nothing goes wrong."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".partial-{uuid.uuid4().hex[:8]}")
    try:
        with _Arriving(partial, transfer) as file:
            yield file
        transfer.check()
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def matches_published_hash(path: Path, url: str) -> bool:
    """Say whether a file's SHA-256 begins with the digits that its address publishes.

    OpenAI's addresses hold the whole hash as a folder, open_clip's the first eight digits at the
    end of the file's name. An address without one can't be matched.
    """
    parts = url.split("/")
    published = parts[-2] if "openaipublic" in url else Path(parts[-1]).stem.rsplit("-", 1)[-1]
    digits = set("0123456789abcdef")
    if len(published) < 8 or not set(published) <= digits:
        return False
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest().startswith(published)


def read(path: Path, *, official_url: str | None = None) -> dict[str, torch.Tensor]:
    """Read a checkpoint's tensors by name, without running anything that it contains.

    Safetensors are read as they are. `official_url` marks a checkpoint that open_clip names
    itself (empty where it comes from a hub): such a one is read with `weights_only=True`, or as
    TorchScript after its published hash matched. Any other kind raises UnsafeWeights.
    """
    if path.suffix == ".safetensors":
        try:
            return _tidy(load_file(path))
        except (SafetensorError, OSError) as error:
            raise _broken(path, error) from error
    if official_url is None:
        raise UnsafeWeights(
            f"{path} is not a safetensors file, and a pickled checkpoint can run code of its "
            "maker when it is opened. Use the model's safetensors, or convert the file on a "
            "machine where you trust it: load it with torch.load(..., weights_only=True) and save "
            "it with safetensors.torch.save_file."
        )
    try:
        if _is_torchscript(path):
            return _read_torchscript(path, official_url)
        if tarfile.is_tarfile(path):  # torch before 2.6 runs what is in those
            raise ValueError("it is of a kind that torch no longer writes")
        return _tidy(torch.load(path, map_location="cpu", weights_only=True))
    except _UNREADABLE as error:
        raise _broken(path, error) from error


def _is_torchscript(path: Path) -> bool:
    """Say whether a file is a TorchScript archive, by the mark that torch itself goes by.

    Asked first, because torch before 2.6 runs such a file in spite of `weights_only`.
    """
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.rsplit("/", 1)[-1] == "constants.pkl" for name in archive.namelist())


def _read_torchscript(path: Path, official_url: str) -> dict[str, torch.Tensor]:
    if not matches_published_hash(path, official_url):
        raise ValueError("it is a program, and does not have its published hash")
    load_script: Any = torch.jit.load  # torch leaves it without types
    return _tidy(load_script(str(path), map_location="cpu").state_dict())


def _tidy(checkpoint: Any) -> dict[str, torch.Tensor]:
    """Unwrap a training checkpoint, and drop what is not a weight."""
    state = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise ValueError("it holds no tensors by name")
    if state and all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    extra = {"input_resolution", "context_length", "vocab_size"}
    return {name: tensor for name, tensor in state.items() if name not in extra}


def _broken(path: Path, error: Exception) -> BrokenModel:
    return BrokenModel(
        f"{path} can't be read as a checkpoint ({_first_line(error)}). Delete it and download it "
        "again."
    )


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")


def _advice(source: Source, models_dir: Path | None) -> str:
    folder = models_dir or Path("MODELS_FOLDER")
    option = "" if models_dir else ", with MODELS_FOLDER as the models folder (--models-dir)"
    if source.hub:
        name = _hub_file_names(source)[0]
        target = folder / source.folders[0] / SAFETENSORS_NAMES[0]
        return (
            f"with a network, run `hf download {source.hub}`; or bring {name} from {source.hub} "
            f"as {target}{option}."
        )
    return f"bring {source.url} as {folder / source.url.rsplit('/', 1)[-1]}{option}."
