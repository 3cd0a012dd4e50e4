"""The table of what both programs do with the same things, and whether they agree."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import floors
import numpy as np
import pair
import torch
from measuring import ROOT, call, say
from peer import LabelTable, _prompt_at_max_len

from clip_interrogator_ext import drop_in

NEAR_TIE = {torch.float32: 2e-6, torch.float16: 2e-3}  # similarities this close may change places
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
    """One line of the table; `ours` and `peer` are in `unit`.

    `peer` is None where it has nothing of the kind; `goal` is the ratio, or else the most that is
    wanted. `floor` is what the work would take at the rate of a large matrix product, or of a
    copy where nothing but reading counts.
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


def median_of(
    work: Callable[[], Any], times: int = 9, before: Callable[[], Any] = lambda: None
) -> tuple[float, Any]:
    """Return the median of how long work took, after once without a look at the clock."""
    answer = work()
    taken = []
    for _ in range(times):
        before()
        taken.append(seconds(work)[0])
    return statistics.median(taken), answer


def measure(sizes: Sizes, folder: Path, device: str, picture: Any) -> Iterator[Row]:
    """Measure and give one row after the other."""
    rate = floors.matrix_rate(device)
    for architecture, flavors in sizes.backbones:
        setup = pair.Setup(architecture, sizes.most_lines, folder, device)
        both = Both(setup, picture, rate)
        yield both.vectors(sizes.encoded)
        for pool in sizes.pools:
            yield both.best(pool, flavors)
        if architecture == sizes.backbones[0][0]:
            yield both.negative(sizes.negative_pool, sizes.flavors)
            for known in (True, False):
                yield both.fast(tokens_known=known)
            for k in (32, max(sizes.pools)):
                yield both.ranking(sizes.ranked, k)
            yield both.peak_memory(max(sizes.pools))
        del both
    yield from starts()


