"""The routes, as programs on the other side of HTTP meet them."""

from __future__ import annotations

import asyncio
import base64
import inspect
import json
import logging
import re
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import anyio.to_thread
import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient

from clip_interrogator_ext import Service, StandaloneHost, catalog, errors, phrases, runs
from clip_interrogator_ext.faces import api
from clip_interrogator_ext.faces.api import body as reading
from clip_interrogator_ext.faces.api import messages, refusals
from clip_interrogator_ext.faces.api.turnstile import Place, Turnstile
from clip_interrogator_ext.results import ModelPlace, Prompt
from clip_interrogator_ext.settings import SETTINGS

pytestmark = pytest.mark.hosts

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "api.md"
SAMPLE = next((ROOT / "clip_interrogator_ext" / "models" / "demo" / "pictures").glob("two-red*"))
DEMO = {"clip_model_name": "demo", "captioner": "demo"}
ERROR_KEYS = {"error", "detail", "field", "nearest"}
ROUTES = [
    ("get", "/interrogator/models"), ("get", "/interrogator/captioners"),
    ("get", "/interrogator/catalog"), ("get", "/interrogator/vocabularies"),
    ("get", "/interrogator/status"),
    ("post", "/interrogator/prompt"), ("post", "/interrogator/analyze"),
    ("post", "/interrogator/similarity"), ("post", "/interrogator/unload"),
    ("post", "/interrogator/interrupt"),
    ("get", "/interrogator/batch"), ("post", "/interrogator/batch"),
    ("get", "/interrogator/batch/{id}"), ("delete", "/interrogator/batch/{id}"),
]


@pytest.fixture(scope="module")
def lists_dir(tmp_path_factory) -> Path:
    """Short lists in place of the bundled ones, so that tests take no time."""
    folder = tmp_path_factory.mktemp("lists")
    lists = {
        "artists": ["Ann Alpha", "Bob Beta", "Cy Gamma", "Di Delta", "Ed Epsilon", "Flo Zeta"],
        "mediums": ["an oil painting", "a photo", "pixel art", "a watercolor painting", "a", "b"],
        "movements": ["cubism", "pop art", "realism (late)", "dada", "fauvism", "op art"],
        "sites": ["Somewhere", "Elsewhere", "Nowhere", "Anywhere", "There", "Here"],
        "flavors": ["soft (light)", "hard light", "blue fog", "red [edges]", "grain", "vignette"],
        "negative": ["blurry", "watermark", "bad (hands)"],
    }
    for name, lines in lists.items():
        (folder / f"{name}.txt").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def warm(lists_dir, tmp_path_factory) -> Service:
    """A service that keeps its networks over the tests of this file."""
    return Service(
        StandaloneHost("cpu"), cache_dir=tmp_path_factory.mktemp("cache"), lists_dir=lists_dir
    )


@pytest.fixture
def service(warm, monkeypatch) -> Service:
    """The same networks, and a host that a test may change."""
    monkeypatch.setattr(warm.host, "trusted", True)
    return warm


@pytest.fixture
def app(service) -> FastAPI:
    app = FastAPI()
    api.add_routes(app, service)
    return app


@pytest.fixture
def client(app) -> TestClient:
    return TestClient(app)


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> str:
    """A picture in base64."""
    return base64.b64encode(SAMPLE.read_bytes()).decode()


def add_middleware(app: FastAPI) -> None:
    """Add what both WebUIs have around every route."""

    @app.middleware("http")
    async def watch(request: Request, call_next):
        return await call_next(request)


@contextmanager
def serving(app: FastAPI, threads: int | None = None):
    """Serve an app on a port of its own; `threads` limits those of the whole server."""

    async def set_threads() -> dict[str, int]:
        if threads is not None:
            anyio.to_thread.current_default_thread_limiter().total_tokens = threads
        return {}

    def page() -> str:
        return "a page that needs a thread"

    app.get("/set-threads")(set_threads)
    app.get("/page")(page)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        with httpx.Client(base_url=address, timeout=120) as client:
            wait_until(lambda: server.started)
            client.get("/set-threads")
            yield client
    finally:
        server.should_exit = True
        thread.join(120)
        assert not thread.is_alive()


