"""The numbers of a report that the rules of `pyptyx.engine.findings` judge."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.spatial import ConvexHull, QhullError

from pyptyx.engine.describe import beam_diameter_A, mean_step_A
from pyptyx.engine.findings import Facts
from pyptyx.engine.half_data import HalfData
from pyptyx.engine.report_material import Material
from pyptyx.engine.residuals import Residuals, spread_out
from pyptyx.engine.variables import probe_from_public
from pyptyx.output import plots
from pyptyx.output.losslog import EpochRecord

_LAST = 3
"""Epochs that "the last epochs" are."""

_FRAME = 0.04
"""Width of the frame of a window or of the object as a part of the side."""

_SPAN = (0.1, 99.9)
"""Percentiles between which the phase spans."""

_ENOUGH_POSITIONS = 2048
"""So many positions tell where the light goes."""

_NOTE = "warm start:"
"""What the log says about a warm start that has gone well begins like this."""

_TINY = float(np.finfo(np.float64).tiny)


def facts(
    material: Material,
    fitted: Residuals | None = None,
    held_out: Residuals | None = None,
    half: HalfData | None = None,
) -> Facts:
    """All numbers that can be had from what is given.

    Parameters
    ----------
    material : Material
        The reconstruction.
    fitted, held_out : Residuals, optional
        Patterns that took part, and patterns that did not.
    half : HalfData, optional
        Comparison of half data.
    """
    known: dict[str, Any] = {
        "algorithm": material.params["algorithm"],
        "epochs": material.epoch,
        "finished": material.finished,
    }
    known |= _log_facts(material.records)
    known |= _probe_facts(material)
    known |= _object_facts(material)
    known |= _scan_facts(material)
    if fitted is not None:
        known |= _data_facts(material, fitted)
    if held_out is not None:
        known |= {
            "held_out": len(held_out.numbers),
            "chi2_held_out": held_out.chi2,
            "chi2_held_out_error": held_out.chi2_error,
        }
    if half is not None:
        projected = half.curves[0]
        known |= {
            "resolution_A": projected.resolution_A["1/7"],
            "resolution_limited": projected.limited["1/7"],
        }
    return Facts(**known)


def mode_shares(probe: np.ndarray) -> tuple[float, ...]:
    """Part of the power in every mode of a probe (ny, nx, Mp, Ns), over all scenarios."""
    power = (np.abs(probe) ** 2).sum(axis=(0, 1, 3), dtype=np.float64)
    return tuple((power / max(float(power.sum()), _TINY)).tolist())


def scan_area_A2(positions_A: np.ndarray) -> float:
    """Area of a scan whose positions stand for the area around them, half a step to every side.

    For an ``Ny x Nx`` raster of step s it is ``Ny Nx s²``.
    """
    step = mean_step_A(positions_A)
    try:
        hull = ConvexHull(positions_A)
        area, rim = float(hull.volume), float(hull.area)  # SciPy's names in two dimensions
    except QhullError:  # fewer than three points, or all on one line
        area, rim = 0.0, 2 * float(np.hypot(*np.ptp(positions_A, axis=0)))
    return area + rim * step / 2 + step**2


def _log_facts(records: tuple[EpochRecord, ...]) -> dict[str, Any]:
    if not records:
        return {}
    last = records[-_LAST:]
    known: dict[str, Any] = {"log_warnings": sum(_is_warning(r.warnings) for r in records)}
    final = records[-1].loss_after
    known["loss"] = records[-1].loss if math.isnan(final) else final
    if len(records) > _LAST and last[0].loss:
        known["decrease"] = (last[0].loss - known["loss"]) / abs(last[0].loss) / len(last)
    taken = [r.step for r in records if r.step > 0]
    if len(taken) > _LAST:
        known["last_step"] = max(r.step for r in last) / float(np.median(taken))
    for record in reversed(records):
        if record.step > 0 or math.isnan(record.step):
            break
        known["rejected"] = known.get("rejected", 0) + 1
    return known


def _is_warning(text: str) -> bool:
    return any(part and not part.startswith(_NOTE) for part in text.split("; "))


def _frame(shape: tuple[int, ...]) -> np.ndarray:
    """The pixels along the sides of an image."""
    inside = np.zeros(shape[:2], bool)
    width_y, width_x = (max(1, round(_FRAME * n)) for n in shape[:2])
    inside[width_y:-width_y, width_x:-width_x] = True
    return ~inside


def _probe_facts(material: Material) -> dict[str, Any]:
    known: dict[str, Any] = {"mode_shares": mode_shares(material.probe)}
    if material.params["recon_type"] == "far_field":
        intensity = (np.abs(material.probe) ** 2).sum(axis=(2, 3), dtype=np.float64)
        if intensity.any():
            edge = intensity[_frame(intensity.shape)].mean()
            known["probe_edge"] = float(edge / intensity.mean())
    return known


def _object_facts(material: Material) -> dict[str, Any]:
    mask = material.mask
    if np.count_nonzero(mask) < 3:
        return {}
    slices = np.moveaxis(material.obj[..., 0], -1, 0)
    phases = [plots.remove_ramp(np.angle(z), mask) for z in slices]
    spans = [np.ptp(np.percentile(p[mask], _SPAN)) for p in phases]
    light = _illumination(material)
    return {
        "slice_contrast": tuple(float(p[mask].std()) for p in phases),
        "phase_span_rad": float(max(spans)),
        "border_light": float(light[_frame(light.shape)].mean() / max(light[mask].mean(), _TINY)),
    }


def _illumination(material: Material) -> np.ndarray:
    """Intensity (Y, X) that the object has seen, from evenly spread positions."""
    intensity = (np.abs(material.probe) ** 2).sum(axis=(2, 3), dtype=np.float64)
    ny, nx = intensity.shape
    positions = material.arrays["positions"]
    light = np.zeros(material.obj.shape[:2])
    chosen = spread_out(np.arange(len(positions)), _ENOUGH_POSITIONS)
    for y, x in np.rint(positions[chosen]).astype(int).tolist():
        light[y : y + ny, x : x + nx] += intensity
    return light


def _scan_facts(material: Material) -> dict[str, Any]:
    positions = material.arrays["positions"]
    if len(positions) < 2:
        return {}
    pixel = np.array(material.pixel_A)
    step_A = mean_step_A(positions * pixel)
    known: dict[str, Any] = {"step_px": step_A / math.sqrt(pixel.prod())}
    if material.params["recon_type"] == "far_field":
        diameter = beam_diameter_A(probe_from_public(material.probe), material.pixel_A)
        known["overlap"] = 1 - step_A / diameter if diameter else None
    moved = material.displacements_px
    total = float((moved**2).sum())
    known["displacement_px"] = math.sqrt(total / len(moved))
    if total > 0:
        clock = np.linspace(-0.5, 0.5, len(moved))
        slope = clock @ moved / (clock @ clock)
        known["drift_px"] = float(np.hypot(*slope))
        known["drift_share"] = float((np.outer(clock, slope) ** 2).sum() / total)
    return known


def _data_facts(material: Material, fitted: Residuals) -> dict[str, Any]:
    counts = float(fitted.counts.mean()) / max(1 - fitted.beyond_band, _TINY)
    measured = max(float(fitted.counts.sum()), _TINY)
    typical = float(np.median(fitted.chi2_per_pattern))
    return {
        "counts_per_pattern": counts,
        "counts_per_pixel": counts / fitted.deviation.size,
        "dose_per_A2": _dose(material, counts),
        "counts_ratio": float(fitted.predicted.sum()) / measured,
        "chi2": fitted.chi2,
        "chi2_error": fitted.chi2_error,
        "explained": fitted.explained,
        "explained_error": fitted.explained_error,
        "noise": fitted.noise,
        "outliers": float((fitted.chi2_per_pattern > 3 * typical).mean()),
        "beyond_band": fitted.beyond_band,
        "saturated": fitted.saturated,
    }


def _dose(material: Material, counts: float) -> float | None:
    """Counts per Å² over the area of the scan, or over the window that all images share."""
    pixel, positions = np.array(material.pixel_A), material.arrays["positions"]
    if material.params["recon_type"] == "near_field" or len(positions) == 1:
        ny, nx = material.arrays["probe"].shape[:2]
        return counts / float(ny * nx * pixel.prod())
    area = scan_area_A2(positions * pixel)
    return counts * len(positions) / area if area else None


def plain_facts(known: Facts) -> Mapping[str, Any]:
    """The facts for JSON: NaN and infinities become None."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in vars(known).items()
    }
