"""Measure how fast a folder of pictures becomes prompts, beside clip-interrogator itself.

Both sides use the bundled demo models on the CPU and the same word lists, ask about the same
pictures, and run in turns, each in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, astuple, dataclass, fields
from functools import partial
from pathlib import Path
from statistics import median

from measuring import (
    MEBIBYTE,
    ROOT,
    Task,
    call,
    cores,
    read_lines,
    rounded,
    say,
    versions,
    write_lists,
)

sys.path[:0] = [str(ROOT / "tools")]

import draw_pictures

SEED = 40_000  # of no training and no evaluation
EARLY = 100  # by this picture a process has settled; growth after it would go on
SIDES = ("ours", "peer")


@dataclass(frozen=True)
class Figures:
    """What one run came to, or several; memory is None where the system has no /proc.

    `seconds` and `start` count from the start of the process, `seconds` until all is written and
    `start` until the first picture is through, which for the peer is its caption. `steady` is in
    pictures a second after the first, of each pass where there are two. The memory is the
    resident one of the process, in MiB.
    """

    seconds: float
    start: float
    steady: float
    memory_early: float | None
    memory_end: float | None
    memory_most: float | None

    def rate(self, asked: int, wanted: int) -> float:
        """Return the pictures a second, start and end included, of a run over `wanted` pictures.

        Those that were not `asked` about would have been done at the steady rate.
        """
        return wanted / (self.seconds + (wanted - asked) / self.steady)


@dataclass(frozen=True)
class Agreement:
    """How many of the pictures that both sides asked about have the same answers.

    `same_to_the_cut` counts prompts of which one begins with the other, repeats left out: the
    two count a text's tokens differently, and only the peer says what stands in two lists twice.
    """

    pictures: int
    same_captions: int
    same_prompts: int
    same_to_the_cut: int


@dataclass(frozen=True)
class Report:
    """All that was measured: medians of the runs, and the runs in their order."""

    pictures: int
    peer_pictures: int
    memory_picture: int
    mode: str
    cores: int
    threads: dict[str, int]
    versions: dict[str, str]
    first_start: dict[str, float]
    figures: dict[str, Figures]
    rates: dict[str, float]
    ratio: float
    agreement: Agreement
    runs: dict[str, list[Figures]]


# --- pictures ---


def draw_one(folder: Path, numbered: tuple[int, draw_pictures.Scene]) -> str:
    """Draw one picture unless it is there, and return its name."""
    number, scene = numbered
    path = folder / f"{number:06}.jpg"
    if not path.exists():
        unfinished = path.with_suffix(".part")
        picture = draw_pictures.draw(scene, draw_pictures.SAMPLE_SIZE)
        picture.save(unfinished, format="JPEG", quality=90)
        unfinished.replace(path)
    return path.name


def draw_all(folder: Path, number: int) -> list[str]:
    """Draw so many different pictures, in a process for each core, and return their names."""
    folder.mkdir(parents=True, exist_ok=True)
    scenes = draw_pictures.random_scenes(SEED, number)
    with ProcessPoolExecutor(cores()) as processes:
        return list(processes.map(partial(draw_one, folder), enumerate(scenes, 1), chunksize=8))


def write_list(folder: Path, names: list[str]) -> Path:
    """List pictures in a file beside them, which both sides can read."""
    path = folder / f"first-{len(names)}.txt"
    path.write_text("\n".join(names) + "\n", encoding="utf-8")
    return path


# --- runs ---


@dataclass(frozen=True)
class Bench:
    """What is common to all runs, and the folder for what they write."""

    lists: Path
    mode: str
    folder: Path
    early: int  # the picture at which memory is looked at first

    def run(self, side: str, name: str, pictures: Path) -> tuple[Figures, dict]:
        """Run one side over listed pictures; return its figures, and its notes as they are."""
        output = self.output(side, name)
        output.mkdir()
        notes = output.with_suffix(".json")
        task = Task(
            str(pictures), str(self.lists), self.mode, str(output),
            str(self.folder / f"{side}-cache"), str(notes),
        )
        began = time.monotonic()
        call([str(ROOT / "bench" / f"{side}.py"), *astuple(task)])
        noted = json.loads(notes.read_text(encoding="utf-8"))
        return self.figures(began, len(read_lines(pictures)), noted), noted

    def figures(self, began: float, pictures: int, noted: dict) -> Figures:
        """Work out the figures of a run that began then from what its process noted."""
        times, resident = noted["times"], noted["resident"]
        if not times or len(times) % pictures:
            sys.exit(f"{len(times)} steps were noted: no passes over {pictures} pictures.")
        early, end, most = None, None, None
        if None not in resident:
            watched = [one / MEBIBYTE for one in resident[min(self.early, pictures) - 1 :]]
            early, end, most = watched[0], watched[-1], max(watched)
        starts = range(0, len(times), pictures)  # of the passes
        after_the_first = sum(times[at + pictures - 1] - times[at] for at in starts)
        steady = (pictures - 1) / after_the_first if pictures > 1 else math.inf
        seconds = noted["ended"] - began
        return Figures(seconds, times[0] - began, steady, early, end, most)

    def output(self, side: str, name: str) -> Path:
        """Return the folder of a run's texts."""
        return self.folder / f"{side}-{name}"

    def prompts(self, side: str, name: str, pictures: Path) -> list[str]:
        """Return the texts that a run has written, in the order of the list."""
        output = self.output(side, name)
        texts = [output / Path(one).with_suffix(".txt") for one in read_lines(pictures)]
        return [text.read_text(encoding="utf-8").strip() for text in texts]


