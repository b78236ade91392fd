"""The cost model: sums, choices, and how they answer to what they depend on."""

from dataclasses import replace

import numpy as np
import pytest

from pyptyx.backend import Backend
from pyptyx.data.packing import Packing
from pyptyx.engine import batching, cost
from pyptyx.engine.choices import Shapes, batch_room, refined, workload
from pyptyx.engine.cost import DEVICE, DISK, HOST, DataCost, Speed, Workload
from pyptyx.errors import DeviceError
from pyptyx.executors import SerialExecutor, ThreadExecutor
from pyptyx.params import resolve
from tests.gpu.guard import GuardBackend

SIZES = batching.Sizes((64, 80), modes=6, slices=9, object_modes=2, itemsize=8)
WORK = Workload(
    SIZES,
    measurements=700,
    batch=11,
    workers=3,
    on_gpu=False,
    fused=False,
    variables=1000_000,
    refined=900_000,
    object=800_000,
    image=40_000,
    pairs=5,
    epochs=30,
)
DATA = DataCost("memory", 64 * 80 * 2, 64 * 80 * 4, 64 * 80 * 4)


def by_name(items, word):
    return sum(item.bytes for item in items if word in item.name)


def test_pattern_bytes_by_storage_of_waves():
    wave = 64 * 80 * 8
    store, half, again = (
        replace(SIZES, wave_storage=name).pattern_bytes for name in ("store", "half", "recompute")
    )
    # Illumination and its sum over object modes, eight gaps, wave and squares, data.
    assert store == wave * (2 * 3 + 3 + 6 * 8 + 6 * 2 + 0.5)
    assert store - half == 6 * wave * (4 - 2)
    assert store - again == 6 * wave * (8 - (2 + 2))
    assert store - replace(SIZES, shift=False).pattern_bytes == 2 * 3 * wave
    assert store - replace(SIZES, compiled=True).pattern_bytes == 6 * wave
    assert replace(SIZES, work_area=True).pattern_bytes - store == 6 * wave
    assert replace(SIZES, own_windows=True).pattern_bytes - store == 3 * 2 * 9 * wave


def test_memory_on_a_cpu_is_all_on_the_host():
    items = cost.memory(WORK, DATA)
    assert {item.where for item in items} == {HOST}
    assert by_name(items, "history") == 2 * 5 * 900_000
    assert by_name(items, "batches") == 3 * 11 * SIZES.pattern_bytes
    assert by_name(items, "data") == 700 * 64 * 80 * 4
    assert by_name(items, "object and gradient") == 2 * 800_000 + 3 * 900_000
    assert cost.total(items, HOST) == sum(item.bytes for item in items)
    assert cost.total(items, DEVICE) == 0


