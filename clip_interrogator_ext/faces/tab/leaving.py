"""A server ends although pages have left in the midst of what they asked for.

Gradio 3 keeps a task for every event of a page, until it has closed the event's websocket itself.
That it forgets where the page left before its turn came or amid a generator, and where the queue
was closed first. Its server waits for these tasks for ever when it ends, and so does the WebUI's
"Reload UI". Later versions of Gradio have no such tasks.
"""

from __future__ import annotations

from typing import Any

import gradio as gr


def dont_wait_for_pages(blocks: gr.Blocks) -> None:
    """Let the server of a page end while pages wait for events or have left them behind."""
    queue = getattr(blocks, "_queue", None)  # the WebUI may run without one
    if queue is None or not hasattr(gr.queueing.Event, "disconnect"):
        return
    process, clean, push, close = (
        queue.process_events, queue.clean_event, queue.push, queue.close
    )

    async def process_and_let_go(events: list[Any], batch: bool) -> None:
        try:
            await process(events, batch)
        finally:
            for event in events:
                _let_go(event)

    async def clean_and_let_go(event: Any) -> None:
        waits = event in queue.event_queue
        await clean(event)
        if waits:
            _let_go(event)

    def push_unless_closed(event: Any) -> int | None:
        return None if queue.stopped else push(event)

    def close_and_let_go() -> None:
        close()
        for event in list(queue.event_queue):
            _let_go(event)

    queue.process_events, queue.clean_event = process_and_let_go, clean_and_let_go
    queue.push, queue.close = push_unless_closed, close_and_let_go


def _let_go(event: Any) -> None:
    """Have the task of an event end, and with it the websocket, from whatever thread."""
    from starlette.websockets import WebSocketState

    event.websocket.application_state = WebSocketState.DISCONNECTED
