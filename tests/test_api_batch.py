"""Batches asked for through the routes: started, followed, stopped, refused."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from clip_interrogator_ext import Service, StandaloneHost
from clip_interrogator_ext.batch import jobs
from clip_interrogator_ext.batch.jobs import BatchJobs, jobs_of
from clip_interrogator_ext.batch.journal import NAME as JOURNAL
from clip_interrogator_ext.batch.looks import NAME as LOOKS
from clip_interrogator_ext.batch.options import BatchOptions
from clip_interrogator_ext.batch.wording import Wording
from clip_interrogator_ext.faces import api
from clip_interrogator_ext.faces.api import messages
from clip_interrogator_ext.options import CaptionOptions, InterrogateOptions, ModelOptions
from clip_interrogator_ext.results import Look, Prompt
from clip_interrogator_ext.settings import SETTINGS
from tests.colors import Colors, red_of
from tests.test_api import DOCUMENT, assert_error, fields_of, serving, wait_until

pytestmark = pytest.mark.hosts

URL = "/interrogator/batch"
PICTURES = Path(__file__).parents[1] / "clip_interrogator_ext" / "models" / "demo" / "pictures"
DEMO = {"clip_model_name": "demo", "captioner": "demo"}
STATE = {
    "id", "state", "input", "total", "done", "skipped", "failed", "seconds", "rate",
    "seconds_left", "step", "step_done", "picture", "prompt", "problem", "stopped", "earlier",
    "output", "failures_file", "error",
}


class Engine(Colors):
    """Stands in for the networks: a picture's prompt is its color, said when it is let."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self._let = threading.Semaphore(0)

    def let(self, count: int = 1) -> None:
        """Let so many questions be answered."""
        self._let.release(count)

    def interrogate(
        self, look: Look, options: InterrogateOptions, models: ModelOptions, task: str
    ) -> Prompt:
        red = red_of(look)
        self.asked.append(red)
        assert self._let.acquire(timeout=120)
        return Prompt(f"color {red}", options.mode, f"color {red}", 2, 0.5, 0.1)


@pytest.fixture
def service() -> Iterator[Service]:
    """A service with a line of its own, which is empty again at the end."""
    service = Service(StandaloneHost("cpu"))
    yield service
    jobs_of(service).stop()
    wait_until(lambda: all(state.ended for state in jobs_of(service).all()))


@pytest.fixture
def engine(service, monkeypatch) -> Iterator[Engine]:
    engine = Engine()
    for name in ("preparer", "captions", "vectors", "interrogate"):
        monkeypatch.setattr(service, name, getattr(engine, name))
    yield engine
    jobs_of(service).stop()
    engine.let(100)


@pytest.fixture
def client(service) -> TestClient:
    return client_of(service)


@pytest.fixture
def photos(tmp_path) -> Path:
    """Three pictures of one color each."""
    folder = tmp_path / "photos"
    for red in (1, 2, 10):
        draw(folder / f"{red}.png", red)
    return folder


def client_of(service: Service, **more: Any) -> TestClient:
    app = FastAPI()
    api.add_routes(app, service, **more)
    return TestClient(app)


def draw(path: Path, red: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (red, 0, 0)).save(path, format="PNG")
    return path


