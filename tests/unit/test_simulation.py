"""``data_simulation_flag``: the prediction for the final state lands in the file."""

import numpy as np
import pytest

import pyptyx
from tests.golden import closed_form as cf


@pytest.fixture
def params(tmp_path):
    return {
        "dataset": cf.patterns(5, 15),
        "obj": cf.specimen(2, 3),
        "probe": cf.probe(2, 15),
        "positions": cf.positions(),
        "wavelength_A": cf.WAVELENGTH_A,
        "pixel_size_x_A": cf.PIXEL_A,
        "pixel_size_y_A": cf.PIXEL_A,
        "skip_preprocessing": True,
        "epoch_max": 2,
        "output_folder": None,
        "print_flag": 0,
        "data_simulation_flag": tmp_path / "predicted.npy",
    }


def start_from(result, params):
    return params | {"obj": result.object, "probe": result.probe, "positions": result.positions}


@pytest.mark.parametrize("exit_waves", [False, True])
def test_prediction_of_the_final_state(params, exit_waves):
    """Defect I7: PyPty overwrites the file in every trial and fails for a sub-sequence."""
    params |= {"data_simulation_exitwave": exit_waves, "sequence": [0, 2, 3, 4]}
    result = pyptyx.run(params)
    found = np.load(params["data_simulation_flag"])
    shape = (4, 15, 15, 2, 3) if exit_waves else (4, 15, 15)
    assert found.shape == shape
    expected = pyptyx.simulate(start_from(result, params), exit_waves=exit_waves)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * abs(expected).max())


def test_single_and_half_are_the_same(params):
    params |= {"data_simulation_flag": False}
    single = pyptyx.run(params | {"default_dtype": "single"})
    half = pyptyx.run(params | {"default_dtype": "half"})
    assert half.object.dtype == np.complex64
    np.testing.assert_array_equal(single.object, half.object)
