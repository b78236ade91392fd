"""The vocabulary of NeXus files: groups of a class, plots, fields with units, stacks of images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import h5py
import numpy as np

_COMPRESSION = {"compression": "gzip", "compression_opts": 4, "shuffle": True}
_TEXT_DTYPE, _TEXT_SHAPE = "numpy_dtype", "numpy_shape"
"""Attributes of an array of text, which is kept as bytes."""


def legal_name(name: str) -> str:
    """A NeXus name: lower-case letters, digits and underscores."""
    return re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_").lower()


def group(parent: h5py.Group, name: str, nx_class: str) -> h5py.Group:
    """A new group of a NeXus class."""
    new = parent.create_group(name, track_order=True)
    new.attrs["NX_class"] = nx_class
    return new


def plot(
    parent: h5py.Group, name: str, signal: str, auxiliary: Sequence[str], axes: Sequence[str]
) -> h5py.Group:
    """A new NXdata group: what to plot over which axes; ``"."`` is an axis without a name."""
    new = group(parent, name, "NXdata")
    new.attrs["signal"] = signal
    if auxiliary:
        new.attrs["auxiliary_signals"] = list(auxiliary)
    new.attrs["axes"] = list(axes)
    for index, axis in enumerate(axes):
        if axis != ".":
            new.attrs[f"{axis}_indices"] = index
    return new


def field(parent: h5py.Group, name: str, values: Any, unit: str = "") -> h5py.Dataset:
    """A new dataset; without a unit it is dimensionless."""
    parent[name] = values
    dataset = parent[name]
    if unit:
        dataset.attrs["units"] = unit
    return dataset


def image_stack(
    parent: h5py.Group, name: str, shape: tuple[int, ...], dtype: Any, unit: str = ""
) -> h5py.Dataset:
    """A new compressed dataset to be filled, one chunk per image; the image axes are the last."""
    chunks = (*(1,) * (len(shape) - 2), *shape[-2:])
    dataset = parent.create_dataset(name, shape, dtype, chunks=chunks, **_COMPRESSION)
    if unit:
        dataset.attrs["units"] = unit
    return dataset


def write_array(parent: h5py.Group, name: str, array: np.ndarray) -> h5py.Dataset:
    """An array of numbers, booleans or text that `read_array` gives back exactly."""
    if array.dtype.kind in "SU":
        raw = np.frombuffer(array.tobytes(), np.uint8)
        dataset = parent.create_dataset(name, data=raw)
        dataset.attrs[_TEXT_DTYPE] = array.dtype.str
        dataset.attrs[_TEXT_SHAPE] = np.array(array.shape, np.int64)
        return dataset
    options = _COMPRESSION if array.size > 1 else {}
    return parent.create_dataset(name, data=array, **options)


def read_array(dataset: h5py.Dataset) -> np.ndarray:
    """The array that `write_array` wrote."""
    if _TEXT_DTYPE not in dataset.attrs:
        return np.asarray(dataset[()], dataset.dtype)
    dtype = np.dtype(str(dataset.attrs[_TEXT_DTYPE]))
    shape = tuple(int(n) for n in dataset.attrs[_TEXT_SHAPE])
    if dtype.kind not in "SU":
        raise ValueError(f"{dtype} is no text")
    return np.ndarray(shape, dtype, bytes(dataset[()])).copy()
