"""One NeXus file for everything a run leaves behind.

The file is plain NeXus: base classes only, no claim to an application definition.  Every section of
it is one function of this module.

::

    / @default=entry
    entry:NXentry @default=object     title start_time end_time
      sample:NXsample                 name chemical_formula thickness
      object:NXdata                   phase amplitude (mode, z, y, x) float32; data complex
      probe:NXdata                    intensity phase (mode[, scenario], y, x) float32
      scan:NXdata                     positions (N, 2) in Å, top-left corners of the windows
      loss:NXdata                     the columns of loss.csv over the epoch
      instrument:NXinstrument         beam, source; probe/data and scan/positions are links
      checkpoint:NXcollection         every saved array; obj and probe with the image axes last
      reconstruction:NXprocess        program version date
        parameters:NXnote             the parameters as JSON
        arrays:NXcollection           the arrays the JSON refers to
        values:NXcollection           the same parameters as typed datasets, to look at

``entry/object/data``, ``entry/instrument/probe/data`` and ``entry/instrument/scan/positions`` are
where PyPty keeps object, probe and positions.  ``y`` points down, unless the rows were asked to be
flipped as in PyPty; coordinates are written beside the pixels, so both say the same.  The base
classes are those of Könnecke et al., J. Appl. Cryst. 48, 301 (2015).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pyptyx import __version__
from pyptyx.files import replacing
from pyptyx.output import nexus_fields as nx
from pyptyx.output.nexus_params import write_parameters


@dataclass
class Content:
    """What goes into a file.

    Attributes
    ----------
    title : str
    start_time, end_time : str
        ISO 8601 with time zone.
    arrays : dict of ndarray
        Current checkpoint in the public layouts by key of the params dictionary; ``obj (Y, X, Nz,
        Mo)``, ``probe (ny, nx, Mp[, Ns])`` and ``positions (N, 2)`` in px are needed.  They may
        be memory maps.
    numbered : dict of dict
        Further checkpoints by epoch.
    pixel_A : tuple of float
        Pixel of the object ``(y, x)`` in Å.
    depths_A : sequence of float
        Depth of every slice in Å.
    loss : dict of list
        Columns of the loss log by name; numbers or text.
    document : dict
        The parameters as JSON types.
    parameter_arrays : dict of ndarray
        The arrays `document` refers to.
    sample : dict
        ``name``, ``chemical_formula``, and ``thickness_A``, where known.
    energy_eV : float or None
        Of the electrons; None if the beam is of another kind.
    wavelength_A : float or None
    flip_y : bool
        Write the rows of object and probe from the last to the first, as PyPty does.
    """

    title: str
    start_time: str
    end_time: str
    arrays: Mapping[str, np.ndarray]
    pixel_A: tuple[float, float]
    depths_A: np.ndarray
    document: Mapping[str, Any]
    parameter_arrays: Mapping[str, np.ndarray]
    numbered: Mapping[int, Mapping[str, np.ndarray]] = field(default_factory=dict)
    loss: Mapping[str, list[Any]] = field(default_factory=dict)
    sample: Mapping[str, Any] = field(default_factory=dict)
    energy_eV: float | None = None
    wavelength_A: float | None = None
    flip_y: bool = False


def write_nexus(target: Path, content: Content) -> None:
    """Write the file, complete or not at all.

    Parameters
    ----------
    target : Path
    content : Content

    Raises
    ------
    OutputError
        If the file cannot be written; an older file stays as it was.
    """
    with replacing(target) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update(
            NX_class="NXroot",
            default="entry",
            creator=f"pyptyx {__version__}",
            file_name=target.name,
            file_time=content.end_time,
        )
        entry = nx.group(file, "entry", "NXentry")
        entry.attrs["default"] = "object"
        for name in ("title", "start_time", "end_time"):
            entry[name] = getattr(content, name)
        _write_sample(entry, content)
        state = _write_checkpoint(entry, content)
        _write_object(entry, content, state["obj"])
        _write_probe(entry, content, state["probe"])
        _write_scan(entry, content)
        if content.loss:
            _write_loss(entry, content.loss)
        _write_instrument(entry, content, state["probe"])
        _write_reconstruction(entry, content)


def _write_sample(entry: h5py.Group, content: Content) -> None:
    group = nx.group(entry, "sample", "NXsample")
    for name in ("name", "chemical_formula"):
        if content.sample.get(name):
            group[name] = content.sample[name]
    if content.sample.get("thickness_A"):
        nx.field(group, "thickness", float(content.sample["thickness_A"]), "angstrom")


def _write_checkpoint(entry: h5py.Group, content: Content) -> h5py.Group:
    group = nx.group(entry, "checkpoint", "NXcollection")
    for key, array in content.arrays.items():
        _write_state(group, key, array, content.flip_y)
    for epoch, arrays in content.numbered.items():
        numbered = nx.group(group, f"epoch_{epoch}", "NXcollection")
        for key, array in arrays.items():
            _write_state(numbered, key, array, content.flip_y)
    return group


def _write_state(group: h5py.Group, key: str, array: np.ndarray, flip_y: bool) -> None:
    """One array of a checkpoint; images get their axes last and are copied one at a time."""
    if key not in _IMAGE_AXES:
        nx.write_array(group, key, np.asarray(array))
        return
    axes = _IMAGE_AXES[key][: array.ndim - 2]
    images = _images_last(key, array)
    dataset = nx.image_stack(group, key, images.shape, images.dtype)
    dataset.attrs["axes"] = [*axes, "y", "x"]
    dataset.attrs["y_axis_direction"] = _direction(flip_y)
    for index in np.ndindex(images.shape[:-2]):
        dataset[index] = _rows(images[index], flip_y)


_IMAGE_AXES = {"obj": ("mode", "z"), "probe": ("mode", "scenario")}
"""Leading axes in the file; those of a probe without scenarios are cut short."""


def _images_last(key: str, array: np.ndarray) -> np.ndarray:
    """``(y, x, z, mode)`` as ``(mode, z, y, x)``, ``(y, x, mode[, scenario])`` likewise."""
    leading = (3, 2) if key == "obj" else tuple(range(2, array.ndim))
    return array.transpose(*leading, 0, 1)


def _rows(image: np.ndarray, flip_y: bool) -> np.ndarray:
    return image[::-1] if flip_y else image


def _direction(flip_y: bool) -> str:
    return "up" if flip_y else "down"


def _write_object(entry: h5py.Group, content: Content, state: h5py.Dataset) -> None:
    group = nx.plot(entry, "object", "phase", ("amplitude",), ("mode", "z", "y", "x"))
    _write_views(group, state, {"phase": (np.angle, "rad"), "amplitude": (np.abs, "")})
    group["data"] = state
    nx.field(group, "mode", np.arange(state.shape[0]))
    nx.field(group, "z", np.asarray(content.depths_A, np.float64), "angstrom")
    _write_image_axes(group, state.shape[-2:], content, origin=(0, 0))


def _write_probe(entry: h5py.Group, content: Content, state: h5py.Dataset) -> None:
    axes = [str(name) for name in state.attrs["axes"]]
    group = nx.plot(entry, "probe", "intensity", ("phase",), axes)
    _write_views(group, state, {"intensity": (_intensity, ""), "phase": (np.angle, "rad")})
    for name, length in zip(axes[:-2], state.shape[:-2], strict=True):
        nx.field(group, name, np.arange(length))
    height, width = state.shape[-2:]
    _write_image_axes(group, (height, width), content, origin=(height // 2, width // 2))


def _intensity(wave: np.ndarray) -> np.ndarray:
    return np.abs(wave) ** 2


def _write_views(group: h5py.Group, state: h5py.Dataset, views: Mapping[str, Any]) -> None:
    """Real float32 images of a complex stack, for viewers that cannot show complex numbers."""
    for name, (function, unit) in views.items():
        dataset = nx.image_stack(group, name, state.shape, np.float32, unit)
        for index in np.ndindex(state.shape[:-2]):
            dataset[index] = function(state[index])


def _write_image_axes(
    group: h5py.Group, shape: tuple[int, int], content: Content, origin: tuple[int, int]
) -> None:
    """Coordinates of rows and columns in Å; they follow the rows when these are flipped."""
    y, x = (
        (np.arange(n) - zero) * pixel
        for n, zero, pixel in zip(shape, origin, content.pixel_A, strict=True)
    )
    nx.field(group, "y", _rows(y, content.flip_y), "angstrom")
    nx.field(group, "x", x, "angstrom")
    group.attrs["y_axis_direction"] = _direction(content.flip_y)


def _write_scan(entry: h5py.Group, content: Content) -> None:
    group = nx.plot(entry, "scan", "positions", (), ("measurement", "."))
    positions = np.asarray(content.arrays["positions"], np.float64) * np.array(content.pixel_A)
    nx.field(group, "positions", positions, "angstrom")
    group["positions"].attrs["reference"] = "(y, x) of the top-left corner of the probe window"
    nx.field(group, "measurement", np.arange(len(positions)))


def _write_loss(entry: h5py.Group, columns: Mapping[str, list[Any]]) -> None:
    names = {column: _legal(column) for column in columns}
    numeric = {names[c]: v for c, v in columns.items() if _is_numeric(v)}
    others = [name for name in numeric if name not in ("epoch", "loss")]
    group = nx.plot(entry, "loss", "loss", others, ("epoch",))
    for column, values in columns.items():
        unit = "s" if column.endswith("/ s") else ""
        if column == "epoch":
            nx.field(group, "epoch", np.array(values, np.int64))
        elif names[column] in numeric:
            nx.field(group, names[column], np.array(values, np.float64), unit)
        else:
            group[names[column]] = [str(value) for value in values]


def _is_numeric(values: list[Any]) -> bool:
    return all(isinstance(value, int | float) for value in values)


def _legal(name: str) -> str:
    """A NeXus name: letters, digits and underscores."""
    return re.sub(r"\W+", "_", name).strip("_").lower()


def _write_instrument(entry: h5py.Group, content: Content, probe: h5py.Dataset) -> None:
    group = nx.group(entry, "instrument", "NXinstrument")
    beam = nx.group(group, "beam", "NXbeam")
    if content.energy_eV:
        source = nx.group(group, "source", "NXsource")
        source["probe"] = "electron"
        nx.field(source, "voltage", content.energy_eV, "V")
        nx.field(beam, "incident_energy", content.energy_eV, "eV")
    if content.wavelength_A:
        nx.field(beam, "incident_wavelength", content.wavelength_A, "angstrom")
    nx.group(group, "probe", "NXcollection")["data"] = probe
    nx.group(group, "scan", "NXcollection")["positions"] = entry["scan/positions"]


def _write_reconstruction(entry: h5py.Group, content: Content) -> None:
    group = nx.group(entry, "reconstruction", "NXprocess")
    group["program"] = "pyptyx"
    group["version"] = __version__
    group["date"] = content.end_time
    group["sequence_index"] = 1
    write_parameters(group, content.document, content.parameter_arrays)
