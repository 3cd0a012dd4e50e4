"""Posts a page's actions to Gradio's own endpoints, as any program may, in every Gradio."""

from __future__ import annotations

import itertools
import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

import gradio as gr
import httpx

VERSION = int(gr.__version__.split(".")[0])
PREFIX = "/gradio_api" if VERSION > 4 else ""
WHO = ("cat", "fish")  # the page's login
_sessions = itertools.count(1)
# The system's certificates, which take longer to be read than an action takes.
_CERTIFICATES = ssl.create_default_context()


def client(**more: Any) -> httpx.Client:
    """Return a client of its own, which knows no cookies of others."""
    return httpx.Client(verify=_CERTIFICATES, timeout=120, **more)


def actions(page: gr.Blocks) -> dict[int, tuple[bool, int]]:
    """Return all actions that call a function: by number, whether queued, and of how many boxes."""
    if VERSION == 3:
        return {
            number: (one["queue"] is not False, len(one["inputs"]))
            for number, one in enumerate(page.dependencies) if one["backend_fn"]
        }
    return {
        number: (bool(one.queue), len(one.inputs))
        for number, one in page.fns.items() if one.fn is not None
    }


def take_anything(page: gr.Blocks) -> None:
    """Have the functions be given what is posted as it is, whatever boxes it stands for."""
    for one in page.fns if VERSION == 3 else page.fns.values():
        one.preprocess = one.postprocess = False


@contextmanager
def launched(page: gr.Blocks, *, login: bool = False) -> Iterator[tuple[Any, str]]:
    """Serve a page as the WebUIs do; give the app and its address."""
    if VERSION == 3:
        page.queue(64)
    else:
        page.queue()
    more = {"ssr_mode": False} if VERSION > 4 else {}
    app, address, _ = page.launch(
        prevent_thread_lock=True, quiet=True, server_name="127.0.0.1",
        auth=[WHO] if login else None, **more,
    )
    try:
        yield app, address.rstrip("/")
    finally:
        page.close(verbose=False)


def log_in(address: str) -> str:
    """Return the cookies of whoever logs in to the page."""
    name, password = WHO
    with client() as asking:
        answer = asking.post(f"{address}/login", data={"username": name, "password": password})
    assert answer.status_code == 200
    return "; ".join(f"{name}={value}" for name, value in answer.cookies.items())


def post(
    address: str, number: int, count: int, headers: Mapping[str, str], **more: Any
) -> httpx.Response:
    """Post an action past the queue."""
    with client(headers=dict(headers)) as asking:
        return asking.post(f"{address}{PREFIX}/run/predict", json=_body(number, count) | more)


def queue(address: str, number: int, count: int, headers: Mapping[str, str]) -> int:
    """Put an action into the queue and wait for its end; return the status of the first answer."""
    body = _body(number, count)
    if VERSION == 3:
        return _queue_by_websocket(address, body, headers)
    with client(base_url=address + PREFIX, headers=dict(headers)) as asking:
        joined = asking.post("/queue/join", json=body)
        if joined.status_code == 200:
            asked = {"session_hash": body["session_hash"]}
            with asking.stream("GET", "/queue/data", params=asked) as events:
                assert events.status_code == 200
                for line in events.iter_lines():
                    if "process_completed" in line or "unexpected_error" in line:
                        break
        return joined.status_code


def _queue_by_websocket(address: str, body: dict[str, Any], headers: Mapping[str, str]) -> int:
    from websockets.exceptions import ConnectionClosed, InvalidStatus
    from websockets.sync.client import connect

    try:
        socket = connect(
            f"{address.replace('http', 'ws', 1)}/queue/join", additional_headers=dict(headers),
            open_timeout=120,
        )
    except InvalidStatus as refused:
        return refused.response.status_code
    with closing(socket):
        try:
            for said in socket:
                message = json.loads(said)["msg"]
                if message in ("send_hash", "send_data"):
                    socket.send(json.dumps(body))
                elif message == "process_completed":
                    break
        except ConnectionClosed:
            return 401
    return 200


def _body(number: int, count: int) -> dict[str, Any]:
    return {
        "data": [None] * count, "fn_index": number, "session_hash": f"session{next(_sessions)}",
    }
