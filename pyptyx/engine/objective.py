"""The objective of one epoch: terms, active variables, coordinates, projections.

``fun(u)`` maps optimiser coordinates to a `Point`: coordinates -> model variables -> sum of the
terms -> gradient, projected onto the band the state is kept in, -> coordinates.  The gradient of
the probe is always the one along band-limited changes (projected onto M, as in PyPty).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyptyx import trees
from pyptyx.backend import Backend
from pyptyx.engine import preconditioner
from pyptyx.engine.problem import Reconstruction
from pyptyx.engine.regularisers import make_terms, probe_support
from pyptyx.engine.rings import Rings
from pyptyx.engine.variables import (
    UPDATE_KEYS,
    Coordinate,
    identity,
    phase_at_fixed_modulus,
    spectrum_modulus,
    spectrum_phase,
)
from pyptyx.errors import NumericalError
from pyptyx.optim.lbfgs import Point
from pyptyx.physics.grid import clean_filter
from pyptyx.terms.data_term import DataTerm

Array = Any
Tree = dict[str, Array]
Filter = Callable[[Array], Array]


@dataclass(frozen=True)
class Info:
    """What is remembered with a point: unweighted Σ(I-D)² and the value of every term."""

    sse: float
    contributions: dict[str, float]


class Objective:
    """Sum of terms over the active variables of an epoch.

    Parameters
    ----------
    problem : Reconstruction
    values : mapping
        Schedulable parameters of the epoch.
    epoch : int
        For error messages.
    project : bool
        Keep state and gradient inside the band limit of the run; without it the gradient is that of
        the bare objective.

    Attributes
    ----------
    active : tuple of str
        Variables that are refined.
    identity : tuple
        What the curvature pairs depend on: terms, active variables, coordinates, projection of the
        probe, measurements.
    weights : tuple
        What only the values depend on.
    """

    def __init__(
        self, problem: Reconstruction, values: Mapping[str, Any], epoch: int, project: bool = True
    ) -> None:
        self._problem = problem
        self._epoch = epoch
        self.data: DataTerm = problem.data_term_at(values)
        self.active = active_variables(problem, values)
        self.coordinates = {k: _coordinate(k, values, problem.backend) for k in self.active}
        self._terms = make_terms(problem, values, self.active)
        self._probe_band = _filter(problem.spec.grid.mask, problem.x["probe"], problem.backend)
        self._support = probe_support(problem, values)
        self._filters = self._make_filters(soft=False) if project else {}
        self._soft = self._make_filters(soft=True)
        self._model: Tree = problem.x
        sequence = problem.sequence_at(values)
        self.identity = (
            (self.data.name, *(term.name for term in self._terms)),
            self.active,
            tuple(c.kind for c in self.coordinates.values()),
            self._support is not None,
            sequence.tobytes(),
        )
        self.weights = (self.data.weight, *(term.definition for term in self._terms))

    def enter(self, x: Tree) -> tuple[Tree, Tree]:
        """Project model variables at the start of an epoch; also return their coordinates."""
        x = dict(x)
        for name, keep in self._filters.items():
            x[name] = keep(x[name])
        self._model = x
        return x, {k: c.from_model(x[k]) for k, c in self.coordinates.items()}

    def to_model(self, u: Tree) -> Tree:
        """Model variables for coordinates `u`; frozen variables keep their values."""
        x = dict(self._model)
        for name, coordinate in self.coordinates.items():
            x[name] = coordinate.to_model(u[name], self._model[name])
        return x

    def on(self, data: DataTerm, x: Tree) -> Objective:
        """The same variables with another data term alone, for steps from `x`.

        Without regularisers, and without the low-pass of the object, which is done afterwards.
        """
        other = copy(self)
        other.data, other._terms, other._model = data, [], x
        other._filters, other._soft = (
            {k: v for k, v in filters.items() if k != "object"}
            for filters in (self._filters, self._soft)
        )
        return other

    @np.errstate(over="ignore", invalid="ignore")
    def fun(self, u: Tree) -> Point:
        """Value and gradient at coordinates `u`; infinite or NaN after far too long a step."""
        x = self.to_model(u)
        g = trees.zeros_like({k: x[k] for k in self.active})
        data = self.data.evaluate(x, g)
        contributions = {self.data.name: data.value}
        contributions |= {term.name: term(x, g) for term in self._terms}
        # Steps are accepted by these numbers: all processes have to see the same ones.
        contributions = self._problem.communicator.on_main(lambda: contributions)
        if "probe" in g:
            g["probe"] = self._probe_band(g["probe"])
        for name, keep in self._filters.items():
            g[name] = keep(g[name])
        for name, coordinate in self.coordinates.items():
            g[name] = coordinate.pullback(u[name], x[name], g[name])
        return Point(u, sum(contributions.values()), g, Info(data.sse, contributions))

    def check(self, point: Point) -> None:
        """Raise if value or gradient are not finite.

        Raises
        ------
        NumericalError
            Naming the epoch and the term or variable.
        """
        for term, value in point.info.contributions.items():
            if not math.isfinite(value):
                raise NumericalError(
                    f"epoch {self._epoch}: the term '{term}' became {value}. Look for NaN in the "
                    "data or the start values, or for too large a step"
                )
        for name, fine in trees.is_finite(point.g).items():
            if not fine:
                raise NumericalError(
                    f"epoch {self._epoch}: the gradient of '{name}' is not finite. Look for NaN in "
                    "the data or the start values"
                )

    def initial_hessian(
        self, known: Mapping[str, Any] | None = None, floor: float = preconditioner.FLOOR
    ) -> preconditioner.InverseDiagonal:
        """Inverse of the curvature estimated by `pyptyx.engine.preconditioner`, in coordinates.

        With `known`, the state of such an operator, nothing is estimated.  `floor` is that of the
        object's curvature.
        """
        p = self._problem
        rings: dict[str, Rings] = {}
        if p.params["frequency_scaling"] and "object" in self.active:
            shape = self._model["object"].shape[-2:]
            rings["object"] = Rings(shape, p.spec.grid.pixel_A, p.backend)
        if known is not None:
            return preconditioner.InverseDiagonal(**known, filters=self._soft, rings=rings)
        sequence = np.sort(np.concatenate(self.data.batches))
        diagonal = preconditioner.curvatures(
            self._model, p.spec, p.scan, sequence, p.backend, self.active, floor
        )
        for name in ("positions", "tilts", "aberrations"):
            if name in self.active:
                rows = self._row_of(name)
                diagonal[name] = preconditioner.measured_rows(
                    self.data, self._model, name, diagonal[name], rows
                )
        loss = preconditioner.loss_factor(self.data.loss, self._model, p.spec, p.backend)
        factor = loss * (self.data.weight or 1.0)
        for name, coordinate in self.coordinates.items():
            if coordinate.kind == "phase":
                diagonal[name] = diagonal[name] * np.abs(self._model[name]) ** 2
            elif coordinate.kind != "plain":
                diagonal[name] = _of_spectrum(
                    coordinate, diagonal[name], self._model[name], p.backend
                )
        return preconditioner.InverseDiagonal(diagonal, factor, self._soft, rings)

    def _row_of(self, name: str) -> np.ndarray:
        """Row of a table that belongs to every measurement."""
        n = self._problem.measurements
        if name == "aberrations":
            return np.asarray(self._problem.scan.aberration_row)
        return np.arange(n) if len(self._model[name]) > 1 else np.zeros(n, np.int64)

    def _make_filters(self, soft: bool) -> dict[str, Filter]:
        """Low-pass of the object and the probe, for plain coordinates only; support of the probe.

        The hard ones project state and gradient, so slopes stay exact; `smooth_rolloff` shapes
        steps (it would wear the state away if it were applied again and again).
        """
        params, x = self._problem.params, self._problem.x
        plain = {name for name, c in self.coordinates.items() if c.kind == "plain"}
        rolloff = params["smooth_rolloff"] if soft else 0.0
        cutoff = params["damping_cutoff_multislice"] - params["update_extra_cut"]
        masks: dict[str, np.ndarray] = {}
        for name, skip in (("object", params["lazy_clean"]), ("probe", False)):
            if name in plain and not skip:
                masks[name] = clean_filter(x[name].shape[-2:], cutoff, rolloff)
        if self._support is not None and "probe" in (plain if soft else self.active):
            masks["probe"] = masks.get("probe", 1.0) * self._support
        return {name: _filter(mask, x[name], self._problem.backend) for name, mask in masks.items()}


def active_variables(problem: Reconstruction, values: Mapping[str, Any]) -> tuple[str, ...]:
    """Variables that are refined: switched on, and part of the model."""
    names = (name for name, key in UPDATE_KEYS.items() if values[key] and name in problem.x)
    return tuple(name for name in names if name != "positions" or problem.spec.shift)


def _filter(mask: np.ndarray, like: Array, backend: Backend) -> Filter:
    """``F⁻¹ mask F`` for arrays like `like`."""
    mask = backend.asarray(mask.astype(like.real.dtype))

    def apply(a: Array) -> Array:
        spectrum = backend.fft2(a)
        spectrum *= mask
        return backend.ifft2(spectrum, overwrite=True)

    return apply


def _coordinate(name: str, values: Mapping[str, Any], backend: Backend) -> Coordinate:
    if name == "object" and values["phase_only_obj"]:
        return phase_at_fixed_modulus()
    if name == "probe" and values["tune_only_probe_abs"]:
        return spectrum_modulus(backend)
    if name == "probe" and values["tune_only_probe_phase"]:
        return spectrum_phase(backend)
    return identity()


def _of_spectrum(coordinate: Coordinate, diagonal: Array, probe: Array, backend: Backend) -> Array:
    """Curvature per spectral coordinate: real space divided by the number of pixels (Parseval)."""
    per_pixel = diagonal / (probe.shape[-1] * probe.shape[-2])
    if coordinate.kind == "spectrum modulus":
        return per_pixel
    power = np.abs(backend.fft2(probe)) ** 2
    return per_pixel * (power + 1e-3 * power.max())
