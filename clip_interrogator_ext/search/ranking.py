"""Order phrases by how close they are to an image."""

from __future__ import annotations

import torch
from torch import Tensor

_CHUNK_ROWS = 1 << 12  # in float32 they stay in a processor's cache


def similarities(table: Tensor, image: Tensor) -> Tensor:
    """Return each row's cosine to the image: (n, dim), (dim,) -> (n,), all of unit length.

    Tables are kept as float16 and ranked in float32. They are multiplied in chunks, so that none
    stands whole in float32 beside itself.
    """
    parts = [
        table[begin : begin + _CHUNK_ROWS].float() @ image
        for begin in range(0, len(table), _CHUNK_ROWS)
    ]
    return torch.cat(parts) if parts else torch.empty(0)


def top_k(scores: Tensor, k: int) -> list[int]:
    """Return the indices of the k highest scores, highest first; ties in their given order.

    scores: (n,). Exact: nothing is kept per chunk and nothing is sampled.
    """
    k = min(k, len(scores))
    if k <= 0:
        return []
    threshold = scores.topk(k).values[-1]
    above = torch.nonzero(scores > threshold).flatten()
    equal = torch.nonzero(scores == threshold).flatten()[: k - len(above)]
    chosen = torch.cat((above, equal)).sort().values
    order = scores[chosen].sort(descending=True, stable=True).indices
    indices: list[int] = chosen[order].tolist()
    return indices
