"""The run: a generator of states.  It computes; saving, printing and live changes are callbacks.

One epoch: parameters of the epoch -> objective -> (history dropped if the objective is another
one) -> one L-BFGS step -> `State`.  Before epoch 0 there may be a warm start.  An epoch that ends
in NaN starts again with a shorter step.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

from pyptyx.engine.constraints import Constraint, after_update, before_update, enforce
from pyptyx.engine.objective import Info, Objective, active_variables
from pyptyx.engine.problem import Reconstruction
from pyptyx.engine.rescue import RETRIES, Rescue, explosion, has_exploded
from pyptyx.engine.state import Evaluation, Snapshot
from pyptyx.engine.variables import PUBLIC_NAMES, UPDATE_KEYS, to_public
from pyptyx.engine.warm_start import planned_sweeps, warm_start
from pyptyx.errors import NumericalError
from pyptyx.optim.lbfgs import LBFGS, Point, Step
from pyptyx.optim.linesearch import SearchOptions, pypty_search, weak_wolfe
from pyptyx.optim.scaling import EqualSlopes, Preconditioned, Scaling
from pyptyx.output.losslog import EpochRecord
from pyptyx.params import evaluate

logger = logging.getLogger(__name__)

Tree = dict[str, Any]
Watch = Callable[[float, Point, float], None]


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
    snapshot : Snapshot
        Everything the next epoch depends on.
    stop_reason : str
        Empty while the run goes on.
    """

    epoch: int
    problem: Reconstruction
    active: tuple[str, ...]
    record: EpochRecord
    accepted: bool
    snapshot: Snapshot
    stop_reason: str = ""


def iterate(
    problem: Reconstruction,
    overrides: Callable[[], Mapping[str, Any]] | None = None,
    watch: Watch | None = None,
) -> Iterator[State]:
    """Run epochs up to ``epoch_max``, from ``epoch_prev`` or from where ``problem.resumed`` stands.

    Parameters
    ----------
    problem : Reconstruction
        Its ``x`` is replaced epoch by epoch; if an epoch fails it is that of the last complete one.
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
        If the objective becomes NaN or explodes, with shorter steps as well; it names epoch and
        term.
    """
    run = _Run(problem, watch)
    if problem.resumed is not None and problem.resumed.stop_reason:
        return
    last = problem.params["epoch_max"]
    for epoch in range(problem.first_epoch, last):
        problem.communicator.interrupt_point()
        changed = {} if overrides is None else overrides()
        state = run.epoch(epoch, evaluate({**problem.params, **changed}, epoch))
        if not state.stop_reason and epoch == last - 1:
            state.stop_reason = f"epoch_max={last} reached"
        yield state
        if state.stop_reason:
            return


