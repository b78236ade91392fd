"""The measured patterns at set-up: opening them, their mean and centres of mass, their resampling.

Patterns here are in the public layout: zero frequency at index ``n // 2`` of both axes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyptyx.data import CountChecks, PatternSource, Preparation, open_source
from pyptyx.errors import DataError, Problem, ShapeError

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 64 << 20

_SAME_MASKS = 1e-6
"""Combinations of masks with so small a part of the largest eigenvalue say nothing of their own."""


def open_patterns(params: Mapping[str, Any]) -> PatternSource:
    """Open the data that ``dataset`` (an array, preferred) or ``data_path`` name.

    Compressed data ``[Ny, Nx, Nmask]`` are recognised by ``masks`` and flattened.

    Raises
    ------
    DataError
        If neither key is set, or the data cannot be read or are not patterns.
    """
    data: Any = params.get("dataset")
    if data is None:
        data = params.get("data_path") or None
    if data is None:
        raise DataError(
            Problem("data_path", "a file, or an array under `dataset`", "neither", "Name the data.")
        )
    masks = params.get("masks")
    scan_size = None if masks is None else params.get("scan_size")
    if masks is not None and isinstance(data, np.ndarray) and data.ndim == 3:
        scan_size = (data.shape[0], data.shape[1])
        data = data.reshape(-1, data.shape[2])
    source = open_source(
        data,
        h5_key=params.get("h5_key"),
        scan_size=scan_size,
        flip_ky=bool(params.get("flip_ky")),
        transpose=bool(params.get("transpose_patterns")),
    )
    if len(source.shape) == 2 and masks is None:
        source.close()
        expected = "patterns [N, ky, kx] or [sy, sx, ky, kx]"
        remedy = "Reshape the data; signals of virtual detectors need masks"
        raise DataError(Problem(source.name, expected, f"two axes, {source.shape}", remedy))
    return source


def measured_preparation(params: Mapping[str, Any], multiplier: float = 1.0) -> Preparation:
    """What turns measured patterns into those of the data grid, without padding, in float64.

    Parameters
    ----------
    params : mapping
        ``data_shift_vector`` and ``data_bin``, if they are there.
    multiplier : float
    """
    shift_y, shift_x = params.get("data_shift_vector", (0, 0))
    return Preparation(
        shift=(int(shift_y), int(shift_x)),
        bin=int(params.get("data_bin", 1)),
        multiplier=multiplier,
        dtype=np.float64,
        corner=False,
    )


def on_data_grid(pattern: np.ndarray, params: Mapping[str, Any]) -> np.ndarray:
    """A measured pattern ``(ky, kx)`` moved and binned as the data will be."""
    return measured_preparation(params)(np.asarray(pattern, np.float64)[None])[0]


def model_pixels(params: Mapping[str, Any]) -> float:
    """Pixels of the model's pattern per measured pixel, along an axis."""
    return int(params.get("upsample_pattern") or 1) / int(params.get("data_bin") or 1)


@dataclass(frozen=True)
class Survey:
    """Result of one pass over the data.

    Attributes
    ----------
    mean : ndarray
        Mean pattern ``(ky, kx)``, float64, or mean signals ``(Nmask,)``.
    comx, comy : ndarray (N,) or None
        Centre of mass of each pattern in measured pixels from index ``n // 2``.
    """

    mean: np.ndarray
    comx: np.ndarray | None
    comy: np.ndarray | None


