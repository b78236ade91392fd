"""Effects of a run: files, progress, live changes of parameters.

A callback has ``start(problem)``, ``epoch(state)`` and ``finish(state)``; the loop calls them in
order and knows nothing of what they do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tqdm import tqdm

from pyptyx.engine.loop import State, public_arrays
from pyptyx.engine.problem import Reconstruction
from pyptyx.engine.variables import PUBLIC_NAMES
from pyptyx.optim.lbfgs import Point
from pyptyx.output import checkpoints
from pyptyx.output.losslog import EpochRecord, LossLog
from pyptyx.params import save_params

_ALWAYS_SAVED = ("object", "probe", "positions")


class Callback:
    """Does nothing; the base of all."""

    def start(self, problem: Reconstruction) -> None:
        """Before the first epoch."""

    def epoch(self, state: State) -> None:
        """After every epoch."""

    def finish(self, problem: Reconstruction, state: State | None) -> None:
        """At the end, also when the run fails; `state` is the last complete one."""


class Saver(Callback):
    """Checkpoints and parameters in the output folder.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._touched: set[str] = set(_ALWAYS_SAVED)

    def start(self, problem: Reconstruction) -> None:
        params = {**problem.params, "probe_is_aberrated": False}
        save_params(self._folder, params, problem.params["strip_dataset_from_params"])
        self._save(problem, int(problem.params["epoch_prev"]), float("nan"), _ALWAYS_SAVED)

    def epoch(self, state: State) -> None:
        params = state.problem.params
        self._touched |= set(state.active)
        every = params["save_inter_checkpoints"]
        if every and state.epoch % every == 0:
            self._save(state.problem, state.epoch + 1, state.record.loss_after, state.active)
        numbered = params["save_checkpoints_every_epoch"]
        if numbered and state.epoch % numbered == 0:
            arrays = public_arrays(state.problem, state.active)
            checkpoints.save_numbered(self._folder, arrays, state.epoch)

    def finish(self, problem: Reconstruction, state: State | None) -> None:
        if state is not None:
            names = tuple(k for k in PUBLIC_NAMES if k in self._touched)
            self._save(problem, state.epoch + 1, state.record.loss_after, names)

    def _save(
        self, problem: Reconstruction, epoch: int, loss: float, names: tuple[str, ...]
    ) -> None:
        arrays = public_arrays(problem, names)
        checkpoints.save_current(self._folder, arrays, epoch, loss)


class LossLogger(Callback):
    """``loss.csv`` in the output folder."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._log: LossLog | None = None

    def start(self, problem: Reconstruction) -> None:
        detailed = problem.params["save_loss_log"] == 2
        self._log = LossLog(self._path, detailed, int(problem.params["epoch_prev"]))

    def epoch(self, state: State) -> None:
        if self._log is not None:
            self._log.append(state.record)


class Progress(Callback):
    """Progress on stderr: 1 a bar, 2 a line per epoch, 3 one per trial, 4 the terms as well."""

    def __init__(self, level: int) -> None:
        self._level = level
        self._bar: Any = None

    def start(self, problem: Reconstruction) -> None:
        first, last = problem.params["epoch_prev"], problem.params["epoch_max"]
        self._bar = tqdm(total=last, initial=first, unit="epoch", disable=self._level < 1)

    def trial(self, step: float, point: Point, slope: float) -> None:
        """One evaluation of the line search."""
        if self._level >= 3:
            self._say(f"    step {step:.3e}: loss {point.value:.6e}, slope {slope:.3e}")

    def epoch(self, state: State) -> None:
        self._bar.update(1)
        self._bar.set_postfix_str(f"loss {state.record.loss_after:.6e}", refresh=False)
        if self._level >= 2:
            self._say(_line(state.record))
        if self._level >= 4:
            for name, value in state.record.contributions.items():
                self._say(f"    {name}: {value / state.record.loss:.2%}")
        if state.record.warnings and self._level:
            self._say(f"epoch {state.epoch}: {state.record.warnings}")

    def finish(self, problem: Reconstruction, state: State | None) -> None:
        if self._bar is not None:
            self._bar.close()

    def _say(self, text: str) -> None:
        self._bar.write(text, file=self._bar.fp)


def _line(record: EpochRecord) -> str:
    return (
        f"epoch {record.epoch}: loss {record.loss:.6e} -> {record.loss_after:.6e}, "
        f"step {record.step:.3e} after {record.evaluations} evaluations, {record.time_s:.1f} s"
    )
