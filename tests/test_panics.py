"""A library in Rust breaks down in the midst of a run: whoever asks is told, and the next is right.

Its error is no Exception. It is provoked for real, in tokenizers.
"""

from __future__ import annotations

import base64
import threading
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel

from clip_interrogator_ext import InterrogateOptions, ModelOptions, Service, StandaloneHost
from clip_interrogator_ext.batch.jobs import jobs_of
from clip_interrogator_ext.batch.options import BatchOptions
from clip_interrogator_ext.errors import (
    BrokenModel,
    InterrogatorError,
    OutOfMemory,
    is_panic,
)
from clip_interrogator_ext.faces import api
from clip_interrogator_ext.interrogator import Interrogator
from tests.test_api import ERROR_KEYS, wait_until
from tests.test_batch import draw

if TYPE_CHECKING:
    from clip_interrogator_ext.batch.results import BatchState

pytestmark = pytest.mark.hosts

FAST = InterrogateOptions(mode="style", min_flavors=2, max_flavors=4)


def break_down() -> None:
    """Have tokenizers go on with settings that it has taken and can't use."""
    words = Tokenizer(WordLevel({"a": 0}, unk_token="a"))  # noqa: S106 - a word
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.enable_truncation(max_length=2, stride=2)
    words.encode("a a a a a")


@pytest.fixture(scope="module")
def panic() -> type[BaseException]:
    """The kind of error that it is, which no module has a name for."""
    try:
        break_down()
    except BaseException as error:  # noqa: BLE001 - nothing narrower catches it
        assert is_panic(error)
        assert not isinstance(error, Exception)
        return type(error)
    pytest.skip("this tokenizers does not break down")


@pytest.fixture
def service(tmp_path) -> Service:
    lists = tmp_path / "lists"
    lists.mkdir()
    for name in ("artists", "mediums", "movements", "sites", "negative", "flavors"):
        (lists / f"{name}.txt").write_text(f"one of the {name}\nanother of the {name}")
    return Service(StandaloneHost("cpu"), cache_dir=tmp_path / "cache", lists_dir=lists)


@pytest.fixture
def models(backbone_folder) -> ModelOptions:
    return ModelOptions(backbones=(str(backbone_folder),), captioner="none")


@pytest.fixture
def fail(monkeypatch, panic):
    """Have the engine fail in some way as often as is asked; returns how often it was asked."""

    def failing(work, times: int = 1) -> list[int]:
        inner, asked = Interrogator.interrogate, []

        def interrogate(self, *rest):
            asked.append(len(asked))
            if len(asked) <= times:
                work()
            return inner(self, *rest)

        monkeypatch.setattr(Interrogator, "interrogate", interrogate)
        return asked

    return failing


def test_a_run_that_breaks_down_is_told_and_the_next_is_right(service, models, picture, fail):
    """As an error of ours, with everything let go of; whoever waits meanwhile is answered."""
    right = service.interrogate(picture, FAST, models).text
    go_on, outcomes = threading.Event(), []

    def wait_and_break_down() -> None:
        go_on.wait()
        break_down()

    asked = fail(wait_and_break_down)

    def ask() -> None:
        try:
            outcomes.append(service.interrogate(picture, FAST, models).text)
        except InterrogatorError as error:
            outcomes.append(type(error))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(service.status().runs) == 3)
    go_on.set()
    for thread in threads:
        thread.join(120)
    assert sorted(outcomes, key=str) == sorted([BrokenModel, right, right], key=str)
    assert len(asked) == 3
    assert service.status().runs == ()


def test_it_is_a_sentence(service, models, picture, fail):
    """Of one line; nothing is tried twice."""
    asked = fail(break_down)
    with pytest.raises(BrokenModel, match=r"broke down \(.*stride.*\)\. Download the") as told:
        service.interrogate(picture, FAST, models)
    assert "\n" not in str(told.value)
    assert is_panic(told.value.__cause__)
    assert service.status().loaded == ()
    assert len(asked) == 1


def test_it_means_a_lack_of_memory_only_where_it_says_so(service, models, picture, fail, panic):
    """Then the run is tried once more, in smaller chunks."""

    def lack(times: int) -> list[int]:
        def work() -> NoReturn:
            raise panic("memory allocation of 4096 bytes failed")

        return fail(work, times)

    asked = lack(1)
    assert service.interrogate(picture, FAST, models).text
    assert len(asked) == 2
    lack(2)
    with pytest.raises(OutOfMemory):
        service.interrogate(picture, FAST, models)


def test_what_would_end_the_program_is_an_error_of_the_run(service, models, picture, fail):
    """A library that calls sys.exit ends neither the caller's thread nor the server."""

    def leave() -> NoReturn:
        raise SystemExit(3)

    fail(leave)
    with pytest.raises(InterrogatorError, match=r"A library ended the run \(SystemExit: 3\)"):
        service.interrogate(picture, FAST, models)
    assert service.interrogate(picture, FAST, models).text


def test_the_route_answers_in_its_shape(service, models, picture, fail):
    """And the next request is answered."""
    app, buffer = FastAPI(), BytesIO()
    api.add_routes(app, service)
    client = TestClient(app)
    picture.save(buffer, "PNG")
    asked = {
        "image": base64.b64encode(buffer.getvalue()).decode(), "mode": "style",
        "clip_model_name": models.backbones[0], "captioner": "none", "min_flavors": 2,
    }
    fail(break_down)
    answer = client.post("/interrogator/prompt", json=asked)
    assert (answer.status_code, set(answer.json())) == (500, ERROR_KEYS)
    assert answer.json()["error"] == "BrokenModel"
    assert client.post("/interrogator/prompt", json=asked).status_code == 200


def two_batches(service: Service, models: ModelOptions, folder: Path) -> list[BatchState]:
    """Have two batches of a picture each, one behind the other, and return how they ended."""
    for name in ("a", "b"):
        draw(folder / name / "1.png", 1)
    asked = [
        jobs_of(service).add(BatchOptions(str(folder / name), models=models, asked=FAST))
        for name in ("a", "b")
    ]
    wait_until(lambda: all(state.ended for state in jobs_of(service).all()))
    return [jobs_of(service).get(state.name) for state in asked]


def test_batches_go_on_with_the_next(service, models, tmp_path, fail):
    """The one that it hits fails with the sentence; those behind it have their turn."""
    fail(break_down)
    first, second = two_batches(service, models, tmp_path)
    assert (first.state, "broke down" in first.error) == ("failed", True)
    assert second.state == "done"
    assert Path(tmp_path, "b", "1.txt").read_text()


def test_batches_go_on_whatever_ends_one(service, models, tmp_path, monkeypatch, panic):
    """Beside the engine too, where nobody turns it into an error of ours."""
    lists = service.lists
    monkeypatch.setattr(service, "lists", lambda: monkeypatch.undo() or break_down() or lists())
    first, second = two_batches(service, models, tmp_path)
    assert (first.state, first.error) == (
        "failed", "Something went wrong (PanicException); the log has it."
    )
    assert second.state == "done"