def survey(source: PatternSource, *, with_com: bool, binary_level: float = 0.0) -> Survey:
    """Mean pattern and, if asked for, the centre of mass of every pattern, in one streamed pass.

    A pattern without counts has no centre of mass; it gets the mean of the others.

    Parameters
    ----------
    source : PatternSource
        The patterns.
    with_com : bool
        Whether centres of mass are wanted.
    binary_level : float
        If not zero, the centre of mass is that of the pixels above this multiple of the mean of
        their pattern.

    Raises
    ------
    DataError
        For NaN, negative or all-zero counts.
    """
    checks = CountChecks(source.name)
    total = np.zeros(source.shape[1:], dtype=np.float64)
    counts = np.zeros(source.shape[0])
    moments = np.zeros((2, source.shape[0]))
    for where, chunk in source.iter_chunks(_CHUNK_BYTES):
        total += chunk.sum(axis=0, dtype=np.float64)
        if chunk.ndim == 3:  # signals of virtual detectors may be negative
            checks.add(chunk)
        if with_com:
            if binary_level:
                chunk = chunk > binary_level * chunk.mean(axis=(1, 2), keepdims=True)
            rows = chunk.sum(axis=2, dtype=np.float64)
            columns = chunk.sum(axis=1, dtype=np.float64)
            counts[where] = rows.sum(axis=1)
            moments[0, where] = rows @ (np.arange(rows.shape[1]) - rows.shape[1] // 2)
            moments[1, where] = columns @ (np.arange(columns.shape[1]) - columns.shape[1] // 2)
    if len(source.shape) == 3 and checks.problems():
        raise DataError(checks.problems())
    mean = total / source.shape[0]
    if not with_com:
        return Survey(mean, None, None)
    filled = counts > 0
    com = np.zeros_like(moments)
    if filled.any():
        com[:, filled] = moments[:, filled] / counts[filled]
        com[:, ~filled] = com[:, filled].mean(axis=1, keepdims=True)
    return Survey(mean, comx=com[1], comy=com[0])


def back_projection(masks: np.ndarray, signals: np.ndarray) -> np.ndarray:
    """Pattern of least squares that the masks see as the signals, without negative counts.

    Among all such patterns the one of least norm, ``Mᵀ (M Mᵀ)⁻¹ s`` for masks M and signals s; for
    orthonormal masks ``Σ_d masks_d signals_d``.  Negative counts are cut off, and the rest is
    scaled to fit the signals best.

    Parameters
    ----------
    masks : ndarray (Nmask, ky, kx)
        Virtual detectors.
    signals : ndarray (Nmask,)
        Mean signal of each.

    Returns
    -------
    ndarray (ky, kx), float64, not negative
    """
    masks = np.asarray(masks, dtype=np.float64)
    if masks.ndim != 3 or len(masks) != len(signals):
        raise ShapeError(
            Problem("masks", f"shape ({len(signals)}, ky, kx)", str(masks.shape), "One per signal.")
        )
    gram = np.tensordot(masks, masks, axes=((1, 2), (1, 2)))
    weights = np.linalg.lstsq(gram, np.asarray(signals, np.float64), rcond=_SAME_MASKS)[0]
    pattern = np.maximum(np.tensordot(weights, masks, axes=1), 0.0)
    seen = np.tensordot(masks, pattern, axes=2)
    norm = seen @ seen
    return pattern * (seen @ signals / norm) if norm > 0 else pattern


def replicate(pattern: np.ndarray, factor: int) -> np.ndarray:
    """Split each pixel into ``factor x factor`` equal ones; the total stays."""
    if factor == 1:
        return pattern
    return pattern.repeat(factor, axis=-2).repeat(factor, axis=-1) / factor**2


def fit_centred(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Zero-pad or crop the last two axes to `shape`, keeping index ``n // 2`` on ``n // 2``."""
    for axis, size in zip((-2, -1), shape, strict=True):
        before = size // 2 - image.shape[axis] // 2
        after = size - image.shape[axis] - before
        if min(before, after) < 0:
            keep = slice(max(-before, 0), image.shape[axis] - max(-after, 0))
            image = np.moveaxis(np.moveaxis(image, axis, 0)[keep], 0, axis)
        pad = [(0, 0)] * image.ndim
        pad[axis] = (max(before, 0), max(after, 0))
        image = np.pad(image, pad)
    return image
