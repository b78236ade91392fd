"""Figures for looking into a reconstruction: its modes, its log, its aberrations, its spectra."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from pyptyx.errors import DataError, Problem, ShapeError
from pyptyx.output.canvas import new_figure
from pyptyx.output.losslog import read_loss_csv

_FIRST_COLUMN = "loss"
_NOT_A_NUMBER = "Warnings"


def draw_scale_bar(
    ax: Axes,
    corner: tuple[float, float],
    size: tuple[float, float],
    label_at: tuple[float, float],
    *,
    pixel_size: float,
    unit: str,
    fontsize: float = 20,
) -> None:
    """Draw a white bar with a black outline, and its length.

    Parameters
    ----------
    ax : Axes
        Showing an image whose data unit is the pixel.
    corner : (float, float)
        ``(x, y)`` of the bar in px.
    size : (float, float)
        Width in `unit`, height in px.
    label_at : (float, float)
        ``(x, y)`` of the text in px.
    pixel_size : float
        Size of a pixel in `unit`.
    unit : str
    fontsize : float
        In points.
    """
    width, height = size
    ax.add_patch(Rectangle(corner, width / pixel_size, height, fc="white", ec="black", lw=1))
    outline = [withStroke(linewidth=2, foreground="black")]
    text = f"{width:g} {unit}"
    ax.text(*label_at, text, color="white", fontsize=fontsize, path_effects=outline)


def plot_modes(probe: np.ndarray, *, show: bool | None = None) -> list[Figure]:
    """Modulus and phase of every mode in real space and in the aperture plane.

    Parameters
    ----------
    probe : ndarray, (ny, nx), (ny, nx, Mp) or (ny, nx, Mp, Ns), complex
        Real space, centred at ``n // 2``.
    show : bool, optional
        See `pyptyx.output.canvas.new_figure`.

    Returns
    -------
    list of Figure
        One per mode and scenario, scenarios outermost.

    Raises
    ------
    ShapeError
        If `probe` has another number of axes.
    """
    probe = np.asarray(probe)
    if probe.ndim not in (2, 3, 4):
        expected = "(ny, nx), (ny, nx, Mp) or (ny, nx, Mp, Ns)"
        raise ShapeError(Problem("probe", expected, str(probe.shape)))
    modes: np.ndarray = probe.reshape(probe.shape + (1,) * (4 - probe.ndim))
    axes = (0, 1)
    spectra = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(modes, axes), axes=axes), axes)
    limits = [float(np.abs(a).max()) for a in (modes, spectra)]
    figures = []
    for scenario in range(modes.shape[3]):
        for mode in range(modes.shape[2]):
            waves = [a[..., mode, scenario] for a in (modes, spectra)]
            figures.append(_mode_figure(waves, limits, show))
    return figures


def _mode_figure(waves: list[np.ndarray], limits: list[float], show: bool | None) -> Figure:
    figure = new_figure(show, figsize=(14, 4.4), layout="constrained")
    axes = figure.subplots(1, 4)
    for i, (space, wave, limit) in enumerate(zip("RQ", waves, limits, strict=True)):
        pictures = (
            ("mag", np.abs(wave), {"cmap": "gray", "vmin": 0.0, "vmax": limit}),
            ("phase", np.angle(wave), {"cmap": "hsv", "vmin": -np.pi, "vmax": np.pi}),
        )
        for ax, (name, image, settings) in zip(axes[2 * i :], pictures, strict=False):
            _draw(figure, ax, image, f"{space}-Space {name}", **settings)
    return figure


def _draw(figure: Figure, ax: Axes, image: np.ndarray, title: str, **settings: Any) -> None:
    shown = ax.imshow(image, **settings)
    ax.set_title(title)
    ax.set_axis_off()
    figure.colorbar(shown, ax=ax, orientation="horizontal", shrink=0.8)


def plot_log(
    path: Path, skip_first: int = 0, plot_time: bool = True, *, show: bool | None = None
) -> list[Figure]:
    """One figure per quantity of a ``loss.csv``, against the epoch.

    Parameters
    ----------
    path : Path
        The file.
    skip_first : int
        Epochs left out at the start.
    plot_time : bool
        Whether the top axis shows the time in hours.
    show : bool, optional
        See `pyptyx.output.canvas.new_figure`.

    Returns
    -------
    list of Figure
        For the columns from ``loss`` on, without the warnings.

    Raises
    ------
    DataError
        If the file is not a log, or nothing is left of it.
    """
    if not path.is_file():
        raise DataError(Problem(str(path), "a loss.csv", "no such file", "Check the path."))
    rows = read_loss_csv(path)[skip_first:]
    if not rows or _FIRST_COLUMN not in rows[0]:
        got = f"{len(rows)} of them" if not rows else f"columns {', '.join(rows[0])[:60]}"
        expected = "epochs of a run, with a header"
        raise DataError(Problem(str(path), expected, got, "Lower skip_first."))
    names = list(rows[0])
    names = [n for n in names[names.index(_FIRST_COLUMN) :] if n != _NOT_A_NUMBER]
    epochs, hours = _column(rows, "epoch"), _column(rows, "time / s") / 3600
    figures = []
    for name in names:
        figure = new_figure(show, figsize=(10, 4), dpi=300, layout="constrained")
        ax = figure.subplots()
        ax.plot(epochs, _column(rows, name), ".-", linewidth=2, alpha=0.7)
        ax.set_xlabel("Iteration", fontsize=14)
        ax.set_ylabel(name, fontsize=14)
        if plot_time and len(epochs) > 1:
            _add_time_axis(ax, epochs, hours)
        figures.append(figure)
    return figures


def _column(rows: list[dict[str, str]], name: str) -> np.ndarray:
    """Numbers of a column; NaN where there is none."""
    return np.array([float(row.get(name) or "nan") for row in rows])


def _add_time_axis(ax: Axes, epochs: np.ndarray, hours: np.ndarray) -> None:
    """A second axis with the hours at a few epochs; time is no smooth function of the epoch."""
    top = ax.twiny()
    top.set_xlim(ax.get_xlim())
    chosen = np.unique(np.linspace(0, len(epochs) - 1, 6).astype(int))
    top.set_xticks(epochs[chosen], [f"{hours[i]:.3g}" for i in chosen])
    top.set_xlabel("time / h", fontsize=14)


def plot_aberration_fit(
    fitted: np.ndarray, measured: np.ndarray, used: np.ndarray, *, show: bool | None = None
) -> Figure:
    """Fitted and measured aberration function, and their difference, where they were compared.

    Parameters
    ----------
    fitted, measured : ndarray (ny, nx)
        In rad, centred.
    used : ndarray (ny, nx), bool
    show : bool, optional
        See `pyptyx.output.canvas.new_figure`.

    Returns
    -------
    Figure
    """
    figure = new_figure(show, figsize=(12, 4.4), layout="constrained")
    images = (("fitted", fitted), ("target", measured), ("difference", measured - fitted))
    for ax, (title, image) in zip(figure.subplots(1, 3), images, strict=True):
        _draw(figure, ax, np.ma.masked_array(image, ~used), f"{title} / rad", cmap="RdBu")
    return figure


def plot_radial_average(
    frequency_per_A: np.ndarray, mean: np.ndarray, *, show: bool | None = None
) -> Figure:
    """Means over rings against the spatial frequency in 1/Å, logarithmic."""
    figure = new_figure(show, figsize=(10, 3), layout="constrained")
    ax = figure.subplots()
    ax.plot(frequency_per_A, mean, "-")
    ax.set_xlabel(r"spatial frequency [Å$^{-1}$]")
    if np.any(mean > 0):
        ax.set_yscale("log")
    return figure


def plot_virtual_detector(
    signal: np.ndarray, mask: np.ndarray | None = None, *, show: bool | None = None
) -> Figure:
    """The signal ``(Ny, Nx)`` of a virtual detector, and the detector ``(ky, kx)`` if given."""
    count = 1 if mask is None else 2
    figure = new_figure(show, figsize=(5 * count, 5), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False)[0]
    pictures = (("virtual detector signal", signal), ("virtual detector", mask))
    for ax, (title, image) in zip(axes, pictures, strict=False):
        ax.imshow(image, cmap="gray")
        ax.set_title(title)
        ax.set_axis_off()
    return figure
