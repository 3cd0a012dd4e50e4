"""What is asked of a batch: frozen, and checked when it is built."""

from __future__ import annotations

import string
from dataclasses import dataclass, field, replace
from pathlib import Path

from clip_interrogator_ext import catalog
from clip_interrogator_ext.batch.wording import Wording
from clip_interrogator_ext.batch.writers import WRITERS
from clip_interrogator_ext.errors import BadOption
from clip_interrogator_ext.options import InterrogateOptions, ModelOptions

TEXT_SUFFIXES = (".txt", ".caption", ".cap", ".tags", ".prompt", ".text")
EXISTING = {
    "skip": "leave the text and the picture alone",
    "replace": "write a new text and keep the old one as .bak",
    "append": "put the prompt behind the text",
    "prepend": "put the prompt before the text",
}


@dataclass(frozen=True)
class BatchOptions:
    """Which pictures, what is asked about each, and how the answers are written.

    `input` is a folder, a picture, a pattern such as "photos/**/*.png", or a text file that lists
    pictures. `output` is a folder for the form txt, beside each picture if None, and a file or a
    folder for the others. `name` is the pattern of text files' names; `caption_from` that of
    files beside the pictures whose text stands in for the captioner's. `existing` says what
    happens to texts that are there before. `beside` names more sets of backbones, each of
    which gives a prompt of its own.
    """

    input: str
    recursive: bool = False
    form: str = "txt"
    output: str | None = None
    existing: str = "skip"
    name: str = "{stem}.txt"
    caption_from: str | None = None
    wording: Wording = field(default_factory=Wording)
    asked: InterrogateOptions = field(default_factory=InterrogateOptions)
    models: ModelOptions = field(default_factory=ModelOptions)
    beside: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        if not self.input:
            raise BadOption("input", "Name a folder of pictures.")
        _check_choice("form", "The form", self.form, tuple(WRITERS))
        _check_choice("existing", "What happens to existing text", self.existing, tuple(EXISTING))
        _check_pattern("name", self.name)
        if self.caption_from is not None:
            _check_pattern("caption_from", self.caption_from)
        if self.form != "txt" and self.existing in ("append", "prepend"):
            raise BadOption(
                "existing",
                f"Only the form txt can {self.existing} to what is there; the form {self.form} "
                "skips or replaces it.",
            )
        if self.beside and not WRITERS[self.form].several:
            fitting = ", ".join(name for name, writer in WRITERS.items() if writer.several)
            raise BadOption(
                "beside",
                f"The form {self.form} holds one prompt a picture: for several backbones side by "
                f"side choose one of {fitting}.",
            )
        try:
            sets = self.sets
        except BadOption as error:  # the first set has been checked when it was built
            raise BadOption("beside", str(error)) from error
        if len(set(sets)) < len(sets):
            raise BadOption("beside", "Each set of backbones can be named once only.")
        WRITERS[self.form].check()

    @property
    def sets(self) -> tuple[ModelOptions, ...]:
        """The models of each prompt, which differ in their backbones only."""
        return (
            self.models,
            *(replace(self.models, backbones=backbones) for backbones in self.beside),
        )


def _check_choice(name: str, label: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        near = catalog.did_you_mean(catalog.nearest(str(value), choices))
        raise BadOption(
            name, f"{label} can't be {value!r}; it is one of {', '.join(choices)}.{near}"
        )


def _check_pattern(option: str, pattern: str) -> None:
    """Check the pattern of a text file's name, which must never be a picture's or a program's."""
    try:
        pieces = list(string.Formatter().parse(pattern))
    except ValueError as error:
        raise BadOption(option, f"The name {pattern!r} can't be read: {error}.") from error
    fields = [piece for piece in pieces if piece[1] is not None]
    if not fields or any(
        name not in ("stem", "name") or form or conversion for _, name, form, conversion in fields
    ):
        raise BadOption(
            option, f"The name {pattern!r} must hold {{stem}} or {{name}}, and no other field."
        )
    if any(char in literal for literal, *_ in pieces for char in "/\\\0\n"):
        raise BadOption(option, f"The name {pattern!r} must be that of a file, without folders.")
    suffix = Path(pattern.format(stem="a", name="a")).suffix.lower()
    if suffix not in TEXT_SUFFIXES:
        raise BadOption(
            option,
            f"The name {pattern!r} must end like a text's: in {', '.join(TEXT_SUFFIXES)}.",
        )
