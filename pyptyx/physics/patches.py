"""Positions and the windows they cut out of the object.

A position is the top-left corner of the probe window in object pixels.  It splits into an integer
corner (half to even) and a fraction that moves the probe.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pyptyx.backend import Backend
from pyptyx.physics.grid import Band
from pyptyx.physics.kernels import select

Array = Any


def split(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Integer corners (N, 2) int64 and fractions (N, 2) float64 of `positions`."""
    corners = np.rint(positions)
    return corners.astype(np.int64), positions - corners


class BandLimit:
    """``F⁻¹ M F a`` over the last two axes; its own adjoint, since M is real.

    Parameters
    ----------
    mask : ndarray of bool, (ny, nx)
        ``M``, a disc around the zero frequency in the corner.
    backend : Backend
    dtype : dtype
        Complex type of the arrays.
    """

    def __init__(self, mask: np.ndarray, backend: Backend, dtype: Any) -> None:
        self._backend = backend
        self._band = Band(mask)
        # 1/N belongs to the inverse transform, which leaves it out.
        factor = mask.astype(np.empty(0, dtype).real.dtype) / mask.size
        self._factor = backend.asarray(factor)

    def __call__(self, a: Array) -> Array:
        """A new array like `a` (..., ny, nx)."""
        spectrum = self._backend.fft2(a, band=self._band)
        spectrum *= self._factor
        return self._backend.fft2_adjoint(spectrum, overwrite=True, band=self._band)


def own_windows(
    obj: Array, corners: np.ndarray, window: tuple[int, int], limit: BandLimit, backend: Backend
) -> tuple[Array, np.ndarray]:
    """Windows of the object, each band-limited by itself (PyPty's way), stacked along y.

    The stack is an object again, in which the windows no longer overlap.

    Parameters
    ----------
    obj : array, (Mo, Nz, Y, X), complex
    corners : ndarray of int, (B, 2)
    window : tuple of int
        ``(ny, nx)``.
    limit : BandLimit
        Of a window.
    backend : Backend

    Returns
    -------
    stack : array, (Mo, Nz, B · ny, nx)
    corners : ndarray of int, (B, 2)
        Corners of the windows in the stack.
    """
    cut = limit(select(backend).gather(obj, corners, window))
    stack = backend.xp.moveaxis(cut, 0, 2).reshape(*obj.shape[:2], -1, window[1])
    rows = window[0] * np.arange(len(corners))
    return stack, np.stack([rows, np.zeros_like(rows)], axis=1)


def own_windows_vjp(
    corners: np.ndarray, g: Array, limit: BandLimit, g_object: Array, backend: Backend
) -> None:
    """Add the adjoint of `own_windows`, applied to `g` (Mo, Nz, B · ny, nx), into `g_object`."""
    cut = g.reshape(*g.shape[:2], len(corners), -1, g.shape[-1])
    select(backend).scatter_add(g_object, corners, limit(backend.xp.moveaxis(cut, 2, 0)))