def wait_until(so, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not so():
        assert time.monotonic() < end, "waited for nothing"
        time.sleep(0.01)


def assert_error(answer, status: int, error: str, field: str | None = None) -> dict:
    """Look at the shape that every error has, and return it."""
    said = answer.json()
    assert (answer.status_code, said["error"], said["field"]) == (status, error, field), said
    assert said.keys() == ERROR_KEYS
    assert said["detail"].endswith((".", "?"))
    assert "Traceback" not in answer.text
    return said


# The routes


def test_every_route_is_shown_in_the_documentation(client):
    """Each with its tag, a summary, a described answer, and errors in our shape."""
    paths = client.get("/openapi.json").json()["paths"]
    assert sorted((method, path) for path in paths for method in paths[path]) == sorted(ROUTES)
    for method, path in ROUTES:
        shown = paths[path][method]
        assert shown["tags"] == ["Interrogator"]
        assert " " in shown["summary"]
        answers = shown["responses"]
        done = "202" if (method, path) == ("post", "/interrogator/batch") else "200"
        assert answers[done]["content"]["application/json"]["schema"]
        for code in {"401", "422", "500"}:
            schema = answers[code]["content"]["application/json"]["schema"]
            assert schema["$ref"].endswith("/ErrorAnswer")


def test_handlers_are_plain_functions(app):
    """The framework gives each a thread; `async def` would hold the whole server."""
    paths = {path for _, path in ROUTES}
    endpoints = [route.endpoint for route in app.routes if route.path in paths]
    assert len(endpoints) == len(ROUTES)
    assert not [call for call in endpoints if inspect.iscoroutinefunction(call)]


def test_fields_are_described_by_the_settings(client):
    """Help and range stand in the schema as they stand beside the slider."""
    schema = client.get("/openapi.json").json()["components"]["schemas"]["PromptRequest"]
    fields = schema["properties"]
    for key in (
        "captioner", "caption_beams", "caption_min_length", "caption_max_length", "pool_size",
        "min_flavors", "max_flavors", "token_budget", "chunk_size", "low_memory", "vocabulary",
        "leave_out", "replacements",
    ):
        setting = SETTINGS[key]
        assert setting.help in fields[key]["description"]
        assert fields[key].get("minimum") == setting.minimum
        assert fields[key].get("maximum") == setting.maximum
    assert fields["mode"]["enum"] == list(catalog.MODES)
    assert fields["mode"]["default"] == "fast"
    assert fields["clip_model_name"]["default"] == "ViT-L-14/openai"
    assert schema["required"] == ["image"]


# Old clients


def test_an_old_client_gets_its_prompt(service, image):
    """A body with three fields, a data URL or plain base64: the answer has the prompt."""
    app = FastAPI()
    api.add_routes(app, service, setting=lambda key: {"captioner": "demo"}.get(
        key, SETTINGS[key].default
    ))
    client = TestClient(app)
    answers = [
        client.post("/interrogator/prompt", json={
            "image": picture, "clip_model_name": "demo", "mode": "classic",
        }).json()
        for picture in (image, "data:image/jpeg;base64," + image)
    ]
    assert answers[0]["prompt"].startswith("two red cats")
    assert answers[0]["prompt"] == answers[1]["prompt"]
    raw = client.post("/interrogator/prompt", content=json.dumps({
        "image": image, "clip_model_name": "demo", "mode": "classic",
    }))
    assert raw.json()["prompt"] == answers[0]["prompt"], "without a Content-Type"


def test_the_old_defaults_hold(client, service, image, monkeypatch):
    """Without a mode it is fast, without a network ViT-L-14/openai; unknown fields do no harm."""
    asked = []

    def interrogate(_image, options, models, _task):
        asked.append((options, models))
        return Prompt("a cat", options.mode, "a cat", 2, 0.5, 0.1)

    monkeypatch.setattr(service, "interrogate", interrogate)
    answer = client.post("/interrogator/prompt", json={"image": image, "model": "x", "a": [1]})
    assert answer.json()["prompt"] == "a cat"
    (options, models), = asked
    assert options.mode == "fast"
    assert models.backbones == ("ViT-L-14/openai",)


def test_an_old_client_gets_its_analysis(client, image):
    """Five phrases a category under the old names, nearest first; trending are the sites."""
    asked = {"image": image, "clip_model_name": "demo"}
    answer = client.post("/interrogator/analyze", json=asked).json()
    for old, category in {
        "medium": "mediums", "artist": "artists", "movement": "movements", "trending": "sites",
        "flavor": "flavors",
    }.items():
        ranked = answer[old]
        assert len(ranked) == 5
        assert list(ranked.values()) == sorted(ranked.values(), reverse=True)
        assert ranked == answer["categories"][category]
    assert next(iter(answer["medium"])) == "a watercolor painting"
    assert answer["demo"] is True
    two = client.post("/interrogator/analyze", json={**asked, "top": 2}).json()
    assert list(two["medium"]) == list(answer["medium"])[:2]


def test_the_negative_mode_answers_under_the_old_name(client, image):
    """The text of negative mode stands in `prompt`, as it did."""
    answer = client.post(
        "/interrogator/prompt", json={"image": image, "mode": "negative", **DEMO}
    ).json()
    assert answer["mode"] == "negative"
    assert answer["prompt"] == ", ".join(part["phrase"] for part in answer["parts"]) != ""
    assert answer["negative"] is None


# What is new


def test_a_prompt_comes_with_all_that_is_known(client, image):
    """Parts, similarity, tokens, and the negative prompt of the same run."""
    answer = client.post("/interrogator/prompt", json={
        "image": image, "mode": "fast", "negative": True, "max_flavors": 3,
        "categories": ["flavors"], **DEMO,
    }).json()
    assert answer["prompt"].startswith(answer["caption"])
    assert len(answer["parts"]) == 3
    for part in answer["parts"]:
        assert part.keys() == {"phrase", "category", "similarity", "gain"}
        assert part["category"] == "flavors"
        assert part["phrase"] in answer["prompt"]
    assert answer["mode"] == "fast"
    assert answer["tokens"] > 3
    assert -1 <= answer["similarity"] <= 1
    assert answer["seconds"] > 0
    assert answer["demo"] is True
    assert answer["interrupted"] is False
    assert answer["negative_prompt"] == answer["negative"]["prompt"]
    assert answer["negative"]["parts"][0]["category"] in ("negative", "flavors")


def test_fields_that_are_not_given_take_the_settings(service, image, monkeypatch):
    """A field beats the setting; null does so only where it has a meaning of its own."""
    settings = {
        "captioner": "none", "pool_size": 7, "min_flavors": 3, "max_flavors": 9,
        "token_budget": 40, "caption_beams": 2, "caption_min_length": 4, "caption_max_length": 20,
        "chunk_size": 16, "low_memory": True, "vocabulary": "no artists", "leave_out": "x, y",
        "replacements": "m=n",
    }
    asked = []

    def interrogate(_image, options, models, _task):
        asked.append((options, models))
        return Prompt("a cat", options.mode, "a cat", 2, 0.5, 0.1)

    monkeypatch.setattr(service, "interrogate", interrogate)
    app = FastAPI()
    api.add_routes(app, service, setting=settings.__getitem__)
    client = TestClient(app)
    for body in (
        {}, {
            "pool_size": None, "max_flavors": None, "token_budget": None, "captioner": None,
            "vocabulary": None, "leave_out": None, "replacements": None,
        },
        {"vocabulary": "all", "leave_out": [], "replacements": {}, "pool_size": 8,
         "max_flavors": 2, "caption_beams": 1, "low_memory": False,
         "clip_model_names": ["demo", "ViT-B-32/openai"]},
    ):
        assert client.post("/interrogator/prompt", json={"image": image, **body}).status_code == 200
    (plain, models), (nulls, same_models), (given, given_models) = asked
    assert (plain.pool_size, plain.min_flavors, plain.max_flavors, plain.token_budget) == (
        7, 3, 9, 40
    )
    words = ("no artists", ("x", "y"), (("m", "n"),))
    assert (plain.vocabulary, plain.leave_out, plain.replacements) == words
    assert (nulls.vocabulary, nulls.leave_out, nulls.replacements) == words
    assert (given.vocabulary, given.leave_out, given.replacements) == ("all", (), ())
    captioning = plain.captioning
    assert (captioning.beams, captioning.min_length, captioning.max_length) == (2, 4, 20)
    assert (models.captioner, models.chunk_size, models.low_memory) == ("none", 16, True)
    assert (nulls.pool_size, nulls.max_flavors, nulls.token_budget) == (7, None, None)
    assert same_models == models
    assert (given.pool_size, given.max_flavors, given.captioning.beams) == (8, 2, 1)
    assert given_models.low_memory is False
    assert given_models.backbones == ("demo", "ViT-B-32/openai")


def test_brackets_are_escaped_on_request(client, image):
    """Text, caption and phrases are plain, or all written as the WebUI's syntax needs."""
    body = {
        "image": image, "mode": "fast", "caption": "a cat (red)", "negative": True,
        "min_flavors": 9, "categories": ["flavors"], **DEMO,
    }
    plain = client.post("/interrogator/prompt", json=body).json()
    escaped = client.post("/interrogator/prompt", json={**body, "escape": True}).json()
    assert "a cat (red), " in plain["prompt"]
    assert "\\" not in json.dumps(plain)
    assert escaped["prompt"].startswith(r"a cat \(red\), ")
    assert escaped["prompt"] == phrases.escape_brackets(plain["prompt"])
    assert escaped["negative_prompt"] == phrases.escape_brackets(plain["negative_prompt"])
    assert r" \(" in escaped["negative_prompt"]
    assert escaped["similarity"] == pytest.approx(plain["similarity"], abs=1e-5)
    assert all(part["phrase"] in escaped["prompt"] for part in escaped["parts"])


def test_texts_are_compared_with_a_picture(client, service, image):
    """One similarity a text, in the order given, the same as the service says."""
    texts = ["two red cats on a beach", "a blue house", "two red cats on a beach"]
    answer = client.post(
        "/interrogator/similarity", json={"image": image, "texts": texts, "clip_model_name": "demo"}
    ).json()
    assert [row["text"] for row in answer["similarities"]] == texts
    first, other, again = (row["similarity"] for row in answer["similarities"])
    assert first == pytest.approx(again)
    assert first > other
    assert answer["demo"] is True


def test_several_backbones_answer_together(client, image, backbone_folder):
    """Named in `clip_model_names`, they judge as one: the mean of both."""
    names = ["demo", str(backbone_folder)]
    one, two, both = (
        client.post("/interrogator/similarity", json={"image": image, "texts": ["a cat"], **body})
        .json()["similarities"][0]["similarity"]
        for body in (
            {"clip_model_name": names[0]}, {"clip_model_name": names[1]},
            {"clip_model_names": names},
        )
    )
    assert both == pytest.approx((one + two) / 2, abs=1e-5)


def test_names_of_models_are_listed(client):
    """Every pair that open_clip knows, captioners, and the demo models, as plain texts."""
    models = client.get("/interrogator/models").json()
    assert "ViT-L-14/openai" in models
    assert "demo" in models
    assert all(isinstance(name, str) for name in models)
    assert client.get("/interrogator/captioners").json() == [*catalog.CAPTIONERS, "demo", "none"]


def test_the_catalog_says_what_can_be_chosen(client, service, monkeypatch):
    """Models with size and place, modes, generators, and how many phrases each list has."""
    place = ModelPlace(Path("/secret/weights"), 1234, deletable=True)
    monkeypatch.setattr(service, "place", lambda name: place if name == "blip-base" else None)
    answer = client.get("/interrogator/catalog").json()
    rows = {row["name"]: row for row in answer["backbones"] + answer["captioners"]}
    assert rows.keys() == {*catalog.BACKBONES, *catalog.CAPTIONERS}
    assert rows["blip-base"]["place"] == {"path": str(place.path), "size_bytes": 1234}
    large = catalog.BACKBONES["ViT-L-14/openai"]
    assert rows["ViT-L-14/openai"] == {
        "name": large.name, "suits": large.suits, "why": large.why, "parameters": 428_000_000,
        "download_bytes": large.download_bytes, "place": None,
    }
    assert answer["modes"] == catalog.MODES
    assert answer["generators"]["SDXL"] == list(catalog.GENERATORS["SDXL"])
    assert answer["categories"]["flavors"] == 6
    sets = {one["name"]: one for one in answer["vocabularies"]}
    assert list(sets) == list(service.word_sets())
    assert sets["all"].keys() == {"name", "about", "lists", "missing"}
    assert sets["all"]["missing"] == []
    monkeypatch.setattr(service.host, "trusted", False)
    hidden = client.get("/interrogator/catalog")
    assert "secret" not in hidden.text
    rows = {row["name"]: row for row in hidden.json()["captioners"]}
    assert rows["blip-base"]["place"] == {"path": None, "size_bytes": 1234}


def test_sets_and_lists_are_told_to_everyone(client, service, monkeypatch):
    """What each set holds, what it lacks, and the size of every list and part; no folders."""
    monkeypatch.setattr(service.host, "trusted", False)
    answer = client.get("/interrogator/vocabularies")
    sets = {one["name"]: one for one in answer.json()["sets"]}
    for name, one in service.word_sets().items():
        told = sets[name]
        assert told["lists"] == [{"list": each.list, "count": each.count} for each in one.choices]
        assert told["missing"] == list(one.missing(service.categories()))
        assert (told["about"], told["own"]) == (one.about, one.own)
        assert (told["without"], told["leave_out"]) == (list(one.without), list(one.leave_out))
    lists = {one["name"]: one for one in answer.json()["lists"]}
    assert lists.keys() == service.categories().keys()
    flavors = lists["flavors"]
    assert (flavors["phrases"], flavors["parts"]) == (6, {})
    assert flavors.keys() == {"name", "about", "phrases", "parts", "own"}
    assert str(service.cache_dir) not in answer.text


def test_a_set_and_words_are_chosen_by_whoever_asks(client, image):
    """No phrase of a list that the set is without, none with a word that is left out."""
    asked = {"image": image, "mode": "fast", "caption": "a cat", "min_flavors": 9, **DEMO}
    answer = client.post("/interrogator/prompt", json={
        **asked, "vocabulary": "no artists", "leave_out": ["light"],
        "replacements": {"cat": "dog", "blue fog": "green fog"},
    }).json()
    assert answer["prompt"].startswith("a dog, ")
    assert "artists" not in {part["category"] for part in answer["parts"]}
    assert "light" not in answer["prompt"]
    assert "blue fog" not in answer["prompt"]


def test_an_analysis_of_some_lists(client, image):
    """In place of the usual ones; the old names of the others are empty."""
    asked = {"image": image, "clip_model_name": "demo", "categories": ["mediums"]}
    answer = client.post("/interrogator/analyze", json=asked).json()
    assert list(answer["categories"]) == ["mediums"]
    assert answer["medium"] == answer["categories"]["mediums"]
    assert answer["flavor"] == {}


def test_unloading_gives_the_memory_back(client, image):
    """Status says what is loaded; unload, with an empty body, lets go of it."""
    body = {"image": image, "texts": ["a"], "clip_model_name": "demo"}
    client.post("/interrogator/similarity", json=body)
    status = client.get("/interrogator/status").json()
    assert status["runs"] == []
    assert status["waiting"] == 0
    assert [network["kind"] for network in status["loaded"]] == ["backbone"]
    assert status["size_bytes"] > 1_000_000
    freed = client.post("/interrogator/unload").json()
    assert freed == {"freed_bytes": status["size_bytes"]}
    assert client.get("/interrogator/status").json()["loaded"] == []
    assert client.post("/interrogator/unload", json={}).json() == {"freed_bytes": 0}


def test_numbers_that_are_none_never_leak(client, service, image, monkeypatch):
    """What is not finite is null: JSON can't hold it."""
    monkeypatch.setattr(service, "similarity", lambda *_: [float("nan"), float("inf"), 0.5])
    answer = client.post(
        "/interrogator/similarity", json={"image": image, "texts": ["a", "b", "c"]}
    )
    assert [row["similarity"] for row in answer.json()["similarities"]] == [None, None, 0.5]


# Errors


@pytest.mark.parametrize(("path", "body", "status", "error", "field"), [
    ("prompt", {}, 422, "BadImage", "image"),
    ("prompt", {"image": 3}, 422, "BadImage", "image"),
    ("prompt", {"image": ""}, 422, "BadImage", "image"),
    ("prompt", {"image": "not base64!"}, 422, "BadImage", "image"),
    ("prompt", {"image": "aGVsbG8="}, 422, "BadImage", "image"),
    ("prompt", {"image": "https://example.com/cat.png"}, 422, "BadImage", "image"),
    ("prompt", {"mode": "bset"}, 422, "BadOption", "mode"),
    ("prompt", {"mode": 3}, 422, "BadOption", "mode"),
    ("prompt", {"pool_size": 0}, 422, "BadOption", "pool_size"),
    ("prompt", {"pool_size": "3"}, 422, "BadOption", "pool_size"),
    ("prompt", {"pool_size": True}, 422, "BadOption", "pool_size"),
    ("prompt", {"pool_size": 2.5}, 422, "BadOption", "pool_size"),
    ("prompt", {"caption": 3}, 422, "BadOption", "caption"),
    ("prompt", {"negative": "maybe"}, 422, "BadOption", "negative"),
    ("prompt", {"caption_beams": 99}, 422, "BadOption", "caption_beams"),
    ("prompt", {"caption_min_length": 300}, 422, "BadOption", "caption_min_length"),
    ("prompt", {"caption_min_length": 30, "caption_max_length": 20}, 422, "BadOption",
     "caption_min_length"),
    ("prompt", {"caption_max_length": 0}, 422, "BadOption", "caption_max_length"),
    ("prompt", {"categories": ["flavours"]}, 422, "BadOption", "categories"),
    ("prompt", {"categories": "flavors"}, 422, "BadOption", "categories"),
    ("prompt", {"categories": [3]}, 422, "BadOption", "categories"),
    ("prompt", {"subject": "a dog"}, 422, "BadOption", "subject"),
    ("prompt", {"captioner": ""}, 422, "BadOption", "captioner"),
    ("prompt", {"captioner": "none"}, 422, "BadOption", "caption"),
    ("prompt", {"clip_model_name": ""}, 422, "BadOption", "clip_model_name"),
    ("prompt", {"clip_model_names": []}, 422, "BadOption", "clip_model_names"),
    ("prompt", {"clip_model_names": ["demo", "demo"]}, 422, "BadOption", "clip_model_names"),
    ("prompt", {"clip_model_name": "ViT-L-14/opanai"}, 404, "UnknownModel", None),
    ("prompt", {"captioner": "blip-lage"}, 404, "UnknownModel", None),
    ("prompt", {"vocabulary": "no artist"}, 422, "BadOption", "vocabulary"),
    ("prompt", {"vocabulary": 3}, 422, "BadOption", "vocabulary"),
    ("prompt", {"leave_out": "a"}, 422, "BadOption", "leave_out"),
    ("prompt", {"replacements": {" ": "a"}}, 422, "BadOption", "replacements"),
    ("analyze", {"categories": []}, 422, "BadOption", "categories"),
    ("analyze", {"categories": ["flavours"]}, 422, "BadOption", "categories"),
    ("analyze", {"top": 0}, 422, "BadOption", "top"),
    ("analyze", {"clip_model_name": "nonsense"}, 404, "UnknownModel", None),
    ("similarity", {"texts": []}, 422, "BadOption", "texts"),
    ("similarity", {"texts": ["a"] * 1001}, 422, "BadOption", "texts"),
    ("similarity", {"texts": [None]}, 422, "BadOption", "texts"),
    ("similarity", {}, 422, "BadOption", "texts"),
    ("interrupt", {"task": 3}, 422, "BadOption", "task"),
], ids=lambda one: json.dumps(one)[:40] if isinstance(one, dict) else None)
def test_what_is_wrong_is_said_with_its_field(client, image, path, body, status, error, field):
    """A sentence, the field as the request calls it, and the status that fits."""
    if path != "interrupt" and error != "BadImage":
        body = {"image": image, "mode": "fast", **DEMO, **body}
        if path != "prompt":
            del body["mode"]
    assert_error(client.post(f"/interrogator/{path}", json=body), status, error, field)


def test_an_unknown_model_comes_with_the_nearest_names(client, image):
    """In the sentence, and as a list for programs."""
    body = {"image": image, "clip_model_name": "ViT-L-14/opanai", "captioner": "demo"}
    said = assert_error(
        client.post("/interrogator/prompt", json=body), 404, "UnknownModel"
    )
    assert "ViT-L-14/openai" in said["nearest"]
    assert "ViT-L-14/openai" in said["detail"]


@pytest.mark.parametrize(("error", "status", "field", "retries"), [
    (errors.NotAllowed("It is closed."), 403, None, False),
    (errors.UnknownModel("There is none.", ("demo",)), 404, None, False),
    (errors.Interrupted("The run was stopped."), 409, None, False),
    (errors.TooLarge("It is too large."), 413, "image", False),
    (errors.BadImage("It is damaged."), 422, "image", False),
    (errors.BadOption("backbones", "It is wrong."), 422, "clip_model_name", False),
    (errors.BadWordList("It is damaged."), 422, None, False),
    (errors.MissingModel("It is not here."), 503, None, True),
    (errors.OutOfMemory("There is too little."), 503, None, True),
    (errors.QueueFull("So many wait."), 503, None, True),
    (errors.BrokenModel("It is broken."), 500, None, False),
    (errors.BrokenPackage("It is missing."), 500, None, False),
    (errors.UnsafeWeights("They are unsafe."), 500, None, False),
], ids=lambda one: type(one).__name__)
def test_each_error_has_its_status(client, service, image, monkeypatch, error, status, field,
                                   retries):
    """The whole family, by its names; what may pass comes with Retry-After."""

    def fail(*_arguments: object) -> None:
        raise error

    monkeypatch.setattr(service, "interrogate", fail)
    answer = client.post("/interrogator/prompt", json={"image": image})
    said = assert_error(answer, status, type(error).__name__, field)
    assert said["detail"] == str(error)
    assert said["nearest"] == list(getattr(error, "nearest", ()))
    assert answer.headers.get("retry-after", "").isdecimal() == retries


def test_the_family_is_all_there():
    """No error of the engine's is left to chance: the list above names each."""
    family = {kind for kind, _, _ in refusals._STATUS} | {
        errors.BrokenModel, errors.BrokenPackage, errors.UnsafeWeights,
    }
    everyone = {
        kind for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.InterrogatorError)
    } - {errors.InterrogatorError}
    assert family == everyone


