"""Pages that leave: the server that they leave can end all the same, as "Reload UI" has it do."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

gr = pytest.importorskip("gradio")

from clip_interrogator_ext.faces.tab import leaving
from tests.posts import GRADIO

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.skipif(GRADIO != 3, reason="later versions of Gradio hold no websockets"),
]

PATIENCE = 60


@pytest.fixture
def stage(monkeypatch) -> Iterator[tuple[Any, Callable[..., Any]]]:
    """A page whose one event takes five seconds, two at a time; and how it is begun."""
    from websockets.sync.client import connect

    def count() -> Iterator[str]:
        for number in range(50):
            time.sleep(0.1)
            yield str(number)

    with gr.Blocks(analytics_enabled=False) as blocks:
        gr.Button("Count").click(count, None, gr.Textbox())
    blocks.queue(concurrency_count=2)
    _, address, _ = blocks.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    leaving.dont_wait_for_pages(blocks)

    with ExitStack() as sockets:

        def begin(name: str, until: str) -> Any:
            """Return a page's websocket that has been told `until`, and has not answered it."""
            socket = connect(
                f"{address.replace('http', 'ws', 1)}queue/join", open_timeout=PATIENCE,
                close_timeout=1,  # the server is gone by then
            )
            sockets.callback(socket.close)
            body = {"session_hash": name, "fn_index": 0, "data": []}
            while (message := json.loads(socket.recv(timeout=PATIENCE))["msg"]) != until:
                if message in ("send_hash", "send_data"):
                    socket.send(json.dumps(body))
            return socket

        yield blocks, begin


def ends(blocks: Any) -> bool:
    """Say whether the server ends in time."""
    closing = threading.Thread(target=blocks.close, daemon=True)
    closing.start()
    closing.join(PATIENCE)
    return not closing.is_alive()


@pytest.mark.parametrize("until", ["send_data", "process_generating"])
@pytest.mark.parametrize("gone", [True, False])
def test_a_page_with_an_event_does_not_hold_up_the_end(stage, until, gone):
    """Its event has not begun or is under way, and the page has gone or is still there."""
    blocks, begin = stage
    page = begin("page", until)
    if gone:
        page.close()
    assert ends(blocks)


@pytest.mark.parametrize("gone", [True, False])
def test_a_page_in_line_does_not_hold_up_the_end(stage, gone):
    """Two others are asked before it."""
    blocks, begin = stage
    others = [begin(name, "process_generating") for name in ("one", "two")]
    page = begin("page", "estimation")
    if gone:
        page.close()
    assert ends(blocks)
    assert len(others) == 2


def test_an_event_that_comes_after_the_end_began_is_refused(stage):
    """Nobody would ever take it out of the line."""
    blocks, begin = stage
    blocks._queue.close()
    begin("page", "queue_full")
    assert ends(blocks)


def test_a_page_that_stays_gets_all_of_its_answer(stage):
    """What ends others leaves its own websocket alone."""
    blocks, begin = stage
    began = time.monotonic()
    begin("page", "process_completed")
    assert time.monotonic() - began > 4
    assert ends(blocks)
