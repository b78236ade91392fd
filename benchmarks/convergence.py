"""Loss against the number of evaluations: ``python -m benchmarks.convergence [--data FILE ...]``.

One evaluation is one loss and gradient of all patterns; the loss alone counts half, a sweep of
mini-batches one.  The gap is that to the best loss any variant reached from the same start,
``(L - L_best) / (L_start - L_best)``.  A seed chooses the counts or the part of the scan, and how
wrong the defocus of the start is (up to 5 %).

A file holds patterns ``data`` (sy, sx, ky, kx) and the attributes ``energy`` (eV), ``semiangle``
(mrad), ``defocus`` (Å, positive is underfocus), ``step`` (Å), ``dk`` (1/Å) and, if the scan is
turned, ``rotation_deg``.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import pyptyx
from pyptyx.engine.loop import iterate
from pyptyx.engine.setup import EVALUATION_NEEDS, build
from pyptyx.files import write_bytes

Params = dict[str, Any]
Trace = list[tuple[float, float]]

VARIANTS: dict[str, Params] = {
    "pypty": {"optimizer": "pypty", "warm_start_epochs": 0},
    "L-BFGS": {"preconditioner": False, "warm_start_epochs": 0},
    "+ illumination": {"frequency_scaling": False, "warm_start_epochs": 0},
    "+ frequencies": {"warm_start_epochs": 0},
    "+ warm start": {},
}
"""Changes of the parameters, by the name in the table; the first is what others are compared to."""

GAPS = (0.1, 0.01, 0.001)


@dataclass(frozen=True)
class Scene:
    """A simulated experiment.

    Attributes
    ----------
    counts : float
        Electrons per pattern.
    slices, modes : int
        Object slices and probe modes.
    window : (int, int)
        Pattern and probe window.
    scan : (int, int)
        Scan points.
    step_A : float
        Scan step.
    """

    counts: float
    slices: int = 1
    modes: int = 1
    window: tuple[int, int] = (44, 48)
    scan: tuple[int, int] = (14, 15)
    step_A: float = 1.6


SCENES = {
    "single slice": Scene(counts=2e5),
    "multislice": Scene(counts=2e5, slices=4),
    "mixed modes": Scene(counts=2e5, modes=3),
    "low dose": Scene(counts=1e3, step_A=0.8),
}

_ENERGY_KV, _SEMIANGLE, _DEFOCUS_A, _REZ_A = 80.0, 0.025, -150.0, 0.05
_GAP_A, _APART_A = 20.0, 1.5


def scene_params(scene: Scene, seed: int) -> Params:
    """Parameters of a simulated experiment: random atoms, Poisson counts, a nearly right defocus.

    Parameters
    ----------
    scene : Scene
    seed : int
        Of specimen, counts and the error of the defocus.

    Returns
    -------
    dict
        For `pyptyx.run`.
    """
    rng = np.random.default_rng(seed)
    pixel_A = [1 / (n * _REZ_A) for n in scene.window]
    positions = np.argwhere(np.ones(scene.scan)) * scene.step_A / pixel_A
    size = [math.ceil(p) + n for p, n in zip(positions.max(axis=0), scene.window, strict=True)]
    phase = _atoms(rng, (*size, scene.slices), pixel_A)
    beam = {
        "acc_voltage": _ENERGY_KV,
        "pixel_size_y_A": pixel_A[0],
        "pixel_size_x_A": pixel_A[1],
        "slice_distances": np.array([_GAP_A]),
        "positions": positions,
        "skip_preprocessing": True,
        "backend": "cpu",
    }
    probe = _probe(scene, pixel_A, _DEFOCUS_A)
    patterns = pyptyx.simulate(beam | {"obj": np.exp(1j * phase)[..., None], "probe": probe})
    start = _probe(scene, pixel_A, _DEFOCUS_A * (1 + rng.uniform(-0.05, 0.05)))
    return beam | {
        "dataset": rng.poisson(patterns).astype(np.uint16),
        "scan_size": scene.scan,
        "probe": start,
        "num_slices": scene.slices,
    }


def _atoms(rng: np.random.Generator, shape: Sequence[int], pixel_A: Sequence[float]) -> np.ndarray:
    """Phases of a random structure as fine as atoms, 0.15 rad in every slice."""
    white = rng.normal(size=shape)
    y, x = (np.fft.fftfreq(n, d) for n, d in zip(shape[:2], pixel_A, strict=True))
    soft = np.exp(-((y[:, None] / 0.6) ** 2) - (x / 0.6) ** 2)[..., None]
    phase = np.fft.ifft2(np.fft.fft2(white, axes=(0, 1)) * soft, axes=(0, 1)).real
    return 0.15 * phase / phase.std()


def _probe(scene: Scene, pixel_A: Sequence[float], defocus_A: float) -> np.ndarray:
    """Round aperture with a defocus, centred; every further mode is half as high and elsewhere."""
    wavelength_A = pyptyx.wavelength_A(_ENERGY_KV)
    y, x = (np.fft.fftfreq(n, d) for n, d in zip(scene.window, pixel_A, strict=True))
    y, x = y[:, None], x[None, :]
    chi = np.pi * wavelength_A * defocus_A * (y**2 + x**2)
    wave = (np.hypot(y, x) <= _SEMIANGLE / wavelength_A) * np.exp(1j * chi)
    modes = [
        0.5**m * wave * np.exp(2j * np.pi * _APART_A * m * (y if m % 2 else x))
        for m in range(scene.modes)
    ]
    stack = np.stack(modes, axis=-1)
    stack *= math.sqrt(scene.counts * scene.modes / (np.abs(stack) ** 2).sum())
    return np.fft.fftshift(np.fft.ifft2(stack, axes=(0, 1)), axes=(0, 1))


def file_params(path: Path, scan: int, seed: int) -> Params:
    """Parameters of a measured or simulated file (see the page of the module).

    Parameters
    ----------
    path : Path
    scan : int
        Scan points per side that are used.
    seed : int
        Of the part of the scan and the error of the defocus.
    """
    rng = np.random.default_rng(seed)
    with h5py.File(path) as file:
        about, data = file.attrs, file["data"]
        first = [int(rng.integers(0, max(1, n - scan + 1))) for n in data.shape[:2]]
        patterns = data[first[0] : first[0] + scan, first[1] : first[1] + scan]
        experiment = {
            "dataset": patterns,
            "output_folder": None,
            "acc_voltage": float(about["energy"]) / 1e3,
            "rez_pixel_size_A": float(about["dk"]),
            "conv_semiangle_mrad": float(about["semiangle"]),
            "defocus": -float(about["defocus"]) * (1 + rng.uniform(-0.05, 0.05)),
            "scan_step_A": float(about["step"]),
            "PLRotation_deg": -float(about.get("rotation_deg", 0.0)),
            "num_slices": 1,
            "print_flag": 0,
        }
    return pyptyx.append_exp_params(experiment, {"probe": "aperture"})


def trace(params: Mapping[str, Any], budget: float) -> Trace:
    """Loss after every epoch against the evaluations spent; the first entry is the start.

    Parameters
    ----------
    params : mapping
        Of a run.
    budget : float
        Evaluations after which the run ends.
    """
    run = {**params, "epoch_max": int(budget) + 1, "output_folder": None, "print_flag": 0}
    with build(run, need=EVALUATION_NEEDS) as problem:
        points = [(0.0, problem.data_term(problem.x))]
        spent = 1.0
        for state in iterate(problem):
            record = state.record
            if record.sweeps:  # their loss is known from the first evaluation after them
                spent += record.sweeps
                points.append((spent, record.loss))
            spent += record.evaluations
            points.append((spent, record.loss_after))
            if spent >= budget:
                break
    return points


def evaluations_to(points: Trace, loss: float) -> float:
    """Evaluations after which the loss first is at most `loss`; infinite if it never is."""
    return next((spent for spent, value in points if value <= loss), math.inf)


def measure(
    make: Callable[[int], Params], variants: Mapping[str, Params], seeds: int, budget: float
) -> dict[str, Any]:
    """Traces of all variants from all starts, and what they say."""
    traces: dict[str, list[Trace]] = {name: [] for name in variants}
    for seed in range(seeds):
        params = make(seed)
        for name, changes in variants.items():
            traces[name].append(trace(params | {"seed": seed} | changes, budget))
    return {"traces": traces, "lines": summary(traces)}


def summary(traces: Mapping[str, list[Trace]]) -> list[dict[str, Any]]:
    """Median over the seeds of the evaluations to each gap, and of the gap in the end."""
    seeds = range(len(next(iter(traces.values()))))
    best = [min(value for t in traces.values() for _, value in t[s]) for s in seeds]
    start = [next(iter(traces.values()))[s][0][1] for s in seeds]
    lines = []
    for name, runs in traces.items():
        line: dict[str, Any] = {"variant": name}
        for gap in GAPS:
            spent = [
                evaluations_to(run, best[s] + gap * (start[s] - best[s]))
                for s, run in enumerate(runs)
            ]
            line[f"to {gap:g}"] = statistics.median(spent)
            line[f"each to {gap:g}"] = spent
        line["final gap"] = statistics.median(
            (run[-1][1] - best[s]) / (start[s] - best[s]) for s, run in enumerate(runs)
        )
        line["final loss"] = statistics.median(run[-1][1] for run in runs)
        lines.append(line)
    return lines


def table(name: str, lines: Sequence[Mapping[str, Any]]) -> str:
    """The summary of one data set as text."""
    head = f"{name:<22}" + "".join(f"{f'to {100 * gap:g} %':>12}" for gap in GAPS)
    head += f"{'final gap':>12}{'final loss':>14}"
    rows = [
        f"  {line['variant']:<20}"
        + "".join(f"{line[f'to {gap:g}']:>12g}" for gap in GAPS)
        + f"{line['final gap']:>12.5f}{line['final loss']:>14.6g}"
        for line in lines
    ]
    return "\n".join([head, *rows])


def main(argv: list[str] | None = None) -> int:
    """Run the comparison and print the tables.

    Parameters
    ----------
    argv : list of str, optional
        Arguments; by default those of the process.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.convergence", description=__doc__)
    parser.add_argument("--data", type=Path, nargs="*", metavar="FILE", help="also these data sets")
    parser.add_argument("--scene", choices=SCENES, nargs="*", help="simulated scenes; default all")
    parser.add_argument("--variant", choices=VARIANTS, nargs="*", help="default all")
    parser.add_argument("--algorithm", default="lsq_sqrt", help="data term")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budget", type=float, default=60, help="evaluations of each run")
    parser.add_argument("--scan", type=int, default=16, help="scan points per side of a file")
    parser.add_argument("--devices", type=int, default=1, help="number of workers")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the traces to FILE")
    arguments = parser.parse_args(argv)

    variants = {
        name: changes | {"algorithm": arguments.algorithm, "devices": arguments.devices}
        for name, changes in VARIANTS.items()
        if not arguments.variant or name in arguments.variant
    }
    scenes = SCENES if arguments.scene is None else arguments.scene
    makers: dict[str, Callable[[int], Params]] = {
        name: partial(scene_params, SCENES[name]) for name in scenes
    }
    for path in arguments.data or ():
        makers[path.stem] = partial(file_params, path, arguments.scan)
    report: dict[str, Any] = {}
    for name, make in makers.items():
        report[name] = measure(make, variants, arguments.seeds, arguments.budget)
        print(table(name, report[name]["lines"]), flush=True)
    if arguments.json:
        write_bytes(arguments.json, (json.dumps(report, indent=1) + "\n").encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
