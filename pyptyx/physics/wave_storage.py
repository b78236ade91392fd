"""How the waves in front of the slices are remembered until the adjoint needs them.

The gradient of slice z needs the wave that came into it.  All of them together are most of what a
batch takes, so there are three ways: keep them (`Stored`), keep them in half precision (`Halved`),
or keep every k-th and compute the ones between again (`Segments`; forward FFTs are done twice).
The first wave is the illumination, which lives anyway and is always kept as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

from pyptyx.backend import Backend

Array = Any
Advance = Callable[[int, Array], Array]

NAMES = ("store", "recompute", "half")

_HALF_TOP = 14
"""Largest exponent of a wave in half precision: two bits below the overflow of float16."""


class Waves(Protocol):
    """The incoming waves of one batch; put in ascending, taken in descending order of slices."""

    def put(self, z: int, wave: Array) -> None:
        """Remember the wave in front of slice `z`."""
        ...

    def get(self, z: int, advance: Advance) -> Array:
        """The wave in front of slice `z`, not to be changed.

        ``advance(z, wave)`` makes the wave in front of slice z + 1 from that in front of slice z.
        """
        ...


class Stored:
    """All waves as they are."""

    def __init__(self) -> None:
        self._waves: list[Array] = []

    def put(self, z: int, wave: Array) -> None:
        """See `Waves`."""
        self._waves.append(wave)

    def get(self, z: int, advance: Advance) -> Array:
        """See `Waves`."""
        del advance
        return self._waves[z]


class Halved:
    """Real and imaginary parts as float16 times a power of two of each pattern and mode.

    The power is such that nothing overflows; what is lost is the 11th bit of a number and whatever
    lies more than 28 bits below the largest of its wave.

    Parameters
    ----------
    backend : Backend
    """

    def __init__(self, backend: Backend) -> None:
        self._xp = backend.xp
        self._waves: list[tuple[Array, Array | None]] = []

    def put(self, z: int, wave: Array) -> None:
        """See `Waves`."""
        if z == 0:
            self._waves.append((wave, None))
            return
        xp, real = self._xp, wave.real.dtype
        parts = wave.view(real).reshape(*wave.shape, 2)
        largest = abs(parts).max(axis=(-3, -2, -1), keepdims=True)
        scale = xp.ldexp(xp.ones_like(largest), xp.frexp(largest)[1] - _HALF_TOP).astype(real)
        self._waves.append(((parts / scale).astype("float16"), scale))

    def get(self, z: int, advance: Advance) -> Array:
        """See `Waves`."""
        del advance
        parts, scale = self._waves[z]
        if scale is None:
            return parts
        parts = parts * scale
        return parts.reshape(*parts.shape[:-2], -1).view(f"c{2 * parts.dtype.itemsize}")


class Segments:
    """Every k-th wave, with k the root of their number; the others segment by segment.

    Parameters
    ----------
    count : int
        Number of slices.
    """

    def __init__(self, count: int) -> None:
        self._every = segment_length(count)
        self._kept: dict[int, Array] = {}
        self._segment: dict[int, Array] = {}

    def put(self, z: int, wave: Array) -> None:
        """See `Waves`."""
        if z % self._every == 0:
            self._kept[z] = wave

    def get(self, z: int, advance: Advance) -> Array:
        """See `Waves`."""
        if z not in self._segment:
            start = z - z % self._every
            self._segment = {start: self._kept[start]}
            for before in range(start, z):
                self._segment[before + 1] = advance(before, self._segment[before])
        wave = self._segment[z]
        if z % self._every:
            del self._segment[z]
        return wave


def segment_length(count: int) -> int:
    """Slices of a segment: so many, that kept waves and those of a segment are fewest together."""
    return max(1, math.isqrt(count))


def waves_alive(name: str, count: int) -> float:
    """Waves of one mode that `name` holds at once for `count` slices, the illumination left out."""
    if name == "half":
        return (count - 1) / 2
    if name == "recompute":
        every = segment_length(count)
        return min(count - 1, (count - 1) // every + every - 1)
    return count - 1
