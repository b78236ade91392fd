"""The pass over the patterns behind `bright_field`: bins of detector pixels and running sums."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import csr_array

from pyptyx.data import PatternSource
from pyptyx.errors import DataError, Problem
from pyptyx.methods.disc import Disc

_CHUNK_BYTES = 32 << 20
_BUFFER_BYTES = 64 << 20
_CACHE_BYTES = 2 << 20
"""Read at once, collected before writing, worked on at a time."""

_SAMPLES = 16
"""Runs of neighbouring patterns that a first look takes, and patterns in each."""

_FILLED = 0.6
"""Bins with a smaller part of their pixels in the disc are left out."""

_DEAD = 0.1
"""Bins with less than this part of the median counts are dead."""


@dataclass(frozen=True)
class Bins:
    """Pixels of the disc sorted into bins.

    Attributes
    ----------
    pixels : ndarray (P,)
        Flat indices, ordered by bin.
    owner : ndarray (P,)
        Bin of each pixel.
    number : int
        Number of bins K.
    shape : (int, int)
        Of a pattern.
    """

    pixels: np.ndarray
    owner: np.ndarray
    number: int
    shape: tuple[int, int]

    @property
    def single(self) -> bool:
        """Every bin is one pixel."""
        return len(self.pixels) == self.number

    @cached_property
    def matrix(self) -> csr_array:
        """Sums over the bins as a matrix ``(K, P)``, float32."""
        ones = np.ones(len(self.pixels), dtype=np.float32)
        place = (self.owner, np.arange(len(self.pixels)))
        return csr_array((ones, place), shape=(self.number, len(self.pixels)))

    def gather(self, flat: np.ndarray) -> np.ndarray:
        """Counts ``(B, K)`` of the bins in patterns ``(B, ky * kx)``."""
        values = flat.take(self.pixels, axis=1)
        return values if self.single else (self.matrix @ values.T).T

    def chosen(self, keep: np.ndarray) -> Bins:
        """The bins for which ``keep (K,)`` is True."""
        kept = keep[self.owner]
        rank = (np.cumsum(keep) - 1)[self.owner[kept]]
        return Bins(self.pixels[kept], rank, int(keep.sum()), self.shape)

    def lit(self, pattern: np.ndarray) -> np.ndarray:
        """Which bins are not dark in a mean pattern."""
        weight = self.sums(pattern)
        return weight > _DEAD * np.median(weight)

    def centroids_A(self, pattern: np.ndarray, disc: Disc) -> np.ndarray:
        """Centroids ``(K, 2)`` of the counts of a mean pattern in 1/Å from the centre."""
        k, weight = disc.coordinates_A(self.shape), self.sums(pattern)
        return np.stack([self.sums(pattern * k[..., a]) / weight for a in (0, 1)], axis=1)

    @property
    def mask(self) -> np.ndarray:
        """Pixels ``(ky, kx)`` that are in some bin."""
        mask = np.zeros(math.prod(self.shape), dtype=bool)
        mask[self.pixels] = True
        return mask.reshape(self.shape)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sum over each bin of an image ``(ky, kx)``."""
        return np.bincount(self.owner, values.ravel()[self.pixels], self.number)


