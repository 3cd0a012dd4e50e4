"""The page without a WebUI: served by itself, with its own style and script."""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from clip_interrogator_ext.faces.tab import components, draw, elements, leaving

if TYPE_CHECKING:
    from fastapi import FastAPI

    from clip_interrogator_ext.faces.tab.surroundings import Surroundings
    from clip_interrogator_ext.service import Service

_FONTS = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
_THREADS = 8


def mount(app: FastAPI, service: Service, surroundings: Surroundings) -> None:
    """Put the page at the root of an application; the routes that it has go first."""
    # Gradio's own theme would fetch its fonts from elsewhere.
    theme = gr.themes.Default(**_FONTS)
    ours: dict[str, Any] = {"theme": theme}
    mounted: dict[str, Any] = {}
    if components.takes(gr.mount_gradio_app, "theme"):
        ours, mounted = mounted, ours
    # An error that nobody foresaw would be shown in its own words.
    if components.takes(gr.mount_gradio_app, "show_error"):
        mounted["show_error"] = False
    with gr.Blocks(analytics_enabled=False, title="Interrogator", **ours) as blocks:
        style = _beside("style.css") + "footer { display: none !important; }"
        gr.HTML(f"<style>{style}</style>", elem_classes=[elements.PREFIX + "-hidden"])
        blocks.show_error = False
        draw(service, surroundings)
        components.on(blocks.load, None, js=f"() => {{ {_beside('javascript/cliext.js')} }}")
    if not components.takes(blocks.queue, "default_concurrency_limit"):
        blocks.queue(concurrency_count=_THREADS)
    else:
        blocks.queue()
    leaving.dont_wait_for_pages(blocks)
    gr.mount_gradio_app(app, blocks, path="/", **mounted)


def _beside(name: str) -> str:
    """Return a file that lies beside the package in a checkout, and in share/ once installed."""
    installed = Path(sysconfig.get_path("data"), "share", "clip-interrogator-ext")
    for folder in (Path(__file__).resolve().parents[3], installed):
        path = folder / name
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise FileNotFoundError(f"{name} is neither beside the package nor in {installed}.")
