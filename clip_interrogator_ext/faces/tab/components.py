"""The page's components and events, the same under Gradio 3 (AUTOMATIC1111), 4 (Forge) and 6."""

from __future__ import annotations

import inspect
import json
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any

import gradio as gr

from clip_interrogator_ext.faces.tab import elements, toasts, uploaded
from clip_interrogator_ext.faces.tab.elements import element_id
from clip_interrogator_ext.origins import OWN_ONLY, REFUSED

log = logging.getLogger(__name__)

UNFORESEEN = "Something unforeseen happened; the log has it."

IsForeign = Callable[[Mapping[str, str]], bool]
_is_foreign: ContextVar[IsForeign] = ContextVar("is_foreign", default=OWN_ONLY.is_foreign)


@contextmanager
def refusing(is_foreign: IsForeign) -> Iterator[None]:
    """Have all events that are wired meanwhile refuse requests with such headers."""
    token = _is_foreign.set(is_foreign)
    try:
        yield
    finally:
        _is_foreign.reset(token)


def takes(function: Callable[..., Any], name: str) -> bool:
    """Say whether a function has a parameter of that name."""
    return name in inspect.signature(function).parameters


def html(name: str, value: str = "", *classes: str) -> gr.HTML:
    """Return a place for HTML, which takes no room while it is empty."""
    return gr.HTML(
        value, elem_id=element_id(name), elem_classes=[elements.PREFIX + "-html", *classes]
    )


def image(**arguments: Any) -> gr.Image:
    """Return an image box, whose pictures come by upload, drop or paste."""
    if takes(gr.Image.__init__, "sources"):
        arguments["sources"] = ["upload", "clipboard"]
    else:
        arguments["source"] = "upload"
    return uploaded.image(type="pil", image_mode="RGBA", **arguments)


def textbox(**arguments: Any) -> gr.Textbox:
    """Return a text box with a copy button."""
    if takes(gr.Textbox.__init__, "show_copy_button"):
        arguments["show_copy_button"] = True
    else:
        arguments["buttons"] = ["copy"]
    return gr.Textbox(**arguments)


def on(
    event: Any,
    function: Callable[..., Any] | None,
    inputs: Sequence[Any] = (),
    outputs: Sequence[Any] = (),
    js: str | None = None,
    *,
    queue: bool = True,
    streams: bool = True,
) -> Any:
    """Have a component's event call a function, or JavaScript, or both.

    Without JavaScript of its own, an event takes from boxes with lists what they show. Gradio's
    own spinners are left out, since the page shows its own progress, and the event is
    not offered as a Gradio API, since there are routes. Without `streams` a generator's last step
    alone is shown. What a page of another site asks is refused.
    """
    arguments: dict[str, Any] = {"show_progress": "hidden", "queue": queue}
    if takes(event, "api_visibility"):
        arguments["api_visibility"] = "private"
    else:
        arguments["api_name"] = False
    if takes(event, "concurrency_limit") and function is not None:
        arguments["concurrency_limit"] = None  # the service itself has runs wait for each other
    for box in inputs:
        uploaded.close(box)
    js = js or _as_shown(inputs)
    if js is not None:
        arguments["js" if takes(event, "js") else "_js"] = js
    if streams and inspect.isgeneratorfunction(function):
        function = _settled(function, len(outputs))
    plain = _plain(function, streams=streams)
    return event(fn=plain, inputs=list(inputs), outputs=list(outputs), **arguments)


def on_change(
    box: Any, function: Callable[..., Any], inputs: Sequence[Any], outputs: Sequence[Any]
) -> None:
    """Have a box's changes call a function, and the last change for certain.

    Gradio 3 drops a change that comes while the answer to another is on its way: there the function
    is called once more after each answer. And once more after that, since the answer to a change
    may come before the second one to the change before it, which would stay.
    """
    event = on(box.change, function, inputs, outputs)
    if not takes(box.change, "trigger_mode"):
        event = on(event.then, function, inputs, outputs)
        on(event.then, function, inputs, outputs)


def _as_shown(inputs: Sequence[Any]) -> str | None:
    """Return JavaScript that takes from boxes with lists what they show.

    Under Gradio 3 such a box keeps its old value until Enter is pressed in it.
    """
    written = {
        place: box.elem_id for place, box in enumerate(inputs)
        if isinstance(box, gr.Dropdown) and box.allow_custom_value
    }
    if not written:
        return None
    return (
        f"(...values) => {{ for (const [place, name] of Object.entries({json.dumps(written)})) {{"
        " const shown = document.querySelector(`#${name} input`)?.value.trim();"
        f" if (shown) values[place] = shown; }}"
        f" return {'values[0]' if len(inputs) == 1 else f'values.slice(0, {len(inputs)})'}; }}"
    )


def _settled(function: Callable[..., Iterator[Any]], count: int) -> Callable[..., Iterator[Any]]:
    """Return a generator whose last step changes nothing, where there are others before it.

    Gradio shows the last step once more when the generator has ended, and would undo what the user
    has changed meanwhile.
    """

    @wraps(function)
    def steps(*values: Any) -> Iterator[Any]:
        number = 0
        for number, step in enumerate(function(*values), 1):  # noqa: B007 - looked at afterwards
            yield step
        if number > 1:
            yield skip() if count == 1 else [skip()] * count

    return steps


def _plain(
    function: Callable[..., Any] | None, *, streams: bool
) -> Callable[..., Any] | None:
    """Return a function that looks at who asks before anything else.

    It has no annotations but one, since Gradio 4 would want to look them up.
    """
    if function is None:
        return None
    is_foreign = _is_foreign.get()

    def guarded(request: gr.Request, *values: Any) -> Any:
        if is_foreign(_headers_of(request)):
            raise toasts.error(REFUSED)
        with _in_a_sentence():
            return function(*values)

    if inspect.isgeneratorfunction(function):

        def stepwise(request: gr.Request, *values: Any) -> Any:
            with _in_a_sentence():
                yield from guarded(request, *values)

        def at_once(request: gr.Request, *values: Any) -> Any:
            with _in_a_sentence():
                return deque(guarded(request, *values), maxlen=1).pop()

        return stepwise if streams else at_once
    return guarded


@contextmanager
def _in_a_sentence() -> Iterator[None]:
    """Turn what nobody foresaw into a sentence: its own words may tell more than others may know.

    Some versions of Gradio, and the WebUIs, would show them to whoever opens the page.
    """
    try:
        yield
    except gr.Error:
        raise
    except Exception as error:
        log.exception("An action of the page failed.")
        raise toasts.error(UNFORESEEN) from error


def _headers_of(request: gr.Request) -> Mapping[str, str]:
    """Return the headers that an event came with; Gradio 3 copies those of a websocket."""
    asked = request.request
    headers: Mapping[str, str] = request.kwargs["headers"] if asked is None else asked.headers
    return headers


def skip() -> Any:
    """Return what leaves a component as it is."""
    return gr.update()
