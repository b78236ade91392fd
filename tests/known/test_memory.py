"""Memory is flat over the epochs: nothing but the log grows once the history is full."""

import gc
import tracemalloc

import pyptyx
from pyptyx.engine.callbacks import Callback
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
    meter = Meter()
    tracemalloc.start()
    try:
        pyptyx.run(params, callbacks=[meter])
    finally:
        tracemalloc.stop()
    assert len(meter.bytes) == 40
    # One object is 55 kB: a single forgotten array per epoch would show at once.
    assert abs(meter.bytes[39] - meter.bytes[14]) < 50_000
