"""The command line."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from clip_interrogator_ext import __version__, catalog
from clip_interrogator_ext.errors import (
    BadImage,
    BadOption,
    InterrogatorError,
    Interrupted,
    UnknownModel,
)
from clip_interrogator_ext.host import StandaloneHost
from clip_interrogator_ext.options import CaptionOptions, InterrogateOptions, ModelOptions
from clip_interrogator_ext.settings import SETTINGS

if TYPE_CHECKING:
    from clip_interrogator_ext.progress import ProgressBars
    from clip_interrogator_ext.results import Analysis, Prompt
    from clip_interrogator_ext.service import Service

DONE, FAILED, WRONG_USAGE, STOPPED = 0, 1, 2, 130
DEMO_NOTE = (
    "Demo models are in use: they know only pictures drawn by this project's own program. "
    "Name others with --clip and --captioner."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 1 something failed, 2 wrong usage."""
    try:
        chosen = _parser().parse_args(arguments)
        logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
        return int(chosen.run(chosen))
    except (BadOption, UnknownModel) as error:
        _say(str(error))
        return WRONG_USAGE
    except Interrupted:
        _say("Stopped: nothing had been found yet.")
        return STOPPED
    except InterrogatorError as error:
        _say(str(error))
        return FAILED
    except KeyboardInterrupt:
        _say("Stopped.")
        return STOPPED
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            _say(f"{error.filename or 'The output'} can't be used ({error.strerror or error}).")
        # Whoever read our output has gone, or has no room; Python's own flush at exit must not
        # complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _prompt(chosen: argparse.Namespace) -> int:
    options = InterrogateOptions(
        mode=chosen.mode,
        negative=chosen.negative,
        caption=chosen.caption,
        subject=chosen.subject,
        categories=_categories(chosen),
        pool_size=chosen.pool_size,
        min_flavors=chosen.min_flavors,
        max_flavors=chosen.max_flavors,
        token_budget=chosen.token_budget,
        captioning=CaptionOptions(
            beams=chosen.caption_beams,
            min_length=chosen.caption_min_length,
            max_length=chosen.caption_max_length,
        ),
    )
    models = _models_of(chosen)

    def answer(service: Service, path: str) -> bool:
        from clip_interrogator_ext.images import open_image

        prompt = service.interrogate(open_image(path), options, models)
        _print_prompt(prompt, path, as_json=chosen.json)
        return prompt.interrupted

    return _for_each_image(chosen, answer)


def _analyze(chosen: argparse.Namespace) -> int:
    models = _models_of(chosen)

    def answer(service: Service, path: str) -> bool:
        from clip_interrogator_ext.images import open_image

        analysis = service.analyze(open_image(path), models, chosen.top)
        _print_analysis(analysis, path, as_json=chosen.json)
        return False

    return _for_each_image(chosen, answer)


def _similarity(chosen: argparse.Namespace) -> int:
    from clip_interrogator_ext.images import open_image

    image = open_image(chosen.images[0])
    with _service(chosen) as service:
        _announce_demo(chosen)
        scores = service.similarity(image, chosen.texts, _models_of(chosen))
    pairs = list(zip(chosen.texts, scores, strict=True))
    if chosen.json:
        _print_json({"image": chosen.images[0], "similarities": dict(pairs)})
        return DONE
    for text, score in pairs:
        _print(f"{score:.4f}\t{text}")
    return DONE


def _models(chosen: argparse.Namespace) -> int:
    with _service(chosen) as service:
        if chosen.all:
            for name in service.known_backbones():
                _print(name)
            return DONE
        _print("CLIP backbones")
        for name, backbone in catalog.BACKBONES.items():
            _print_model(name, backbone, here=service.place(name) is not None)
            _print(f"      for {backbone.suits}: {backbone.why}")
        _print("Captioners")
        for name, captioner in catalog.CAPTIONERS.items():
            _print_model(name, captioner, here=service.place(name) is not None)
            _print(f"      {captioner.why}")
    _print(f"  {catalog.NO_CAPTIONER:32} no captions")
    _print(f"Both: {catalog.DEMO}, the small models that come with this package")
    return DONE


