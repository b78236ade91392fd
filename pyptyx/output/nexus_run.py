"""The arrays of an iterative reconstruction in a NeXus file: checkpoint, plots and loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import h5py
import numpy as np

from pyptyx.output import nexus_fields as nx

PLOT = "transmission"
"""Group with phase and amplitude of the object."""


@dataclass(frozen=True)
class RunContent:
    """What a run leaves.

    Attributes
    ----------
    arrays : dict of ndarray
        Current checkpoint in the public layouts by key of the params dictionary; ``obj (Y, X, Nz,
        Mo)``, ``probe (ny, nx, Mp[, Ns])`` and ``positions (N, 2)`` in px are needed.  They may
        be memory maps.
    pixel_A : tuple of float
        Pixel of the object ``(y, x)`` in Å.
    depths_A : sequence of float
        Depth of every slice in Å.
    numbered : dict of dict
        Further checkpoints by epoch.
    loss : dict of list
        Columns of the loss log by name; numbers or text.
    flip_y : bool
        Write the rows of object and probe from the last to the first, as PyPty does.
    """

    arrays: Mapping[str, np.ndarray]
    pixel_A: tuple[float, float]
    depths_A: Sequence[float]
    numbered: Mapping[int, Mapping[str, np.ndarray]] = field(default_factory=dict)
    loss: Mapping[str, list[Any]] = field(default_factory=dict)
    flip_y: bool = False


def write_run(entry: h5py.Group, run: RunContent) -> None:
    """Write what an iterative reconstruction leaves, with links at PyPty's places.

    Parameters
    ----------
    entry : h5py.Group
        With an ``instrument``.
    run : RunContent
    """
    state = _write_checkpoint(entry, run)
    _write_object(entry, run, state["obj"])
    _write_probe(entry, run, state["probe"])
    _write_scan(entry, run)
    if run.loss:
        _write_loss(entry, entry["checkpoint"], run.loss)
    nx.group(entry, "object", "NXcollection")["data"] = state["obj"]
    instrument = entry["instrument"]
    nx.group(instrument, "probe", "NXcollection")["data"] = state["probe"]
    nx.group(instrument, "scan", "NXcollection")["positions"] = entry["scan/positions"]


def _write_checkpoint(entry: h5py.Group, run: RunContent) -> h5py.Group:
    group = nx.group(entry, "checkpoint", "NXcollection")
    for key, array in run.arrays.items():
        _write_state(group, key, array, run.flip_y)
    for epoch, arrays in run.numbered.items():
        numbered = nx.group(group, f"epoch_{epoch}", "NXcollection")
        for key, array in arrays.items():
            _write_state(numbered, key, array, run.flip_y)
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


def _write_object(entry: h5py.Group, run: RunContent, state: h5py.Dataset) -> None:
    group = nx.plot(entry, PLOT, "phase", ("amplitude",), ("mode", "z", "y", "x"))
    _write_views(group, state, {"phase": (np.angle, "rad"), "amplitude": (np.abs, "")})
    nx.field(group, "mode", np.arange(state.shape[0]))
    nx.field(group, "z", np.asarray(run.depths_A, np.float64), "angstrom")
    _write_image_axes(group, state.shape[-2:], run, origin=(0, 0))


def _write_probe(entry: h5py.Group, run: RunContent, state: h5py.Dataset) -> None:
    axes = [str(name) for name in state.attrs["axes"]]
    group = nx.plot(entry, "probe", "intensity", ("phase",), axes)
    _write_views(group, state, {"intensity": (_intensity, ""), "phase": (np.angle, "rad")})
    for name, length in zip(axes[:-2], state.shape[:-2], strict=True):
        nx.field(group, name, np.arange(length))
    height, width = state.shape[-2:]
    _write_image_axes(group, (height, width), run, origin=(height // 2, width // 2))


def _intensity(wave: np.ndarray) -> np.ndarray:
    return np.abs(wave) ** 2


def _write_views(group: h5py.Group, state: h5py.Dataset, views: Mapping[str, Any]) -> None:
    """Real float32 images of a complex stack, for viewers that cannot show complex numbers."""
    for name, (function, unit) in views.items():
        dataset = nx.image_stack(group, name, state.shape, np.float32, unit)
        for index in np.ndindex(state.shape[:-2]):
            dataset[index] = function(state[index])


def _write_image_axes(
    group: h5py.Group, shape: tuple[int, int], run: RunContent, origin: tuple[int, int]
) -> None:
    """Coordinates of rows and columns in Å; they follow the rows when these are flipped."""
    y, x = (
        (np.arange(n) - zero) * pixel
        for n, zero, pixel in zip(shape, origin, run.pixel_A, strict=True)
    )
    nx.field(group, "y", _rows(y, run.flip_y), "angstrom")
    nx.field(group, "x", x, "angstrom")


def _write_scan(entry: h5py.Group, run: RunContent) -> None:
    group = nx.plot(entry, "scan", "positions", (), ("measurement", "."))
    positions = np.asarray(run.arrays["positions"], np.float64) * np.array(run.pixel_A)
    nx.field(group, "positions", positions, "angstrom")
    group["positions"].attrs["reference"] = "(y, x) of the top-left corner of the probe window"
    nx.field(group, "measurement", np.arange(len(positions)))


def _write_loss(
    entry: h5py.Group, checkpoint: h5py.Group, columns: Mapping[str, list[Any]]
) -> None:
    """Numbers as a plot; columns of text, for which it has no place, in the checkpoint."""
    names = {column: nx.legal_name(column) for column in columns}
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
            checkpoint[f"loss_{names[column]}"] = [str(value) for value in values]


def _is_numeric(values: list[Any]) -> bool:
    return all(isinstance(value, int | float) for value in values)
