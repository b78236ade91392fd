"""What a run costs: memory of devices and host, disk, time.  Pure functions of a few numbers.

Memory is counted at its peak.  With A for the bytes of the refined variables and O for those of the
object, there are always

==================  ===============================================================================
variables           all of them
search              5 A: the point the epoch began with, the direction, the trial point, the
                    gradients of both points
history             2 A per pair of L-BFGS
filters, work area  four real images of the object's size: curvature and band limits; with compiled
                    kernels one complex image more, in which a slice is transformed
data                all that are kept, or a few batches per worker
==================  ===============================================================================

and the larger of an *evaluation* (2 O for the band-limited object and its gradient on the way back,
A per worker, the batches; where kernels fuse the stages on a CPU, 2 O per worker in place of the
waves of a batch) and an *update* of the history (6 A).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from pyptyx.data.packing import Packing
from pyptyx.engine.batching import Sizes

HOST, DEVICE, DISK = "host", "device", "disk"

_SEARCH_COPIES = 5
_UPDATE_COPIES = 6
_OBJECT_COPIES = 2
_FILTERS = 4

_FUSED_COPIES = 2
"""Object and gradient in the order of the kernels, of every worker."""

_FILE_CACHE = 32 << 20
"""Decompressed chunks that HDF5 keeps."""

_STATE_COPIES = 3
"""States of a run on the disk at a time: the last two, and the one that is being written."""

_EVALUATIONS_PER_EPOCH = 1.1
"""Of a line search that takes its first step nearly always."""

_LINE_BYTES = 200
"""One row of the loss log."""


@dataclass(frozen=True)
class Workload:
    """What decides about the cost of a run.

    Attributes
    ----------
    sizes : Sizes
        Of one measurement.
    measurements : int
    batch : int
        Measurements of a batch.
    workers : int
        Workers that share this memory (CPU), or devices (GPU).
    on_gpu : bool
    fused : bool
        A core takes every measurement through all stages before the next one.
    variables, refined, object, image : int
        Bytes of all variables, of the refined ones, of the object, and of one real image of its
        size.
    pairs : int
        Pairs that the history will hold.
    epochs : int
    """

    sizes: Sizes
    measurements: int
    batch: int
    workers: int
    on_gpu: bool
    fused: bool
    variables: int
    refined: int
    object: int
    image: int
    pairs: int
    epochs: int

    @property
    def state_bytes(self) -> int:
        """What is always there beside the data, where the variables live."""
        copies = _SEARCH_COPIES + 2 * self.pairs
        return self.variables + copies * self.refined + self.image_bytes

    @property
    def image_bytes(self) -> int:
        """Filters of the object, and where the compiled transforms of a CPU turn a slice."""
        return (_FILTERS + 2 * (self.sizes.compiled and not self.on_gpu)) * self.image

    @property
    def evaluation_bytes(self) -> int:
        """What an evaluation adds, apart from the batches."""
        # A GPU transforms the object in a work area as large as the object.
        objects = _OBJECT_COPIES + self.on_gpu + _FUSED_COPIES * self.fused * self.workers
        return objects * self.object + (1 if self.on_gpu else self.workers) * self.refined

    @property
    def batch_bytes(self) -> int:
        """The batches of all workers that share a memory."""
        if self.fused:
            return self.workers * (self.batch * self.sizes.data_bytes + self.sizes.fused_bytes)
        return (1 if self.on_gpu else self.workers) * self.batch * self.sizes.pattern_bytes


@dataclass(frozen=True)
class DataCost:
    """How the patterns lie.

    Attributes
    ----------
    storage : {"memory", "packed", "streamed"}
    stored_bytes : int
        One pattern in its file; 0 if it comes from an array.
    pattern_bytes : int
        One pattern as it is kept, or stored if it is streamed.
    prepared_bytes : int
        One pattern as the model wants it.
    """

    storage: str
    stored_bytes: int
    pattern_bytes: int
    prepared_bytes: int

    @classmethod
    def of(
        cls,
        resident: bool,
        packing: Packing | None,
        stored_bytes: int,
        pixels: int,
        real: np.dtype[Any],
    ) -> Self:
        """From the choice of `pyptyx.engine.feeding.storage`, for patterns of so many pixels."""
        prepared = pixels * real.itemsize
        if not resident:
            return cls("streamed", stored_bytes, stored_bytes, prepared)
        if packing is None:
            return cls("memory", stored_bytes, prepared, prepared)
        return cls("packed", stored_bytes, pixels * packing.dtype.itemsize, prepared)


@dataclass(frozen=True)
class Item:
    """One line of a plan: what takes how many bytes, and where."""

    where: str
    name: str
    bytes: int


def memory(work: Workload, data: DataCost) -> list[Item]:
    """Memory at the peak of a run, line by line.

    Python and its libraries, about 150 MB, come on top on the host.
    """
    place = DEVICE if work.on_gpu else HOST
    evaluation = work.evaluation_bytes + work.batch_bytes
    update = _UPDATE_COPIES * work.refined
    items = [
        Item(place, "variables", work.variables),
        Item(place, "line search", _SEARCH_COPIES * work.refined),
        Item(place, f"history of {work.pairs} pairs", 2 * work.pairs * work.refined),
        Item(place, "filters, work area", work.image_bytes),
    ]
    if evaluation >= update:
        items.append(Item(place, "object and gradient of the model", work.evaluation_bytes))
        items.append(Item(place, f"batches of {work.batch}", work.batch_bytes))
    else:
        items.append(Item(place, "update of the history", update))
    if work.on_gpu:
        # Sending: three buffers of stored patterns, and the prepared batch.
        each = 3 * data.pattern_bytes + data.prepared_bytes
        items.append(Item(DEVICE, "data of a batch", work.batch * each))
        items.append(Item(HOST, "start values and results", 3 * work.variables))
    items.append(Item(HOST, f"data, {data.storage}", _data_bytes(work, data)))
    items.append(Item(HOST, "file cache", min(_FILE_CACHE, work.measurements * data.stored_bytes)))
    return items


def _data_bytes(work: Workload, data: DataCost) -> int:
    """Host memory of the patterns."""
    in_use = work.workers * work.batch
    if data.storage == "streamed":
        # One batch is computed while the next ones are read and prepared.
        return in_use * (data.pattern_bytes + 3 * data.prepared_bytes)
    unpacked = in_use * data.prepared_bytes if data.storage == "packed" else 0
    return work.measurements * data.pattern_bytes + unpacked


def disk(work: Workload, numbered_every: int, with_state: bool = True) -> list[Item]:
    """What the output folder will hold.

    Parameters
    ----------
    work : Workload
    numbered_every : int
        ``save_checkpoints_every_epoch``; 0 writes no numbered ones.
    with_state : bool
        Whether states to resume from are written.
    """
    items = [
        Item(DISK, "current checkpoint", work.variables),
        Item(DISK, "loss log", _LINE_BYTES * work.epochs),
    ]
    if with_state:
        state = work.variables + (1 + 2 * work.pairs) * work.refined
        items.append(Item(DISK, f"states to resume from, {_STATE_COPIES}", _STATE_COPIES * state))
    if numbered_every:
        count = -(-work.epochs // numbered_every)
        items.append(Item(DISK, f"numbered checkpoints, {count}", count * work.refined))
    return items


def total(items: Sequence[Item], where: str) -> int:
    """Sum of the lines of one place."""
    return sum(item.bytes for item in items if item.where == where)


@dataclass(frozen=True)
class Speed:
    """How fast one worker is.

    Attributes
    ----------
    transform_s : float
        One transform of one wave.
    pass_s : float
        Reading and writing one wave once, with a multiplication.
    measured : bool
        On this machine, or taken from a table.
    """

    transform_s: float
    pass_s: float
    measured: bool


def transforms(sizes: Sizes) -> int:
    """Two-dimensional transforms of waves that one measurement takes, forward and back."""
    gaps = sizes.slices - 1
    again = 2 * gaps if sizes.wave_storage == "recompute" else 0
    illumination = 2 * sizes.shift * (sizes.modes // sizes.object_modes)
    return sizes.modes * (4 * gaps + 2 + again) + illumination


def passes(sizes: Sizes) -> int:
    """Times that a wave is read and written between the transforms of one measurement."""
    gaps = sizes.slices - 1
    again = 2 * gaps if sizes.wave_storage == "recompute" else 0
    illumination = 4 * sizes.shift * (sizes.modes // sizes.object_modes)
    return sizes.modes * (_PASSES_PER_GAP * gaps + _PASSES_FIRST + again) + illumination


_PASSES_PER_GAP = 7
"""Transmission, propagator, their adjoints, the gradient of the slice."""

_PASSES_FIRST = 9
"""Transmission, intensity, loss, its derivative, and back."""


def evaluation_s(work: Workload, speed: Speed) -> float:
    """Time of one loss and gradient, without waiting for a file."""
    sizes = work.sizes
    each = transforms(sizes) * speed.transform_s + passes(sizes) * speed.pass_s
    pixels = sizes.window[0] * sizes.window[1]
    object_waves = work.object / sizes.wave_bytes
    # Band limits of object and gradient: three pairs of transforms of all slices, in one thread.
    larger = math.log2(max(2.0, pixels * object_waves)) / math.log2(max(2, pixels))
    once = 6 * object_waves * speed.transform_s * larger
    vectors = (4 * work.pairs + 12) * work.refined / sizes.wave_bytes * speed.pass_s
    return each * work.measurements / work.workers + once + vectors


def run_s(work: Workload, speed: Speed) -> float:
    """Time of the whole run."""
    return (1 + _EVALUATIONS_PER_EPOCH * work.epochs) * evaluation_s(work, speed)


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU: its memory and the bandwidth of a copy, as published or measured."""

    name: str
    memory_GiB: float
    copy_TB_per_s: float


