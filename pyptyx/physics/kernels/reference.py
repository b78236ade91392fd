"""Reference kernels in plain array code; they run on NumPy and CuPy and define the results.

Shapes: wave ``(B, Mp, Mo, ny, nx)`` complex, intensity ``(B, ny, nx)`` real.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

Array = Any


def mul_conj(a: Array, b: Array, out: Array | None = None) -> Array:
    """``conj(a) · b`` with broadcasting, into `out` if given."""
    if out is None:
        out = np.empty_like(b, shape=np.broadcast_shapes(a.shape, b.shape))
    if a.size < out.size:
        return np.multiply(a.conj(), b, out=out)
    np.conjugate(a, out=out)
    return np.multiply(out, b, out=out)


def imag_inner(a: Array, b: Array) -> Array:
    """``Im(conj(a) · b)`` summed over all axes between the first and the last two: (B, ny, nx)."""
    v = a.real * b.imag - a.imag * b.real
    return v.sum(axis=tuple(range(1, v.ndim - 2))) if v.ndim > 3 else v


def mean_intensity(wave: Array) -> Array:
    """Mean of ``|wave|²`` over both mode axes, (B, ny, nx)."""
    n_modes = wave.shape[1] * wave.shape[2]
    planes = wave.view(wave.real.dtype).reshape(*wave.shape, 2)
    squares = planes * planes
    if n_modes > 1:
        squares = squares.sum(axis=(1, 2))
        squares *= squares.dtype.type(1 / n_modes)
        return squares[..., 0] + squares[..., 1]
    return squares[:, 0, 0, ..., 0] + squares[:, 0, 0, ..., 1]


def scale_wave(wave: Array, factor: Array) -> Array:
    """``wave · factor`` in place, with a real factor (B, ny, nx) common to all modes."""
    return np.multiply(wave, factor[:, None, None], out=wave)


def gather(obj: Array, corners: np.ndarray, window: tuple[int, int]) -> Array:
    """Windows of `obj` (..., Y, X) at integer `corners` (B, 2): (B, ..., ny, nx)."""
    ny, nx = window
    out = np.empty_like(obj, shape=(len(corners), *obj.shape[:-2], ny, nx))
    for b, (y, x) in enumerate(corners.tolist()):
        out[b] = obj[..., y : y + ny, x : x + nx]
    return out


def scatter_add(target: Array, corners: np.ndarray, patches: Array) -> None:
    """Adjoint of `gather`: add `patches` (B, ..., ny, nx) into `target`, in batch order."""
    ny, nx = patches.shape[-2:]
    for b, (y, x) in enumerate(corners.tolist()):
        target[..., y : y + ny, x : x + nx] += patches[b]


def pattern_sums(a: Array) -> Array:
    """Sum over (ny, nx) per pattern in float64; rows are summed in the working precision first."""
    return a.sum(axis=-1).sum(axis=-1, dtype=np.float64)


def squared_norms(a: Array) -> Array:
    """``Σ a²`` over (ny, nx) per pattern; along rows in the working precision, then in float64."""
    return np.einsum("bij,bij->bi", a, a).sum(axis=-1, dtype=np.float64)


def lsq_sqrt(intensity: Array, data: Array) -> tuple[Array, Array]:
    """``Σ(√I - √D)²`` per pattern and its derivative ``(√I - √D)/√I`` (``-√D`` where I = 0)."""
    amplitude = np.sqrt(intensity)
    residual = amplitude - np.sqrt(data)
    value = squared_norms(residual)
    amplitude += amplitude == 0
    residual /= amplitude
    return value, residual


def ml(intensity: Array, data: Array, floor: float = 0.0) -> tuple[Array, Array]:
    """Poisson ``Σ I - D ln I`` per pattern and ``1 - D/I``; where I = 0, 0 and ``-D``.

    Between 0 and `floor` the logarithm continues along its tangent.  Where a start lights a pixel
    by nothing but rounding (I = 1e-10) and an electron was counted there, the bare term has a slope
    of 1e10 that no step survives; the tangent has ``1 - D/floor``.
    """
    lit = intensity > 0
    safe = np.maximum(intensity, intensity.dtype.type(floor))
    safe += safe == 0
    logarithm = np.log(safe)
    if floor:
        logarithm += (intensity - safe) * (1 / floor)
    value = pattern_sums(intensity - data * (logarithm * lit))
    if floor:
        safe[~lit] = 1
    derivative = data / safe
    np.subtract(lit, derivative, out=derivative)
    return value, derivative


def lsq(intensity: Array, data: Array) -> tuple[Array, Array]:
    """Intensity loss ``Σ(I - D)²`` per pattern and ``2(I - D)``."""
    residual = intensity - data
    value = squared_norms(residual)
    residual *= 2
    return value, residual


def lsq_sqrt_2(intensity: Array, data: Array) -> tuple[Array, Array]:
    """``Σ ½(I - D)²/D`` where D > 0.5, else ``I``, and ``I/D - 1``, else 1 (PyPty's threshold)."""
    counted = data > 0.5
    safe = np.where(counted, data, data.dtype.type(1))
    residual = intensity - data
    derivative = residual / safe
    value = pattern_sums(np.where(counted, 0.5 * residual * derivative, intensity))
    derivative[~counted] = 1
    return value, derivative


def poisson_compressed(signal: Array, data: Array) -> tuple[Array, Array]:
    """Poisson ``Σ c - D ln c`` and ``(c - D)/c``; where c = 0, as if it were 1, and ``-D``."""
    safe = signal + (signal == 0)
    value = pattern_sums(safe - data * np.log(safe))
    derivative = signal - data
    derivative /= safe
    return value, derivative


LOSSES = {
    "lsq_sqrt": lsq_sqrt,
    "ml": ml,
    "lsq": lsq,
    "lsq_sqrt_2": lsq_sqrt_2,
    "lsq_compressed": lsq,
    "gauss_compressed": lsq_sqrt,
    "poisson_compressed": poisson_compressed,
}
"""Data terms by the name of the parameter ``algorithm``."""


def loss_function(name: str, floor: float = 0.0) -> Callable[[Array, Array], tuple[Array, Array]]:
    """The data term `name`; `floor` is that of `ml` and means nothing to the others."""
    return partial(ml, floor=floor) if name == "ml" and floor else LOSSES[name]
