"""Repair of scans in which whole blocks of positions have jumped.

Positions are ``(N, 2)`` in px, columns (y, x), on a raster of ``(scan_y, scan_x)`` points, x
fastest.  A jump shows as an edge in the second differences of the position maps: edges separate
regions, one shift per region closes the gaps between them (linear least squares), and the points
on the edges are interpolated.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.interpolate import griddata

from pyptyx.methods.images import scattered_field, warp

_SMALLEST_JUMP = 0.25
"""Jumps below this many scan steps are left alone."""

_SMALLEST_REGION = 4
"""Regions with fewer points belong to the edges."""


def position_puzzling(
    points: np.ndarray,
    scan_size: tuple[int, int],
    sigma: float = 0.4,
    score_threshold: float = 1.2,
) -> tuple[bool, np.ndarray]:
    """Close the gaps between blocks of positions.

    Parameters
    ----------
    points : ndarray (N, 2)
        Positions in px.
    scan_size : tuple of int
        ``(scan_y, scan_x)``.
    sigma : float
        Gaussian filter on the map of second differences, in scan points.
    score_threshold : float
        Nothing is done unless the variance of that map exceeds this many squared means.

    Returns
    -------
    repaired : bool
    positions : ndarray (N, 2)
        The largest block stays where it was; `points` itself if nothing was repaired.
    """
    field = np.asarray(points, np.float64).reshape(*scan_size, 2)
    if min(scan_size) < 3:
        return False, points
    smallest = _SMALLEST_JUMP * _typical_step(field)
    edges = _edge_strength(field)
    if edges.max() <= smallest or edges.var() <= score_threshold * edges.mean() ** 2:
        return False, points
    labels = segment_regions(edges, sigma)
    if labels.max() < 2:
        return False, points
    shifts = block_shifts(field, labels)
    if np.abs(shifts).max() <= smallest:
        return False, points
    repaired = interpolate_edges(field + shifts[labels], labels)
    return (False, points) if repaired is None else (True, repaired.reshape(-1, 2))


def segment_regions(edges: np.ndarray, sigma: float = 1.0) -> np.ndarray:
    """Label the regions between strong edges.

    Parameters
    ----------
    edges : ndarray (scan_y, scan_x)
        Strength of the edges, not constant.
    sigma : float
        Gaussian filter before Otsu's threshold.

    Returns
    -------
    ndarray of int (scan_y, scan_x)
        1, 2, ... in the regions, 0 on the edges.

    References
    ----------
    N. Otsu, IEEE Trans. Syst. Man Cybern. 9 (1979) 62-66.
    """
    smooth = ndimage.gaussian_filter(edges / edges.max(), sigma)
    strong = np.pad(smooth > _otsu(smooth), 1, mode="edge")  # an edge goes on beyond the border
    closed = ndimage.binary_closing(strong)[1:-1, 1:-1]
    labels, count = ndimage.label(~closed)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    kept = np.flatnonzero(sizes[1:] >= _SMALLEST_REGION) + 1
    renumbered = np.zeros(count + 1, np.int64)
    renumbered[kept] = np.arange(1, len(kept) + 1)
    return renumbered[labels]


def block_shifts(field: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Shift of every region that makes the scan regular across the edges.

    Between neighbouring regions, points of one scan line should be as far apart as their indices
    times the median step; the shifts solve all these equations in least squares.

    Parameters
    ----------
    field : ndarray (scan_y, scan_x, 2)
        Positions in px.
    labels : ndarray of int (scan_y, scan_x)
        1, 2, ... in the regions, 0 on the edges.

    Returns
    -------
    ndarray (1 + number of regions, 2)
        Rows by label in px; 0 for the edges and for the largest region.
    """
    count = int(labels.max())
    pairs, gaps = [], []
    for axis in (0, 1):
        lines, regions = np.moveaxis(field, axis, 1), np.moveaxis(labels, axis, 1)
        same = (regions[:, 1:] == regions[:, :-1]) & (regions[:, 1:] > 0)
        if not same.any():
            continue
        step = np.median(np.diff(lines, axis=1)[same], axis=0)
        for line, region in zip(lines, regions, strict=True):
            index = np.flatnonzero(region)
            a, b = index[:-1], index[1:]
            crossing = region[a] != region[b]
            a, b = a[crossing], b[crossing]
            pairs.append(np.stack([region[a], region[b]], axis=1))
            gaps.append((b - a)[:, None] * step - (line[b] - line[a]))
    shifts = np.zeros((count + 1, 2))
    if not pairs:
        return shifts
    pair, gap = np.concatenate(pairs), np.concatenate(gaps)
    rows = np.arange(len(pair))
    equations = np.zeros((len(pair), count + 1))
    equations[rows, pair[:, 0]] = -1
    equations[rows, pair[:, 1]] = 1
    shifts = np.linalg.lstsq(equations, gap)[0]
    shifts -= shifts[1 + np.bincount(labels.ravel())[1:].argmax()]
    shifts[0] = 0
    return shifts


