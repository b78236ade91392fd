"""Strong scaling of one loss and gradient: the same patterns over more threads, and more processes.

Every variant is a process group of its own; the variants take turns, so that a busy spell of the
machine hits all of them.  ``efficiency`` is ``t_1 / (n t_n)`` of the wall times: 1 is ideal, and it
means nothing where other programs want the cores as well.  ``work`` is the processor time of all
workers per pattern: what it grows by is the price of sharing out (ranks that wait use it, too).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.cases import CASES, params_of
from pyptyx import trees
from pyptyx.engine.setup import EVALUATION_NEEDS, build
from pyptyx.executors import world
from pyptyx.files import write_bytes

KINDS = ("threads", "ranks")


def time_here(name: str, devices: int, repeats: int) -> dict[str, float] | None:
    """Seconds of an evaluation on the processes that were started together.

    Parameters
    ----------
    name : str
        Name of the case.
    devices : int
        Threads of every process.
    repeats : int
        Evaluations, of which the median counts; one more comes before.

    Returns
    -------
    dict or None
        ``wall`` and ``work`` of all processes, on rank 0.
    """
    processes = world()
    params = params_of(CASES[name], "single", devices)
    with build(params, need=EVALUATION_NEEDS, communicator=processes) as problem:
        like = {k: problem.x[k] for k in ("object", "probe")}
        walls, works = [], []
        for _ in range(repeats + 1):
            processes.gather(None)  # all begin together
            wall, work = time.perf_counter(), time.process_time()
            problem.data_term.evaluate(problem.x, trees.zeros_like(like))
            problem.backend.synchronize()
            walls.append(time.perf_counter() - wall)
            works.append(sum(processes.gather(time.process_time() - work)))
    if not processes.is_main:
        return None
    return {"wall": statistics.median(walls[1:]), "work": statistics.median(works[1:])}


def time_apart(kind: str, count: int, arguments: argparse.Namespace) -> dict[str, float]:
    """`time_here` in a new process, or in `count` of them."""
    devices = count if kind == "threads" else 1
    command = [sys.executable, "-m", "benchmarks.scaling", "--here", str(devices)]
    command += ["--case", arguments.case, "--repeats", str(arguments.repeats)]
    if kind == "ranks" and count > 1:
        command = [launcher(), "-n", str(count), *command]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def launcher() -> str:
    """The ``mpiexec`` of this environment, or of the system.

    Raises
    ------
    SystemExit
        If there is none.
    """
    own = shutil.which("mpiexec", path=str(Path(sys.executable).parent))
    found = own or shutil.which("mpiexec")
    if found is None:
        sys.exit("mpiexec: not found. Install an MPI, for example with pip install mpich mpi4py")
    return found


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """One line per kind and number of workers.

    Parameters
    ----------
    arguments : argparse.Namespace
        The command line.
    """
    variants = [(kind, n) for kind in arguments.kinds for n in arguments.workers]
    found: dict[tuple[str, int], list[dict[str, float]]] = {v: [] for v in variants}
    for _ in range(arguments.rounds):
        for kind, n in variants:
            found[kind, n].append(time_apart(kind, n, arguments))
    patterns = CASES[arguments.case].patterns
    lines = []
    for kind, n in variants:
        wall = statistics.median(f["wall"] for f in found[kind, n])
        base = statistics.median(f["wall"] for f in found[kind, arguments.workers[0]])
        work = statistics.median(f["work"] for f in found[kind, n])
        lines.append(
            {
                "kind": kind,
                "workers": n,
                "wall_us_per_pattern": 1e6 * wall / patterns,
                "work_us_per_pattern": 1e6 * work / patterns,
                "efficiency": base * arguments.workers[0] / (n * wall),
            }
        )
    return lines


def table(lines: list[dict[str, Any]]) -> str:
    """The measurements as text."""
    rows = [
        f"{r['kind']:<9}{r['workers']:>8}{r['wall_us_per_pattern']:>13.1f}"
        f"{r['work_us_per_pattern']:>13.1f}{r['efficiency']:>12.2f}"
        for r in lines
    ]
    head = f"{'kind':<9}{'workers':>8}{'wall us/pat':>13}{'work us/pat':>13}{'efficiency':>12}"
    return "\n".join([head, *rows])


def main(argv: list[str] | None = None) -> int:
    """Measure and print the table.

    Parameters
    ----------
    argv : list of str, optional
        Arguments; by default those of the process.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--case", choices=sorted(CASES), default="multislice")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], metavar="N")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--repeats", type=int, default=3, help="evaluations of one process group")
    parser.add_argument("--rounds", type=int, default=3, help="process groups of every variant")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    parser.add_argument("--here", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.here:
        seconds = time_here(arguments.case, arguments.here, arguments.repeats)
        if seconds is not None:
            print(json.dumps(seconds))
        return 0
    lines = measure(arguments)
    print(table(lines))
    if arguments.json:
        write_bytes(arguments.json, (json.dumps(lines, indent=2) + "\n").encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
