"""The data of a run: preparing batches, reading phase plates."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pyptyx.data import PatternFeed, Preparation, check_counts, fits_in_memory
from pyptyx.data.base import PatternSource
from pyptyx.data.hdf5 import hdf5_fault
from pyptyx.engine.masks import data_edge
from pyptyx.errors import DataError, Problem
from pyptyx.physics.grid import Grid

logger = logging.getLogger(__name__)


def has_data(resolved: Mapping[str, Any]) -> bool:
    """Whether the parameters name any data."""
    return resolved["dataset"] is not None or bool(resolved["data_path"])


def _preparation(resolved: Mapping[str, Any], real: Any) -> Preparation:
    shift_y, shift_x = resolved["data_shift_vector"]
    pad = data_edge(resolved)
    return Preparation(
        shift=(int(shift_y), int(shift_x)),
        bin=int(resolved["data_bin"]),
        multiplier=float(resolved["data_multiplier"]),
        pad=(pad, pad),
        dtype=real,
        corner=resolved["recon_type"] == "far_field",
    )


def make_feed(
    resolved: Mapping[str, Any],
    source: PatternSource | None,
    shape: tuple[int, int],
    real: np.dtype[Any],
) -> Callable[[np.ndarray], np.ndarray]:
    """``feed(indices) -> (B, ky, kx)`` as the model has it; kept in memory when the data fit.

    Signals of virtual detectors come as patterns of one row, (B, 1, Nd).

    Parameters
    ----------
    resolved : mapping
    source : PatternSource or None
        None gives zeros of `shape`, for simulations.
    shape : tuple of int
        Data grid.
    real : dtype
        Working type.

    Raises
    ------
    DataError
        For NaN, negative or all-zero counts, in memory everywhere, otherwise in the first patterns.
    """
    if source is None:

        def nothing(indices: np.ndarray) -> np.ndarray:
            return np.zeros((len(indices), *shape), real)

        return nothing
    preparation = _preparation(resolved, real)
    resident = fits_in_memory(source, preparation)
    feed = PatternFeed(source, preparation, resident)
    signed = resolved["algorithm"] == "lsq_compressed"
    sample = source if resident else source.read(slice(0, 64))
    problems = check_counts(sample, source.name, signed)
    if problems:
        raise DataError(problems)
    logger.info("data: %s patterns, %s", source.shape[0], "in memory" if resident else "streamed")
    if len(source.shape) == 3:
        return feed.batch
    return lambda indices: feed.batch(indices)[:, None]


def open_plates(path: str) -> h5py.File:
    """The file of ``phase_plate_in_h5``, open for reading."""
    try:
        return h5py.File(path, "r")
    except OSError as error:
        got = f"{path}, {hdf5_fault(Path(path), error)}"
        remedy = "Check the path, or remove the key"
        raise DataError(Problem("phase_plate_in_h5", "an HDF5 file", got, remedy)) from error


def plate_reader(file: h5py.File, grid: Grid, n: int) -> Callable[[np.ndarray], np.ndarray]:
    """Phase plates of ``configs``, one for all or one per measurement, read as they are needed."""
    configs = file.get("configs")
    shape: tuple[int, ...] = getattr(configs, "shape", ())
    if shape[1:] != grid.shape or shape[0] not in (1, n):
        file.close()
        expected = f"a data set 'configs' of shape ({n} or 1, {grid.shape[0]}, {grid.shape[1]})"
        got = f"shape {shape}" if shape else "none of that name"
        remedy = "Give one plate for all or one per measurement, on the window with its padding"
        raise DataError(Problem("phase_plate_in_h5", expected, got, remedy))

    def read(indices: np.ndarray) -> np.ndarray:
        if configs.shape[0] == 1:
            return configs[:]
        low, high = int(indices.min()), int(indices.max()) + 1
        return configs[low:high][indices - low]

    return read
