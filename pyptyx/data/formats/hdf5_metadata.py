"""What HDF5 files say beside the patterns, each program in its own place.

A reader of metadata never fails: what is absent or of a strange type says nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pyptyx.data.formats import nion
from pyptyx.data.formats.base import Found, entries, number, positive
from pyptyx.data.formats.units import Axis, angle_mrad, length_A, reciprocal_per_A
from pyptyx.data.formats.units import calibrations as of_axes

_OWN_KEYS = {
    "acc_voltage": "kV", "scan_step_A": "Å", "fov_nm": "nm", "rez_pixel_size_A": "1/Å",
    "rez_pixel_size_mrad": "mrad", "conv_semiangle_mrad": "mrad", "wavelength_A": "Å",
}  # fmt: skip
"""Attributes that are taken by name: positive numbers whose unit belongs to the name."""

_PRISMATIC = "4DSTEM_simulation/metadata/metadata_0/original/simulation_parameters"
"""Group of the settings of a simulation by Prismatic."""


def text(value: Any) -> str:
    """Text of an attribute or a scalar data set, whatever type it has."""
    if isinstance(value, h5py.Dataset):
        value = value[()] if value.size == 1 else ""
    value = value.ravel()[0] if isinstance(value, np.ndarray) and value.size == 1 else value
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def scalar(group: h5py.Group | None, path: str) -> float | None:
    """Number of a scalar data set below a group, or None."""
    item = group.get(path) if group is not None else None
    return number(item[()]) if isinstance(item, h5py.Dataset) and item.size == 1 else None


def axes(dataset: h5py.Dataset) -> tuple[str, tuple[Axis, ...]]:
    """Name of the program's format, and the calibrated axes in the order of the data set.

    Returns
    -------
    str
        Empty if the data set belongs to no format that is known.
    tuple of Axis
        Empty if there are none, else one for every axis.
    """
    tree = _nion_tree(dataset)
    if tree is not None:
        return "Nion Swift HDF5", nion.axes(tree, _file(dataset))
    group = dataset.parent
    for first in (0, 1):
        names = [f"dim{i + first}" for i in range(dataset.ndim)]
        if all(isinstance(group.get(n), h5py.Dataset) for n in names):
            dims = tuple(_dim_axis(group[n]) for n in names)
            if _PRISMATIC in dataset.file:
                return "EMD (Prismatic)", _relabelled(dataset, dims)
            return "EMD (py4DSTEM, NCEM)", dims
    names = [f"axis-{i}" for i in range(dataset.ndim)]
    if all(n in group for n in names):
        return "HyperSpy", tuple(
            Axis(
                positive(group[n].attrs.get("scale")),
                text(group[n].attrs.get("units", "")),
                _where(group[n], "@scale"),
            )
            for n in names
        )
    return ("CXI" if "cxi_version" in dataset.file else ""), ()


def calibrations(dataset: h5py.Dataset) -> Iterator[Found]:
    """Everything the file says, the most trusted place of each key first."""
    yield from _own_attributes(dataset)
    tree = _nion_tree(dataset)
    if tree is not None:
        yield from nion.calibrations(tree, _file(dataset))
    yield from _py4dstem(dataset)
    yield from _prismatic(dataset)
    all_axes = axes(dataset)[1]
    if tree is None and len(all_axes) in (3, 4):
        yield from of_axes(all_axes[:-2] if len(all_axes) == 4 else (), all_axes[-2:])
    yield from _hyperspy(dataset)
    yield from _cxi(dataset)


def _file(item: h5py.Group | h5py.Dataset) -> str:
    return Path(item.file.filename).name


def _where(item: h5py.Group | h5py.Dataset, more: str = "") -> str:
    return f"{_file(item)}: {item.name}{more}"


def _own_attributes(dataset: h5py.Dataset) -> Iterator[Found]:
    for holder in (dataset, dataset.file):
        for key, unit in _OWN_KEYS.items():
            value = positive(holder.attrs.get(key))
            if value is not None:
                yield Found(key, value, unit, _where(holder, f"@{key}"))


def _nion_tree(dataset: h5py.Dataset) -> Mapping[str, Any] | None:
    properties = dataset.attrs.get("properties")
    if not isinstance(properties, str | bytes):
        return None
    try:
        tree = json.loads(properties)
    except (ValueError, RecursionError):
        return None
    return tree if isinstance(tree, Mapping) else None


def _dim_axis(dim: h5py.Dataset) -> Axis:
    """Axis of a vector of coordinates, of which EMD may store the first two only."""
    step = None
    if dim.ndim == 1 and dim.size >= 2 and dim.dtype.kind in "iuf":
        first, second = dim[:2]
        step = positive(abs(float(second) - float(first)))
    return Axis(step, text(dim.attrs.get("units", "")), _where(dim))


def _relabelled(dataset: h5py.Dataset, dims: tuple[Axis, ...]) -> tuple[Axis, ...]:
    """Axes of Prismatic, which writes Å and 1/Å under the labels ``[n_m]`` and ``[n_m^-1]``.

    Its parameter ``ry``, in Å, tells: it equals the step of the scan axis as written.
    """
    step = positive(dataset.file[_PRISMATIC].attrs.get("ry"))
    if step is None or dims[0].scale is None or not math.isclose(step, dims[0].scale, rel_tol=1e-3):
        return dims
    units = {"[n_m]": "Å", "[n_m^-1]": "1/Å"}
    return tuple(Axis(d.scale, units.get(d.unit, d.unit), d.where) for d in dims)


def _py4dstem(dataset: h5py.Dataset) -> Iterator[Found]:
    """The calibration of a py4DSTEM file, version 0.13 and later."""
    root = dataset.parent
    while root.name != "/" and "metadatabundle/calibration" not in root:
        root = root.parent
    calibration = root.get("metadatabundle/calibration")
    if not isinstance(calibration, h5py.Group):
        return
    step, step_unit = scalar(calibration, "R_pixel_size"), _unit(calibration, "R_pixel_units")
    pixel, pixel_unit = scalar(calibration, "Q_pixel_size"), _unit(calibration, "Q_pixel_units")
    turn = scalar(calibration, "QR_rotation")
    rows = [
        ("scan_step_A", length_A(step, step_unit), "Å", "R_pixel_size"),
        ("rez_pixel_size_A", reciprocal_per_A(pixel, pixel_unit), "1/Å", "Q_pixel_size"),
        ("rez_pixel_size_mrad", angle_mrad(pixel, pixel_unit), "mrad", "Q_pixel_size"),
        ("scan_rotation_deg", None if turn is None else math.degrees(turn), "deg", "QR_rotation"),
        ("detector_flip", scalar(calibration, "QR_flip"), "", "QR_flip"),
        ("beam_radius_px", positive(scalar(calibration, "probe_semiangle")), "px",
         "probe_semiangle"),
    ]  # fmt: skip
    yield from entries((k, v, u, _where(calibration, f"/{place}")) for k, v, u, place in rows)


def _unit(group: h5py.Group, name: str) -> str:
    item = group.get(name)
    return text(item) if isinstance(item, h5py.Dataset) else ""


def _prismatic(dataset: h5py.Dataset) -> Iterator[Found]:
    group = dataset.file.get(_PRISMATIC)
    if group is None:
        return
    rows = [
        ("acc_voltage", positive(group.attrs.get("E")), "kV", "@E"),
        ("conv_semiangle_mrad", positive(group.attrs.get("sa")), "mrad", "@sa"),
    ]
    yield from entries((k, v, u, _where(group, place)) for k, v, u, place in rows)


def _hyperspy(dataset: h5py.Dataset) -> Iterator[Found]:
    group = dataset.parent.get("metadata/Acquisition_instrument/TEM")
    if not isinstance(group, h5py.Group):
        return
    rows = [
        ("acc_voltage", "beam_energy", "kV"),
        ("conv_semiangle_mrad", "convergence_angle", "mrad"),
        ("camera_length_mm", "camera_length", "mm"),
    ]
    yield from entries(
        (key, positive(group.attrs.get(name)), unit, _where(group, f"@{name}"))
        for key, name, unit in rows
    )


def _cxi(dataset: h5py.Dataset) -> Iterator[Found]:
    """A CXI file: photons, so it gives the wavelength and no voltage."""
    if "cxi_version" not in dataset.file:
        return
    instrument = dataset.file.get("entry_1/instrument_1")
    if not isinstance(instrument, h5py.Group):
        return
    wavelength = positive(scalar(instrument, "source_1/wavelength"), 1e10)
    yield from entries(
        [("wavelength_A", wavelength, "Å", _where(instrument, "/source_1/wavelength"))]
    )
    distance = positive(scalar(instrument, "detector_1/distance"))
    if distance is None:
        return
    sizes = [positive(scalar(instrument, f"detector_1/{a}_pixel_size"), 1e3) for a in "yx"]
    pixels = [Axis(None if size is None else size / distance, "mrad", "") for size in sizes]
    for entry in of_axes((), pixels):
        place = "/detector_1/x_pixel_size over distance"
        yield Found(entry.key, entry.value, entry.unit, _where(instrument, place))