class _Run:
    """Optimiser, point and counters carried from epoch to epoch."""

    def __init__(self, problem: Reconstruction, watch: Watch | None) -> None:
        self._problem = problem
        self._watch = watch
        self._rescue = Rescue()
        self._optimizer: LBFGS | None = None
        self._history: Mapping[str, Any] | None = None
        self._evaluation: Evaluation | None = None
        self._identity = self._weights = self._stop_reason = ""
        self._best = float("inf")
        self._quiet_epochs = 0
        self._refined: set[str] = set()
        self._records: list[EpochRecord] = []
        start = problem.resumed or problem.position(problem.first_epoch)
        self._started = time.monotonic() - start.elapsed_s
        self._go_to(start)

    def epoch(self, epoch: int, values: Mapping[str, Any]) -> State:
        """One epoch with its parameters; after a failure everything is as it was before."""
        wanted = active_variables(self._problem, values)
        frozen, messages = self._rescue.frozen(epoch, wanted)
        before = self._snapshot(epoch)
        values = {**values, **{UPDATE_KEYS[name]: False for name in frozen}}
        try:
            with self._problem.backend.context():
                return self._with_retries(epoch, values, messages)
        except BaseException:
            self._go_to(before)
            raise

    def _with_retries(self, epoch: int, values: Mapping[str, Any], messages: list[str]) -> State:
        sweeps = self._warm_up(epoch, values, messages)
        before = self._snapshot(epoch)
        first_step = float(values["update_step_bfgs"])
        for attempt in range(RETRIES + 1):
            objective, point = self._enter(epoch, values)
            try:
                step = self._update(epoch, objective, point, first_step, values)
            except NumericalError as error:
                if attempt == RETRIES:
                    raise
                self._go_to(before)
                first_step *= self._problem.params["reduce_factor"]
                messages.append(f"{error}; epoch started again with first step {first_step:.3g}")
            else:
                break
        return self._leave(epoch, objective.active, point, step, (first_step, messages, sweeps))

    def _warm_up(self, epoch: int, values: Mapping[str, Any], messages: list[str]) -> int:
        """Mini-batch sweeps before the first epoch; their number."""
        sweeps = planned_sweeps(self._problem, values, epoch)
        if sweeps:
            self._problem.x, message = warm_start(self._problem, values, epoch, sweeps)
            messages.append(message)
        return sweeps

    def _enter(self, epoch: int, values: Mapping[str, Any]) -> tuple[Objective, Point]:
        """The objective of the epoch and the present point on it, evaluated anew where needed."""
        active = active_variables(self._problem, values)
        self._enforce(before_update(self._problem, values, active))
        objective = Objective(self._problem, values, epoch)
        x, u = objective.enter(self._problem.x)
        self._problem.x = x
        identity, weights = _fingerprint(objective.identity), _fingerprint(objective.weights)
        if identity != self._identity or values["reset_history_flag"]:
            self._forget()
        if self._optimizer is None:
            self._optimizer = _make_optimizer(self._problem, objective, self._history)
            self._history = None
        if (identity, weights) != (self._identity, self._weights):
            self._evaluation, self._best = None, float("inf")
        self._identity, self._weights = identity, weights
        point = self._point(objective, u)
        self._best = min(self._best, point.value)
        return objective, point

    def _point(self, objective: Objective, u: Tree) -> Point:
        """The point at coordinates `u`, evaluated unless that is known already."""
        known = self._evaluation
        if known is not None:
            return Point(u, known.value, known.g, Info(known.sse, known.contributions))
        point = objective.fun(u)
        objective.check(point)
        self._keep(point)
        return point

    def _keep(self, point: Point) -> None:
        self._evaluation = Evaluation(
            point.value, point.g, point.info.sse, point.info.contributions
        )

    def _update(
        self,
        epoch: int,
        objective: Objective,
        point: Point,
        first_step: float,
        values: Mapping[str, Any],
    ) -> Step:
        """One optimiser step with the constraints that follow it.

        Raises
        ------
        NumericalError
            If the loss is not finite or has exploded afterwards.
        """
        if not objective.active:
            return Step(point, 0.0, 0.0, 0.0, 0, False, False)
        optimizer = self._optimizer
        assert optimizer is not None
        optimizer.memory = values["hist_length"]
        optimizer.options = _search_options(self._problem.params, values)
        step = optimizer.step(objective.fun, point, first_step, self._watch)
        if not step.accepted:
            return step
        objective.check(step.point)
        self._keep(step.point)
        self._best = min(self._best, step.point.value)
        self._problem.x = objective.to_model(step.point.x)
        self._enforce(after_update(self._problem, values, objective.active))
        if self._evaluation is None:
            # Here rather than in the next epoch: this one can still be taken back.
            objective = Objective(self._problem, values, epoch)
            self._problem.x, u = objective.enter(self._problem.x)
            reached = self._point(objective, u)
            if has_exploded(reached.value, self._best):
                terms = step.point.info.contributions, reached.info.contributions
                raise NumericalError(explosion(epoch, *terms))
        return step

    def _enforce(self, constraints: Sequence[Constraint]) -> None:
        """Apply constraints; the point and, if they say so, the history are gone afterwards."""
        x, changed, reset = enforce(constraints, self._problem.x)
        self._problem.x = x
        if changed:
            self._evaluation = None
        if reset:
            self._forget()
            self._best = float("inf")

    def _forget(self) -> None:
        """Drop the optimiser with its history."""
        self._optimizer, self._history = None, None

    def _leave(
        self,
        epoch: int,
        active: tuple[str, ...],
        before: Point,
        step: Step,
        notes: tuple[float, list[str], int],
    ) -> State:
        """Counters, record and snapshot at the end of an epoch."""
        first_step, messages, sweeps = notes
        self._rescue.observe(epoch, active, step.accepted, step.fresh)
        self._refined.update(active)
        if active and not step.accepted:
            messages.append("step rejected, history dropped")
        messages += self._problem.data_term.take_warnings()
        for message in messages:
            logger.debug("epoch %d: %s", epoch, message)  # `Progress` shows them
        free, total = 0.0, 0.0
        if self._problem.backend.name != "cpu":
            free = self._problem.backend.free_bytes() / 2**30
        assert self._evaluation is not None
        record = EpochRecord(
            epoch=epoch,
            time_s=time.monotonic() - self._started,
            loss=before.value,
            sse=before.info.sse,
            initial_step=first_step,
            step=step.step if step.accepted else 0.0,
            evaluations=step.evaluations,
            slope=step.slope,
            new_slope=step.new_slope,
            loss_after=self._evaluation.value,
            contributions=before.info.contributions,
            free_GiB=free,
            total_GiB=total,
            warnings="; ".join(messages),
            sweeps=sweeps,
        )
        self._records.append(record)
        self._stop_reason = self._why_stop(record, active, step)
        snapshot = self._snapshot(epoch + 1)
        return State(
            epoch, self._problem, active, record, step.accepted, snapshot, self._stop_reason
        )

    def _why_stop(self, record: EpochRecord, active: tuple[str, ...], step: Step) -> str:
        params = self._problem.params
        if self._rescue.is_stalled(record.epoch, active):
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

    def _snapshot(self, epoch: int) -> Snapshot:
        """The state in which `epoch` begins."""
        return replace(
            self._problem.position(epoch),
            evaluation=self._evaluation,
            optimizer=self._history if self._optimizer is None else self._optimizer.state(),
            identity=self._identity,
            weights=self._weights,
            best=self._best,
            quiet_epochs=self._quiet_epochs,
            rescue=self._rescue.state(),
            elapsed_s=time.monotonic() - self._started,
            refined=tuple(sorted(self._refined)),
            stop_reason=self._stop_reason,
            records=tuple(self._records),
        )

    def _go_to(self, snapshot: Snapshot) -> None:
        """Take over another state; the optimiser is made when its objective is there."""
        self._problem.go_to(snapshot)
        self._evaluation = snapshot.evaluation
        self._optimizer = None
        self._history = snapshot.optimizer
        self._identity = snapshot.identity
        self._weights = snapshot.weights
        self._best = snapshot.best
        self._quiet_epochs = snapshot.quiet_epochs
        self._rescue.restore(snapshot.rescue)
        self._refined = set(snapshot.refined)
        self._stop_reason = snapshot.stop_reason
        self._records = list(snapshot.records)


