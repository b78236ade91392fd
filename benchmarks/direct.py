"""Time and memory of the direct methods on synthetic data: ``python -m benchmarks.direct``.

The data are Poisson counts of a weakly modulated disc, written once to a scratch file in the layout
of a detector, and deleted afterwards.  Reading is timed on its own: it is the same for all methods.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pyptyx.backend import make_backends
from pyptyx.data import open_source
from pyptyx.executors import Executor, ThreadExecutor
from pyptyx.methods.bright_field import BrightField, bright_field
from pyptyx.methods.disc import Disc
from pyptyx.methods.joint import joint_image
from pyptyx.methods.linear import linear_image
from pyptyx.methods.live import LiveSums, geometry
from pyptyx.methods.scan_spectrum import pupil_of
from pyptyx.methods.tcbf import aligned_image
from pyptyx.methods.unalias import unaliased_image
from pyptyx.methods.wdd import read_box, wdd

WAVELENGTH_A, SEMIANGLE, DEFOCUS_A = 0.0417572, 0.025, (-150.0, 20.0, -10.0)


@dataclass(frozen=True)
class Sizes:
    """Scan points and detector pixels per side, and radius of the disc in pixels."""

    scan: int
    detector: int
    radius_px: float

    @property
    def dk_A(self) -> float:
        """Detector pixel in 1/Å."""
        return SEMIANGLE / WAVELENGTH_A / self.radius_px

    @property
    def step_A(self) -> float:
        """Scan step at the Nyquist limit of twice the aperture."""
        return WAVELENGTH_A / (4 * SEMIANGLE)


def write_patterns(path: Path, sizes: Sizes, counts: float = 5000.0, seed: int = 0) -> None:
    """Write ``(scan², detector, detector)`` uint16 counts as HDF5, one scan row at a time."""
    n, m = sizes.scan, sizes.detector
    y, x = np.indices((m, m)) - m // 2
    disc = np.clip(sizes.radius_px - np.hypot(y, x) + 0.5, 0, 1) ** 2
    disc *= counts / disc.sum()
    rng = np.random.default_rng(seed)
    # Counts of a few rows, reused in random order: drawing all of them would take longest of all.
    stock = rng.poisson(disc, (4 * n, m, m)).astype(np.uint16)
    with h5py.File(path, "w") as file:
        out = file.create_dataset("data", (n * n, m, m), np.uint16)
        for row in range(n):
            out[row * n : (row + 1) * n] = stock[rng.permutation(4 * n)[:n]]


def peak_bytes() -> int:
    """Largest resident memory of this process so far."""
    factor = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * factor


def timed(name: str, work: Callable[[], Any]) -> Any:
    """Run, print wall time, processor time and peak memory so far, and return the result."""
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    print(
        f"{name:<22}{wall:>9.1f} s{processor:>11.1f} s{peak_bytes() / 2**30:>10.2f} GiB", flush=True
    )
    return result


def methods(bright: BrightField, executor: Executor) -> dict[str, Callable[[], Any]]:
    """The reconstructions from a bright field, by name."""
    on: dict[str, Any] = {"executor": executor}

    def linear(kernel: str) -> Callable[[], Any]:
        return lambda: linear_image(bright, DEFOCUS_A, kernel=kernel, **on)

    return {
        "matched filter": linear("mf"),
        "SSB": linear("ssb"),
        "tcBF, corrected": linear("tcbf"),
        "joint": lambda: joint_image(bright, DEFOCUS_A, **on),
        "tcBF, upsampled 3": lambda: aligned_image(bright, DEFOCUS_A, upsample=3, **on),
        "tcBF, upsampled 2.5": lambda: aligned_image(bright, DEFOCUS_A, upsample=2.5, **on),
        "un-aliased 2": lambda: unaliased_image(bright, DEFOCUS_A, upsample=2, **on),
        "un-aliased 1.5": lambda: unaliased_image(bright, DEFOCUS_A, upsample=1.5, **on),
    }


def live(path: Path, bright: BrightField, scan: tuple[int, int], executor: Executor) -> None:
    """Feed all rows, look after every quarter of the scan."""
    known = geometry(
        bright.pacbed,
        dk_A=bright.dk_A,
        wavelength_A=WAVELENGTH_A,
        step_A=bright.step_A,
        scan_size=scan,
    )
    sums = LiveSums(known, DEFOCUS_A, executor=executor)
    with h5py.File(path) as file:
        for row in range(scan[0]):
            points = np.arange(row * scan[1], (row + 1) * scan[1])
            sums.add(file["data"][points[0] : points[-1] + 1], points)
            if (row + 1) % max(1, scan[0] // 4) == 0:
                sums.image()


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark.

    Parameters
    ----------
    argv : list of str, optional
        Arguments; by default those of the process.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.direct", description=__doc__)
    parser.add_argument("--scan", type=int, default=128, help="scan points per side")
    parser.add_argument("--detector", type=int, default=128, help="detector pixels per side")
    parser.add_argument("--radius", type=float, default=20.0, help="of the disc in pixels")
    parser.add_argument("--reach", type=float, default=1.5, help="box of WDD in disc radii")
    parser.add_argument("--only", help="run methods whose name contains this")
    parser.add_argument("--scratch", type=Path, help="folder of the synthetic data")
    parser.add_argument("--workers", type=int, help="threads or devices; by default all")
    parser.add_argument("--backend", choices=("gpu", "cpu"), default="gpu")
    arguments = parser.parse_args(argv)

    sizes = Sizes(arguments.scan, arguments.detector, arguments.radius)
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
        path = Path(folder) / "patterns.h5"
        # In a process of its own, so that its memory does not count.
        child = multiprocessing.get_context("spawn").Process(
            target=write_patterns, args=(path, sizes)
        )
        child.start()
        child.join()
        devices = arguments.workers or "auto"
        backends = make_backends(devices, prefer=arguments.backend, kernels="reference")
        with ThreadExecutor(backends) as executor:
            _measure(path, sizes, arguments, executor)
    return 0


def _measure(path: Path, sizes: Sizes, arguments: argparse.Namespace, executor: Executor) -> None:
    wanted = (arguments.only or "").lower()
    scan = (sizes.scan, sizes.scan)
    print(f"{'':<22}{'wall':>11}{'processor':>13}{'peak memory':>14}")
    with open_source(path, scan_size=scan) as source:
        bright = timed(
            "bright field",
            lambda: bright_field(
                source,
                dk_A=(sizes.dk_A, sizes.dk_A),
                wavelength_A=WAVELENGTH_A,
                step_A=sizes.step_A,
                scan_size=scan,
            ),
        )
        for name, work in methods(bright, executor).items():
            if wanted in name.lower():
                timed(name, work)
        if wanted in "live":
            timed("live, four images", partial(live, path, bright, scan, executor))
        pupil = pupil_of(bright, DEFOCUS_A)
        disc = Disc(bright.centre_px, SEMIANGLE / WAVELENGTH_A, bright.dk_A)
        del bright
        if wanted in "wdd":
            box = timed("WDD, reading", lambda: read_box(source, disc, scan, reach=arguments.reach))
            timed("WDD", lambda: wdd(box, pupil, sizes.step_A, executor=executor))


if __name__ == "__main__":
    sys.exit(main())
