"""Velox EMD: HDF5 with series of camera frames, stored with the frame as last axis.

``/Data/Image/<id>/Data`` is (ky, kx, N); the patterns are read as [N, ky, kx], rows and columns
as stored.  What the microscope says is JSON in ``Metadata`` beside it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import h5py
import numpy as np

from pyptyx.data.base import describe
from pyptyx.data.formats.base import (
    Found,
    Opened,
    Request,
    RunSource,
    at,
    entries,
    number,
    positive,
    refusal,
)
from pyptyx.data.formats.units import Axis, check_detector_axes
from pyptyx.data.formats.units import calibrations as of_axes
from pyptyx.data.hdf5 import check_filters, find_dataset
from pyptyx.errors import DataError, Problem

_IMAGES = "Data/Image"


def is_velox(file: h5py.File) -> bool:
    """Whether a file has the groups of Velox."""
    return isinstance(file.get(_IMAGES), h5py.Group) and "Version" in file


def open_velox(file: h5py.File, request: Request) -> Opened:
    """The frames of one series.

    Parameters
    ----------
    file : h5py.File
        The open file; it belongs to the source afterwards.
    request : Request
        `key` names a data set where there are several series.

    Raises
    ------
    DataError
        If there is no series of diffraction patterns, or several and no key.
    """
    dataset = find_dataset(file, request.key or _only_series(file, request))
    if dataset.ndim != 3 or dataset.shape[2] == 1:
        remedy = "Ptychography needs one pattern per scan point; export the series from Velox."
        raise refusal(request.path, f"a single image, {dataset.shape}", remedy)
    tree = _metadata(dataset)
    axes = _axes(tree, f"{dataset.parent.name}/Metadata")
    check_detector_axes(request.path, axes)
    compression = check_filters(dataset)
    rows, columns, count = dataset.shape
    name = f"{file.filename}:{dataset.name}"
    stored = describe(
        name, (count, rows, columns), dataset.dtype, request.scan_size, request.orientation
    )

    def fetch(start: int, stop: int) -> np.ndarray:
        try:
            return np.moveaxis(dataset[:, :, start:stop], 2, 0)
        except OSError as error:
            remedy = "The file may be damaged: copy it again."
            raise DataError(Problem(name, "readable frames", str(error), remedy)) from error

    granule = dataset.chunks[2] if dataset.chunks else 1
    source = RunSource(
        name, stored, request.orientation, fetch, granule=granule, release=file.close
    )
    return Opened(
        source,
        "Velox EMD",
        (*of_axes((), axes), *_optics(tree, f"{dataset.parent.name}/Metadata")),
        key=dataset.name,
        chunks=dataset.chunks,
        compression=compression,
    )


def _only_series(file: h5py.File, request: Request) -> str:
    images = {
        f"/{_IMAGES}/{name}/Data": group["Data"]
        for name, group in file[_IMAGES].items()
        if isinstance(group, h5py.Group) and isinstance(group.get("Data"), h5py.Dataset)
    }
    series = [p for p, d in images.items() if d.ndim == 3 and d.shape[2] > 1]
    if len(series) == 1:
        return series[0]
    listing = ", ".join(f"{p} {d.shape} {d.dtype}" for p, d in images.items()) or "none"
    raise DataError(
        Problem(
            str(request.path),
            "one series of frames, or its path in h5_key",
            f"{len(series)} series; {len(images)} data sets of images",
            f"Data sets: {listing}",
        )
    )


def _metadata(dataset: h5py.Dataset) -> Mapping[str, Any]:
    """JSON of the first frame: one column of bytes per frame, padded with zeros."""
    column = dataset.parent.get("Metadata")
    if not isinstance(column, h5py.Dataset) or column.ndim != 2 or column.dtype != np.uint8:
        return {}
    try:
        tree = json.loads(column[:, 0].tobytes().rstrip(b"\0"))
    except (ValueError, RecursionError):
        return {}
    return tree if isinstance(tree, Mapping) else {}


def _axes(tree: Mapping[str, Any], where: str) -> tuple[Axis, ...]:
    unit = {axis: at(tree, f"BinaryResult.PixelUnit{axis}") for axis in "YX"}
    size = {"Y": "height", "X": "width"}
    return tuple(
        Axis(
            positive(at(tree, f"BinaryResult.PixelSize.{size[axis]}")),
            str(unit[axis] or ""),
            f"{where}: BinaryResult.PixelSize.{size[axis]}",
        )
        for axis in "YX"
    )


def _optics(tree: Mapping[str, Any], where: str) -> Iterator[Found]:
    turn = number(at(tree, "Scan.ScanRotation"))
    rows = [
        ("acc_voltage", positive(at(tree, "Optics.AccelerationVoltage"), 1e-3), "kV",
         "Optics.AccelerationVoltage"),
        ("conv_semiangle_mrad", positive(at(tree, "Optics.BeamConvergence"), 1e3), "mrad",
         "Optics.BeamConvergence"),
        ("camera_length_mm", positive(at(tree, "Optics.CameraLength"), 1e3), "mm",
         "Optics.CameraLength"),
        ("scan_rotation_deg", None if turn is None else math.degrees(turn), "deg",
         "Scan.ScanRotation"),
        ("defocus_of_microscope_m", number(at(tree, "Optics.Defocus")), "m", "Optics.Defocus"),
    ]  # fmt: skip
    yield from entries((k, v, u, f"{where}: {place}") for k, v, u, place in rows)