def test_the_unforeseen_is_logged_and_not_told(client, service, image, monkeypatch, caplog):
    """The caller learns that something failed; the log has the stack trace."""

    def fail(*_arguments: object) -> None:
        raise ZeroDivisionError("secret of the house")

    monkeypatch.setattr(service, "interrogate", fail)
    with caplog.at_level(logging.ERROR):
        answer = client.post("/interrogator/prompt", json={"image": image})
    assert_error(answer, 500, "InternalError")
    assert "secret" not in answer.text
    assert "ZeroDivisionError: secret of the house" in caplog.text
    monkeypatch.undo()
    body = {"image": image, "texts": ["a"], "clip_model_name": "demo"}
    assert client.post("/interrogator/similarity", json=body).status_code == 200


def test_folders_are_not_told_to_whoever_may_not_know(client, service, image, monkeypatch,
                                                      tmp_path):
    """A sentence that names the models folder is told without it, where nobody is trusted."""

    def fail(*_arguments: object) -> None:
        raise errors.MissingModel(f"Put it into {tmp_path}/x.")

    monkeypatch.setattr(service, "interrogate", fail)
    monkeypatch.setattr(service.host, "models_dirs", (tmp_path,))
    assert str(tmp_path) in client.post("/interrogator/prompt", json={"image": image}).text
    monkeypatch.setattr(service.host, "trusted", False)
    assert str(tmp_path) not in client.post("/interrogator/prompt", json={"image": image}).text


