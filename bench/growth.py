"""Measure and draw how time and memory grow with pool, vocabulary, flavors and pictures.

Prints one line of JSON with all points, and writes a plot of each curve.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from measuring import MEBIBYTE, ROOT, call, cores, resident_bytes, rounded, say, versions

sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

import draw_pictures
import pair
import plots
import rows
import torch
import turbo

from clip_interrogator_ext import InterrogateOptions, ModelOptions, Service, StandaloneHost
from clip_interrogator_ext.search.modes import MODES

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Sizes:
    """How far the curves go, and how far the peer's: its points cost minutes each."""

    architecture: str
    pools: tuple[int, ...]
    peer_pools: tuple[int, ...]
    memory_pools: tuple[int, ...]
    vocabularies: tuple[int, ...]
    flavors: tuple[int, ...]
    peer_flavors: tuple[int, ...]
    flavors_pool: int
    session: int
    pictures: int


FULL = Sizes(
    architecture="ViT-B-32", pools=(256, 512, 1024, 2048, 4096, 8192), peer_pools=(256, 512),
    memory_pools=(256, 2048, 8192), vocabularies=(10_000, 32_000, 100_000, 320_000, 1_000_000),
    flavors=(1, 2, 4, 8, 16, 32), peer_flavors=(1, 2), flavors_pool=256, session=1000, pictures=20,
)
SMALL = Sizes(
    architecture="demo", pools=(16, 32), peer_pools=(16,), memory_pools=(),
    vocabularies=(1000, 9000), flavors=(1, 2), peer_flavors=(1,), flavors_pool=16, session=6,
    pictures=1,
)


@dataclass(frozen=True)
class Curve:
    """Lines of points; `up` is what they are measured in. `named` are single points by name."""

    title: str
    across: str
    up: str
    lines: dict[str, Points] = field(default_factory=dict)
    named: dict[str, tuple[float, float]] = field(default_factory=dict)


def measure(sizes: Sizes, folder: Path, picture: Any) -> Iterator[tuple[str, Curve]]:
    """Measure and give one curve after the other, each with the name of its plot."""
    setup = pair.Setup(sizes.architecture, 100_000, folder, "cpu")
    module, preprocess = pair.network(setup)
    ours = pair.ours(setup, module, preprocess)
    pair.keep_for_peer(setup, ours)
    programs = {"ours": ours, "peer": pair.theirs(setup, module, preprocess)}
    yield from pools(sizes, setup, picture, programs)
    yield from flavors(sizes, setup, picture, programs)
    yield from vocabularies(sizes, programs)
    del ours, programs, module
    yield from session(sizes.session, folder)
    yield from modes(sizes.pictures, folder)


def pools(
    sizes: Sizes, setup: pair.Setup, picture: Any, programs: dict[str, Any]
) -> Iterator[tuple[str, Curve]]:
    """Measure `best` with one flavor over pools of all sizes, and the memory of processes."""
    seconds: dict[str, Points] = {"ours": [], "peer": []}
    memory: dict[str, Points] = {"ours": [], "peer": []}
    for side, asked in (("ours", sizes.pools), ("peer", sizes.peer_pools)):
        for pool in asked:
            programs[side].config.flavor_intermediate_count = pool
            work = partial(programs[side].interrogate, picture, 1, 1, caption=pair.CAPTION)
            seconds[side].append((pool, rows.seconds(work)[0]))
    title = f"best with one flavor, {setup.architecture}"
    yield "pool-seconds", Curve(title, "phrases in the pool", "seconds", seconds)
    if sizes.memory_pools:
        for side, asked in (("ours", sizes.memory_pools), ("peer", sizes.peer_pools)):
            memory[side] = [(pool, rows.peak_of(setup, side, pool)[0]) for pool in asked]
        yield "pool-memory", Curve(
            title, "phrases in the pool", "peak memory of the process, MiB", memory
        )


def flavors(
    sizes: Sizes, setup: pair.Setup, picture: Any, programs: dict[str, Any]
) -> Iterator[tuple[str, Curve]]:
    """Measure `best` with more and more flavors."""
    seconds: dict[str, Points] = {"ours": [], "peer": []}
    for side, asked in (("ours", sizes.flavors), ("peer", sizes.peer_flavors)):
        programs[side].config.flavor_intermediate_count = sizes.flavors_pool
        for most in asked:
            work = partial(programs[side].interrogate, picture, most, most, caption=pair.CAPTION)
            seconds[side].append((most, rows.seconds(work)[0]))
    title = f"best, pool {sizes.flavors_pool}, {setup.architecture}"
    yield "flavors", Curve(title, "flavors asked for", "seconds", seconds)


