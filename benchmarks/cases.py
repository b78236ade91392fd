"""Synthetic data sets, stated through public parameters only."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


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
    """

    n: int
    slices: int
    modes: int
    scan: tuple[int, int]
    shift: bool = False

    @property
    def patterns(self) -> int:
        """Number of patterns."""
        return self.scan[0] * self.scan[1]

    def as_dict(self) -> dict[str, Any]:
        """Fields by name."""
        return asdict(self)


CASES = {
    "small": Case(n=64, slices=1, modes=1, scan=(16, 18)),
    "standard": Case(n=128, slices=1, modes=1, scan=(14, 16)),
    "standard, shifted": Case(n=128, slices=1, modes=1, scan=(14, 16), shift=True),
    "n=96, shifted": Case(n=96, slices=1, modes=1, scan=(14, 16), shift=True),
    "mixed": Case(n=128, slices=1, modes=4, scan=(8, 10)),
    "multislice": Case(n=128, slices=10, modes=1, scan=(16, 20)),
    "large": Case(n=256, slices=1, modes=1, scan=(6, 8)),
}

_PIXEL_A = 0.2
_STEP_PX = 4
_FRACTION_PX = 0.3


def params_of(case: Case, dtype: str, devices: int | str, seed: int = 0) -> dict[str, Any]:
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
    size = [int(np.ceil(positions[:, axis].max())) + case.n + 2 for axis in (0, 1)]
    phase = rng.normal(scale=0.1, size=(*size, case.slices, 1))
    probe = _probe(case)
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
