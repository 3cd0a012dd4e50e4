"""How time and memory grow: with the pool, the vocabulary, the flavors, the pictures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import draw_pictures
import pair
import torch
import turbo
from measuring import MEBIBYTE, peak_bytes, reset_peak, resident_bytes
from peer import LabelTable

from clip_interrogator_ext import (
    InterrogateOptions,
    ModelOptions,
    Service,
    StandaloneHost,
    drop_in,
)
from clip_interrogator_ext.search.modes import MODES

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Sizes:
    """How far the curves go, and how far the peer's: its points cost minutes each."""

    pools: tuple[int, ...]
    peer_pools: tuple[int, ...]
    vocabularies: tuple[int, ...]
    flavors: tuple[int, ...]
    peer_flavors: tuple[int, ...]
    flavors_pool: int
    session: int
    pictures: int


FULL = Sizes(
    pools=(256, 512, 1024, 2048, 4096, 8192), peer_pools=(256, 512),
    vocabularies=(10_000, 32_000, 100_000, 320_000, 1_000_000),
    flavors=(1, 2, 4, 8, 16, 32), peer_flavors=(1, 2), flavors_pool=256, session=1000, pictures=20,
)
SMALL = Sizes(
    pools=(16, 32), peer_pools=(16,), vocabularies=(1000, 9000), flavors=(1, 2), peer_flavors=(1,),
    flavors_pool=16, session=6, pictures=1,
)


@dataclass(frozen=True)
class Curve:
    """Lines of points; `of` is what they are measured in. `named` gives single points a name."""

    title: str
    across: str
    of: str
    lines: dict[str, Points]
    named: dict[str, tuple[float, float]] = field(default_factory=dict)


def curves(sizes: Sizes, task: pair.Task, picture: Any) -> Iterator[tuple[str, Curve]]:
    """Measure and give one curve after the other, each with the name of its plot."""
    module, preprocess = pair.network(task)
    mine = pair.ours(task, module, preprocess)
    pair.keep_for_peer(task, mine)
    theirs = pair.theirs(task, module, preprocess)
    yield from pools(sizes, task, picture, mine, theirs)
    yield from flavors(sizes, task, picture, mine, theirs)
    yield from vocabularies(sizes, mine, theirs)
    del mine, theirs, module
    yield from session(sizes.session, task.folder)
    yield from modes(sizes.pictures, task.folder)


def watched(work: Callable[[], Any]) -> tuple[float, float]:
    """Return the seconds of some work, and how many MiB it needed more than were held before."""
    reset_peak()
    before = peak_bytes()
    began = time.perf_counter()
    work()
    return time.perf_counter() - began, (peak_bytes() - before) / MEBIBYTE


def pools(
    sizes: Sizes, task: pair.Task, picture: Any, mine: Any, theirs: Any
) -> Iterator[tuple[str, Curve]]:
    """Measure one step of `best` over pools of all sizes."""
    seconds: dict[str, Points] = {"ours": [], "peer": []}
    memory: dict[str, Points] = {"ours": [], "peer": []}
    for side, program, asked in (("ours", mine, sizes.pools), ("peer", theirs, sizes.peer_pools)):
        for pool in asked:
            program.config.flavor_intermediate_count = pool
            work = partial(program.interrogate, picture, 1, 1, caption=pair.CAPTION)
            took, needed = watched(work)
            seconds[side].append((pool, took))
            memory[side].append((pool, needed))
    of = f"best with one flavor, {task.architecture}"
    yield "pool-seconds", Curve(of, "phrases in the pool", "seconds", seconds)
    yield "pool-memory", Curve(of, "phrases in the pool", "MiB beyond what was held", memory)


def flavors(
    sizes: Sizes, task: pair.Task, picture: Any, mine: Any, theirs: Any
) -> Iterator[tuple[str, Curve]]:
    """Measure `best` with more and more flavors."""
    seconds: dict[str, Points] = {"ours": [], "peer": []}
    for side, program, asked in (
        ("ours", mine, sizes.flavors), ("peer", theirs, sizes.peer_flavors)
    ):
        program.config.flavor_intermediate_count = sizes.flavors_pool
        for most in asked:
            work = partial(program.interrogate, picture, most, most, caption=pair.CAPTION)
            seconds[side].append((most, watched(work)[0]))
    title = f"best, pool {sizes.flavors_pool}, {task.architecture}"
    yield "flavors", Curve(title, "flavors asked for", "seconds", seconds)


