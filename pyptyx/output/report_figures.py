"""Figures of the report: drawings that take the colour of the text around them, and plain images.

Drawings become inline SVG.  What is drawn inside `drawing` in the default colour takes that of the
page, light or dark.  Images become PNG in data URIs.
"""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.ticker import MaxNLocator

_INK = "#0a0b0c"
"""Stands for the colour of the text until the drawing is in a page."""

_BLUE, _ORANGE, _GREEN = "#3f88d4", "#d9822b", "#2f9e6e"
"""Visible on white and on black."""

_INKED = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color",
          "grid.color")  # fmt: skip

_DPI = 130
_TILE_PX = 384
"""Longest side of an image in a tile; larger ones are averaged down."""

_SIZE = (5.2, 3.1)


@contextmanager
def drawing() -> Iterator[None]:
    """Context in which figures are made that `inline_svg` can put into a page of any colour."""
    settings: Any = dict.fromkeys(_INKED, _INK)
    settings |= {"font.size": 11, "svg.fonttype": "path", "svg.hashsalt": "pyptyx"}
    settings["legend.frameon"] = False
    with matplotlib.rc_context(settings):
        yield


def inline_svg(figure: Figure, alt: str, name: str) -> str:
    """A figure as an SVG element.

    Parameters
    ----------
    figure : Figure
        Made and passed inside `drawing`.
    alt : str
        What it shows, for those who cannot see it.
    name : str
        Different for every drawing of a page; ids inside begin with it.
    """
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, dpi=_DPI, metadata={"Date": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    # Inside a page its style would be that of everything; here it is that of the drawing.
    for part in ("metadata", "style"):
        svg = re.sub(rf"<{part}.*?</{part}>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg).replace("url(#", f"url(#{name}-")
    width = figure.get_figwidth()
    style = f"max-width:{width:.1f}in;stroke-linejoin:round;stroke-linecap:butt"
    head = f'<svg role="img" aria-label="{html.escape(alt)}" style="{style}" '
    return re.sub(r'<svg (?:width|height)="[^"]*" (?:width|height)="[^"]*" ', head, _sized(svg))


def _sized(svg: str) -> str:
    """The opening tag with width and height in front."""
    tag = svg[: svg.index(">")]
    sizes = re.findall(r'\s(?:width|height)="[^"]*"', tag)
    rest = re.sub(r'\s(?:width|height)="[^"]*"', "", tag)
    return "<svg" + "".join(sizes) + rest[len("<svg") :] + svg[len(tag) :]


def image_uri(
    image: np.ndarray,
    limits: tuple[float, float],
    cmap: str = "gray",
    mask: np.ndarray | None = None,
) -> str:
    """An image ``(Y, X)`` as PNG in a data URI; outside the mask it is transparent."""
    block = max(1, -(-max(image.shape) // _TILE_PX))
    y, x = (n // block * block for n in image.shape)
    inside = np.ones(image.shape, bool) if mask is None else np.asarray(mask, bool)

    def averaged(a: np.ndarray) -> np.ndarray:
        return a[:y, :x].reshape(y // block, block, x // block, block).mean(axis=(1, 3))

    part = averaged(inside.astype(np.float64))
    mean = averaged(np.where(inside, image, 0.0)) / np.where(part > 0, part, 1.0)
    file = io.BytesIO()
    shown = np.ma.masked_array(mean, part == 0)
    low, high = limits if limits[1] > limits[0] else (limits[0], limits[0] + 1.0)
    imsave(file, shown, vmin=low, vmax=high, cmap=cmap, format="png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def history_figure(epochs: Sequence[int], loss: Sequence[float]) -> Figure:
    """Loss after every epoch, logarithmic where all values are positive."""
    figure, ax = _axes()
    values = np.asarray(loss, np.float64)
    ax.plot(epochs, values, color=_BLUE, marker=".", linewidth=1.5)
    if values.size and np.all(values > 0) and values.max() > 2 * values.min():
        ax.set_yscale("log")
    ax.set(xlabel="epoch", ylabel="loss")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def steps_figure(
    epochs: Sequence[int], steps: Sequence[float], evaluations: Sequence[int]
) -> Figure:
    """Step of the line search (dots; rejected ones are left out) and its evaluations (bars)."""
    figure, ax = _axes()
    values = np.asarray(steps, np.float64)
    taken = values > 0
    ax.plot(np.asarray(epochs)[taken], values[taken], color=_BLUE, marker="o", ls="", ms=4)
    longest = float(values[taken].max()) if taken.any() else 1.0
    if taken.any() and longest > 20 * values[taken].min():
        ax.set_yscale("log")
    else:
        ax.set_ylim(0, 1.15 * longest)
    ax.set(xlabel="epoch", ylabel="step")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    other = ax.twinx()
    other.bar(epochs, evaluations, color=_ORANGE, alpha=0.3, width=0.8)
    other.set_ylabel("evaluations")
    other.set_ylim(0, max(4.0, 2.0 * max(evaluations, default=1)))
    other.yaxis.set_major_locator(MaxNLocator(integer=True))
    other.spines["top"].set_visible(False)
    return figure


def rings_figure(
    curves: Sequence[tuple[str, np.ndarray, np.ndarray]], xlabel: str = "frequency / (1/Å)"
) -> Figure:
    """χ² against the ring, one curve ``(name, rings, chi2)`` for each set of patterns."""
    figure, ax = _axes()
    for (name, rings, chi2), colour in zip(curves, (_BLUE, _ORANGE), strict=False):
        ax.plot(rings, chi2, color=colour, marker=".", linewidth=1.5, label=name)
    ax.axhline(1.0, color=_INK, linewidth=1, linestyle=":")
    highest = max((np.percentile(c[2], 98) for c in curves if len(c[2])), default=1.0)
    ax.set(xlabel=xlabel, ylabel="χ²", ylim=(0, 1.25 * max(1.2, float(highest))))
    if len(curves) > 1:
        ax.legend()
    return figure


def map_figure(positions_nm: np.ndarray, values: np.ndarray, label: str) -> Figure:
    """A value at every position ``(P, 2)`` of the scan."""
    figure, ax = _axes((4.6, 3.9))
    extent = np.maximum(np.ptp(positions_nm, axis=0), 1e-12)
    area = 4.0e4 * min(1.0, extent.min() / extent.max()) / max(len(values), 1)
    low, high = np.percentile(values, [1, 99])
    shown = ax.scatter(
        positions_nm[:, 1], positions_nm[:, 0], c=values, s=float(np.clip(area, 2, 250)),
        marker="s", cmap="viridis", vmin=low, vmax=max(high, low + 1e-12), linewidths=0,
        rasterized=True,
    )  # fmt: skip
    figure.colorbar(shown, ax=ax, label=label, shrink=0.85)
    ax.set(xlabel="x / nm", ylabel="y / nm", aspect="equal")
    ax.invert_yaxis()
    return figure


def deviation_figure(deviation: np.ndarray) -> Figure:
    """Mean deviation of the data from the model on the detector, in standard deviations."""
    figure, ax = _axes((4.6, 3.9))
    limit = max(3.0, float(np.percentile(np.abs(deviation), 99)))
    seen = np.ma.masked_equal(deviation, 0.0)  # outside the band limit there is no model
    shown = ax.imshow(seen, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    figure.colorbar(shown, ax=ax, label="Σ(data − model) / √Σmodel")
    ax.grid(visible=False)
    ax.spines[:].set_visible(True)
    ax.set_xticks([])
    ax.set_yticks([])
    return figure


def correlation_figure(
    curves: Sequence[tuple[str, np.ndarray, np.ndarray]], half_bit: np.ndarray
) -> Figure:
    """Correlation of half data ``(name, frequencies, values)`` with its three thresholds.

    The first curve stands out, and the half-bit threshold is the one for it.
    """
    figure, ax = _axes()
    for number, (_, q, values) in enumerate(curves[1:]):
        label = "others" if number == 0 else None
        ax.plot(q, values, color=_ORANGE, alpha=0.45, linewidth=1, label=label)
    name, q, values = curves[0]
    ax.plot(q, values, color=_BLUE, linewidth=2, label=name)
    ax.plot(q, half_bit, color=_GREEN, linestyle="--", linewidth=1, label="half-bit")
    for level in (1 / 7, 0.5):
        ax.axhline(level, color=_INK, linestyle=":", linewidth=1)
    ax.set(xlabel="frequency / (1/Å)", ylabel="correlation", ylim=(-0.15, 1.05))
    ax.legend()
    return figure


def displacement_figure(displacements_A: np.ndarray) -> Figure:
    """Displacement ``(N, 2)`` of the positions against their number."""
    figure, ax = _axes()
    for axis, (name, colour) in enumerate((("y", _BLUE), ("x", _ORANGE))):
        ax.plot(displacements_A[:, axis], color=colour, linewidth=0.8, label=name, rasterized=True)
    ax.set(xlabel="position", ylabel="displacement / Å")
    ax.legend()
    return figure


def arrows_figure(positions_nm: np.ndarray, displacements_A: np.ndarray) -> Figure:
    """Displacements as arrows at the positions, the longest ones made well visible."""
    figure, ax = _axes((4.6, 3.9))
    longest = max(float(np.hypot(*displacements_A.T).max()), 1e-12)
    reach = 0.08 * max(float(np.ptp(positions_nm, axis=0).max()), 1e-12) / longest
    ax.quiver(
        positions_nm[:, 1], positions_nm[:, 0],
        displacements_A[:, 1] * reach, displacements_A[:, 0] * reach,
        angles="xy", scale_units="xy", scale=1, color=_BLUE, width=0.004,
    )  # fmt: skip
    ax.set(xlabel="x / nm", ylabel="y / nm", aspect="equal")
    ax.set_title(f"longest arrow {longest:.3g} Å", fontsize=11)
    ax.invert_yaxis()
    return figure


def curve_figure(values: np.ndarray, xlabel: str, ylabel: str) -> Figure:
    """A series of numbers."""
    figure, ax = _axes()
    ax.plot(values, color=_BLUE, linewidth=0.9)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    return figure


def _axes(size: tuple[float, float] = _SIZE) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, layout="constrained")
    ax = figure.subplots()
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(visible=True, alpha=0.18, linewidth=0.6)
    ax.set_axisbelow(True)
    return figure, ax
