"""Bring a model's files: whole or not at all, and on from where an earlier try broke off."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import io
import logging
import math
import os
import re
import shutil
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from clip_interrogator_ext.errors import Interrupted
from clip_interrogator_ext.files import lock
from clip_interrogator_ext.models import leftovers

if TYPE_CHECKING:
    from clip_interrogator_ext.models.base import Tick

_OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_REACH_SECONDS = 5
_READ_SECONDS = 30
_SILENCE_SECONDS = 60
_TICK_SECONDS = 0.1
_STOP_SECONDS = 0.5  # how long a stopped download is waited for, which may hang in the network
_BLOCK_BYTES = 1 << 20
_HUB_BLOCK_BYTES = 1 << 16  # it waits until a block is full
_FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FILE_NAME = re.compile(r"\w[\w.-]*")


class NoDownload(OSError):
    """A file can't be had; the text is the whole reason, without a full stop."""


class Unreachable(NoDownload):
    """Nobody answers at the place that publishes a file."""


class _NoRoom(NoDownload):
    """The disk is full, or would be."""


class _TooMuch(OSError):
    """More has come than the file has."""


@dataclass
class Transfer:
    """A download under way: one thread counts its bytes, another watches and may stop it."""

    done: int = 0
    total: int = 0
    kept: bool = False
    """Whether what has come is still there, so that the next download goes on from it."""
    stopped: threading.Event = field(default_factory=threading.Event)
    heard_at: float = field(default_factory=time.monotonic)
    file: _Arriving | None = None

    def check(self) -> None:
        """Raise Interrupted once the download was stopped."""
        if self.stopped.is_set():
            raise Interrupted("The download was stopped.")

    def heard(self) -> None:
        """Note that the network has said something; from now on it is waited for."""
        self.heard_at = time.monotonic()

    def expect_silence(self) -> None:
        """Note that nothing is waited for: the work is done on this machine."""
        self.heard_at = math.inf

    def stop(self) -> None:
        """Take nothing more, and let go of the file, though the thread may still hang."""
        self.stopped.set()
        if self.file is not None:
            self.file.leave()


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


_quiet = threading.Lock()
_quiet_users = 0
_end_quiet: Callable[[], object]


@contextlib.contextmanager
def quiet_hub() -> Iterator[None]:
    """Keep huggingface_hub from logging each of its tries twice, and from drawing its own bars.

    Its errors still tell all. And it hands on what comes, in small blocks, to whoever counts.
    """
    global _quiet_users, _end_quiet
    with _quiet:
        if _quiet_users == 0:
            _end_quiet = _make_quiet()
        _quiet_users += 1
    try:
        yield
    finally:
        with _quiet:
            _quiet_users -= 1
            if _quiet_users == 0:
                _end_quiet()


def _make_quiet() -> Callable[[], object]:
    """Change huggingface_hub for our downloads; return what changes it back."""
    from huggingface_hub import constants, utils

    undo = contextlib.ExitStack()
    logger = logging.getLogger("huggingface_hub")
    undo.callback(logger.setLevel, logger.level)
    logger.setLevel(logging.CRITICAL)
    bars = "huggingface_hub.http_get"
    # Where the user has decided on the bars, by a variable or a call, it stays so.
    if constants.HF_HUB_DISABLE_PROGRESS_BARS is None and not (
        utils.are_progress_bars_disabled(bars)
    ):
        undo.callback(utils.enable_progress_bars, bars)
        utils.disable_progress_bars(bars)
    # It would keep ten mebibytes to itself, which on a slow line are minutes; and hf_transfer
    # (gone since 1.0) writes past whoever counts, stops, or goes on.
    for name, value in (
        ("DOWNLOAD_CHUNK_SIZE", _HUB_BLOCK_BYTES), ("HF_HUB_ENABLE_HF_TRANSFER", False)
    ):
        if hasattr(constants, name):
            undo.callback(setattr, constants, name, getattr(constants, name))
            setattr(constants, name, value)
    return undo.close