def test_memory_where_a_core_takes_one_measurement_after_the_other():
    items = cost.memory(replace(WORK, fused=True), DATA)
    wave = 64 * 80 * 8
    # Waves in front of nine slices, strips, mask and propagator; data of a batch.
    assert by_name(items, "batches") == 3 * (wave * (6 * 10 + 2) + 11 * wave // 2)
    assert by_name(items, "object and gradient") == (2 + 3 * 2) * 800_000 + 3 * 900_000


def test_the_larger_of_evaluation_and_update_counts():
    small = replace(WORK, batch=1, workers=1, sizes=replace(SIZES, slices=1, modes=2))
    items = cost.memory(small, DATA)
    assert by_name(items, "update") == 6 * 900_000
    assert not by_name(items, "batches")


def test_memory_on_a_gpu():
    items = cost.memory(replace(WORK, on_gpu=True), DATA)
    assert by_name(items, "batches") == 11 * SIZES.pattern_bytes  # of one device
    assert by_name(items, "object and gradient") == 3 * 800_000 + 900_000
    assert cost.total(items, HOST) == (
        3 * 1000_000 + 700 * DATA.pattern_bytes + 700 * DATA.stored_bytes
    )


@pytest.mark.parametrize(
    ("resident", "packing", "storage", "host"),
    [
        (True, None, "memory", 700 * 64 * 80 * 4),
        (
            True,
            Packing(np.dtype(np.uint8), np.float32(1)),
            "packed",
            700 * 64 * 80 + 33 * 64 * 80 * 4,
        ),
        (False, None, "streamed", 33 * 64 * 80 * (2 + 12)),
    ],
)
def test_data(resident, packing, storage, host):
    data = DataCost.of(resident, packing, 64 * 80 * 2, 64 * 80, np.dtype(np.float32))
    assert data.storage == storage
    assert by_name(cost.memory(WORK, data), "data, ") == host


def test_disk():
    items = cost.disk(WORK, 4)
    assert {item.where for item in items} == {DISK}
    assert by_name(items, "numbered checkpoints, 8") == 8 * 900_000
    assert by_name(items, "states") == 3 * (1000_000 + 11 * 900_000)
    assert not by_name(cost.disk(WORK, 0), "numbered")
    assert not by_name(cost.disk(WORK, 0, with_state=False), "states")


def test_transforms_are_counted_by_hand():
    """Detector 2, every gap 4, illumination 2 for each probe mode, again 2 for every gap."""
    assert cost.transforms(SIZES) == 6 * (2 + 4 * 8) + 2 * 3
    assert cost.transforms(replace(SIZES, shift=False)) == 6 * (2 + 4 * 8)
    assert cost.transforms(replace(SIZES, wave_storage="recompute")) == 6 * (2 + 6 * 8) + 2 * 3
    assert cost.transforms(replace(SIZES, slices=1, shift=False)) == 12


def test_time():
    speed = Speed(1e-3, 1e-4, True)
    alone, shared = (cost.evaluation_s(replace(WORK, workers=w), speed) for w in (1, 2))
    each = cost.transforms(SIZES) * 1e-3 + cost.passes(SIZES) * 1e-4
    assert alone - shared == pytest.approx(700 * each / 2)
    assert cost.run_s(WORK, speed) == pytest.approx(34 * cost.evaluation_s(WORK, speed))
    slow, fast = (cost.gpu_speed(gpu, SIZES) for gpu in (cost.GPUS[0], cost.GPUS[-1]))
    assert slow.transform_s > fast.transform_s > 0
    assert not fast.measured


def test_on_another_gpu():
    moved = cost.on_one_gpu(WORK)
    assert (moved.workers, moved.batch, moved.on_gpu) == (1, 64, True)
    assert cost.on_one_gpu(replace(WORK, measurements=7, batch=5)).batch == 7


def test_summary():
    needed = cost.total(cost.memory(WORK, DATA), HOST) / 2**30
    assert cost.summary(WORK, DATA) == (
        f"plan: {needed:.2f} GiB of host memory; batches of 11, data: memory, waves: store"
    )
    text = cost.summary(replace(WORK, on_gpu=True, sizes=replace(SIZES, slices=1)), DATA)
    assert "GiB of device memory" in text
    assert "waves" not in text


# -- choices -----------------------------------------------------------------------------------

SHAPES = Shapes(
    window=(64, 80),
    object=(2, 9, 300, 400),
    probe=(1, 3, 64, 80),
    others={"positions": 700 * 16},
    itemsize=8,
    shift=True,
    measurements=700,
    fusible=lambda backend: backend.fuses,
)


def resolved(**changed):
    given = {
        "dataset": np.ones((700, 8, 9)),
        "positions": np.zeros((700, 2)),
        "acc_voltage": 300.0,
        "pixel_size_x_A": 0.1,
        "pixel_size_y_A": 0.1,
        **changed,
    }
    return resolve(given, need=("data", "acc_voltage"))


class Roomy(Backend):
    def __init__(self, free):
        super().__init__()
        self.free = free

    def free_bytes(self):
        return self.free


class RoomyDevice(GuardBackend):
    def __init__(self, free):
        super().__init__()
        self.free = free

    def free_bytes(self):
        return self.free


def chosen(backend, **changed):
    work = workload(resolved(**changed), SHAPES, SerialExecutor(backend))
    return work.batch, work.sizes.wave_storage


def test_cpu_batches_stay_in_the_cache():
    assert chosen(Roomy(64 << 30)) == (5, "store")
    assert chosen(Roomy(64 << 30), compute_batch=40) == (40, "store")


def test_stages_are_fused_where_waves_are_kept():
    def fused(backend, **changed):
        return workload(resolved(**changed), SHAPES, SerialExecutor(backend)).fused

    fast, device = Roomy(64 << 30), RoomyDevice(64 << 30)
    assert not fused(fast)
    fast.fuses = device.fuses = True
    assert fused(fast)
    assert not fused(fast, wave_storage="recompute")
    assert not fused(device)  # its kernels work on whole batches


def test_a_gpu_gets_large_batches_and_recomputes_when_memory_is_short():
    roomy = chosen(RoomyDevice(60 << 30))
    assert roomy == (512, "store")
    tight = RoomyDevice(300 << 20)
    batch, waves = chosen(tight)
    assert waves == "recompute"
    stored = chosen(tight, wave_storage="store")
    assert stored[1] == "store"
    assert stored[0] < 32
    assert batch > stored[0]
    assert chosen(tight, wave_storage="half")[1] == "half"


@pytest.mark.parametrize("waves", ["auto", "recompute"])
def test_a_device_that_is_too_small_is_named_with_a_remedy(waves):
    with pytest.raises(DeviceError, match=r"memory: expected .*recompute"):
        chosen(RoomyDevice(4 << 20), wave_storage=waves)


def test_batches_never_exceed_what_is_left():
    for free in (500 << 20, 1 << 30, 3 << 30, 20 << 30):
        work = workload(resolved(), SHAPES, SerialExecutor(RoomyDevice(free)))
        assert work.batch_bytes <= batch_room(work, free, 0.7)


def test_what_is_left_for_batches():
    total = 10_000_000_000
    gpu = replace(WORK, on_gpu=True)
    left = 0.7 * total - gpu.state_bytes - gpu.evaluation_bytes
    assert batch_room(gpu, total, 0.7) == pytest.approx(left)
    assert batch_room(WORK, total, 0.7) < left
    # Where the history would fill everything, batches still get a part.
    assert batch_room(replace(gpu, pairs=10_000), total, 0.7) == pytest.approx(0.7 * total / 8)


def test_workers_of_a_cpu_share_its_memory():
    free = 150 << 20
    executor = ThreadExecutor([Roomy(free) for _ in range(3)])
    with executor:
        alone = workload(resolved(), SHAPES, SerialExecutor(Roomy(free)))
        shared = workload(resolved(), SHAPES, executor)
    assert (alone.workers, shared.workers) == (1, 3)
    assert shared.state_bytes == alone.state_bytes
    assert shared.evaluation_bytes - alone.evaluation_bytes == 2 * alone.refined


def test_refined_variables_and_pairs():
    assert refined(resolved(update_probe=0), SHAPES) == ["object"]
    assert "positions" in refined(resolved(update_probe_pos=lambda e: e > 3), SHAPES)
    assert "tilts" not in refined(resolved(update_tilts=1), SHAPES)

    def pairs(**changed):
        return workload(resolved(**changed), SHAPES, SerialExecutor(Roomy(1 << 34))).pairs

    assert pairs(hist_length=7, epoch_max=20) == 7
    assert pairs(hist_length=float("inf"), epoch_max=20) == 20
    assert pairs(hist_length=9, epoch_max=5, epoch_prev=2) == 3
    assert pairs(hist_length=lambda e: 4 + 8 * (e > 10), epoch_max=20) == 12
