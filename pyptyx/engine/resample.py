"""The object along the beam: more or thinner slices; the object in the frame of the scan."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.ndimage import map_coordinates

from pyptyx.engine.geometry import rotate_points
from pyptyx.errors import ParamError, Problem, ShapeError

Params = dict[str, Any]


def resample_slices(
    o: np.ndarray,
    params: Params,
    refactor_thickness: float = 1,
    N_before: int = 0,
    N_after: int = 0,
) -> tuple[np.ndarray, Params]:
    """Add vacuum slices, then make all slices thinner by a factor.

    For a factor ``f`` the transmission is interpolated linearly along z at the new spacing
    ``d / f`` (``ceil(Nz f)`` slices, the last step is continued beyond the end) and raised to the
    power ``1 / f``, on the principal branch: no slice may have a phase beyond ±π.

    Parameters
    ----------
    o : ndarray (Y, X, Nz, Mo), complex
        The object; not modified.
    params : dict
        With ``slice_distances``, of one common or one distance per gap or slice.  Receives ``obj``,
        ``slice_distances``, ``num_slices`` and ``total_thickness``.
    refactor_thickness : float
        The factor; 2 makes twice as many slices.
    N_before, N_after : int
        Vacuum slices before and after, as thick as the first and the last one.

    Returns
    -------
    obj : ndarray (Y, X, Nz', Mo)
    params : dict
        The same dictionary.

    Raises
    ------
    ParamError
        If the factor is not positive, a count is negative, or several distances are to be refined.
    ShapeError
        If the object does not have four axes.
    """
    distances = np.atleast_1d(np.asarray(params["slice_distances"], dtype=np.float64))
    problems = _problems(o, distances, refactor_thickness, (N_before, N_after))
    if problems:
        raise ParamError(problems) if o.ndim == 4 else ShapeError(problems)
    obj = np.pad(o, ((0, 0), (0, 0), (N_before, N_after), (0, 0)), constant_values=1)
    if len(distances) > 1:
        distances = np.pad(distances, (N_before, N_after), mode="edge")
    if refactor_thickness != 1:
        obj = _refined(obj, refactor_thickness)
        distances = distances / refactor_thickness
    slices = obj.shape[2]
    per_slice = np.pad(distances, (0, max(slices - len(distances), 0)), mode="edge")[:slices]
    params["obj"], params["slice_distances"] = obj, distances
    params["num_slices"], params["total_thickness"] = slices, float(per_slice.sum())
    return obj, params


def _problems(
    o: np.ndarray, distances: np.ndarray, factor: float, added: tuple[int, int]
) -> list[Problem]:
    found = []
    if o.ndim != 4:
        found.append(Problem("o", "shape (Y, X, Nz, Mo)", str(o.shape), "Add axes."))
    if not (math.isfinite(factor) and factor > 0):
        found.append(Problem("refactor_thickness", "a positive number", f"{factor}"))
    elif factor != 1 and len(distances) > 1:
        expected = "one common slice distance when slices are made thinner"
        found.append(Problem("slice_distances", expected, f"{len(distances)} of them"))
    for key, count in zip(("N_before", "N_after"), added, strict=True):
        if count < 0:
            found.append(Problem(key, "a number of slices, not negative", str(count)))
    return found


def _refined(obj: np.ndarray, factor: float) -> np.ndarray:
    count = obj.shape[2]
    z = np.arange(math.ceil(count * factor - 1e-9)) / factor
    lower = np.clip(np.floor(z).astype(int), 0, max(count - 2, 0))
    upper = np.minimum(lower + 1, count - 1)
    part = (z - lower)[:, None]
    thick = obj[:, :, lower] * (1 - part) + obj[:, :, upper] * part
    return np.abs(thick) ** (1 / factor) * np.exp(1j * np.angle(thick) / factor)


def scan_region(o: np.ndarray, params: Mapping[str, Any], order: int = 3) -> np.ndarray:
    """The scanned part of an object, turned into the frame of the scan.

    The region is centred on the mean beam position (without ``positions``, on the middle of the
    object) and as large as the scan; what lies outside the object is 1.

    Parameters
    ----------
    o : ndarray (Y, X, ...)
        Object or an image of it, real or complex.
    params : mapping
        With ``scan_size``, ``scan_step_A``, ``PLRotation_deg`` and the pixel sizes, optionally
        ``positions`` and ``probe`` or ``aperture_mask`` for the size of the window.
    order : int
        Order of the spline.

    Returns
    -------
    ndarray (rows, columns, ...)
        ``round(scan_size · step / pixel)`` pixels along each axis.

    Raises
    ------
    ShapeError
        If the scan is smaller than half a pixel.
    """
    pixel = np.array([params["pixel_size_y_A"], params["pixel_size_x_A"]], dtype=np.float64)
    extent = np.asarray(params["scan_size"], dtype=np.float64) * params["scan_step_A"]
    rows, columns = (int(n) for n in np.rint(extent / pixel))
    if min(rows, columns) < 1:
        expected = f"a scan of at least one pixel ({pixel[0]:g} x {pixel[1]:g} Å)"
        raise ShapeError(Problem("scan_step_A", expected, f"{extent[0]:g} x {extent[1]:g} Å"))
    offsets = np.indices((rows, columns), dtype=np.float64).reshape(2, -1).T
    offsets -= (np.array([rows, columns]) - 1) / 2
    turned = rotate_points(offsets * pixel, float(params.get("PLRotation_deg") or 0.0)) / pixel
    points = (turned + _centre(o, params)).T.reshape(2, rows, columns)
    stack = o.reshape(*o.shape[:2], -1)
    images = [
        map_coordinates(stack[..., k], points, order=order, mode="constant", cval=1)
        for k in range(stack.shape[2])
    ]
    return np.stack(images, axis=-1).reshape(rows, columns, *o.shape[2:])


def _centre(o: np.ndarray, params: Mapping[str, Any]) -> np.ndarray:
    positions = params.get("positions")
    shapes = [np.shape(params.get(key, ()))[:2] for key in ("probe", "aperture_mask")]
    window = next((shape for shape in shapes if len(shape) == 2), None)
    if positions is None or window is None:
        return (np.array(o.shape[:2]) - 1) / 2
    return np.mean(positions, axis=0) + np.array(window) // 2
