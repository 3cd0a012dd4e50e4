"""Turn prompts into the words that a data set wants: text only."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Any

from clip_interrogator_ext.errors import BadOption
from clip_interrogator_ext.phrases import join, take_out


@dataclass(frozen=True)
class Wording:
    """What is done to a prompt before it is written.

    First the phrases or words of `leave_out` go, with their commas and in any case of letters;
    then each old words of `replacements` become the new; then `prefix` and `suffix` are joined to
    the text, and the trigger word stands in front of everything, once.
    """

    prefix: str = ""
    suffix: str = ""
    trigger: str = ""
    replacements: tuple[tuple[str, str], ...] = ()
    leave_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field in fields(self)[:3]:
            value = getattr(self, field.name)
            if not isinstance(value, str) or "\n" in value:
                raise BadOption(field.name, f"The {field.name} must be one line of text.")
        if not all(old.strip() for old, _ in self.replacements):
            raise BadOption("replacements", "Say which words are to be replaced.")
        if not all(words.strip() for words in self.leave_out):
            raise BadOption("leave_out", "Say which words are to be left out.")

    def of_answer(self, said: dict[str, Any]) -> tuple[str, str | None]:
        """Return an answer's prompt and negative prompt (Prompt.as_dict) in these words."""
        if said["mode"] == "negative":
            return self.of_negative(said["text"]), None
        negative = said["negative"]
        return (
            self.of_prompt(said["text"]),
            None if negative is None else self.of_negative(negative["text"]),
        )

    def of_prompt(self, text: str) -> str:
        """Return a prompt in these words, but for the trigger word."""
        return join([_bare(self.prefix), self._changed(text), _bare(self.suffix)])

    def of_negative(self, text: str) -> str:
        """Return a negative prompt in these words: nothing is added to it."""
        return self._changed(text)

    def with_trigger(self, text: str) -> str:
        """Put the trigger word in front, unless it stands there."""
        first = text.partition(",")[0].strip()
        if not self.trigger or first.casefold() == self.trigger.strip().casefold():
            return text
        return join([_bare(self.trigger), text])

    def _changed(self, text: str) -> str:
        for words in self.leave_out:
            text = _without(text, words.strip())
        for old, new in self.replacements:
            plain = new.replace("\\", r"\\")  # a replacement's backslashes mean themselves
            text = _whole(old.strip()).sub(plain, text)
        return text


def _bare(text: str) -> str:
    return text.strip().strip(",").strip()


def _whole(words: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(words)}(?!\w)")


def _without(text: str, words: str) -> str:
    pattern = re.compile(_whole(words).pattern, re.IGNORECASE)
    while found := pattern.search(text):
        shorter = take_out(text, found.group())
        if len(shorter) >= len(text):
            break
        text = shorter
    return text.strip().strip(",").strip()