@pytest.mark.parametrize(("content", "kind"), [
    (b"{", "application/json"),
    (b"[1]", "application/json"),
    (b'"image"', "application/json"),
    (b'{"image": "\xff"}', "application/json"),
    (b'{"image": NaN}', "application/json"),
    (b'{"image": "", "caption": "\\ud800"}', "application/json"),
    (b'{"image": ' + b"[" * 50_000, "application/json"),
    (b'{"image": "", "caption": "one", "caption": "two"}', "application/json"),
    (b'{"image": "", "replacements": {"old": "one", "old": "two"}}', "application/json"),
    (b'{"image": "", "chunk_size": ' + b"9" * 1_000_000 + b"}", "application/json"),
    (b"image=x", "application/x-www-form-urlencoded"),
    (b'{"image": "x"}', "text/plain"),
    (b'{"image": "x"}', "///"),
])
def test_a_body_that_is_no_json_is_refused(client, content, kind):
    """Broken, not in UTF-8, not an object, or not said to be JSON."""
    answer = client.post(
        "/interrogator/prompt", content=content, headers={"Content-Type": kind}
    )
    assert answer.status_code == 422
    said = answer.json()
    assert said.keys() == ERROR_KEYS
    assert said["error"] == "BadRequest"


LONG = json.dumps("x" * 4001)


