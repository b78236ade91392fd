"""How well an object, whatever it is, explains bright-field images: the profile likelihood.

Notation
--------
``F_k(q)``
    spectra over the scan of the images ``I_k / mean(I_k) - 1`` of detector bins ``k``.
``F_k(q) = i φ̃(q) Γ'_k(q) + noise``
    a weak phase object, ``Γ'_k = Γ_k / a_k`` with Γ of `pyptyx.methods.gamma` and the aperture
    ``a_k`` at the bin.  The noise has variance ``1 / w_k``, ``w_k = N_e p_k / (N_R t²)``, for
    ``N_e`` electrons per pattern, a share ``p_k`` of them in the bin, ``N_R`` scan points and a
    taper of mean square ``t²``.
``N = Σ_k w Γ'* F``,  ``D = Σ_k w |Γ'|²``
    so that ``i φ̃ = N / D`` is the best object for given optics, and ``L = Σ_q |N|² / D`` the gain
    in log-likelihood over an empty specimen.

Aberrations and scan rotation maximise ``L``: the object is eliminated (variable projection), and
one does not have to look for shifts between noisy images.  With the residual ``E = F - iφ̃ Γ'``
the derivative is ``dL = Σ 2 w Re(dΓ'* (iφ̃)* E)``; in the phases of both overlaps it costs no more
than the value.

References
----------
G. H. Golub, V. Pereyra, SIAM J. Numer. Anal. 10 (1973) 413-432.
J. M. Rodenburg, B. C. McCallum, P. D. Nellist, Ultramicroscopy 48 (1993) 304-314.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pyptyx.backend import Backend, MapReduce
from pyptyx.errors import DataError, Problem
from pyptyx.methods.bright_field import BrightField, edge_taper
from pyptyx.methods.gamma import Pupil, half_plane_A
from pyptyx.methods.profile_blocks import BlockSums
from pyptyx.methods.shared_sums import Work, cache_bytes, spread, summed

_BLOCK_VALUES = 1 << 17
"""Bins times frequencies worked on at a time: the temporaries stay in cache."""

Coefficients = Sequence[float] | np.ndarray

_NEVER_SEEN = 1e-6
"""Part of the largest D below which a frequency is not transferred."""


@dataclass(frozen=True)
class Samples:
    """Spectra of bright-field images at selected frequencies.

    Attributes
    ----------
    spectra : ndarray (K, Q), complex64
        ``F``.
    k_A : ndarray (K, 2)
        Detector coordinates (y, x) in 1/Å.
    weight : ndarray (K,)
        ``w``.
    q_A : ndarray (Q, 2)
        Frequencies (y, x) in 1/Å, in the frame of the scan.
    place : ndarray (Q,)
        Flat index of each frequency in the half plane of a real transform of the scan.
    scan_size : (int, int)
    step_A, wavelength_A, semiangle_rad, soft_edge_A : float
        Scan step in Å, wavelength in Å, semi-angle in rad, width of the rim of a bin in 1/Å.
    """

    spectra: np.ndarray
    k_A: np.ndarray
    weight: np.ndarray
    q_A: np.ndarray
    place: np.ndarray
    scan_size: tuple[int, int]
    step_A: float
    wavelength_A: float
    semiangle_rad: float
    soft_edge_A: float

    @property
    def energy(self) -> float:
        """``Σ w |F|²``, what a perfect model would explain."""
        return float((self.weight * (np.abs(self.spectra) ** 2).sum(axis=1, dtype=float)).sum())

    @property
    def freedom(self) -> int:
        """Complex numbers measured beyond the one per frequency that the object takes."""
        return (len(self.k_A) - 1) * len(self.q_A)

    def transposed(self) -> Samples:
        """The same data seen by a detector with both axes exchanged."""
        return replace(self, k_A=self.k_A[:, ::-1])

    def rows(self, chosen: Any) -> Samples:
        """Some of the bins."""
        return replace(
            self,
            spectra=self.spectra[chosen],
            k_A=self.k_A[chosen],
            weight=self.weight[chosen],
        )

    def columns(self, chosen: Any) -> Samples:
        """Some of the frequencies."""
        return replace(
            self,
            spectra=self.spectra[:, chosen],
            q_A=self.q_A[chosen],
            place=self.place[chosen],
        )

    def merged(self, width_A: float) -> Samples:
        """Bins of `width_A` (1/Å) made of the present ones, weighted by their counts."""
        cell = np.rint(self.k_A / width_A).astype(int)
        _, owner = np.unique(cell, axis=0, return_inverse=True)
        owner = owner.ravel()
        mix = np.zeros((owner.max() + 1, len(owner)), dtype=np.float32)
        mix[owner, np.arange(len(owner))] = self.weight
        total = mix.sum(axis=1, dtype=float)
        mix /= total[:, None]
        return replace(
            self,
            spectra=mix @ self.spectra,
            k_A=mix @ self.k_A,
            weight=total,
            soft_edge_A=max(width_A, self.soft_edge_A),
        )


def sample(bright: BrightField, q_range_A: tuple[float, float], most: int) -> Samples:
    """Spectra at the strongest frequencies of a range.

    Parameters
    ----------
    bright : BrightField
    q_range_A : (float, float)
        Smallest and largest frequency in 1/Å.
    most : int
        Largest number of frequencies.

    Raises
    ------
    DataError
        If fewer than ten frequencies lie in the range.
    """
    q_A = half_plane_A(bright.scan_size, bright.step_A)
    size = np.hypot(q_A[..., 0], q_A[..., 1])
    allowed = (size >= q_range_A[0]) & (size <= q_range_A[1])
    # Along qx = 0 and its Nyquist column the lower half repeats the upper one.
    twice = [0, -1] if bright.scan_size[1] % 2 == 0 else [0]
    allowed[(bright.scan_size[0] + 1) // 2 :, twice] = False
    places = np.flatnonzero(allowed)
    if len(places) < 10:
        wanted = f"a scan with frequencies between {q_range_A[0]:.3g} and {q_range_A[1]:.3g} 1/Å"
        got = f"{bright.scan_size[0]} x {bright.scan_size[1]} points of {bright.step_A:g} Å"
        problem = Problem("scan_step_A", wanted, got, "Scan a larger field, or with finer steps")
        raise DataError(problem)
    inside = np.flatnonzero(np.hypot(*bright.k_A.T) <= bright.semiangle_rad / bright.wavelength_A)
    if len(places) > most:
        power = np.zeros(len(places))
        for chunk in bright.chunks():
            spectra = bright.spectra(chunk).reshape(-1, allowed.size)[:, places]
            power += bright.mean_fraction[chunk] @ (np.abs(spectra) ** 2)
        places = np.sort(places[np.argsort(power)[-most:]])
    kept = [bright.spectra(chunk).reshape(-1, allowed.size)[:, places] for chunk in bright.chunks()]
    rows, columns = (np.mean(np.square(t, dtype=float)) for t in edge_taper(bright.scan_size))
    points = bright.scan_size[0] * bright.scan_size[1]
    weight = bright.electrons * bright.mean_fraction / (points * rows * columns)
    return Samples(
        spectra=np.concatenate(kept)[inside],
        k_A=bright.k_A[inside],
        weight=weight[inside],
        q_A=q_A.reshape(-1, 2)[places],
        place=places,
        scan_size=bright.scan_size,
        step_A=bright.step_A,
        wavelength_A=bright.wavelength_A,
        semiangle_rad=bright.semiangle_rad,
        soft_edge_A=bright.n_bin * float(np.sqrt(np.prod(bright.dk_A))),
    )


@dataclass(frozen=True)
class Gain:
    """Log-likelihood ``L`` and its derivatives.

    Attributes
    ----------
    value : float
    by_coefficient : ndarray (J,)
        Per Å.
    by_rotation : float
        Per rad.
    """

    value: float
    by_coefficient: np.ndarray
    by_rotation: float


class Profile:
    """``L`` as a function of aberrations and scan rotation.

    Parameters
    ----------
    samples : Samples
    num : int
        Number of Krivanek coefficients.
    executor : MapReduce, optional
        Workers that share the frequencies; by default the calling thread works alone.
    """

    def __init__(self, samples: Samples, num: int, executor: MapReduce | None = None):
        self.samples, self.num, self._executor = samples, num, executor
        # Taylor coefficients (J, K, M) of every basis function about every bin.
        self._taylor = np.stack([self._pupil(unit).around(samples.k_A) for unit in np.eye(num)])
        self._taylor[:, :, 0] = 0.0  # only differences to χ(k) count
        own = self._pupil(np.zeros(num)).amplitude((samples.k_A**2).sum(axis=1))
        self._own = own.astype(np.float32)[:, None]
        values = cache_bytes(_BLOCK_VALUES, executor)
        step, count = max(8, values // max(1, len(samples.k_A))), len(samples.q_A)
        self._blocks = [slice(i, min(i + step, count)) for i in range(0, count, step)]
        self._placed: dict[Backend, BlockSums] = {}

    def value(self, coefficients_A: Coefficients, rotation_rad: float) -> float:
        """``L`` alone."""
        pupil = self._pupil(coefficients_A)

        def prepare(backend: Backend) -> Work:
            sums = self._on(backend)
            return lambda block: [sums.value(block, pupil, rotation_rad)]

        return float(summed(prepare, self._blocks, self._executor)[0])

    def gain(self, coefficients_A: Coefficients, rotation_rad: float) -> Gain:
        """``L`` and its gradient."""
        pupil = self._pupil(coefficients_A)
        total = self._total(coefficients_A)

        def prepare(backend: Backend) -> Work:
            sums, here = self._on(backend), backend.asarray(total)
            return lambda block: sums.gain(block, pupil, rotation_rad, here)

        value, moments, turn = summed(prepare, self._blocks, self._executor)
        by_coefficient = np.einsum("jkm,km->j", self._taylor, moments)
        return Gain(float(value), by_coefficient, float(turn))

    def phases(
        self, coefficients_A: Coefficients, rotation_rad: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Best object ``φ̃ (Q,)`` and ``D (Q,)``, whose inverse is the variance of ``φ̃``."""
        pupil = self._pupil(coefficients_A)
        count = len(self.samples.q_A)
        numerator, power = np.empty(count, np.complex128), np.empty(count)

        def prepare(backend: Backend) -> Work:
            sums = self._on(backend)

            def work(block: slice) -> None:
                fit = sums.fit(sums.model(block, pupil, rotation_rad), block)
                numerator[block], power[block] = (backend.to_host(a) for a in fit)

            return work

        spread(prepare, self._blocks, self._executor)
        return numerator / (1j * power), power

    def information(
        self, coefficients_A: Coefficients, rotation_rad: float, dispersion: float = 1.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Expected curvature of ``-L``, and covariance of its slope, ``(J + 1, J + 1)`` each.

        The last row and column belong to the rotation.  The best object is noisy: its noise is no
        help to the curvature, but lets the slope scatter.  `dispersion` is the variance of the
        noise over the expected one; both results are for an expected one.
        """
        pupil = self._pupil(coefficients_A)
        total = self._total(coefficients_A)

        def prepare(backend: Backend) -> Work:
            sums, here = self._on(backend), backend.asarray(total)
            return lambda block: sums.information(block, pupil, rotation_rad, here, dispersion)

        curvature, scatter = summed(prepare, self._blocks, self._executor)
        return curvature, scatter

    def _pupil(self, coefficients_A: Coefficients) -> Pupil:
        s = self.samples
        known = tuple(float(c) for c in coefficients_A)
        return Pupil(known, s.wavelength_A, s.semiangle_rad, s.soft_edge_A)

    def _total(self, coefficients_A: Coefficients) -> np.ndarray:
        """Taylor coefficients ``(K, M)`` of χ about every bin."""
        return np.tensordot(np.asarray(coefficients_A, dtype=float), self._taylor, axes=1)

    def _on(self, backend: Backend) -> BlockSums:
        """The sums of one worker, whose constants stay on its device."""
        if backend not in self._placed:
            s = self.samples
            # Nothing is transferred below it: |N|² is smaller still, and the quotient vanishes.
            floor = _NEVER_SEEN * float(s.weight.sum())
            spectra, own, weight, taylor = (
                backend.asarray(a)
                for a in (s.spectra, self._own, s.weight.astype(np.float32), self._taylor)
            )
            self._placed[backend] = BlockSums(
                s.k_A, s.q_A, spectra, own, weight[:, None], taylor, floor, backend
            )
        return self._placed[backend]
