"""What the commands share: their options, the service, and what is printed where."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from clip_interrogator_ext import catalog
from clip_interrogator_ext.host import StandaloneHost
from clip_interrogator_ext.options import InterrogateOptions, ModelOptions, interrogate_options
from clip_interrogator_ext.settings import SETTINGS

if TYPE_CHECKING:
    from clip_interrogator_ext.host import Progress
    from clip_interrogator_ext.service import Service

DONE, FAILED, WRONG_USAGE, STOPPED = 0, 1, 2, 130
FOLDERS = ("lists_dir", "wildcards_dir", "interrogate_dir", "cache_dir")
"""The settings that name folders of the service."""

_SHOWN = {"leave_out": "WORDS", "replacements": "OLD=NEW"}  # what stands for a value in the help
DEMO_NOTE = (
    "Demo models are in use: they know only pictures drawn by this project's own program. "
    "Name others with --clip and --captioner."
)


def announce_demo(chosen: argparse.Namespace) -> None:
    """Say so where a bundled demo model is in use."""
    models = models_of(chosen)
    if catalog.DEMO in (*models.backbones, models.captioner):
        say(DEMO_NOTE)


def make_service(chosen: argparse.Namespace, show: Progress) -> tuple[Service, StandaloneHost]:
    """Make the service that a command asks, and its host; `show` is told of each step."""
    from clip_interrogator_ext.service import Service

    if chosen.quiet:
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # the bars of downloads
    host = StandaloneHost(chosen.device, chosen.models_dir, show)
    return Service(host, **folders_of(chosen)), host


def folders_of(chosen: argparse.Namespace) -> dict[str, Any]:
    """Return the folders that were named, as the service takes them."""
    return {key: getattr(chosen, key, None) for key in FOLDERS}


@contextlib.contextmanager
def service_of(chosen: argparse.Namespace) -> Iterator[Service]:
    """Make the service, with progress bars, which the first Ctrl-C stops gently."""
    from clip_interrogator_ext.progress import ProgressBars

    bars = ProgressBars(quiet=chosen.quiet)
    service, host = make_service(chosen, bars)
    words = "Stopping; press Ctrl-C again to stop at once."
    try:
        with contextlib.closing(bars), gentle_interrupt(host.interrupt, words, host.interrupted):
            yield service
    except KeyboardInterrupt:
        if service.runs():
            # The run's thread still computes, and C++ would abort where Python ends it.
            say("Stopped.")
            with contextlib.suppress(OSError):
                sys.stdout.flush()
            os._exit(STOPPED)
        raise


@contextlib.contextmanager
def gentle_interrupt(
    stop: Callable[[], None], words: str, stopping: Callable[[], bool]
) -> Iterator[None]:
    """Have the first Ctrl-C ask the run to stop and the second stop it at once.

    Only a main thread can be told of Ctrl-C; elsewhere nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_interrupt(_number: int, _frame: Any) -> None:
        if stopping():
            raise KeyboardInterrupt
        stop()
        say(words)

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def asked_of(chosen: argparse.Namespace) -> InterrogateOptions:
    """Return what is asked about each picture."""
    given = {
        **vars(chosen),
        "leave_out": "\n".join(chosen.leave_out),
        "replacements": dict(chosen.replacements),
    }
    return interrogate_options(
        given.__getitem__,
        mode=chosen.mode,
        negative=chosen.negative,
        caption=chosen.caption,
        subject=chosen.subject,
        categories=categories_of(chosen),
    )


def models_of(chosen: argparse.Namespace) -> ModelOptions:
    """Return the networks that are to answer."""
    demo = chosen.demo
    backbones = chosen.clip or [catalog.DEMO if demo else catalog.DEFAULT_BACKBONE]
    captioner = getattr(chosen, "captioner", None)
    default_captioner = catalog.DEMO if demo else catalog.DEFAULT_CAPTIONER
    return ModelOptions(
        backbones=tuple(backbones),
        captioner=default_captioner if captioner is None else captioner,
        chunk_size=chosen.chunk_size,
        low_memory=chosen.low_memory,
    )


