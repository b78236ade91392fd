"""Formats read through RosettaSciIO, the optional extra ``io``; axes as that library gives them.

Its arrays are Dask's, over a memory map: only what is asked for is computed, in blocks of a few
MiB.  Its flags for scan and detector axes are not trusted: the last two axes are the detector.
RosettaSciIO is under the GPL-3.0-or-later, which is why it is optional.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pyptyx.data.base import describe
from pyptyx.data.formats.base import (
    IO_EXTRA,
    Found,
    Opened,
    Request,
    RunSource,
    at,
    entries,
    first_of_each,
    number,
    positive,
    refusal,
)
from pyptyx.data.formats.units import Axis, check_detector_axes
from pyptyx.data.formats.units import calibrations as of_axes
from pyptyx.errors import DataError, Problem

_PLUGINS = {
    ".dm3": ("digitalmicrograph", "DigitalMicrograph"),
    ".dm4": ("digitalmicrograph", "DigitalMicrograph"),
    ".mib": ("quantumdetector", "Quantum Detectors Merlin"),
    ".blo": ("blockfile", "NanoMEGAS blockfile"),
    ".tvips": ("tvips", "TVIPS"),
    ".ser": ("tia", "TIA"),
    ".emi": ("tia", "TIA"),
    ".mrc": ("mrc", "MRC"),
    ".prz": ("pantarhei", "PantaRhei"),
}
"""Plug-in and name of the format by file name ending."""

_SIGNATURES = {".dm3": b"\0\0\0\3", ".dm4": b"\0\0\0\4", ".blo": b"IMGBLO"}
"""First bytes, checked where the library takes any file and may then look for ever."""

_BLOCK_BYTES = 8 << 20
_SPECTRA = frozenset({"EELS", "EDS_TEM", "EDS_SEM", "CL"})


def open_file(request: Request) -> Opened:
    """Patterns of a file that RosettaSciIO reads.

    Raises
    ------
    DataError
        If the extra is not installed, the file is damaged or of another format, or it holds
        images, spectra or a single pattern.
    """
    plugin, format_name = _PLUGINS[request.path.suffix.lower()]
    _check_signature(request.path)
    signals = _signals(request.path, plugin, {})
    signal = _chosen(signals, request)
    where = signals.index(signal)
    _check(request.path, signal)
    for options in _block_options(plugin, signal["data"]):
        with contextlib.suppress(DataError):  # a guess at axes that the plug-in squeezes away
            signal = _signals(request.path, plugin, options)[where]
            break
    data = signal["data"]
    axes = _axes(signal, request.path.name)
    stored = describe(
        str(request.path), data.shape, data.dtype, request.scan_size, request.orientation
    )
    reader = _Blocks(str(request.path), data)
    source = RunSource(
        str(request.path), stored, request.orientation, reader.read, granule=reader.granule
    )
    return Opened(
        source,
        format_name,
        first_of_each(_found(signal, axes, request.path.name)),
        key=str(where) if len(signals) > 1 else None,
        chunks=getattr(data, "chunksize", None),
        notes=(*_notes(axes), *_announced(signal, stored.count)),
    )


def _check_signature(path: Path) -> None:
    expected = _SIGNATURES.get(path.suffix.lower(), b"")
    with open(path, "rb") as file:
        if file.read(len(expected)) != expected:
            remedy = "The file is damaged, or of another format than its ending says."
            raise refusal(path, "other first bytes", remedy, f"a {path.suffix} file")


def _signals(path: Path, plugin: str, options: Mapping[str, Any]) -> list[dict[str, Any]]:
    try:
        module = importlib.import_module(f"rsciio.{plugin}")
    except ImportError as error:
        raise DataError(
            Problem(
                str(path),
                f"the package that reads {path.suffix} files",
                f"{error.name or 'rosettasciio'} is not installed",
                IO_EXTRA,
            )
        ) from error
    try:
        return list(module.file_reader(str(path), lazy=True, **options))
    # What the library raises for a damaged file is any of a dozen types.
    except Exception as error:
        raise refusal(
            path,
            f"something RosettaSciIO cannot read ({type(error).__name__}: {error})",
            "The file may be cut short, damaged, or of another format than its ending says.",
            f"a complete {path.suffix} file",
        ) from error


def _chosen(signals: Sequence[dict[str, Any]], request: Request) -> dict[str, Any]:
    """The signal that `key` numbers, else the only one with three or four axes, else the first."""
    if request.key is not None:
        if request.key.isdigit() and int(request.key) < len(signals):
            return signals[int(request.key)]
        expected = f"a number below {len(signals)}, that of the data set"
        raise DataError(Problem("h5_key", expected, repr(request.key), _listing(signals)))
    stacks = [s for s in signals if s["data"].ndim in (3, 4)]
    if len(stacks) > 1:
        expected = "one stack of patterns, or its number in h5_key"
        got = f"{len(stacks)} of them"
        raise DataError(Problem(str(request.path), expected, got, _listing(signals)))
    if not (stacks or signals):
        raise refusal(request.path, "no data", "Check the file.")
    return (stacks or list(signals))[0]


def _listing(signals: Sequence[Mapping[str, Any]]) -> str:
    return "Data sets: " + ", ".join(
        f"{i}: {s['data'].shape} {s['data'].dtype}" for i, s in enumerate(signals)
    )


def _check(path: Path, signal: Mapping[str, Any]) -> None:
    """Refuse spectra, single images and images in real space in plain words."""
    kind = str(at(signal.get("metadata"), "Signal.signal_type") or "")
    shape = signal["data"].shape
    if kind in _SPECTRA:
        raise refusal(path, f"spectra ({kind}), shape {shape}", "Name the diffraction data.")
    axes = _axes(signal, path.name)
    check_detector_axes(path, axes)
    if len(shape) == 2:
        units = " x ".join(a.unit or "px" for a in axes)
        raise refusal(
            path,
            f"a single image of {shape[0]} x {shape[1]} pixels (axes in {units})",
            "Ptychography needs one pattern per scan point: name the file of the whole scan.",
            "a stack of diffraction patterns",
        )


def _axes(signal: Mapping[str, Any], name: str) -> tuple[Axis, ...]:
    return tuple(
        Axis(positive(a.get("scale")), str(a.get("units") or ""), f"{name}: axis {i}")
        for i, a in enumerate(signal["axes"])
    )


def _block_options(plugin: str, data: Any) -> Iterator[dict[str, Any]]:
    """Blocks of whole patterns along the fast scan axis, if the plug-in lets us choose.

    A flat scan may have two scan axes inside the plug-in, one of them of length one.
    """
    module = importlib.import_module(f"rsciio.{plugin}")
    takes = inspect.signature(module.file_reader).parameters
    if "chunks" not in takes:
        return
    pattern_bytes = math.prod(data.shape[-2:]) * data.dtype.itemsize
    together = min(data.shape[-3], max(1, _BLOCK_BYTES // max(1, pattern_bytes)))
    pattern = data.shape[-2:]
    if data.ndim == 4:
        yield {"chunks": (1, together, *pattern)}
    else:
        for scan in ((together,), (together, 1), (1, together)):
            yield {"chunks": (*scan, *pattern)}


class _Blocks:
    """Patterns of a Dask array with two or one scan axes, by their flat number."""

    def __init__(self, name: str, data: Any):
        self._name = name
        self._data = data
        self._columns = data.shape[1] if data.ndim == 4 else None
        chunk = getattr(data, "chunksize", (1,) * data.ndim)
        self.granule = int(chunk[-3])

    def read(self, start: int, stop: int) -> np.ndarray:
        """Patterns ``[start, stop)``."""
        if self._columns is None:
            return self._compute(self._data[start:stop])
        first, last = start // self._columns, (stop - 1) // self._columns
        rows = []
        for row in range(first, last + 1):
            left = start - row * self._columns if row == first else 0
            right = stop - row * self._columns if row == last else self._columns
            rows.append(self._compute(self._data[row, left:right]))
        return np.concatenate(rows)

    def _compute(self, piece: Any) -> np.ndarray:
        try:
            # The engine has threads of its own.
            return np.asarray(
                piece.compute(scheduler="synchronous") if hasattr(piece, "compute") else piece
            )
        except (OSError, ValueError, IndexError) as error:
            remedy = "The file may be cut short or damaged: copy it again."
            raise DataError(Problem(self._name, "readable frames", str(error), remedy)) from error


def _found(signal: Mapping[str, Any], axes: Sequence[Axis], name: str) -> Iterator[Found]:
    detector = axes[-2:]
    trusted = () if any(_is_default(a) for a in detector) else detector
    yield from of_axes(axes[:-2] if len(axes) == 4 else (), trusted)
    rows = [
        ("acc_voltage", "beam_energy", "kV"),
        ("conv_semiangle_mrad", "convergence_angle", "mrad"),
        ("camera_length_mm", "camera_length", "mm"),
    ]
    place = "Acquisition_instrument.TEM"
    tree = signal.get("metadata")
    yield from entries(
        (key, positive(at(tree, f"{place}.{key_of_file}")), unit, f"{name}: {place}.{key_of_file}")
        for key, key_of_file, unit in rows
    )
    # Counters of Merlin are narrower than the type their counts are stored in.
    header = signal.get("original_metadata")
    bits = number(at(header, "hdr_file.Counter Depth (number)"))
    if bits is not None and bits > 1:
        place_of_bits = f"{name}: header, Counter Depth"
        yield Found("saturation_counts", 2.0**bits - 1, "", place_of_bits)
    turn = number(at(tree, f"{place}.rotation"))
    yield from entries([("scan_rotation_deg", turn, "deg", f"{name}: {place}.rotation")])


def _is_default(axis: Axis) -> bool:
    """Whether a scale is exactly one, which is what files hold that were never calibrated."""
    return axis.scale == 1.0


def _announced(signal: Mapping[str, Any], count: int) -> Iterator[str]:
    """A note where a header of Merlin announces more frames than the file holds."""
    frames = number(at(signal.get("original_metadata"), "hdr_file.Frames in Acquisition (Number)"))
    if frames is not None and frames > count:
        yield (
            f"The header announces {frames:.0f} frames and the file holds {count}: the scan was "
            "stopped early, or the file is cut short. Incomplete frames and rows are left out."
        )


def _notes(axes: Sequence[Axis]) -> tuple[str, ...]:
    if any(_is_default(a) and a.unit for a in axes[-2:]):
        unit = axes[-1].unit
        return (
            f"The detector pixel is exactly 1 {unit}, as in files without calibration: unused.",
        )
    return ()
