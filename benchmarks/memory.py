"""Peak memory of runs against their plan, and streamed against resident data.

``python -m benchmarks.memory`` runs every case in a process of its own, so that its peak is that of
the case alone; what Python and its libraries take is measured with a tiny run and subtracted.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import pyptyx
from benchmarks.cases import Case, params_of
from pyptyx import trees
from pyptyx.engine import cost, feeding
from pyptyx.engine.plan import plan
from pyptyx.engine.setup import EVALUATION_NEEDS, build

_TINY = Case(n=16, slices=2, modes=1, scan=(3, 4), shift=True)

CASES: dict[str, tuple[Case, dict[str, Any]]] = {
    "tiny": (_TINY, {}),
    "single slice": (Case(n=48, slices=1, modes=1, scan=(110, 120)), {"hist_length": 6}),
    "multislice, modes": (
        Case(n=32, slices=6, modes=3, scan=(70, 80), shift=True),
        {"hist_length": 6},
    ),
    "streamed": (Case(n=48, slices=4, modes=1, scan=(70, 80)), {"hist_length": 6}),
    "large batch": (
        Case(n=96, slices=9, modes=2, scan=(12, 20), shift=True),
        {"compute_batch": 80, "hist_length": 1},
    ),
    "large batch, recomputed": (
        Case(n=96, slices=9, modes=2, scan=(12, 20), shift=True),
        {"compute_batch": 80, "hist_length": 1, "wave_storage": "recompute"},
    ),
    "large batch, half": (
        Case(n=96, slices=9, modes=2, scan=(12, 20), shift=True),
        {"compute_batch": 80, "hist_length": 1, "wave_storage": "half"},
    ),
}
"""Problem sizes and parameters; ``streamed`` never keeps its data in memory."""


def params_in(folder: Path, name: str) -> dict[str, Any]:
    """Parameters of a case, with its data in a file of `folder`.

    Parameters
    ----------
    folder : Path
    name : str
        A key of `CASES`.
    """
    case, extra = CASES[name]
    params = params_of(replace(case, scan=(3, 4)), "single", 1)
    rows, columns = np.indices(case.scan)
    step = 4.3 if case.shift else 4.0
    params |= {
        "data_path": folder / "data.h5",
        "dataset": None,
        "scan_size": case.scan,
        "positions": step * np.stack([rows.ravel(), columns.ravel()], axis=1),
        "obj": None,
        "num_slices": case.slices,
        "skip_preprocessing": False,
        "epoch_max": 1 + int(extra.get("hist_length", 1)),
    }
    return params | extra


def _never(*_: Any, **__: Any) -> bool:
    return False


def write_data(path: Path, case: Case, chunk: int = 8) -> None:
    """A compressed file of random counts, a little at a time.

    Parameters
    ----------
    path : Path
    case : Case
    chunk : int
        Patterns per storage chunk.
    """
    rng = np.random.default_rng(1)
    block = rng.poisson(20, (chunk, case.n, case.n)).astype(np.uint16)
    shape = (case.patterns, case.n, case.n)
    with h5py.File(path, "w") as file:
        pieces = (min(chunk, case.patterns), case.n, case.n)
        data = file.create_dataset("data", shape, np.uint16, chunks=pieces, compression=4)
        for start in range(0, case.patterns, chunk):
            stop = min(start + chunk, case.patterns)
            data[start:stop] = np.roll(block, start, axis=2)[: stop - start]


def peak(folder: Path, name: str) -> dict[str, float]:
    """Run one case; its planned memory and the peak of this process, in bytes.

    Parameters
    ----------
    folder : Path
        Holds ``data.h5``.
    name : str
        A key of `CASES`.
    """
    if name == "streamed":
        feeding.fits_in_memory = _never
    params = params_in(folder, name)
    planned = cost.total(plan(params).items, cost.HOST)
    pyptyx.run(params)
    # Kilobytes on Linux, bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "planned": planned,
        "peak": unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }


def measure(name: str) -> dict[str, float]:
    """`peak` in a process of its own.

    Parameters
    ----------
    name : str
        A key of `CASES`.
    """
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder) / "data.h5", CASES[name][0])
        command = [sys.executable, "-m", "benchmarks.memory", "--child", name, folder]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return json.loads(done.stdout.splitlines()[-1])


def compare(names: list[str]) -> list[tuple[str, float, float]]:
    """Planned and measured bytes of cases beyond what the tiny one takes.

    Parameters
    ----------
    names : list of str
        Keys of `CASES`.
    """
    base = measure("tiny")
    lines = []
    for name in names:
        found = measure(name)
        lines.append((name, found["planned"] - base["planned"], found["peak"] - base["peak"]))
    return lines


def _delayed(read: Callable[[Any], np.ndarray], delay_s: float, indices: Any) -> np.ndarray:
    time.sleep(delay_s)
    return read(indices)


def streaming(repeats: int, delay_s: float = 0.0) -> dict[str, float]:
    """Wall time of one loss and gradient with the data in memory and in a compressed file.

    Parameters
    ----------
    repeats : int
        Evaluations of each kind, taken in turns; the medians are returned.
    delay_s : float
        Wait so long for every batch, as for a disk or a network.

    Returns
    -------
    dict of float
        Seconds: ``resident``, ``streamed`` with reading ahead, ``waiting`` without, ``reading``.
    """
    case = Case(n=128, slices=2, modes=1, scan=(16, 24), shift=True)
    fits = feeding.fits_in_memory
    with tempfile.TemporaryDirectory() as folder, ExitStack() as opened:
        write_data(Path(folder) / "data.h5", case)
        given = params_of(case, "single", 1)
        given |= {"dataset": None, "data_path": Path(folder) / "data.h5"}
        problems = {"resident": opened.enter_context(build(given, need=EVALUATION_NEEDS))}
        feeding.fits_in_memory = _never
        try:
            for kind in ("streamed", "waiting"):
                problems[kind] = opened.enter_context(build(given, need=EVALUATION_NEEDS))
        finally:
            feeding.fits_in_memory = fits
        feeds: dict[str, Any] = {k: problems[k].data_term._feed for k in ("streamed", "waiting")}
        for feed in feeds.values():
            feed._source.read = partial(_delayed, feed._source.read, delay_s)
        problems["waiting"].data_term._feed = lambda indices: feeds["waiting"](indices)
        times: dict[str, list[float]] = {kind: [] for kind in (*problems, "reading")}
        for _ in range(repeats + 1):
            for kind, problem in problems.items():
                refined = {k: problem.x[k] for k in ("object", "probe")}
                start = time.perf_counter()
                problem.data_term.evaluate(problem.x, trees.zeros_like(refined))
                times[kind].append(time.perf_counter() - start)
            start = time.perf_counter()
            for batch in problems["waiting"].data_term.batches:
                feeds["waiting"](batch)
            times["reading"].append(time.perf_counter() - start)
    return {kind: statistics.median(values[1:]) for kind, values in times.items()}


def main(argv: list[str] | None = None) -> int:
    """Print planned and measured memory, and the times of streaming.

    Parameters
    ----------
    argv : list of str, optional
        Arguments; by default those of the process.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--child", nargs=2, metavar=("CASE", "FOLDER"), help=argparse.SUPPRESS)
    parser.add_argument("--case", choices=sorted(CASES), help="one case only")
    parser.add_argument("--repeats", type=int, default=7, help="evaluations of the time comparison")
    parser.add_argument("--streaming", action="store_true", help="the time comparison only")
    arguments = parser.parse_args(argv)
    if arguments.child:
        print(json.dumps(peak(Path(arguments.child[1]), arguments.child[0])))
        return 0
    if arguments.streaming:
        return _print_streaming(arguments.repeats)
    names = [arguments.case] if arguments.case else [name for name in CASES if name != "tiny"]
    print(f"{'case':<26}{'planned':>12}{'measured':>12}{'ratio':>8}")
    for name, planned, measured in compare(names):
        mib = planned / 2**20, measured / 2**20
        print(f"{name:<26}{mib[0]:>8.0f} MiB{mib[1]:>8.0f} MiB{planned / measured:>8.2f}")
    return _print_streaming(arguments.repeats)


def _print_streaming(repeats: int) -> int:
    for name, delay_s in (("fast", 0.0), ("slow (3 ms per batch)", 3e-3)):
        times = streaming(repeats, delay_s)
        print(
            f"{name} storage: {times['resident']:.3f} s with data in memory, "
            f"{times['streamed']:.3f} s from a compressed file (ratio "
            f"{times['streamed'] / times['resident']:.2f}), {times['waiting']:.3f} s without "
            f"reading ahead; reading alone {times['reading']:.3f} s"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