def vocabularies(sizes: Sizes, mine: Any, theirs: Any) -> Iterator[tuple[str, Curve]]:
    """Measure the ranking of vocabularies of all sizes, and what their vectors take."""
    seconds: dict[str, Points] = {"ours": [], "peer": []}
    memory: dict[str, Points] = {"ours": [], "peer": []}
    image = torch.nn.functional.normalize(torch.ones(1, 512), dim=1)
    for count in sizes.vocabularies:
        labels = [f"phrase {number}" for number in range(count)]
        vectors = torch.nn.functional.normalize(torch.randn(count, 512), dim=1).half()
        tables = {
            "ours": drop_in.LabelTable([], None, mine), "peer": LabelTable([], None, theirs)
        }
        tables["ours"].labels, tables["ours"]._vectors = labels, vectors
        before = resident_bytes()
        tables["peer"].labels, tables["peer"].embeds = labels, list(vectors.numpy())
        tables["peer"].embeds = [row.astype("float32") for row in tables["peer"].embeds]
        held = {"ours": vectors.nbytes, "peer": (resident_bytes() or 0) - (before or 0)}
        for side, table in tables.items():
            table.chunk_size = 2048
            work = partial(table.rank, image, 32)
            work()
            seconds[side].append((count, min(watched(work)[0] for _ in range(3))))
            memory[side].append((count, held[side] / MEBIBYTE))
    title = "the 32 nearest phrases for one picture"
    yield "vocabulary-seconds", Curve(title, "phrases in the vocabulary", "seconds", seconds)
    yield "vocabulary-memory", Curve(
        "vectors in memory", "phrases in the vocabulary", "MiB", memory
    )


def session(pictures: int, folder: Path) -> Iterator[tuple[str, Curve]]:
    """Ask about one picture after the other and watch the time of each and the memory held."""
    drawn = [
        draw_pictures.draw(scene, draw_pictures.SAMPLE_SIZE)
        for scene in draw_pictures.random_scenes(50_000, min(pictures, 50))
    ]
    service = Service(StandaloneHost("cpu"), cache_dir=folder / "session")
    options = InterrogateOptions(mode="fast")
    models = ModelOptions(backbones=("demo",), captioner="demo")
    seconds, memory = [], []
    for number in range(pictures):
        began = time.perf_counter()
        service.interrogate(drawn[number % len(drawn)], options, models)
        seconds.append((number + 1, time.perf_counter() - began))
        memory.append((number + 1, (resident_bytes() or 0) / MEBIBYTE))
    title = "one picture after the other, mode fast, demo models"
    yield "session-seconds", Curve(title, "picture", "seconds", {"ours": seconds})
    yield "session-memory", Curve(title, "picture", "MiB held", {"ours": memory})


def modes(pictures: int, folder: Path) -> Iterator[tuple[str, Curve]]:
    """Ask every mode about drawn pictures: the similarity reached, and the seconds it took."""
    asked = [
        (mode, InterrogateOptions(mode=mode))
        for mode in MODES if mode not in ("best", "negative")
    ]
    asked += [
        (f"best {pool}", InterrogateOptions(mode="best", pool_size=pool))
        for pool in (256, 512, 1024, 2048)
    ]
    sums = {name: [0.0, 0.0] for name, _ in asked}
    for scene, vocabulary in turbo.cases(pictures, None, folder / "modes"):
        for name, options in asked:
            seen = replace(scene, caption="") if options.mode == "style" else scene
            took, draft = turbo.timed(seen, vocabulary, options)
            sums[name][0] += took
            sums[name][1] += float(scene.scorer.texts([draft.text])[0])
    named = {name: (took / pictures, score / pictures) for name, (took, score) in sums.items()}
    yield "modes", Curve(
        f"each mode over {pictures} drawn pictures, demo backbone",
        "seconds for a picture whose caption and vectors are ready", "mean similarity", {}, named,
    )
