"""Regularisers of the probe: functions ``probe -> (R, gradient)``, and the masks they need.

Probes are ``p (Ns, Mp, ny, nx)``, complex, in real space with their centre at ``n // 2``; their
spectra ``F p`` have zero frequency in the corner.  Gradients are ``dR/dRe p + i dR/dIm p``
(PyPty's are half of that).  All scenarios and modes count alike.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pyptyx.backend import Backend
from pyptyx.physics.grid import Grid, clean_filter

Array = Any
Gradient = Array


def outside_support(probe: Array, outside: Array, backend: Backend) -> tuple[float, Gradient]:
    """l1 norm of the spectrum outside its support, ``R = Σ_outside |F p|``.

    Parameters
    ----------
    probe : array (Ns, Mp, ny, nx), complex
    outside : array (ny, nx), real
        1 outside the support and 0 inside, zero frequency in the corner.
    backend : Backend

    Returns
    -------
    R : float
    gradient : array like `probe`
        ``Fᴴ [outside · exp(i arg F p)]``; 0 counts as derivative where ``F p`` is 0.
    """
    spectrum = backend.fft2(probe)
    modulus = np.abs(spectrum)
    value = float((modulus * outside).sum(dtype=np.float64))
    return value, backend.fft2_adjoint(outside * _direction(spectrum, modulus))


def reciprocal_support(aperture: float | np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Support of the probe in reciprocal space, boolean (ny, nx), zero frequency in the corner.

    Parameters
    ----------
    aperture : float or ndarray (ny, nx)
        A diameter as a fraction of the sampled frequencies (``|f| <= aperture/2`` cycles per
        pixel), or an array that is non-zero in the support, zero frequency at ``n // 2``.
    shape : tuple of int
        ``(ny, nx)``.
    """
    if isinstance(aperture, np.ndarray):
        return np.fft.ifftshift(aperture != 0)
    return clean_filter(shape, aperture) > 0


def outside_window(probe: Array, weight: Array) -> tuple[float, Gradient]:
    """Weighted power in real space, ``R = Σ W |p|²``.

    Parameters
    ----------
    probe : array (Ns, Mp, ny, nx), complex
    weight : array (ny, nx), real
        ``W``.

    Returns
    -------
    R : float
    gradient : array like `probe`
        ``2 W p``.
    """
    weighted = weight * probe
    value = float((weighted.real * probe.real + weighted.imag * probe.imag).sum(dtype=np.float64))
    weighted *= 2
    return value, weighted


def window_weight(shape: tuple[int, int], inner: float, outer: float) -> np.ndarray:
    """``W = 1 - w(y) w(x)`` with cosine edges, (ny, nx) float64.

    ``w`` is 1 up to `inner`, 0 beyond `outer`, both as fractions of half the window, measured from
    its middle.
    """
    edges = []
    for n in shape:
        radius = np.abs(np.linspace(-1, 1, n)) if n > 1 else np.zeros(1)
        fraction = np.clip((radius - inner) / (outer - inner), 0, 1)
        edges.append(0.5 * (1 + np.cos(np.pi * fraction)))
    return 1 - np.outer(*edges)


def scan_frequency_roughness(probe: Array, mask: Array, backend: Backend) -> tuple[float, Gradient]:
    """Roughness of the spectrum near multiples of the scan frequency, ``R = Σ (Λ ∇²|F p|)²``.

    A raster scan imprints its own frequencies on the probe; ∇² is the periodic 5-point Laplacian.

    Parameters
    ----------
    probe : array (Ns, Mp, ny, nx), complex
    mask : array (ny, nx), real
        ``Λ``, see `scan_frequency_mask`.
    backend : Backend

    Returns
    -------
    R : float
    gradient : array like `probe`
        ``Fᴴ [exp(i arg F p) ∇²(2 Λ ∇²|F p|)]``.
    """
    spectrum = backend.fft2(probe)
    modulus = np.abs(spectrum)
    roughness = mask * _laplacian(modulus)
    value = float((roughness * roughness).sum(dtype=np.float64))
    slope = _laplacian(2 * mask * roughness)
    return value, backend.fft2_adjoint(slope * _direction(spectrum, modulus))


def scan_frequency_mask(grid: Grid, step_A: float, tolerance: float) -> np.ndarray:
    """Frequencies near integer multiples of ``1/step``, boolean (ny, nx), corner order.

    Parameters
    ----------
    grid : Grid
        The probe window.  Multiples beyond its band limit do not count.
    step_A : float
        Scan step in Å.
    tolerance : float
        Distance from a multiple in units of ``1/step``.
    """
    y, x = grid.q_y[:, None] * step_A, grid.q_x[None, :] * step_A
    j, k = np.rint(y), np.rint(x)
    cutoff = grid.cutoff if grid.cutoff >= 0 else 2 / 3
    limit = cutoff * math.ceil(step_A / (2 * max(grid.pixel_A)))
    near = (y - j) ** 2 + (x - k) ** 2 <= tolerance**2
    return near & (j**2 + k**2 <= limit**2)


def _laplacian(a: Array) -> Array:
    return sum(np.roll(a, s, axis) for axis in (-2, -1) for s in (1, -1)) - 4 * a


def _direction(spectrum: Array, modulus: Array) -> Array:
    """``exp(i arg)``, 0 where the spectrum is 0."""
    return spectrum / np.where(modulus > 0, modulus, modulus.dtype.type(1))
