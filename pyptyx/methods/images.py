"""Geometry of images: displacement fields, polynomial distortions, hot pixels.

A displacement field is a pair ``(rows, columns)`` of images: the corrected image at ``(i, j)`` is
the recorded one at ``(i + rows[i, j], j + columns[i, j])``.  Polynomial maps use ``x`` for columns
and ``y`` for rows, in pixels.  Nothing given is modified unless a function says so.
"""

from __future__ import annotations

import numpy as np
from scipy.interpolate import RBFInterpolator, griddata
from scipy.ndimage import map_coordinates, rotate

from pyptyx.errors import ParamError, Problem, ShapeError

Field = tuple[np.ndarray, np.ndarray]

TERMS_OF_FLAG = {0: 3, 1: 6, 2: 10}
"""Number of polynomial terms of an affine, a quadratic and a cubic map."""

_EXPONENTS = ((0, 0), (1, 0), (0, 1), (1, 1), (2, 0), (0, 2), (2, 1), (1, 2), (3, 0), (0, 3))
"""Powers of (x, y): 1, x, y, xy, x², y², x²y, xy², x³, y³."""

_OFFSET = 2.0
"""Added before the logarithm of an image is interpolated."""


# ---------------------------------------------------------------------------------------------
# Displacement fields
# ---------------------------------------------------------------------------------------------


def scattered_field(
    points: np.ndarray, values: np.ndarray, rows: np.ndarray, columns: np.ndarray, method: str
) -> Field:
    """Spread vectors known at a few points over a grid.

    Parameters
    ----------
    points : ndarray (N, 2)
        Where they are known, columns (y, x).
    values : ndarray (N, 2)
        The vectors, columns (y, x).
    rows, columns : ndarray (ny, nx)
        Coordinates of the grid.
    method : {"nearest", "linear", "cubic"}
        Interpolation; outside the convex hull of the points always the nearest one.

    Returns
    -------
    tuple of ndarray (ny, nx)
        Components along y and x.
    """
    field = griddata(points, values, (rows, columns), method="nearest")
    if method != "nearest":
        inside = griddata(points, values, (rows, columns), method=method)
        field = np.where(np.isnan(inside), field, inside)
    return field[..., 0], field[..., 1]


