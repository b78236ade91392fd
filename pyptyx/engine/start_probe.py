"""The start probe.

Public layouts come in (probe ``(ny, nx, Mp[, Ns])``, patterns and masks with zero frequency at
``n // 2``), the inside layout ``(Ns, Mp, ny, nx)`` goes out.  User arrays are never modified.

The counts of a probe are ``N Σ|p|²`` per mode in the far field (``N`` pixels; without ``N`` in the
near field), because transforms carry no factor and the model averages over modes.  A probe made
here gets the mean counts of the data; a probe given by the user keeps its amplitude.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import ndimage

from pyptyx.data import PatternSource, Preparation, check_counts
from pyptyx.engine.masks import model_masks
from pyptyx.engine.patterns import (
    back_projection,
    fit_centred,
    measured_preparation,
    replicate,
)
from pyptyx.errors import DataError, ParamError, Problem, ShapeError
from pyptyx.physics.grid import Grid
from pyptyx.physics.modes import coherence_modes, defocus_spread_modes, hermite_modes
from pyptyx.physics.optics import aberration_phase, apply_phase, defocus_phase

Params = Mapping[str, Any]

_PATTERNS_FOR_MEAN = 1000
"""A mean over so many patterns is good enough to start from."""

_CHUNK = 64
"""Patterns shifted at a time."""


def initial_probe(params: Params, source: PatternSource | None, grid: Grid) -> np.ndarray:
    """Start probe.

    ``probe=None`` takes amplitudes from the mean pattern, ``"aperture"`` from ``aperture_mask`` (a
    mask of zeros and ones with a rim as bright as that of the mean pattern), both with the counts
    of the data; an array keeps its amplitude and is fitted to the window in reciprocal space.
    Then defocus, aberrations, ``beam_ctf`` and mode generators are applied, unless the array is
    already aberrated (``probe_is_aberrated``) or is to be left exactly as it is
    (``skip_preprocessing``); ``apply_aberrations_to_probe`` overrules both.

    Parameters
    ----------
    params : mapping
        Resolved parameters.
    source : PatternSource or None
        The measured patterns; an array as probe needs none.
    grid : Grid
        The probe window.

    Returns
    -------
    ndarray (Ns, Mp, ny, nx), complex128
        Real space, centred at index ``n // 2``.

    Raises
    ------
    ParamError
        If a probe has to be made and there are no data.
    DataError
        If a probe has to be made and the data are empty.
    ShapeError
        If a probe, a mask or a plate does not fit the window.
    """
    given = params["probe"]
    own = given is None or isinstance(given, str)
    if own:
        if source is None:
            remedy = "Give a probe, or data."
            raise ParamError(
                Problem("probe", "an array when there are no data", repr(given), remedy)
            )
        probe = _own_probe(params, source, grid)
    else:
        probe = _given_probe(params, np.asarray(given), grid)
    marker = params["probe_marker"]
    if marker is not None:
        scenarios = int(np.max(marker)) + 1
        if len(probe) == 1:
            probe = np.repeat(probe, scenarios, axis=0)
        elif len(probe) < scenarios:
            raise ShapeError(
                Problem(
                    "probe",
                    f"{scenarios} scenarios, as in probe_marker",
                    str(len(probe)),
                    "Give one scenario, it is copied, or all of them.",
                )
            )
    apply = params["apply_aberrations_to_probe"]
    if apply is None:
        apply = own or not (params["probe_is_aberrated"] or params["skip_preprocessing"])
    return modulate_probe(params, probe, grid) if apply else probe


def _own_probe(params: Params, source: PatternSource, grid: Grid) -> np.ndarray:
    pattern = mean_pattern(params, source, grid)
    counts = pattern.sum()
    if not counts > 0:
        remedy = "Leave it out to average the data."
        given = Problem("mean_pattern", "some counts", f"a sum of {counts}", remedy)
        raise DataError(check_counts(source, source.name) or given)
    if params["probe"] == "aperture":
        amplitude = _aperture_amplitude(params, pattern, grid)
    else:
        amplitude = np.sqrt(fit_centred(replicate(pattern, params["upsample_pattern"]), grid.shape))
    if params["recon_type"] == "far_field":
        wave = detector_to_probe(amplitude)
        scale = np.sqrt(counts / (grid.size * (np.abs(wave) ** 2).sum()))
    else:
        wave = amplitude.astype(np.complex128)
        scale = np.sqrt(counts / (np.abs(wave) ** 2).sum())
    return (wave * scale)[None, None]


def _aperture_amplitude(params: Params, pattern: np.ndarray, grid: Grid) -> np.ndarray:
    """``aperture_mask`` as the amplitude of the beam: a mask of zeros and ones gets a soft rim."""
    mask = np.asarray(params["aperture_mask"])
    if mask.shape != grid.shape:
        remedy = "Give it on the up-sampled and padded pattern."
        raise ShapeError(Problem("aperture_mask", f"shape {grid.shape}", str(mask.shape), remedy))
    upsample = int(params["upsample_pattern"])
    binary = mask.dtype == bool or np.isin(mask, (0, 1)).all()
    # Masks of compressed data resolve no rim; in the near field the mask lies in real space.
    if not binary or params["masks"] is not None or params["recon_type"] != "far_field":
        return mask.astype(np.float64)
    return soft_rim(mask > 0, fit_centred(replicate(pattern, upsample), grid.shape), upsample)


def soft_rim(mask: np.ndarray, pattern: np.ndarray, pixel: int = 1) -> np.ndarray:
    """Amplitude of a disc whose rim covers its pixels in part.

    The disc is what is half as bright as the middle of the mask's pixels: a mask by threshold may
    hold a halo.  A pixel at its rim counts with the square root of its intensity relative to the
    mean of the disc beside it.  A rim in steps of whole pixels puts rings around the probe: with
    the probe fixed, they end in the object.

    Parameters
    ----------
    mask : ndarray of bool (ny, nx)
        The disc, or more; nothing outside gets an amplitude.
    pattern : ndarray (ny, nx)
        Mean pattern.
    pixel : int
        Edge of a measured pixel; the rim is as wide on either side.

    Returns
    -------
    ndarray (ny, nx), float64
        Between 0 and 1.
    """
    bright = mask & (pattern > 0.5 * np.median(pattern[mask])) if mask.any() else mask
    if not bright.any():
        return mask.astype(np.float64)
    disc = ndimage.binary_fill_holes(bright) & mask  # few counts leave dark pixels inside
    inside = ndimage.binary_erosion(disc, iterations=pixel)
    size = 4 * pixel + 1
    near = ndimage.uniform_filter(inside.astype(np.float64), size, mode="constant")
    level = ndimage.uniform_filter(np.where(inside, pattern, 0.0), size, mode="constant")
    rim = ndimage.binary_dilation(disc, iterations=pixel) & mask & ~inside
    rim &= (near > 0.5 / size**2) & (level > 0)
    amplitude = disc.astype(np.float64)
    amplitude[rim] = np.sqrt(np.clip(pattern[rim] * near[rim] / level[rim], 0.0, 1.0))
    return amplitude


def detector_to_probe(amplitude: np.ndarray) -> np.ndarray:
    """Real-space wave, centred, of a centred detector amplitude ``(..., ny, nx)``."""
    axes = (-2, -1)
    return np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(amplitude, axes)), axes)


def probe_to_detector(probe: np.ndarray) -> np.ndarray:
    """Inverse of `detector_to_probe`."""
    axes = (-2, -1)
    return np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(probe, axes)), axes)


def mean_pattern(params: Params, source: PatternSource, grid: Grid) -> np.ndarray:
    """Mean pattern as the engine sees the data: shifted, binned, multiplied, not padded; centred.

    ``mean_pattern`` of the parameters if given, else the mean of the first 1000 patterns.  With a
    tilt before or after the specimen each of these is moved back by the tilt first.
    """
    prepare = measured_preparation(params, float(params["data_multiplier"]))
    compressed = len(source.shape) == 2
    given = params["mean_pattern"]
    # Only far from the specimen does a tilt move the pattern.
    moved = params["tilt_mode"] and params["recon_type"] == "far_field" and not compressed
    tilts = np.asarray(params["tilts"])
    if moved and np.any(tilts[:, 4:6] != tilts[:, 0:2]):
        return _untilted_mean(params, source, prepare, tilts, grid)
    if given is not None:
        mean = np.asarray(given, dtype=np.float64)
        if not compressed and mean.shape != source.shape[1:]:
            remedy = "Leave it out to average the data."
            expected = f"shape {source.shape[1:]}, that of the patterns"
            raise ShapeError(Problem("mean_pattern", expected, str(mean.shape), remedy))
    else:
        mean = source.mean(limit=_PATTERNS_FOR_MEAN)
        masks = model_masks(params)
        if masks is not None:
            mean = back_projection(masks, mean)
    if compressed:
        return np.maximum(mean * params["data_multiplier"], 0.0)
    return np.maximum(prepare(mean[None])[0], 0.0)


def _untilted_mean(
    params: Params, source: PatternSource, prepare: Preparation, tilts: np.ndarray, grid: Grid
) -> np.ndarray:
    """Mean of patterns moved back by their tilt (after minus before), optionally made binary."""
    count = min(source.shape[0], _PATTERNS_FOR_MEAN)
    patterns = prepare(source.read(slice(0, count)))
    rows = tilts[:count] if len(tilts) > 1 else np.repeat(tilts, count, axis=0)
    pixels = np.array(grid.shape) * np.array(grid.pixel_A) / params["upsample_pattern"]
    shifts = (rows[:, 4:6] - rows[:, 0:2]) / grid.wavelength_A * pixels
    counts = patterns.sum(axis=(1, 2)).mean()
    threshold = params["estimate_aperture_based_on_binary"]
    if threshold:
        level = threshold * patterns.mean(axis=(1, 2), keepdims=True)
        patterns = (patterns > level).astype(np.float64)
    fy = np.fft.fftfreq(patterns.shape[1])[:, None]
    fx = np.fft.fftfreq(patterns.shape[2])[None, :]
    mean = np.zeros(patterns.shape[1:])
    for start in range(0, count, _CHUNK):
        block = slice(start, start + _CHUNK)
        sy, sx = shifts[block, 0, None, None], shifts[block, 1, None, None]
        ramp = np.exp(2j * np.pi * (fy * sy + fx * sx))
        mean += np.abs(np.fft.ifft2(np.fft.fft2(patterns[block]) * ramp)).sum(axis=0)
    if threshold:
        mean[mean < threshold * mean.mean()] = 0.0
    # Sub-pixel shifts ring, and a binary pattern has no counts of its own.
    return mean * (counts / mean.sum())


def _given_probe(params: Params, probe: np.ndarray, grid: Grid) -> np.ndarray:
    """The user's probe in inside layout, fitted to the window unless it must stay exact."""
    if probe.ndim not in (2, 3, 4):
        raise ShapeError(
            Problem(
                "probe", "shape (ny, nx, Mp) or (ny, nx, Mp, Ns)", str(probe.shape), "Add axes."
            )
        )
    probe = probe.reshape(*probe.shape, *(1,) * (4 - probe.ndim))
    inside = np.ascontiguousarray(probe.transpose(3, 2, 0, 1), dtype=np.complex128)
    if inside.shape[-2:] == grid.shape:
        return inside
    if params["skip_preprocessing"]:
        raise ShapeError(
            Problem(
                "probe",
                f"{grid.shape[0]} x {grid.shape[1]} pixels, the window",
                f"{inside.shape[-2]} x {inside.shape[-1]}",
                "skip_preprocessing keeps a probe as it is; without it the probe is fitted.",
            )
        )
    if params["recon_type"] != "far_field":
        return fit_centred(inside, grid.shape)
    # The values of the spectrum stay, and with them the counts N Σ|p|².
    return detector_to_probe(fit_centred(probe_to_detector(inside), grid.shape))


