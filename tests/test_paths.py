"""Every field that takes a path, or a name that may become one: what leads elsewhere is refused."""

from __future__ import annotations

import base64
import copy
import inspect
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from clip_interrogator_ext import catalog
from clip_interrogator_ext.batch.jobs import jobs_of
from clip_interrogator_ext.faces.api.route import Route
from clip_interrogator_ext.faces.tab.batch import FOLDER, UPLOADED
from clip_interrogator_ext.faces.tab.uploaded import Posted
from clip_interrogator_ext.options import ModelOptions
from clip_interrogator_ext.results import Prompt
from clip_interrogator_ext.settings import SETTINGS
from tests import posting
from tests.colors import Colors
from tests.faults import needs_posix
from tests.posts import data_url
from tests.test_api import ERROR_KEYS, wait_until
from tests.test_webui import a1111, forge  # noqa: F401 - fixtures
from tests.test_who_may import WEBUI, routes_of

pytestmark = [pytest.mark.hosts, needs_posix]

HIDDEN_WORDS = "the words of a secret"
ANSWERED_SECONDS = 120.0  # on a busy machine; what leads nowhere would take for ever
OPEN = "open"
FLAGS = {
    OPEN: "", "hidden": "hide_ui_dir_config", "strangers": "disable_extension_access",
}

# Fields may lead somewhere:
MODEL = "a model's name, which may be a folder or architecture=FILE"
NAME = "the name of a list or a set"
INPUT, OUTPUT = "where pictures are", "where texts go"
PATTERN = "the pattern of a file's name"
PICTURE = "a picture"
FILE = "an uploaded file, with its own name"
PLACE = "a folder"
LEADING = (MODEL, NAME, INPUT, OUTPUT, PATTERN, PICTURE, FILE, PLACE)
# or nowhere:
WORDS = "words of prompts, captions and lists, or looked for in them"
CHOICE = "one of a few, or a number"
KEY = "what something in memory is called"

ASKED_OF_MODELS = {"clip_model_name": MODEL, "clip_model_names": MODEL}
ASKED_OF_A_PICTURE = {"image": PICTURE, "task": KEY, **ASKED_OF_MODELS}
ASKED_OF_A_PROMPT = {
    **ASKED_OF_MODELS, "captioner": MODEL, "vocabulary": NAME, "categories": NAME, "mode": CHOICE,
    "caption": WORDS, "subject": WORDS, "leave_out": WORDS, "replacements": WORDS,
}
ROUTES: dict[str, dict[str, str]] = {
    "POST prompt": {**ASKED_OF_A_PICTURE, **ASKED_OF_A_PROMPT},
    "POST analyze": {**ASKED_OF_A_PICTURE, "categories": NAME},
    "POST similarity": {**ASKED_OF_A_PICTURE, "texts": WORDS},
    "POST interrupt": {"task": KEY},
    "POST batch": {
        **ASKED_OF_A_PROMPT, "input": INPUT, "output": OUTPUT, "name": PATTERN,
        "caption_from": PATTERN, "beside": MODEL, "form": CHOICE, "existing": CHOICE,
        "prefix": WORDS, "suffix": WORDS, "trigger": WORDS,
    },
    "GET batch/{id}": {"id": KEY},
    "DELETE batch/{id}": {"id": KEY},
}
BOXES: dict[str, str] = {
    **dict.fromkeys(
        ("backbones", "analyze-backbones", "lists-backbones", "captioner", "model",
         "batch-beside"), MODEL,
    ),
    **dict.fromkeys(("lists-chosen", "lists-name", "vocabulary", "categories"), NAME),
    **dict.fromkeys(("image", "analyze-image", "lists-image"), PICTURE),
    **dict.fromkeys(("lists-files", "batch-files"), FILE),
    "batch-folder": INPUT, "batch-output": OUTPUT,
    "batch-name": PATTERN, "batch-caption-from": PATTERN,
    "batch-mine": KEY,
    **dict.fromkeys(
        ("caption", "subject", "batch-subject", "leave-out", "replacements", "prompt", "negative",
         "parameters", "texts", "batch-trigger", "batch-prefix", "batch-suffix",
         "lists-search", "lists-text", "lists-more"), WORDS,
    ),
    **dict.fromkeys(
        ("mode", "with-negative", "generator", "pool-size", "min-flavors", "max-flavors",
         "token-budget", "caption-beams", "caption-min-length", "caption-max-length",
         "chunk-size", "low-memory", "phrases", "negative-phrases", "top", "batch-source",
         "batch-recursive", "batch-mode", "batch-negative", "batch-form", "batch-existing"),
        CHOICE,
    ),
}
IN_SETTINGS: dict[str, str] = {
    "clip": MODEL, "captioner": MODEL, "vocabulary": NAME, "device": KEY,
    **dict.fromkeys(
        ("models_dir", "lists_dir", "wildcards_dir", "interrogate_dir", "cache_dir"), PLACE
    ),
    "leave_out": WORDS, "replacements": WORDS,
}
# What else has to be said, for a field to be looked at.
BESIDE = {
    "captioner": {"mode": "caption"}, "beside": {"form": "csv"},
    "batch-beside": {"batch-form": "csv"},
}
# Names of folders, made where the program runs, or a folder that is there.
TAKEN_LITERALLY = {
    "folder", "nobody's home", "drive", "share", "above on Windows", "percent", "address",
}
# What may stand behind an architecture's name and "=".
AS_FILES = (
    "above", "absolute", "link", "endless", "pipe", "folder", "nul", "long", "deep", "drive",
)
# Events that show, clear or hand on what is chosen; so nothing is refused.
SHOWING = {
    "backbones.change", "backbones.then", "generator.input", "vocabulary.change",
    "vocabulary.then", "image.change", "tab-batch.select", "tab-prompt.select",
    "tab-analyze.select", "tab-lists.select", "lists-refresh.click", "lists-backbones.input",
    "lists-classic.click",
}