class Both:
    """Both programs with one network."""

    def __init__(self, setup: pair.Setup, picture: Any, rate: float) -> None:
        self.setup, self.picture, self.rate = setup, picture, rate
        module, preprocess = pair.network(setup)
        self.ours = pair.ours(setup, module, preprocess)
        pair.keep_for_peer(setup, self.ours)
        self.peer = pair.theirs(setup, module, preprocess)
        self.encoder = self.ours._encoder
        self.near_tie = NEAR_TIE[self.ours.dtype]
        # Neither side should be the one that warms the machine up.
        self.ours.interrogate_fast(picture, caption=pair.CAPTION)
        self.peer.interrogate_fast(picture, caption=pair.CAPTION)
        self.image = self.peer.image_to_features(picture).float()

    def vectors(self, sample: int) -> Row:
        """Compare the vectors of word lists, a phrase at a time, from texts to vectors."""
        phrases = sorted({one for name in pair.TABLES for one in getattr(self.ours, name).labels})
        chosen = phrases[:: max(1, len(phrases) // sample)][:sample]
        self._forget_tokens()
        took, vectors = seconds(partial(self.encoder.encode_texts, phrases))
        peer_took, table = seconds(partial(LabelTable, chosen, None, self.peer))
        with torch.no_grad():
            tokens = self.peer.tokenize(chosen[:128]).to(self.peer.device)
            plain = self.peer.clip_model.encode_text(tokens).float().cpu()
        place = {phrase: row for row, phrase in enumerate(phrases)}
        found = vectors[[place[phrase] for phrase in chosen]]
        cosine = _cosines(found[: len(plain)], plain).min()
        kept = _cosines(found, torch.tensor(np.stack(table.embeds)).float()).min()
        # Or else any vectors would do.
        apart = _cosines(found, found.roll(1, dims=0)).mean()
        needed = floors.encoding(self.encoder, [("", phrases)]) / self.rate / len(phrases)
        return Row(
            f"{self.setup.architecture}: vectors of the word lists, a phrase", "ms",
            1e3 * took / len(phrases), 1e3 * peer_took / len(chosen), 14,
            bool(cosine > 0.99999 and kept > 0.9999 and apart < 0.99),
            f"cosine {cosine:.7f}, of other phrases {apart:.2f}", 1e3 * needed,
        )

    def best(self, pool: int, flavors: int) -> Row:
        """Compare the search, with a caption given."""
        steps: list[tuple[str, list[str]]] = []
        self._ask_of_pools(pool)
        with noting(self.encoder, steps):
            took, text = seconds(partial(self._best, self.ours, flavors))
        peer_took, their_text = seconds(partial(self._best, self.peer, flavors))
        needed = floors.encoding(self.encoder, steps) / self.rate
        searched = text.startswith([prefix for prefix, _ in steps if prefix][-1])
        agree, answers = self._compare(text, their_text)
        return Row(
            f"{self.setup.architecture}: best, pool {pool}, {flavors} flavors", "s", took,
            peer_took, 16, agree, answers + (", of the search" if searched else ""), needed,
        )

    def _best(self, program: Any, flavors: int) -> str:
        return program.interrogate(self.picture, flavors, flavors, caption=pair.CAPTION)

    def _compare(self, text: str, their_text: str, *, cut: bool = False) -> tuple[bool, str]:
        """Say whether two texts are the same, and how.

        The first phrases that differ may be as near to the picture as each other. Where budgets may
        cut, one text may end before the other if by its own program's rule nothing more fits.
        """
        if text == their_text:
            return True, "the same text"
        one, other = text.split(", "), their_text.split(", ")
        pairs = zip(one, other, strict=False)
        alike = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
        ends = [", ".join(parts[: alike + 1]) for parts in (one, other) if alike < len(parts)]
        if cut and len(ends) == 1:
            # The peer glues the next phrase on without a comma to see whether it fits.
            by_ours = self.encoder.count_tokens(ends)[0] > self.encoder.token_budget
            following = max(one, other, key=len)[alike]
            by_peer = _prompt_at_max_len(their_text + following, self.peer.tokenize)
            if by_ours if len(one) < len(other) else by_peer:
                return True, "the same text, to the budget"
        scores = self.peer.similarities(self.image.to(self.ours.dtype), ends)
        if len(ends) == 2 and abs(scores[0] - scores[1]) < self.near_tie:
            return True, "the same text, to a near tie"
        say(f"Ours: {text}\nPeer: {their_text}")
        return False, "other texts"

    def negative(self, pool: int, flavors: int) -> Row:
        """Compare the time for a candidate of the negative; the text is checked on our plain path.

        The peer's own text is that of a wrong sign: see docs/parity.md.
        """
        steps: list[tuple[str, list[str]]] = []
        self._ask_of_pools(pool)
        with noting(self.encoder, steps):
            took, text = seconds(partial(self.ours.interrogate_negative, self.picture, flavors))
        with counting(self.peer.clip_model) as counted:
            peer_took, _ = seconds(partial(self.peer.interrogate_negative, self.picture, flavors))
        with plain_path(self.encoder):
            plain = self.ours.interrogate_negative(self.picture, flavors)
        texts = sum(len(phrases) for _, phrases in steps)
        needed = floors.encoding(self.encoder, steps) / self.rate / texts
        agree, answers = self._compare(text, plain)
        return Row(
            f"{self.setup.architecture}: negative, a candidate", "ms", 1e3 * took / texts,
            1e3 * peer_took / counted[0], 16, agree, f"{answers} as by the plain path",
            1e3 * needed,
        )

    def fast(self, *, tokens_known: bool = True) -> Row:
        """Compare `fast` with caption, lists and the picture's vector ready.

        Ours finds the tokens of each phrase once; the peer does at each picture.
        """
        before = (lambda: None) if tokens_known else self._forget_tokens
        image = self.image.to(self.ours.dtype)
        with ready(self.ours, image), ready(self.peer, image):
            took, text = median_of(partial(self._fast, self.ours), before=before)
            peer_took, their_text = median_of(partial(self._fast, self.peer))
        agree, answers = self._compare(text, their_text, cut=True)
        return Row(
            f"{self.setup.architecture}: fast, all but the picture's vector, tokens "
            + ("known" if tokens_known else "not known"),
            "ms", 1e3 * took, 1e3 * peer_took, 10, agree, answers,
        )

    def _fast(self, program: Any) -> str:
        return program.interrogate_fast(self.picture, caption=pair.CAPTION)

    def ranking(self, count: int, k: int) -> Row:
        """Compare the ranking of so many phrases, the peer with the chunks that suit it best."""
        generator = torch.Generator().manual_seed(1)
        vectors = torch.randn(count, 512, generator=generator)
        vectors = torch.nn.functional.normalize(vectors, dim=1).half()
        image = torch.nn.functional.normalize(vectors[0].float() + 0.5 * vectors[1], dim=0)[None]
        mine, theirs = tables(self.ours, self.peer, vectors)
        took, found = median_of(partial(mine.rank, image, k))
        peer_took, their_found = rank_of_peer(theirs, image, k)
        scores = vectors.float() @ image[0]
        truth = scores.sort(descending=True).values[:k]
        agree = all(
            len(set(labels)) == k
            and (scores[[int(label) for label in labels]] - truth).abs().max() < self.near_tie
            for labels in (found, their_found)
        )
        return Row(
            f"ranking {count:,} phrases, the first {k}", "ms", 1e3 * took, 1e3 * peer_took, 30,
            agree, "the true ones", 1e3 * floors.reading(vectors),
        )

    def peak_memory(self, pool: int) -> Row:
        """Compare the most memory that a process of each side's own held to answer in `best`."""
        setup = self.setup
        peaks, texts = [], []
        for side in ("ours", "peer"):
            peak, text = peak_of(setup, side, pool)
            peaks.append(peak)
            texts.append(text)
        agree, answers = self._compare(*texts)
        return Row(
            f"{setup.architecture}: peak memory of best, pool {pool}", "MiB", *peaks, 1, agree,
            answers,
        )

    def _ask_of_pools(self, size: int) -> None:
        for program in (self.ours, self.peer):
            program.config.flavor_intermediate_count = size

    def _forget_tokens(self) -> None:
        """Let ours find the tokens of each text anew, as the peer does."""
        self.encoder.reader._remembered.clear()


def _cosines(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cosine_similarity(left, right, dim=1)


def tables(ours: Any, peer: Any, vectors: torch.Tensor) -> tuple[Any, Any]:
    """Return a table of each side with these vectors, whose labels are their numbers."""
    mine, theirs = drop_in.LabelTable([], None, ours), LabelTable([], None, peer)
    mine.labels = theirs.labels = [str(number) for number in range(len(vectors))]
    mine._vectors = vectors
    on_cpu = str(peer.device) == "cpu"
    theirs.embeds = [row.astype(np.float32 if on_cpu else np.float16) for row in vectors.numpy()]
    return mine, theirs


def rank_of_peer(table: Any, image: torch.Tensor, k: int) -> tuple[float, list[str]]:
    """Return the peer's seconds for a ranking, chunked or whole, and its exact answer."""
    image = image.to(table.device)
    times = []
    for chunk_size in (2048, len(table.labels)):
        table.chunk_size = chunk_size
        took, found = median_of(partial(table.rank, image, k), 3)
        times.append(took)
    return min(times), found


def peak_of(setup: pair.Setup, side: str, pool: int) -> tuple[float, str]:
    """Return the peak memory of one side in MiB, and its text."""
    arguments = (setup.architecture, setup.most_lines, setup.folder, setup.device, pool)
    lines = call([str(ROOT / "bench" / "peak.py"), side, *map(str, arguments)]).splitlines()
    return float(lines[-2]), lines[-1]


@contextmanager
def counting(network: Any) -> Iterator[list[int]]:
    """Count the texts that a network encodes meanwhile."""
    encode, counted = network.encode_text, [0]

    def encode_text(tokens: Any, *others: Any, **named: Any) -> Any:
        counted[0] += len(tokens)
        return encode(tokens, *others, **named)

    network.encode_text = encode_text
    try:
        yield counted
    finally:
        del network.encode_text  # the method is behind it


@contextmanager
def noting(encoder: Any, steps: list[tuple[str, list[str]]]) -> Iterator[None]:
    """Note what an encoder is asked meanwhile: a prefix, and the phrases behind it."""

    def encode_texts(texts: Sequence[str], *others: Any) -> Any:
        steps.append(("", list(texts)))
        return type(encoder).encode_texts(encoder, texts, *others)

    def encode_continuations(prefix: str, phrases: Sequence[str], *others: Any) -> Any:
        if not prefix:
            return encoder.encode_texts(phrases, *others)
        steps.append((prefix, list(phrases)))
        return type(encoder).encode_continuations(encoder, prefix, phrases, *others)

    encoder.encode_texts, encoder.encode_continuations = encode_texts, encode_continuations
    try:
        yield
    finally:
        del encoder.encode_texts, encoder.encode_continuations


@contextmanager
def ready(program: Any, image: Any) -> Iterator[None]:
    """Let a program find the picture's vector without work meanwhile."""
    program.image_to_features = lambda _picture: image
    try:
        yield
    finally:
        del program.image_to_features


@contextmanager
def plain_path(encoder: Any) -> Iterator[None]:
    """Let an encoder take open_clip's own way meanwhile."""
    tower, encoder._tower = encoder._tower, None
    try:
        yield
    finally:
        encoder._tower = tower


def starts() -> Iterator[Row]:
    """Measure what starting costs, in processes of their own; the quickest of five counts."""
    for work, code in STARTS.items():
        took = min(seconds(partial(call, ["-c", code]))[0] for _ in range(5))
        imported = call(["-c", f"{code}\nimport sys\nprint('torch' in sys.modules)"]).split()[-1]
        yield Row(work, "s", took, None, 0.3, imported == "False", "torch is not imported")
