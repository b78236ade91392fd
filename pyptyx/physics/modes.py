"""Probe modes: how partial coherence is put into a start probe, and how modes are orthogonalised.

The detector model takes the *mean* over modes of the intensity.  Every generator here therefore
returns modes whose mean intensity carries the counts of the wave it started from:
``mean_m Σ|p_m|² = Σ|p|²``.

All waves are in real space, inside layout ``(Mp, ny, nx)``, centred at index ``n // 2``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pyptyx.errors import Problem, ShapeError
from pyptyx.physics.grid import Grid
from pyptyx.physics.optics import apply_phase, defocus_phase

Array = Any

_NEGLIGIBLE = 1e-12
"""Relative amplitude below which a spectrum carries nothing that double precision can see."""


def _power(waves: Array) -> Array:
    """``Σ_r |p|²`` of each wave."""
    return (waves.real**2 + waves.imag**2).sum(axis=(-2, -1))


def defocus_spread_modes(probe: Array, defocus_A: Sequence[float] | Array, grid: Grid) -> Array:
    """One mode per defocus value, each the whole wave.

    Parameters
    ----------
    probe : array (ny, nx), complex
        The wave.
    defocus_A : sequence of float
        Extra defocus of each mode in Å (overfocus > 0).
    grid : Grid
        The probe window.

    Returns
    -------
    array (len(defocus_A), ny, nx), complex128
    """
    qy, qx = grid.q_y[:, None], grid.q_x[None, :]
    chi = [defocus_phase(float(d), qy, qx, grid.wavelength_A) for d in defocus_A]
    return apply_phase(probe, np.stack(chi))


def hermite_modes(probe: Array, n_y: int, n_x: int) -> Array:
    """Monomial-Gaussian modes of a wave.

    Mode 0 is the wave itself; then, y order outermost, ``p (Y-y_c)^i (X-x_c)^j G`` for
    ``i = 0..n_y, j = 0..n_x`` without ``(0, 0)``, with ``G`` the Gaussian of the centroid and the
    variances of ``|p|²``.  Each carries the full counts; they are not orthogonal.

    Parameters
    ----------
    probe : array (ny, nx), complex
        The wave.
    n_y, n_x : int
        Highest power along y and x.

    Returns
    -------
    array ((n_y + 1) (n_x + 1), ny, nx), complex128

    Raises
    ------
    ShapeError
        If the wave has no extent along an axis.
    """
    intensity = np.abs(probe) ** 2
    total = intensity.sum()
    axes, gaussian = [], 1.0
    for axis, size in enumerate(probe.shape):
        coordinate = np.linspace(-1, 1, size)
        weight = intensity.sum(axis=1 - axis) / total
        centred = coordinate - coordinate @ weight
        variance = centred**2 @ weight
        if not variance > 0:
            raise ShapeError(
                Problem(
                    "n_hermite_probe_modes",
                    "a probe wider than one pixel along both axes",
                    f"no extent along axis {'yx'[axis]}",
                    "Set n_hermite_probe_modes=None or give another probe.",
                )
            )
        centred = centred[:, None] if axis == 0 else centred[None, :]
        axes.append(centred)
        gaussian = gaussian * np.exp(-(centred**2) / (2 * variance))
    y, x = axes
    modes = [probe.astype(np.complex128)]
    for i, j in np.ndindex(n_y + 1, n_x + 1):
        if i or j:
            modes.append(probe * y**i * x**j * gaussian)
    stack = np.stack(modes)
    return stack * np.sqrt(total / _power(stack))[:, None, None]


def coherence_modes(
    probe: Array,
    n_modes: int,
    rng: np.random.Generator,
    *,
    grid: Grid,
    source_sigma_A: tuple[float, float] = (0.0, 0.0),
    source_correlation: float = 0.0,
    focal_spread_A: float = 0.0,
    n_samples: int = 256,
) -> Array:
    """Leading modes of a partially coherent beam, by Monte-Carlo sampling and an SVD.

    Source points ``(dy, dx)`` and defocus changes are drawn from Gaussians; the left singular
    vectors of the sampled waves, times their singular values, are the best few modes of the mixed
    state.  They are orthogonal, strongest first, and rescaled to the full counts because the
    weaker ones are left out.

    Parameters
    ----------
    probe : array (ny, nx), complex
        The coherent wave.
    n_modes : int
        Modes to keep, at most `n_samples`.
    rng : numpy.random.Generator
        Source of all random numbers.
    grid : Grid
        The probe window.
    source_sigma_A : tuple of float
        Standard deviations of the source size along y and x in Å.
    source_correlation : float
        Correlation coefficient of both.
    focal_spread_A : float
        Standard deviation of the defocus in Å.
    n_samples : int
        Number of draws.

    Returns
    -------
    array (n_modes, ny, nx), complex128

    Raises
    ------
    ShapeError
        If more modes are asked for than samples or spectrum pixels exist.

    References
    ----------
    P. Thibault, A. Menzel, Nature 494 (2013) 68-71.
    """
    spectrum = np.fft.fft2(probe)
    # Pixels the beam does not reach would only make the matrix taller.
    lit = np.abs(spectrum) > _NEGLIGIBLE * np.abs(spectrum).max()
    if not 1 <= n_modes <= min(n_samples, int(lit.sum())):
        raise ShapeError(
            Problem(
                "mc_n_modes",
                f"between 1 and the number of samples ({n_samples}) and of spectrum pixels "
                f"({int(lit.sum())})",
                str(n_modes),
                "Raise n_mc_samples or ask for fewer modes.",
            )
        )
    rows, columns = np.nonzero(lit)
    y, x = grid.q_y[rows], grid.q_x[columns]
    sy, sx = source_sigma_A
    cross = source_correlation * sy * sx
    shifts = rng.multivariate_normal([0, 0], [[sy**2, cross], [cross, sx**2]], size=n_samples)
    defocus = rng.normal(0.0, focal_spread_A, size=n_samples)
    phase = 2 * np.pi * (np.outer(y, shifts[:, 0]) + np.outer(x, shifts[:, 1]))
    phase += np.pi * grid.wavelength_A * np.outer(y**2 + x**2, defocus)
    samples = spectrum[lit][:, None] * np.exp(-1j * phase)

    vectors, values, _ = np.linalg.svd(samples, full_matrices=False)
    spectra = np.zeros((n_modes, *spectrum.shape), dtype=np.complex128)
    spectra[:, lit] = (vectors[:, :n_modes] * values[:n_modes]).T
    modes = np.fft.ifft2(spectra)
    return modes * np.sqrt(_power(probe) * n_modes / _power(modes).sum())


def orthogonalise(probe: Array, xp: Any = np) -> Array:
    """Rotate modes into orthogonal ones, strongest first; ``Σ_m |p_m(r)|²`` stays as it is.

    Parameters
    ----------
    probe : array (..., Mp, ny, nx), complex
        Modes; leading axes (scenarios) are treated one by one.
    xp : module
        Array namespace.

    Returns
    -------
    array of the same shape
        ``Uᴴ p`` with ``p = U S Vᴴ``.  The free phase of each new mode is fixed by its largest
        contributor, so that orthogonal, sorted modes come back unchanged.
    """
    flat = probe.reshape(*probe.shape[:-2], -1)
    unitary = xp.linalg.svd(flat, full_matrices=False)[0]
    largest = xp.abs(unitary).argmax(axis=-2)[..., None, :]
    pivot = xp.take_along_axis(unitary, largest, axis=-2)
    unitary = unitary * (pivot.conj() / xp.abs(pivot))
    return (unitary.conj().swapaxes(-1, -2) @ flat).reshape(probe.shape)
