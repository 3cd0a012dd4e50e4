"""Measure our engine beside clip-interrogator's.

Both have the same network (of random weights, in real sizes), word lists, caption and picture, in
one process; the answers are compared. Prints a table, and one line of JSON with all figures. The
exit code is 1 where answers differ, whatever the times are.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from measuring import ROOT, cores, rounded, say, versions

sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

import draw_pictures
import rows
import torch
import turbo


def turbo_rows(folder: Path, *, small: bool) -> Iterator[rows.Row]:
    """Measure `turbo` against our own `best`: what it gains, and in what time."""
    asked = {"drawn pictures": (50, None), "random networks, tiny": (20, "tiny")}
    if not small:
        asked["random networks, ViT-B-32"] = (4, "ViT-B-32")  # more than a minute each
    for name, (number, architecture) in asked.items():
        few = {"number": 1, "most": turbo.FEW} if small else {"number": number}
        pairs = turbo.measure_all(architecture=architecture, folder=folder, **few)
        gains = [sum(one.gain for one in side) / len(pairs) for side in zip(*pairs, strict=True)]
        yield rows.Row(
            f"turbo beside our best: gain, {len(pairs)} {name}", "cosine", *gains, 0.98, True,
            f"texts {turbo.share(pairs, 'texts'):.3f} of best's", more_is_better=True,
        )
    seconds = (sum(one.seconds for one in side) / len(pairs) for side in zip(*pairs, strict=True))
    yield rows.Row(
        "turbo beside our best: time, the same networks", "s", *seconds, 8, True, "as above"
    )


def table(done: list[rows.Row]) -> str:
    """Set out rows to be read; a ratio above 1 is in our favor, `!` is a goal not reached."""

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.4g}"

    lines = [
        f"{'':64}{'ours':>9}{'peer':>9} {'':7}{'ratio':>7}{'goal':>7}{'floor':>9}  answers"
    ]
    for row in done:
        goal = number(row.goal) + ("" if row.reached else "!")
        answers = row.answers if row.agree else f"DIFFERENT: {row.answers}"
        lines.append(
            f"{row.work:64}{number(row.ours):>9}{number(row.peer):>9} {row.unit:7}"
            f"{number(row.ratio):>7}{goal:>7}{number(row.floor):>9}  {answers}"
        )
    return "\n".join(lines)


def header(device: str) -> str:
    """Say what ran where."""
    where = torch.cuda.get_device_name() if device.startswith("cuda") else f"{cores()} cores"
    listed = ", ".join(f"{name} {number}" for name, number in versions().items())
    return f"On {device} ({where}, {torch.get_num_threads()} threads)\n{listed}"


def verdict(done: list[rows.Row]) -> int:
    """Return the exit code: 1 where the two programs' answers differ."""
    wrong = [row.work for row in done if not row.agree]
    if wrong:
        say(f"The answers differ: {'; '.join(wrong)}.")
    return 1 if wrong else 0


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="a minute's work, to see that it runs")
    parser.add_argument("--device", default="cpu", help="where both compute: cpu or cuda (cpu)")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the line of JSON there too"
    )
    arguments = parser.parse_args()
    small = arguments.small
    (drawn,) = draw_pictures.random_scenes(0, 1)
    picture = draw_pictures.draw(drawn, draw_pictures.SAMPLE_SIZE)
    done: list[rows.Row] = []
    with tempfile.TemporaryDirectory(prefix="clip-interrogator-ext-bench-") as name:
        sizes = rows.SMALL if small else rows.FULL
        for part in (
            rows.measure(sizes, Path(name), arguments.device, picture),
            turbo_rows(Path(name), small=small),
        ):
            for row in part:
                say(table([row]).splitlines()[-1])  # an hour is long
                done.append(row)
    print(f"{header(arguments.device)}\n\n{table(done)}")
    report = {
        "versions": versions(), "device": arguments.device, "cores": cores(),
        "rows": [{**asdict(row), "ratio": row.ratio, "reached": row.reached} for row in done],
    }
    line = json.dumps(json.loads(json.dumps(report), parse_float=rounded))
    print(line)
    if arguments.json:
        arguments.json.write_text(line + "\n", encoding="utf-8")
    return verdict(done)


if __name__ == "__main__":
    sys.exit(main())
