"""Figure of a calibration: what the search has seen, and the phase that comes with the result."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyptyx.output.canvas import new_figure

_MICROMETRE_A = 1e4


def plot_calibration(
    phase: np.ndarray,
    step_A: float,
    grid: tuple[np.ndarray, np.ndarray],
    explained: Mapping[bool, np.ndarray],
    found: tuple[bool, float, float],
    *,
    show: bool | None = None,
) -> Figure:
    """Explained variance over rotation and defocus for both handednesses, and the phase.

    Parameters
    ----------
    phase : ndarray (Ny, Nx)
        rad.
    step_A : float
        Scan step in Å.
    grid : (ndarray (A,), ndarray (C,))
        Rotations in degrees and defoci in Å of the search.
    explained : mapping
        By handedness (detector axes exchanged or not): part of the variance ``(A, C)``.
    found : (bool, float, float)
        Handedness, rotation in degrees and defocus in Å of the result; it is drawn where the search
        has it, half a turn away with the opposite defocus if need be.
    show : bool, optional
        See `pyptyx.output.canvas.new_figure`.

    Returns
    -------
    Figure
    """
    figure = new_figure(show, figsize=(4.2 * (len(explained) + 1), 4.0), layout="constrained")
    axes = figure.subplots(1, len(explained) + 1, squeeze=False)[0]
    best = max((float(e.max()) for e in explained.values()), default=1.0)
    defoci, unit = grid[1], "Å"
    if np.abs(defoci).max(initial=0.0) >= _MICROMETRE_A:
        defoci, unit = defoci / _MICROMETRE_A, "µm"
    for ax, (exchanged, values) in zip(axes, explained.items(), strict=False):
        _landscape(figure, ax, values, (grid[0], defoci), best)
        ax.set(xlabel=f"C10 / {unit}", ylabel="rotation / °")
        ax.set_title("detector axes exchanged" if exchanged else "detector axes as they are")
        if exchanged == found[0]:
            half_turns = round(found[1] / 180)
            angle, sign = found[1] - 180 * half_turns, 1 - 2 * (half_turns % 2)
            defocus = sign * found[2] / (1.0 if unit == "Å" else _MICROMETRE_A)
            ax.plot(defocus, angle, "o", ms=12, mfc="none", mec="red", mew=2)
    ny, nx = phase.shape
    low, high = np.percentile(phase, [0.5, 99.5])
    extent = (0.0, nx * step_A, ny * step_A, 0.0)
    shown = axes[-1].imshow(phase, cmap="gray", vmin=low, vmax=high, extent=extent)
    axes[-1].set(title="phase, scan frame", xlabel="x / Å", ylabel="y / Å")
    figure.colorbar(shown, ax=axes[-1], label="rad")
    return figure


def _landscape(
    figure: Figure, ax: Axes, values: np.ndarray, grid: tuple[np.ndarray, np.ndarray], best: float
) -> None:
    angles, defoci = grid
    shown = ax.pcolormesh(defoci, angles, values, cmap="viridis", vmin=0, vmax=best)
    figure.colorbar(shown, ax=ax, label="explained variance")
