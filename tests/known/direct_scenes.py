"""Scanning diffraction of a periodic phase object, computed from the definition.

``I(k, R) = |FT[P(r - R) O(r)]|²`` on a periodic cell: every scan point of a whole period is
visited, nothing is padded, cut or interpolated.  Nothing of the package is used.
"""

from dataclasses import dataclass

import numpy as np

WAVELENGTH_A = 0.0486668
SEMIANGLE = 0.03


@dataclass
class Scene:
    """Patterns ``[sy, sx, ky, kx]``, centred, unit sum in vacuum; the phase at the scan points."""

    patterns: np.ndarray
    phase: np.ndarray
    step_A: float
    dk_A: tuple[float, float]


def pixel_of(shape, radius_px=14.0):
    """Detector pixels ``(y, x)`` that make square object pixels, about `radius_px` in the disc."""
    dk = SEMIANGLE / WAVELENGTH_A / radius_px
    dx = 1 / (max(shape) * dk)
    return dx, tuple(1 / (n * dx) for n in shape)


def frequencies(shape, dx):
    """``qy (ny, 1)``, ``qx (1, nx)`` in 1/Å, corner order."""
    return np.fft.fftfreq(shape[0], dx)[:, None], np.fft.fftfreq(shape[1], dx)[None, :]


def chi(qy, qx, c10=0.0, c12a=0.0, c12b=0.0, c21a=0.0, c30=0.0):
    """Aberration function in rad, spelt out in polar coordinates."""
    angle, azimuth = WAVELENGTH_A * np.hypot(qy, qx), np.arctan2(qy, qx)
    second = c10 + c12a * np.cos(2 * azimuth) + c12b * np.sin(2 * azimuth)
    total = second * angle**2 / 2 + c21a * np.cos(azimuth) * angle**3 / 3 + c30 * angle**4 / 4
    return 2 * np.pi / WAVELENGTH_A * total


def aperture(shape, dx, **aberrations):
    """Pupil in corner order with ``Σ|A|² = 1``, its rim one pixel wide."""
    qy, qx = frequencies(shape, dx)
    dk = 1 / (min(shape) * dx)
    soft = np.clip((SEMIANGLE / WAVELENGTH_A - np.hypot(qy, qx)) / dk + 0.5, 0, 1)
    pupil = soft * np.exp(-1j * chi(qy, qx, **aberrations))
    return pupil / np.sqrt((np.abs(pupil) ** 2).sum())


def scan(transmission, dx, every=1, rows=None, **aberrations):
    """Patterns at every `every`-th object pixel along both axes, or of the first rows only."""
    shape = transmission.shape
    qy, qx = frequencies(shape, dx)
    pupil = aperture(shape, dx, **aberrations)
    points = [range(0, n, every) for n in shape]
    points[0] = points[0][:rows]
    out = np.empty((len(points[0]), len(points[1]), *shape), np.float32)
    for i, y in enumerate(points[0]):
        for j, x in enumerate(points[1]):
            ramp = np.exp(-2j * np.pi * dx * (qy * y + qx * x))
            wave = np.fft.fft2(np.fft.ifft2(pupil * ramp) * transmission)
            out[i, j] = np.fft.fftshift(np.abs(wave) ** 2)
    return out


def white_phase(shape, dx, rms, seed=0, limit=1.9):
    """Random phase with all frequencies up to `limit` times the aperture, real, zero mean."""
    rng = np.random.default_rng(seed)
    qy, qx = frequencies(shape, dx)
    keep = (np.hypot(qy, qx) < limit * SEMIANGLE / WAVELENGTH_A) & (np.hypot(qy, qx) > 0)
    image = np.fft.ifft2(np.fft.fft2(rng.normal(size=shape)) * keep).real
    return image * (rms / image.std())


def scene(shape=(36, 40), rms=0.02, every=1, radius_px=9.0, seed=0, limit=1.9, **aberrations):
    """A scan of a white phase object."""
    dx, dk = pixel_of(shape, radius_px)
    phase = white_phase(shape, dx, rms, seed, limit)
    patterns = scan(np.exp(1j * phase), dx, every, **aberrations)
    return Scene(patterns, phase, dx * every, dk)


def correlation(a, b):
    """Pearson correlation."""
    return np.corrcoef(np.ravel(a), np.ravel(b))[0, 1]
