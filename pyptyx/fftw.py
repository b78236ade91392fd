"""FFTW for the windows of a run, through pyfftw; about twice as fast as SciPy's transforms.

A plan belongs to one window, not to a batch: what a pattern becomes does not depend on the patterns
beside it, and planning (0.1 s at 128², once per size) is done once.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

Array = Any

LARGEST_WINDOW = 1 << 20
"""Pixels above which planning takes longer than it saves: whole objects are transformed rarely."""

_ALIGNMENT = 16
_PLANNER = threading.Lock()


class WindowTransforms:
    """Transforms over the last two axes without a factor, for one thread at a time."""

    def __init__(self) -> None:
        self._plans: dict[tuple[Any, ...], Any] = {}

    @staticmethod
    def fits(a: Array) -> bool:
        """Whether `a` is what the plans are made for: complex, contiguous, of moderate size."""
        return (
            isinstance(a, np.ndarray)
            and a.ndim >= 2
            and a.dtype.kind == "c"
            and a.flags.c_contiguous
            and a.size > 0
            and a.shape[-2] * a.shape[-1] <= LARGEST_WINDOW
            and a.ctypes.data % _ALIGNMENT == 0
            and (a.shape[-2] * a.shape[-1] * a.itemsize) % _ALIGNMENT == 0
        )

    def transform(self, a: Array, forward: bool, overwrite: bool) -> Array:
        """Forward or backward DFT of every window of `a`, which must fit (see `fits`)."""
        out = a if overwrite and a.flags.writeable else np.empty_like(a)
        plan = self._plan(a.shape[-2:], a.dtype, forward, out is a)
        window = a.shape[-2:]
        for source, target in zip(a.reshape(-1, *window), out.reshape(-1, *window), strict=True):
            plan.update_arrays(source, target)
            plan.execute()
        return out

    def _plan(
        self, window: tuple[int, ...], dtype: np.dtype[Any], forward: bool, in_place: bool
    ) -> Any:
        key = window, dtype, forward, in_place
        if key not in self._plans:
            import pyfftw

            source = _aligned(window, dtype)
            target = source if in_place else _aligned(window, dtype)
            with _PLANNER:
                self._plans[key] = pyfftw.FFTW(
                    source,
                    target,
                    axes=(0, 1),
                    direction="FFTW_FORWARD" if forward else "FFTW_BACKWARD",
                    flags=("FFTW_MEASURE",),
                )
        return self._plans[key]


def _aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """An empty array on an address that every other array of the plan may have as well."""
    raw = np.empty(int(np.prod(shape)) * dtype.itemsize + 4 * _ALIGNMENT, np.uint8)
    offset = _ALIGNMENT - raw.ctypes.data % (2 * _ALIGNMENT)
    offset %= 2 * _ALIGNMENT
    return raw[offset : offset + int(np.prod(shape)) * dtype.itemsize].view(dtype).reshape(shape)
