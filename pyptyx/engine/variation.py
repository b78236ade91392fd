"""How much of what differs from pattern to pattern a model explains.

At low dose χ² says little: a model of a wrong geometry that explains nothing but the mean pattern
may have 1.03 where a right one has 1.00.  What the specimen changes between patterns is as little,
so it is looked at by itself.  With changes from the mean over the measurements, pixel by pixel, δD
of the data and δI of the model::

    R² = (Σ δD δI)² / (Σ δI² · (Σ δD² - g ΣD))

where ``g ΣD`` is what noise adds to the changes of the data.  g is 1 for counted electrons.  If no
part of the detector is that quiet once the model is taken off, it is the variance per count that is
left in the quietest one, provided that the model hardly changes somewhere; otherwise noise and what
is not explained cannot be told apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

_FEWEST = 10
"""Measurements below which their mean says too little."""

_LARGEST_ERROR = 0.15
"""Error of the result above which it is not known."""

_RING_ERROR = 0.01
"""Error of the noise of a part of the detector."""

_ELECTRONS = (0.8, 1.05)
"""Noise that is taken for that of electrons: above is the specimen, below a fit of noise."""

_QUIET = 0.4
"""Where a model changes by less than this part of its mean change, data show their noise."""

_ROUNDING = 1e-12
"""Part of its square below which a change is none."""

_TINY = np.finfo(np.float64).tiny


@dataclass(frozen=True)
class Explained:
    """Result of `Variation.explained`.

    Attributes
    ----------
    share, error : float or None
        R², 1 for a perfect model, and its error; None where noise hides what differs, or may.
    noise : float
        Variance per count that is put down to noise; 1 where it is not known.
    """

    share: float | None
    error: float | None
    noise: float


_UNKNOWN = Explained(None, None, 1.0)


class Variation:
    """Sums over measurements that `explained` needs.

    Parameters
    ----------
    ring : ndarray of int (ky, kx)
        Number of the ring of every pixel.
    """

    def __init__(self, ring: np.ndarray) -> None:
        self._ring = ring
        self._count = 0
        self._sums = np.zeros((5, *ring.shape))

    @property
    def data(self) -> np.ndarray:
        """Sum of the counts, (ky, kx)."""
        return self._sums[0]

    @property
    def model(self) -> np.ndarray:
        """Sum of the intensities, (ky, kx)."""
        return self._sums[1]

    def add(self, data: np.ndarray, model: np.ndarray) -> None:
        """Take in a batch of counts and intensities, (B, ky, kx)."""
        self._count += len(data)
        parts = (data, model, data * data, model * model, data * model)
        for total, part in zip(self._sums, parts, strict=True):
            total += part.sum(axis=0)

    def explained(self) -> Explained:
        """What the model explains of the changes."""
        n = self._count
        if n < _FEWEST:
            return _UNKNOWN
        data, model, dd, mm, dm = self._sums
        changes = np.stack([dd - data**2 / n, mm - model**2 / n, dm - data * model / n])
        changes[1:, changes[1] <= _ROUNDING * mm] = 0
        # Counts over which noise is summed, and its variance for counted electrons of mean λ.
        counts = data * (n - 1) / n
        variance = counts * (2 * data / n + 1)
        found = self._noise(changes, counts, variance)
        (of_data, of_model, common), total = changes.sum(axis=(1, 2)), counts.sum()
        if found is None or of_model <= 0:
            return _UNKNOWN
        noise, noise_error = found
        beyond = of_data - noise * total
        scatter = math.hypot(noise * math.sqrt(variance.sum()), noise_error * total)
        if scatter > _LARGEST_ERROR * beyond:
            return Explained(None, None, noise)
        return Explained(float(common**2 / (of_model * beyond)), float(scatter / beyond), noise)

    def _noise(
        self, changes: np.ndarray, counts: np.ndarray, variance: np.ndarray
    ) -> tuple[float, float] | None:
        """Variance per count of the noise, and its error; None if it cannot be told from signal."""
        size = int(self._ring.max()) + 1
        rings = [
            np.bincount(self._ring.ravel(), a.ravel(), size) for a in (*changes, counts, variance)
        ]
        usual = changes[1].sum() / max(counts.sum(), _TINY)
        levels: list[tuple[float, float]] = []
        quiet = False
        group = np.zeros(4)
        # From the outside, where specimens change least.
        for of_data, of_model, common, number, spread in zip(
            *(a[::-1] for a in rings), strict=True
        ):
            known = common**2 / of_model if of_model > 0 else 0.0
            group += of_data - known, of_model, number, spread
            error = math.sqrt(group[3]) / group[2] if group[2] > 0 else math.inf
            if error >= _RING_ERROR:
                continue
            level = group[0] / group[2]
            if _ELECTRONS[0] <= level <= _ELECTRONS[1]:
                return 1.0, 0.0
            levels.append((level, level * error))
            quiet = quiet or group[1] < _QUIET * usual * group[2]
            group[:] = 0
        if not levels:
            return 1.0, 0.0
        return min(levels) if quiet else None