def network_errors() -> tuple[type[Exception], ...]:
    """Return what a download may raise: huggingface_hub's network library has its own errors."""
    from huggingface_hub.utils import HfHubHTTPError

    return (OSError, ValueError, http.client.HTTPException, *HfHubHTTPError.__bases__)


def attempt(work: Callable[[Transfer], Path], tick: Tick) -> Path:
    """Return what a download returns, calling tick("Downloading", mebibytes, of how many).

    The work is done in a thread of its own, because one block can take longer than whoever wants
    to stop it may wait. Raises NoDownload, also when the network has said nothing for a minute;
    a stop or a failure leaves what has come, for the next time.
    """
    if offline():
        raise NoDownload(
            "downloads are switched off (HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set)"
        )
    transfer = Transfer()
    try:
        return _watched(work, transfer, tick)
    except NoDownload:
        raise
    except network_errors() as error:
        raise NoDownload(_reason(error, transfer)) from error


def _watched(work: Callable[[Transfer], Path], transfer: Transfer, tick: Tick) -> Path:
    answer = Future[Path]()

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
            if time.monotonic() - transfer.heard_at > _SILENCE_SECONDS:
                raise TimeoutError(f"nothing has come for {_SILENCE_SECONDS} seconds")
            wait([answer], timeout=_TICK_SECONDS)
    finally:
        transfer.stopped.set()
        thread.join(_STOP_SECONDS)
        transfer.stop()
    path = answer.result()
    tick("Downloading", transfer.total >> 20, transfer.total >> 20)
    return path


def _reason(error: Exception, transfer: Transfer) -> str:
    if isinstance(error, OSError) and error.errno in _FULL:
        return f"the disk is full ({error.filename or error.strerror})"
    if isinstance(error, OSError) and error.errno and error.filename:
        return f"{error.filename} can't be written ({error.strerror})"
    reason = f"the download failed ({_first_line(error)})"
    if transfer.kept:
        reason += "; what has come is kept, and the next download goes on from there"
    return reason


def storage_of(hub: str, cache: Path) -> Path:
    """Return where huggingface_hub keeps a repository below a cache."""
    return cache / f"models--{hub.replace('/', '--')}"


def partial_of(target: Path) -> Path:
    """Return where a file from a plain address lies until it is whole."""
    return target.with_name(leftovers.PARTIAL + target.name)


