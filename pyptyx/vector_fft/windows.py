"""Transforms of whole windows on one core, compiled by numba; faster than any FFT library tried.

Rows are transformed in blocks of as many as a vector has elements, columns likewise; a block fits
in the first cache.  What a window becomes depends neither on the windows beside it nor on anything
measured, so all processes agree to the last bit.
"""

from __future__ import annotations

import cmath
import itertools
import math
from typing import Any, NamedTuple

import numpy as np

from pyptyx.compiled import compile_for_cpu, part
from pyptyx.vector_fft.codelets import RADICES, factors
from pyptyx.vector_fft.vectors import (
    first_butterfly,
    later_butterfly,
    load_square,
    store_point,
    store_square,
    vector_length,
    vector_size,
)

Array = Any

LARGEST_SIDE = 2048
"""Points of a line above which a block leaves the caches."""

LARGEST_WINDOW = 1 << 19
"""Pixels above which a library is as fast; whole objects may be larger."""

_LINE_BYTES = 64  # of a cache

Ranges = tuple[slice, ...]
_Room = tuple[np.ndarray, tuple[np.ndarray, np.ndarray], np.ndarray]


class Line(NamedTuple):
    """What the transform of one line needs.

    Attributes
    ----------
    radices : ndarray of int64
        Of the passes, in their order.
    order : ndarray of int64, (n,)
        Where in a block the first pass finds its points.
    twiddles : ndarray, float32 or float64
        Factors of the other passes.
    """

    radices: np.ndarray
    order: np.ndarray
    twiddles: np.ndarray


def can_transform(n: int) -> bool:
    """Whether there is a transform for lines of `n` points."""
    return 2 <= n <= LARGEST_SIDE and factors(n) is not None


def line(n: int, dtype: np.dtype[Any]) -> Line:
    """Transform of `n` points in a real type; see `can_transform`."""
    radices = factors(n)
    assert radices
    twiddles, span = [], radices[0]
    for radix in radices[1:]:
        for j, k in itertools.product(range(span), range(1, radix)):
            factor = cmath.exp(-2j * math.pi * j * k / (radix * span))
            twiddles += [factor.real, factor.imag]
        span *= radix
    order = _digit_reversed(np.arange(n), radices) * 2 * vector_length(dtype)
    return Line(np.array(radices), order, np.array(twiddles, dtype))


def _digit_reversed(points: np.ndarray, radices: list[int]) -> np.ndarray:
    """Order in which decimation in time wants the points; the last pass joins the longest parts."""
    if not radices:
        return points
    last = radices[-1]
    return np.concatenate([_digit_reversed(points[k::last], radices[:-1]) for k in range(last)])


def _first_stage(radix: int) -> Any:
    """The first pass: groups of `radix` points, brought side by side."""
    butterfly = first_butterfly(radix)

    @part
    def stage(block, source, order, offset, swap):
        step = 2 * radix * vector_size(block)
        start = 0
        for point in range(0, len(order), radix):
            butterfly(block, source, order, start, offset, point, swap)
            start += step

    return stage


def _later_stage(radix: int) -> Any:
    """A pass over groups of `radix` points that are `span` apart."""
    butterfly = later_butterfly(radix)

    @part
    def stage(block, twiddles, n, span, factor):
        size = 2 * vector_size(block)
        for j in range(span):
            start = j * size
            while start < n * size:
                butterfly(block, twiddles, start, span * size, factor)
                start += span * radix * size
            factor += 2 * (radix - 1)
        return factor

    return stage


_first_2, _first_3, _first_4, _first_5, _first_6, _first_7, _first_8 = map(_first_stage, RADICES)
_later_2, _later_3, _later_4, _later_5, _later_6, _later_7, _later_8 = map(_later_stage, RADICES)
_load_from_window = load_square(strips=False)


@part
def _first_pass(block, source, order, radix, offset, swap):
    if radix == 2:
        _first_2(block, source, order, offset, swap)
    elif radix == 3:
        _first_3(block, source, order, offset, swap)
    elif radix == 4:
        _first_4(block, source, order, offset, swap)
    elif radix == 5:
        _first_5(block, source, order, offset, swap)
    elif radix == 6:
        _first_6(block, source, order, offset, swap)
    elif radix == 7:
        _first_7(block, source, order, offset, swap)
    else:
        _first_8(block, source, order, offset, swap)


@part
def _later_pass(block, twiddles, n, radix, span, factor):
    if radix == 2:
        return _later_2(block, twiddles, n, span, factor)
    if radix == 3:
        return _later_3(block, twiddles, n, span, factor)
    if radix == 4:
        return _later_4(block, twiddles, n, span, factor)
    if radix == 5:
        return _later_5(block, twiddles, n, span, factor)
    if radix == 6:
        return _later_6(block, twiddles, n, span, factor)
    if radix == 7:
        return _later_7(block, twiddles, n, span, factor)
    return _later_8(block, twiddles, n, span, factor)


@part
def transform_block(block, source, line, offset, swap):
    """Transform the lines of the block at `offset` of the source; `swap` reads parts exchanged."""
    radices, order, twiddles = line
    _first_pass(block, source, order, radices[0], offset, swap)
    span, factor = radices[0], 0
    for i in range(1, len(radices)):
        factor = _later_pass(block, twiddles, len(order), radices[i], span, factor)
        span *= radices[i]


