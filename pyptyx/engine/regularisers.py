"""Which regularisers an epoch has, from the values of its parameters.

One row per regulariser: its weight, the variable it acts on, the keys of its constants, and how
its function is made.  The order is that of the columns of the loss log.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyptyx.engine.problem import Reconstruction
from pyptyx.errors import Problem
from pyptyx.output.losslog import EACH
from pyptyx.terms import object_priors, probe_priors, scan_priors
from pyptyx.terms.base import Prior, Term

Array = Any
Values = Mapping[str, Any]
Function = Callable[[Array], tuple[float, Array]]


def make_terms(problem: Reconstruction, values: Values, active: Sequence[str]) -> list[Term]:
    """The regularisers of an epoch in PyPty's order of contributions.

    Parameters
    ----------
    problem : Reconstruction
    values : mapping
        Schedulable parameters of the epoch.
    active : sequence of str
        Variables that are refined; terms on positions, tilts and probe count only while these are.

    Returns
    -------
    list of Term
    """
    terms: list[Term] = []
    for name, row in zip(EACH, _ROWS, strict=True):
        weight = values[row.weight]
        counts = row.variable == "object" or row.variable in active
        if not counts or not 0 < weight < math.inf:
            continue
        function = row.make(problem, values)
        if function is not None:
            constants = tuple(values[key] for key in row.constants)
            terms.append(Prior(name, row.variable, weight, function, constants))
    return terms


def probe_support(problem: Reconstruction, values: Values) -> np.ndarray | None:
    """What the probe and its gradient are multiplied with in reciprocal space, if anything.

    Returns
    -------
    ndarray of bool (ny, nx), zero frequency in the corner, or None
        Set by an infinite ``probe_reg_constraint_weight``.
    """
    if values["probe_reg_constraint_weight"] < math.inf:
        return None
    return _support(problem)


def probe_mask_problems(resolved: Mapping[str, Any], window: tuple[int, int]) -> Iterator[Problem]:
    """Problems with masks that are not as large as the probe `window` (ny, nx)."""
    keys = ["window", "probe_constraint_mask"]
    if resolved["probe_reg_constraint_weight"]:
        keys.append("aperture_mask")
    for key in keys:
        mask = resolved[key]
        if isinstance(mask, np.ndarray) and mask.ndim == 2 and mask.shape != window:
            expected = f"the shape of the probe, {window}"
            remedy = "Give it on the up-sampled and padded window"
            yield Problem(key, expected, f"shape {mask.shape}", remedy)


@dataclass(frozen=True)
class _Row:
    """One regulariser; ``make`` returns None where it is identically zero."""

    weight: str
    variable: str
    make: Callable[[Reconstruction, Values], Function | None]
    constants: tuple[str, ...] = ()


def _total_variation(problem: Reconstruction, values: Values) -> Function:
    p, q = values["atv_p"], values["atv_q"]
    return lambda obj: object_priors.total_variation(obj, p=p, q=q)


def _mode_variance(problem: Reconstruction, values: Values) -> Function | None:
    obj = problem.x["object"]
    if len(obj) == 1:
        return None
    mask = object_priors.gaussian_low_pass(obj.shape[-2:], values["mixed_variance_sigma"])
    low_pass = _placed(mask, problem, "object")
    return lambda obj: object_priors.mode_variance(obj, low_pass, problem.backend)


def _missing_wedge(problem: Reconstruction, values: Values) -> Function | None:
    spec, shape = problem.spec, problem.x["object"].shape[1:]
    if shape[0] == 1 or not values["beta_wedge"]:
        return None
    weight = object_priors.wedge_weight(
        shape,
        spec.grid.pixel_A,
        float(np.mean(spec.distances_A)),
        values["beta_wedge"],
        problem.params["wedge_column"],
    )
    wedge = _placed(weight, problem, "object")
    return lambda obj: object_priors.missing_wedge(obj, wedge, problem.backend)


def _support(problem: Reconstruction) -> np.ndarray:
    """``probe_constraint_mask`` replaces ``aperture_mask``; a check demands one of them."""
    given = problem.params["probe_constraint_mask"]
    if given is None:
        given = problem.params["aperture_mask"]
    return probe_priors.reciprocal_support(given, problem.spec.grid.shape)


def _outside_support(problem: Reconstruction, values: Values) -> Function:
    outside = _placed(~_support(problem), problem, "probe")
    return lambda probe: probe_priors.outside_support(probe, outside, problem.backend)


def _outside_window(problem: Reconstruction, values: Values) -> Function:
    given = problem.params["window"]
    if given.ndim == 1:
        given = probe_priors.window_weight(problem.spec.grid.shape, *given)
    weight = _placed(given, problem, "probe")
    return lambda probe: probe_priors.outside_window(probe, weight)


def _scan_frequencies(problem: Reconstruction, values: Values) -> Function:
    step_A, tolerance = problem.params["scan_step_A"], values["probe_mod_tol"]
    mask = probe_priors.scan_frequency_mask(problem.spec.grid, step_A, tolerance)
    placed = _placed(mask, problem, "probe")
    return lambda probe: probe_priors.scan_frequency_roughness(probe, placed, problem.backend)


def _placed(constant: np.ndarray, problem: Reconstruction, variable: str) -> Array:
    """A constant array as real numbers of the variable's precision on its device."""
    return problem.backend.asarray(constant.astype(problem.x[variable].real.dtype))


def _scan_row(weight: str, variable: str, function: Callable[..., Any]) -> _Row:
    def make(problem: Reconstruction, values: Values) -> Function | None:
        if len(problem.x[variable]) == 1:
            return None  # a common row is constant over the scan
        scan_size = problem.params["scan_size"]
        return lambda table: function(table, scan_size)

    return _Row(weight, variable, make)


_ROWS = (
    _scan_row("fast_axis_reg_weight_positions", "positions", scan_priors.fast_axis),
    _scan_row("deformation_reg_weight_positions", "positions", scan_priors.deformation),
    _scan_row("deformation_reg_weight_tilts", "tilts", scan_priors.deformation),
    _scan_row("fast_axis_reg_weight_tilts", "tilts", scan_priors.fast_axis),
    _Row("phase_norm_weight", "object", lambda problem, values: object_priors.phase_norm),
    _Row("abs_norm_weight", "object", lambda problem, values: object_priors.absorption_norm),
    _Row("probe_reg_constraint_weight", "probe", _outside_support),
    _Row("window_weight", "probe", _outside_window),
    _Row("atv_weight", "object", _total_variation, ("atv_p", "atv_q")),
    _Row("mixed_variance_weight", "object", _mode_variance, ("mixed_variance_sigma",)),
    _Row("wedge_mu", "object", _missing_wedge, ("beta_wedge",)),
    _scan_row("slow_axis_reg_weight_positions", "positions", scan_priors.slow_axis),
    _scan_row("slow_axis_reg_weight_tilts", "tilts", scan_priors.slow_axis),
    _Row("probe_mod_reg_weight", "probe", _scan_frequencies, ("probe_mod_tol",)),
)
"""In the order of `EACH`."""
