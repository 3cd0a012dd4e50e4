"""The vectors of the pictures in hand, kept in a file, so that a crash costs none of them."""

from __future__ import annotations

import base64
import logging
from array import array
from collections.abc import Mapping
from pathlib import Path

from clip_interrogator_ext.batch.sealing import seal, unseal
from clip_interrogator_ext.files import WholeFiles, read_if_there, shown, unwritable

log = logging.getLogger(__name__)

NAME = ".clip-interrogator-ext.looks"
_MOST_BYTES = 64 << 20
Vectors = tuple[tuple[float, ...], ...]


class Looks:
    """Each picture's vectors by a key; only those of the last group that was looked at.

    Pictures that are looked at together are always the same ones, also after a crash: so the
    vectors are the same to the last bit, whatever the size of a group does to rounding.
    """

    def __init__(self, folder: Path, files: WholeFiles) -> None:
        self._path = folder / NAME
        self._files = files
        self._vectors: dict[str, Vectors] = {}
        try:
            content = read_if_there(self._path, _MOST_BYTES)
            kept = {} if content is None else unseal(content)["vectors"]
            self._vectors = {key: _unpack(rows) for key, rows in kept.items()}
        except (OSError, ValueError) as error:
            log.warning("%s is damaged (%s), left unread.", shown(self._path), error)

    def get(self, key: str) -> Vectors | None:
        """Return a picture's vectors, or None."""
        return self._vectors.get(key)

    def replace(self, vectors: Mapping[str, Vectors]) -> None:
        """Keep these vectors in place of those before."""
        self._vectors = dict(vectors)
        content = seal({"vectors": {key: _pack(rows) for key, rows in self._vectors.items()}})
        try:
            self._files.write(self._path, content)
        except OSError as error:
            raise unwritable(self._path, error) from error

    def clear(self) -> None:
        """Take the file away."""
        self._vectors = {}
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s can't be deleted (%s).", shown(self._path), error.strerror)


def _pack(vectors: Vectors) -> list[str]:
    return [base64.b64encode(array("f", vector).tobytes()).decode() for vector in vectors]


def _unpack(rows: list[str]) -> Vectors:
    vectors = []
    for row in rows:
        vector = array("f")
        vector.frombytes(base64.b64decode(row))
        vectors.append(tuple(vector))
    return tuple(vectors)
