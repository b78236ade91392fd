"""Acquisition metadata from the JSON files of Nion Swift.

Every quantity is looked up in a short list of places, the first hit wins and its place is logged,
so that the user can see where each number came from.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyptyx.errors import DataError, Problem

logger = logging.getLogger(__name__)

_MAX_BYTES = 64 << 20
"""A metadata file is small; anything larger is not one."""

_LARGEST_DEFOCUS_IN_METRES = 1e-3
"""No defocus in Å is this small and none in metres this large: it separates the two units."""


@dataclass(frozen=True)
class Metadata:
    """What an acquisition file says; None where it says nothing.

    Attributes
    ----------
    acc_voltage_kV : float or None
        Accelerating voltage.
    scan_size : tuple of int or None
        ``(Ny, Nx)``.
    fov_nm : float or None
        Field of view along the fast axis.
    defocus_A : float or None
        Defocus in Å with the sign of pyptyx (overfocus > 0).
    """

    acc_voltage_kV: float | None = None
    scan_size: tuple[int, int] | None = None
    fov_nm: float | None = None
    defocus_A: float | None = None


def _positive(value: Any) -> float | None:
    number = _number(value)
    return number if number is not None and number > 0 else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < float("inf") else None


def _volts_to_kV(value: Any) -> float | None:
    volts = _positive(value)
    return None if volts is None else volts * 1e-3


def _size(value: Any) -> tuple[int, int] | None:
    if isinstance(value, list) and len(value) == 2 and all(_positive(v) for v in value):
        return int(value[0]), int(value[1])
    return None


def _defocus_A(value: Any) -> float | None:
    number = _number(value)
    if number is None:
        return None
    in_A = number * 1e10 if abs(number) < _LARGEST_DEFOCUS_IN_METRES else number
    return -in_A + 0.0


def _fov_from_axes(calibrations: Any, shape: Any) -> float | None:
    """Field of view along the second scan axis from its calibration, when that is in nm."""
    if not (isinstance(calibrations, list) and isinstance(shape, list) and len(shape) > 1):
        return None
    axis = calibrations[1] if len(calibrations) > 1 else None
    if not isinstance(axis, Mapping) or axis.get("units") != "nm":
        return None
    scale, points = _positive(axis.get("scale")), _positive(shape[1])
    return scale * points if scale and points else None


_Place = tuple[str, Callable[[Any], Any]]

_PLACES: dict[str, list[_Place]] = {
    "acc_voltage_kV": [
        ("metadata.hardware_source.high_tension_v", _volts_to_kV),
        ("metadata.instrument.high_tension", _volts_to_kV),
        ("metadata.hardware_source.autostem.high_tension_v", _volts_to_kV),
    ],
    "scan_size": [("metadata.scan.scan_size", _size)],
    "fov_nm": [("metadata.scan.fov_nm", _positive)],
    "defocus_A": [
        ("metadata.hardware_source.defocus", _defocus_A),
        ("metadata.instrument.ImageScanned.C10", _defocus_A),
    ],
}


def _at(tree: Any, dotted: str) -> Any:
    for name in dotted.split("."):
        tree = tree.get(name) if isinstance(tree, Mapping) else None
    return tree


def read_metadata(path: str | Path) -> Metadata:
    """Read a Nion Swift JSON file.

    The file's defocus has the opposite sign and, below 1 mm read as a number, is taken to be in
    metres, otherwise in Å.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    Metadata

    Raises
    ------
    DataError
        If the file is missing, too large, or not a JSON object.
    """
    file = Path(path)
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise DataError(Problem("path_json", "a metadata file of at most 64 MiB", str(file)))
        tree = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        reason = getattr(error, "strerror", None) or error
        got = f"{file} ({reason})"
        problem = Problem("path_json", "a readable JSON file", got, "Check the path.")
        raise DataError(problem) from error
    if not isinstance(tree, Mapping):
        raise DataError(Problem("path_json", "a JSON object", f"{file}: {type(tree).__name__}"))
    found: dict[str, Any] = {}
    for quantity, places in _PLACES.items():
        for place, convert in places:
            value = convert(_at(tree, place))
            if value is not None:
                found[quantity] = value
                logger.info("%s = %s from %s of %s", quantity, value, place, file.name)
                break
    if "fov_nm" not in found:
        for name in ("spatial_calibrations", "dimensional_calibrations"):
            fov = _fov_from_axes(tree.get(name), tree.get("data_shape"))
            if fov is not None:
                found["fov_nm"] = fov
                logger.info("fov_nm = %s from %s of %s", fov, name, file.name)
                break
    return Metadata(**found)
