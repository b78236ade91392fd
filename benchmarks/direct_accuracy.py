"""Direct methods against a known truth: ``python -m benchmarks.direct_accuracy FILE.h5``.

FILE holds patterns ``data (sy, sx, ky, kx)`` of a regular scan and the attributes ``energy`` (eV),
``semiangle`` (mrad), ``defocus`` (Å, + is underfocus), ``step``, ``dk``.  What `calibrate` finds
without knowing rotation, axes and defocus is compared with them.  If the projected phase of a
periodic cell is there (``truth/phase``, ``positions``, attributes ``cell``, ``dx``), the images of
the direct methods are compared with it, and with what the linear theory predicts for their dose:

    ``φ̂ = f · (φ̃ + n)``,  ``var n = N_R / (4 N_e DQE)``,  ``DQE = |Σ W Γ|² / (4 Σ |W|² p)``

for weights ``W`` on the spectra of detector pixels with shares ``p`` of the ``N_e`` electrons per
pattern, ``N_R`` scan points, and the filter ``f`` that a method applies.  Nothing of the methods is
used for the prediction but the double overlap ``Γ``.  A last column is the same specimen, thin,
without noise: what is missing to 1 there is not noise but the strength of the phase.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import pyptyx
from pyptyx.engine.calibrate import calibrate
from pyptyx.methods.gamma import gamma, half_plane_A
from pyptyx.methods.wdd import automatic_epsilon

METHODS = ("mf", "ssb", "obf", "tcbf", "wdd")
_SEEDS = 8
_BLOCK = 256
_REACH = 1.6
"""Half side of the box of WDD in radii of the disc."""

_DAMPING = 1e-2
_NOTHING = 1e-8
"""Quantum efficiency that is rounding."""


@dataclass(frozen=True)
class Truth:
    """Spectrum of the projected phase (rad) of a square periodic cell, and the first scan point."""

    spectrum: np.ndarray
    cell_A: float
    start_A: np.ndarray

    def on(self, shape: tuple[int, int], pixel_A: float, q_max_A: float = math.inf) -> np.ndarray:
        """The phase on a grid whose first pixel is the first scan point, up to a frequency."""
        q = np.fft.fftfreq(len(self.spectrum), self.cell_A / len(self.spectrum))
        kept = self.spectrum * (np.hypot(q[:, None], q) <= q_max_A)
        rows, columns = (
            np.exp(2j * np.pi * np.outer(start + pixel_A * np.arange(n), q))
            for start, n in zip(self.start_A, shape, strict=True)
        )
        return (rows @ kept @ columns.T).real


@dataclass(frozen=True)
class Case:
    """An experiment: what a microscopist knows, and what the file says beyond that."""

    known: dict[str, Any]
    c10_A: float
    electrons: float
    scan: tuple[int, int]
    truth: Truth | None

    @property
    def wavelength_A(self) -> float:
        """Å."""
        return pyptyx.wavelength_A(self.known["acc_voltage"])

    @property
    def radius_A(self) -> float:
        """Radius of the aperture in 1/Å."""
        return self.known["conv_semiangle_mrad"] * 1e-3 / self.wavelength_A

    @property
    def step_A(self) -> float:
        """Scan step."""
        return self.known["scan_step_A"]

    def params(self, **changes: Any) -> dict[str, Any]:
        """Parameters with the defocus that the specimen sees."""
        experiment = {**self.known, "PLRotation_deg": 0.0, "defocus": self.c10_A, **changes}
        return pyptyx.append_exp_params(experiment, {})


def read(path: Path) -> Case:
    """Everything a file says."""
    with h5py.File(path) as file:
        about = {name: file.attrs[name] for name in ("energy", "semiangle", "step", "dk")}
        scan = file["data"].shape[:2]
        counts = sum(float(rows.sum(dtype=np.float64)) for rows in file["data"])
        c10_A = -float(file.attrs["defocus"]) + _sheet_A(file)
        truth = None
        if "truth/phase" in file and max(file.attrs.get("slab_thickness", 0), 0) == 0:
            phase = file["truth/phase"][()].astype(float)
            start = file["positions"][0, 0]
            truth = Truth(np.fft.fft2(phase) / phase.size, float(file.attrs["cell"]), start)
    known = {
        "data_path": str(path),
        "acc_voltage": float(about["energy"]) / 1e3,
        "conv_semiangle_mrad": float(about["semiangle"]),
        "scan_step_A": float(about["step"]),
        "rez_pixel_size_A": float(about["dk"]),
        "output_folder": None,
        "print_flag": 0,
    }
    return Case(known, c10_A, counts / math.prod(scan), scan, truth)


def _sheet_A(file: h5py.File) -> float:
    """How far below the plane of the nominal defocus the specimen scatters, in Å.

    Atoms count by their atomic number.  A multislice calculation lets a slice scatter at its upper
    face, half a slice above its atoms on average.
    """
    if "truth/atoms" not in file:
        return 0.0
    atoms = file["truth/atoms"]
    middle = np.average(atoms["positions"][:, 2], weights=atoms["numbers"][:])
    thickness, slice_A = file.attrs["thickness"], file.attrs["slice_thickness"]
    return float(middle - thickness / math.ceil(thickness / slice_A) / 2)


# ---------------------------------------------------------------------------------------------
# What the theory says
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Overlaps:
    """``G⁺``, ``G⁻`` ``(K, Q)`` and ``p (K, 1)`` of a disc of one electron."""

    plus: np.ndarray
    minus: np.ndarray
    share: np.ndarray

    @property
    def both(self) -> np.ndarray:
        """``Γ``."""
        return self.plus - self.minus


@dataclass(frozen=True)
class Theory:
    """Transfer and noise of a method, at the frequencies of one period of the truth."""

    case: Case
    truth: Truth

    @property
    def points(self) -> int:
        """Scan steps per period."""
        return round(self.truth.cell_A / self.case.step_A)

    @cached_property
    def q_A(self) -> np.ndarray:
        """Frequencies ``(Q, 2)`` of the half plane."""
        return half_plane_A((self.points, self.points), self.case.step_A).reshape(-1, 2)

    @cached_property
    def k_A(self) -> np.ndarray:
        """Detector pixels ``(K, 2)`` of a square around the disc."""
        dk = self.case.known["rez_pixel_size_A"]
        half = math.ceil(_REACH * self.case.radius_A / dk)
        k = dk * np.arange(-half, half + 1)
        return np.stack(np.meshgrid(k, k, indexing="ij"), axis=-1).reshape(-1, 2)

    def overlaps(self, q_A: np.ndarray) -> Overlaps:
        """Those of some frequencies."""
        optics = (self.case.wavelength_A, self.case.radius_A * self.case.wavelength_A)
        soft = self.case.known["rez_pixel_size_A"]
        at_zero = gamma(self.k_A, np.zeros((1, 2)), [0.0], *optics, soft)[0].real
        total = at_zero.sum()
        plus, minus, _ = gamma(self.k_A, q_A, [self.case.c10_A], *optics, soft)
        return Overlaps(plus / total, minus / total, at_zero / total)

    def transfer(self, method: str) -> tuple[np.ndarray, np.ndarray]:
        """``|Σ W Γ|`` and detective quantum efficiency, both ``(Q,)``."""
        blocks = []
        for first in range(0, len(self.q_A), _BLOCK):
            q_A = self.q_A[first : first + _BLOCK]
            overlaps = self.overlaps(q_A)
            weights = self._weights(method, overlaps, q_A)
            signal = np.abs((weights * overlaps.both).sum(axis=0))
            noise = (np.abs(weights) ** 2 * overlaps.share).sum(axis=0)
            blocks.append((signal, signal**2 / np.maximum(4 * noise, 1e-30)))
        signal, efficiency = (np.concatenate(part) for part in zip(*blocks, strict=True))
        return signal, np.where(efficiency > _NOTHING, efficiency, 0)

    def images(self, method: str) -> Iterator[np.ndarray]:
        """Images ``(sy, sx)`` of an ideal experiment, one per seed of the noise."""
        n = self.points
        # What the scan can hold; beyond it the images have aliases, which are noise.
        phase = self.truth.on((n, n), self.case.step_A, 0.5 / self.case.step_A)
        spectrum = np.fft.rfft2(phase).ravel()
        signal, efficiency = self.transfer(method)
        seen = efficiency > 0
        variance = n * n / (4 * self.case.electrons * np.where(seen, efficiency, np.inf))
        ring = np.rint(np.hypot(*self.q_A.T) * self.truth.cell_A).astype(int)
        power = (np.bincount(ring, np.abs(spectrum) ** 2) / np.bincount(ring))[ring]
        ssnr = np.where(seen, power / np.where(seen, variance, 1), 0)
        wiener = ssnr / (1 + ssnr)
        gain = {
            "obf": wiener * np.sqrt(efficiency),
            "tcbf": wiener * signal / 2,
            "wdd": np.where(seen, signal, 0),
        }.get(method, wiener)
        rng = np.random.default_rng(0)
        for _ in range(_SEEDS):
            white = np.fft.rfft2(rng.normal(size=(n, n))).ravel() / n
            found = gain * (spectrum + np.sqrt(variance) * white)
            image = np.fft.irfft2(found.reshape(n, -1), s=(n, n))
            yield image[: self.case.scan[0], : self.case.scan[1]]

    def _weights(self, method: str, overlaps: Overlaps, q_A: np.ndarray) -> np.ndarray:
        """``W (K, Q)``."""
        both, share = overlaps.both, overlaps.share
        if method in ("mf", "obf"):
            return np.where(share > 0, both.conj() / np.where(share > 0, share, 1), 0)
        if method == "ssb":
            size = np.abs(both)
            seen = size > 1e-3 * share
            return np.where(seen, both.conj() / np.where(seen, size, 1), 0)
        if method == "tcbf":
            shift_A = self.case.wavelength_A * self.case.c10_A * self.k_A
            return (share > 0) * np.exp(-2j * np.pi * shift_A @ q_A.T)
        full = self._side_band(share.astype(complex))[1]
        bands = []
        for overlap in (overlaps.plus, overlaps.minus):
            back, transfer = self._side_band(overlap)
            relative = transfer / full
            damped = relative * (1 + _DAMPING) / (relative + _DAMPING)
            bands.append(back * (damped / np.maximum(transfer, _NOTHING * full)))
        return 0.5 * (bands[0] - bands[1])

    def _side_band(self, overlap: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights ``(K, Q)`` and transfer ``(Q,)`` of a Wigner distribution deconvolution."""
        side = math.isqrt(len(self.k_A))
        x = np.fft.ifft2(overlap.T.reshape(-1, side, side), norm="forward")
        power = np.abs(x) ** 2
        wiener = 1 / (power + automatic_epsilon(self.case.electrons))
        back = np.fft.fft2(x * wiener).conj()
        return back.reshape(len(back), -1).T, (power * wiener).sum(axis=(1, 2))


