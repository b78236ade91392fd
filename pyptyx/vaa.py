"""Looking at results under PyPty's names: figures, fits to waves and to scan grids.

Figures are returned.  `show` decides whether they also appear on screen: by default only in an
interactive session, and never so that a script would wait.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyptyx.constants import wavelength_A
from pyptyx.engine.resample import scan_region
from pyptyx.methods import analysis, scan_fit
from pyptyx.output import analysis_plots, complex_plots
from pyptyx.physics.grid import Grid
from pyptyx.physics.optics import aberration_names
from pyptyx.physics.wave_fit import fit_aberrations

__all__ = [
    "add_scalebar_ax",
    "complex_array_to_rgb",
    "complex_pca",
    "crop_ptycho_object_to_stem_roi",
    "fit_aberrations_to_wave",
    "get_affine_tranform",
    "get_step_angle_scan_grid",
    "mesh_model_positions",
    "mesh_objective_positions",
    "outputlog_plots",
    "plot_complex_colorwheel",
    "plot_complex_modes",
    "plot_modes",
    "radial_average",
]

logger = logging.getLogger(__name__)

_TWELVE_ZEROS = (0.0,) * 12


# ---------------------------------------------------------------------------------------------
# Fits
# ---------------------------------------------------------------------------------------------


def fit_aberrations_to_wave(  # noqa: PLR0913 - PyPty's signature
    wave: np.ndarray,
    px_size_A: float | Sequence[float],
    acc_voltage: float,
    thresh: float = 0,
    aberrations_guess: Sequence[float] = _TWELVE_ZEROS,
    plot: bool = True,
    ftol: float = 1e-20,
    xtol: float = 1e-20,
    loss: str = "linear",
    max_mrad: float = np.inf,
    *,
    show: bool | None = None,
) -> np.ndarray:
    """Krivanek coefficients of a wave, whose spectrum is ``|F| exp(-iχ)``.

    A constant phase and a shift of the wave are fitted as well and left out of the result.

    Parameters
    ----------
    wave : ndarray (ny, nx), complex
        Real space.
    px_size_A : float or (float, float)
        Pixel size in Å, or its values ``(y, x)``.
    acc_voltage : float
        kV.
    thresh : float
        Frequencies below this fraction of the largest amplitude are left out.
    aberrations_guess : sequence of float
        Start values in Å; as many coefficients are fitted.
    plot : bool
        Draw fit, measurement and difference.
    ftol, xtol : float
        Tolerances; below the machine precision they mean that.
    loss : str
        Of ``scipy.optimize.least_squares``.
    max_mrad : float
        Angles beyond are left out.
    show : bool, optional
        See the module.

    Returns
    -------
    ndarray
        Coefficients in Å.

    Raises
    ------
    DataError
        If too few frequencies remain.
    """
    py, px = (float(p) for p in np.broadcast_to(np.asarray(px_size_A, dtype=np.float64), (2,)))
    fit = fit_aberrations(
        wave,
        Grid((wave.shape[0], wave.shape[1]), (py, px), wavelength_A(acc_voltage)),
        aberrations_guess,
        threshold=thresh,
        max_rad=max_mrad * 1e-3,
        loss=loss,
        tolerance=min(ftol, xtol),
    )
    names = aberration_names(len(fit.coefficients_A))
    for name, value in zip(names, fit.coefficients_A, strict=True):
        logger.info("%s: %.3f Å", name, value)
    if plot:
        analysis_plots.plot_aberration_fit(fit.fitted, fit.measured, fit.used, show=show)
    return fit.coefficients_A


def get_step_angle_scan_grid(
    positions: np.ndarray, scan_size: Sequence[int], print_flag: int = 1
) -> tuple[float, float]:
    """Step, in the unit of the positions, and rotation in degrees of the closest square grid.

    Parameters
    ----------
    positions : ndarray (N, 2)
        Columns (y, x).
    scan_size : sequence of int
        ``(Ny, Nx)``.
    print_flag : int
        Above 0 the result is logged.

    Returns
    -------
    step, angle_deg : float
        The angle has the sign of ``PLRotation_deg``.
    """
    step, angle = scan_fit.fit_step_and_angle(positions, scan_size)
    if print_flag:
        logger.info("scan step %.4g, rotation %.3f degrees", step, np.rad2deg(angle))
    return step, float(np.rad2deg(angle))


def get_affine_tranform(
    positions: np.ndarray, scan_size: Sequence[int], px_size_A: float, print_flag: int = 1
) -> np.ndarray:
    """Matrix ``[[yy, yx], [xy, xx]]`` in Å per scan step that makes the positions of the indices.

    Divided by ``scan_step_A`` it can serve as ``transform_axis_matrix`` with ``PLRotation_deg=0``.

    Parameters
    ----------
    positions : ndarray (N, 2)
        Columns (y, x) in pixels.
    scan_size : sequence of int
        ``(Ny, Nx)``.
    px_size_A : float
        Pixel size in Å.
    print_flag : int
        Above 0 the result is logged.
    """
    matrix = scan_fit.fit_affine(np.asarray(positions) * px_size_A, scan_size)
    if print_flag:
        logger.info("scan matrix in Å per step:\n%s", matrix)
    return matrix


def mesh_model_positions(
    step: float, angle_rad: float, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows ``(x', y')`` of scan indices on a grid of a step and a rotation."""
    point = step * np.exp(1j * angle_rad) * (np.asarray(x) + 1j * np.asarray(y))
    return point.real, point.imag


