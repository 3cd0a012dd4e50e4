"""The vectors of phrases: computed, kept in files, verified, extended."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from clip_interrogator_ext.files import changing, open_ordinary
from clip_interrogator_ext.models.base import Tick, no_tick

if TYPE_CHECKING:
    from clip_interrogator_ext.models.base import TextImageEncoder

log = logging.getLogger(__name__)

_FORMAT = "1"
_PROBES = 4  # how many kept vectors are computed again, to know that this network made them
_PROBE_DISTANCE = 0.02  # between the fp32 and fp16 vectors of one network; others are far apart
_SAVE_EVERY = 4096
_LONGEST_HEAD_BYTES = 4096
_DAMAGE = (
    SafetensorError, OSError, ValueError, LookupError, AttributeError, TypeError, RecursionError,
)  # fmt: skip


@dataclass(frozen=True)
class Table:
    """Phrases with their categories and, for each backbone in use, their vectors.

    `vectors[k]` is (len(phrases), dimension of backbone k), of unit length. It may be float16.
    """

    phrases: tuple[str, ...]
    categories: tuple[str, ...]
    vectors: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.phrases)

    def select(self, indices: Sequence[int]) -> Table:
        """Return the rows at these indices, in their order, ready to compute with: in float32."""
        taken = self._take(indices)
        return replace(taken, vectors=tuple(vectors.float() for vectors in taken.vectors))

    def where(self, wanted: Callable[[str], bool]) -> Table:
        """Return the table with those of its phrases that are wanted."""
        kept = [row for row, phrase in enumerate(self.phrases) if wanted(phrase)]
        return self if len(kept) == len(self) else self._take(kept)

    def _take(self, indices: Sequence[int]) -> Table:
        rows = torch.tensor(list(indices), dtype=torch.long)
        return Table(
            tuple(self.phrases[index] for index in indices),
            tuple(self.categories[index] for index in indices),
            tuple(vectors[rows] for vectors in self.vectors),
        )


def concatenate(tables: Sequence[Table]) -> Table:
    """Put tables together in their order, with every row of each."""
    if len(tables) == 1:
        return tables[0]
    return Table(
        tuple(phrase for table in tables for phrase in table.phrases),
        tuple(category for table in tables for category in table.categories),
        tuple(torch.cat(parts) for parts in zip(*(table.vectors for table in tables), strict=True)),
    )


def merge(tables: Sequence[Table]) -> Table:
    """Put tables together in their order; the first of phrases that repeat stays.

    Phrases that differ only in case count as one.
    """
    together = concatenate(tables)
    first: dict[str, int] = {}
    for index, phrase in enumerate(together.phrases):
        first.setdefault(phrase.casefold(), index)
    return together if len(first) == len(together) else together._take(list(first.values()))


@dataclass
class _Kept:
    """Vectors by their phrases' rows; `stamp` tells of what file they were read."""

    rows: dict[str, int]
    vectors: Tensor
    stamp: tuple[int, ...] = ()

    def add(self, phrases: Sequence[str], vectors: Tensor) -> None:
        """Take phrases that are not here yet with their vectors."""
        for phrase in phrases:
            self.rows[phrase] = len(self.rows)
        self.vectors = torch.cat((self.vectors, vectors.half()))

    def add_new_of(self, other: _Kept) -> None:
        """Take what another has and this one has not."""
        new = [phrase for phrase in other.rows if phrase not in self.rows]
        if new:
            self.add(new, other.vectors[[other.rows[phrase] for phrase in new]])


