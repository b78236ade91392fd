"""From stored patterns to what the model is compared with.

The steps, in this order: shift by whole pixels, sum-bin, multiply, zero-pad, and in the far field
move the zero frequency from index N//2 to the corner.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pyptyx.backend import free_memory_bytes
from pyptyx.data.base import PatternSource
from pyptyx.data.pixels import shift_whole, sum_bin
from pyptyx.errors import ParamError, Problem, ShapeError

Array = Any


@dataclass(frozen=True)
class Preparation:
    """The fixed treatment of every pattern.

    Attributes
    ----------
    shift : (int, int)
        Pixels ``(sy, sx)`` by which the content moves towards larger indices.  What leaves the
        frame is lost; what enters is zero.
    bin : int
        Side of the blocks that are summed; it must divide both axes.
    multiplier : float
        Factor applied after binning.
    pad : (int, int)
        Zero pixels ``(py, px)`` added on each side, counted on the binned grid.
    dtype : dtype
        Floating dtype of the result.
    corner : bool
        Whether the zero frequency moves to the corner; otherwise pixels stay in their order.

    Raises
    ------
    ParamError
        If a setting makes no sense; all of them are named.
    """

    shift: tuple[int, int] = (0, 0)
    bin: int = 1
    multiplier: float = 1.0
    pad: tuple[int, int] = (0, 0)
    dtype: npt.DTypeLike = np.float32
    corner: bool = True

    def __post_init__(self) -> None:
        """Check the settings."""
        whole = "two whole numbers (y, x)"
        checks = (
            ("data_shift_vector", _is_whole_pair(self.shift), whole, self.shift),
            ("data_bin", _is_whole(self.bin) and self.bin > 0, "a positive integer", self.bin),
            ("data_multiplier", math.isfinite(self.multiplier), "a finite number", self.multiplier),
            (
                "data_pad",
                _is_whole_pair(self.pad) and min(self.pad) >= 0,
                f"{whole}, not negative",
                self.pad,
            ),
            ("dtype", np.dtype(self.dtype).kind == "f", "a floating dtype", self.dtype),
        )
        problems = [
            Problem(key, wanted, f"{got!r}") for key, fine, wanted, got in checks if not fine
        ]
        if problems:
            raise ParamError(problems)

    def output_shape(self, ky: int, kx: int) -> tuple[int, int]:
        """Shape of a prepared pattern.

        Raises
        ------
        ShapeError
            If the bin does not divide an axis, or the shift leaves nothing in the frame.
        """
        problems = []
        if ky % self.bin or kx % self.bin:
            problems.append(
                Problem(
                    "data_bin",
                    f"a divisor of both axes of the {ky} x {kx} patterns",
                    f"{self.bin}",
                    "Crop the patterns first, for example with create_pypty_data.",
                )
            )
        if abs(self.shift[0]) >= ky or abs(self.shift[1]) >= kx:
            problems.append(
                Problem(
                    "data_shift_vector",
                    f"less than the {ky} x {kx} patterns",
                    f"{self.shift}",
                    "It is (y, x) in measured pixels.",
                )
            )
        if problems:
            raise ShapeError(problems)
        return ky // self.bin + 2 * self.pad[0], kx // self.bin + 2 * self.pad[1]

    def __call__(self, batch: Array, xp: Any = np) -> Array:
        """Prepare a batch.

        Parameters
        ----------
        batch : array, shape (B, ky, kx) or (B, Nmask)
            Stored patterns, zero frequency at index N//2.  Compressed data are only cast and
            multiplied.  Never modified.
        xp : module
            Array namespace of `batch`, NumPy or CuPy.

        Returns
        -------
        array, shape (B, Y, X) or (B, Nmask)
            A new array of `dtype`, zero frequency in the corner unless `corner` is off.

        Raises
        ------
        ShapeError
            See `output_shape`.
        """
        if batch.ndim == 2:
            out = batch.astype(self.dtype)
        else:
            out = xp.zeros((len(batch), *self.output_shape(*batch.shape[1:])), dtype=self.dtype)
            shifted = shift_whole(batch, self.shift, xp)
            place = _into_corner if self.corner else _into_middle
            place(out, sum_bin(shifted, self.bin, self.dtype), self.pad)
        if self.multiplier != 1:
            out *= self.multiplier
        return out


def _is_whole(value: object) -> bool:
    return isinstance(value, int | np.integer)


def _is_whole_pair(values: tuple[int, int]) -> bool:
    return len(values) == 2 and all(_is_whole(v) for v in values)


def _into_middle(out: Array, patterns: Array, pad: tuple[int, int]) -> None:
    """Write zero-padded patterns into `out` (zeros) as they lie."""
    _batch, height, width = patterns.shape
    out[:, pad[0] : pad[0] + height, pad[1] : pad[1] + width] = patterns


def _into_corner(out: Array, centred: Array, pad: tuple[int, int]) -> None:
    """Write zero-padded patterns into `out` (zeros) with index N//2 moved to index 0."""
    parts = [
        _corner_slices(size, total, before)
        for size, total, before in zip(centred.shape[1:], out.shape[1:], pad, strict=True)
    ]
    for to_y, from_y in parts[0]:
        for to_x, from_x in parts[1]:
            out[:, to_y, to_x] = centred[:, from_y, from_x]


