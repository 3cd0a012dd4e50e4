"""Frozen requests, which check themselves when they are built."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from clip_interrogator_ext import catalog
from clip_interrogator_ext.errors import BadOption
from clip_interrogator_ext.settings import SETTINGS

_MOST_LEFT_OUT = 1000
_MOST_REPLACED = 200
_LONGEST_WORDS = 200  # characters of one of either


def _check(options: Any, keys: dict[str, str]) -> None:
    """Check the fields of `options` against the settings that describe them.

    `keys` gives a field's setting where the two have different names.
    """
    for field in fields(options):
        setting = SETTINGS.get(keys.get(field.name, field.name))
        value = getattr(options, field.name)
        if setting is None or value is None:
            continue
        if setting.choices and value not in setting.choices:
            near = catalog.did_you_mean(catalog.nearest(str(value), setting.choices))
            raise BadOption(
                field.name,
                f"{setting.label} can't be {value!r}; it is one of {', '.join(setting.choices)}."
                + near,
            )
        if setting.minimum is not None and setting.maximum is not None:
            if isinstance(value, bool) or not isinstance(value, int):
                raise BadOption(field.name, f"{setting.label} must be a whole number.")
            if not setting.minimum <= value <= setting.maximum:
                raise BadOption(
                    field.name,
                    f"{setting.label} must be from {setting.minimum} to {setting.maximum}, "
                    f"not {value}.",
                )


def _check_texts(options: Any, names: tuple[str, ...]) -> None:
    for name in names:
        value = getattr(options, name)
        if value is not None and not isinstance(value, str):
            raise BadOption(name, f"The {name} must be a text, not {value!r}.")


def _check_names(options: Any, name: str) -> None:
    value = getattr(options, name)
    if value is not None and not (
        isinstance(value, tuple) and all(isinstance(one, str) for one in value)
    ):
        raise BadOption(name, f"The {name} must be a tuple of names, not {value!r}.")


@dataclass(frozen=True)
class CaptionOptions:
    """How the captioner writes: beams, and the fewest and the most tokens."""

    beams: int = 1
    min_length: int = 0
    max_length: int = 32

    def __post_init__(self) -> None:
        _check(self, {name: f"caption_{name}" for name in ("beams", "min_length", "max_length")})
        if self.min_length > self.max_length:
            raise BadOption(
                "min_length",
                f"The caption's minimum length ({self.min_length}) is above its maximum "
                f"({self.max_length}).",
            )


@dataclass(frozen=True)
class ModelOptions:
    """Which networks answer, and how they share the device.

    Several backbones judge together, each with the same weight. A captioner of "none" means
    that the caption, if a mode needs one, comes with the request. "demo" names the bundled models.
    """

    backbones: tuple[str, ...] = (catalog.DEFAULT_BACKBONE,)
    captioner: str = catalog.DEFAULT_CAPTIONER
    chunk_size: int = 64
    low_memory: bool = False

    def __post_init__(self) -> None:
        _check(self, {})
        _check_names(self, "backbones")
        _check_texts(self, ("captioner",))
        if not self.backbones or not all(self.backbones):
            raise BadOption("backbones", "Name at least one CLIP backbone.")
        if len(set(self.backbones)) < len(self.backbones):
            raise BadOption("backbones", "Each CLIP backbone can be named once only.")
        if not self.captioner:
            raise BadOption("captioner", 'Name a captioner, or "none".')


@dataclass(frozen=True)
class InterrogateOptions:
    """What is asked about one picture.

    `negative` asks for the negative prompt in the same run. `caption` stands in for the
    captioner's. `subject` goes in front in style mode. `vocabulary` names the set of word lists;
    `categories`, lists or parts of them, stand in for those of the set. Phrases that hold words of
    `leave_out` are not tried, old words of `replacements` are tried as the new, and captions are
    changed likewise. Where `max_flavors` or `token_budget` is None, the mode or the backbone
    decides. `weigh` asks for each phrase's score and gain.
    """

    mode: str = "best"
    negative: bool = False
    caption: str | None = None
    subject: str | None = None
    categories: tuple[str, ...] | None = None
    pool_size: int = 2048
    min_flavors: int = 8
    max_flavors: int | None = None
    token_budget: int | None = None
    captioning: CaptionOptions = CaptionOptions()
    weigh: bool = True
    vocabulary: str = catalog.ALL_LISTS
    leave_out: tuple[str, ...] = ()
    replacements: tuple[tuple[str, str], ...] = ()

    @property
    def asks_caption(self) -> bool:
        """Whether the captioner has to be asked."""
        return self.mode in catalog.MODES_WITH_CAPTION and self.caption is None

    def no_caption(self) -> BadOption:
        """Return the error for a captioner that is "none" where one has to be asked."""
        return BadOption(
            "caption",
            f"The mode {self.mode} needs a caption. Choose a captioner, or write the caption "
            "yourself; style and negative do without.",
        )

    def __post_init__(self) -> None:
        _check(self, {})
        _check_texts(self, ("caption", "subject", "vocabulary"))
        _check_names(self, "categories")
        _check_words(self.leave_out, self.replacements)
        if self.subject is not None and self.mode != "style":
            raise BadOption(
                "subject",
                f"A subject goes with the mode style; in the mode {self.mode} the caption stands "
                "in front.",
            )
        if self.categories is not None and not self.categories and self.mode != "caption":
            raise BadOption("categories", "Name at least one category of phrases.")


def read_leave_out(value: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the words to leave out of a list, or of a text with commas or lines between them."""
    if not (value is None or isinstance(value, (str, list, tuple))):
        raise BadOption("leave_out", f"The leave_out must be texts, not {value!r}.")
    parts = re.split(r"[,\n]", value) if isinstance(value, str) else value or ()
    words = tuple(" ".join(_text("leave_out", part).split()) for part in parts)
    return tuple(one for one in words if one) if isinstance(value, str) else words


