"""Time one loss and gradient per pattern, beside two batched FFTs of the same shape.

Times are processor times of the whole process divided by the number of patterns, so that other
programs on the machine disturb them little; with several workers the wall time is listed as well.
The ratio to the FFTs, measured alternately in the same run, says more than the time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft

import pyptyx
from benchmarks.cases import CASES, Case, params_of
from pyptyx import trees
from pyptyx.engine.setup import EVALUATION_NEEDS, build
from pyptyx.files import write_bytes


@contextmanager
def evaluation(params: dict[str, Any]) -> Iterator[Callable[[], object]]:
    """The function to time: loss and gradient of all patterns, nothing else.

    Parameters
    ----------
    params : dict
        Parameters of a run.
    """
    with build(params, need=EVALUATION_NEEDS) as problem:
        refined = {name: problem.x[name] for name in ("object", "probe")}

        def evaluate() -> None:
            problem.data_term.evaluate(problem.x, trees.zeros_like(refined))
            problem.backend.synchronize()

        yield evaluate


def reference(case: Case, dtype: str) -> Callable[[], object]:
    """Two FFTs, forward and back, per pattern, mode and slice, in blocks that stay in the cache."""
    kind = np.complex64 if dtype == "single" else np.complex128
    block = np.random.default_rng(0).normal(size=(8, case.n, case.n)).astype(kind)
    transforms = case.patterns * case.modes * case.slices
    rounds = transforms // len(block)
    if rounds * len(block) != transforms:
        raise ValueError(f"{case}: patterns times modes times slices must be a multiple of 8")

    def transform() -> None:
        for _ in range(rounds):
            scipy.fft.ifft2(scipy.fft.fft2(block, axes=(-2, -1)), axes=(-2, -1), overwrite_x=True)

    return transform


def seconds(function: Callable[[], object]) -> tuple[float, float]:
    """Processor and wall time of one call."""
    wall, processor = time.perf_counter(), time.process_time()
    function()
    return time.process_time() - processor, time.perf_counter() - wall


def measure(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One line of the table.

    Parameters
    ----------
    name : str
        Name of the case.
    arguments : argparse.Namespace
        The command line.
    """
    case = CASES[name]
    with evaluation(params_of(case, arguments.dtype, arguments.devices)) as evaluate:
        transform = reference(case, arguments.dtype)
        evaluate()
        transform()
        # Alternating, so that a busy spell of the machine hits both.
        pairs = [(seconds(evaluate), seconds(transform)) for _ in range(arguments.repeats)]
    ours = [processor for (processor, _), _ in pairs]
    median = statistics.median(ours)
    base = statistics.median(processor for _, (processor, _) in pairs)
    wall = statistics.median(wall for (_, wall), _ in pairs)
    return {
        "case": name,
        **case.as_dict(),
        "us_per_pattern": 1e6 * median / case.patterns,
        "wall_us_per_pattern": 1e6 * wall / case.patterns,
        "spread_percent": 100 * (max(ours) - min(ours)) / median,
        "fft_us_per_pattern": 1e6 * base / case.patterns,
        "ratio_to_fft": median / base,
    }


def _word(flag: bool) -> str:
    return "yes" if flag else "no"


def table(lines: list[dict[str, Any]]) -> str:
    """The measurements as text, one row per case."""
    head = f"{'case':<17}{'n':>5}{'S':>4}{'P':>4}{'shift':>7}"
    head += f"{'us/pattern':>13}{'spread':>9}{'wall':>10}{'2 FFTs':>10}{'ratio':>8}"
    rows = [
        f"{r['case']:<17}{r['n']:>5}{r['slices']:>4}{r['modes']:>4}{_word(r['shift']):>7}"
        f"{r['us_per_pattern']:>13.1f}{r['spread_percent']:>8.0f}%{r['wall_us_per_pattern']:>10.1f}"
        f"{r['fft_us_per_pattern']:>10.1f}{r['ratio_to_fft']:>8.2f}"
        for r in lines
    ]
    return "\n".join([head, *rows])


def main(argv: list[str] | None = None) -> int:
    """Run the cases and print the table.

    Parameters
    ----------
    argv : list of str, optional
        Arguments; by default those of the process.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--case", choices=sorted(CASES), help="one case only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dtype", choices=["single", "double"], default="single")
    parser.add_argument("--devices", type=int, default=1, help="number of workers")
    arguments = parser.parse_args(argv)

    names = [arguments.case] if arguments.case else list(CASES)
    lines = [measure(name, arguments) for name in names]
    print(table(lines))
    print(f"{arguments.devices} worker(s), {arguments.dtype}, median of {arguments.repeats}")
    if arguments.json:
        report = {
            "pyptyx": pyptyx.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "cores": os.cpu_count(),
            "dtype": arguments.dtype,
            "devices": arguments.devices,
            "repeats": arguments.repeats,
            "lines": lines,
        }
        write_bytes(arguments.json, (json.dumps(report, indent=2) + "\n").encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
