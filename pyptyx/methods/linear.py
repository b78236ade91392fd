"""Linear images of a weak object: one kernel for matched filter, SSB, OBF, tilt-corrected BF, iCOM.

All of them are weighted sums over the bright-field pixels of the spectra ``F_k(q)`` of the images
these pixels record, divided by their mean.  For a weak phase object ``F_k = i φ̃ Γ_k`` (`gamma`,
here per ``a(k)²``), so that with weights ``W_k(q)``

    ``N = Σ W F``,  ``T = Σ W Γ``,  ``V = Σ |W|² σ_k²``,  ``σ_k² = N_R / (N_e p_k)``
    ``φ̃ = N / (iT)``,  information ``D = |T|² / V = 1 / var φ̃``.

``N_R`` scan points, ``N_e`` counts per pattern, ``p_k`` the share of pixel ``k``.  The kernels:

    ========  ==============================  ============================================
    ``mf``    ``p Γ*``                        matched filter: the largest ``D`` there is
    ``obf``   ``p Γ*``, noise made white      same ``D``; not in rad
    ``ssb``   ``p Γ* / |Γ|``                  single side band, phase only
    ``tcbf``  ``p exp(-2πi q·s(k))``          aligned bright field, phases of ``T`` corrected
    ``icom``  ``p k·q / q²``                  integrated centre of mass
    ========  ==============================  ============================================

Only sums over ``k`` are kept, separately for the even and the odd pixels: these are two images with
independent noise, from which the power of object and noise, the Fourier ring correlation and the
Wiener filter follow without any assumption about the gain of the detector.

References
----------
T. J. Pennycook et al., Ultramicroscopy 151 (2015) 160-167 (SSB);  K. Ooe et al., Ultramicroscopy
220 (2021) 113133 (OBF);  I. Lazić et al., Ultramicroscopy 160 (2016) 265-280 (iCOM).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyptyx.backend import Backend, MapReduce
from pyptyx.errors import ParamError, Problem
from pyptyx.methods.bright_field import BrightField
from pyptyx.methods.gamma import Coefficients, Overlaps, Pupil
from pyptyx.methods.quality import Quality, compare_halves
from pyptyx.methods.scan_spectrum import (
    Spectrum,
    chunk_spectra,
    pixel_chunks,
    pupil_of,
    ratio,
    shifts_A,
    spectrum_of,
    unit_phase,
)
from pyptyx.methods.shared_sums import Work, summed

Array = Any

KERNELS = ("mf", "ssb", "obf", "tcbf", "icom")

_NOTHING = 1e-10
"""Quantum efficiency that is rounding, not signal."""

_TINY = 1e-100
"""In place of a noise of zero."""


@dataclass(frozen=True)
class LinearImage:
    """A phase image and what is known about its quality.

    Attributes
    ----------
    phase : ndarray (Ny, Nx)
        rad, mean zero; for ``obf`` in units of the best transferred frequency.
    transfer : ndarray (Py, Px // 2 + 1)
        Detective quantum efficiency: information relative to an ideal Zernike phase plate.
    ssnr : ndarray (Py, Px // 2 + 1)
        Predicted spectral signal-to-noise ratio (of powers).
    frc, frc_q_A : ndarray
        Fourier ring correlation of the two half sets, and its frequencies in 1/Å.
    resolution_A : float
        Period at which it falls below 0.143; the finest of the scan or disc if it never does.
    noise_rad : float
        Standard deviation of the noise of a pixel.
    """

    phase: np.ndarray
    transfer: np.ndarray
    ssnr: np.ndarray
    frc: np.ndarray
    frc_q_A: np.ndarray
    resolution_A: float
    noise_rad: float


@dataclass(frozen=True)
class Pixels:
    """What a kernel sees of a chunk of pixels; but for `k_A` the arrays lie on the device.

    Attributes
    ----------
    k_A : ndarray (B, 2)
        Coordinates in 1/Å, on the host.
    fraction : array (B, 1)
        Share of the counts.
    gamma : array (B, Q)
        Overlaps ``Γ_k(q)``.
    q_A : array (Q, 2)
        Frequencies in 1/Å.
    pupil : Pupil
    backend : Backend
    """

    k_A: np.ndarray
    fraction: Array
    gamma: Array
    q_A: Array
    pupil: Pupil
    backend: Backend


def _matched(pixels: Pixels) -> Array:
    return pixels.gamma.conj() * pixels.fraction


def _side_band(pixels: Pixels) -> Array:
    xp = pixels.backend.xp
    size = xp.abs(pixels.gamma)
    seen = size > 1e-3
    return _matched(pixels) * xp.where(seen, 1 / xp.where(seen, size, 1), 0)


def _aligned(pixels: Pixels) -> Array:
    shift = pixels.backend.asarray(shifts_A(pixels.k_A, pixels.pupil))
    phase = -2 * np.pi * (shift @ pixels.q_A.T)
    return pixels.fraction * unit_phase(phase, pixels.backend.xp)


def _moment(pixels: Pixels) -> Array:
    along = pixels.backend.asarray(pixels.k_A) @ pixels.q_A.T / (pixels.q_A**2).sum(axis=1)
    return pixels.fraction * along.astype(np.float32)


Weigh = Callable[[Pixels], Array]

WEIGHTS: dict[str, Weigh] = {
    "mf": _matched,
    "obf": _matched,
    "ssb": _side_band,
    "tcbf": _aligned,
    "icom": _moment,
}
"""``W`` of each kernel; proportional to the share of the counts."""

FORMS = {"tcbf": "flip", "obf": "white"}
"""What is made of the sums of a kernel, unless a phase: see `finish`."""


def linear_images(
    bright: BrightField,
    coefficient_sets: Iterable[Coefficients],
    rotation_rad: float = 0.0,
    *,
    kernel: str = "mf",
    wiener: float | str | None = "halves",
    flip_only: bool | None = None,
    periodic: bool = False,
    executor: MapReduce | None = None,
) -> list[LinearImage]:
    """Phase images for several sets of aberrations, in one pass over the pixels.

    Parameters
    ----------
    bright : BrightField
        The images of the bright-field pixels.
    coefficient_sets : iterable of sequence of float
        Krivanek coefficients in Å, detector frame.
    rotation_rad : float
        Scan rotation φ.
    kernel : {"mf", "ssb", "obf", "tcbf", "icom"}
        See the module.
    wiener : "halves", float or None
        Filter ``D / (D + λ)``: λ from the power of the object that both half sets have in common,
        this fraction of the largest ``D``, or 0.
    flip_only : bool, optional
        Correct only the phase of the transfer ``T``, so that contrast is at most that of a phase
        plate; by default for ``tcbf``.
    periodic : bool
        The scan covers whole periods of the object: it is not padded.
    executor : MapReduce, optional
        Workers that share the pixels; by default the calling thread works alone.

    Returns
    -------
    list of LinearImage

    Raises
    ------
    ParamError
        If the kernel or the filter is unknown.
    """
    check_options(kernel, wiener)
    pupils = [pupil_of(bright, c) for c in coefficient_sets]
    spectrum = spectrum_of(bright, pupils, rotation_rad, periodic)
    sums = _accumulate(bright, spectrum, pupils, WEIGHTS[kernel], executor)
    form = FORMS.get(kernel, "phase")
    if flip_only is not None:
        form = "flip" if flip_only else "phase" if form == "flip" else form
    scene = Scene(spectrum, bright.step_A, bright.electrons)
    return [
        finish(scene, Halves(*sums[3 * i : 3 * i + 3]), wiener, form) for i in range(len(pupils))
    ]


def check_options(kernel: str, wiener: float | str | None) -> None:
    """Raise `ParamError` unless kernel and filter exist."""
    problems = []
    if kernel not in WEIGHTS:
        problems.append(Problem("kernel", f"one of {', '.join(KERNELS)}", repr(kernel)))
    if isinstance(wiener, str) and wiener != "halves":
        problems.append(Problem("wiener", '"halves", a number or None', repr(wiener)))
    if problems:
        raise ParamError(problems)


def linear_image(
    bright: BrightField,
    coefficients_A: Coefficients,
    rotation_rad: float = 0.0,
    **options: Any,
) -> LinearImage:
    """One phase image; the options are those of `linear_images`."""
    return linear_images(bright, [coefficients_A], rotation_rad, **options)[0]


def depth_sections(
    bright: BrightField,
    coefficients_A: Coefficients,
    heights_A: Sequence[float],
    rotation_rad: float = 0.0,
    **options: Any,
) -> list[LinearImage]:
    """Images focused at heights below the plane of `coefficients_A` (C10 grows by the height).

    Parameters are those of `linear_images`; ``heights_A`` in Å, positive downstream.
    """
    first, *rest = coefficients_A
    sets = [(first + z, *rest) for z in heights_A]
    return linear_images(bright, sets, rotation_rad, **options)


# ---------------------------------------------------------------------------------------------
# Sums over pixels
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Halves:
    """Sums over even and odd pixels, each ``(2, Q)``.

    Attributes
    ----------
    numerator, transfer, noise : ndarray
        ``N``, ``T`` and ``V``, the last without ``N_R / N_e``.
    """

    numerator: np.ndarray
    transfer: np.ndarray
    noise: np.ndarray


def _accumulate(
    bright: BrightField,
    spectrum: Spectrum,
    pupils: Sequence[Pupil],
    weigh: Weigh,
    executor: MapReduce | None,
) -> list[Array]:
    overlaps = [Overlaps(spectrum.q_A, pupil, relative=True) for pupil in pupils]
    fractions = np.asarray(bright.mean_fraction, dtype=np.float32)[:, None]

    def prepare(backend: Backend) -> Work:
        here = spectrum.on(backend)
        placed = [overlap.on(backend) for overlap in overlaps]

        def work(piece: slice) -> list[Array]:
            spectra = chunk_spectra(bright, here, piece, backend)
            share = backend.asarray(fractions[piece])
            out = []
            for overlap in placed:
                plus, minus = overlap(bright.k_A[piece])
                plus -= minus
                pixels = Pixels(bright.k_A[piece], share, plus, here.q_A, overlap.pupil, backend)
                weights = weigh(pixels)
                out.append(by_halves(weights, spectra, backend.xp))
                out.append(by_halves(weights, plus, backend.xp))
                out.append(by_halves(weights.conj() / share, weights, backend.xp).real)
            return out

        return work

    return summed(prepare, pixel_chunks(len(fractions), spectrum, executor), executor)


def by_halves(a: Array, b: Array, xp: Any) -> Array:
    """``Σ_k a b`` over even and odd rows, ``(2, Q)`` complex128."""
    sums = [xp.einsum("kq,kq->q", a[i::2], b[i::2]) for i in (0, 1)]
    return xp.stack(sums).astype(np.complex128)


# ---------------------------------------------------------------------------------------------
# From sums to images
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scene:
    """What turns sums into numbers with units.

    Attributes
    ----------
    spectrum : Spectrum
    step_A : float
        Scan step in Å.
    counts : float
        Mean counts of a pattern, ``N_e``.
    """

    spectrum: Spectrum
    step_A: float
    counts: float

    @property
    def variance_unit(self) -> float:
        """``N_R / N_e``."""
        return math.prod(self.spectrum.image_shape) / self.counts

    def compare(self, halves: Halves) -> Quality:
        """Object and noise from the half sets."""
        power = np.abs(halves.transfer) ** 2
        estimates = ratio(-1j * halves.numerator * halves.transfer.conj(), power)
        variances = ratio(halves.noise, power) * self.variance_unit
        return compare_halves(
            np.hypot(*self.spectrum.q_A.T),
            1 / (self.step_A * max(self.spectrum.image_shape)),
            (estimates[0], estimates[1]),
            (variances[0], variances[1]),
        )


def finish(scene: Scene, halves: Halves, wiener: float | str | None, form: str) -> LinearImage:
    """The image that the sums stand for.

    Parameters
    ----------
    scene : Scene
    halves : Halves
    wiener : "halves", float or None
        See `linear_images`.
    form : {"phase", "flip", "white"}
        In rad; with the contrast of the transfer, its phase corrected; or with white noise.
    """
    numerator, transfer, noise = (
        a.sum(axis=0) for a in (halves.numerator, halves.transfer, halves.noise)
    )
    efficiency = ratio(np.abs(transfer) ** 2, noise) / 4
    usable = efficiency > _NOTHING
    estimate = np.where(usable, -1j * ratio(numerator, transfer), 0)
    spectrum, quality = scene.spectrum, scene.compare(halves)
    # In units of the noise that is there, whatever a count is worth.
    unit = scene.variance_unit * (quality.noise_factor or _TINY)
    information = np.where(usable, 4 * efficiency / unit, 0)
    ssnr = quality.power * information
    gain = wiener_gain(information, ssnr, wiener) * _SCALES[form](transfer, information)
    # The half plane stands for the whole; noise is independent at the scan points only.
    variance = 2 * ratio(gain**2, information).sum() / math.prod(spectrum.shape)
    return LinearImage(
        phase=spectrum.image(estimate * gain),
        transfer=spectrum.half_plane(efficiency),
        ssnr=spectrum.half_plane(ssnr),
        frc=quality.frc,
        frc_q_A=quality.ring_q_A,
        resolution_A=quality.resolution_A,
        noise_rad=math.sqrt(variance / math.prod(spectrum.image_shape)),
    )


def wiener_gain(information: Array, ssnr: Array, wiener: float | str | None) -> Array:
    """Factor ``D / (D + λ)`` of a Wiener filter; see `linear_images`."""
    if wiener == "halves":
        return ssnr / (1 + ssnr)
    floor = float(wiener or 0.0) * information.max(initial=0.0)
    return ratio(information, information + floor)


_SCALES: dict[str, Callable[[Array, Array], Array | float]] = {
    "phase": lambda transfer, information: 1.0,
    "flip": lambda transfer, information: np.abs(transfer) / 2,
    "white": lambda transfer, information: np.sqrt(information / (information.max() or 1.0)),
}
