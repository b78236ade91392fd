"""Effects of a run: files, progress, live changes of parameters.

A callback has ``start(problem)``, ``epoch(state)`` and ``finish(state)``; the loop calls them in
order and knows nothing of what they do.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pyptyx.engine import resume
from pyptyx.engine.loop import State, public_arrays
from pyptyx.engine.problem import Reconstruction
from pyptyx.engine.variables import PUBLIC_NAMES
from pyptyx.files import remove_unfinished
from pyptyx.optim.lbfgs import Point
from pyptyx.output import checkpoints, provenance, store
from pyptyx.output.losslog import EpochRecord, LossLog
from pyptyx.params import save_params

_ALWAYS_SAVED = ("object", "probe", "positions")

_LINES = 20
"""About how many lines a run writes where it cannot draw a bar."""

_SHARE = 0.1
"""Part of the run time that writing the state may take; a write that is due waits for its turn."""


class Callback:
    """Does nothing; the base of all."""

    def start(self, problem: Reconstruction) -> None:
        """Before the first epoch."""

    def epoch(self, state: State) -> None:
        """After every epoch."""

    def finish(self, problem: Reconstruction, state: State | None) -> None:
        """At the end, also when the run fails; `state` is the last complete one."""


class Saver(Callback):
    """Parameters, checkpoints and the state to resume from in the output folder.

    Every process calls it, as the state is gathered from all of them; rank 0 writes.

    Parameters
    ----------
    folder : Path
    in_place : bool
        The run continues the one whose files lie in the folder; otherwise those are of no use.
    """

    def __init__(self, folder: Path, in_place: bool = False) -> None:
        self._folder = folder
        self._in_place = in_place
        self._begun = time.monotonic()
        self._spent_s = 0.0
        self._saved_epoch: int | None = None

    def start(self, problem: Reconstruction) -> None:
        problem.communicator.on_main(lambda: self._prepare(problem))
        begin = problem.resumed or problem.position(problem.first_epoch)
        if not self._in_place:
            resume.save(self._folder, begin, problem)
        self._saved_epoch = begin.epoch
        loss = begin.records[-1].loss_after if begin.records else float("nan")
        self._save_arrays(problem, begin.epoch, loss, {*_ALWAYS_SAVED, *begin.refined})

    def _prepare(self, problem: Reconstruction) -> None:
        """What lies in the folder when the run begins."""
        params = problem.params
        remove_unfinished(self._folder)
        if not self._in_place:
            store.discard(self._folder)
            checkpoints.discard_sidecar(self._folder)
        save_params(self._folder, _with_full_paths(params), params["strip_dataset_from_params"])
        workers = [backend.name for backend in problem.executor.backends]
        provenance.record(self._folder, params["data_path"], workers, further=self._in_place)

    def epoch(self, state: State) -> None:
        params = state.problem.params
        numbered = params["save_checkpoints_every_epoch"]
        if numbered and state.epoch % numbered == 0:
            state.problem.communicator.on_main(lambda: self._save_numbered(state))
        every = params["save_inter_checkpoints"]
        if every and state.epoch % every == 0:
            self._save_arrays(
                state.problem, state.epoch + 1, state.record.loss_after, set(state.active)
            )
            if state.problem.communicator.on_main(self._has_time):
                self._save_state(state)

    def finish(self, problem: Reconstruction, state: State | None) -> None:
        if state is not None and problem.communicator.assembled():
            if self._saved_epoch != state.snapshot.epoch:
                self._save_state(state)
            names = {*_ALWAYS_SAVED, *state.snapshot.refined}
            self._save_arrays(problem, state.epoch + 1, state.record.loss_after, names)

    def _has_time(self) -> bool:
        return self._spent_s <= _SHARE * (time.monotonic() - self._begun)

    def _save_numbered(self, state: State) -> None:
        arrays = public_arrays(state.problem, state.active)
        checkpoints.save_numbered(self._folder, arrays, state.epoch)

    def _save_state(self, state: State) -> None:
        begun = time.monotonic()
        resume.save(self._folder, state.snapshot, state.problem)
        self._spent_s += time.monotonic() - begun
        self._saved_epoch = state.snapshot.epoch

    def _save_arrays(
        self, problem: Reconstruction, epoch: int, loss: float, names: set[str]
    ) -> None:
        def save() -> None:
            arrays = public_arrays(problem, [k for k in PUBLIC_NAMES if k in names])
            checkpoints.save_current(self._folder, arrays, epoch, loss)

        problem.communicator.on_main(save)


def _with_full_paths(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters whose files are found from any folder."""
    keys = [key for key in ("data_path", "phase_plate_in_h5") if params[key]]
    return {**params, **{key: os.path.abspath(params[key]) for key in keys}}


class LossLogger(Callback):
    """``loss.csv`` in the output folder."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._log: LossLog | None = None

    def start(self, problem: Reconstruction) -> None:
        detailed = problem.params["save_loss_log"] == 2
        earlier = None if problem.resumed is None else problem.resumed.records
        self._log = LossLog(self._path, detailed, problem.first_epoch, earlier)

    def epoch(self, state: State) -> None:
        if self._log is not None:
            self._log.append(state.record)


class Progress(Callback):
    """Progress on stderr: 1 a bar, 2 a line per epoch, 3 one per trial, 4 the terms as well.

    Where a bar cannot be redrawn, as in the log of a batch job, 1 means a line now and then.
    """

    def __init__(self, level: int) -> None:
        self._level = level
        self._bar: Any = None
        self._due = 0
        self._every = 1

    def start(self, problem: Reconstruction) -> None:
        first, last = problem.first_epoch, problem.params["epoch_max"]
        hidden = self._level < 1 or not sys.stderr.isatty()
        self._bar = tqdm(total=last, initial=first, unit="epoch", disable=hidden)
        self._due, self._every = first, max(1, (last - first) // _LINES)

    def trial(self, step: float, point: Point, slope: float) -> None:
        """One evaluation of the line search."""
        if self._level >= 3:
            self._say(f"    step {step:.3e}: loss {point.value:.6e}, slope {slope:.3e}")

    def epoch(self, state: State) -> None:
        self._bar.update(1)
        self._bar.set_postfix_str(f"loss {state.record.loss_after:.6e}", refresh=False)
        if self._level >= 2 or (self._level and self._bar.disable and self._is_due(state)):
            self._say(_line(state.record))
        if self._level >= 4:
            for name, value in state.record.contributions.items():
                self._say(f"    {name}: {value / state.record.loss:.2%}")
        if state.record.warnings and self._level:
            self._say(f"epoch {state.epoch}: {state.record.warnings}")

    def finish(self, problem: Reconstruction, state: State | None) -> None:
        if self._bar is not None:
            self._bar.close()

    def _is_due(self, state: State) -> bool:
        """Whether it is time for a line; the last epoch always has one."""
        if state.epoch < self._due and not state.stop_reason:
            return False
        self._due = state.epoch + self._every
        return True

    def _say(self, text: str) -> None:
        self._bar.write(text, file=sys.stderr)


def _line(record: EpochRecord) -> str:
    return (
        f"epoch {record.epoch}: loss {record.loss:.6e} -> {record.loss_after:.6e}, "
        f"step {record.step:.3e} after {record.evaluations} evaluations, {record.time_s:.1f} s"
    )
