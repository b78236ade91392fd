"""The double-overlap function of bright-field 4D-STEM, and the pupil it is made of.

Notation
--------
``A(k) = a(k) exp(-iχ(k))``
    pupil, ``a`` the aperture (1 inside), ``χ`` the function of `pyptyx.physics.optics`.
``Γ_k(q) = G⁺ - G⁻``, ``G⁺ = A*(k) A(k-q)``, ``G⁻ = A(k) A*(k+q)``
    transfer of a weak phase object: the image over the scan that detector pixel ``k`` records has
    the spectrum ``i φ̃(q) Γ_k(q)``.  A weak amplitude object, transmission ``1 - μ``, has
    ``-μ̃(q) (G⁺ + G⁻)``.
``k``, ``q``
    rows ``(y, x)`` in 1/Å, both in the frame of the detector: with a scan rotation φ,
    ``q = Rot(φ) q_scan``, see `detector_frame`.

Identities: ``Γ_k(-q) = -Γ_k(q)*``, and ``Γ_k(-q; -χ) = -Γ_k(q; χ)``, which is why no method can
tell ``(χ, φ)`` from ``(-χ, φ + 180°)`` with reversed contrast.

Since ``χ`` is a polynomial of the angle, ``χ(k ∓ q)`` is for every ``k`` a polynomial of ``q``: all
phases are one matrix product with the monomials of ``q``, and nothing is interpolated.

References
----------
J. M. Rodenburg, B. C. McCallum, P. D. Nellist, Ultramicroscopy 48 (1993) 304-314.
T. J. Pennycook et al., Ultramicroscopy 151 (2015) 160-167.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.signal import convolve2d

from pyptyx.backend import Backend
from pyptyx.physics.optics import krivanek_order

Array = Any
Coefficients = Sequence[float] | np.ndarray


@dataclass(frozen=True)
class Pupil:
    """Round aperture with aberrations.

    Attributes
    ----------
    coefficients_A : tuple of float
        Krivanek coefficients in Å, frame of the detector.
    wavelength_A : float
        Å.
    semiangle_rad : float
        Convergence semi-angle in rad.
    soft_edge_A : float
        Width in 1/Å over which the aperture falls from 1 to 0, centred on the rim; one detector
        pixel is a good choice.  0 is a hard rim.
    """

    coefficients_A: tuple[float, ...]
    wavelength_A: float
    semiangle_rad: float
    soft_edge_A: float = 0.0

    @property
    def radius_A(self) -> float:
        """Radius of the aperture in 1/Å."""
        return self.semiangle_rad / self.wavelength_A

    def amplitude(self, k2: Array) -> Array:
        """Aperture ``a`` at squared frequencies in 1/Å²."""
        if self.soft_edge_A > 0:
            rim = (self.radius_A - np.sqrt(np.maximum(k2, 0))) / self.soft_edge_A + 0.5
            return np.clip(rim, 0, 1)
        return (k2 <= self.radius_A**2).astype(k2.dtype)

    def phase(self, k_A: Array) -> Array:
        """Aberration function ``χ`` in rad at ``k_A (..., 2)``."""
        y, x = k_A[..., 0], k_A[..., 1]
        return np.polynomial.polynomial.polyval2d(y, x, self._polynomial)

    def __call__(self, k_A: Array) -> Array:
        """Pupil ``A`` at ``k_A (..., 2)`` in 1/Å, complex128."""
        return self.amplitude((k_A**2).sum(axis=-1)) * np.exp(-1j * self.phase(k_A))

    @cached_property
    def _polynomial(self) -> np.ndarray:
        """``χ = Σ_ij c_ij k_y^i k_x^j`` in rad and Å, square, at least of degree 2."""
        entries = krivanek_order(len(self.coefficients_A))
        size = max([2, *(n + 1 for n, _, _ in entries)]) + 1
        total = np.zeros((size, size))
        for c, (n, m, suffix) in zip(self.coefficients_A, entries, strict=True):
            factor = 2 * np.pi / self.wavelength_A * self.wavelength_A ** (n + 1) * c / (n + 1)
            term = _harmonic(n, m, suffix) * factor
            total[: len(term), : len(term)] += term
        return total

    def around(self, k_A: Array) -> np.ndarray:
        """Taylor coefficients of ``χ`` about each ``k``: ``χ(k + q) = Σ_ij t_ij(k) q_y^i q_x^j``.

        Parameters
        ----------
        k_A : array (K, 2)
            Centres in 1/Å.

        Returns
        -------
        ndarray (K, M)
            In the order of `monomials`.
        """
        c, y, x = self._polynomial, k_A[:, 0], k_A[:, 1]
        columns = []
        for i, j in _powers(len(c) - 1):
            derived = np.array(
                [
                    [math.comb(a, i) * math.comb(b, j) * c[a, b] for b in range(j, len(c))]
                    for a in range(i, len(c))
                ]
            )
            columns.append(np.polynomial.polynomial.polyval2d(y, x, derived))
        return np.stack(columns, axis=1)

    def monomials(self, q_A: Array) -> tuple[np.ndarray, np.ndarray]:
        """Monomials ``q_y^i q_x^j (M, Q)`` of ``q_A (Q, 2)``, and the parity ±1 of each."""
        y, x = q_A[:, 0], q_A[:, 1]
        powers = _powers(len(self._polynomial) - 1)
        rows = np.stack([y**i * x**j for i, j in powers])
        return rows, np.array([1.0 - 2.0 * ((i + j) % 2) for i, j in powers])


def _powers(degree: int) -> list[tuple[int, int]]:
    return [(i, d - i) for d in range(degree + 1) for i in range(d + 1)]


def _harmonic(n: int, m: int, suffix: str) -> np.ndarray:
    """Coefficients ``[i, j]`` of ``y^i x^j`` of ``|w|^(n+1-m) {Re, Im} w^m``, ``w = x + iy``."""
    w = np.array([[0, 1], [1j, 0]])
    square = np.zeros((3, 3))
    square[2, 0] = square[0, 2] = 1
    product = np.ones((1, 1), dtype=complex)
    for factor in [w] * m + [square] * ((n + 1 - m) // 2):
        product = convolve2d(product, factor)
    return product.imag if suffix == "b" else product.real


class Overlaps:
    """``G⁺`` and ``G⁻`` for many detector pixels at the same frequencies.

    Parameters
    ----------
    q_A : array (Q, 2)
        Frequencies in the detector frame, 1/Å.
    pupil : Pupil
        The aperture and its aberrations.
    relative : bool
        Divide by ``a(k)²``, as images divided by their mean need it.  For pixels that the model
        has outside the rim ``a(k)`` is taken as 0.3.
    dtype : dtype
        Complex type of the results.
    """

    def __init__(
        self, q_A: Array, pupil: Pupil, *, relative: bool = False, dtype: Any = np.complex64
    ):
        q_A = np.asarray(q_A, dtype=np.float64)
        self.pupil = pupil
        self._relative = relative
        self._complex = np.dtype(dtype)
        self._real = np.empty(0, dtype).real.dtype
        self._monomials, self._parity = pupil.monomials(q_A)
        self._q = q_A
        self._q2 = (q_A**2).sum(axis=1)
        self._backend = Backend()

    def on(self, backend: Backend) -> Overlaps:
        """The same overlaps, as arrays of `backend`."""
        other = copy.copy(self)
        other._backend = backend
        other._monomials = backend.asarray(self._monomials)
        other._q, other._q2 = backend.asarray(self._q), backend.asarray(self._q2)
        return other

    def __call__(self, k_A: np.ndarray) -> tuple[Array, Array]:
        """``G⁺, G⁻``, each ``(K, Q)``, of pixels ``k_A (K, 2)`` in 1/Å, which lie on the host."""
        local = self._backend.asarray
        k_A = np.asarray(k_A, dtype=np.float64)
        taylor = self.pupil.around(k_A)
        taylor[:, 0] = 0.0  # exp(-iχ(k)) cancels: only differences to χ(k) count
        square = (k_A**2).sum(axis=1)[:, None]
        modulus = self.pupil.amplitude(square).astype(self._real)
        if self._relative:
            modulus = 1 / np.maximum(modulus, 0.3)
        cross, k2, own = local(2 * k_A) @ self._q.T, local(square), local(modulus)
        plus = self._wave(local(taylor * self._parity), k2 - cross + self._q2, own, -1.0)
        minus = self._wave(local(taylor), k2 + cross + self._q2, own, +1.0)
        return plus, minus

    def _wave(self, taylor: Array, distance2: Array, own: Array, sign: float) -> Array:
        """``a(k) a(k ± q) exp(i sign (χ(k ± q) - χ(k)))``."""
        xp = self._backend.xp
        phase = (taylor @ self._monomials).astype(self._real)
        modulus = own * self.pupil.amplitude(distance2.astype(self._real))
        out = xp.empty(phase.shape, self._complex)
        xp.multiply(modulus, xp.cos(phase), out=out.real)
        xp.multiply(modulus, xp.sin(sign * phase), out=out.imag)
        return out


def gamma(
    k_A: Array,
    q_A: Array,
    coefficients_A: Coefficients,
    wavelength_A: float,
    semiangle_rad: float,
    soft_edge_A: float = 0.0,
) -> tuple[Array, Array, Array]:
    """Double-overlap functions of detector pixels at spatial frequencies.

    Parameters
    ----------
    k_A : array (K, 2)
        Detector pixels ``(y, x)`` in 1/Å from the centre of the disc.
    q_A : array (..., 2)
        Spatial frequencies ``(y, x)`` in 1/Å, in the frame of the detector.
    coefficients_A : sequence of float
        Krivanek coefficients in Å.
    wavelength_A : float
        Å.
    semiangle_rad : float
        rad.
    soft_edge_A : float
        Width of the rim of the aperture in 1/Å.

    Returns
    -------
    plus, minus, gamma : array (K, ...), complex128
        ``A*(k) A(k-q)``, ``A(k) A*(k+q)`` and their difference; the aperture is 1 inside.
    """
    q_A = np.asarray(q_A, dtype=np.float64)
    pupil = Pupil(tuple(map(float, coefficients_A)), wavelength_A, semiangle_rad, soft_edge_A)
    overlaps = Overlaps(q_A.reshape(-1, 2), pupil, dtype=np.complex128)
    plus, minus = (g.reshape(len(k_A), *q_A.shape[:-1]) for g in overlaps(k_A))
    return plus, minus, plus - minus


def detector_frame(q_scan_A: Array, rotation_rad: float) -> Array:
    """Vectors ``(..., 2)``, rows (y, x), of the scan frame in that of the detector.

    Rotation by ``PLRotation_deg``: ``x' = x cosφ - y sinφ``, ``y' = x sinφ + y cosφ``.
    """
    c, s = math.cos(rotation_rad), math.sin(rotation_rad)
    y, x = q_scan_A[..., 0], q_scan_A[..., 1]
    return np.stack([x * s + y * c, x * c - y * s], axis=-1)


def half_plane_A(shape: tuple[int, int], step_A: float) -> np.ndarray:
    """Frequencies ``(ny, nx // 2 + 1, 2)`` in 1/Å, rows (y, x), of a real transform of an image."""
    qy, qx = np.fft.fftfreq(shape[0], step_A), np.fft.rfftfreq(shape[1], step_A)
    return np.stack(np.meshgrid(qy, qx, indexing="ij"), axis=-1)