@pytest.mark.parametrize(("path", "fields", "field"), [
    *((path, f'"{name}": {LONG}', name) for path, names in {
        "prompt": ("clip_model_name", "mode", "caption", "captioner", "vocabulary", "not_known"),
        "interrupt": ("task",), "batch": ("input", "form", "output", "name", "prefix"),
    }.items() for name in names),
    ("similarity", f'"texts": ["a", {LONG}]', "texts"),
    ("prompt", f'"replacements": {{{LONG}: "a"}}', "replacements"),
    ("prompt", f'"replacements": {{"a": {LONG}}}', "replacements"),
    ("prompt", f'"a": [{{"b": [[{LONG}]]}}]', "a"),
    ("prompt", f"{LONG}: 1", None),
    ("prompt", ", ".join(f'"{number}": 1' for number in range(10_001)), None),
    ("prompt", f'"replacements": [{", ".join(["1"] * 10_001)}]', None),
    ("similarity", f'"texts": [{", ".join(["1"] * 10_001)}]', None),
    ("prompt", f'"caption": [{"[]," * 40_000}[]]', None),
    ("prompt", f'"caption": {{"a": {"[" * 100_000}', None),
])
def test_what_would_take_long_or_much_memory_is_refused_at_once(client, path, fields, field):
    """Nothing but a picture is long, nor are there many values; who asks more gets no computing."""
    answer = client.post(
        f"/interrogator/{path}", content=f"{{{fields}}}",
        headers={"Content-Type": "application/json"},
    )
    assert_error(answer, 413, "TooLarge", field)
    assert len(answer.text) < 500


