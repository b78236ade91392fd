"""Building blocks of the transforms for numba: vectors of the CPU, and codelets on them.

Three kinds of arrays hold waves:

- a *window*: rows of interleaved complex numbers, as everywhere else;
- a *block*: lines side by side, as many as a vector has elements; for every point of the lines a
  vector of real parts, then one of imaginary parts;
- *strips*: a window as blocks of neighbouring columns, one behind the other.

Taking complex numbers apart leaves the elements of a vector in an order that saves instructions
(`_Shuffles.order`); putting them together undoes it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pyptyx.vector_fft.codelets import Complex, dft

VECTOR_BYTES = 32
"""AVX2's vectors.  The compiler makes two of one where a processor has smaller ones."""

_LANE_BYTES = 16  # within which shuffles are cheap
_FLAGS = ("contract", "nsz", "arcp")
_I32 = ir.IntType(32)


@dataclass(frozen=True)
class Vector:
    """A vector in the code that is being written."""

    builder: Any
    value: Any

    def __add__(self, other: Vector) -> Vector:
        return self._with(self.builder.fadd(self.value, other.value, flags=_FLAGS))

    def __sub__(self, other: Vector) -> Vector:
        return self._with(self.builder.fsub(self.value, other.value, flags=_FLAGS))

    def __neg__(self) -> Vector:
        return self._with(self.builder.fneg(self.value, flags=_FLAGS))

    def __mul__(self, other: Vector | float) -> Vector:
        if not isinstance(other, Vector):
            kind = self.value.type
            # LLVM takes constants of single precision only if they are rounded already.
            number = np.float32(other) if kind.element == ir.FloatType() else other
            other = self._with(ir.Constant(kind, [float(number)] * kind.count))
        return self._with(self.builder.fmul(self.value, other.value, flags=_FLAGS))

    def _with(self, value: Any) -> Vector:
        return Vector(self.builder, value)


