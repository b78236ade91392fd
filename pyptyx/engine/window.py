"""The probe window that data, binning, up-sampling and padding make, and the way back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from pyptyx.data import PatternSource
from pyptyx.engine.masks import data_edge, model_masks
from pyptyx.engine.start import beam_wavelength_A
from pyptyx.errors import ParamError, Problem
from pyptyx.physics.detector import DetectorGeometry
from pyptyx.physics.grid import Grid, fast_pad, is_fast

_WORTH_SAYING = 64
"""Pixels below which no window is slow enough to talk about."""

_SAME_PIXEL = 0.01
"""Pixel sizes that differ by no more than this part are taken for the same."""


def probe_window(resolved: Mapping[str, Any], source: PatternSource | None) -> Grid:
    """The grid of the probe.

    Parameters
    ----------
    resolved : mapping
        Resolved parameters.
    source : PatternSource or None
        The data; without any the window is that of the given probe.

    Raises
    ------
    ParamError
        If neither data nor a probe array are given.
    """
    upsample, pad = int(resolved["upsample_pattern"]), int(resolved["data_pad"])
    masks = model_masks(resolved)
    if masks is not None:
        ny, nx = (n * upsample for n in masks.shape[-2:])
    elif source is None:
        probe = resolved["probe"]
        if not isinstance(probe, np.ndarray):
            remedy = "Give a probe, or data."
            raise ParamError(Problem("probe", "an array when there are no data", "none", remedy))
        ny, nx = probe.shape[:2]
    else:
        measured = (n // int(resolved["data_bin"]) for n in source.shape[1:])
        ny, nx = (n * upsample + 2 * pad for n in measured)
    return Grid(
        (int(ny), int(nx)),
        (float(resolved["pixel_size_y_A"]), float(resolved["pixel_size_x_A"])),
        beam_wavelength_A(resolved),
        float(resolved["damping_cutoff_multislice"]),
    )


def slow_window(resolved: Mapping[str, Any], grid: Grid) -> str | None:
    """What to say of a window whose transforms take long for its size; None if they do not."""
    if max(grid.shape) < _WORTH_SAYING or all(map(is_fast, grid.shape)):
        return None
    ny, nx = grid.shape
    text = f"a window of {ny} x {nx} pixels takes two to four times as long as one without prime "
    text += "factors above 7"
    pad = int(resolved["data_pad"])
    inner = (ny - 2 * pad, nx - 2 * pad)
    better = fast_pad(inner, pad, pad + max(inner) // 4, int(resolved["upsample_pattern"]))
    if better is None:
        return f"{text}; crop the patterns, or pad them"
    size = " x ".join(str(n + 2 * better) for n in inner)
    return f"{text}; data_pad={better} makes {size}"


def window_problems(resolved: Mapping[str, Any], grid: Grid) -> Iterator[Problem]:
    """Pixel sizes that belong to another window than the one of these data.

    `append_exp_params` works them out for the ``data_bin``, ``data_pad`` and ``upsample_pattern``
    it finds; with others afterwards every length of the result would be wrong.
    """
    rez = resolved.get("rez_pixel_size_A")
    if not rez or resolved["recon_type"] != "far_field":
        return
    wanted = 1 / (rez * np.array(grid.shape))
    if np.allclose(grid.pixel_A, wanted, rtol=_SAME_PIXEL, atol=0):
        return
    (y, x), (ny, nx) = wanted, grid.shape
    yield Problem(
        "pixel_size_y_A, pixel_size_x_A",
        f"{y:.4g} and {x:.4g} Å, as {ny} x {nx} pixels of rez_pixel_size_A = {rez:.4g} 1/Å make it",
        f"{grid.pixel_A[0]:.4g} and {grid.pixel_A[1]:.4g} Å",
        "Call append_exp_params again after a change of data_bin, data_pad or upsample_pattern, "
        "or remove rez_pixel_size_A",
    )


def detector_geometry(resolved: Mapping[str, Any]) -> DetectorGeometry:
    """How pixels of the probe window become pixels of the data."""
    upsample = int(resolved["upsample_pattern"])
    crop = int(resolved["data_pad"]) - upsample * data_edge(resolved)
    return DetectorGeometry((crop, crop), upsample, resolved["recon_type"] == "far_field")
