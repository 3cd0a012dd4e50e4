"""Order phrases by how close they are to an image."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

_CHUNK_ROWS = 1 << 11  # in float32 they stay in a processor's cache
_MANY = 1 << 11  # with fewer rows a first look does not pay
# How far the product of unit vectors in float16 can be from the exact one: the image's numbers
# are rounded by 2**-11 of themselves, and so is the product.
_ROUNDING = 2.0**-10


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

    Exact: a first look in float16, where this machine is fast at it, only leaves out rows that
    are farther from the k-th than rounding can move them.
    """
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
    if not (halves and count >= _MANY and 0 < k < count // 2 and _half_products_pay()):
        return None
    rough = mean(
        [(table @ image.half()).float() for table, image in zip(tables, images, strict=True)]
    )
    return torch.nonzero(rough >= _kth_highest(rough, k) - 2 * _ROUNDING).flatten()


@functools.cache
def _half_products_pay() -> bool:
    """Say whether this torch multiplies float16 faster than it converts it, and as exactly."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn((1 << 12) + 1, 512, generator=generator)
    *_, image = rows = functional.normalize(rows, dim=-1)
    table = rows.half()

    def seconds(product: Callable[[], Tensor]) -> float:
        times = []
        for _ in range(5):
            began = time.perf_counter()
            product()
            times.append(time.perf_counter() - began)
        return min(times)

    try:
        error = ((table @ image.half()).float() - similarities(table, image)).abs().max()
        faster = seconds(lambda: table @ image.half()) < seconds(lambda: similarities(table, image))
    except RuntimeError:  # older torch has no such product on the CPU
        return False
    return faster and bool(error < _ROUNDING)


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
    """Return the k-th highest of scores; numpy finds it in a tenth of torch's time."""
    place = len(scores) - k
    return float(np.partition(scores.numpy(), place)[place])
