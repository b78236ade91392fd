"""A start object from images sampled at the scan points."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.interpolate import CloughTocher2DInterpolator

from pyptyx.engine.start import first_sequence
from pyptyx.errors import ParamError, Problem, ShapeError

_PHASE_PER_SLICE = 0.75 * math.pi
"""A slice with more phase than this wraps too easily."""


def object_from_scan(
    params: Mapping[str, Any],
    phase: np.ndarray | None,
    amplitude: np.ndarray | None,
    *,
    num_slices: int | str | None = None,
    scales: tuple[float, float] = (1.0, 1.0),
    points_A: np.ndarray | None = None,
    fill: str | None = None,
) -> tuple[np.ndarray, int]:
    """Interpolate phase and amplitude images onto the object grid and share them among the slices.

    Parameters
    ----------
    params : mapping
        With ``positions``, pixel sizes, ``aperture_mask`` or ``probe`` (for the window), and
        optionally ``num_slices``, ``sequence``, ``use_full_FOV``.
    phase, amplitude : ndarray or None
        Values at the scan points, any shape with N elements; total phase in rad.
    num_slices : int, "auto" or None
        None takes the parameter, ``"auto"`` one slice per 0.75 π of phase range.
    scales : tuple of float
        Factors of phase (total) and amplitude (per slice).
    points_A : ndarray (N, 2), optional
        Sample points (y, x) in Å instead of the positions.
    fill : str, optional
        Outside the scan: None is vacuum (phase 0, amplitude 1), ``"median"`` the median,
        ``"edge"`` a value typical of the border.

    Returns
    -------
    tuple
        Object ``(Y, X, Nz, 1)`` complex128 and the number of slices.

    Raises
    ------
    ParamError
        If neither image is given.
    ShapeError
        If an image does not have one value per point.
    """
    if phase is None and amplitude is None:
        raise ParamError(
            Problem("array_phase", "array_phase or array_abs", "neither", "Give an image.")
        )
    slices = _count_slices(params, phase, num_slices)
    points, shape = _canvas(params, points_A)
    angle, modulus = np.zeros(shape), np.ones(shape)
    if phase is not None:
        image = np.asarray(phase, dtype=np.float64)
        angle = _spread("array_phase", image, points, shape, _phase_fill(image, fill))
    if amplitude is not None:
        image = np.asarray(amplitude, dtype=np.float64)
        modulus = _spread("array_abs", image, points, shape, _amplitude_fill(image, fill))
        modulus = np.maximum(modulus, 0.0)
    scale_phase, scale_abs = scales
    one = scale_abs * modulus ** (1 / slices) * np.exp(1j * scale_phase * angle / slices)
    return np.repeat(one[:, :, None, None], slices, axis=2), slices


def _count_slices(
    params: Mapping[str, Any], phase: np.ndarray | None, asked: int | str | None
) -> int:
    if asked == "auto":
        return max(1, math.ceil(np.ptp(phase) / _PHASE_PER_SLICE)) if phase is not None else 1
    return int(params.get("num_slices", 1) if asked is None else asked)


def _canvas(
    params: Mapping[str, Any], points_A: np.ndarray | None
) -> tuple[np.ndarray, tuple[int, int]]:
    """Sample points in whole object pixels (beam centres), and the shape of the object."""
    positions = np.rint(np.asarray(params["positions"], dtype=np.float64))
    window_of = params.get("aperture_mask")
    if window_of is None or np.ndim(window_of) < 2:
        window_of = params["probe"]
    window = np.array(np.shape(window_of)[:2])
    pixel = np.array([params["pixel_size_y_A"], params["pixel_size_x_A"]])
    points = positions if points_A is None else np.asarray(points_A, dtype=np.float64) / pixel
    if not params.get("use_full_FOV", True):
        used = first_sequence({"sequence": params.get("sequence")})
        origin = positions[used].min(axis=0)
        extent = np.ptp(positions[used], axis=0)
        points = points - origin
    else:
        extent = positions.max(axis=0)
    rows, columns = (extent + window).astype(int)
    return np.rint(points) + window // 2, (int(rows), int(columns))


def _spread(
    key: str, image: np.ndarray, points: np.ndarray, shape: tuple[int, int], fill: float
) -> np.ndarray:
    if image.size != len(points):
        raise ShapeError(Problem(key, f"{len(points)} values, one per point", f"{image.size}"))
    interpolate = CloughTocher2DInterpolator(points, image.ravel(), fill_value=fill)
    y, x = np.mgrid[: shape[0], : shape[1]]
    return interpolate(y, x)


def _borders(image: np.ndarray, width: int) -> list[np.ndarray]:
    return [image[:width], image[-width:], image[:, :width], image[:, -width:]]


def _phase_fill(image: np.ndarray, fill: str | None) -> float:
    if fill == "median":
        return float(np.median(image))
    if fill == "edge" and image.ndim == 2:
        return float(max(strip.min() for strip in _borders(image, 3)))
    return 0.0


def _amplitude_fill(image: np.ndarray, fill: str | None) -> float:
    if fill == "median":
        return float(np.median(image))
    if fill == "edge" and image.ndim == 2:
        return float(np.mean([strip.mean() for strip in _borders(image, 1)]))
    return 1.0
