"""One picture for each sign on the page of conventions, computed by the package itself.

Every function returns a figure and its *facts*: the few numbers that the text beside the picture
states.  They are written into the file, so that a test can compare them with the code of today.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import pyptyx
from pyptyx.data.source import open_source
from pyptyx.physics.grid import Grid
from pyptyx.physics.multislice import fresnel_propagator
from pyptyx.physics.optics import aberration_names, aberration_phase

Facts = dict[str, float]
Drawn = tuple[Figure, Facts]

_ENERGY_KV = 80.0
_SEMIANGLE_RAD = 0.025
_WAVELENGTH_A = pyptyx.wavelength_A(_ENERGY_KV)
_INTENSITY, _PHASE = "magma", "RdBu_r"
_MARK = "#1f77b4"


# ---- beam ---------------------------------------------------------------------------------------


def defocus() -> Drawn:
    """Beams of positive and negative C10 from the side."""
    grid = Grid((72, 80), (0.5, 0.45), _WAVELENGTH_A, cutoff=1.0)
    heights = np.linspace(-400, 400, 81)
    figure = Figure(figsize=(7, 3.4), layout="constrained")
    facts = {}
    axes = figure.subplots(1, 2, sharey=True)
    beams = {"overfocus": 200.0, "underfocus": -200.0}
    for ax, (name, c10) in zip(axes, beams.items(), strict=True):
        spectrum = np.fft.fft2(_exit_wave(grid, {"extra_probe_defocus": c10}))
        planes = [np.fft.ifft2(fresnel_propagator(grid, z) * spectrum) for z in heights]
        profiles = np.stack([abs(plane[grid.shape[0] // 2]) ** 2 for plane in planes])
        facts[f"cross-over of C10 = {c10:+.0f} Å"] = float(heights[profiles.max(axis=1).argmax()])
        extent = (grid.x_A[0], grid.x_A[-1], heights[-1], heights[0])
        ax.imshow(np.sqrt(profiles), cmap=_INTENSITY, extent=extent, aspect="auto")
        ax.axhline(0, color="white", ls="--")
        ax.text(extent[0] + 1, -12, "specimen", color="white")
        ax.set(title=f"defocus = {c10:+.0f} Å: {name}", xlabel="x (Å)")
        _beam_arrow(ax)
    axes[0].set_ylabel("z along the beam (Å)")
    return figure, facts


def slices() -> Drawn:
    """An underfocused beam comes to its focus at a slice further down."""
    grid = Grid((60, 64), (0.4, 0.4), _WAVELENGTH_A, cutoff=1.0)
    gap, c10, count = 40.0, -120.0, 6
    figure = Figure(figsize=(8, 1.9), layout="constrained")
    sharpness = []
    for z, ax in enumerate(figure.subplots(1, count)):
        known = {
            "extra_probe_defocus": c10,
            "obj": np.ones((*grid.shape, z + 1, 1), complex),
            "slice_distances": [gap] * max(z, 1),
        }
        intensity = abs(_exit_wave(grid, known)) ** 2
        sharpness.append(intensity.max())
        ax.imshow(np.sqrt(intensity)[18:-18, 20:-20], cmap=_INTENSITY)
        ax.set(title=f"slice {z}\n{z * gap:.0f} Å deep", xticks=[], yticks=[])
    return figure, {"slice with the focus": float(np.argmax(sharpness)), "C10": c10, "gap": gap}


def aberrations() -> Drawn:
    """Phase χ in the aperture, and the probe, for one aberration after the other."""
    grid = Grid((64, 72), (0.35, 0.35), _WAVELENGTH_A, cutoff=1.0)
    names = aberration_names(8)
    q_y, q_x = (np.fft.fftshift(q) for q in (grid.q_y, grid.q_x))
    inside = np.hypot(q_y[:, None], q_x) <= _SEMIANGLE_RAD / _WAVELENGTH_A
    along = {"+x": (0, 1), "-x": (0, -1), "+y": (1, 0), "-y": (-1, 0), "+x+y": (1, 1)}
    figure = Figure(figsize=(10, 3), layout="constrained")
    facts = {}
    columns = figure.subplots(2, len(names)).T
    for number, (name, column) in enumerate(zip(names, columns, strict=True)):
        coefficients = np.zeros(len(names))
        coefficients[number] = 1.5 * _WAVELENGTH_A / _SEMIANGLE_RAD ** (int(name[1]) + 1)
        chi = aberration_phase(coefficients, q_y[:, None], q_x[None, :], _WAVELENGTH_A)
        probe = _exit_wave(grid, {"aberrations": coefficients})
        for ax, image, cmap, span in (
            (column[0], np.where(inside, chi, np.nan), _PHASE, abs(chi[inside]).max()),
            (column[1], abs(probe), _INTENSITY, None),
        ):
            ax.imshow(image, cmap=cmap, vmin=-span if span else 0, vmax=span)
            middle = np.array(image.shape) // 2
            ax.set(xlim=middle[1] + np.array([-18, 18]), ylim=middle[0] + np.array([18, -18]))
            ax.set(xticks=[], yticks=[])
        column[0].set_title(name)
        for direction, (y, x) in along.items():
            q = _SEMIANGLE_RAD / _WAVELENGTH_A / np.hypot(y, x)
            value = aberration_phase(coefficients, np.array(y * q), np.array(x * q), _WAVELENGTH_A)
            facts[f"{name} {direction}"] = float(np.round(value, 6))
        if name.startswith("C21"):
            place = _centre_of_mass(abs(probe) ** 2, grid.y_A, grid.x_A)
            facts |= {f"{name}, probe y": float(place[0]), f"{name}, probe x": float(place[1])}
    columns[0][0].set_ylabel("χ (red > 0)")
    columns[0][1].set_ylabel("probe")
    return figure, facts


# ---- scan ---------------------------------------------------------------------------------------


def scan() -> Drawn:
    """Order of the points, and the window of one of them."""
    positions, pixel = _scanned(0)
    figure = Figure(figsize=(6.5, 3.2), layout="constrained")
    ax, beside = figure.subplots(1, 2)
    _number(ax, positions)
    ax.set_title("positions of (scan_y, scan_x) = (3, 4)")
    window, corner = (20, 22), positions[6] / pixel
    spot = _spot(corner, window)
    beside.add_patch(Rectangle(corner[::-1], *window[::-1], fill=False, color=_MARK))
    beside.plot(*corner[::-1], "o", color=_MARK)
    beside.annotate("position", corner[::-1], (4, 4), textcoords="offset points")
    beside.plot(*spot[::-1], "*", ms=12, color="crimson")
    beside.annotate("beam", spot[::-1], (6, 2), textcoords="offset points")
    beside.set(title="window of point 6", xlim=(-1, 32), ylim=(26, -1), xlabel="x (px)")
    beside.set(ylabel="y (px)", aspect="equal")
    return figure, {
        "point 1 - point 0, y": float(positions[1, 0] - positions[0, 0]),
        "point 1 - point 0, x": float(positions[1, 1] - positions[0, 1]),
        "point 4 - point 0, y": float(positions[4, 0] - positions[0, 0]),
        "point 4 - point 0, x": float(positions[4, 1] - positions[0, 1]),
        "beam - position, y": float(round(spot[0] - corner[0], 3)),
        "beam - position, x": float(round(spot[1] - corner[1], 3)),
    }


def rotation() -> Drawn:
    """The same scan with three angles."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    facts = {}
    for ax, angle in zip(figure.subplots(1, 3), (0, 30, -30), strict=True):
        positions, _ = _scanned(angle)
        _number(ax, positions)
        ax.set_title(f"PLRotation_deg = {angle}")
        dy, dx = positions[1] - positions[0]
        ax.annotate(
            "", positions[3][::-1], positions[0][::-1], arrowprops={"arrowstyle": "->", "lw": 1.5}
        )
        facts[f"direction of the fast axis at {angle}°"] = float(np.degrees(np.arctan2(dy, dx)))
    return figure, facts


