"""The probe window that data, binning, up-sampling and padding make, and the way back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pyptyx.data import PatternSource
from pyptyx.engine.masks import data_edge, model_masks
from pyptyx.engine.start import beam_wavelength_A
from pyptyx.errors import ParamError, Problem
from pyptyx.physics.detector import DetectorGeometry
from pyptyx.physics.grid import Grid


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


def detector_geometry(resolved: Mapping[str, Any]) -> DetectorGeometry:
    """How pixels of the probe window become pixels of the data."""
    upsample = int(resolved["upsample_pattern"])
    crop = int(resolved["data_pad"]) - upsample * data_edge(resolved)
    return DetectorGeometry((crop, crop), upsample, resolved["recon_type"] == "far_field")
