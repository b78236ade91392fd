"""The one view of measured patterns: a lazy stack, pattern axis first.

A source knows a stored array whose leading one or two axes are the scan and whose trailing axes are
the detector::

    [N, ky, kx]        patterns in scan order
    [sy, sx, ky, kx]   4-D data, flattened in C order: pattern n = (n // sx, n % sx)
    [N, Nmask]         compressed data, one number per virtual detector
    [sy, sx, Nmask]    the same; recognised only when `scan_size` says so

Whatever the storage, `PatternSource.read` hands out whole patterns, in the stored dtype, centred
(zero frequency at index N//2), and nothing reads more of a file than it is asked for.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from pyptyx.errors import DataError, Problem

CHUNK_BYTES = 16 << 20
"""Size of the pieces in which a whole source is walked, in bytes."""

Indices = slice | Sequence[int] | npt.NDArray[np.integer]


@dataclass(frozen=True)
class Stored:
    """How a stored array divides into scan and detector.

    Attributes
    ----------
    scan_shape : tuple of int
        Leading axes, ``(N,)`` or ``(sy, sx)``.
    pattern_shape : tuple of int
        Trailing axes, ``(ky, kx)`` or ``(Nmask,)``.
    scan_size : (int, int) or None
        Rows and columns of the scan, when known.
    dtype : numpy.dtype
    """

    scan_shape: tuple[int, ...]
    pattern_shape: tuple[int, ...]
    scan_size: tuple[int, int] | None
    dtype: np.dtype

    @property
    def count(self) -> int:
        """Number of patterns N."""
        return math.prod(self.scan_shape)

    @property
    def pattern_bytes(self) -> int:
        """Bytes of one pattern."""
        return math.prod(self.pattern_shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Orientation:
    """How stored patterns are turned on reading: first flip axis ky, then swap ky and kx."""

    flip_ky: bool = False
    transpose: bool = False

    def shape(self, pattern_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of a pattern after turning."""
        return pattern_shape[::-1] if self.transpose else pattern_shape

    def apply(self, patterns: np.ndarray) -> np.ndarray:
        """Turn a batch (B, ky, kx); contiguous result, a copy only if something is turned."""
        if self.flip_ky:
            patterns = patterns[:, ::-1]
        if self.transpose:
            patterns = patterns.swapaxes(1, 2)
        return np.ascontiguousarray(patterns)


AS_STORED = Orientation()


def describe(
    name: str,
    shape: tuple[int, ...],
    dtype: np.dtype,
    scan_size: Sequence[int] | None = None,
    orientation: Orientation = AS_STORED,
) -> Stored:
    """Divide the axes of a stored array, or say everything that is wrong with it.

    Parameters
    ----------
    name : str
        Name of the data for messages.
    shape, dtype
        Of the stored array.
    scan_size : (Ny, Nx), optional
        Rows and columns of the scan; checked against the array.
    orientation : Orientation
        Checked only: compressed data have no ky and kx to turn.

    Raises
    ------
    DataError
        Wrong number of axes, an empty axis, a dtype that is not real numbers, a `scan_size` that
        does not fit, or a turn of compressed data.
    """
    problems = list(_array_problems(name, shape, dtype))
    if problems:
        raise DataError(problems)
    wanted, problems = _scan_size_pair(scan_size)
    n_scan = _scan_axes(shape, wanted)
    scan_shape, pattern_shape = shape[:n_scan], shape[n_scan:]
    if not problems:
        problems += _scan_problems(scan_shape, wanted)
    if len(pattern_shape) == 1 and orientation != AS_STORED:
        problems.append(
            Problem(
                "flip_ky/transpose",
                "patterns with axes ky and kx",
                f"compressed data of shape {shape} in {name}",
                "Turn the masks instead.",
            )
        )
    if problems:
        raise DataError(problems)
    if wanted is None and len(scan_shape) == 2:
        wanted = (scan_shape[0], scan_shape[1])
    return Stored(scan_shape, pattern_shape, wanted, dtype)


def _array_problems(name: str, shape: tuple[int, ...], dtype: np.dtype) -> Iterator[Problem]:
    if len(shape) not in (2, 3, 4):
        yield Problem(
            name,
            "an array [N, ky, kx], [sy, sx, ky, kx] or [N, Nmask]",
            f"{len(shape)} axes, shape {shape}",
            "Reshape the data.",
        )
    elif 0 in shape:
        yield Problem(name, "at least one element along every axis", f"shape {shape}")
    if dtype.kind not in "buif":
        yield Problem(
            name,
            "real numbers (integers or floats)",
            f"dtype {dtype}",
            "Store intensities; complex waves, objects and text are not patterns.",
        )


def _scan_size_pair(
    scan_size: Sequence[int] | None,
) -> tuple[tuple[int, int] | None, list[Problem]]:
    if scan_size is None:
        return None, []
    values = [int(n) for n in scan_size]
    if len(values) == 2 and min(values) > 0:
        return (values[0], values[1]), []
    return None, [Problem("scan_size", "two positive numbers (Ny, Nx)", f"{tuple(values)}")]


def _scan_axes(shape: tuple[int, ...], scan_size: tuple[int, int] | None) -> int:
    """Number of leading scan axes; three axes are [N, ky, kx] unless only [sy, sx, Nmask] fits."""
    if len(shape) == 4:
        return 2
    compressed = (
        len(shape) == 3
        and scan_size is not None
        and shape[0] != math.prod(scan_size)
        and shape[:2] == scan_size
    )
    return 2 if compressed else 1


