"""Sends what stands in our boxes to the WebUI's other tabs, exactly."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gradio as gr
from modules import infotext_utils

from clip_interrogator_ext.errors import BadImage
from clip_interrogator_ext.faces.tab import toasts
from clip_interrogator_ext.faces.tab.surroundings import Boxes, Target

if TYPE_CHECKING:
    from clip_interrogator_ext.faces.tab.uploaded import Posted

# Sent as infotext, a prompt that ends in weights is wiped, and the user's negative prompt with
# it: so the boxes are wired to the fields themselves.

_COUNTED = {"txt2img": "txt2img", "img2img": "img2img", "inpaint": "img2img"}
"""Whose token counters the WebUI's script brings up to date."""


def targets() -> tuple[Target, ...]:
    """Return the tabs that take our prompt, our picture, or both."""
    return tuple(
        Target(name, f"Send to {name}", _connector(name))
        for name in ("txt2img", "img2img", "inpaint", "extras")
        if name in infotext_utils.paste_fields
    )


def sent_text(text: str | None) -> Any:
    """Return the text exactly, or no change where there is none."""
    return text if text and text.strip() else gr.update()


def sent_image(image: Posted | None) -> Any:
    """Return the picture, or no change where there is none; one that can't be read is told of."""
    if image is None:
        return gr.update()
    try:
        return image.whole()
    except BadImage as error:
        toasts.warn(str(error))
        return gr.update()


def _connector(name: str) -> Callable[[Any, Boxes], None]:
    def connect(button: Any, boxes: Boxes) -> None:
        place = infotext_utils.paste_fields[name]
        wires: list[tuple[Any, Any, Callable[[Any], Any]]] = [
            (boxes.prompt, _field(place["fields"], "Prompt"), sent_text),
            (boxes.negative, _field(place["fields"], "Negative prompt"), sent_text),
            (boxes.image, place["init_img"], sent_image),
        ]
        wires = [wire for wire in wires if wire[1] is not None]
        changes = [change for _, _, change in wires]

        def send(*values: Any) -> Any:
            sent = [change(value) for change, value in zip(changes, values, strict=True)]
            return sent if len(sent) > 1 else sent[0]

        sending = button.click(
            fn=send, inputs=[box for box, _, _ in wires],
            outputs=[field for _, field, _ in wires], show_progress=False,
        )
        if name in _COUNTED:
            sending.then(fn=None, _js=f"recalculate_prompts_{_COUNTED[name]}")
        button.click(fn=None, _js=f"switch_to_{name}", inputs=None, outputs=None)

    return connect


def _field(fields: Any, label: str) -> Any | None:
    """Return the component that the WebUI pastes a value of that name into."""
    return next((field[0] for field in fields or () if field[1] == label), None)
