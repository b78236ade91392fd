"""What the memory decides: measurements per batch and how waves are remembered."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pyptyx.backend import Backend
from pyptyx.engine import batching
from pyptyx.engine.cost import Workload
from pyptyx.engine.variables import UPDATE_KEYS, ever
from pyptyx.executors import Executor

_LEAST_ROOM = 0.125
"""Part of the free memory that batches get even where the rest of a run would need all of it."""

_CPU_BATCHES = 0.5
"""Part of what is left that batches may fill on a CPU, where other programs live as well."""


@dataclass(frozen=True)
class Shapes:
    """What the arrays of a run look like.

    Attributes
    ----------
    window : tuple of int
        ``(ny, nx)``.
    object : tuple of int
        ``(Mo, Nz, Y, X)``.
    probe : tuple of int
        ``(Ns, Mp, ny, nx)``.
    others : dict of int
        Bytes of the other variables by name.
    itemsize : int
        Bytes of a complex number.
    shift : bool
        Whether every measurement has a probe of its own.
    measurements : int
    fusible : callable
        Whether a backend evaluates all stages of a measurement at once.
    """

    window: tuple[int, int]
    object: tuple[int, ...]
    probe: tuple[int, ...]
    others: dict[str, int]
    itemsize: int
    shift: bool
    measurements: int
    fusible: Callable[[Backend], bool]

    @property
    def bytes(self) -> dict[str, int]:
        """Bytes of every variable by name."""
        large = {"object": self.object, "probe": self.probe}
        return {k: math.prod(v) * self.itemsize for k, v in large.items()} | self.others


def workload(resolved: Mapping[str, Any], shapes: Shapes, executor: Executor) -> Workload:
    """The work of a run on these workers, with its batches chosen.

    Raises
    ------
    DeviceError
        If not even one measurement fits.
    """
    backend, sharing = executor.backends[0], len(executor.backends)
    on_gpu = backend.name != "cpu"
    asked, waves = resolved["compute_batch"], resolved["wave_storage"]
    limit = shapes.measurements
    work = Workload(
        sizes=_sizes(resolved, shapes, "store" if waves == "auto" else waves, backend),
        measurements=limit,
        batch=min(limit, 1 if asked == "auto" else int(asked)),
        workers=sharing,
        on_gpu=on_gpu,
        fused=False,
        variables=sum(shapes.bytes.values()),
        refined=sum(shapes.bytes[k] for k in refined(resolved, shapes)),
        object=shapes.bytes["object"],
        image=math.prod(shapes.object[-2:]) * shapes.itemsize // 2,
        pairs=_pairs(resolved),
        epochs=max(0, int(resolved["epoch_max"]) - int(resolved["epoch_prev"])),
    )
    room = batch_room(work, backend.free_bytes(), resolved["memory_saturation"])
    if not on_gpu:
        room //= sharing * executor.communicator.local_size
    if waves == "auto":
        wanted = limit if asked == "auto" else work.batch
        waves = batching.choose_waves(work.sizes, room, on_gpu, wanted)
        work = replace(work, sizes=replace(work.sizes, wave_storage=waves))
    if asked == "auto":
        work = replace(work, batch=batching.choose(work.sizes, room, on_gpu, limit))
    stored = work.sizes.wave_storage == "store"
    return replace(work, fused=stored and not on_gpu and shapes.fusible(backend))


def batch_room(work: Workload, free_bytes: int, saturation: float) -> int:
    """Bytes that the batches of all workers may take together, of so many that are free."""
    usable = saturation * free_bytes
    left = usable - work.state_bytes - work.evaluation_bytes
    part = 1.0 if work.on_gpu else _CPU_BATCHES
    return int(max(part * left, _LEAST_ROOM * usable))


def refined(resolved: Mapping[str, Any], shapes: Shapes) -> list[str]:
    """Variables of the model that are refined in some epoch, as far as can be known."""
    return [
        name for name, key in UPDATE_KEYS.items() if name in shapes.bytes and ever(resolved, key)
    ]


def _sizes(
    resolved: Mapping[str, Any], shapes: Shapes, waves: str, backend: Backend
) -> batching.Sizes:
    return batching.Sizes(
        shapes.window,
        shapes.probe[1] * shapes.object[0],
        shapes.object[1],
        shapes.object[0],
        shapes.itemsize,
        shift=shapes.shift,
        own_windows=resolved["object_band_limit"] == "patch",
        wave_storage=waves,
        work_area=backend.name != "cpu",
        compiled=backend.compiled,
    )


def _pairs(resolved: Mapping[str, Any]) -> int:
    """Pairs of the history when it is longest."""
    first, last = int(resolved["epoch_prev"]), int(resolved["epoch_max"])
    epochs = max(0, last - first)
    given = resolved["hist_length"]
    longest = max(map(given, range(first, last)), default=0) if callable(given) else given
    return int(min(longest, epochs))