def modulate_probe(params: Params, probe: np.ndarray, grid: Grid) -> np.ndarray:
    """Apply defocus, aberrations and ``beam_ctf``, then generate modes.

    Monte-Carlo modes exclude the others; Hermite modes are made of every defocus-spread mode.  All
    generators start from mode 0 of each scenario.

    Parameters
    ----------
    params : mapping
        Resolved parameters.
    probe : ndarray (Ns, Mp, ny, nx)
        Real space, centred.
    grid : Grid
        The window.

    Returns
    -------
    ndarray (Ns, Mp', ny, nx), complex128
    """
    qy, qx = grid.q_y[:, None], grid.q_x[None, :]
    chi = defocus_phase(params["extra_probe_defocus"] or 0.0, qy, qx, grid.wavelength_A)
    if params["aberrations"] is not None:
        chi = chi + aberration_phase(params["aberrations"], qy, qx, grid.wavelength_A)
    if params["beam_ctf"] is not None:
        chi = chi + np.fft.ifftshift(_plate(np.asarray(params["beam_ctf"]), params, grid))
    if chi.any():
        probe = apply_phase(probe, chi)

    if params["mc_n_modes"] is not None:
        rng = np.random.default_rng(params["seed"])
        return np.stack([_coherence_modes(params, wave[0], grid, rng) for wave in probe])
    spread, powers = params["defocus_spread_modes"], params["n_hermite_probe_modes"]
    if spread is not None:
        waves = [defocus_spread_modes(p[0], spread, grid) for p in probe]
        probe = np.stack(waves)
    if powers is not None:
        n_y, n_x = (int(n) for n in powers)
        sources = probe if spread is not None else probe[:, :1]
        probe = np.stack([np.concatenate([hermite_modes(m, n_y, n_x) for m in p]) for p in sources])
    return probe


def _plate(plate: np.ndarray, params: Params, grid: Grid) -> np.ndarray:
    padded = np.pad(plate, params["data_pad"]) if plate.shape != grid.shape else plate
    if padded.shape != grid.shape:
        remedy = "Give it on the probe window, or without the padding."
        expected = f"shape {grid.shape}, with or without data_pad"
        raise ShapeError(Problem("beam_ctf", expected, str(plate.shape), remedy))
    return padded


def _coherence_modes(
    params: Params, wave: np.ndarray, grid: Grid, rng: np.random.Generator
) -> np.ndarray:
    sy, sx = params["spatial_coh_y_A"], params["spatial_coh_x_A"]
    # A source size given for one axis only is meant for both.
    sy, sx = (sx if sy is None else sy), (sy if sx is None else sx)
    return coherence_modes(
        wave,
        int(params["mc_n_modes"]),
        rng,
        grid=grid,
        source_sigma_A=(sy or 0.0, sx or 0.0),
        source_correlation=params["spatial_coh_xy"] or 0.0,
        focal_spread_A=params["focal_spread"] or 0.0,
        n_samples=int(params["n_mc_samples"]),
    )
