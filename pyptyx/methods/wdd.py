"""Wigner distribution deconvolution: the complex object without the weak-object approximation.

Notation: the spectrum over the scan ``G(k, Q)`` of all detector pixels is for every ``Q`` a
convolution over ``k`` of ``A*(k) A(k - Q)`` (pupil) with ``Ψ(k + Q) Ψ*(k)`` (object).  With ``H``
and ``X`` the inverse transforms of ``G`` and of the pupil part over ``k``, the element at
``k = 0`` is

    ``Ψ(Q) Ψ*(0) = Σ_ρ H X* w / Σ_ρ |X|² w``,   ``w = 1 / (|X|² + ε max|X|²)``.

The denominator is what makes the result quantitative: it removes the attenuation that the Wiener
filter ``w`` brings.  ``ε`` is relative, so that the scale of the counts does not matter; for large
``ε`` the result is that of a single-sideband matched filter, for small ``ε`` it is exact for any
phase, at the price of noise.

References
----------
J. M. Rodenburg, R. H. T. Bates, Phil. Trans. R. Soc. A 339 (1992) 521-553.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft

from pyptyx.data import PatternSource
from pyptyx.errors import ParamError, Problem
from pyptyx.files import scratch_array
from pyptyx.methods.bright_field import edge_taper, plan
from pyptyx.methods.disc import Disc
from pyptyx.methods.gamma import Overlaps, Pupil
from pyptyx.methods.scan_spectrum import Spectrum
from pyptyx.methods.shared_sums import chunks, mapped

logger = logging.getLogger(__name__)

Array = Any

_CHUNK_BYTES = 4 << 20


@dataclass(frozen=True)
class Box:
    """Images over the scan of the detector pixels of a rectangle around the disc.

    Attributes
    ----------
    images : array (by * bx, Ny, Nx)
        Counts; possibly a memory map.
    shape : (int, int)
        ``(by, bx)`` bins.
    k_A : ndarray (by * bx, 2)
        Coordinates (y, x) from the centre of the disc in 1/Å.
    dk_A : (float, float)
        Size of a bin.
    """

    images: Any
    shape: tuple[int, int]
    k_A: np.ndarray
    dk_A: tuple[float, float]


def read_box(
    source: PatternSource,
    disc: Disc,
    scan_size: Sequence[int],
    *,
    reach: float = 1.6,
    n_bin: int = 1,
    memory_bytes: int | None = None,
    scratch: str | Path | None = None,
) -> Box:
    """Stream the patterns once and keep a rectangle around the disc.

    Parameters
    ----------
    source : PatternSource
        Patterns ``(N, ky, kx)``.
    disc : Disc
        The bright-field disc.
    scan_size : (Ny, Nx)
    reach : float
        Half sides of the rectangle in radii of the disc.  Strong phases scatter beyond the disc.
    n_bin : int
        Bins of ``n_bin x n_bin`` pixels; ``1 / dk`` of a bin must be larger than the probe.
    memory_bytes, scratch
        As for `pyptyx.methods.bright_field.bright_field`.

    Raises
    ------
    ParamError
        If no bin fits into the rectangle.
    """
    sides = [
        _side(n, c, reach * disc.radius_A / d, n_bin)
        for n, c, d in zip(source.shape[1:], disc.centre_px, disc.dk_A, strict=True)
    ]
    if min(bins for _, bins in sides) < 2:
        raise ParamError(Problem("n_bin", "bins smaller than the disc", str(n_bin), "Take 1."))
    (top, by), (left, bx) = sides
    dtype = source.dtype if n_bin == 1 and source.dtype.itemsize <= 4 else np.dtype(np.float32)
    made = plan(by * bx, scan_size, dtype, memory_bytes)
    logger.info("WDD box: %s", made)
    store = scratch_array((by * bx, source.shape[0]), dtype, made.in_memory, scratch)
    rows, columns = slice(top, top + by * n_bin), slice(left, left + bx * n_bin)
    for where, patterns in source.iter_chunks():
        block = patterns[:, rows, columns]
        if n_bin > 1:
            parts = block.reshape(len(block), by, n_bin, bx, n_bin)
            block = parts.sum(axis=(2, 4), dtype=np.float32)
        if block.dtype.kind == "f":
            block = np.nan_to_num(block, posinf=0.0, neginf=0.0)
        store[:, where] = block.reshape(len(block), -1).T
    middle = (n_bin - 1) / 2
    y = (top + middle + n_bin * np.arange(by) - disc.centre_px[0]) * disc.dk_A[0]
    x = (left + middle + n_bin * np.arange(bx) - disc.centre_px[1]) * disc.dk_A[1]
    k_A = np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1).reshape(-1, 2)
    dk_A = (disc.dk_A[0] * n_bin, disc.dk_A[1] * n_bin)
    return Box(store.reshape(-1, *scan_size), (by, bx), k_A, dk_A)


def automatic_epsilon(counts: float) -> float:
    """Wiener constant that suits a number of counts per pattern: 1 at 300, 1e-3 at 1e5."""
    return float(np.clip((300 / max(counts, 1e-12)) ** 1.2, 1e-4, 1.0))


def wdd(
    box: Box,
    pupil: Pupil,
    step_A: float,
    rotation_rad: float = 0.0,
    *,
    epsilon: float = 1e-3,
    threshold: float | None = None,
    damping: float = 1e-2,
    periodic: bool = False,
) -> np.ndarray:
    """Complex transmission of a thin object on the grid of the scan.

    Parameters
    ----------
    box : Box
        The patterns, from `read_box`.
    pupil : Pupil
        Aperture and aberrations in the frame of the detector.
    step_A : float
        Scan step in Å.
    rotation_rad : float
        Scan rotation φ.
    epsilon : float
        Wiener constant ``ε``, relative; see `automatic_epsilon`.
    threshold : float, optional
        Instead of the Wiener filter, use ``|X|`` above this fraction of its maximum only.
    damping : float
        Frequencies whose transfer is small relative to that of ``Q = 0`` are damped, by half at
        this ratio.
    periodic : bool
        The scan covers whole periods of the object: its edges are not tapered.

    Returns
    -------
    ndarray (Ny, Nx), complex128
        Mean real and positive; modulus near 1 for a phase object.  Frequencies beyond twice the
        aperture are 0.
    """
    size = box.images.shape[1:]
    spectrum = Spectrum.of(size, size, step_A, rotation_rad, 2 * pupil.radius_A)
    index = np.concatenate([[0], spectrum.index])
    q_A = np.concatenate([np.zeros((1, 2)), spectrum.q_A])
    g = _scan_transform(box, index, periodic)
    counts = float(g[0].real.sum()) or 1.0
    deconvolve = _Deconvolution(box, pupil, epsilon, threshold)
    batch = max(1, _CHUNK_BYTES // (8 * len(box.k_A)))
    parts = [slice(i, min(i + batch, len(index))) for i in range(0, len(index), batch)]
    found = mapped(lambda part: deconvolve(g[part], q_A[part]), parts)
    forward, backward = (np.concatenate([f[i] for f in found]) for i in (0, 1))

    full = np.zeros(size, dtype=np.complex128)
    row, column = np.divmod(index, size[1] // 2 + 1)
    for sign, (value, transfer) in ((-1, backward.T), (1, forward.T)):
        relative = transfer.real / transfer[0].real
        full[sign * row, sign * column] = value * relative * (1 + damping) / (relative + damping)
    # A pupil of amplitude one has as many counts as pixels; a phase object then has modulus one.
    full *= deconvolve.pupil_counts / counts
    return scipy.fft.ifft2(full) * full.size / np.sqrt(np.abs(full[0, 0]) or 1.0)


def _side(n: int, centre: float, half: float, n_bin: int) -> tuple[int, int]:
    """First pixel and number of bins along one axis; one bin has the centre in its middle."""
    bins_each = max(0, int((half - n_bin / 2) / n_bin) + 1)
    start = round(centre - (n_bin - 1) / 2)
    low = min(bins_each, start // n_bin)
    high = min(bins_each, (n - start - n_bin) // n_bin)
    return start - low * n_bin, max(low + high + 1, 0)


def _scan_transform(box: Box, index: np.ndarray, periodic: bool) -> np.ndarray:
    """``G``, ``(Q, K)`` complex64, the mean of each image at ``Q = 0``."""
    size = box.images.shape[1:]
    rows, columns = edge_taper(size, 0 if periodic else None)
    shape = (len(index), len(box.k_A))
    made = plan(shape[1], (shape[0], 1), np.complex64)
    g = scratch_array(shape, np.complex64, made.in_memory, None)

    def transform(piece: slice) -> None:
        block = np.array(box.images[piece], dtype=np.float32)
        mean = block.mean(axis=(1, 2), keepdims=True)
        block -= mean
        block *= rows[:, None] * columns
        planes = scipy.fft.rfft2(block, axes=(1, 2), workers=1, norm="forward")
        values = planes.reshape(len(planes), -1).take(index, axis=1)
        values[:, 0] = mean[:, 0, 0]
        g[:, piece] = values.T

    # Long enough pieces for whole cache lines of the transposed array.
    mapped(transform, chunks(shape[1], 32))
    return g


@dataclass(frozen=True)
class _Deconvolution:
    """Deconvolution of a batch of frequencies ``Q`` and of ``-Q``, whose ``G`` is conjugate."""

    box: Box
    pupil: Pupil
    epsilon: float
    threshold: float | None

    def __call__(self, g: np.ndarray, q_A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``Ψ(±Q) Ψ*(0)`` and the transfer at ``±Q``, each ``(Q, 2)`` complex128."""
        plus, minus = Overlaps(q_A, self.pupil)(self.box.k_A)
        h = self._to_rho(g)
        forward = self._quotient(h, self._to_rho(np.ascontiguousarray(plus.T)))
        backward = self._quotient(h, self._to_rho(np.ascontiguousarray(minus.T)))
        return forward, backward.conj()

    def _to_rho(self, values: np.ndarray) -> np.ndarray:
        """Transform over the box without factor, which would cancel; destroys `values`."""
        planes = values.reshape(len(values), *self.box.shape)
        return scipy.fft.ifft2(planes, axes=(1, 2), workers=1, norm="forward", overwrite_x=True)

    def _quotient(self, h: np.ndarray, x: np.ndarray) -> np.ndarray:
        power = x.real**2 + x.imag**2
        if self.threshold is None:
            weight = 1 / (power + np.float32(self.epsilon * self.pupil_counts**2))
        else:
            bright = power > (self.threshold * self.pupil_counts) ** 2
            weight = np.where(bright, 1 / np.where(bright, power, 1), 0)
        top = np.einsum("qyx,qyx->q", h, x.conj() * weight, dtype=np.complex128)
        below = np.einsum("qyx,qyx->q", power, weight, dtype=np.float64)
        return np.stack([top / np.where(below > 0, below, np.inf), below], axis=1)

    @cached_property
    def pupil_counts(self) -> float:
        """``Σ_k |A|²``; its square is ``max |X|²``, that of ``ρ = 0`` and ``Q = 0``."""
        return float((self.pupil.amplitude((self.box.k_A**2).sum(axis=1)) ** 2).sum())
