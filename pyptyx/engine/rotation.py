"""The rotation between scan and detector of an experiment.

The user's angle, else the one of least curl of the centre of mass.  Far out of focus or with few
electrons the curl hardly depends on the angle; then images from single detector pixels decide,
which move against each other as aberrations and rotation tell them to.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from pyptyx.engine.calibration import Scan
from pyptyx.engine.direct_data import open_bright_field, open_executor
from pyptyx.engine.geometry import estimate_rotation
from pyptyx.errors import DataError, ParamError, Problem, ShapeError
from pyptyx.methods.aberration_fit import AberrationFit, FitOptions, fit_aberrations

logger = logging.getLogger(__name__)

_POOR_CURL_RATIO = 0.5
"""Above this the curl hardly depends on the angle, and the rotation is a guess."""

_MOST_BINS = 300
"""Detector bins of the images: enough for an angle, in a third of the time of a calibration."""

_SURE_DEG = 3.0
"""Largest error of a rotation that is believed."""

_DARK_SKEWNESS = -0.3
"""Skewness of the phase below which its atoms are dark."""


def find_rotation(
    exp: Mapping[str, Any],
    calibrated: Mapping[str, Any],
    scan: Scan,
    comx: np.ndarray | None,
    comy: np.ndarray | None,
) -> float:
    """Rotation in degrees.

    Parameters
    ----------
    exp : mapping
        The resolved experiment.
    calibrated : mapping
        Parameters that are known already: scan, detector and where the data are.
    scan : Scan
    comx, comy : ndarray (Ny, Nx) or None
        Centres of mass, if there are any.

    Raises
    ------
    ParamError
        If an angle is needed and cannot be estimated.
    """
    if exp["PLRotation_deg"] not in (None, "auto"):
        return float(exp["PLRotation_deg"])
    if comx is None or comy is None:
        if scan.points == 1 or exp["special_postions_A"] is not None:
            return 0.0
        raise ParamError(
            Problem(
                "PLRotation_deg",
                "an angle in degrees for compressed data and for line scans",
                "auto",
                "It can only be estimated from patterns of a two-dimensional scan.",
            )
        )
    found = estimate_rotation(comx, comy)
    logger.info(
        "PLRotation_deg = %.2f from the centre of mass (or %.2f with reversed contrast; "
        "curl ratio %.3f, with flip_ky %.3f)",
        found.angle_deg,
        found.alternative_deg,
        found.curl_ratio,
        found.flipped_curl_ratio,
    )
    if min(found.curl_ratio, found.flipped_curl_ratio) <= _POOR_CURL_RATIO:
        if found.flip_ky_better:
            logger.warning(
                "The centre of mass has less curl with ky reversed: try the other flip_ky."
            )
        return found.angle_deg
    regular = exp["special_postions_A"] is None and _is_square(exp["transform_axis_matrix"])
    measured = _from_bright_field(exp, calibrated) if regular else None
    if measured is not None:
        return measured
    logger.warning(
        "The curl hardly depends on the angle, so PLRotation_deg = %.2f is a guess: "
        "give it, or let `pyptyx calibrate` measure it.",
        found.angle_deg,
    )
    return found.angle_deg


def _is_square(matrix: Any) -> bool:
    """Whether a matrix of the scan axes leaves the grid as it is."""
    return np.array_equal(np.asarray(matrix), np.eye(2))


def _from_bright_field(exp: Mapping[str, Any], calibrated: Mapping[str, Any]) -> float | None:
    """Rotation in degrees, or None if the images do not decide."""
    logger.info("The curl hardly depends on the angle: the rotation is measured in bright-field "
                "images, which takes some seconds; give PLRotation_deg to do without")  # fmt: skip
    sign = _defocus_A(exp)
    options = FitOptions(num=3, overfocus=sign > 0 if sign else None)
    try:
        bright = open_bright_field(calibrated, None, most_bins=_MOST_BINS)
        with open_executor(calibrated) as executor:
            fit = fit_aberrations(bright, options, executor=executor)
    except (DataError, ShapeError) as error:
        logger.info("No rotation from bright-field images: %s", error)
        return None
    error_deg = math.degrees(fit.rotation_sigma_rad)
    angle_deg = math.degrees(fit.best.rotation_rad)
    logger.info(
        "PLRotation_deg = %.2f ± %.2f from bright-field images, with C10 = %.4g ± %.2g Å",
        angle_deg,
        error_deg,
        fit.best.coefficients_A[0],
        fit.sigma_A[0],
    )
    if error_deg > _SURE_DEG or not fit.is_prominent:
        return None
    if fit.best.transposed:
        # The angle is that of another detector.
        if fit.is_decided:
            _warn_of_axes(fit, angle_deg, bool(exp["transpose_patterns"]))
        return None
    if fit.sign_given and fit.skewness < _DARK_SKEWNESS:
        logger.warning(
            "With the sign of the given defocus atoms are dark. If they should not be, reverse it; "
            "PLRotation_deg is then %.2f.",
            math.degrees(fit.best.opposite.rotation_rad),
        )
    return angle_deg


def _defocus_A(exp: Mapping[str, Any]) -> float:
    """C10 as far as the user knows it; 0 says nothing."""
    aberrations = exp.get("aberrations")
    first = 0.0 if aberrations is None or not len(aberrations) else float(aberrations[0])
    return first + float(exp["defocus"] or 0.0)


def _warn_of_axes(fit: AberrationFit, angle_deg: float, transposed: bool) -> None:
    logger.warning(
        "Bright-field images agree with the scan if the detector axes are exchanged (better by "
        "%.0f standard deviations): try transpose_patterns = %s, PLRotation_deg = %.2f.",
        fit.handedness_sigmas,
        not transposed,
        angle_deg,
    )