class Code:
    """Writes what a building block does, at one place of a function.

    The array whose type gives that of the vectors comes first.
    """

    def __init__(self, context: Any, builder: Any, signature: Any, args: Sequence[Any]) -> None:
        self.builder = builder
        self._data = [
            context.make_array(kind)(context, builder, value).data
            for kind, value in zip(signature.args, args, strict=True)
            if isinstance(kind, types.Array)
        ]
        self.bytes = signature.args[0].dtype.bitwidth // 8
        self.count = VECTOR_BYTES // self.bytes
        self.shuffles = _Shuffles(self.count, _LANE_BYTES // self.bytes)
        real = ir.FloatType() if self.bytes == 4 else ir.DoubleType()
        self._vector = ir.VectorType(real, self.count)

    def plus(self, *terms: Any) -> Any:
        """Sum of indices, of which the first is one of the code's."""
        total = terms[0]
        for term in terms[1:]:
            term = ir.Constant(total.type, term) if isinstance(term, int) else term
            total = self.builder.add(total, term)
        return total

    def number(self, array: int, index: Any) -> Any:
        """One element of an array."""
        return self.builder.load(self.builder.gep(self._data[array], [index]))

    def everywhere(self, number: Any) -> Vector:
        """A vector of one number."""
        empty = ir.Constant(self._vector, ir.Undefined)
        first = self.builder.insert_element(empty, number, ir.Constant(_I32, 0))
        return Vector(self.builder, self._shuffled(first, empty, [0] * self.count))

    def complex(self, array: int, index: Any, swap: Any = 0) -> Complex:
        """Both parts of a point of a block, exchanged where `swap` is the size of a vector."""
        real = self.plus(index, swap)
        size = ir.Constant(index.type, self.count)
        imag = (
            self.plus(index, size) if swap == 0 else self.plus(index, self.builder.sub(size, swap))
        )
        return Complex(self.vector(array, real), self.vector(array, imag))

    def store(self, point: Complex, array: int, index: Any) -> None:
        """The inverse of `complex`."""
        for k, part in enumerate((point.real, point.imag)):
            self._store(part.value, array, self.plus(index, k * self.count))

    def take_apart(self, array: int, index: Any) -> Complex:
        """A vector's worth of complex numbers of a window."""
        half = self.plus(index, self.count // 2)
        first, second = self._load(array, index), self._load(array, half)
        return Complex(
            Vector(self.builder, self._shuffled(first, second, self.shuffles.real)),
            Vector(self.builder, self._shuffled(first, second, self.shuffles.imag)),
        )

    def put_together(self, point: Complex, array: int, index: Any) -> None:
        """The inverse of `take_apart`."""
        parts = point.real.value, point.imag.value
        self._store(self._shuffled(*parts, self.shuffles.low), array, index)
        half = self.plus(index, self.count // 2)
        self._store(self._shuffled(*parts, self.shuffles.high), array, half)

    def transposed(self, lines: Sequence[Complex]) -> list[Complex]:
        """A square of complex numbers, transposed."""
        real = self._transposed([line.real.value for line in lines])
        imag = self._transposed([line.imag.value for line in lines])
        return [
            Complex(Vector(self.builder, x), Vector(self.builder, y))
            for x, y in zip(real, imag, strict=True)
        ]

    def _transposed(self, rows: Sequence[Any]) -> list[Any]:
        """Blocks beside the diagonal change places, smaller and smaller ones."""
        n, out = len(rows), list(rows)
        half = n // 2
        while half:
            before = out.copy()
            for i in (i for i in range(n) if not i & half):
                low = [k if not k & half else n + (k ^ half) for k in range(n)]
                high = [k | half if not k & half else n + k for k in range(n)]
                out[i] = self._shuffled(before[i], before[i | half], low)
                out[i | half] = self._shuffled(before[i], before[i | half], high)
            half //= 2
        return out

    def vector(self, array: int, index: Any) -> Vector:
        """As many neighbours as a vector has elements."""
        return Vector(self.builder, self._load(array, index))

    def store_vector(self, vector: Vector, array: int, index: Any) -> None:
        """The inverse of `vector`."""
        self._store(vector.value, array, index)

    def in_block_order(self, vector: Vector) -> Vector:
        """Neighbours in a window in the order that a block has them in."""
        value = vector.value
        return Vector(self.builder, self._shuffled(value, value, self.shuffles.order))

    def _pointer(self, array: int, index: Any) -> Any:
        place = self.builder.gep(self._data[array], [index])
        return self.builder.bitcast(place, self._vector.as_pointer())

    def _load(self, array: int, index: Any) -> Any:
        return self.builder.load(self._pointer(array, index), align=self.bytes)

    def _store(self, value: Any, array: int, index: Any) -> None:
        self.builder.store(value, self._pointer(array, index), align=self.bytes)

    def _shuffled(self, first: Any, second: Any, places: Sequence[int]) -> Any:
        mask = ir.Constant(ir.VectorType(_I32, len(places)), list(places))
        return self.builder.shuffle_vector(first, second, mask)


class _Shuffles:
    """Places that instructions within lanes take numbers from; the second vector counts on."""

    def __init__(self, count: int, lane: int) -> None:
        half = lane // 2
        starts = range(0, count, lane)
        self.real = [v + s + 2 * i for s in starts for v in (0, count) for i in range(half)]
        self.imag = [place + 1 for place in self.real]
        self.low = [v + s + i for s in starts for i in range(half) for v in (0, count)]
        self.high = [place + half for place in self.low]
        self.order = [place // 2 for place in self.real]
        """Which number of the window every element of a vector is."""


def vector_length(dtype: np.dtype[Any]) -> int:
    """Elements of a vector of a real type."""
    return VECTOR_BYTES // dtype.itemsize


def block_order(width: int) -> list[int]:
    """Which neighbour in a window every element of a vector of a block of columns is."""
    return _Shuffles(width, width * _LANE_BYTES // VECTOR_BYTES).order


def on_vectors(*arrays: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A building block that numba can call, with arrays first, then with indices.

    Parameters
    ----------
    *arrays : str
        Names of the arrays.  The decorated ``write(code, index, ...)`` writes what the block does;
        the `Code` knows the arrays by their number.
    """

    def decorate(write: Callable[..., None]) -> Callable[..., None]:
        indices = list(inspect.signature(write).parameters)[1:]

        def block(_context, *arguments):
            signature = types.void(*arguments[: len(arrays)], *[types.intp] * len(indices))

            def emit(context, builder, signature, args):
                write(Code(context, builder, signature, args), *args[len(arrays) :])
                return context.get_dummy_value()

            return signature, emit

        # numba wants every argument to have a name.
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        names = ["context", *arrays, *indices]
        block.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [inspect.Parameter(name, kind) for name in names]
        )
        return intrinsic(block)

    return decorate


def _vector_size(_context, array):
    def write(context, _builder, signature, _args):
        size = VECTOR_BYTES * 8 // signature.args[0].dtype.bitwidth
        return context.get_constant(types.intp, size)

    return types.intp(array), write


vector_size: Any = intrinsic(_vector_size)
"""Elements of a vector of an array's type, known to the compiler."""


def first_butterfly(radix: int) -> Callable[..., None]:
    """A codelet of the first pass, which needs no twiddle factors, from one block to another.

    Of ``block, source, order`` and the indices ``start, offset, point, swap``: from the points
    ``order[point + k]`` of the block at `offset` of the source, to `start`.
    """

    @on_vectors("block", "source", "order")
    def butterfly(code, start, offset, point, swap):
        places = [code.plus(offset, code.number(2, code.plus(point, k))) for k in range(radix)]
        for k, value in enumerate(dft([code.complex(1, place, swap) for place in places])):
            code.store(value, 0, code.plus(start, 2 * k * code.count))

    return butterfly


def later_butterfly(radix: int) -> Callable[..., None]:
    """A codelet of a later pass, in place.

    Of ``block, twiddles`` and the indices ``start, stride, factor``: points from `start`, `stride`
    apart, times the factors from `factor`.
    """

    @on_vectors("block", "twiddles")
    def butterfly(code, start, stride, factor):
        places = [start]
        for _ in range(1, radix):
            places.append(code.plus(places[-1], stride))
        points = [code.complex(0, place) for place in places]
        for k in range(1, radix):
            turn = [code.number(1, code.plus(factor, 2 * k - 2 + i)) for i in (0, 1)]
            points[k] = points[k] * Complex(*map(code.everywhere, turn))
        for place, point in zip(places, dft(points), strict=True):
            code.store(point, 0, place)

    return butterfly


def _lines_of_square(code: Code, row: Any, last: Any, stride: Any, start: Any) -> list[Any]:
    """Where the rows of a square begin; those beyond the `last` are that one again."""
    builder, places = code.builder, []
    for i in range(code.count):
        here = code.plus(row, i)
        here = builder.select(builder.icmp_signed("<", here, last), here, last)
        places.append(code.plus(start, builder.mul(here, stride)))
    return places


def load_square(strips: bool) -> Callable[..., None]:
    """Transpose a square of a window, or of strips, to points of a block of rows.

    Rows `row` to `last` of the source, `stride` apart and the first at `start`, to points from
    `place`.
    """

    @on_vectors("block", "source")
    def load(code, place, row, last, stride, start):
        take = code.complex if strips else code.take_apart
        lines = [take(1, at) for at in _lines_of_square(code, row, last, stride, start)]
        for k, line in zip(code.shuffles.order, code.transposed(lines), strict=True):
            code.store(line, 0, code.plus(place, 2 * k * code.count))

    return load


@on_vectors("block", "strips")
def store_square(code, place, row, last, stride, start):
    """The inverse of `load_square` from strips."""
    points = [code.plus(place, 2 * k * code.count) for k in code.shuffles.order]
    lines = code.transposed([code.complex(0, point) for point in points])
    places = _lines_of_square(code, row, last, stride, start)
    # What goes to the last row several times is written last by the row itself.
    for at, line in reversed(list(zip(places, lines, strict=True))):
        code.store(line, 1, at)


@on_vectors("block", "window")
def store_point(code, place, at, swap):
    """A point of a block of columns becomes neighbours in a row of a window."""
    code.put_together(code.complex(0, place, swap), 1, at)