def test_as_much_as_may_be_asked_is_not_too_much(client, image):
    """A thousand texts of many words and commas, of which the longest is as long as it may be."""
    texts = [*(f"a fox, {', '.join(f'word {at}' for at in range(30))}, {number}"
               for number in range(999)), "x" * 4000]
    body = {"image": image, "texts": texts, "clip_model_name": "no such model"}
    answer = client.post("/interrogator/similarity", json=body)
    assert_error(answer, 404, "UnknownModel")


def test_json_with_a_mark_or_with_rare_characters_is_read(client, image):
    """A byte order mark, and a character beyond the first plane, written either way."""
    body = json.dumps({"image": image, "texts": ["a \U0001f431"], "clip_model_name": "demo"})
    assert "\\ud83d" in body
    answer = client.post(
        "/interrogator/similarity", content=b"\xef\xbb\xbf" + body.encode(),
        headers={"Content-Type": "application/json; charset=utf-8"},
    )
    assert answer.json()["similarities"][0]["text"] == "a \U0001f431"


def test_the_wrong_method_is_said_in_the_same_shape(client):
    """With what to use in its place."""
    answer = client.get("/interrogator/prompt")
    assert_error(answer, 405, "MethodNotAllowed")
    assert answer.headers["allow"] == "POST"


def test_too_large_a_body_is_refused_before_it_is_read(app, image, monkeypatch):
    """By what it says of itself, and by counting where it says nothing; memory stays free."""
    monkeypatch.setattr(reading, "MAX_BODY_BYTES", 200_000)
    parsed = []
    monkeypatch.setattr(reading, "_parsed", parsed.append)
    sent = 0

    def endless():
        nonlocal sent
        for _ in range(1000):
            sent += 10_000
            yield b" " * 10_000

    with serving(app) as client:
        said = client.post("/interrogator/prompt", json={"image": "x" * 300_000})
        assert_error(said, 413, "TooLarge", "image")
        counted = client.post(
            "/interrogator/prompt", content=endless(),
            headers={"Content-Type": "application/json"},
        )
        assert_error(counted, 413, "TooLarge", "image")
        assert sent > 200_000
    assert not parsed


def test_a_large_body_is_parsed_beside_the_servers_own_thread(app, image, monkeypatch):
    """It takes a second at the most that is let in; meanwhile others are answered."""
    threads = {}
    parse = reading._parsed

    def parsed(body: bytes) -> dict:
        threads[len(body) > 2**20] = threading.current_thread().name
        return parse(body)

    monkeypatch.setattr(reading, "_parsed", parsed)
    with serving(app) as client:
        for picture in (image, image + " " * 2**20):  # base64 may have spaces
            asked = {"image": picture, "clip_model_name": "demo", "caption": "a cat"}
            assert client.post("/interrogator/prompt", json=asked).status_code == 200
    assert "worker" in threads[True]
    assert "worker" not in threads[False]


def test_the_largest_picture_fits_into_a_body():
    """The limit leaves room for the picture's base64, with a line break every 76 letters."""
    letters = reading.MAX_BYTES // 3 * 4
    assert letters + letters // 76 * 2 < reading.MAX_BODY_BYTES


# Who may call


def test_a_login_closes_every_route(service, image):
    """Refused is everything, before a body is looked at; with the login all is as before."""
    app = FastAPI()
    api.add_routes(
        app, service,
        allowed=lambda request: request.headers.get("authorization") == "Basic right",
    )
    client = TestClient(app)
    for method, path in ROUTES:
        for headers in ({}, {"Authorization": "Basic wrong"}):
            answer = client.request(method, path, headers=headers, content=b"{broken")
            if method == "get":
                answer = client.get(path, headers=headers)
            assert_error(answer, 401, "Unauthorized")
            assert answer.headers["www-authenticate"] == "Basic"
        answer = client.request(method, path, headers={"Authorization": "Basic right"})
        assert answer.status_code == {
            "/interrogator/prompt": 422, "/interrogator/analyze": 422,
            "/interrogator/similarity": 422, "/interrogator/batch/{id}": 404,
        }.get(path, 422 if (method, path) == ("post", "/interrogator/batch") else 200)


def test_a_login_that_fails_lets_nobody_in(service):
    """An error while looking at the login is no permission."""
    app = FastAPI()
    api.add_routes(app, service, allowed=lambda _request: 1 / 0)
    assert_error(TestClient(app).get("/interrogator/status"), 500, "InternalError")


# Apps


def test_an_app_may_be_given_the_routes_again(service, image):
    """No route is there twice, and the later call's service answers."""
    app = FastAPI()
    assert api.add_routes(app, service) == []
    before = len(app.routes)
    client = TestClient(app)
    assert client.get("/openapi.json").json()["paths"]
    assert api.add_routes(app, service, allowed=lambda _request: False) == []
    assert len(app.routes) == before
    assert client.get("/interrogator/status").status_code == 401


def test_somebody_elses_routes_stay_theirs(service, caplog):
    """The older extension's go on answering, ours fill the gaps, and it is said which."""
    app = FastAPI()

    @app.post("/interrogator/prompt")
    def theirs() -> dict[str, str]:
        return {"prompt": "theirs"}

    assert api.add_routes(app, service) == ["/interrogator/prompt"]
    assert "/interrogator/prompt" in caplog.text
    client = TestClient(app)
    assert client.post("/interrogator/prompt").json() == {"prompt": "theirs"}
    assert client.get("/interrogator/status").status_code == 200
    assert api.add_routes(app, service) == ["/interrogator/prompt"]


def test_a_page_at_the_root_does_not_hide_the_routes(service):
    """What is mounted there, before or after, gets what is not ours."""
    page = FastAPI()

    @page.get("/{rest:path}")
    def everything(rest: str) -> str:
        return f"page {rest}"

    app = FastAPI()
    app.mount("/", page)
    api.add_routes(app, service)
    client = TestClient(app)
    assert client.get("/interrogator/captioners").json()[0] == "blip-base"
    assert client.get("/hello").json() == "page hello"


