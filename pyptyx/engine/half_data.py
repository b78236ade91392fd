"""Two reconstructions from interleaved halves of the patterns, and how well they agree.

Both use the grid, the start and the settings of the run, so what they share is the specimen and
what they do not is noise.  From the start of the run nothing but the start values is shared.  A few
epochs from the present state cost less, but the halves then share its noise too: their correlation
is too good, and the resolution an upper bound.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from pyptyx.engine import resume
from pyptyx.engine.patterns import open_patterns
from pyptyx.engine.residuals import fitted_numbers
from pyptyx.engine.run import Result, run
from pyptyx.errors import DataError, ParamError, Problem
from pyptyx.files import write_bytes
from pyptyx.methods.resolution import (
    Correlation,
    correlate,
    half_bit,
    resolution,
    rim_taper,
)
from pyptyx.output import plots
from pyptyx.params import resolve

logger = logging.getLogger(__name__)

FILE = "half_data.json"
"""Where the result lies in the folder of the run."""

ONE_SEVENTH = 1 / 7
"""Correlation of half sets at which the full set correlates with the truth by one half."""

_UNBALANCED = 0.1
"""Part of the patterns by which the halves of a chequerboard may differ."""

THRESHOLDS = ("1/7", "half-bit", "0.5")


@dataclass(frozen=True)
class Curve:
    """One correlation with its resolutions.

    Attributes
    ----------
    name : str
        What was compared: ``projected phase``, ``slice 3``, ``all slices (3-D)``.
    frequency_per_A, value, half_bit : list of float
        The rings, the correlation, and the half-bit threshold.
    resolution_A : dict
        Period in Å by threshold (`THRESHOLDS`); None if the correlation is below everywhere.
    limited : dict
        By threshold, whether the correlation never falls below.
    """

    name: str
    frequency_per_A: list[float]
    value: list[float]
    half_bit: list[float]
    resolution_A: dict[str, float | None]
    limited: dict[str, bool]


@dataclass(frozen=True)
class HalfData:
    """Agreement of two half-data reconstructions.

    Attributes
    ----------
    epochs : int
        Epochs of either.
    from_start : bool
        They began where the run began; otherwise at its present state, and share its noise.
    patterns : tuple of int
        Patterns of either.
    curves : tuple of Curve
        The projected phase first; with several slices each of them, and all in three dimensions.
    """

    epochs: int
    from_start: bool
    patterns: tuple[int, int]
    curves: tuple[Curve, ...]


def half_data(
    output_folder: str | PathLike[str],
    epochs: int = 0,
    changes: Mapping[str, Any] | None = None,
) -> HalfData:
    """Reconstruct twice from half of the patterns, compare, and save the result in the folder.

    Parameters
    ----------
    output_folder : path
        Folder of a run whose data can be read.
    epochs : int
        0 runs both halves from the start, as many epochs as the run.  Otherwise they continue from
        the present state for so many epochs; the resolution is then too good.
    changes : mapping, optional
        Keys that differ from the run, for instance ``dataset`` or ``backend``.

    Returns
    -------
    HalfData

    Raises
    ------
    DataError
        If the folder holds no run, or its data cannot be read.
    ParamError
        If `epochs` is negative, or there are fewer than two patterns.
    """
    folder = Path(output_folder)
    params = _params(folder, epochs) | dict(changes or {})
    fitted = _fitted(params)
    halves = interleaved(fitted, params.get("scan_size"))
    alone = {"output_folder": None, "print_flag": 0, "data_simulation_flag": False}
    results: list[Result] = []
    for number, half in enumerate(halves, 1):
        logger.info("half %d of 2: %d patterns", number, len(half))
        results.append(run({**params, **alone, "sequence": half, "use_full_FOV": True}))
    found = HalfData(
        epochs=len(results[0].losses),
        from_start=epochs == 0,
        patterns=(len(halves[0]), len(halves[1])),
        curves=compare_halves(results[0], results[1]),
    )
    text = json.dumps(as_dict(found), indent=1, allow_nan=False)
    write_bytes(folder / FILE, text.encode())
    return found


def interleaved(numbers: np.ndarray, scan_size: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Two halves of the measurements: a chequerboard on a raster, otherwise every other one."""
    if scan_size is not None:
        odd = (numbers // int(scan_size[1]) + numbers % int(scan_size[1])) % 2 == 1
        # Patterns that are already a part of the raster may all be of one colour.
        if abs(2 * np.count_nonzero(odd) - len(numbers)) <= _UNBALANCED * len(numbers):
            return numbers[~odd], numbers[odd]
    return numbers[0::2], numbers[1::2]


def compare_halves(first: Result, second: Result) -> tuple[Curve, ...]:
    """Correlations of two results on one grid, inside the scanned field."""
    (a, b), weight = _common_field(first, second)
    step, limit = first.pixel_size_A, _band_limit_per_A(first)

    def compared(name: str, image: np.ndarray, other: np.ndarray, *gap: float) -> Curve:
        return _curve(name, correlate(image, other, (*gap, *step), weight, limit))

    curves = [compared("projected phase", a.sum(axis=0), b.sum(axis=0))]
    if len(a) > 1:
        curves += [compared(f"slice {z}", a[z], b[z]) for z in range(len(a))]
        gap = float(np.mean(first.slice_distances_A))
        curves.append(compared("all slices (3-D)", a, b, gap))
    return tuple(curves)


def load(folder: Path) -> HalfData | None:
    """What `half_data` has saved in a folder; None if it has not."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        curves = tuple(Curve(**curve) for curve in saved.pop("curves"))
        return HalfData(curves=curves, patterns=tuple(saved.pop("patterns")), **saved)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        remedy = "Delete it, or compute it again with --half-data"
        problem = Problem(str(path), "a comparison of half data", f"damaged: {error}", remedy)
        raise DataError(problem) from error


def as_dict(found: HalfData) -> dict[str, Any]:
    """Plain numbers, lists and texts."""
    return {**vars(found), "patterns": list(found.patterns), "curves": [*map(vars, found.curves)]}


def _params(folder: Path, epochs: int) -> dict[str, Any]:
    """Parameters of either half, before its patterns are chosen."""
    if epochs < 0:
        raise ParamError(Problem("--half-data", "0 or a number of epochs", str(epochs)))
    if epochs == 0:
        params = {**resume.saved_params(folder), "resume_from": None}
    else:
        params = {**resume.prepare_restart(folder), "resume_from": None}
        params["epoch_max"] = params.get("epoch_prev", 0) + epochs
    return params


def _fitted(params: Mapping[str, Any]) -> np.ndarray:
    """Numbers of the patterns that take part in the run."""
    resolved = resolve(params, need=("data",))
    with open_patterns(resolved) as source:
        fitted = fitted_numbers(resolved, int(source.shape[0]))
    if len(fitted) < 2:
        raise ParamError(Problem("sequence", "two patterns or more", str(len(fitted))))
    return fitted


def _band_limit_per_A(result: Result) -> float:
    """Largest frequency in 1/Å that the object of a run has."""
    cutoff = float(result.params["damping_cutoff_multislice"])
    return (cutoff if cutoff >= 0 else 2 / 3) * min(0.5 / d for d in result.pixel_size_A)


def _common_field(first: Result, second: Result) -> tuple[list[np.ndarray], np.ndarray]:
    """Phases (Nz, Y, X) of both inside the scanned field, and the weight of the field (Y, X)."""
    phases, masks = [], []
    for result in (first, second):
        window, shape = result.probe.shape[:2], result.object.shape[:2]
        mask = plots.scanned_mask(result.positions, window, shape)
        rows, columns = plots.scanned_field(result.positions, window)
        phases.append(_flat_phases(result.object, mask)[:, rows, columns])
        masks.append(mask[rows, columns])
    # Refined positions may make the fields of the two differ by a row or a column.
    y, x = np.min([mask.shape for mask in masks], axis=0)
    return [stack[:, :y, :x] for stack in phases], rim_taper(masks[0][:y, :x] & masks[1][:y, :x])


def _flat_phases(obj: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Phases (Nz, Y, X) of the first object mode in rad, without constants and ramps."""
    slices = np.moveaxis(obj[..., 0], -1, 0)
    return np.stack([plots.remove_ramp(np.angle(z), mask) for z in slices])


def _curve(name: str, correlation: Correlation) -> Curve:
    limit = half_bit(correlation.independent)
    levels: tuple[float | np.ndarray, ...] = (ONE_SEVENTH, limit, 0.5)
    found = {
        key: resolution(correlation, level) for key, level in zip(THRESHOLDS, levels, strict=True)
    }
    return Curve(
        name,
        correlation.frequency_per_A.tolist(),
        correlation.value.tolist(),
        limit.tolist(),
        {k: r.period_A if np.isfinite(r.period_A) else None for k, r in found.items()},
        {k: r.limited for k, r in found.items()},
    )
