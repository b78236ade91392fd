"""One screen that says what a set of parameters means physically."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from pyptyx.data import PatternSource
from pyptyx.engine.idle import idle_keys
from pyptyx.engine.patterns import open_patterns
from pyptyx.engine.plan import blank_model
from pyptyx.engine.start import first_sequence, initial_positions, object_shape
from pyptyx.engine.start_probe import initial_probe
from pyptyx.engine.window import probe_window, slow_window
from pyptyx.params import resolve
from pyptyx.physics.grid import Grid


def describe(params: Mapping[str, Any]) -> str:
    """Summary of the experiment and the model: sampling, fields of view, overlap, sizes.

    The beam diameter is that of a uniform disc as concentrated as the start probe: area
    ``(Σ I)² / Σ I²``.  The overlap ratio is ``1 - step / diameter``.

    Parameters
    ----------
    params : mapping
        Parameters of a run; never modified.

    Returns
    -------
    str
        Several lines of text.

    Raises
    ------
    ParamError, DataError, ShapeError
        If the parameters or the data are not usable.
    """
    resolved = resolve(params, need=("data", "acc_voltage"))
    with open_patterns(resolved) as source:
        grid = probe_window(resolved, source)
        probe = initial_probe(resolved, source, grid)
        rows = [
            *_optics_rows(resolved, grid),
            *_scan_rows(resolved, grid, probe),
            *_size_rows(resolved, source, grid, probe),
            *(("remark", text) for text in _remarks(resolved, source, grid)),
        ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in rows)


def _remarks(params: Mapping[str, Any], source: PatternSource, grid: Grid) -> Iterator[str]:
    """What a run would warn of."""
    if remark := slow_window(params, grid):
        yield remark
    x, spec = blank_model(params, source, grid)
    yield from idle_keys(params, spec, x)


def _optics_rows(params: Mapping[str, Any], grid: Grid) -> list[tuple[str, str]]:
    ny, nx = grid.shape
    py, px = grid.pixel_A
    rez_y, rez_x = 1 / (ny * py), 1 / (nx * px)
    mrad = 1e3 * grid.wavelength_A
    energy = f"{params['acc_voltage']:g} kV" if params["acc_voltage"] else "voltage not given"
    rows = [
        ("energy", f"{energy}, wavelength {grid.wavelength_A:.6f} Å"),
        ("pixel (y, x)", f"{py:.4f} x {px:.4f} Å"),
        ("window (y, x)", f"{ny} x {nx} px = {ny * py:.1f} x {nx * px:.1f} Å"),
    ]
    if params["recon_type"] == "near_field":
        defocus = np.ravel(params["defocus_array"])
        rows.append(("distance to the image", f"{_span(defocus)} Å"))
        if defocus.any():
            spread = grid.wavelength_A * np.abs(defocus).max() * max(rez_y, rez_x) ** 2
            rows.append(("Fresnel number of the window", f"{1 / spread:.3g}"))
        return rows
    text = f"{rez_y:.5f} x {rez_x:.5f} 1/Å = {rez_y * mrad:.4f} x {rez_x * mrad:.4f} mrad"
    rows.append(("detector pixel (y, x)", text))
    if np.ndim(params["aperture_mask"]) == 2:
        radius = math.sqrt(np.count_nonzero(params["aperture_mask"]) / math.pi)
        text = f"{radius:.2f} px = {radius * math.sqrt(rez_y * rez_x) * mrad:.2f} mrad"
        rows.append(("bright-field disc radius", text))
    return rows


def beam_diameter_A(probe: np.ndarray, pixel_A: tuple[float, float]) -> float:
    """Diameter in Å of the uniform disc as concentrated as the mean intensity of all modes."""
    intensity = (np.abs(probe) ** 2).reshape(-1, *probe.shape[-2:]).sum(axis=0)
    area = intensity.sum() ** 2 / (intensity**2).sum() * pixel_A[0] * pixel_A[1]
    return 2 * math.sqrt(area / math.pi)


def mean_step_A(positions_A: np.ndarray) -> float:
    """Mean distance in Å of each position from its nearest neighbour; 0 for a single one."""
    from scipy.spatial import cKDTree  # slow to import, and needed here only

    if len(positions_A) < 2:
        return 0.0
    return float(cKDTree(positions_A).query(positions_A, k=2)[0][:, 1].mean())


def _scan_rows(params: Mapping[str, Any], grid: Grid, probe: np.ndarray) -> list[tuple[str, str]]:
    positions = initial_positions(params)[first_sequence(params)]
    in_A = positions * np.array(grid.pixel_A)
    extent = np.ptp(in_A, axis=0) / 10
    step, diameter = mean_step_A(in_A), beam_diameter_A(probe, grid.pixel_A)
    size = params["scan_size"]
    name = f"{size[0]} x {size[1]} points" if size is not None else f"{len(positions)} points"
    step_px = step / math.sqrt(grid.pixel_A[0] * grid.pixel_A[1])
    return [
        ("scan", f"{name}, mean step {step:.3f} Å = {step_px:.2f} px"),
        ("field of view (y, x)", f"{extent[0]:.3f} x {extent[1]:.3f} nm"),
        ("beam diameter", f"{diameter:.2f} Å"),
        ("overlap ratio", f"{1 - step / diameter:.3f}"),
    ]


def _size_rows(
    params: Mapping[str, Any], source: PatternSource, grid: Grid, probe: np.ndarray
) -> list[tuple[str, str]]:
    modes, slices, rows, columns = object_shape(params, initial_positions(params), grid.shape)
    scenarios, probe_modes = probe.shape[:2]
    distances = np.ravel(params["slice_distances"])
    gaps = _span(distances)
    data_bytes = math.prod(source.shape) * source.dtype.itemsize
    return [
        ("object", f"{rows} x {columns} px, {slices} slices of {gaps} Å, {modes} modes"),
        ("probe", f"{probe_modes} modes, {scenarios} scenarios"),
        ("data", f"{' x '.join(map(str, source.shape))} {source.dtype}, {_size(data_bytes)}"),
    ]


def _span(values: np.ndarray) -> str:
    return " to ".join(f"{v:g}" for v in sorted({values.min(), values.max()}))


def _size(n_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n_bytes < 1024:
            return f"{n_bytes:.4g} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:.4g} TiB"
