"""The table of what both programs do with the same things, and whether they agree."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import floors
import numpy as np
import pair
import torch
from measuring import ROOT, call
from peer import LabelTable

from clip_interrogator_ext import drop_in
from clip_interrogator_ext.search.ranking import similarities

NEAR_TIE = 2e-6  # similarities closer than this may change places
STARTS = {
    "import clip_interrogator_ext": "import clip_interrogator_ext",
    "python -m clip_interrogator_ext --help": """
import contextlib, runpy, sys
sys.argv[1:] = ["--help"]
with contextlib.suppress(SystemExit):
    runpy.run_module("clip_interrogator_ext", run_name="__main__")
""",
}


@dataclass(frozen=True)
class Sizes:
    """How much work a run of the table does."""

    backbones: tuple[tuple[str, int], ...]  # the architecture, and flavors to add in `best`
    pools: tuple[int, ...]
    negative_pool: int
    flavors: int  # to add where each candidate counts
    most_lines: int  # of a word list
    encoded: int  # phrases that the peer encodes; its rate does not depend on which
    ranked: int


FULL = Sizes(
    backbones=(("ViT-B-32", 8), ("ViT-L-14", 2)), pools=(512, 2048), negative_pool=512, flavors=2,
    most_lines=4000, encoded=512, ranked=112_000,
)
SMALL = Sizes(
    backbones=(("demo", 3),), pools=(24, 96), negative_pool=32, flavors=2, most_lines=150,
    encoded=64, ranked=20_000,
)


@dataclass(frozen=True)
class Row:
    """One line of the table; `ours` and `peer` are in `unit`, of which less is better.

    `peer` is None where it has nothing of the kind; `goal` is the ratio, or else the most that is
    wanted. `floor` is what the multiplications alone would take on this machine.
    """

    work: str
    unit: str
    ours: float
    peer: float | None
    goal: float
    agree: bool
    answers: str
    floor: float | None = None
    more_is_better: bool = False

    @property
    def ratio(self) -> float | None:
        """How many times as fast as the peer, or as small."""
        if self.peer is None:
            return None
        return self.ours / self.peer if self.more_is_better else self.peer / self.ours

    @property
    def reached(self) -> bool:
        """Whether the goal is reached."""
        return self.ours <= self.goal if self.ratio is None else self.ratio >= self.goal


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return how long work took, and its answer."""
    began = time.perf_counter()
    answer = work()
    return time.perf_counter() - began, answer


def middle(work: Callable[[], Any], times: int = 9) -> tuple[float, Any]:
    """Return the median of how long work took, after once without a look at the clock."""
    answer = work()
    return statistics.median(seconds(work)[0] for _ in range(times)), answer


def rows(sizes: Sizes, folder: Path, device: str, picture: Any) -> Iterator[Row]:
    """Measure and give one row after the other."""
    rate = floors.matrix_rate(device)
    for architecture, flavors in sizes.backbones:
        task = pair.Task(architecture, sizes.most_lines, folder, device)
        both = Both(task, picture, rate)
        yield both.vectors(sizes.encoded)
        for pool in sizes.pools:
            yield both.best(pool, flavors)
        if architecture == sizes.backbones[0][0]:
            yield both.negative(sizes.negative_pool, sizes.flavors)
            yield both.fast()
            for k in (32, max(sizes.pools)):
                yield both.ranking(sizes.ranked, k)
            yield peak_memory(task, max(sizes.pools))
        del both
    yield from starts()