def vocabularies(sizes: Sizes, programs: dict[str, Any]) -> Iterator[tuple[str, Curve]]:
    """Measure the ranking of vocabularies of all sizes; their memory is that of their numbers."""
    seconds: dict[str, Points] = {"ours": [], "peer": []}
    memory: dict[str, Points] = {"ours": [], "peer": []}
    image = torch.nn.functional.normalize(torch.ones(1, 512), dim=1)
    for count in sizes.vocabularies:
        vectors = torch.nn.functional.normalize(torch.randn(count, 512), dim=1).half()
        mine, theirs = rows.tables(programs["ours"], programs["peer"], vectors)
        seconds["ours"].append((count, rows.median_of(partial(mine.rank, image, 32), 3)[0]))
        seconds["peer"].append((count, rows.rank_of_peer(theirs, image, 32)[0]))
        memory["ours"].append((count, vectors.nbytes / MEBIBYTE))
        memory["peer"].append((count, sum(map(sys.getsizeof, theirs.embeds)) / MEBIBYTE))
    across = "phrases in the vocabulary"
    yield "vocabulary-seconds", Curve(
        "the 32 nearest phrases for one picture", across, "seconds", seconds
    )
    yield "vocabulary-memory", Curve("vectors of 512 numbers in memory", across, "MiB", memory)


def session(pictures: int, folder: Path) -> Iterator[tuple[str, Curve]]:
    """Ask about one picture after the other in a process of its own."""
    arguments = ["--session", str(pictures), "--folder", str(folder / "session")]
    noted = json.loads(call([__file__, *arguments]))
    title = "one picture after the other, mode fast, demo models"
    for up, points in noted.items():
        name = f"session-{up.split()[0].lower()}"
        yield name, Curve(title, "picture", up, {"ours": points})


def ask_one_after_the_other(pictures: int, folder: Path) -> dict[str, Points]:
    """Return the time of each picture and the memory held after it; the first is not counted."""
    scenes = draw_pictures.random_scenes(50_000, min(pictures, 50))
    drawn = [draw_pictures.draw(scene, draw_pictures.SAMPLE_SIZE) for scene in scenes]
    service = Service(StandaloneHost("cpu"), cache_dir=folder)
    ask = partial(
        service.interrogate, options=InterrogateOptions(mode="fast"),
        models=ModelOptions(backbones=("demo",), captioner="demo"),
    )
    ask(drawn[0])
    seconds, memory = [], []
    for number in range(pictures):
        began = time.perf_counter()
        ask(drawn[number % len(drawn)])
        seconds.append((number + 1, time.perf_counter() - began))
        memory.append((number + 1, (resident_bytes() or 0) / MEBIBYTE))
    return {"seconds": seconds, "MiB held": memory}


def modes(pictures: int, folder: Path) -> Iterator[tuple[str, Curve]]:
    """Ask every mode about drawn pictures: the similarity reached, and the seconds it took.

    The negative is left out, which goes the other way.
    """
    asked = {
        mode: InterrogateOptions(mode=mode) for mode in MODES if mode not in ("best", "negative")
    }
    for pool in (256, 512, 1024, 2048):
        asked[f"best {pool}"] = InterrogateOptions(mode="best", pool_size=pool)
    took = dict.fromkeys(asked, 0.0)
    reached = dict.fromkeys(asked, 0.0)
    few = {} if pictures > 1 else {"most": turbo.FEW}
    for scene, vocabulary in turbo.cases(pictures, None, folder / "modes", **few):
        for name, options in asked.items():
            seen = replace(scene, caption="") if options.mode == "style" else scene
            seconds, draft = turbo.timed(seen, vocabulary, options)
            took[name] += seconds / pictures
            reached[name] += float(scene.scorer.texts([draft.text])[0]) / pictures
    yield "modes", Curve(
        f"each mode, the mean of {pictures} drawn pictures, demo backbone",
        "seconds, with caption and vectors ready", "similarity",
        named={name: (took[name], reached[name]) for name in asked},
    )


def main() -> None:
    """Measure and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="a minute's work, to see that it runs")
    parser.add_argument(
        "--plots", type=Path, metavar="FOLDER",
        help="draw there (docs/images/performance, or for --small a folder that goes away)",
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the line of JSON there too"
    )
    parser.add_argument("--session", type=int, help=argparse.SUPPRESS)  # it calls itself so
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.session:
        print(json.dumps(ask_one_after_the_other(arguments.session, arguments.folder)))
        return
    (drawn,) = draw_pictures.random_scenes(0, 1)
    picture = draw_pictures.draw(drawn, draw_pictures.SAMPLE_SIZE)
    curves = {}
    with tempfile.TemporaryDirectory(prefix="clip-interrogator-ext-bench-") as name:
        kept = Path(name) if arguments.small else ROOT / "docs" / "images" / "performance"
        folder = arguments.plots or kept
        for plot, curve in measure(SMALL if arguments.small else FULL, Path(name), picture):
            say(f"{curve.title}: {curve.up} by {curve.across}")
            curves[plot] = asdict(curve)
            plots.draw(curve, folder / f"{plot}.svg")
    report = {"versions": versions(), "cores": cores(), "curves": curves}
    line = json.dumps(json.loads(json.dumps(report), parse_float=rounded))
    print(line)
    if arguments.json:
        arguments.json.write_text(line + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
