"""Figures of a reconstruction: arrays and numbers in, `matplotlib.figure.Figure` out.

Nothing is shown and no global plotting state is touched; ``figure.savefig(path)`` writes a picture.
Layouts are the public ones: object ``(Y, X, Nz, Mo)``, probe ``(ny, nx, Mp[, Ns])``, positions
``(N, 2)`` in pixels as ``(y, x)`` of the window's top-left corner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from scipy.spatial import ConvexHull, QhullError

from pyptyx.errors import Problem, ShapeError

Field = tuple[slice, slice]
PixelSize = float | tuple[float, float]

WHOLE: Field = (slice(None), slice(None))


def plot_phase(
    obj: np.ndarray,
    pixel_size_A: PixelSize,
    *,
    slice_index: int | None = None,
    object_mode: int = 0,
    field: Field = WHOLE,
    mask: np.ndarray | None = None,
    flatten: bool = True,
) -> Figure:
    """Phase of the object with a scale bar and a colour bar in rad.

    Parameters
    ----------
    obj : ndarray, (Y, X), (Y, X, Nz) or (Y, X, Nz, Mo), complex
        Transmission functions.
    pixel_size_A : float or (float, float)
        Pixel size in Å, or its two values ``(y, x)``.
    slice_index : int, optional
        The slice to show; without it the phases of all slices are added.
    object_mode : int
        The object mode to show.
    field : (slice, slice)
        Rows and columns to show, for instance from `scanned_field`.
    mask : ndarray, (Y, X), bool, optional
        What to show of them, for instance from `scanned_mask`; the rest stays empty and has no part
        in the ramp and the grey scale.
    flatten : bool
        Remove the constant and the linear ramp of every slice; ptychography leaves both open.

    Returns
    -------
    Figure

    Raises
    ------
    ShapeError
        If `obj` has another number of axes, or the slice or the mode does not exist.
    """
    slices = _slices(obj, slice_index, object_mode)[field]
    inside = None if mask is None else np.asarray(mask, bool)[field]
    phases = (np.angle(slices[..., z]) for z in range(slices.shape[-1]))
    image = sum(remove_ramp(p, inside) if flatten else p for p in phases)
    return plot_map(np.asarray(image), pixel_size_A, "phase / rad", inside)


def plot_amplitude(
    obj: np.ndarray,
    pixel_size_A: PixelSize,
    *,
    slice_index: int | None = None,
    object_mode: int = 0,
    field: Field = WHOLE,
    mask: np.ndarray | None = None,
) -> Figure:
    """Amplitude of the object with a scale bar; the amplitudes of all slices are multiplied.

    Parameters are those of `plot_phase`.

    Returns
    -------
    Figure

    Raises
    ------
    ShapeError
        If `obj` has another number of axes, or the slice or the mode does not exist.
    """
    slices = _slices(obj, slice_index, object_mode)[field]
    inside = None if mask is None else np.asarray(mask, bool)[field]
    return plot_map(np.abs(slices).prod(axis=-1), pixel_size_A, "amplitude", inside)


def plot_probe(probe: np.ndarray, pixel_size_A: PixelSize, *, scenario: int = 0) -> Figure:
    """Amplitude of each probe mode, in real space (top) and in the aperture plane (bottom).

    Parameters
    ----------
    probe : ndarray, (ny, nx), (ny, nx, Mp) or (ny, nx, Mp, Ns), complex
        Real-space probe, centred at ``n // 2``.
    pixel_size_A : float or (float, float)
        Pixel size in Å, or its two values ``(y, x)``.
    scenario : int
        Which of the ``Ns`` probes to show.

    Returns
    -------
    Figure

    Raises
    ------
    ShapeError
        If `probe` has another number of axes or the scenario does not exist.
    """
    modes = _layout("probe", probe, (2, 3, 4), "(ny, nx), (ny, nx, Mp) or (ny, nx, Mp, Ns)")
    modes = modes[..., _checked("scenario", scenario, modes.shape[3])]
    py, px = _both(pixel_size_A)
    rows, columns, count = modes.shape
    step_y, step_x = 1 / (rows * py), 1 / (columns * px)
    power = np.asarray(np.sum(np.abs(modes) ** 2, axis=(0, 1), dtype=np.float64))
    share = power / max(power.sum(), np.finfo(np.float64).tiny)

    figure = Figure(figsize=(2.4 * count + 0.6, 5.2), layout="constrained")
    axes = figure.subplots(2, count, squeeze=False)
    for mode in range(count):
        wave = modes[..., mode]
        real, reciprocal = axes[:, mode]
        real.imshow(np.abs(wave), cmap="gray", aspect=py / px)
        real.set_title(f"mode {mode}: {100 * share[mode]:.1f} %")
        _scale_bar(real, wave.shape, px)
        spectrum = np.abs(np.fft.fftshift(np.fft.fft2(wave, norm="ortho")))
        reciprocal.imshow(spectrum, cmap="gray", aspect=step_y / step_x)
        _scale_bar(reciprocal, wave.shape, step_x, _reciprocal_label)
        for ax in (real, reciprocal):
            ax.set_xticks([])
            ax.set_yticks([])
    axes[0, 0].set_ylabel("real space")
    axes[1, 0].set_ylabel("aperture plane")
    return figure


def plot_loss(records: Iterable[Mapping[str, Any] | Any]) -> Figure:
    """Loss against epoch, logarithmic where all values are positive.

    Parameters
    ----------
    records : iterable
        Mappings with the keys, or objects with the attributes, ``epoch`` and ``loss``.

    Returns
    -------
    Figure
    """
    rows = list(records)
    epochs = [_entry(row, "epoch") for row in rows]
    losses = np.array([_entry(row, "loss") for row in rows], dtype=np.float64)
    figure = Figure(figsize=(5.5, 3.6), layout="constrained")
    ax = figure.subplots()
    ax.plot(epochs, losses, marker=".", color="black", linewidth=1)
    if losses.size and np.all(losses > 0):
        ax.set_yscale("log")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("epoch")
    ax.set_ylabel("loss")
    ax.grid(visible=True, which="both", alpha=0.25)
    return figure


def plot_map(
    image: np.ndarray, pixel_size_A: PixelSize, label: str, mask: np.ndarray | None = None
) -> Figure:
    """One real image with a colour bar and a scale bar; 0.5 % at each end are clipped.

    Parameters
    ----------
    image : ndarray, (Y, X), float
    pixel_size_A : float or (float, float)
        Pixel size in Å, or its two values ``(y, x)``.
    label : str
        Of the colour bar, with the unit.
    mask : ndarray, (Y, X), bool, optional
        What to show; the rest stays empty and has no part in the grey scale.

    Returns
    -------
    Figure
    """
    py, px = _both(pixel_size_A)
    rows, columns = image.shape
    width = 5.0
    height = float(np.clip(width * rows * py / (columns * px), 1.5, 10.0))
    figure = Figure(figsize=(width + 1.0, height), layout="constrained")
    ax = figure.subplots()
    visible = np.ma.masked_array(image, mask=False if mask is None else ~mask)
    low, high = np.percentile(visible.compressed(), [0.5, 99.5])
    shown = ax.imshow(visible, cmap="gray", vmin=low, vmax=high, aspect=py / px)
    ax.set_facecolor("lightgrey")
    figure.colorbar(shown, ax=ax, label=label)
    ax.set_xticks([])
    ax.set_yticks([])
    _scale_bar(ax, image.shape, px)
    return figure


def remove_ramp(phase: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Phase without the constant and the linear ramp that ptychography leaves undetermined.

    The slope is taken from the wrapped differences of neighbours, so it is found however often the
    ramp wraps; the rest is fitted by a plane.

    Parameters
    ----------
    phase : ndarray, (Y, X), float
        Wrapped phase in rad.
    mask : ndarray, (Y, X), bool, optional
        Where the ramp is measured; everywhere by default.  It is removed everywhere.

    Returns
    -------
    ndarray, (Y, X), float64
        Phase in rad, zero on average inside `mask`.

    Raises
    ------
    ShapeError
        If `phase` is not an image, `mask` has another shape or selects fewer than three pixels.
    """
    phase = np.asarray(phase, dtype=np.float64)
    inside = np.ones(phase.shape, bool) if mask is None else np.asarray(mask, bool)
    if phase.ndim != 2 or inside.shape != phase.shape or np.count_nonzero(inside) < 3:
        raise ShapeError(
            Problem(
                "phase, mask",
                "an image (Y, X) and a mask of its shape selecting at least three pixels",
                f"phase {phase.shape}, mask {inside.shape} selecting {np.count_nonzero(inside)}",
            )
        )
    y, x = np.indices(phase.shape)
    wave = np.exp(1j * phase)
    wave *= np.exp(-1j * (_slope(wave, inside, 0) * y + _slope(wave, inside, 1) * x))
    flat = np.angle(wave * np.conj(np.sum(wave[inside])))

    plane = np.stack([np.ones(phase.shape), y, x], axis=-1)
    coefficients = np.linalg.lstsq(plane[inside], flat[inside], rcond=None)[0]
    return flat - plane @ coefficients


