"""Tilt-corrected bright field: shifted images of the detector pixels, aligned and added.

Pixel ``k`` sees a feature at ``r`` when the probe is at ``r - s(k)``, ``s = ∇χ / 2π``.  Adding all
images shifted by ``+s(k)`` (`aligned_image`) uses nearly all electrons of the disc; and since the
shifts fall between the scan points, the sum can have finer pixels than the scan.

Measured the other way round, the shifts tell the aberrations and the scan rotation
(`measure_shifts`, `fit_shifts`): a simple alternative to `pyptyx.methods.varpro` that needs no
weak object, but enough counts in each bin to align its image.

References
----------
S. M. Ribet et al., Microsc. Microanal. 30 (2024) (tilt-corrected STEM);  M. Guizar-Sicairos,
S. T. Thurman, J. R. Fienup, Opt. Lett. 33 (2008) 156-158 (sub-pixel correlation).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.fft
from scipy.optimize import least_squares

from pyptyx.errors import DataError, Problem
from pyptyx.methods.bright_field import BrightField
from pyptyx.methods.gamma import Coefficients, Overlaps, Pupil, detector_frame
from pyptyx.methods.scan_spectrum import (
    Spectrum,
    chunk_spectra,
    pixel_chunks,
    pupil_of,
    shifts_A,
    spectrum_of,
    unit_phase,
)
from pyptyx.methods.shared_sums import chunks, summed

_FINE = 0.02
"""Step of the sub-pixel search in scan points."""

_EDGE = 1e-3
"""Fewer samples than this at a pixel of the fine grid fade to nothing."""


# ---------------------------------------------------------------------------------------------
# Images
# ---------------------------------------------------------------------------------------------


def scan_shifts_A(bright: BrightField, pupil: Pupil, rotation_rad: float) -> np.ndarray:
    """Shifts ``s(k)`` in Å, rows (y, x), in the frame of the scan."""
    return detector_frame(shifts_A(bright.k_A, pupil), -rotation_rad)


def aligned_image(
    bright: BrightField,
    coefficients_A: Coefficients,
    rotation_rad: float = 0.0,
    *,
    upsample: int = 1,
    pad: int = 0,
    whole_pixels: bool = False,
    flip: bool = False,
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
    upsample : int
        Pixels per scan step.
    pad : int
        Scan points added on each side, where some pixels see what others do not.
    whole_pixels : bool
        Give each value to the nearest pixel only.
    flip : bool
        Correct the phase of the transfer: no contrast reversals, atoms bright.

    Returns
    -------
    ndarray ((Ny + 2 pad) U, (Nx + 2 pad) U)
        1 is the mean of the scan.
    """
    pupil = pupil_of(bright, coefficients_A)
    shifts = scan_shifts_A(bright, pupil, rotation_rad) / bright.step_A * upsample
    ny, nx = bright.scan_size
    shape = ((ny + 2 * pad) * upsample, (nx + 2 * pad) * upsample)
    grid = _Deposit(shape, (ny, nx), upsample, pad * upsample)
    share = np.asarray(bright.mean_fraction, dtype=np.float32)

    def work(piece: slice) -> list[np.ndarray]:
        image, weight = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        for stored, shift, p in zip(bright.images[piece], shifts[piece], share[piece], strict=True):
            values = np.asarray(stored, dtype=np.float32)
            mean = values.mean(dtype=np.float64)
            if mean > 0:
                grid.add(image, values * np.float32(p / mean), shift, whole_pixels)
                grid.add(weight, np.broadcast_to(p, values.shape), shift, whole_pixels)
        return [image.astype(np.float64), weight.astype(np.float64)]

    image, weight = summed(work, chunks(len(share), 64))
    # Wiener-like, so that the border fades to the mean instead of amplifying single values.
    floor = _EDGE * share.sum()
    mean = image.sum() / max(weight.sum(), floor)
    picture = mean + (image - mean * weight) * weight / (weight**2 + floor**2)
    if not flip:
        return picture
    return mean + _flipped(bright, pupil, rotation_rad, picture - mean, bright.step_A / upsample)