@part
def rows_to_strips(window, strips, blocks, rows, line, swap):
    """Transform rows of a window into strips; the other rows of the strips stay what they are."""
    source, block = blocks
    ny, nx = window.shape
    width = vector_size(block)
    for k in range(len(rows)):
        last = rows[k, 1] - 1
        for row in range(rows[k, 0], rows[k, 1], width):
            for c in range(0, nx, width):
                c = min(c, nx - width)
                _load_from_window(source, window, 2 * c * width, row, last, nx, c)
            transform_block(block, source, line, 0, swap)
            for c in range(0, nx, width):
                start = 2 * c * ny
                store_square(block, strips, 2 * c * width, row, last, 2 * width, start)


@part
def store_columns(block, window, column, edge, swap):
    """Bring a block of columns to its place in the window; `edge` is room for a vector."""
    ny, nx = window.shape
    width = vector_size(block)
    if column + width <= nx:
        for y in range(ny):
            store_point(block, window, 2 * y * width, y * nx + column, swap)
        return
    # A vector does not fit.
    for y in range(ny):
        store_point(block, edge, 2 * y * width, 0, swap)
        for c in range(column, nx):
            window[y, c] = edge[c - column]


@compile_for_cpu
def _transform(source, target, room, rows, columns, lines, swap):
    """Every window: first the given rows, then the given columns."""
    strips, blocks, edge = room
    ny = source.shape[1]
    width = vector_size(strips)
    if rows[-1, 1] - rows[0, 0] < ny or len(rows) > 1:
        for place in range(len(strips)):
            strips[place] = 0
    for k in range(len(source)):
        rows_to_strips(source[k], strips, blocks, rows, lines[1], swap)
        for i in range(len(columns)):
            for column in range(columns[i, 0], columns[i, 1], width):
                transform_block(blocks[1], strips, lines[0], 2 * column * ny, 0)
                store_columns(blocks[1], target[k], column, edge, swap)


class WindowTransforms:
    """Transforms over the last two axes without a factor, for one thread at a time."""

    def __init__(self) -> None:
        self._lines: dict[tuple[int, np.dtype[Any]], Line | None] = {}
        self._scratch: dict[Any, _Room] = {}

    def fits(self, a: Array) -> bool:
        """Whether `a` can be transformed: complex windows, contiguous, of lengths with factors."""
        return (
            isinstance(a, np.ndarray)
            and a.ndim >= 2
            and a.dtype.char in "FD"
            and a.flags.c_contiguous
            and a.shape[-1] >= vector_length(np.dtype(a.real.dtype))
            and a.shape[-2] * a.shape[-1] <= LARGEST_WINDOW
            and all(self._line(n, np.dtype(a.real.dtype)) for n in a.shape[-2:])
        )

    def transform(
        self,
        a: Array,
        forward: bool,
        overwrite: bool,
        rows: Ranges | None = None,
        columns: Ranges | None = None,
    ) -> Array:
        """Forward or backward DFT of every window.

        Parameters
        ----------
        a : ndarray of complex64 or complex128, (..., ny, nx)
            See `fits`.
        forward : bool
        overwrite : bool
            Put the result into `a`.
        rows : tuple of slice, optional
            Outside of which `a` is zero.
        columns : tuple of slice, optional
            Outside of which the result may be anything finite.
        """
        shape = a.shape[-2:]
        real = np.dtype(a.real.dtype)
        out = a
        if not (overwrite and a.flags.writeable):
            out = empty_aligned(a.shape, a.dtype)
            if columns is not None:
                out[...] = 0
        width = vector_length(real)
        _transform(
            a.reshape(-1, *shape),
            out.reshape(-1, *shape),
            self._room(shape, real),
            strip_bounds(rows, shape[0], 1),
            strip_bounds(columns, shape[1], width),
            tuple(self._line(n, real) for n in shape),
            0 if forward else width,
        )
        return out

    def _line(self, n: int, dtype: np.dtype[Any]) -> Line | None:
        key = n, dtype
        if key not in self._lines:
            self._lines[key] = line(n, dtype) if can_transform(n) else None
        return self._lines[key]

    def _room(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> _Room:
        """Strips of a window, two blocks and a vector of a window, all zero at first."""
        key = shape, dtype
        if key not in self._scratch:
            width = vector_length(dtype)
            ny, nx = (_whole(n, width) for n in shape)
            sizes = (shape[0] * nx, max(ny, nx) * width, max(ny, nx) * width)
            strips, *blocks = (empty_aligned((2 * n,), dtype) for n in sizes)
            for a in (strips, *blocks):
                a[...] = 0
            edge = np.zeros(width, np.result_type(dtype, np.complex64))
            self._scratch[key] = strips, (blocks[0], blocks[1]), edge
        return self._scratch[key]


def strip_bounds(ranges: Ranges | None, n: int, width: int) -> np.ndarray:
    """First and last point of every range, rounded to whole strips."""
    if ranges is None:
        return np.array([[0, n]])
    bounds: list[list[int]] = []
    for end in ranges:
        start, stop = end.start // width * width, min(_whole(end.stop, width), n)
        if bounds and start < bounds[-1][1]:
            return np.array([[0, n]])
        bounds.append([start, stop])
    return np.array(bounds)


def empty_aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """An array on an address that vectors like, which makes a third of difference."""
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + _LINE_BYTES, np.uint8)
    start = -raw.ctypes.data % _LINE_BYTES
    return raw[start : start + size].view(dtype).reshape(shape)


def _whole(n: int, width: int) -> int:
    return -(-n // width) * width