CHANGING = {"lists-save.click", "lists-add.click", "lists-import.click", "lists-delete.click"}


@dataclass(frozen=True)
class Places:
    """What there is on the machine."""

    top: Path

    @property
    def inside(self) -> Path:
        """Our models folder."""
        return self.top / "webui" / "models" / "clip-interrogator"

    @property
    def here(self) -> Path:
        """Where the program runs."""
        return self.top / "webui" / "models" / "here"

    @property
    def outside(self) -> Path:
        return self.top / "outside"

    @property
    def photos(self) -> Path:
        return self.top / "photos"

    @property
    def secret(self) -> Path:
        return self.outside / "secret.txt"

    def ways(self) -> dict[str, str]:
        """Return what leads out of a folder, waits, or has no end, by what it is."""
        return {
            "above": f"{self.inside}/../../../outside/secret.txt",
            "above from here": "../../../outside/secret.txt",
            "absolute": str(self.secret),
            "link": f"{self.inside}/link.txt",
            "link to a folder": f"{self.inside}/links/secret.txt",
            "endless": "/dev/zero",
            "waits for input": "/dev/stdin",
            "pipe": f"{self.inside}/pipe.txt",
            "picture that is a pipe": f"{self.inside}/pipe.png",
            "folder": f"{self.inside}/folder.txt",
            "nul": f"{self.inside}/a\0{self.secret}",
            "nul in a picture": f"{self.inside}/a\0.png",
            "long": f"{self.inside}/{'x' * 300}",
            "deep": f"{self.inside}/{'x/' * 1700}a.png",
            "nobody's home": "~nobody-at-all/secret.txt",
            "drive": r"C:\secret.txt",
            "share": r"\\server\share\secret.txt",
            "above on Windows": r"..\..\..\outside\secret.txt",
            "percent": "%2e%2e/%2e%2e/%2e%2e/outside/secret.txt",
            "address": f"file://{self.secret}",
        }


