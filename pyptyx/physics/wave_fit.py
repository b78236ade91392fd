"""Aberrations of a wave, fitted to the phase of its spectrum.

With ``F`` the spectrum of the wave about index ``n // 2``, ``-arg F = χ + c + 2π q·r``: the
aberration function of `optics`, a constant, and the ramp of a wave that is not centred.  The
constant and the ramp are fitted along with the coefficients, because coma looks much like a ramp.

No phase is unwrapped: the coefficients follow from the wrapped differences of neighbouring pixels,
and are then refined on the wrapped residual.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from pyptyx.errors import DataError, Problem
from pyptyx.physics.grid import Grid
from pyptyx.physics.optics import aberration_basis, aberration_phase

_FREE = 3
"""Columns besides the aberrations: constant and ramp."""

_DARK = 1e-6
"""Relative amplitude below which a frequency carries no phase."""


@dataclass(frozen=True)
class AberrationFit:
    """Result of `fit_aberrations`; images are centred (zero frequency at ``n // 2``).

    Attributes
    ----------
    coefficients_A : ndarray (num,)
        Krivanek coefficients in Å.
    fitted, measured : ndarray (ny, nx), float64
        Aberration function in rad, from the fit and from the wave, without constant and ramp.
    used : ndarray (ny, nx), bool
        Pixels that took part.
    """

    coefficients_A: np.ndarray
    fitted: np.ndarray
    measured: np.ndarray
    used: np.ndarray


def fit_aberrations(
    wave: np.ndarray,
    grid: Grid,
    guess_A: Sequence[float] | np.ndarray,
    *,
    threshold: float = 0.0,
    max_rad: float = np.inf,
    loss: str = "linear",
    tolerance: float = 1e-15,
) -> AberrationFit:
    """Fit as many Krivanek coefficients to a wave as the guess has entries.

    Pixels count with their amplitude, as the phase of a weak one is uncertain.

    Parameters
    ----------
    wave : ndarray (ny, nx), complex
        Real space.
    grid : Grid
        Its sampling and wavelength.
    guess_A : sequence of float
        Start values in Å; zeros do unless the phase turns by more than π from pixel to pixel.
    threshold : float
        Pixels below this fraction of the largest amplitude are left out.
    max_rad : float
        Pixels beyond this angle are left out.
    loss : str
        Of ``scipy.optimize.least_squares``.
    tolerance : float
        Of the refinement, at least the machine precision.

    Raises
    ------
    DataError
        If too few pixels remain.
    """
    spectrum = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(wave)))
    q_y, q_x = np.fft.fftshift(grid.q_y)[:, None], np.fft.fftshift(grid.q_x)[None, :]
    guess = np.asarray(guess_A, dtype=np.float64)
    weight = np.abs(spectrum) / max(float(np.abs(spectrum).max()), np.finfo(np.float64).tiny)
    used = (weight >= threshold) & (weight > _DARK)
    used &= grid.wavelength_A * np.hypot(q_y, q_x) <= max_rad
    if np.count_nonzero(used) <= _FREE + len(guess):
        expected = f"a spectrum with more than {_FREE + len(guess)} pixels to fit"
        got = f"{np.count_nonzero(used)}"
        raise DataError(Problem("wave", expected, got, "Lower thresh or raise max_mrad."))
    ones = np.ones(grid.shape)
    columns = np.concatenate(
        [
            np.stack([ones, q_y * ones, q_x * ones]),
            aberration_basis(q_y, q_x, grid.wavelength_A, len(guess)),
        ]
    )
    # Coefficients span many decades; in these units each is the largest phase it makes.
    unit = np.abs(columns[:, used]).max(axis=1)
    unit[unit == 0] = 1.0
    columns /= unit[:, None, None]

    rest = spectrum * np.exp(1j * aberration_phase(guess, q_y, q_x, grid.wavelength_A))
    start = _from_differences(rest, columns, np.where(used, weight, 0.0))
    matrix = columns[:, used].T * weight[used, None]

    def residual(x: np.ndarray) -> np.ndarray:
        return weight[used] * np.angle(rest[used] * np.exp(1j * (x @ columns[:, used])))

    tolerance = max(tolerance, 2 * np.finfo(np.float64).eps)
    found = least_squares(
        residual, start, jac=lambda _: matrix, loss=loss, ftol=tolerance, xtol=tolerance
    ).x
    coefficients = guess + (found / unit)[_FREE:]
    fitted = aberration_phase(coefficients, q_y, q_x, grid.wavelength_A)
    error = np.angle(rest * np.exp(1j * np.tensordot(found, columns, axes=1)))
    return AberrationFit(coefficients, fitted, fitted - np.where(used, error, 0.0), used)


def _from_differences(rest: np.ndarray, columns: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Coefficients from the phase steps between neighbours; the constant from what is left."""
    rows, steps = [], []
    for axis in (0, 1):
        last, first = ([slice(None)] * 2 for _ in range(2))
        last[axis], first[axis] = slice(1, None), slice(None, -1)
        after, before = tuple(last), tuple(first)
        pair = np.minimum(weight[after], weight[before])
        kept = pair > 0
        step = -np.angle(rest[after] * rest[before].conj())
        change = columns[(slice(None), *after)] - columns[(slice(None), *before)]
        rows.append((change[:, kept] * pair[kept]).T)
        steps.append(step[kept] * pair[kept])
    found = np.linalg.lstsq(np.concatenate(rows), np.concatenate(steps), rcond=None)[0]
    left = rest * np.exp(1j * np.tensordot(found[1:], columns[1:], axes=1)) * weight
    found[0] = -np.angle(left.sum()) / columns[0, 0, 0]
    return found
