"""Measure our engine beside clip-interrogator's, and how its cost grows.

Both have the same network (of random weights, in real sizes), word lists, caption and picture, in
one process; the answers are compared. Prints a table, and one line of JSON with all figures.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from measuring import ROOT, cores, rounded, say, versions

sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

import draw_pictures
import growth
import pair
import plots
import rows
import torch
import turbo


def turbo_rows(small: bool, folder: Path) -> list[rows.Row]:
    """Measure `turbo` against our own `best`: what it gains, and in what time."""
    asked = {"drawn pictures": (50, None), "random networks, tiny": (20, "tiny")}
    if not small:
        asked["random networks, ViT-B-32"] = (4, "ViT-B-32")  # a minute each
    made = []
    for name, (number, architecture) in asked.items():
        pairs = turbo.measure_all(1 if small else number, architecture, folder)
        gain = turbo.share(pairs, "gain")
        made.append(rows.Row(
            f"turbo's gain over the caption, {len(pairs)} {name}", "of best's", gain, 1.0, 0.98,
            True, f"texts {turbo.share(pairs, 'texts'):.3f} of best's", more_is_better=True,
        ))
    seconds = (sum(one.seconds for one in side) / len(pairs) for side in zip(*pairs, strict=True))
    made.append(rows.Row(
        "turbo's time beside our own best's, the same networks", "s", *seconds, 8, True, "as above",
    ))
    return made


def table(done: list[rows.Row]) -> str:
    """Set out rows to be read; a ratio above 1 is in our favor."""
    lines = [
        f"{'':54}{'ours':>10}{'peer':>10} {'unit':10}{'ratio':>7}{'goal':>7}{'floor':>10}  answers"
    ]
    for row in done:
        def number(value: float | None) -> str:
            return "-" if value is None else f"{value:.4g}"

        goal = number(row.goal) if row.reached else f"{number(row.goal)}!"
        answers = row.answers if row.agree else "DIFFERENT"
        lines.append(
            f"{row.work:54}{number(row.ours):>10}{number(row.peer):>10} {row.unit:10}"
            f"{number(row.ratio):>7}{goal:>7}{number(row.floor):>10}  {answers}"
        )
    return "\n".join(lines)


def main() -> int:
    """Measure, print, draw; 1 where an answer differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="a minute's work, to see that it runs")
    parser.add_argument("--device", default="cpu", help="where both compute: cpu, cuda (cpu)")
    parser.add_argument(
        "--plots", type=Path, metavar="FOLDER", help="measure how cost grows too, and draw it there"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the line of JSON there too"
    )
    arguments = parser.parse_args()
    small = arguments.small
    (drawn,) = draw_pictures.random_scenes(0, 1)
    picture = draw_pictures.draw(drawn, draw_pictures.SAMPLE_SIZE)
    done: list[rows.Row] = []
    curves: dict[str, growth.Curve] = {}
    with tempfile.TemporaryDirectory(prefix="clip-interrogator-ext-bench-") as name:
        folder = Path(name)
        for row in rows.rows(rows.SMALL if small else rows.FULL, folder, arguments.device, picture):
            say(table([row]).splitlines()[-1])
            done.append(row)
        done += turbo_rows(small, folder)
        if arguments.plots:
            sizes = growth.SMALL if small else growth.FULL
            first = (rows.SMALL if small else rows.FULL).backbones[0][0]
            task = pair.Task(first, 100_000, folder, arguments.device)
            for plot, curve in growth.curves(sizes, task, picture):
                say(f"{curve.title}: {curve.of} by {curve.across}")
                curves[plot] = curve
                plots.draw(curve, arguments.plots / f"{plot}.svg")
    print(header(arguments.device))
    print()
    print(table(done))
    report: dict[str, Any] = {
        "versions": versions(), "device": arguments.device, "cores": cores(),
        "rows": [{**asdict(row), "ratio": row.ratio, "reached": row.reached} for row in done],
        "curves": {plot: asdict(curve) for plot, curve in curves.items()},
    }
    line = json.dumps(json.loads(json.dumps(report), parse_float=rounded))
    print(line)
    if arguments.json:
        arguments.json.write_text(line + "\n", encoding="utf-8")
    return verdict(done)


def verdict(done: list[rows.Row]) -> int:
    """Return the exit code: 1 where the two programs' answers differ, whatever the times are."""
    wrong = [row.work for row in done if not row.agree]
    if wrong:
        say(f"The answers differ: {'; '.join(wrong)}.")
    return 1 if wrong else 0


def header(device: str) -> str:
    """Say what ran where."""
    where = torch.cuda.get_device_name() if device.startswith("cuda") else f"{cores()} cores"
    listed = ", ".join(f"{name} {number}" for name, number in versions().items())
    return f"On {device} ({where}, {torch.get_num_threads()} threads)\n{listed}"


if __name__ == "__main__":
    sys.exit(main())
