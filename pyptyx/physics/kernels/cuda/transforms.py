"""How a line of n values is transformed by a team of threads.

A transform is a chain of radices ``n = R₁ R₂ ...``.  Thread t of a team of T holds the legs ``m +
j n/R`` (j = 0 … R-1) of the butterflies ``m = t, t + T, ...``; between two radices the values are
exchanged through shared memory (Stockham's order, so that nothing is ever permuted).  What a team
reads before the first radix and what it holds after the last one is therefore in natural order.
The inverse transform takes the radices backwards: it begins with the registers as the forward one
leaves them.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cache

import numpy as np

from pyptyx.physics.kernels.cuda.codelets import butterfly, is_smooth, literal

MAX_RADIX = 16
"""Largest codelet: 32 registers of data, which leave room for a second wave beside it."""

FEW_SLOTS = 10
"""Values per thread where several waves are in the registers at once."""

MAX_THREADS = 64
"""Largest team of threads for one line."""

_EXCHANGE = 8
"""Cost of writing and reading one value through shared memory, in floating point operations."""


@dataclass(frozen=True)
class Transform:
    """Plan of one-dimensional transforms of length n.

    Attributes
    ----------
    size : int
        n.
    radices : tuple of int
        Their product is n.
    threads : int
        T, the threads of the team.
    """

    size: int
    radices: tuple[int, ...]
    threads: int

    def rounds(self, radix: int) -> int:
        """Butterflies of `radix` per thread; in the last round some threads may be idle."""
        return math.ceil(self.size // radix / self.threads)

    @property
    def slots(self) -> int:
        """Complex values in the registers of a thread."""
        return max(self.rounds(r) * r for r in self.radices)

    @property
    def cost(self) -> float:
        """Operations of the whole team with the idle threads counted in."""
        per_thread = sum(self.rounds(r) * r * (5 * math.log2(r) + _EXCHANGE) for r in self.radices)
        return self.threads * per_thread

    def source(self, name: str, step: int) -> str:
        """CUDA source: the table of twiddles and a struct `name` with what `transform.cu` needs.

        Parameters
        ----------
        name : str
        step : int
            Neighbouring values of one line are `step` values apart in shared memory; the threads
            of a team are `step` apart as well.
        """
        in_warp = "true" if step == 1 and 32 % self.threads == 0 else "false"
        angle = -2 * np.pi * np.arange(self.size) / self.size
        pairs = zip(np.cos(angle).tolist(), np.sin(angle).tolist(), strict=True)
        twiddles = ",\n    ".join(f"{{{literal(c)}, {literal(s)}}}" for c, s in pairs)
        forward = ", ".join(map(str, self.radices))
        backward = ", ".join(map(str, self.radices[::-1]))
        return (
            f"__device__ const Complex TWIDDLES_{name}[{self.size}] = {{\n    {twiddles}}};\n\n"
            f"struct {name} {{\n"
            f"    static constexpr int SIZE = {self.size}, THREADS = {self.threads};\n"
            f"    static constexpr int SLOTS = {self.slots}, STEP = {step};\n"
            f"    static constexpr bool IN_WARP = {in_warp};\n"
            f"    static constexpr int FIRST = {self.radices[0]}, LAST = {self.radices[-1]};\n"
            "    static INLINE Complex twiddle(int k) "
            f"{{ return __ldg(&TWIDDLES_{name}[k]); }}\n"
            "    static INLINE void forward(Complex* v, Complex* line, int t) {\n"
            f"        run<{name}, 1, {forward}>(v, line, t);\n"
            "    }\n"
            "    static INLINE void inverse(Complex* v, Complex* line, int t) {\n"
            "        exchange_parts<SLOTS>(v);\n"
            f"        run<{name}, 1, {backward}>(v, line, t);\n"
            "        exchange_parts<SLOTS>(v);\n"
            "    }\n"
            "};\n"
        )


@cache
def plan(size: int, slots: int = MAX_RADIX) -> Transform:
    """The cheapest plan of length `size` with at most `slots` values per thread.

    Raises
    ------
    ValueError
        If `size` has a prime factor above 7 or needs a team of more than `MAX_THREADS`.
    """
    candidates = [
        Transform(size, radices, threads)
        for radices in _chains(size, slots)
        for threads in {size // r // k for r in radices for k in (1, 2, 3, 4) if size // r % k == 0}
        if threads <= MAX_THREADS
    ]
    candidates = [c for c in candidates if c.slots <= slots]
    if not candidates:
        raise ValueError(f"no transform of length {size}")
    return min(candidates, key=lambda c: (c.cost, c.slots, c.radices))


def can_transform(size: int) -> bool:
    """Whether `plan` knows transforms of length `size`, with few values per thread as well."""
    try:
        plan(size, FEW_SLOTS)
    except ValueError:
        return False
    return True


def codelets(*transforms: Transform) -> str:
    """CUDA source of the butterflies that `transforms` use."""
    radices = sorted({r for t in transforms for r in t.radices})
    return "\n".join(butterfly(r) for r in radices)


def _chains(size: int, largest: int) -> list[tuple[int, ...]]:
    """Factorizations of `size` into the fewest radices up to `largest`, and into one more."""
    if size < 2 or not is_smooth(size):
        return []
    radices = [r for r in range(2, largest + 1) if is_smooth(r) and size % r == 0]
    found: list[tuple[int, ...]] = []
    for count in range(1, 5):
        chains = [
            c
            for c in itertools.combinations_with_replacement(radices[::-1], count)
            if math.prod(c) == size
        ]
        if found:
            return found + chains
        found = chains
    return found
