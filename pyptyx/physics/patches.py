"""Positions and the windows they cut out of the object.

A position is the top-left corner of the probe window in object pixels.  It splits into an integer
corner (half to even) and a fraction that moves the probe.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pyptyx.backend import Backend
from pyptyx.physics.kernels import reference as kernels

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


def patches(
    obj: Array, corners: np.ndarray, window: tuple[int, int], mask: Array | None, backend: Backend
) -> tuple[Array, np.ndarray]:
    """Windows of the object, each band-limited if a mask is given.

    Parameters
    ----------
    obj : array, (Mo, Nz, Y, X), complex
    corners : ndarray of int, (B, 2)
    window : tuple of int
        ``(ny, nx)``.
    mask : array, (ny, nx), or None
        Band limit per window (PyPty's way); None leaves the windows as they are.
    backend : Backend

    Returns
    -------
    windows : array, (B, Mo, Nz, ny, nx)
    saved
        What `patches_vjp` needs.
    """
    out = kernels.gather(obj, corners, window)
    if mask is not None:
        out = band_limit(out, mask, backend)
    return out, corners


def patches_vjp(
    saved: np.ndarray, g: Array, mask: Array | None, g_object: Array, backend: Backend
) -> None:
    """Add the adjoint of `patches`, applied to `g` (B, Mo, Nz, ny, nx), into `g_object`."""
    if mask is not None:
        g = band_limit(g, mask, backend)
    kernels.scatter_add(g_object, saved, g)
