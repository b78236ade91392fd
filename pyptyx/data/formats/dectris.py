"""DECTRIS Arina and other detectors of its interface: a master file and files of data.

``NAME_master.h5`` links to ``NAME_data_000001.h5`` and so on, each with frames [n, ky, kx], which
are read as one stack in the order of their numbers, axes as stored.  The scan size and the
microscope come from ``NAME.h5``, which some microscopes write beside them.
"""

from __future__ import annotations

import bisect
import itertools
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np

from pyptyx.data.base import describe
from pyptyx.data.formats.base import (
    Found,
    Opened,
    Request,
    RunSource,
    entries,
    first_of_each,
    number,
    positive,
    refusal,
)
from pyptyx.data.formats.hdf5_metadata import scalar
from pyptyx.data.hdf5 import check_filters
from pyptyx.errors import DataError, Problem

_DATA = "entry/data"
_DETECTOR = "entry/instrument/detector"
_NAME = re.compile(r"data_\d+")

_STEP_NOTE = "The microscope marks its pixel size as not calibrated: check scan_step_A."


def is_master(file: h5py.File) -> bool:
    """Whether a file is a master file: links ``data_000001 ...`` in ``/entry/data``."""
    group = file.get(_DATA)
    return isinstance(group, h5py.Group) and any(_NAME.fullmatch(name) for name in group)


def open_master(file: h5py.File, request: Request) -> Opened:
    """All frames of a master file as one stack.

    Parameters
    ----------
    file : h5py.File
        The master file; it belongs to the source afterwards.
    request : Request

    Raises
    ------
    DataError
        If a data file is missing, its frames have another shape, or bitshuffle is not installed.
    """
    parts = [_part(file, name) for name in sorted(n for n in file[_DATA] if _NAME.fullmatch(n))]
    if len({(p.shape[1:], p.dtype) for p in parts}) > 1:
        shapes = ", ".join(f"{p.shape} {p.dtype}" for p in parts)
        remedy = "Copy the files of one acquisition again."
        raise refusal(request.path, shapes, remedy, "data files of one shape and type")
    compression = check_filters(parts[0])
    count = sum(len(p) for p in parts)
    beside = tuple(_beside(request.path))
    size = request.scan_size
    noted = next((f.value for f in beside if f.key == "scan_size"), None)
    if size is None and noted is not None and math.prod(noted) == count:
        size = noted
    name = str(request.path)
    shape = (count, *parts[0].shape[1:])
    stored = describe(name, shape, parts[0].dtype, size, request.orientation)
    source = RunSource(
        name,
        stored,
        request.orientation,
        _Frames(name, parts).read,
        granule=(parts[0].chunks or (1,))[0],
        release=file.close,
    )
    uncalibrated = any(f.key == "pixel_size_calibrated" and not f.value for f in beside)
    found = first_of_each((*beside, *_of_master(file)))
    return Opened(
        source,
        "DECTRIS master file",
        tuple(f for f in found if f.key != "scan_size" or source.scan_size is None),
        key=None,
        chunks=parts[0].chunks,
        compression=compression,
        notes=(_STEP_NOTE,) if uncalibrated else (),
        files=tuple(Path(part.file.filename) for part in parts),
    )


def _part(file: h5py.File, name: str) -> h5py.Dataset:
    group = file[_DATA]
    try:
        part = group[name]
    except (KeyError, OSError) as error:
        link = group.get(name, getlink=True)
        got = getattr(link, "filename", name)
        remedy = "Put all files of the acquisition into one folder, with their names unchanged."
        raise refusal(
            Path(file.filename), f"{got} missing or damaged", remedy, "all its data files"
        ) from error
    if not isinstance(part, h5py.Dataset) or part.ndim != 3:
        raise refusal(Path(file.filename), f"{name} without frames", "Check the file.")
    return part


class _Frames:
    """Frames of several data sets as one stack."""

    def __init__(self, name: str, parts: Sequence[h5py.Dataset]):
        self._name = name
        self._parts = parts
        self._ends = list(itertools.accumulate(len(p) for p in parts))

    def read(self, start: int, stop: int) -> np.ndarray:
        """Frames ``[start, stop)``."""
        pieces = []
        part = bisect.bisect_right(self._ends, start)
        try:
            while start < stop:
                begin = self._ends[part] - len(self._parts[part])
                end = min(stop, self._ends[part])
                pieces.append(self._parts[part][start - begin : end - begin])
                start, part = end, part + 1
        except OSError as error:
            remedy = "The file may be damaged: copy it again."
            raise DataError(Problem(self._name, "readable frames", str(error), remedy)) from error
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def _of_master(file: h5py.File) -> Iterator[Found]:
    detector = file.get(_DETECTOR)
    if not isinstance(detector, h5py.Group):
        return
    name = Path(file.filename).name
    energy = positive(scalar(detector, "detectorSpecific/photon_energy"), 1e-3)
    rows = [
        ("acc_voltage", energy, "kV", "detectorSpecific/photon_energy"),
        ("saturation_counts", positive(scalar(detector, "saturation_value")), "",
         "saturation_value"),
    ]  # fmt: skip
    yield from entries((k, v, u, f"{name}: /{_DETECTOR}/{where}") for k, v, u, where in rows)


def _beside(master: Path) -> Iterator[Found]:
    """What the microscope wrote into ``NAME.h5`` beside ``NAME_master.h5``."""
    stem = master.stem.removesuffix("_master")
    path = master.with_name(f"{stem}.h5")
    if stem == master.stem or not path.is_file() or not h5py.is_hdf5(path):
        return
    with h5py.File(path, "r") as file:
        group = file.get("STEM Metadata")
        said = dict(group.attrs) if group is not None else {}
    where = f"{path.name}: /STEM Metadata@"
    rows, columns = positive(said.get("NumPixelsY")), positive(said.get("NumPixelsX"))
    if rows and columns:
        yield Found("scan_size", (int(rows), int(columns)), "", f"{where}NumPixelsY, NumPixelsX")
    table = [
        ("acc_voltage", positive(said.get("High Tension"), 1e-3), "kV", "High Tension"),
        ("scan_step_A", positive(said.get("Pixel Size"), 10.0), "Å", "Pixel Size"),
        ("camera_length_mm", positive(said.get("Camera Length"), 1e3), "mm", "Camera Length"),
        ("scan_rotation_deg", number(said.get("Rotation")), "deg", "Rotation"),
        ("pixel_size_calibrated", number(said.get("IsPixelSizeCalibrated")), "",
         "IsPixelSizeCalibrated"),
    ]  # fmt: skip
    yield from entries((k, v, u, where + place) for k, v, u, place in table)