def scanned_field(positions: np.ndarray, window: tuple[int, int]) -> Field:
    """Rows and columns of the object between the outermost beam centres.

    Parameters
    ----------
    positions : ndarray, (N, 2), float
        Top-left corners ``(y, x)`` of the probe window in pixels.
    window : (int, int)
        Shape ``(ny, nx)`` of the probe window.

    Returns
    -------
    (slice, slice)
        At least one pixel per axis.
    """
    low = np.rint(np.min(positions, axis=0)).astype(int)
    high = np.rint(np.max(positions, axis=0)).astype(int)
    rows, columns = (
        slice(int(a) + n // 2, int(b) + n // 2 + 1)
        for a, b, n in zip(low, high, window, strict=True)
    )
    return rows, columns


def scanned_mask(
    positions: np.ndarray, window: tuple[int, int], shape: tuple[int, int]
) -> np.ndarray:
    """Pixels of the object inside the convex hull of the beam centres, the outermost ones included.

    Parameters
    ----------
    positions : ndarray, (N, 2), float
        Top-left corners ``(y, x)`` of the probe window in pixels.
    window : (int, int)
        Shape ``(ny, nx)`` of the probe window.
    shape : (int, int)
        Shape ``(Y, X)`` of the object.

    Returns
    -------
    ndarray, (Y, X), bool
        For positions on one line, the rectangle of `scanned_field`.
    """
    mask = np.zeros(shape, bool)
    mask[scanned_field(positions, window)] = True
    centres = np.asarray(positions, np.float64) + np.asarray(window) // 2
    try:
        sides = ConvexHull(centres).equations
    except QhullError:  # fewer than three points, or all on one line
        return mask
    y, x = np.indices(shape)
    for normal_y, normal_x, offset in sides:
        mask &= normal_y * y + normal_x * x + offset <= 0.5
    return mask


def _slope(wave: np.ndarray, inside: np.ndarray, axis: int) -> float:
    """Mean phase step in rad between neighbours along `axis`, from pairs inside the mask."""
    wave, inside = np.moveaxis(wave, axis, 0), np.moveaxis(inside, axis, 0)
    pairs = inside[1:] & inside[:-1]
    return float(np.angle(np.sum((wave[1:] * np.conj(wave[:-1]))[pairs])))


def _slices(obj: np.ndarray, slice_index: int | None, object_mode: int) -> np.ndarray:
    """The chosen slices of one object mode as ``(Y, X, n)``."""
    full = _layout("obj", obj, (2, 3, 4), "(Y, X), (Y, X, Nz) or (Y, X, Nz, Mo)")
    mode = full[..., _checked("object_mode", object_mode, full.shape[3])]
    if slice_index is None:
        return mode
    z = _checked("slice_index", slice_index, mode.shape[2])
    return mode[..., z : z + 1]


def _layout(name: str, array: np.ndarray, ndims: tuple[int, ...], expected: str) -> np.ndarray:
    """The array with trailing axes of length one added up to four axes."""
    array = np.asarray(array)
    if array.ndim not in ndims or array.size == 0:
        raise ShapeError(Problem(name, f"a non-empty array {expected}", f"shape {array.shape}"))
    return array.reshape(array.shape + (1,) * (4 - array.ndim))


def _checked(name: str, index: int, count: int) -> int:
    """The index counted from zero; negative ones count from the end."""
    if not -count <= index < count:
        raise ShapeError(Problem(name, f"an index below {count}", str(index)))
    return index % count


def _both(pixel_size_A: PixelSize) -> tuple[float, float]:
    y, x = np.broadcast_to(np.asarray(pixel_size_A, dtype=np.float64), (2,))
    return float(y), float(x)


def _entry(record: Any, name: str) -> Any:
    return record[name] if isinstance(record, Mapping) else getattr(record, name)


def _scale_bar(
    ax: Axes, shape: tuple[int, ...], step: float, label: Callable[[float], str] | None = None
) -> None:
    """A bar of a round length, about a quarter of the width, in the lower left corner."""
    rows, columns = shape
    length = _round_length(0.25 * columns * step)
    width = length / step
    # Pixel centres have whole numbers: the picture begins at -0.5.
    left, bottom, thick = 0.05 * columns - 0.5, 0.94 * rows - 0.5, max(0.012 * rows, 0.2)
    ax.add_patch(Rectangle((left, bottom), width, thick, fc="white", ec="black", lw=0.5))
    ax.text(
        left,
        bottom - 0.01 * rows,
        (label or _length_label)(length),
        va="bottom",
        color="white",
        bbox={"facecolor": "black", "alpha": 0.5, "pad": 1.5, "linewidth": 0},
    )


def _round_length(target: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that does not exceed `target`."""
    decade = 10.0 ** np.floor(np.log10(target))
    # The tolerance keeps 1 at 1 when rounding makes the quotient 0.999...
    return float(decade * max(f for f in (1, 2, 5) if f <= target / decade * (1 + 1e-9)))


def _length_label(length_A: float) -> str:
    for unit, size_A in (("µm", 1e4), ("nm", 10.0)):
        if length_A >= size_A:
            return f"{length_A / size_A:g} {unit}"
    return f"{length_A:g} Å"


def _reciprocal_label(length_per_A: float) -> str:
    if length_per_A < 0.1:
        return f"{10 * length_per_A:g} 1/nm"
    return f"{length_per_A:g} 1/Å"
