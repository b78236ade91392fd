"""Merging, completing and checking parameters."""

import copy
import logging
from pathlib import Path

import numpy as np
import pytest

from pyptyx.errors import ParamError
from pyptyx.params import evaluate, resolve, resolve_experiment
from pyptyx.params.schedule import Schedule
from pyptyx.params.schema import EXPERIMENT, RUN

ENOUGH = {"acc_voltage": 80, "data_path": "data.h5", "output_folder": None}
EXPERIMENT_ENOUGH = {**ENOUGH, "rez_pixel_size_A": 0.05, "scan_step_A": 0.5, "scan_size": (3, 4)}


def problems(call, *args, **kwargs):
    """Key -> problem of the error that the call raises."""
    with pytest.raises(ParamError) as info:
        call(*args, **kwargs)
    assert len({p.key for p in info.value.problems}) == len(info.value.problems)
    return {p.key: p for p in info.value.problems}


def test_completes_with_defaults():
    resolved = resolve(ENOUGH)
    assert resolved.keys() == RUN.keys()
    assert resolved["acc_voltage"] == 80.0
    assert resolved["update_obj"] is True
    np.testing.assert_array_equal(resolved["positions"], [[0, 0]])


def test_the_input_is_not_modified():
    given = {**ENOUGH, "positions": [[1, 2], [3, 4]], "update_probe": "lambda x: x > 2"}
    given["data_shift_vector"] = ["1+1", "os.sep"]
    before = copy.deepcopy(given)
    problems(resolve, given)
    assert given == before
    del given["data_shift_vector"]
    assert resolve(given)["update_probe"] == Schedule("lambda x: x > 2")
    assert given["update_probe"] == "lambda x: x > 2"


def test_experiment_wins_over_preset():
    resolved = resolve({**ENOUGH, "data_pad": 3}, {"data_pad": 7, "defocus": 20})
    assert resolved["data_pad"] == 7
    assert resolved["extra_probe_defocus"] == 20


@pytest.mark.parametrize(
    ("alias", "name", "value"),
    [
        ("defocus", "extra_probe_defocus", 30.0),
        ("probe_modes", "probe", np.ones((3, 4, 2))),
        ("chemical_fomula", "chemical_formula", "H2O"),
        ("special_positions_A", "special_postions_A", np.ones((5, 2))),
    ],
)
def test_aliases(alias, name, value):
    resolved = resolve({**ENOUGH, alias: value})
    assert alias not in resolved
    np.testing.assert_array_equal(resolved[name], value)
    assert name in problems(resolve, {**ENOUGH, alias: value, name: None})
    resolve({**ENOUGH, alias: value, name: copy.copy(value)})


def test_all_problems_at_once():
    found = problems(
        resolve,
        {
            "epoch_max": -1,
            "atv_wieght": 1,
            "recon_type": "x",
            "update_probe": "lambda x: open(x)",
            "tilts": np.ones((3, 6)),
            "positions": np.ones((5, 2)),
            "probe": np.ones((3, 4, 2, 6)),
            "scan_size": (4,),
            3: 4,
        },
    )
    assert found.keys() == {
        *("epoch_max", "atv_wieght", "recon_type", "update_probe", "tilts", "probe_marker"),
        *("scan_size", "params", "data_path", "output_folder", "acc_voltage"),
    }
    assert "atv_weight" in found["atv_wieght"].remedy
    assert "output_folder=None" in found["output_folder"].remedy


@pytest.mark.parametrize("key", ["update_prob", "hist_lenght", "acc_voltag", "slice_distance"])
def test_misspelt(key):
    assert "Did you mean" in problems(resolve, {**ENOUGH, key: 1})[key].remedy


def test_unknown_keys_are_logged(caplog):
    resolved = resolve({**ENOUGH, "my_remark": "nice"})
    assert "my_remark" in caplog.text
    assert "my_remark" not in resolved


