"""What the page asks with: the choice of models, modes and options, and the requests they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from clip_interrogator_ext import catalog
from clip_interrogator_ext.errors import BadOption
from clip_interrogator_ext.faces.tab import components, elements
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
    from clip_interrogator_ext.service import Service

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


def subject_box(surroundings: Surroundings, name: str) -> gr.Textbox:
    """Return the box of what the mode `style` puts in front; the other modes have none."""
    return gr.Textbox(
        label="Subject", placeholder="What stands in front of the style",
        visible=surroundings.setting("mode") == "style", elem_id=element_id(name),
    )


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
    """The folded options: their components, in the order in which `values` come back.

    `known` are the word lists that can be chosen among.
    """

    known: gr.State
    vocabulary: gr.Dropdown
    categories: gr.CheckboxGroup
    leave_out: gr.Textbox
    replacements: gr.Textbox
    numbers: dict[str, gr.Number | gr.Textbox]
    low_memory: gr.Checkbox

    @property
    def components(self) -> list[Any]:
        """The components, whose values `request` takes in this order."""
        return [
            self.known, self.vocabulary, self.categories, self.leave_out, self.replacements,
            *self.numbers.values(), self.low_memory,
        ]


def options_box(surroundings: Surroundings, service: Service) -> Options:
    """Return the folded options, at the user's own defaults."""
    setting = surroundings.setting
    with gr.Accordion("Options", open=False, elem_id=element_id("options")):
        known = service.positive_categories()
        vocabulary, categories = _lists_boxes(str(setting("vocabulary")), known, service)
        with gr.Row():
            leave_out = _words_box(
                "leave_out", setting("leave_out"), "Words or phrases, one a line or with commas"
            )
            replacements = _words_box(
                "replacements", setting("replacements"), "OLD=NEW, one a line or with commas"
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
    return Options(
        gr.State(known), vocabulary, categories, leave_out, replacements, numbers, low_memory
    )


def look_again(
    service: Service, known: Sequence[str], vocabulary: str | None, categories: Sequence[str]
) -> list[Any]:
    """Return updates of `known` and the boxes of sets and lists, to what there is by now."""
    names, now = list(service.word_sets()), service.positive_categories()
    sets = gr.update(choices=list(dict.fromkeys([*names, vocabulary or catalog.ALL_LISTS])))
    if tuple(known) == now:
        return [components.skip(), sets, components.skip()]
    left_out = set(known) - set(categories)
    chosen = [name for name in now if name not in left_out]
    return [now, sets, gr.update(choices=list(now), value=chosen)]


def _lists_boxes(
    chosen: str, known: Sequence[str], service: Service
) -> tuple[gr.Dropdown, gr.CheckboxGroup]:
    """Return the choice of a set of word lists, and that among all lists, shown with them only."""
    names = list(service.word_sets())
    vocabulary = gr.Dropdown(
        # Under Gradio 3 a value that is not among the choices could not be asked with.
        choices=names if chosen in names else [*names, chosen], value=chosen,
        label=SETTINGS["vocabulary"].label, info="The set of lists that phrases come from.",
        elem_id=element_id("vocabulary"),
    )
    about = components.html("vocabulary-help", vocabulary_help(service, chosen, look=False))
    categories = gr.CheckboxGroup(
        choices=list(known), value=list(known), label="Categories",
        visible=chosen == catalog.ALL_LISTS,
        info="Those of the lists that phrases come from.", elem_id=element_id("categories"),
    )

    def choose(name: str | None) -> tuple[str, Any]:
        name = name or catalog.ALL_LISTS
        return vocabulary_help(service, name), gr.update(visible=name == catalog.ALL_LISTS)

    components.on_change(vocabulary, choose, [vocabulary], [about, categories])
    return vocabulary, categories


def vocabulary_help(service: Service, name: str, *, look: bool = True) -> str:
    """Return what a set of word lists is about, and which of its lists are not here.

    Whether they are takes a moment to `look` up, which drawing the page has not.
    """
    chosen = service.word_sets().get(name)
    if chosen is None:
        return elements.note(
            f"There is no set of word lists called {name} any more: choose another.", "warning"
        )
    missing = chosen.missing(service.categories()) if look else ()
    lacking = f"Not on this machine: {', '.join(missing)}. See the tab Word lists."
    return elements.note(chosen.about) + elements.note(lacking if missing else "", "warning")


def _words_box(key: str, value: str | None, placeholder: str) -> gr.Textbox:
    return gr.Textbox(
        value=value or "", label=SETTINGS[key].label, placeholder=placeholder, lines=2,
        elem_id=element_id(key.replace("_", "-")),
    )


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
    mode: str,
    negative: bool,
    backbones: str | None,
    captioner: str,
    caption: str | None,
    subject: str | None,
    known: Sequence[str],
    vocabulary: str | None,
    categories: Sequence[str],
    leave_out: str | None,
    replacements: str | None,
    *rest: Any,
) -> Request:
    """Return what the components of the page ask for; raises BadOption.

    `known` are the categories that can be chosen among: all of them are no choice. `rest` is what
    `Options.components` hold after the words to replace.
    """
    # An empty box is None under Gradio 6.
    given: dict[str, Any] = {
        key: _whole(key, value) for key, value in zip(_NUMBERS, rest[:-1], strict=True)
    }
    given |= {
        "vocabulary": vocabulary or catalog.ALL_LISTS, "leave_out": leave_out or "",
        "replacements": replacements or "",
    }
    # Of other sets the boxes of the lists are hidden, and hold what was chosen before.
    narrowed = given["vocabulary"] == catalog.ALL_LISTS and set(categories) != set(known)
    caption, subject = (caption or "").strip(), (subject or "").strip()
    options = interrogate_options(
        given.__getitem__,
        mode=mode,
        negative=negative and mode != "negative",
        caption=None if mode == "style" else caption or None,
        subject=(subject or None) if mode == "style" else None,
        categories=tuple(categories) if narrowed else None,
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