class PhraseStore:
    """Vectors of word lists, kept as one safetensors file per backbone and category.

    A file keeps every phrase that it ever held, so that a list can grow, shrink and change back
    and only phrases never seen before are encoded; what another process has added meanwhile stays
    in it. A file that is damaged, or made by another network, is built anew with a warning. What
    can't be written is kept in memory, with a warning, and written when that is possible again.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._unwritten: dict[Path, _Kept] = {}
        self.encoded = 0
        """How many phrases have been encoded, not read, since it was made."""

    def vectors(
        self,
        encoder: TextImageEncoder,
        category: str,
        phrases: Sequence[str],
        tick: Tick = no_tick,
    ) -> Tensor:
        """Return the unit vectors of phrases: (len(phrases), dimension) float16.

        They are the same whether they come from the file or not. When `tick` stops the work, what
        has been encoded is kept for the next time.
        """
        path = self._path(encoder.key(), category)
        kept = self._read(path, encoder)
        if path in self._unwritten:
            kept.add_new_of(self._unwritten[path])
            self._write(path, kept, encoder)
        # Sorted: phrases that begin alike are encoded together in less time.
        new = sorted({phrase for phrase in phrases if phrase not in kept.rows})
        for begin in range(0, len(new), _SAVE_EVERY):
            # Another process may have been here before us.
            part = [one for one in new[begin : begin + _SAVE_EVERY] if one not in kept.rows]
            done: list[Tensor] = []
            try:
                for vectors in _encode(encoder, part, f"{category} words", begin, len(new), tick):
                    done.append(vectors)  # noqa: PERF402 - what is done is kept when this stops
            finally:
                if done:
                    encoded = torch.cat(done)
                    self.encoded += len(encoded)
                    kept.add(part[: len(encoded)], encoded)
                    self._write(path, kept, encoder)
        rows = torch.tensor([kept.rows[phrase] for phrase in phrases], dtype=torch.long)
        if len(rows) == len(kept.vectors) and torch.equal(rows, torch.arange(len(rows))):
            return kept.vectors
        return kept.vectors[rows]

    def known(self, key: str, category: str) -> frozenset[str]:
        """Return the phrases of a category whose vectors are kept for an encoder of that key.

        Whether they are whole is seen when they are used.
        """
        path = self._path(key, category)
        try:
            if path is None or not path.is_file():
                return frozenset()
            # Not mapped into memory: on Windows it could not be replaced meanwhile.
            with open_ordinary(path) as file:
                begin, end = _head(file)["phrases"]["data_offsets"]
                file.seek(begin, os.SEEK_CUR)
                return frozenset(json.loads(file.read(end - begin)))
        except _DAMAGE:
            return frozenset()

    def _path(self, key: str, category: str) -> Path | None:
        """Return the file of a category; other programs' lists are in folders of their own."""
        if self._folder is None:
            return None
        program, colon, name = category.rpartition(":")
        folder = self._folder / key / program if colon else self._folder / key
        return folder / f"{name}.safetensors"

    def _read(self, path: Path | None, encoder: TextImageEncoder) -> _Kept:
        kept = _Kept({}, torch.empty(0, encoder.dimension).half())
        try:
            if path is None or not path.is_file():
                return kept
            with open_ordinary(path) as file:
                kept.stamp = _stamp(file.fileno())
                phrases, vectors = _unpack(file)
        except _DAMAGE as error:
            log.warning("%s is damaged (%s) and is built anew.", path, error)
            return kept
        if not _made_by(encoder, phrases, vectors):
            log.warning("%s was made by another network and is built anew.", path)
            return kept
        kept.rows = {phrase: row for row, phrase in enumerate(phrases)}
        kept.vectors = vectors
        return kept

    def _write(self, path: Path | None, kept: _Kept, encoder: TextImageEncoder) -> None:
        if path is None:
            return
        try:
            with changing(path) as put:
                if path.is_file() and _stamp(path) != kept.stamp:
                    kept.add_new_of(self._read(path, encoder))
                put(_pack(list(kept.rows), kept.vectors))
                kept.stamp = _stamp(path)
        except OSError as error:
            if not self._unwritten:
                log.warning(
                    "The vectors of word lists can't be kept in %s (%s); they are computed again "
                    "at the next start.", path.parent, error.strerror or error,
                )
            self._unwritten[path] = kept
        else:
            self._unwritten.pop(path, None)


def _encode(
    encoder: TextImageEncoder, phrases: list[str], label: str, before: int, total: int, tick: Tick
) -> Iterator[Tensor]:
    """Yield the vectors of phrases in small parts, each whole when the next one is begun."""
    step = 512
    for begin in range(0, len(phrases), step):

        def forward(_label: str, done: int, _total: int, begin: int = begin) -> None:
            tick(label, before + begin + done, total)

        yield encoder.encode_texts(phrases[begin : begin + step], forward, label)


def _pack(phrases: list[str], vectors: Tensor) -> bytes:
    words = torch.from_numpy(np.frombuffer(json.dumps(phrases).encode(), dtype=np.uint8).copy())
    metadata = {"format": _FORMAT, "sha256": _digest(words, vectors)}
    return save({"phrases": words, "vectors": vectors.contiguous()}, metadata=metadata)


def _unpack(file: BinaryIO) -> tuple[list[str], Tensor]:
    """Return a file's phrases and vectors; raises ValueError where they can't be trusted."""
    metadata = _head(file)["__metadata__"]
    file.seek(0)
    tensors = load(file.read())
    words, vectors = tensors["phrases"], tensors["vectors"]
    if metadata["sha256"] != _digest(words, vectors):
        raise ValueError("its checksum does not match")
    phrases = json.loads(words.numpy().tobytes())
    if vectors.dtype != torch.float16 or vectors.dim() != 2 or len(vectors) != len(phrases):
        raise ValueError("its parts don't fit together")
    return phrases, vectors


def _head(file: BinaryIO) -> dict[str, Any]:
    """Return a file's head, and leave the file where its tensors begin.

    Raises ValueError where the file is not ours, or not as long as its head says: before the rest
    is read, which may be more than fits into memory.
    """
    length = int.from_bytes(file.read(8), "little")
    if length > _LONGEST_HEAD_BYTES:
        raise ValueError("its head is damaged")
    head: dict[str, Any] = json.loads(file.read(length))
    if head["__metadata__"]["format"] != _FORMAT:
        raise ValueError("it is of another version")
    end = max(head[name]["data_offsets"][1] for name in ("phrases", "vectors"))
    if os.fstat(file.fileno()).st_size != file.tell() + end:
        raise ValueError("it is cut off")
    return head


def _stamp(file: Path | int) -> tuple[int, ...]:
    """Return what tells whether a file is the one that was seen before."""
    status = os.stat(file)  # noqa: PTH116 - an open file too
    return status.st_ino, status.st_mtime_ns, status.st_size


def _digest(words: Tensor, vectors: Tensor) -> str:
    digest = hashlib.sha256(words.numpy().tobytes())
    digest.update(vectors.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _made_by(encoder: TextImageEncoder, phrases: list[str], vectors: Tensor) -> bool:
    """Encode a few of the phrases again and compare."""
    if not phrases:
        return True
    if vectors.shape[1] != encoder.dimension:
        return False
    rows = sorted({round(i * (len(phrases) - 1) / (_PROBES - 1)) for i in range(_PROBES)})
    again = encoder.encode_texts([phrases[row] for row in rows])
    distance = (again - vectors[rows].float()).norm(dim=-1).max()
    return bool(distance < _PROBE_DISTANCE)
