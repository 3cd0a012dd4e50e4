"""What the page asks with: the choice of models, modes and options, and the requests they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from clip_interrogator_ext import catalog
from clip_interrogator_ext.errors import BadOption
from clip_interrogator_ext.faces.tab import elements
from clip_interrogator_ext.faces.tab.elements import element_id
from clip_interrogator_ext.options import (
    InterrogateOptions,
    ModelOptions,
    interrogate_options,
    model_options,
)
from clip_interrogator_ext.settings import SETTINGS

if TYPE_CHECKING:
    from clip_interrogator_ext.faces.tab.surroundings import Surroundings

CUSTOM = "custom"
JOINT = " + "
_NUMBERS = (
    "pool_size", "min_flavors", "max_flavors", "token_budget",
    "caption_beams", "caption_min_length", "caption_max_length", "chunk_size",
)


def backbones_box(surroundings: Surroundings, name: str) -> gr.Dropdown:
    """Return the box in which a backbone is chosen, or several, joined by plus signs."""
    setting = SETTINGS["clip"]
    pairs = [JOINT.join(wanted) for wanted in catalog.GENERATORS.values() if len(wanted) > 1]
    choices = [*catalog.BACKBONES, *pairs, catalog.DEMO]
    chosen = str(surroundings.setting("clip"))
    return gr.Dropdown(
        choices=choices if chosen in choices else [*choices, chosen],
        value=chosen,
        allow_custom_value=True,
        label=setting.label,
        info="Ranks phrases against the picture. Several, joined by +, judge together.",
        elem_id=element_id(name),
    )


def mode_box(surroundings: Surroundings, name: str) -> gr.Radio:
    """Return the choice of a mode."""
    setting = SETTINGS["mode"]
    return gr.Radio(
        choices=list(catalog.MODES), value=surroundings.setting("mode"), label=setting.label,
        elem_id=element_id(name),
    )


def mode_help(mode: str) -> str:
    """Return what a mode does, as a line of the page."""
    return elements.note(catalog.MODES[mode])


def negative_box(surroundings: Surroundings, name: str) -> gr.Checkbox:
    """Return the choice of a negative prompt in the same run."""
    setting = SETTINGS["negative"]
    return gr.Checkbox(
        value=bool(surroundings.setting("negative")), label=setting.label,
        elem_id=element_id(name),
    )


def split_backbones(chosen: str | None) -> tuple[str, ...]:
    """Return the backbones that a box names."""
    return tuple(name.strip() for name in (chosen or "").split(JOINT) if name.strip())


def fit_note(generator: str, chosen: str | None) -> str:
    """Return a warning where the backbones are not those that the generator reads with."""
    backbones = split_backbones(chosen)
    wanted = catalog.GENERATORS.get(generator, backbones)
    if catalog.DEMO in backbones or set(backbones) == set(wanted):
        return ""
    if set(backbones) < set(wanted):
        others = [name for name in wanted if name not in backbones]
        return elements.note(
            f"{generator} reads a prompt with {' and '.join(others)} too; add it for the best fit."
        )
    return elements.note(
        f"{generator} reads a prompt with {' and '.join(wanted)}; phrases chosen by another "
        "backbone may do less there.",
        "warning",
    )


def generator_of(chosen: str) -> str:
    """Return the first target generator that reads with these backbones."""
    for generator, wanted in catalog.GENERATORS.items():
        if set(wanted) == set(split_backbones(chosen)):
            return generator
    return CUSTOM


@dataclass(frozen=True)
class Options:
    """The folded options: their components, in the order in which `values` come back."""

    categories: gr.CheckboxGroup
    numbers: dict[str, gr.Number | gr.Textbox]
    low_memory: gr.Checkbox

    @property
    def components(self) -> list[Any]:
        """The components, whose values `request` takes in this order."""
        return [self.categories, *self.numbers.values(), self.low_memory]


def options_box(surroundings: Surroundings, categories: Sequence[str]) -> Options:
    """Return the folded options, at the user's own defaults."""
    setting = surroundings.setting
    with gr.Accordion("Options", open=False, elem_id=element_id("options")):
        chosen = gr.CheckboxGroup(
            choices=list(categories), value=list(categories), label="Categories",
            info="The word lists that phrases come from.", elem_id=element_id("categories"),
        )
        numbers = {}
        for start in range(0, len(_NUMBERS), 2):
            with gr.Row():
                for key in _NUMBERS[start : start + 2]:
                    numbers[key] = _number_box(key, setting(key))
        low = SETTINGS["low_memory"]
        low_memory = gr.Checkbox(
            value=bool(setting("low_memory")), label=low.label, info=low.help,
            elem_id=element_id("low-memory"),
        )
    return Options(chosen, numbers, low_memory)


def _number_box(key: str, value: int | None) -> gr.Number | gr.Textbox:
    """Return the box of a number; one that may be left open is a text, which can be empty."""
    row = SETTINGS[key]
    looks = {"label": row.label, "info": row.help, "elem_id": element_id(key.replace("_", "-"))}
    if row.default is None:
        shown = "" if value is None else str(value)
        return gr.Textbox(value=shown, placeholder="automatic", max_lines=1, **looks)
    return gr.Number(value=value, precision=0, **looks)


def models_of(chosen: str | None, **given: Any) -> ModelOptions:
    """Return the models that were chosen; raises BadOption."""
    choices = {"captioner": catalog.NO_CAPTIONER, **given}
    return model_options(
        lambda key: choices.get(key, SETTINGS[key].default), split_backbones(chosen)
    )


@dataclass(frozen=True)
class Request:
    """What is asked about a picture, and of which models."""

    options: InterrogateOptions
    models: ModelOptions


def request(
    known_categories: Sequence[str],
    mode: str,
    negative: bool,
    backbones: str | None,
    captioner: str,
    caption: str,
    subject: str,
    categories: Sequence[str],
    *rest: Any,
) -> Request:
    """Return what the components of the page ask for; raises BadOption.

    `rest` is what `Options.components` hold after the categories.
    """
    given = {key: _whole(key, value) for key, value in zip(_NUMBERS, rest[:-1], strict=True)}
    mine = mode != "style" and caption.strip()
    options = interrogate_options(
        given.__getitem__,
        mode=mode,
        negative=negative and mode != "negative",
        caption=caption.strip() if mine else None,
        subject=(subject.strip() or None) if mode == "style" else None,
        categories=None if set(categories) == set(known_categories) else tuple(categories),
    )
    models = models_of(
        backbones, captioner=captioner or catalog.NO_CAPTIONER, chunk_size=given["chunk_size"],
        low_memory=bool(rest[-1]),
    )
    return Request(options, models)


def _whole(key: str, value: Any) -> Any:
    """Return a whole number, or the default where a box is empty."""
    if value is None or not str(value).strip():
        return SETTINGS[key].default
    try:
        number = float(value)
        if number == int(number):
            return int(number)
    except (ValueError, OverflowError):
        pass
    raise BadOption(key, f"{SETTINGS[key].label} must be a whole number, not {value!r}.")
