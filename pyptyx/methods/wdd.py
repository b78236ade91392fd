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
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft

from pyptyx.backend import Backend, MapReduce
from pyptyx.data import PatternSource
from pyptyx.data.pixels import sum_bin
from pyptyx.errors import ParamError, Problem
from pyptyx.files import scratch_array
from pyptyx.methods.bright_field import plan
from pyptyx.methods.disc import Disc
from pyptyx.methods.gamma import Overlaps, Pupil
from pyptyx.methods.scan_spectrum import MARGIN_PX, Spectrum, good_size, shifts_A
from pyptyx.methods.shared_sums import Work, cache_bytes, chunks, spread

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


@dataclass(frozen=True)
class Regularisation:
    """What is done about overlaps and frequencies that are hardly transferred.

    Attributes
    ----------
    epsilon : float
        Wiener constant ``ε``, relative; see `automatic_epsilon`.
    threshold : float or None
        Instead of the Wiener filter, use ``|X|`` above this fraction of its maximum only.
    damping : float
        Frequencies whose transfer is small relative to that of ``Q = 0`` are damped, by half at
        this ratio.
    """

    epsilon: float = 1e-3
    threshold: float | None = None
    damping: float = 1e-2


DEFAULT_REGULARISATION = Regularisation()


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
        block = sum_bin(block, n_bin, np.float32)
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
    regularisation: Regularisation = DEFAULT_REGULARISATION,
    periodic: bool = False,
    executor: MapReduce | None = None,
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
    regularisation : Regularisation
        What is done about overlaps and frequencies that are hardly transferred.
    periodic : bool
        The scan covers whole periods of the object: it is not padded.
    executor : MapReduce, optional
        Workers that share the detector pixels, then the frequencies ``Q``; by default the calling
        thread works alone.

    Returns
    -------
    ndarray (Ny, Nx), complex128
        Mean real and positive; modulus near 1 for a phase object.  Frequencies beyond twice the
        aperture are 0.
    """
    size = (box.images.shape[1], box.images.shape[2])
    shape = size if periodic else _padded(size, pupil, step_A)
    spectrum = Spectrum.of(shape, size, step_A, rotation_rad, 2 * pupil.radius_A)
    index = np.concatenate([[0], spectrum.index])
    q_A = np.concatenate([np.zeros((1, 2)), spectrum.q_A])
    g = _scan_transform(box, index, shape, executor)
    counts = float(g[0].real.sum()) or 1.0
    deconvolve = _Deconvolution(box, pupil, regularisation)
    forward, backward = deconvolve.all(g, q_A, executor)

    damping = regularisation.damping
    full = np.zeros(shape, dtype=np.complex128)
    row, column = np.divmod(index, shape[1] // 2 + 1)
    for sign, (value, transfer) in ((-1, backward.T), (1, forward.T)):
        relative = transfer.real / transfer[0].real
        full[sign * row, sign * column] = value * relative * (1 + damping) / (relative + damping)
    # A pupil of amplitude one has as many counts as pixels; a phase object then has modulus one.
    full *= deconvolve.pupil_counts / counts
    image = scipy.fft.ifft2(full, norm="forward")[: size[0], : size[1]]
    return image / np.sqrt(np.abs(full[0, 0]) or 1.0)


def _side(n: int, centre: float, half: float, n_bin: int) -> tuple[int, int]:
    """First pixel and number of bins along one axis; one bin has the centre in its middle."""
    bins_each = max(0, int((half - n_bin / 2) / n_bin) + 1)
    start = round(centre - (n_bin - 1) / 2)
    low = min(bins_each, start // n_bin)
    high = min(bins_each, (n - start - n_bin) // n_bin)
    return start - low * n_bin, max(low + high + 1, 0)


def _padded(size: tuple[int, int], pupil: Pupil, step_A: float) -> tuple[int, int]:
    """The scan with room for what the aberrations move over its edges."""
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    rim = pupil.radius_A * np.stack([np.sin(angle), np.cos(angle)], axis=1)
    reach = math.ceil(np.abs(shifts_A(rim, pupil)).max() / step_A)
    more = max(min(reach, max(size)), MARGIN_PX)
    return good_size(size[0] + more), good_size(size[1] + more)


def _scan_transform(
    box: Box, index: np.ndarray, shape: tuple[int, int], executor: MapReduce | None
) -> np.ndarray:
    """``G``, ``(Q, K)`` complex64, of the padded scan; the mean of each image at ``Q = 0``."""
    made = plan(len(box.k_A), (len(index), 1), np.complex64)
    g = scratch_array((len(index), len(box.k_A)), np.complex64, made.in_memory, None)

    def prepare(backend: Backend) -> Work:
        places = backend.asarray(index)

        def work(piece: slice) -> None:
            block = backend.asarray(box.images[piece]).astype(np.float32)
            mean = block.mean(axis=(1, 2), keepdims=True)
            block -= mean
            planes = backend.rfft2(block, shape)
            values = planes.reshape(len(planes), -1).take(places, axis=1)
            values *= np.float32(1 / math.prod(shape))
            values[:, 0] = mean[:, 0, 0]
            g[:, piece] = backend.to_host(values).T

        return work

    # Long enough pieces for whole cache lines of the transposed array.
    spread(prepare, chunks(len(box.k_A), 32), executor)
    return g


@dataclass(frozen=True)
class _Deconvolution:
    """Deconvolution of frequencies ``Q`` and of ``-Q``, whose ``G`` is conjugate."""

    box: Box
    pupil: Pupil
    regularisation: Regularisation

    def all(
        self, g: np.ndarray, q_A: np.ndarray, executor: MapReduce | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """``Ψ(±Q) Ψ*(0)`` and the transfer at ``±Q``, each ``(Q, 2)`` complex128."""
        forward, backward = (np.empty((len(q_A), 2), np.complex128) for _ in range(2))

        def prepare(backend: Backend) -> Work:
            def work(piece: slice) -> None:
                plus, minus = self._batch(g[piece], q_A[piece], backend)
                forward[piece], backward[piece] = backend.to_host(plus), backend.to_host(minus)

            return work

        batch = max(1, cache_bytes(_CHUNK_BYTES, executor) // (8 * len(self.box.k_A)))
        spread(prepare, chunks(len(q_A), batch), executor)
        return forward, backward

    def _batch(self, g: np.ndarray, q_A: np.ndarray, backend: Backend) -> tuple[Array, Array]:
        xp = backend.xp
        plus, minus = Overlaps(q_A, self.pupil).on(backend)(self.box.k_A)
        h = self._to_rho(backend.asarray(g), backend)
        forward = self._quotient(h, self._to_rho(xp.ascontiguousarray(plus.T), backend), xp)
        backward = self._quotient(h, self._to_rho(xp.ascontiguousarray(minus.T), backend), xp)
        return forward, backward.conj()

    def _to_rho(self, values: Array, backend: Backend) -> Array:
        """Transform over the box without factor, which would cancel; destroys `values`."""
        planes = values.reshape(len(values), *self.box.shape)
        return backend.fft2_adjoint(planes, overwrite=True)

    def _quotient(self, h: Array, x: Array, xp: Any) -> Array:
        power = x.real**2 + x.imag**2
        threshold = self.regularisation.threshold
        if threshold is None:
            floor = self.regularisation.epsilon * self.pupil_counts**2
            weight = 1 / (power + np.float32(floor))
        else:
            bright = power > (threshold * self.pupil_counts) ** 2
            weight = xp.where(bright, 1 / xp.where(bright, power, 1), 0)
        top = xp.einsum("qyx,qyx->q", h, x.conj() * weight, dtype=np.complex128)
        below = xp.einsum("qyx,qyx->q", power, weight, dtype=np.float64)
        return xp.stack([top / xp.where(below > 0, below, np.inf), below], axis=1)

    @cached_property
    def pupil_counts(self) -> float:
        """``Σ_k |A|²``; its square is ``max |X|²``, that of ``ρ = 0`` and ``Q = 0``."""
        return float((self.pupil.amplitude((self.box.k_A**2).sum(axis=1)) ** 2).sum())