# ---------------------------------------------------------------------------------------------
# What the methods reach
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Agreement:
    """Pearson correlation, fitted scale, and frequency in 1/Å where the FRC falls below 0.5."""

    correlation: float
    scale: float
    frc_A: float


def compare(image: np.ndarray, truth: np.ndarray, pixel_A: float, q_max_A: float) -> Agreement:
    """An image against the truth on the same pixels, both without what is beyond `q_max_A`."""
    y, x = (i.ravel() - i.mean() for i in np.indices(image.shape, dtype=float))
    design = np.stack([np.ones(image.size), y, x, truth.ravel()], axis=1)
    fit = np.linalg.lstsq(design, image.ravel(), rcond=None)[0]
    image = image - (design[:, :3] @ fit[:3]).reshape(image.shape)
    truth = truth - truth.mean()
    a, b = (_low_pass(part, pixel_A, q_max_A) for part in (image, truth))
    a, b = a - a.mean(), b - b.mean()
    frc, q_A = _ring_correlation(image, truth, pixel_A)
    below = np.flatnonzero(frc[1:] < 0.5) + 1
    edge = q_A[-1]
    if len(below):
        last = below[0] - 1
        edge = np.interp(0.5, frc[[last + 1, last]], q_A[[last + 1, last]])
    return Agreement(
        float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())),
        float((a * b).sum() / (b * b).sum()),
        float(edge),
    )


