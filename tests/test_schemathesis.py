"""The routes keep to the document that they publish, whatever they are asked."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, settings

from clip_interrogator_ext import Service, StandaloneHost, catalog
from clip_interrogator_ext.faces import api

schemathesis = pytest.importorskip("schemathesis", reason="installed with the newest versions only")

from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import positive_data_acceptance

PICTURES = Path(api.__file__).parents[2] / "models" / "demo" / "pictures"
IMAGE = base64.b64encode(next(PICTURES.glob("two-red*")).read_bytes()).decode()
DEMO = {"image": IMAGE, "clip_model_name": "demo"}

# Made while tests are collected, and so before any fixture sets the folder of caches.
cache = TemporaryDirectory()
service = Service(StandaloneHost("cpu"), cache_dir=cache.name)
app = FastAPI()
api.add_routes(app, service)
document = schemathesis.openapi.from_asgi("/openapi.json", app)


@pytest.fixture(scope="module", autouse=True)
def _imported() -> None:
    """Import at once what takes longer than an answer may."""
    service.known_backbones()


@pytest.fixture(autouse=True)
def _short_lists(_own_lists, tmp_path, monkeypatch) -> None:
    """Short lists in place of the bundled ones, and an empty folder to look for files in."""
    folder = Path(os.environ["CLIP_INTERROGATOR_EXT_DATA"]) / "lists"
    folder.mkdir()
    for name in (*catalog.CATEGORIES, catalog.NEGATIVE_CATEGORY):
        (folder / f"{name}.txt").write_text("fog\nmist\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)


@document.parametrize()
@settings(max_examples=30, suppress_health_check=list(HealthCheck))
def test_every_answer_is_declared(case):
    """In its status, its type and its shape; wrong methods, types and headers are refused.

    Most requests end where a model is missing, as this machine has no weights.
    """
    if isinstance(case.body, dict):
        if isinstance(case.body.get("image"), str):
            case.body["image"] = IMAGE
        if isinstance(case.body.get("input"), str):
            case.body["input"] = f"nowhere/{case.body['input']}"  # no batch is to begin
    response = case.call()
    assert response.status_code < 500 or response.json()["error"] == "MissingModel"
    # What fields must be to each other is said in sentences only, not in the document.
    case.validate_response(
        response, excluded_checks=[not_a_server_error, positive_data_acceptance]
    )


@pytest.mark.parametrize(("name", "more"), [
    ("prompt", {"captioner": "demo", "negative": True}),
    ("prompt", {"caption": "a fox", "mode": "caption"}),
    ("analyze", {"top": 1}),
    ("similarity", {"texts": ["a fox", ""]}),
])
def test_answers_of_the_networks_are_as_declared(name, more):
    """Those to which hardly any thought-up request comes."""
    path = f"/interrogator/{name}"
    answer = TestClient(app).post(path, json={**DEMO, **more})
    assert answer.status_code == 200
    document[path]["POST"].validate_response(answer)


@pytest.mark.parametrize("path", [
    path for path, methods in document.raw_schema["paths"].items() if "post" in methods
])
def test_too_much_is_declared_wherever_something_is_sent(path):
    """Also where no picture is."""
    answer = TestClient(app).post(path, json={"task": "x" * 5000})
    assert answer.status_code == 413
    document[path]["POST"].validate_response(answer)


def test_a_batch_is_as_declared(tmp_path):
    """From its being asked for to its end."""
    (tmp_path / "a.png").write_bytes(next(PICTURES.glob("two-red*")).read_bytes())
    client, path = TestClient(app), "/interrogator/batch"
    begun = client.post(path, json={
        "input": str(tmp_path), "clip_model_name": "demo", "captioner": "demo",
    })
    assert begun.status_code == 202
    document[path]["POST"].validate_response(begun)
    one = f"{path}/{begun.json()['id']}"
    for method in ("get", "delete", "get"):
        document[f"{path}/{{id}}"][method].validate_response(getattr(client, method)(one))
    document[path]["GET"].validate_response(client.get(path))