def _scanned(angle_deg: float) -> tuple[np.ndarray, np.ndarray]:
    """Positions (N, 2) in Å of a scan of 3 x 4 points, and the size of a pixel."""
    disc = np.hypot(*(np.indices((20, 22)) - np.array([10, 11])[:, None, None])) < 5
    params = pyptyx.append_exp_params(
        {
            "dataset": np.broadcast_to(disc * 100.0, (3, 4, 20, 22)).copy(),
            "acc_voltage": _ENERGY_KV,
            "rez_pixel_size_A": 0.1,
            "scan_step_A": 1.5,
            "PLRotation_deg": angle_deg,
            "data_pad": 0,
            "num_slices": 1,
            "print_flag": 0,
            "output_folder": None,
        },
        {},
    )
    pixel = np.array([params["pixel_size_y_A"], params["pixel_size_x_A"]])
    return np.asarray(params["positions"]) * pixel, pixel


def _number(ax: Axes, positions: np.ndarray) -> None:
    """Points of a scan with their numbers, y down."""
    ax.plot(positions[:, 1], positions[:, 0], "o", color=_MARK)
    for number, (y, x) in enumerate(positions):
        ax.annotate(str(number), (x, y), (4, 4), textcoords="offset points")
    ax.set(xlabel="x (Å)", ylabel="y (Å)", aspect="equal")
    ax.margins(0.15)
    ax.invert_yaxis()


