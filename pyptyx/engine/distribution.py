"""Who works on a run: devices of one process, or processes that share the measurements.

Every rank runs the same loop on the same variables.  Rank 0 alone has effects: it writes, prints,
reads live changes and calls the callbacks; what it decides is sent to the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pyptyx.backend import Backend, available_cores, cuda_device_count
from pyptyx.engine.callbacks import Callback
from pyptyx.engine.loop import State
from pyptyx.engine.problem import Reconstruction
from pyptyx.executors import Communicator

Devices = int | str | list[int]


def devices_of_rank(devices: Devices, prefer: str, communicator: Communicator) -> Devices:
    """The part of ``devices`` that is this rank's.

    On GPUs one of those that it sees, by its number on the machine (a launcher that shows every
    rank a GPU of its own has chosen already); on a CPU its share of the cores as threads.

    Parameters
    ----------
    devices : int, "auto" or list of int
        The parameter of the run.
    prefer : {"gpu", "cpu"}
    communicator : Communicator

    Returns
    -------
    int, "auto" or list of int
        For `pyptyx.backend.make_backends`.
    """
    if communicator.size == 1:
        return devices
    visible = cuda_device_count() if prefer == "gpu" else 0
    # All ranks have equally many workers, so that shares can be told from their numbers.
    if min(communicator.gather(visible)):
        if not isinstance(devices, list):
            count = visible if devices == "auto" else min(int(devices), visible)
            devices = list(range(count))
        return [devices[communicator.local_rank % len(devices)]]
    if devices == "auto":
        return min(communicator.gather(max(1, available_cores() // communicator.local_size)))
    return devices


def agree(problem: Reconstruction) -> None:
    """Give all ranks the start values and the batch size of rank 0."""
    communicator, backend = problem.communicator, problem.backend
    if communicator.size == 1:
        return
    problem.batch_size = min(communicator.gather(problem.batch_size))
    with backend.context():
        begin = problem.position(problem.first_epoch)
        host = replace(begin, x={k: backend.to_host(v) for k, v in begin.x.items()})
        common = communicator.on_main(lambda: host)
        placed = {k: _like(begin.x[k], v, backend) for k, v in common.x.items()}
        problem.go_to(replace(common, x=placed))


class OnMain(Callback):
    """Effects of a callback on rank 0, and its failures on all.

    Parameters
    ----------
    callback : Callback
        Looked at on rank 0 only.
    communicator : Communicator
    """

    def __init__(self, callback: Callback, communicator: Communicator) -> None:
        self._callback = callback
        self._communicator = communicator

    def start(self, problem: Reconstruction) -> None:
        self._communicator.on_main(lambda: self._callback.start(problem))

    def epoch(self, state: State) -> None:
        self._communicator.on_main(lambda: self._callback.epoch(state))

    def finish(self, problem: Reconstruction, state: State | None) -> None:
        self._communicator.finally_on_main(lambda: self._callback.finish(problem, state))


def on_main(callbacks: Sequence[Callback], communicator: Communicator) -> list[Callback]:
    """Callbacks that act on rank 0 only."""
    if communicator.size == 1:
        return list(callbacks)
    return [OnMain(callback, communicator) for callback in callbacks]


def live_changes(source: Any, communicator: Communicator) -> Any:
    """What rank 0 reads of live changes, as ``overrides`` of `pyptyx.engine.loop.iterate`."""
    if source is None or communicator.size == 1:
        return source

    def changes() -> Mapping[str, Any]:
        return communicator.on_main(source)

    return changes


def _like(present: Any, value: np.ndarray, backend: Backend) -> Any:
    """A host array where the present one lies."""
    return backend.asarray(value) if isinstance(present, backend.array) else value