GPUS = (
    Gpu("RTX 4090", 24, 0.92),
    Gpu("A100 40 GB", 40, 1.4),
    Gpu("H200", 141, 4.3),
)
"""For estimates without the device."""


def on_one_gpu(work: Workload) -> Workload:
    """The same work on a single GPU, in batches that keep it busy."""
    batch = min(work.measurements, max(work.batch, _GPU_BATCH))
    sizes = replace(work.sizes, work_area=True)
    return replace(work, on_gpu=True, fused=False, workers=1, batch=batch, sizes=sizes)


_GPU_BATCH = 64


def gpu_speed(gpu: Gpu, sizes: Sizes) -> Speed:
    """A device whose every transform and pass waits for its memory only, at 80 % of a copy's rate.

    A transform reads and writes its waves twice.
    """
    once = 2 * sizes.wave_bytes / (0.8e12 * gpu.copy_TB_per_s)
    return Speed(2 * once, once, False)


def summary(work: Workload, data: DataCost) -> str:
    """What a run needs and what was chosen for it, in one line."""
    items = memory(work, data)
    places = [DEVICE, HOST] if work.on_gpu else [HOST]
    needs = ", ".join(
        f"{total(items, place) / 2**30:.2f} GiB of {place} memory" for place in places
    )
    waves = f", waves: {work.sizes.wave_storage}" * (work.sizes.slices > 1)
    return f"plan: {needs}; batches of {work.batch}, data: {data.storage}{waves}"
