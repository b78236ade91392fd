"""Calibration of an experiment from its data: aberrations, scan rotation, handedness.

The fit is `pyptyx.methods.aberration_fit`; here its result becomes parameters, a report, a figure
and files.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pyptyx.engine.direct_data import open_bright_field, open_executor
from pyptyx.engine.geometry import scan_positions_A
from pyptyx.errors import ParamError, Problem
from pyptyx.files import make_folder, replacing, write_bytes
from pyptyx.methods.aberration_fit import AberrationFit, FitOptions, Optics, fit_aberrations
from pyptyx.methods.bright_field import BrightField
from pyptyx.output.calibration_plots import plot_calibration
from pyptyx.physics.optics import aberration_names, krivanek_order

logger = logging.getLogger(__name__)

Params = Mapping[str, Any]

_CLEAR_SKEWNESS = 0.3
"""Skewness of the phase from which bright atoms are credible."""

_RIM_ERROR_PX = 0.25
"""Error of the radius of the disc: a rim that is soft in amplitude looks 0.2 pixels too small."""

_TURNED = ("aperture_mask", "mean_pattern", "static_background")
"""Arrays on the detector that are exchanged with its axes."""


@dataclass(frozen=True)
class Calibrated:
    """Result of `calibrate`.

    Attributes
    ----------
    params : dict
        A copy of the parameters with ``aberrations`` (detector frame), ``PLRotation_deg``,
        ``transpose_patterns`` and ``positions`` as found, no extra defocus and no probe.
    fit : AberrationFit
        Numbers, errors, alternatives.
    report : str
        The result in words.
    figure : Figure
        What the search has seen.
    """

    params: dict[str, Any]
    fit: AberrationFit
    report: str
    figure: Figure


def calibrate(
    params: Params,
    options: FitOptions | None = None,
    *,
    detector_from_disc: bool = False,
    most_bins: int = 1000,
    save: bool | None = None,
) -> Calibrated:
    """Find aberrations, scan rotation and handedness of the detector from the data.

    Nothing of these three has to be known; voltage, scan step, semi-angle and the size of the
    detector pixels are taken as given.

    Parameters
    ----------
    params : mapping
        As `append_exp_params` makes them; not modified.
    options : FitOptions, optional
        Number of aberrations, sign and range of the defocus.
    detector_from_disc : bool
        Measure the detector pixel by the semi-angle (``conv_semiangle_mrad``) and the rim of the
        bright-field disc; the errors then include a quarter of a pixel of the rim.
    most_bins : int
        Detector pixels are binned until about this many remain.
    save : bool, optional
        Write ``direct/fit.json`` and ``direct/calibration.png``; by default if there is an output
        folder and ``save_preprocessing_files``.

    Returns
    -------
    Calibrated

    Raises
    ------
    ParamError
        If calibrations are missing.
    DataError, ShapeError
        If the data cannot be read, have no disc, or too few scan points.
    """
    bright = open_bright_field(params, None, most_bins=most_bins)
    if detector_from_disc:
        params, bright = _measured_pixel(params, bright)
    with open_executor(params) as executor:
        fit = fit_aberrations(bright, options, executor=executor)
    if detector_from_disc:
        fit = _unsure_of_scale(fit, bright.radius_px)
    result = Calibrated(
        params=apply_optics(params, fit.best, fit.sigma_A),
        fit=fit,
        report=_report(fit),
        figure=_figure(fit, bright.step_A),
    )
    folder = params.get("output_folder")
    if save is None:
        save = bool(params.get("save_preprocessing_files", True))
    if folder and save:
        _save(Path(folder) / "direct", result)
    return result


def apply_optics(
    params: Params, optics: Optics, sigma_A: np.ndarray | None = None
) -> dict[str, Any]:
    """A copy of the parameters with aberrations and orientation, and positions that follow them.

    Parameters
    ----------
    params : mapping
        Calibrated parameters of a regular scan; not modified.
    optics : Optics
        ``transposed`` counts from the present ``transpose_patterns``.
    sigma_A : ndarray, optional
        Standard deviations of the coefficients.
    """
    new = dict(params)
    if optics.transposed:
        new["transpose_patterns"] = not params.get("transpose_patterns")
        given = {key: params[key] for key in _TURNED if params.get(key) is not None}
        new |= {key: np.asarray(a).T for key, a in given.items() if np.ndim(a) == 2}
        new |= {"comx": params.get("comy"), "comy": params.get("comx")}
        new["pixel_size_x_A"], new["pixel_size_y_A"] = (
            params["pixel_size_y_A"],
            params["pixel_size_x_A"],
        )
        if params.get("masks") is not None:
            new["masks"] = np.asarray(params["masks"]).swapaxes(1, 2)
    rotation = math.degrees(optics.rotation_rad)
    positions = scan_positions_A(
        params["scan_size"],
        float(params["scan_step_A"]),
        rotation,
        transform=params.get("transform_axis_matrix"),
    )
    new |= {
        "aberrations": [float(c) for c in optics.coefficients_A],
        "aberration_sigma": None if sigma_A is None else [float(s) for s in sigma_A],
        "PLRotation_deg": rotation,
        "positions": positions / (new["pixel_size_y_A"], new["pixel_size_x_A"]),
        # C10 holds the whole defocus, and a probe or a phase of the old optics would contradict it.
        "extra_probe_defocus": 0.0,
        "beam_ctf": None,
        "probe": None,
        "probe_is_aberrated": False,
    }
    return new


def _measured_pixel(params: Params, bright: BrightField) -> tuple[dict[str, Any], BrightField]:
    """Detector pixel from the radius of the disc; a rim half a bin off is the likely error."""
    if params.get("conv_semiangle_mrad") is None:
        needed = "the semi-angle that belongs to the disc"
        raise ParamError(Problem("conv_semiangle_mrad", needed, "nothing", "Give it in mrad."))
    ratio = bright.semiangle_rad / (
        bright.radius_px * math.sqrt(math.prod(bright.dk_A)) * bright.wavelength_A
    )
    logger.info("The detector pixel is %.4f times the given one, by the disc", ratio)
    new = dict(params)
    new["rez_pixel_size_A"] = params["rez_pixel_size_A"] * ratio
    for key in ("pixel_size_x_A", "pixel_size_y_A"):
        new[key] = params[key] / ratio
    scaled = replace(
        bright,
        k_A=bright.k_A * ratio,
        comx=bright.comx * ratio,
        comy=bright.comy * ratio,
        com_variance=bright.com_variance * ratio**2,
        dk_A=(bright.dk_A[0] * ratio, bright.dk_A[1] * ratio),
    )
    return new, scaled


def _unsure_of_scale(fit: AberrationFit, radius_px: float) -> AberrationFit:
    """Errors that include that of the radius: a coefficient of order n goes with its n-th power."""
    orders = np.array([n for n, _, _ in krivanek_order(len(fit.sigma_A))])
    scale_A = orders * np.abs(fit.best.coefficients_A) * _RIM_ERROR_PX / radius_px
    return replace(fit, sigma_A=np.hypot(fit.sigma_A, scale_A))


# ---------------------------------------------------------------------------------------------
# Report
# ---------------------------------------------------------------------------------------------


def _report(fit: AberrationFit) -> str:
    best = fit.best
    values = zip(aberration_names(len(best.coefficients_A)), best.coefficients_A, fit.sigma_A,
                 strict=True)  # fmt: skip
    lines = [
        f"rotation   {_degrees(best)} ± {math.degrees(fit.rotation_sigma_rad):.2g} °",
        f"detector   {_handedness(fit)}",
        f"search     {_search(fit)}",
        *(f"{name:<10} {value:.5g} ± {sigma:.2g} Å" for name, value, sigma in values),
        f"fit        a weak phase object explains {100 * fit.explained:.1f} % of the variance, the "
        f"rest is {fit.dispersion:.3g} times Poisson noise",
        f"sign       {_sign(fit)}",
        "thickness  C10 is that at the middle of the specimen; the errors do not cover a thick one",
    ]
    return "\n".join(lines)


def _degrees(optics: Optics) -> str:
    return f"{math.degrees(optics.rotation_rad):.2f}"


def _handedness(fit: AberrationFit) -> str:
    words = "axes exchanged (transpose_patterns)" if fit.best.transposed else "axes as they are"
    if fit.rival is None:
        return f"{words}, as given"
    verdict = "" if fit.is_decided else "; UNDECIDED, try both"
    return f"{words}, {fit.handedness_sigmas:.1f} standard deviations better{verdict}"


def _search(fit: AberrationFit) -> str:
    verdict = "" if fit.is_prominent else "; DOUBTFUL, chance reaches 4"
    return f"the best place is {fit.prominence:.1f} standard deviations above the others{verdict}"


def _sign(fit: AberrationFit) -> str:
    other = fit.best.opposite
    rest = (
        f"rotation {_degrees(other)} ° with C10 = {other.coefficients_A[0]:.5g} Å (all aberrations "
        "reversed) explains a thin specimen as well, with dark atoms"
    )
    if fit.sign_given:
        return f"of C10 as given; {rest}"
    if fit.skewness < _CLEAR_SKEWNESS:
        return f"UNDECIDED (skewness of the phase {fit.skewness:.2f}); {rest}"
    return f"by bright atoms (skewness of the phase {fit.skewness:.2f}); {rest}"


def _summary(optics: Optics) -> dict[str, Any]:
    names = aberration_names(len(optics.coefficients_A))
    return {
        "aberrations_A": dict(zip(names, map(float, optics.coefficients_A), strict=True)),
        "PLRotation_deg": math.degrees(optics.rotation_rad),
        "transposed": optics.transposed,
        "gain": optics.gain,
    }


def _figure(fit: AberrationFit, step_A: float) -> Figure:
    seen = fit.landscape
    grid = (np.empty(0), np.empty(0))
    if seen is not None:
        grid = (np.degrees(seen.rotation_rad), seen.defocus_A)
    found = (
        fit.best.transposed,
        math.degrees(fit.best.rotation_rad),
        float(fit.best.coefficients_A[0]),
    )
    return plot_calibration(fit.phase, step_A, grid, seen.explained if seen else {}, found)


def _save(folder: Path, result: Calibrated) -> None:
    fit = result.fit
    rivals = [fit.best.opposite] if fit.rival is None else [fit.best.opposite, fit.rival]
    finite = math.isfinite(fit.handedness_sigmas)
    content = {
        "frame": "detector, after the exchange of its axes if `transposed`",
        **_summary(fit.best),
        "sigma_A": [float(s) for s in fit.sigma_A],
        "PLRotation_sigma_deg": math.degrees(fit.rotation_sigma_rad),
        "handedness_sigmas": fit.handedness_sigmas if finite else None,
        "prominence": fit.prominence,
        "explained": fit.explained,
        "dispersion": fit.dispersion,
        "skewness": fit.skewness,
        "sign_given": fit.sign_given,
        "alternatives": [_summary(rival) for rival in rivals],
        "report": result.report.splitlines(),
    }
    make_folder(folder)
    write_bytes(folder / "fit.json", json.dumps(content, indent=1, ensure_ascii=False).encode())
    with replacing(folder / "calibration.png") as temporary:
        result.figure.savefig(temporary, dpi=120)