def smooth_field(
    points: np.ndarray, targets: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> Field:
    """Displacements ``target - point`` as a thin-plate spline on a grid.

    Parameters
    ----------
    points, targets : ndarray (N, 2)
        Columns (y, x).
    rows, columns : ndarray (ny, nx)
        Coordinates of the grid.

    Returns
    -------
    tuple of ndarray (ny, nx)
        Components along y and x.

    References
    ----------
    F. L. Bookstein, IEEE Trans. Pattern Anal. Mach. Intell. 11 (1989) 567-585.
    """
    spline = RBFInterpolator(points, targets - points, kernel="thin_plate_spline")
    grid = np.stack([np.ravel(rows), np.ravel(columns)], axis=1).astype(np.float64)
    field = spline(grid).reshape(*np.shape(rows), 2)
    return field[..., 0], field[..., 1]


def warp(
    images: np.ndarray, field: Field, order: int = 1, mode: str = "constant", cval: float = 0.0
) -> np.ndarray:
    """Sample images at displaced points.

    Parameters
    ----------
    images : ndarray (..., ny, nx), real or complex
    field : tuple of ndarray (ny, nx)
        Displacements along rows and columns in px.
    order : int
        Order of the spline, 0 to 5.
    mode, cval
        What lies outside, as in ``scipy.ndimage``.

    Returns
    -------
    ndarray of the same shape, floating

    Raises
    ------
    ShapeError
        If field and images differ in shape.
    """
    images = np.asarray(images)
    shape = images.shape[-2:]
    if any(np.shape(part) != shape for part in field):
        got = " and ".join(str(np.shape(part)) for part in field)
        raise ShapeError(Problem("vector_field", f"two arrays of shape {shape}", got))
    rows, columns = np.indices(shape)
    points = np.stack([rows + field[0], columns + field[1]])
    flat = images.reshape(-1, *shape)
    out = np.empty(flat.shape, dtype=np.result_type(images.dtype, np.float32))
    for image, result in zip(flat, out, strict=True):
        source = image.astype(out.dtype, copy=False)
        result[...] = map_coordinates(source, points, order=order, mode=mode, cval=cval)
    return out.reshape(images.shape)


def turn(images: np.ndarray, angle_deg: float, order: int = 1) -> np.ndarray:
    """Rotate images ``(..., ny, nx)`` about their centre, counter-clockwise on screen (y down)."""
    if not angle_deg:
        return images
    return rotate(images, angle_deg, axes=(-2, -1), reshape=False, order=order)


def compose(first: Field, second: Field, order: int = 1, mode: str = "nearest") -> Field:
    """One field for two: sampling with `first`, and the result of that with `second`."""
    rows, columns = (
        step + warp(part, second, order, mode) for part, step in zip(first, second, strict=True)
    )
    return rows, columns


# ---------------------------------------------------------------------------------------------
# Polynomial distortions
# ---------------------------------------------------------------------------------------------


def _count_terms(ab: np.ndarray) -> int:
    if ab.ndim != 2 or ab.shape[1] != 2 or len(ab) not in TERMS_OF_FLAG.values():
        raise ShapeError(Problem("ab", "shape (3, 2), (6, 2) or (10, 2)", str(ab.shape)))
    return len(ab)


def _monomials(x: np.ndarray, y: np.ndarray, count: int, dx: int = 0, dy: int = 0) -> np.ndarray:
    """The first `count` monomials on the last axis, differentiated `dx` and `dy` times (0 or 1)."""
    columns = []
    for p, q in _EXPONENTS[:count]:
        factor = (p if dx else 1) * (q if dy else 1)
        columns.append(factor * x ** max(p - dx, 0) * y ** max(q - dy, 0))
    return np.stack(np.broadcast_arrays(*columns), axis=-1)


def polynomial_map(xy: np.ndarray, ab: np.ndarray) -> np.ndarray:
    """Map points by a polynomial.

    Parameters
    ----------
    xy : ndarray (..., 2)
        Points (x, y).
    ab : ndarray (3, 6 or 10, 2)
        Coefficients of 1, x, y, xy, x², y², x²y, xy², x³, y³ for both coordinates.

    Returns
    -------
    ndarray (..., 2)

    Raises
    ------
    ShapeError
        If `ab` has another shape.
    """
    xy, ab = np.asarray(xy, dtype=np.float64), np.asarray(ab, dtype=np.float64)
    return _monomials(xy[..., 0], xy[..., 1], _count_terms(ab)) @ ab


def polynomial_magnification(xy: np.ndarray, ab: np.ndarray) -> np.ndarray:
    """Area magnification ``|det J|`` of `polynomial_map` at points ``(..., 2)``."""
    xy, ab = np.asarray(xy, dtype=np.float64), np.asarray(ab, dtype=np.float64)
    count = _count_terms(ab)
    along_x = _monomials(xy[..., 0], xy[..., 1], count, dx=1) @ ab
    along_y = _monomials(xy[..., 0], xy[..., 1], count, dy=1) @ ab
    return np.abs(along_x[..., 0] * along_y[..., 1] - along_x[..., 1] * along_y[..., 0])


def fit_polynomial_map(points: np.ndarray, targets: np.ndarray, flag: int) -> np.ndarray:
    """Least-squares coefficients of `polynomial_map` that carry points to targets.

    Parameters
    ----------
    points, targets : ndarray (N, 2)
        Columns (x, y).
    flag : int
        0 affine, 1 quadratic, 2 cubic.

    Returns
    -------
    ndarray (3, 6 or 10, 2)

    Raises
    ------
    ParamError
        If the flag is another one.
    ShapeError
        If there are fewer points than terms.
    """
    if flag not in TERMS_OF_FLAG:
        raise ParamError(Problem("trafo_flag", "0 (affine), 1 (quadratic) or 2 (cubic)", f"{flag}"))
    count = TERMS_OF_FLAG[flag]
    if len(points) != len(targets) or len(points) < count:
        got = f"{len(points)} points and {len(targets)} targets"
        raise ShapeError(Problem("x, y, u, v", f"at least {count} points with targets", got))
    # Coordinates of order one keep the normal matrix well conditioned; powers of the scale undo it.
    scale = max(float(np.abs(points).max()), np.finfo(np.float64).tiny)
    matrix = _monomials(points[:, 0] / scale, points[:, 1] / scale, count)
    coefficients = np.linalg.lstsq(matrix, targets, rcond=None)[0]
    powers = np.array([p + q for p, q in _EXPONENTS[:count]])
    return coefficients / scale ** powers[:, None]


def unwarp_polynomial(image: np.ndarray, ab: np.ndarray, order: int = 1) -> np.ndarray:
    """Undo a polynomial distortion; counts are kept.

    The result at pixel ``(x, y)`` is the image at ``polynomial_map((x, y), ab)``, times the area
    magnification there.  The logarithm of the image is interpolated, which keeps it positive.

    Parameters
    ----------
    image : ndarray (..., ny, nx)
        The distorted image or images, above -2 everywhere; zero is assumed around them.
    ab : ndarray (3, 6 or 10, 2)
        Map from undistorted to distorted pixels.
    order : int
        Order of the interpolation, 0 or 1.

    Returns
    -------
    ndarray of the same shape, float64

    Raises
    ------
    ParamError
        If a value is too small for the logarithm.
    """
    image = np.asarray(image, dtype=np.float64)
    if image.min() <= -_OFFSET:
        raise ParamError(Problem("warp_im", f"values above {-_OFFSET:g}", f"{image.min():g}"))
    rows, columns = np.indices(image.shape[-2:])
    xy = np.stack([columns, rows], axis=-1)
    moved = polynomial_map(xy, ab)
    field = (moved[..., 1] - rows, moved[..., 0] - columns)
    logarithm = warp(np.log(image + _OFFSET), field, order, cval=np.log(_OFFSET))
    return (np.exp(logarithm) - _OFFSET) * polynomial_magnification(xy, ab)


# ---------------------------------------------------------------------------------------------
# Detector defects
# ---------------------------------------------------------------------------------------------


def replace_hot_pixels(patterns: np.ndarray, percentile: float) -> None:
    """Replace the pixels above a percentile of their pattern, in place.

    Each gets the mean of those of its four neighbours that lie inside the pattern and are not hot
    themselves, or the median of the pattern if there is none.

    Parameters
    ----------
    patterns : ndarray (..., ky, kx)
        Modified.
    percentile : float
        0 to 100.
    """
    for index in np.ndindex(patterns.shape[:-2]):
        pattern = patterns[index]
        hot = pattern > np.percentile(pattern, percentile)
        if hot.any():
            good = np.pad(np.where(hot, 0.0, pattern), 1)
            known = np.pad((~hot).astype(np.float64), 1)
            total, count = _neighbour_sum(good)[hot], _neighbour_sum(known)[hot]
            value = np.where(count > 0, total / np.maximum(count, 1), np.median(pattern))
            pattern[hot] = np.rint(value) if pattern.dtype.kind in "iu" else value


def _neighbour_sum(padded: np.ndarray) -> np.ndarray:
    return padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