def test_the_hosts_own_handlers_change_nothing(service, image):
    """A WebUI's middleware and its handlers for errors leave our answers as they are."""
    app = FastAPI()

    add_middleware(app)

    @app.exception_handler(Exception)
    async def anything(request: Request, error: Exception) -> None:
        raise AssertionError("the host's handler was asked")

    api.add_routes(app, service)
    client = TestClient(app)
    assert_error(client.post("/interrogator/prompt", json={"image": 3}), 422, "BadImage", "image")
    body = {"image": image, "texts": ["a"], "clip_model_name": "demo"}
    assert client.post("/interrogator/similarity", json=body).status_code == 200


# Waiting


@pytest.fixture
def gate(service, monkeypatch):
    """A door in the place of the engine: whoever comes in computes until it is opened."""
    opened = threading.Event()

    def similarity(_image, texts, _models, _task):
        gate.inside += 1
        gate.most = max(gate.most, gate.inside)
        assert opened.wait(300)
        gate.inside -= 1
        return [0.0] * len(texts)

    class Gate:
        inside = most = 0
        open = opened.set

    gate = Gate()
    monkeypatch.setattr(service, "similarity", similarity)
    yield gate
    opened.set()


def ask(client: httpx.Client, image: str, task: str = "") -> httpx.Response:
    body = {"image": image, "texts": ["a"], "clip_model_name": "demo", "task": task or None}
    return client.post("/interrogator/similarity", json=body)


def waiting(client: httpx.Client) -> int:
    return client.get("/interrogator/status").json()["waiting"]


def in_line(client: httpx.Client, what: str) -> list[str]:
    """Return "task" or "kind" of those who wait and whose requests have been read."""
    runs = client.get("/interrogator/status").json()["runs"]
    return [run[what] for run in runs if not run["running"]]


@pytest.mark.parametrize("middleware", [False, True])
def test_eight_wait_and_the_next_is_refused_at_once(app, image, gate, middleware):
    """With two threads in the whole server, one computes, eight wait, and pages still answer."""
    if middleware:
        add_middleware(app)
    with serving(app, threads=2) as client, ThreadPoolExecutor(9) as others:
        answers = [others.submit(ask, client, image)]
        wait_until(lambda: gate.inside == 1)
        answers += [others.submit(ask, client, image) for _ in range(8)]
        wait_until(lambda: waiting(client) == 8)
        refused = ask(client, image)
        assert_error(refused, 503, "QueueFull")
        assert int(refused.headers["retry-after"]) > 0
        assert_error(client.post("/interrogator/unload"), 503, "QueueFull")
        assert client.get("/page").status_code == 200
        assert client.get("/interrogator/captioners").status_code == 200
        wait_until(lambda: in_line(client, "kind") == ["similarity"] * 8)
        gate.open()
        assert [answer.result().status_code for answer in answers] == [200] * 9
        assert gate.most == 1
        assert ask(client, image).status_code == 200
        assert waiting(client) == 0


def test_who_comes_holds_the_server_up_with_no_counting(client, service, image, monkeypatch):
    """Networks' sizes are added up for whoever asks for them, not for each request that comes."""

    def count() -> None:
        raise AssertionError("counted")

    monkeypatch.setattr(service, "status", count)
    assert ask(client, image).status_code == 200


def test_while_the_webui_generates_eight_wait_in_all(app, service, image):
    """Whoever has the turn waits as well then, and counts among the eight."""
    with serving(app, threads=2) as client, ThreadPoolExecutor(8) as others:
        with service.host.exclusive("a generation of the WebUI's"):
            answers = [others.submit(ask, client, image)]
            wait_until(lambda: service.status().runs)
            answers += [others.submit(ask, client, image) for _ in range(7)]
            wait_until(lambda: waiting(client) == 7)
            assert_error(ask(client, image), 503, "QueueFull")
            assert client.get("/page").status_code == 200
        assert [answer.result().status_code for answer in answers] == [200] * 8


def test_a_bad_request_does_not_wait(app, image, gate):
    """What can be seen to be wrong is said at once, however many wait."""
    with serving(app, threads=2) as client, ThreadPoolExecutor(2) as others:
        first = others.submit(ask, client, image)
        wait_until(lambda: gate.inside == 1)
        for body, field in (
            ({"image": "x"}, "image"), ({"image": image, "mode": "bset"}, "mode"),
            ({"image": image, "pool_size": "3"}, "pool_size"),
        ):
            answer = client.post("/interrogator/prompt", json=body)
            assert answer.status_code == 422
            assert answer.json()["field"] == field
        gate.open()
        assert first.result().status_code == 200


@pytest.mark.parametrize("middleware", [False, True])
def test_whoever_hangs_up_leaves_the_line(app, image, gate, middleware):
    """A client that no longer waits gives its place to others, and nothing is computed for it."""
    if middleware:
        add_middleware(app)
    with serving(app, threads=2) as client, ThreadPoolExecutor(2) as others:
        first = others.submit(ask, client, image)
        wait_until(lambda: gate.inside == 1)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                client.base_url.join("/interrogator/similarity"),
                timeout=httpx.Timeout(60, read=0.5),
                json={"image": image, "texts": ["a"], "clip_model_name": "demo"},
            )
        wait_until(lambda: waiting(client) == 0)
        second = others.submit(ask, client, image)
        wait_until(lambda: waiting(client) == 1)
        gate.open()
        assert first.result().status_code == second.result().status_code == 200


def test_apps_around_one_service_have_one_line(service, image, gate):
    """Two servers, two event loops: one computes at a time, and the turn goes across."""
    apps = [FastAPI(), FastAPI()]
    for app in apps:
        api.add_routes(app, service)
    with serving(apps[0]) as one, serving(apps[1]) as two, ThreadPoolExecutor(6) as others:
        answers = [others.submit(ask, client, image) for client in (one, two) * 3]
        wait_until(lambda: waiting(one) == 5)
        assert waiting(two) == 5
        gate.open()
        assert [answer.result().status_code for answer in answers] == [200] * 6
        assert gate.most == 1


