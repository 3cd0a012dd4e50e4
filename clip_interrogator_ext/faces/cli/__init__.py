"""The command line."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from clip_interrogator_ext import __version__, catalog, packages
from clip_interrogator_ext.errors import (
    BadImage,
    BadOption,
    InterrogatorError,
    Interrupted,
    UnknownModel,
)
from clip_interrogator_ext.faces.cli import batch, lists
from clip_interrogator_ext.faces.cli.pauses import shorten_collections
from clip_interrogator_ext.faces.cli.shared import (
    DONE,
    FAILED,
    STOPPED,
    WRONG_USAGE,
    add_categories,
    add_engine,
    add_question,
    add_setting,
    announce_demo,
    asked_of,
    categories_of,
    folders_of,
    models_of,
    positive,
    print_json,
    print_line,
    say,
    service_of,
)
from clip_interrogator_ext.faces.cli.uploads_folder import uploads_folder
from clip_interrogator_ext.host import StandaloneHost
from clip_interrogator_ext.packages import needed
from clip_interrogator_ext.settings import SETTINGS

if TYPE_CHECKING:
    from pathlib import Path

    from clip_interrogator_ext.results import Analysis, Prompt
    from clip_interrogator_ext.service import Service

def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 1 something failed, 2 wrong usage."""
    try:
        chosen = _parser().parse_args(arguments)
        logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
        packages.require("numpy", "PIL", "tqdm")
        return int(chosen.run(chosen))
    except (BadOption, UnknownModel) as error:
        say(str(error))
        return WRONG_USAGE
    except Interrupted:
        say("Stopped: nothing had been found yet.")
        return STOPPED
    except InterrogatorError as error:
        say(str(error))
        return FAILED
    except KeyboardInterrupt:
        say("Stopped.")
        return STOPPED
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            say(f"{error.filename or 'The output'} can't be used ({error.strerror or error}).")
        # Whoever read our output has gone, or has no room; Python's own flush at exit must not
        # complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _prompt(chosen: argparse.Namespace) -> int:
    options = asked_of(chosen)
    models = models_of(chosen)

    def answer(service: Service, path: str) -> bool:
        from clip_interrogator_ext.images import open_image

        prompt = service.interrogate(open_image(path), options, models)
        _print_prompt(prompt, path, as_json=chosen.json)
        return prompt.interrupted

    return _for_each_image(chosen, answer)


def _analyze(chosen: argparse.Namespace) -> int:
    models, categories = models_of(chosen), categories_of(chosen)

    def answer(service: Service, path: str) -> bool:
        from clip_interrogator_ext.images import open_image

        analysis = service.analyze(open_image(path), models, chosen.top, categories=categories)
        _print_analysis(analysis, path, as_json=chosen.json)
        return False

    return _for_each_image(chosen, answer)


def _similarity(chosen: argparse.Namespace) -> int:
    from clip_interrogator_ext.images import open_image

    image = open_image(chosen.images[0])
    with service_of(chosen) as service:
        announce_demo(chosen)
        scores = service.similarity(image, chosen.texts, models_of(chosen))
    pairs = list(zip(chosen.texts, scores, strict=True))
    if chosen.json:
        print_json({"image": chosen.images[0], "similarities": dict(pairs)})
        return DONE
    for text, score in pairs:
        print_line(f"{score:.4f}\t{text}")
    return DONE


def _models(chosen: argparse.Namespace) -> int:
    with service_of(chosen) as service:
        if chosen.all:
            for name in service.known_backbones():
                print_line(name)
            return DONE
        print_line("CLIP backbones")
        for name, backbone in catalog.BACKBONES.items():
            _print_model(name, backbone, here=service.place(name) is not None)
            print_line(f"      for {backbone.suits}: {backbone.why}")
        print_line("Captioners")
        for name, captioner in catalog.CAPTIONERS.items():
            _print_model(name, captioner, here=service.place(name) is not None)
            print_line(f"      {captioner.why}")
    print_line(f"  {catalog.NO_CAPTIONER:32} no captions")
    print_line(f"Both: {catalog.DEMO}, the small models that come with this package")
    return DONE


def _print_model(name: str, row: catalog.Backbone | catalog.CaptionerRow, *, here: bool) -> None:
    size = f"{row.download_bytes / 1e9:.1f} GB"
    where = "on this machine" if here else "not downloaded"
    print_line(f"  {name:32} {row.parameters:5} M parameters  {size:>8}  {where}")


