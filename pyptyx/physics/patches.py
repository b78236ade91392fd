"""Positions and the windows they cut out of the object.

A position is the top-left corner of the probe window in object pixels.  It splits into an integer
corner (half to even) and a fraction that moves the probe.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pyptyx.backend import Backend
from pyptyx.physics.kernels import select

Array = Any


def split(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Integer corners (N, 2) int64 and fractions (N, 2) float64 of `positions`."""
    corners = np.rint(positions)
    return corners.astype(np.int64), positions - corners


def band_limit(a: Array, mask: Array, backend: Backend) -> Array:
    """``F⁻¹ M F a`` over the last two axes; its own adjoint, since M is real."""
    spectrum = backend.fft2(a)
    spectrum *= mask
    return backend.ifft2(spectrum, overwrite=True)


def own_windows(
    obj: Array, corners: np.ndarray, window: tuple[int, int], mask: Array, backend: Backend
) -> tuple[Array, np.ndarray]:
    """Windows of the object, each band-limited by itself (PyPty's way), stacked along y.

    The stack is an object again, in which the windows no longer overlap.

    Parameters
    ----------
    obj : array, (Mo, Nz, Y, X), complex
    corners : ndarray of int, (B, 2)
    window : tuple of int
        ``(ny, nx)``.
    mask : array, (ny, nx)
        Band limit per window.
    backend : Backend

    Returns
    -------
    stack : array, (Mo, Nz, B · ny, nx)
    corners : ndarray of int, (B, 2)
        Corners of the windows in the stack.
    """
    cut = band_limit(select(backend).gather(obj, corners, window), mask, backend)
    stack = backend.xp.moveaxis(cut, 0, 2).reshape(*obj.shape[:2], -1, window[1])
    rows = window[0] * np.arange(len(corners))
    return stack, np.stack([rows, np.zeros_like(rows)], axis=1)


def own_windows_vjp(
    corners: np.ndarray, g: Array, mask: Array, g_object: Array, backend: Backend
) -> None:
    """Add the adjoint of `own_windows`, applied to `g` (Mo, Nz, B · ny, nx), into `g_object`."""
    cut = g.reshape(*g.shape[:2], len(corners), *mask.shape)
    select(backend).scatter_add(
        g_object, corners, band_limit(backend.xp.moveaxis(cut, 2, 0), mask, backend)
    )
