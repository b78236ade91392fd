"""Aberrations and scan rotation from tilt-corrected bright field, on a params dictionary."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pyptyx.engine.calibrate import apply_optics
from pyptyx.engine.direct_data import open_bright_field, open_executor, scan_optics
from pyptyx.engine.direct_run import beam_optics
from pyptyx.engine.patterns import open_patterns
from pyptyx.errors import DataError, ParamError, Problem
from pyptyx.executors import Executor
from pyptyx.files import write_array
from pyptyx.methods.aberration_fit import FitOptions, fit_aberrations
from pyptyx.methods.bright_field import BrightField
from pyptyx.methods.gamma import Coefficients, detector_frame
from pyptyx.methods.optics_search import Optics
from pyptyx.methods.scan_spectrum import pupil_of, shifts_A
from pyptyx.methods.shift_fit import ShiftFit, fit_shifts, measure_shifts
from pyptyx.methods.tcbf import aligned_image
from pyptyx.output.direct_plots import plot_image, plot_shifts
from pyptyx.output.images import save_figure

logger = logging.getLogger(__name__)

Params = Mapping[str, Any]

_FILLED = 0.6
"""Masks with a smaller part of their weight in the disc are left out."""


@dataclass(frozen=True)
class AlignOptions:
    """How shifts are measured and fitted.

    Attributes
    ----------
    method : {"varpro", "xcorr"}
        Profile likelihood of all images at once, or correlation of each with a reference.
    fit_rotation : bool
        Fit the scan rotation as well.
    phase_only, reference
        See `pyptyx.methods.shift_fit.measure_shifts`.
    keep : float or None
        Fraction of the shifts used, those closest to the expected ones.
    loss, scale_px
        Of the robust fit; scale in scan points.
    flip : bool
        Correct contrast reversals in the images that are saved.
    """

    method: str = "varpro"
    fit_rotation: bool = True
    phase_only: bool = True
    reference: str = "bf"
    keep: float | None = None
    loss: str = "soft_l1"
    scale_px: float = 0.5
    flip: bool = False


@dataclass(frozen=True)
class Alignment:
    """State after one round."""

    coefficients_A: np.ndarray
    rotation_rad: float


def align(
    params: Params,
    rounds: Sequence[BrightField],
    start_A: Coefficients,
    options: AlignOptions,
    folder: Path | None,
) -> dict[str, Any]:
    """Refine aberrations and rotation, once for every entry of `rounds`.

    Returns
    -------
    dict
        A copy of `params` with ``aberrations`` (detector frame), ``PLRotation_deg``, ``positions``
        and no probe, defocus or CTF besides.

    Raises
    ------
    ParamError
        If the method is unknown.
    DataError
        If the images do not determine the aberrations.
    """
    fits = {"varpro": _by_likelihood, "xcorr": _by_correlation}
    if options.method not in fits:
        raise ParamError(Problem("method", " or ".join(fits), repr(options.method)))
    state = Alignment(np.asarray(start_A, dtype=float), beam_optics(params)[1])
    history = [state]
    with open_executor(params) as executor:
        for number, bright in enumerate(rounds):
            measured, fit = fits[options.method](bright, state, options, executor)
            state = Alignment(fit.coefficients_A, fit.rotation_rad)
            history.append(state)
            logger.info(
                "Alignment %d: C10 = %.1f Å, rotation %.2f degrees, %.2f Å rms",
                number, state.coefficients_A[0], math.degrees(state.rotation_rad), fit.rms_A,
            )  # fmt: skip
            if folder is not None:
                image = aligned_image(
                    bright,
                    fit.coefficients_A,
                    fit.rotation_rad,
                    flip=options.flip,
                    executor=executor,
                )
                _save_round(folder, number, bright, image, measured, fit)
    if folder is not None:
        width = max(len(s.coefficients_A) for s in history)
        table = [np.pad(s.coefficients_A, (0, width - len(s.coefficients_A))) for s in history]
        write_array(folder / "aberrations_A.npy", np.array(table))
        angles = [math.degrees(s.rotation_rad) for s in history]
        write_array(folder / "PL_angle_deg.npy", np.array(angles))
    return apply_optics(params, Optics(state.coefficients_A, state.rotation_rad, False))


def binned_bright_fields(params: Params, bins: Sequence[int]) -> list[BrightField]:
    """Bright fields for a list of bins; equal ones are read once."""
    read: dict[int, BrightField] = {}
    for n_bin in bins:
        if n_bin not in read:
            read[n_bin] = open_bright_field(params, int(n_bin))
    return [read[n] for n in bins]


def compressed_bright_field(params: Params) -> BrightField:
    """A bright field of compressed data: one image per mask in the disc, at its centroid.

    Raises
    ------
    ParamError
        If ``masks`` or ``aperture_mask`` are missing.
    DataError
        If fewer than three masks lie in the disc.
    """
    problems = [
        Problem(key, wanted, "nothing")
        for key, wanted in (("masks", "(Nmask, ky, kx)"), ("aperture_mask", "the disc"))
        if params.get(key) is None
    ]
    if problems:
        raise ParamError(problems)
    optics = scan_optics(params)
    masks = np.asarray(params["masks"], dtype=float)
    disc = np.asarray(params["aperture_mask"], dtype=float)
    dk = np.array(optics.dk_A) / int(params.get("upsample_pattern") or 1)
    y, x = np.nonzero(disc > 0.5)
    centre = np.array([y.mean(), x.mean()])
    inside = (np.abs(masks) * (disc > 0.5)).sum(axis=(1, 2))
    used = inside > _FILLED * np.abs(masks).sum(axis=(1, 2))
    if used.sum() < 3:
        got = f"{int(used.sum())} of {len(masks)}"
        raise DataError(Problem("masks", "at least 3 masks in the disc", got))
    weight = np.abs(masks[used]) / np.abs(masks[used]).sum(axis=(1, 2), keepdims=True)
    grid = np.indices(disc.shape)
    k_A = (np.einsum("kyx,ayx->ka", weight, grid) - centre) * dk
    with open_patterns(params) as source:
        signals = source.read(slice(None))[:, used]
    images = np.ascontiguousarray(signals.T, dtype=np.float32).reshape(-1, *optics.scan_size)
    mean = images.mean(axis=(1, 2))
    radius = math.sqrt(len(y) / math.pi)
    empty = np.zeros(optics.scan_size)
    return BrightField(
        images=images,
        k_A=k_A,
        mean_fraction=mean / mean.sum(),
        counts=images.sum(axis=0, dtype=float),
        comx=empty,
        comy=empty,
        com_variance=empty,
        pacbed=disc,
        mask=disc > 0.5,
        centre_px=(float(centre[0]), float(centre[1])),
        radius_px=radius,
        step_A=optics.step_A,
        wavelength_A=optics.wavelength_A,
        semiangle_rad=optics.semiangle_rad or radius * float(dk[0]) * optics.wavelength_A,
        dk_A=(float(dk[0]), float(dk[1])),
    )


def _shifts(bright: BrightField, state: Alignment) -> np.ndarray:
    """Expected shifts in the frame of the scan."""
    pupil = pupil_of(bright, tuple(state.coefficients_A))
    return detector_frame(shifts_A(bright.k_A, pupil), -state.rotation_rad)


def _by_correlation(
    bright: BrightField, state: Alignment, options: AlignOptions, executor: Executor
) -> tuple[np.ndarray, ShiftFit]:
    expected = _shifts(bright, state)
    measured, _ = measure_shifts(
        bright,
        expected,
        phase_only=options.phase_only,
        reference=options.reference,
        executor=executor,
    )
    used = None
    if options.keep is not None:
        distance = ((measured - expected) ** 2).sum(axis=1)
        used = distance <= np.quantile(distance, options.keep)
    fit = fit_shifts(
        bright,
        measured,
        state.coefficients_A,
        state.rotation_rad,
        fit_rotation=options.fit_rotation,
        used=used,
        loss=options.loss,
        scale_A=options.scale_px * bright.step_A,
    )
    return measured, fit


def _by_likelihood(
    bright: BrightField, state: Alignment, options: AlignOptions, executor: Executor
) -> tuple[np.ndarray, ShiftFit]:
    number = max(3, len(state.coefficients_A))
    limits = FitOptions(num=number, transposed=False)
    known = np.pad(state.coefficients_A, (0, number - len(state.coefficients_A)))
    start = Optics(known, state.rotation_rad, False) if known.any() else None
    found = fit_aberrations(
        bright,
        limits,
        start=start,
        fit_rotation=options.fit_rotation or start is None,
        executor=executor,
    ).best
    if math.cos(found.rotation_rad - state.rotation_rad) < 0:
        found = found.opposite  # the branch of the rotation that was known
    if start is None and not options.fit_rotation:
        start = Optics(found.coefficients_A, state.rotation_rad, False)
        found = fit_aberrations(
            bright, limits, start=start, fit_rotation=False, executor=executor
        ).best
    values = np.zeros(number)
    values[: len(found.coefficients_A)] = found.coefficients_A
    fitted = _shifts(bright, Alignment(values, found.rotation_rad))
    measured, _ = measure_shifts(bright, fitted, phase_only=options.phase_only, executor=executor)
    rms = float(np.sqrt(((fitted - measured) ** 2).sum(axis=1).mean()))
    return measured, ShiftFit(values, found.rotation_rad, np.zeros(2), fitted, rms)


def _save_round(
    folder: Path,
    number: int,
    bright: BrightField,
    image: np.ndarray,
    measured_A: np.ndarray,
    fit: ShiftFit,
) -> None:
    """Image, shifts in scan points as rows (x, y), and coefficients of one round."""
    write_array(folder / f"tcbf_image_{number}.npy", image)
    figure = plot_image(image, bright.step_A, "intensity / mean")
    save_figure(folder / f"tcbf_image_{number}.png", figure)
    write_array(folder / f"estimated_shifts_{number}.npy", measured_A.T[::-1] / bright.step_A)
    write_array(folder / f"aberrations_{number}.npy", fit.coefficients_A)
    figure = plot_shifts(bright.k_A, measured_A, fit.fitted_A)
    save_figure(folder / f"tcbf_shifts_{number}.png", figure)