@pytest.fixture
def places(tmp_path, monkeypatch) -> Iterator[Places]:
    """Folders with what may be there, and standard input of which nothing comes."""
    places = Places(tmp_path)
    for folder in (places.inside / "lists", places.inside / "folder.txt", places.photos,
                   places.outside / "photos"):
        folder.mkdir(parents=True)
    for name in (*catalog.CATEGORIES, catalog.NEGATIVE_CATEGORY, "mine"):
        (places.inside / "lists" / f"{name}.txt").write_text("fog\nmist\n", encoding="utf-8")
    places.secret.write_text(f"{HIDDEN_WORDS}\n", encoding="utf-8")
    (places.outside / "list.txt").write_text("photos/a.png\n", encoding="utf-8")
    (places.inside / "link.txt").symlink_to(places.secret)
    (places.inside / "links").symlink_to(places.outside)
    for name in ("pipe.txt", "pipe.png"):
        os.mkfifo(places.inside / name)
    for folder in (places.photos, places.outside / "photos"):
        (folder / "a.png").write_bytes(PNG)
    beside = places.photos
    (beside / "a.link.txt").symlink_to(places.secret)
    (beside / "a.endless.txt").symlink_to("/dev/zero")
    (beside / "a.stdin.txt").symlink_to("/dev/stdin")
    os.mkfifo(beside / "a.pipe.txt")
    (beside / "a.folder.txt").mkdir()
    places.here.mkdir()
    monkeypatch.chdir(places.here)
    here, there = os.pipe()
    before = os.dup(0)
    os.dup2(here, 0)
    yield places
    os.dup2(before, 0)
    for number in (here, there, before):
        os.close(number)


@pytest.fixture
def webui(request: pytest.FixtureRequest, places, monkeypatch) -> SimpleNamespace:
    """The WebUI that this Gradio is of, in folders of its own."""
    started: SimpleNamespace = request.getfixturevalue(WEBUI)
    monkeypatch.setattr(started.ours("host"), "models_path", str(places.inside.parent))
    return started


@pytest.fixture
def service(webui, monkeypatch, tmp_path) -> Iterator[Any]:
    """The WebUI's service; batches that ask the demo models are told colors."""
    service = webui.ours().service()
    service.use_folders(cache_dir=tmp_path / "cache")
    # Imported before anything is timed, and read once.
    from clip_interrogator_ext.models import open_clip

    service.known_backbones()
    loaded: dict[Any, Any] = {}
    load = open_clip.load

    def load_once(name: str, **more: Any) -> Any:
        if name != catalog.DEMO:
            return load(name, **more)
        return loaded.get(name) or loaded.setdefault(name, load(name, **more))

    monkeypatch.setattr(open_clip, "load", load_once)
    colors = Colors()

    def answers(name: str, of_models: int) -> Any:
        real = getattr(service, name)

        def answer(*asked: Any, **more: Any) -> Any:
            is_batch = name != "interrogate" or not isinstance(asked[0], Image.Image)
            if is_batch and asked[of_models] == ALL_DEMO:
                return stand_in(*asked, **more)
            return real(*asked, **more)

        stand_in = getattr(colors, name, lambda *_: Prompt("a fox", "fast", "a fox", 2, 0.5, 0.1))
        return answer

    for name, of_models in (("preparer", 0), ("captions", 2), ("vectors", 1), ("interrogate", 2)):
        monkeypatch.setattr(service, name, answers(name, of_models))
    monkeypatch.setattr(service, "get_classic", lambda _task: tmp_path)
    yield service
    jobs_of(service).stop()
    wait_until(lambda: all(state.ended for state in jobs_of(service).all()))


def png() -> bytes:
    data = BytesIO()
    Image.new("RGB", (32, 32), "purple").save(data, "PNG")
    return data.getvalue()


PNG = png()


ALL_DEMO = ModelOptions((catalog.DEMO,), catalog.DEMO)


# What is watched

_seen: list[str] | None = None


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    # A hook stays as long as the process.
    if _seen is not None and event in ("open", "os.listdir", "os.scandir") and arguments:
        path = arguments[0]
        if isinstance(path, (str, bytes)) and b"\0" not in os.fsencode(path):
            _seen.append(os.fsdecode(path))


