"""The scan rotation that gives the reconstruction of highest contrast."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.optimize import minimize

from pyptyx.engine.geometry import rotated_positions
from pyptyx.engine.resample import scan_region
from pyptyx.engine.run import run

logger = logging.getLogger(__name__)


def negative_contrast(angle_deg: float, params: Mapping[str, Any]) -> float:
    """Reconstruct with another scan rotation and measure the contrast.

    Parameters
    ----------
    angle_deg : float
        ``PLRotation_deg`` to try, in degrees.
    params : mapping
        Parameters of a run; neither changed nor is anything written.

    Returns
    -------
    float
        Minus the sum of squares of the phase, averaged over slices and object modes, about its mean
        over the scanned region.
    """
    trial = dict(params)
    change = float(angle_deg) - float(params.get("PLRotation_deg") or 0.0)
    pixel = (float(params["pixel_size_y_A"]), float(params["pixel_size_x_A"]))
    trial["positions"] = rotated_positions(params["positions"], change, pixel)
    trial |= {"PLRotation_deg": float(angle_deg), "output_folder": None, "print_flag": 0}
    result = run(trial)
    placed = trial | {"positions": result.positions, "probe": result.probe}
    phase = np.angle(scan_region(result.object, placed)).mean(axis=(2, 3))
    contrast = float(((phase - phase.mean()) ** 2).sum())
    logger.info("rotation %.2f degrees: contrast %.3e", angle_deg, contrast)
    return -contrast


def best_rotation(
    params: Mapping[str, Any], start_deg: float, bounds: Sequence[tuple[float, float]]
) -> float:
    """Rotation of highest contrast, within bounds in degrees; one reconstruction per trial."""
    found = minimize(
        lambda x: negative_contrast(float(x[0]), params),
        x0=[start_deg],
        method="Powell",
        bounds=list(bounds),
        options={"xtol": 1e-2, "ftol": 1e-4},
    )
    return float(found.x[0])
