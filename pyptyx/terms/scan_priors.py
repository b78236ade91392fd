"""Regularisers of per-measurement tables: functions ``table -> (R, gradient)``.

A table is ``v (N, C)`` with one row per point of a raster of ``(scan_y, scan_x) = scan_size``, x
fastest: positions (C = 2) or tilts (C = 6).  Tables are small and live on the host, real float64.
"""

from __future__ import annotations

import numpy as np

Gradient = np.ndarray


def fast_axis(table: np.ndarray, scan_size: tuple[int, int]) -> tuple[float, Gradient]:
    """Curvature along the rows of the scan, ``R = Σ (v[x-1] - 2 v[x] + v[x+1])²``.

    Parameters
    ----------
    table : ndarray (N, C)
    scan_size : tuple of int
        ``(scan_y, scan_x)``.

    Returns
    -------
    R : float
    gradient : ndarray (N, C)
    """
    value, gradient = _curvature(table.reshape(*scan_size, -1).swapaxes(0, 1))
    return value, gradient.swapaxes(0, 1).reshape(table.shape)


def slow_axis(table: np.ndarray, scan_size: tuple[int, int]) -> tuple[float, Gradient]:
    """Curvature of the row sums ``u = Σ_x v``, ``R = Σ (u[y-1] - 2 u[y] + u[y+1])²``.

    Parameters
    ----------
    table : ndarray (N, C)
    scan_size : tuple of int
        ``(scan_y, scan_x)``.

    Returns
    -------
    R : float
    gradient : ndarray (N, C)
    """
    rows = table.reshape(*scan_size, -1)
    value, gradient = _curvature(rows.sum(axis=1))
    return value, np.broadcast_to(gradient[:, None], rows.shape).reshape(table.shape).copy()


def deformation(table: np.ndarray, scan_size: tuple[int, int]) -> tuple[float, Gradient]:
    """Deviation from the best affine map of the scan grid, ``R = Σ r²``.

    Parameters
    ----------
    table : ndarray (N, C)
    scan_size : tuple of int
        ``(scan_y, scan_x)``.

    Returns
    -------
    R : float
    gradient : ndarray (N, C)
        ``2 r``, since r is an orthogonal projection of v.
    """
    residual = table.copy()
    for direction in _affine_basis(scan_size):
        residual -= np.outer(direction, direction @ table)
    return float((residual**2).sum()), 2 * residual


def _curvature(v: np.ndarray) -> tuple[float, np.ndarray]:
    """``Σ (second difference along axis 0)²`` of the inner points, and its gradient."""
    second = np.zeros_like(v)
    second[1:-1] = v[:-2] - 2 * v[1:-1] + v[2:]
    gradient = -2 * second
    gradient[:-1] += second[1:]
    gradient[1:] += second[:-1]
    return float((second**2).sum()), 2 * gradient


def _affine_basis(scan_size: tuple[int, int]) -> list[np.ndarray]:
    """Orthonormal columns that span ``1, i, j`` on the raster (a full raster keeps them apart)."""
    columns = [np.ones(scan_size), *(i - i.mean() for i in np.indices(scan_size, dtype=float))]
    return [c.ravel() / np.linalg.norm(c) for c in columns if c.any()]