def test_metadata_are_carried_along():
    resolved = resolve({**ENOUGH, "PLRotation_deg": 12, "comx": np.ones((3, 4)), "fov_nm": None})
    assert resolved["PLRotation_deg"] == 12
    assert resolved["comx"].shape == (3, 4)
    assert "comy" not in resolved


@pytest.mark.parametrize("missing", ["acc_voltage", "data_path", "output_folder"])
def test_what_a_run_needs(missing):
    given = {key: value for key, value in ENOUGH.items() if key != missing}
    assert problems(resolve, given).keys() == {missing}
    resolve(given, need=())


def test_other_ways_to_give_what_is_needed():
    data = np.ones((6, 4, 5), "uint8")
    given = {"wavelength_A": 0.02, "dataset": data, "output_folder": Path("here")}
    resolved = resolve(given)
    assert resolved["dataset"] is data
    assert resolved["output_folder"] == "here"
    assert "output_folder" in problems(resolve, {**given, "output_folder": ""})


N = 12
GOOD = {
    **ENOUGH,
    "scan_size": (3, 4),
    "positions": np.ones((N, 2)),
    "tilts": np.ones((1, 6)),
    "beam_current": np.ones(N),
    "probe": np.ones((5, 6, 2, 3)),
    "probe_marker": np.arange(N) % 3,
    "aberrations_array": np.ones((2, 7)),
    "aberration_marker": np.arange(N) % 2,
    "sequence": [0, 11],
    "obj": np.ones((9, 8, 4, 1)),
    "slice_distances": [1, 2, 3],
    "atv_weight": 1,
    "fast_axis_reg_weight_positions": "lambda x: 1",
}


def test_consistent_keys_pass():
    resolve(GOOD)


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("positions", {"positions": np.ones((13, 2))}),
        ("tilts", {"tilts": np.ones((2, 6))}),
        ("defocus_array", {"defocus_array": [1, 2]}),
        ("beam_current", {"beam_current": [1.0]}),
        ("probe_marker", {"probe_marker": np.arange(13) % 3}),
        ("probe_marker", {"probe_marker": np.arange(N) % 4}),
        ("probe_marker", {"probe_marker": None}),
        ("aberration_marker", {"aberration_marker": np.arange(N) % 3}),
        ("aberration_marker", {"aberration_marker": np.zeros(11)}),
        ("aberration_marker", {"aberration_marker": None}),
        ("sequence", {"sequence": [3, 12]}),
        ("scan_size", {"dataset": np.ones((13, 5, 6)), "positions": [[0, 0]]}),
        ("slice_distances", {"slice_distances": [1, 2]}),
        ("slice_distances", {"obj": None, "num_slices": 3}),
        ("scan_size", {"scan_size": None}),
        ("masks", {"algorithm": "poisson_compressed"}),
        ("aperture_mask", {"probe": "aperture", "probe_marker": None}),
        ("probe_constraint_mask", {"probe_reg_constraint_weight": np.inf}),
        ("window", {"window_weight": "lambda x: x"}),
        ("window", {"window": [0.5, 0.2]}),
        ("scan_step_A", {"scan_step_A": None, "probe_mod_reg_weight": 1}),
        ("wolfe_c2_constant", {"wolfe_c2_constant": 0.05}),
        ("devices", {"devices": 0}),
    ],
)
def test_contradictions(key, changes):
    expected = {key}
    if changes.get("dataset") is not None:
        expected |= {"beam_current", "probe_marker", "aberration_marker"}
    assert problems(resolve, {**GOOD, **changes}).keys() == expected


def test_near_field_and_device_lists_are_accepted():
    resolved = resolve({**ENOUGH, "recon_type": "near_field", "devices": [0, 1]})
    assert resolved["devices"].tolist() == [0, 1]


def test_a_wrong_value_causes_no_echo():
    assert problems(resolve, {**ENOUGH, "obj": 3, "slice_distances": [1, 2, 3]}).keys() == {"obj"}
    given = {**ENOUGH, "scan_size": "big", "fast_axis_reg_weight_tilts": 1}
    assert problems(resolve, given).keys() == {"scan_size"}


