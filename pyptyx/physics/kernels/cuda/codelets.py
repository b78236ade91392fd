"""Straight-line CUDA code of small DFTs ("codelets"), in registers and in natural order.

``X_k = Σ_j x_j exp(-2πi jk/R)``.  A prime radix uses the symmetry of the cosines and sines, a
composite one splits as Cooley and Tukey (1965) do: ``R = R₁ R₂``, with constant twiddles between
the two.  The inverse transform is the forward one with real and imaginary parts exchanged before
and after it, so it needs no code of its own.
"""

from __future__ import annotations

import math
from functools import cache

Value = tuple[str, str]
"""Names of the variables that hold the real and the imaginary part."""

PRIMES = (2, 3, 5, 7)
"""Prime factors of the sizes that can be transformed."""

_SPLITS = (4, 2, 3, 5, 7)


class _Writer:
    """Lines of C++ with one new constant per operation."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def let(self, expression: str) -> str:
        """Name of a new float that holds `expression`."""
        name = f"t{len(self.lines)}"
        self.lines.append(f"const float {name} = {expression};")
        return name

    def add(self, a: Value, b: Value) -> Value:
        return self.let(f"{a[0]} + {b[0]}"), self.let(f"{a[1]} + {b[1]}")

    def subtract(self, a: Value, b: Value) -> Value:
        return self.let(f"{a[0]} - {b[0]}"), self.let(f"{a[1]} - {b[1]}")

    def combine(self, start: str, factors: list[float], names: list[str]) -> str:
        """``start + Σ factor · name``; an empty `start` is zero."""
        terms = [f"{literal(f)} * {n}" for f, n in zip(factors, names, strict=True)]
        return self.let(" + ".join([start, *terms] if start else terms))

    def turn(self, a: Value, numerator: int, size: int) -> Value:
        """``a · exp(-2πi numerator/size)``; quarters and eighths of a turn are cheap."""
        eighths, rest = divmod(8 * numerator, size)
        if rest:
            angle = -2 * math.pi * numerator / size
            c, s = literal(math.cos(angle)), literal(math.sin(angle))
            return self.let(f"{c} * {a[0]} - {s} * {a[1]}"), self.let(
                f"{s} * {a[0]} + {c} * {a[1]}"
            )
        if eighths % 2:
            h = literal(math.sqrt(0.5))
            a = self.let(f"{h} * ({a[0]} + {a[1]})"), self.let(f"{h} * ({a[1]} - {a[0]})")
        quarters = eighths // 2 % 4
        # -i (x + iy) = y - ix; a name with a sign in front is an expression as well.
        re, im = a
        for _ in range(quarters):
            re, im = im, negative(re)
        return re, im


def literal(value: float) -> str:
    """A C++ float; nine digits give the nearest one."""
    return f"{value:.9g}f" if "." in f"{value:.9g}" or "e" in f"{value:.9g}" else f"{value:.1f}f"


def negative(name: str) -> str:
    """The name with the other sign."""
    return name[2:-1] if name.startswith("(-") else f"(-{name})"


def _prime(w: _Writer, x: list[Value]) -> list[Value]:
    radix, half = len(x), len(x) // 2
    if radix == 2:
        return [w.add(x[0], x[1]), w.subtract(x[0], x[1])]
    sums = [w.add(x[k], x[radix - k]) for k in range(1, half + 1)]
    differences = [w.subtract(x[k], x[radix - k]) for k in range(1, half + 1)]
    ones = [1.0] * half
    out: list[Value] = [("", "")] * radix
    out[0] = (
        w.combine(x[0][0], ones, [s[0] for s in sums]),
        w.combine(x[0][1], ones, [s[1] for s in sums]),
    )
    for m in range(1, half + 1):
        angles = [2 * math.pi * (m * k % radix) / radix for k in range(1, half + 1)]
        cosines, sines = [math.cos(a) for a in angles], [math.sin(a) for a in angles]
        even = [w.combine(x[0][c], cosines, [s[c] for s in sums]) for c in (0, 1)]
        odd = [w.combine("", sines, [d[c] for d in differences]) for c in (0, 1)]
        # even - i odd, and even + i odd
        out[m] = w.let(f"{even[0]} + {odd[1]}"), w.let(f"{even[1]} - {odd[0]}")
        out[radix - m] = w.let(f"{even[0]} - {odd[1]}"), w.let(f"{even[1]} + {odd[0]}")
    return out


def _transform(w: _Writer, x: list[Value]) -> list[Value]:
    radix = len(x)
    if radix == 1:
        return x
    if radix in PRIMES:
        return _prime(w, x)
    outer = next(p for p in _SPLITS if radix % p == 0 and radix != p)
    inner = radix // outer
    parts = [_transform(w, x[r::outer]) for r in range(outer)]
    out: list[Value] = [("", "")] * radix
    for k in range(inner):
        column = _transform(w, [w.turn(parts[r][k], r * k, radix) for r in range(outer)])
        for q in range(outer):
            out[k + inner * q] = column[q]
    return out


@cache
def butterfly(radix: int) -> str:
    """CUDA source of ``butterfly<radix>(Complex* x)``, in place.

    Parameters
    ----------
    radix : int
        A product of 2, 3, 5 and 7.

    Raises
    ------
    ValueError
        If another prime divides `radix`.
    """
    if not is_smooth(radix):
        raise ValueError(f"no codelet of radix {radix}: only 2, 3, 5 and 7 may divide it")
    w = _Writer()
    out = _transform(w, [(f"x[{j}].x", f"x[{j}].y") for j in range(radix)])
    # All values are read before the first is overwritten, those that no operation has touched too.
    body = [*w.lines, *(f"const Complex y{k} = {{{re}, {im}}};" for k, (re, im) in enumerate(out))]
    body += [f"x[{k}] = y{k};" for k in range(radix)]
    text = "\n".join(f"    {line}" for line in body)
    return f"template <>\nINLINE void butterfly<{radix}>(Complex* x) {{\n{text}\n}}\n"


def is_smooth(n: int) -> bool:
    """Whether only 2, 3, 5 and 7 divide `n` ≥ 1."""
    for p in PRIMES:
        while n % p == 0:
            n //= p
    return n == 1
