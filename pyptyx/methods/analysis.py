"""Numbers drawn from images: principal components, means over rings."""

from __future__ import annotations

import numpy as np

from pyptyx.errors import ParamError, Problem


def reduce_observations(data: np.ndarray, n_components: int) -> np.ndarray:
    """Principal components of the last axis.

    Parameters
    ----------
    data : ndarray (Y, X, N), real or complex
        N observations of an image.
    n_components : int
        How many to keep, at most N.

    Returns
    -------
    ndarray (Y, X, n_components)
        The observations without their means, projected on the leading eigenvectors of their
        covariance, largest variance first.
    """
    flat = np.reshape(data, (-1, data.shape[-1]))
    if not 1 <= n_components <= min(flat.shape):
        expected = f"between 1 and {min(flat.shape)}"
        raise ParamError(Problem("n_components", expected, str(n_components)))
    left, strength, _ = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)
    scores = left[:, :n_components] * strength[:n_components]
    return scores.reshape(*data.shape[:-1], n_components)


def ring_means(
    image: np.ndarray, width: float, limits: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Mean of a centred Fourier image over rings.

    Parameters
    ----------
    image : ndarray (ny, nx)
        Zero frequency at ``n // 2``.
    width : float
        Of a ring, in Fourier pixels of the shorter side.
    limits : (float, float)
        Smallest and largest inner radius as fractions of the shorter side; 0.5 is Nyquist.

    Returns
    -------
    frequency : ndarray
        Centre of each ring in cycles per pixel.
    mean : ndarray
        NaN for a ring without a pixel.
    """
    f_y, f_x = (np.fft.fftshift(np.fft.fftfreq(n)) for n in image.shape)
    side = min(image.shape)
    radius = np.hypot(f_y[:, None], f_x[None, :]) * side
    inner = np.arange(0.0, radius.max(), width)
    inner = inner[(inner >= limits[0] * side) & (inner <= limits[1] * side)]
    ring = np.floor(radius / width + 1e-9).astype(int)
    first = int(np.rint(inner[0] / width)) if len(inner) else 0
    chosen = (ring >= first) & (ring < first + len(inner))
    index = ring[chosen] - first
    total = np.bincount(index, weights=image[chosen], minlength=len(inner))
    count = np.bincount(index, minlength=len(inner))
    mean = np.full(len(inner), np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    return (inner + width / 2) / side, mean
