"""Read and decode pictures ahead of their turn, in threads."""

from __future__ import annotations

import hashlib
import stat
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from clip_interrogator_ext.errors import BadImage
from clip_interrogator_ext.images import MAX_BYTES, open_image

if TYPE_CHECKING:
    from PIL import Image

AHEAD = 3  # pictures; each may hold hundreds of megabytes when it is decoded
_THREADS = 2
Item = TypeVar("Item")


@dataclass(frozen=True)
class Stamp:
    """What tells without reading a picture that it is the same as before."""

    size: int
    modified_ns: int


@dataclass(frozen=True)
class Loaded:
    """A picture, upright and in RGB, with the hash of its file's bytes."""

    sha256: str
    stamp: Stamp
    image: Image.Image


class _Named(BytesIO):
    """Bytes that know their file's name, for the sentence that says what is wrong with them."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self.name = name


def stamp_of(path: Path) -> Stamp | None:
    """Return a picture's stamp, or None where there is no such file."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return Stamp(status.st_size, status.st_mtime_ns)


def load(path: Path) -> Loaded:
    """Read and decode a picture; raises BadImage. What is hashed is what is decoded."""
    try:
        # The stamp first: whoever changes the file meanwhile makes it a stamp of the past.
        status = path.stat()
        ordinary = stat.S_ISREG(status.st_mode) and status.st_size <= MAX_BYTES
        content = path.read_bytes() if ordinary else None
    except (OSError, ValueError):
        content = None
    if content is None:
        open_image(path)  # says what is wrong with it
        raise BadImage(f'"{path.name}" changed while it was read: start again.')
    image = open_image(_Named(content, str(path)))
    stamp = Stamp(status.st_size, status.st_mtime_ns)
    return Loaded(hashlib.sha256(content).hexdigest(), stamp, image)


def ahead(
    items: Iterable[Item], path_of: Callable[[Item], Path | None]
) -> Generator[tuple[Item, Future[Loaded] | None], None, None]:
    """Yield each item with the picture that it needs, which is being loaded before its turn.

    `path_of` returns None for an item that needs none.
    """
    waiting: deque[tuple[Item, Future[Loaded] | None]] = deque()
    with ThreadPoolExecutor(_THREADS, "clip-interrogator-ext-decoding") as threads:
        try:
            for item in items:
                path = path_of(item)
                waiting.append((item, None if path is None else threads.submit(load, path)))
                if len(waiting) > AHEAD:
                    yield waiting.popleft()
            while waiting:
                yield waiting.popleft()
        finally:
            for _, future in waiting:
                if future is not None:
                    future.cancel()