def categories_of(chosen: argparse.Namespace) -> tuple[str, ...] | None:
    """Return the word lists that were named, or None."""
    if chosen.categories is None:
        return None
    return tuple(name.strip() for name in chosen.categories.split(",") if name.strip())


def print_json(answer: dict[str, Any]) -> None:
    """Print an answer as one line of JSON on stdout."""
    # Escapes of JSON's own, which every terminal and pipe can carry.
    print_line(json.dumps(answer, allow_nan=False))


def print_line(line: str) -> None:
    """Print an answer on stdout."""
    # A name or a phrase that the terminal's encoding lacks must not end the run.
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    sys.stdout.flush()


def say(line: str) -> None:
    """Tell whoever sits at the terminal, on stderr."""
    sys.stderr.write(line + "\n")


def add_question(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what is asked about a picture."""
    for key in ("mode", "captioner", "negative"):
        add_setting(parser, key)
    parser.add_argument("--caption", metavar="TEXT", help="this caption instead of a captioner's")
    parser.add_argument("--subject", metavar="TEXT", help="what stands in front in mode style")
    add_setting(parser, "vocabulary")
    add_categories(
        parser, "only these word lists in place of those of the set, in the negative prompt too"
    )
    parser.add_argument(
        "--leave-out", action="append", default=[], metavar="WORDS",
        help="words or phrases that never come out, with commas between; may be given again",
    )
    # The longer name is that of the setting.
    parser.add_argument(
        "--replace", "--replacements", dest="replacements", action="append", default=[],
        type=_replacement, metavar="OLD=NEW",
        help="other words for those of lists and captions; may be given again",
    )
    for key in (
        "pool_size", "min_flavors", "max_flavors", "token_budget",
        "caption_beams", "caption_min_length", "caption_max_length",
    ):
        add_setting(parser, key)


def add_categories(parser: argparse.ArgumentParser, why: str) -> None:
    """Add the option that names word lists."""
    parser.add_argument(
        "--categories", metavar="A,B,...",
        help=f"{why}: {', '.join(catalog.CATEGORIES)}, your own, or parts such as flavors/light",
    )


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which networks answer, and where they find what they need."""
    parser.add_argument(
        "--clip", action="append", metavar="NAME",
        help=SETTINGS["clip"].help + f" Named again, several judge together. "
        f"({catalog.DEFAULT_BACKBONE})",
    )
    parser.add_argument(
        "--demo", action="store_true", help="use the small models that come with this package"
    )
    for key in ("chunk_size", "low_memory", "device", "models_dir", *FOLDERS):
        add_setting(parser, key)
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def add_setting(parser: argparse.ArgumentParser, key: str) -> None:
    """Add the option that a setting describes."""
    setting = SETTINGS[key]
    flag = "--" + key.replace("_", "-")
    shown = "" if setting.default in (None, False) else f" ({setting.default})"
    text = (setting.help + shown).replace("%", "%%")
    if isinstance(setting.default, bool):
        parser.add_argument(flag, action="store_true", help=text)
    elif setting.choices:
        parser.add_argument(flag, choices=setting.choices, default=setting.default, help=text)
    elif setting.minimum is not None:
        parser.add_argument(flag, type=int, default=setting.default, metavar="N", help=text)
    else:
        default = None if key == "captioner" else setting.default
        shown_value = _SHOWN.get(key, "NAME")
        parser.add_argument(flag, default=default, metavar=shown_value, help=text)


def positive(text: str) -> int:
    """Read a number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _replacement(text: str) -> tuple[str, str]:
    old, equals, new = text.partition("=")
    if not equals or not old.strip():
        raise argparse.ArgumentTypeError("write it as OLD=NEW")
    return old, new
