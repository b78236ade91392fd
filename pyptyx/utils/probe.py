"""Probes under PyPty's names: ``(ny, nx, Mp[, Ns])``, centred at ``n // 2``, never modified."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pyptyx.constants import wavelength_A
from pyptyx.engine.patterns import fit_centred
from pyptyx.engine.start_probe import detector_to_probe, probe_to_detector
from pyptyx.methods.registration import shift_ramp
from pyptyx.physics import modes, optics
from pyptyx.physics.grid import Grid
from pyptyx.terms.probe_priors import window_weight

Array = Any


def _first(probe: np.ndarray) -> np.ndarray:
    """``(..., ny, nx)``."""
    return np.moveaxis(np.asarray(probe), (0, 1), (-2, -1))


def _last(waves: np.ndarray) -> np.ndarray:
    """``(ny, nx, ...)``."""
    return np.moveaxis(waves, (-2, -1), (0, 1))


def apply_defocus_probe(
    probe: np.ndarray,
    distance: float,
    acc_voltage: float,
    pixel_size_x_A: float,
    pixel_size_y_A: float,
    default_complex: Any = np.complex128,
    default_float: Any = np.float64,
    xp: Any = np,
) -> np.ndarray:
    """Propagate a probe by `distance` Å, ``exp(-iπ d λ q²)``, and low-pass it at 2/3 of Nyquist.

    Parameters
    ----------
    probe : array (ny, nx[, Mp[, Ns]]), complex
    distance : float
        Å; positive moves the cross-over upstream (overfocus).
    acc_voltage : float
        kV.
    pixel_size_x_A, pixel_size_y_A : float
        Å.
    default_complex : dtype
        Of the result.
    default_float : dtype
        Has no effect.
    xp : module
        Array namespace of the probe.
    """
    pixel = (pixel_size_y_A, pixel_size_x_A)
    grid = Grid((probe.shape[0], probe.shape[1]), pixel, wavelength_A(acc_voltage))
    chi = optics.defocus_phase(distance, grid.q_y[:, None], grid.q_x[None, :], grid.wavelength_A)
    factor = xp.asarray(np.exp(-1j * chi) * grid.mask)
    factor = factor.reshape(factor.shape + (1,) * (probe.ndim - 2))
    axes = (0, 1)
    out = xp.fft.ifft2(xp.fft.fft2(probe, axes=axes) * factor, axes=axes)
    return out.astype(default_complex)


def padfft(array: np.ndarray, pad: int) -> np.ndarray:
    """Sample waves ``(ny, nx, ...)`` more finely by `pad` zeros on each side of their spectrum.

    The values of the spectrum stay, and with them the counts ``ny nx Σ|p|²``.
    """
    waves = _first(array)
    shape = (waves.shape[-2] + 2 * pad, waves.shape[-1] + 2 * pad)
    spectrum = np.fft.fftshift(np.fft.fft2(waves), axes=(-2, -1))
    return _last(np.fft.ifft2(np.fft.ifftshift(fit_centred(spectrum, shape), axes=(-2, -1))))


def padprobetodatafarfield(
    probe: np.ndarray, measured_data_shape: Sequence[int], data_pad: int, upsample_pattern: int
) -> np.ndarray:
    """Fit a probe to the window that patterns ``(..., ky, kx)`` need, by its spectrum; counts stay.

    Parameters
    ----------
    probe : ndarray (ny, nx, ...), complex
        Centred at ``n // 2``, as is the result.
    measured_data_shape : sequence of int
        Ends with ``(ky, kx)``.
    data_pad, upsample_pattern : int
        The window has ``upsample_pattern · k + 2 data_pad`` pixels along each axis.
    """
    ky, kx = (int(n) * upsample_pattern + 2 * data_pad for n in measured_data_shape[-2:])
    return _last(detector_to_probe(fit_centred(probe_to_detector(_first(probe)), (ky, kx))))


def shift_probe_fourier(
    probe: np.ndarray, shift_px: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Move a probe ``(ny, nx, ...)`` by ``(y, x)`` px towards larger indices, with wrap-around.

    Returns
    -------
    probe : ndarray (ny, nx, ...)
    mask : ndarray (ny, nx)
        The factor on the spectrum.
    spectrum : ndarray (ny, nx, ...)
        Of the probe before the shift.
    kx, ky : ndarray (ny, nx)
        Frequencies in cycles per pixel, zero in the corner.
    """
    waves = _first(probe)
    f_y, f_x = (np.fft.fftfreq(n) for n in waves.shape[-2:])
    kx, ky = np.meshgrid(f_x, f_y)
    mask = shift_ramp(ky, kx, (shift_px[0], shift_px[1]))
    spectrum = np.fft.fft2(waves)
    return _last(np.fft.ifft2(spectrum * mask)), mask, _last(spectrum), kx, ky


