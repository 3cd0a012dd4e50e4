"""A small stand-in for the WebUI's module of that name."""

from types import SimpleNamespace

_NAMES = (
    "before_ui", "ui_settings", "after_component", "ui_tabs", "app_started", "script_unloaded",
)
callback_map = {f"callbacks_{name}": [] for name in _NAMES}


def clear_callbacks():
    for callbacks in callback_map.values():
        callbacks.clear()


def add_callback(callbacks, fun, *, name=None, category="unknown", filename=None):
    callbacks.append(SimpleNamespace(callback=fun))