def fetch(hub: str, names: Sequence[str], cache: Path | None, transfer: Transfer) -> Path:
    """Download files of a repository into huggingface_hub's cache; return the last one's path.

    huggingface_hub's own way can neither be watched nor stopped in all its versions. So it only
    carries the bytes, to a place where it finds them when it then enters them into its books.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.file_download import are_symlinks_supported, http_get
    from huggingface_hub.utils import build_hf_headers

    root = Path(cache or constants.HF_HUB_CACHE)
    with quiet_hub():
        links = are_symlinks_supported(root)
        files = []
        for name in names:
            transfer.check()
            published = get_hf_file_metadata(hf_hub_url(hub, name))
            transfer.heard()
            files.append(_HubFile(name, published, storage_of(hub, root), links))
        transfer.total = sum(file.size for file in files)
        missing = [file for file in files if not file.is_here()]
        _require_room(root, sum(file.size - _size(file.partial) for file in missing))
        for file in files:
            def carry(arriving: _Arriving, file: _HubFile = file) -> None:
                http_get(
                    hf_hub_url(hub, file.name), arriving, resume_size=arriving.tell(),
                    # What is packed for the way can't be gone on with in the middle.
                    headers={**build_hf_headers(), "Accept-Encoding": "identity"},
                    expected_size=file.size or None,
                )

            before = transfer.done
            if not file.is_here():
                _bring(file.target, file.partial, transfer, carry, file.size, file.digits)
            transfer.done = before + file.size
            transfer.heard()
            path = hf_hub_download(hub, file.name, cache_dir=cache)
    return Path(path)


class _HubFile:
    """A file that the hub publishes, and where it is to lie."""

    def __init__(self, name: str, published: Any, storage: Path, links: bool) -> None:
        from huggingface_hub import constants

        etag, commit = str(published.etag), str(published.commit_hash)
        # Both become names of files, so that they must be no paths.
        if None in (published.etag, published.commit_hash) or not (
            _FILE_NAME.fullmatch(etag) and _FILE_NAME.fullmatch(commit)
        ):
            raise OSError(f"{constants.ENDPOINT} does not answer as the Hugging Face hub does")
        self.name = name
        self.size: int = published.size or 0
        self.digits = etag if _SHA256.fullmatch(etag) else ""  # only of what lies in LFS
        self._entry = storage / "snapshots" / commit / name
        # Without links it would copy a blob, which then lay there twice.
        self.target = storage / "blobs" / etag if links else self._entry
        self.partial = self.target.with_name(leftovers.PARTIAL + etag)

    def is_here(self) -> bool:
        return self._entry.is_file() or self.target.is_file()


def fetch_url(url: str, target: Path, transfer: Transfer) -> Path:
    """Download a file whose address publishes its hash."""
    digits = published_digits(url)
    if not digits:
        raise NoDownload(f"{url} publishes no hash that the file could be checked by")

    def carry(file: _Arriving) -> None:
        begun = file.tell()
        request = urllib.request.Request(url)  # noqa: S310 - open_clip's own
        if begun:
            request.add_header("Range", f"bytes={begun}-")
        with urllib.request.urlopen(request, timeout=_READ_SECONDS) as answer:  # noqa: S310
            if begun and answer.status != http.client.PARTIAL_CONTENT:
                file.truncate(0)
            length = answer.headers.get("Content-Length")
            if length:
                file.limit = transfer.total = file.tell() + int(length)
                _require_room(target.parent, int(length))
            while block := answer.read1(_BLOCK_BYTES):  # what has come, not a block that is full
                file.write(block)
            if length and file.tell() < transfer.total:
                raise OSError(f"the file from {url} was cut off")

    try:
        _bring(target, partial_of(target), transfer, carry, 0, digits)
    except urllib.error.HTTPError:
        raise
    except urllib.error.URLError as error:
        raise Unreachable(f"{urlsplit(url).hostname} can't be reached") from error
    return target


def _bring(
    target: Path, partial: Path, transfer: Transfer, carry: Callable[[_Arriving], None],
    size: int, digits: str,
) -> None:
    """Have the rest of a file carried, and give it its name if it is the published one.

    size: of the whole file, 0 where it is not known. digits: its SHA-256 begins with them.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    file = _take(target, partial, transfer)
    if file is None:
        return
    try:
        resumed = file.tell() > 0
        whole = _complete(file, transfer, carry, size, digits)
        if resumed and not whole:  # of another file, or spoilt; or the server takes no ranges
            file.truncate(0)
            whole = _complete(file, transfer, carry, size, digits)
        if not whole:
            file.truncate(0)
            raise OSError(f"{target.name} does not have its published size or hash")
        file.finish(target)
    finally:
        file.leave()


def _complete(
    file: _Arriving, transfer: Transfer, carry: Callable[[_Arriving], None], size: int, digits: str
) -> bool:
    transfer.check()
    transfer.heard()
    if size and file.tell() > size:
        return False
    file.limit = size
    try:
        if not size or file.tell() < size:
            carry(file)
    except _TooMuch:
        return False
    except urllib.error.HTTPError as error:
        # Nothing stands behind what is here: it may be whole.
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
    transfer.expect_silence()
    if size and file.tell() != size:
        return False
    return _has_digits(Path(file.name), digits, transfer.check)


def _take(target: Path, partial: Path, transfer: Transfer) -> _Arriving | None:
    """Return the file to go on with, held by nobody else; None once another has brought it."""
    before, seen = transfer.done, -1
    while not target.is_file():
        transfer.check()
        file = _Arriving(partial, transfer)
        try:
            lock(file.fileno())
            file.seek(0, os.SEEK_END)
            same = os.path.samestat(os.fstat(file.fileno()), partial.stat())
            if same and not target.is_file():
                transfer.file = file
                transfer.done = before + file.tell()
                return file
            if same:
                file.leave()
        except BlockingIOError:  # another one downloads it: its progress is ours
            if (size := _size(partial)) != seen:
                transfer.done, seen = before + size, size
                transfer.heard()
        except FileNotFoundError:
            pass  # it was given its name just now
        file.close()
        transfer.stopped.wait(_TICK_SECONDS)
    return None


