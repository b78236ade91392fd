"""Phase from centres of mass: integration of a gradient field.

Notation
--------
``g = (g_y, g_x)``
    gradient of the phase in rad/Å along the scan axes, ``g = 2π COM`` with the centre of mass in
    1/Å (no 2π) in the frame of the scan.
``φ``
    phase in rad, zero mean; a plane is kept.
``OTF(q) = Σ_k A*(k) A(k + q)``
    what is left of the gradient at frequency ``q``, for a pupil of ``Σ|A|² = 1``: the centre of
    mass is the gradient seen through ``|P|²``, for any phase object whose electrons are all caught.

The integral with free boundaries (`integrate`) is exact for any phase whose gradient is sampled
finely enough; the periodic one (`integrate_periodic`) has PyPty's filters.

References
----------
I. Lazić, E. G. T. Bosch, S. Lazar, Ultramicroscopy 160 (2016) 265-280.
R. Close, Z. Chen, N. Shibata, S. D. Findlay, Ultramicroscopy 159 (2015) 124-137.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.fft
from scipy.ndimage import map_coordinates
from scipy.sparse.linalg import LinearOperator, cg

from pyptyx.errors import Problem, ShapeError
from pyptyx.methods.gamma import Pupil, detector_frame

_DISC_SAMPLES = 128
"""Points across the aperture in the numerical OTF."""

_WEAK = 1e-3
"""Part of the OTF at zero below which a frequency is not transferred."""


def integrate(gy: np.ndarray, gx: np.ndarray, step_A: float) -> np.ndarray:
    """Phase of least squares with free boundaries, by a discrete cosine transform.

    Differences of neighbours are fitted to the mean of both gradients, which is exact for
    polynomials of second degree.

    Parameters
    ----------
    gy, gx : ndarray (Ny, Nx)
        Gradient in rad/Å.
    step_A : float
        Scan step.

    Returns
    -------
    ndarray (Ny, Nx)
        Phase in rad, zero mean.
    """
    gy, gx = _checked(gy, gx)
    return _solve_neumann(_divergence(*_differences(gy, gx, step_A)))


def integrate_periodic(
    gy: np.ndarray, gx: np.ndarray, step_A: float, *, highpass: float = 0.0, lowpass: float = 0.0
) -> np.ndarray:
    """Phase on a periodic field, ``φ̃ = q·g̃ / (2πi (highpass + q² + lowpass q⁴))``.

    Parameters
    ----------
    gy, gx : ndarray (Ny, Nx)
        Gradient in rad/Å.
    step_A : float
        Scan step.
    highpass, lowpass : float
        PyPty's filters; ``q`` counts cycles per scan step here.

    Returns
    -------
    ndarray (Ny, Nx)
        Phase in rad, zero mean.
    """
    gy, gx = _checked(gy, gx)
    qy, qx = _frequencies((gy.shape[0], gy.shape[1]))
    return _inverse_gradient(gy * step_A, gx * step_A, qy, qx, (highpass, lowpass))


def solve_poisson(
    laplacian: np.ndarray, step_A: float = 1.0, *, highpass: float = 0.0, lowpass: float = 0.0
) -> np.ndarray:
    """Periodic solution of ``∇²φ = laplacian``, zero mean.

    Filters as in `integrate_periodic`, whose units they share.
    """
    f = np.asarray(laplacian, dtype=np.float64) * step_A**2
    qy, qx = _frequencies((f.shape[0], f.shape[1]))
    denominator = -4 * np.pi**2 * _filtered(qy**2 + qx**2, highpass, lowpass)
    return scipy.fft.irfft2(_without_mean(scipy.fft.rfft2(f) / denominator), s=f.shape)


def integrate_weighted(
    gy: np.ndarray, gx: np.ndarray, step_A: float, weight: np.ndarray, iterations: int = 200
) -> np.ndarray:
    """Phase of weighted least squares, by conjugate gradients from zero.

    Parameters
    ----------
    gy, gx : ndarray (Ny, Nx)
        Gradient in rad/Å; not read where the weight is 0.
    step_A : float
        Scan step.
    weight : ndarray (Ny, Nx)
        Inverse variance up to a factor, 0 outside an irregular region.
    iterations : int
        Largest number.

    Returns
    -------
    ndarray (Ny, Nx)
        Phase in rad, zero mean where the weight is not 0, 0 elsewhere.
    """
    gy, gx = _checked(gy, gx)
    weight = np.asarray(weight, dtype=np.float64)
    if weight.shape != gy.shape:
        raise ShapeError(Problem("weight", f"shape {gy.shape}", str(weight.shape)))
    used = weight > 0
    gy, gx = np.where(used, gy, 0.0), np.where(used, gx, 0.0)
    # A difference is as good as the worse of its ends.
    wy = np.minimum(weight[:-1], weight[1:])
    wx = np.minimum(weight[:, :-1], weight[:, 1:])
    scale = max(wy.max(initial=0.0), wx.max(initial=0.0))
    if scale == 0:
        return np.zeros(gy.shape)
    wy, wx = wy / scale, wx / scale
    hy, hx = _differences(gy, gx, step_A)

    def normal(flat: np.ndarray) -> np.ndarray:
        phase = flat.reshape(gy.shape)
        return _divergence(wy * np.diff(phase, axis=0), wx * np.diff(phase, axis=1)).ravel()

    size = (gy.size, gy.size)
    solution, _ = cg(
        LinearOperator(size, lambda v: -normal(v), dtype=np.float64),
        -_divergence(wy * hy, wx * hx).ravel(),
        rtol=1e-10,
        maxiter=iterations,
        M=LinearOperator(size, lambda v: -_solve_neumann(v.reshape(gy.shape)).ravel(),
                         dtype=np.float64),
    )  # fmt: skip
    phase = solution.reshape(gy.shape)
    return np.where(used, phase - phase[used].mean(), 0.0)


@dataclass(frozen=True)
class Deconvolved:
    """Phase with its transfer and noise.

    Attributes
    ----------
    phase : ndarray (Ny, Nx)
        rad, zero mean.
    transfer : ndarray (Ny, Nx // 2 + 1)
        What part of each frequency the filter leaves.
    ssnr : ndarray (Ny, Nx // 2 + 1)
        Expected ``|φ̃|² / var φ̃``; infinite variance at zero frequency gives 0.
    """

    phase: np.ndarray
    transfer: np.ndarray
    ssnr: np.ndarray


def deconvolve(
    gy: np.ndarray, gx: np.ndarray, step_A: float, otf: np.ndarray, gradient_variance: float
) -> Deconvolved:
    """Phase without the blur of the probe, by a Wiener filter; mirrored at the boundaries.

    The variance of ``φ̃`` is ``N_R σ² / (4π² q² |OTF|²)`` for a white noise of variance σ² in each
    component of the gradient; the signal is taken to be what exceeds it, ring by ring.

    Parameters
    ----------
    gy, gx : ndarray (Ny, Nx)
        Gradient in rad/Å.
    step_A : float
        Scan step.
    otf : ndarray (2 Ny, Nx + 1)
        Of the mirrored field, see `transfer_function`; zero frequency in the corner.
    gradient_variance : float
        σ² in rad²/Å².
    """
    gy, gx = _checked(gy, gx)
    ny, nx = gy.shape
    # The gradient of a mirrored phase: its component across the mirror changes sign.
    up, right = (np.vstack([gy, -gy[::-1]]), np.vstack([gx, gx[::-1]]))
    up, right = np.hstack([up, up[:, ::-1]]), np.hstack([right, -right[:, ::-1]])
    qy = scipy.fft.fftfreq(2 * ny, step_A)[:, None]
    qx = scipy.fft.rfftfreq(2 * nx, step_A)
    q2 = qy**2 + qx**2
    strength = 4 * np.pi**2 * q2 * np.abs(otf) ** 2
    good = strength > 4 * np.pi**2 * q2 * (_WEAK * np.abs(otf[0, 0])) ** 2
    good[0, 0] = False
    along = qy * scipy.fft.rfft2(up) + qx * scipy.fft.rfft2(right)
    safe = np.where(good, 2j * np.pi * q2 * otf, 1)
    raw = np.where(good, along / safe, 0)
    noise = np.where(good, 4 * ny * nx * gradient_variance / np.where(good, strength, 1), np.inf)
    signal = _ring_mean(np.abs(raw) ** 2 - np.where(good, noise, 0), q2, good)
    transfer = np.where(good, signal / np.where(good, signal + noise, 1), 0)
    phase = scipy.fft.irfft2(raw * transfer, s=up.shape)[:ny, :nx]
    ssnr = np.where(good, signal / np.where(good, noise, 1), 0)
    return Deconvolved(phase - phase.mean(), transfer[::2, ::2], ssnr[::2, ::2])


def transfer_function(
    shape: tuple[int, int], step_A: float, pupil: Pupil, rotation_rad: float = 0.0
) -> np.ndarray:
    """OTF of a probe on the half plane of a real transform.

    Parameters
    ----------
    shape : (int, int)
        Of the field, ``(Py, Px)``.
    step_A : float
        Scan step.
    pupil : Pupil
        Frame of the detector.
    rotation_rad : float
        Scan rotation.

    Returns
    -------
    ndarray (Py, Px // 2 + 1), complex
        1 at zero frequency, 0 beyond twice the aperture.
    """
    spacing = 2 * pupil.radius_A / _DISC_SAMPLES
    number = 4 * _DISC_SAMPLES  # an aperture and its shifted copy do not meet around the corner
    k = scipy.fft.fftfreq(number) * number * spacing
    soft = replace(pupil, soft_edge_A=spacing)
    wave = soft(np.stack(np.meshgrid(k, k, indexing="ij"), axis=-1))
    overlap = scipy.fft.ifft2(np.abs(scipy.fft.fft2(wave)) ** 2)
    # The area counts, not the sum of squares, in which the soft rim is too weak.
    overlap /= np.abs(wave).sum()
    overlap[0, 0] = 1.0
    qy, qx = scipy.fft.fftfreq(shape[0], step_A), scipy.fft.rfftfreq(shape[1], step_A)
    q = detector_frame(np.stack(np.meshgrid(qy, qx, indexing="ij"), axis=-1), rotation_rad)
    at = np.moveaxis(q, -1, 0) / spacing
    parts = [
        map_coordinates(p, at, order=3, mode="grid-wrap") for p in (overlap.real, overlap.imag)
    ]
    otf = parts[0] + 1j * parts[1]
    otf[np.hypot(*at) >= 2 * pupil.radius_A / spacing] = 0
    return otf


def band_pass(
    image: np.ndarray, step_A: float, highpass_A: float = 0.0, lowpass_A: float = 0.0
) -> np.ndarray:
    """Butterworth filter of second order, 0 for none; mirrored at the boundaries.

    Parameters
    ----------
    image : ndarray (Ny, Nx)
    step_A : float
        Scan step.
    highpass_A, lowpass_A : float
        Frequencies in 1/Å at which the amplitude is halved.
    """
    spectrum = scipy.fft.dctn(image, type=2)
    fy, fx = (np.arange(n) / (2 * n * step_A) for n in image.shape)
    q = np.hypot(fy[:, None], fx)
    if highpass_A > 0:
        spectrum *= q**4 / (q**4 + highpass_A**4)
    if lowpass_A > 0:
        spectrum /= 1 + (q / lowpass_A) ** 4
    return scipy.fft.idctn(spectrum, type=2)


def soft_filter(image: np.ndarray, highpass: float = 0.0, lowpass: float = 0.0) -> np.ndarray:
    """PyPty's filter ``q² / (highpass + q² + lowpass q⁴)``, ``q`` in cycles per pixel.

    Mirrored at the boundaries; the mean becomes zero.
    """
    if not (highpass or lowpass):
        return image - image.mean()
    spectrum = scipy.fft.dctn(image, type=2)
    fy, fx = (np.arange(n) / (2 * n) for n in image.shape)
    q2 = fy[:, None] ** 2 + fx**2
    spectrum *= q2 / _filtered(q2, highpass, lowpass)
    return scipy.fft.idctn(spectrum, type=2)


def noise_variance(gy: np.ndarray, gx: np.ndarray) -> float:
    """Variance per component of white noise in a gradient field.

    From the part that is no gradient, at the upper half of the frequencies; the median is not
    misled by a few strong ones.
    """
    gy, gx = _checked(gy, gx)
    qy, qx = _frequencies((gy.shape[0], gy.shape[1]))
    size = np.hypot(qy, qx)
    high = size > 0.25
    across = qx * scipy.fft.rfft2(gy - gy.mean()) - qy * scipy.fft.rfft2(gx - gx.mean())
    power = np.abs(across[high] / size[high]) ** 2
    return float(np.median(power) / np.log(2) / gy.size) if power.size else 0.0


# ---------------------------------------------------------------------------------------------
# Pieces
# ---------------------------------------------------------------------------------------------


def _checked(gy: np.ndarray, gx: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    gy, gx = np.asarray(gy, dtype=np.float64), np.asarray(gx, dtype=np.float64)
    if gy.ndim != 2 or gy.shape != gx.shape:
        expected = "two images (Ny, Nx) of the same shape"
        raise ShapeError(Problem("comx, comy", expected, f"{gx.shape} and {gy.shape}"))
    return gy, gx


def _differences(gy: np.ndarray, gx: np.ndarray, step_A: float) -> tuple[np.ndarray, np.ndarray]:
    """Expected differences of neighbours, ``(Ny - 1, Nx)`` and ``(Ny, Nx - 1)``."""
    return step_A * (gy[:-1] + gy[1:]) / 2, step_A * (gx[:, :-1] + gx[:, 1:]) / 2


def _divergence(hy: np.ndarray, hx: np.ndarray) -> np.ndarray:
    """Minus the adjoint of the differences: nothing flows through the boundaries."""
    return np.diff(hy, axis=0, prepend=0, append=0) + np.diff(hx, axis=1, prepend=0, append=0)


def _solve_neumann(divergence: np.ndarray) -> np.ndarray:
    """Phase of zero mean whose five-point Laplacian with free boundaries is given."""
    spectrum = scipy.fft.dctn(divergence, type=2)
    ey, ex = (2 - 2 * np.cos(np.pi * np.arange(n) / n) for n in divergence.shape)
    eigenvalue = ey[:, None] + ex
    eigenvalue[0, 0] = 1.0
    spectrum /= -eigenvalue
    spectrum[0, 0] = 0.0
    return scipy.fft.idctn(spectrum, type=2)


def _frequencies(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    return scipy.fft.fftfreq(shape[0])[:, None], scipy.fft.rfftfreq(shape[1])


def _filtered(q2: np.ndarray, highpass: float, lowpass: float) -> np.ndarray:
    denominator = highpass + q2 + lowpass * q2**2
    denominator[0, 0] = 1.0
    return denominator


def _inverse_gradient(
    gy: np.ndarray, gx: np.ndarray, qy: np.ndarray, qx: np.ndarray, filters: tuple[float, float]
) -> np.ndarray:
    along = qy * scipy.fft.rfft2(gy) + qx * scipy.fft.rfft2(gx)
    spectrum = along / (2j * np.pi * _filtered(qy**2 + qx**2, *filters))
    return scipy.fft.irfft2(_without_mean(spectrum), s=gy.shape)


def _without_mean(spectrum: np.ndarray) -> np.ndarray:
    spectrum[0, 0] = 0.0
    return spectrum


def _ring_mean(values: np.ndarray, q2: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Mean over rings of |q|, not negative, spread over the plane again."""
    width = np.sqrt(q2[1, 0] if q2.shape[1] == 1 else max(q2[1, 0], q2[0, 1]))
    ring = np.rint(np.sqrt(q2) / width).astype(int)
    total = np.bincount(ring[good], values[good], ring.max() + 1)
    number = np.bincount(ring[good], minlength=ring.max() + 1)
    return np.maximum(total / np.maximum(number, 1), 0)[ring]
