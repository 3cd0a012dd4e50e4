"""Draw curves as plots."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.fonttype"] = "none"  # texts stay texts
mpl.rcParams["svg.hashsalt"] = "cliext"  # the same curves give the same file

from matplotlib import pyplot as plt

if TYPE_CHECKING:
    from growth import Curve

COLORS = {"ours": "#1f6feb", "peer": "#d1570a"}


def draw(curve: Curve, path: Path) -> None:
    """Write a curve as SVG."""
    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    for name, points in curve.lines.items():
        across, up = zip(*points, strict=True)
        marker = "o" if len(points) < 50 else ""
        axes.plot(across, up, marker=marker, markersize=4, label=name, color=COLORS[name])
    for marker, (name, (x, y)) in zip("osD^v<>PX*", curve.named.items(), strict=False):
        axes.plot([x], [y], marker=marker, linestyle="", label=name)
    if len(curve.lines) > 1:
        axes.legend()
        axes.set_xscale("log")
        axes.set_yscale("log")
        asked = [across for across, _ in curve.lines["ours"]]
        axes.set_xticks(asked, [f"{number:,}" for number in asked])
        axes.set_xticks([], minor=True)
    elif curve.named:
        axes.set_xscale("log")
        figure.legend(loc="outside right center")
    else:
        axes.set_ylim(bottom=0)
    axes.set_title(curve.title, fontsize="medium")
    axes.set_xlabel(curve.across)
    axes.set_ylabel(curve.up)
    axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