def _spot(corner: np.ndarray, window: tuple[int, int]) -> np.ndarray:
    """Where the beam of a position is, from the wave that the model sends through the object."""
    grid = Grid(window, (0.5, 0.5), _WAVELENGTH_A, cutoff=1.0)
    whole = np.rint(corner)
    size = (whole + np.array(window) + 1).astype(int)
    known = {"positions": [[0.0, 0.0], list(corner)], "obj": np.ones((*size, 1, 1), complex)}
    intensity = abs(_exit_wave(grid, known, measurement=1)) ** 2
    return whole + _centre_of_mass(intensity, np.arange(window[0]), np.arange(window[1]))


# ---- detector -----------------------------------------------------------------------------------

_LETTER = np.array(
    [
        [1, 1, 1, 1, 1],
        [1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 0, 0, 0, 0],
        [1, 0, 0, 0, 0],
        [1, 0, 0, 0, 0],
        [1, 0, 0, 0, 0],
    ]
)


def orientation() -> Drawn:
    """What `flip_ky` and `transpose_patterns` do with a pattern."""
    stored = np.pad(_LETTER, ((2, 2), (3, 3))).astype(np.float32)
    stored[2, 7] = 2  # the right end of its upper arm
    cases: dict[str, dict[str, Any]] = {
        "as stored": {},
        "flip_ky": {"flip_ky": True},
        "transpose_patterns": {"transpose": True},
        "both": {"flip_ky": True, "transpose": True},
    }
    figure = Figure(figsize=(8, 2.4), layout="constrained")
    facts = {}
    for ax, (name, how) in zip(figure.subplots(1, 4), cases.items(), strict=True):
        pattern = open_source(stored[None], **how).read([0])[0]
        ax.imshow(pattern > 0, cmap="Greys")
        ax.set(title=name, xlabel="kx", ylabel="ky")
        row, column = np.unravel_index(pattern.argmax(), pattern.shape)
        facts[f"{name}, row"], facts[f"{name}, column"] = float(row), float(column)
    return figure, facts


