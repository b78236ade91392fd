"""Scan geometry: where the beam was, in the frame of the detector.

Conventions
-----------
Rotation φ (``PLRotation_deg``) carries scan step ``(y, x)`` into the detector frame as
``x' = x cosφ - y sinφ``, ``y' = x sinφ + y cosφ``: with y down, positive φ turns the scan grid
clockwise.  Centre-of-mass vectors measured on the detector are turned by -φ to be in the scan
frame.

Points are columns ``(y, x)``, scan points in row-major order (x fastest), lengths in Å.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyptyx.errors import ParamError, Problem, ShapeError

Array = np.ndarray


def rotate_points(points: Array, angle_deg: float) -> Array:
    """Turn points ``(N, 2)``, columns (y, x), clockwise by `angle_deg` (y down); a new array."""
    c, s = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    y, x = points[:, 0], points[:, 1]
    return np.stack([x * s + y * c, x * c - y * s], axis=1)


def _scan_vectors_A(
    scan_size: Sequence[int],
    step_A: float,
    angle_deg: float,
    flip: tuple[bool, bool],
    transform: Any,
) -> Array:
    """Scan points in Å relative to the first one, in the detector frame, ``(N, 2)``."""
    index = np.indices((int(scan_size[0]), int(scan_size[1])), dtype=np.float64).reshape(2, -1)
    index *= np.where(flip, -1.0, 1.0)[:, None]
    matrix = np.eye(2) if transform is None else np.asarray(transform, dtype=np.float64)
    return rotate_points((matrix @ index).T, angle_deg) * step_A


def scan_positions_A(
    scan_size: Sequence[int],
    step_A: float,
    angle_deg: float = 0.0,
    *,
    flip: tuple[bool, bool] = (False, False),
    transform: Any = None,
) -> Array:
    """Positions of a raster scan in Å, smallest coordinate 0 along each axis.

    Parameters
    ----------
    scan_size : sequence of int
        ``(Ny, Nx)``.
    step_A : float
        Scan step in Å.
    angle_deg : float
        Scan rotation φ (``PLRotation_deg``) in degrees.
    flip : tuple of bool
        Reverse the scan along ``(y, x)``.
    transform : array (2, 2), optional
        Matrix in (y, x) order that acts on the scan indices before the rotation.

    Returns
    -------
    array (Ny * Nx, 2), float64
        Columns (y, x) in Å.
    """
    vectors = _scan_vectors_A(scan_size, step_A, angle_deg, flip, transform)
    return vectors - vectors.min(axis=0)


def scan_offset_A(
    scan_size: Sequence[int], step_A: float, angle_deg: float = 0.0, transform: Any = None
) -> tuple[float, float]:
    """Position ``(y, x)`` in Å of the first scan point in the frame of `scan_positions_A`."""
    vectors = _scan_vectors_A(scan_size, step_A, angle_deg, (False, False), transform)
    y, x = -vectors.min(axis=0)
    return float(y) + 0.0, float(x) + 0.0


def image_grid_A(
    image_shape: Sequence[int],
    image_pixel_A: float,
    origin_px: tuple[float, float],
    angle_deg: float,
    scan: tuple[Sequence[int], float, Any],
) -> Array:
    """Detector-frame coordinates in Å of the pixels of an image recorded in the scan frame.

    Parameters
    ----------
    image_shape : sequence of int
        ``(rows, columns)``.
    image_pixel_A : float
        Pixel size of the image in Å.
    origin_px : tuple of float
        Image pixel ``(row, column)`` that coincides with the first scan point.
    angle_deg : float
        Scan rotation in degrees.
    scan : tuple
        ``(scan_size, step_A, transform)`` of the scan.

    Returns
    -------
    array (rows * columns, 2)
        Columns (y, x), row-major, in the frame of `scan_positions_A`.
    """
    scan_size, step_A, transform = scan
    rows, columns = (int(n) for n in image_shape)
    pixels = np.indices((rows, columns), dtype=np.float64).reshape(2, -1).T - np.asarray(origin_px)
    matrix = np.eye(2) if transform is None else np.asarray(transform, dtype=np.float64)
    points = rotate_points(pixels @ matrix.T, angle_deg) * image_pixel_A
    return points + np.asarray(scan_offset_A(scan_size, step_A, angle_deg, transform))


def rotated_positions(
    positions_px: Array, change_deg: float, pixel_A: tuple[float, float]
) -> Array:
    """Positions in px turned by `change_deg`, smallest coordinate 0; a new array.

    `pixel_A` is the pixel size ``(y, x)``: pixels that are not square turn in Å.
    """
    size = np.asarray(pixel_A, dtype=np.float64)
    turned = rotate_points(np.asarray(positions_px, dtype=np.float64) * size, change_deg)
    return (turned - turned.min(axis=0)) / size


# ---------------------------------------------------------------------------------------------
# Rotation from the centre of mass
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RotationEstimate:
    """What `estimate_rotation` found.

    Attributes
    ----------
    angle_deg : float
        Scan rotation, in (-180, 180].
    alternative_deg : float
        The other branch, 180° away (contrast reversed).
    curl_ratio : float
        Smallest over largest curl variance over all angles: 0 is a perfect gradient field, 1 says
        nothing about the angle.
    flipped_curl_ratio : float
        The same with ky reversed.
    flip_ky_better : bool
        Whether reversed ky fits clearly better.
    skewness : float
        Skewness of the integrated phase at `angle_deg` (>= 0 by choice of the branch).
    """

    angle_deg: float
    alternative_deg: float
    curl_ratio: float
    flipped_curl_ratio: float
    flip_ky_better: bool
    skewness: float


def _least_curl(comx: Array, comy: Array) -> tuple[float, float]:
    """Angle in rad, in (-π/2, π/2], of least curl variance, and the ratio of least to largest."""
    a = np.gradient(comx, axis=0) - np.gradient(comy, axis=1)
    b = np.gradient(comx, axis=1) + np.gradient(comy, axis=0)
    var_a, var_b = a.var(), b.var()
    cov = ((a - a.mean()) * (b - b.mean())).mean()
    # curl(φ) = a cosφ + b sinφ, so its variance is mean + swing · cos(2φ - const).
    mean, swing = (var_a + var_b) / 2, math.hypot((var_a - var_b) / 2, cov)
    ratio = (mean - swing) / (mean + swing) if mean + swing > 0 else 1.0
    return 0.5 * math.atan2(-2 * cov, var_b - var_a), float(ratio)


def _integrate(gy: Array, gx: Array) -> Array:
    """Least-squares potential of a vector field, mirrored at the borders, zero mean."""
    ny, nx = gy.shape
    even_x, odd_x = np.hstack([gy, gy[:, ::-1]]), np.hstack([gx, -gx[:, ::-1]])
    spec_y = np.fft.fft2(np.vstack([even_x, -even_x[::-1]]))
    spec_x = np.fft.fft2(np.vstack([odd_x, odd_x[::-1]]))
    fy, fx = np.fft.fftfreq(2 * ny)[:, None], np.fft.fftfreq(2 * nx)[None, :]
    f2 = fy**2 + fx**2
    f2[0, 0] = 1.0
    return np.fft.ifft2((fy * spec_y + fx * spec_x) / (2j * np.pi * f2)).real[:ny, :nx]


def estimate_rotation(comx: Array, comy: Array) -> RotationEstimate:
    """Scan rotation from centre-of-mass images, in closed form.

    The rotation is the angle at which the field, turned into the scan frame, has least curl.
    The remaining ambiguity of 180° is the sign of the contrast; the branch is taken whose
    integrated phase has positive skewness, which is right for atom-like objects.

    Parameters
    ----------
    comx, comy : array (Ny, Nx)
        Centre of mass of the patterns along detector x and y, any common unit.

    Returns
    -------
    RotationEstimate

    Raises
    ------
    ShapeError
        If the images differ in shape or have an axis shorter than two points.
    """
    comx, comy = np.asarray(comx, dtype=np.float64), np.asarray(comy, dtype=np.float64)
    if comx.shape != comy.shape or comx.ndim != 2 or min(comx.shape) < 2:
        raise ShapeError(
            Problem(
                "PLRotation_deg",
                "two centre-of-mass images of the same shape with at least 2 x 2 scan points",
                f"shapes {comx.shape} and {comy.shape}",
                "Give PLRotation_deg in degrees.",
            )
        )
    angle, ratio = _least_curl(comx, comy)
    _, flipped = _least_curl(comx, -comy)
    c, s = math.cos(angle), math.sin(angle)
    cx, cy = comx - comx.mean(), comy - comy.mean()
    phase = _integrate(-cx * s + cy * c, cx * c + cy * s)
    phase -= phase.mean()
    spread = phase.std()
    skewness = float((phase**3).mean() / spread**3) if spread > 0 else 0.0
    best, other = math.degrees(angle), math.degrees(angle)
    if skewness < 0:
        best += -180.0 if best > 0 else 180.0
    else:
        other += -180.0 if other > 0 else 180.0
    return RotationEstimate(
        angle_deg=best,
        alternative_deg=other,
        curl_ratio=ratio,
        flipped_curl_ratio=flipped,
        flip_ky_better=flipped < 0.8 * ratio,
        skewness=abs(skewness),
    )


# ---------------------------------------------------------------------------------------------
# Chunks and sequences of scan points
# ---------------------------------------------------------------------------------------------


def chunk_labels(scan_size: Sequence[int], chop_size: int) -> Array:
    """Label of the ``chop_size x chop_size`` tile each scan point lies in.

    Returns
    -------
    array (Ny * Nx,), int64
        Labels ``0 .. ceil(Ny/chop) * ceil(Nx/chop) - 1``, tiles counted row by row.

    Raises
    ------
    ParamError
        If `chop_size` is not positive.
    """
    if chop_size < 1:
        raise ParamError(Problem("chop_size", "a whole number >= 1", str(chop_size)))
    ny, nx = (int(n) for n in scan_size)
    row, column = np.arange(ny) // chop_size, np.arange(nx) // chop_size
    return (row[:, None] * (-(-nx // chop_size)) + column[None, :]).ravel()


def rectangle_sequence(
    scan_size: Sequence[int], top_left: tuple[int, int], height_width: tuple[int, int], step: int
) -> list[int]:
    """Flat indices of a rectangle of scan points, every `step`-th one, clipped to the scan."""
    rows, columns = (
        np.arange(start, start + length, step)
        for start, length in zip(top_left, height_width, strict=True)
    )
    return _flat_indices(scan_size, [(rows, columns)])


def points_sequence(
    scan_size: Sequence[int], rows: Iterable[int], columns: Iterable[int], width: int
) -> list[int]:
    """Flat indices of squares of `width` scan points around given points, clipped to the scan.

    An even width reaches from ``-width/2`` to ``width/2 - 1``, an odd one is centred.
    """
    offsets = np.arange(width) - width // 2
    squares = [(r + offsets, c + offsets) for r, c in zip(rows, columns, strict=True)]
    return _flat_indices(scan_size, squares)


def _flat_indices(scan_size: Sequence[int], boxes: Iterable[tuple[Array, Array]]) -> list[int]:
    """Sorted unique flat indices of the points of all boxes that lie inside the scan."""
    chosen = np.zeros((int(scan_size[0]), int(scan_size[1])), dtype=bool)
    for rows, columns in boxes:
        inside_y = rows[(rows >= 0) & (rows < chosen.shape[0])]
        inside_x = columns[(columns >= 0) & (columns < chosen.shape[1])]
        chosen[np.ix_(inside_y, inside_x)] = True
    if not chosen.any():
        raise ParamError(
            Problem(
                "sequence",
                f"at least one point inside the scan of {chosen.shape[0]} x {chosen.shape[1]}",
                "none",
                "Check the region and its step.",
            )
        )
    return [int(i) for i in np.flatnonzero(chosen)]
