"""Linear images while the scan is running: patterns come in any order, the image at any time.

All kernels ``W_k = p_k w_k`` of `pyptyx.methods.linear` are proportional to the share ``p_k`` of
the counts that bin ``k`` receives, and the images ``I_k`` are divided by their mean ``c p_k``, with
``c`` the mean counts of a pattern.  Therefore

    ``N(q) = Σ_k w_k FT[t (I_k / c - p_k)] = (S + Σ_k w_k (r_k - c p_k) FT[t]) / c``,
    ``S(q) = Σ_k w_k FT[t (I_k - r_k)]``,

with ``t`` 1 where something has been measured and 0 elsewhere.  ``S`` is linear in the counts:
patterns are added as they come and forgotten.  The constants ``r_k``, the means of the
first patterns, only keep digits.  Shares and mean counts, which change until the end, enter when an
image is wanted.

Patterns are collected in a buffer; a pass over the bins adds them all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from threading import RLock
from typing import Any

import numpy as np

from pyptyx.backend import Backend, MapReduce
from pyptyx.errors import DataError, Problem
from pyptyx.methods.bright_field import BrightField
from pyptyx.methods.disc import find_disc
from pyptyx.methods.frames import Bins, sort_pixels
from pyptyx.methods.gamma import Coefficients, Overlaps
from pyptyx.methods.linear import (
    FORMS,
    WEIGHTS,
    Halves,
    LinearImage,
    Pixels,
    Scene,
    by_halves,
    check_options,
    finish,
)
from pyptyx.methods.scan_spectrum import Spectrum, pixel_chunks, pupil_of, spectrum_of
from pyptyx.methods.shared_sums import Work, summed

Array = Any


@dataclass(frozen=True)
class Geometry:
    """What is known before the first pattern.

    Attributes
    ----------
    bins : Bins
        Detector pixels in the bright-field disc.
    bright : BrightField
        Coordinates of the bins, optics and scan; without images.
    """

    bins: Bins
    bright: BrightField


def geometry(
    reference: np.ndarray,
    *,
    dk_A: tuple[float, float],
    wavelength_A: float,
    step_A: float,
    scan_size: tuple[int, int],
    semiangle_rad: float | None = None,
    n_bin: int = 1,
) -> Geometry:
    """Find the bright-field disc in a reference.

    Parameters
    ----------
    reference : ndarray (ky, kx)
        Mean pattern of an earlier scan or without specimen, on any scale; NaN where a pixel must
        not be used.
    dk_A : (float, float)
        Detector pixel ``(y, x)`` in 1/Å.
    wavelength_A, step_A : float
        Wavelength and scan step in Å.
    scan_size : (Ny, Nx)
    semiangle_rad : float, optional
        Convergence semi-angle; by default from the radius of the disc.
    n_bin : int
        Edge of the bins of detector pixels.

    Raises
    ------
    DataError
        If there is no disc, or too few bins lie in it.
    """
    disc = find_disc(reference, dk_A)
    pattern = np.nan_to_num(np.asarray(reference, dtype=np.float64), posinf=0.0, neginf=0.0)
    bins = sort_pixels(disc, reference, n_bin)
    bins = bins.chosen(bins.lit(pattern))
    nothing = np.zeros(scan_size)
    bright = BrightField(
        images=np.broadcast_to(np.float32(0), (bins.number, *scan_size)),
        k_A=bins.centroids_A(pattern, disc),
        mean_fraction=bins.sums(pattern) / pattern.sum(),
        counts=nothing,
        comx=nothing,
        comy=nothing,
        com_variance=nothing,
        pacbed=pattern,
        mask=bins.mask,
        centre_px=disc.centre_px,
        radius_px=disc.radius_px,
        step_A=step_A,
        wavelength_A=wavelength_A,
        semiangle_rad=semiangle_rad or disc.radius_A * wavelength_A,
        dk_A=dk_A,
        n_bin=n_bin,
    )
    return Geometry(bins, bright)


class LiveSums:
    """Sums over a scan that is not complete yet.

    May be fed by one thread while another asks for images.

    Parameters
    ----------
    known : Geometry
    coefficients_A : sequence of float
        Krivanek coefficients in Å, detector frame.
    rotation_rad : float
        Scan rotation φ.
    kernel : {"mf", "ssb", "obf", "tcbf", "icom"}
        See `pyptyx.methods.linear`.
    periodic : bool
        The scan covers whole periods of the object: it is not padded.
    buffer_bytes : int
        Memory for patterns that are not added yet.
    executor : MapReduce, optional
        Workers that share the bins; by default the calling thread works alone.

    Raises
    ------
    ParamError
        If the kernel is unknown.
    """

    def __init__(
        self,
        known: Geometry,
        coefficients_A: Coefficients,
        rotation_rad: float = 0.0,
        *,
        kernel: str = "mf",
        periodic: bool = False,
        buffer_bytes: int = 64 << 20,
        executor: MapReduce | None = None,
    ):
        check_options(kernel, None)
        bright = known.bright
        self._bins, self._bright, self._kernel = known.bins, bright, kernel
        pupil = pupil_of(bright, coefficients_A)
        self._spectrum = spectrum_of(bright, [pupil], rotation_rad, periodic)
        self._overlaps = Overlaps(self._spectrum.q_A, pupil, relative=True)
        self._executor, self._lock = executor, RLock()
        points = math.prod(bright.scan_size)
        self._capacity = max(1, min(points, buffer_bytes // (4 * known.bins.number)))
        self._arrived = np.zeros(points, dtype=bool)
        self._counts, self._bin_counts = 0.0, np.zeros(known.bins.number)
        self._origin = np.zeros(0, np.float32)
        self._pending: list[tuple[np.ndarray, np.ndarray]] = []
        self._sum = np.zeros((2, len(self._spectrum.index)), np.complex128)
        self._latest: tuple[Scene, Halves] | None = None

    @property
    def arrived(self) -> np.ndarray:
        """Scan points that have been measured, ``(Ny, Nx)`` bool."""
        return self._arrived.reshape(self._bright.scan_size).copy()

    def add(self, patterns: np.ndarray, points: np.ndarray) -> None:
        """Take patterns.

        Parameters
        ----------
        patterns : ndarray (B, ky, kx)
            Counts, finite in the disc.
        points : ndarray of int (B,)
            Row-major numbers of their scan points, each for the first time.

        Raises
        ------
        DataError
            If patterns and points do not go together; nothing is added then.
        """
        with self._lock:
            self._check(patterns, points)
            flat = patterns.reshape(len(patterns), -1)
            values = np.asarray(self._bins.gather(flat), dtype=np.float32)
            counts = np.where(np.isfinite(flat), flat, 0).sum(dtype=np.float64)
            if not np.isfinite(values).all():
                remedy = "Set the pixel to NaN in the reference"
                problem = Problem("patterns", "finite counts in the disc", "others", remedy)
                raise DataError(problem)
            if not len(self._origin) and len(values):
                self._origin = values.mean(axis=0, dtype=np.float64).astype(np.float32)
            self._arrived[points] = True
            self._counts += counts
            self._bin_counts += values.sum(axis=0, dtype=np.float64)
            self._latest = None
            for start in range(0, len(values), self._capacity):
                part = slice(start, start + self._capacity)
                self._buffer(points[part], values[part])

    def image(self, wiener: float | str | None = "halves") -> LinearImage:
        """The image so far; what has not been measured is flat.

        Parameters
        ----------
        wiener : "halves", float or None
            See `pyptyx.methods.linear.linear_images`.

        Raises
        ------
        ParamError
            If the filter is unknown.
        DataError
            If there are no counts yet.
        """
        check_options(self._kernel, wiener)
        with self._lock:
            if not self._counts:
                problem = Problem("patterns", "some with counts", "none yet", "Add patterns first.")
                raise DataError(problem)
            if self._latest is None:
                self._latest = self._halves()
            scene, halves = self._latest
        return finish(scene, halves, wiener, FORMS.get(self._kernel, "phase"))

    def _check(self, patterns: np.ndarray, points: np.ndarray) -> None:
        problems = []
        if patterns.shape != (len(points), *self._bins.shape):
            wanted = f"shape ({len(points)}, {self._bins.shape[0]}, {self._bins.shape[1]})"
            problems.append(Problem("patterns", wanted, str(patterns.shape)))
        ny, nx = self._bright.scan_size
        if len(points) and not (points.min() >= 0 and points.max() < ny * nx):
            wanted = f"numbers below {ny * nx} of the points of a {ny} x {nx} scan"
            got = f"{points.min()} to {points.max()}"
            problems.append(Problem("points", wanted, got))
        elif len(np.unique(points)) < len(points) or self._arrived[points].any():
            wanted = "scan points that have not been measured yet"
            problems.append(Problem("points", wanted, "some twice", "Start anew for a new scan."))
        if problems:
            raise DataError(problems)

    def _buffer(self, points: np.ndarray, values: np.ndarray) -> None:
        if sum(len(p) for p, _ in self._pending) + len(points) > self._capacity:
            self._pass()
        self._pending.append((points.copy(), values))

    def _halves(self) -> tuple[Scene, Halves]:
        """The sums that the batch would have, if the scan ended now."""
        base, transfer, noise = self._pass()
        shape, index = self._spectrum.shape, self._spectrum.index
        measured = self._arrived.reshape(self._bright.scan_size).astype(np.float64)
        flat = Backend().rfft2(measured, shape).ravel()[index]
        mean = self._counts / self._arrived.sum()
        scene = Scene(self._spectrum, self._bright.step_A, mean)
        return scene, Halves((self._sum + base * flat) / mean, transfer, noise)

    def _pass(self) -> list[np.ndarray]:
        """Add what is pending; returns ``Σ w (r - c p)``, ``T`` and ``V``, ``(2, Q)`` each."""
        share = self._bin_counts / (self._counts or 1.0)
        excess = self._origin - self._bin_counts / self._arrived.sum()
        shares, rest = (a.astype(np.float32)[:, None] for a in (share, excess))

        def prepare(backend: Backend) -> Work:
            here, pairs_of = self._spectrum.on(backend), self._overlaps.on(backend)
            xp, pupil = backend.xp, self._overlaps.pupil

            def work(piece: slice) -> list[Array]:
                k_A = self._bright.k_A[piece]
                plus, minus = pairs_of(k_A)
                plus -= minus
                p, r = backend.asarray(shares[piece]), backend.asarray(rest[piece])
                pixels = Pixels(k_A, xp.ones_like(p), plus, here.q_A, pupil, backend)
                weights = WEIGHTS[self._kernel](pixels)
                return [
                    by_halves(weights, self._new_spectra(piece, here, backend), xp),
                    by_halves(weights, r + xp.zeros_like(plus), xp),
                    by_halves(weights, p * plus, xp),
                    by_halves(weights.conj() * p, weights, xp).real,
                ]

            return work

        pieces = pixel_chunks(self._bins.number, self._spectrum, self._executor)
        new, base, transfer, noise = summed(prepare, pieces, self._executor)
        self._sum += new
        self._pending.clear()
        return [base, transfer, noise]

    def _new_spectra(self, piece: slice, here: Spectrum, backend: Backend) -> Array:
        """``FT[t (I_k - r_k)]`` of the pending patterns, ``(B, Q)``."""
        size = self._bright.scan_size
        block = np.zeros((piece.stop - piece.start, math.prod(size)), np.float32)
        for points, values in self._pending:
            block[:, points] = (values[:, piece] - self._origin[piece]).T
        planes = backend.rfft2(backend.asarray(block.reshape(-1, *size)), here.shape)
        return planes.reshape(len(planes), -1).take(here.index, axis=1)