def copy(start: str, path: Path) -> Path:
    """Copy the bundled picture whose name begins like this."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(next(PICTURES.glob(f"{start}*")), path)
    return path


def written(folder: Path) -> dict[str, str]:
    """Return what a batch has written into a folder, but for its journal."""
    return {
        path.relative_to(folder).as_posix(): path.read_text("utf-8")
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in (".png", ".jpg")
        and path.name not in (JOURNAL, LOOKS)
    }


def start(client: TestClient, source: object, **fields: Any) -> dict[str, Any]:
    answer = client.post(URL, json={"input": str(source), **DEMO, **fields})
    assert answer.status_code == 202, answer.text
    return answer.json()


def seen(client: TestClient, batch: dict[str, Any]) -> dict[str, Any]:
    answer = client.get(f"{URL}/{batch['id']}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def ended(client: TestClient, batch: dict[str, Any], seconds: float = 60) -> dict[str, Any]:
    wait_until(lambda: seen(client, batch)["state"] in ("done", "stopped", "failed"), seconds)
    return seen(client, batch)


# What is done


def test_a_nested_folder_becomes_texts(client, tmp_path):
    """Asked of the demo models: texts, shared stems, words and failures as docs/batch.md says."""
    folder = tmp_path / "photos"
    copy("two-red", folder / "1.jpg")
    copy("a-blue", folder / "2.jpg")
    copy("three-orange", folder / "2.png")
    copy("two-robots", folder / "more" / "3.jpg")
    (folder / "more" / "4.jpg").write_bytes(b"no picture")
    batch = start(
        client, folder, recursive=True, mode="caption", trigger="sks style", prefix="drawn",
        suffix="end", leave_out=["At Night"], replacements={"red cats": "big dogs"},
    )
    assert batch["total"] == 5
    assert batch["id"].startswith("batch-")
    end = ended(client, batch)
    texts = written(folder)
    assert texts.keys() == {"1.txt", "2.jpg.txt", "2.png.txt", "more/3.txt", "failures.txt"}
    assert texts["1.txt"] == "sks style, drawn, two big dogs on a beach at sunset, end"
    assert texts["2.jpg.txt"].startswith("sks style, drawn, a blue house in a meadow")
    assert texts["2.png.txt"].startswith("sks style, drawn, three orange fish in a room")
    assert texts["more/3.txt"] == "sks style, drawn, two robots in a forest, end"
    assert texts["failures.txt"].splitlines()[-1] == "more/4.jpg"
    assert (end["state"], end["done"], end["skipped"], end["failed"]) == ("done", 4, 0, 1)
    assert (end["earlier"], end["stopped"], end["error"]) == (0, False, None)
    assert end["output"] == str(folder)
    assert end["failures_file"] == str(folder / "failures.txt")
    (failure,) = end["failures"]
    assert failure["picture"] == str(folder / "more" / "4.jpg")
    assert failure["reason"].endswith(".")


def test_every_field_reaches_the_batch(service, photos, monkeypatch):
    """Those of the batch and those of a prompt; what is not given is what the settings say."""
    asked: list[BatchOptions] = []
    add = BatchJobs.add
    monkeypatch.setattr(
        BatchJobs, "add", lambda self, options: asked.append(options) or add(self, options)
    )
    monkeypatch.setattr(service, "interrogate", lambda *_: Prompt("a", "fast", "a", 1, 0.5, 0.1))
    settings = {
        "captioner": "demo", "pool_size": 7, "min_flavors": 3, "max_flavors": 9,
        "token_budget": 40, "caption_beams": 2, "caption_min_length": 4, "caption_max_length": 20,
        "chunk_size": 16, "low_memory": False, "vocabulary": "no artists", "leave_out": "x, y",
        "replacements": "m=n",
    }
    client = client_of(service, setting=settings.__getitem__)
    source = str(photos)
    assert client.post(URL, json={"input": source, "unknown": 1}).status_code == 202
    start(
        client, source, recursive=True, form="csv", output=str(photos / "out.csv"),
        existing="replace", name="{name}.txt", caption_from="{stem}.caption", prefix="a",
        suffix="b", trigger="c", replacements={"z": "y", "d": "e"}, leave_out=["f", "g"],
        beside=[["ViT-B-32/openai", "demo"]], mode="style", negative=True, caption="a cat",
        subject="a dog", categories=["flavors"], pool_size=8, min_flavors=1, max_flavors=None,
        token_budget=None, caption_beams=1, caption_min_length=2, caption_max_length=3,
        chunk_size=5, low_memory=True, captioner="none", vocabulary="all",
    )
    plain, full = asked
    captioning = CaptionOptions(2, 4, 20)
    assert plain == BatchOptions(
        source,
        asked=InterrogateOptions(
            "fast", pool_size=7, min_flavors=3, max_flavors=9, token_budget=40,
            captioning=captioning, vocabulary="no artists", leave_out=("x", "y"),
            replacements=(("m", "n"),),
        ),
        models=ModelOptions(("ViT-L-14/openai",), "demo", 16, low_memory=False),
    )
    assert full == BatchOptions(
        source, True, "csv", str(photos / "out.csv"), "replace", "{name}.txt", "{stem}.caption",
        Wording("a", "b", "c"),
        InterrogateOptions(
            "style", True, "a cat", "a dog", ("flavors",), 8, 1, None, None,
            CaptionOptions(1, 2, 3), leave_out=("f", "g"),
            replacements=(("z", "y"), ("d", "e")),
        ),
        ModelOptions(("demo",), "none", 5, low_memory=True),
        (("ViT-B-32/openai", "demo"),),
    )


def test_a_batch_has_the_fields_of_a_prompt():
    """All but the picture, what names a single run, and how its answer is written."""
    prompt, batch = fields_of(messages.PromptRequest), fields_of(messages.BatchRequest)
    assert prompt - batch == {"image", "task", "escape"}


def test_progress_is_seen_midway(client, engine, photos):
    """How far it is, how fast, the last picture and its prompt; its text is written already."""
    batch = start(client, photos, mode="best")
    assert batch.keys() == STATE
    assert batch["done"] == batch["seconds"] == 0
    wait_until(lambda: engine.asked == [1])
    first = seen(client, batch)
    assert first.keys() == {*STATE, "failures"}
    assert (first["state"], first["total"], first["done"]) == ("running", 3, 0)
    assert first["rate"] is first["seconds_left"] is first["picture"] is None
    engine.let(2)
    wait_until(lambda: seen(client, batch)["done"] == 2)
    midway = seen(client, batch)
    assert midway["state"] == "running"
    assert (midway["step"], midway["step_done"]) == ("Prompts", 2)
    assert midway["picture"] == str(photos / "2.png")
    assert midway["prompt"] == "color 2"
    assert midway["problem"] == ""
    assert midway["rate"] > 0
    assert midway["seconds_left"] == pytest.approx(1 / midway["rate"])
    assert midway["seconds"] > first["seconds"]
    assert midway["earlier"] is midway["output"] is None
    assert written(photos) == {"1.txt": "color 1", "2.txt": "color 2"}
    engine.let()
    end = ended(client, batch)
    assert (end["state"], end["done"], end["prompt"]) == ("done", 3, "color 10")
    assert (end["seconds_left"], end["failures"], end["failures_file"]) == (None, [], None)
    assert (photos / "10.txt").read_text() == "color 10"


def test_a_second_batch_waits_for_the_first(client, engine, photos, tmp_path):
    """One after another; both are listed, in the order in which they were asked for."""
    draw(tmp_path / "others" / "5.png", 5)
    first, second = start(client, photos), start(client, tmp_path / "others")
    wait_until(lambda: engine.asked == [1])
    listed = client.get(URL).json()
    assert [(one["id"], one["state"]) for one in listed] == [
        (first["id"], "running"), (second["id"], "waiting")
    ]
    assert all(one.keys() == STATE for one in listed)
    engine.let(3)
    wait_until(lambda: len(engine.asked) == 4)
    assert ended(client, first)["done"] == 3
    assert seen(client, second)["state"] == "running"
    engine.let()
    assert ended(client, second)["done"] == 1
    assert engine.asked == [1, 2, 10, 5]


def test_a_batch_that_fails_says_why(client, photos):
    """What only the networks can tell ends it with a sentence, and nothing is written."""
    broken = photos / "ViT-B-32.safetensors"
    broken.write_bytes(b"no weights")
    end = ended(client, start(client, photos, mode="style", clip_model_name=f"ViT-B-32={broken}"))
    assert end["state"] == "failed"
    assert "ViT-B-32.safetensors" in end["error"]
    assert end["error"].endswith((".", "?"))
    broken.unlink()
    assert (end["done"], end["stopped"], end["output"]) == (0, False, None)
    assert written(photos) == {}


def test_names_that_are_not_utf8_are_told_with_escapes(client, engine, tmp_path):
    """Of pictures that are done and of those that fail, midway and at the end."""
    folder = tmp_path / "photos"
    draw(folder / os.fsdecode(b"caf\xe9.png"), 1)
    (folder / os.fsdecode(b"z\xff.png")).write_bytes(b"no picture")
    batch = start(client, folder)
    engine.let()
    wait_until(lambda: client.get(URL).json()[0]["done"] == 1)
    end = ended(client, batch)
    assert (folder / os.fsdecode(b"caf\xe9.txt")).read_text() == "color 1"
    assert end["picture"] == str(folder / r"caf\udce9.png")
    assert end["failures"][0]["picture"] == str(folder / r"z\udcff.png")
    assert end["failures"][0]["reason"].endswith(".")


# Stopping

# A search tells how far it is, so that it can be held midway.
SEARCH = {"mode": "style", "min_flavors": 1, "max_flavors": 2}


class Held:
    """A service with the demo models, whose questions are counted and can be held midway."""

    def __init__(self, cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[Look] = []
        self.hold_at = 0
        self.reached, self.free = threading.Event(), threading.Event()
        self.service = Service(StandaloneHost("cpu", show=self._show), cache_dir=cache_dir)
        interrogate = self.service.interrogate

        def counted(look: Look, *rest: Any) -> Prompt:
            self.asked.append(look)
            return interrogate(look, *rest)

        monkeypatch.setattr(self.service, "interrogate", counted)

    def _show(self, *_progress: object) -> None:
        if len(self.asked) == self.hold_at:
            self.reached.set()
            assert self.free.wait(120)


@pytest.fixture
def held(tmp_path, monkeypatch) -> Iterator[Held]:
    held = Held(tmp_path / "cache", monkeypatch)
    yield held
    held.free.set()
    jobs_of(held.service).stop()
    wait_until(lambda: all(state.ended for state in jobs_of(held.service).all()))


def demo_folder(folder: Path) -> Path:
    for number, name in enumerate(("two-red", "a-blue", "two-robots"), 1):
        copy(name, folder / f"{number}.jpg")
    return folder


def test_a_stop_ends_a_picture_midway_and_the_same_request_goes_on(held, tmp_path):
    """What was finished is kept and not asked again; the texts are those of an unbroken run."""
    client = client_of(held.service)
    folder = demo_folder(tmp_path / "photos")
    held.hold_at = 2
    batch = start(client, folder, **SEARCH)
    assert held.reached.wait(60)
    (run,) = client.get("/interrogator/status").json()["runs"]
    assert (run["task"], run["kind"], run["running"]) == (batch["id"], "interrogate", True)
    stop = client.delete(f"{URL}/{batch['id']}")
    assert stop.status_code == 200
    assert stop.json().keys() == {*STATE, "interrupted"}
    assert stop.json()["interrupted"]
    assert stop.json()["state"] in ("stopping", "stopped")  # the answer may come late
    held.free.set()
    end = ended(client, batch)
    assert (end["state"], end["stopped"], end["done"], end["total"]) == ("stopped", True, 1, 3)
    assert written(folder).keys() == {"1.txt"}
    again = client.delete(f"{URL}/{batch['id']}")
    assert (again.status_code, again.json()["interrupted"]) == (200, False)
    assert again.json()["state"] == "stopped"

    end = ended(client, start(client, folder, **SEARCH))
    assert (end["state"], end["done"], end["earlier"], end["stopped"]) == ("done", 3, 1, False)
    first, second, again_second, third = held.asked
    assert second == again_second
    assert len({first, second, third}) == 3
    unbroken = demo_folder(tmp_path / "unbroken")
    assert ended(client, start(client, unbroken, **SEARCH))["earlier"] == 0
    assert written(folder) == written(unbroken)
    assert len(set(written(folder).values())) == 3


def test_a_batch_that_waits_can_be_stopped(client, engine, photos, tmp_path):
    """At once, though another runs: nothing of it is asked, and the other goes on."""
    draw(tmp_path / "others" / "5.png", 5)
    first, second = start(client, photos), start(client, tmp_path / "others")
    wait_until(lambda: engine.asked == [1])
    stop = client.delete(f"{URL}/{second['id']}").json()
    assert (stop["interrupted"], stop["state"], stop["stopped"]) == (True, "stopped", True)
    engine.let(3)
    assert ended(client, first)["done"] == 3
    assert engine.asked == [1, 2, 10]
    assert written(tmp_path / "others") == {}


def test_an_interrupt_without_a_name_stops_the_batches_that_wait_too(held, tmp_path):
    """Not the picture in hand only: nothing is left that would go on by itself."""
    client = client_of(held.service)
    folders = [demo_folder(tmp_path / name) for name in ("one", "two", "three")]
    held.hold_at = 1
    batches = [start(client, folder, **SEARCH) for folder in folders]
    assert held.reached.wait(60)
    assert client.post("/interrogator/interrupt").json() == {"interrupted": True}
    held.free.set()
    assert [ended(client, one)["state"] for one in batches] == ["stopped"] * 3
    assert len(held.asked) == 1
    assert [written(folder) for folder in folders] == [{}] * 3
    assert client.post("/interrogator/interrupt").json() == {"interrupted": False}


def test_an_interrupt_with_a_batchs_name_stops_that_one(client, engine, photos):
    """The name of the batch is that of its runs; another name stops nothing."""
    batches = [start(client, photos) for _ in range(2)]
    wait_until(lambda: engine.asked == [1])
    asked = client.post("/interrogator/interrupt", json={"task": "other"})
    assert asked.json() == {"interrupted": False}
    asked = client.post("/interrogator/interrupt", json={"task": batches[0]["id"]})
    assert asked.json() == {"interrupted": True}
    assert [seen(client, one)["state"] for one in batches] == ["stopping", "waiting"]
    engine.let(3)
    assert ended(client, batches[0])["done"] == 1
    assert ended(client, batches[1])["done"] == 3


# What is refused


EMPTY, BINARY = "an empty folder", "a file that is no list"


@pytest.mark.parametrize(("body", "status", "error", "field"), [
    ({"input": None}, 422, "BadOption", "input"),
    ({"input": 3}, 422, "BadOption", "input"),
    ({"input": ""}, 422, "BadOption", "input"),
    ({"input": "/no/such/folder"}, 422, "BadOption", "input"),
    ({"input": "/no/such/*.png"}, 422, "BadOption", "input"),
    ({"input": "a\0b"}, 422, "BadOption", "input"),
    ({"input": "a" * 3000}, 422, "BadOption", "input"),
    ({"input": EMPTY}, 422, "BadOption", "input"),
    ({"input": BINARY}, 422, "BadOption", "input"),
    ({"recursive": "yes"}, 422, "BadOption", "recursive"),
    ({"recursive": None}, 422, "BadOption", "recursive"),
    ({"form": "doc"}, 422, "BadOption", "form"),
    ({"form": ["txt"]}, 422, "BadOption", "form"),
    ({"output": 3}, 422, "BadOption", "output"),
    ({"existing": "keep"}, 422, "BadOption", "existing"),
    ({"existing": "append", "form": "csv"}, 422, "BadOption", "existing"),
    ({"name": "same.txt"}, 422, "BadOption", "name"),
    ({"name": "../{stem}.txt"}, 422, "BadOption", "name"),
    ({"name": "{stem}.png"}, 422, "BadOption", "name"),
    ({"caption_from": "{stem}.png"}, 422, "BadOption", "caption_from"),
    ({"prefix": "a\nb"}, 422, "BadOption", "prefix"),
    ({"suffix": None}, 422, "BadOption", "suffix"),
    ({"trigger": 3}, 422, "BadOption", "trigger"),
    ({"replacements": "a=b"}, 422, "BadOption", "replacements"),
    ({"replacements": {"a": 3}}, 422, "BadOption", "replacements"),
    ({"replacements": {" ": "b"}}, 422, "BadOption", "replacements"),
    ({"leave_out": "a"}, 422, "BadOption", "leave_out"),
    ({"leave_out": [3]}, 422, "BadOption", "leave_out"),
    ({"leave_out": [""]}, 422, "BadOption", "leave_out"),
    ({"vocabulary": "no artist"}, 422, "BadOption", "vocabulary"),
    ({"vocabulary": 3}, 422, "BadOption", "vocabulary"),
    ({"beside": ["demo"], "form": "csv"}, 422, "BadOption", "beside"),
    ({"beside": [[3]], "form": "csv"}, 422, "BadOption", "beside"),
    ({"beside": [[]], "form": "csv"}, 422, "BadOption", "beside"),
    ({"beside": [["a", "a"]], "form": "csv"}, 422, "BadOption", "beside"),
    ({"beside": [["demo"]], "form": "csv"}, 422, "BadOption", "beside"),
    ({"beside": [["ViT-B-32/openai"]]}, 422, "BadOption", "beside"),
    ({"mode": "bset"}, 422, "BadOption", "mode"),
    ({"negative": 1}, 422, "BadOption", "negative"),
    ({"pool_size": 0}, 422, "BadOption", "pool_size"),
    ({"caption_min_length": 30, "caption_max_length": 20}, 422, "BadOption", "caption_min_length"),
    ({"categories": []}, 422, "BadOption", "categories"),
    ({"subject": "a dog"}, 422, "BadOption", "subject"),
    ({"clip_model_names": []}, 422, "BadOption", "clip_model_names"),
    ({"clip_model_name": "ViT-L-14/opanai"}, 404, "UnknownModel", None),
    ({"captioner": "blip-lage"}, 404, "UnknownModel", None),
    ({"beside": [["nonsense"]], "form": "csv"}, 404, "UnknownModel", None),
], ids=lambda one: json.dumps(one)[:60] if isinstance(one, dict) else None)
def test_what_is_wrong_is_said_at_once(client, service, photos, body, status, error, field):
    """With its field, before anything is put into the line or written."""
    (photos / EMPTY).mkdir()
    (photos / BINARY).write_bytes(b"\0")
    body = {"input": str(photos), **DEMO, **body}
    if body["input"] in (EMPTY, BINARY):
        body["input"] = str(photos / body["input"])
    if body["input"] is None:
        del body["input"]
    before = sorted(photos.iterdir())
    assert_error(client.post(URL, json=body), status, error, field)
    assert jobs_of(service).all() == ()
    assert sorted(photos.iterdir()) == before


@pytest.mark.parametrize(("body", "detail"), [
    ({}, "The field 'input' is missing."),
    ({"input": "x", "beside": "demo"}, "The field 'beside' must be a list of lists of names."),
    ({"input": "x", "beside": [["a"], 3]}, "The field 'beside' must be a list of lists of names."),
    ({"input": "x", "replacements": 3},
     "The field 'replacements' must be an object of texts: the old words and their new ones."),
    ({"input": "x", "replacements": {"a": None}},
     "The field 'replacements' must be an object of texts: the old words and their new ones."),
    ({"input": "x", "leave_out": [None]}, "The field 'leave_out' must be a list of texts."),
])
def test_a_field_of_another_type_is_told_what_it_must_be(client, body, detail):
    """In the same words under every version of pydantic."""
    assert client.post(URL, json=body).json()["detail"] == detail


def test_a_full_line_is_said_with_when_to_ask_again(client, engine, photos, monkeypatch, caplog):
    """One runs and so many wait; where one of them is stopped there is room again."""
    monkeypatch.setattr(jobs, "WAITING_LIMIT", 2)
    start(client, photos)
    wait_until(lambda: engine.asked == [1])
    waiting = [start(client, photos) for _ in range(2)]
    refused = client.post(URL, json={"input": str(photos), **DEMO})
    assert_error(refused, 503, "QueueFull")
    assert int(refused.headers["retry-after"]) > 0
    assert [one for one in caplog.records if one.levelname == "ERROR"] == [], "nothing is broken"
    assert len(client.get(URL).json()) == 3
    client.delete(f"{URL}/{waiting[0]['id']}")
    start(client, photos)


def test_seconds_in_line_are_none_of_the_work(client, engine, photos):
    """While it waits they are those of waiting; then they begin anew."""
    start(client, photos)
    second = start(client, photos)
    wait_until(lambda: seen(client, second)["seconds"] > 0.5)
    let = time.monotonic()
    engine.let(100)
    end = ended(client, second)
    assert (end["state"], end["done"]) == ("done", 3)
    assert 0 < end["seconds"] <= time.monotonic() - let


def test_what_ended_long_ago_is_forgotten(client, engine, photos, monkeypatch):
    """Of those that were stopped while they waited too; what has not ended is always there."""
    monkeypatch.setattr(jobs, "_REMEMBERED", 1)
    running, *waiting = (start(client, photos) for _ in range(3))
    wait_until(lambda: engine.asked == [1])
    for batch in waiting:
        assert client.delete(f"{URL}/{batch['id']}").json()["seconds"] > 0
    assert [one["id"] for one in client.get(URL).json()] == [running["id"], waiting[1]["id"]]
    assert_error(client.get(f"{URL}/{waiting[0]['id']}"), 404, "UnknownBatch")


@pytest.mark.parametrize("headers", [
    {}, {"Content-Type": "text/plain"}, {"Content-Type": "application/x-www-form-urlencoded"},
    {"Content-Type": "multipart/form-data; boundary=x"}, {"Content-Type": "text/plain+json"},
], ids=str)
def test_no_page_from_elsewhere_can_have_files_written(client, service, photos, headers):
    """What a browser sends without asking is refused, and who asks is told no."""
    body = json.dumps({"input": str(photos), **DEMO})
    answer = client.post(URL, content=body, headers=headers)
    said = assert_error(answer, 422, "BadRequest")
    assert "Content-Type: application/json" in said["detail"]
    assert jobs_of(service).all() == ()
    for method in ("POST", "DELETE"):
        preflight = client.options(URL, headers={
            "Origin": "https://example.com", "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": "content-type",
        })
        assert preflight.status_code == 405
        assert "access-control-allow-origin" not in preflight.headers
    assert written(photos) == {}


def test_json_that_is_said_to_be_json_is_read(client, engine, photos):
    """With a charset too: what is refused above is refused for its type alone."""
    body = json.dumps({"input": str(photos), **DEMO})
    kind = "application/json; charset=utf-8"
    assert client.post(URL, content=body, headers={"Content-Type": kind}).status_code == 202


CALLS: list[Callable[[TestClient, str], Any]] = [
    lambda client, _name: client.get(URL),
    lambda client, name: client.get(f"{URL}/{name}"),
    lambda client, name: client.delete(f"{URL}/{name}"),
    lambda client, _name: client.post(URL, json={"input": "/", **DEMO}),
    lambda client, _name: client.post(URL, content=b"{broken"),
]


@pytest.mark.parametrize("call", CALLS)
def test_where_folders_are_closed_nothing_is_done_or_told(service, client, engine, photos,
                                                          monkeypatch, call):
    """Not of the batches of the page either, and not by what is wrong with a body."""
    batch = jobs_of(service).add(BatchOptions(str(photos)))
    wait_until(lambda: engine.asked == [1])
    monkeypatch.setattr(service.host, "paths_hidden", True)
    answer = call(client, batch.name)
    assert_error(answer, 403, "NotAllowed")
    assert str(photos) not in answer.text
    (state,) = jobs_of(service).all()
    assert state.state == "running"


@pytest.mark.parametrize("call", CALLS)
def test_a_login_comes_first(service, engine, photos, monkeypatch, call):
    """Without it nothing is done, and not even said whether folders are open."""
    monkeypatch.setattr(service.host, "paths_hidden", True)
    batch = jobs_of(service).add(BatchOptions(str(photos)))
    answer = call(client_of(service, allowed=lambda _request: False), batch.name)
    assert_error(answer, 401, "Unauthorized")
    (state,) = jobs_of(service).all()
    assert state.state in ("waiting", "running")


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_batch_that_nobody_asked_for_is_unknown(client, method):
    """Said in the shape of every error, with the name."""
    said = assert_error(client.request(method, f"{URL}/batch-1"), 404, "UnknownBatch")
    assert "batch-1" in said["detail"]


def test_a_wrong_method_is_told_all_that_the_path_has(client):
    """Two routes have one path each time."""
    for path, methods in ((URL, "GET, POST"), (f"{URL}/x", "DELETE, GET")):
        answer = client.put(path)
        assert_error(answer, 405, "MethodNotAllowed")
        assert answer.headers["allow"] == methods


def test_a_batch_does_not_stand_in_the_line_of_requests(service, photos, monkeypatch):
    """While one runs, requests that compute are taken as before, and others never wait."""
    inside, leave = threading.Event(), threading.Event()

    def interrogate(*_question: object) -> Prompt:
        if not inside.is_set():
            inside.set()
            assert leave.wait(120)
        return Prompt("a cat", "fast", "a cat", 2, 0.5, 0.1)

    monkeypatch.setattr(service, "interrogate", interrogate)
    app = FastAPI()
    api.add_routes(app, service)
    try:
        with serving(app, threads=1) as client:
            batch = client.post(URL, json={"input": str(photos), **DEMO}).json()
            assert inside.wait(120)
            assert client.get("/interrogator/status").json()["waiting"] == 0
            image = base64.b64encode((photos / "1.png").read_bytes()).decode()
            answer = client.post("/interrogator/prompt", json={"image": image, **DEMO})
            assert answer.json()["prompt"] == "a cat"
            assert client.get(f"{URL}/{batch['id']}").json()["state"] == "running"
            leave.set()
            wait_until(lambda: client.get(f"{URL}/{batch['id']}").json()["state"] == "done")
    finally:
        leave.set()


# The documentation


def sections() -> dict[str, str]:
    """Return the text under each route's heading."""
    pieces = re.split(r"\n###? ", DOCUMENT.read_text(encoding="utf-8"))
    return {head: text for head, _, text in (piece.partition("\n") for piece in pieces)}


