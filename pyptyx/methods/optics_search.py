"""Search and local maximisation of the profile likelihood over the optics of a scan."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.optimize import minimize

from pyptyx.backend import Backend, MapReduce
from pyptyx.methods.shared_sums import Alone, Work, spread
from pyptyx.methods.varpro import Profile, Samples
from pyptyx.physics.optics import krivanek_order

COMPLETE_ORDERS = (3, 7, 12, 18, 25)
"""Numbers of coefficients that end an order."""

SEARCH_EDGE, REFINE_EDGE, FINAL_EDGE = 0.6, 1.0, 1.5
"""Largest frequency, in aperture radii, of the search and of the refinements after it."""

_SEARCH_BINS, _SEARCH_FREQUENCIES = 400, 300
_SEARCH_SMEAR, _SMEAR = 0.5, 0.15
"""Largest phase, in turns, that a bin may average over in the search and in a refinement."""

_ROTATION_STEP = math.radians(10)
_ROTATION_SCALE = 0.2
_LARGEST_SHIFT = 0.4
"""Shift of an image, as part of the smaller side of the scan, up to which defocus is searched."""

_SIGMA_OF_MAD = 1.4826
"""Standard deviation of normal numbers over the median of their distances from the median."""

_CANDIDATES = 4
_SEARCH_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Optics:
    """Aberrations and orientation of a scan.

    Attributes
    ----------
    coefficients_A : ndarray (J,)
        Krivanek coefficients in Å, in the frame of the (transposed) detector.
    rotation_rad : float
        Scan rotation.
    transposed : bool
        The detector axes are exchanged first.
    gain : float
        Log-likelihood over that of an empty specimen.
    """

    coefficients_A: np.ndarray
    rotation_rad: float
    transposed: bool
    gain: float = -math.inf

    @property
    def opposite(self) -> Optics:
        """The optics that explain the data as well with reversed contrast."""
        return replace(
            self,
            coefficients_A=-self.coefficients_A,
            rotation_rad=half_turn(self.rotation_rad + math.pi),
        )


@dataclass(frozen=True)
class Landscape:
    """Part of the variance of the images explained over the grid of the search.

    Attributes
    ----------
    rotation_rad : ndarray (A,)
    defocus_A : ndarray (C,)
    explained : dict
        By handedness (``transposed``): ndarray (A, C).
    """

    rotation_rad: np.ndarray
    defocus_A: np.ndarray
    explained: dict[bool, np.ndarray] = field(default_factory=dict)

    @property
    def prominence(self) -> float:
        """By how many standard deviations of all places the best one lies above their median.

        Both are robust, so that they are those of wrong optics.  The best of some hundred places
        lies 3 to 4 above by chance.
        """
        values = np.stack(list(self.explained.values()))
        median = np.median(values)
        spread = _SIGMA_OF_MAD * np.median(np.abs(values - median))
        return float((values.max() - median) / spread) if spread > 0 else 0.0


def half_turn(angle_rad: float) -> float:
    """The angle in (-π, π]."""
    return -((math.pi - angle_rad) % (2 * math.pi) - math.pi)


def seen_by(data: Samples, transposed: bool) -> Samples:
    """The samples in the frame of the detector or of the transposed one."""
    return data.transposed() if transposed else data


def search(
    data: Samples,
    handedness: Sequence[bool],
    largest_defocus_A: float | None,
    executor: MapReduce | None = None,
) -> tuple[list[Optics], Landscape]:
    """The best places of a grid over defocus, rotation and handedness, refined.

    Parameters
    ----------
    data : Samples
    handedness : sequence of bool
        Values of ``transposed`` to try.
    largest_defocus_A : float or None
        End of the search in both directions; by default where images move by 0.4 of the scan.
    executor : MapReduce, optional
        Workers that share the work; by default the calling thread works alone.

    Returns
    -------
    list of Optics
        At most two per handedness, with three coefficients.
    Landscape
    """
    coarse = _coarse(data)
    q_max = float(np.hypot(*coarse.q_A.T).max())
    step = 0.4 / (data.semiangle_rad * q_max)
    if largest_defocus_A is None:
        field_A = min(data.scan_size) * data.step_A
        largest_defocus_A = min(
            _LARGEST_SHIFT * field_A / data.semiangle_rad,
            _SEARCH_SMEAR / (data.wavelength_A * coarse.soft_edge_A * q_max),
        )
    count = max(1, math.ceil(largest_defocus_A / step))
    # Half a turn is enough: the other half has the same values with the signs of χ reversed.
    grid = Landscape(np.arange(-math.pi / 2, math.pi / 2 - 1e-9, _ROTATION_STEP),
                     step * np.arange(-count, count + 1))  # fmt: skip
    found = []
    for transposed in handedness:
        seen = seen_by(coarse, transposed)
        values = _scan(seen, grid, executor)
        grid.explained[transposed] = values / seen.energy
        places = [
            Optics(np.array([grid.defocus_A[c], 0.0, 0.0]), float(grid.rotation_rad[a]), transposed)
            for a, c in _peaks(values)
        ]
        profile = Profile(seen, 3, executor)
        refined = [maximise(profile, place, tolerance=_SEARCH_TOLERANCE) for place in places]
        found += sorted(refined, key=lambda optics: -optics.gain)[:2]
    return found, grid


def widen(
    data: Samples,
    start: Optics,
    *,
    fit_rotation: bool = True,
    executor: MapReduce | None = None,
) -> Optics:
    """Refine the coefficients of a start, at least three, with more and more frequencies."""
    known = np.asarray(start.coefficients_A, dtype=np.float64)
    best = replace(start, coefficients_A=np.pad(known, (0, max(0, 3 - len(known)))))
    num = len(best.coefficients_A)
    data = seen_by(thinned(data, best), best.transposed)
    size = np.hypot(*data.q_A.T) * data.wavelength_A / data.semiangle_rad
    for edge in (SEARCH_EDGE, REFINE_EDGE):
        part = Profile(data.columns(size <= edge), num, executor)
        best = maximise(part, best, fit_rotation=fit_rotation)
    return best


def extend(
    data: Samples,
    start: Optics,
    most: int,
    *,
    fit_rotation: bool = True,
    executor: MapReduce | None = None,
) -> Optics:
    """Add coefficients order by order, as long as the likelihood rises by more than chance."""
    seen = seen_by(data, start.transposed)
    first = len(start.coefficients_A)
    best = maximise(Profile(seen, first, executor), start, fit_rotation=fit_rotation)
    for num in (n for n in COMPLETE_ORDERS if first < n <= most):
        extended = np.pad(best.coefficients_A, (0, num - len(best.coefficients_A)))
        trial = maximise(
            Profile(seen, num, executor),
            replace(best, coefficients_A=extended),
            fit_rotation=fit_rotation,
        )
        dispersion = (seen.energy - trial.gain) / seen.freedom
        # Bayesian information criterion: Schwarz, Ann. Statist. 6 (1978) 461-464.
        price = (num - len(best.coefficients_A)) * math.log(2 * seen.freedom)
        if 2 * (trial.gain - best.gain) / dispersion < price:
            break
        best = trial
    return best


def maximise(
    profile: Profile, start: Optics, *, fit_rotation: bool = True, tolerance: float = 1e-8
) -> Optics:
    """The maximum of the likelihood next to a start, by quasi-Newton steps.

    `tolerance` is the relative gain that ends them.
    """
    energy = profile.samples.energy
    scales = natural_scales(profile.samples, profile.num)
    if not fit_rotation:
        scales[-1] = 0.0
    origin = np.append(start.coefficients_A, start.rotation_rad)

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        p = origin + scales * x
        gain = profile.gain(p[:-1], float(p[-1]))
        slope = np.append(gain.by_coefficient, gain.by_rotation) * scales
        return -gain.value / energy, -slope / energy

    found = minimize(
        loss, np.zeros(len(origin)), jac=True, method="L-BFGS-B",
        options={"maxiter": 60, "ftol": tolerance, "gtol": 1e-6},
    )  # fmt: skip
    p = origin + scales * found.x
    return replace(
        start,
        coefficients_A=p[:-1],
        rotation_rad=half_turn(float(p[-1])),
        gain=-float(found.fun) * energy,
    )


def natural_scales(data: Samples, num: int) -> np.ndarray:
    """Changes that matter, ``(num + 1,)``: of coefficients in Å, and of the rotation in rad.

    A coefficient of ``(n + 1) λ / (8 α^(n+1))`` turns χ by a quarter of π at the rim.
    """
    orders = np.array([n for n, _, _ in krivanek_order(num)])
    scales = (orders + 1) * data.wavelength_A / (8 * data.semiangle_rad ** (orders + 1))
    return np.append(scales, _ROTATION_SCALE)


def thinned(data: Samples, optics: Optics) -> Samples:
    """Fewer and larger bins, if the optics allow."""
    radius_A = data.semiangle_rad / data.wavelength_A
    width = radius_A / math.sqrt(_SEARCH_BINS / math.pi)
    q_max = float(np.hypot(*data.q_A.T).max())
    defocus = float(np.abs(optics.coefficients_A[:3]).sum())
    fine = data.wavelength_A * width * defocus * q_max < _SMEAR
    return data.merged(width) if fine and len(data.k_A) > _SEARCH_BINS else data


def _coarse(data: Samples) -> Samples:
    """Few bins and the strongest low frequencies."""
    radius_A = data.semiangle_rad / data.wavelength_A
    low = data.columns(np.hypot(*data.q_A.T) <= SEARCH_EDGE * radius_A)
    power = data.weight @ np.abs(low.spectra) ** 2
    strongest = np.sort(np.argsort(power)[-_SEARCH_FREQUENCIES:])
    low = low.columns(strongest)
    if len(low.k_A) <= _SEARCH_BINS:
        return low
    return low.merged(radius_A / math.sqrt(_SEARCH_BINS / math.pi))


def _scan(data: Samples, grid: Landscape, executor: MapReduce | None) -> np.ndarray:
    """Likelihood over the grid, ``(A, C)``; the workers share the rotations."""
    values = np.empty((len(grid.rotation_rad), len(grid.defocus_A)))

    def prepare(backend: Backend) -> Work:
        profile = Profile(data, 1, Alone(backend))

        def work(piece: slice) -> None:
            angles = grid.rotation_rad[piece]
            values[piece] = [[profile.value([c], a) for c in grid.defocus_A] for a in angles]

        return work

    spread(prepare, [slice(i, i + 1) for i in range(len(values))], executor)
    return values


def _peaks(values: np.ndarray) -> list[tuple[int, int]]:
    """Indices of the highest values that are no neighbours; half a turn reverses the defocus."""
    left, peaks = values.copy(), []
    angles, defoci = values.shape
    for _ in range(_CANDIDATES):
        a, c = (int(i) for i in np.unravel_index(np.argmax(left), left.shape))
        peaks.append((a, c))
        for da in (-1, 0, 1):
            around = (a + da) % angles
            middle = c if around == a + da else defoci - 1 - c
            left[around, max(0, middle - 1) : middle + 2] = -np.inf
    return peaks