def mesh_objective_positions(
    parameters: Sequence[float],
    x: np.ndarray,
    y: np.ndarray,
    mesh_x: np.ndarray,
    mesh_y: np.ndarray,
) -> float:
    """Sum of squared distances between positions and a grid of ``(step, angle_rad)``.

    Parameters
    ----------
    parameters : (float, float)
        Step, and rotation in rad.
    x, y : ndarray
        Scan indices along the fast and the slow axis.
    mesh_x, mesh_y : ndarray
        Columns and rows of the positions.
    """
    model_x, model_y = mesh_model_positions(parameters[0], parameters[1], x, y)
    return float(((model_x - mesh_x) ** 2 + (model_y - mesh_y) ** 2).sum())


def crop_ptycho_object_to_stem_roi(o: np.ndarray, params: dict[str, Any]) -> np.ndarray:
    """The scanned part of an object ``(Y, X, ...)``, turned into the frame of the scan.

    See `pyptyx.engine.resample.scan_region` for the keys of `params` that are used.
    """
    return scan_region(o, params)


def complex_pca(data: np.ndarray, n_components: int) -> np.ndarray:
    """Principal components ``(Y, X, n_components)`` of observations ``(Y, X, N)``."""
    return analysis.reduce_observations(data, n_components)


# ---------------------------------------------------------------------------------------------
# Figures
# ---------------------------------------------------------------------------------------------


def radial_average(
    ff: np.ndarray,
    r_bins: float,
    r_max: float,
    r_min: float,
    px_size_A: float,
    plot: bool = True,
    *,
    show: bool | None = None,
) -> tuple[np.ndarray, np.ndarray, Figure | None]:
    """Mean of a Fourier image over rings.

    Parameters
    ----------
    ff : ndarray (ny, nx)
        Zero frequency at ``n // 2``.
    r_bins : float
        Width of a ring in Fourier pixels of the shorter side.
    r_max, r_min : float
        Largest and smallest inner radius as fractions of that side; 0.5 is Nyquist.
    px_size_A : float
        Pixel size in real space in Å.
    plot : bool
        Draw the result.
    show : bool, optional
        See the module.

    Returns
    -------
    frequency : ndarray
        Middle of each ring in 1/Å.
    mean : ndarray
    figure : Figure or None
    """
    frequency, mean = analysis.ring_means(np.asarray(ff), r_bins, (r_min, r_max))
    frequency = frequency / px_size_A
    figure = analysis_plots.plot_radial_average(frequency, mean, show=show) if plot else None
    return frequency, mean, figure


def plot_modes(ttt: np.ndarray, *, show: bool | None = None) -> list[Figure]:
    """One figure per mode (and scenario) of a probe ``(ny, nx, Mp[, Ns])``."""
    return analysis_plots.plot_modes(ttt, show=show)


def outputlog_plots(
    loss_path: str | os.PathLike[str],
    skip_first: int = 0,
    plot_time: bool = True,
    *,
    show: bool | None = None,
) -> list[Figure]:
    """One figure per column of a ``loss.csv`` from ``loss`` on, without the first epochs."""
    return analysis_plots.plot_log(Path(loss_path), skip_first, plot_time, show=show)


def add_scalebar_ax(  # noqa: PLR0913 - PyPty's signature
    ax: Axes,
    x: float,
    y: float,
    width: float,
    height: float,
    x_t: float,
    y_t: float,
    px_size: float,
    unit: str,
    fontsize: float = 20,
) -> None:
    """Draw a scale bar.

    Parameters
    ----------
    ax : Axes
        Showing an image.
    x, y : float
        Corner of the bar in px.
    width : float
        Of the bar in `unit`.
    height : float
        Of the bar in px.
    x_t, y_t : float
        Of the text in px.
    px_size : float
        Pixel size in `unit`.
    unit : str
    fontsize : float
        In points.
    """
    analysis_plots.draw_scale_bar(
        ax, (x, y), (width, height), (x_t, y_t), pixel_size=px_size, unit=unit, fontsize=fontsize
    )


def complex_array_to_rgb(
    X: np.ndarray, theme: str = "dark", rmax: float | None = None
) -> np.ndarray:
    """Colours ``(..., 3)`` of complex numbers: hue is the phase.

    The modulus is the brightness (theme ``"dark"``, zero is black) or the saturation (``"light"``,
    zero is white), full at `rmax` or at the largest modulus.
    """
    return complex_plots.complex_to_rgb(X, theme, rmax)


def plot_complex_modes(p: np.ndarray, nm: int, sub: int, *, show: bool | None = None) -> Figure:
    """The `nm` strongest modes of ``(ny, nx, Mp)`` in colour, in `sub` rows."""
    return complex_plots.plot_complex_modes(p, nm, sub, show=show)


def plot_complex_colorwheel(
    ax: Axes,
    theme: str = "dark",
    N: int = 512,
    rmax: float = 1.0,
    fontsize: float = 15,
    background: float = 0,
) -> None:
    """Draw the colour wheel of `complex_array_to_rgb` into axes.

    Parameters
    ----------
    ax : Axes
    theme : {"dark", "light"}
    N : int
        Pixels along a side.
    rmax : float
        Modulus at the rim.
    fontsize : float
        In points.
    background : float
        Grey level around it, 0 black to 1 white.
    """
    complex_plots.draw_color_wheel(
        ax, theme=theme, size=N, r_max=rmax, fontsize=fontsize, background=background
    )
