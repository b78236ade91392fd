"""Virtual detectors: signals of a scan from the measured patterns."""

from __future__ import annotations

import numpy as np

from pyptyx.data import PatternSource
from pyptyx.errors import ParamError, Problem


def annular_mask(
    shape: tuple[int, int], inner: float, outer: float, offset: tuple[float, float] = (0.0, 0.0)
) -> np.ndarray:
    """Ring ``inner <= r <= outer`` around the zero frequency.

    Coordinates are ``(i - n // 2) / (n // 2)`` along each axis: radius 1 reaches the nearer edge.

    Parameters
    ----------
    shape : (int, int)
        Of a pattern.
    inner, outer : float
        Radii.
    offset : (float, float)
        Centre ``(y, x)`` of the ring.

    Returns
    -------
    ndarray (ky, kx), bool

    Raises
    ------
    ParamError
        If the ring holds no pixel.
    """
    y, x = (
        (np.arange(n) - n // 2) / max(n // 2, 1) - start
        for n, start in zip(shape, offset, strict=True)
    )
    radius = np.hypot(y[:, None], x[None, :])
    # The tolerance keeps pixels on the rim, whose radius is rounded.
    ring = (radius >= inner - 1e-12) & (radius <= outer + 1e-12)
    if not ring.any():
        raise ParamError(
            Problem(
                "inner_rad, outer_rad",
                "a ring with at least one pixel",
                f"{inner:g} to {outer:g}",
                "Radius 1 is the edge of the pattern.",
            )
        )
    return ring


def detector_signal(source: PatternSource, mask: np.ndarray | None = None) -> np.ndarray:
    """Counts of every pattern inside a mask ``(ky, kx)``, or all of them; ``(N,)`` float64."""
    if mask is None:
        return source.sums()
    signal = np.empty(source.shape[0])
    weights = mask.astype(np.float64)
    for where, patterns in source.iter_chunks():
        signal[where] = np.tensordot(patterns, weights, axes=2)
    return signal
