"""A small stand-in for the WebUI's module of that name."""

import gradio as gr


def ToolButton(*args, tooltip=None, **kwargs):  # noqa: N802 - the host's is a class
    return gr.Button(*args, **kwargs)
