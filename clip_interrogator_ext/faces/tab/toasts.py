"""Sentences that pop up over the page, shown as they are whatever signs they hold."""

from __future__ import annotations

from html import escape

import gradio as gr

# Later ones take such a sentence for HTML: it could bring pictures and links of its own.
_ARE_HTML = not gr.__version__.startswith("3.")


def error(sentence: str) -> gr.Error:
    """Return what shows a sentence when it is raised, and leaves the page as it is."""
    return gr.Error(_shown(sentence))


def warn(sentence: str) -> None:
    """Show a sentence beside whatever else an action does."""
    gr.Warning(_shown(sentence))


def _shown(sentence: str) -> str:
    return escape(sentence, quote=False) if _ARE_HTML else sentence
