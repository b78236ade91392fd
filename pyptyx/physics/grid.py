"""Sampling of the probe window: frequencies, coordinates and band limit.

Notation: ``f`` in cycles per pixel, ``q = f / pixel`` in 1/Å (no 2π), zero frequency in the
corner. The band limit follows PyPty: ``q² <= (cutoff · max(q_x))²`` where ``max(q_x)`` is the
largest *positive* FFT frequency.  For windows that are not square the smaller of the two axes
counts, otherwise the circle would leave the window.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

_FAST_FACTORS = (2, 3, 5, 7)
"""Prime factors of lengths that the transforms here, cuFFT and SciPy's are made for."""


def is_fast(n: int) -> bool:
    """Whether transforms of this length have nothing but small prime factors."""
    for factor in _FAST_FACTORS:
        while n % factor == 0:
            n //= factor
    return n == 1


def fast_length(n: int) -> int:
    """The smallest `is_fast` length from `n` on; a prime one can take five times as long."""
    while not is_fast(n):
        n += 1
    return n


def fast_pad(shape: tuple[int, ...], least: int, most: int, step: int = 1) -> int | None:
    """The smallest padding of both ends that makes all lengths of a pattern `is_fast`.

    Parameters
    ----------
    shape : tuple of int
        The pattern without padding.
    least, most : int
        Bounds of the padding.
    step : int
        Between one padding and the next.

    Returns
    -------
    int or None
        None if there is none.
    """
    pads = range(least, most + 1, step)
    return next((pad for pad in pads if all(is_fast(n + 2 * pad) for n in shape)), None)


class Band:
    """Where the band limit lets anything through, zero frequency in the corner.

    Parameters
    ----------
    mask : ndarray, (ny, nx)
        Zero outside the band; along every row and column the band surrounds index 0.

    Attributes
    ----------
    extent : ndarray of int64, (ny, 2)
        Columns of every row that lie in the band: the first so many and the last so many.
    rows, columns : tuple of slice
        Both ends of the axes, as far as the band touches them.
    inside : tuple
        Pairs of index tuples over the last two axes: a corner block of the full array, and its
        place in the compact array that `shape` describes.
    outside : tuple
        Index tuples of the blocks that cover the rest.
    shape : tuple of int
        Rows and columns the band touches.
    """

    def __init__(self, mask: np.ndarray) -> None:
        open_ = np.asarray(mask) != 0
        nx = open_.shape[1]
        first = np.where(open_.all(axis=1), nx, np.argmin(open_, axis=1))
        last = np.where(first == nx, 0, np.argmin(open_[:, ::-1], axis=1))
        self.extent = np.stack([first, last], axis=1).astype(np.int64)
        self.rows, y_places, y_gap = _ends(open_.any(axis=1))
        self.columns, x_places, x_gap = _ends(open_.any(axis=0))
        self.shape = tuple(sum(p.stop - p.start for p in t) for t in (y_places, x_places))
        self.inside = tuple(
            ((..., y, x), (..., to_y, to_x))
            for y, to_y in zip(self.rows, y_places, strict=True)
            for x, to_x in zip(self.columns, x_places, strict=True)
        )
        self.outside = (*((..., y, x_gap) for y in self.rows), (..., y_gap, slice(None)))


def _ends(touched: np.ndarray) -> tuple[tuple[slice, ...], tuple[slice, ...], slice]:
    """Both ends of an axis, where they lie once the gap between them is left out, and the gap."""
    n = len(touched)
    if touched.all():
        return (slice(0, n),), (slice(0, n),), slice(n, n)
    first, last = int(np.argmin(touched)), int(np.argmin(touched[::-1]))
    ends, places = [slice(0, first)], [slice(0, first)]
    if last:
        ends.append(slice(n - last, n))
        places.append(slice(first, first + last))
    return tuple(ends), tuple(places), slice(first, n - last)


