"""Transmission through the slices and propagation between them.

``W₀ = ψ``; for z = 0 … Nz-1: ``W ← W · O_z`` (every probe mode with every object mode) and,
between slices, ``W ← F⁻¹[p_z F W]`` with ``p_z = exp(-iπ d_z (λ q² + 2 (q_y τ_y + q_x τ_x))) ·
M``.  The wave behind the last slice is not propagated.  Axes of the wave: (B, Mp, Mo, ny, nx).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from pyptyx.backend import Backend
from pyptyx.physics import kernels
from pyptyx.physics.grid import Grid
from pyptyx.physics.tilt import Separable
from pyptyx.physics.wave_storage import Halved, Segments, Stored, Waves

Array = Any


def fresnel_propagator(grid: Grid, distance_A: float) -> np.ndarray:
    """``exp(-iπ λ d q²) · M`` (ny, nx) complex128; d > 0 propagates along the beam."""
    return np.exp(-1j * np.pi * grid.wavelength_A * distance_A * grid.q2) * grid.mask


@dataclass
class _Saved:
    obj: Array
    corners: np.ndarray
    factors: list[Array]
    incoming: Waves = field(default_factory=Stored)


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
    wave_storage : {"store", "recompute", "half"}
        How waves are remembered for the adjoint (see `pyptyx.physics.wave_storage`).
    """

    def __init__(
        self,
        grid: Grid,
        distances_A: Any,
        backend: Backend,
        dtype: Any,
        wave_storage: str = "store",
    ) -> None:
        self._grid = grid
        self._wave_storage = wave_storage
        self._backend = backend
        self._kernels = kernels.select(backend)
        self._separable: dict[float, Separable] = {}
        self._propagators: dict[float, Array] = {}
        self._distances = [float(d) for d in distances_A]
        for d in set(self._distances):
            # 1/N belongs to the inverse transform, which leaves it out.
            factor = fresnel_propagator(grid, d) / grid.size
            self._propagators[d] = backend.asarray(factor.astype(dtype))
            ramp = -2 * np.pi * d
            self._separable[d] = Separable(ramp * grid.q_y, ramp * grid.q_x, backend, dtype)

    def forward(
        self, wave: Array, obj: Array, corners: np.ndarray, tilt: np.ndarray | None
    ) -> tuple[Array, _Saved]:
        """Exit waves of a batch.

        Parameters
        ----------
        wave : array, (B or 1, Mp, ny, nx)
        obj : array, (Mo, Nz, Y, X)
        corners : ndarray of int, (B, 2)
            Top-left corners of the windows.
        tilt : ndarray, (B, 2), or None
            Slopes inside the specimen; None means untilted propagation.

        Returns
        -------
        exit_wave : array, (B, Mp, Mo, ny, nx)
        saved
            For `vjp`.
        """
        factors = {d: self._propagator(d, tilt) for d in set(self._distances)}
        saved = _Saved(obj, corners, [factors[d] for d in self._distances])
        saved.incoming = self._waves(obj.shape[1])
        last = obj.shape[1] - 1
        incoming = wave[:, :, None]
        for z in range(last):
            saved.incoming.put(z, incoming)
            incoming = self._advance(saved, z, incoming)
        saved.incoming.put(last, incoming)
        return self._kernels.transmit(incoming, obj, last, corners), saved

    def vjp(
        self, saved: _Saved, g: Array, g_object: Array | None, wants_tilt: bool
    ) -> tuple[Array, np.ndarray | None]:
        """Adjoint of `forward` for the gradient `g` of the exit wave, which is used up.

        The object's gradient is added into `g_object`, if given.

        Returns
        -------
        g_wave : array, (B, Mp, ny, nx)
        g_tilt : ndarray, (B, 2), or None
        """
        g_tilt = np.zeros((len(saved.corners), 2)) if wants_tilt else None
        band = self._grid.band
        for z in reversed(range(saved.obj.shape[1])):
            incoming = saved.incoming.get(z, partial(self._advance, saved))
            self._kernels.transmit_vjp(incoming, saved.obj, z, saved.corners, g, g_object)
            if z == 0:
                break
            spectrum = self._backend.fft2(g, overwrite=True, band=band)
            if g_tilt is not None:
                marginals = self._kernels.imag_marginals(
                    self._backend.fft2(incoming) / self._grid.size, spectrum
                )
                g_tilt += self._separable[self._distances[z - 1]].gradient(*marginals)
            spectrum *= saved.factors[z - 1].conj()
            g = self._backend.fft2_adjoint(spectrum, overwrite=True, band=band)
        return (g[:, :, 0] if g.shape[2] == 1 else g.sum(axis=2)), g_tilt

    def _advance(self, saved: _Saved, z: int, incoming: Array) -> Array:
        """The wave in front of slice z + 1 from that in front of slice z."""
        out = self._kernels.transmit(incoming, saved.obj, z, saved.corners)
        spectrum = self._backend.fft2(out, overwrite=True, band=self._grid.band)
        spectrum *= saved.factors[z]
        return self._backend.fft2_adjoint(spectrum, overwrite=True, band=self._grid.band)

    def _waves(self, slices: int) -> Waves:
        if self._wave_storage == "recompute":
            return Segments(slices)
        return Halved(self._backend) if self._wave_storage == "half" else Stored()

    def _propagator(self, d: float, tilt: np.ndarray | None) -> Array:
        """Propagator over N, broadcastable to (B, Mp, Mo, ny, nx)."""
        base = self._propagators[d]
        if tilt is None:
            return base[None, None, None]
        return (base * self._separable[d].factor(tilt))[:, None, None]
