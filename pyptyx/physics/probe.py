"""The probe on its way: scenario, current, phase plate, local aberrations, tilt, shift.

All of these but the tilt multiply the probe spectrum, so the spectrum is computed once per
evaluation and every pattern costs one inverse FFT per mode:

``ψ_t = |c_t| F⁻¹[ S_t · M · F[ T_t · F⁻¹[ A_t · M · H_t · F p ] ] ]``

Without a tilt before the specimen the two transforms in the middle vanish.  Shift
``S = exp(-2πi (f_y δ_y + f_x δ_x))`` moves the probe to larger indices for δ > 0; aberrations
``A = exp(-i Σ_j C_j B_j)`` with the basis of `optics`; the band limit M enters with S and with A.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pyptyx.backend import Backend
from pyptyx.physics.grid import Grid
from pyptyx.physics.kernels import reference as kernels
from pyptyx.physics.tilt import Separable, ramp, ramp_factor, ramp_vjp

Array = Any


@dataclass
class Illumination:
    """Per-pattern settings of one batch; None means the element is absent.

    Attributes
    ----------
    scenario : ndarray of int, (B,), or None
        Row of the probe's first axis; None means row 0 for all.
    current : ndarray, (B,), or None
        Amplitude factors.
    plate : array, (B or 1, ny, nx), or None
        Complex factors on the spectrum, zero frequency in the corner.
    aberrations : ndarray, (B, Nab), or None
        Coefficients in Å.
    tilt : ndarray, (B, 2), or None
        Slopes before the specimen.
    shift : ndarray, (B, 2), or None
        Fractions of a pixel.
    """

    scenario: np.ndarray | None = None
    current: np.ndarray | None = None
    plate: Array | None = None
    aberrations: np.ndarray | None = None
    tilt: np.ndarray | None = None
    shift: np.ndarray | None = None


@dataclass
class _Saved:
    """What the adjoint needs."""

    spectral_factor: Array = None
    spectrum: Array = None
    ramped: Any = None
    shift_factor: Array = None
    shifted: Array = None
    unscaled: Array = None
    illumination: Illumination = field(default_factory=Illumination)


class ProbeStage:
    """Constants of the probe stage on one device.

    Parameters
    ----------
    grid : Grid
    basis : ndarray, (Nab, ny, nx), or None
        Aberration phases in rad per Å.
    backend : Backend
    dtype : dtype
        Complex working type.
    """

    def __init__(self, grid: Grid, basis: np.ndarray | None, backend: Backend, dtype: Any) -> None:
        self._grid = grid
        self._backend = backend
        self._dtype = np.dtype(dtype)
        real = np.empty(0, dtype).real.dtype
        self._mask = backend.asarray(grid.mask.astype(real))
        self._basis: Any = None if basis is None else np.asarray(basis, np.float64)
        self._shift = Separable(-2 * np.pi * grid.f_y, -2 * np.pi * grid.f_x, backend, dtype)
        self._ramp = ramp_factor(grid, backend, dtype)

    def forward(
        self, probe: Array, spectrum: Array | None, light: Illumination
    ) -> tuple[Array, _Saved]:
        """Illuminate a batch.

        Parameters
        ----------
        probe : array, (Ns, Mp, ny, nx)
        spectrum : array, (Ns, Mp, ny, nx), or None
            ``F[probe]``, needed when a plate, aberrations or a shift is present.
        light : Illumination

        Returns
        -------
        wave : array, (B, Mp, ny, nx), or (1, Mp, ny, nx) when all patterns share it
        saved
            For `vjp`.
        """
        saved = _Saved(illumination=light)
        factor, masked = self._plate_and_aberrations(light)
        if light.shift is not None and light.tilt is None:
            shift = self._shift.factor(light.shift)
            factor = shift if factor is None else factor * shift
            masked = True
        if factor is None:
            wave = self._select(probe, light.scenario)
        else:
            saved.spectral_factor = factor[:, None]
            spec = self._select(spectrum, light.scenario) * saved.spectral_factor
            if masked:
                spec *= self._mask
            saved.spectrum = spec
            wave = self._backend.ifft2(spec)
        if light.tilt is not None:
            wave, saved.ramped = ramp(wave, self._ramp.factor(light.tilt))
            if light.shift is not None:
                saved.shift_factor = self._shift.factor(light.shift)[:, None] * self._mask
                saved.shifted = self._backend.fft2(wave) * saved.shift_factor
                wave = self._backend.ifft2(saved.shifted)
        if light.current is not None:
            saved.unscaled = wave
            wave = wave * self._real(np.abs(light.current))[:, None, None, None]
        return wave, saved

    def vjp(
        self, saved: _Saved, g: Array, g_probe: Array, wanted: set[str]
    ) -> dict[str, np.ndarray]:
        """Adjoint of `forward`.

        Parameters
        ----------
        saved
            From `forward`.
        g : array, (B, Mp, ny, nx)
            Gradient of the loss with respect to the illuminating waves.
        g_probe : array, (Ns, Mp, ny, nx), or None
            Accumulator: of the probe, or of its *spectrum* if `uses_spectrum` (``F`` of the
            gradient).
        wanted : set of str
            Which of ``current, aberrations, tilt, shift`` are needed.

        Returns
        -------
        dict
            Per-pattern gradients: current (B,), aberrations (B, Nab), tilt (B, 2), shift (B, 2).
        """
        light = saved.illumination
        grads: dict[str, np.ndarray] = {}
        if light.current is not None:
            if "current" in wanted:
                overlap = (saved.unscaled.real * g.real + saved.unscaled.imag * g.imag).sum(axis=1)
                grads["current"] = np.sign(light.current) * self._host(
                    kernels.pattern_sums(overlap)
                )
            g = g * self._real(np.abs(light.current))[:, None, None, None]
        if light.tilt is not None:
            g = self._tilt_vjp(saved, g, wanted, grads)
        if saved.spectral_factor is None:
            self._accumulate(g_probe, light.scenario, g)
            return grads
        spectrum = self._backend.fft2(g)
        if wanted & {"aberrations", "shift"}:
            v = kernels.imag_inner(saved.spectrum, spectrum) / self._grid.size
            if "shift" in wanted and light.tilt is None and light.shift is not None:
                grads["shift"] = self._shift.gradient(v)
            if "aberrations" in wanted and light.aberrations is not None:
                # The factor is exp(-i C B): the same V with -B in place of the ramp.
                flat = self._host(v).reshape(len(v), -1).astype(np.float64)
                grads["aberrations"] = -flat @ self._basis.reshape(len(self._basis), -1).T
        if g_probe is not None:
            spectrum = kernels.mul_conj(saved.spectral_factor, spectrum)
            if light.aberrations is not None or (light.shift is not None and light.tilt is None):
                spectrum *= self._mask
            self._accumulate(g_probe, light.scenario, spectrum)
        return grads

    @staticmethod
    def uses_spectrum(plate: bool, aberrations: bool, tilt: bool, shift: bool) -> bool:
        """Whether the probe enters through its spectrum (and its gradient is accumulated there)."""
        return plate or aberrations or (shift and not tilt)

    def _plate_and_aberrations(self, light: Illumination) -> tuple[Array | None, bool]:
        factor = None if light.plate is None else self._backend.asarray(light.plate, self._dtype)
        if light.aberrations is None:
            return factor, False
        if self._basis is None:
            raise ValueError("aberrations need a basis")
        rows, which = np.unique(light.aberrations, axis=0, return_inverse=True)
        phase = np.tensordot(rows, self._basis, axes=1)
        plates = self._backend.asarray(np.exp(-1j * phase).astype(self._dtype))
        plates = plates[self._backend.asarray(which.reshape(-1))]
        return (plates if factor is None else plates * factor), True

    def _tilt_vjp(
        self, saved: _Saved, g: Array, wanted: set[str], grads: dict[str, np.ndarray]
    ) -> Array:
        """Back through shift and ramp, in this order."""
        if saved.shift_factor is not None:
            spectrum = self._backend.fft2(g)
            if "shift" in wanted:
                v = kernels.imag_inner(saved.shifted, spectrum) / self._grid.size
                grads["shift"] = self._shift.gradient(v)
            g = self._backend.ifft2(kernels.mul_conj(saved.shift_factor, spectrum))
        g, g_tilt = ramp_vjp(saved.ramped, g, self._ramp if "tilt" in wanted else None)
        if g_tilt is not None:
            grads["tilt"] = g_tilt
        return g

    def _select(self, a: Array, scenario: np.ndarray | None) -> Array:
        return a[:1] if scenario is None else a[self._backend.asarray(scenario)]

    def _accumulate(self, target: Array | None, scenario: np.ndarray | None, g: Array) -> None:
        if target is None:
            return
        if scenario is None:
            target[0] += g.sum(axis=0) if len(g) > 1 else g[0]
            return
        for b, s in enumerate(scenario.tolist()):
            target[s] += g[b]

    def _real(self, a: np.ndarray) -> Array:
        return self._backend.asarray(a.astype(np.empty(0, self._dtype).real.dtype))

    def _host(self, a: Array) -> np.ndarray:
        return self._backend.to_host(a)
