"""Moving and summing detector pixels of a batch (B, ky, kx), for NumPy and CuPy arrays alike."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt

Array = Any


def shift_whole(batch: Array, shift: tuple[int, int], xp: Any = np) -> Array:
    """Move patterns by whole pixels; what leaves the frame is lost, what enters is zero.

    Parameters
    ----------
    batch : array, shape (B, ky, kx)
        Never modified.
    shift : (int, int)
        ``(sy, sx)`` in px towards larger indices.
    xp : module
        Array namespace of `batch`.

    Returns
    -------
    array, shape (B, ky, kx)
        `batch` itself if nothing moves, else a new array of its dtype.
    """
    if not any(shift):
        return batch
    out = xp.zeros(batch.shape, dtype=batch.dtype)
    (to_y, from_y), (to_x, from_x) = (_moved(s) for s in shift)
    out[:, to_y, to_x] = batch[:, from_y, from_x]
    return out


def shift_linear(batch: np.ndarray, shift: tuple[float, float]) -> np.ndarray:
    """Move patterns by fractions of a pixel with linear interpolation and zero fill.

    Counts stay positive, and their sum is kept but for what leaves the frame.

    Parameters
    ----------
    batch : ndarray of float, shape (B, ky, kx)
    shift : (float, float)
        ``(sy, sx)`` in px towards larger indices.
    """
    corner = [math.floor(s) for s in shift]
    part = [s - c for s, c in zip(shift, corner, strict=True)]
    out = np.zeros_like(batch)
    for y, x in itertools.product((0, 1), repeat=2):
        weight = (part[0] if y else 1 - part[0]) * (part[1] if x else 1 - part[1])
        if weight:
            out += batch.dtype.type(weight) * shift_whole(batch, (corner[0] + y, corner[1] + x))
    return out


def sum_bin(batch: Array, b: int, dtype: npt.DTypeLike) -> Array:
    """Sum ``b x b`` blocks of pixels.

    Parameters
    ----------
    batch : array, shape (B, ky, kx)
        `b` divides both detector axes.  Never modified.
    b : int
        Side of a block; 1 returns `batch` itself.
    dtype : dtype
        Of the sums.

    Returns
    -------
    array, shape (B, ky // b, kx // b)
    """
    if b == 1:
        return batch
    total = batch[:, ::b, ::b].astype(dtype)
    for i, j in np.ndindex(b, b):
        if i or j:
            total += batch[:, i::b, j::b]
    return total


def _moved(s: int) -> tuple[slice, slice]:
    """Slices (to, from) of a shift by `s` along one axis, without wrapping."""
    ahead, behind = slice(abs(s), None), slice(None, -abs(s) or None)
    return (ahead, behind) if s >= 0 else (behind, ahead)
