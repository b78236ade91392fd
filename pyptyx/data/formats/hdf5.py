"""HDF5 files of every program: which data set holds the patterns, and what the file says of them.

==================  ================================================================================
any HDF5            [sy, sx, ky, kx] or [N, ky, kx] as stored; attributes named like our keys
MATLAB v7.3         written by MATLAB: all axes reversed, turned back to [sy, sx, ky, kx]; PtyRAD
                    and other Python programs write such files with the axes as they are
py4DSTEM, EMD       [Rx, Ry, Qx, Qy] as stored: the first axis, called x there, is our y
NCEM, Prismatic     the same, with ``dim1 ... dim4``
HyperSpy            as stored
Nion Swift          as stored
CXI                 [N, ky, kx] as stored
Arina, Velox        in modules of their own
==================  ================================================================================
"""

from __future__ import annotations

import h5py
import numpy as np

from pyptyx.data.base import Orientation, PatternSource, Stored
from pyptyx.data.formats import dectris, hdf5_metadata, velox
from pyptyx.data.formats.base import Opened, Request, first_of_each, refusal
from pyptyx.data.formats.units import check_detector_axes
from pyptyx.data.hdf5 import Hdf5Source, check_filters, find_dataset, open_h5, stored_dataset

_MATLAB_NOTE = (
    "MATLAB stores axes in reverse: patterns are transposed on reading, and of 4-D data the scan."
)
_FOLD_SLICE_NOTE = (
    "/dp without marks of MATLAB is read as stored; if fold_slice wrote it in MATLAB, the patterns "
    "are transposed: set transpose_patterns, and swap scan_size if y was the fast axis."
)


def open_file(request: Request) -> Opened:
    """Patterns of an HDF5 file.

    Raises
    ------
    DataError
        If the file is not HDF5 or damaged, the data set is missing or ambiguous, its compression
        is not available, or it does not hold diffraction patterns.
    """
    file = open_h5(request.path)
    try:
        if request.key is None and dectris.is_master(file):
            return dectris.open_master(file, request)
        if velox.is_velox(file):
            return velox.open_velox(file, request)
        return _open_dataset(file, request)
    except BaseException:
        file.close()
        raise


def _open_dataset(file: h5py.File, request: Request) -> Opened:
    dataset = find_dataset(file, request.key)
    format_name, axes = hdf5_metadata.axes(dataset)
    check_detector_axes(request.path, axes)
    compression = check_filters(dataset)
    source: PatternSource
    notes: tuple[str, ...] = ()
    if "MATLAB_class" in dataset.attrs:
        format_name, notes = "MATLAB v7.3", (_MATLAB_NOTE,)
        source = _reversed(file, dataset, request)
    else:
        stored = stored_dataset(dataset, request.scan_size, request.orientation)
        source = Hdf5Source(file, dataset, stored, request.orientation)
        if dataset.name == "/dp":
            notes = (_FOLD_SLICE_NOTE,)
    found = first_of_each(hdf5_metadata.calibrations(dataset))
    if source.scan_size is not None:
        found = tuple(f for f in found if f.key != "scan_size")
    return Opened(
        source,
        format_name or "HDF5",
        found,
        key=dataset.name,
        chunks=dataset.chunks,
        compression=compression,
        notes=notes,
    )


class ReversedSource(Hdf5Source):
    """Patterns of a data set whose axes are all reversed, as MATLAB writes them.

    MATLAB's ``(ky, kx, N)`` and ``(ky, kx, sy, sx)`` are stored as ``(N, kx, ky)`` and
    ``(sx, sy, kx, ky)``.  Pattern n is ``(n // sx, n % sx)`` as everywhere.

    Parameters
    ----------
    file, dataset
        See `Hdf5Source`.
    stored : Stored
        Division of the axes as they are stored.
    orientation : Orientation
        Applied after the axes are in order.
    """

    def __init__(
        self, file: h5py.File, dataset: h5py.Dataset, stored: Stored, orientation: Orientation
    ):
        super().__init__(file, dataset, stored, orientation)
        self.shape = (stored.count, *orientation.shape(stored.pattern_shape[::-1]))
        if len(stored.scan_shape) == 2:
            self.scan_size = (stored.scan_shape[1], stored.scan_shape[0])

    def _read(self, indices: np.ndarray) -> np.ndarray:
        if len(self._stored.scan_shape) == 2:
            columns, rows = self._stored.scan_shape
            row, column = np.divmod(indices, columns)
            indices = column * rows + row
        return super()._read(indices).swapaxes(1, 2)


def _reversed(file: h5py.File, dataset: h5py.Dataset, request: Request) -> ReversedSource:
    wanted = request.scan_size
    if wanted is not None and dataset.ndim == 4:
        wanted = tuple(wanted)[::-1]
    stored = stored_dataset(dataset, wanted, request.orientation)
    if len(stored.pattern_shape) != 2:
        remedy = "Store the signals from Python, axes [N, Nmask]."
        raise refusal(request.path, f"two axes, {dataset.shape}", remedy)
    return ReversedSource(file, dataset, stored, request.orientation)
