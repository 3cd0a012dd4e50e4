"""The command that interrogates a folder of pictures."""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import TYPE_CHECKING, Any

from clip_interrogator_ext.batch.options import EXISTING, BatchOptions
from clip_interrogator_ext.batch.wording import Wording
from clip_interrogator_ext.batch.writers import WRITERS
from clip_interrogator_ext.faces.cli.shared import (
    DONE,
    FAILED,
    STOPPED,
    add_engine,
    add_question,
    announce_demo,
    asked_of,
    gentle_interrupt,
    make_service,
    models_of,
    print_line,
)

if TYPE_CHECKING:
    from clip_interrogator_ext.batch.results import BatchProgress, BatchResult


def add_command(commands: Any) -> None:
    """Add the command `batch` to those of the parser."""
    parser = commands.add_parser(
        "batch", help="write the prompts of a folder of pictures, and go on where it was stopped"
    )
    parser.set_defaults(run=_run)
    parser.add_argument(
        "input", metavar="INPUT",
        help='a folder, a pattern ("photos/**/*.png"), or a text file that lists pictures',
    )
    parser.add_argument("--recursive", action="store_true", help="the folder's sub-folders too")
    parser.add_argument(
        "--form", choices=tuple(WRITERS), default="txt",
        help="; ".join(f"{name}: {writer.why}" for name, writer in WRITERS.items()) + " (txt)",
    )
    parser.add_argument(
        "--output", metavar="PATH",
        help="the folder for the form txt, where the tree is kept (beside each picture); the file "
        "for the others (prompts.csv and the like in the folder of pictures)",
    )
    parser.add_argument(
        "--existing", choices=tuple(EXISTING), default="skip",
        help="where a picture has a text: "
        + "; ".join(f"{name}: {why}" for name, why in EXISTING.items()) + " (skip)",
    )
    parser.add_argument(
        "--name", default="{stem}.txt", metavar="PATTERN",
        help="the name of text files; {stem} is the picture's without its ending, {name} with it "
        "({stem}.txt)",
    )
    parser.add_argument("--prefix", default="", metavar="TEXT", help="before each prompt")
    parser.add_argument("--suffix", default="", metavar="TEXT", help="behind each prompt")
    parser.add_argument(
        "--trigger", default="", metavar="WORD", help="the first word of each text, once"
    )
    parser.add_argument(
        "--caption-from", metavar="PATTERN",
        help="a file beside each picture whose text is its caption, such as {stem}.caption; where "
        "there is none the captioner is asked",
    )
    parser.add_argument(
        "--beside", action="append", default=[], metavar="A,B,...",
        help="other backbones that give prompts of their own, side by side; may be given again",
    )
    add_question(parser)
    add_engine(parser)


def _run(chosen: argparse.Namespace) -> int:
    from clip_interrogator_ext.batch.folder import Batch

    options = BatchOptions(
        input=chosen.input,
        recursive=chosen.recursive,
        form=chosen.form,
        output=chosen.output,
        existing=chosen.existing,
        name=chosen.name,
        caption_from=chosen.caption_from,
        wording=Wording(
            prefix=chosen.prefix, suffix=chosen.suffix, trigger=chosen.trigger
        ),
        asked=asked_of(chosen),
        models=models_of(chosen),
        beside=tuple(
            tuple(name.strip() for name in names.split(",") if name.strip())
            for names in chosen.beside
        ),
    )
    announce_demo(chosen)
    bar = _Bar(quiet=chosen.quiet)
    service, _ = make_service(chosen, bar.show_step)
    batch = Batch(service, options, bar.show)
    words = "Stopping after this picture; press Ctrl-C again to stop at once."
    with contextlib.closing(bar), gentle_interrupt(batch.stop, words, lambda: batch.stopping):
        result = batch.run()
    bar.close()
    print_line(_summary(result))
    if result.stopped:
        return STOPPED
    return FAILED if result.failures else DONE


def _summary(result: BatchResult) -> str:
    line = result.counted
    if result.failures_file is not None:
        line += f" Those that failed are listed in {result.failures_file}."
    if result.stopped:
        line += " Stopped: the same command goes on from here."
    return line


class _Bar:
    """A bar on stderr, with the step of the picture in hand; problems are told as they come."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: Any = None
        self._step = ""

    def show(self, progress: BatchProgress) -> None:
        """Show how far the batch is."""
        from tqdm import tqdm

        if progress.problem:
            tqdm.write(progress.problem, file=sys.stderr)
        if self._quiet:
            return
        if progress.step != self._step:
            self.close()
            self._step = progress.step
        if self._bar is None:
            self._bar = tqdm(
                total=progress.total, desc=progress.step, unit=" pictures", leave=False
            )
        self._bar.update(progress.step_done - self._bar.n)

    def show_step(self, label: str, done: int, total: int) -> None:
        """Show what goes on within a picture; at first that is the making of tables."""
        from tqdm import tqdm

        if self._quiet or total < 2:
            return
        if self._bar is None:
            self._bar = tqdm(desc="Starting", unit=" pictures", leave=False)
        self._bar.set_postfix_str(f"{label} {done}/{total}", refresh=False)
        self._bar.update(0)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