def _scan_problems(
    scan_shape: tuple[int, ...], scan_size: tuple[int, int] | None
) -> Iterator[Problem]:
    if scan_size is None:
        return
    count, wanted = math.prod(scan_shape), math.prod(scan_size)
    if count != wanted:
        yield Problem(
            "scan_size",
            f"Ny*Nx equal to the {count} patterns of the data",
            f"{scan_size[0]}*{scan_size[1]} = {wanted}",
        )
    elif len(scan_shape) == 2 and 1 not in scan_shape and scan_shape != scan_size:
        yield Problem(
            "scan_size",
            f"{scan_shape}, the leading axes of the data",
            f"{scan_size}",
            "Leave scan_size out for 4-D data.",
        )


class PatternSource(ABC):
    """A lazy stack of patterns.  Safe to read from several threads; a context manager.

    Attributes
    ----------
    name : str
        Where the patterns come from, for messages.
    shape : tuple of int
        ``(N, ky, kx)`` as read, or ``(N, Nmask)`` for compressed data.
    dtype : numpy.dtype
        The stored dtype, which `read` keeps.
    scan_size : (int, int) or None
        Rows and columns of the scan, when known.
    """

    def __init__(self, name: str, stored: Stored, orientation: Orientation):
        self.name = name
        self.dtype = stored.dtype
        self.scan_size = stored.scan_size
        self.shape = (stored.count, *orientation.shape(stored.pattern_shape))
        self._stored = stored
        self._orientation = orientation

    def read(self, indices: Indices) -> np.ndarray:
        """Whole patterns, in the order asked for.

        Parameters
        ----------
        indices : slice or 1-D sequence of int
            Pattern numbers in ``[0, N)``, in any order, duplicates allowed.

        Returns
        -------
        ndarray, shape (B, ky, kx) or (B, Nmask)
            A new contiguous array in the stored dtype.

        Raises
        ------
        IndexError
            If a number is outside ``[0, N)`` or is not an integer.
        DataError
            If the file cannot be read, or the source is closed.
        """
        return self._orientation.apply(self._read(self._checked(indices)))

    @abstractmethod
    def _read(self, indices: np.ndarray) -> np.ndarray:
        """Patterns as stored; `indices` are 1-D integers within bounds."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the file or array; reading afterwards raises `DataError`."""

    def iter_chunks(
        self, max_bytes: int = CHUNK_BYTES, limit: int | None = None
    ) -> Iterator[tuple[slice, np.ndarray]]:
        """Walk through the patterns in pieces of at most `max_bytes` (at least one pattern).

        Parameters
        ----------
        max_bytes : int
            Largest piece in bytes.
        limit : int, optional
            Stop after the first `limit` patterns.

        Yields
        ------
        where : slice
            The pattern numbers of the piece.
        patterns : ndarray, shape (B, ky, kx) or (B, Nmask)
        """
        count = self.shape[0] if limit is None else min(limit, self.shape[0])
        step = max(1, max_bytes // self._stored.pattern_bytes)
        if step > self._granule:
            step -= step % self._granule
        for start in range(0, count, step):
            where = slice(start, min(start + step, count))
            yield where, self.read(where)

    def mean(self, limit: int | None = None) -> np.ndarray:
        """Mean of all patterns, or of the first `limit`, accumulated in float64.

        Returns
        -------
        ndarray of float64, shape (ky, kx) or (Nmask,)

        Raises
        ------
        ValueError
            If `limit` is not positive.
        """
        if limit is not None and limit < 1:
            raise ValueError(f"limit: expected a positive number of patterns, got {limit}")
        total = np.zeros(self.shape[1:])
        count = 0
        for _, patterns in self.iter_chunks(limit=limit):
            total += patterns.sum(axis=0, dtype=np.float64)
            count += len(patterns)
        return total / count

    def sums(self) -> np.ndarray:
        """Total counts of every pattern, float64, shape (N,)."""
        out = np.empty(self.shape[0])
        for where, patterns in self.iter_chunks():
            out[where] = patterns.sum(axis=tuple(range(1, patterns.ndim)), dtype=np.float64)
        return out

    @property
    def chunk_patterns(self) -> int:
        """Number of consecutive patterns that share a storage chunk."""
        return self._granule

    @property
    def _granule(self) -> int:
        """Number of consecutive patterns best read together."""
        return 1

    def _checked(self, indices: Indices) -> np.ndarray:
        count = self.shape[0]
        if isinstance(indices, slice):
            return np.arange(*indices.indices(count))
        numbers = np.asarray(indices)
        if numbers.size == 0:
            return np.zeros(0, dtype=np.intp)
        if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
            raise IndexError(
                f"{self.name}: expected a slice or 1-D integers, "
                f"got {numbers.ndim} axes of {numbers.dtype}"
            )
        numbers = numbers.astype(np.intp, copy=False)
        if numbers.min() < 0 or numbers.max() >= count:
            raise IndexError(
                f"{self.name}: expected pattern numbers in [0, {count}), "
                f"got {numbers.min()} to {numbers.max()}"
            )
        return numbers

    def _closed(self) -> DataError:
        return DataError(Problem(self.name, "an open source", "one that was closed"))

    def __len__(self) -> int:
        """Return the number of patterns."""
        return self.shape[0]

    def __enter__(self) -> Self:
        """Return the source itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the source."""
        self.close()

    def __repr__(self) -> str:
        """Name, shape and dtype."""
        return f"{type(self).__name__}({self.name!r}, shape={self.shape}, dtype={self.dtype})"
