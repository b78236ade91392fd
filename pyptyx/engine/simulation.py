"""``data_simulation_flag``: what the model predicts for the final state, written as ``.npy``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pyptyx.engine.callbacks import Callback
from pyptyx.engine.loop import State
from pyptyx.engine.problem import Reconstruction
from pyptyx.files import write_array
from pyptyx.params import evaluate


def predicted(problem: Reconstruction, epoch: int, exit_waves: bool) -> np.ndarray:
    """Patterns or exit waves of the present variables for the sequence of an epoch.

    Parameters
    ----------
    problem : Reconstruction
    epoch : int
        Its schedules decide about the sequence.
    exit_waves : bool
        The waves behind the specimen instead of the patterns.

    Returns
    -------
    ndarray
        Patterns (N, ky, kx), zero frequency at index N//2 (far field), on the grid of the prepared
        data (after up-sampling and cropping, with the background); signals (N, Nd) if there are
        ``masks``; or exit waves (N, ny, nx, Mp, Mo).
    """
    values = evaluate(problem.params, epoch)
    images = problem.data_term_at(values).simulate(problem.x, exit_waves)
    if exit_waves:
        return np.ascontiguousarray(images.transpose(0, 3, 4, 1, 2))
    if problem.spec.masks is not None:
        return images[:, 0]
    return problem.spec.geometry.to_public(images)


class Simulator(Callback):
    """Writes the prediction when the run ends, if the parameters of the last epoch ask for it."""

    def finish(self, problem: Reconstruction, state: State | None) -> None:
        epoch = int(problem.params["epoch_prev"]) if state is None else state.epoch
        values = evaluate(problem.params, epoch)
        path = values["data_simulation_flag"]
        if path:
            exit_waves = bool(values["data_simulation_exitwave"])
            write_array(Path(path), predicted(problem, epoch, exit_waves))
