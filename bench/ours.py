"""Run our batch over the pictures, in a process of its own that batch.py starts."""

from __future__ import annotations

import csv
import sys
from dataclasses import replace
from pathlib import Path

from measuring import Meter, Task, read_lines

from clip_interrogator_ext import InterrogateOptions, ModelOptions, Service, StandaloneHost
from clip_interrogator_ext.batch.folder import Batch
from clip_interrogator_ext.batch.options import BatchOptions


def main() -> None:
    """Write a text for each picture as the command `batch` does, and say how long it took."""
    task = Task(*sys.argv[1:])
    options = BatchOptions(
        input=task.pictures,
        output=task.output,
        asked=InterrogateOptions(mode=task.mode),
        models=ModelOptions(backbones=("demo",), captioner="demo"),
    )
    service = Service(StandaloneHost("cpu"), cache_dir=task.cache, lists_dir=task.lists)
    meter = Meter()
    result = Batch(service, options, lambda _progress: meter.step()).run()
    meter.end()
    if result.done < result.total or result.earlier:
        sys.exit(f"Not every picture was asked about in this run: {result}")

    import torch

    # The journal has the captions, and this form asks nothing again.
    Batch(service, replace(options, form="csv")).run()
    with Path(task.output, "prompts.csv").open(encoding="utf-8-sig", newline="") as file:
        captions = {row["picture"]: row["caption"] for row in csv.DictReader(file)}
    names = read_lines(Path(task.pictures))
    meter.save(task.notes, torch.get_num_threads(), [captions[name] for name in names])


if __name__ == "__main__":
    main()
