"""Calibration of an experiment: scan, detector, positions and slices.

Functions read the resolved experiment dictionary and return plain values; nothing is written back.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyptyx.engine.geometry import scan_positions_A
from pyptyx.engine.metadata import Metadata
from pyptyx.engine.patterns import model_pixels, on_data_grid, replicate
from pyptyx.errors import DataError, ParamError, Problem, ShapeError
from pyptyx.methods.disc import find_disc
from pyptyx.physics.grid import fast_pad

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scan:
    """Where the beam was: points ``(Ny, Nx)``, step in Å or None, field of view in nm or None."""

    size: tuple[int, int]
    step_A: float | None
    fov_nm: float | None

    @property
    def points(self) -> int:
        """Number of scan points."""
        return self.size[0] * self.size[1]


@dataclass(frozen=True)
class Calibration:
    """Sampling of detector and window.

    Attributes
    ----------
    rez_A : float
        Pixel of the model's pattern (binned, upsampled) in 1/Å.
    aperture : ndarray
        Bright-field disc, padded to the window, zero frequency at ``n // 2``; of bool unless given.
    radius_px : float
        Radius of the disc with the area of the aperture.
    inner : tuple of int
        The model's pattern ``(ny, nx)`` before padding.
    data_pad : int
        Pixels added on each side.
    """

    rez_A: float
    aperture: np.ndarray
    radius_px: float
    inner: tuple[int, int]
    data_pad: int

    @property
    def pixel_A(self) -> tuple[float, float]:
        """Real-space pixel ``(y, x)`` in Å."""
        ny, nx = self.aperture.shape
        return 1 / (self.rez_A * ny), 1 / (self.rez_A * nx)


def find_scan(
    exp: Mapping[str, Any], metadata: Metadata, patterns: int, of_data: tuple[int, int] | None
) -> Scan:
    """Scan size, step and field of view, from the data, the user and the metadata in this order."""
    problems = []
    if not (exp["acc_voltage"] or exp.get("wavelength_A")):
        problems.append(
            Problem("acc_voltage", "the accelerating voltage in kV", "nothing", "For example 300.")
        )
    special = exp["special_postions_A"]
    size = of_data or exp["scan_size"] or metadata.scan_size
    if size is None and (special is not None or patterns == 1):
        size = (1, patterns)
    if size is None:
        problems.append(
            Problem("scan_size", f"(Ny, Nx) with Ny x Nx = {patterns}", "nothing", "Give it.")
        )
        raise ParamError(problems)
    size = (int(size[0]), int(size[1]))
    if size[0] * size[1] != patterns:
        raise DataError(
            Problem(
                "scan_size",
                f"Ny x Nx = {patterns}, the number of patterns",
                f"{size[0]} x {size[1]} = {size[0] * size[1]}",
                "Correct scan_size, or cut the data.",
            )
        )
    step, fov = exp["scan_step_A"], exp["fov_nm"] or metadata.fov_nm
    intervals = size[1] if exp["fov_convention"] == "pixels" else size[1] - 1
    if step is None and fov and intervals:
        step = 10 * fov / intervals
        logger.info("scan_step_A = %.6g from a field of view of %g nm", step, fov)
    if not step and special is None and patterns > 1:
        problems.append(
            Problem(
                "scan_step_A",
                "the scan step in Å, or fov_nm, or special_postions_A",
                "none of them",
                "Without a step all positions would be the same.",
            )
        )
    if problems:
        raise ParamError(problems)
    if fov is None and step:
        fov = step * intervals / 10
    return Scan(size, step, fov)


def calibrate(exp: Mapping[str, Any], mean: np.ndarray, wavelength: float) -> Calibration:
    """Aperture, padding and sampling from the mean pattern ``(ky, kx)`` and the user's numbers.

    ``data_bin`` and ``data_shift_vector`` are among these; the mean pattern is that of the file.
    """
    upsample = int(exp["upsample_pattern"])
    pattern = replicate(on_data_grid(mean, exp), upsample)
    aperture = exp["aperture"]
    if aperture is None:
        aperture = pattern > exp["bright_threshold"] * pattern.max()
    if aperture.shape != pattern.shape:
        raise ShapeError(
            Problem(
                "aperture",
                f"the shape of the binned and upsampled pattern, {pattern.shape}",
                str(aperture.shape),
                "Leave out data_pad, it is added afterwards.",
            )
        )
    if not aperture.any():
        raise DataError(
            Problem("aperture", "a bright-field disc", "no pixel", "Check data, bright_threshold.")
        )
    radius = math.sqrt(aperture.sum() / aperture.max() / math.pi)
    data_pad = exp["data_pad"]
    if data_pad is None:
        data_pad = _automatic_pad(pattern.shape, upsample)
    return Calibration(
        rez_A=_reciprocal_pixel_A(exp, pattern, radius, wavelength),
        aperture=np.pad(aperture, int(data_pad)),
        radius_px=radius,
        inner=(pattern.shape[0], pattern.shape[1]),
        data_pad=int(data_pad),
    )


def _automatic_pad(shape: tuple[int, ...], upsample: int) -> int:
    """A quarter of the pattern, or up to half as much again for a window with fast transforms."""
    # A whole number of measured pixels, or data and model could not be compared.
    least = upsample * math.ceil(math.ceil(max(shape) / 4) / upsample)
    fast = fast_pad(shape, least, least + least // 2, upsample)
    return least if fast is None else fast


def _reciprocal_pixel_A(
    exp: Mapping[str, Any], pattern: np.ndarray, radius_px: float, wavelength: float
) -> float:
    """Pixel of the model's pattern in 1/Å; angles win over 1/Å, and both over the disc radius."""
    if exp["rez_pixel_size_mrad"] is not None:
        return exp["rez_pixel_size_mrad"] * 1e-3 / wavelength / model_pixels(exp)
    if exp["rez_pixel_size_A"] is not None:
        return exp["rez_pixel_size_A"] / model_pixels(exp)
    if exp["conv_semiangle_mrad"] is None:
        raise ParamError(
            Problem(
                "rez_pixel_size_A",
                "a calibration of the detector: rez_pixel_size_A (1/Å), rez_pixel_size_mrad or "
                "conv_semiangle_mrad",
                "none of them",
                "The metadata file does not hold it.",
            )
        )
    if exp["aperture"] is None:
        # A halo of scattered electrons lies above a low threshold, too: 10 % of the radius in ice.
        radius_px = find_disc(pattern, (1.0, 1.0)).radius_px
    rez = exp["conv_semiangle_mrad"] * 1e-3 / (radius_px * wavelength)
    logger.warning(
        "rez_pixel_size_A = %.5g 1/Å per upsampled pixel estimated from the bright-field disc "
        "(radius %.2f px); its rim makes this one or two percent uncertain",
        rez,
        radius_px,
    )
    return rez


