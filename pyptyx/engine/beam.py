"""Changes of the beam in a params dictionary: vacuum probe, conjugation, alignment, local tilts.

Every function changes the dictionary it is given and returns it; arrays in it are replaced, never
written into.  Detector images are centred (zero frequency at ``n // 2``).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.ndimage import percentile_filter

from pyptyx.engine.patterns import (
    fit_centred,
    model_pixels,
    on_data_grid,
    open_patterns,
    replicate,
    survey,
)
from pyptyx.engine.start import beam_wavelength_A, first_sequence
from pyptyx.engine.start_probe import detector_to_probe, probe_to_detector
from pyptyx.errors import ParamError, Problem, ShapeError

Params = dict[str, Any]


def _waves_first(probe: np.ndarray) -> np.ndarray:
    """``(ny, nx, ...)`` to ``(..., ny, nx)``."""
    return np.moveaxis(np.asarray(probe), (0, 1), (-2, -1))


def _waves_last(probe: np.ndarray) -> np.ndarray:
    return np.moveaxis(probe, (-2, -1), (0, 1))


def conjugate_beam(pypty_params: Params) -> Params:
    """Negate defocus and aberrations of the beam, and conjugate the spectrum of a given probe.

    Parameters
    ----------
    pypty_params : dict
        ``aberrations``, ``extra_probe_defocus`` and ``probe (ny, nx, Mp[, Ns])`` are replaced.

    Returns
    -------
    dict
        The same dictionary.
    """
    aberrations = pypty_params.get("aberrations")
    if aberrations is not None:
        pypty_params["aberrations"] = -np.asarray(aberrations, dtype=np.float64)
    pypty_params["extra_probe_defocus"] = -(pypty_params.get("extra_probe_defocus") or 0.0) + 0.0
    probe = pypty_params.get("probe")
    if probe is not None and not isinstance(probe, str):
        spectrum = probe_to_detector(_waves_first(probe))
        pypty_params["probe"] = _waves_last(detector_to_probe(spectrum.conj()))
    return pypty_params


def _window_image(pypty_params: Params, pattern: np.ndarray) -> np.ndarray:
    """A measured pattern on the grid of the probe window, counts kept."""
    seen = on_data_grid(pattern, pypty_params)
    upsampled = replicate(seen, int(pypty_params.get("upsample_pattern", 1)))
    return np.pad(upsampled, int(pypty_params.get("data_pad") or 0))


def get_focussed_probe_from_vacscan(pypty_params: Params, mean_pattern: np.ndarray) -> Params:
    """Take the probe from a vacuum pattern: its square root as amplitude, flat phase.

    Parameters
    ----------
    pypty_params : dict
        Receives ``probe (ny, nx, 1)``, carrying the counts of the pattern.
    mean_pattern : ndarray (ky, kx)
        Measured pattern, before anything is done to it.

    Returns
    -------
    dict
        The same dictionary.
    """
    amplitude = np.sqrt(np.maximum(_window_image(pypty_params, mean_pattern), 0.0))
    pypty_params["probe"] = detector_to_probe(amplitude)[..., None]
    pypty_params["probe_is_aberrated"] = False
    return pypty_params


def append_aperture_to_params(pypty_params: Params, mean_pattern: np.ndarray) -> Params:
    """Store a measured pattern ``(ky, kx)``, on the model's pixels, as ``aperture_mask``."""
    pypty_params["aperture_mask"] = _window_image(pypty_params, mean_pattern)
    return pypty_params


# ---------------------------------------------------------------------------------------------
# Alignment of the beam to the data
# ---------------------------------------------------------------------------------------------


def tiltbeamtodata(pypty_params: Params, align_type: str = "com") -> Params:
    """Move the footprint of the probe on the detector onto the mean pattern.

    Parameters
    ----------
    pypty_params : dict
        With a ``probe`` array, which is replaced; the mean pattern is ``mean_pattern`` or is
        computed from the data.
    align_type : str
        ``"com"`` compares centres of mass, anything else uses phase correlation.

    Returns
    -------
    dict
        The same dictionary.

    Raises
    ------
    ParamError
        If there is no probe array.
    ShapeError
        If probe and pattern do not fit.
    """
    probe = pypty_params.get("probe")
    if probe is None or isinstance(probe, str):
        raise ParamError(Problem("probe", "an array to be tilted", repr(probe), "Give a probe."))
    pattern = pypty_params.get("mean_pattern")
    if pattern is None:
        with open_patterns(pypty_params) as source:
            pattern = source.mean()
    pattern = on_data_grid(pattern, pypty_params)
    upsample = int(pypty_params.get("upsample_pattern", 1))
    waves = _waves_first(probe)
    inner = (pattern.shape[0] * upsample, pattern.shape[1] * upsample)
    footprint = (np.abs(probe_to_detector(waves)) ** 2).reshape(-1, *waves.shape[-2:]).sum(axis=0)
    if np.any(np.less(footprint.shape, inner)):
        raise ShapeError(
            Problem("probe", f"at least {inner[0]} x {inner[1]} pixels", str(footprint.shape))
        )
    blocks = fit_centred(footprint, inner).reshape(pattern.shape[0], upsample, -1, upsample)
    footprint = blocks.sum(axis=(1, 3))
    if align_type == "com":
        sy, sx = centre_of_mass(pattern) - centre_of_mass(footprint)
    else:
        sy, sx = phase_correlation_shift(footprint, pattern)
    ny, nx = waves.shape[-2:]
    y, x = np.arange(ny)[:, None] - ny // 2, np.arange(nx) - nx // 2
    ramp = np.exp(2j * np.pi * upsample * (y * sy / ny + x * sx / nx))
    pypty_params["probe"] = _waves_last(waves * ramp)
    return pypty_params


