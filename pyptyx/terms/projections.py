"""Changes of object and positions that are made "by hand" between updates.

Objects are ``(Mo, Nz, Y, X)``, complex; phase and absorption are those of ``o = exp(-a + iφ)``, and
every slice of every mode is treated by itself.  Nothing is changed in place.  The functions of the
object work on NumPy and device arrays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pyptyx.backend import Backend

Array = Any

_DARK = 1e-10
"""Modulus below which absorption stops growing."""

_DAMPING = 1e-3
"""Transfer below which a deconvolution stops amplifying."""


def phase_and_absorption(obj: Array) -> tuple[Array, Array]:
    """``φ = arg o`` in (-π, π] and ``a = -ln|o|``, which ends at 23 for an opaque object."""
    return np.angle(obj), -np.log(np.maximum(np.abs(obj), _DARK))


def from_phase_and_absorption(phase: Array, absorption: Array) -> Array:
    """``o = exp(-a + iφ)``."""
    return np.exp(-absorption + 1j * phase)


def gaussian_filter(a: Array, sigma_px: float) -> Array:
    """Gaussian filter over the last two axes, edge values repeated, cut off at 4 σ.

    Parameters
    ----------
    a : array (..., Y, X), real
    sigma_px : float
        Standard deviation; 0 returns `a`.

    Returns
    -------
    array like `a`
    """
    radius = int(4 * sigma_px + 0.5)
    if radius == 0:
        return a
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma_px) ** 2)
    weights /= weights.sum()
    for axis in (-2, -1):
        widths = [(0, 0)] * a.ndim
        widths[axis] = (radius, radius)
        padded = np.pad(a, widths, mode="edge")
        moved = np.moveaxis(padded, axis, 0)
        n = a.shape[axis]
        out: Array = sum(float(w) * moved[k : k + n] for k, w in enumerate(weights))
        a = np.moveaxis(out, 0, axis)
    return a


def charge_flip(a: Array, delta: float, beta: float) -> Array:
    """Multiply what is below ``delta`` times the largest value of its slice with ``beta``.

    The comparison is signed: every negative value is multiplied.

    Parameters
    ----------
    a : array (..., Y, X), real
        Phase or absorption.
    delta, beta : float

    Returns
    -------
    array like `a`

    References
    ----------
    G. Oszlányi, A. Sütő, Acta Cryst. A 60 (2004) 134-141.
    """
    weak = a < delta * a.max(axis=(-2, -1), keepdims=True)
    return np.where(weak, beta * a, a)


def sharp_charge_flip(
    a: Array, delta: float, beta: float, widths_px: tuple[float, float], backend: Backend
) -> Array:
    """`charge_flip` of a deconvolved image.

    The smallest value of each slice is subtracted, the image deconvolved with ``exp(-r²/s1²)``,
    flipped, convolved with ``exp(-r²/s2²)``, and the smallest value added again.  The
    deconvolution is damped where the transfer falls below 1e-3.

    Parameters
    ----------
    a : array (..., Y, X), real
    delta, beta : float
    widths_px : tuple of float
        ``(s1, s2)``; 0 leaves a step out.
    backend : Backend

    Returns
    -------
    array like `a`
    """
    before, after = (_transfer(a.shape[-2:], s) for s in widths_px)
    floor = a.min(axis=(-2, -1), keepdims=True)
    inverse = before * (1 + _DAMPING**2) / (before**2 + _DAMPING**2)
    sharp = charge_flip(_multiplied(a - floor, inverse, backend), delta, beta)
    return _multiplied(sharp, after, backend) + floor


def nearest_shift(fractions: np.ndarray, window: Sequence[int]) -> np.ndarray:
    """Shifts of a periodic window in their smallest form, ``[⌊n/2⌋ - n, ⌊n/2⌋)``.

    Parameters
    ----------
    fractions : ndarray (N, 2)
        Shifts (y, x) in pixels.
    window : sequence of int
        ``(ny, nx)``.
    """
    size = np.asarray(window)
    low = size // 2 - size
    return (fractions - low) % size + low


def missing_margins(
    corners: np.ndarray, window: Sequence[int], shape: Sequence[int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Rows and columns an object lacks to hold all windows: ``((top, bottom), (left, right))``.

    Parameters
    ----------
    corners : ndarray of int (N, 2)
    window, shape : sequence of int
        ``(ny, nx)`` and ``(Y, X)``.
    """
    low = np.maximum(-corners.min(axis=0), 0)
    high = np.maximum(corners.max(axis=0) + window - np.asarray(shape), 0)
    (top, left), (bottom, right) = low.tolist(), high.tolist()
    return (top, bottom), (left, right)


def _transfer(shape: tuple[int, int], width_px: float) -> np.ndarray:
    """Normalised transform of ``exp(-r²/s²)``: ``exp(-π² s² f²)``."""
    f_y, f_x = (np.fft.fftfreq(n) for n in shape)
    return np.exp(-(math.pi**2) * width_px**2 * (f_y[:, None] ** 2 + f_x**2))


def _multiplied(a: Array, transfer: np.ndarray, backend: Backend) -> Array:
    return backend.ifft2(backend.fft2(a) * backend.asarray(transfer.astype(a.dtype))).real