def positions_px(
    exp: Mapping[str, Any], scan: Scan, rotation_deg: float, calibration: Calibration
) -> np.ndarray:
    """Positions ``(N, 2)`` in reconstruction pixels, smallest coordinate 0."""
    special = exp["special_postions_A"]
    if special is None:
        positions_A = scan_positions_A(
            scan.size,
            scan.step_A or 0.0,
            rotation_deg,
            transform=exp["transform_axis_matrix"],
        )
    else:
        positions_A = np.asarray(special, dtype=np.float64)
        if positions_A.shape != (scan.points, 2):
            raise ShapeError(
                Problem(
                    "special_postions_A",
                    f"shape ({scan.points}, 2)",
                    str(positions_A.shape),
                    "Give (y, x) in Å for every pattern.",
                )
            )
        positions_A = positions_A - positions_A.min(axis=0)
    return positions_A / np.asarray(calibration.pixel_A)


def count_slices(exp: Mapping[str, Any], calibration: Calibration, wavelength: float) -> int:
    """Number of slices: the user's, or from a thickness that the depth resolution allows."""
    thickness, total = exp["slice_thickness"], exp["total_thickness"]
    semiangle = exp["conv_semiangle_mrad"]
    alpha = (
        semiangle * 1e-3
        if semiangle is not None
        else calibration.radius_px * calibration.rez_A * wavelength
    )
    estimate = slice_thickness_A(alpha, calibration.rez_A, max(calibration.inner))
    automatic = _slices_of(total, estimate)
    if thickness is None:
        if automatic != exp["num_slices"]:
            logger.info(
                "num_slices = %d as given; the automatic rule (%.2f Å per slice) would take %d",
                exp["num_slices"],
                estimate,
                automatic,
            )
        return int(exp["num_slices"])
    return automatic if isinstance(thickness, str) else _slices_of(total, thickness)


def _slices_of(total_A: float, thickness_A: float) -> int:
    return max(1, math.ceil(total_A / thickness_A - 1e-9))


def slice_thickness_A(alpha_rad: float, rez_A: float, width_px: int) -> float:
    """Slice thickness ``0.5 / (α q_max)`` in Å, with ``q_max`` the edge of the pattern."""
    return 1 / (alpha_rad * rez_A * width_px)