sys.addaudithook(_note)


def contents(folder: Path, *but: Path) -> dict[str, Any]:
    """Return all that is below a folder, but for some; a file with its bytes and its time."""
    found: dict[str, Any] = {}
    for parent, folders, files in os.walk(folder):
        here = Path(parent)
        folders[:] = [one for one in folders if here / one not in but]
        for name in (*folders, *files):
            path = here / name
            if path.is_symlink():
                found[str(path)] = path.readlink()
            elif path.is_file():
                found[str(path)] = path.read_bytes(), path.stat().st_mtime_ns
            else:
                found[str(path)] = path.stat().st_mode
    return found


@contextmanager
def nothing_outside(places: Places, *, closed: bool) -> Iterator[None]:
    """See to it that nothing is changed but where it may be, nor read where all is closed."""
    global _seen
    ours = (
        places.photos, places.here, places.inside / "lists", places.inside / "folder.txt",
        places.top / "cache",
    )
    before = contents(places.top, *ours)
    _seen = []
    try:
        yield
    finally:
        seen, _seen = _seen, None
    assert contents(places.top, *ours) == before
    elsewhere = [str(places.outside), "/dev/zero", "/dev/stdin"]
    real = {one for one in map(os.path.realpath, seen) if one.startswith(tuple(elsewhere))}
    assert not closed or not real


@dataclass(frozen=True)
class Told:
    """What was said, and how long that took."""

    refused: bool
    words: str
    seconds: float

    def wrong(self, *, may_be_taken: bool = False) -> str:
        """Return what is wrong with an answer to what leads elsewhere, or nothing."""
        if self.seconds > ANSWERED_SECONDS:
            return f"{self.seconds:.1f} s"
        if HIDDEN_WORDS in self.words:
            return "the secret is told"
        if "InternalError" in self.words or "Something went wrong" in self.words:
            return f"unforeseen: {self.words[:300]}"
        if not self.refused and not may_be_taken:
            return f"not refused: {self.words[:300]}"
        return ""


def flagged(webui: Any, monkeypatch: pytest.MonkeyPatch, mode: str) -> bool:
    """Start the WebUI with flags; say whether they close folders."""
    if FLAGS[mode]:
        monkeypatch.setattr(webui.flags, FLAGS[mode], True)
    return mode != OPEN


def values_of(kind: str, places: Places, *, closed: bool) -> dict[str, str]:
    """Return what may be given for a field of a kind, by what it is.

    Where paths are closed no way differs much from another.
    """
    ways = places.ways()
    if closed:
        ways = {name: way for name, way in ways.items() if name in AS_FILES}
    if kind == MODEL:
        return ways | {f"file: {name}": f"ViT-B-32={ways[name]}" for name in AS_FILES}
    if kind == INPUT:
        listed = {}
        for number, (name, way) in enumerate(ways.items()):
            file = places.photos / f"list-{number}.txt"
            file.write_text(json.dumps(way) + "\n", encoding="utf-8")
            listed[f"listed: {name}"] = str(file)
        return ways | listed
    if kind == PATTERN:
        beside = ("link", "endless", "stdin", "pipe", "folder")
        return {
            **{name: f"{way}{{stem}}.txt" for name, way in ways.items()},
            **{f"beside: {name}": f"{{stem}}.{name}.txt" for name in beside},
            "field": "{stem.__class__}.txt", "index": "{0}{stem}.txt",
            "no text's": "{stem}.sh",
        }
    return ways


# The routes


