"""The probe on its way: scenario, current, phase plate, local aberrations, tilt, shift.

All of these but the tilt multiply the probe spectrum, so the spectrum is computed once per
evaluation (`ProbeStage.enter`) and every pattern costs one inverse FFT per mode:

``ψ_t = |c_t| F⁻¹[ S_t · M · F[ T_t · F⁻¹[ A_t · M · H_t · F p ] ] ]``

Without a tilt before the specimen the two transforms in the middle vanish.  Shift
``S = exp(-2πi (f_y δ_y + f_x δ_x))`` moves the probe to larger indices for δ > 0; aberrations
``A = exp(-i Σ_j C_j B_j)`` with the basis of `optics`; the band limit M enters with S and with A.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pyptyx.backend import Backend
from pyptyx.physics.grid import Grid
from pyptyx.physics.kernels import select
from pyptyx.physics.kernels.reference import imag_inner, mul_conj, pattern_sums
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


@dataclass(frozen=True)
class ProbePlan:
    """Which elements the illumination of a run has."""

    plates: bool = False
    aberrations: bool = False
    tilt: bool = False
    shift: bool = False

    @property
    def shifts_spectrum(self) -> bool:
        """Whether the shift is applied with plates and aberrations, not behind a tilt."""
        return self.shift and not self.tilt

    @property
    def spectral(self) -> bool:
        """Whether the probe enters through its spectrum."""
        return self.plates or self.masked

    @property
    def masked(self) -> bool:
        """Whether the band limit enters with the spectrum."""
        return self.aberrations or self.shifts_spectrum


@dataclass
class _Saved:
    """What the adjoint needs."""

    light: Illumination
    factor: Array = None
    rows: Any = None
    ramps: tuple[Array, Array] | None = None
    spectrum: Array = None
    ramped: Any = None
    shift_factor: Array = None
    shifted: Array = None
    unscaled: Array = None


class ProbeStage:
    """Constants of the probe stage on one device.

    Parameters
    ----------
    grid : Grid
    plan : ProbePlan
    basis : ndarray, (Nab, ny, nx), or None
        Aberration phases in rad per Å.
    backend : Backend
    dtype : dtype
        Complex working type.
    """

    def __init__(
        self, grid: Grid, plan: ProbePlan, basis: np.ndarray | None, backend: Backend, dtype: Any
    ) -> None:
        self._plan = plan
        self._band = grid.band
        self._passed = grid.band if plan.masked else None
        self._backend = backend
        self._kernels = select(backend)
        self._dtype = np.dtype(dtype)
        self._real = np.empty(0, dtype).real.dtype
        mask = grid.mask if plan.masked else np.ones(grid.shape)
        # 1/N belongs to the inverse transform, which leaves it out.
        self._entrance = backend.asarray((mask / grid.size).astype(self._real))
        self._pass = backend.asarray(mask.astype(self._real))
        self._mask = backend.asarray((grid.mask / grid.size).astype(self._real))
        self._basis: Any = None if basis is None else np.asarray(basis, np.float64)
        self._shift = Separable(-2 * np.pi * grid.f_y, -2 * np.pi * grid.f_x, backend, dtype)
        self._ramp = ramp_factor(grid, backend, dtype)

    def enter(self, probe: Array) -> Array:
        """What `forward` reads, once per evaluation: the probe, or ``M F[probe] / N``."""
        return self._backend.fft2(probe) * self._entrance if self._plan.spectral else probe

    def leave(self, g: Array) -> Array:
        """Adjoint of `enter`."""
        return self._backend.ifft2(g * self._pass, overwrite=True) if self._plan.spectral else g

    def forward(self, probe: Array, light: Illumination) -> tuple[Array, _Saved]:
        """Illuminate a batch.

        Parameters
        ----------
        probe : array, (Ns, Mp, ny, nx)
            From `enter`.
        light : Illumination

        Returns
        -------
        wave : array, (B, Mp, ny, nx), or (1, Mp, ny, nx) when all patterns share it
        saved
            For `vjp`.
        """
        saved = _Saved(light)
        if self._plan.spectral:
            saved.spectrum = self._spectrum(probe, light, saved)
            wave = self._backend.fft2_adjoint(saved.spectrum, band=self._passed)
        else:
            wave = self._select(probe, light.scenario)
        if light.tilt is not None:
            wave, saved.ramped = ramp(wave, self._ramp.factor(light.tilt))
            if light.shift is not None:
                saved.shift_factor = self._shift.factor(light.shift)[:, None] * self._mask
                saved.shifted = self._backend.fft2(wave) * saved.shift_factor
                wave = self._backend.fft2_adjoint(saved.shifted)
        if light.current is not None:
            saved.unscaled = wave
            wave = wave * self._on_device(np.abs(light.current))[:, None, None, None]
        return wave, saved

    def vjp(
        self, saved: _Saved, g: Array, g_probe: Array | None, wanted: set[str]
    ) -> dict[str, np.ndarray]:
        """Adjoint of `forward`.

        Parameters
        ----------
        saved
            From `forward`.
        g : array, (B, Mp, ny, nx)
            Gradient of the loss with respect to the illuminating waves; it is used up.
        g_probe : array, (Ns, Mp, ny, nx), or None
            Accumulator of the gradient of what `enter` returned.
        wanted : set of str
            Which of ``current, aberrations, tilt, shift`` are needed.

        Returns
        -------
        dict
            Per-pattern gradients: current (B,), aberrations (B, Nab), tilt (B, 2), shift (B, 2).
        """
        light = saved.light
        grads: dict[str, np.ndarray] = {}
        if light.current is not None:
            if "current" in wanted:
                overlap = (saved.unscaled.real * g.real + saved.unscaled.imag * g.imag).sum(axis=1)
                grads["current"] = np.sign(light.current) * self._backend.to_host(
                    pattern_sums(overlap)
                )
            g = g * self._on_device(np.abs(light.current))[:, None, None, None]
        if light.tilt is not None:
            g = self._tilt_vjp(saved, g, wanted, grads)
        if not self._plan.spectral:
            self._accumulate(g_probe, light.scenario, g)
            return grads
        g = self._backend.fft2(g, overwrite=True, band=self._passed)
        if "shift" in wanted and self._plan.shifts_spectrum:
            grads["shift"] = self._shift.gradient(
                *self._kernels.imag_marginals(saved.spectrum, g, self._band)
            )
        if "aberrations" in wanted and light.aberrations is not None:
            # The factor is exp(-i C B): as for a ramp, with -B in place of it.
            v = self._backend.to_host(imag_inner(saved.spectrum, g))
            flat = v.reshape(len(v), -1).astype(np.float64)
            grads["aberrations"] = -flat @ self._basis.reshape(len(self._basis), -1).T
        if g_probe is not None:
            self._spectrum_vjp(saved, g, g_probe)
        return grads

    def _spectrum(self, probe: Array, light: Illumination, saved: _Saved) -> Array:
        """Spectra with plate, aberrations and shift, (B or 1, Mp, ny, nx)."""
        factor: Any = self._plate(light)
        shift = light.shift if self._plan.shifts_spectrum else None
        if factor is None and shift is not None:
            zeros = np.zeros(len(shift), np.int64)
            saved.rows = zeros if light.scenario is None else light.scenario
            saved.ramps = self._shift.factors(shift)
            return self._kernels.modulate(probe, saved.rows, *saved.ramps, self._band)
        if shift is not None:
            factor = factor * self._shift.factor(shift)
        saved.factor = factor[:, None]
        return self._select(probe, light.scenario) * saved.factor

    def _spectrum_vjp(self, saved: _Saved, g: Array, g_probe: Array) -> None:
        """Adjoint of `_spectrum`, added into `g_probe`."""
        if saved.ramps is not None:
            self._kernels.modulate_vjp(g, saved.rows, *saved.ramps, g_probe, self._band)
        else:
            self._accumulate(g_probe, saved.light.scenario, mul_conj(saved.factor, g))

    def _plate(self, light: Illumination) -> Array | None:
        """Plate and aberrations, (B or 1, ny, nx)."""
        factor = None if light.plate is None else self._backend.asarray(light.plate, self._dtype)
        if light.aberrations is None:
            return factor
        if self._basis is None:
            raise ValueError("aberrations need a basis")
        rows, which = np.unique(light.aberrations, axis=0, return_inverse=True)
        phase = np.tensordot(rows, self._basis, axes=1)
        plates = self._backend.asarray(np.exp(-1j * phase).astype(self._dtype))
        plates = plates[self._backend.asarray(which.reshape(-1))]
        return plates if factor is None else plates * factor

    def _tilt_vjp(
        self, saved: _Saved, g: Array, wanted: set[str], grads: dict[str, np.ndarray]
    ) -> Array:
        """Back through shift and ramp, in this order."""
        if saved.shift_factor is not None:
            spectrum = self._backend.fft2(g)
            if "shift" in wanted:
                grads["shift"] = self._shift.gradient(
                    *self._kernels.imag_marginals(saved.shifted, spectrum, self._band)
                )
            g = self._backend.fft2_adjoint(mul_conj(saved.shift_factor, spectrum))
        g, g_tilt = ramp_vjp(saved.ramped, g, self._ramp if "tilt" in wanted else None)
        if g_tilt is not None:
            grads["tilt"] = g_tilt
        return g

    def _select(self, a: Array, scenario: np.ndarray | None) -> Array:
        return a[:1] if scenario is None else a[self._backend.asarray(scenario)]

    def _accumulate(self, target: Array | None, scenario: np.ndarray | None, g: Array) -> None:
        if target is None:
            return
        rows = np.zeros(len(g), np.int64) if scenario is None else scenario
        self._kernels.add_rows(g, rows, target)

    def _on_device(self, a: np.ndarray) -> Array:
        return self._backend.asarray(a.astype(self._real))
