"""What the direct methods leave behind, as signals over axes: one form for all that is exported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Axis:
    """Coordinates along one axis.

    Attributes
    ----------
    name : str
    values : ndarray (n,)
    unit : str
        ``"angstrom"``, ``"1/angstrom"`` or empty.
    """

    name: str
    values: np.ndarray
    unit: str = ""


@dataclass(frozen=True)
class Map:
    """Signals over the same axes; the first is the one to show.

    Attributes
    ----------
    name : str
        Letters, digits and underscores.
    signals : dict of ndarray
        Real arrays by name, all of the same shape.
    axes : tuple of Axis
        One for each axis of the signals.
    units : dict of str
        Units of the signals that have one.
    """

    name: str
    signals: Mapping[str, np.ndarray]
    axes: tuple[Axis, ...]
    units: Mapping[str, str] = field(default_factory=dict)

    @property
    def pixel_A(self) -> tuple[float, float] | None:
        """Pixel ``(y, x)`` in Å of an image or a stack of images, None of anything else."""
        plane = self.axes[-2:]
        if [a.name for a in plane] != ["y", "x"] or any(a.unit != "angstrom" for a in plane):
            return None
        y, x = (float(a.values[1] - a.values[0]) if len(a.values) > 1 else 1.0 for a in plane)
        return y, x

    def label(self, signal: str) -> str:
        """Name of a signal with its unit."""
        unit = self.units.get(signal)
        return f"{signal} / {unit}" if unit else signal


def image_axes(shape: tuple[int, ...], pixel_A: float | None) -> tuple[Axis, Axis]:
    """Axes y and x of an image from its first pixel; in pixels where their size is not known."""
    step, unit = (1.0, "") if pixel_A is None else (pixel_A, "angstrom")
    rows, columns = shape[-2:]
    return Axis("y", step * np.arange(rows), unit), Axis("x", step * np.arange(columns), unit)