def request_fields(document: dict[str, Any]) -> dict[str, set[str]]:
    """Return the fields of each route of a document that may hold a text."""
    schemas = document["components"]["schemas"]

    def resolved(part: Any) -> Any:
        return schemas[part["$ref"].rpartition("/")[2]] if "$ref" in part else part

    def holds_text(part: Any) -> bool:
        part = resolved(part)
        inner = [one for key in ("anyOf", "allOf", "oneOf") for one in part.get(key, ())]
        inner += [part[key] for key in ("items", "additionalProperties") if part.get(key)]
        return part.get("type", "string" if not inner else "") == "string" or any(
            map(holds_text, inner)
        )

    def fields(part: Any) -> Iterator[str]:
        part = resolved(part)
        for key in ("anyOf", "allOf", "oneOf"):
            for one in part.get(key, ()):
                yield from fields(one)
        for name, one in part.get("properties", {}).items():
            if holds_text(one):
                yield name

    found: dict[str, set[str]] = {}
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            named = {one["name"] for one in route.get("parameters", ())}
            for content in route.get("requestBody", {}).get("content", {}).values():
                named |= set(fields(content["schema"]))
            if named:
                found[f"{method.upper()} {path.removeprefix('/interrogator/')}"] = named
    return found


def app_of(webui: Any) -> FastAPI:
    app = FastAPI()
    assert [route for route in routes_of(webui, app) if isinstance(route, Route)]
    return app


def test_every_field_of_every_route_is_in_the_table(webui, service):
    """A new one has to be put there, as one that leads somewhere or nowhere."""
    fields = request_fields(app_of(webui).openapi())
    assert fields == {route: set(row) for route, row in ROUTES.items()}


IMAGE = base64.b64encode(PNG).decode()
DEMO = {"clip_model_name": catalog.DEMO, "captioner": catalog.DEMO}
ASKED: dict[str, dict[str, Any]] = {
    "POST prompt": {"image": IMAGE, "mode": "fast", "max_flavors": 1, **DEMO},
    "POST analyze": {"image": IMAGE, "clip_model_name": catalog.DEMO},
    "POST similarity": {"image": IMAGE, "clip_model_name": catalog.DEMO, "texts": ["a fox"]},
    "POST batch": {**DEMO, "existing": "replace"},
}


def end_of(service: Any, batch: str) -> tuple[bool, str]:
    """Wait for a batch's end; return whether a picture or all have failed, and what was told."""
    jobs = jobs_of(service)
    wait_until(lambda: jobs.get(batch).ended, ANSWERED_SECONDS + 1)
    state = jobs.get(batch)
    failed = state.state == "failed" or bool(state.result and state.result.failures)
    return failed, f"{state.error} {state.result}"


def asked(
    client: TestClient, service: Any, route: str, field: str, value: str, **more: Any
) -> Told:
    """Ask a route with a value in a field, and return what was told, a batch's end too."""
    method, _, path = route.partition(" ")
    nested: Any = value
    for _ in range({"clip_model_names": 1, "categories": 1, "beside": 2}.get(field, 0)):
        nested = [nested]
    body = {**ASKED[route], **BESIDE.get(field, {}), **more, field: nested}
    started = time.monotonic()
    answer = client.request(method, f"/interrogator/{path}", json=body)
    said = answer.json()
    if answer.status_code == 202:
        refused, words = end_of(service, said["id"])
    else:
        refused = answer.status_code != 200 and said.keys() == ERROR_KEYS
        words = answer.text
    return Told(refused, words, time.monotonic() - started)


LEADING_FIELDS = {
    route: {field: kind for field, kind in row.items() if kind in LEADING}
    for route, row in ROUTES.items()
}


@pytest.mark.parametrize("mode", FLAGS)
def test_no_field_of_a_route_leads_elsewhere(webui, service, places, monkeypatch, mode):
    """Each way in each field is refused in our shape, quickly, and nothing is touched."""
    closed = flagged(webui, monkeypatch, mode)
    client, wrong = TestClient(app_of(webui)), {}
    for route, row in LEADING_FIELDS.items():
        photos = str(places.photos)
        for field, kind in row.items():
            more = {"input": photos} if "input" in row else {}
            more |= {"output": f"{photos}/texts/"} if field == "input" else {}
            values = values_of(kind, places, closed=closed)
            with nothing_outside(places, closed=closed):
                for name, value in values.items():
                    for form in ("txt", "csv") if field == "output" else (None,):
                        given = {**more, "form": form} if form else more
                        told = asked(client, service, route, field, value, **given)
                        taken = not closed and kind == OUTPUT and name in TAKEN_LITERALLY
                        wrong[route, field, name, form] = told.wrong(may_be_taken=taken)
    assert {case: reason for case, reason in wrong.items() if reason} == {}


