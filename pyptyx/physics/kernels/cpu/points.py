"""What happens to one point of a block between two transforms (see `pyptyx.vector_fft.vectors`).

A point is a vector of neighbours: of columns in Fourier space, of rows in real space.  `swap` is
the size of a vector where a block comes from an inverse transform, whose parts are exchanged.
"""

from __future__ import annotations

from pyptyx.vector_fft.codelets import Complex
from pyptyx.vector_fft.vectors import Code, on_vectors


def _ramp(code: Code, y: object, x: object) -> Complex:
    """Product of a factor of the row and of those of its columns; arrays 2 and 3."""
    e_y = Complex(
        code.everywhere(code.number(2, y)), code.everywhere(code.number(2, code.plus(y, 1)))
    )
    return e_y * code.complex(3, x)


@on_vectors("target", "spectrum", "ramp_y", "ramp_x")
def modulate(code, place, at, y, x):
    """The spectrum of the probe times the ramp that shifts it."""
    code.store(code.complex(1, at) * _ramp(code, y, x), 0, place)


@on_vectors("gradient", "block", "ramp_y", "ramp_x")
def modulate_vjp(code, at, place, y, x):
    """Adjoint of `modulate`, added to the gradient."""
    g = code.complex(1, place) * _ramp(code, y, x).conjugate()
    code.store(code.complex(0, at) + g, 0, at)


def _of_object(code: Code, array: int, at: object, imag: object) -> Complex:
    """A point of the object or of its gradient, whose imaginary parts are `imag` behind."""
    return Complex(code.vector(array, at), code.vector(array, code.plus(at, imag)))


@on_vectors("target", "waves", "object")
def transmit(code, place, wave, at, imag):
    """A wave behind a slice, from the wave in front of it."""
    code.store(code.complex(1, wave) * _of_object(code, 2, at, imag), 0, place)


@on_vectors("target", "block", "object", "waves")
def transmit_and_keep(code, place, at, imag, wave, swap):
    """As `transmit`; the wave in front is put aside."""
    incoming = code.complex(1, place, swap)
    code.store(incoming, 3, wave)
    code.store(incoming * _of_object(code, 2, at, imag), 0, place)


@on_vectors("target", "block", "object")
def pull_back(code, place, at, imag, swap):
    """Gradient of the wave in front of a slice."""
    g = code.complex(1, place, swap)
    code.store(g * _of_object(code, 2, at, imag).conjugate(), 0, place)


@on_vectors("gradient", "block", "waves", "rows")
def add_to_object(code, place, at, imag, wave, row, swap):
    """Gradient of a slice; `rows` is 0 for rows that the window does not have."""
    g = code.complex(1, place, swap) * code.complex(2, wave).conjugate()
    g = _of_object(code, 0, at, imag) + g.scaled(code.vector(3, row))
    code.store_vector(g.real, 0, at)
    code.store_vector(g.imag, 0, code.plus(at, imag))


@on_vectors("target", "block", "table")
def multiply(code, place, at):
    """Times a factor per pixel."""
    code.store(code.complex(1, place) * code.complex(2, at), 0, place)


@on_vectors("target", "block", "table")
def multiply_conjugate(code, place, at):
    """Adjoint of `multiply`."""
    code.store(code.complex(1, place) * code.complex(2, at).conjugate(), 0, place)


@on_vectors("target", "block", "factor")
def scale(code, place, at):
    """Times a real factor per pixel."""
    code.store(code.complex(1, place).scaled(code.vector(2, at)), 0, place)


@on_vectors("intensity", "block")
def add_intensity(code, at, place):
    """Add the square of the modulus."""
    wave = code.complex(1, place)
    square = wave.real * wave.real + wave.imag * wave.imag
    code.store_vector(code.vector(0, at) + square, 0, at)


@on_vectors("counts", "data")
def take_counts(code, at, place):
    """Neighbours in a row of a pattern, in the order of a block."""
    code.store_vector(code.in_block_order(code.vector(1, place)), 0, at)


@on_vectors("target", "block")
def copy(code, at, place, swap):
    """A point as it is."""
    code.store(code.complex(1, place, swap), 0, at)


@on_vectors("target", "block")
def add(code, at, place):
    """A point added to what is there."""
    code.store(code.complex(0, at) + code.complex(1, place), 0, at)
