"""What a run will need and what was chosen for it, before anything is computed.

Nothing large is allocated, and of the data only a few patterns are read: sizes follow from the
parameters.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pyptyx.backend import free_memory_bytes
from pyptyx.data.base import PatternSource
from pyptyx.engine import cost, start
from pyptyx.engine.choices import Shapes, workload
from pyptyx.engine.cost import DEVICE, DISK, HOST, DataCost, Item, Speed, Workload
from pyptyx.engine.feeding import Share, preparation_of, storage
from pyptyx.engine.masks import model_masks
from pyptyx.engine.patterns import open_patterns
from pyptyx.engine.setup import (
    EVALUATION_NEEDS,
    make_executor,
    model_spec,
    shapes_of,
)
from pyptyx.engine.speed import measure
from pyptyx.engine.variables import Tree, ever
from pyptyx.engine.window import detector_geometry, probe_window
from pyptyx.executors import Executor
from pyptyx.params import resolve
from pyptyx.physics.grid import Grid
from pyptyx.physics.model import ModelSpec
from pyptyx.terms.data_term import ScanTable

_SAMPLE = 64
"""Patterns that are looked at to see whether counts can be packed."""

"""Bytes per row of the variables that have one for each measurement."""


@dataclass(frozen=True)
class Plan:
    """Needs, choices and what the machine offers.

    Attributes
    ----------
    work : Workload
    data : DataCost
    items : list of Item
        Memory and disk, line by line.
    offers : dict of int
        Free bytes by place: host, device, disk.
    device : str
        Name of the first worker's device.
    evaluation_s, run_s : float
        Estimated time of one loss and gradient, and of the run, on this machine.
    others : dict
        By the name of a GPU: whether the run fits, and estimated seconds of one evaluation.
    """

    work: Workload
    data: DataCost
    items: list[Item]
    offers: dict[str, int]
    device: str
    evaluation_s: float
    run_s: float
    others: dict[str, tuple[bool, float]]

    @property
    def needs(self) -> dict[str, int]:
        """Bytes by place."""
        return {place: cost.total(self.items, place) for place in self.offers}

    @property
    def fits(self) -> bool:
        """Whether everything fits into what is free."""
        return all(self.needs[place] <= free for place, free in self.offers.items())

    def remedies(self) -> list[str]:
        """What to change where it does not fit, the largest line first."""
        lines = []
        for place, free in self.offers.items():
            if self.needs[place] <= free:
                continue
            largest = max((i for i in self.items if i.where == place), key=lambda i: i.bytes)
            advice = next(text for sign, text in _ADVICE.items() if sign in largest.name)
            lines.append(
                f"{place}: {_size(self.needs[place])} are needed and {_size(free)} are free; most "
                f"is '{largest.name}'. {advice}"
            )
        return lines

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        return {
            "device": self.device,
            "workers": self.work.workers,
            "batch": self.work.batch,
            "wave_storage": self.work.sizes.wave_storage,
            "data": asdict(self.data),
            "items": [asdict(item) for item in self.items],
            "needs": self.needs,
            "offers": self.offers,
            "fits": self.fits,
            "remedies": self.remedies(),
            "evaluation_s": self.evaluation_s,
            "run_s": self.run_s,
            "estimates": {
                name: {"fits": fits, "evaluation_s": seconds}
                for name, (fits, seconds) in self.others.items()
            },
        }

    def __str__(self) -> str:
        """The plan as a table."""
        return "\n".join(_table(self))


_ADVICE = {
    "history": "Lower hist_length.",
    "batches": "Lower compute_batch, or wave_storage='recompute'.",
    "data": "Raise data_bin, or convert the counts to uint16 with create_pypty_data.",
    "checkpoint": "Raise save_checkpoints_every_epoch, or choose another output_folder.",
    "resume": "Lower hist_length, or choose another output_folder.",
    "": "Use fewer slices or modes, a smaller field of view, or default_dtype='single'.",
}


def plan(params: Mapping[str, Any]) -> Plan:
    """Work out what a run with these parameters needs.

    Parameters
    ----------
    params : mapping
        The params dictionary; it is not modified.  ``output_folder`` may be missing.

    Returns
    -------
    Plan

    Raises
    ------
    ParamError, ShapeError, DataError
        If the parameters or the data are not usable.
    DeviceError
        If not even one measurement fits.
    """
    resolved = resolve(params, need=EVALUATION_NEEDS)
    with open_patterns(resolved) as source, make_executor(resolved) as executor:
        grid = probe_window(resolved, source)
        work = workload(resolved, _shapes(resolved, source, grid), executor)
        data = _data_cost(resolved, source, grid, work)
        with executor.backends[0].context():
            speed = measure(executor.backends[0], work)
        return _assembled(resolved, work, data, executor, speed)


def _data_cost(
    resolved: Mapping[str, Any], source: PatternSource, grid: Grid, work: Workload
) -> DataCost:
    """How the patterns will lie, judged by the first of them."""
    real = np.dtype(f"f{work.sizes.itemsize // 2}")
    resident, packing = storage(
        source, preparation_of(resolved, real), Share(), work.on_gpu, _SAMPLE
    )
    stored = math.prod(source.shape[1:]) * source.dtype.itemsize
    return DataCost.of(resident, packing, stored, math.prod(_data_shape(resolved, grid)), real)


def _assembled(
    resolved: Mapping[str, Any], work: Workload, data: DataCost, executor: Executor, speed: Speed
) -> Plan:
    items = cost.memory(work, data)
    offers = {HOST: free_memory_bytes()}
    if work.on_gpu:
        offers[DEVICE] = executor.backends[0].free_bytes()
    folder = resolved["output_folder"]
    if folder:
        items += cost.disk(work, int(resolved["save_checkpoints_every_epoch"] or 0))
        offers[DISK] = shutil.disk_usage(_existing(Path(folder))).free
    return Plan(
        work=work,
        data=data,
        items=items,
        offers=offers,
        device=executor.backends[0].name,
        evaluation_s=cost.evaluation_s(work, speed),
        run_s=cost.run_s(work, speed),
        others=dict(_elsewhere(work, data)),
    )


def _elsewhere(work: Workload, data: DataCost) -> Iterator[tuple[str, tuple[bool, float]]]:
    for gpu in cost.GPUS:
        moved = cost.on_one_gpu(work)
        need = cost.total(cost.memory(moved, data), DEVICE)
        seconds = cost.evaluation_s(moved, cost.gpu_speed(gpu, work.sizes))
        yield gpu.name, (need <= gpu.memory_GiB * 2**30, seconds)


def _shapes(resolved: Mapping[str, Any], source: PatternSource, grid: Grid) -> Shapes:
    """Shapes of the variables, from parameters alone."""
    x, spec = blank_model(resolved, source, grid)
    return shapes_of(x, spec, source.shape[0], resolved["algorithm"])


def blank_model(
    resolved: Mapping[str, Any], source: PatternSource, grid: Grid
) -> tuple[Tree, ModelSpec]:
    """Variables that have shapes and take no memory, and the model of a run."""
    positions = start.initial_positions(resolved)
    count = source.shape[0]
    kind = np.dtype(np.complex128 if resolved["default_dtype"] == "double" else np.complex64)
    real = np.empty(0, kind).real
    x = {
        "positions": positions,
        "object": _blank(start.object_shape(resolved, positions, grid.shape), kind),
        "probe": _blank(_probe_shape(resolved, grid), kind),
    }
    if np.any(resolved["tilts"]) or ever(resolved, "update_tilts"):
        x["tilts"] = np.array(resolved["tilts"], np.float64)
    if resolved["beam_current"] is not None or ever(resolved, "update_beam_current"):
        x["current"] = _blank((count,), np.float64)
    if start.aberration_rows(resolved, count) is not None:
        x["aberrations"] = np.array(resolved["aberrations_array"], np.float64)
    background = resolved["static_background"]
    if np.ndim(background) or background or ever(resolved, "update_static_background"):
        x["background"] = _blank(_data_shape(resolved, grid), real.dtype)
    plates = (lambda _: real) if resolved["phase_plate_in_h5"] else None
    scan = ScanTable(np.rint(positions).astype(np.int64), plates=plates)
    return x, model_spec(resolved, x, grid, scan)


def _blank(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An array that takes no memory."""
    return np.broadcast_to(np.zeros((), dtype), shape)