# The page


@dataclass(frozen=True)
class Event:
    """What calls a function of the page: a component and what is done with it, and its boxes."""

    name: str
    function: Callable[..., Any]
    boxes: tuple[Any, ...]


def name_of(box: Any) -> str:
    return str(box.elem_id or "").removeprefix("cliext-")


def events(page: gr.Blocks) -> Iterator[Event]:
    """Yield all events of a page that call a function, in any Gradio."""
    if posting.VERSION == 3:
        for one, function in zip(page.dependencies, page.fns, strict=True):
            if one["backend_fn"]:
                boxes = tuple(page.blocks[number] for number in one["inputs"])
                asks = page.blocks.get(one["targets"][0]) if one["targets"] else None
                yield Event(f"{name_of(asks) if asks else ''}.{one['trigger']}", function.fn, boxes)
    else:
        for one in page.fns.values():
            if one.fn is not None:
                number, trigger = one.targets[0]
                asks = page.blocks.get(number)
                yield Event(f"{name_of(asks) if asks else ''}.{trigger}", one.fn, tuple(one.inputs))


@pytest.fixture
def page(webui, service) -> gr.Blocks:
    """Our tab, as the WebUI is given it; of what is done nothing is downloaded."""
    return webui.ours("tab").build(service)


def test_every_box_of_the_page_is_in_the_table(page):
    """A new one has to be put there, as one that leads somewhere or nowhere."""
    posted = [box for event in events(page) for box in event.boxes]
    # What the server keeps for a page is not posted.
    boxes = {name_of(box) for box in posted if not isinstance(box, gr.State)}
    assert boxes == set(BOXES)


FILLED = {
    "backbones": catalog.DEMO, "analyze-backbones": catalog.DEMO, "lists-backbones": catalog.DEMO,
    "captioner": catalog.DEMO, "mode": "fast", "max-flavors": "1", "prompt": "a fox",
    "texts": "a fox", "lists-text": "a fox", "lists-more": "a fox", "lists-chosen": "mine",
    "lists-name": "new",
    "image": Posted(data_url(PNG)), "batch-mode": "fast",
}


def filled(box: Any, given: Mapping[str, Any]) -> Any:
    """Return what a box holds: what is given, or what it begins with, as it comes out of it."""
    name = name_of(box)
    if name in given:
        return given[name]
    if BOXES.get(name) == FILE:
        return []
    if isinstance(box, gr.Textbox):
        return box.value or ""
    return copy.deepcopy(box.value)


def done(service: Any, event: Event, given: Mapping[str, Any]) -> Told:
    """Do what an event does, and return what was told, a batch's end too."""
    started = time.monotonic()
    before = {state.name for state in jobs_of(service).all()}
    answer = event.function(gr.Request(headers={}), *[filled(box, given) for box in event.boxes])
    steps = list(answer) if inspect.isgenerator(answer) else [answer]
    words = str(steps)
    refused = 'role="alert"' in words or "cliext-warning" in words
    for state in jobs_of(service).all():
        if state.name not in before:
            failed, told = end_of(service, state.name)
            refused, words = refused or failed, words + told
    return Told(refused, words, time.monotonic() - started)


def in_box(box: str, value: str, file: Path) -> Any:
    """Return a value as it comes out of a box."""
    if box == "categories":
        return [value]
    kind = BOXES[box]
    return Posted(value) if kind == PICTURE else [(value, file)] if kind == FILE else value


def may_be_taken(event: str, box: str, way: str, *, source: str, closed: bool) -> bool:
    """Say whether something may be done with what leads elsewhere, or nothing be told of it."""
    uploaded = source == UPLOADED
    return (
        event in SHOWING
        # Of these it is only shown which vectors are kept.
        or (box == "lists-backbones" and event in CHANGING)
        # By the last part of its name; what else there is to a file's place, Gradio has said.
        or BOXES[box] == FILE
        or (uploaded and box in ("batch-folder", "batch-output"))
        or (uploaded and way.startswith("beside: "))
        or (not closed and box == "batch-output" and way in TAKEN_LITERALLY)
        # That a file is there is told to whoever may name all.
        or (not closed and event == "download.click" and way.startswith("file: "))
    )


