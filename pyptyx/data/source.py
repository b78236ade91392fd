"""One door to measured patterns: `open_source` makes a lazy stack of a path or an array."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from pyptyx.data.base import Orientation, PatternSource
from pyptyx.data.hdf5 import open_hdf5
from pyptyx.data.npy import open_array, open_npy
from pyptyx.errors import DataError, Problem

__all__ = ["HDF5_SUFFIXES", "PatternSource", "open_source"]

HDF5_SUFFIXES = frozenset({".h5", ".hdf5", ".hdf", ".nxs", ".emd", ".cxi", ".mat"})
"""File name endings read as HDF5 even before looking inside."""


def open_source(
    data: str | os.PathLike[str] | np.ndarray,
    *,
    h5_key: str | None = None,
    scan_size: Sequence[int] | None = None,
    flip_ky: bool = False,
    transpose: bool = False,
) -> PatternSource:
    """Open measured patterns without reading them.

    Parameters
    ----------
    data : path or ndarray
        An HDF5 file (``.h5 .hdf5 .hdf .nxs .emd .cxi .mat``, or any file with the HDF5 signature),
        a ``.npy`` file, or an array.  Layouts [N, ky, kx], [sy, sx, ky, kx], [N, Nmask].
    h5_key : str, optional
        Path of the data set in an HDF5 file.  Default: ``data`` at the root, else the only data set
        of numbers with three or four axes.
    scan_size : (Ny, Nx), optional
        Rows and columns of the scan; ``Ny * Nx`` must be the number of patterns.
    flip_ky : bool
        Reverse axis ky of every pattern.
    transpose : bool
        Swap ky and kx of every pattern, after `flip_ky`.

    Returns
    -------
    PatternSource

    Raises
    ------
    DataError
        If the file is missing, a folder, unreadable or truncated, or does not hold patterns.
    """
    orientation = Orientation(bool(flip_ky), bool(transpose))
    if isinstance(data, np.ndarray):
        return open_array(data, scan_size=scan_size, orientation=orientation)
    path = _existing_file(data)
    if path.suffix.lower() in HDF5_SUFFIXES or h5py.is_hdf5(path):
        return open_hdf5(path, h5_key=h5_key, scan_size=scan_size, orientation=orientation)
    return open_npy(path, scan_size=scan_size, orientation=orientation)


def _existing_file(data: object) -> Path:
    if not isinstance(data, str | os.PathLike):
        raise DataError(Problem("data", "a path or a NumPy array", type(data).__name__))
    path = Path(os.fspath(data)).expanduser()
    if path.is_dir():
        raise DataError(Problem(str(path), "a file", "a folder", "Name the file inside it."))
    if not path.is_file():
        raise DataError(
            Problem(
                str(path),
                "an existing file",
                "nothing there",
                f"Relative paths start in {Path.cwd()}.",
            )
        )
    return path
