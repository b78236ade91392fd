"""Set-up under PyPty's names: attach an experiment, scan geometry, start guesses, the beam.

Dictionaries are taken first, changed and returned, as PyPty does.  Positions are columns (y, x).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pyptyx.data.convert import create_pypty_data
from pyptyx.engine import geometry
from pyptyx.engine.beam import (
    append_aperture_to_params,
    conjugate_beam,
    get_approx_beam_tilt,
    get_focussed_probe_from_vacscan,
    tiltbeamtodata,
)
from pyptyx.engine.describe import describe
from pyptyx.engine.experiment import append_exp_params
from pyptyx.engine.object_guess import object_from_scan
from pyptyx.engine.resume import prepare_restart

__all__ = [
    "append_aperture_to_params",
    "append_exp_params",
    "conjugate_beam",
    "create_aberrations_chunks",
    "create_probe_marker_chunks",
    "create_pypty_data",
    "create_sequence_from_points",
    "create_sub_sequence",
    "describe",
    "get_approx_beam_tilt",
    "get_focussed_probe_from_vacscan",
    "get_grid_for_upsampled_image",
    "get_offset",
    "get_positions_pixel_size",
    "get_ptycho_obj_from_scan",
    "prepare_restart",
    "rotate_scan_grid",
    "tiltbeamtodata",
]

Params = dict[str, Any]


def get_positions_pixel_size(  # noqa: PLR0913 - PyPty's signature
    x_range: int,
    y_range: int,
    scan_step_A: float,
    detector_pixel_size_rezA: float,
    patternshape: Sequence[int],
    rot_angle_deg: float = 0,
    flip_x: bool = False,
    flip_y: bool = False,
    print_flag: bool = False,
    transform_axis_matrix: Any = None,
) -> tuple[np.ndarray, float]:
    """Raster-scan positions in reconstruction pixels, and the pixel size.

    Parameters
    ----------
    x_range, y_range : int
        Scan points along the fast and the slow axis.
    scan_step_A : float
        Scan step in Å.
    detector_pixel_size_rezA : float
        Detector pixel in 1/Å.
    patternshape : sequence of int
        Shape whose last two entries are ``(ky, kx)``.
    rot_angle_deg : float
        Minus the scan rotation: pass ``-PLRotation_deg``.
    flip_x, flip_y : bool
        Reverse a scan axis.
    print_flag : bool
        Has no effect.
    transform_axis_matrix : array (2, 2), optional
        Matrix in (y, x) order applied to the scan indices before the rotation.

    Returns
    -------
    positions : ndarray (y_range * x_range, 2)
        Columns (y, x) in pixels of their own axis.
    pixel_size : float
        Å along x; along y it is ``1 / (detector_pixel_size_rezA * ky)``.
    """
    pixel_A = 1 / (detector_pixel_size_rezA * np.asarray(patternshape[-2:], dtype=np.float64))
    positions = geometry.scan_positions_A(
        (y_range, x_range),
        scan_step_A,
        -rot_angle_deg,
        flip=(bool(flip_y), bool(flip_x)),
        transform=transform_axis_matrix,
    )
    return positions / pixel_A, float(pixel_A[1])


def get_offset(
    x_range: int,
    y_range: int,
    scan_step_A: float,
    detector_pixel_size_rezA: float,
    patternshape: Sequence[int],
    rot_angle_deg: float = 0,
) -> tuple[float, float]:
    """Position ``(y, x)`` in Å of the first scan point.

    Parameters as in `get_positions_pixel_size`; those of the detector have no effect.
    """
    return geometry.scan_offset_A((y_range, x_range), scan_step_A, -rot_angle_deg)


def get_grid_for_upsampled_image(
    pypty_params: Params,
    image: np.ndarray,
    image_pixel_size: float,
    left_zero_of_scan_grid: float = 0,
    top_zero_of_scan_grid: float = 0,
) -> np.ndarray:
    """Positions in Å of the pixels of an image recorded in the frame of the scan.

    Parameters
    ----------
    pypty_params : dict
        With ``scan_size``, ``scan_step_A`` and ``PLRotation_deg``.
    image : ndarray (rows, columns)
        The image; only its shape counts.
    image_pixel_size : float
        Å.
    left_zero_of_scan_grid, top_zero_of_scan_grid : float
        Image pixel of the first scan point.

    Returns
    -------
    ndarray (rows * columns, 2)
        Columns (y, x), row-major.
    """
    scan = (
        pypty_params["scan_size"],
        pypty_params["scan_step_A"],
        pypty_params.get("transform_axis_matrix"),
    )
    origin = (top_zero_of_scan_grid, left_zero_of_scan_grid)
    angle = pypty_params["PLRotation_deg"]
    return geometry.image_grid_A(image.shape, image_pixel_size, origin, angle, scan)


def rotate_scan_grid(
    pypty_params: Params, angle_deg: float | None = None, new_pl_rot: float | None = None
) -> Params:
    """Rotate the positions by `angle_deg`, or to the scan rotation `new_pl_rot` (degrees).

    ``positions`` is replaced by a new array, equal to the one made for the new ``PLRotation_deg``.
    """
    old = pypty_params.get("PLRotation_deg") or 0.0
    change = angle_deg if new_pl_rot is None else new_pl_rot - old
    change = change or 0.0
    pixel_A = (pypty_params.get("pixel_size_y_A", 1.0), pypty_params.get("pixel_size_x_A", 1.0))
    pypty_params["positions"] = geometry.rotated_positions(
        pypty_params["positions"], change, pixel_A
    )
    pypty_params["PLRotation_deg"] = old + change
    return pypty_params


def get_ptycho_obj_from_scan(
    params: Params,
    num_slices: int | str | None = None,
    array_phase: np.ndarray | None = None,
    array_abs: np.ndarray | None = None,
    scale_phase: float = 1,
    scale_abs: float = 1,
    scan_array_A: np.ndarray | None = None,
    fill_value_type: str | None = None,
) -> Params:
    """Make ``obj`` from images of phase and amplitude sampled at the scan points.

    Writes ``obj``, ``num_slices`` and ``slice_distances``; see
    `pyptyx.engine.object_guess.object_from_scan` for the parameters.
    """
    params["obj"], slices = object_from_scan(
        params,
        array_phase,
        array_abs,
        num_slices=num_slices,
        scales=(scale_phase, scale_abs),
        points_A=scan_array_A,
        fill=fill_value_type,
    )
    params["num_slices"] = slices
    params["slice_distances"] = np.array([params.get("total_thickness", 1.0) / slices])
    return params


def create_aberrations_chunks(pypty_params: Params, chop_size: int, n_abs: int) -> Params:
    """Give each tile of ``chop_size x chop_size`` scan points its own `n_abs` aberrations, zero.

    Writes ``aberration_marker (N,)`` and ``aberrations_array (tiles, n_abs)`` float32.
    """
    marker = geometry.chunk_labels(pypty_params["scan_size"], chop_size)
    pypty_params["aberration_marker"] = marker
    pypty_params["aberrations_array"] = np.zeros((marker.max() + 1, n_abs), dtype=np.float32)
    return pypty_params


def create_probe_marker_chunks(pypty_params: Params, chop_size: int) -> Params:
    """Give each tile of ``chop_size x chop_size`` scan points its own probe.

    Writes ``probe_marker (N,)``; the engine makes the copies of the probe.
    """
    pypty_params["probe_marker"] = geometry.chunk_labels(pypty_params["scan_size"], chop_size)
    return pypty_params


def create_sub_sequence(
    pypty_params: Params, left: int, top: int, width: int, height: int, sub: int
) -> Params:
    """Use a rectangle of scan points, every `sub`-th along both axes, clipped to the scan.

    Writes ``sequence``, a sorted list of indices.
    """
    pypty_params["sequence"] = geometry.rectangle_sequence(
        pypty_params["scan_size"], (top, left), (height, width), sub
    )
    return pypty_params


def create_sequence_from_points(
    pypty_params: Params, yf: Sequence[int], xf: Sequence[int], width_roi: int = 20
) -> list[int]:
    """Indices of squares of `width_roi` scan points around points (rows `yf`, columns `xf`)."""
    return geometry.points_sequence(pypty_params["scan_size"], yf, xf, width_roi)