def middle(runs: list[Figures]) -> Figures:
    """Return the median of each figure."""
    columns = ([getattr(run, field.name) for run in runs] for field in fields(Figures))
    return Figures(*(None if None in column else median(column) for column in columns))


# --- answers ---


def compare(captions: tuple[list[str], ...], prompts: tuple[list[str], ...]) -> Agreement:
    """Count the answers that are the same on the pictures that both sides have."""
    pairs = list(zip(*prompts, strict=False))
    return Agreement(
        pictures=len(pairs),
        same_captions=sum(ours == theirs for ours, theirs in zip(*captions, strict=False)),
        same_prompts=sum(ours == theirs for ours, theirs in pairs),
        same_to_the_cut=sum(same_to_the_cut(ours, theirs) for ours, theirs in pairs),
    )


def same_to_the_cut(ours: str, theirs: str) -> bool:
    """Say whether one prompt begins with the other, each phrase counted once."""
    pairs = zip(*(dict.fromkeys(text.split(", ")) for text in (ours, theirs)), strict=False)
    return all(one == other for one, other in pairs)


# --- the whole ---


def measure(arguments: argparse.Namespace, folder: Path) -> Report:
    """Draw, run both sides in turns, and put together what came of it."""
    pictures, mode = arguments.pictures, arguments.mode
    peer_pictures = min(arguments.peer_pictures or pictures, pictures)
    drawn = (arguments.folder or folder / "pictures").absolute()
    say(f"Drawing {pictures} pictures, unless they are there ...")
    names = draw_all(drawn, pictures)
    for name in names:
        (drawn / name).read_bytes()  # or the first run would wait for the disk alone
    lists = {"ours": write_list(drawn, names), "peer": write_list(drawn, names[:peer_pictures])}
    early = min(EARLY, peer_pictures)
    bench = Bench(write_lists(folder / "lists", arguments.most_lines), mode, folder, early)

    first_start = {}
    for side in SIDES:
        say(f"{side}: one picture, to compute the vectors of the word lists ...")
        first_start[side] = bench.run(side, "first", write_list(drawn, names[:1]))[0].start
    runs: dict[str, list[Figures]] = {side: [] for side in SIDES}
    noted = {}
    for number in range(arguments.repeat):
        # Every other round in the other order, so that a machine that slows down is fair.
        for side in SIDES if number % 2 == 0 else SIDES[::-1]:
            say(f"{side}: run {number + 1} of {arguments.repeat} ...")
            figures, noted[side] = bench.run(side, f"run-{number}", lists[side])
            runs[side].append(figures)

    say("Comparing the answers ...")
    last = f"run-{arguments.repeat - 1}"
    captions = tuple(noted[side]["captions"] for side in SIDES)
    prompts = tuple(bench.prompts(side, last, lists[side]) for side in SIDES)
    figures_of_side = {side: middle(runs[side]) for side in SIDES}
    rates = {
        "ours": figures_of_side["ours"].rate(pictures, pictures),
        "peer": figures_of_side["peer"].rate(peer_pictures, pictures),
    }
    return Report(
        pictures=pictures,
        peer_pictures=peer_pictures,
        memory_picture=early,
        mode=mode,
        cores=cores(),
        threads={side: noted[side]["threads"] for side in SIDES},
        versions=versions(),
        first_start=first_start,
        figures=figures_of_side,
        rates=rates,
        ratio=rates["ours"] / rates["peer"],
        agreement=compare(captions, prompts),
        runs=runs,
    )


