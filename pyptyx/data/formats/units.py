"""Units as files spell them, and what calibrated axes say about scan and detector."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pyptyx.data.formats.base import Found, refusal

_LENGTHS_A = {
    "a": 1.0, "å": 1.0, "ang": 1.0, "angstrom": 1.0, "angstroms": 1.0,
    "pm": 1e-2, "nm": 10.0, "um": 1e4, "µm": 1e4, "μm": 1e4, "mm": 1e7, "m": 1e10,
}  # fmt: skip
_ANGLES_MRAD = {"mrad": 1.0, "rad": 1e3, "urad": 1e-3, "deg": 17.453292519943295}
_ENERGIES = frozenset({"ev", "kev"})
# Larger lengths are distances on the detector, not in the specimen.
_SPECIMEN_LENGTHS = frozenset(
    {"a", "å", "ang", "angstrom", "angstroms", "pm", "nm", "um", "µm", "μm"}
)

_SAME = 0.01
"""Scales that differ by less than this fraction count as equal."""


@dataclass(frozen=True)
class Axis:
    """One axis of a stored array: step per pixel and its unit as the file spells it."""

    scale: float | None
    unit: str
    where: str


def length_A(value: float | None, unit: str) -> float | None:
    """A length in Å, or None if the unit is not one of length."""
    factor = _LENGTHS_A.get(_plain(unit))
    return None if value is None or factor is None else value * factor


def angle_mrad(value: float | None, unit: str) -> float | None:
    """An angle in mrad, or None if the unit is not one of angle."""
    factor = _ANGLES_MRAD.get(_plain(unit))
    return None if value is None or factor is None else value * factor


def reciprocal_per_A(value: float | None, unit: str) -> float | None:
    """A reciprocal length in 1/Å (no 2π), or None if the unit is not one."""
    text = _plain(unit)
    match = re.fullmatch(r"1/\(?(\w+)\)?|(\w+?)\^?\(?[-−]1\)?|(\w+)⁻¹", text)
    name = next((g for g in match.groups() if g), "") if match else ""
    factor = _LENGTHS_A.get(name)
    return None if value is None or factor is None else value / factor


def _plain(unit: str) -> str:
    return re.sub(r"[\s\[\]_{}$\\]", "", unit).lower()


def check_detector_axes(path: Path, axes: Sequence[Axis]) -> None:
    """Refuse images in real space and spectra, by the units of their last axes.

    Raises
    ------
    DataError
        Saying what the file holds instead of diffraction patterns.
    """
    units = ", ".join(a.unit for a in axes)
    if any(_plain(a.unit) in _ENERGIES for a in axes):
        remedy = "Name the data set with the diffraction patterns, or another file."
        raise refusal(path, f"spectra (axes in {units})", remedy)
    last = axes[-2:]
    if len(last) == 2 and all(_plain(a.unit) in _SPECIMEN_LENGTHS for a in last):
        in_units = ", ".join(a.unit for a in last)
        raise refusal(
            path,
            f"images in real space (the last two axes are lengths, in {in_units})",
            "Patterns have axes in 1/nm or mrad. If only the labels are wrong, read the file "
            "yourself and give the array as `dataset`.",
        )


def calibrations(scan: Sequence[Axis], detector: Sequence[Axis]) -> Iterator[Found]:
    """Scan step and detector pixel of calibrated axes, slow axis before fast.

    Scan steps that differ become ``scan_step_A`` along x and a ``transform_axis_matrix``.
    """
    steps = [positive_or_none(length_A(a.scale, a.unit)) for a in scan]
    fast = steps[-1] if steps else None
    if fast:
        yield Found("scan_step_A", fast, "Å", scan[-1].where)
        slow = steps[0] or fast
        if abs(slow / fast - 1) > _SAME:
            yield Found(
                "transform_axis_matrix", ((slow / fast, 0.0), (0.0, 1.0)), "", scan[0].where
            )
    for key, unit, convert in (
        ("rez_pixel_size_mrad", "mrad", angle_mrad),
        ("rez_pixel_size_A", "1/Å", reciprocal_per_A),
    ):
        sizes = [positive_or_none(convert(a.scale, a.unit)) for a in detector]
        if len(sizes) == 2 and sizes[0] and sizes[1]:
            if abs(sizes[0] / sizes[1] - 1) <= _SAME:
                yield Found(key, sizes[1], unit, detector[1].where)
            else:
                name = f"detector_pixel_{'mrad' if unit == 'mrad' else 'per_A'}"
                yield Found(name, (sizes[0], sizes[1]), unit, detector[1].where)


def positive_or_none(value: float | None) -> float | None:
    """The value if it is positive."""
    return value if value is not None and value > 0 else None
