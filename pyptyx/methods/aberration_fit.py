"""Aberrations, scan rotation and handedness of the detector from bright-field images.

The likelihood of `pyptyx.methods.varpro` is searched over defocus and rotation for both senses of
the detector axes, the best places are refined, and aberrations are added order by order as long as
the data ask for them.  Errors come from the curvature of the likelihood and from fits to two halves
of the detector.

Two optics explain the data of a weak phase object equally well: ``(χ, φ)`` and ``(-χ, φ + 180°)``
with reversed contrast.  The fit takes the one whose phase has positive skewness (few bright spots
on dark ground, as atoms are), unless the sign of the defocus is given.

References
----------
O. L. Krivanek, N. Dellby, A. R. Lupini, Ultramicroscopy 78 (1999) 1-11.
G. H. Golub, V. Pereyra, SIAM J. Numer. Anal. 10 (1973) 413-432.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from scipy.stats import skew

from pyptyx.backend import MapReduce
from pyptyx.errors import ParamError, Problem
from pyptyx.methods.bright_field import BrightField
from pyptyx.methods.optics_search import (
    COMPLETE_ORDERS,
    FINAL_EDGE,
    Landscape,
    Optics,
    extend,
    maximise,
    natural_scales,
    search,
    seen_by,
    widen,
)
from pyptyx.methods.varpro import Profile, Samples, sample

_LOW = 0.05
"""Frequencies below this part of the aperture radius are left to drift and contamination."""

_PROMINENT = 6.0
"""Prominence from which the best place of a search is none of chance."""

_DECIDED = 3.0
"""Standard deviations from which the handedness counts as found."""


@dataclass(frozen=True)
class FitOptions:
    """What is known, and how far the fit goes.

    Attributes
    ----------
    num : int
        Largest number of coefficients; only complete orders up to it are tried, and kept if the
        data ask for them.
    transposed : bool or None
        Whether the detector axes have to be exchanged; None tries both.
    overfocus : bool or None
        Sign of C10, if known.
    largest_defocus_A : float or None
        End of the search in both directions; by default where images would move by 0.4 of the
        scan.
    frequencies : int
        Number of frequencies, the strongest ones, of the final fit.
    """

    num: int = 12
    transposed: bool | None = None
    overfocus: bool | None = None
    largest_defocus_A: float | None = None
    frequencies: int = 2500


@dataclass(frozen=True)
class AberrationFit:
    """Result of `fit_aberrations`.

    Attributes
    ----------
    best : Optics
        The answer.
    sigma_A : ndarray (J,)
        Standard deviations of the coefficients.
    rotation_sigma_rad : float
        That of the rotation; 0 if it was kept.
    rival : Optics or None
        The best optics with the other handedness of the detector, three coefficients.
    handedness_sigmas : float
        By how many standard deviations the rival is worse, those of the difference between two
        wrong optics; infinite if it was not tried.
    prominence : float
        That of the best place of the search (see `Landscape`); infinite without a search.
    explained : float
        Part of the variance of the images that a weak phase object explains.
    dispersion : float
        Residual variance over that of Poisson noise; 1 for a thin specimen and counts.
    skewness : float
        Of the phase; negative if a given sign of the defocus makes it so.
    sign_given : bool
        The sign of C10 was known; otherwise the branch rests on the skewness.
    phase : ndarray (Ny, Nx)
        The phase that goes with the optics, in rad, weighted by its signal-to-noise ratio.
    landscape : Landscape or None
        What the search has seen.
    """

    best: Optics
    sigma_A: np.ndarray
    rotation_sigma_rad: float
    rival: Optics | None
    handedness_sigmas: float
    prominence: float
    explained: float
    dispersion: float
    skewness: float
    sign_given: bool
    phase: np.ndarray
    landscape: Landscape | None

    @property
    def is_prominent(self) -> bool:
        """Whether the search has found more than chance would."""
        return self.prominence >= _PROMINENT

    @property
    def is_decided(self) -> bool:
        """Whether one sense of the detector axes is clearly better than the other."""
        return self.handedness_sigmas >= _DECIDED


def fit_aberrations(
    bright: BrightField,
    options: FitOptions | None = None,
    *,
    start: Optics | None = None,
    fit_rotation: bool = True,
    executor: MapReduce | None = None,
) -> AberrationFit:
    """Find the optics of a scan.

    Parameters
    ----------
    bright : BrightField
        Single pixels or small bins, in the frame of the data.
    options : FitOptions, optional
    start : Optics, optional
        Refined instead of a search; its handedness is kept.
    fit_rotation : bool
        False keeps the rotation of `start`.
    executor : MapReduce, optional
        Workers that share the work; by default the calling thread works alone.

    Returns
    -------
    AberrationFit

    Raises
    ------
    ParamError
        If fewer than three coefficients are asked for, or a rotation is kept without a start.
    DataError
        If the scan has too few frequencies.

    Notes
    -----
    The specimen is taken as thin: the C10 found is that at its middle, by half a thickness more
    than at its entrance.
    """
    options = options or FitOptions()
    _check(options, start, fit_rotation)
    radius_A = bright.semiangle_rad / bright.wavelength_A
    data = sample(bright, (_LOW * radius_A, FINAL_EDGE * radius_A), options.frequencies)
    if start is None:
        both = (False, True) if options.transposed is None else (options.transposed,)
        found, landscape = search(data, both, options.largest_defocus_A, executor)
    else:
        found, landscape = [start], None
    how: dict[str, Any] = {"fit_rotation": fit_rotation, "executor": executor}
    refined = [widen(data, optics, **how) for optics in found]
    refined.sort(key=lambda optics: -optics.gain)
    rival = next((o for o in refined if o.transposed != refined[0].transposed), None)
    best = extend(data, refined[0], options.num, **how)

    seen = seen_by(data, best.transposed)
    dispersion = (seen.energy - best.gain) / seen.freedom
    phase = _phase(seen, best, dispersion, executor)
    if _wrong_branch(best, phase, options.overfocus):
        best, phase = best.opposite, -phase
    sigma = _errors(seen, best, dispersion, **how)
    lead = refined[0].gain - rival.gain if rival else math.inf
    return AberrationFit(
        best=best,
        sigma_A=sigma[:-1],
        rotation_sigma_rad=float(sigma[-1]),
        rival=rival,
        # Wrong optics explain one unit of noise per frequency, with a standard deviation of one.
        handedness_sigmas=lead / (dispersion * math.sqrt(2 * len(data.q_A))),
        prominence=math.inf if landscape is None else landscape.prominence,
        explained=best.gain / seen.energy,
        dispersion=dispersion,
        skewness=float(skew(phase.ravel())),
        sign_given=options.overfocus is not None,
        phase=phase,
        landscape=landscape,
    )


def _check(options: FitOptions, start: Optics | None, fit_rotation: bool) -> None:
    problems = []
    if options.num < COMPLETE_ORDERS[0]:
        remedy = "Complete orders have 3, 7, 12, 18 or 25."
        problems.append(Problem("n_aberrations", "at least 3", str(options.num), remedy))
    if start is None and not fit_rotation:
        problems.append(Problem("PLRotation_deg", "the angle that is kept", "none"))
    if problems:
        raise ParamError(problems)


def _wrong_branch(best: Optics, phase: np.ndarray, overfocus: bool | None) -> bool:
    if overfocus is not None:
        return bool((best.coefficients_A[0] > 0) != overfocus)
    return bool(skew(phase.ravel()) < 0)


def _phase(
    seen: Samples, optics: Optics, dispersion: float, executor: MapReduce | None
) -> np.ndarray:
    """Phase image in rad; every frequency is weighted by its expected share of signal."""
    profile = Profile(seen, len(optics.coefficients_A), executor)
    found, power = profile.phases(optics.coefficients_A, optics.rotation_rad)
    size = np.abs(found) ** 2
    signal = np.maximum(size - dispersion / power, 0)
    ny, nx = seen.scan_size
    plane = np.zeros((ny, nx // 2 + 1), dtype=complex)
    plane.flat[seen.place] = found * np.where(size > 0, signal / np.where(size > 0, size, 1), 0)
    # The rows of the column qx = 0 that were left out are those of a real image.
    plane[(ny + 1) // 2 :, 0] = plane[1 : ny // 2 + 1, 0][::-1].conj()
    return scipy.fft.irfft2(plane, s=(ny, nx))


def _errors(
    seen: Samples,
    best: Optics,
    dispersion: float,
    *,
    fit_rotation: bool,
    executor: MapReduce | None,
) -> np.ndarray:
    """Standard deviations of coefficients and rotation.

    The curvature of the likelihood is trusted only as far as fits to halves of the data agree:
    both colours of a checkerboard of detector pixels, and every other frequency.
    """
    profile = Profile(seen, len(best.coefficients_A), executor)
    curvature, scatter = profile.information(best.coefficients_A, best.rotation_rad, dispersion)
    sigma = natural_scales(seen, profile.num)
    if not fit_rotation:
        sigma[-1] = 0.0
    # In natural units the curvatures are comparable, and a direction without any gives no error.
    units = np.outer(sigma, sigma)
    inverse = np.linalg.pinv(curvature * units, hermitian=True)
    variance = np.einsum("ij,jk,ki->i", inverse, scatter * units, inverse)
    sigma *= np.sqrt(dispersion * np.maximum(variance, 0))
    known = sigma > 0
    if not known.any():
        return sigma
    colour = np.rint(seen.k_A / seen.soft_edge_A).sum(axis=1).astype(int) % 2
    number = np.arange(len(seen.q_A)) % 2
    splits = (
        [seen.rows(colour == c) for c in (0, 1)],
        [seen.columns(number == c) for c in (0, 1)],
    )
    ratios = [1.0]
    for halves in splits:
        a, b = (
            maximise(Profile(half, profile.num, executor), best, fit_rotation=fit_rotation)
            for half in halves
        )
        turn = math.remainder(a.rotation_rad - b.rotation_rad, 2 * math.pi)
        difference = np.append(a.coefficients_A - b.coefficients_A, turn)
        # Half of the data has twice the variance, a difference of two halves four times.
        ratios.append(np.sqrt(np.mean((difference[known] / (2 * sigma[known])) ** 2)))
    return sigma * max(ratios)
