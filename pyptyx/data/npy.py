"""Patterns in an array: in memory, or in a ``.npy`` file through a memory map."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pyptyx.data.base import AS_STORED, Orientation, PatternSource, Stored, describe
from pyptyx.errors import DataError, Problem


class ArraySource(PatternSource):
    """Patterns of an array; the array is referenced, never changed.

    Parameters
    ----------
    name : str
        Name for messages.
    array : ndarray
        Layouts of `pyptyx.data.base`; any memory order.  Scattered reads of a memory map in
        Fortran order touch the whole file: prefer C order for large data.
    stored : Stored
        Division of the axes of `array`.
    orientation : Orientation
    """

    def __init__(self, name: str, array: np.ndarray, stored: Stored, orientation: Orientation):
        super().__init__(name, stored, orientation)
        self._array: np.ndarray | None = array

    def _read(self, indices: np.ndarray) -> np.ndarray:
        array = self._array
        if array is None:
            raise self._closed()
        # Indexing with coordinates, not reshape: reshaping Fortran order would copy everything.
        return np.asarray(array[np.unravel_index(indices, self._stored.scan_shape)])

    def close(self) -> None:
        """Let go of the array; a memory map is unmapped when nobody else holds it."""
        self._array = None


def open_array(
    array: np.ndarray,
    *,
    name: str = "dataset",
    scan_size: Sequence[int] | None = None,
    orientation: Orientation = AS_STORED,
) -> ArraySource:
    """Patterns of an array in memory.

    Raises
    ------
    DataError
        See `pyptyx.data.base.describe`.
    """
    stored = describe(name, array.shape, array.dtype, scan_size, orientation)
    return ArraySource(name, array, stored, orientation)


def array_fault(error: Exception) -> str:
    """Why a file of arrays could not be read, in words."""
    faults = {
        "Python objects": "an array of Python objects, which are never loaded",
        "magic string": "a file of another format",
        "mmap length": "one that ends too early",
        "EOF": "one that ends too early",
    }
    return next((words for sign, words in faults.items() if sign in str(error)), str(error))


def open_npy(
    path: Path,
    *,
    scan_size: Sequence[int] | None = None,
    orientation: Orientation = AS_STORED,
) -> ArraySource:
    """Patterns of a ``.npy`` file, memory mapped.

    Raises
    ------
    DataError
        If the file is not ``.npy``, is truncated, holds Python objects (pickle), or its array is
        not a stack of patterns.
    """
    name = str(path)
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, EOFError) as error:
        remedy = "Write it again with numpy.save from an array of integers or floats"
        expected = "a complete .npy file of numbers"
        raise DataError(Problem(name, expected, array_fault(error), remedy)) from error
    return open_array(array, name=name, scan_size=scan_size, orientation=orientation)