@dataclass(frozen=True)
class _Deposit:
    """Adds a coarse image to a fine one at a displacement; what leaves the frame is lost."""

    shape: tuple[int, int]
    size: tuple[int, int]
    upsample: int
    origin: int

    def add(
        self, target: np.ndarray, values: np.ndarray, shift: np.ndarray, whole_pixels: bool
    ) -> None:
        """Add `values (Ny, Nx)`, displaced by `shift` (y, x) in fine pixels."""
        corner = np.rint(shift) if whole_pixels else np.floor(shift)
        part = shift - corner
        corners = [(0, 0)] if whole_pixels else [(0, 0), (0, 1), (1, 0), (1, 1)]
        for step in corners:
            weight = 1.0
            if not whole_pixels:
                weight = math.prod(f if s else 1 - f for s, f in zip(step, part, strict=True))
            spans = [
                self._span(axis, int(c) + s)
                for axis, (c, s) in enumerate(zip(corner, step, strict=True))
            ]
            (to_y, from_y), (to_x, from_x) = spans
            target[to_y, to_x] += np.float32(weight) * values[from_y, from_x]

    def _span(self, axis: int, offset: int) -> tuple[slice, slice]:
        """Where the points that stay inside the frame go, and which they are."""
        first = self.origin + offset
        low = max(0, -(first // self.upsample))
        room = self.shape[axis] - 1 - first
        high = min(self.size[axis], room // self.upsample + 1)
        if high <= low:
            return slice(0, 0), slice(0, 0)
        start = first + low * self.upsample
        stop = first + (high - 1) * self.upsample + 1
        return slice(start, stop, self.upsample), slice(low, high)


def _flipped(
    bright: BrightField, pupil: Pupil, rotation_rad: float, image: np.ndarray, pixel_A: float
) -> np.ndarray:
    """The image with the phase of the transfer of the aligned sum taken out."""
    size = (image.shape[0], image.shape[1])
    spectrum = Spectrum.of(size, size, pixel_A, rotation_rad, 2 * pupil.radius_A)
    transfer = 1j * aligned_transfer(bright, pupil, spectrum)
    modulus = np.abs(transfer)
    plane = scipy.fft.rfft2(image).ravel()
    plane[spectrum.index] *= np.where(modulus > 0, transfer.conj() / np.maximum(modulus, 1e-30), 0)
    return scipy.fft.irfft2(plane.reshape(spectrum.half_shape), s=size)


def aligned_transfer(bright: BrightField, pupil: Pupil, spectrum: Spectrum) -> np.ndarray:
    """``T(q) = Σ_k p_k Γ_k(q) exp(-2πi q·s(k))``, ``(Q,)``; ``iT`` is real for even aberrations."""
    overlaps = Overlaps(spectrum.q_A, pupil, relative=True)
    share = np.asarray(bright.mean_fraction, dtype=np.float32)[:, None]

    def work(piece: slice) -> list[np.ndarray]:
        plus, minus = overlaps(bright.k_A[piece])
        plus -= minus
        ramp = unit_phase(-2 * np.pi * (shifts_A(bright.k_A[piece], pupil) @ spectrum.q_A.T))
        return [np.einsum("kq,kq->q", plus, ramp * share[piece]).astype(np.complex128)]

    return summed(work, pixel_chunks(bright, spectrum))[0]


# ---------------------------------------------------------------------------------------------
# Shifts
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ShiftFit:
    """Aberrations from measured shifts.

    Attributes
    ----------
    coefficients_A : ndarray
        Krivanek coefficients in Å, detector frame.
    rotation_rad : float
        Scan rotation.
    offset_A : ndarray (2,)
        Shift common to all pixels, (y, x), scan frame.
    fitted_A : ndarray (K, 2)
        Shifts of the model, scan frame.
    rms_A : float
        Deviation from the measured ones.
    """

    coefficients_A: np.ndarray
    rotation_rad: float
    offset_A: np.ndarray
    fitted_A: np.ndarray
    rms_A: float


def measure_shifts(
    bright: BrightField,
    start_A: np.ndarray,
    *,
    phase_only: bool = False,
    reference: str = "bf",
) -> tuple[np.ndarray, np.ndarray]:
    """Shifts that align the image of every pixel with a common reference.

    Parameters
    ----------
    bright : BrightField
        Images, binned so that each shows something.
    start_A : ndarray (K, 2)
        Shifts expected, scan frame, (y, x) in Å: they make the reference.
    phase_only : bool
        Use only the phases of the cross spectra.
    reference : {"bf", "zero"}
        The aligned sum, without the image being aligned; or the image of the pixel in the middle.

    Returns
    -------
    shifts_A : ndarray (K, 2)
        Scan frame.
    peak : ndarray (K,)
        Height of the correlation peak relative to that of identical images.
    """
    pupil = pupil_of(bright, ())
    spectrum = spectrum_of(bright, [pupil], 0.0)
    pieces = pixel_chunks(bright, spectrum)
    share = np.asarray(bright.mean_fraction, dtype=np.float32)[:, None]

    def aligned(piece: slice) -> np.ndarray:
        ramp = unit_phase(-2 * np.pi * (start_A[piece] @ spectrum.q_A.T))
        return chunk_spectra(bright, spectrum, piece) * ramp

    total = summed(lambda piece: [(share[piece] * aligned(piece)).sum(axis=0)], pieces)[0]
    middle = int(np.argmin((bright.k_A**2).sum(axis=1)))
    shifts, peaks = np.empty_like(start_A), np.empty(len(start_A))
    for piece in pieces:
        spectra = aligned(piece)
        common = total - share[piece] * spectra
        if reference != "bf":
            common = aligned(slice(middle, middle + 1)).repeat(len(spectra), axis=0)
        cross = common * spectra.conj()
        norm = np.sqrt((np.abs(common) ** 2).sum(axis=1) * (np.abs(spectra) ** 2).sum(axis=1))
        if phase_only:
            cross /= np.maximum(np.abs(cross), 1e-30)
            norm = np.full(len(cross), float(cross.shape[1]))
        for row, (values, scale) in enumerate(zip(cross, norm, strict=True), piece.start):
            moved, height = _peak(values, spectrum)
            shifts[row] = start_A[row] + moved * bright.step_A
            peaks[row] = height / max(float(scale), 1e-30)
    return shifts, peaks


def _peak(cross: np.ndarray, spectrum: Spectrum) -> tuple[np.ndarray, float]:
    """Place (y, x) of the correlation maximum in scan points, and its height."""
    image = scipy.fft.irfft2(spectrum.half_plane(cross), s=spectrum.shape)
    place = np.array(np.unravel_index(int(image.argmax()), image.shape), dtype=np.float64)
    sides = np.array(spectrum.shape)
    place = np.where(place > sides / 2, place - sides, place)
    plane = spectrum.half_plane(cross)
    f_y = np.fft.fftfreq(spectrum.shape[0])
    f_x = np.fft.rfftfreq(spectrum.shape[1])
    height = 0.0
    # Two rounds of local transforms: a tenth of a pixel first, then the final step.
    for width, step in ((1.0, 0.1), (0.1, _FINE)):
        offsets = np.arange(-width, width + step / 2, step)
        e_y = np.exp(2j * np.pi * np.outer(place[0] + offsets, f_y))
        e_x = np.exp(2j * np.pi * np.outer(f_x, place[1] + offsets))
        local = 2 * (e_y @ plane @ e_x).real
        best = np.unravel_index(int(local.argmax()), local.shape)
        place = place + offsets[np.array(best)]
        height = float(local[best])
    return place, height / 2


def fit_shifts(
    bright: BrightField,
    measured_A: np.ndarray,
    start_A: Coefficients,
    rotation_rad: float,
    *,
    fit_rotation: bool = True,
    used: np.ndarray | None = None,
    loss: str = "soft_l1",
    scale_A: float | None = None,
) -> ShiftFit:
    """Aberrations, and the scan rotation, whose shift field comes closest to measured shifts.

    Parameters
    ----------
    bright : BrightField
        Gives the detector coordinates.
    measured_A : ndarray (K, 2)
        Shifts, scan frame, (y, x) in Å.
    start_A : sequence of float
        Start values; as many coefficients are fitted.
    rotation_rad : float
        Scan rotation to start from, or to keep.
    fit_rotation : bool
        Fit it.  It and the signs of all coefficients are found only up to 180°: the solution near
        the start is taken.
    used : ndarray (K,), bool, optional
        Shifts to use.
    loss : str
        Of `scipy.optimize.least_squares`.
    scale_A : float, optional
        Deviation beyond which a shift counts as an outlier; half a scan step by default.

    Raises
    ------
    DataError
        If there are fewer shifts than unknowns.
    """
    number = len(start_A)
    rows = np.ones(len(measured_A), bool) if used is None else used
    if 2 * rows.sum() < number + 3:
        wanted = f"at least {number // 2 + 2} usable shifts for {number} aberrations"
        remedy = "Bin less, fit fewer aberrations, or reject fewer shifts"
        raise DataError(Problem("binning_for_fit", wanted, str(int(rows.sum())), remedy))
    basis = np.stack(
        [shifts_A(bright.k_A, pupil_of(bright, unit)) for unit in np.eye(number)], axis=-1
    )
    # In units that move the pixel at the rim of the disc by one Å.
    sizes = np.sqrt((basis[rows] ** 2).sum(axis=1).max(axis=0))
    sizes = np.where(sizes > 0, sizes, 1.0)

    def model(p: np.ndarray) -> np.ndarray:
        turned = detector_frame(basis @ (p[:number] / sizes), -p[number + 2])
        return turned + p[number : number + 2]

    def misfit(p: np.ndarray) -> np.ndarray:
        full = p if fit_rotation else np.append(p, rotation_rad)
        return (model(full) - measured_A)[rows].ravel()

    begin = np.concatenate([np.asarray(start_A, float) * sizes, np.zeros(2)])
    if fit_rotation:
        begin = np.append(begin, rotation_rad)
    fit = least_squares(misfit, begin, loss=loss, f_scale=scale_A or 0.5 * bright.step_A)
    p = fit.x if fit_rotation else np.append(fit.x, rotation_rad)
    fitted = model(p)
    rms = float(np.sqrt(((fitted - measured_A)[rows] ** 2).sum(axis=1).mean()))
    return ShiftFit(p[:number] / sizes, float(p[-1]), p[number : number + 2], fitted, rms)
