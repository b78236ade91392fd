"""The bright-field disc in a mean pattern: where it is, how large, which pixels it covers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_fill_holes, label, median_filter
from scipy.optimize import least_squares
from scipy.special import erf

from pyptyx.errors import DataError, Problem

_RING = 0.3
"""The edge is fitted to pixels within this fraction of the radius."""


@dataclass(frozen=True)
class Disc:
    """A round disc on a detector whose pixels need not be square.

    Attributes
    ----------
    centre_px : tuple of float
        ``(cy, cx)`` in pixels from index ``(0, 0)``.
    radius_A : float
        1/Å.
    dk_A : tuple of float
        Detector pixel ``(y, x)`` in 1/Å.
    """

    centre_px: tuple[float, float]
    radius_A: float
    dk_A: tuple[float, float]

    @property
    def radius_px(self) -> float:
        """Radius in pixels, the geometric mean over both axes."""
        return self.radius_A / math.sqrt(self.dk_A[0] * self.dk_A[1])

    def coordinates_A(self, shape: tuple[int, int]) -> np.ndarray:
        """Coordinates ``(ky, kx, 2)``, rows (y, x), of all pixels from the centre, in 1/Å."""
        y, x = np.indices(shape, dtype=np.float64)
        return np.stack(
            [(y - self.centre_px[0]) * self.dk_A[0], (x - self.centre_px[1]) * self.dk_A[1]],
            axis=-1,
        )

    def mask(self, shape: tuple[int, int]) -> np.ndarray:
        """Pixels whose middle lies in the disc."""
        return np.hypot(*np.moveaxis(self.coordinates_A(shape), -1, 0)) <= self.radius_A


def find_disc(pattern: np.ndarray, dk_A: tuple[float, float], threshold: float = 0.5) -> Disc:
    """Centre and radius of the bright-field disc.

    Pixels above the threshold give a first disc, whose rim is then fitted by an error function
    with its own level inside and outside.

    Parameters
    ----------
    pattern : ndarray (ky, kx)
        Mean pattern; values that are not finite count as dark.
    dk_A : tuple of float
        Detector pixel ``(y, x)`` in 1/Å.
    threshold : float
        Fraction of the brightest pixel, after a 3 x 3 median that removes hot ones.

    Returns
    -------
    Disc

    Raises
    ------
    DataError
        If there is no disc.
    """
    image = np.nan_to_num(np.asarray(pattern, dtype=np.float64), posinf=0.0, neginf=0.0)
    smooth = median_filter(image, 3)
    parts, number = label(smooth > threshold * smooth.max()) if smooth.max() > 0 else (image, 0)
    if not number:
        problem = Problem("data", "a bright-field disc", "a dark mean pattern", "Check the data.")
        raise DataError(problem)
    largest = np.bincount(parts.ravel())[1:].argmax() + 1
    filled = binary_fill_holes(parts == largest)
    centre = [float(c.mean()) for c in np.nonzero(filled)]
    radius = math.sqrt(filled.sum() * dk_A[0] * dk_A[1] / math.pi)
    return _fit_rim(image, Disc((centre[0], centre[1]), radius, dk_A))


def _fit_rim(image: np.ndarray, start: Disc) -> Disc:
    """The disc whose blurred rim fits best, or the start if the fit runs away."""
    pixel = math.sqrt(start.dk_A[0] * start.dk_A[1])
    k = start.coordinates_A((image.shape[0], image.shape[1]))
    reach = max(_RING * start.radius_A, 2 * pixel)
    near = np.abs(np.hypot(k[..., 0], k[..., 1]) - start.radius_A) < reach
    ky, kx, values = k[near, 0], k[near, 1], image[near] / image[near].max()

    def misfit(p: np.ndarray) -> np.ndarray:
        depth = start.radius_A * (1 + p[2]) - np.hypot(ky - p[0] * pixel, kx - p[1] * pixel)
        rim = 0.5 * (1 + erf(depth / (abs(p[3]) * pixel + 1e-3 * pixel)))
        return p[4] * rim + p[5] * (1 - rim) - values

    fit = least_squares(misfit, [0.0, 0.0, 0.0, 1.0, values.max(), values.min()], loss="soft_l1",
                        f_scale=0.2)  # fmt: skip
    p = fit.x
    if not fit.success or abs(p[2]) > _RING / 2 or np.hypot(p[0], p[1]) * pixel > reach / 2:
        return start
    centre = (
        start.centre_px[0] + p[0] * pixel / start.dk_A[0],
        start.centre_px[1] + p[1] * pixel / start.dk_A[1],
    )
    return Disc(centre, start.radius_A * (1 + p[2]), start.dk_A)
