"""Sums that have the same bits in whatever order, and over however many workers, they are formed.

Every contribution is rounded to a multiple of a power of two, its *unit*, and added as a 64-bit
integer; integers are added without rounding.  The unit follows from a few measurements that are
the same however the work is shared out: their largest contribution lies `HEADROOM` bits below what
as many contributions as there are measurements could overflow.  Where another measurement exceeds
that, the sums are formed once more with larger units.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from pyptyx.trees import real_view

Array = Any
Tree = dict[str, Array]

HEADROOM = 8
"""Bits by which a contribution may exceed those the unit was chosen from."""


def largest_bits(count: int) -> int:
    """Bits of a contribution of which `count` can be added without overflow."""
    return 62 - max(1, count).bit_length()


def units(peaks: Mapping[str, float], count: int) -> dict[str, float]:
    """The unit of every sum of `count` contributions, given its typical largest contribution."""
    bits = largest_bits(count) - HEADROOM
    return {k: math.ldexp(1.0, math.frexp(peak)[1] - bits) for k, peak in peaks.items()}


def peak(a: Array) -> float:
    """Largest magnitude of real and imaginary parts; NaN if there is one."""
    return float(abs(real_view(a)).max())


def zeros(like: Array) -> Array:
    """An empty sum for an array; real and imaginary parts lie side by side along the last axis."""
    parts = 2 if like.dtype.kind == "c" else 1
    out = np.empty_like(like, np.int64, shape=(*like.shape[:-1], like.shape[-1] * parts))
    out[...] = 0
    return out


def add(target: Array, contribution: Array, unit: float, corner: tuple[int, int] = (0, 0)) -> None:
    """Add a contribution, its last two axes at `corner` of those of the sum.

    Parameters
    ----------
    target : array of int64
        From `zeros`.
    contribution : array
        Finite numbers.
    unit : float
        What one counts.
    corner : tuple of int
        (y, x).
    """
    parts = 2 if contribution.dtype.kind == "c" else 1
    flat = real_view(contribution).astype(np.float64)
    flat *= 1 / unit
    steps = flat.round().astype(np.int64)
    steps = steps.reshape(*contribution.shape[:-1], contribution.shape[-1] * parts)
    (y, x), (ny, nx) = corner, steps.shape[-2:]
    target[..., y : y + ny, parts * x : parts * x + nx] += steps


def value(total: Array, unit: float, dtype: np.dtype[Any]) -> Array:
    """The sum as numbers of `dtype`."""
    real = np.empty(0, dtype).real.dtype
    return (total * unit).astype(real).view(dtype)
