"""Keys that are checked but not computed yet: using one is an error, never ignored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from pyptyx.errors import Problem

_OFF_BY_DEFAULT = (
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
