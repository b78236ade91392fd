"""Aberrations and scan rotation from the shifts between the images of detector pixels.

Pixel ``k`` sees a feature at ``r`` when the probe is at ``r - s(k)``, ``s = ∇χ / 2π``.  Measured,
these shifts tell the optics: a simple alternative to `pyptyx.methods.varpro` that needs no weak
object, but enough counts in each bin to align its image.

References
----------
M. Guizar-Sicairos, S. T. Thurman, J. R. Fienup, Opt. Lett. 33 (2008) 156-158 (sub-pixel
correlation).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.fft
from scipy.optimize import least_squares

from pyptyx.backend import Backend, MapReduce
from pyptyx.errors import DataError, Problem
from pyptyx.methods.bright_field import BrightField
from pyptyx.methods.gamma import Coefficients, detector_frame
from pyptyx.methods.scan_spectrum import (
    Spectrum,
    chunk_spectra,
    pixel_chunks,
    pupil_of,
    shifts_A,
    spectrum_of,
    unit_phase,
)
from pyptyx.methods.shared_sums import Work, spread, summed

Array = Any

_FINE = 0.02
"""Step of the sub-pixel search in scan points."""


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
    executor: MapReduce | None = None,
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
    executor : MapReduce, optional
        Workers that share the pixels; by default the calling thread works alone.

    Returns
    -------
    shifts_A : ndarray (K, 2)
        Scan frame.
    peak : ndarray (K,)
        Height of the correlation peak relative to that of identical images.
    """
    pupil = pupil_of(bright, ())
    # The edges of the scan stay where they are: they must not be correlated.
    spectrum = replace(spectrum_of(bright, [pupil], 0.0, periodic=True), taper_px=None)
    pieces = pixel_chunks(len(start_A), spectrum, executor)
    fraction = np.asarray(bright.mean_fraction, dtype=np.float32)[:, None]

    def aligned(piece: slice, here: Spectrum, backend: Backend) -> Array:
        phase = -2 * np.pi * (backend.asarray(start_A[piece]) @ here.q_A.T)
        return chunk_spectra(bright, here, piece, backend) * unit_phase(phase, backend.xp)

    def adding(backend: Backend) -> Work:
        here = spectrum.on(backend)

        def work(piece: slice) -> list[Array]:
            return [(backend.asarray(fraction[piece]) * aligned(piece, here, backend)).sum(axis=0)]

        return work

    total = summed(adding, pieces, executor)[0]
    middle = int(np.argmin((bright.k_A**2).sum(axis=1)))
    shifts, peaks = np.empty_like(start_A), np.empty(len(start_A))

    def comparing(backend: Backend) -> Work:
        here, whole, xp = spectrum.on(backend), backend.asarray(total), backend.xp

        def work(piece: slice) -> None:
            spectra = aligned(piece, here, backend)
            common = whole - backend.asarray(fraction[piece]) * spectra
            if reference != "bf":
                common = xp.broadcast_to(
                    aligned(slice(middle, middle + 1), here, backend), spectra.shape
                )
            cross = common * spectra.conj()
            norm = xp.sqrt((abs(common) ** 2).sum(axis=1) * (abs(spectra) ** 2).sum(axis=1))
            if phase_only:
                cross /= xp.maximum(abs(cross), 1e-30)
                norm = xp.full_like(norm, cross.shape[1])
            scales = np.maximum(backend.to_host(norm).astype(float), 1e-30)
            for row, values in enumerate(backend.to_host(cross)):
                moved, height = _peak(values, spectrum)
                shifts[piece][row] = start_A[piece][row] + moved * bright.step_A
                peaks[piece][row] = height / scales[row]

        return work

    spread(comparing, pieces, executor)
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
