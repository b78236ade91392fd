"""Keys that are checked but not computed yet: using one is an error, never ignored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from pyptyx.errors import Problem

_OFF_BY_DEFAULT = (
    "atv_weight",
    "phase_norm_weight",
    "abs_norm_weight",
    "mixed_variance_weight",
    "wedge_mu",
    "probe_reg_constraint_weight",
    "window_weight",
    "probe_mod_reg_weight",
    "fast_axis_reg_weight_positions",
    "slow_axis_reg_weight_positions",
    "fast_axis_reg_weight_tilts",
    "slow_axis_reg_weight_tilts",
    "deformation_reg_weight_positions",
    "deformation_reg_weight_tilts",
    "apply_gaussian_filter",
    "apply_gaussian_filter_amplitude",
    "keep_probe_states_orthogonal",
    "do_charge_flip",
    "restart_from_vacuum",
    "reset_positions",
    "dynamically_resize_yx_object",
    "puzzle_positions",
    "data_simulation_flag",
    "data_simulation_exitwave",
)
"""Switched on by any value that is not false, zero or None."""

_ONLY = {
    "default_dtype": ("single", "double"),
}
"""Choices that are computed today."""


def available(resolved: Mapping[str, Any]) -> Iterator[Problem]:
    """A check for `resolve`: every requested feature this version does not compute."""
    for key in _OFF_BY_DEFAULT:
        if _is_on(resolved.get(key)):
            expected = "no value, this version does not compute it yet"
            yield Problem(key, expected, _short(resolved[key]), "Remove the key")
    for key, allowed in _ONLY.items():
        if resolved.get(key, allowed[0]) not in allowed:
            choices = " or ".join(map(repr, allowed))
            got = f"{resolved[key]!r}, which this version does not compute yet"
            yield Problem(key, choices, got, f"Use {allowed[0]!r}")


def _is_on(value: Any) -> bool:
    """Schedules count as on: they are written to be used."""
    return callable(value) or (value is not None and bool(np.any(value)))


def _short(value: Any) -> str:
    return f"an array of shape {value.shape}" if isinstance(value, np.ndarray) else repr(value)
