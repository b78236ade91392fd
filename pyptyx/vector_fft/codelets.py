"""Fourier transforms of a few numbers, written out.

They are written for numbers that know ``+``, ``-``, unary ``-`` and ``* float``: machine vectors in
`vectors`, and Python's own in the tests.  All transforms are forward, ``exp(-2πi jk/n)``; who wants
the other sign exchanges real and imaginary parts before and after.

Larger lengths are products (Cooley and Tukey, Math. Comput. 19 (1965) 297).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

RADICES = (2, 3, 4, 5, 6, 7, 8)
"""Lengths that `dft` knows."""

_OUTER = {6: 2, 8: 2}


@dataclass(frozen=True)
class Complex:
    """A pair of real numbers, or of vectors of them."""

    real: Any
    imag: Any

    def __add__(self, other: Complex) -> Complex:
        return Complex(self.real + other.real, self.imag + other.imag)

    def __sub__(self, other: Complex) -> Complex:
        return Complex(self.real - other.real, self.imag - other.imag)

    def __mul__(self, other: Complex) -> Complex:
        return Complex(
            self.real * other.real - self.imag * other.imag,
            self.real * other.imag + self.imag * other.real,
        )

    def conjugate(self) -> Complex:
        """The complex conjugate."""
        return Complex(self.real, -self.imag)

    def scaled(self, factor: Any) -> Complex:
        """Times a real number."""
        return Complex(self.real * factor, self.imag * factor)

    def plus_i(self, other: Complex) -> Complex:
        """``self + i other``."""
        return Complex(self.real - other.imag, self.imag + other.real)

    def minus_i(self, other: Complex) -> Complex:
        """``self - i other``."""
        return Complex(self.real + other.imag, self.imag - other.real)

    def turned(self, step: int, n: int) -> Complex:
        """Times ``exp(-2πi step/n)``, where eighths of a turn cost less."""
        x, y = self.real, self.imag
        eighths, rest = divmod(8 * step % (8 * n), n)
        if rest:
            angle = 2 * math.pi * step / n
            c, s = math.cos(angle), math.sin(angle)
            return Complex(x * c + y * s, y * c - x * s)
        h = math.sqrt(0.5)
        return (
            lambda: self,
            lambda: Complex((x + y) * h, (y - x) * h),
            lambda: Complex(y, -x),
            lambda: Complex((y - x) * h, (x + y) * -h),
            lambda: Complex(-x, -y),
            lambda: Complex((x + y) * -h, (x - y) * h),
            lambda: Complex(-y, x),
            lambda: Complex((x - y) * h, (x + y) * h),
        )[eighths]()


def dft(x: Sequence[Complex]) -> list[Complex]:
    """Forward transform of as many numbers as one of `RADICES` says."""
    n = len(x)
    if n == 1:
        return list(x)
    if n == 2:
        return [x[0] + x[1], x[0] - x[1]]
    if n == 4:
        a, b, c, d = x[0] + x[2], x[0] - x[2], x[1] + x[3], x[1] - x[3]
        return [a + c, b.minus_i(d), a - c, b.plus_i(d)]
    if n % 2:
        return _odd(x)
    outer = _OUTER[n]
    inner = n // outer
    parts = [dft(x[i::outer]) for i in range(outer)]
    out = list(x)
    for k in range(inner):
        out[k::inner] = dft([parts[i][k].turned(i * k, n) for i in range(outer)])
    return out


def _odd(x: Sequence[Complex]) -> list[Complex]:
    """Transform of an odd number of numbers: sums and differences of pairs from both ends."""
    n = len(x)
    pairs = range(1, n // 2 + 1)
    sums = [x[k] + x[n - k] for k in pairs]
    differences = [x[k] - x[n - k] for k in pairs]
    out = list(x)
    for s in sums:
        out[0] = out[0] + s
    for q in pairs:
        even, odd = x[0], None
        for k, s, d in zip(pairs, sums, differences, strict=True):
            angle = 2 * math.pi * k * q / n
            even = even + s.scaled(math.cos(angle))
            part = d.scaled(math.sin(angle))
            odd = part if odd is None else odd + part
        assert odd is not None
        out[q], out[n - q] = even.minus_i(odd), even.plus_i(odd)
    return out


def factors(n: int) -> list[int] | None:
    """`n` as a product of `RADICES`, as few and as small as can be, the largest first.

    None if there is no such product.
    """
    best: dict[int, list[int]] = {1: []}
    for m in range(2, n + 1):
        if n % m:
            continue
        found = [[*best[m // r], r] for r in RADICES if m % r == 0 and m // r in best]
        if found:
            best[m] = min(found, key=lambda f: (len(f), sum(f)))
    return sorted(best[n], reverse=True) if n in best else None
