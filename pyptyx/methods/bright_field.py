"""One pass over the patterns: virtual bright-field images, centres of mass, mean pattern.

All direct methods work on the images that single bright-field pixels (or bins of them) record over
the scan.  `bright_field` streams the patterns once, in storage order, and transposes them into such
images, in memory or, if they do not fit, in a scratch file.

Notation: scan points ``R (Ny, Nx)``; detector coordinates ``k`` as rows ``(y, x)`` in 1/Å from the
centre of the disc, in the frame of the detector; ``I_k(R)`` counts; ``p_k`` the share of all counts
that bin ``k`` receives on average.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pyptyx.backend import Backend
from pyptyx.data import PatternSource
from pyptyx.errors import Problem, ShapeError
from pyptyx.files import scratch_array
from pyptyx.methods.disc import Disc, find_disc
from pyptyx.methods.frames import Sums, first_look, select, sort_pixels, stream

logger = logging.getLogger(__name__)

_SHARE_OF_FREE = 0.6
"""Part of the free memory that images may take unless told otherwise."""

_TRUSTED_RADIUS = 0.05
"""Relative difference between measured and given radius of the disc that is worth a warning."""


@dataclass(frozen=True)
class Reading:
    """How the patterns are read.

    Attributes
    ----------
    threshold : float
        Level of the disc in the mean pattern, see `find_disc`.
    memory_bytes : int or None
        Memory for the images; by default a good half of what is free.  More goes to a file.
    scratch : path or None
        Folder of the scratch file, which has no name and vanishes with the images.
    """

    threshold: float = 0.5
    memory_bytes: int | None = None
    scratch: str | Path | None = None


DEFAULT_READING = Reading()


@dataclass(frozen=True)
class Plan:
    """What `bright_field` is going to hold.

    Attributes
    ----------
    shape : tuple of int
        ``(K, Ny, Nx)`` of the images.
    dtype : numpy.dtype
    in_memory : bool
        False: the images go to a scratch file.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype
    in_memory: bool

    @property
    def bytes(self) -> int:
        """Size of the images."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        place = "in memory" if self.in_memory else "in a scratch file"
        size = f"{self.bytes / 2**20:.0f} MiB"
        return f"{self.shape[0]} images of {self.shape[1]} x {self.shape[2]}, {size} {place}"


@dataclass(frozen=True)
class BrightField:
    """Bright-field images of a scan and what else one pass over the patterns gives.

    Attributes
    ----------
    images : array (K, Ny, Nx)
        Counts of each bin; dtype of the data, or float32; possibly a memory map.
    k_A : ndarray (K, 2)
        Centroid ``(y, x)`` of each bin in 1/Å from the centre of the disc.
    mean_fraction : ndarray (K,)
        Mean counts of the bin over mean counts of a pattern, ``p_k``.
    counts : ndarray (Ny, Nx)
        All counts of each pattern.
    comx, comy : ndarray (Ny, Nx)
        Centre of mass in 1/Å from the centre of the disc, of the whole pattern; its mean over the
        scan is not removed.  Patterns without counts have that mean.
    com_variance : ndarray (Ny, Nx)
        Poisson variance of each component of the centre of mass in 1/Å², if the data are counts;
        infinite for patterns without counts.
    pacbed : ndarray (ky, kx)
        Mean pattern.
    mask : ndarray (ky, kx), bool
        Pixels that are in some bin.
    centre_px, radius_px
        Centre ``(cy, cx)`` and radius of the disc in detector pixels.
    step_A, wavelength_A, semiangle_rad : float
        Scan step, wavelength, convergence semi-angle.
    dk_A : tuple of float
        Detector pixel ``(y, x)`` in 1/Å.
    n_bin : int
        Edge of a bin in pixels.
    """

    images: Any
    k_A: np.ndarray
    mean_fraction: np.ndarray
    counts: np.ndarray
    comx: np.ndarray
    comy: np.ndarray
    com_variance: np.ndarray
    pacbed: np.ndarray
    mask: np.ndarray
    centre_px: tuple[float, float]
    radius_px: float
    step_A: float
    wavelength_A: float
    semiangle_rad: float
    dk_A: tuple[float, float]
    n_bin: int = 1

    @property
    def scan_size(self) -> tuple[int, int]:
        """``(Ny, Nx)``."""
        return self.counts.shape[0], self.counts.shape[1]

    @property
    def electrons(self) -> float:
        """Mean counts of a pattern."""
        return float(self.counts.mean())

    def transposed(self) -> BrightField:
        """The same scan seen by a detector with both axes exchanged; shares the images."""
        return replace(
            self,
            k_A=self.k_A[:, ::-1],
            comx=self.comy,
            comy=self.comx,
            pacbed=self.pacbed.T,
            mask=self.mask.T,
            centre_px=self.centre_px[::-1],
            dk_A=self.dk_A[::-1],
        )

    def spectra(
        self,
        chunk: slice,
        *,
        shape: tuple[int, int] | None = None,
        taper_px: int | None = None,
        backend: Backend | None = None,
    ) -> Any:
        """Spectra over the scan of ``I_k / mean(I_k) - 1``, tapered and padded.

        Parameters
        ----------
        chunk : slice
            Which images.
        shape : tuple of int, optional
            Padded scan ``(Py, Px)``, zeros at the high ends; by default not padded.
        taper_px : int, optional
            Width of the sin² edge of the scan; by default that of `edge_taper`, 0 for none.
        backend : Backend, optional
            Where to compute; by default NumPy.

        Returns
        -------
        array (B, Py, Px // 2 + 1), complex64
            Real transforms without factor, on the device of the backend.
        """
        backend = backend or Backend()
        block = backend.asarray(self.images[chunk]).astype(np.float32)
        mean = block.mean(axis=(1, 2), keepdims=True, dtype=np.float64).astype(np.float32)
        block /= mean
        block -= 1
        rows, columns = edge_taper(self.scan_size, taper_px)
        block *= backend.asarray(rows[:, None] * columns)
        return backend.rfft2(block, shape or self.scan_size)

    def chunks(
        self, shape: tuple[int, int] | None = None, working_bytes: int = 32 << 20
    ) -> Iterator[slice]:
        """Slices of images whose spectra of `shape` take at most `working_bytes`."""
        ny, nx = shape or self.scan_size
        size = max(1, working_bytes // (8 * ny * (nx // 2 + 1)))
        for start in range(0, len(self.k_A), size):
            yield slice(start, min(start + size, len(self.k_A)))


def edge_taper(
    scan_size: Sequence[int], taper_px: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Windows of rows and columns that rise with sin² over `taper_px`, float32.

    By default the smaller of 16 points and an eighth of the axis; at most half of it.
    """
    windows = []
    for n in scan_size:
        width = min(16, n // 8) if taper_px is None else min(taper_px, n // 2)
        window = np.ones(n, dtype=np.float32)
        rise = np.sin(0.5 * np.pi * (np.arange(width) + 0.5) / max(width, 1)) ** 2
        window[:width] = rise
        window[n - width :] = rise[::-1]
        windows.append(window)
    return windows[0], windows[1]


def plan(
    n_bins: int,
    scan_size: Sequence[int],
    dtype: Any,
    memory_bytes: int | None = None,
) -> Plan:
    """How many bytes the images take, and whether memory holds them.

    Parameters
    ----------
    n_bins : int
        Number of images.
    scan_size : (Ny, Nx)
    dtype : dtype
        Of the images.
    memory_bytes : int, optional
        What may be used; by default a good half of the free memory.
    """
    allowed = _SHARE_OF_FREE * Backend().free_bytes() if memory_bytes is None else memory_bytes
    made = Plan((n_bins, int(scan_size[0]), int(scan_size[1])), np.dtype(dtype), True)
    return replace(made, in_memory=made.bytes <= allowed)


def bright_field(
    source: PatternSource,
    *,
    dk_A: tuple[float, float],
    wavelength_A: float,
    step_A: float,
    scan_size: Sequence[int] | None = None,
    semiangle_rad: float | None = None,
    n_bin: int = 1,
    reading: Reading = DEFAULT_READING,
) -> BrightField:
    """Read all patterns once and keep what the direct methods need.

    Parameters
    ----------
    source : PatternSource
        Patterns ``(N, ky, kx)``.
    dk_A : (float, float)
        Detector pixel ``(y, x)`` in 1/Å.
    wavelength_A, step_A : float
        Wavelength and scan step in Å.
    scan_size : (Ny, Nx), optional
        By default that of the source.
    semiangle_rad : float, optional
        Convergence semi-angle; by default from the radius of the disc.
    n_bin : int
        Bins of ``n_bin x n_bin`` pixels, one of them around the centre of the disc.
    reading : Reading
        Threshold of the disc, memory and scratch file.

    Returns
    -------
    BrightField

    Raises
    ------
    DataError
        If there is no disc, or too few bins lie in it.
    ShapeError
        If the patterns are not images or do not fit the scan.

    Notes
    -----
    A pixel that is not a finite number in some pattern, or dark, is left out everywhere.
    """
    size = _scan_size(source, scan_size)
    dk = (float(dk_A[0]), float(dk_A[1]))
    look = first_look(source)
    bins = sort_pixels(find_disc(look, dk, reading.threshold), look, int(n_bin))
    dtype = source.dtype if n_bin == 1 and source.dtype.itemsize <= 4 else np.dtype(np.float32)
    made = plan(bins.number, size, dtype, reading.memory_bytes)
    logger.info("Bright field: %s", made)
    store = scratch_array(
        (made.shape[0], made.shape[1] * made.shape[2]), made.dtype, made.in_memory, reading.scratch
    )
    sums = stream(source, bins, store)

    disc = find_disc(sums.pacbed, dk, reading.threshold)
    chosen = select(bins, sums, disc, store)
    return BrightField(
        images=chosen.images.reshape(-1, *size),
        k_A=chosen.k_A,
        mean_fraction=chosen.mean_fraction,
        **_moments(sums, disc, size),
        pacbed=sums.pacbed,
        mask=chosen.mask,
        centre_px=disc.centre_px,
        radius_px=disc.radius_px,
        step_A=float(step_A),
        wavelength_A=float(wavelength_A),
        semiangle_rad=_semiangle(disc, wavelength_A, semiangle_rad),
        dk_A=dk,
        n_bin=int(n_bin),
    )


def _scan_size(source: PatternSource, scan_size: Sequence[int] | None) -> tuple[int, int]:
    size = source.scan_size if scan_size is None else (int(scan_size[0]), int(scan_size[1]))
    problems = []
    if len(source.shape) != 3:
        remedy = "Compressed data have no bright-field disc"
        problems.append(Problem(source.name, "patterns (N, ky, kx)", str(source.shape), remedy))
    if size is None or math.prod(size) != source.shape[0]:
        wanted = f"(Ny, Nx) with Ny x Nx = {source.shape[0]}, the number of patterns"
        problems.append(Problem("scan_size", wanted, str(size)))
    if problems or size is None:
        raise ShapeError(problems)
    return size


def _semiangle(disc: Disc, wavelength_A: float, given_rad: float | None) -> float:
    measured = disc.radius_A * wavelength_A
    if given_rad is None:
        return measured
    if abs(measured / given_rad - 1) > _TRUSTED_RADIUS:
        logger.warning(
            "The bright-field disc has a radius of %.3g mrad, but the semi-angle is %.3g mrad: "
            "check the size of the detector pixels",
            1e3 * measured,
            1e3 * given_rad,
        )
    return float(given_rad)


def _moments(sums: Sums, disc: Disc, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Counts, centres of mass in 1/Å from the centre of the disc, and their variance."""
    filled = sums.counts > 0
    counts = np.where(filled, sums.counts, 1.0)[:, None]
    com = sums.first / counts
    spread = np.maximum(sums.second / counts - com**2, 0)
    com[~filled] = com[filled].mean(axis=0)
    origin = np.array([disc.centre_px[a] - sums.pacbed.shape[a] // 2 for a in (0, 1)])
    com = (com - origin) * disc.dk_A
    variance = (spread * np.square(disc.dk_A)).mean(axis=1) / counts[:, 0]
    variance[~filled] = np.inf
    return {
        "counts": sums.counts.reshape(size),
        "comx": com[:, 1].reshape(size),
        "comy": com[:, 0].reshape(size),
        "com_variance": variance.reshape(size),
    }
