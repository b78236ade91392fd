"""Metadata of Nion Swift: the JSON tree that it writes beside or into its files.

Every quantity is looked up in a short list of places, and the first hit wins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pyptyx.data.formats.base import Found, at, first_of_each
from pyptyx.data.formats.units import Axis
from pyptyx.data.formats.units import calibrations as of_axes

_LARGEST_DEFOCUS_IN_METRES = 1e-3
"""No defocus in Å is this small and none in metres this large: it separates the two units."""


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < float("inf") else None


def _positive(value: Any) -> float | None:
    number = _number(value)
    return number if number is not None and number > 0 else None


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


_Place = tuple[str, str, str, Callable[[Any], Any]]

_PLACES: tuple[_Place, ...] = (
    ("acc_voltage", "kV", "metadata.hardware_source.high_tension_v", _volts_to_kV),
    ("acc_voltage", "kV", "metadata.instrument.high_tension", _volts_to_kV),
    ("acc_voltage", "kV", "metadata.hardware_source.autostem.high_tension_v", _volts_to_kV),
    ("scan_size", "", "metadata.scan.scan_size", _size),
    ("fov_nm", "nm", "metadata.scan.fov_nm", _positive),
    ("defocus", "Å", "metadata.hardware_source.defocus", _defocus_A),
    ("defocus", "Å", "metadata.instrument.ImageScanned.C10", _defocus_A),
)
"""Key, its unit, where to look, and what turns the value into that unit."""

_AXES = ("spatial_calibrations", "dimensional_calibrations")


def calibrations(tree: Mapping[str, Any], where: str) -> tuple[Found, ...]:
    """What a metadata tree says.

    The file's defocus has the opposite sign and, below 1 mm read as a number, is taken to be in
    metres, otherwise in Å.

    Parameters
    ----------
    tree : mapping
        The JSON object.
    where : str
        Name of the file, for the provenance.

    Returns
    -------
    tuple of Found
        ``acc_voltage``, ``scan_size``, ``fov_nm``, ``defocus``, and scan step and detector pixel
        from the calibrated axes, as far as they are there.
    """
    found = [
        Found(key, value, unit, f"{where}: {place}")
        for key, unit, place, convert in _PLACES
        if (value := convert(at(tree, place))) is not None
    ]
    fov = _fov_from_axes(tree, where)
    if fov is not None:
        found.append(fov)
    all_axes = axes(tree, where)
    if len(all_axes) == 4:
        found += of_axes(all_axes[:2], all_axes[2:])
    elif len(all_axes) == 3:
        found += of_axes((), all_axes[1:])
    return first_of_each(found)


def axes(tree: Mapping[str, Any], where: str = "") -> tuple[Axis, ...]:
    """Calibrated axes in the order of the array; empty if the tree has none."""
    for name in _AXES:
        rows = tree.get(name)
        if isinstance(rows, list) and rows and all(isinstance(r, Mapping) for r in rows):
            return tuple(
                Axis(_positive(r.get("scale")), str(r.get("units") or ""), f"{where}: {name}[{i}]")
                for i, r in enumerate(rows)
            )
    return ()


def _fov_from_axes(tree: Mapping[str, Any], where: str) -> Found | None:
    """Field of view along the second scan axis from its calibration, when that is in nm."""
    shape = tree.get("data_shape")
    for name in _AXES:
        rows = tree.get(name)
        if not (isinstance(rows, list) and isinstance(shape, list)):
            continue
        if min(len(rows), len(shape)) < 2 or not isinstance(rows[1], Mapping):
            continue
        scale, points = _positive(rows[1].get("scale")), _positive(shape[1])
        if rows[1].get("units") == "nm" and scale and points:
            return Found("fov_nm", scale * points, "nm", f"{where}: {name}[1]")
    return None