def _corner_slices(size: int, total: int, before: int) -> tuple[tuple[slice, slice], ...]:
    """Slices (to, from) of the two halves of an axis, `before` zeros ahead of its content."""
    centre = total // 2
    split = centre - before  # index in the content that becomes index 0
    return (
        (slice(0, size - split), slice(split, size)),
        (slice(total - split, total), slice(0, split)),
    )


class CountChecks:
    """What is wrong with the numbers of a stack that is looked at piece by piece.

    Parameters
    ----------
    name : str
        Name of the data for the problems.
    signed : bool
        Whether negative numbers are fine, as for signals of masks with negative weights.
    """

    def __init__(self, name: str, signed: bool = False) -> None:
        self._name = name
        self._signed = signed
        self._bad = self._negative = 0
        self._empty = True

    def add(self, patterns: np.ndarray) -> None:
        """Look at a piece."""
        if patterns.dtype.kind == "f":
            self._bad += int(np.count_nonzero(~np.isfinite(patterns)))
        if patterns.dtype.kind in "if" and not self._signed:
            self._negative += int(np.count_nonzero(patterns < 0))
        self._empty = self._empty and not patterns.any()

    def problems(self) -> list[Problem]:
        """NaN or infinite counts, negative counts, nothing but zeros; empty if all is well."""
        found = []
        if self._bad:
            got, remedy = f"{self._bad} NaN or infinite", "Set bad pixels to zero"
            found.append(Problem(self._name, "finite counts", got, remedy))
        if self._negative:
            got, remedy = f"{self._negative} negative", "create_pypty_data sets them to zero"
            found.append(Problem(self._name, "counts of zero or more", got, remedy))
        if self._empty:
            remedy = "Is this the right data set?"
            found.append(Problem(self._name, "some counts", "zeros only", remedy))
        return found


def check_counts(
    data: np.ndarray | PatternSource, name: str = "dataset", signed: bool = False
) -> list[Problem]:
    """What is wrong with the numbers themselves, walking a source in pieces.

    Parameters
    ----------
    data : ndarray or PatternSource
        Patterns as stored.
    name : str
        Name for the problems.
    signed : bool
        Whether negative numbers are fine.

    Returns
    -------
    list of Problem
        See `CountChecks.problems`.
    """
    checks = CountChecks(name, signed)
    for patterns in (
        (p for _, p in data.iter_chunks()) if isinstance(data, PatternSource) else [data]
    ):
        checks.add(patterns)
    return checks.problems()


def prepared_shape(source: PatternSource, preparation: Preparation) -> tuple[int, ...]:
    """Shape ``(N, Y, X)`` or ``(N, Nmask)`` of all patterns of a source once prepared."""
    if len(source.shape) == 2:
        return source.shape
    return (source.shape[0], *preparation.output_shape(*source.shape[1:]))


def prepared_bytes(
    source: PatternSource, preparation: Preparation, itemsize: int | None = None
) -> int:
    """Bytes of all patterns of a source once prepared, by default as floats."""
    size = np.dtype(preparation.dtype).itemsize if itemsize is None else itemsize
    return math.prod(prepared_shape(source, preparation)) * size


def fits_in_memory(
    source: PatternSource,
    preparation: Preparation,
    fraction: float = 0.25,
    itemsize: int | None = None,
) -> bool:
    """Whether all prepared patterns take at most `fraction` of the host memory that is free."""
    return prepared_bytes(source, preparation, itemsize) <= fraction * free_memory_bytes()
