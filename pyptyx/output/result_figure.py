"""One figure of a result: phase, amplitude, probe and loss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pyptyx.output import plots


def plot_result(
    obj: np.ndarray,
    probe: np.ndarray,
    positions: np.ndarray,
    pixel_A: tuple[float, float],
    loss: Sequence[tuple[int, float]],
) -> Figure:
    """Projected phase and amplitude of the scanned field, first probe mode, loss.

    Parameters
    ----------
    obj : ndarray (Y, X, Nz, Mo), complex
        The first object mode is shown.
    probe : ndarray (ny, nx, Mp) or (ny, nx, Mp, Ns), complex
        The first mode is shown.
    positions : ndarray (N, 2)
        Top-left corners (y, x) of the windows in pixels.
    pixel_A : (float, float)
        Pixel size (y, x) in Å.
    loss : sequence of (int, float)
        Epoch and the loss after it.

    Returns
    -------
    Figure
    """
    window = (probe.shape[0], probe.shape[1])
    rows, columns = plots.scanned_field(positions, window)
    mask = plots.scanned_mask(positions, window, (obj.shape[0], obj.shape[1]))
    if np.count_nonzero(mask) < 3:
        mask = np.ones(obj.shape[:2], bool)
    slices = np.moveaxis(obj[..., 0], -1, 0)
    phase = sum(plots.remove_ramp(np.angle(z), mask) for z in slices)
    first = probe.reshape(*probe.shape[:2], -1)[..., 0]
    amplitude = np.abs(slices).prod(axis=0)
    images = (
        ("phase / rad", np.ma.masked_array(phase, ~mask)[rows, columns]),
        ("amplitude", np.ma.masked_array(amplitude, ~mask)[rows, columns]),
        ("probe, mode 0", np.ma.masked_array(np.abs(first))),
    )
    figure = Figure(figsize=(9.0, 7.4), layout="constrained")
    axes = figure.subplots(2, 2).ravel()
    for ax, (title, image) in zip(axes, images, strict=False):
        low, high = np.percentile(image.compressed(), [0.5, 99.5])
        extent = (0.0, image.shape[1] * pixel_A[1] / 10, image.shape[0] * pixel_A[0] / 10, 0.0)
        shown = ax.imshow(image, cmap="gray", vmin=low, vmax=high, extent=extent)
        figure.colorbar(shown, ax=ax, shrink=0.85)
        ax.set(title=title, xlabel="x / nm", ylabel="y / nm")
    axes[-1].plot(*np.reshape(loss, (-1, 2)).T, color="black", marker=".", linewidth=1)
    axes[-1].set(title="loss", xlabel="epoch")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[-1].grid(visible=True, alpha=0.25)
    return figure