def read_replacements(
    value: str | Mapping[str, str] | Sequence[Sequence[str]] | None
) -> tuple[tuple[str, str], ...]:
    """Return pairs of old words and new, of a mapping, of pairs, or of a text with OLD=NEW in it.

    Raises BadOption.
    """
    if isinstance(value, str):
        return tuple(_pair(part) for part in re.split(r"[,\n]", value) if part.strip())
    if not (value is None or isinstance(value, (Mapping, list, tuple))):
        raise BadOption("replacements", f"The replacements must be texts, not {value!r}.")
    pairs = list(value.items() if isinstance(value, Mapping) else value or ())
    if not all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in pairs):
        raise BadOption("replacements", "Write each replacement as a pair: the old words, the new.")
    return tuple((_text("replacements", old), _text("replacements", new)) for old, new in pairs)


def _check_words(leave_out: Any, replacements: Any) -> None:
    """Raise BadOption where words to leave out or to replace are no words."""
    if not isinstance(leave_out, tuple):
        raise BadOption("leave_out", f"The words to leave out must be a tuple, not {leave_out!r}.")
    if not isinstance(replacements, tuple) or any(type(one) is not tuple for one in replacements):
        raise BadOption(
            "replacements", f"The replacements must be a tuple of tuples, not {replacements!r}."
        )
    read_leave_out(leave_out)
    read_replacements(replacements)
    both = [text for pair in replacements for text in pair]
    for field, given, most, texts in (
        ("leave_out", leave_out, _MOST_LEFT_OUT, leave_out),
        ("replacements", replacements, _MOST_REPLACED, both),
    ):
        if len(given) > most:
            raise BadOption(field, f"Name at most {most:,} {field}, not {len(given):,}.")
        if any(len(text) > _LONGEST_WORDS for text in texts):
            raise BadOption(field, f"The {field} have at most {_LONGEST_WORDS} characters each.")
    if not all(any(map(str.isalnum, words)) for words in leave_out):
        raise BadOption("leave_out", "Say which words are to be left out.")
    if not all(old.strip() for old, _ in replacements):
        raise BadOption("replacements", "Say which words are to be replaced.")


def _pair(text: str) -> tuple[str, str]:
    old, equals, new = (part.strip() for part in text.partition("="))
    if not equals or not old:
        raise BadOption(
            "replacements", f'Write each replacement as OLD=NEW, not "{text.strip()}".'
        )
    return old, new


def _text(field: str, value: Any) -> str:
    if not isinstance(value, str):
        raise BadOption(field, f"The {field} must be texts, not {value!r}.")
    return value


def interrogate_options(value: Callable[[str], Any], **asked: Any) -> InterrogateOptions:
    """Return what is asked about a picture; `value` says what is chosen for a setting's key."""
    return InterrogateOptions(
        pool_size=value("pool_size"),
        min_flavors=value("min_flavors"),
        max_flavors=value("max_flavors"),
        token_budget=value("token_budget"),
        vocabulary=value("vocabulary"),
        leave_out=read_leave_out(value("leave_out")),
        replacements=read_replacements(value("replacements")),
        captioning=CaptionOptions(
            beams=value("caption_beams"),
            min_length=value("caption_min_length"),
            max_length=value("caption_max_length"),
        ),
        **asked,
    )


def model_options(value: Callable[[str], Any], backbones: tuple[str, ...]) -> ModelOptions:
    """Return which networks answer; `value` says what is chosen for a setting's key."""
    return ModelOptions(
        backbones=backbones,
        captioner=value("captioner"),
        chunk_size=value("chunk_size"),
        low_memory=value("low_memory"),
    )
