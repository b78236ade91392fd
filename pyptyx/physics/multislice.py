"""Transmission through the slices and propagation between them.

``W₀ = ψ``; for z = 0 … Nz-1: ``W ← W · O_z`` (every probe mode with every object mode) and,
between slices, ``W ← F⁻¹[p_z F W]`` with ``p_z = exp(-iπ d_z (λ q² + 2 (q_y τ_y + q_x τ_x))) ·
M``.  The wave behind the last slice is not propagated.  Axes of the wave: (B, Mp, Mo, ny, nx).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pyptyx.backend import Backend
from pyptyx.physics.grid import Grid
from pyptyx.physics.kernels import reference as kernels
from pyptyx.physics.tilt import Separable

Array = Any


def fresnel_propagator(grid: Grid, distance_A: float) -> np.ndarray:
    """``exp(-iπ λ d q²) · M`` (ny, nx) complex128; d > 0 propagates along the beam."""
    return np.exp(-1j * np.pi * grid.wavelength_A * distance_A * grid.q2) * grid.mask


@dataclass
class _Saved:
    incoming: list[Array]
    patches: Array
    factors: list[Array]


class Multislice:
    """Constants of the multislice stage on one device.

    Parameters
    ----------
    grid : Grid
    distances_A : sequence of float
        The Nz - 1 gaps in Å.
    backend : Backend
    dtype : dtype
        Complex working type.
    """

    def __init__(self, grid: Grid, distances_A: Any, backend: Backend, dtype: Any) -> None:
        self._grid = grid
        self._backend = backend
        self._separable: dict[float, Separable] = {}
        self._propagators: dict[float, Array] = {}
        self._distances = [float(d) for d in distances_A]
        for d in set(self._distances):
            self._propagators[d] = backend.asarray(fresnel_propagator(grid, d).astype(dtype))
            ramp = -2 * np.pi * d
            self._separable[d] = Separable(ramp * grid.q_y, ramp * grid.q_x, backend, dtype)

    def forward(self, wave: Array, patches: Array, tilt: np.ndarray | None) -> tuple[Array, _Saved]:
        """Exit waves of a batch.

        Parameters
        ----------
        wave : array, (B or 1, Mp, ny, nx)
        patches : array, (B, Mo, Nz, ny, nx)
        tilt : ndarray, (B, 2), or None
            Slopes inside the specimen; None means untilted propagation.

        Returns
        -------
        exit_wave : array, (B, Mp, Mo, ny, nx)
        saved
            For `vjp`.
        """
        incoming = wave[:, :, None]
        saved = _Saved([incoming], patches, [])
        factors = {d: self._propagator(d, tilt) for d in set(self._distances)}
        out = incoming * patches[:, None, :, 0]
        for z in range(1, patches.shape[2]):
            factor = factors[self._distances[z - 1]]
            spectrum = self._backend.fft2(out, overwrite=True)
            spectrum *= factor
            incoming = self._backend.ifft2(spectrum, overwrite=True)
            saved.incoming.append(incoming)
            saved.factors.append(factor)
            out = incoming * patches[:, None, :, z]
        return out, saved

    def vjp(
        self, saved: _Saved, g: Array, wants_object: bool, wants_tilt: bool
    ) -> tuple[Array, Array | None, np.ndarray | None]:
        """Adjoint of `forward` for the gradient `g` of the exit wave.

        Returns
        -------
        g_wave : array, (B, Mp, ny, nx)
        g_patches : array, (B, Mo, Nz, ny, nx), or None
        g_tilt : ndarray, (B, 2), or None
        """
        patches = saved.patches
        g_patches = np.empty_like(patches) if wants_object else None
        g_tilt = np.zeros((patches.shape[0], 2)) if wants_tilt else None
        for z in reversed(range(patches.shape[2])):
            incoming = saved.incoming[z]
            if g_patches is not None:
                if g.shape[1] == 1:
                    kernels.mul_conj(incoming[:, 0], g[:, 0], out=g_patches[:, :, z])
                else:
                    kernels.mul_conj(incoming, g).sum(axis=1, out=g_patches[:, :, z])
            g = kernels.mul_conj(patches[:, None, :, z], g)
            if z == 0:
                break
            spectrum = self._backend.fft2(g)
            if g_tilt is not None:
                v = kernels.imag_inner(self._backend.fft2(incoming), spectrum) / self._grid.size
                g_tilt += self._separable[self._distances[z - 1]].gradient(v)
            g = self._backend.ifft2(
                kernels.mul_conj(saved.factors[z - 1], spectrum), overwrite=True
            )
        return (g[:, :, 0] if g.shape[2] == 1 else g.sum(axis=2)), g_patches, g_tilt

    def _propagator(self, d: float, tilt: np.ndarray | None) -> Array:
        """Propagator broadcastable to (B, Mp, Mo, ny, nx)."""
        base = self._propagators[d]
        if tilt is None:
            return base[None, None, None]
        return (base * self._separable[d].factor(tilt))[:, None, None]
