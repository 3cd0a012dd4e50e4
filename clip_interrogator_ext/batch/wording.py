"""Turn prompts into the words that a data set wants: text only."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from clip_interrogator_ext.errors import BadOption
from clip_interrogator_ext.phrases import join


@dataclass(frozen=True)
class Wording:
    """What is added to a prompt before it is written.

    `prefix` and `suffix` are joined to the text, and the trigger word stands in front of
    everything, once. A negative prompt is written as it is.
    """

    prefix: str = ""
    suffix: str = ""
    trigger: str = ""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, str) or "\n" in value:
                raise BadOption(field.name, f"The {field.name} must be one line of text.")

    def of_answer(self, said: dict[str, Any]) -> tuple[str, str | None]:
        """Return an answer's prompt and negative prompt (Prompt.as_dict) in these words."""
        if said["mode"] == "negative":
            return said["text"], None
        negative = said["negative"]
        return self.of_prompt(said["text"]), None if negative is None else negative["text"]

    def of_prompt(self, text: str) -> str:
        """Return a prompt in these words, but for the trigger word."""
        return join([_bare(self.prefix), text, _bare(self.suffix)])

    def with_trigger(self, text: str) -> str:
        """Put the trigger word in front, unless it stands there."""
        trigger = join([_bare(self.trigger)])
        if f"{join([text])},".casefold().startswith(f"{trigger},".casefold()):
            return text
        return join([trigger, text])


def _bare(text: str) -> str:
    return text.strip().strip(",").strip()
