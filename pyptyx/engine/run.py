"""`run`, `loss_and_gradient` and `simulate`: the three ways into the engine."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pyptyx.engine import resume
from pyptyx.engine.callbacks import Callback, LossLogger, Progress, Saver
from pyptyx.engine.distribution import live_changes, on_main
from pyptyx.engine.live import LiveEdit
from pyptyx.engine.loop import State, iterate, public_arrays
from pyptyx.engine.objective import Objective
from pyptyx.engine.problem import Reconstruction
from pyptyx.engine.setup import EVALUATION_NEEDS, SIMULATION_NEEDS, build
from pyptyx.engine.simulation import Simulator, predicted
from pyptyx.engine.variables import PUBLIC_NAMES, to_public
from pyptyx.executors import Communicator, world
from pyptyx.files import make_folder
from pyptyx.output.losslog import EpochRecord
from pyptyx.params import evaluate, load_params

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)


@dataclass
class Result:
    """Outcome of a run.

    Attributes
    ----------
    object : ndarray, (Y, X, Nz, Mo), complex
        Transmission functions.
    probe : ndarray, (ny, nx, Mp) or (ny, nx, Mp, Ns), complex
        Real-space probe, centred.
    positions : ndarray, (N, 2)
        Top-left corners (y, x) of the windows in pixels.
    tilts, static_background, beam_current, aberrations_array : ndarray or None
        Where they are part of the model.
    losses : list of EpochRecord
        One per epoch, with those before an exact restart in the same folder; ``loss_after`` of the
        last one is the final loss.
    stop_reason : str
        Why the run ended.
    folder : Path or None
        Where the files lie.
    pixel_size_A : tuple of float
        (y, x) in Å.
    slice_distances_A : tuple of float
        Gaps between slices.
    """

    object: np.ndarray
    probe: np.ndarray
    positions: np.ndarray
    losses: list[EpochRecord]
    stop_reason: str
    folder: Path | None
    pixel_size_A: tuple[float, float]
    slice_distances_A: tuple[float, ...] = ()
    tilts: np.ndarray | None = None
    static_background: np.ndarray | None = None
    beam_current: np.ndarray | None = None
    aberrations_array: np.ndarray | None = None
    params: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def phase(self) -> np.ndarray:
        """Phase in rad summed over slices, of the first object mode: (Y, X)."""
        return np.angle(self.object[..., 0]).sum(axis=-1)

    @property
    def final_loss(self) -> float:
        """Loss of the returned state."""
        return self.losses[-1].loss_after if self.losses else float("nan")

    @property
    def evaluations(self) -> int:
        """Passes over the data: loss and gradient, the first one included, and warm sweeps."""
        return 1 + sum(r.evaluations + r.sweeps for r in self.losses)

    def __repr__(self) -> str:
        y, x, nz, mo = self.object.shape
        return (
            f"Result(object {y} x {x} px, {nz} slice(s), {mo} mode(s); probe {self.probe.shape}; "
            f"{len(self.losses)} epochs, loss {self.final_loss:.6g}; {self.stop_reason}; "
            f"folder {self.folder})"
        )

    def plot(self) -> Figure:
        """Phase, amplitude, first probe mode and loss in one figure."""
        # Late, as in the next method: a run needs no matplotlib.
        from pyptyx.output.result_figure import plot_result

        loss = [(record.epoch, record.loss_after) for record in self.losses]
        return plot_result(self.object, self.probe, self.positions, self.pixel_size_A, loss)

    def _repr_html_(self) -> str:
        from pyptyx.engine.report import report_on

        return report_on(self).summary().fragment()


def run(
    params: Mapping[str, Any] | str | PathLike[str], callbacks: Sequence[Callback] = ()
) -> Result:
    """Reconstruct: refine object, probe and whatever else is switched on.

    Parameters
    ----------
    params : mapping or path
        The params dictionary (see the parameter reference), or a file or folder that `load_params`
        reads.  It is not modified.
    callbacks : sequence of Callback
        Called after the built-in ones.

    Returns
    -------
    Result

    Raises
    ------
    ParamError, ShapeError, DataError
        If the input does not fit; all problems at once, before anything is written.
    NumericalError
        If the objective becomes NaN.
    OutputError
        If a result cannot be written; the last complete checkpoint stays.
    """
    given = load_params(params) if isinstance(params, str | PathLike) else params
    executor = given.get("executor", "auto") if isinstance(given, Mapping) else "auto"
    processes = world(executor)
    with processes.guard():
        return _run(given, callbacks, processes)


def _run(
    given: Mapping[str, Any], callbacks: Sequence[Callback], processes: Communicator
) -> Result:
    """What `run` does, in every process."""
    begin = processes.together(lambda: resume.start_of(given))
    with build(begin.params, communicator=processes) as problem:
        if begin.content is not None:
            resume.restore(problem, begin.content)
        folder = problem.params["output_folder"]
        folder = Path(folder) if folder else None
        live, progress = None, Progress(int(problem.params["print_flag"]))
        chain: list[Callback] = on_main([progress], processes)
        if folder is not None:
            processes.on_main(lambda: make_folder(folder))
            live = LiveEdit(folder)
            if problem.params["save_loss_log"]:
                chain += on_main([LossLogger(folder / "loss.csv")], processes)
            # The state is written last: whatever belongs to its epochs is there by then.
            chain += [Saver(folder, begin.in_place), *on_main([live], processes)]
        if problem.params["data_simulation_flag"]:
            chain += on_main([Simulator()], processes)
        chain += on_main(callbacks, processes)
        return _drive(problem, folder, chain, live, progress)


def _drive(
    problem: Reconstruction,
    folder: Path | None,
    chain: Sequence[Callback],
    live: LiveEdit | None,
    progress: Progress,
) -> Result:
    resumed = problem.resumed
    records = [] if resumed is None else list(resumed.records)
    reason = "" if resumed is None else resumed.stop_reason
    last: State | None = None

    def finish(callback: Callback) -> None:
        callback.finish(problem, last)

    with ExitStack() as at_the_end:
        for callback in chain:
            at_the_end.callback(finish, callback)
            callback.start(problem)
        changes = live_changes(live, problem.communicator)
        watch = progress.trial if problem.communicator.is_main else None
        for state in iterate(problem, changes, watch):
            last = state
            records.append(state.record)
            for callback in chain:
                callback.epoch(state)
            reason = state.stop_reason
    reason = reason or f"no epoch: epoch_max={problem.params['epoch_max']} was reached before"
    logger.info("%s", reason)
    arrays = public_arrays(problem)
    return Result(
        object=arrays.pop("obj"),
        losses=records,
        stop_reason=reason,
        folder=folder,
        pixel_size_A=problem.spec.grid.pixel_A,
        slice_distances_A=problem.spec.distances_A,
        params=problem.params,
        **arrays,
    )


def loss_and_gradient(
    params: Mapping[str, Any], epoch: int = 0
) -> tuple[float, float, dict[str, np.ndarray]]:
    """Evaluate the objective at the start values, without writing anything.

    With ``skip_preprocessing=True`` the arrays ``obj``, ``probe`` and ``positions`` are taken
    exactly as given.

    Parameters
    ----------
    params : mapping
        The params dictionary; `output_folder` is not needed.
    epoch : int
        Schedules are taken at this epoch.

    Returns
    -------
    loss : float
        Value of the objective.
    sse : float
        Unweighted ``Σ(I - D)²``.
    gradients : dict of ndarray
        For every variable that is refined (``update_* > 0``), in its public layout, by its key:
        ``obj, probe, positions, tilts, static_background, beam_current, aberrations_array``. ``g
        = dL/dRe z + i dL/dIm z``, so that ``dL = Re Σ conj(g) dz``.  For ``phase_only_obj`` and
        the probe-phase and probe-modulus modes the gradient of the phase or modulus.

    Raises
    ------
    ParamError, ShapeError, DataError
        If the input does not fit.
    NumericalError
        If the objective is NaN.
    """
    with build(params, need=EVALUATION_NEEDS) as problem, problem.backend.context():
        values = evaluate(problem.params, epoch)
        objective = Objective(problem, values, epoch, project=False)
        x, u = objective.enter(problem.x)
        del x
        point = objective.fun(u)
        objective.check(point)
        gradients = {
            PUBLIC_NAMES[k]: to_public(k, g, problem.backend, problem.spec.geometry)
            for k, g in point.g.items()
        }
        return point.value, point.info.sse, gradients


def simulate(params: Mapping[str, Any], exit_waves: bool = False) -> np.ndarray:
    """Patterns the model predicts for the start values.

    Parameters
    ----------
    params : mapping
        The params dictionary; no data are needed if ``probe`` is an array.
    exit_waves : bool
        Return the waves behind the specimen instead.

    Returns
    -------
    ndarray
        Patterns (N, ky, kx), zero frequency at index N//2 (far field), on the grid of the prepared
        data (after up-sampling and cropping, with the background); signals (N, Nd) if there are
        ``masks``; or exit waves (N, ny, nx, Mp, Mo).
    """
    with build(params, need=SIMULATION_NEEDS) as problem:
        return predicted(problem, int(problem.params["epoch_prev"]), exit_waves)