class _Arriving(io.FileIO):
    """A file that is being downloaded: counts what it is given, and takes no more once stopped.

    Whoever stops it may let go of it from another thread.
    """

    def __init__(self, path: Path, transfer: Transfer) -> None:
        super().__init__(path, "a+")
        self.name: str = str(path)
        self.limit = 0
        self._transfer = transfer
        self._before = transfer.done
        self._busy = threading.RLock()

    def write(self, block: Any) -> int:
        """Write a whole block; raises Interrupted where nobody waits for the file any more."""
        self._transfer.check()
        if self.limit and self.tell() + len(block) > self.limit:
            raise _TooMuch(f"more than {self.limit} bytes have come")
        self._transfer.heard()
        rest = memoryview(block)
        with self._busy:
            try:
                while rest:  # a disk that is nearly full takes a part
                    rest = rest[super().write(rest) :]
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                needed = max(self.limit - self.tell(), len(rest))
                self.truncate(0)  # other programs need the room, too
                raise _no_room(Path(self.name).parent, needed, str(error.strerror)) from error
            self._count()
        return len(block)

    def truncate(self, size: int | None = None) -> int:
        """Cut the file off, as whoever begins anew does."""
        with self._busy:
            kept = super().truncate(size)
            self.seek(0, os.SEEK_END)
            self._count()
        return kept

    def finish(self, target: Path) -> None:
        """Give the file its own name, once it is safe on the disk."""
        os.fsync(self.fileno())
        with self._busy:
            self._transfer.check()
            if sys.platform == "win32":
                self.close()  # it renames nothing that is open
            Path(self.name).replace(target)
            self.close()

    def leave(self) -> None:
        """Let go of the file; what has come stays, for another time."""
        with self._busy:
            if self.closed:
                return
            self._transfer.kept = self.tell() > 0
            if not self._transfer.kept:
                if sys.platform == "win32":
                    self.close()
                Path(self.name).unlink(missing_ok=True)
            self.close()

    def _count(self) -> None:
        self._transfer.done = self._before + self.tell()


def _require_room(folder: Path, needed: int) -> None:
    """Raise _NoRoom where the disk of a folder can't take so many bytes more."""
    while not folder.exists():
        folder = folder.parent
    usage = shutil.disk_usage(folder)
    if usage.total and usage.free < needed:  # some file systems of the network tell nothing
        raise _no_room(folder, needed, f"{_mebibytes(usage.free)} are free")


def _no_room(folder: Path, needed: int, why: str) -> _NoRoom:
    return _NoRoom(
        f"there is no room for it: {_mebibytes(needed)} more are needed in {folder} ({why})"
    )


def _mebibytes(size: int) -> str:
    return f"{size / (1 << 20):,.1f} MiB"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def published_digits(url: str) -> str:
    """Return the digits that a file's SHA-256 begins with, as its address publishes them, or "".

    OpenAI's addresses hold the whole hash as a folder, open_clip's the first eight digits at the
    end of the file's name.
    """
    parts = url.split("/")
    published = parts[-2] if "openaipublic" in url else Path(parts[-1]).stem.rsplit("-", 1)[-1]
    return published if len(published) >= 8 and set(published) <= set("0123456789abcdef") else ""


def matches_published_hash(path: Path, url: str) -> bool:
    """Say whether a file has the hash that its address publishes; without one it has not."""
    digits = published_digits(url)
    return bool(digits) and _has_digits(path, digits)


def _has_digits(path: Path, digits: str, check: Callable[[], None] = lambda: None) -> bool:
    """Say whether a file's SHA-256 begins with these digits."""
    if not digits:
        return True
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            check()
            digest.update(block)
    return digest.hexdigest().startswith(digits)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
