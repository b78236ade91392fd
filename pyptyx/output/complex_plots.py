"""Complex images in colour: hue is the phase, brightness or saturation the modulus."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure

from pyptyx.errors import ParamError, Problem, ShapeError
from pyptyx.output.canvas import new_figure

_INK = {"dark": "white", "light": "black"}
"""Colour of writing on each theme, and the themes there are."""


def complex_to_rgb(wave: np.ndarray, theme: str = "dark", r_max: float | None = None) -> np.ndarray:
    """Colours of complex numbers.

    Parameters
    ----------
    wave : ndarray (...), complex
    theme : {"dark", "light"}
        Zero is black and the modulus is the brightness, or zero is white and it is the saturation.
    r_max : float, optional
        Modulus of full colour; the largest one by default.

    Returns
    -------
    ndarray (..., 3), float64
        Red, green, blue in 0 ... 1.

    Raises
    ------
    ParamError
        If there is no such theme.
    """
    if theme not in _INK:
        raise ParamError(Problem("theme", " or ".join(map(repr, _INK)), repr(theme)))
    wave = np.asarray(wave)
    modulus = np.abs(wave)
    limit = float(modulus.max()) if r_max is None else float(r_max)
    strength = np.clip(modulus / limit, 0, 1) if limit > 0 else np.zeros(wave.shape)
    hue = np.angle(wave) / (2 * np.pi) % 1
    full = np.ones(wave.shape)
    hsv = (hue, full, strength) if theme == "dark" else (hue, strength, full)
    return hsv_to_rgb(np.stack(hsv, axis=-1))


def draw_color_wheel(
    ax: Axes,
    *,
    theme: str = "dark",
    size: int = 512,
    r_max: float = 1.0,
    fontsize: float = 15,
    background: float = 0.0,
) -> None:
    """Draw the legend of `complex_to_rgb`: a disc with arrows for modulus and phase.

    Parameters
    ----------
    ax : Axes
        Its content and ticks give way.
    theme : {"dark", "light"}
    size : int
        Pixels along a side.
    r_max : float
        Modulus at the rim, written beside the arrow along the radius.
    fontsize : float
        In points.
    background : float
        Grey level around the disc, 0 black to 1 white.
    """
    axis = np.linspace(-1.25, 1.25, size)
    wave = axis[None, :] + 1j * axis[:, None]
    rgb = complex_to_rgb(wave, theme, 1.0)
    rgb[np.abs(wave) > 1] = background
    ax.imshow(rgb, extent=(-1.25, 1.25, -1.25, 1.25), origin="lower", interpolation="bilinear")
    ink, rim = _INK[theme], "black" if background > 0.5 else "white"
    ax.annotate("", (1, 0), (0, 0), arrowprops={"arrowstyle": "->", "color": ink, "lw": 1.5})
    ax.text(0.5, 0.05, f"{r_max:g}", color=ink, fontsize=fontsize, ha="center", va="bottom")
    angle = np.linspace(0.1, 1.9 * np.pi, 100)
    ax.plot(1.08 * np.cos(angle), 1.08 * np.sin(angle), color=rim, lw=1.5)
    end, before = (
        (1.08 * float(np.cos(a)), 1.08 * float(np.sin(a))) for a in (1.9 * np.pi, 1.85 * np.pi)
    )
    ax.annotate("", end, before, arrowprops={"arrowstyle": "->", "color": rim, "lw": 1.5})
    ax.text(0.85, 0.85, r"2$\pi$", color=rim, fontsize=fontsize, ha="left", va="bottom")
    ax.set_xticks([])
    ax.set_yticks([])


def plot_complex_modes(
    modes: np.ndarray, count: int, rows: int, *, show: bool | None = None
) -> Figure:
    """The strongest modes in colour, turned by 180 degrees, with their share of the intensity.

    Parameters
    ----------
    modes : ndarray (ny, nx, Mp), complex
    count : int
        How many to show.
    rows : int
        Rows of pictures.
    show : bool, optional
        See `pyptyx.output.canvas.new_figure`.

    Returns
    -------
    Figure

    Raises
    ------
    ShapeError
        If there are not that many modes, or not three axes.
    """
    modes = np.asarray(modes)
    if modes.ndim != 3 or not 1 <= count <= modes.shape[2] or not 1 <= rows <= count:
        expected = f"{count} modes (ny, nx, Mp) in {rows} rows"
        raise ShapeError(Problem("p, nm, sub", expected, f"shape {modes.shape}"))
    power = (np.abs(modes) ** 2).sum(axis=(0, 1), dtype=np.float64)
    order = np.argsort(power)[::-1][:count]
    columns = -(-count // rows)
    figure = new_figure(show, figsize=(3 * columns, 3 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes:
        ax.axis("off")
    for ax, index in zip(axes, order, strict=False):
        ax.imshow(complex_to_rgb(modes[::-1, ::-1, index]))
        share = 100 * power[index] / power.sum()
        ax.text(0.05, 0.05, f"{share:.1f} %", transform=ax.transAxes, color="white", fontsize=13)
    return figure
