"""A small stand-in for the WebUI's module of that name."""

from pathlib import Path

from modules.shared import cmd_opts


def get_gradio_auth_creds():
    text = cmd_opts.gradio_auth or ""
    if cmd_opts.gradio_auth_path:
        text += "," + Path(cmd_opts.gradio_auth_path).read_text(encoding="utf-8")
    for pair in text.split(","):
        if pair.strip():
            yield tuple(pair.strip().split(":", 1))
