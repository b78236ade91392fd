"""Algebra over variable trees.

A *tree* is a plain ``dict`` of arrays: ``object, probe, positions, tilts, background, current,
aberrations``.  Optimiser, reduction over workers and checkpoints are written once over it.

Notation: ``<u, v> = Σ_b Σ Re(conj(u_b) v_b)``.  With the package's gradient convention ``g =
dL/dRe z + i dL/dIm z`` the number ``<g, d>`` is the directional derivative for real and complex
blocks alike.  All reductions are accumulated in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Array = Any
Tree = dict[str, Array]


def real_view(a: Array) -> Array:
    """The array as a flat real vector, real and imaginary parts interleaved."""
    flat = a.reshape(-1)
    if flat.dtype.kind == "c":
        flat = flat.view(flat.real.dtype)
    return flat


BLOCK = 1 << 13
"""Real numbers per partial sum of a dot product, so few that no BLAS splits them over threads."""

_CHUNK = {True: 1 << 15, False: 1 << 24}
"""Numbers converted to float64 at a time: in the cache of a core, and on a device."""


def dot(u: Array, v: Array) -> float:
    """``Σ Re(conj(u) v)`` of two arrays, accumulated in float64."""
    return float(block_dots(u, v).sum())


def block_dots(u: Array, v: Array) -> np.ndarray:
    """Dot products of consecutive blocks of `BLOCK` real numbers, float64, on the host.

    Their sum in order is the same however the blocks are shared out between processes.
    """
    ru, rv = real_view(u), real_view(v)
    chunk = max(1, min(_CHUNK[isinstance(ru, np.ndarray)], ru.size))
    # Buffers that are filled again: new ones would cost more than the products.
    buffers = [None if r.dtype == np.float64 else r[:chunk].astype(np.float64) for r in (ru, rv)]
    parts: list[float] = []
    for i in range(0, ru.size, chunk):
        a, b = (_as_float64(r[i : i + chunk], to) for r, to in zip((ru, rv), buffers, strict=True))
        whole = a.size - a.size % BLOCK
        parts += _row_dots(a[:whole].reshape(-1, BLOCK), b[:whole].reshape(-1, BLOCK)).tolist()
        if whole < a.size:
            parts += _row_dots(a[None, whole:], b[None, whole:]).tolist()
    return np.array(parts)


def _as_float64(a: Array, buffer: Array | None) -> Array:
    if buffer is None:
        return a
    buffer[: a.size] = a
    return buffer[: a.size]


def _row_dots(a: Array, b: Array) -> Array:
    with np.errstate(invalid="ignore", over="ignore"):  # whoever asks looks at the number
        return np.vecdot(a, b) if isinstance(a, np.ndarray) else (a * b).sum(axis=1)


def vdot(u: Mapping[str, Array], v: Mapping[str, Array]) -> float:
    """``<u, v>`` over the keys of `u`."""
    return sum(dot(u[k], v[k]) for k in u)


def norm(u: Mapping[str, Array]) -> float:
    """``sqrt(<u, u>)``."""
    return float(np.sqrt(vdot(u, u)))


def map_tree(f: Callable[..., Array], *trees: Mapping[str, Array]) -> Tree:
    """Apply ``f`` key by key; the keys are those of the first tree."""
    return {k: f(*(t[k] for t in trees)) for k in trees[0]}


def axpy(a: float, x: Mapping[str, Array], y: Mapping[str, Array]) -> Tree:
    """``y + a x`` as a new tree over the keys of `x`; the dtype of `y` is kept."""
    return {k: y[k] + y[k].real.dtype.type(a) * x[k] for k in x}


def scale(a: float, x: Mapping[str, Array]) -> Tree:
    """``a x`` as a new tree."""
    return {k: v.real.dtype.type(a) * v for k, v in x.items()}


def sub(x: Mapping[str, Array], y: Mapping[str, Array]) -> Tree:
    """``x - y`` as a new tree over the keys of `x`."""
    return {k: x[k] - y[k] for k in x}


def add_into(acc: Tree, x: Mapping[str, Array]) -> None:
    """``acc += x`` in place over the keys of `acc`."""
    for k, a in acc.items():
        a += x[k]


def add_scaled(acc: Tree, a: float, x: Mapping[str, Array]) -> None:
    """``acc += a x`` in place over the keys of `acc`; the same numbers as `axpy`.

    In pieces that stay in the cache, without an array as large as `x`.
    """
    for k, v in acc.items():
        if not (v.flags.c_contiguous and x[k].flags.c_contiguous):
            v += v.real.dtype.type(a) * x[k]
            continue
        to, of = real_view(v), real_view(x[k])
        factor = to.dtype.type(a)
        chunk = max(1, min(_CHUNK[isinstance(to, np.ndarray)], to.size))
        product = to[:chunk].copy()
        for i in range(0, to.size, chunk):
            part = to[i : i + chunk]
            part += np.multiply(of[i : i + chunk], factor, out=product[: part.size])


def zeros_like(x: Mapping[str, Array]) -> Tree:
    """A tree of zeros with the shapes and dtypes of `x`."""
    return {k: _zeros(v) for k, v in x.items()}


def _zeros(a: Array) -> Array:
    z = a.copy()
    z[...] = 0
    return z


def copy(x: Mapping[str, Array]) -> Tree:
    """A tree of copies."""
    return {k: v.copy() for k, v in x.items()}


def is_finite(x: Mapping[str, Array]) -> dict[str, bool]:
    """For each key whether every entry is finite (a NaN or infinity survives the float64 sum)."""
    return {k: bool(np.isfinite(dot(v, v))) for k, v in x.items()}
