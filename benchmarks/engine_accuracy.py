"""The engine on a file with a known phase: ``python -m benchmarks.engine_accuracy FILE.h5``.

FILE is as for `benchmarks.direct_accuracy`.  One loss and gradient of all patterns, without
padding, is timed with the kernels a run would choose and with NumPy's, with one probe mode and with
four.  Then runs from a flat object, the measured aperture and the nominal defocus are compared with
the truth up to twice the aperture; their seconds hold everything but the compilation of kernels.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import pyptyx
from benchmarks.direct_accuracy import Agreement, Case, Truth, compare, read
from pyptyx import trees
from pyptyx.engine.setup import EVALUATION_NEEDS, build

Params = dict[str, Any]

_SPREAD_A = (-60.0, -20.0, 20.0, 60.0)
"""Defocus of four probe modes."""

_PRESETS: dict[str, Params] = {
    "default": {"probe": "aperture"},
    "low_dose": pyptyx.load_preset("low_dose") | {"save_loss_log": False},
}


def evaluation_s(params: Mapping[str, Any], repeats: int) -> float:
    """Median wall time of one loss and gradient.

    Parameters
    ----------
    params : mapping
        Of a run.
    repeats : int
        One more comes before, in which kernels may be compiled.
    """
    with build(params, need=EVALUATION_NEEDS) as problem:
        like = {k: problem.x[k] for k in ("object", "probe")}
        times = []
        for _ in range(repeats + 1):
            start = time.perf_counter()
            problem.data_term.evaluate(problem.x, trees.zeros_like(like))
            times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def agreement(result: Any, case: Case, truth: Truth) -> Agreement:
    """The phase of one slice inside the scan against the truth, up to twice the aperture.

    Parameters
    ----------
    result : pyptyx.Result
        Of a scan along the axes, not refined: the first beam is in the middle of its window.
    case : Case
    truth : Truth
    """
    pixel_A = float(result.pixel_size_A[0])
    first = [n // 2 for n in result.probe.shape[:2]]
    shape = [int((n - 1) * case.step_A / pixel_A) + 1 for n in case.scan]
    inside = tuple(slice(f, f + n) for f, n in zip(first, shape, strict=True))
    phase = np.angle(result.object[..., 0, 0])[inside]
    exact = truth.on((shape[0], shape[1]), pixel_A)
    return compare(phase, exact, pixel_A, 2 * case.radius_A)


def main(argv: list[str] | None = None) -> int:
    """Measure and print both tables.

    Parameters
    ----------
    argv : list of str, optional
        Arguments; by default those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.engine_accuracy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, help="HDF5 file")
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2], help="workers")
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 2, 5])
    parser.add_argument("--repeats", type=int, default=5, help="evaluations of each kind")
    arguments = parser.parse_args(argv)
    case = read(arguments.file)
    with h5py.File(arguments.file) as file:
        nominal = {"defocus": -float(file.attrs["defocus"]), "num_slices": 1}

    print(f"{'modes':>5}{'kernels':>12}{'workers':>9}{'s':>9}")
    bare = case.params(**nominal, data_pad=0) | {"probe": "aperture"}
    for modes, spread in ((1, None), (4, np.array(_SPREAD_A))):
        for kernels in ("auto", "reference"):
            for devices in arguments.devices:
                choice = {"kernels": kernels, "devices": devices, "defocus_spread_modes": spread}
                seconds = evaluation_s(bare | choice, arguments.repeats)
                print(f"{modes:>5}{kernels:>12}{devices:>9}{seconds:>9.3f}", flush=True)
    if case.truth is None:
        return 0

    print(f"\n{'preset':<10}{'passes':>7}{'s':>8}{'correlation':>13}{'scale':>8}")
    for name, preset in _PRESETS.items():
        choice = preset | {"devices": arguments.devices[-1], "print_flag": 0}
        pyptyx.run(case.params(**nominal) | choice | {"epoch_max": 1})  # compiles
        for epochs in arguments.epochs:
            start = time.perf_counter()
            result = pyptyx.run(case.params(**nominal) | choice | {"epoch_max": epochs})
            seconds = time.perf_counter() - start
            found = agreement(result, case, case.truth)
            print(
                f"{name:<10}{result.evaluations:>7g}{seconds:>8.1f}"
                f"{found.correlation:>13.4f}{found.scale:>8.2f}",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
