"""Order phrases by how close they are to an image."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

_CHUNK_ROWS = 1 << 11  # in float32 they stay in a processor's cache
_MANY = 1 << 11  # with fewer rows a first look does not pay
# How far the product of unit vectors in float16 can be from the exact one: the image's numbers
# are rounded by 2**-11 of themselves, and so is the product.
_ROUNDING = 2.0**-10
_HALF_PRODUCTS_SINCE = (2, 6)  # of torch; older ones have none on the CPU, or slow ones


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


def mean_similarities(tables: Sequence[Tensor], images: Sequence[Tensor]) -> Tensor:
    """Return the mean of each row's cosines, one for each backbone: (n, dim), (dim,) -> (n,)."""
    return mean(
        [similarities(table, image) for table, image in zip(tables, images, strict=True)]
    )


def mean(scores: Sequence[Tensor]) -> Tensor:
    """Return the mean of scores by one backbone or by several: (n,) each -> (n,)."""
    return scores[0] if len(scores) == 1 else torch.stack(list(scores)).mean(dim=0)


def nearest(tables: Sequence[Tensor], images: Sequence[Tensor], k: int) -> list[int]:
    """Return the k rows with the highest mean similarity, highest first; ties in their order.

    tables: (n, dim) of unit rows for each backbone; images: (dim,). Exact: a first look in
    float16, where torch has that, only leaves out rows that are farther from the k-th than
    rounding can move them.
    """
    if not tables or k <= 0:
        return []
    rows = _near_enough(tables, images, k)
    if rows is None:
        return top_k(mean_similarities(tables, images), k)
    exact = mean_similarities([table[rows] for table in tables], images)
    chosen: list[int] = rows[top_k(exact, k)].tolist()
    return chosen


def _near_enough(tables: Sequence[Tensor], images: Sequence[Tensor], k: int) -> Tensor | None:
    """Return the rows among which the k nearest are, in their order; None is for all rows."""
    count = len(tables[0])
    halves = all(table.dtype == torch.float16 for table in tables)
    if not (halves and count >= _MANY and k < count // 2 and _has_half_products()):
        return None
    rough = mean(
        [(table @ image.half()).float() for table, image in zip(tables, images, strict=True)]
    )
    error = _ROUNDING * sum(float(image.norm()) for image in images) / len(images)
    rows = torch.nonzero(rough >= _kth_highest(rough, k) - 2 * error).flatten()
    return rows if len(rows) < count // 2 else None


@functools.cache
def _has_half_products() -> bool:
    """Say whether torch multiplies float16 on the CPU quickly, and adds up in float32.

    It is told by the version and not by a clock, so that a machine always answers the same.
    """
    if tuple(map(int, torch.__version__.split(".")[:2])) < _HALF_PRODUCTS_SINCE:
        return False
    generator = torch.Generator().manual_seed(0)
    apart = torch.randn(256, 768, generator=generator)
    rows = functional.normalize(torch.cat((apart, 1 + 0.1 * apart)), dim=1)
    table = rows.half()
    try:
        errors = [(table @ row.half()).float() - similarities(table, row) for row in rows[::51]]
    except RuntimeError:  # a torch built without it
        return False
    return bool(torch.cat(errors).abs().max() < _ROUNDING)


def top_k(scores: Tensor, k: int) -> list[int]:
    """Return the indices of the k highest scores, highest first; ties in their given order.

    scores: (n,). Exact: nothing is kept per chunk and nothing is sampled.
    """
    k = min(k, len(scores))
    if k <= 0:
        return []
    threshold = _kth_highest(scores, k)
    above = torch.nonzero(scores > threshold).flatten()
    equal = torch.nonzero(scores == threshold).flatten()[: k - len(above)]
    chosen = torch.cat((above, equal)).sort().values
    order = scores[chosen].sort(descending=True, stable=True).indices
    indices: list[int] = chosen[order].tolist()
    return indices


def _kth_highest(scores: Tensor, k: int) -> float:
    """Return the k-th highest of scores; numpy finds it without sorting."""
    place = len(scores) - k
    return float(np.partition(scores.numpy(), place)[place])
