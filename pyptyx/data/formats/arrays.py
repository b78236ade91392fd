"""NumPy files and archives, with the metadata that Nion Swift puts beside or into them.

===========  =====================================================================
``.npy``     memory map; ``NAME.json`` beside it is read as metadata of Nion Swift
``.npz``     archive of arrays; memory map if stored, in memory if compressed
``.ndata``   the same archive as Nion Swift writes it: ``data.npy``, ``metadata.json``
===========  =====================================================================

Axes are taken as stored: [sy, sx, ky, kx] or [N, ky, kx].
"""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pyptyx.data.base import PatternSource
from pyptyx.data.formats import nion
from pyptyx.data.formats.base import Found, Opened, Request, refusal
from pyptyx.data.formats.units import check_detector_axes
from pyptyx.data.npy import array_fault, open_array, open_npy
from pyptyx.errors import DataError, Problem

_IN_MEMORY_BYTES = 1 << 30
"""Largest compressed member that is unpacked into memory."""

_JSON_BYTES = 64 << 20
_LOCAL_HEADER = 30
"""Bytes of a local header of a ZIP member before its name."""


@dataclass(frozen=True)
class _Header:
    """Header of an array in an archive; `offset` is where its numbers start in the member."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype
    offset: int


def open_file(request: Request) -> Opened:
    """Patterns of ``.npy``, ``.npz`` and ``.ndata``.

    Raises
    ------
    DataError
        If the file is damaged, of another format, ambiguous, or does not hold patterns.
    """
    if request.path.suffix.lower() in (".npz", ".ndata"):
        return _open_archive(request)
    beside = request.path.with_suffix(".json")
    tree = _json(beside.read_bytes()) if _is_small_file(beside) else None
    _check_axes(request.path, tree)
    # The user's scan_size wins; metadata only speak where the axes do not.
    source: PatternSource = open_npy(
        request.path, scan_size=request.scan_size, orientation=request.orientation
    )
    return Opened(
        source,
        "NumPy array" if tree is None else "Nion Swift npy + json",
        _found(tree, beside.name, source),
    )


def _open_archive(request: Request) -> Opened:
    path = request.path
    try:
        with zipfile.ZipFile(path) as archive:
            member = _member(archive, request)
            array = _array(archive, member, path)
            name = next((n for n in archive.namelist() if n.endswith("metadata.json")), None)
            tree = _json(_read_small(archive, name)) if name else None
    except (zipfile.BadZipFile, ValueError, EOFError, OSError, RuntimeError) as error:
        if isinstance(error, DataError):
            raise
        remedy = "Write it again with numpy.savez, or as .npy"
        fault = array_fault(error)
        raise DataError(
            Problem(str(path), "a complete archive of arrays", fault, remedy)
        ) from error
    _check_axes(path, tree)
    source = open_array(
        array,
        name=f"{path}:{member.filename}",
        scan_size=request.scan_size,
        orientation=request.orientation,
    )
    return Opened(
        source,
        "Nion ndata" if path.suffix.lower() == ".ndata" else "NumPy archive",
        _found(tree, f"{path.name}:{name}", source),
        key=member.filename.removesuffix(".npy"),
        compression="" if member.compress_type == zipfile.ZIP_STORED else "deflate",
    )


def _member(archive: zipfile.ZipFile, request: Request) -> zipfile.ZipInfo:
    """The member that `key` names, else ``data``, else the only one with patterns."""
    arrays = {
        i.filename.removesuffix(".npy"): i for i in archive.infolist() if i.filename[-4:] == ".npy"
    }
    key = request.key.strip("/") if request.key else None
    if key is not None and key in arrays:
        return arrays[key]
    shapes = {name: _header(archive, info) for name, info in arrays.items()}
    listing = ", ".join(f"{n} {h.shape} {h.dtype}" for n, h in shapes.items()) or "none"
    if key is not None:
        raise DataError(
            Problem("h5_key", f"a member of {request.path}", repr(key), f"Arrays: {listing}")
        )
    if "data" in arrays:
        return arrays["data"]
    fitting = [n for n, h in shapes.items() if len(h.shape) in (3, 4) and h.dtype.kind in "buif"]
    if len(fitting) == 1:
        return arrays[fitting[0]]
    raise DataError(
        Problem(
            str(request.path),
            "one array of patterns, or its name in h5_key",
            f"{len(fitting)} arrays with three or four axes",
            f"Arrays: {listing}",
        )
    )


def _header(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Header:
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        return _Header(*read(file), offset=file.tell())


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> np.ndarray:
    header = _header(archive, info)
    if header.dtype.hasobject:
        raise refusal(path, "an array of Python objects, which are never loaded", "Store numbers.")
    if info.compress_type != zipfile.ZIP_STORED:
        if info.file_size > _IN_MEMORY_BYTES:
            raise refusal(
                path,
                f"a compressed array of {info.file_size / 2**30:.1f} GiB, "
                "of which no part can be read alone",
                "Write it with numpy.save, numpy.savez or as chunked HDF5.",
                "an array that can be read in pieces",
            )
        with archive.open(info) as member:
            return np.lib.format.read_array(member, allow_pickle=False)
    return np.memmap(
        path,
        dtype=header.dtype,
        mode="r",
        offset=_member_start(path, info) + header.offset,
        shape=header.shape,
        order="F" if header.fortran else "C",
    )


def _member_start(path: Path, info: zipfile.ZipInfo) -> int:
    """Where the bytes of a stored member begin, behind its local header."""
    with open(path, "rb") as file:
        file.seek(info.header_offset)
        header = file.read(_LOCAL_HEADER)
    name_length, extra_length = struct.unpack("<HH", header[26:30])
    return info.header_offset + _LOCAL_HEADER + name_length + extra_length


def _is_small_file(path: Path) -> bool:
    return path.is_file() and path.stat().st_size <= _JSON_BYTES


def _read_small(archive: zipfile.ZipFile, name: str) -> bytes:
    return archive.read(name) if archive.getinfo(name).file_size <= _JSON_BYTES else b""


def _json(content: bytes) -> Mapping[str, Any] | None:
    """The object of a JSON text, or None: a file beside the data may be anything."""
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return tree if isinstance(tree, Mapping) else None


def _check_axes(path: Path, tree: Mapping[str, Any] | None) -> None:
    if tree is not None:
        check_detector_axes(path, nion.axes(tree))


def _found(tree: Mapping[str, Any] | None, where: str, source: PatternSource) -> tuple[Found, ...]:
    if tree is None:
        return ()
    found = nion.calibrations(tree, where)
    return tuple(f for f in found if f.key != "scan_size" or source.scan_size is None)
