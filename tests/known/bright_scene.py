"""An independent simulation of bright-field experiments: nothing of the package is used.

The probe is ``IFT[A]``, ``A = aperture exp(-iχ)``, the object ``exp(i phase)``, and every pattern
``|FT[probe · object]|²``.  The probe is moved by phase ramps, so scan points lie anywhere; the
object repeats, so nothing ends.  Axes are (y, x), lengths Å.
"""

from dataclasses import dataclass

import numpy as np

ORDERS = [(1, 0, 1), (1, 2, 1), (1, 2, 1j), (2, 1, 1), (2, 1, 1j), (2, 3, 1), (2, 3, 1j), (3, 0, 1)]
"""(n, m, 1 or i) of C10, C12a, C12b, C21a, C21b, C23a, C23b, C30."""


def wavelength(energy_kV):
    return 12.398419843 / np.sqrt(energy_kV * (energy_kV + 1021.99790))


def chi(ky, kx, coefficients, lam):
    w = lam * (kx + 1j * ky)
    total = np.zeros(np.broadcast(ky, kx).shape)
    for c, (n, m, part) in zip(coefficients, ORDERS, strict=False):
        angular = (w**m).real if part == 1 else (w**m).imag
        total = total + c * np.abs(w) ** (n + 1 - m) * angular / (n + 1)
    return 2 * np.pi / lam * total


@dataclass
class Scene:
    """Optics and scan."""

    detector: tuple = (40, 44)
    radius_px: float = 8.0
    energy_kV: float = 60.0
    semiangle: float = 0.030
    scan: tuple = (31, 36)
    step: float = 0.8
    rotation_deg: float = 0.0
    aberrations: tuple = ()
    transposed: bool = False

    @property
    def lam(self):
        return wavelength(self.energy_kV)

    @property
    def dk(self):
        return self.semiangle / self.lam / self.radius_px

    @property
    def pixel(self):
        return tuple(1 / (n * self.dk) for n in self.detector)

    def positions(self):
        """(y, x) of every scan point in the frame of the detector."""
        iy, ix = (i.ravel() * self.step for i in np.indices(self.scan))
        c, s = np.cos(np.deg2rad(self.rotation_deg)), np.sin(np.deg2rad(self.rotation_deg))
        return np.stack([ix * s + iy * c, ix * c - iy * s], axis=1)

    def pupil(self):
        ky, kx = (np.fft.fftfreq(n) * n * self.dk for n in self.detector)
        ky, kx = ky[:, None], kx[None, :]
        soft = np.clip((self.semiangle / self.lam - np.hypot(ky, kx)) / self.dk + 0.5, 0, 1)
        wave = soft * np.exp(-1j * chi(ky, kx, self.aberrations, self.lam))
        return wave / np.sqrt((np.abs(wave) ** 2).sum())

    def patterns(self, phase, dose=0.0, seed=1):
        """Patterns (sy, sx, ky, kx), centred, sum 1 or Poisson counts.

        `phase` has the pixels of the probe and repeats; its pixel (0, 0) is the place (0, 0).
        """
        rng = np.random.default_rng(seed)
        wave, (ny, nx), pixel = self.pupil(), self.detector, np.array(self.pixel)
        fy, fx = np.fft.fftfreq(ny, pixel[0])[:, None], np.fft.fftfreq(nx, pixel[1])[None, :]
        transmission = np.exp(1j * phase)
        rows, columns = np.arange(ny) - ny // 2, np.arange(nx) - nx // 2
        out = np.empty((len(self.positions()), ny, nx))
        for n, place in enumerate(self.positions()):
            corner = np.floor(place / pixel).astype(int)
            dy, dx = place - corner * pixel + (ny // 2, nx // 2) * pixel
            probe = np.fft.ifft2(wave * np.exp(-2j * np.pi * (fy * dy + fx * dx)))
            y = (corner[0] + rows) % phase.shape[0]
            x = (corner[1] + columns) % phase.shape[1]
            spectrum = np.fft.fft2(probe * transmission[np.ix_(y, x)])
            out[n] = np.fft.fftshift(np.abs(spectrum) ** 2)
        stack = out.reshape(*self.scan, ny, nx)
        if dose:
            stack = rng.poisson(stack * dose)
        return stack.swapaxes(2, 3).copy() if self.transposed else stack


def white_phase(shape, pixel, q_max, rms, seed=5):
    """A random phase with a flat spectrum up to `q_max` (1/Å), mostly few bright spots."""
    rng = np.random.default_rng(seed)
    q = np.hypot(np.fft.fftfreq(shape[0], pixel[0])[:, None], np.fft.fftfreq(shape[1], pixel[1]))
    points = rng.random(shape) ** 12
    phase = np.fft.ifft2(np.fft.fft2(points) * (q < q_max) * (q > 0)).real
    return phase * rms / phase.std()


def experiment_of(scene, patterns, **more):
    """What `append_exp_params` wants to know; the rotation is said to be 0."""
    return {
        "dataset": patterns,
        "acc_voltage": scene.energy_kV,
        "scan_step_A": scene.step,
        "rez_pixel_size_A": scene.dk,
        "conv_semiangle_mrad": 1e3 * scene.semiangle,
        "PLRotation_deg": 0.0,
        "bright_threshold": 0.5,
        "data_pad": 0,
        "output_folder": None,
        **more,
    }
