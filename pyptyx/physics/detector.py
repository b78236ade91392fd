"""From exit waves to the intensities that are compared with data.

Far field: ``D = M · F[W]`` without a factor.  Near field: ``D = F⁻¹[H · F[W]]`` with the transfer
function of the imaging lens.  Then ``I = mean over modes |D|²``, cropping, summing u × u pixels,
and the static background (``b² · M`` in the far field, ``b²`` in the near field).  In the far
field zero frequency stays in the corner of the model *and* of the data grid: only cropping and
binning look at centred order.  An image of the near field has no such corner and lies as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any, Protocol

import numpy as np

from pyptyx.backend import Backend
from pyptyx.physics.grid import Grid
from pyptyx.physics.kernels import reference as kernels
from pyptyx.physics.kernels import select
from pyptyx.physics.tilt import Separable

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
    corner : bool
        Whether the zero frequency lies in the corner of both grids (far field), or the grids are
        images in their natural order (near field).
    """

    crop: tuple[int, int] = (0, 0)
    upsample: int = 1
    corner: bool = True

    @property
    def trivial(self) -> bool:
        """Whether model and data pixels are the same."""
        return self.crop == (0, 0) and self.upsample == 1

    def data_shape(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Shape of the data grid for a model grid of `shape`."""
        y, x = ((n - 2 * c) // self.upsample for n, c in zip(shape, self.crop, strict=True))
        return y, x

    def joins_neighbours(self, shape: tuple[int, ...]) -> bool:
        """Whether the pixels that are summed are neighbours in the order of the detector, too.

        Otherwise a sum reaches over the edge of a model pattern of `shape`.
        """
        whole = self.crop == (0, 0) and all(n // 2 % self.upsample == 0 for n in shape)
        return whole or not self.corner

    def to_public(self, a: Array) -> Array:
        """Arrays (..., y, x) of this detector in the public order, far field centred."""
        return np.fft.fftshift(a, axes=(-2, -1)) if self.corner else a

    def from_public(self, a: Array) -> Array:
        """Inverse of `to_public`, and its adjoint."""
        return np.fft.ifftshift(a, axes=(-2, -1)) if self.corner else a


def collect(intensity: Array, geometry: DetectorGeometry) -> Array:
    """Crop and sum an intensity (B, ny, nx) onto the data grid, in the detector's order."""
    if geometry.trivial:
        return intensity
    u, (cy, cx), shape = geometry.upsample, geometry.crop, intensity.shape[-2:]
    stays = geometry.joins_neighbours(shape)
    a = intensity if stays else geometry.to_public(intensity)
    a = a[..., cy : shape[0] - cy, cx : shape[1] - cx]
    # Every u-th row, then every u-th column: NumPy takes many times as long for sums of so few.
    a = reduce(np.add, [a[..., first::u, :] for first in range(u)])
    a = reduce(np.add, [a[..., first::u] for first in range(u)])
    return a if stays else geometry.from_public(a)


def collect_vjp(g: Array, geometry: DetectorGeometry, shape: tuple[int, int]) -> Array:
    """Adjoint of `collect`: repeat and zero-pad back to `shape`."""
    if geometry.trivial:
        return g
    u, (cy, cx) = geometry.upsample, geometry.crop
    stays = geometry.joins_neighbours(shape)
    a = g if stays else geometry.to_public(g)
    wide = np.empty_like(a, shape=(*a.shape[:-1], a.shape[-1] * u))
    out = np.empty_like(a, shape=(*a.shape[:-2], *shape))
    if geometry.crop != (0, 0):
        out[...] = 0
    inside = out[..., cy : shape[0] - cy, cx : shape[1] - cx]
    for first in range(u):
        wide[..., first::u] = a
    for first in range(u):
        inside[..., first::u, :] = wide
    return out if stays else geometry.from_public(out)


class Detector(Protocol):
    """What the model needs from a detector plane."""

    def forward(
        self, exit_wave: Array, rows: np.ndarray | None = None, tilt: np.ndarray | None = None
    ) -> tuple[Array, Any]:
        """Model intensity (B, ny, nx) of exit waves (B, Mp, Mo, ny, nx), which are overwritten.

        `rows` (B,) are the numbers of the measurements, `tilt` (B, 2) their slopes inside.
        """
        ...

    def vjp(
        self, saved: Any, g: Array, wants_tilt: bool = False
    ) -> tuple[Array, np.ndarray | None]:
        """Gradients of the exit wave and of the tilt for ``g = dL/dI``; both inputs are used up."""
        ...

    def to_data(self, intensity: Array, background: Array | None) -> Array:
        """Intensity on the data grid with the background, whose root b is (ky, kx)."""
        ...

    def to_data_vjp(
        self, g: Array, background: Array | None, wants_background: bool
    ) -> tuple[Array, Array | None]:
        """Gradients on the model grid (B, ny, nx) and of the background root (ky, kx)."""
        ...


class _DataGrid:
    """From the model's pixels to those of the data, and the background ``b² m``."""

    def __init__(
        self, shape: tuple[int, int], geometry: DetectorGeometry, background_mask: Any
    ) -> None:
        self._shape = shape
        self._geometry = geometry
        self._background_mask = background_mask

    def to_data(self, intensity: Array, background: Array | None) -> Array:
        """See `Detector`."""
        out = collect(intensity, self._geometry)
        if background is not None:
            out = out + background * background * self._background_mask
        return out

    def to_data_vjp(
        self, g: Array, background: Array | None, wants_background: bool
    ) -> tuple[Array, Array | None]:
        """See `Detector`."""
        g_background = None
        if wants_background and background is not None:
            g_background = g.sum(axis=0) * (2 * background * self._background_mask)
        return collect_vjp(g, self._geometry, self._shape), g_background


class FarField(_DataGrid):
    """Constants of the far-field detector on one device."""

    def __init__(
        self, grid: Grid, geometry: DetectorGeometry, backend: Backend, dtype: Any
    ) -> None:
        self._backend = backend
        self._kernels = select(backend)
        real = np.empty(0, dtype).real.dtype
        self._mask = backend.asarray(grid.mask.astype(real))
        self._band = grid.band
        fraction = collect(grid.mask[None].astype(np.float64), geometry)[0] / geometry.upsample**2
        super().__init__(grid.shape, geometry, backend.asarray(fraction.astype(real)))

    def forward(
        self, exit_wave: Array, rows: np.ndarray | None = None, tilt: np.ndarray | None = None
    ) -> tuple[Array, Array]:
        """See `Detector`; all measurements are alike here."""
        del rows, tilt
        wave = self._backend.fft2(exit_wave, overwrite=True, band=self._band)
        intensity = kernels.mean_intensity(wave)
        intensity *= self._mask
        return intensity, wave

    def vjp(self, saved: Array, g: Array, wants_tilt: bool = False) -> tuple[Array, None]:
        """See `Detector`; the tilt inside has no part in this plane."""
        del wants_tilt
        wave = saved
        # I = M/(Mp Mo) Σ|F W|²  =>  dL/dW = Fᴴ[ 2 g M/(Mp Mo) F W ]
        g *= self._mask * self._mask.dtype.type(2 / (wave.shape[1] * wave.shape[2]))
        wave = kernels.scale_wave(wave, g)
        return self._backend.fft2_adjoint(wave, overwrite=True, band=self._band), None

    def compare(
        self, exit_wave: Array, data: Array, loss: kernels.Loss, weight: float
    ) -> tuple[Array, Array, Array]:
        """`forward`, loss and `vjp` in one, for data on the model's own pixels.

        Returns
        -------
        value, sse : array, (B,), float64
        g : array, (B, Mp, Mo, ny, nx)
            Gradient of `weight` times the loss by the exit wave, which is overwritten.
        """
        wave = self._backend.fft2(exit_wave, overwrite=True, band=self._band)
        value, sse = self._kernels.compare(wave, data, self._mask, self._band, loss, weight)
        return value, sse, self._backend.fft2_adjoint(wave, overwrite=True, band=self._band)


@dataclass(frozen=True)
class NearFieldOptics:
    """The lens between the specimen and a detector in the near field.

    Attributes
    ----------
    defocus_A : tuple of float
        Distance Δ in Å over which the exit wave is propagated: one for all, or one per measurement.
    Cs_A : float
        Spherical aberration in Å.
    divergence_rad : float
        Divergence α of the illumination; 0 is perfect spatial coherence.
    """

    defocus_A: tuple[float, ...] = (0.0,)
    Cs_A: float = 0.0
    divergence_rad: float = 0.0


@dataclass
class _SavedImage:
    wave: Array
    transfer: Array
    defocus_A: np.ndarray
    envelope: Array | None
    lit: Array | None


class NearField(_DataGrid):
    """Constants of the near-field detector on one device.

    ``D = F⁻¹[H · F[W]]`` with ``H = M · exp(-iπ[(λ q² + 2 (q_y τ_y + q_x τ_x)) Δ_t + ½ C_s λ³
    q⁴])``, τ the tilt inside the specimen.  A divergence α > 0 blurs the intensity, ``I ← Re
    F⁻¹[exp(-q² (π α Δ_t)²) · F[I]]``, which keeps the counts.
    """

    def __init__(
        self,
        grid: Grid,
        optics: NearFieldOptics,
        geometry: DetectorGeometry,
        backend: Backend,
        dtype: Any,
    ) -> None:
        super().__init__(grid.shape, geometry, 1)
        self._grid = grid
        self._optics = optics
        self._backend = backend
        self._dtype = np.dtype(dtype)
        half = -np.pi / 2 * optics.Cs_A * grid.wavelength_A**3
        self._lens = backend.asarray((np.exp(1j * half * grid.q2**2) * grid.mask).astype(dtype))
        fresnel = -np.pi * grid.wavelength_A
        self._focus = Separable(fresnel * grid.q_y**2, fresnel * grid.q_x**2, backend, dtype)
        self._tilt = Separable(-2 * np.pi * grid.q_y, -2 * np.pi * grid.q_x, backend, dtype)
        self._common: tuple[Array, Array | None] | None = None
        if len(optics.defocus_A) == 1:
            defocus = np.array(optics.defocus_A)
            self._common = self._transfer(defocus), self._envelope(defocus)

    def forward(
        self, exit_wave: Array, rows: np.ndarray | None = None, tilt: np.ndarray | None = None
    ) -> tuple[Array, _SavedImage]:
        """See `Detector`."""
        count = exit_wave.shape[0]
        if self._common is not None:
            defocus = np.repeat(self._optics.defocus_A, count)
            transfer, envelope = self._common
        else:
            defocus = np.asarray(self._optics.defocus_A)[rows]
            transfer, envelope = self._transfer(defocus), self._envelope(defocus)
        if tilt is not None:
            transfer = transfer * self._tilt.factor(defocus[:, None] * tilt)
        transfer = transfer[:, None, None]
        wave = self._backend.fft2(exit_wave, overwrite=True)
        wave *= transfer
        wave = self._backend.ifft2(wave, overwrite=True)
        intensity, lit = kernels.mean_intensity(wave), None
        if envelope is not None:
            intensity = self._blur(intensity, envelope)
            # The band limit makes the blur ring: counts below zero are none.
            lit = intensity > 0
            intensity *= lit
        return intensity, _SavedImage(wave, transfer, defocus, envelope, lit)

    def vjp(
        self, saved: _SavedImage, g: Array, wants_tilt: bool = False
    ) -> tuple[Array, np.ndarray | None]:
        """See `Detector`."""
        wave, g_tilt = saved.wave, None
        if saved.envelope is not None:
            g *= saved.lit
            g = self._blur(g, saved.envelope)
        g *= g.dtype.type(2 / (wave.shape[1] * wave.shape[2]))
        image: Any = self._backend.fft2(wave) if wants_tilt else None
        spectrum = self._backend.fft2(kernels.scale_wave(wave, g), overwrite=True)
        if wants_tilt:
            # The slope enters as the shift Δ τ of the image.
            rows, columns = kernels.imag_marginals(image / self._grid.size, spectrum)
            g_tilt = self._tilt.gradient(rows, columns) * saved.defocus_A[:, None]
        spectrum = kernels.mul_conj(saved.transfer, spectrum)
        return self._backend.ifft2(spectrum, overwrite=True), g_tilt

    def _transfer(self, defocus_A: np.ndarray) -> Array:
        """``H`` without tilt, (B, ny, nx)."""
        return self._lens * self._focus.factor(np.stack([defocus_A, defocus_A], axis=1))

    def _envelope(self, defocus_A: np.ndarray) -> Array | None:
        """``exp(-q² (π α Δ)²)``, (B, ny, nx), or None without divergence."""
        if not self._optics.divergence_rad:
            return None
        width = (np.pi * self._optics.divergence_rad * defocus_A) ** 2
        envelope = np.exp(-width[:, None, None] * self._grid.q2)
        return self._backend.asarray(envelope.astype(self._dtype.type().real.dtype))

    def _blur(self, a: Array, envelope: Array) -> Array:
        """``Re F⁻¹[envelope F[a]]`` of real a (B, ny, nx); its own adjoint."""
        # Of complex numbers, for which there are compiled transforms.
        spectrum = self._backend.fft2(a.astype(self._dtype), overwrite=True)
        spectrum *= envelope
        return self._backend.ifft2(spectrum, overwrite=True).real.copy()
