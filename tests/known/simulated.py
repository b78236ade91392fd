"""An independent simulation of a thin-specimen 4D-STEM experiment: nothing of the package is used.

The formulas are those of a textbook: probe from a round aperture with ``exp(-iχ)``, transmission,
Fourier transform, squared modulus, Poisson counts.  Probes are shifted by a phase ramp, so
positions need not lie on pixels.
"""

from dataclasses import dataclass

import numpy as np


@dataclass
class Experiment:
    """Patterns and what made them; lengths in Å, patterns [sy, sx, ky, kx], centred."""

    patterns: np.ndarray
    phase: np.ndarray
    pixel_A: float
    origin_px: tuple[float, float]
    energy_kV: float
    semiangle_mrad: float
    defocus_A: float
    step_A: float
    rez_pixel_A: float


def thin_crystal(
    scan=(18, 20), n=48, dose=2e4, defocus_A=120.0, step_A=0.9, rotation_deg=0.0, seed=3
):
    """A square lattice of Gaussian atoms with vacancies, 80 kV, 25 mrad."""
    rng = np.random.default_rng(seed)
    wavelength_A, semiangle = 0.0417571, 0.025
    rez = 0.05
    pixel_A = 1 / (n * rez)
    angle = np.deg2rad(rotation_deg)
    iy, ix = np.mgrid[: scan[0], : scan[1]]
    x = step_A * (ix * np.cos(angle) - iy * np.sin(angle))
    y = step_A * (ix * np.sin(angle) + iy * np.cos(angle))
    centres = np.stack([y - y.min(), x - x.min()], axis=-1) / pixel_A + n // 2
    size = np.ceil(centres.reshape(-1, 2).max(axis=0)).astype(int) + n
    phase = _atoms(size, pixel_A, rng)
    transmission = np.exp(1j * phase)
    q = np.fft.fftfreq(n, pixel_A)
    q2 = q[:, None] ** 2 + q[None, :] ** 2
    chi = np.pi * wavelength_A * defocus_A * q2
    aperture = (np.sqrt(q2) <= semiangle / wavelength_A) * np.exp(-1j * chi)
    aperture *= np.sqrt(dose / (np.abs(aperture) ** 2).sum())
    patterns = np.empty((*scan, n, n), np.uint16)
    for t in np.ndindex(scan):
        cy, cx = centres[t]
        wy, wx = round(cy), round(cx)
        f = np.fft.fftfreq(n)
        ramp = np.exp(-2j * np.pi * (f[:, None] * (cy - wy) + f[None, :] * (cx - wx)))
        probe = np.fft.fftshift(np.fft.ifft2(aperture * ramp))
        top, left = wy - n // 2, wx - n // 2
        exit_wave = probe * transmission[top : top + n, left : left + n]
        intensity = np.abs(np.fft.fftshift(np.fft.fft2(exit_wave))) ** 2
        patterns[t] = rng.poisson(intensity)
    return Experiment(
        patterns, phase, pixel_A, (n // 2, n // 2), 80.0, 25.0, defocus_A, step_A, rez
    )


def _atoms(size, pixel_A, rng):
    """Projected phase of a 2.7 Å lattice, every seventh atom missing, every ninth heavy."""
    y, x = np.mgrid[: size[0], : size[1]] * pixel_A
    phase = np.zeros(size)
    rows, columns = (np.arange(0.0, n * pixel_A, 2.7) for n in size)
    for k, (cy, cx) in enumerate((a, b) for a in rows for b in columns):
        if k % 7 == 0:
            continue
        weight = 0.35 if k % 9 == 0 else 0.2
        dy, dx = rng.uniform(-0.2, 0.2, 2)
        r2 = (y - cy - dy) ** 2 + (x - cx - dx) ** 2
        phase += weight * np.exp(-r2 / (2 * 0.35**2))
    return phase


def lowpass(image, pixel_A, q_max):
    """Sharp low-pass in 1/Å."""
    qy, qx = (np.fft.fftfreq(n, pixel_A) for n in image.shape)
    keep = np.hypot(qy[:, None], qx[None, :]) <= q_max
    return np.fft.ifft2(np.fft.fft2(image) * keep).real


def correlation(a, b):
    """Pearson correlation after removal of the mean and a linear ramp."""
    i, j = np.indices(a.shape)
    design = np.stack([np.ones(a.size), i.ravel(), j.ravel()], axis=1)

    def flat(image):
        return image.ravel() - design @ np.linalg.lstsq(design, image.ravel(), rcond=None)[0]

    return np.corrcoef(flat(a), flat(b))[0, 1]
