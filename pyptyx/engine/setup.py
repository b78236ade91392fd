"""From a params dictionary to a `Problem`: data opened, start values made, constants placed.

This is where the dictionary ends.  Everything below receives numbers and arrays by keyword.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from pyptyx.backend import make_backends
from pyptyx.data import PatternFeed
from pyptyx.data.base import PatternSource
from pyptyx.engine import batching, start
from pyptyx.engine.choices import Shapes, workload
from pyptyx.engine.cost import DataCost, summary
from pyptyx.engine.distribution import agree, devices_of_rank
from pyptyx.engine.feeding import Share, has_data, make_feed, open_plates, plate_reader
from pyptyx.engine.idle import idle_keys
from pyptyx.engine.masks import mask_problems, model_masks
from pyptyx.engine.patterns import open_patterns
from pyptyx.engine.problem import Reconstruction
from pyptyx.engine.regularisers import probe_mask_problems
from pyptyx.engine.start_probe import mean_pattern
from pyptyx.engine.variables import ever
from pyptyx.engine.window import detector_geometry, probe_window, slow_window, window_problems
from pyptyx.errors import Gathering, Problem, ShapeError
from pyptyx.executors import (
    Communicator,
    Executor,
    MpiCommunicator,
    MpiExecutor,
    SerialExecutor,
    ThreadExecutor,
)
from pyptyx.params import resolve
from pyptyx.params.checks import MARKERS, PER_MEASUREMENT, rows_agree
from pyptyx.params.schedule import schedule_name
from pyptyx.physics.detector import NearFieldOptics
from pyptyx.physics.evaluators import objection
from pyptyx.physics.grid import Grid
from pyptyx.physics.model import ModelSpec
from pyptyx.physics.tilt import TiltPlan
from pyptyx.terms.data_term import DataTerm, ScanTable

logger = logging.getLogger(__name__)

Tree = dict[str, Any]
EVALUATION_NEEDS = ("data", "acc_voltage")
SIMULATION_NEEDS = ("acc_voltage",)


def build(
    params: Mapping[str, Any],
    *,
    need: tuple[str, ...] = (*EVALUATION_NEEDS, "output_folder"),
    communicator: Communicator | None = None,
) -> Reconstruction:
    """Set up a reconstruction.

    Parameters
    ----------
    params : mapping
        The params dictionary; it is not modified.
    need : tuple of str
        What must be given (see `pyptyx.params.resolve`); without ``"data"`` the problem can only
        simulate.
    communicator : Communicator, optional
        The processes that share the problem; each of them builds it.

    Returns
    -------
    Reconstruction
        To be closed, or used as a context manager.

    Raises
    ------
    ParamError, ShapeError, DataError
        If anything does not fit.
    """
    communicator = communicator or Communicator()
    resolved = communicator.together(lambda: resolve(params, need=need))
    executor = make_executor(resolved, communicator)
    try:
        problem = communicator.together(lambda: _built(resolved, executor))
        agree(problem)
        return problem
    except BaseException:
        executor.close()
        raise


def _built(resolved: dict[str, Any], executor: Executor) -> Reconstruction:
    """The problem on the workers of this process; files are closed if it cannot be built."""
    source = open_patterns(resolved) if has_data(resolved) else None
    resources: list[Any] = [source] if source is not None else []
    try:
        grid = probe_window(resolved, source)
        n = _measurements(resolved, source)
        _check_arrays(resolved, source, n, grid)
        if remark := slow_window(resolved, grid):
            logger.warning("%s", remark)
        positions = start.initial_positions(resolved)
        x = _variables(resolved, source, grid, positions, n)
        scan, plates = _scan_table(resolved, grid, positions, n)
        resources.extend(plates)
        spec = model_spec(resolved, x, grid, scan)
        for text in idle_keys(resolved, spec, x):
            logger.warning("%s", text)
        return _assemble(resolved, x, spec, scan, executor, source, n, resources)
    except BaseException:
        for resource in resources:
            resource.close()
        raise


def make_executor(
    resolved: Mapping[str, Any], communicator: Communicator | None = None
) -> Executor:
    """The executor that `executor`, `devices` and `backend` ask for, on these processes."""
    communicator = communicator or Communicator()
    devices = resolved["devices"]
    if isinstance(devices, np.ndarray):
        devices = [int(d) for d in devices]
    if resolved["executor"] == "serial":
        devices = 1 if devices == "auto" else devices
    devices = devices_of_rank(devices, resolved["backend"], communicator)
    kernels = resolved["kernels"]
    if resolved["deterministic"] and kernels == "auto":
        kernels = "segments"  # fused kernels would add the measurements themselves
    backends = communicator.together(
        lambda: make_backends(devices, prefer=resolved["backend"], kernels=kernels)
    )
    local = SerialExecutor(backends[0]) if len(backends) == 1 else ThreadExecutor(backends)
    if isinstance(communicator, MpiCommunicator):
        return MpiExecutor(local, communicator)
    return local


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
    work = workload(resolved, shapes_of(x, spec, n, resolved["algorithm"]), executor)
    size, spec = work.batch, replace(spec, wave_storage=work.sizes.wave_storage)
    place = batching.curve(scan.corners)
    communicator, own = executor.communicator, None
    if communicator.size > 1:
        own = batching.spread(np.arange(n), place, communicator.size)[communicator.rank]
    feed = make_feed(resolved, source, spec, Share(own, communicator.local_size), work.on_gpu)
    if source is not None and isinstance(feed, PatternFeed):
        stored = math.prod(source.shape[1:]) * source.dtype.itemsize
        pixels, real = math.prod(spec.data_shape), np.empty(0, spec.dtype).real.dtype
        data = DataCost.of(not feed.streamed, feed.packing, stored, pixels, real)
        logger.info("%s", summary(work, data))
    term = DataTerm(
        spec,
        scan,
        feed,
        loss=resolved["algorithm"],
        weight=1.0,
        executor=executor,
        batches=batching.distribute(np.arange(n), place, size, executor.workers),
        floor=_poisson_floor(resolved, source, spec.grid),
    )
    if resolved["deterministic"]:
        term = term.exactly()
    return Reconstruction(
        resolved, placed, spec, scan, executor, source, size, n, term, place, resources
    )


def _poisson_floor(resolved: Mapping[str, Any], source: PatternSource | None, grid: Grid) -> float:
    """``ml_floor`` or ``ml_shift`` in counts per data pixel."""
    if resolved["algorithm"] == "ml_shifted":
        return float(resolved["ml_shift"])
    if resolved["algorithm"] != "ml" or source is None or not resolved["ml_floor"]:
        return 0.0
    return float(resolved["ml_floor"] * mean_pattern(resolved, source, grid).mean())


def _measurements(resolved: Mapping[str, Any], source: PatternSource | None) -> int:
    if source is not None:
        return int(source.shape[0])
    tables = (resolved[key] for key in (*PER_MEASUREMENT, *MARKERS))
    return max(len(table) for table in tables if table is not None)


def _check_arrays(
    resolved: Mapping[str, Any], source: PatternSource | None, n: int, grid: Grid
) -> None:
    """Tables per measurement, indices of measurements, masks, pixels; all problems at once."""
    problems = [*rows_agree({**resolved, "dataset": source}), *mask_problems(resolved, source)]
    problems += probe_mask_problems(resolved, grid.shape)
    problems += window_problems(resolved, grid)
    sequence = resolved["sequence"]
    if callable(sequence):
        first, last = int(resolved["epoch_prev"]), int(resolved["epoch_max"])
        for epoch in range(first, max(last, first + 1)):
            given = sequence(epoch)
            if given is not None and np.max(given) >= n:
                expected = f"indices from 0 to {n - 1} at epoch {epoch}"
                remedy = f"Correct the schedule {schedule_name(sequence)!r}"
                problems.append(Problem("sequence", expected, f"index {np.max(given)}", remedy))
                break
    if problems:
        raise ShapeError(problems)


def _variables(
    resolved: Mapping[str, Any],
    source: PatternSource | None,
    grid: Grid,
    positions: np.ndarray,
    n: int,
) -> Tree:
    """Start values, inside layout, on the host; only what enters the model."""
    complex_type = np.dtype(
        np.complex128 if resolved["default_dtype"] == "double" else np.complex64
    )
    real_type = np.empty(0, complex_type).real.dtype
    x: Tree = {"positions": positions}
    gathering = Gathering()
    with gathering.step():
        x["object"] = start.initial_object(resolved, positions, grid.shape).astype(complex_type)
    with gathering.step():
        x["probe"] = start.initial_probe(resolved, source, grid).astype(complex_type)
    tilts = np.array(resolved["tilts"], np.float64)
    if tilts.any() or ever(resolved, "update_tilts"):
        x["tilts"] = tilts
    with gathering.step():
        dark = None
        if source is not None and ever(resolved, "update_static_background"):
            dark = start.dark_level(resolved, mean_pattern(resolved, source, grid))
        background = start.initial_background(resolved, grid.shape, dark)
        if background is not None:
            x["background"] = background.astype(real_type)
    if resolved["beam_current"] is not None or ever(resolved, "update_beam_current"):
        x["current"] = start.initial_current(resolved, n)
    if start.aberration_rows(resolved, n) is not None:
        x["aberrations"] = np.array(resolved["aberrations_array"], np.float64)
    gathering.raise_any()
    return x


def _scan_table(
    resolved: Mapping[str, Any], grid: Grid, positions: np.ndarray, n: int
) -> tuple[ScanTable, list[Any]]:
    corners = np.rint(positions).astype(np.int64)
    plates, resources = None, []
    if resolved["phase_plate_in_h5"]:
        file = open_plates(resolved["phase_plate_in_h5"])
        resources.append(file)
        plates = plate_reader(file, grid, n)
    aberrations = start.aberration_rows(resolved, n)
    return ScanTable(corners, resolved["probe_marker"], aberrations, plates), resources


def model_spec(resolved: Mapping[str, Any], x: Tree, grid: Grid, scan: ScanTable) -> ModelSpec:
    """The model of these variables; positions without fractions are rounded in `x`."""
    fractions = x["positions"] - scan.corners
    refined = ever(resolved, "update_probe_pos")
    shift = bool(resolved["allow_subPixel_shift"] and (refined or fractions.any()))
    if not resolved["allow_subPixel_shift"]:
        x["positions"] = scan.corners.astype(np.float64)
    geometry = detector_geometry(resolved)
    masks = model_masks(resolved)
    return ModelSpec(
        grid=grid,
        distances_A=slice_gaps_A(resolved, x["object"].shape[1]),
        tilt=TiltPlan.from_mode(int(resolved["tilt_mode"])) if "tilts" in x else TiltPlan(),
        shift=shift,
        num_aberrations=x["aberrations"].shape[1] if "aberrations" in x else 0,
        plates=scan.plates is not None,
        geometry=geometry,
        near_field=_near_field(resolved),
        masks=None if masks is None else geometry.from_public(masks),
        patch_band_limit=resolved["object_band_limit"] == "patch",
        dtype=x["object"].dtype,
    )


def _near_field(resolved: Mapping[str, Any]) -> NearFieldOptics | None:
    if resolved["recon_type"] == "far_field":
        return None
    return NearFieldOptics(
        tuple(float(d) for d in resolved["defocus_array"]),
        float(resolved["Cs"]),
        float(resolved["alpha_near_field"]),
    )


def slice_gaps_A(resolved: Mapping[str, Any], slices: int) -> tuple[float, ...]:
    """The gaps in Å; ``edge_slice_thickness`` replaces the first one."""
    given = np.asarray(resolved["slice_distances"], np.float64)
    gaps = np.repeat(given, slices - 1) if len(given) == 1 else given[: slices - 1].copy()
    if resolved["edge_slice_thickness"] is not None and len(gaps):
        gaps[0] = resolved["edge_slice_thickness"]
    return tuple(float(d) for d in gaps)


def shapes_of(x: Tree, spec: ModelSpec, n: int, loss: str) -> Shapes:
    """Shapes of the variables of a model with so many measurements."""
    return Shapes(
        window=spec.grid.shape,
        object=x["object"].shape,
        probe=x["probe"].shape,
        others={k: v.nbytes for k, v in x.items() if k not in ("object", "probe")},
        itemsize=np.dtype(spec.dtype).itemsize,
        shift=spec.shift,
        measurements=n,
        fusible=lambda backend: objection(spec, loss, x, backend) is None,
    )
