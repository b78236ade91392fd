"""Correlation of two independent images ring by ring, and the resolution it stands for.

Notation: ``A``, ``B`` are the transforms of two images of one object with independent noise; in a
ring (2-D) or shell (3-D) of frequencies the correlation is ``Re Σ A B* / √(Σ|A|² Σ|B|²)``.

References
----------
W. O. Saxton, W. Baumeister, J. Microsc. 127 (1982) 127-138 (ring correlation);  P. B. Rosenthal,
R. Henderson, J. Mol. Biol. 333 (2003) 721-745 (0.143);  M. van Heel, M. Schatz, J. Struct. Biol.
151 (2005) 250-262 (half-bit).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from pyptyx.errors import Problem, ShapeError
from pyptyx.methods.registration import nearby_shift, shift_ramp

_RING_WIDTH = 1.5
"""Width of a ring in Fourier pixels of the shorter side; the window correlates nearer ones."""

_REACH_PX = 2.0
"""How far two reconstructions from one start can lie apart."""

_FLAT = 0.5
"""Part of the way from the rim to the middle of the field after which its weight is one."""


@dataclass(frozen=True)
class Correlation:
    """Correlation of two images.

    Attributes
    ----------
    frequency_per_A : ndarray (R,)
        Middle of every ring in 1/Å.
    value : ndarray (R,)
        Between -1 and 1.
    independent : ndarray (R,)
        Independent numbers in every ring: its frequencies, less what the window takes away and half
        of the rest, as the images are real.
    shift_px : tuple of float
        ``(y, x)`` by which the second image was moved onto the first one.
    """

    frequency_per_A: np.ndarray
    value: np.ndarray
    independent: np.ndarray
    shift_px: tuple[float, float]


@dataclass(frozen=True)
class Resolution:
    """Where a correlation falls below a threshold.

    Attributes
    ----------
    period_A : float
        Period in Å; infinite if the correlation is below everywhere.
    limited : bool
        The correlation never falls below: the period is that of the last ring, and the true one
        may be shorter.
    """

    period_A: float
    limited: bool


def rim_taper(mask: np.ndarray) -> np.ndarray:
    """Weight ``(Y, X)`` that rises from 0 at the rim of a mask to 1 halfway to its middle."""
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    deepest = float(depth.max(initial=0.0))
    if deepest == 0:
        return np.zeros(mask.shape)
    return np.sin(np.pi / 2 * np.minimum(depth / (_FLAT * deepest), 1.0)) ** 2


def correlate(
    first: np.ndarray,
    second: np.ndarray,
    steps_A: tuple[float, ...],
    weight: np.ndarray,
    largest_per_A: float = np.inf,
) -> Correlation:
    """Fourier ring correlation of images, or Fourier shell correlation of stacks of them.

    The second image is moved onto the first one by a fraction of a pixel first: the place of a
    reconstruction is open.

    Parameters
    ----------
    first, second : ndarray, (Y, X) or (Nz, Y, X), float
        Real images.
    steps_A : tuple of float
        Distance of neighbours in Å along every axis.
    weight : ndarray (Y, X)
        Window that fades to zero at its rim, from `rim_taper`.
    largest_per_A : float
        Rings beyond this frequency are left out: outside a band limit there is nothing but what
        both images have from taking the phase.

    Returns
    -------
    Correlation
        From the second ring on: the first one holds the mean and the ramp, which are arbitrary.

    Raises
    ------
    ShapeError
        If the images differ in shape or do not fit the weight or the steps.
    """
    fits = first.shape == second.shape and first.shape[-2:] == weight.shape
    if not fits or first.ndim != len(steps_A) or not weight.any():
        got = f"{first.shape}, {second.shape}, weight {weight.shape}, {len(steps_A)} steps"
        expected = "two images of one shape, one step per axis and a weight of their last two axes"
        raise ShapeError(Problem("images", expected, got))
    spectra = [np.fft.fftn(_faded(image, weight)) for image in (first, second)]
    f_y, f_x = (np.fft.fftfreq(n) for n in first.shape[-2:])
    flat = [s if s.ndim == 2 else s[0] for s in spectra]  # kz = 0 is the projection
    shift = nearby_shift(flat[0], flat[1], f_y, f_x, reach_px=_REACH_PX, upsample=20)
    spectra[1] *= shift_ramp(f_y[:, None], f_x[None, :], shift)
    ring, width = _rings(first.shape, steps_A)
    number = _complete_rings(first.shape, steps_A, width, largest_per_A)
    inside = ring < number
    a, b, at = spectra[0][inside], spectra[1][inside], ring[inside]
    shared, own_a, own_b, count = (
        np.bincount(at, v, number)
        for v in ((a * b.conj()).real, np.abs(a) ** 2, np.abs(b) ** 2, np.ones(len(at)))
    )
    size = np.sqrt(own_a * own_b)
    value = np.divide(shared, size, out=np.zeros(number), where=size > 0)
    used = (weight**2).sum() ** 2 / (weight**4).sum() / weight.size
    middle = (np.arange(number) + 0.5) * width
    return Correlation(middle[1:], value[1:], 0.5 * used * count[1:], shift)


def half_bit(independent: np.ndarray) -> np.ndarray:
    """Correlation of half data sets that carry half a bit per number, ring by ring."""
    root = np.sqrt(np.maximum(independent, 1.0))
    return (0.2071 + 1.9102 / root) / (1.2071 + 0.9102 / root)


def resolution(correlation: Correlation, threshold: float | np.ndarray) -> Resolution:
    """Period at which the correlation falls below a threshold, interpolated linearly.

    Rings before the first one above the threshold are passed over: ptychography hardly sees the
    lowest frequencies, and the half-bit threshold is high where a ring holds few of them.
    """
    q = correlation.frequency_per_A
    above = correlation.value - threshold
    good = np.flatnonzero(above >= 0)
    if not len(good):
        return Resolution(float("inf"), False)
    below = good[0] + np.flatnonzero(above[good[0] :] < 0)
    if not len(below):
        return Resolution(float(1 / q[-1]), True)
    after = int(below[0])
    part = above[after - 1] / (above[after - 1] - above[after])
    return Resolution(float(1 / (q[after - 1] + part * (q[after] - q[after - 1]))), False)


def _faded(image: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Every slice without its weighted mean, times the weight."""
    mean = (image * weight).sum(axis=(-2, -1), keepdims=True) / weight.sum()
    return (image - mean) * weight


def _rings(shape: tuple[int, ...], steps_A: tuple[float, ...]) -> tuple[np.ndarray, float]:
    """Number of the ring of every frequency, and the width of a ring in 1/Å."""
    axes = [np.fft.fftfreq(n, d) for n, d in zip(shape, steps_A, strict=True)]
    square = sum(np.ix_(*[q**2 for q in axes]))
    sides = [n * d for n, d in zip(shape[-2:], steps_A[-2:], strict=True)]
    width = _RING_WIDTH / min(sides)
    return (np.sqrt(square) / width).astype(int), width


def _complete_rings(
    shape: tuple[int, ...], steps_A: tuple[float, ...], width: float, largest_per_A: float
) -> int:
    """Rings that the images hold completely, with their middle below a frequency."""
    nyquist = min((n // 2) / (n * d) for n, d in zip(shape[-2:], steps_A[-2:], strict=True))
    return max(1, int(min(nyquist / width, largest_per_A / width + 0.5)))