def sort_pixels(disc: Disc, look: np.ndarray, n_bin: int) -> Bins:
    """Bins of ``n_bin x n_bin`` pixels inside the disc, one of them around its centre.

    Parameters
    ----------
    disc : Disc
    look : ndarray (ky, kx)
        Mean pattern, not finite where pixels cannot be used.
    n_bin : int

    Raises
    ------
    DataError
        If fewer than three bins lie in the disc.
    """
    shape = (look.shape[0], look.shape[1])
    y, x = np.nonzero(disc.mask(shape) & np.isfinite(look))
    row = (y - round(disc.centre_px[0]) + n_bin // 2) // n_bin
    column = (x - round(disc.centre_px[1]) + n_bin // 2) // n_bin
    _, owner, filled = np.unique(
        np.stack([row, column]), axis=1, return_inverse=True, return_counts=True
    )
    full, owner = filled >= _FILLED * n_bin**2, owner.ravel()
    number = int(full.sum())
    if number < 3:
        raise DataError(
            Problem(
                "n_bin",
                "bins that leave at least 3 in the bright-field disc",
                f"{number} in a disc of radius {disc.radius_px:.1f} px",
                "Take smaller bins.",
            )
        )
    kept = full[owner]
    rank = (np.cumsum(full) - 1)[owner[kept]]
    pixels = np.ravel_multi_index((y[kept], x[kept]), shape)
    order = np.argsort(rank, kind="stable")
    return Bins(pixels[order], rank[order], number, shape)


def first_look(source: PatternSource) -> np.ndarray:
    """Mean of a few runs of patterns spread over the scan; NaN where a pixel is never finite."""
    starts = np.unique(np.linspace(0, source.shape[0] - 1, _SAMPLES).astype(int))
    total, valid = np.zeros(source.shape[1:]), np.zeros(source.shape[1:])
    for start in starts:
        block = source.read(slice(int(start), int(start) + _SAMPLES))
        finite = np.isfinite(block)
        total += np.where(finite, block, 0).sum(axis=0, dtype=np.float64)
        valid += finite.sum(axis=0)
    return np.where(valid > 0, total / np.maximum(valid, 1), np.nan)


@dataclass
class Sums:
    """What one pass accumulates.

    Attributes
    ----------
    pacbed : ndarray (ky, kx)
        Mean pattern.
    faulty : ndarray (ky, kx), bool
        Pixels that were not a finite number at least once.
    counts : ndarray (N,)
        All counts of each pattern.
    first : ndarray (N, 2)
        ``Σ I y``, ``Σ I x`` in px from index ``n // 2``.
    second : ndarray (N, 2)
        ``Σ I y²``, ``Σ I x²`` in px².
    """

    pacbed: np.ndarray
    faulty: np.ndarray
    counts: np.ndarray
    first: np.ndarray
    second: np.ndarray


def stream(source: PatternSource, bins: Bins, store: np.ndarray) -> Sums:
    """Fill the images and the sums; the next patterns are read while these are worked on.

    Parameters
    ----------
    source : PatternSource
        Patterns ``(N, ky, kx)``.
    bins : Bins
    store : ndarray (K, N)
        Receives the counts of each bin.
    """
    ky, kx = bins.shape
    number = source.shape[0]
    moments, found = _moment_matrix(bins.shape), np.empty((number, 5))
    total, faulty = np.zeros(ky * kx), np.zeros(ky * kx, dtype=bool)
    writer = _Writer(bins, store)
    chunks = source.iter_chunks(_CHUNK_BYTES)
    block = max(1, _CACHE_BYTES // (4 * ky * kx))
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, chunks, None)
        while (item := coming.result()) is not None:
            coming = reader.submit(next, chunks, None)
            where, patterns = item
            flat = patterns.reshape(len(patterns), -1)
            for start in range(0, len(flat), block):
                part = flat[start : start + block]
                real = part.astype(np.float32)
                if part.dtype.kind == "f":
                    finite = np.isfinite(real)
                    faulty |= ~finite.all(axis=0)
                    real[~finite] = 0
                found[where][start : start + block] = real @ moments
                total += np.ones(len(real), np.float32) @ real
                writer.add(real if store.dtype.kind == "f" else part)
    writer.flush()
    return Sums(
        total.reshape(ky, kx) / number,
        faulty.reshape(ky, kx),
        found[:, 0],
        found[:, 1:3],
        found[:, 3:5],
    )


def _moment_matrix(shape: tuple[int, int]) -> np.ndarray:
    """Columns 1, y, x, y², x² of all pixels; float32 is enough for coordinates from the middle."""
    y, x = (i - n // 2 for i, n in zip(np.indices(shape), shape, strict=True))
    columns = [np.ones_like(y), y, x, y**2, x**2]
    return np.stack([c.ravel() for c in columns], axis=1).astype(np.float32)


class _Writer:
    """Collects the bins of consecutive patterns and writes them as long pieces of images."""

    def __init__(self, bins: Bins, store: np.ndarray):
        self._bins, self._store = bins, store
        size = max(1, _BUFFER_BYTES // (bins.number * store.dtype.itemsize))
        self._buffer = np.empty((min(size, store.shape[1]), bins.number), store.dtype)
        self._start, self._filled = 0, 0

    def add(self, flat: np.ndarray) -> None:
        """Take the next patterns, as rows ``(B, ky * kx)``."""
        values = self._bins.gather(flat)
        while len(values):
            if self._filled == len(self._buffer):
                self.flush()
            take = min(len(self._buffer) - self._filled, len(values))
            self._buffer[self._filled : self._filled + take] = values[:take]
            self._filled, values = self._filled + take, values[take:]

    def flush(self) -> None:
        """Write what has come together."""
        stop = self._start + self._filled
        self._store[:, self._start : stop] = self._buffer[: self._filled].T
        self._start, self._filled = stop, 0


@dataclass(frozen=True)
class Selected:
    """The bins without a faulty pixel: coordinates, share of the counts, images, pixels used."""

    k_A: np.ndarray
    mean_fraction: np.ndarray
    images: np.ndarray
    mask: np.ndarray


def select(bins: Bins, sums: Sums, disc: Disc, store: np.ndarray) -> Selected:
    """Leave out bins that are dark or have a pixel that was not a finite number.

    Parameters
    ----------
    bins, sums
        Of the pass.
    disc : Disc
        Coordinates count from its centre.
    store : ndarray (K, N)
        The images, which are moved together in place.

    Raises
    ------
    DataError
        If no bin is left.
    """
    keep = bins.lit(sums.pacbed) & (bins.sums(sums.faulty) == 0)
    if not keep.any():
        problem = Problem("data", "bright-field pixels with counts", "none", "Check the data.")
        raise DataError(problem)
    if not keep.all():
        # In place: a scratch file is not read into memory for a few dead pixels.
        for target, row in enumerate(np.flatnonzero(keep)):
            store[target] = store[row]
        store = store[: int(keep.sum())]
    kept = bins.chosen(keep)
    return Selected(
        kept.centroids_A(sums.pacbed, disc),
        kept.sums(sums.pacbed) / sums.counts.mean(),
        store,
        kept.mask,
    )
