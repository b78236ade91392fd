"""Constraints applied "by hand" between updates: functions that replace variables.

A `Constraint` takes the variables and returns new ones, or None if it changed nothing.  The loop
evaluates the objective anew after any change, and drops the history if `resets_history`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyptyx.engine.problem import Reconstruction
from pyptyx.engine.resize import followed, relocated
from pyptyx.methods.puzzle import moved_object, position_puzzling
from pyptyx.physics.modes import orthogonalise
from pyptyx.terms import projections

Array = Any
Tree = dict[str, Any]


@dataclass(frozen=True)
class Constraint:
    """One replacement of variables.

    Attributes
    ----------
    name : str
        For the log.
    apply : callable
        ``apply(x) -> x'`` or None.  Those that move windows tell the `Reconstruction`.
    resets_history : bool
    """

    name: str
    apply: Callable[[Tree], Tree | None]
    resets_history: bool = True


def before_update(
    problem: Reconstruction, values: Mapping[str, Any], active: Sequence[str]
) -> list[Constraint]:
    """What is done at the start of an epoch, in order.

    Parameters
    ----------
    problem : Reconstruction
    values : mapping
        Schedulable parameters of the epoch.
    active : sequence of str
        Variables that are refined; probe modes and object are only constrained while they are.
    """
    several_modes = "probe" in active and problem.x["probe"].shape[1] > 1
    return _chosen(
        (values["restart_from_vacuum"], "restart_from_vacuum", _vacuum),
        (values["reset_positions"], "reset_positions", lambda x: _reset_positions(problem, x)),
        (
            values["keep_probe_states_orthogonal"] and several_modes,
            "keep_probe_states_orthogonal",
            lambda x: _orthogonal(x, problem.backend.xp),
        ),
        (
            values["do_charge_flip"] and "object" in active,
            "do_charge_flip",
            lambda x: _charge_flip(problem, values, x),
        ),
    )


def after_update(
    problem: Reconstruction, values: Mapping[str, Any], active: Sequence[str]
) -> list[Constraint]:
    """What is done after an accepted update, in order; parameters as in `before_update`."""
    sigmas = (values["apply_gaussian_filter"], values["apply_gaussian_filter_amplitude"])
    limit_px = values["dynamically_resize_yx_object"]
    return _chosen(
        (
            any(sigmas) and "object" in active,
            "apply_gaussian_filter",
            lambda x: _smoothed(x, *sigmas),
        ),
        (
            limit_px and "positions" in active,
            "dynamically_resize_yx_object",
            lambda x: followed(problem, x, limit_px),
        ),
        (
            values["puzzle_positions"] and "positions" in active,
            "puzzle_positions",
            lambda x: _puzzled(problem, x),
        ),
    )


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


def _chosen(*steps: tuple[Any, str, Callable[[Tree], Tree | None]]) -> list[Constraint]:
    return [Constraint(name, apply) for on, name, apply in steps if on]


def _vacuum(x: Tree) -> Tree | None:
    if bool((x["object"] == 1).all()):
        return None
    return x | {"object": np.ones_like(x["object"])}


def _reset_positions(problem: Reconstruction, x: Tree) -> Tree | None:
    if np.array_equal(x["positions"], problem.start_positions):
        return None
    return relocated(problem, x, problem.start_positions)


def _orthogonal(x: Tree, xp: Any) -> Tree | None:
    """Modes that are orthogonal up to rounding errors are left alone, so that the history stays."""
    probe = x["probe"]
    rotated = orthogonalise(probe, xp).astype(probe.dtype)
    rounding = 100 * np.finfo(probe.dtype).eps
    if float(np.abs(rotated - probe).max()) <= rounding * float(np.abs(probe).max()):
        return None
    return x | {"probe": rotated}


def _charge_flip(problem: Reconstruction, values: Mapping[str, Any], x: Tree) -> Tree:
    """Phase and absorption, each with its own thresholds and perhaps `fancy_sigma`."""
    kinds = ("phase", "abs")
    widths = problem.params["fancy_sigma"] or (None, None)
    flipped = []
    for kind, a, width in zip(
        kinds, projections.phase_and_absorption(x["object"]), widths, strict=True
    ):
        delta, beta = values[f"cf_delta_{kind}"], values[f"cf_beta_{kind}"]
        if width is None:
            flipped.append(projections.charge_flip(a, delta, beta))
        else:
            sharp = projections.sharp_charge_flip(a, delta, beta, width, problem.backend)
            flipped.append(sharp)
    return x | {"object": projections.from_phase_and_absorption(*flipped)}


def _smoothed(x: Tree, phase_px: float, absorption_px: float) -> Tree:
    phase, absorption = projections.phase_and_absorption(x["object"])
    phase = projections.gaussian_filter(phase, phase_px)
    absorption = projections.gaussian_filter(absorption, absorption_px)
    return x | {"object": projections.from_phase_and_absorption(phase, absorption)}


def _puzzled(problem: Reconstruction, x: Tree) -> Tree | None:
    repaired, positions = position_puzzling(x["positions"], problem.params["scan_size"])
    if not repaired:
        return None
    moved = relocated(problem, x, positions)
    before = x["positions"] + (moved["positions"] - positions)  # in the frame of the new object
    host = problem.backend.to_host(moved["object"])
    obj = moved_object(host, before, moved["positions"], problem.spec.grid.shape)
    return moved | {"object": problem.backend.asarray(obj)}
