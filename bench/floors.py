"""Say what the arithmetic alone costs on this machine, at the rate of a large product."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import Any

import torch

from clip_interrogator_ext.models.continuations import count_common


def matrix_rate(device: str) -> float:
    """Return how many floating-point operations a second a product of large matrices reaches."""
    left, right = torch.rand(2048, 2048, device=device), torch.rand(2048, 2048, device=device)
    best = 0.0
    for _ in range(9):
        began = time.perf_counter()
        (left @ right)[0, 0].item()  # an accelerator is waited for
        best = max(best, 2 * 2048**3 / (time.perf_counter() - began))
    return best


def reading(table: torch.Tensor) -> float:
    """Return the seconds that it takes to copy half of a table, which moves all of its bytes."""
    half = table[: len(table) // 2]
    target = torch.empty_like(half)
    times = []
    for _ in range(9):
        began = time.perf_counter()
        target.copy_(half)
        times.append(time.perf_counter() - began)
    return min(times)


def encoding(encoder: Any, steps: Sequence[tuple[str, Sequence[str]]]) -> float:
    """Return the operations for texts "prefix, phrase", step by step, with nothing done twice.

    Each different beginning of a text counts once in a step, and what all texts of a step begin
    with only if the step before did not begin so. Of the last layer only what follows from the
    ends counts. Products with weights count, what attention multiplies besides does not.
    """
    blocks = getattr(encoder.module, "text", encoder.module).transformer.resblocks
    inward = blocks[0].attn.in_proj_weight.numel()
    outward = blocks[0].attn.out_proj.weight.numel() + sum(
        layer.weight.numel() for layer in blocks[0].mlp if isinstance(layer, torch.nn.Linear)
    )
    tokens = ends = 0
    known: list[int] = []
    for prefix, phrases in steps:
        reader = encoder.reader
        ids = reader.continuations(prefix, phrases) if prefix else map(reader.ids, phrases)
        texts = sorted(map(reader.row, ids))
        pairs = itertools.pairwise(texts)
        shared = texts[0][: count_common(texts[0], texts[-1])]
        tokens += len(texts[0]) + sum(len(b) - count_common(a, b) for a, b in pairs)
        tokens -= count_common(known, shared)
        ends += len(texts)
        known = shared
    of_all = (len(blocks) - 1) * (inward + outward) + inward
    return 2.0 * (tokens * of_all + ends * outward)
