"""From raw 4D-STEM data to the file the engine reads: centred, cropped, binned, in pieces."""

from __future__ import annotations

import json
import logging
import os
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import numpy.typing as npt

from pyptyx import __version__
from pyptyx.data.base import PatternSource
from pyptyx.data.conversion import Conversion, Converter
from pyptyx.data.hdf5 import DEFAULT_KEY
from pyptyx.data.source import open_source
from pyptyx.errors import DataError, ParamError, Problem
from pyptyx.files import replacing

logger = logging.getLogger(__name__)

ExistOk = bool | Literal["match"]


def create_pypty_data(  # noqa: PLR0913 - PyPty's signature
    data: str | os.PathLike[str] | np.ndarray,
    path_output: str | os.PathLike[str],
    swap_axes: bool = False,
    flip_ky: bool = False,
    flip_kx: bool = False,
    flip_y: bool = False,
    flip_x: bool = False,
    comcalc_len: int | None = 1000,
    comx: float | None = None,
    comy: float | None = None,
    bin: int = 1,
    crop_left: int | None = None,
    crop_right: int | None = None,
    crop_top: int | None = None,
    crop_bottom: int | None = None,
    normalize: bool = False,
    cutoff_ratio: float | None = None,
    pad_k: int = 0,
    data_dtype: npt.DTypeLike | None = np.float32,
    rescale: float = 1,
    exist_ok: ExistOk = True,
    *,
    subpixel: bool = False,
    h5_key: str | None = None,
) -> None:
    """Convert raw 4D-STEM data to a file for the engine, in pieces of constant memory.

    The steps, in this order: flip scan and detector axes; swap ky and kx; set negative counts to
    zero; move the common centre of mass to index N//2; cut outside a radius; normalise; divide by
    `rescale`; crop; sum-bin; zero-pad; cast.

    Parameters
    ----------
    data : path or ndarray
        [sy, sx, ky, kx] or [N, ky, kx]: an array, a ``.npy`` file or an HDF5 file.
    path_output : path
        HDF5 file to write: ``/data`` [N, ky, kx], with attributes ``scan_size``, ``axes``, ``log``
        (JSON of all settings and of the source), ``source``, ``pyptyx_version``.
    swap_axes : bool
        Swap ky and kx, after the flips.
    flip_ky, flip_kx, flip_y, flip_x : bool
        Reverse a detector or a scan axis.
    comcalc_len : int or None
        Number of leading patterns that give centre and mean counts; None takes all.
    comx, comy : float, optional
        Centre of mass from index N//2 in px, in place of the measured one; 0 means no centring.
    bin : int
        Side of the blocks that are summed; a remainder at the far edges is dropped.
    crop_left, crop_right, crop_top, crop_bottom : int, optional
        Columns and rows removed.
    normalize : bool
        Divide by the mean counts of the leading patterns.
    cutoff_ratio : float, optional
        Zero where the distance from N//2 is at least this fraction of half the width kx.
    pad_k : int
        Zero pixels added on each side.
    data_dtype : dtype or None
        Dtype written; None keeps the stored one where the values allow it, else float.
    rescale : float
        Divisor.
    exist_ok : bool or "match"
        What to do when the output exists: True keeps it and warns if it was made differently,
        ``"match"`` raises in that case, False writes it anew.
    subpixel : bool
        Shift by the unrounded centre of mass, with linear interpolation (it keeps counts positive
        and their sum, and makes the noise of neighbours dependent).
    h5_key : str, optional
        Path of the data set in an HDF5 input.

    Raises
    ------
    ParamError
        Settings that make no sense; all of them are named.
    DataError
        Input that is not a stack of patterns, values that do not fit `data_dtype`, or an existing
        output that differs under ``exist_ok="match"``.
    """
    conversion = Conversion(
        swap_axes=bool(swap_axes),
        flip_ky=bool(flip_ky),
        flip_kx=bool(flip_kx),
        flip_y=bool(flip_y),
        flip_x=bool(flip_x),
        comcalc_len=_plain(comcalc_len),
        comx=_plain(comx),
        comy=_plain(comy),
        bin=_plain(bin),
        crop_left=_plain(crop_left or 0),
        crop_right=_plain(crop_right or 0),
        crop_top=_plain(crop_top or 0),
        crop_bottom=_plain(crop_bottom or 0),
        normalize=bool(normalize),
        cutoff_ratio=_plain(cutoff_ratio) or None,
        pad_k=_plain(pad_k or 0),
        data_dtype=None if data_dtype is None else np.dtype(data_dtype).name,
        rescale=_plain(rescale),
        subpixel=bool(subpixel),
    )
    target = Path(os.fspath(path_output)).expanduser()
    _check_target(target, data, exist_ok)
    with open_source(data, h5_key=h5_key) as source:
        convert(source, target, conversion, exist_ok=exist_ok, origin=_origin(data, source))


