"""Pictures made to hurt, posted to the route that answers with a prompt."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator

import httpx
import pytest

from tests import browser
from tests.test_api import DEMO, ERROR_KEYS, SAMPLE
from tests.test_crafted_images import FILES

pytestmark = pytest.mark.hosts

URL = "/interrogator/prompt"
SECONDS = 120  # on a slow machine; of each the decoder has a second or two


@pytest.fixture(scope="module")
def client(tmp_path_factory) -> Iterator[httpx.Client]:
    """The page's server, with its models loaded, and what its log says at the end."""
    folder = tmp_path_factory.mktemp("page")
    lists = folder / "lists"
    lists.mkdir()
    for name in ("artists", "flavors", "mediums", "movements", "sites", "negative"):
        (lists / f"{name}.txt").write_text(f"{name} one\n{name} two\n")
    with (
        browser.served(folder, ["--mode", "fast", "--lists-dir", str(lists)]) as address,
        httpx.Client(base_url=address, timeout=SECONDS) as client,
    ):
        assert answer(client, SAMPLE.read_bytes()).status_code == 200
        yield client
        log = (folder / "server.log").read_text()
    assert "Traceback" not in log, log[-3000:]


def answer(client: httpx.Client, data: bytes) -> httpx.Response:
    content = json.dumps({"image": base64.b64encode(data).decode(), **DEMO})
    return client.post(URL, content=content, headers={"Content-Type": "application/json"})


@pytest.mark.parametrize("name", FILES)
def test_a_crafted_picture_is_a_prompt_or_a_refusal(client, name):
    """In bounded time, in our shape; and the next request is answered."""
    began = time.monotonic()
    answered = answer(client, FILES[name])
    assert answered.status_code in (200, 413, 422), answered.text
    told = answered.json()
    if answered.status_code == 200:
        assert told["prompt"]
    else:
        assert set(told) == ERROR_KEYS
        assert told["error"] in ("BadImage", "TooLarge")
        assert told["field"] == "image"
        assert told["detail"].endswith(".")
    assert time.monotonic() - began < SECONDS
    assert client.get("/interrogator/status").json()["runs"] == []


def test_a_picture_that_is_right_is_still_answered(client):
    """As it was before."""
    good = answer(client, SAMPLE.read_bytes())
    assert good.status_code == 200
    assert good.json()["prompt"]


def test_other_bodies_are_refused(client):
    """By what they say they are, and by what they are."""
    data = next(iter(FILES.values()))
    for content, kind in ((data, "image/png"), (data, "application/json"), (b"\xff" * 99, None)):
        headers = {"Content-Type": kind} if kind else {}
        answered = client.post(URL, content=content, headers=headers)
        assert answered.status_code in (415, 422), answered.text
        assert set(answered.json()) == ERROR_KEYS
