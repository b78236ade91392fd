"""What two half sets tell about an image: power of object and noise, ring correlation, resolution.

The half sets estimate the same spectrum ``φ̃`` with independent errors of predicted variances
``v_a``, ``v_b``.  Whatever they share is object, whatever they do not is noise.

References
----------
M. van Heel, M. Schatz, J. Struct. Biol. 151 (2005) 250-262;  P. B. Rosenthal, R. Henderson,
J. Mol. Biol. 333 (2003) 721-745.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

FRC_LIMIT = 0.143
"""Half-set correlation at which the full set correlates with the truth by one half."""


@dataclass(frozen=True)
class Quality:
    """Result of `compare_halves`.

    Attributes
    ----------
    power : ndarray (Q,)
        Power ``|φ̃|²`` of the object at every frequency, the mean over rings.
    noise_factor : float
        Measured over predicted noise variance.
    frc, ring_q_A : ndarray
        Fourier ring correlation of the half sets and the frequencies of the rings in 1/Å.
    resolution_A : float
        Period at which the correlation falls below 0.143; that of the last ring if it never does,
        infinite if it is below from the first.
    """

    power: np.ndarray
    noise_factor: float
    frc: np.ndarray
    ring_q_A: np.ndarray
    resolution_A: float


def compare_halves(
    q_A: np.ndarray,
    ring_width_A: float,
    estimates: tuple[np.ndarray, np.ndarray],
    variances: tuple[np.ndarray, np.ndarray],
) -> Quality:
    """Compare two independent estimates of a spectrum.

    Parameters
    ----------
    q_A : ndarray (Q,)
        Frequencies in 1/Å.
    ring_width_A : float
        Width of the rings in 1/Å.
    estimates : tuple of ndarray (Q,), complex
        Spectra of the half sets.
    variances : tuple of ndarray (Q,)
        Their predicted noise variances up to a common factor; infinite or 0 where there is nothing.
    """
    (a, b), (va, vb) = estimates, variances
    seen = np.isfinite(va) & np.isfinite(vb) & (va > 0) & (vb > 0)
    if not seen.any():
        return Quality(np.zeros(len(q_A)), 1.0, np.zeros(0), np.zeros(0), math.inf)
    a, b, va, vb = a[seen], b[seen], va[seen], vb[seen]
    ring = np.rint(q_A / ring_width_A).astype(int)
    number = int(ring.max()) + 1
    # White noise: every frequency counts by what is known about it.
    weight = 1 / np.sqrt(va * vb)
    powers = (weight * (a * b.conj()).real, np.abs(a) ** 2 / va, np.abs(b) ** 2 / vb, weight)
    shared, own_a, own_b, total = (np.bincount(ring[seen], p, number) for p in powers)
    size = np.sqrt(own_a * own_b)
    filled = np.flatnonzero(size > 0)
    if not len(filled):
        return Quality(np.zeros(len(q_A)), 1.0, np.zeros(0), np.zeros(0), math.inf)
    frc = shared[filled] / size[filled]
    power = np.divide(_smooth(shared), _smooth(total), out=np.zeros(number), where=total > 0)
    # The median ignores the few frequencies where the model is wrong; exponential statistics.
    factor = np.median(np.abs(a - b) ** 2 / (va + vb)) / math.log(2)
    frequencies = filled * ring_width_A
    return Quality(
        np.maximum(power, 0)[ring], float(factor), frc, frequencies, _resolution(frc, frequencies)
    )


def _smooth(values: np.ndarray) -> np.ndarray:
    return np.convolve(values, [0.25, 0.5, 0.25], mode="same")


def _resolution(frc: np.ndarray, q_A: np.ndarray) -> float:
    """Period where the smoothed correlation crosses the limit, interpolated linearly."""
    padded = np.pad(frc, 1, mode="edge")
    curve = 0.25 * padded[:-2] + 0.5 * frc + 0.25 * padded[2:]
    below = np.flatnonzero(curve < FRC_LIMIT)
    if not len(below):
        return float(1 / q_A[-1])
    first = below[0]
    if first == 0:
        return math.inf
    step = (curve[first - 1] - FRC_LIMIT) / (curve[first - 1] - curve[first])
    return float(1 / (q_A[first - 1] + step * (q_A[first] - q_A[first - 1])))