def convert(
    source: PatternSource,
    target: Path,
    conversion: Conversion,
    *,
    exist_ok: ExistOk = True,
    origin: dict[str, Any],
) -> None:
    """Write the converted patterns of an open source; see `create_pypty_data`.

    Parameters
    ----------
    source : PatternSource
        Patterns [N, ky, kx]; the scan size must be known if a scan axis is flipped.
    target : Path
        HDF5 file to write.
    conversion : Conversion
    exist_ok : bool or "match"
    origin : dict
        What identifies the source, as JSON values; written to the log.

    Raises
    ------
    ParamError, DataError
        See `create_pypty_data`.
    """
    converter = Converter(source, conversion)
    log = {"source": origin, "conversion": asdict(conversion)}
    if target.exists() and exist_ok is not False:
        _compare_existing(target, log, must_match=exist_ok == "match")
        return
    converter.measure()
    with replacing(target) as temporary, h5py.File(temporary, "w") as file:
        out = file.create_dataset(DEFAULT_KEY, (source.shape[0], *converter.shape), converter.dtype)
        for where, patterns in converter.chunks():
            out[where] = patterns
        out.attrs["axes"] = "N,ky,kx"
        if source.scan_size is not None:
            out.attrs["scan_size"] = source.scan_size
        out.attrs["log"] = json.dumps(log, sort_keys=True)
        out.attrs["source"] = origin["name"]
        out.attrs["pyptyx_version"] = __version__
    logger.info("%s: wrote %d patterns of %s", target, source.shape[0], converter.shape)


def _plain(value: Any) -> Any:
    """NumPy scalars as Python numbers, which JSON knows."""
    return value.item() if isinstance(value, np.generic) else value


def _origin(data: object, source: PatternSource) -> dict[str, Any]:
    """What tells whether an existing output came from the same data."""
    about: dict[str, Any] = {"name": source.name, "shape": list(source.shape)}
    if isinstance(data, np.ndarray):
        checksum = 0
        for _, patterns in source.iter_chunks():
            checksum = zlib.crc32(patterns.data, checksum)
        return about | {"crc32": checksum}
    status = os.stat(Path(os.fspath(data)).expanduser())  # type: ignore[call-overload]
    return about | {"bytes": status.st_size, "modified_ns": status.st_mtime_ns}


def _check_target(target: Path, data: object, exist_ok: object) -> None:
    problems = []
    if exist_ok not in (True, False, "match"):
        problems.append(Problem("exist_ok", "True, False or 'match'", f"{exist_ok!r}"))
    if target.is_dir() or not target.parent.is_dir():
        got = "a folder" if target.is_dir() else f"no folder {target.parent}"
        problems.append(Problem("path_output", "a file in an existing folder", got))
    elif not isinstance(data, np.ndarray) and target.exists():
        source = Path(os.fspath(data)).expanduser()  # type: ignore[call-overload]
        if source.exists() and source.samefile(target):
            problems.append(Problem("path_output", "another file than the input", str(target)))
    if problems:
        raise ParamError(problems)


def _compare_existing(target: Path, log: dict[str, Any], *, must_match: bool) -> None:
    """Keep an existing output, but never silently one that was made differently."""
    different = _differences(_read_log(target), json.loads(json.dumps(log)))
    if not different:
        logger.info("%s exists and was made with the same settings; kept", target)
        return
    problem = Problem(
        "path_output",
        "an existing file made with the same data and settings",
        f"{target}, which differs in {different}",
        "Pass exist_ok=False to write it anew.",
    )
    if must_match:
        raise DataError(problem)
    logger.warning("The existing file is kept although it differs. %s", problem)


def _read_log(target: Path) -> dict[str, Any]:
    try:
        with h5py.File(target, "r") as file:
            return json.loads(file[DEFAULT_KEY].attrs["log"])
    except (OSError, KeyError, ValueError):
        return {}


def _differences(old: dict[str, Any], new: dict[str, Any]) -> str:
    if old.keys() != new.keys():
        return "everything (it holds no record of how it was made)"
    return ", ".join(
        f"{key} ({old[part].get(key)!r}, now {value!r})"
        for part in new
        for key, value in new[part].items()
        if old[part].get(key) != value
    )
