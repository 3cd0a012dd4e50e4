"""Our section in the WebUI's Settings tab."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import gradio as gr
from modules import shared

from clip_interrogator_ext import catalog
from clip_interrogator_ext.host import can_be_folder, is_folder, names_a_path
from clip_interrogator_ext.settings import SETTINGS, Setting

SECTION = ("clip_interrogator_ext", "Interrogator")
FOLDERS = ("cache_dir", "lists_dir", "wildcards_dir", "interrogate_dir")
_PATHS = ("models_dir", *FOLDERS)
_PLACES = ("device", *_PATHS)
"""What says where things are on this machine, which the WebUI lets its owner lock."""
_OF_DYNAMIC_PROMPTS = "wildcard_dir"
"""The option in which the extension Dynamic Prompts keeps the folder of its lists."""
_MODELS = ("clip", "captioner")
_WIDEST_SLIDER = 512

_at_start: dict[str, Any] = {}
"""What the owner had set before strangers could reach the settings page."""

_SUGGESTIONS = {
    "clip": (*catalog.BACKBONES, catalog.DEMO),
    "captioner": (*catalog.CAPTIONERS, catalog.DEMO, catalog.NO_CAPTIONER),
}


def option_key(key: str) -> str:
    """Return the name of a setting among all of the WebUI's."""
    return f"{SECTION[0]}_{key}"


def setting(key: str) -> Any:
    """Return a setting's value now: its default where it was never set or can't be used."""
    row = SETTINGS[key]
    value = shared.opts.data.get(option_key(key))
    if _is_locked(key, value):
        value = _at_start.get(key)
    if isinstance(value, str) and not row.choices:
        value = value.strip() or None
    return row.default if value is None else _checked(row, value)


def remember() -> None:
    """Take note of the settings as they are when the WebUI starts."""
    for key in SETTINGS:
        _at_start.setdefault(key, shared.opts.data.get(option_key(key)))
    _at_start.setdefault(_OF_DYNAMIC_PROMPTS, shared.opts.data.get(_OF_DYNAMIC_PROMPTS))


def wildcard_dir() -> Any:
    """Return the folder of Dynamic Prompts' lists, if that extension's settings name one."""
    locked = shared.cmd_opts.disable_extension_access or shared.cmd_opts.hide_ui_dir_config
    return (_at_start if locked else shared.opts.data).get(_OF_DYNAMIC_PROMPTS)


def _is_locked(key: str, value: Any) -> bool:
    """Say whether a value of a setting counts only if it was there when the WebUI started."""
    is_path = key in _PATHS or (
        key in _MODELS and isinstance(value, str) and (names_a_path(value) or is_folder(value))
    )
    flags = shared.cmd_opts
    if flags.disable_extension_access:
        return is_path or key in _PLACES
    return bool(flags.hide_ui_dir_config) and is_path


def add_section(
    on_folders_changed: Callable[[], None], vocabularies: Callable[[], Sequence[str]]
) -> None:
    """Add our settings to the WebUI's, which shows and saves them.

    `vocabularies` returns the names of the sets of word lists when they are shown.
    """
    for row in SETTINGS.values():
        component, arguments = _component(row, vocabularies)
        option = shared.OptionInfo(
            # An empty box stands for None, as the WebUI knows no nullable option.
            "" if row.default is None else row.default,
            row.label, component, arguments,
            onchange=on_folders_changed if row.key in FOLDERS else None,
            section=SECTION, restrict_api=row.key in _PLACES,
        )
        shared.opts.add_option(option_key(row.key), option.info(row.help))
    shared.opts.restricted_opts.update(option_key(key) for key in _PLACES)


def _component(
    row: Setting, vocabularies: Callable[[], Sequence[str]]
) -> tuple[Callable[..., Any], dict[str, Any] | Callable[[], dict[str, Any]]]:
    """Return the component that shows a setting, with its arguments, or what returns them."""
    if row.choices:
        return gr.Radio, {"choices": list(row.choices)}
    if row.key == "vocabulary":

        def arguments() -> dict[str, Any]:
            # A value that is not among the choices could not be saved with the others.
            return {"choices": list(dict.fromkeys([*vocabularies(), str(setting(row.key))]))}

        return gr.Dropdown, arguments
    if row.key in _SUGGESTIONS:
        # What stands in the arguments also goes into updates, where Gradio 3 refuses this one.
        return partial(gr.Dropdown, allow_custom_value=True), {
            "choices": list(_SUGGESTIONS[row.key])
        }
    if isinstance(row.default, bool):
        return gr.Checkbox, {}
    if row.minimum is not None and row.maximum is not None and row.default is not None:
        limits = {"minimum": row.minimum, "maximum": row.maximum}
        if row.maximum <= _WIDEST_SLIDER:
            return gr.Slider, {**limits, "step": 1}
        return gr.Number, {**limits, "precision": 0}
    hidden = row.key in _PATHS and shared.cmd_opts.hide_ui_dir_config
    return gr.Textbox, {"max_lines": 1, "visible": not hidden}


def _checked(row: Setting, value: Any) -> Any:
    """Return the value as its row wants it, or the row's default."""
    if row.choices:
        return value if value in row.choices else row.default
    if isinstance(row.default, bool):
        return value if isinstance(value, bool) else row.default
    if row.minimum is not None and row.maximum is not None:
        if isinstance(value, bool):  # which Python counts among the numbers
            return row.default
        try:
            number = float(value)
            is_fit = row.minimum <= number <= row.maximum and number == int(number)
        except (TypeError, ValueError, OverflowError):
            return row.default
        return int(number) if is_fit else row.default
    if not isinstance(value, str) or (row.key in _PATHS and not can_be_folder(value)):
        return row.default
    return value
