"""Figures of the direct methods: images with their quality, and shift fields."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from pyptyx.output.canvas import new_figure


def plot_image(
    image: np.ndarray,
    pixel_A: float,
    label: str,
    *,
    frc: tuple[np.ndarray, np.ndarray] | None = None,
    show: bool | None = None,
) -> Figure:
    """An image on the grid of the scan, beside its ring correlation if there is one.

    Parameters
    ----------
    image : ndarray (ny, nx)
        Real values.
    pixel_A : float
        Pixel size in Å.
    label : str
        Of the colour bar, with the unit.
    frc : tuple of ndarray, optional
        Frequencies in 1/Å and Fourier ring correlation of two half sets.
    show : bool, optional
        See `pyptyx.output.canvas.new_figure`.

    Returns
    -------
    Figure
    """
    ny, nx = image.shape
    figure = new_figure(show, figsize=(5.5 if frc is None else 10.0, 4.5), layout="constrained")
    axes = figure.subplots(1, 1 if frc is None else 2, squeeze=False)[0]
    low, high = np.percentile(image, [0.5, 99.5])
    extent = (0.0, nx * pixel_A, ny * pixel_A, 0.0)
    shown = axes[0].imshow(image, cmap="gray", vmin=low, vmax=high, extent=extent)
    axes[0].set(xlabel="x / Å", ylabel="y / Å")
    figure.colorbar(shown, ax=axes[0], label=label)
    if frc is not None:
        axes[1].plot(*frc, color="black", marker=".", linewidth=1)
        axes[1].axhline(0.143, color="grey", linestyle=":")
        axes[1].set(xlabel="frequency / 1/Å", ylabel="correlation of half sets", ylim=(-0.3, 1.05))
        axes[1].grid(visible=True, alpha=0.25)
    return figure


def plot_shifts(
    k_A: np.ndarray,
    measured_A: np.ndarray,
    fitted_A: np.ndarray,
    *,
    show: bool | None = None,
) -> Figure:
    """Shifts of the bright-field images over the detector, measured and fitted.

    Parameters
    ----------
    k_A : ndarray (K, 2)
        Detector coordinates (y, x) in 1/Å.
    measured_A, fitted_A : ndarray (K, 2)
        Shifts (y, x) in Å.
    show : bool, optional
        See `pyptyx.output.canvas.new_figure`.

    Returns
    -------
    Figure
    """
    figure = new_figure(show, figsize=(9.0, 4.5), layout="constrained")
    longest = max(float(np.hypot(*measured_A.T).max(initial=0.0)), 1e-12)
    scale = 0.35 * max(float(np.hypot(*k_A.T).max(initial=0.0)), 1e-12) / longest
    for axis, title, shifts in zip(
        figure.subplots(1, 2), ("measured", "fitted"), (measured_A, fitted_A), strict=True
    ):
        axis.quiver(
            k_A[:, 1], k_A[:, 0], shifts[:, 1] * scale, shifts[:, 0] * scale,
            angles="xy", scale_units="xy", scale=1,
        )  # fmt: skip
        axis.set(title=f"{title}, longest {longest:.3g} Å", xlabel="k_x / 1/Å", ylabel="k_y / 1/Å")
        axis.invert_yaxis()
        axis.set_aspect("equal")
    return figure