def public_arrays(problem: Reconstruction, names: Any = PUBLIC_NAMES) -> dict[str, Any]:
    """Present variables in the public layouts, by key of the params dictionary."""
    return {
        PUBLIC_NAMES[k]: to_public(k, problem.x[k], problem.backend)
        for k in names
        if k in problem.x
    }


def _fingerprint(definition: tuple[Any, ...]) -> str:
    """A short text that differs where the definition differs, in this process and in another."""
    return blake2b(repr(definition).encode(), digest_size=16).hexdigest()


def _make_optimizer(
    problem: Reconstruction, objective: Objective, history: Mapping[str, Any] | None = None
) -> LBFGS:
    """PyPty's rule, or preconditioned L-BFGS with a bracketing search; with a known history."""
    params = problem.params
    pypty = params["optimizer"] == "pypty"
    search = pypty_search if pypty else weak_wolfe
    scaling: Scaling = EqualSlopes()
    if not pypty and params["preconditioner"]:
        known = None if history is None else history["scaling"]["operator"]
        scaling = Preconditioned(objective.initial_hessian(known))
    optimizer = LBFGS(scaling=scaling, search=search, communicator=problem.communicator)
    if history is not None:
        optimizer.restore(history)
    return optimizer


def _search_options(params: Mapping[str, Any], values: Mapping[str, Any]) -> SearchOptions:
    return SearchOptions(
        c1=values["wolfe_c1_constant"],
        c2=values["wolfe_c2_constant"],
        shrink=params["reduce_factor"],
        grow=params["optimism"],
        max_count=params["max_count"],
        min_step=params["min_step"],
    )