def _page(chosen: argparse.Namespace) -> int:
    shorten_collections()
    with uploads_folder() as uploads:
        return _serve(chosen, uploads)


def _serve(chosen: argparse.Namespace, uploads: Path) -> int:
    with needed("gradio"):
        import gradio  # noqa: F401 - asked for first, to say what to do where it fails
        import uvicorn
        from fastapi import FastAPI
    from clip_interrogator_ext.faces import api
    from clip_interrogator_ext.faces.cli.modest_uploads import ModestUploads
    from clip_interrogator_ext.faces.cli.own_origin import OwnOrigin
    from clip_interrogator_ext.faces.tab.alone import mount
    from clip_interrogator_ext.faces.tab.surroundings import Surroundings
    from clip_interrogator_ext.service import Service

    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    host = StandaloneHost(chosen.device, chosen.models_dir)
    host.after_run = chosen.after_run
    service = Service(host, **folders_of(chosen))
    given = {key: getattr(chosen, key) for key in SETTINGS if hasattr(chosen, key)}
    if chosen.demo:
        given.update(clip=catalog.DEMO, captioner=catalog.DEMO)

    def setting(key: str) -> Any:
        return given.get(key, SETTINGS[key].default)

    app = FastAPI(title="Interrogator", redoc_url=None)
    app.add_middleware(ModestUploads, folder=uploads)
    app.add_middleware(OwnOrigin)  # which comes first, as it is added last
    api.add_routes(app, service, setting=setting)
    mount(app, service, Surroundings(setting=setting))
    say(f"The page is at http://127.0.0.1:{chosen.port}, its routes at /docs. Ctrl-C ends it.")
    uvicorn.run(
        app, host="127.0.0.1", port=chosen.port, log_level="warning", timeout_graceful_shutdown=1
    )
    return DONE


def _for_each_image(chosen: argparse.Namespace, answer: Any) -> int:
    """Answer about each image; one that fails is reported and the others go on."""
    code = DONE
    with service_of(chosen) as service:
        announce_demo(chosen)
        for path in chosen.images:
            if len(chosen.images) > 1 and not chosen.json:
                say(f"== {path}")
            try:
                if answer(service, path):
                    say("Stopped: this is what had been found.")
                    return STOPPED
            except BadImage as error:
                say(str(error))
                if chosen.json:
                    print_json({"image": path, "error": str(error)})
                code = FAILED
    return code


def _print_prompt(prompt: Prompt, path: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"image": path, **prompt.as_dict()})
        return
    print_line(prompt.text)
    if prompt.negative is not None:
        print_line(f"Negative prompt: {prompt.negative.text}")


def _print_analysis(analysis: Analysis, path: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"image": path, **analysis.as_dict()})
        return
    for category, ranked in analysis.categories.items():
        print_line(category)
        for phrase, similarity in ranked:
            print_line(f"  {similarity:.4f}  {phrase}")


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
    add_question(prompt)
    _add_json(prompt)
    add_engine(prompt)

    batch.add_command(commands)

    analyze = commands.add_parser("analyze", help="print the nearest phrases of each category")
    analyze.set_defaults(run=_analyze)
    _add_images(analyze)
    analyze.add_argument("--top", type=positive, default=5, metavar="N", help="how many (5)")
    add_categories(analyze, "these word lists in place of the usual ones")
    _add_json(analyze)
    add_engine(analyze)

    similarity = commands.add_parser("similarity", help="print how near texts are to a picture")
    similarity.set_defaults(run=_similarity)
    similarity.add_argument("images", nargs=1, metavar="IMAGE")
    similarity.add_argument("texts", nargs="+", metavar="TEXT")
    _add_json(similarity)
    add_engine(similarity)

    models = commands.add_parser("models", help="list the recommended models, or all of them")
    models.set_defaults(run=_models, quiet=True, device=None)
    models.add_argument("--all", action="store_true", help="every name that open_clip knows")
    add_setting(models, "models_dir")

    lists.add_command(commands)

    page = commands.add_parser("page", help="serve the page and its routes on this machine")
    page.set_defaults(run=_page)
    page.add_argument(
        "--port", type=positive, default=7870, metavar="N", help="on 127.0.0.1 (7870)"
    )
    page.add_argument(
        "--demo", action="store_true", help="begin with the small models of this package chosen"
    )
    for key in ("clip", *(key for key in SETTINGS if key != "clip")):
        add_setting(page, key)
    return parser


def _add_images(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="a picture's file")


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")