def phase() -> Drawn:
    """An atom right of the beam pulls the pattern to the right."""
    grid = Grid((64, 72), (0.25, 0.25), _WAVELENGTH_A, cutoff=1.0)
    atom = np.hypot(grid.y_A[:, None], grid.x_A - 1.5)
    potential = 0.8 * np.exp(-(atom**2) / 2)
    known = _model(grid, {"obj": np.exp(1j * potential)[..., None, None]})
    pattern = pyptyx.simulate(known)[0]
    q_y, q_x = (np.fft.fftshift(q) for q in (grid.q_y, grid.q_x))
    centre = _centre_of_mass(pattern, q_y, q_x)
    figure = Figure(figsize=(6.5, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    extent = (grid.x_A[0], grid.x_A[-1], grid.y_A[-1], grid.y_A[0])
    left.imshow(potential, cmap="Greys", extent=extent)
    left.contour(grid.x_A, grid.y_A, abs(_exit_wave(grid, {})), levels=3, colors="crimson")
    left.set(title="phase > 0 (black), beam (red)", xlim=(-5, 5), ylim=(5, -5))
    left.set(xlabel="x (Å)", ylabel="y (Å)")
    right.imshow(pattern, cmap=_INTENSITY, extent=(q_x[0], q_x[-1], q_y[-1], q_y[0]))
    right.axhline(0, color="white", lw=0.5)
    right.axvline(0, color="white", lw=0.5)
    right.plot(*centre[::-1], "+", ms=10, color="cyan")
    right.set(title="pattern, centre of mass (+)", xlim=(-0.9, 0.9), ylim=(0.9, -0.9))
    right.set(xlabel="q_x (1/Å)", ylabel="q_y (1/Å)")
    return figure, {"centre of mass, y": float(centre[0]), "centre of mass, x": float(centre[1])}


# ---- tilts --------------------------------------------------------------------------------------

_TILT_RAD = (0.004, 0.012)
_GAP_A = 300.0


def tilts() -> Drawn:
    """What the three tilts do with the exit wave behind two slices and with the pattern."""
    grid = Grid((72, 80), (0.5, 0.5), _WAVELENGTH_A, cutoff=1.0)
    q_y, q_x = (1e3 * _WAVELENGTH_A * np.fft.fftshift(q) for q in (grid.q_y, grid.q_x))
    figure = Figure(figsize=(8.5, 5), layout="constrained")
    facts = {}
    cases = {"none": None, "before": 0, "inside": 2, "after": 4}
    for (name, first), (top, bottom) in zip(cases.items(), figure.subplots(2, 4).T, strict=True):
        row = np.zeros((1, 6))
        if first is not None:
            row[0, first : first + 2] = _TILT_RAD
        known = {"slice_distances": [_GAP_A], "tilt_mode": 4, "tilts": row}
        known |= {"obj": np.ones((*grid.shape, 2, 1), complex), "extra_probe_defocus": -_GAP_A}
        wave = _exit_wave(grid, known)
        pattern = pyptyx.simulate(_model(grid, known))[0]
        place = _centre_of_mass(abs(wave) ** 2, grid.y_A, grid.x_A)
        angle = _centre_of_mass(pattern, q_y, q_x)
        extent = (grid.x_A[0], grid.x_A[-1], grid.y_A[-1], grid.y_A[0])
        top.imshow(abs(wave), cmap=_INTENSITY, extent=extent)
        top.set(title=f"tilt {name}", xlim=(-9, 9), ylim=(9, -9), xlabel="x (Å)")
        bottom.imshow(pattern, cmap=_INTENSITY, extent=(q_x[0], q_x[-1], q_y[-1], q_y[0]))
        bottom.set(xlabel="θ_x (mrad)")
        for ax in (top, bottom):
            ax.axhline(0, color="white", lw=0.5)
            ax.axvline(0, color="white", lw=0.5)
        for axis, where, slope in zip("yx", place, angle, strict=True):
            facts[f"{name}: exit wave, {axis} (Å)"] = float(where)
            facts[f"{name}: pattern, {axis} (mrad)"] = float(slope)
    figure.axes[0].set_ylabel("exit wave, y (Å)")
    figure.axes[4].set_ylabel("pattern, θ_y (mrad)")
    return figure, facts


# ---- common -------------------------------------------------------------------------------------


def _model(grid: Grid, more: dict[str, object]) -> dict[str, object]:
    """Parameters of a beam through vacuum, unless `more` says otherwise."""
    aperture = np.hypot(grid.q_y[:, None], grid.q_x) <= _SEMIANGLE_RAD / _WAVELENGTH_A
    return {
        "acc_voltage": _ENERGY_KV,
        "pixel_size_y_A": grid.pixel_A[0],
        "pixel_size_x_A": grid.pixel_A[1],
        "probe": np.fft.fftshift(np.fft.ifft2(aperture))[..., None],
        "positions": [[0.0, 0.0]],
        "obj": np.ones((*grid.shape, 1, 1), complex),
        "apply_aberrations_to_probe": True,
        "damping_cutoff_multislice": grid.cutoff,
        "default_dtype": "double",
        "backend": "cpu",
        **more,
    }


def _exit_wave(grid: Grid, more: dict[str, object], measurement: int = 0) -> np.ndarray:
    """Wave (ny, nx) behind the specimen."""
    return pyptyx.simulate(_model(grid, more), exit_waves=True)[measurement, :, :, 0, 0]


def _centre_of_mass(a: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.array([a.sum(axis=1) @ y, a.sum(axis=0) @ x]) / a.sum()


def _beam_arrow(ax: Axes) -> None:
    ax.annotate(
        "", (0.06, 0.72), (0.06, 0.95), xycoords="axes fraction",
        arrowprops={"arrowstyle": "->", "color": "white"},
    )  # fmt: skip
    ax.text(0.09, 0.9, "beam", color="white", transform=ax.transAxes)


SIGNS: dict[str, Callable[[], Drawn]] = {
    "defocus": defocus,
    "slices": slices,
    "aberrations": aberrations,
    "scan": scan,
    "rotation": rotation,
    "orientation": orientation,
    "phase": phase,
    "tilts": tilts,
}
"""Every picture ``sign_NAME.png`` by its name."""
