"""Images finer than the scan: the aliases of a coarse scan are told apart by the detector.

A scan of step ``U dx`` folds all frequencies ``q + g`` of the grid ``dx``, ``g`` in a lattice of
``U x U``, into one base frequency ``q``.  Every bright-field pixel sees them with its own transfer,

    ``F_k(q) = U⁻² Σ_g iφ̃(q + g) Γ_k(q + g)``,

so that there are as many equations as pixels for ``U²`` unknowns: weighted least squares at each
base frequency, a Hermitian system of ``U²`` equations.  No frequency is assumed to be absent except
those beyond twice the aperture, which no pixel sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft

from pyptyx.errors import ParamError, Problem
from pyptyx.methods.bright_field import BrightField
from pyptyx.methods.gamma import Coefficients, Overlaps, Pupil, detector_frame
from pyptyx.methods.scan_spectrum import pupil_of, spectrum_of
from pyptyx.methods.shared_sums import chunks, summed

Array = Any

_WORKING_BYTES = 24 << 20
"""Size of the transfer functions of one block of frequencies and one chunk of pixels."""


@dataclass(frozen=True)
class UnaliasedImage:
    """A phase image on a grid finer than the scan.

    Attributes
    ----------
    phase : ndarray (U Ny, U Nx)
        rad; pixel ``(U i, U j)`` is scan point ``(i, j)``.
    pixel_A : float
        ``step / U`` in Å.
    condition : ndarray (Py, Px // 2 + 1)
        Condition number of each system; 0 where there is no signal.
    """

    phase: np.ndarray
    pixel_A: float
    condition: np.ndarray


def upsampling_limits(bright: BrightField) -> dict[str, float]:
    """Factors beyond which finer pixels bring nothing.

    Returns
    -------
    dict
        ``"2 alpha"``: the pixel reaches the largest frequency a weak object transfers;
        ``"bright field"``: the frequency of the aperture radius; ``"detector"``: the window of the
        detector.
    """
    radius = bright.semiangle_rad / bright.wavelength_A
    window = min(n * d for n, d in zip(bright.pacbed.shape, bright.dk_A, strict=True))
    return {
        "2 alpha": 4 * radius * bright.step_A,
        "bright field": 2 * radius * bright.step_A,
        "detector": window * bright.step_A,
    }


def unaliased_image(
    bright: BrightField,
    coefficients_A: Coefficients,
    rotation_rad: float = 0.0,
    *,
    upsample: int = 2,
    damping: float = 1e-4,
    periodic: bool = False,
    workers: int | None = None,
) -> UnaliasedImage:
    """Phase image of a weak object with ``upsample`` times as many pixels per axis as scan points.

    Parameters
    ----------
    bright : BrightField
        The images of the bright-field pixels.
    coefficients_A : sequence of float
        Krivanek coefficients in Å, detector frame.
    rotation_rad : float
        Scan rotation φ.
    upsample : int
        ``U``; see `upsampling_limits`.  1 is the matched filter.
    damping : float
        Added to the diagonal of the systems, as a fraction of the largest value anywhere.
    periodic, workers
        As for `pyptyx.methods.linear.linear_images`.

    Returns
    -------
    UnaliasedImage

    Raises
    ------
    ParamError
        If `upsample` is not a whole number of at least 1.
    """
    if upsample < 1 or int(upsample) != upsample:
        raise ParamError(Problem("upsample", "a whole number >= 1", repr(upsample)))
    pupil = pupil_of(bright, coefficients_A)
    padded = spectrum_of(bright, [pupil], rotation_rad, periodic)
    lattice = _Lattice.of(padded.shape, bright.step_A, int(upsample))
    q_A = detector_frame(lattice.q_scan_A, rotation_rad)
    inside = (q_A**2).sum(axis=-1)
    inside = (inside > 0) & (inside <= (2 * pupil.radius_A) ** 2)
    bases = np.flatnonzero(inside.any(axis=1))
    systems = _Systems(bright, padded.taper_px, padded.shape, pupil)
    matrix, right = systems.sum(bases, q_A[bases], inside[bases], workers)

    peak = float(np.einsum("qaa->qa", matrix).real.max(initial=0.0)) or 1.0
    spectrum, condition = _solve(matrix, right, damping * peak, inside[bases])
    fine = lattice.fill(bases, spectrum * upsample**2)
    image = scipy.fft.ifft2(fine).real
    full = np.zeros(padded.half_shape[0] * padded.half_shape[1])
    full[bases] = condition
    ny, nx = (n * upsample for n in bright.scan_size)
    return UnaliasedImage(
        image[:ny, :nx], bright.step_A / upsample, full.reshape(padded.half_shape)
    )


@dataclass(frozen=True)
class _Lattice:
    """Aliases ``(Q, U²)`` of the base frequencies of a half plane, as indices of the fine grid."""

    shape: tuple[int, int]
    row: np.ndarray
    column: np.ndarray
    q_scan_A: np.ndarray

    @classmethod
    def of(cls, shape: tuple[int, int], step_A: float, upsample: int) -> _Lattice:
        ny, nx = shape
        fine = (ny * upsample, nx * upsample)
        by, bx = np.divmod(np.arange(ny * (nx // 2 + 1)), nx // 2 + 1)
        my, mx = np.divmod(np.arange(upsample**2), upsample)
        row, column = by[:, None] + ny * my, bx[:, None] + nx * mx
        qy, qx = (np.fft.fftfreq(n, step_A / upsample) for n in fine)
        return cls(fine, row, column, np.stack([qy[row], qx[column]], axis=-1))

    def fill(self, bases: Array, values: Array) -> np.ndarray:
        """The whole fine spectrum of a real image from that of the bases."""
        fine = np.zeros(self.shape, dtype=np.complex128)
        row, column = self.row[bases], self.column[bases]
        fine[-row, -column] = values.conj()
        fine[row, column] = values
        return fine


@dataclass(frozen=True)
class _Systems:
    """Normal equations ``Σ_k p Γ* Γᵀ x = Σ_k p Γ* F`` of all base frequencies."""

    bright: BrightField
    taper_px: int | None
    shape: tuple[int, int]
    pupil: Pupil

    def sum(self, bases: Array, q_A: Array, inside: Array, workers: int | None) -> list[Array]:
        """Matrices ``(Q, A, A)`` and right sides ``(Q, A)`` in single precision."""
        count, aliases = inside.shape
        size = 16
        block = max(1, _WORKING_BYTES // (8 * aliases * size))
        parts = [slice(i, min(i + block, count)) for i in range(0, count, block)]
        overlaps = [Overlaps(q_A[part].reshape(-1, 2), self.pupil, relative=True) for part in parts]
        share = np.sqrt(np.asarray(self.bright.mean_fraction, dtype=np.float32))[:, None]

        def work(piece: slice) -> list[Array]:
            planes = self.bright.spectra(piece, shape=self.shape, taper_px=self.taper_px)
            spectra = planes.reshape(len(planes), -1).take(bases, axis=1) * share[piece]
            matrix = np.empty((count, aliases, aliases), np.complex64)
            right = np.empty((count, aliases), np.complex64)
            for part, overlap in zip(parts, overlaps, strict=True):
                plus, minus = overlap(self.bright.k_A[piece])
                plus -= minus
                plus *= share[piece]
                transfer = plus.reshape(len(plus), -1, aliases)
                transfer *= inside[part]
                adjoint = np.ascontiguousarray(transfer.conj().transpose(1, 2, 0))
                matrix[part] = adjoint @ np.ascontiguousarray(transfer.transpose(1, 0, 2))
                right[part] = (adjoint @ spectra[:, part].T[:, :, None])[..., 0]
            return [matrix, right]

        return summed(work, chunks(len(self.bright.k_A), size), workers)


def _solve(matrix: Array, right: Array, floor: float, inside: Array) -> tuple[Array, Array]:
    """Solutions ``φ̃ / U²`` and condition numbers of the damped systems."""
    matrix = matrix.astype(np.complex128)
    diagonal = np.einsum("qaa->qa", matrix)
    # Unknowns that no pixel sees have empty rows; a typical value leaves the condition as it is.
    typical = diagonal.real.sum(axis=1) / np.maximum(inside.sum(axis=1), 1) + floor
    diagonal += np.where(inside, floor, typical[:, None])
    solution = np.linalg.solve(matrix, right[..., None])[..., 0]
    values = np.linalg.eigvalsh(matrix)
    condition = values[:, -1] / np.maximum(values[:, 0], np.finfo(float).tiny)
    return -1j * np.where(inside, solution, 0), condition
