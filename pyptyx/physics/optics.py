"""Electron optics of the beam: aberration function, its derivatives, defocus.

Notation
--------
``q``
    spatial frequency in 1/Å (angle / wavelength, no 2π), as an axis pair ``qy (ny, 1)`` and
    ``qx (1, nx)``; any broadcastable shapes and any order work, the package uses corner order.
``k = λ q``
    angle in rad, and ``w = k_x + i k_y = k exp(iφ)`` with y pointing down.
``C_nm``
    Krivanek coefficients in Å in the order C10, C12a, C12b, C21a, C21b, C23a, C23b, C30, ...

The aberration function is ``χ = Σ C_nm B_nm`` with
``B_nm = (2π/λ) k^(n+1)/(n+1) {1 | cos mφ (a) | sin mφ (b)}``, and the wave in the aperture plane is
multiplied by ``exp(-iχ)``.  Since ``n + 1 - m`` is even, ``k^(n+1) cos mφ = |w|^(n+1-m) Re w^m`` is
a polynomial: no angle is ever computed and nothing is singular at ``q = 0``.

Positive C10 equals free propagation by +C10, i.e. a cross-over upstream of the specimen
(overfocus).  This is the opposite of codes whose ``defocus`` is ``-C10``.

References
----------
O. L. Krivanek, N. Dellby, A. R. Lupini, Ultramicroscopy 78 (1999) 1-11.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

Array = Any


def krivanek_order(num: int) -> list[tuple[int, int, str]]:
    """First `num` aberrations as ``(n, m, suffix)``, suffix ``""`` for m = 0, else ``a``, ``b``.

    Complete orders end after 3, 7, 12, 18 and 25 entries.

    Raises
    ------
    ValueError
        If `num` is negative.
    """
    if num < 0:
        raise ValueError(f"aberrations: expected a number of coefficients >= 0, got {num}")
    entries: list[tuple[int, int, str]] = []
    n = 1
    while len(entries) < num:
        for m in range((n + 1) % 2, n + 2, 2):
            entries += [(n, m, s) for s in ("ab" if m else [""])]
        n += 1
    return entries[:num]


def aberration_names(num: int) -> list[str]:
    """Names of the first `num` coefficients: ``["C10", "C12a", "C12b", "C21a", ...]``."""
    return [f"C{n}{m}{suffix}" for n, m, suffix in krivanek_order(num)]


def _terms(num: int) -> Iterator[tuple[int, int, int, complex]]:
    """``(n, m, p, u)`` with ``k^(n+1) {cos, sin} mφ = |w|^(2p) Re(u w^m)``."""
    for n, m, suffix in krivanek_order(num):
        yield n, m, (n + 1 - m) // 2, -1j if suffix == "b" else 1.0 + 0j


def _angles(qy: Array, qx: Array, wavelength_A: float, angle_offset: float = 0.0) -> Array:
    """``w exp(i angle_offset)`` in rad, complex128, broadcast over both axes."""
    phase = complex(np.exp(1j * angle_offset))
    return (qx * wavelength_A + 1j * (qy * wavelength_A)) * phase


def aberration_basis(qy: Array, qx: Array, wavelength_A: float, num: int, xp: Any = np) -> Array:
    """Basis functions ``B_j`` of the aberration function.

    Parameters
    ----------
    qy, qx : array
        Frequencies in 1/Å, broadcastable to ``(ny, nx)``.
    wavelength_A : float
        Wavelength in Å.
    num : int
        Number of coefficients, Krivanek order.
    xp : module
        Array namespace.

    Returns
    -------
    array (num, ny, nx), float64
        rad per Å of coefficient.
    """
    w = _angles(qy, qx, wavelength_A)
    k2 = w.real**2 + w.imag**2
    basis = xp.empty((num, *w.shape), dtype=np.float64)
    for j, (n, m, p, u) in enumerate(_terms(num)):
        basis[j] = 2 * np.pi / wavelength_A / (n + 1) * k2**p * (u * w**m).real
    return basis


def aberration_phase(
    coefficients_A: Sequence[float] | Array, qy: Array, qx: Array, wavelength_A: float
) -> Array:
    """Aberration function ``χ = Σ_j C_j B_j`` in rad, ``(ny, nx)`` float64.

    Parameters
    ----------
    coefficients_A : sequence of float
        Krivanek coefficients in Å.
    qy, qx : array
        Frequencies in 1/Å.
    wavelength_A : float
        Wavelength in Å.
    """
    w = _angles(qy, qx, wavelength_A)
    k2 = w.real**2 + w.imag**2
    chi = 0.0 * k2
    for c, (n, m, p, u) in zip(coefficients_A, _terms(len(coefficients_A)), strict=True):
        if c:
            chi += 2 * np.pi / wavelength_A * float(c) / (n + 1) * k2**p * (u * w**m).real
    return chi


def aberration_gradient(
    coefficients_A: Sequence[float] | Array,
    qy: Array,
    qx: Array,
    wavelength_A: float,
    angle_offset: float = 0.0,
) -> tuple[Array, Array]:
    """Gradient ``(dχ/dk_x, dχ/dk_y)`` per rad.

    The bright-field image of the detector pixel at ``k`` is displaced by this times ``λ / 2π`` (Å).

    Parameters
    ----------
    coefficients_A : sequence of float
        Krivanek coefficients in Å.
    qy, qx : array
        Frequencies in 1/Å.
    wavelength_A : float
        Wavelength in Å.
    angle_offset : float
        Added to φ everywhere, in rad: the result is expressed in the rotated frame.

    Returns
    -------
    tuple of array (ny, nx)
        Components along x and y, in this order.
    """
    w = _angles(qy, qx, wavelength_A, angle_offset)
    k2 = w.real**2 + w.imag**2
    total = 0.0 * w
    for c, (n, m, p, u) in zip(coefficients_A, _terms(len(coefficients_A)), strict=True):
        # f = |w|^(2p) Re(u w^m) has
        # f_x + i f_y = 2p |w|^(2p-2) w Re(u w^m) + m |w|^(2p) conj(u w^(m-1)).
        if p:
            total += float(c) / (n + 1) * 2 * p * k2 ** (p - 1) * w * (u * w**m).real
        if m:
            total += float(c) / (n + 1) * m * k2**p * (u * w ** (m - 1)).conj()
    total *= 2 * np.pi / wavelength_A
    return total.real, total.imag


def aberration_gradient_rotation(
    coefficients_A: Sequence[float] | Array,
    qy: Array,
    qx: Array,
    wavelength_A: float,
    angle_offset: float = 0.0,
) -> tuple[Array, Array]:
    """Derivative of both components of `aberration_gradient` with respect to `angle_offset`.

    Parameters and order of the result as there; units 1/rad².
    """
    w = _angles(qy, qx, wavelength_A, angle_offset)
    k2 = w.real**2 + w.imag**2
    total = 0.0 * w
    for c, (n, m, p, u) in zip(coefficients_A, _terms(len(coefficients_A)), strict=True):
        # dw = i w dθ at constant |w|, inserted into the gradient.
        if p:
            wave = u * w**m
            total += (
                float(c) / (n + 1) * 2 * p * k2 ** (p - 1) * w * (1j * wave.real - m * wave.imag)
            )
        if m > 1:
            total += float(c) / (n + 1) * m * (m - 1) * k2**p * (1j * u * w ** (m - 1)).conj()
    total *= 2 * np.pi / wavelength_A
    return total.real, total.imag


def defocus_phase(defocus_A: float, qy: Array, qx: Array, wavelength_A: float) -> Array:
    """``χ = π λ d q²`` in rad: the aberration function of C10 = `defocus_A` (overfocus > 0)."""
    return np.pi * wavelength_A * defocus_A * (qy**2 + qx**2)


def apply_phase(probe: Array, chi: Array, xp: Any = np) -> Array:
    """Multiply the spectrum of a wave by ``exp(-iχ)``.

    Parameters
    ----------
    probe : array (..., ny, nx), complex
        Wave in real space; where its centre lies does not matter.
    chi : array (..., ny, nx)
        Phase in rad, corner order; leading axes broadcast against those of `probe`.
    xp : module
        Array namespace.

    Returns
    -------
    array (..., ny, nx), complex
        A new array.
    """
    return xp.fft.ifft2(xp.fft.fft2(probe) * xp.exp(-1j * chi))