def centre_of_mass(image: np.ndarray) -> np.ndarray:
    """Centre of mass ``(y, x)`` in pixels from index ``n // 2``."""
    total = image.sum()
    ny, nx = image.shape
    y = image.sum(axis=1) @ (np.arange(ny) - ny // 2)
    x = image.sum(axis=0) @ (np.arange(nx) - nx // 2)
    return np.array([y, x]) / total


def phase_correlation_shift(image: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """Shift ``(y, x)`` in pixels that moves `image` onto `target`, by phase-only correlation.

    References
    ----------
    H. Foroosh, J. B. Zerubia, M. Berthod, IEEE Trans. Image Process. 11 (2002) 188-200.
    """
    cross = np.fft.fft2(target) * np.fft.fft2(image).conj()
    size = np.abs(cross)
    lit = size > 1e-9 * size.max()
    correlation = np.fft.ifft2(np.where(lit, cross / np.where(lit, size, 1.0), 0.0)).real
    peak = np.unravel_index(int(correlation.argmax()), correlation.shape)
    shift = []
    for axis, (at, size_px) in enumerate(zip(peak, correlation.shape, strict=True)):
        line = correlation[:, peak[1]] if axis == 0 else correlation[peak[0]]
        above, below = line[(at + 1) % size_px], line[at - 1]
        side = 1.0 if above > below else -1.0
        neighbour = max(above, below, 0.0)
        whole = at - size_px if at > size_px // 2 else at
        shift.append(float(whole + side * neighbour / (neighbour + line[at])))
    return shift[0], shift[1]


# ---------------------------------------------------------------------------------------------
# Local beam tilts
# ---------------------------------------------------------------------------------------------


def get_approx_beam_tilt(
    pypty_params: Params,
    power: float | str = 3,
    make_binary: float | bool = False,
    percentile_filter_value: float | None = None,
    percentile_filter_size: int = 10,
) -> Params:
    """Estimate the tilt after the specimen of every measurement from its centre of mass.

    Parameters
    ----------
    pypty_params : dict
        Receives ``tilts (N, 6)`` with columns 4 and 5 (y and x after the specimen, rad) and
        ``tilt_mode=1``.  ``aperture_shifts_y`` and ``aperture_shifts_x`` (measured px) replace the
        centres of mass if present.
    power : float
        The tilts are a polynomial of the position with terms ``x^i y^j``, ``i + j < power``,
        fitted to the measurements of the sequence; ``inf`` takes the centres of mass as they are.
    make_binary : float
        If not zero, patterns are made binary at this multiple of their mean first.
    percentile_filter_value, percentile_filter_size
        Percentile and window in scan points of an optional filter of the result.

    Returns
    -------
    dict
        The same dictionary.
    """
    shifts: list[Any] = [
        pypty_params.get(key) for key in ("aperture_shifts_y", "aperture_shifts_x")
    ]
    if any(s is None for s in shifts):
        with open_patterns(pypty_params) as source:
            seen = survey(source, with_com=True, binary_level=float(make_binary))
        shifts = [seen.comy, seen.comx]
    rez = pypty_params["rez_pixel_size_A"] * model_pixels(pypty_params)
    measured = np.stack([np.ravel(s) for s in shifts], axis=1)
    seen_px = measured + np.asarray(pypty_params.get("data_shift_vector", (0, 0)))
    tilts_yx = seen_px * rez * beam_wavelength_A(pypty_params)
    if math.isfinite(float(power)):
        used = first_sequence({"sequence": pypty_params.get("sequence")})
        tilts_yx = _polynomial(np.asarray(pypty_params["positions"]), tilts_yx, int(power), used)
    if percentile_filter_value is not None:
        image = tilts_yx.reshape(*pypty_params["scan_size"], 2)
        size = (percentile_filter_size, percentile_filter_size, 1)
        tilts_yx = percentile_filter(image, percentile_filter_value, size=size).reshape(-1, 2)
    tilts = np.zeros((len(tilts_yx), 6))
    tilts[:, 4:6] = tilts_yx
    pypty_params["tilts"], pypty_params["tilt_mode"] = tilts, 1
    return pypty_params


def _polynomial(
    positions: np.ndarray, values: np.ndarray, power: int, used: np.ndarray | slice
) -> np.ndarray:
    """Least-squares polynomial of total degree below `power`, evaluated at all positions."""
    # Coordinates of order one keep the powers comparable.
    scaled = (positions - positions.mean(axis=0)) / max(float(np.ptp(positions)), 1e-12)
    y, x = scaled[:, 0], scaled[:, 1]
    terms = [x**i * y**j for i in range(power) for j in range(power - i)]
    matrix = np.stack(terms, axis=1)
    coefficients = np.linalg.lstsq(matrix[used], values[used], rcond=None)[0]
    return matrix @ coefficients
