"""Start runs in forked processes, kill each at a random moment, resume it, and report as JSON.

Run as a script: ``kill_server.py FOLDER RUNS``.  Forking saves the import of the package for each.
"""

import json
import math
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

import pyptyx
from pyptyx.engine import callbacks
from tests.known.restart_scene import equal, log_rows, outcome, parameters

EPOCHS = 16


def start(folder, params):
    """Begin the run or continue it, whatever the folder holds."""
    begun = any((folder / name).exists() for name in ("params.json", "params.pkl"))
    if begun:
        return pyptyx.run(pyptyx.prepare_restart(folder))
    return pyptyx.run({**params, "output_folder": str(folder)})


def killed(folder, params, delay_s):
    """Run in a child for a while; return how many files it was writing when it was killed."""
    child = os.fork()
    if child == 0:
        start(folder, params)
        os._exit(0)
    time.sleep(delay_s)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return len(list(folder.glob(".*.part*")))


def main(root, runs):
    """Report on `runs` runs that were killed one to three times each."""
    callbacks._SHARE = math.inf  # the state is written after every epoch: most of the time, then
    params = parameters(epoch_max=EPOCHS)
    begun = time.monotonic()
    expected = pyptyx.run({**params, "output_folder": str(root / "whole")})
    duration_s = time.monotonic() - begun
    rng = np.random.default_rng(5)
    report = []
    for i in range(runs):
        folder = root / str(i)
        delays = rng.uniform(0, 0.9, rng.integers(1, 4)) * duration_s
        writing = [killed(folder, params, delay) for delay in delays]
        result = start(folder, params)
        same = equal(outcome(result), outcome(expected))
        rows = log_rows(folder) == log_rows(root / "whole")
        arrays = all(
            np.array_equal(np.load(folder / name), np.load(root / "whole" / name))
            for name in ("co.npy", "cp.npy", "cg.npy")
        )
        clean = not list(folder.glob(".*.part*"))
        report.append({"writing": writing, "ok": [same, rows, arrays, clean]})
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