def table(report: Report) -> str:
    """Set out a report to be read; a ratio above 1 is in our favor."""
    ours, peer = (report.figures[side] for side in SIDES)
    rows = [
        ("pictures a second, all in all", *report.rates.values(), True),
        ("pictures a second, after the start", ours.steady, peer.steady, True),
        ("seconds in all", *(report.pictures / rate for rate in report.rates.values()), False),
        ("seconds to the first picture", ours.start, peer.start, False),
        ("the same with empty caches", *report.first_start.values(), False),
    ]
    for label, mine, theirs in (
        (f"MiB of memory at picture {report.memory_picture}", ours.memory_early, peer.memory_early),
        ("MiB of memory at the end", ours.memory_end, peer.memory_end),
        ("MiB of memory at most in between", ours.memory_most, peer.memory_most),
    ):
        if mine is not None and theirs is not None:
            rows.append((label, mine, theirs, False))
    asked = f"{report.pictures} pictures"
    if report.peer_pictures < report.pictures:
        asked += f" (the peer {report.peer_pictures}, and the others reckoned at its steady rate)"
    threads = " and ".join(f"{report.threads[side]} ({side})" for side in SIDES)
    lines = [
        f"{asked}, mode {report.mode}, on the CPU, {report.cores} cores, threads: {threads}",
        ", ".join(f"{name} {number}" for name, number in report.versions.items()),
        "",
        f"{'':36}{'ours':>10}{'peer':>10}{'ratio':>8}",
    ]
    for label, mine, theirs, more_is_better in rows:
        ratio = mine / theirs if more_is_better else theirs / mine
        lines.append(f"{label:36}{mine:10.2f}{theirs:10.2f}{ratio:8.2f}")
    if ours.memory_end is None:
        lines.append("Memory was not measured: this system has no /proc.")
    same = report.agreement
    counts = (
        f"The same for both, of {same.pictures}: {same.same_captions} captions, "
        f"{same.same_prompts} prompts, {same.same_to_the_cut} prompts up to where a budget cuts."
    )
    return "\n".join([*lines, "", counts])


def at_least(least: int, text: str) -> int:
    """Read a number that is not too small."""
    number = int(text)
    if number < least:
        raise argparse.ArgumentTypeError(f"must be at least {least}")
    return number


def main() -> int:
    """Measure, print the table and the line of JSON, and say whether we were fast enough."""
    parser = argparse.ArgumentParser(description=__doc__)
    several = partial(at_least, 2)
    parser.add_argument(
        "--pictures", type=several, default=2000, metavar="N", help="how many (2000)"
    )
    parser.add_argument(
        "--peer-pictures", type=several, metavar="N",
        help="the peer asks about the first so many only (all)",
    )
    parser.add_argument("--mode", choices=("fast", "classic", "best"), default="fast")
    parser.add_argument(
        "--repeat", type=partial(at_least, 1), default=1, metavar="N",
        help="runs of each side, in turns; the medians count (1)",
    )
    parser.add_argument(
        "--most-lines", type=several, default=1_000_000, metavar="N",
        help="thin out word lists that have more lines",
    )
    parser.add_argument(
        "--folder", type=Path, help="keep the pictures there, and use those that are there"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the line of JSON there too"
    )
    parser.add_argument(
        "--require", type=float, metavar="RATIO",
        help="exit with 1 unless we do so many times the peer's pictures a second, all in all",
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="clip-interrogator-ext-bench-") as folder:
        report = measure(arguments, Path(folder))
    print(table(report))
    line = json.dumps(json.loads(json.dumps(asdict(report)), parse_float=rounded))
    print(line)
    if arguments.json:
        arguments.json.write_text(line + "\n", encoding="utf-8")
    if arguments.require is not None and report.ratio < arguments.require:
        say(f"We are {report.ratio:.2f} times as fast as the peer, not {arguments.require} times.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
