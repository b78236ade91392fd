"""Alignment and warping of images under PyPty's names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pyptyx.methods.images import Field, scattered_field, warp
from pyptyx.methods.registration import shift_ramp, spectral_shift


def phase_cross_corr_align(
    im_ref_fft: np.ndarray,
    im_2_fft: np.ndarray,
    refine_box_dim: int,
    upsample: int,
    x_real: np.ndarray,
    y_real: np.ndarray,
    shift_y: float | None = None,
    shift_x: float | None = None,
) -> tuple[np.ndarray, float, float]:
    """Align one image to another by phase correlation.

    Parameters
    ----------
    im_ref_fft, im_2_fft : ndarray (ny, nx), complex
        Spectra of the reference and of the image, zero frequency at ``n // 2``.
    refine_box_dim : int
        Half the width in px of the region around the peak that is searched finely.
    upsample : int
        Steps per pixel of that search.
    x_real, y_real : ndarray (ny, nx)
        Frequencies in cycles per pixel, in the order of the spectra.
    shift_y, shift_x : float, optional
        A known shift, which is applied without a search.

    Returns
    -------
    spectrum : ndarray (ny, nx)
        Of the shifted image.
    shift_y, shift_x : float
        What was applied to the image, in px.
    """
    if shift_y is None or shift_x is None:
        shift_y, shift_x = spectral_shift(
            im_ref_fft,
            im_2_fft,
            y_real[:, 0],
            x_real[0],
            box_px=refine_box_dim,
            upsample=upsample,
        )
    return im_2_fft * shift_ramp(y_real, x_real, (shift_y, shift_x)), shift_y, shift_x


def fit_vector_field(
    x: np.ndarray,
    y: np.ndarray,
    u: np.ndarray,
    v: np.ndarray,
    Xi: np.ndarray,
    Yi: np.ndarray,
    method: str = "nearest",
) -> Field:
    """Spread the vectors ``(u, v)``, known at points ``(x, y)``, over a grid ``(Xi, Yi)``.

    Unlike `pyptyx.se.fit_vector_field`, which is the one at top level, it takes displacements.

    Parameters
    ----------
    x, y : ndarray (N,)
        Columns and rows of the points.
    u, v : ndarray (N,)
        Displacements along rows and along columns, in the order in which `warp_image` takes them.
    Xi, Yi : ndarray (ny, nx)
        Columns and rows of the grid.
    method : {"nearest", "linear", "cubic"}

    Returns
    -------
    tuple of ndarray (ny, nx)
        `u` and `v` on the grid.
    """
    points, values = np.stack([y, x], axis=-1), np.stack([u, v], axis=-1)
    return scattered_field(points, values, Yi, Xi, method)


def warp_image(image: np.ndarray, vector_field: Field, order: int = 1) -> np.ndarray:
    """Sample an image at ``(row + U, column + V)``; outside, the nearest pixel counts.

    `pyptyx.se.warp_image`, which is the one at top level, fills with 0.
    """
    return warp(image, vector_field, order, mode="nearest")


def intorplate_puzzled_obj(
    array: np.ndarray,
    pos_old: np.ndarray,
    pos_new: np.ndarray,
    order: int = 1,
    method: str = "linear",
    xp: Any = np,
    *,
    window: Sequence[int] = (0, 0),
) -> np.ndarray:
    """Move the parts of an object along with the positions.

    Parameters
    ----------
    array : array (Y, X, ...), real or complex
        Object.
    pos_old, pos_new : ndarray (N, 2)
        Positions (y, x) in px before and after, in the frame of the object.
    order : int
        Order of the spline.
    method : {"linear", "nearest", "cubic"}
        Interpolation of the displacements between the positions.
    xp : module
        Namespace of the result.
    window : sequence of int
        ``(ny, nx)`` of the probe: the displacements belong to its middle.

    Returns
    -------
    array of the same shape
        What was at an old position is at the new one.
    """
    grid = np.indices(array.shape[:2])
    middle, back = pos_new + np.asarray(window) // 2, np.subtract(pos_old, pos_new)
    field = scattered_field(middle, back, grid[0], grid[1], method)
    moved = warp(np.moveaxis(array, (0, 1), (-2, -1)), field, order, mode="nearest")
    return xp.asarray(np.moveaxis(moved, (-2, -1), (0, 1)))
