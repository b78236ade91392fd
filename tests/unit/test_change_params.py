"""Changing saved parameters: checked, whole, and from whichever file is the newest."""

import os

import numpy as np
import pytest

from pyptyx.errors import DataError, ParamError
from pyptyx.params import (
    change_params,
    delete_dataset_from_params,
    load_params,
    load_preset,
    save_params,
)

FILES = ["", "params.json", "params.pkl"]
SAVED = {"seed": 1, "update_probe": True, "scan_size": (2, 3), "dataset": np.ones((6, 4, 5))}


@pytest.fixture
def folder(tmp_path):
    save_params(tmp_path, SAVED, strip_dataset=False)
    return tmp_path


@pytest.mark.parametrize("file", FILES)
def test_one_key_or_several(folder, file):
    change_params(folder / file, "seed", 2)
    written = change_params(folder / file, ("update_probe", "defocus"), [False, 120.0])
    assert written == folder / "params.json"
    for read in ("params.json", "params.pkl"):
        params = load_params(folder / read)
        assert params.pop("dataset").shape == (6, 4, 5)
        expected = {"seed": 2, "update_probe": False, "scan_size": (2, 3)}
        assert params == expected | {"extra_probe_defocus": 120.0}


def test_a_sequence_is_one_value_of_one_key(folder):
    change_params(folder, "sequence", [0, 4])
    assert load_params(folder)["sequence"] == [0, 4]


def test_schedules_keep_their_text(folder):
    change_params(folder, "update_probe", lambda x: max(x, 3) > 5)
    assert load_params(folder)["update_probe"] == "lambda x: max(x, 3) > 5"


@pytest.mark.parametrize(
    ("keys", "values", "named"),
    [
        ("update_prob", True, "Did you mean 'update_probe'"),
        (["seed", "update_probe"], [2, "lambda x: os.remove(x)"], "update_probe"),
        ("scan_size", (3, 3), "scan_size"),
        ("sequence", [6], "sequence"),
        ("loss_weight", "lambda x: 3 - x", "loss_weight"),
        (["seed", "update_probe"], [2], "2 values"),
        ("window", object(), "window"),
    ],
)
def test_a_wrong_change_writes_nothing(folder, keys, values, named):
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(ParamError, match=named):
        change_params(folder, keys, values)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_old_faults_do_not_stop_a_change(tmp_path):
    save_params(tmp_path, {"atv_weight": -1.0, "seed": 1})
    change_params(tmp_path, "seed", 2)
    assert load_params(tmp_path) == {"atv_weight": -1.0, "seed": 2}
    with pytest.raises(ParamError, match="atv_weight"):
        change_params(tmp_path, "atv_weight", -2.0)


def test_the_newest_file_counts(folder):
    """A JSON file edited by hand is not undone by a change of the pickle."""
    path = folder / "params.json"
    path.write_text(path.read_text().replace('"seed": 1', '"seed": 7'))
    os.utime(path, ns=(2**62, 2**62))
    change_params(folder / "params.pkl", "update_probe", False)
    params = load_params(folder)
    assert (params["seed"], params["update_probe"]) == (7, False)


def test_a_pickle_alone_is_enough(folder):
    (folder / "params.json").unlink()
    (folder / "params.npz").unlink()
    change_params(folder / "params.pkl", "seed", 5)
    assert load_params(folder)["seed"] == load_params(folder / "params.pkl")["seed"] == 5


def test_nothing_to_change(tmp_path):
    for change in (lambda p: change_params(p, "seed", 1), delete_dataset_from_params):
        with pytest.raises(DataError, match="no such file"):
            change(tmp_path / "params.pkl")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file", FILES)
def test_the_dataset_is_deleted(folder, file):
    delete_dataset_from_params(folder / file)
    expected = {key: value for key, value in SAVED.items() if key != "dataset"}
    assert load_params(folder) == load_preset(folder / "params.pkl") == expected
