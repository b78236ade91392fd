"""One door to measured patterns: `open_source` makes a lazy stack of a path or an array."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pyptyx.data.base import Orientation, PatternSource
from pyptyx.data.formats.base import Request
from pyptyx.data.formats.registry import open_path
from pyptyx.data.npy import open_array
from pyptyx.errors import DataError, Problem

__all__ = ["PatternSource", "existing_file", "open_source"]


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
        An array, or a file of any format of `pyptyx.data.formats.registry`.  Layouts [N, ky, kx],
        [sy, sx, ky, kx], [N, Nmask].
    h5_key : str, optional
        Path of the data set in an HDF5 file, or member of an archive.  Default: ``data`` at the
        root, else the only data set of numbers with three or four axes.
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
        If the file is missing, a folder, unreadable or truncated, of an unknown format or one whose
        reader is not installed, or does not hold patterns.
    """
    orientation = Orientation(bool(flip_ky), bool(transpose))
    if isinstance(data, np.ndarray):
        return open_array(data, scan_size=scan_size, orientation=orientation)
    return open_path(Request(existing_file(data), h5_key, scan_size, orientation)).source


def existing_file(data: object) -> Path:
    """Path of a file that exists.

    Raises
    ------
    DataError
        If it is not a path, a folder, or nothing is there.
    """
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