def _print_model(name: str, row: catalog.Backbone | catalog.CaptionerRow, *, here: bool) -> None:
    size = f"{row.download_bytes / 1e9:.1f} GB"
    where = "on this machine" if here else "not downloaded"
    _print(f"  {name:32} {row.parameters:5} M parameters  {size:>8}  {where}")


def _lists(chosen: argparse.Namespace) -> int:
    with _service(chosen) as service:
        for name, category in service.categories().items():
            _print(f"{name:12} {len(category.phrases):7} phrases  {category.path}")
    return DONE


def _page(chosen: argparse.Namespace) -> int:
    try:
        import gradio  # noqa: F401 - asked for first, to say what to do where it is missing
        import uvicorn
        from fastapi import FastAPI
    except ImportError as error:
        _say(f"The page needs Gradio ({error}). Install it with `pip install gradio`.")
        return FAILED
    from clip_interrogator_ext.faces import api
    from clip_interrogator_ext.faces.tab.alone import mount
    from clip_interrogator_ext.faces.tab.surroundings import Surroundings
    from clip_interrogator_ext.service import Service

    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    host = StandaloneHost(chosen.device, chosen.models_dir)
    host.after_run = chosen.after_run
    service = Service(host, cache_dir=chosen.cache_dir, lists_dir=chosen.lists_dir)
    given = {key: getattr(chosen, key) for key in SETTINGS if hasattr(chosen, key)}
    if chosen.demo:
        given.update(clip=catalog.DEMO, captioner=catalog.DEMO)

    def setting(key: str) -> Any:
        return given.get(key, SETTINGS[key].default)

    app = FastAPI(title="Interrogator")
    api.add_routes(app, service, setting=setting)
    mount(app, service, Surroundings(setting=setting))
    _say(f"The page is at http://127.0.0.1:{chosen.port}, its routes at /docs. Ctrl-C ends it.")
    uvicorn.run(app, host="127.0.0.1", port=chosen.port, log_level="warning")
    return DONE


def _for_each_image(chosen: argparse.Namespace, answer: Any) -> int:
    """Answer about each image; one that fails is reported and the others go on."""
    code = DONE
    with _service(chosen) as service:
        _announce_demo(chosen)
        for path in chosen.images:
            if len(chosen.images) > 1 and not chosen.json:
                _say(f"== {path}")
            try:
                if answer(service, path):
                    _say("Stopped: this is what had been found.")
                    return STOPPED
            except BadImage as error:
                _say(str(error))
                if chosen.json:
                    _print_json({"image": path, "error": str(error)})
                code = FAILED
    return code


def _announce_demo(chosen: argparse.Namespace) -> None:
    models = _models_of(chosen)
    if catalog.DEMO in (*models.backbones, models.captioner):
        _say(DEMO_NOTE)


@contextlib.contextmanager
def _service(chosen: argparse.Namespace) -> Iterator[Service]:
    """Make the service, with progress bars, which the first Ctrl-C stops gently."""
    from clip_interrogator_ext.progress import ProgressBars
    from clip_interrogator_ext.service import Service

    if chosen.quiet:
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # the bars of downloads
    bars = ProgressBars(quiet=chosen.quiet)
    host = StandaloneHost(chosen.device, chosen.models_dir, bars)
    service = Service(host, cache_dir=chosen.cache_dir, lists_dir=chosen.lists_dir)
    with _gentle_interrupt(host, bars):
        yield service