def _probe_shape(resolved: Mapping[str, Any], grid: Grid) -> tuple[int, ...]:
    """Shape of the start probe; one made of the data looks like one of ones."""
    given = resolved["probe"]
    params = dict(resolved)
    if given is None or isinstance(given, str):
        params["probe"] = np.ones((*grid.shape, 1))
        if resolved["apply_aberrations_to_probe"] is None:
            params["apply_aberrations_to_probe"] = True
    return start.initial_probe(params, None, grid).shape


def _data_shape(resolved: Mapping[str, Any], grid: Grid) -> tuple[int, int]:
    masks = model_masks(resolved)
    if masks is not None:
        return 1, len(masks)
    return detector_geometry(resolved).data_shape(grid.shape)


def _existing(folder: Path) -> Path:
    """The folder or the nearest one above that exists."""
    folder = folder.absolute()
    return next((f for f in (folder, *folder.parents) if f.is_dir()), Path("/"))


def _table(plan: Plan) -> Iterator[str]:
    work, sizes = plan.work, plan.work.sizes
    waves = {"store": "kept", "recompute": "recomputed", "half": "kept in half precision"}
    yield f"device    {plan.device}, {work.workers} worker(s)"
    yield f"batch     {work.batch} of {work.measurements} measurements"
    if sizes.slices > 1:
        yield f"waves     {waves[sizes.wave_storage]}"
    yield f"data      {plan.data.storage}"
    for place, free in plan.offers.items():
        yield ""
        yield f"{place:<10}{_size(plan.needs[place]):>10} of {_size(free)} free"
        for item in plan.items:
            if item.where == place:
                yield f"{'':<10}{_size(item.bytes):>10}  {item.name}"
    yield ""
    yield f"time      {_time(plan.evaluation_s)} per loss and gradient, {_time(plan.run_s)} in all"
    for name, (fits, seconds) in plan.others.items():
        word = "fits" if fits else "does not fit"
        yield f"          {name}: {word}, about {_time(seconds)} per loss and gradient"
    yield ""
    yield from plan.remedies() or ["It fits."]


def _size(n_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n_bytes < 1024:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:.3g} TiB"


def _time(seconds: float) -> str:
    for limit, size, unit in ((1, 1e-3, "ms"), (100, 1, "s"), (6000, 60, "min")):
        if seconds < limit:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 3600:.3g} h"
