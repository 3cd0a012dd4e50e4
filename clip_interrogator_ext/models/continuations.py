"""Encode many texts through a causal CLIP text tower without repeating what they share.

The tower is causal and pooled at the end-of-text token: no position sees what follows it. So the
place where padding would stand can be filled with other texts, as long as no token sees those of
another text; and tokens that several texts begin with need to stand in a row only once, for what
is computed at them does not depend on what follows. Each layer's keys and values of what all texts
begin with are computed before, once. In the last layer only the end-of-text positions are
computed. The vectors are those of the whole texts, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

_FEW_ROWS = 8

KeysValues = tuple[Tensor, Tensor]
"""Keys and values of one layer: (heads, positions, width of a head) each."""


@dataclass
class Row:
    """Texts that are encoded side by side, sorted, each without what it begins with as others do.

    For each token: its id, its position in its texts, and where the texts that go on from it end.
    `ends[k]` is the place of the last token of text number `texts[k]`.
    """

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    until: list[int] = field(default_factory=list)
    texts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)


def pack(texts: Sequence[list[int]], width: int) -> list[Row]:
    """Lay texts of token ids into rows of at most `width` tokens; no text is longer than that."""
    rows: list[Row] = []
    row = Row()
    before: list[int] = []
    path: list[int] = []  # where the tokens of the text before stand
    for number in sorted(range(len(texts)), key=texts.__getitem__):
        text = texts[number]
        common = count_common(before, text)
        if not rows or len(row.ids) + len(text) - common > width:
            row, path, common = Row(), [], 0
            rows.append(row)
        for place in path[common:]:
            row.until[place] = len(row.ids)
        path[common:] = range(len(row.ids), len(row.ids) + len(text) - common)
        row.ids += text[common:]
        row.positions += range(common, len(text))
        row.until += [width] * (len(text) - common)
        row.texts.append(number)
        row.ends.append(path[-1])
        before = text
    return rows


def pack_evenly(texts: Sequence[list[int]], width: int) -> list[Row]:
    """Lay texts into rows of at most `width` tokens, the last one about as full as the others.

    Rows are computed together at the width of the widest, so an almost empty last row would cost
    as much as a full one. Among many rows that hardly counts.
    """
    rows = pack(texts, width)
    if not 1 < len(rows) <= _FEW_ROWS:
        return rows
    longest = max(map(len, texts))
    fair = -(-sum(len(row.ids) for row in rows) // len(rows))
    for narrower in range(max(fair, longest), width, max(1, longest // 2)):
        even = pack(texts, narrower)
        if len(even) == len(rows):
            return even
    return rows


def count_common(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens both begin with."""
    count = 0
    for left, right in zip(one, other):  # noqa: B905 - one may be longer
        if left != right:
            break
        count += 1
    return count


def find_causal_tower(model: Any) -> CausalTower | None:
    """Return the model's text tower if it is causal and built as open_clip's own, else None.

    open_clip keeps the tower's parts in the model (`CLIP`) or in its `text` (`CustomTextCLIP`).
    """
    tower = getattr(model, "text", model)
    parts = ("token_embedding", "positional_embedding", "transformer", "ln_final", "attn_mask")
    if any(getattr(tower, part, None) is None for part in parts):
        return None
    pool = getattr(tower, "text_pool_type", getattr(tower, "pool_type", "argmax"))
    blocks = getattr(tower.transformer, "resblocks", ())
    plain = all(type(block).__name__ == "ResidualAttentionBlock" for block in blocks)
    if getattr(tower, "cls_emb", None) is not None or pool != "argmax" or not plain or not blocks:
        return None
    return CausalTower(tower)