@dataclass(frozen=True)
class Grid:
    """A probe window.

    Attributes
    ----------
    shape : tuple of int
        ``(ny, nx)``.
    pixel_A : tuple of float
        ``(y, x)`` pixel size in Å.
    wavelength_A : float
        Wavelength in Å.
    cutoff : float
        Band limit as a fraction of the largest positive frequency; negative means 2/3.
    """

    shape: tuple[int, int]
    pixel_A: tuple[float, float]
    wavelength_A: float
    cutoff: float = 2 / 3

    @cached_property
    def f_y(self) -> np.ndarray:
        """Frequencies along y in cycles per pixel, shape (ny,)."""
        return np.fft.fftfreq(self.shape[0])

    @cached_property
    def f_x(self) -> np.ndarray:
        """Frequencies along x in cycles per pixel, shape (nx,)."""
        return np.fft.fftfreq(self.shape[1])

    @cached_property
    def q_y(self) -> np.ndarray:
        """Frequencies along y in 1/Å, shape (ny,)."""
        return np.fft.fftfreq(self.shape[0], self.pixel_A[0])

    @cached_property
    def q_x(self) -> np.ndarray:
        """Frequencies along x in 1/Å, shape (nx,)."""
        return np.fft.fftfreq(self.shape[1], self.pixel_A[1])

    @cached_property
    def q2(self) -> np.ndarray:
        """``q_y² + q_x²`` in 1/Å², shape (ny, nx)."""
        return self.q_x[None, :] ** 2 + self.q_y[:, None] ** 2

    @cached_property
    def y_A(self) -> np.ndarray:
        """Real-space coordinate along y in Å, zero at pixel ny//2, shape (ny,)."""
        return (np.arange(self.shape[0]) - self.shape[0] // 2) * self.pixel_A[0]

    @cached_property
    def x_A(self) -> np.ndarray:
        """Real-space coordinate along x in Å, zero at pixel nx//2, shape (nx,)."""
        return (np.arange(self.shape[1]) - self.shape[1] // 2) * self.pixel_A[1]

    @property
    def size(self) -> int:
        """Number of pixels ``N = ny nx``."""
        return self.shape[0] * self.shape[1]

    @cached_property
    def q_limit(self) -> float:
        """Radius of the band limit in 1/Å."""
        cutoff = self.cutoff if self.cutoff >= 0 else 2 / 3
        edge = self.q_x.max()
        if self.shape[0] != self.shape[1]:
            edge = min(edge, self.q_y.max())
        return float(edge * cutoff)

    @cached_property
    def band(self) -> Band:
        """Extent of `mask`."""
        return Band(self.mask)

    @cached_property
    def mask(self) -> np.ndarray:
        """Band limit M, boolean, shape (ny, nx), zero frequency in the corner."""
        return self.q2 <= self.q_limit**2


def disc_mask(shape: tuple[int, int], pixel_A: tuple[float, float], q_limit: float) -> np.ndarray:
    """Boolean disc ``q² <= q_limit²`` on a grid of any shape, zero frequency in the corner."""
    q_y, q_x = np.fft.fftfreq(shape[0], pixel_A[0]), np.fft.fftfreq(shape[1], pixel_A[1])
    return q_x[None, :] ** 2 + q_y[:, None] ** 2 <= q_limit**2


def clean_filter(shape: tuple[int, int], cutoff: float, rolloff: float = 0.0) -> np.ndarray:
    """Low-pass of PyPty's "clean" operation, in cycles per pixel of the array's own grid.

    ``1`` for ``ρ = f_x² + f_y² <= (cutoff/2)²``; with a roll-off ``w`` and ``ρ₀ =
    ((cutoff-w)/2)²`` the factor ``½(1 + cos(π (ρ-ρ₀) / ((cutoff/2)² - ρ₀)))`` between ``ρ₀`` and
    the edge.

    Returns
    -------
    ndarray of float64, shape (ny, nx), zero frequency in the corner.
    """
    f_y, f_x = np.fft.fftfreq(shape[0]), np.fft.fftfreq(shape[1])
    rho = f_x[None, :] ** 2 + f_y[:, None] ** 2
    edge = (cutoff / 2) ** 2
    out = (rho <= edge).astype(np.float64)
    if rolloff:
        start = (max(cutoff - rolloff, 0.0) / 2) ** 2
        soft = (rho > start) & (rho <= edge)
        out[soft] *= 0.5 * (1 + np.cos(np.pi * (rho[soft] - start) / (edge - start)))
    return out