def test_evaluate():
    resolved = resolve(
        {
            **ENOUGH,
            "atv_weight": "lambda x: 1e-3 * (x > 4)",
            "update_probe": lambda x: x % 2,
            "sequence": lambda x: [x, x + 1],
            "loss_weight": "mean",
        }
    )
    values = evaluate(resolved, 5)
    assert values.keys() == {name for name, row in RUN.items() if row.schedulable}
    assert values["atv_weight"] == 1e-3
    assert values["update_probe"] is True
    assert values["sequence"].tolist() == [5, 6]
    assert values["loss_weight"] == "mean"
    assert evaluate(resolved, 4)["update_probe"] is False


def test_evaluate_reports_everything_with_the_epoch():
    given = {
        **ENOUGH,
        "atv_weight": "lambda x: 1 / (4 - x)",
        "wedge_mu": "lambda x: 3 - x",
        "hist_length": "lambda x: max(x - 3, 0) / 2",
    }
    # `resolve` looks ahead over the epochs of the run, which here ends early enough.
    resolved = resolve({**given, "epoch_max": 4})
    for found in (problems(evaluate, resolved, 4), problems(resolve, {**given, "epoch_max": 5})):
        assert found.keys() == {"atv_weight", "wedge_mu", "hist_length"}
        assert all("epoch 4" in p.expected for p in found.values())
        assert all("lambda" in p.remedy for p in found.values())


def test_experiment_completes():
    resolved = resolve_experiment(EXPERIMENT_ENOUGH)
    assert resolved.keys() == EXPERIMENT.keys()
    assert resolved["slice_thickness"] == "auto"
    assert resolved["aberrations"].shape == (8,)


@pytest.mark.parametrize("missing", ["acc_voltage", "rez_pixel_size_A", "scan_step_A", "data_path"])
def test_experiment_needs(missing):
    given = {key: value for key, value in EXPERIMENT_ENOUGH.items() if key != missing}
    assert problems(resolve_experiment, given).keys() == {missing}
    if missing != "data_path":
        resolve_experiment({**given, "path_json": Path("meta.json")})


def test_zero_field_of_view_is_no_scan_step():
    given = {**EXPERIMENT_ENOUGH, "scan_step_A": None, "fov_nm": 0}
    assert problems(resolve_experiment, given).keys() == {"scan_step_A"}


@pytest.mark.parametrize(
    "instead",
    [
        {"fov_nm": 3},
        {"special_positions_A": np.ones((12, 2))},
        {"scan_size": (1, 1)},
        {"scan_size": None, "dataset": np.ones((1, 1, 5, 6))},
    ],
)
def test_other_ways_to_give_the_scan(instead):
    resolve_experiment({**EXPERIMENT_ENOUGH, "scan_step_A": None, **instead})


def test_num_slices_is_honoured_unless_a_thickness_is_given():
    resolved = resolve_experiment({**EXPERIMENT_ENOUGH, "num_slices": 7})
    assert (resolved["num_slices"], resolved["slice_thickness"]) == (7, None)
    given = {**EXPERIMENT_ENOUGH, "num_slices": 7, "slice_thickness": "auto"}
    assert resolve_experiment(given)["slice_thickness"] == "auto"


def test_experiment_aliases_and_foreign_keys(caplog):
    caplog.set_level(logging.WARNING)
    given = {**EXPERIMENT_ENOUGH, "extra_probe_defocus": 5, "epoch_max": 3}
    resolved = resolve_experiment(given)
    assert resolved["defocus"] == 5
    assert "epoch_max" not in resolved
    assert "epoch_max" in caplog.text
    assert (
        "scan_step_A"
        in problems(resolve_experiment, {**given, "scan_stepA": 1})["scan_stepA"].remedy
    )