@contextlib.contextmanager
def _gentle_interrupt(host: StandaloneHost, bars: ProgressBars) -> Iterator[None]:
    """Have the first Ctrl-C ask the run to stop and the second stop it at once.

    Only a main thread can be told of Ctrl-C; elsewhere nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_interrupt(_number: int, _frame: Any) -> None:
        if host.interrupted():
            raise KeyboardInterrupt
        host.interrupt()
        _say("Stopping; press Ctrl-C again to stop at once.")

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield
    finally:
        bars.close()
        signal.signal(signal.SIGINT, before)


def _categories(chosen: argparse.Namespace) -> tuple[str, ...] | None:
    if chosen.categories is None:
        return None
    return tuple(name.strip() for name in chosen.categories.split(",") if name.strip())


def _models_of(chosen: argparse.Namespace) -> ModelOptions:
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


def _print_prompt(prompt: Prompt, path: str, *, as_json: bool) -> None:
    if as_json:
        _print_json({"image": path, **prompt.as_dict()})
        return
    _print(prompt.text)
    if prompt.negative is not None:
        _print(f"Negative prompt: {prompt.negative.text}")


def _print_analysis(analysis: Analysis, path: str, *, as_json: bool) -> None:
    if as_json:
        _print_json({"image": path, **analysis.as_dict()})
        return
    for category, ranked in analysis.categories.items():
        _print(category)
        for phrase, similarity in ranked:
            _print(f"  {similarity:.4f}  {phrase}")


def _print_json(answer: dict[str, Any]) -> None:
    # Escapes of JSON's own, which every terminal and pipe can carry.
    _print(json.dumps(answer, allow_nan=False))


def _print(line: str) -> None:
    # A name or a phrase that the terminal's encoding lacks must not end the run.
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    sys.stdout.flush()


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="clip-interrogator-ext",
        description="Turn a picture into the prompt that would make one like it.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    prompt = commands.add_parser("prompt", help="print the prompt of each picture")
    prompt.set_defaults(run=_prompt)
    _add_images(prompt)
    for key in ("mode", "captioner", "negative"):
        _add_setting(prompt, key)
    prompt.add_argument("--caption", metavar="TEXT", help="this caption instead of a captioner's")
    prompt.add_argument("--subject", metavar="TEXT", help="what stands in front in mode style")
    prompt.add_argument(
        "--categories", metavar="A,B,...",
        help="only these word lists, in the negative prompt too: "
        + ",".join(catalog.CATEGORIES) + " or your own",
    )
    for key in (
        "pool_size", "min_flavors", "max_flavors", "token_budget",
        "caption_beams", "caption_min_length", "caption_max_length",
    ):
        _add_setting(prompt, key)
    _add_json(prompt)
    _add_engine(prompt)

    analyze = commands.add_parser("analyze", help="print the nearest phrases of each category")
    analyze.set_defaults(run=_analyze)
    _add_images(analyze)
    analyze.add_argument("--top", type=_positive, default=5, metavar="N", help="how many (5)")
    _add_json(analyze)
    _add_engine(analyze)

    similarity = commands.add_parser("similarity", help="print how near texts are to a picture")
    similarity.set_defaults(run=_similarity)
    similarity.add_argument("images", nargs=1, metavar="IMAGE")
    similarity.add_argument("texts", nargs="+", metavar="TEXT")
    _add_json(similarity)
    _add_engine(similarity)

    models = commands.add_parser("models", help="list the recommended models, or all of them")
    models.set_defaults(run=_models, quiet=True, device=None, lists_dir=None, cache_dir=None)
    models.add_argument("--all", action="store_true", help="every name that open_clip knows")
    _add_setting(models, "models_dir")

    lists = commands.add_parser("lists", help="list the word lists in use")
    lists.set_defaults(run=_lists, quiet=True, device=None, models_dir=None)
    for key in ("lists_dir", "cache_dir"):
        _add_setting(lists, key)

    page = commands.add_parser("page", help="serve the page and its routes on this machine")
    page.set_defaults(run=_page)
    page.add_argument(
        "--port", type=_positive, default=7870, metavar="N", help="on 127.0.0.1 (7870)"
    )
    page.add_argument(
        "--demo", action="store_true", help="begin with the small models of this package chosen"
    )
    for key in ("clip", *(key for key in SETTINGS if key != "clip")):
        _add_setting(page, key)
    return parser


def _add_images(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="a picture's file")


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")


def _add_engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--clip", action="append", metavar="NAME",
        help=SETTINGS["clip"].help + f" Named again, several judge together. "
        f"({catalog.DEFAULT_BACKBONE})",
    )
    parser.add_argument(
        "--demo", action="store_true", help="use the small models that come with this package"
    )
    for key in ("chunk_size", "low_memory", "device", "models_dir", "lists_dir", "cache_dir"):
        _add_setting(parser, key)
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def _add_setting(parser: argparse.ArgumentParser, key: str) -> None:
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
        parser.add_argument(flag, default=default, metavar="NAME", help=text)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value
