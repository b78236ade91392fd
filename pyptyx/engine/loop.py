"""The run: a generator of states.  It computes; saving, printing and live changes are callbacks.

One epoch: parameters of the epoch -> objective -> (history dropped if the objective is another
one) -> one L-BFGS step -> `State`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyptyx.engine.constraints import Constraint, after_update, before_update, enforce
from pyptyx.engine.objective import Objective, active_variables
from pyptyx.engine.problem import Reconstruction
from pyptyx.engine.variables import PUBLIC_NAMES, to_public
from pyptyx.optim.lbfgs import LBFGS, Point, Step
from pyptyx.optim.linesearch import SearchOptions, pypty_search, weak_wolfe
from pyptyx.optim.scaling import EqualSlopes, Preconditioned
from pyptyx.output.losslog import EpochRecord
from pyptyx.params import evaluate

Tree = dict[str, Any]
Watch = Callable[[float, Point, float], None]

_STALLED_AFTER = 2
"""Consecutive steepest-descent searches without success that end a run."""


@dataclass
class State:
    """What one epoch left behind.

    Attributes
    ----------
    epoch : int
        Number of the epoch just done.
    problem : Reconstruction
        Its ``x`` holds the present variables.
    active : tuple of str
        Variables that were refined.
    record : EpochRecord
    accepted : bool
        Whether the step was taken.
    stop_reason : str
        Empty while the run goes on.
    """

    epoch: int
    problem: Reconstruction
    active: tuple[str, ...]
    record: EpochRecord
    accepted: bool
    stop_reason: str = ""


def iterate(
    problem: Reconstruction,
    overrides: Callable[[], Mapping[str, Any]] | None = None,
    watch: Watch | None = None,
) -> Iterator[State]:
    """Run epochs ``epoch_prev`` to ``epoch_max``.

    Parameters
    ----------
    problem : Reconstruction
        Its ``x`` is replaced epoch by epoch.
    overrides : callable, optional
        Called before each epoch; returns changed schedulable parameters (live editing).
    watch : callable, optional
        ``watch(step, trial, slope)`` after every evaluation of the line search.

    Yields
    ------
    State

    Raises
    ------
    NumericalError
        If the objective becomes NaN, naming epoch and term.
    """
    run = _Run(problem, watch)
    first, last = problem.params["epoch_prev"], problem.params["epoch_max"]
    for epoch in range(first, last):
        changed = {} if overrides is None else overrides()
        state = run.epoch(epoch, evaluate({**problem.params, **changed}, epoch))
        if not state.stop_reason and epoch == last - 1:
            state.stop_reason = f"epoch_max={last} reached"
        yield state
        if state.stop_reason:
            return


class _Run:
    """Optimiser and point carried from epoch to epoch."""

    def __init__(self, problem: Reconstruction, watch: Watch | None) -> None:
        self._problem = problem
        self._watch = watch
        self._optimizer: LBFGS | None = None
        self._point: Point | None = None
        self._identity: tuple[Any, ...] = ()
        self._weights: tuple[Any, ...] = ()
        self._failures = 0
        self._quiet_epochs = 0
        self._started = time.monotonic()

    def epoch(self, epoch: int, values: Mapping[str, Any]) -> State:
        """One epoch with its parameters."""
        with self._problem.backend.context():
            objective, point = self._enter(epoch, values)
            optimizer = self._optimizer
            assert optimizer is not None
            optimizer.memory = values["hist_length"]
            optimizer.options = _search_options(self._problem.params, values)
            first_step = float(values["update_step_bfgs"])
            if objective.active:
                step = optimizer.step(objective.fun, point, first_step, self._watch)
            else:
                step = Step(point, 0.0, 0.0, 0.0, 0, False, False)
            self._point = step.point
            if step.accepted:
                objective.check(step.point)
                x = objective.to_model(step.point.x)
                self._problem.x = x
                self._enforce(after_update(self._problem, values, objective.active))
        record = self._record(epoch, point, step, first_step, bool(objective.active))
        return State(
            epoch,
            self._problem,
            objective.active,
            record,
            step.accepted,
            self._stop_reason(record, step, bool(objective.active)),
        )

    def _enter(self, epoch: int, values: Mapping[str, Any]) -> tuple[Objective, Point]:
        """The objective of the epoch and the present point on it, evaluated anew where needed."""
        active = active_variables(self._problem, values)
        self._enforce(before_update(self._problem, values, active))
        objective = Objective(self._problem, values, epoch)
        x, u = objective.enter(self._problem.x)
        self._problem.x = x
        if objective.identity != self._identity or values["reset_history_flag"]:
            self._optimizer = _make_optimizer(self._problem.params, objective)
            self._point = None
        if objective.weights != self._weights:
            self._point = None
        self._identity, self._weights = objective.identity, objective.weights
        if self._point is None:
            point = objective.fun(u)
            objective.check(point)
        else:
            point = Point(u, self._point.value, self._point.g, self._point.info)
        return objective, point

    def _enforce(self, constraints: Sequence[Constraint]) -> None:
        """Apply constraints; the point and, if they say so, the history are gone afterwards."""
        x, changed, reset = enforce(constraints, self._problem.x)
        self._problem.x = x
        if changed:
            self._point = None
        if reset:
            self._identity = ()

    def _record(
        self, epoch: int, before: Point, step: Step, first_step: float, active: bool
    ) -> EpochRecord:
        free, total = 0.0, 0.0
        if self._problem.backend.name != "cpu":
            free = self._problem.backend.free_bytes() / 2**30
        warning = ""
        if active and not step.accepted:
            warning = "step rejected, history dropped"
        return EpochRecord(
            epoch=epoch,
            time_s=time.monotonic() - self._started,
            loss=before.value,
            sse=before.info.sse,
            initial_step=first_step,
            step=step.step if step.accepted else 0.0,
            evaluations=step.evaluations,
            slope=step.slope,
            new_slope=step.new_slope,
            loss_after=step.point.value,
            contributions=before.info.contributions,
            free_GiB=free,
            total_GiB=total,
            warnings=warning,
        )

    def _stop_reason(self, record: EpochRecord, step: Step, active: bool) -> str:
        params = self._problem.params
        self._failures = self._failures + 1 if active and not step.accepted and step.fresh else 0
        if self._failures >= _STALLED_AFTER:
            return (
                "stalled: no step along the steepest descent lowers the loss "
                f"({step.evaluations} trials in epoch {record.epoch})"
            )
        decrease = record.loss - record.loss_after
        quiet = step.accepted and decrease <= params["convergence_tol"] * abs(record.loss)
        self._quiet_epochs = self._quiet_epochs + 1 if quiet else 0
        if params["convergence_tol"] > 0 and self._quiet_epochs >= params["convergence_patience"]:
            return (
                f"converged: the loss fell by less than {params['convergence_tol']:g} of itself "
                f"in each of {self._quiet_epochs} epochs"
            )
        return ""


def public_arrays(problem: Reconstruction, names: Any = PUBLIC_NAMES) -> dict[str, Any]:
    """Present variables in the public layouts, by key of the params dictionary."""
    return {
        PUBLIC_NAMES[k]: to_public(k, problem.x[k], problem.backend, problem.spec.geometry)
        for k in names
        if k in problem.x
    }


def _make_optimizer(params: Mapping[str, Any], objective: Objective) -> LBFGS:
    """PyPty's rule, or preconditioned L-BFGS with a bracketing search."""
    if params["optimizer"] == "pypty":
        return LBFGS(scaling=EqualSlopes(), search=pypty_search)
    if not params["preconditioner"]:
        return LBFGS(scaling=EqualSlopes(), search=weak_wolfe)
    return LBFGS(scaling=Preconditioned(objective.initial_hessian()), search=weak_wolfe)


def _search_options(params: Mapping[str, Any], values: Mapping[str, Any]) -> SearchOptions:
    return SearchOptions(
        c1=values["wolfe_c1_constant"],
        c2=values["wolfe_c2_constant"],
        shrink=params["reduce_factor"],
        grow=params["optimism"],
        max_count=params["max_count"],
        min_step=params["min_step"],
    )
