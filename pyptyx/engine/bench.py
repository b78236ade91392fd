"""How long one loss and gradient takes on this machine, for three typical sizes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyptyx import trees
from pyptyx.engine.plan import plan
from pyptyx.engine.setup import EVALUATION_NEEDS, build

_WINDOW = (128, 128)
_SCAN = (8, 9)
_STEP_PX = 4.3
"""Not a whole number, so that every measurement has a shifted probe, as in most runs."""

_SIZES = {"thin": (1, 1), "mixed state": (1, 4), "multislice": (8, 1)}
"""Slices and probe modes of the cases."""


@dataclass(frozen=True)
class Timing:
    """One measured case.

    Attributes
    ----------
    name : str
        What it stands for.
    window : tuple of int
        Pixels of a pattern (y, x).
    slices, modes, patterns : int
        Size of the problem.
    device : str
        Name of the first worker's device.
    workers : int
        Threads, or devices.
    wall_us, cpu_us : float
        Median time of a pattern: on the wall, and of all processor cores together.
    spread : float
        ``(longest - shortest) / median`` of the wall times.
    expected_us : float
        What `pyptyx.engine.plan` makes of the transforms and passes measured beside it.
    """

    name: str
    window: tuple[int, int]
    slices: int
    modes: int
    patterns: int
    device: str
    workers: int
    wall_us: float
    cpu_us: float
    spread: float
    expected_us: float

    def __str__(self) -> str:
        """One line of the table."""
        return (
            f"{self.name:<12} {self.slices:>6} {self.modes:>5} {self.wall_us:>10.0f} "
            f"{self.cpu_us:>10.0f} {100 * self.spread:>6.0f}% {1e6 / self.wall_us:>10.0f}"
        )


HEADING = (
    f"{'case':<12} {'slices':>6} {'modes':>5} {'µs wall':>10} {'µs cores':>10} {'spread':>7} "
    f"{'patterns/s':>10}"
)
"""Heads the lines of the timings."""


def bench(devices: Any = "auto", repeats: int = 5, precision: str = "single") -> Iterator[Timing]:
    """Time the loss and the gradient of object and probe on simulated patterns.

    Nothing is read from or written to disk.

    Parameters
    ----------
    devices : int, list of int or "auto"
        The workers, as the key of a run.
    repeats : int
        Evaluations that are timed; one more comes before.
    precision : {"single", "double"}
        Precision of the evaluation.

    Yields
    ------
    Timing
        One for each case, when it is done.

    Raises
    ------
    ParamError, DeviceError
        If the workers cannot be had.
    """
    for name, (slices, modes) in _SIZES.items():
        params = _problem(slices, modes) | {"devices": devices, "default_dtype": precision}
        yield _timed(name, params, max(1, repeats))


def _timed(name: str, params: dict[str, Any], repeats: int) -> Timing:
    forecast = plan(params)
    patterns = len(params["positions"])
    with build(params, need=EVALUATION_NEEDS) as problem:
        refined = {key: problem.x[key] for key in ("object", "probe")}
        walls, cores = [], []
        for _ in range(repeats + 1):
            wall, core = time.perf_counter(), time.process_time()
            problem.data_term.evaluate(problem.x, trees.zeros_like(refined))
            problem.backend.synchronize()
            walls.append(time.perf_counter() - wall)
            cores.append(time.process_time() - core)
    walls, cores = walls[1:], cores[1:]
    wall = statistics.median(walls)
    return Timing(
        name=name,
        window=_WINDOW,
        slices=params["obj"].shape[2],
        modes=params["probe"].shape[2],
        patterns=patterns,
        device=forecast.device,
        workers=forecast.work.workers,
        wall_us=1e6 * wall / patterns,
        cpu_us=1e6 * statistics.median(cores) / patterns,
        spread=(max(walls) - min(walls)) / wall,
        expected_us=1e6 * forecast.evaluation_s / patterns,
    )


def _problem(slices: int, modes: int) -> dict[str, Any]:
    """A random phase object, Gaussian beams with a curved phase, and a Poisson sample."""
    rng = np.random.default_rng(0)
    positions = _STEP_PX * np.indices(_SCAN).reshape(2, -1).T
    shape = np.ceil(positions.max(axis=0)).astype(int) + _WINDOW + 2
    y, x = (np.indices(_WINDOW) - np.reshape(_WINDOW, (2, 1, 1)) / 2) / 16
    beam = 30 * np.exp((1j - 1) * (y**2 + x**2))
    probe = np.stack([beam * x**order for order in range(modes)], axis=-1)
    mean = np.mean(np.abs(np.fft.fft2(probe, axes=(0, 1), norm="ortho")) ** 2, axis=2)
    return {
        "dataset": rng.poisson(mean, (len(positions), *_WINDOW)).astype(np.uint16),
        "positions": positions,
        "obj": np.exp(0.1j * rng.standard_normal((*shape, slices, 1))),
        "probe": probe,
        "slice_distances": [10.0],
        "pixel_size_x_A": 0.2,
        "pixel_size_y_A": 0.2,
        "acc_voltage": 300.0,
        "skip_preprocessing": True,
        "output_folder": None,
        "epoch_max": 10,
        "print_flag": 0,
    }
