"""Counts as whole numbers of one or two bytes, where that loses nothing.

Detectors count, but their files often hold floats: counts times a gain.  `find_packing` recognises
integers and such floats, checks every single number, and says how to hold them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pyptyx.data.base import PatternSource
from pyptyx.data.prepare import Preparation

Array = Any

_LARGEST = np.iinfo(np.uint16).max


@dataclass(frozen=True)
class Packing:
    """Patterns as whole numbers times a gain.

    Attributes
    ----------
    dtype : dtype
        uint8 or uint16.
    gain : float32 or float64 scalar
        What a count stands for; it is multiplied in its own precision.
    """

    dtype: np.dtype[Any]
    gain: np.floating[Any]

    def pack(self, patterns: np.ndarray) -> np.ndarray:
        """Whole numbers of the stored patterns."""
        if patterns.dtype.kind in "bui":
            return patterns.astype(self.dtype)
        return np.rint(patterns / self.gain).astype(self.dtype)

    def unpack(self, counts: Array, dtype: Any) -> Array:
        """Patterns of `dtype` on whatever device the counts lie."""
        if self.gain == 1:
            return counts.astype(dtype)
        return (counts.astype(self.gain.dtype) * self.gain).astype(dtype)


def common_gain(values: np.ndarray) -> np.floating[Any] | None:
    """The number that all `values` are whole multiples of, exactly; None if there is none.

    Parameters
    ----------
    values : ndarray of float
        Finite; at most 65535 steps from the largest to zero.
    """
    levels = np.unique(values)
    if levels.size == 0 or levels[0] < 0 or levels[-1] == 0:
        return None
    levels = levels[levels > 0]
    if levels.size > _LARGEST:
        return None
    exact = levels.astype(np.float64)
    gain = 0.0
    for level in exact[:_FOR_DIVISOR]:
        gain = _common_divisor(level, gain)
        gain = level / round(level / gain)  # the larger the number, the better it tells the gain
        if exact[-1] > (_LARGEST + 0.5) * gain:
            return None
    for level in exact:
        gain = level / max(1, round(level / gain))
    steps = np.rint(exact / gain)
    rounding = np.spacing(levels).astype(np.float64) / 2
    middle = (((exact - rounding) / steps).max() + ((exact + rounding) / steps).min()) / 2
    candidates = (levels.dtype.type(middle), np.float64(middle))
    return next((g for g in candidates if _is_exact(levels, g)), None)


def _common_divisor(a: float, b: float) -> float:
    """Euclid's algorithm for numbers that are rounded."""
    tolerance = max(a, b) * _TOLERANCE
    while b > tolerance:
        rest = a % b
        a, b = b, min(rest, b - rest)
    return a


_FOR_DIVISOR = 256
"""Levels from which the divisor is found, the smallest ones: they are the most exact."""

_TOLERANCE = 2.0**-20
"""Of the larger number: above the rounding of single precision, below 1/65535."""


def _is_exact(values: np.ndarray, gain: np.floating[Any]) -> bool:
    """Whether packing and unpacking gives back every bit."""
    steps = np.rint(values / gain)
    if values.size and (steps.min() < 0 or steps.max() > _LARGEST):
        return False
    restored = (steps.astype(gain.dtype) * gain).astype(values.dtype)
    return bool(np.array_equal(restored, values))


def find_packing(
    source: PatternSource, preparation: Preparation, limit: int | None = None
) -> Packing | None:
    """How prepared patterns, apart from their multiplier, are held as whole numbers.

    Parameters
    ----------
    source : PatternSource
        Walked through in pieces.
    preparation : Preparation
        Summing bins makes larger numbers.
    limit : int, optional
        Look at the first so many patterns only.

    Returns
    -------
    Packing or None
        None for negative numbers, for counts above 65535 and for floats that are no multiples of a
        common number.
    """
    largest, gain = 0.0, None
    for _, patterns in source.iter_chunks(limit=limit):
        if patterns.dtype.kind == "f":
            if not np.isfinite(patterns).all():
                return None
            if gain is None:
                gain = common_gain(patterns)
            if not patterns.any():
                continue
            if gain is None or not _is_exact(patterns, gain):
                return None
            patterns = np.rint(patterns / gain)
        if patterns.size and patterns.min() < 0:
            return None
        largest = max(largest, float(patterns.max()) * _summed(preparation, patterns.ndim))
    if largest > _LARGEST:
        return None
    dtype = np.dtype(np.uint8 if largest <= np.iinfo(np.uint8).max else np.uint16)
    return Packing(dtype, np.float32(1) if gain is None else gain)


def _summed(preparation: Preparation, axes: int) -> int:
    """Pixels that become one."""
    return preparation.bin**2 if axes == 3 else 1


def typed_packing(source: PatternSource, preparation: Preparation) -> Packing | None:
    """The packing that the stored type alone ensures, without a look at the numbers."""
    small = source.dtype in (np.dtype(np.uint8), np.dtype(np.uint16))
    return Packing(source.dtype, np.float32(1)) if small and preparation.bin == 1 else None