def _low_pass(image: np.ndarray, pixel_A: float, q_max_A: float) -> np.ndarray:
    padded = np.pad(image, 24)
    q = np.hypot(*(half_plane_A(padded.shape, pixel_A)[..., axis] for axis in (0, 1))) / q_max_A
    gain = 0.5 * (1 + np.cos(np.pi * np.clip((q - 0.92) / 0.16, 0, 1)))
    return np.fft.irfft2(np.fft.rfft2(padded) * gain, s=padded.shape)[24:-24, 24:-24]


def _ring_correlation(
    a: np.ndarray, b: np.ndarray, pixel_A: float
) -> tuple[np.ndarray, np.ndarray]:
    window = np.outer(*(np.hanning(n + 2)[1:-1] for n in a.shape))
    one, other = (np.fft.fft2((part - part.mean()) * window) for part in (a, b))
    q = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n, pixel_A) for n in a.shape), indexing="ij"))
    width = 1.5 / (min(a.shape) * pixel_A)
    ring = (q / width).astype(int)
    cross, own, its = (
        np.bincount(ring.ravel(), part.ravel())
        for part in ((one * other.conj()).real, np.abs(one) ** 2, np.abs(other) ** 2)
    )
    last = int(0.5 / pixel_A / width)
    return (cross / np.sqrt(own * its))[:last], (np.arange(last) + 0.5) * width


