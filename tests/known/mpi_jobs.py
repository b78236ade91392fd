"""Jobs of `test_mpi`, started by a launcher: ``mpiexec -n N python mpi_jobs.py JOB FOLDER``.

Every rank runs the job; rank 0 leaves what the test looks at in the folder.
"""

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np

import pyptyx
from pyptyx.engine import callbacks, feeding
from pyptyx.executors import mpi
from pyptyx.terms.data_term import DataTerm
from tests.known.restart_scene import outcome, parameters

EXACT = {"deterministic": True, "default_dtype": "single", "epoch_max": 4}


def scene(folder, **changes):
    """Parameters of a run on the patterns of the folder; without a choice of the executor."""
    params = parameters(**changes)
    del params["dataset"], params["executor"]
    return {"output_folder": None} | params | {"data_path": str(folder / "patterns.npy")}


def write(folder, name, result):
    """Keep the outcome of rank 0, and check that the others have the same."""
    arrays = outcome(result)
    for other in mpi.world().gather(arrays):
        assert all(np.array_equal(a, b) for a, b in zip(arrays, other, strict=True))
    if mpi.world().is_main:
        np.savez(folder / f"{name}.npz", *arrays)


def compare(folder):
    """The same run in double precision, in single with the same bits, and from a file."""
    size = mpi.world().size
    write(folder, f"double{size}", pyptyx.run(scene(folder, epoch_max=6)))
    write(folder, f"exact{size}", pyptyx.run(scene(folder, **EXACT)))
    feeding.fits_in_memory = lambda *_: False
    write(folder, f"streamed{size}", pyptyx.run(scene(folder, epoch_max=6)))


def kept(folder):
    """How many patterns every rank keeps, and which it reads while it runs."""
    read = []
    original = feeding.PatternSource.read
    feeding.PatternSource.read = lambda source, indices: (
        read.append(len(source._checked(indices))) or original(source, indices)
    )
    # Mini-batches of the warm start are shared out by themselves, which moves some measurements.
    pyptyx.run(scene(folder, epoch_max=2, warm_start_epochs=0))
    report = mpi.world().gather(sum(read))
    if mpi.world().is_main:
        (folder / "kept.json").write_text(json.dumps(report))


class Signals(callbacks.Callback):
    """Sends a signal to another rank in the middle of the run."""

    def __init__(self, process, number):
        self._process = process
        self._number = number

    def epoch(self, state):
        if state.epoch == 4:
            os.kill(self._process, self._number)


def killed(folder):
    """A rank disappears."""
    callbacks._SHARE = np.inf
    last = mpi.world().gather(os.getpid())[-1]
    params = scene(folder, output_folder=str(folder / "killed"))
    pyptyx.run(params, [Signals(last, signal.SIGKILL)])


def interrupted(folder):
    """A rank gets the signal of Ctrl-C; all of them end between two epochs."""
    last = mpi.world().gather(os.getpid())[-1]
    params = scene(folder, output_folder=str(folder / "interrupted"))
    pyptyx.run(params, [Signals(last, signal.SIGINT)])


def failing(folder):
    """A worker of rank 1 fails on one of its measurements."""
    original, count = DataTerm._work, []

    def work(term, worker, *rest):
        count.append(worker)
        if mpi.world().rank == 1 and len(count) > 12:
            raise ZeroDivisionError("no light")
        return original(term, worker, *rest)

    DataTerm._work = work
    pyptyx.run(scene(folder, output_folder=str(folder / "failing")))


def deserted(folder):
    """One rank alone fails, outside of what the ranks do together."""
    mpi._PATIENCE_S = 0.3

    original = DataTerm.evaluate

    def evaluate(term, x, g=None):
        if mpi.world().rank == 1:
            raise MemoryError("no room")
        return original(term, x, g)

    DataTerm.evaluate = evaluate
    pyptyx.run(scene(folder))


def wrong(folder):
    """Parameters that do not check."""
    pyptyx.run(scene(folder, epoch_max="many"))


if __name__ == "__main__":
    os.fsync = lambda _: None  # protects from power cuts only, and takes most of the time
    globals()[sys.argv[1]](Path(sys.argv[2]))
