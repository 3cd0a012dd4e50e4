"""Answer once in mode best with one of the two programs; print the peak memory and the text."""

from __future__ import annotations

import sys
from pathlib import Path

import pair
import torch
from measuring import ROOT, peak_bytes

sys.path.append(str(ROOT / "tools"))

import draw_pictures


def main() -> None:
    """Read the side, what `pair` needs, and the pool from the command line."""
    side, architecture, most_lines, folder, device, pool = sys.argv[1:]
    setup = pair.Setup(architecture, int(most_lines), Path(folder), device)
    module, preprocess = pair.network(setup)
    program = (pair.ours if side == "ours" else pair.theirs)(setup, module, preprocess)
    program.config.flavor_intermediate_count = int(pool)
    (drawn,) = draw_pictures.random_scenes(0, 1)
    picture = draw_pictures.draw(drawn, draw_pictures.SAMPLE_SIZE)
    text = program.interrogate(picture, 1, 1, caption=pair.CAPTION)
    on_device = torch.cuda.max_memory_allocated() if device.startswith("cuda") else None
    print((peak_bytes() if on_device is None else on_device) / 2**20)
    print(text)


if __name__ == "__main__":
    main()