@pytest.mark.parametrize("mode", FLAGS)
def test_no_box_of_the_page_leads_elsewhere(webui, service, places, monkeypatch, mode):
    """Each way in each box is told of in a sentence, quickly, and nothing is touched."""
    closed = flagged(webui, monkeypatch, mode)
    page = webui.ours("tab").build(service)
    file = places.here / "uploaded"
    wrong = {}
    for event in events(page):
        for box in filter(None, map(name_of, event.boxes)):
            kind = BOXES[box]
            if kind not in LEADING:
                continue
            starts = event.name == "batch-start.click" and kind in (INPUT, OUTPUT, PATTERN)
            for source in (FOLDER, UPLOADED) if starts else (UPLOADED,):
                file.write_bytes(PNG if box == "batch-files" else b"fog\n")
                (places.inside / "lists" / "mine.txt").write_bytes(b"fog\n")
                given = {
                    **FILLED, "batch-source": source, "batch-folder": str(places.photos),
                    "batch-files": [("a.png", places.photos / "a.png")],
                    "batch-existing": "replace: it", **BESIDE.get(box, {}),
                }
                if box == "batch-folder":
                    given["batch-output"] = f"{places.photos}/texts/"
                with nothing_outside(places, closed=closed):
                    for way, value in values_of(kind, places, closed=closed).items():
                        told = done(service, event, {**given, box: in_box(box, value, file)})
                        taken = may_be_taken(event.name, box, way, source=source, closed=closed)
                        wrong[event.name, box, source, way] = told.wrong(may_be_taken=taken)
    assert {case: reason for case, reason in wrong.items() if reason} == {}


# What is there, and whoever may not name any path is not told of


@pytest.mark.parametrize("mode", FLAGS)
def test_models_elsewhere_are_open_to_whoever_may_name_any_path(
    webui, service, places, monkeypatch, backbone_folder, mode
):
    """Where paths are closed nothing tells whether one is there, by whatever way it is named."""
    shutil.copytree(backbone_folder, places.outside / "tiny")
    shutil.copytree(backbone_folder, places.inside / "tiny")
    closed = flagged(webui, monkeypatch, mode)
    client = TestClient(app_of(webui))
    weights = "open_clip_model.safetensors"
    for there in (
        f"{places.outside}/tiny", f"{places.inside}/links/tiny", "../../../outside/tiny",
        f"{places.inside}/../../../outside/tiny", f"ViT-B-32={places.outside}/tiny/{weights}",
        f"ViT-B-32={places.inside}/links/tiny/{weights}",
    ):
        if not closed and "=" in there:
            continue  # that architecture's own network is large
        told = []
        for name in (there, there.replace("tiny", "none")):
            for route in ("POST similarity", "POST batch"):
                more = {"input": str(places.photos)} if route == "POST batch" else {}
                answer = asked(client, service, route, "clip_model_name", name, **more)
                told.append(answer.words.replace("none", "tiny"))
                if closed:
                    assert answer.refused, (route, name)
                    assert "NotAllowed" in answer.words
        assert not closed or told[:2] == told[2:]
        assert closed or '"similarities"' in told[0]
    own = asked(client, service, "POST similarity", "clip_model_name", f"{places.inside}/tiny")
    assert own.refused is (mode == "hidden")


