"""Buttons beside the WebUI's own that send an image to our tab."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr
from modules import infotext_utils, shared
from modules.ui_components import ToolButton

if TYPE_CHECKING:
    from clip_interrogator_ext.faces.tab.surroundings import Boxes

SYMBOL = "🔎"
TOOLTIP = "Send image to the Interrogator tab."
TAB_TITLE = "Interrogator"

_GALLERIES = {f"{tab}_gallery": tab for tab in ("txt2img", "img2img", "extras")}
_LAST_BUTTONS = {f"{tab}_send_to_extras": tab for tab in ("txt2img", "img2img", "extras")}
_PNG_INFO_IMAGE, _PNG_INFO_LAST_BUTTON = "pnginfo_image", "extras_tab"

_sources: dict[str, Any] = {}
_buttons: dict[str, Any] = {}


def on_after_component(component: Any, **arguments: Any) -> None:
    """Remember where images are shown, and put our button behind the last of each row."""
    name = arguments.get("elem_id")
    if TAB_TITLE in shared.opts.hidden_tabs:
        return
    if name in _GALLERIES:
        _sources.setdefault(_GALLERIES[name], component)
    elif name == _PNG_INFO_IMAGE:
        _sources.setdefault("pnginfo", component)
    elif name in _LAST_BUTTONS and _LAST_BUTTONS[name] not in _buttons:
        tab = _LAST_BUTTONS[name]
        _buttons[tab] = ToolButton(SYMBOL, elem_id=f"{tab}_send_to_cliext", tooltip=TOOLTIP)
    elif name == _PNG_INFO_LAST_BUTTON and "pnginfo" in _sources and "pnginfo" not in _buttons:
        # Other extensions make such buttons too; the first after the image are PNG Info's.
        _buttons["pnginfo"] = gr.Button("Send to Interrogator", elem_id="pnginfo_send_to_cliext")


def connect(boxes: Boxes) -> None:
    """Wire the buttons to our image box; must be called within our tab's Blocks."""
    for tab, button in _buttons.items():
        source = _sources.get(tab)
        if source is None:
            continue
        if tab == "pnginfo":
            button.click(fn=_same, inputs=[source], outputs=[boxes.image], show_progress=False)
        else:
            button.click(
                fn=infotext_utils.image_from_url_text, _js="extract_image_from_gallery",
                inputs=[source], outputs=[boxes.image], show_progress=False,
            )
        button.click(fn=None, _js="cliext_open", inputs=None, outputs=None)


def forget() -> None:
    """Let go of the components of a page that is gone."""
    _sources.clear()
    _buttons.clear()


def _same(image: Any) -> Any:
    return image