class Both:
    """Both programs with one network."""

    def __init__(self, task: pair.Task, picture: Any, rate: float) -> None:
        self.task, self.picture, self.rate = task, picture, rate
        module, preprocess = pair.network(task)
        self.ours = pair.ours(task, module, preprocess)
        pair.keep_for_peer(task, self.ours)
        self.peer = pair.theirs(task, module, preprocess)
        self.encoder = self.ours._encoder
        # Neither side should be the one that warms the machine up.
        self.ours.interrogate_fast(picture, caption=pair.CAPTION)
        self.peer.interrogate_fast(picture, caption=pair.CAPTION)
        self.image = self.peer.image_to_features(picture)

    def vectors(self, sample: int) -> Row:
        """Compare the vectors of word lists, a phrase at a time."""
        phrases = sorted({one for name in pair.TABLES for one in getattr(self.ours, name).labels})
        chosen = phrases[:: max(1, len(phrases) // sample)][:sample]
        took, vectors = seconds(partial(self.encoder.encode_texts, phrases))
        peer_took, table = seconds(partial(LabelTable, chosen, None, self.peer))
        with torch.no_grad():
            tokens = self.peer.tokenize(chosen[:128]).to(self.peer.device)
            plain = torch.nn.functional.normalize(self.peer.clip_model.encode_text(tokens), dim=-1)
        place = {phrase: row for row, phrase in enumerate(phrases)}
        found = vectors[[place[phrase] for phrase in chosen]]
        cosine = float((found[: len(plain)] * plain.float().cpu()).sum(dim=1).min())
        kept = torch.tensor(np.stack(table.embeds))
        kept_cosine = float(torch.nn.functional.cosine_similarity(kept, found).min())
        needed = floors.encoding(self.encoder, [("", phrases)]) / self.rate / len(phrases)
        return Row(
            f"{self.task.architecture}: vectors of the word lists, a phrase", "ms",
            1e3 * took / len(phrases), 1e3 * peer_took / len(table.embeds), 14,
            cosine > 0.99999 and kept_cosine > 0.9999, f"cosine {cosine:.7f}", 1e3 * needed,
        )

    def best(self, pool: int, flavors: int) -> Row:
        """Compare the search, with a caption given."""
        steps: list[tuple[str, list[str]]] = []
        with self._pool(pool), noting(self.encoder, steps):
            took, text = seconds(partial(self._best, self.ours, flavors))
            peer_took, their_text = seconds(partial(self._best, self.peer, flavors))
        needed = floors.encoding(self.encoder, steps) / self.rate
        same = text == their_text
        return Row(
            f"{self.task.architecture}: best, pool {pool}, {flavors} flavors", "s", took,
            peer_took, 16, same or self._near_tie(text, their_text),
            "the same text" if same else "the same but for a near tie", needed,
        )

    def _best(self, program: Any, flavors: int) -> str:
        return program.interrogate(self.picture, flavors, flavors, caption=pair.CAPTION)

    def _near_tie(self, text: str, their_text: str) -> bool:
        """Say whether the first phrases that differ are as near to the picture as each other."""
        one, other = text.split(", "), their_text.split(", ")
        alike = next((i for i, two in enumerate(zip(one, other, strict=False)) if len({*two}) > 1),
                     min(len(one), len(other)))
        ends = [", ".join(parts[: alike + 1]) for parts in (one, other)]
        scores = self.peer.similarities(self.image, ends)
        return abs(scores[0] - scores[1]) < NEAR_TIE

    def negative(self, pool: int, flavors: int) -> Row:
        """Compare the time for a candidate of the negative; the text is checked on our plain path.

        The peer's own text is that of a wrong sign: see docs/parity.md.
        """
        steps: list[tuple[str, list[str]]] = []
        counted = Counted(self.peer.clip_model.encode_text)
        self.peer.clip_model.encode_text = counted
        with self._pool(pool):
            with noting(self.encoder, steps):
                took, text = seconds(partial(self.ours.interrogate_negative, self.picture, flavors))
            peer_took, _ = seconds(partial(self.peer.interrogate_negative, self.picture, flavors))
            del self.peer.clip_model.encode_text  # the method is behind it
            with plain_path(self.encoder):
                plain = self.ours.interrogate_negative(self.picture, flavors)
        texts = sum(len(phrases) for _, phrases in steps)
        needed = floors.encoding(self.encoder, steps) / self.rate / texts
        return Row(
            f"{self.task.architecture}: negative, a candidate", "ms", 1e3 * took / texts,
            1e3 * peer_took / counted.texts, 16, text == plain, "the plain path's text",
            1e3 * needed,
        )

    def fast(self) -> Row:
        """Compare `fast` with caption, lists and the picture's vector ready."""
        for program in (self.ours, self.peer):
            program.image_to_features = lambda _picture: self.image
        took, text = middle(partial(self._fast, self.ours))
        peer_took, their_text = middle(partial(self._fast, self.peer))
        for program in (self.ours, self.peer):
            del program.image_to_features
        # Where one budget cuts a text the other may go on: docs/parity.md.
        alike = all(a == b for a, b in zip(text.split(", "), their_text.split(", "), strict=False))
        return Row(
            f"{self.task.architecture}: fast, all but the picture's vector", "ms", 1e3 * took,
            1e3 * peer_took, 10, alike, "the same text, as far as both go",
        )

    def _fast(self, program: Any) -> str:
        return program.interrogate_fast(self.picture, caption=pair.CAPTION)

    def ranking(self, count: int, k: int) -> Row:
        """Compare the ranking of so many phrases, the peer with the chunks that suit it best."""
        labels = [f"phrase {number}" for number in range(count)]
        rows = torch.randn(count, self.image.shape[1], generator=torch.Generator().manual_seed(1))
        vectors = torch.nn.functional.normalize(rows, dim=1).half()
        image = torch.nn.functional.normalize(rows[0] + 0.5 * rows[1], dim=0)[None]
        mine = drop_in.LabelTable([], None, self.ours)
        mine.labels, mine._vectors = labels, vectors
        theirs = LabelTable([], None, self.peer)
        theirs.labels, theirs.embeds = labels, list(vectors.float().numpy())
        took, found = middle(partial(mine.rank, image, k))
        peer_took = None
        for theirs.chunk_size in (2048, count):
            time_of_chunks, _ = middle(partial(theirs.rank, image.to(self.peer.device), k), 3)
            peer_took = min(time_of_chunks, peer_took or time_of_chunks)
        scores = similarities(vectors, image[0])
        truth = scores.sort(descending=True).values[:k]
        chosen = scores[[int(label.split()[1]) for label in found]]
        agree = bool((chosen - truth).abs().max() < NEAR_TIE)
        read = floors.reading(vectors)
        return Row(
            f"ranking {count:,} phrases, the first {k}", "ms", 1e3 * took, 1e3 * peer_took, 30,
            agree and len(set(found)) == k, "the true ones", 1e3 * read,
        )

    @contextmanager
    def _pool(self, size: int) -> Iterator[None]:
        for program in (self.ours, self.peer):
            program.config.flavor_intermediate_count = size
        yield


class Counted:
    """A network's way to encode texts, which counts them."""

    def __init__(self, encode: Callable[..., Any]) -> None:
        self._encode = encode
        self.texts = 0

    def __call__(self, tokens: Any, *others: Any, **named: Any) -> Any:
        """Encode rows of tokens."""
        self.texts += len(tokens)
        return self._encode(tokens, *others, **named)


@contextmanager
def noting(encoder: Any, steps: list[tuple[str, list[str]]]) -> Iterator[None]:
    """Note what an encoder is asked meanwhile: a prefix, and the phrases behind it."""
    def texts(texts: Any, *others: Any) -> Any:
        steps.append(("", list(texts)))
        return type(encoder).encode_texts(encoder, texts, *others)

    def continuations(prefix: str, phrases: Any, *others: Any) -> Any:
        if not prefix:
            return encoder.encode_texts(phrases, *others)
        steps.append((prefix, list(phrases)))
        return type(encoder).encode_continuations(encoder, prefix, phrases, *others)

    encoder.encode_texts, encoder.encode_continuations = texts, continuations
    try:
        yield
    finally:
        del encoder.encode_texts, encoder.encode_continuations


@contextmanager
def plain_path(encoder: Any) -> Iterator[None]:
    """Let an encoder take open_clip's own way meanwhile."""
    tower, encoder._tower = encoder._tower, None
    try:
        yield
    finally:
        encoder._tower = tower


def peak_memory(task: pair.Task, pool: int) -> Row:
    """Compare the most memory that a process held while it answered in `best`."""
    peaks, texts = [], []
    for side in ("ours", "peer"):
        arguments = (task.architecture, task.most_lines, task.folder, task.device, pool)
        lines = call([str(ROOT / "bench" / "peak.py"), side, *map(str, arguments)]).splitlines()
        peaks.append(float(lines[-2]))
        texts.append(lines[-1])
    return Row(
        f"{task.architecture}: peak memory of best, pool {pool}", "MiB", *peaks, 1,
        texts[0] == texts[1], "the same text",
    )


def starts() -> Iterator[Row]:
    """Measure what starting costs, in processes of their own; the quickest of five counts."""
    for work, code in STARTS.items():
        took = min(seconds(partial(call, ["-c", code]))[0] for _ in range(5))
        imported = call(["-c", f"{code}\nimport sys\nprint('torch' in sys.modules)"]).split()[-1]
        yield Row(work, "s", took, None, 0.3, imported == "False", "torch is not imported")
