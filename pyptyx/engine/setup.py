"""From a params dictionary to a `Problem`: data opened, start values made, constants placed.

This is where the dictionary ends.  Everything below receives numbers and arrays by keyword.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np

from pyptyx.backend import make_backends
from pyptyx.data.base import PatternSource
from pyptyx.engine import batching, start
from pyptyx.engine.availability import check_available
from pyptyx.engine.feeding import has_data, make_feed, open_data, plate_reader
from pyptyx.engine.problem import Reconstruction
from pyptyx.engine.window import probe_window
from pyptyx.errors import Problem, ShapeError
from pyptyx.executors import Executor, SerialExecutor, ThreadExecutor
from pyptyx.params import evaluate, resolve
from pyptyx.physics.detector import DetectorGeometry
from pyptyx.physics.grid import Grid
from pyptyx.physics.model import ModelSpec
from pyptyx.physics.tilt import TiltPlan
from pyptyx.terms.data_term import DataTerm, ScanTable

Tree = dict[str, Any]
EVALUATION_NEEDS = ("data", "acc_voltage")
SIMULATION_NEEDS = ("acc_voltage",)


def build(
    params: Mapping[str, Any], *, need: tuple[str, ...] = (*EVALUATION_NEEDS, "output_folder")
) -> Reconstruction:
    """Set up a reconstruction.

    Parameters
    ----------
    params : mapping
        The params dictionary; it is not modified.
    need : tuple of str
        What must be given (see `pyptyx.params.resolve`); without ``"data"`` the problem can only
        simulate.

    Returns
    -------
    Reconstruction
        To be closed, or used as a context manager.

    Raises
    ------
    ParamError, ShapeError, DataError
        If anything does not fit.
    """
    resolved = resolve(params, need=need)
    check_available(resolved)
    first = evaluate(resolved, int(resolved["epoch_prev"]))
    source = open_data(resolved) if has_data(resolved) else None
    resources: list[Any] = [source] if source is not None else []
    try:
        grid = probe_window(resolved, source)
        positions = start.initial_positions(resolved)
        x = _variables(resolved, first, source, grid, positions)
        n = _measurements(resolved, source, positions)
        scan, plates = _scan_table(resolved, grid, positions, n)
        resources.extend(plates)
        _check_fit(resolved, x, scan, n, grid)
        spec = _spec(resolved, first, x, grid, scan)
        executor = make_executor(resolved)
        resources.insert(0, executor)
        return _assemble(resolved, x, spec, scan, executor, source, n, resources)
    except BaseException:
        for resource in resources:
            resource.close()
        raise


def make_executor(resolved: Mapping[str, Any]) -> Executor:
    """The executor that `executor`, `devices` and `backend` ask for."""
    devices = resolved["devices"]
    if isinstance(devices, np.ndarray):
        devices = [int(d) for d in devices]
    if resolved["executor"] == "serial":
        devices = 1 if devices == "auto" else devices
    backends = make_backends(devices, prefer=resolved["backend"])
    return SerialExecutor(backends[0]) if len(backends) == 1 else ThreadExecutor(backends)


def _assemble(
    resolved: dict[str, Any],
    x: Tree,
    spec: ModelSpec,
    scan: ScanTable,
    executor: Executor,
    source: PatternSource | None,
    n: int,
    resources: list[Any],
) -> Reconstruction:
    main = executor.backends[0]
    on_device = {"object", "probe", "background"}
    with main.context():
        placed = {k: main.asarray(v) if k in on_device else v for k, v in x.items()}
    size = _batch_size(resolved, x, spec, executor, n)
    term = DataTerm(
        spec,
        scan,
        make_feed(
            resolved, source, spec.geometry.data_shape(spec.grid.shape), x["object"].real.dtype
        ),
        loss=resolved["algorithm"],
        weight=1.0,
        executor=executor,
        batches=batching.split(np.arange(n), size, len(executor.backends)),
    )
    return Reconstruction(
        resolved, placed, spec, scan, executor, source, size, n, term, _resources=resources[1:]
    )


def _measurements(
    resolved: Mapping[str, Any], source: PatternSource | None, positions: np.ndarray
) -> int:
    if source is not None:
        return int(source.shape[0])
    return max(len(positions), len(resolved["tilts"]))


def _variables(
    resolved: Mapping[str, Any],
    first: Mapping[str, Any],
    source: PatternSource | None,
    grid: Grid,
    positions: np.ndarray,
) -> Tree:
    """Start values, inside layout, on the host; only what enters the model."""
    complex_type = np.dtype(
        np.complex64 if resolved["default_dtype"] == "single" else np.complex128
    )
    real_type = np.empty(0, complex_type).real.dtype
    if isinstance(resolved["probe"], np.ndarray) and resolved["skip_preprocessing"]:
        _check_probe_window(resolved["probe"], grid)
    x: Tree = {
        "object": start.initial_object(resolved, positions, grid.shape).astype(complex_type),
        "probe": start.initial_probe(resolved, source, grid).astype(complex_type),
        "positions": positions,
    }
    tilts = np.array(resolved["tilts"], np.float64)
    if tilts.any() or first["update_tilts"]:
        x["tilts"] = tilts
    background = start.initial_background(resolved, grid.shape)
    if background is not None:
        x["background"] = background.astype(real_type)
    if resolved["beam_current"] is not None or first["update_beam_current"]:
        n = _measurements(resolved, source, positions)
        x["current"] = start.initial_current(resolved, n)
    if resolved["aberration_marker"] is not None:
        x["aberrations"] = np.array(resolved["aberrations_array"], np.float64)
    return x


def _check_probe_window(probe: np.ndarray, grid: Grid) -> None:
    if probe.shape[:2] != grid.shape:
        raise ShapeError(
            Problem(
                "probe",
                f"{grid.shape[0]} x {grid.shape[1]} pixels, the size of the padded patterns",
                f"{probe.shape[0]} x {probe.shape[1]}",
            )
        )


def _scan_table(
    resolved: Mapping[str, Any], grid: Grid, positions: np.ndarray, n: int
) -> tuple[ScanTable, list[Any]]:
    corners = np.rint(positions).astype(np.int64)
    plates, resources = None, []
    if resolved["phase_plate_in_h5"]:
        file = h5py.File(resolved["phase_plate_in_h5"], "r")
        resources.append(file)
        plates = plate_reader(file, grid, n)
    table = ScanTable(corners, resolved["probe_marker"], resolved["aberration_marker"], plates)
    return table, resources


def _check_fit(resolved: Mapping[str, Any], x: Tree, scan: ScanTable, n: int, grid: Grid) -> None:
    """Lengths of per-measurement tables and slices; all problems at once."""
    problems = []
    for key, rows in (
        ("positions", len(x["positions"])),
        ("tilts", len(x["tilts"]) if "tilts" in x else 1),
    ):
        if rows not in (1, n):
            problems.append(Problem(key, f"{n} rows (one per pattern) or 1", f"{rows} rows"))
    for key in ("probe_marker", "aberration_marker"):
        if resolved[key] is not None and len(resolved[key]) != n:
            problems.append(Problem(key, f"{n} entries, one per pattern", str(len(resolved[key]))))
    gaps = x["object"].shape[1] - 1
    given = len(resolved["slice_distances"])
    if given != 1 and given < gaps:
        problems.append(Problem("slice_distances", f"1 or {gaps} values", str(given)))
    if scan.scenario is None and x["probe"].shape[0] > 1:
        problems.append(Problem("probe_marker", "one entry per pattern for a 4-D probe", "nothing"))
    top = np.max(scan.corners, axis=0) + grid.shape
    if np.any(top > x["object"].shape[-2:]) and resolved["use_full_FOV"]:
        problems.append(
            Problem("obj", f"at least {top[0]} x {top[1]} pixels", str(x["object"].shape[-2:]))
        )
    if problems:
        raise ShapeError(problems)


def _spec(
    resolved: Mapping[str, Any], first: Mapping[str, Any], x: Tree, grid: Grid, scan: ScanTable
) -> ModelSpec:
    fractions = x["positions"] - scan.corners
    refined = callable(resolved["update_probe_pos"]) or first["update_probe_pos"]
    shift = bool(resolved["allow_subPixel_shift"] and (refined or fractions.any()))
    if not resolved["allow_subPixel_shift"]:
        x["positions"] = scan.corners.astype(np.float64)
    crop = 0 if resolved["use_padded_intensity"] else int(resolved["data_pad"])
    return ModelSpec(
        grid=grid,
        distances_A=_distances(resolved, x["object"].shape[1]),
        tilt=TiltPlan.from_mode(int(resolved["tilt_mode"])) if "tilts" in x else TiltPlan(),
        shift=shift,
        num_aberrations=x["aberrations"].shape[1] if "aberrations" in x else 0,
        plates=scan.plates is not None,
        geometry=DetectorGeometry((crop, crop), int(resolved["upsample_pattern"])),
        patch_band_limit=resolved["object_band_limit"] == "patch",
        dtype=x["object"].dtype,
    )


def _distances(resolved: Mapping[str, Any], slices: int) -> tuple[float, ...]:
    """The gaps in Å; ``edge_slice_thickness`` replaces the first one."""
    given = np.asarray(resolved["slice_distances"], np.float64)
    gaps = np.repeat(given, slices - 1) if len(given) == 1 else given[: slices - 1].copy()
    if resolved["edge_slice_thickness"] is not None and len(gaps):
        gaps[0] = resolved["edge_slice_thickness"]
    return tuple(float(d) for d in gaps)


def _batch_size(
    resolved: Mapping[str, Any], x: Tree, spec: ModelSpec, executor: Executor, n: int
) -> int:
    asked = resolved["compute_batch"]
    if asked != "auto":
        return min(int(asked), n)
    backend = executor.backends[0]
    sizes = batching.Sizes(
        spec.grid.shape,
        x["probe"].shape[1] * x["object"].shape[0],
        x["object"].shape[1],
        x["object"].shape[0],
        np.dtype(spec.dtype).itemsize,
    )
    on_gpu = backend.name != "cpu"
    free = backend.free_bytes() if on_gpu else backend.free_bytes() // len(executor.backends)
    return batching.choose(sizes, free, on_gpu, limit=n)