class CausalTower:
    """Runs the parts of a causal text tower on tokens without padding."""

    def __init__(self, tower: Any) -> None:
        self._tower = tower
        self._blocks = list(tower.transformer.resblocks)
        self._heads = self._blocks[0].attn.num_heads

    def read_prefix(
        self, tokens: Sequence[int], before: Sequence[KeysValues] = ()
    ) -> list[KeysValues]:
        """Return each layer's keys and values for the tokens that many texts begin with.

        `before` holds those of tokens that stand before these, and is taken into the answer.
        """
        start = before[0][0].shape[1] if before else 0
        places = torch.arange(len(tokens), device=self._device)
        hidden = self._embed(self._tensor([tokens]), start + places)
        bias = self._bias((places[None] <= places[:, None])[None], start)
        past: list[KeysValues] = []
        for index, block in enumerate(self._blocks):
            query, key, value = self._project(block, hidden, before[index] if before else None)
            past.append((key[0], value[0]))
            if index < len(self._blocks) - 1:
                hidden = self._finish(block, hidden, self._attend(query, key, value, bias))
        return past

    def encode(
        self,
        rows: Sequence[Row],
        past: Sequence[KeysValues] = (),
        between: Callable[[], None] = lambda: None,
    ) -> Tensor:
        """Encode the texts of rows, in the rows' order, that go on from `past`: (n, dimension).

        `between` is called before each layer.
        """
        start = past[0][0].shape[1] if past else 0
        length = max(len(row.ids) for row in rows)
        ids, positions, until = (
            self._tensor([part + [0] * (length - len(part)) for part in parts])
            for parts in zip(*((row.ids, row.positions, row.until) for row in rows), strict=True)
        )
        ends = [index * length + end for index, row in enumerate(rows) for end in row.ends]
        chosen = self._tensor(ends)
        # A token sees those before it whose texts it is in, and itself even where nothing stands.
        places = torch.arange(length, device=self._device)
        earlier = places[None] <= places[:, None]
        seen = earlier & ((places[:, None] < until[:, None]) | (places[None] == places[:, None]))
        bias = self._bias(seen, start)
        hidden = self._embed(ids, positions + start)
        for index, block in enumerate(self._blocks):
            between()
            query, key, value = self._project(block, hidden, past[index] if past else None)
            mixed = self._attend(query, key, value, bias)
            if index == len(self._blocks) - 1:
                mixed, hidden = mixed.flatten(0, 1)[chosen], hidden.flatten(0, 1)[chosen]
            hidden = self._finish(block, hidden, mixed)
        pooled = self._tower.ln_final(hidden)
        projection = self._tower.text_projection
        if projection is None:
            return torch.as_tensor(pooled)
        if isinstance(projection, torch.nn.Linear):
            return torch.as_tensor(projection(pooled))
        return torch.as_tensor(pooled @ projection)

    @property
    def _device(self) -> torch.device:
        device: torch.device = self._tower.positional_embedding.device
        return device

    @property
    def _dtype(self) -> torch.dtype:
        dtype: torch.dtype = self._tower.transformer.get_cast_dtype()
        return dtype

    def _tensor(self, numbers: Sequence[Any]) -> Tensor:
        """Return lists of whole numbers as a tensor, by numpy, which reads them faster."""
        return torch.from_numpy(np.array(numbers, dtype=np.int64)).to(self._device)

    def _embed(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Return what the first layer reads: (n, length, width)."""
        tower, dtype = self._tower, self._dtype
        places = tower.positional_embedding[positions]
        return torch.as_tensor(tower.token_embedding(ids).to(dtype) + places.to(dtype))

    def _bias(self, seen: Tensor, start: int) -> Tensor:
        """Return what is added to scores, from who sees whom: (n, 1, length, start + length)."""
        bias = torch.zeros(seen.shape, dtype=self._dtype, device=seen.device)
        bias.masked_fill_(~seen, float("-inf"))
        return functional.pad(bias, (start, 0))[:, None]  # all see what stands before

    def _project(
        self, block: Any, hidden: Tensor, before: KeysValues | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return query, key and value: (n, heads, length, width of a head) each.

        Keys and values begin with those of the prefix, if any.
        """
        attention = block.attn
        projected = functional.linear(
            block.ln_1(hidden), attention.in_proj_weight, attention.in_proj_bias
        )
        count, length, _ = hidden.shape
        split = projected.view(count, length, 3, self._heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = split[0], split[1], split[2]
        if before is not None:
            key, value = (
                torch.cat((shared.expand(count, -1, -1, -1), own), dim=2)
                for shared, own in zip(before, (key, value), strict=True)
            )
        return query, key, value

    @staticmethod
    def _attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        """Return the attention's output, heads side by side: (n, length, width)."""
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return mixed.transpose(1, 2).flatten(2)

    def _finish(self, block: Any, hidden: Tensor, mixed: Tensor) -> Tensor:
        hidden = hidden + block.ls_1(block.attn.out_proj(mixed))
        return torch.as_tensor(hidden + block.ls_2(block.mlp(block.ln_2(hidden))))
