"""Tilt-corrected bright field: shifted images of the detector pixels, aligned and added.

Pixel ``k`` sees a feature at ``r`` when the probe is at ``r - s(k)``, ``s = ∇χ / 2π``.  Adding all
images shifted by ``+s(k)`` (`aligned_image`) uses nearly all electrons of the disc; and since the
shifts fall between the scan points, the sum can have finer pixels than the scan.

References
----------
S. M. Ribet et al., Microsc. Microanal. 30 (2024) (tilt-corrected STEM).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import scipy.fft

from pyptyx.backend import Backend, MapReduce
from pyptyx.methods.bright_field import BrightField
from pyptyx.methods.gamma import Coefficients, Overlaps, Pupil, detector_frame
from pyptyx.methods.scan_spectrum import (
    Spectrum,
    pixel_chunks,
    pupil_of,
    shifts_A,
    unit_phase,
)
from pyptyx.methods.shared_sums import Work, chunks, summed
from pyptyx.methods.upsampling import exact_factor

Array = Any

_EDGE = 1e-3
"""Fewer samples than this at a pixel of the fine grid fade to nothing."""


def scan_shifts_A(bright: BrightField, pupil: Pupil, rotation_rad: float) -> np.ndarray:
    """Shifts ``s(k)`` in Å, rows (y, x), in the frame of the scan."""
    return detector_frame(shifts_A(bright.k_A, pupil), -rotation_rad)


def aligned_image(
    bright: BrightField,
    coefficients_A: Coefficients,
    rotation_rad: float = 0.0,
    *,
    upsample: float = 1,
    pad: int = 0,
    whole_pixels: bool = False,
    flip: bool = False,
    executor: MapReduce | None = None,
) -> np.ndarray:
    """Sum of the shifted images on a grid `upsample` times as fine as the scan.

    Every measured value goes to where its feature lies, shared among the four nearest pixels, and
    the sum is divided by the sum of the shares.

    Parameters
    ----------
    bright : BrightField
        The images of the bright-field pixels.
    coefficients_A : sequence of float
        Krivanek coefficients in Å, detector frame.
    rotation_rad : float
        Scan rotation φ.
    upsample : float
        Pixels per scan step, a ratio of small whole numbers.
    pad : int
        Scan points added on each side, where some pixels see what others do not.
    whole_pixels : bool
        Give each value to the nearest pixel only.
    flip : bool
        Correct the phase of the transfer: no contrast reversals, atoms bright.
    executor : MapReduce, optional
        Workers that share the pixels; by default the calling thread works alone.

    Returns
    -------
    ndarray ((Ny + 2 pad) U, (Nx + 2 pad) U)
        1 is the mean of the scan; sizes are rounded up.

    Raises
    ------
    ParamError
        If `upsample` is below 1 or no ratio of small whole numbers.
    """
    factor = exact_factor(upsample)
    pupil = pupil_of(bright, coefficients_A)
    shifts = scan_shifts_A(bright, pupil, rotation_rad) / bright.step_A * float(factor)
    grid = _Deposit.of(bright.scan_size, factor, pad, whole_pixels)
    fraction = np.asarray(bright.mean_fraction, dtype=np.float32)

    def prepare(backend: Backend) -> Work:
        xp = backend.xp

        def work(piece: slice) -> list[Array]:
            image, weight = (xp.zeros(grid.shape, np.float32) for _ in range(2))
            ones = xp.ones(bright.scan_size, np.float32)
            for stored, shift, p in zip(
                bright.images[piece], shifts[piece], fraction[piece], strict=True
            ):
                mean = stored.mean(dtype=np.float64)
                if mean > 0:
                    values = backend.asarray(stored).astype(np.float32)
                    values *= np.float32(p / mean)
                    grid.add(image, values, shift)
                    grid.add(weight, ones * p, shift)
            return [image.astype(np.float64), weight.astype(np.float64)]

        return work

    image, weight = summed(prepare, chunks(len(fraction), 64), executor)
    # Wiener-like, so that the border fades to the mean instead of amplifying single values.
    floor = _EDGE * fraction.sum()
    mean = image.sum() / max(weight.sum(), floor)
    picture = mean + (image - mean * weight) * weight / (weight**2 + floor**2)
    if not flip:
        return picture
    pixel_A = bright.step_A / float(factor)
    return mean + _flipped(bright, pupil, rotation_rad, picture - mean, pixel_A, executor)


@dataclass(frozen=True)
class _Deposit:
    """Adds a coarse image to a fine one at a displacement; what leaves the frame is lost.

    With ``a / b`` pixels per scan point, every b-th point lies a whole number of pixels from the
    last: such points are added together.

    Attributes
    ----------
    shape, size : (int, int)
        Of the fine image, and of the scan.
    factor : Fraction
        Pixels per scan point.
    origin : float
        Pixel of the first scan point, along both axes.
    whole_pixels : bool
        All to the nearest pixel, instead of shares to four.
    """

    shape: tuple[int, int]
    size: tuple[int, int]
    factor: Fraction
    origin: float
    whole_pixels: bool

    @classmethod
    def of(cls, size: tuple[int, int], factor: Fraction, pad: int, whole_pixels: bool) -> _Deposit:
        ny, nx = (math.ceil((n + 2 * pad) * factor) for n in size)
        return cls((ny, nx), size, factor, float(pad * factor), whole_pixels)

    def add(self, target: Array, values: Array, shift: np.ndarray) -> None:
        """Add `values (Ny, Nx)`, displaced by `shift` (y, x) in fine pixels."""
        for first in product(range(self.factor.denominator), repeat=2):
            start = self.origin + np.array([float(i * self.factor) for i in first]) + shift
            corner = np.rint(start) if self.whole_pixels else np.floor(start)
            part = start - corner
            for step in [(0, 0)] if self.whole_pixels else product((0, 1), repeat=2):
                weight = 1.0
                if not self.whole_pixels:
                    weight = math.prod(f if s else 1 - f for s, f in zip(step, part, strict=True))
                (to_y, from_y), (to_x, from_x) = (
                    self._span(axis, int(corner[axis]) + step[axis], first[axis]) for axis in (0, 1)
                )
                target[to_y, to_x] += np.float32(weight) * values[from_y, from_x]

    def _span(self, axis: int, place: int, first: int) -> tuple[slice, slice]:
        """Where the points from `first` on that stay inside the frame go, and which they are."""
        stride, every = self.factor.numerator, self.factor.denominator
        number = len(range(first, self.size[axis], every))
        low = max(0, -(place // stride))
        high = min(number, (self.shape[axis] - 1 - place) // stride + 1)
        if high <= low:
            return slice(0, 0), slice(0, 0)
        to = slice(place + low * stride, place + (high - 1) * stride + 1, stride)
        return to, slice(first + low * every, first + (high - 1) * every + 1, every)


def _flipped(
    bright: BrightField,
    pupil: Pupil,
    rotation_rad: float,
    image: np.ndarray,
    pixel_A: float,
    executor: MapReduce | None,
) -> np.ndarray:
    """The image with the phase of the transfer of the aligned sum taken out."""
    size = (image.shape[0], image.shape[1])
    spectrum = Spectrum.of(size, size, pixel_A, rotation_rad, 2 * pupil.radius_A)
    transfer = 1j * aligned_transfer(bright, pupil, spectrum, executor)
    modulus = np.abs(transfer)
    plane = scipy.fft.rfft2(image).ravel()
    plane[spectrum.index] *= np.where(modulus > 0, transfer.conj() / np.maximum(modulus, 1e-30), 0)
    return scipy.fft.irfft2(plane.reshape(spectrum.half_shape), s=size)


def aligned_transfer(
    bright: BrightField,
    pupil: Pupil,
    spectrum: Spectrum,
    executor: MapReduce | None = None,
) -> np.ndarray:
    """``T(q) = Σ_k p_k Γ_k(q) exp(-2πi q·s(k))``, ``(Q,)``; ``iT`` is real for even aberrations."""
    overlaps = Overlaps(spectrum.q_A, pupil, relative=True)
    fraction = np.asarray(bright.mean_fraction, dtype=np.float32)[:, None]

    def prepare(backend: Backend) -> Work:
        here, pairs_of, xp = spectrum.on(backend), overlaps.on(backend), backend.xp

        def work(piece: slice) -> list[Array]:
            plus, minus = pairs_of(bright.k_A[piece])
            plus -= minus
            shift = backend.asarray(shifts_A(bright.k_A[piece], pupil))
            ramp = unit_phase(-2 * np.pi * (shift @ here.q_A.T), xp)
            ramp *= backend.asarray(fraction[piece])
            return [xp.einsum("kq,kq->q", plus, ramp).astype(np.complex128)]

        return work

    return summed(prepare, pixel_chunks(len(fraction), spectrum, executor), executor)[0]
