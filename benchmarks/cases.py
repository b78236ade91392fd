"""Synthetic data sets, stated through public parameters only."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pyptyx.physics.grid import fast_length


@dataclass(frozen=True)
class Case:
    """One problem size.

    Attributes
    ----------
    n : int
        Window and pattern size in pixels.
    slices, modes : int
        Numbers of object slices and of probe modes.
    scan : (int, int)
        Scan points ``(Ny, Nx)``.
    shift : bool
        Positions between pixels, so that the probe is shifted by Fourier transforms.
    of : int
        Patterns of the whole scan, of which `scan` is a part; 0 if it is all.
    tilt : bool
        One tilt of the specimen, which is refined.
    """

    n: int
    slices: int
    modes: int
    scan: tuple[int, int]
    shift: bool = False
    of: int = 0
    tilt: bool = False

    @property
    def patterns(self) -> int:
        """Number of patterns."""
        return self.scan[0] * self.scan[1]

    @property
    def ffts(self) -> int:
        """Two-dimensional FFTs that one loss and gradient of a pattern cannot do without."""
        return self.modes * (4 * self.slices - (0 if self.shift else 2))

    @property
    def flop(self) -> float:
        """Nominal operations of these FFTs, ``5 N log2 N`` each."""
        pixels = self.n**2
        return self.ffts * 5 * pixels * math.log2(pixels)

    @property
    def wave_bytes(self) -> int:
        """Single-precision waves of one pattern: every mode at every slice."""
        return 8 * self.n**2 * self.modes * self.slices

    def as_dict(self) -> dict[str, Any]:
        """Fields by name."""
        return asdict(self)


CASES = {
    "small": Case(n=64, slices=1, modes=1, scan=(16, 18)),
    "standard": Case(n=128, slices=1, modes=1, scan=(14, 16)),
    "standard, shifted": Case(n=128, slices=1, modes=1, scan=(14, 16), shift=True),
    "n=96, shifted": Case(n=96, slices=1, modes=1, scan=(14, 16), shift=True),
    "n=96, 4 modes": Case(n=96, slices=1, modes=4, scan=(8, 10), shift=True),
    "n=96, 10 slices": Case(n=96, slices=10, modes=1, scan=(8, 10), shift=True),
    "10 slices, tilted": Case(n=96, slices=10, modes=1, scan=(8, 10), shift=True, tilt=True),
    "mixed": Case(n=128, slices=1, modes=4, scan=(8, 10)),
    "multislice": Case(n=128, slices=10, modes=1, scan=(16, 20)),
    "186 = 6 x 31": Case(n=186, slices=1, modes=1, scan=(6, 8)),
    "192 instead": Case(n=192, slices=1, modes=1, scan=(6, 8)),
    "large": Case(n=256, slices=1, modes=1, scan=(6, 8)),
}
"""What a change is judged by; a few seconds each."""

PUBLIC = {
    "WSe2, 1 x 12": Case(n=128, slices=1, modes=12, scan=(4, 8), shift=True, of=128 * 128),
    "WSe2, 6 x 6": Case(n=128, slices=6, modes=6, scan=(4, 6), shift=True, of=128 * 128),
    "WSe2, 12 x 6": Case(n=128, slices=12, modes=6, scan=(4, 4), shift=True, of=128 * 128),
    "PrScO3, 21 x 4": Case(n=256, slices=21, modes=4, scan=(2, 4), shift=True, of=64 * 64),
    "40 x 40, 10 x 1": Case(n=96, slices=10, modes=1, scan=(8, 10), shift=True, of=40 * 40),
}
"""Jobs other programs have published times for, slices x modes: 128 x 128 patterns of 128² (PtyRAD,
PtychoShelves, py4DSTEM) and 64 x 64 of 256² (PtyRAD); and one their times were measured for here,
40 x 40 of 96².  A few patterns of each are timed; a pattern costs the same in the whole scan."""

SWEEP = {
    f"{n}, {slices} x {modes}{', shifted' if shift else ''}": Case(
        n, slices, modes, (2, 8 if n < 192 else 4), shift
    )
    for n in (96, 128, 192, 256)
    for slices in (1, 6, 10, 21)
    for modes in (1, 4, 12)
    for shift in (False, True)
}
"""Every combination of size, slices x modes and shift."""

SETS = {"standard": CASES, "public": PUBLIC, "sweep": SWEEP}

_PIXEL_A = 0.2
_STEP_PX = 4
_FRACTION_PX = 0.3
_TILT_RAD = 2e-3, -1e-3


def params_of(case: Case, dtype: str, devices: int | str = 1, seed: int = 0) -> dict[str, Any]:
    """Parameters of a case: a defocused probe, a random phase object, Poisson counts.

    Parameters
    ----------
    case : Case
        The problem size.
    dtype : {"single", "double"}
        Precision of the evaluation.
    devices : int or "auto"
        Number of workers.
    seed : int
        Seed of object and counts.

    Returns
    -------
    dict
        Ready for `pyptyx.run`; nothing is read from or written to disk.
    """
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(case.scan)
    step = _STEP_PX + _FRACTION_PX * case.shift
    positions = step * np.stack([rows.ravel(), columns.ravel()], axis=1)
    size = [fast_length(int(np.ceil(positions[:, axis].max())) + case.n + 2) for axis in (0, 1)]
    phase = rng.normal(scale=0.1, size=(*size, case.slices, 1))
    probe = _probe(case)
    tilts = np.zeros((1, 6))
    tilts[0, 2:4] = _TILT_RAD if case.tilt else 0
    mean = np.mean(np.abs(np.fft.fft2(probe, axes=(0, 1))) ** 2, axis=2)
    dataset = rng.poisson(np.fft.fftshift(mean), size=(case.patterns, case.n, case.n))
    return {
        "dataset": dataset.astype(np.uint16),
        "scan_size": case.scan,
        "positions": positions,
        "obj": np.exp(1j * phase),
        "probe": probe,
        "slice_distances": np.array([10.0]),
        "pixel_size_x_A": _PIXEL_A,
        "pixel_size_y_A": _PIXEL_A,
        "acc_voltage": 300.0,
        "tilts": tilts,
        "update_tilts": int(case.tilt),
        "skip_preprocessing": True,
        "update_obj": 1,
        "update_probe": 1,
        "default_dtype": dtype,
        "devices": devices,
        "output_folder": None,
        "print_flag": 0,
    }


def _probe(case: Case) -> np.ndarray:
    """Defocused round probe, ``(n, n, modes)``, 10 000 counts per pattern in each mode."""
    frequency = np.fft.fftfreq(case.n)
    q2 = frequency[:, None] ** 2 + frequency[None, :] ** 2
    aperture = (q2 < 0.2**2) * np.exp(-2j * np.pi * case.n * q2)
    wave = np.fft.fftshift(np.fft.ifft2(aperture))
    tilt = np.exp(2j * np.pi * np.arange(case.n) / case.n)
    modes = np.stack([wave * tilt[:, None] ** m for m in range(case.modes)], axis=-1)
    counts = np.sum(np.abs(modes) ** 2, axis=(0, 1)) * case.n**2
    return modes * np.sqrt(1e4 / counts)