def generate_hermite_modes(
    main_mode: np.ndarray,
    n_herm_x: int,
    n_herm_y: int,
    default_complex: Any = np.complex128,
    xp: Any = np,
) -> np.ndarray:
    """Modes from powers of the coordinates and a Gaussian; each carries the full counts.

    Parameters
    ----------
    main_mode : array (ny, nx), complex
        The first mode.
    n_herm_x, n_herm_y : int
        Highest powers along x and y.
    default_complex : dtype
        Of the result.
    xp : module
        Namespace of the result.

    Returns
    -------
    array (ny, nx, (n_herm_x + 1) (n_herm_y + 1))
    """
    stack = modes.hermite_modes(np.asarray(main_mode), int(n_herm_y), int(n_herm_x))
    return xp.asarray(_last(stack).astype(default_complex))


def probe_modes_from_spreads(  # noqa: PLR0913 - PyPty's signature
    probe: np.ndarray,
    wavelength: float,
    rez_px_size_rad: float | Sequence[float],
    focal_spread: float,
    spatial_coh_x_A: float = 0,
    spatial_coh_y_A: float = 0,
    spatial_coh_xy: float = 0,
    n_modes: int = 4,
    n_samples: int = 256,
    seed: int = 0,
    data_pad: int = 0,
    recon_type: str = "far_field",
    xp: Any = np,
) -> np.ndarray:
    """Modes of a beam with a finite source and a spread of focus, strongest first.

    Parameters
    ----------
    probe : array (ny, nx), complex
        The coherent wave.
    wavelength : float
        Å.
    rez_px_size_rad : float or (float, float)
        Step of the spectrum of this probe in rad, or its values ``(y, x)``.
    focal_spread : float
        Standard deviation of the defocus in Å.
    spatial_coh_x_A, spatial_coh_y_A : float
        Standard deviations of the source in Å.
    spatial_coh_xy : float
        Their correlation coefficient.
    n_modes, n_samples : int
        Modes kept, and random draws.
    seed : int
        Of the random numbers.
    data_pad, recon_type
        Have no effect: the probe carries its own sampling.
    xp : module
        Namespace of the result.

    Returns
    -------
    array (ny, nx, n_modes), complex128
    """
    wave = np.asarray(probe)
    step_rad = np.broadcast_to(np.asarray(rez_px_size_rad, dtype=np.float64), (2,))
    pixel_y, pixel_x = wavelength / (np.array(wave.shape) * step_rad)
    found = modes.coherence_modes(
        wave,
        n_modes,
        np.random.default_rng(seed),
        grid=Grid((wave.shape[0], wave.shape[1]), (float(pixel_y), float(pixel_x)), wavelength),
        source_sigma_A=(spatial_coh_y_A, spatial_coh_x_A),
        source_correlation=spatial_coh_xy,
        focal_spread_A=focal_spread,
        n_samples=n_samples,
    )
    return xp.asarray(_last(found))


def get_window(
    shape: Sequence[int], r0: float, r_max: float, inverted: bool = True, xp: Any = np
) -> Array:
    """Square window with cosine edges, the product of one along y and one along x.

    Parameters
    ----------
    shape : sequence of int
        ``(ny, nx)``.
    r0, r_max : float
        Where the edge begins and ends, as fractions of half the window.
    inverted : bool
        0 inside and 1 outside, as the weight of a constraint; otherwise the reverse.
    xp : module
        Namespace of the result.
    """
    weight = window_weight((int(shape[0]), int(shape[1])), r0, r_max)
    return xp.asarray(weight if inverted else 1 - weight)
