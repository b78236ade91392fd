"""Images finer than the scan: the aliases of a coarse scan are told apart by the detector.

A scan of step ``U dx`` folds all frequencies ``q + g`` of the grid ``dx``, ``g`` in a lattice of
``U x U``, into one base frequency ``q``.  Every bright-field pixel sees them with its own transfer,

    ``F_k(q) = U⁻² Σ_g iφ̃(q + g) Γ_k(q + g)``,

so that there are as many equations as pixels for ``U²`` unknowns: weighted least squares at each
base frequency, a Hermitian system of ``U²`` equations.  No frequency is assumed to be absent except
those beyond twice the aperture, which no pixel sees.

``U`` need not be whole: on a grid of ``F`` pixels over the field of ``N`` scan points a base has
``F / N`` aliases, rounded up or down.  Only ``F`` has to be whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import scipy.fft

from pyptyx.backend import Backend, MapReduce
from pyptyx.errors import ParamError, Problem
from pyptyx.methods.bright_field import BrightField
from pyptyx.methods.gamma import Coefficients, Overlaps, Pupil, detector_frame
from pyptyx.methods.scan_spectrum import pupil_of, spectrum_of
from pyptyx.methods.shared_sums import Work, cache_bytes, chunks, spread, summed
from pyptyx.methods.upsampling import exact_factor

Array = Any

_WORKING_BYTES = 24 << 20
"""Size of the transfer functions of one block of frequencies and one chunk of pixels."""

_PIXELS = 16
"""Pixels of a chunk."""

_SYSTEMS = 1024
"""Systems solved at once."""


@dataclass(frozen=True)
class UnaliasedImage:
    """A phase image on a grid finer than the scan.

    Attributes
    ----------
    phase : ndarray (U Ny, U Nx)
        rad; pixel ``(U i, U j)`` is scan point ``(i, j)``; sizes are rounded up.
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
    upsample: float = 2,
    damping: float = 1e-4,
    periodic: bool = False,
    executor: MapReduce | None = None,
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
    upsample : float
        ``U``, a ratio of small whole numbers; see `upsampling_limits`.  1 is the matched filter.
    damping : float
        Added to the diagonal of the systems, as a fraction of the largest value anywhere.
    periodic, executor
        As for `pyptyx.methods.linear.linear_images`.

    Returns
    -------
    UnaliasedImage

    Raises
    ------
    ParamError
        If `upsample` is below 1, no ratio of small whole numbers, or gives a periodic scan a
        fraction of a pixel.
    """
    factor = exact_factor(upsample)
    pupil = pupil_of(bright, coefficients_A)
    if periodic:
        _check_whole(bright.scan_size, factor)
    padded = spectrum_of(bright, [pupil], rotation_rad, periodic, factor.denominator)
    lattice = _Lattice.of(padded.shape, bright.step_A, factor)
    q_A = detector_frame(lattice.q_scan_A, rotation_rad)
    inside = (q_A**2).sum(axis=-1)
    inside = lattice.present & (inside > 0) & (inside <= (2 * pupil.radius_A) ** 2)
    bases = np.flatnonzero(inside.any(axis=1))
    systems = _Systems(bright, padded.taper_px, padded.shape, pupil)
    matrix, right = systems.sum(bases, q_A[bases], inside[bases], executor)

    peak = float(np.einsum("qaa->qa", matrix).real.max(initial=0.0)) or 1.0
    spectrum, condition = _solve(matrix, right, damping * peak, inside[bases], executor)
    fine = lattice.fill(bases, spectrum * float(factor) ** 2)
    image = scipy.fft.ifft2(fine).real
    full = np.zeros(padded.half_shape[0] * padded.half_shape[1])
    full[bases] = condition
    ny, nx = (math.ceil(n * factor) for n in bright.scan_size)
    return UnaliasedImage(
        image[:ny, :nx], bright.step_A / float(factor), full.reshape(padded.half_shape)
    )


def _check_whole(scan_size: tuple[int, int], factor: Fraction) -> None:
    if any((n * factor).denominator > 1 for n in scan_size):
        size = " x ".join(map(str, scan_size))
        wanted = f"a factor that makes whole pixels of the {size} points of a periodic scan"
        raise ParamError(Problem("upsample", wanted, str(factor)))


@dataclass(frozen=True)
class _Lattice:
    """Aliases ``(Q, A)`` of the base frequencies of a half plane, as indices of the fine grid.

    Where a base has fewer aliases than others, `present` is False.
    """

    shape: tuple[int, int]
    row: np.ndarray
    column: np.ndarray
    present: np.ndarray
    q_scan_A: np.ndarray

    @classmethod
    def of(cls, shape: tuple[int, int], step_A: float, factor: Fraction) -> _Lattice:
        ny, nx = shape
        fine = (int(ny * factor), int(nx * factor))
        by, bx = np.divmod(np.arange(ny * (nx // 2 + 1)), nx // 2 + 1)
        rows, columns = _aliases(ny, fine[0])[by], _aliases(nx, fine[1])[bx]
        number = rows.shape[1] * columns.shape[1]
        pair = (len(by), rows.shape[1], columns.shape[1])
        row = np.broadcast_to(rows[:, :, None], pair).reshape(-1, number)
        column = np.broadcast_to(columns[:, None, :], pair).reshape(-1, number)
        present = (row >= 0) & (column >= 0)
        qy, qx = (np.fft.fftfreq(n, step_A / float(factor)) for n in fine)
        return cls(fine, row, column, present, np.stack([qy[row], qx[column]], axis=-1))

    def fill(self, bases: Array, values: Array) -> np.ndarray:
        """The whole fine spectrum of a real image from that of the bases."""
        fine = np.zeros(self.shape, dtype=np.complex128)
        present = self.present[bases]
        row, column = self.row[bases][present], self.column[bases][present]
        fine[-row, -column] = values[present].conj()
        fine[row, column] = values[present]
        return fine


def _aliases(coarse: int, fine: int) -> np.ndarray:
    """Indices of the fine grid that fold into each one of the coarse, ``(coarse, A)``; -1 if none.

    Both grids cover the same field.
    """
    frequency = np.rint(np.fft.fftfreq(fine, 1 / fine)).astype(int)
    base = frequency % coarse
    order = np.argsort(base, kind="stable")
    number = np.bincount(base, minlength=coarse)
    rank = np.arange(fine) - np.repeat(np.cumsum(number) - number, number)
    table = np.full((coarse, int(number.max())), -1)
    table[base[order], rank] = order
    return table


@dataclass(frozen=True)
class _Systems:
    """Normal equations ``Σ_k p Γ* Γᵀ x = Σ_k p Γ* F`` of all base frequencies."""

    bright: BrightField
    taper_px: int | None
    shape: tuple[int, int]
    pupil: Pupil

    def sum(
        self, bases: Array, q_A: Array, inside: Array, executor: MapReduce | None
    ) -> list[np.ndarray]:
        """Matrices ``(Q, A, A)`` and right sides ``(Q, A)`` in single precision."""
        count, aliases = inside.shape
        block = max(1, cache_bytes(_WORKING_BYTES, executor) // (8 * aliases * _PIXELS))
        parts = [slice(i, min(i + block, count)) for i in range(0, count, block)]
        overlaps = [Overlaps(q_A[part].reshape(-1, 2), self.pupil, relative=True) for part in parts]
        root = np.sqrt(np.asarray(self.bright.mean_fraction, dtype=np.float32))[:, None]

        def prepare(backend: Backend) -> Work:
            placed = [overlap.on(backend) for overlap in overlaps]
            index, seen = backend.asarray(bases), backend.asarray(inside)

            def work(piece: slice) -> list[Array]:
                share = backend.asarray(root[piece])
                spectra = self._spectra(piece, backend).take(index, axis=1) * share
                matrix = backend.xp.empty((count, aliases, aliases), np.complex64)
                right = backend.xp.empty((count, aliases), np.complex64)
                for part, overlap in zip(parts, placed, strict=True):
                    plus, minus = overlap(self.bright.k_A[piece])
                    plus -= minus
                    plus *= share
                    transfer = plus.reshape(len(plus), -1, aliases)
                    transfer *= seen[part]
                    matrix[part], right[part] = _normal(transfer, spectra[:, part], backend.xp)
                return [matrix, right]

            return work

        return summed(prepare, chunks(len(self.bright.k_A), _PIXELS), executor)

    def _spectra(self, piece: slice, backend: Backend) -> Array:
        planes = self.bright.spectra(
            piece, shape=self.shape, taper_px=self.taper_px, backend=backend
        )
        return planes.reshape(len(planes), -1)


def _normal(transfer: Array, spectra: Array, xp: Any) -> tuple[Array, Array]:
    """``Σ_k Γ* Γᵀ (Q, A, A)`` and ``Σ_k Γ* F (Q, A)`` of ``Γ (K, Q, A)`` and ``F (K, Q)``."""
    adjoint = xp.ascontiguousarray(transfer.conj().transpose(1, 2, 0))
    matrix = adjoint @ xp.ascontiguousarray(transfer.transpose(1, 0, 2))
    return matrix, (adjoint @ spectra.T[:, :, None])[..., 0]


def _solve(
    matrix: Array, right: Array, floor: float, inside: Array, executor: MapReduce | None
) -> tuple[np.ndarray, np.ndarray]:
    """Solutions ``φ̃ / U²`` and condition numbers of the damped systems."""
    solution, condition = np.empty(right.shape, np.complex128), np.empty(len(right))

    def prepare(backend: Backend) -> Work:
        xp = backend.xp

        def work(piece: slice) -> None:
            system = backend.asarray(matrix[piece], np.complex128)
            seen = backend.asarray(inside[piece])
            target = backend.asarray(right[piece, :, None], np.complex128)
            diagonal = xp.einsum("qaa->qa", system)
            # Unknowns that no pixel sees have empty rows; a typical value does not change the
            # condition.
            typical = diagonal.real.sum(axis=1) / xp.maximum(seen.sum(axis=1), 1) + floor
            damped = system + xp.where(seen, floor, typical[:, None])[:, :, None] * xp.eye(
                seen.shape[1]
            )
            values = xp.linalg.eigvalsh(damped)
            found = -1j * xp.where(seen, xp.linalg.solve(damped, target)[..., 0], 0)
            solution[piece] = backend.to_host(found)
            smallest = xp.maximum(values[:, 0], np.finfo(float).tiny)
            condition[piece] = backend.to_host(values[:, -1] / smallest)

        return work

    spread(prepare, chunks(len(right), cache_bytes(_SYSTEMS, executor)), executor)
    return solution, condition