def test_every_field_of_a_batch_stands_in_the_documentation():
    """Those of the request under POST, those of the answers under GET and DELETE."""
    told = sections()
    for route, fields in {
        f"POST {URL}": fields_of(messages.BatchRequest) - fields_of(messages.QuestionRequest),
        f"GET {URL}/{{id}}": fields_of(messages.OneBatchAnswer) | fields_of(messages.FailureAnswer),
        f"DELETE {URL}/{{id}}": {"interrupted"},
    }.items():
        assert not [name for name in sorted(fields) if f"`{name}`" not in told[route]], route


def test_the_fields_of_a_batch_are_shown_as_those_of_a_prompt_are(client):
    """In the schema: choices, help and range, and that `input` alone must be given."""
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    batch, prompt = schemas["BatchRequest"], schemas["PromptRequest"]
    assert batch["required"] == ["input"]
    assert next(iter(batch["properties"])) == "input"
    assert batch["properties"]["form"]["enum"] == ["txt", "txt-one", "csv", "jsonl", "parquet",
                                                   "kohya"]
    assert batch["properties"]["existing"]["enum"] == ["skip", "replace", "append", "prepend"]
    assert batch["properties"]["pool_size"]["maximum"] == SETTINGS["pool_size"].maximum
    for name, shown in batch["properties"].items():
        assert shown["description"]
        assert shown == prompt["properties"].get(name, shown)


def test_the_example_that_follows_a_batch_runs_as_it_is_written(tmp_path):
    """Only the address and the folder are changed; it says how the batch ended."""
    program = re.search(
        r"```python\n(.*?)```", sections()[f"POST {URL}"], re.DOTALL
    ).group(1)
    copy("two-red", tmp_path / "1.jpg")
    app = FastAPI()
    api.add_routes(app, Service(StandaloneHost("cpu")))
    with serving(app) as client:
        for written_so, here in (
            ("http://127.0.0.1:7860", str(client.base_url).rstrip("/")),
            ('"/data/photos"', repr(str(tmp_path))),
            ('"classic"', '"caption"'),  # which needs no word lists
        ):
            assert program.count(written_so) == 1
            program = program.replace(written_so, here)
        run = subprocess.run(
            [sys.executable, "-c", program], check=False, capture_output=True, text=True
        )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "done: 1 of 1, 0 failed"
    assert (tmp_path / "1.txt").read_text().startswith("two red cats")
