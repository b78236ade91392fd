"""From exit waves to the intensities that are compared with data.

Far field: ``D = M · F[W]`` without a factor, ``I = mean over modes |D|²``; then cropping, summing
u × u pixels, and the static background ``b² · M``.  Zero frequency stays in the corner of the
model *and* of the data grid: only cropping and binning look at centred order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pyptyx.backend import Backend
from pyptyx.physics.grid import Grid
from pyptyx.physics.kernels import reference as kernels

Array = Any


@dataclass(frozen=True)
class DetectorGeometry:
    """How model pixels become data pixels.

    Attributes
    ----------
    crop : tuple of int
        Pixels cut from each side of the model pattern, (y, x).
    upsample : int
        Model pixels per data pixel along each axis.
    """

    crop: tuple[int, int] = (0, 0)
    upsample: int = 1

    @property
    def trivial(self) -> bool:
        """Whether model and data pixels are the same."""
        return self.crop == (0, 0) and self.upsample == 1

    def data_shape(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Shape of the data grid for a model grid of `shape`."""
        y, x = ((n - 2 * c) // self.upsample for n, c in zip(shape, self.crop, strict=True))
        return y, x


def collect(intensity: Array, geometry: DetectorGeometry) -> Array:
    """Crop and sum an intensity (B, ny, nx) onto the data grid, corner order in and out."""
    if geometry.trivial:
        return intensity
    u, (cy, cx) = geometry.upsample, geometry.crop
    a = np.fft.fftshift(intensity, axes=(-2, -1))
    a = a[..., cy : a.shape[-2] - cy, cx : a.shape[-1] - cx]
    a = a.reshape(*a.shape[:-2], a.shape[-2] // u, u, a.shape[-1] // u, u).sum(axis=(-3, -1))
    return np.fft.ifftshift(a, axes=(-2, -1))


def collect_vjp(g: Array, geometry: DetectorGeometry, shape: tuple[int, int]) -> Array:
    """Adjoint of `collect`: repeat and zero-pad back to `shape`."""
    if geometry.trivial:
        return g
    u, (cy, cx) = geometry.upsample, geometry.crop
    a = np.fft.fftshift(g, axes=(-2, -1))
    a = a.repeat(u, axis=-2).repeat(u, axis=-1)
    out = np.empty_like(a, shape=(*a.shape[:-2], *shape))
    out[...] = 0
    out[..., cy : shape[0] - cy, cx : shape[1] - cx] = a
    return np.fft.ifftshift(out, axes=(-2, -1))


class FarField:
    """Constants of the far-field detector on one device."""

    def __init__(
        self, grid: Grid, geometry: DetectorGeometry, backend: Backend, dtype: Any
    ) -> None:
        self._grid = grid
        self._geometry = geometry
        self._backend = backend
        real = np.empty(0, dtype).real.dtype
        self._mask = backend.asarray(grid.mask.astype(real))
        fraction = collect(grid.mask[None].astype(np.float64), geometry)[0] / geometry.upsample**2
        self._data_mask = backend.asarray(fraction.astype(real))

    def forward(self, exit_wave: Array) -> tuple[Array, Array]:
        """Model intensity (B, ny, nx) of exit waves (B, Mp, Mo, ny, nx), which are overwritten."""
        wave = self._backend.fft2(exit_wave, overwrite=True)
        intensity = kernels.mean_intensity(wave)
        intensity *= self._mask
        return intensity, wave

    def vjp(self, saved: Array, g: Array) -> Array:
        """Gradient of the exit wave for ``g = dL/dI`` on the model grid; overwrites its input."""
        wave = saved
        # I = M/(Mp Mo) Σ|F W|²  =>  dL/dW = Fᴴ[ 2 g M/(Mp Mo) F W ]
        g *= self._mask * self._mask.dtype.type(2 / (wave.shape[1] * wave.shape[2]))
        wave = kernels.scale_wave(wave, g)
        return self._backend.fft2_adjoint(wave, overwrite=True)

    def to_data(self, intensity: Array, background: Array | None) -> Array:
        """Intensity on the data grid with the background ``b² M`` added; b (ky, kx) is its root."""
        out = collect(intensity, self._geometry)
        if background is not None:
            out = out + background * background * self._data_mask
        return out

    def to_data_vjp(
        self, g: Array, background: Array | None, wants_background: bool
    ) -> tuple[Array, Array | None]:
        """Gradients on the model grid (B, ny, nx) and of the background root (ky, kx)."""
        g_background = None
        if wants_background and background is not None:
            g_background = g.sum(axis=0) * (2 * background * self._data_mask)
        return collect_vjp(g, self._geometry, self._grid.shape), g_background
