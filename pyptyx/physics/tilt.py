"""Tilts before, inside and after the specimen.

Slopes ``τ`` are tangents (about radians).  Before and after the specimen a tilt multiplies the
wave by ``T = exp(i 2π/λ (X τ_x + Y τ_y))`` with the origin at pixel n//2: a positive slope moves
the far field towards +q by τ/λ.  Inside, it turns the propagator: ``exp(-i 2π d (q_x τ_x + q_y
τ_y))`` moves the wave by ``+d τ`` per gap (see `multislice`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pyptyx.backend import Backend
from pyptyx.physics.grid import Grid
from pyptyx.physics.kernels import reference as kernels

Array = Any

BEFORE, INSIDE, AFTER = slice(0, 2), slice(2, 4), slice(4, 6)
"""Columns (y, x) of a tilt row."""


@dataclass(frozen=True)
class TiltPlan:
    """Which of the three tilts enter the model."""

    before: bool = False
    inside: bool = False
    after: bool = False

    @classmethod
    def from_mode(cls, mode: int) -> TiltPlan:
        """PyPty's ``tilt_mode``: 0 inside, 1 after, 2 before, 3 inside and after, 4 all three."""
        return cls(before=mode in (2, 4), inside=mode in (0, 3, 4), after=mode in (1, 3, 4))


class Separable:
    """Factor ``exp(i (a_y v_y + a_x v_x))`` for per-pattern vectors v, and its gradient.

    Sub-pixel shifts, tilt ramps and tilted propagators all have this form: `a_y` (ny,) and `a_x`
    (nx,) are radians per unit of v.
    """

    def __init__(self, a_y: np.ndarray, a_x: np.ndarray, backend: Backend, dtype: Any) -> None:
        self._a_y = np.asarray(a_y, np.float64)
        self._a_x = np.asarray(a_x, np.float64)
        self._backend = backend
        self._dtype = dtype

    def factors(self, v: np.ndarray) -> tuple[Array, Array]:
        """``exp(i a_y v_y)`` (B, ny) and ``exp(i a_x v_x)`` (B, nx) for rows v (B, 2)."""
        e_y = np.exp(1j * v[:, :1] * self._a_y).astype(self._dtype)
        e_x = np.exp(1j * v[:, 1:] * self._a_x).astype(self._dtype)
        return self._backend.asarray(e_y), self._backend.asarray(e_x)

    def factor(self, v: np.ndarray) -> Array:
        """Factors (B, ny, nx) for rows v (B, 2); phases are formed in float64 on the host."""
        e_y, e_x = self.factors(v)
        return e_y[:, :, None] * e_x[:, None, :]

    def gradient(self, rows: Array, columns: Array) -> np.ndarray:
        """``dL/dv`` (B, 2) from the marginals of ``Im(conj(out) · g)``, `out` the factored wave."""
        # dL = Re<g, i a out dv> = a Im(conj(out) g) dv
        host = self._backend.to_host
        return np.stack([host(rows) @ self._a_y, host(columns) @ self._a_x], axis=1)


def ramp_factor(grid: Grid, backend: Backend, dtype: Any) -> Separable:
    """The ramp T of tilts before and after the specimen."""
    k = 2 * np.pi / grid.wavelength_A
    return Separable(k * grid.y_A, k * grid.x_A, backend, dtype)


def ramp(wave: Array, factor: Array) -> tuple[Array, tuple[Array, Array]]:
    """``wave · T`` for a wave (B, ..., ny, nx) and factors (B, ny, nx)."""
    factor = factor.reshape(factor.shape[0], *(1,) * (wave.ndim - 3), *factor.shape[1:])
    out = wave * factor
    return out, (out, factor)


def ramp_vjp(
    saved: tuple[Array, Array], g: Array, separable: Separable | None
) -> tuple[Array, Any]:
    """Gradient of the wave, and of the tilt (B, 2) if `separable` is given."""
    out, factor = saved
    g_tilt = None if separable is None else separable.gradient(*kernels.imag_marginals(out, g))
    return kernels.mul_conj(factor, g), g_tilt
