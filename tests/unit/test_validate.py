"""`validate`: one mistake does not hide another, and nothing is written."""

import numpy as np
import pytest

from pyptyx.engine.validate import attach, validate
from pyptyx.errors import ParamError, ProblemError

PATTERNS = (15, 10, 12)


@pytest.fixture
def experiment(tmp_path):
    """An experiment without mistakes on a small stack of discs."""
    ky, kx = np.indices(PATTERNS[1:])
    disc = np.hypot(ky - 5, kx - 6) < 3
    np.save(tmp_path / "a.npy", np.broadcast_to(20 * disc, PATTERNS).astype(np.uint8))
    return {
        "data_path": str(tmp_path / "a.npy"),
        "scan_size": [3, 5],
        "scan_step_A": 0.5,
        "acc_voltage": 80,
        "rez_pixel_size_mrad": 2.0,
        "PLRotation_deg": 0,
        "output_folder": str(tmp_path / "results"),
    }


def keys(experiment, preset):
    with pytest.raises(ParamError) as info:
        validate(experiment, preset)
    return [problem.key for problem in info.value.problems]


def test_good_parameters_are_returned_and_no_folder_is_made(experiment, tmp_path):
    preset = {"epoch_max": 4}
    params = validate(experiment, preset)
    assert params["output_folder"] == experiment["output_folder"]
    assert params["scan_size"] == (3, 5)
    assert preset == {"epoch_max": 4}
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


def test_a_preset_alone_is_a_run(experiment):
    assert attach({}, {"epoch_max": 3}) == {"epoch_max": 3, "output_folder": ""}
    assert keys({}, {"epoch_max": 3, "acc_voltage": 80}) == ["data_path", "output_folder"]


def test_a_mistake_hides_no_other(experiment):
    wrong = {k: v for k, v in experiment.items() if k != "scan_step_A"}
    wrong |= {"scan_stp_A": 0.5, "scan_size": [3, 6]}
    assert keys(wrong, {"epoch_max": "many"}) == ["scan_stp_A", "scan_size", "epoch_max"]
    del wrong["scan_stp_A"]
    assert keys(wrong, {}) == ["scan_step_A", "scan_size"]
    missing = experiment | {"data_path": "nowhere.npy", "acc_voltage": "80 kV"}
    found = keys(missing, {"seed": "x"})
    assert found[:2] == ["acc_voltage", "seed"]
    assert "nowhere.npy" in found[2]
    assert len(found) == 3


def test_each_mistake_is_told_once(experiment):
    assert keys(experiment | {"scan_size": [3, 6]}, {}) == ["scan_size"]
    assert keys(experiment | {"scan_size": "3 x 5"}, {}) == ["scan_size"]
    assert keys(experiment, {"data_pad": -1}) == ["data_pad"]  # of preset and experiment alike
    assert len(keys(experiment | {"data_path": "nowhere.npy"}, {})) == 1


def test_an_output_folder_that_is_missing_is_told(experiment):
    del experiment["output_folder"]
    assert keys(experiment, {}) == ["output_folder"]


def test_attaching_raises_what_it_meets(experiment):
    with pytest.raises(ProblemError, match="scan_size"):
        attach(experiment | {"scan_size": [3, 6]}, {})
