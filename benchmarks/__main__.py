"""Time one loss and gradient per pattern, beside what the machine can do at best.

Every case is timed with the kernels a run would choose and with the reference kernels, alternately
in one run, together with a batch of plain FFTs: ratios say more than times.  On a CPU times are
processor times of the whole process divided by the patterns, so that other programs disturb them
little; on a GPU, and in the column `wall`, they are what a clock on the wall shows.

`passes` are the times every wave (modes x slices) could have been copied in that time, `flops` the
share of the peak that the unavoidable FFTs account for; bandwidth and peak are measured first.
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
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import pyptyx
from benchmarks.cases import SETS, Case, params_of
from pyptyx import trees
from pyptyx.backend import Backend, make_backends
from pyptyx.engine.setup import EVALUATION_NEEDS, build
from pyptyx.files import write_bytes

REFERENCE = {"kernels": "reference"}
"""Parameters that choose the reference kernels."""


@contextmanager
def evaluation(params: dict[str, Any]) -> Iterator[Callable[[], object]]:
    """The function to time: loss and gradient of all patterns, nothing else.

    Parameters
    ----------
    params : dict
        Parameters of a run.
    """
    with build(params, need=EVALUATION_NEEDS) as problem:
        refined = {k: v for k, v in problem.x.items() if k in ("object", "probe", "tilts")}

        def evaluate() -> None:
            problem.data_term.evaluate(problem.x, trees.zeros_like(refined))
            problem.backend.synchronize()

        yield evaluate


def transforms(case: Case, dtype: str, backend: Backend) -> Callable[[], object]:
    """The FFTs of a case and nothing else, in blocks as a run has them."""
    kind = np.complex64 if dtype == "single" else np.complex128
    on_gpu = backend.name != "cpu"
    rows = min(case.ffts * case.patterns, 512 if on_gpu else 8)
    block = backend.asarray(np.ones((rows, case.n, case.n), kind))
    rounds = max(1, case.ffts * case.patterns // (2 * rows))

    def transform() -> None:
        with backend.context():
            for _ in range(rounds):
                backend.fft2_adjoint(backend.fft2(block))
        backend.synchronize()

    return transform


def peaks(backend: Backend, repeats: int = 5) -> tuple[float, float]:
    """Copy bandwidth (bytes read and written per second) and float32 operations per second."""
    xp = backend.xp
    with backend.context():
        a = xp.ones(1 << 26, np.uint8)
        b = xp.empty_like(a)
        m = xp.ones((2048, 2048), np.float32)

        def copy() -> None:
            b[...] = a
            backend.synchronize()

        def multiply() -> None:
            m @ m
            backend.synchronize()

        best = [min(seconds(f)[1] for _ in range(repeats)) for f in (copy, multiply)]
    return 2 * a.nbytes / best[0], 2 * 2048**3 / best[1]


def seconds(function: Callable[[], object]) -> tuple[float, float]:
    """Processor and wall time of one call."""
    wall, processor = time.perf_counter(), time.process_time()
    function()
    return time.process_time() - processor, time.perf_counter() - wall


def measure(
    name: str, case: Case, arguments: argparse.Namespace, machine: dict[str, Any]
) -> dict[str, Any]:
    """One line of the table.

    Parameters
    ----------
    name : str
    case : Case
    arguments : argparse.Namespace
        The command line.
    machine : dict
        ``backend, bandwidth, flops`` of this machine.
    """
    params = params_of(case, arguments.dtype, arguments.devices) | {"backend": arguments.device}
    on_gpu = machine["backend"].name != "cpu"
    with ExitStack() as stack:
        timed = {
            "chosen": stack.enter_context(evaluation(params)),
            "reference": stack.enter_context(evaluation(params | REFERENCE)),
            "ffts": transforms(case, arguments.dtype, machine["backend"]),
        }
        for function in timed.values():
            function()
        # Alternating, so that a busy spell of the machine hits all.
        rounds = [
            {key: seconds(function) for key, function in timed.items()}
            for _ in range(arguments.repeats)
        ]
    column = 1 if on_gpu else 0
    times = {key: [r[key][column] / case.patterns for r in rounds] for key in timed}
    median = {key: statistics.median(values) for key, values in times.items()}
    wall = statistics.median(r["chosen"][1] for r in rounds) / case.patterns
    return {
        "case": name,
        **case.as_dict(),
        "us_per_pattern": 1e6 * median["chosen"],
        "spread_percent": 100 * (max(times["chosen"]) - min(times["chosen"])) / median["chosen"],
        "wall_us_per_pattern": 1e6 * wall,
        "reference_us_per_pattern": 1e6 * median["reference"],
        "speed_up": median["reference"] / median["chosen"],
        "ffts_us_per_pattern": 1e6 * median["ffts"],
        "ratio_to_ffts": median["chosen"] / median["ffts"],
        "passes": median["chosen"] * machine["bandwidth"] / case.wave_bytes,
        "share_of_peak": case.flop / median["chosen"] / machine["flops"],
        "whole_scan_s": wall * (case.of or case.patterns),
    }


_COLUMNS = (
    ("n", "{n}", 5),
    ("S", "{slices}", 4),
    ("P", "{modes}", 4),
    ("shift", "{shift}", 7),
    ("us/pattern", "{us_per_pattern:.1f}", 12),
    ("spread", "{spread_percent:.0f}%", 8),
    ("wall", "{wall_us_per_pattern:.1f}", 10),
    ("reference", "{reference_us_per_pattern:.1f}", 11),
    ("speed-up", "{speed_up:.2f}", 10),
    ("FFTs", "{ffts_us_per_pattern:.1f}", 10),
    ("ratio", "{ratio_to_ffts:.2f}", 7),
    ("passes", "{passes:.0f}", 8),
    ("flops", "{share_of_peak:.1%}", 7),
    ("scan s", "{whole_scan_s:.3g}", 8),
)


def table(lines: list[dict[str, Any]]) -> str:
    """The measurements as text, one row per case."""
    head = f"{'case':<22}" + "".join(f"{title:>{width}}" for title, _form, width in _COLUMNS)
    rows = []
    for line in lines:
        shown = line | {"shift": "yes" if line["shift"] else "no"}
        cells = (f"{form.format(**shown):>{width}}" for _title, form, width in _COLUMNS)
        rows.append(f"{line['case']:<22}" + "".join(cells))
    return "\n".join([head, *rows])


def arguments_of(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--set", choices=sorted(SETS), default="standard", help="which cases")
    parser.add_argument("--case", help="one case only")
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dtype", choices=["single", "double"], default="single")
    parser.add_argument("--devices", type=int, default=1, help="number of workers")
    arguments = parser.parse_args(argv)
    if arguments.case and arguments.case not in SETS[arguments.set]:
        parser.error(f"--case: expected one of {', '.join(SETS[arguments.set])}")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Run the cases and print the table.

    Parameters
    ----------
    argv : list of str, optional
        Arguments; by default those of the process.
    """
    arguments = arguments_of(argv)
    backend = make_backends(1, prefer=arguments.device)[0]
    if arguments.device == "gpu" and backend.name == "cpu":
        print("no CUDA device can be used; see pyptyx doctor", file=sys.stderr)
        return 2
    bandwidth, flops = peaks(backend)
    machine = {"backend": backend, "bandwidth": bandwidth, "flops": flops}
    cases = SETS[arguments.set]
    names = [arguments.case] if arguments.case else list(cases)
    lines = [measure(name, cases[name], arguments, machine) for name in names]
    print(table(lines))
    print(
        f"{arguments.devices} worker(s), {arguments.dtype}, median of {arguments.repeats}; "
        f"copy {bandwidth / 1e9:.1f} GB/s, float32 {flops / 1e9:.0f} GFLOP/s ({backend.name})"
    )
    if arguments.json:
        report = {
            "pyptyx": pyptyx.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "device": backend.name,
            "bandwidth_bytes_per_s": bandwidth,
            "float32_per_s": flops,
            "dtype": arguments.dtype,
            "devices": arguments.devices,
            "repeats": arguments.repeats,
            "lines": lines,
        }
        write_bytes(arguments.json, (json.dumps(report, indent=2) + "\n").encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
