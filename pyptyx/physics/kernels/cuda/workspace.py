"""Device memory that the kernels of one layout need between themselves."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pyptyx.backend import Backend
from pyptyx.physics.kernels.cuda.layout import CHUNK, Layout

Array = Any


def address(a: Array) -> int:
    """Where the data of an array of the device begin; 0 for None.

    Raises
    ------
    ValueError
        If the array is not contiguous.
    """
    if a is None:
        return 0
    if not a.flags.c_contiguous:
        raise ValueError("a kernel was given an array that is not contiguous")
    interface = getattr(a, "__cuda_array_interface__", None) or a.__array_interface__
    return int(interface["data"][0])


def workspace_shapes(layout: Layout, batch: int, slices: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays of a batch, by the field of `Task` that points to them.

    Pairs of float64 count as one complex128 (see `source`).
    """
    ny, modes = layout.shape[0], layout.modes
    wave = (batch, modes, ny, layout.pitch)
    kept = slices if layout.shift else slices - 1
    chunks = math.ceil(batch / CHUNK)
    shapes: dict[str, tuple[int, ...]] = {
        "wave": wave,
        "incoming": (kept, *wave),
        "loss_parts": (batch, layout.lit_groups + layout.dark_groups),
        "probe_parts": (chunks, modes, ny, layout.probe_width),
    }
    if layout.background:
        shapes["slopes"] = (batch, *layout.data_shape)
    if layout.light:
        shapes["pull_parts"] = shapes["loss_parts"]
    if layout.tilt:
        shapes["tilt_parts"] = (slices - 1, batch, modes, layout.lit_groups)
    if layout.shift:
        shapes["ramp_y"] = (batch, ny)
        shapes["ramp_x"] = (batch, layout.stored)
        shapes["shift_parts"] = (batch, modes, layout.lit_groups)
    return shapes


_KINDS = {
    "loss_parts": np.complex128,
    "shift_parts": np.complex128,
    "pull_parts": np.complex128,
    "tilt_parts": np.complex128,
    "slopes": np.float32,
}
"""Types of the arrays that are not complex64."""


class Workspace:
    """The arrays of the largest batch so far; smaller batches use their beginnings."""

    def __init__(self, layout: Layout, slices: int, backend: Backend) -> None:
        self._layout = layout
        self._slices = slices
        self._xp = backend.xp
        self._batch = 0
        self._arrays: dict[str, Array] = {}

    def reserve(self, batch: int) -> bool:
        """Make room for `batch` patterns; whether the arrays have moved."""
        if batch <= self._batch:
            return False
        # The old arrays go first: both together may not fit, and neither may the new ones.
        self._batch, self._arrays = 0, {}
        shapes = workspace_shapes(self._layout, batch, self._slices)
        self._arrays = {
            name: self._xp.empty(shape, _KINDS.get(name, np.complex64))
            for name, shape in shapes.items()
        }
        self._batch = batch
        return True

    def addresses(self) -> dict[str, int]:
        """Addresses by the field of `Task`."""
        return {name: address(a) if a.size else 0 for name, a in self._arrays.items()}