def interpolate_edges(field: np.ndarray, labels: np.ndarray) -> np.ndarray | None:
    """Replace the points on the edges by what the regions around them suggest.

    Deviations from the affine grid are interpolated linearly, beyond the regions by the nearest.

    Parameters
    ----------
    field : ndarray (scan_y, scan_x, 2)
        Positions in px.
    labels : ndarray of int (scan_y, scan_x)
        0 on the edges.

    Returns
    -------
    ndarray (scan_y, scan_x, 2) or None
        None if all regions lie on one line.
    """
    known = labels > 0
    index = np.stack([np.ones(labels.shape), *np.indices(labels.shape)], axis=-1)
    affine, _residuals, rank, _values = np.linalg.lstsq(index[known], field[known])
    if rank < 3:
        return None
    deviation = (field - index @ affine)[known]
    at, wanted = index[known][:, 1:], index[~known][:, 1:]
    linear = griddata(at, deviation, wanted, method="linear")
    nearest = griddata(at, deviation, wanted, method="nearest")
    out = field.copy()
    out[~known] = index[~known] @ affine + np.where(np.isnan(linear), nearest, linear)
    return out


def moved_object(
    obj: np.ndarray, before: np.ndarray, after: np.ndarray, window: tuple[int, int]
) -> np.ndarray:
    """The object moved along with the positions.

    Every pixel moves as the position whose window has its middle nearest to it, and takes its
    value by linear interpolation (edge values beyond the border).

    Parameters
    ----------
    obj : ndarray (..., Y, X), complex
    before, after : ndarray (N, 2)
        Positions in px in the frame of `obj`.
    window : tuple of int
        ``(ny, nx)``.

    Returns
    -------
    ndarray like `obj`
    """
    rows, columns = np.meshgrid(*(np.arange(n) for n in obj.shape[-2:]), indexing="ij")
    middle = after + np.asarray(window) // 2
    field = scattered_field(middle, before - after, rows, columns, "nearest")
    return warp(obj, field, order=1, mode="nearest")


def _typical_step(field: np.ndarray) -> float:
    """Median distance of neighbours in px."""
    distances = [np.linalg.norm(np.diff(field, axis=axis), axis=-1).ravel() for axis in (0, 1)]
    return float(np.median(np.concatenate(distances)))


def _edge_strength(field: np.ndarray) -> np.ndarray:
    """Length of the Laplacian of the position maps; 0 for every affine grid, also at its border."""
    laplacian = np.zeros_like(field)
    laplacian[1:-1] += field[:-2] - 2 * field[1:-1] + field[2:]
    laplacian[:, 1:-1] += field[:, :-2] - 2 * field[:, 1:-1] + field[:, 2:]
    return np.linalg.norm(laplacian, axis=-1)


def _otsu(image: np.ndarray) -> float:
    """Threshold with the largest variance between the classes; the middle where several tie."""
    counts, limits = np.histogram(image, 256)
    middles = (limits[:-1] + limits[1:]) / 2
    below = np.cumsum(counts)[:-1]
    above = counts.sum() - below
    first = np.cumsum(counts * middles)[:-1]
    mean_below = first / below
    mean_above = ((counts * middles).sum() - first) / above
    variance = below * above * (mean_below - mean_above) ** 2
    best = np.flatnonzero(variance >= variance.max() * (1 - 1e-12))
    return float((limits[best[0] + 1] + limits[best[-1] + 1]) / 2)
