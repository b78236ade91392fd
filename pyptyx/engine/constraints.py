"""Constraints applied "by hand" between updates: functions that replace variables.

A `Constraint` takes the variables and returns new ones, or None if it changed nothing.  The loop
evaluates the objective anew after any change, and drops the history if `resets_history`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyptyx.engine.problem import Reconstruction

Tree = dict[str, Any]


@dataclass(frozen=True)
class Constraint:
    """One replacement of variables.

    Attributes
    ----------
    name : str
        For the log.
    apply : callable
        ``apply(x) -> x'`` or None.
    resets_history : bool
    """

    name: str
    apply: Callable[[Tree], Tree | None]
    resets_history: bool = True


def before_update(
    problem: Reconstruction, values: Mapping[str, Any], active: Sequence[str]
) -> list[Constraint]:
    """What is done at the start of an epoch, in order."""
    del problem, values, active
    return []


def after_update(
    problem: Reconstruction, values: Mapping[str, Any], active: Sequence[str]
) -> list[Constraint]:
    """What is done after an accepted update, in order."""
    del problem, values, active
    return []


def enforce(constraints: Sequence[Constraint], x: Tree) -> tuple[Tree, bool, bool]:
    """Apply constraints one after the other.

    Returns
    -------
    x : dict
    changed, reset : bool
        Whether anything changed, and whether the history must go.
    """
    changed = reset = False
    for constraint in constraints:
        replaced = constraint.apply(x)
        if replaced is not None:
            x, changed, reset = replaced, True, reset or constraint.resets_history
    return x, changed, reset
