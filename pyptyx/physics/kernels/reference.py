"""Reference kernels in plain array code; they run on NumPy and CuPy and define the results.

Shapes: wave ``(B, Mp, Mo, ny, nx)`` complex, intensity ``(B, ny, nx)`` real, object ``(Mo, Nz, Y,
X)``, corners ``(B, 2)`` integer.  A wave of length 1 along its first axis serves all patterns.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from pyptyx.physics.grid import Band

Array = Any

_AT_ONCE = 2048
"""Numbers that are added in the working precision before double precision takes over."""


def mul_conj(a: Array, b: Array) -> Array:
    """``conj(a) · b`` with broadcasting."""
    out = np.empty_like(b, shape=np.broadcast_shapes(a.shape, b.shape))
    if a.size < out.size:
        return np.multiply(a.conj(), b, out=out)
    np.conjugate(a, out=out)
    return np.multiply(out, b, out=out)


def imag_inner(a: Array, b: Array) -> Array:
    """``Im(conj(a) · b)`` summed over all axes between the first and the last two: (B, ny, nx)."""
    v = a.real * b.imag - a.imag * b.real
    return v.sum(axis=tuple(range(1, v.ndim - 2))) if v.ndim > 3 else v


def imag_marginals(a: Array, g: Array, band: Band | None = None) -> tuple[Array, Array]:
    """`imag_inner` summed along x, (B, ny), and along y, (B, nx), in float64.

    With a `band` either `a` or `g` is zero outside.
    """
    del band
    v = imag_inner(a, g)
    return v.sum(axis=2, dtype=np.float64), v.sum(axis=1, dtype=np.float64)


def modulate(a: Array, rows: np.ndarray, e_y: Array, e_x: Array, band: Band) -> Array:
    """``a[rows[b]] · e_y[b] · e_x[b]``: (B, Mp, ny, nx) for a (Ns, Mp, ny, nx), zero outside."""
    del band
    factor = e_y[:, None, :, None] * e_x[:, None, None, :]
    out = np.empty_like(a, shape=(len(rows), *a.shape[1:]))
    for b, row in enumerate(rows.tolist()):
        np.multiply(a[row], factor[b], out=out[b])
    return out


def modulate_vjp(
    g: Array, rows: np.ndarray, e_y: Array, e_x: Array, target: Array, band: Band
) -> None:
    """Adjoint of `modulate`, added into `target` (Ns, Mp, ny, nx) in batch order.

    What happens outside the band is not defined.
    """
    del band
    factor = e_y.conj()[:, None, :, None] * e_x.conj()[:, None, None, :]
    for b, row in enumerate(rows.tolist()):
        target[row] += g[b] * factor[b]


def add_rows(g: Array, rows: np.ndarray, target: Array) -> None:
    """Add ``g[b]`` (B, Mp, ny, nx) into ``target[rows[b]]`` (Ns, Mp, ny, nx), in a fixed order."""
    if (rows == rows[0]).all():
        target[rows[0]] += g.sum(axis=0)
        return
    for b, row in enumerate(rows.tolist()):
        target[row] += g[b]


def mean_intensity(wave: Array) -> Array:
    """Mean of ``|wave|²`` over both mode axes, (B, ny, nx)."""
    n_modes = wave.shape[1] * wave.shape[2]
    if n_modes == 1:
        amplitude = abs(wave[:, 0, 0])
        amplitude *= amplitude
        return amplitude
    planes = wave.view(wave.real.dtype).reshape(*wave.shape, 2)
    squares = (planes * planes).sum(axis=(1, 2))
    squares *= squares.dtype.type(1 / n_modes)
    return squares[..., 0] + squares[..., 1]


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
    total = np.empty_like(target, shape=(*target.shape[:-2], ny, nx))
    for b, (y, x) in enumerate(corners.tolist()):
        window = target[..., y : y + ny, x : x + nx]
        # NumPy computes in strided windows through buffers; to copy one there and back is faster.
        total[...] = window
        np.add(total, patches[b], out=total)
        window[...] = total


def transmit(incoming: Array, obj: Array, z: int, corners: np.ndarray) -> Array:
    """Every probe mode times every object mode of slice z in its window: (B, Mp, Mo, ny, nx).

    `incoming` is (B or 1, Mp, 1 or Mo, ny, nx).
    """
    windows = gather(obj[:, z], corners, incoming.shape[-2:])[:, None]
    if incoming.shape[1] == 1:
        return np.multiply(incoming, windows, out=windows)
    return incoming * windows


def transmit_vjp(
    incoming: Array, obj: Array, z: int, corners: np.ndarray, g: Array, g_object: Array | None
) -> None:
    """Adjoint of `transmit`: `g` becomes that of the incoming wave, before a sum over `Mo`.

    The object's gradient, summed over the probe modes, is added into `g_object` in batch order.
    """
    if g_object is not None:
        # Without a name the product is gone before the windows need as much room.
        scatter_add(g_object[:, z], corners, _over_probe_modes(mul_conj(incoming, g)))
    windows = gather(obj[:, z], corners, g.shape[-2:])[:, None]
    np.multiply(g, np.conjugate(windows, out=windows), out=g)


def _over_probe_modes(a: Array) -> Array:
    """Sum of (B, Mp, Mo, ny, nx) over Mp; of one mode no copy."""
    return a[:, 0] if a.shape[1] == 1 else a.sum(axis=1)


def compare(
    spectrum: Array, data: Array, mask: Array, band: Band, loss: Loss, weight: float
) -> tuple[Array, Array]:
    """Loss of the far field and the gradient of its wave, which replaces `spectrum`.

    ``I = M · mean over modes |Ψ|²``; ``Ψ <- w l'(I) · 2 M / (Mp Mo) · Ψ``.

    Parameters
    ----------
    spectrum : array, (B, Mp, Mo, ny, nx), complex
        ``Ψ``.
    data : array, (B, ny, nx)
        Real, or whole numbers.
    mask : array, (ny, nx), real
        Band limit ``M``.
    band : Band
        Where ``M`` is not zero.
    loss : Loss
        ``l``.
    weight : float
        ``w``, of the gradient only.

    Returns
    -------
    value, sse : array, (B,), float64
        ``Σ l(I, D)`` and ``Σ (I - D)²``.
    """
    inner, window = _compact(spectrum, band), _compact(mask, band)
    measured = _compact(data, band).astype(window.dtype, copy=False)
    modes = spectrum.shape[1] * spectrum.shape[2]
    amplitude = None
    if modes == 1:
        amplitude = abs(inner[:, 0, 0])
        amplitude *= window  # M is 0 or 1
        intensity = amplitude * amplitude
    else:
        intensity = mean_intensity(inner)
        intensity *= window
    value, derivative = loss(intensity, measured, amplitude)
    intensity -= measured
    sse = squared_norms(intensity)
    for block in band.outside:
        # Patterns end where the band does, as a rule: then there is nothing to add.
        rest = data[block]
        if rest.any():
            rest = rest.astype(window.dtype)
            sse += squared_norms(rest)
            value += loss(np.zeros_like(rest), rest)[0]
    derivative *= window * window.dtype.type(2 * weight / modes)
    scale_wave(inner, derivative)
    for block in band.outside:
        # NumPy copies a row of zeros twice as fast as it writes a number.
        spectrum[block] = np.zeros_like(spectrum, shape=spectrum[block].shape[-1:])
    for place, source in band.inside:
        spectrum[place] = inner[source]
    return value, sse


def _compact(a: Array, band: Band) -> Array:
    """The rows and columns of `a` (..., ny, nx) that the band touches."""
    out = np.empty_like(a, shape=(*a.shape[:-2], *band.shape))
    for source, place in band.inside:
        out[place] = a[source]
    return out


def pattern_sums(a: Array) -> Array:
    """Sum over (ny, nx) per pattern in float64; rows are summed in the working precision first."""
    return a.sum(axis=-1).sum(axis=-1, dtype=np.float64)


def squared_norms(a: Array) -> Array:
    """``Σ a²`` over (ny, nx) per pattern; some rows in the working precision, then in float64."""
    count, ny, nx = a.shape
    rows = _rows_at_once(ny, nx)
    strips = a.reshape(count, ny // rows, rows * nx)
    # Dot products of BLAS take less than half the time of einsum, but warn of overflow: a step that
    # is too long may well give infinity.
    with np.errstate(over="ignore"):
        sums = strips[..., None, :] @ strips[..., None]
    return sums.sum(axis=(1, 2, 3), dtype=np.float64)


@lru_cache
def _rows_at_once(ny: int, nx: int) -> int:
    """How many rows make up at most `_AT_ONCE` numbers, a divisor of `ny`; at least one."""
    return max(k for k in range(1, ny + 1) if ny % k == 0 and k * nx <= max(nx, _AT_ONCE))


def lsq_sqrt(intensity: Array, data: Array, amplitude: Array | None = None) -> tuple[Array, Array]:
    """``Σ(√I - √D)²`` per pattern and its derivative ``(√I - √D)/√I`` (``-√D`` where I = 0).

    The `amplitude` ``√I``, from those who have it, is used up.
    """
    amplitude = np.sqrt(intensity) if amplitude is None else amplitude
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


SHIFT = 0.2
"""Counts that `ml_shifted` adds unless it is told how many."""


def ml_shifted(intensity: Array, data: Array, shift: float = SHIFT) -> tuple[Array, Array]:
    """Poisson with `shift` counts more on both sides: ``Σ I - (D + s) ln(1 + I/s)``.

    The derivative ``(I - D)/(I + s)`` vanishes in the mean at the true intensity whatever the dose,
    and is bounded where nothing is predicted (D. Snyder et al., J. Opt. Soc. Am. A 12 (1995) 272).
    """
    shift = intensity.dtype.type(shift)
    value = pattern_sums(intensity - (data + shift) * np.log1p(intensity / shift))
    derivative = intensity - data
    derivative /= intensity + shift
    return value, derivative


LOSSES = {
    "lsq_sqrt": lsq_sqrt,
    "ml": ml,
    "lsq": lsq,
    "lsq_sqrt_2": lsq_sqrt_2,
    "lsq_compressed": lsq,
    "gauss_compressed": lsq_sqrt,
    "poisson_compressed": poisson_compressed,
    "ml_shifted": ml_shifted,
}
"""Data terms by the name of the parameter ``algorithm``."""


@dataclass(frozen=True)
class Loss:
    """A data term: its value per pattern and its derivative by the intensity.

    Attributes
    ----------
    name : str
        A key of `LOSSES`.
    floor : float
        Counts below which `ml` continues along its tangent, or that `ml_shifted` adds; means
        nothing to the others.
    """

    name: str
    floor: float = 0.0

    @property
    def constant(self) -> float:
        """`floor`, or what stands in for it where there has to be one."""
        return self.floor or (SHIFT if self.name == "ml_shifted" else 0.0)

    def __call__(
        self, intensity: Array, data: Array, amplitude: Array | None = None
    ) -> tuple[Array, Array]:
        """Values (B,) and derivatives (B, ny, nx) of intensities and data (B, ny, nx).

        The `amplitude` ``√I`` may be given where it is known, and is used up.
        """
        if self.name == "ml":
            return ml(intensity, data, self.constant)
        if self.name == "ml_shifted":
            return ml_shifted(intensity, data, self.constant)
        function = LOSSES[self.name]
        if function is lsq_sqrt:
            return lsq_sqrt(intensity, data, amplitude)
        return function(intensity, data)