def test_the_turn_skips_whoever_is_gone():
    """Cancelled, stopped, or of an event loop that was closed: the next one has the turn."""
    turnstile = Turnstile()
    order = []

    async def receive():
        await asyncio.Event().wait()

    async def come(name: str, limit: int = 9) -> None:
        with turnstile.place(limit) as place:
            place.task = name
            await turnstile.turn(place, receive)
            order.append(name)
            await asyncio.sleep(0.05)

    async def meanwhile() -> list:
        tasks = [asyncio.ensure_future(come(name)) for name in "abcd"]
        await asyncio.sleep(0.01)
        tasks[1].cancel()
        assert turnstile.stop("c")
        assert not turnstile.stop("z")
        return await asyncio.gather(*tasks, return_exceptions=True)

    answers = asyncio.run(meanwhile())
    assert order == ["a", "d"]
    assert isinstance(answers[1], asyncio.CancelledError)
    assert isinstance(answers[2], errors.Interrupted)
    dead = asyncio.new_event_loop()
    with turnstile.place(9) as first:
        asyncio.run(turnstile.turn(first, receive))
        lost = Place(loop=dead, called=dead.create_future())
        turnstile._line.append(lost)
        dead.close()
    asyncio.run(come("e"))
    assert order == ["a", "d", "e"]
    assert turnstile.holder is None


# Stopping


def test_an_interrupt_hands_over_what_was_found(image, tmp_path, monkeypatch):
    """With the demo models and the bundled lists, in the middle of their being encoded."""
    monkeypatch.setattr(runs, "_PATIENCE_SECONDS", 60)
    monkeypatch.setattr(runs, "_LONGEST_SECONDS", 60)
    encoding, go_on = threading.Event(), threading.Event()

    def show(label: str, done: int, _total: int) -> None:
        if label.endswith("words") and done > 0:
            encoding.set()
            go_on.wait(300)

    slow = Service(StandaloneHost("cpu", show=show), cache_dir=tmp_path)
    app = FastAPI()
    api.add_routes(app, slow)
    body = {"image": image, "mode": "best", "task": "mine", **DEMO}
    with serving(app) as client, ThreadPoolExecutor(1) as others:
        answer = others.submit(lambda: client.post("/interrogator/prompt", json=body))
        assert encoding.wait(300)
        run = client.get("/interrogator/status").json()["runs"][0]
        assert (run["task"], run["kind"], run["running"]) == ("mine", "interrogate", True)
        assert 0 <= run["done"] <= run["total"]
        assert client.post("/interrogator/interrupt", json={"task": "other"}).json() == {
            "interrupted": False
        }
        assert not answer.done()
        assert client.post("/interrogator/interrupt", json={"task": "mine"}).json() == {
            "interrupted": True
        }
        go_on.set()
        stopped = answer.result()
        assert stopped.status_code == 200
        assert stopped.json()["interrupted"] is True
        assert stopped.json()["prompt"].startswith("two red cats")
        assert client.post("/interrogator/interrupt").json() == {"interrupted": False}


def test_whoever_waits_can_be_stopped_by_name(app, image, gate):
    """It is answered 409 at once, since nothing was found, and the others go on."""
    with serving(app) as client, ThreadPoolExecutor(3) as others:
        first = others.submit(ask, client, image, "first")
        wait_until(lambda: gate.inside == 1)
        second = others.submit(ask, client, image, "second")
        wait_until(lambda: in_line(client, "task") == ["second"])
        third = others.submit(ask, client, image, "third")
        wait_until(lambda: in_line(client, "task") == ["second", "third"])
        stop = client.post("/interrogator/interrupt", json={"task": "second"})
        assert stop.json() == {"interrupted": True}
        assert_error(second.result(60), 409, "Interrupted")
        gate.open()
        assert first.result().status_code == third.result().status_code == 200


# The documentation


def fields_of(model) -> set[str]:
    return set(getattr(model, "model_fields", None) or model.__fields__)


def test_every_route_and_field_stands_in_the_documentation():
    """A heading for each route, and each field's name under it."""
    text = DOCUMENT.read_text(encoding="utf-8")
    for method, path in ROUTES:
        assert f"### {method.upper()} {path}\n" in text
    for path, models in {
        "prompt": (messages.PromptRequest, messages.PromptAnswer, messages.PartAnswer),
        "analyze": (messages.AnalyzeRequest, messages.AnalyzeAnswer),
        "similarity": (messages.SimilarityRequest, messages.SimilarityAnswer, messages.TextAnswer),
        "catalog": (
            messages.CatalogAnswer, messages.ModelAnswer, messages.PlaceAnswer,
            messages.VocabularyAnswer,
        ),
        "vocabularies": (
            messages.VocabulariesAnswer, messages.WordSetAnswer, messages.ChoiceAnswer,
            messages.WordListAnswer,
        ),
        "status": (messages.StatusAnswer, messages.RunAnswer, messages.LoadedAnswer),
        "unload": (messages.UnloadAnswer,),
        "interrupt": (messages.InterruptRequest, messages.InterruptAnswer),
    }.items():
        section = re.split(r"\n##+ ", text.partition(f" /interrogator/{path}\n")[2])[0]
        missing = {
            name for model in models for name in fields_of(model) if f"`{name}`" not in section
        }
        if path in ("analyze", "similarity"):
            missing -= fields_of(messages.PictureRequest)  # told once, at the prompt
        assert not missing, path


def test_every_error_stands_in_the_documentation():
    """Each name with its status in one row of the table."""
    text = DOCUMENT.read_text(encoding="utf-8")
    family = {kind.__name__: status for kind, status, _ in refusals._STATUS}
    for name, status in {
        **family, "BrokenModel": 500, "UnsafeWeights": 500, "InternalError": 500,
        "Unauthorized": 401, "MethodNotAllowed": 405, "BadRequest": 422, "UnknownBatch": 404,
    }.items():
        rows = [line for line in text.splitlines() if line.startswith(f"| {status} |")]
        assert any(f"`{name}`" in row for row in rows), name


def test_the_example_client_runs_as_it_is_written(app, tmp_path):
    """Only the address is changed; it prints the prompt of the bundled picture."""
    example = re.search(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None
    program = example.group(1)
    with serving(app) as client:
        address = str(client.base_url).rstrip("/")
        assert program.count("http://127.0.0.1:7860") == 1
        (tmp_path / "photo.jpg").write_bytes(SAMPLE.read_bytes())
        run = subprocess.run(
            [sys.executable, "-c", program.replace("http://127.0.0.1:7860", address)],
            check=False, cwd=tmp_path, capture_output=True, text=True,
        )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("two red cats")
