"""The probe window that data, binning, up-sampling and padding make."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pyptyx.data import PatternSource
from pyptyx.engine.start import beam_wavelength_A
from pyptyx.errors import ParamError, Problem
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
    if source is None:
        probe = resolved["probe"]
        if not isinstance(probe, np.ndarray):
            remedy = "Give a probe, or data."
            raise ParamError(Problem("probe", "an array when there are no data", "none", remedy))
        ny, nx = probe.shape[:2]
    elif len(source.shape) == 2:
        ny, nx = np.shape(resolved["masks"])[-2:]
    else:
        measured = (n // int(resolved["data_bin"]) for n in source.shape[1:])
        ny, nx = (n * upsample + 2 * pad for n in measured)
    return Grid(
        (int(ny), int(nx)),
        (float(resolved["pixel_size_y_A"]), float(resolved["pixel_size_x_A"])),
        beam_wavelength_A(resolved),
        float(resolved["damping_cutoff_multislice"]),
    )
