"""Read, decode and prepare pictures ahead of their turn, in threads."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from clip_interrogator_ext.errors import BadImage
from clip_interrogator_ext.files import read_file
from clip_interrogator_ext.images import MAX_BYTES, open_image

if TYPE_CHECKING:
    from PIL import Image

    from clip_interrogator_ext.interrogator import Prepared

Prepare = Callable[["Image.Image"], "Prepared"]
_THREADS = min(4, max(2, (os.cpu_count() or 1) // 2))  # a large picture takes 500 MB in each
Item = TypeVar("Item")


@dataclass(frozen=True)
class Stamp:
    """What tells without reading a picture that it is the same as before."""

    size: int
    modified_ns: int


@dataclass(frozen=True)
class Loaded:
    """A picture as the networks read it, with the hash of its file's bytes."""

    sha256: str
    stamp: Stamp
    prepared: Prepared


class _Named(BytesIO):
    """Bytes that know their file's name, for the sentence that says what is wrong with them."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self.name = name


Load = Callable[[], Loaded]


def stamp_of(path: Path) -> Stamp | None:
    """Return a picture's stamp, or None where there is no such file."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return Stamp(status.st_size, status.st_mtime_ns)


def load(path: Path, prepare: Prepare) -> Loaded:
    """Read, decode and prepare a picture; raises BadImage. What is hashed is what is decoded."""
    try:
        # The stamp first: whoever changes the file meanwhile makes it a stamp of the past.
        status = path.stat()
        content = read_file(path, MAX_BYTES)
    except (OSError, ValueError) as error:
        open_image(path)  # says what is wrong with it
        raise BadImage(f'"{path.name}" changed while it was read: start again.') from error
    image = open_image(_Named(content, str(path)))
    stamp = Stamp(status.st_size, status.st_mtime_ns)
    return Loaded(hashlib.sha256(content).hexdigest(), stamp, prepare(image))


def ahead(
    items: Iterable[Item], load_of: Callable[[Item], Load | None], count: int
) -> Generator[tuple[Item, Future[Loaded] | None], None, None]:
    """Yield each item with the picture that it needs, which is being loaded before its turn.

    `load_of` returns what loads an item's picture, or None where it needs none; so many as
    `count` are loaded ahead.
    """
    waiting: deque[tuple[Item, Future[Loaded] | None]] = deque()
    with ThreadPoolExecutor(_THREADS, "clip-interrogator-ext-decoding") as threads:
        try:
            for item in items:
                loader = load_of(item)
                waiting.append((item, None if loader is None else threads.submit(loader)))
                if len(waiting) > count:
                    yield waiting.popleft()
            while waiting:
                yield waiting.popleft()
        finally:
            for _, future in waiting:
                if future is not None:
                    future.cancel()
