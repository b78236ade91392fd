"""Parameters in a NeXus file: JSON with the arrays beside it, and a copy of typed datasets.

The JSON and its arrays give every value back with its type; what they mean is the business of the
caller.  The typed datasets are for reading by eye and by other programs.  Text is never evaluated.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pyptyx.errors import DataError, Problem
from pyptyx.output import nexus_fields as nx

Document = Mapping[str, Any]
Arrays = Mapping[str, np.ndarray]

_PLACE = "entry/reconstruction"
_PYPTY_PLACE = f"{_PLACE}/reconstruction parameters"
_PYPTY_ADDITIONS = ("dataset", "software")
"""Entries of PyPty that are no parameters: the name of a file, and its own."""


_RESERVED = ("_mask", "_set", "_end", "_errors", "_indices", "_weights", "_offset")


def write_parameters(process: h5py.Group, document: Document, arrays: Arrays) -> None:
    """Write parameters into an NXprocess group.

    Parameters
    ----------
    process : h5py.Group
    document : mapping
        The parameters as JSON types; ``{"$array": name}`` stands for an array.
    arrays : mapping
        The arrays by name.
    """
    note = nx.group(process, "parameters", "NXnote")
    note["type"] = "application/json"
    note["description"] = "parameters; {'$array': name} stands for a dataset of ../arrays"
    note["data"] = np.bytes_(json.dumps(document, allow_nan=False).encode("ascii"))
    stored = nx.group(process, "arrays", "NXcollection")
    for name, array in arrays.items():
        nx.write_array(stored, name, array)
    values = nx.group(process, "values", "NXcollection")
    for key, value in document.items():
        if not key.isidentifier():
            continue
        # A name that ends like those NeXus keeps for companions of a field needs such a field.
        name = f"{key}_value" if key.endswith(_RESERVED) else key
        if isinstance(value, dict) and value.keys() == {"$array"}:
            values[name] = stored[value["$array"]]
        elif _hdf5_can_hold(value):
            values[name] = value


def _hdf5_can_hold(value: Any) -> bool:
    if isinstance(value, str):
        return value.isprintable()
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return isinstance(value, float)


def read_parameters(path: Path) -> tuple[Any, dict[str, np.ndarray]] | None:
    """Document and arrays of a file that pyptyx wrote.

    Parameters
    ----------
    path : Path

    Returns
    -------
    tuple or None
        None if there is no such document in the file.

    Raises
    ------
    DataError
        If the file is missing or damaged.
    """
    with _reading(path) as file:
        if f"{_PLACE}/parameters/data" not in file:
            return None
        document = json.loads(bytes(file[f"{_PLACE}/parameters/data"][()]))
        stored = file[f"{_PLACE}/arrays"]
        return document, {name: nx.read_array(dataset) for name, dataset in stored.items()}


def read_pypty_parameters(path: Path) -> dict[str, Any]:
    """The parameters of a file that PyPty wrote, as they stand there.

    Parameters
    ----------
    path : Path

    Returns
    -------
    dict
        A number for a single number, an array for an array (also of length 1), text for an array of
        one text, a list for one of several.

    Raises
    ------
    DataError
        If the file is missing, damaged, or holds no parameters.
    """
    with _reading(path) as file:
        if _PYPTY_PLACE not in file:
            expected = "a NeXus file of pyptyx or PyPty"
            raise DataError(Problem(str(path), expected, "one without parameters"))
        return {
            key: _pypty_value(item)
            for key, item in file[_PYPTY_PLACE].items()
            if isinstance(item, h5py.Dataset) and key not in _PYPTY_ADDITIONS
        }


def _pypty_value(dataset: h5py.Dataset) -> Any:
    if h5py.check_string_dtype(dataset.dtype) is not None:
        texts = np.asarray(dataset.asstr()[()], dtype=object).ravel().tolist()
        return texts[0] if len(texts) == 1 else texts
    value = np.asarray(dataset[()])
    return value.item() if value.ndim == 0 else value


@contextmanager
def _reading(path: Path) -> Iterator[h5py.File]:
    """An open HDF5 file; whatever is wrong with it becomes a DataError that names it."""
    if not path.is_file():
        got = "a folder" if path.is_dir() else "no such file"
        raise DataError(Problem(str(path), "a NeXus file", got, "Check the path"))
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        got = f"one that cannot be read ({error})"
        raise DataError(Problem(str(path), "a complete NeXus file", got)) from error
