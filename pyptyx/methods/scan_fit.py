"""What regular grid a set of scan positions lies on.

Positions are ``(N, 2)``, columns (y, x), row-major over the scan (x fastest).  The rotation φ is
that of ``PLRotation_deg``: ``x' = s (i_x cosφ - i_y sinφ)``, ``y' = s (i_x sinφ + i_y cosφ)``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pyptyx.errors import Problem, ShapeError


def _centred(positions: np.ndarray, scan_size: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Scan indices and positions, both (N, 2) without their means."""
    positions = np.asarray(positions, dtype=np.float64)
    rows, columns = (int(n) for n in scan_size)
    if positions.shape != (rows * columns, 2) or rows * columns < 2:
        expected = f"shape ({rows * columns}, 2), one per point of the {rows} x {columns} scan"
        raise ShapeError(Problem("positions", expected, str(positions.shape)))
    index = np.indices((rows, columns), dtype=np.float64).reshape(2, -1).T
    return index - index.mean(axis=0), positions - positions.mean(axis=0)


def fit_step_and_angle(positions: np.ndarray, scan_size: Sequence[int]) -> tuple[float, float]:
    """Step and rotation of the square grid closest to the positions.

    With ``w = x + i y`` the model is ``w = s exp(iφ) (i_x + i i_y) + offset``, linear in
    ``s exp(iφ)``.

    Parameters
    ----------
    positions : ndarray (N, 2)
    scan_size : sequence of int
        ``(Ny, Nx)``.

    Returns
    -------
    step : float
        In the unit of the positions.
    angle_rad : float

    Raises
    ------
    ShapeError
        If there is not one position per scan point.
    """
    index, points = _centred(positions, scan_size)
    grid, found = index[:, 1] + 1j * index[:, 0], points[:, 1] + 1j * points[:, 0]
    factor = np.vdot(grid, found) / np.vdot(grid, grid)
    return float(np.abs(factor)), float(np.angle(factor))


def fit_affine(positions: np.ndarray, scan_size: Sequence[int]) -> np.ndarray:
    """Matrix ``[[yy, yx], [xy, xx]]`` with ``position = M (i_y, i_x) + offset``, least squares.

    Parameters and errors as for `fit_step_and_angle`; an axis of one scan point gets zeros.
    """
    index, points = _centred(positions, scan_size)
    return np.linalg.lstsq(index, points, rcond=None)[0].T