@pytest.mark.parametrize("mode", FLAGS)
def test_models_are_deleted_in_our_own_folder_only(
    webui, service, places, monkeypatch, backbone_folder, mode
):
    """By whoever may name any path; elsewhere by nobody, however it is named."""
    for folder in (places.outside, places.inside):
        shutil.copytree(backbone_folder, folder / "tiny")
    closed = flagged(webui, monkeypatch, mode)
    page = webui.ours("tab").build(service)
    (delete,) = [event for event in events(page) if event.name == "delete.click"]
    for path in (places.outside, places.inside / "links", places.inside / ".." / ".." / "none"):
        told = [
            done(service, delete, {"model": f"{path / name}"}) for name in ("tiny", "none")
        ]
        assert all(one.refused for one in told)
        assert not closed or told[0].words == told[1].words
        assert (places.outside / "tiny").is_dir()
    assert done(service, delete, {"model": f"{places.inside}/tiny"}).refused is closed
    assert (places.inside / "tiny").is_dir() is closed


@pytest.mark.parametrize("mode", FLAGS)
def test_pictures_elsewhere_are_open_to_whoever_may_name_any_path(
    webui, service, places, monkeypatch, mode
):
    """A folder, a pattern, a list, by a link or not; and texts may be written there."""
    closed = flagged(webui, monkeypatch, mode)
    client = TestClient(app_of(webui))
    outside = places.outside
    before = contents(outside)
    for source in (
        outside / "photos", f"{places.inside}/links/photos", f"{outside}/photos/*.png",
        f"{outside}/photos/a.png", f"{outside}/list.txt", "../../../outside/photos",
    ):
        answer = asked(client, service, "POST batch", "input", str(source))
        assert answer.refused is closed, source
    answer = asked(
        client, service, "POST batch", "output", f"{outside}/texts", input=str(places.photos)
    )
    assert answer.refused is closed
    assert (contents(outside) == before) is closed


# The settings


def settings_texts() -> set[str]:
    """Return the settings that are texts of one's own."""
    return {
        key for key, row in SETTINGS.items()
        if not row.choices and not isinstance(row.default, (bool, int)) and row.minimum is None
    }


def test_every_setting_is_in_the_table():
    """A new one that is a text has to be put there."""
    assert settings_texts() == set(IN_SETTINGS)


@pytest.mark.parametrize("mode", FLAGS)
def test_settings_that_lead_nowhere_are_told_of(webui, service, places, monkeypatch, mode):
    """All routes answer and the page is drawn; where paths are closed nothing is looked at."""
    closed = flagged(webui, monkeypatch, mode)
    settings = webui.ours("settings")
    settings.remember()
    settings.add_section(webui.ours()._use_folders, list)
    client, wrong = TestClient(app_of(webui)), {}
    for key, kind in IN_SETTINGS.items():
        if kind not in LEADING:
            continue
        with nothing_outside(places, closed=closed):
            for way, value in values_of(kind, places, closed=closed).items():
                webui.opts.set(settings.option_key(key), value)
                for route in ("vocabularies", "catalog")[: 1 + (key == "models_dir")]:
                    answer = client.get(f"/interrogator/{route}")
                    # A folder of lists that is none is told of, as what it is.
                    told = answer.status_code == 422 and key == "lists_dir" and not closed
                    if not told and answer.status_code != 200:
                        wrong[key, way, route] = answer.text
                if key == "cache_dir":
                    answer = asked(client, service, "POST prompt", "categories", "mine")
                    if answer.refused:
                        wrong[key, way, "prompt"] = answer.words
        webui.opts.set(settings.option_key(key), "")
    assert wrong == {}
    for key in IN_SETTINGS:
        webui.opts.data[settings.option_key(key)] = f"{places.inside}/folder.txt\0"
    assert len(posting.actions(webui.ours("tab").build(service))) > 40  # and not an apology


def test_what_can_be_no_folder_counts_as_not_set(webui, places):
    """A name with a zero in it, and one that no system holds; also the longest that one holds."""
    settings = webui.ours("settings")
    for key in (*settings.FOLDERS, "models_dir"):
        option = settings.option_key(key)
        for name in ("a\0b", "x" * 300, "x/" * 2000, "x/" * 3000):
            webui.opts.data[option] = name
            assert settings.setting(key) is None
        for name in ("nowhere", str(places.secret), "x" * 200, "~nobody-at-all/x"):
            webui.opts.data[option] = name
            assert settings.setting(key) == name
