"""The data of a run: preparing batches, reading phase plates."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pyptyx.data import CountChecks, PatternFeed, Preparation, SignalFeed, fits_in_memory
from pyptyx.data.base import PatternSource
from pyptyx.data.hdf5 import hdf5_fault
from pyptyx.data.packing import Packing, find_packing, typed_packing
from pyptyx.data.selection import Selection
from pyptyx.engine.masks import data_edge
from pyptyx.engine.patterns import measured_preparation
from pyptyx.errors import DataError, Problem
from pyptyx.physics.grid import Grid
from pyptyx.physics.model import ModelSpec

logger = logging.getLogger(__name__)

_IN_MEMORY = 0.25
"""Part of a machine's free memory that the data may fill as floats."""

_IN_MEMORY_PACKED = 0.5
"""The same for whole numbers of one or two bytes; the next resort is to read all again."""


@dataclass(frozen=True)
class Share:
    """The data one process keeps.

    Attributes
    ----------
    own : ndarray of int or None
        Numbers of the measurements, ascending; None is all of them.
    neighbours : int
        How many processes of this machine keep a share.
    """

    own: np.ndarray | None = None
    neighbours: int = 1


def has_data(resolved: Mapping[str, Any]) -> bool:
    """Whether the parameters name any data."""
    return resolved["dataset"] is not None or bool(resolved["data_path"])


def preparation_of(resolved: Mapping[str, Any], real: Any) -> Preparation:
    """The treatment of every pattern that the parameters ask for, as floats of type `real`."""
    pad = data_edge(resolved)
    return replace(
        measured_preparation(resolved, float(resolved["data_multiplier"])),
        pad=(pad, pad),
        dtype=real,
        corner=resolved["recon_type"] == "far_field",
    )


def make_feed(
    resolved: Mapping[str, Any],
    source: PatternSource | None,
    spec: ModelSpec,
    share: Share | None = None,
    on_gpu: bool = False,
) -> Callable[[np.ndarray], np.ndarray]:
    """``feed(indices) -> (B, ky, kx)`` as the model has it; kept in memory when the data fit.

    Of data that are shared out, only the own measurements are checked and kept; others are read
    when they are asked for.  Signals of virtual detectors come as patterns of one row, (B, 1, Nd).

    Parameters
    ----------
    resolved : mapping
    source : PatternSource or None
        None gives zeros, for simulations.
    spec : ModelSpec
        For the data grid and the working type.
    share : Share, optional
        By default, all data.
    on_gpu : bool
        Whether a GPU works on them.

    Raises
    ------
    DataError
        For NaN, negative or all-zero counts, in memory everywhere, otherwise in the first patterns.
    """
    real = np.empty(0, spec.dtype).real.dtype
    if source is None:

        def nothing(indices: np.ndarray) -> np.ndarray:
            return np.zeros((len(indices), *spec.data_shape), real)

        return nothing
    preparation = preparation_of(resolved, real)
    share = share or Share()
    kept = source if share.own is None else Selection(source, share.own)
    resident, packing = storage(kept, preparation, share, on_gpu)
    kind = PatternFeed if len(source.shape) == 3 else SignalFeed
    on_device = not resolved["load_one_by_one"]
    checks = CountChecks(source.name, signed=resolved["algorithm"] == "lsq_compressed")
    feed = kind(source, preparation, resident, packing, on_device, share.own, checks.add)
    if not resident:
        checks.add(kept.read(slice(0, 64)))
    problems = checks.problems()
    if problems:
        raise DataError(problems)
    logger.info("data: %s patterns, %s", kept.shape[0], storage_name(resident, packing))
    return feed


def storage_name(resident: bool, packing: Packing | None) -> str:
    """Where the patterns lie, in words."""
    if not resident:
        return "streamed from the file"
    return "in memory" if packing is None else f"in memory, packed as {packing.dtype}"


def storage(
    kept: PatternSource,
    preparation: Preparation,
    share: Share,
    on_gpu: bool,
    sample: int | None = None,
) -> tuple[bool, Packing | None]:
    """Whether patterns stay in memory, and as which whole numbers if not as floats.

    Whole numbers are a quarter or half of the memory to fill and to read again, for which a CPU
    makes them floats in every evaluation without being slower; a GPU keeps floats, if they fit.

    Parameters
    ----------
    kept : PatternSource
        What this process is to keep.
    preparation : Preparation
    share : Share
    on_gpu : bool
        Whether a GPU works on them.
    sample : int, optional
        Judge by the first so many patterns instead of by all.
    """
    floats, counts = (part / share.neighbours for part in (_IN_MEMORY, _IN_MEMORY_PACKED))
    packing = typed_packing(kept, preparation)
    if packing and not on_gpu and fits_in_memory(kept, preparation, counts, packing.dtype.itemsize):
        return True, packing
    if fits_in_memory(kept, preparation, floats):
        return True, None
    if not fits_in_memory(kept, preparation, counts, 1):
        return False, None
    # What is found for the own share must hold for all: other measurements may be asked for.
    if share.own is None:
        packing = find_packing(kept, preparation, sample)
    if packing is None or not fits_in_memory(kept, preparation, counts, packing.dtype.itemsize):
        return False, None
    return True, packing


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
