"""Memory: flat over the epochs once the history is full, and what the plan says at its peak."""

import gc
import tracemalloc

import numpy as np
import pytest

import pyptyx
from pyptyx.engine import cost, feeding
from pyptyx.engine.callbacks import Callback
from pyptyx.engine.plan import plan
from tests.golden import closed_form as cf


class Meter(Callback):
    """Traced memory after every epoch."""

    def __init__(self):
        self.bytes = []

    def epoch(self, state):
        gc.collect()
        self.bytes.append(tracemalloc.get_traced_memory()[0])


def test_memory_is_flat_over_epochs(tmp_path):
    params = {
        "dataset": cf.patterns(9, 15),
        "obj": cf.specimen(2, 3),
        "probe": cf.probe(2, 15),
        "positions": cf.positions(9),
        "wavelength_A": cf.WAVELENGTH_A,
        "pixel_size_x_A": cf.PIXEL_A,
        "pixel_size_y_A": cf.PIXEL_A,
        "skip_preprocessing": True,
        "hist_length": 3,
        "epoch_max": 40,
        "output_folder": tmp_path,
        "print_flag": 0,
    }
    pyptyx.run(params | {"epoch_max": 1, "output_folder": None})  # imports and compiles
    meter = Meter()
    tracemalloc.start()
    try:
        pyptyx.run(params, callbacks=[meter])
    finally:
        tracemalloc.stop()
    assert len(meter.bytes) == 40
    # The log takes a kilobyte per epoch, an object 55: one forgotten in 25 epochs makes 1.4 MB.
    assert abs(meter.bytes[39] - meter.bytes[14]) < 200_000


def scene(window, slices, scan, step_px, **extra):
    """A run from nothing but data; the object is large because the scan is sparse."""
    rng = np.random.default_rng(0)
    count = scan[0] * scan[1]
    y, x = np.mgrid[: window[0], : window[1]]
    disc = 40 * np.exp(-((y - window[0] // 2) ** 2 + (x - window[1] // 2) ** 2) / 30)
    return {
        "dataset": rng.poisson(disc, (count, *window)).astype(np.uint16),
        "positions": step_px * np.indices(scan).reshape(2, -1).T.astype(float),
        "num_slices": slices,
        "slice_distances": np.array([10.0]),
        "pixel_size_x_A": 0.2,
        "pixel_size_y_A": 0.15,
        "acc_voltage": 300.0,
        "hist_length": 3,
        "epoch_max": 5,
        "devices": 1,
        "output_folder": None,
        "print_flag": 0,
        **extra,
    }


PEAKS = {
    "single slice": scene((24, 28), 1, (7, 9), 70),
    "multislice with modes": scene((16, 20), 4, (5, 6), 60, n_hermite_probe_modes=(1, 1)),
    "streamed": scene((64, 72), 1, (19, 24), 11),
    "batches": scene((48, 52), 7, (6, 8), 3.3, compute_batch=48, hist_length=1, epoch_max=2),
    "batches, recomputed": scene(
        (48, 52),
        7,
        (6, 8),
        3,
        compute_batch=48,
        hist_length=1,
        epoch_max=2,
        wave_storage="recompute",
    ),
}


@pytest.mark.parametrize("case", PEAKS)
def test_the_peak_is_the_planned_one(case, monkeypatch):
    """Arrays at the peak of a run; what libraries import and cache is there before."""
    params = PEAKS[case]
    if case == "streamed":
        monkeypatch.setattr(feeding, "fits_in_memory", lambda *_: False)
    pyptyx.run(scene((8, 9), 2, (2, 3), 2, n_hermite_probe_modes=(1, 0)))
    items = [item for item in plan(params).items if item.name != "file cache"]
    planned = cost.total(items, cost.HOST)
    gc.collect()
    tracemalloc.start()
    try:
        pyptyx.run(params)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert planned > 8 << 20
    assert planned == pytest.approx(peak, rel=0.1)