def reconstruct(params: dict[str, Any], method: str) -> np.ndarray:
    """Phase image by one of the direct methods."""
    if method == "wdd":
        return np.angle(pyptyx.wdd(params, eps_wiener="auto"))
    return pyptyx.direct_image(params, method).phase


def without_noise(case: Case, truth: Truth) -> np.ndarray:
    """Patterns of the thin specimen ``exp(i phase)``, float32, on the detector of the file."""
    dk = case.known["rez_pixel_size_A"]
    with h5py.File(case.known["data_path"]) as file:
        detector = file["data"].shape[2:]
    # The pixels of the truth must be fine enough for what is scattered beyond the detector.
    n = 2 * len(truth.spectrum)
    transmission = np.exp(1j * truth.on((n, n), truth.cell_A / n))
    q = np.fft.fftfreq(n, truth.cell_A / n)
    size = np.hypot(q[:, None], q)
    pupil = np.clip((case.radius_A - size) / dk + 0.5, 0, 1)
    pupil = pupil * np.exp(-1j * np.pi * case.wavelength_A * case.c10_A * size**2)
    pupil /= np.sqrt((np.abs(pupil) ** 2).sum())
    rows, columns = (slice(n // 2 - m // 2, n // 2 - m // 2 + m) for m in detector)
    out = np.empty((*case.scan, *detector), np.float32)
    for i, j in np.ndindex(*case.scan):
        ramp = np.exp(-2j * np.pi * case.step_A * (i * q[:, None] + j * q))
        wave = np.fft.fft2(np.fft.ifft2(pupil * ramp) * transmission)
        out[i, j] = np.fft.fftshift(np.abs(wave) ** 2)[rows, columns]
    return out


def find_optics(case: Case, path: Path) -> None:
    """Print what the calibration finds, and what the file says."""
    params = case.params(defocus=0.0)
    print(calibrate(params).report)
    with h5py.File(path) as file:
        rotation = file.attrs.get("rotation_deg", 0.0)
        print(f"the file:  rotation {rotation:g}°, C10 {-float(file.attrs['defocus']):.5g} Å "
              f"where the beam is given, {case.c10_A:.5g} Å at the specimen")  # fmt: skip


def tabulate(case: Case, truth: Truth) -> None:
    """Print the table of methods.

    `border` is as far as aberrations move images: there some of them left the scan.
    """
    theory = Theory(case, truth)
    params = case.params()
    ideal = case.params(dataset=1e9 * without_noise(case, truth))
    border = math.ceil(1e-3 * case.known["conv_semiangle_mrad"] * abs(case.c10_A) / case.step_A)

    def judge(image: np.ndarray, margin: int = border) -> list[float]:
        inside = tuple(slice(margin, n - margin) for n in case.scan)
        exact = truth.on(case.scan, case.step_A)[inside]
        return list(vars(compare(image[inside], exact, case.step_A, 2 * case.radius_A)).values())

    print(f"border: {border * case.step_A:g} Å")
    print("| method | whole field | inside | predicted | without noise |\n|---|---|---|---|---|")
    for method in METHODS:
        image = reconstruct(params, method)
        predicted = np.mean([judge(seed) for seed in theory.images(method)], axis=0)
        columns = (judge(image, 0), judge(image), predicted, judge(reconstruct(ideal, method)))
        cells = " | ".join("{:.3f}, {:.2f}, {:.2f} 1/Å".format(*values) for values in columns)
        print(f"| `{method}` | {cells} |", flush=True)


def main(argv: list[str] | None = None) -> int:
    """Run the comparison.

    Parameters
    ----------
    argv : list of str, optional
        Arguments; by default those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.direct_accuracy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, help="HDF5 file")
    parser.add_argument("--only", choices=("calibration", "images"), help="one half of the work")
    arguments = parser.parse_args(argv)
    case = read(arguments.file)
    if arguments.only != "images":
        find_optics(case, arguments.file)
    if arguments.only != "calibration" and case.truth is not None:
        tabulate(case, case.truth)
    return 0


if __name__ == "__main__":
    sys.exit(main())
