"""The page's components and events, the same under Gradio 3 (AUTOMATIC1111), 4 (Forge) and 6."""

from __future__ import annotations

import inspect
import json
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from clip_interrogator_ext.faces.tab import elements
from clip_interrogator_ext.faces.tab.elements import element_id


def takes(function: Callable[..., Any], name: str) -> bool:
    """Say whether a function has a parameter of that name."""
    return name in inspect.signature(function).parameters


def html(name: str, value: str = "", *classes: str) -> gr.HTML:
    """Return a place for HTML, which takes no room while it is empty."""
    return gr.HTML(
        value, elem_id=element_id(name), elem_classes=[elements.PREFIX + "-html", *classes]
    )


def image(**arguments: Any) -> gr.Image:
    """Return an image box that hands over PIL images, transparency and generation data included.

    Pictures come by upload, drop or paste.
    """
    if takes(gr.Image.__init__, "sources"):
        arguments["sources"] = ["upload", "clipboard"]
    else:
        arguments["source"] = "upload"
    return gr.Image(type="pil", image_mode="RGBA", **arguments)


def uploads(**arguments: Any) -> gr.File:
    """Return a box for several files, which hands over pairs: a file's own name, and its path.

    Gradio drops those names, and characters from the names of its copies. The box itself must never
    be updated, else Gradio makes it anew: hide what it stands in.
    """
    box = gr.File(file_count="multiple", **arguments)
    paths_of = box.preprocess

    def named(payload: Any) -> list[tuple[str, Path]]:
        paths = [Path(getattr(one, "name", one)) for one in paths_of(payload) or ()]
        return [
            (_own_name(one) or path.name, path)
            for one, path in zip(_listed(payload), paths, strict=True)
        ]

    box.preprocess = named
    return box


def _listed(payload: Any) -> Sequence[Any]:
    """Return the files that a page has sent, which Gradio 3 sends as plain dictionaries."""
    return getattr(payload, "root", payload) or ()


def _own_name(file: Any) -> str:
    name = file.get("orig_name") if isinstance(file, dict) else file.orig_name
    return str(name or "")


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
    alone is shown.
    """
    arguments: dict[str, Any] = {"show_progress": "hidden", "queue": queue}
    if takes(event, "api_visibility"):
        arguments["api_visibility"] = "private"
    else:
        arguments["api_name"] = False
    if takes(event, "concurrency_limit") and function is not None:
        arguments["concurrency_limit"] = None  # the service itself has runs wait for each other
    js = js or _as_shown(inputs)
    if js is not None:
        arguments["js" if takes(event, "js") else "_js"] = js
    plain = _plain(function, streams=streams)
    return event(fn=plain, inputs=list(inputs), outputs=list(outputs), **arguments)


def on_change(
    box: Any, function: Callable[..., Any], inputs: Sequence[Any], outputs: Sequence[Any]
) -> None:
    """Have a box's changes call a function, and the last change for certain.

    Gradio 3 drops a change that comes while the answer to another is on its way: there the function
    is called once more after each answer.
    """
    first = on(box.change, function, inputs, outputs)
    if not takes(box.change, "trigger_mode"):
        on(first.then, function, inputs, outputs)


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


def _plain(
    function: Callable[..., Any] | None, *, streams: bool
) -> Callable[..., Any] | None:
    """Return a function without annotations, which Gradio 4 would want to look up."""
    if function is None:
        return None
    if inspect.isgeneratorfunction(function):
        if not streams:
            return lambda *values: deque(function(*values), maxlen=1).pop()

        def stepwise(*values: Any) -> Any:
            yield from function(*values)

        return stepwise
    def plain(*values: Any) -> Any:
        return function(*values)

    return plain


def skip() -> Any:
    """Return what leaves a component as it is."""
    return gr.update()
