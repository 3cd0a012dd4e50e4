"""Turn texts into the token ids that a CLIP backbone reads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

# Cleaning looks at nothing but this text for such a text, so that the tokens of two texts with a
# space between them are the tokens of both: no HTML entities, and no repair of encodings, which
# only ever looks at two letters beyond ASCII side by side, or at one of "ÂÃŒœ".
_PLAIN = re.compile(r"(?:[ -%'-~]|[ÀÁÄ-ÖØ-öø-őŔ-\u017f\u1e00-\u1eff](?![^ -~]))*")
# Behind a comma and a space such a text leaves the cleaning of any text before it as it was: it
# ends no entity, forbids none (as "<" does), and its letters are the same in every encoding.
_ASCII = re.compile(r"[ -%'-;=-~]*")
_REMEMBERED = 500_000


class TokenReader:
    """Token ids of texts, by the tokenizer that open_clip has for a backbone.

    `budget` is how many tokens of a text the backbone reads, start and end not counted.
    """

    def __init__(self, tokenizer: Any, context_length: int) -> None:
        self._tokenizer = tokenizer
        self.context_length = context_length
        self._clean = getattr(tokenizer, "clean_fn", None)
        self._remembered: dict[str, list[int]] = {}
        inner = getattr(tokenizer, "tokenizer", None)
        special = 2 if inner is None else inner.num_special_tokens_to_add()
        self.budget = context_length - special

    @property
    def is_simple(self) -> bool:
        """Say whether this is CLIP's own byte-pair tokenizer, whose rows can be built by hand."""
        has_parts = hasattr(self._tokenizer, "encoder") and hasattr(self._tokenizer, "encode")
        return has_parts and getattr(self._tokenizer, "reduction_fn", None) is None

    def padded(self, texts: Sequence[str]) -> Tensor:
        """Return the rows that open_clip gives its model: (n, context length)."""
        rows: Tensor = self._tokenizer(list(texts), context_length=self.context_length)
        return rows

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens each text has, start and end not counted."""
        return [len(self.ids(text)) for text in texts]

    def ids(self, text: str) -> list[int]:
        """Return the ids of a text without start and end tokens, remembered for the next time."""
        found = self._remembered.get(text)
        if found is None:
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            if self.is_simple:
                if ", " in text and _PLAIN.fullmatch(text):
                    # Phrases come again and again, texts made of them don't.
                    *before, last = text.split(", ")
                    parts = [*(f"{part}," for part in before), last]
                    return [one for part in parts for one in self.ids(part)]
                found = list(self._tokenizer.encode(text))
            else:
                inner = self._tokenizer.tokenizer
                cleaned = text if self._clean is None else self._clean(text)
                found = list(inner(cleaned, add_special_tokens=False).input_ids)
            self._remembered[text] = found
        return found

    def row(self, ids: Sequence[int]) -> list[int]:
        """Return the ids as the model reads them: start, ids, end, cut to the context length."""
        start = self._tokenizer.encoder["<start_of_text>"]
        end = self._tokenizer.encoder["<end_of_text>"]
        row = [start, *ids][: self.context_length - 1]
        if end in row:  # the text itself spells the end-of-text token
            return row[: row.index(end) + 1]
        return [*row, end]

    def continuations(self, prefix: str, phrases: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text "prefix, phrase".

        Where the joint could matter to the tokenizer the whole text is read, otherwise the ids
        of both sides are put together.
        """
        before = prefix + ","
        if not self.is_simple or before[0].isspace():
            return [self.ids(f"{before} {phrase}") for phrase in phrases]
        matters = _PLAIN if _PLAIN.fullmatch(before) else _ASCII
        ids = self.ids(before)
        return [
            ids + self.ids(phrase)
            if matters.fullmatch(phrase)
            else self.ids(f"{before} {phrase}")
            for phrase in phrases
        ]
