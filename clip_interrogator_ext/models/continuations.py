"""Encode many texts through a causal CLIP text tower without repeating what they share.

The tower is causal and pooled at the end-of-text token: no position sees what follows it. So
padding behind a text can be cut, texts of equal length can share a batch, and texts that begin
alike need their beginning only once. Each layer's keys and values of the shared prefix are
computed once; a text's own tokens attend to those and to each other. In the last layer only the
end-of-text position is computed. The vectors are those of the whole texts, up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

KeysValues = tuple[Tensor, Tensor]
"""Keys and values of one layer: (heads, positions, width of a head) each."""


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

    def encode(self, rows: Tensor) -> Tensor:
        """Encode texts of one length: (n, length) token ids -> (n, dimension)."""
        return self.continue_from([], 0, rows)

    def read_prefix(self, tokens: Sequence[int]) -> list[KeysValues]:
        """Return each layer's keys and values for the tokens that many texts begin with."""
        hidden = self._embed(self._row(tokens), 0)
        past: list[KeysValues] = []
        for block in self._blocks:
            query, key, value = self._project(block, hidden)
            past.append((key[0], value[0]))
            hidden = self._finish(block, hidden, self._attend(query, key, value, None))
        return past

    def continue_from(self, past: Sequence[KeysValues], start: int, rows: Tensor) -> Tensor:
        """Encode texts that go on from position `start`: (n, length) ids -> (n, dimension).

        The last token of each row is the end-of-text token.
        """
        hidden = self._embed(rows, start)
        for index, block in enumerate(self._blocks):
            query, key, value = self._project(block, hidden)
            if index == len(self._blocks) - 1:
                query, hidden = query[:, :, -1:], hidden[:, -1:]
            shared = past[index] if past else None
            hidden = self._finish(block, hidden, self._attend(query, key, value, shared))
        pooled = self._tower.ln_final(hidden[:, 0])
        projection = self._tower.text_projection
        if projection is None:
            return torch.as_tensor(pooled)
        if isinstance(projection, torch.nn.Linear):
            return torch.as_tensor(projection(pooled))
        return torch.as_tensor(pooled @ projection)

    def _row(self, tokens: Sequence[int]) -> Tensor:
        return torch.tensor([list(tokens)], device=self._tower.positional_embedding.device)

    def _embed(self, rows: Tensor, start: int) -> Tensor:
        tower = self._tower
        dtype = tower.transformer.get_cast_dtype()
        positions = tower.positional_embedding[start : start + rows.shape[1]]
        return torch.as_tensor(tower.token_embedding(rows).to(dtype) + positions.to(dtype))

    def _project(self, block: Any, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return query, key and value: (n, heads, length, width of a head) each."""
        attention = block.attn
        projected = functional.linear(
            block.ln_1(hidden), attention.in_proj_weight, attention.in_proj_bias
        )
        count, length, _ = hidden.shape
        split = projected.view(count, length, 3, self._heads, -1).permute(2, 0, 3, 1, 4)
        return split[0], split[1], split[2]

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, shared: KeysValues | None
    ) -> Tensor:
        """Return the attention's output, heads side by side: (n, queries, width).

        The queries are the last positions of the keys, and see no key behind their own.
        """
        count, heads, asked, size = query.shape
        length = key.shape[2]
        query = query / math.sqrt(size)
        own = query @ key.transpose(-1, -2)  # (n, heads, asked, length)
        if asked > 1:
            hidden_keys = torch.ones(asked, length, dtype=torch.bool, device=own.device).triu(1)
            own = own.masked_fill(hidden_keys, float("-inf"))
        if shared is None:
            weights = own.softmax(dim=-1, dtype=torch.float32).to(value.dtype)
            mixed = weights @ value
        else:
            # One product for all texts: the prefix is never copied for each of them.
            shared_key, shared_value = shared
            folded = query.transpose(0, 1).reshape(heads, count * asked, size)
            before = (folded @ shared_key.transpose(-1, -2)).view(heads, count, asked, -1)
            both = torch.cat((before.transpose(0, 1), own), dim=-1)
            weights = both.softmax(dim=-1, dtype=torch.float32).to(value.dtype)
            prefix_length = shared_key.shape[1]
            folded = weights[..., :prefix_length].transpose(0, 1)
            folded = folded.reshape(heads, count * asked, prefix_length) @ shared_value
            mixed = folded.view(heads, count, asked, size).transpose(0, 1)
            mixed = mixed + weights[..., prefix_length:] @ value
        return mixed.transpose(1, 2).reshape(count, asked, heads * size)

    def _finish(self, block: Any, hidden: Tensor, mixed: Tensor) -> Tensor:
        hidden = hidden + block.ls_1(block.attn.out_proj(mixed))
        return torch.as_tensor(hidden + block.ls_2(block.mlp(block.ln_2(hidden))))
