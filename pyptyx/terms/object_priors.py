"""Regularisers of the object: functions ``object -> (R, gradient)``.

Objects are transmission functions ``o (Mo, Nz, Y, X)``, complex.  Gradients are ``dR/dRe o + i
dR/dIm o`` (PyPty's are half of that).  All functions work on NumPy and device arrays; constant
arrays must lie where the object lies.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pyptyx.backend import Backend

Array = Any
Gradient = Array

_TINY = 1e-20
"""Added to the differences of the total variation, which has no derivative at 0."""


def total_variation(obj: Array, *, p: float, q: float) -> tuple[float, Gradient]:
    """Anisotropic total variation ``R = Σ T^(q/p)``, ``T = |D_y|^p + |D_x|^p``.

    ``D`` are differences to the preceding pixel, periodic, in every slice and mode.

    Parameters
    ----------
    obj : array (Mo, Nz, Y, X), complex
    p, q : float
        Exponents; ``p = 2, q = 1`` is the isotropic total variation.

    Returns
    -------
    R : float
    gradient : array like `obj`

    References
    ----------
    L. Rudin, S. Osher, E. Fatemi, Physica D 60 (1992) 259-268.
    """
    differences = {axis: np.roll(obj, 1, axis) - obj for axis in (-2, -1)}
    squares = {axis: _square(d) for axis, d in differences.items()}
    t = sum(s ** (p / 2) for s in squares.values()) + _TINY
    slope = t ** (q / p - 1)
    value = _total(slope * t)
    slope *= q
    gradient = 0
    for axis, d in differences.items():
        d *= slope
        if p != 2:
            d *= _nonzero(squares[axis]) ** (p / 2 - 1)
        gradient = gradient + (np.roll(d, -1, axis) - d)
    return value, gradient


def phase_norm(obj: Array) -> tuple[float, Gradient]:
    """l1 norm of the phase, ``R = Σ |arg o|``.

    Parameters
    ----------
    obj : array (Mo, Nz, Y, X), complex

    Returns
    -------
    R : float
    gradient : array like `obj`
        ``i sign(arg o) / conj(o)``.
    """
    phase = np.angle(obj)
    return _total(np.abs(phase)), 1j * np.sign(phase) * _over_conjugate(obj)


def absorption_norm(obj: Array) -> tuple[float, Gradient]:
    """l1 norm of the logarithmic modulus, ``R = Σ |ln|o||``.

    Parameters
    ----------
    obj : array (Mo, Nz, Y, X), complex

    Returns
    -------
    R : float
    gradient : array like `obj`
        ``sign(ln|o|) / conj(o)``.
    """
    squares = _square(obj)
    logarithm = 0.5 * np.log(np.maximum(squares, np.finfo(squares.dtype).tiny))
    return _total(np.abs(logarithm)), np.sign(logarithm) * _over_conjugate(obj)


def mode_variance(obj: Array, low_pass: Array, backend: Backend) -> tuple[float, Gradient]:
    """Variance of smoothed object modes, ``R = 1/Mo Σ |B - mean_m B|²`` with ``B = F⁻¹ G F o``.

    Parameters
    ----------
    obj : array (Mo, Nz, Y, X), complex
    low_pass : array (Y, X), real
        ``G``, zero frequency in the corner.
    backend : Backend

    Returns
    -------
    R : float
    gradient : array like `obj`
    """
    deviation = _filtered(obj, low_pass, backend)
    deviation -= deviation.mean(axis=0)
    value = _total(_square(deviation)) / len(obj)
    return value, _filtered(deviation, low_pass, backend) * (2 / len(obj))


def gaussian_low_pass(shape: tuple[int, int], sigma: float) -> np.ndarray:
    """``exp(-f²/σ²)``, f in cycles per pixel, corner order: (Y, X) float64."""
    f_y, f_x = (np.fft.fftfreq(n) for n in shape)
    return np.exp(-(f_y[:, None] ** 2 + f_x**2) / sigma**2)


def missing_wedge(obj: Array, wedge: Array, backend: Backend) -> tuple[float, Gradient]:
    """Power of the object in the missing wedge, ``R = Σ κ |F₃ o|²`` with an unnormalised 3-D DFT.

    Parameters
    ----------
    obj : array (Mo, Nz, Y, X), complex
    wedge : array (Nz, Y, X), real
        ``κ``, see `wedge_weight`.
    backend : Backend

    Returns
    -------
    R : float
    gradient : array like `obj`
        ``2 F₃ᴴ κ F₃ o``.
    """
    slices = obj.shape[1]
    dft = np.exp(-2j * np.pi * np.outer(np.arange(slices), np.arange(slices)) / slices)
    dft = backend.asarray(dft.astype(obj.dtype))

    def along_z(matrix: Array, a: Array) -> Array:
        return (matrix @ a.reshape(*a.shape[:2], -1)).reshape(a.shape)

    spectrum = along_z(dft, backend.fft2(obj))
    weighted = wedge * spectrum
    value = _total(weighted.real * spectrum.real + weighted.imag * spectrum.imag)
    return value, 2 * backend.fft2_adjoint(along_z(dft.conj(), weighted))


def wedge_weight(
    shape: tuple[int, int, int],
    pixel_A: tuple[float, float],
    slice_A: float,
    beta: float,
    column: str = "missing",
) -> np.ndarray:
    """How much of each spatial frequency is missing: ``κ = 2/π arctan(β² q_z²/q_⊥²)``.

    Parameters
    ----------
    shape : tuple of int
        ``(Nz, Y, X)``.
    pixel_A : tuple of float
        ``(y, x)`` in Å.
    slice_A : float
        Distance of slices in Å.
    beta : float
        Sharpness.
    column : {"missing", "pypty"}
        The column ``q_⊥ = 0``: the limit, ``κ = 1`` for ``q_z ≠ 0``; or ``q_⊥ = 1/Å`` as in PyPty,
        which hardly touches the frequencies that are missing most.

    Returns
    -------
    ndarray (Nz, Y, X), float64
        Between 0 and 1, zero frequency in the corner.
    """
    spacings = (slice_A, *pixel_A)
    q_z, q_y, q_x = (np.fft.fftfreq(n, d) for n, d in zip(shape, spacings, strict=True))
    across = q_y[:, None] ** 2 + q_x**2
    if column == "pypty":
        across[0, 0] = 1.0
    return 2 / np.pi * np.arctan2(beta**2 * q_z[:, None, None] ** 2, across)


def _square(a: Array) -> Array:
    """``|a|²``."""
    return a.real**2 + a.imag**2


def _nonzero(a: Array) -> Array:
    """`a` with 1 in place of 0."""
    return np.where(a > 0, a, a.dtype.type(1))


def _over_conjugate(obj: Array) -> Array:
    """``1 / conj(o)``, 0 where o is 0."""
    return obj / _nonzero(_square(obj))


def _total(a: Array) -> float:
    return float(a.sum(dtype=np.float64))


def _filtered(a: Array, mask: Array, backend: Backend) -> Array:
    spectrum = backend.fft2(a)
    spectrum *= mask
    return backend.ifft2(spectrum, overwrite=True)
