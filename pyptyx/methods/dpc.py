"""Phase from centres of mass: integration of a gradient field.

Notation
--------
``g = (g_y, g_x)``
    gradient of the phase in rad/Å along the scan axes, ``g = 2π COM`` with the centre of mass in 1/Å
    (no 2π) in the frame of the scan.
``φ``
    phase in rad, zero mean; a plane is kept.
``OTF(q) = Σ_k A*(k) A(k + q)``
    what is left of the gradient at frequency ``q``, for a pupil of ``Σ|A|² = 1``: the centre of mass
    is the gradient seen through ``|P|²``, for any phase object whose electrons are all caught.

The integral with free boundaries (`integrate`) is exact for any phase whose gradient is sampled
finely enough; the periodic one (`integrate_periodic`) has PyPty's filters.

References
----------
I. Lazić, E. G. T. Bosch, S. Lazar, Ultramicroscopy 160 (2016) 265-280.
R. Close, Z. Chen, N. Shibata, S. D. Findlay, Ultramicroscopy 159 (2015) 124-137.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.fft
from scipy.sparse.linalg import LinearOperator, cg

from pyptyx.errors import Problem, ShapeError
from pyptyx.methods.gamma import Overlaps, Pupil
from pyptyx.methods.shared_sums import summed

_DISC_SAMPLES = 48
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
    # Four copies of every value: amplitudes add up, which is four times the variance each.
    noise = np.where(good, 16 * ny * nx * gradient_variance / np.where(good, strength, 1), np.inf)
    signal = _ring_mean(np.abs(raw) ** 2 - np.where(good, noise, 0), q2, good)
    transfer = np.where(good, signal / np.where(good, signal + noise, 1), 0)
    phase = scipy.fft.irfft2(raw * transfer, s=up.shape)[:ny, :nx]
    ssnr = np.where(good, signal / np.where(good, noise, 1), 0)
    return Deconvolved(phase - phase.mean(), transfer[::2, ::2], ssnr[::2, ::2])
