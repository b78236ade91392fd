"""Virtual detectors and corrections of patterns under PyPty's names.

Points and vectors come as ``x`` (columns) and ``y`` (rows) in pixels, fields as a pair of images
``(rows, columns)``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from pyptyx.data import create_pypty_data, open_source
from pyptyx.engine import twist
from pyptyx.engine.detectors import aperture_from_data, virtual_image
from pyptyx.engine.unwarp import unwarp_patterns
from pyptyx.errors import ParamError, Problem
from pyptyx.methods import images, registration
from pyptyx.methods.images import Field

__all__ = [
    "compensate_pattern_drift",
    "compose_fields",
    "coordinate_transformation_2d",
    "coordinate_transformation_2d_areamag",
    "create_binned_dataset",
    "find_ab",
    "find_twist_angle_ptycho_from_contrast",
    "fit_vector_field",
    "get_aperture",
    "get_neg_contrast_ptycho",
    "get_virtual_annular_detector",
    "getvirtualhaadf",
    "remove_hot_pixels",
    "unwarp_4dstem_batch",
    "unwarp_im",
    "warp_image",
    "warp_images_batch",
]

Params = dict[str, Any]
PathLike = str | os.PathLike[str]


# ---------------------------------------------------------------------------------------------
# Virtual detectors
# ---------------------------------------------------------------------------------------------


def getvirtualhaadf(
    pypty_params: Params, save: bool = True, *, show: bool | None = None
) -> np.ndarray:
    """Minus the counts of every pattern: what was scattered beyond the detector.

    Parameters
    ----------
    pypty_params : dict
        Names the data; ``plot`` asks for a figure.
    save : bool
        Write ``virtual_haadf.npy`` into ``output_folder``.
    show : bool, optional
        Whether a figure appears on screen; None only in interactive sessions.

    Returns
    -------
    ndarray (Ny, Nx), float64
    """
    return virtual_image(pypty_params, "virtual_haadf", save=save, show=show)


def get_aperture(pypty_params: Params) -> Params:
    """Write ``aperture_mask``: the mean pattern above ``bright_threshold`` (0.4) of its maximum."""
    return aperture_from_data(pypty_params)


def get_virtual_annular_detector(
    pypty_params: Params,
    inner_rad: float = 0,
    outer_rad: float = 1,
    save: bool = False,
    offset_x: float = 0,
    offset_y: float = 0,
    *,
    show: bool | None = None,
) -> np.ndarray:
    """Counts of every pattern in the ring ``inner_rad <= r <= outer_rad``.

    Parameters
    ----------
    pypty_params : dict
        Names the data; ``save_preprocessing_files`` overrides `save`, ``plot`` asks for a figure.
    inner_rad, outer_rad : float
        Radii; 1 is the edge of the pattern along each axis.
    save : bool
        Write ``virtual_signal_i_A_o_B.npy`` into ``output_folder``.
    offset_x, offset_y : float
        Centre of the ring in the same unit, from the zero frequency.
    show : bool, optional
        Whether a figure appears on screen; None only in interactive sessions.

    Returns
    -------
    ndarray (Ny, Nx), float64
    """
    return virtual_image(
        pypty_params,
        f"virtual_signal_i_{inner_rad:.2f}_o_{outer_rad:.2f}",
        ring=(inner_rad, outer_rad, (offset_y, offset_x)),
        save=bool(pypty_params.get("save_preprocessing_files", save)),
        show=show,
    )


# ---------------------------------------------------------------------------------------------
# Whole data sets
# ---------------------------------------------------------------------------------------------


def create_binned_dataset(path_orig: PathLike, path_new: PathLike, bin: int) -> None:
    """Sum-bin patterns into a new HDF5 file; a remainder at the far edges is cut.

    Integer counts become float32, which sums cannot overflow.

    Raises
    ------
    DataError
        If the new file exists and was made otherwise.
    """
    with open_source(path_orig) as source:
        dtype = None if source.dtype.kind == "f" else np.float32
    create_pypty_data(
        path_orig, path_new, comx=0, comy=0, bin=bin, data_dtype=dtype, exist_ok="match"
    )


def compensate_pattern_drift(aperture: np.ndarray, patterns4D: np.ndarray) -> np.ndarray:
    """Move every pattern onto the aperture ``(ky, kx)`` by whole pixels with wrap-around, in place.

    Returns
    -------
    ndarray
        The same array.
    """
    registration.roll_onto(np.asarray(aperture, dtype=np.float64), patterns4D)
    return patterns4D


def remove_hot_pixels(data4D: np.ndarray, percentile: float = 99.99) -> np.ndarray:
    """Replace the pixels above a percentile of their pattern by the mean of their neighbours.

    In place; neighbours beyond an edge, and those that are hot themselves, do not count.

    Returns
    -------
    ndarray
        The same array.
    """
    images.replace_hot_pixels(data4D, percentile)
    return data4D


def unwarp_4dstem_batch(
    data_old: np.ndarray | PathLike,
    path_numpy_new: PathLike | None = None,
    vector_field: Field | None = None,
    batch_size: int = 20,
    order: int = 5,
    return_data: bool = False,
    extra_angle_rotation_compensation: float = 0,
) -> np.ndarray | None:
    """Resample all patterns of an array or a file, in batches.

    Parameters
    ----------
    data_old : ndarray or path
        [N, ky, kx] or [sy, sx, ky, kx]; not modified.
    path_numpy_new : path, optional
        ``.npy`` file to write.
    vector_field : tuple of ndarray (ky, kx), optional
        Displacements along rows and columns.
    batch_size : int
        Patterns at a time.
    order : int
        Order of the spline; negative values of the result become 0.
    return_data : bool
        Whether to return the result.
    extra_angle_rotation_compensation : float
        Rotation in degrees after that, counter-clockwise on screen.

    Raises
    ------
    ParamError
        If the result is neither written nor returned.
    """
    return unwarp_patterns(
        data_old,
        vector_field,
        output=path_numpy_new,
        batch_size=batch_size,
        order=order,
        angle_deg=extra_angle_rotation_compensation,
        return_data=return_data,
    )


# ---------------------------------------------------------------------------------------------
# Polynomial distortions and displacement fields
# ---------------------------------------------------------------------------------------------


def coordinate_transformation_2d(xy: np.ndarray, ab: np.ndarray) -> np.ndarray:
    """Polynomial map of points ``(..., 2)``; `ab` holds 3, 6 or 10 rows for 1 x y xy x² y² ..."""
    return images.polynomial_map(xy, ab)


def coordinate_transformation_2d_areamag(xy: np.ndarray, ab: np.ndarray) -> np.ndarray:
    """Area magnification of `coordinate_transformation_2d` at points ``(..., 2)``."""
    return images.polynomial_magnification(xy, ab)


def find_ab(
    x: np.ndarray, y: np.ndarray, u: np.ndarray, v: np.ndarray, trafo_flag: int = 2
) -> np.ndarray:
    """Coefficients of the map from points ``(x, y)`` to ``(u, v)``, least squares.

    `trafo_flag` is 0 (affine, 3 rows), 1 (quadratic, 6) or 2 (cubic, 10).
    """
    points, targets = np.stack([x, y], axis=-1), np.stack([u, v], axis=-1)
    return images.fit_polynomial_map(points.astype(np.float64), targets, trafo_flag)


def unwarp_im(warp_im: np.ndarray, ab: np.ndarray, method: str = "linear") -> np.ndarray:
    """Undo the distortion that carries pixel ``(x, y)`` to ``coordinate_transformation_2d``.

    Parameters
    ----------
    warp_im : ndarray (..., ny, nx)
        Distorted image or images.
    ab : ndarray
        See `find_ab`.
    method : {"linear", "nearest"}
        Interpolation of the logarithm.

    Returns
    -------
    ndarray
        Times the area magnification, which keeps counts.
    """
    orders = {"nearest": 0, "linear": 1}
    if method not in orders:
        raise ParamError(Problem("method", " or ".join(map(repr, orders)), repr(method)))
    return images.unwarp_polynomial(warp_im, ab, orders[method])


def fit_vector_field(
    x: np.ndarray, y: np.ndarray, u: np.ndarray, v: np.ndarray, Xi: np.ndarray, Yi: np.ndarray
) -> Field:
    """Displacements of a thin-plate spline that carries points ``(x, y)`` to ``(u, v)``.

    Parameters
    ----------
    x, y, u, v : ndarray (N,)
        Columns and rows of points and targets.
    Xi, Yi : ndarray (ny, nx)
        Columns and rows of the grid.

    Returns
    -------
    tuple of ndarray (ny, nx)
        Along rows, ``v - y``, and along columns, ``u - x``.
    """
    points, targets = (np.stack(pair, axis=-1).astype(np.float64) for pair in ((y, x), (v, u)))
    return images.smooth_field(points, targets, Yi, Xi)


def warp_image(
    image: np.ndarray,
    vector_field: Field,
    order: int = 1,
    extra_angle_rotation_compensation: float = 0,
) -> np.ndarray:
    """Sample an image at ``(row + U, column + V)``, 0 outside, then rotate it.

    The angle is in degrees, counter-clockwise on screen.
    """
    return images.turn(
        images.warp(image, vector_field, order), extra_angle_rotation_compensation, order
    )


def warp_images_batch(
    images_batch: np.ndarray,
    vector_field: Field,
    batches: Any = None,
    warped_rows: Any = None,
    warped_cols: Any = None,
    order: int = 1,
    extra_angle_rotation_compensation: float = 0,
) -> np.ndarray:
    """`warp_image` of images ``(B, ny, nx)``; the three arguments in the middle have no effect."""
    return warp_image(images_batch, vector_field, order, extra_angle_rotation_compensation)


def compose_fields(f1: Field, f2: Field, order: int = 1, mode: str = "nearest") -> Field:
    """One field for two: ``f2 + f1`` sampled at the points displaced by `f2`."""
    return images.compose(f1, f2, order, mode)


# ---------------------------------------------------------------------------------------------
# Scan rotation
# ---------------------------------------------------------------------------------------------


def get_neg_contrast_ptycho(
    x: float | Sequence[float], params: Params, print_flag: bool = True
) -> float:
    """Reconstruct with scan rotation `x` in degrees; minus the contrast of the mean phase.

    Neither are parameters changed nor files written; the result is logged.
    """
    return twist.negative_contrast(float(np.ravel(x)[0]), params)


def find_twist_angle_ptycho_from_contrast(
    params: Params,
    x0: float = 0,
    print_flag: bool = True,
    bounds: Sequence[tuple[float, float]] = ((0, 360),),
) -> float:
    """Scan rotation in degrees of the reconstruction with the highest contrast.

    Every trial is a full reconstruction with the parameters given.
    """
    return twist.best_rotation(params, float(np.ravel(x0)[0]), bounds)
