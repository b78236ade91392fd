"""Positions that left their windows: windows are cut anew and the object grows where it must."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from pyptyx.engine.problem import Reconstruction
from pyptyx.physics.patches import split
from pyptyx.terms.projections import missing_margins, nearest_shift

Tree = dict[str, Any]

logger = logging.getLogger(__name__)


def relocated(problem: Reconstruction, x: Tree, positions: np.ndarray) -> Tree:
    """The variables with other positions, each in the window nearest to it.

    The object is extended with its edge values until it holds every window that it held before;
    the new positions then count from its new corner.  `problem` is told about the windows.

    Parameters
    ----------
    problem : Reconstruction
    x : dict
        Present variables.
    positions : ndarray (N, 2)
        New positions in px, in the frame of the present object.

    Returns
    -------
    dict
        With other ``positions``, and another ``object`` if it grew.
    """
    window, shape = problem.spec.grid.shape, x["object"].shape[-2:]
    before = problem.scan.corners
    held = np.all((before >= 0) & (before + window <= shape), axis=1)
    corners, _fractions = split(positions)
    margins = missing_margins(corners[held], window, shape)
    first = (margins[0][0], margins[1][0])
    problem.relocate(corners + first, first)
    x = {**x, "positions": positions + first}
    if np.any(margins):
        x["object"] = np.pad(x["object"], ((0, 0), (0, 0), *margins), mode="edge")
        y_px, x_px = x["object"].shape[-2:]
        logger.info("the object grew to %s x %s px", y_px, x_px)
    return x


def followed(problem: Reconstruction, x: Tree, limit_px: float) -> Tree | None:
    """The variables with windows that follow the positions, once one has moved by `limit_px`.

    The probe moves periodically in its window, so a position counts modulo the window.

    Returns
    -------
    dict or None
        None while every position is within `limit_px` of its window.
    """
    corners = problem.scan.corners
    fractions = x["positions"] - corners
    if np.abs(fractions).max() < limit_px:
        return None
    return relocated(problem, x, corners + nearest_shift(fractions, problem.spec.grid.shape))
