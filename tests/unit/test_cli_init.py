"""``pyptyx init``: a file of patterns becomes a file to complete."""

import tomllib

import h5py
import numpy as np
import pytest

from pyptyx.cli import exits, main

SHAPE = (3, 5, 12, 16)


@pytest.fixture
def scan(tmp_path, monkeypatch):
    """A folder with a raw file that knows the voltage and the dwell time, and nothing else."""
    (tmp_path / "raw").mkdir()
    path = tmp_path / "raw" / "scan.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=np.ones(SHAPE, np.uint8))
        file.attrs["acc_voltage"] = 80.0
    monkeypatch.chdir(tmp_path)
    return path


def test_what_the_file_says_is_written_with_its_place(scan, tmp_path, capsys):
    assert main(["init", str(scan)]) == exits.OK
    printed = capsys.readouterr().out
    text = (tmp_path / "scan.toml").read_text(encoding="utf-8")
    experiment = tomllib.loads(text)["experiment"]
    assert experiment == {
        "data_path": "raw/scan.h5",
        "h5_key": "/data",
        "acc_voltage": 80,
        "scan_size": [3, 5],
        "output_folder": "scan_results",
    }
    assert "/@acc_voltage" in text
    assert "missing   scan_step_A, rez_pixel_size_mrad" in printed
    assert "pyptyx validate scan.toml" in printed


def test_blanks_have_unit_and_meaning_and_become_keys(scan, tmp_path, capsys):
    main(["init", str(scan)])
    path = tmp_path / "scan.toml"
    text = path.read_text(encoding="utf-8")
    assert text.count("# FILL IN") == 2
    for key, unit in (("scan_step_A", "Å"), ("rez_pixel_size_mrad", "mrad"), ("defocus", "Å")):
        comment, blank = text.partition(f"# {key} = ?")[:2]
        assert blank
        assert f"Unit: {unit}." in comment[-200:]
    assert main(["validate", str(path)]) == exits.INPUT
    err = capsys.readouterr().err
    assert err.count(": expected") == 2
    for blank, value in (("scan_step_A", "0.5"), ("rez_pixel_size_mrad", "2")):
        text = text.replace(f"# {blank} = ?", f"{blank} = {value}")
    path.write_text(text, encoding="utf-8")
    settings = ["--set", "PLRotation_deg=0", "--set", "aperture=none", "--set", "probe=none"]
    assert main(["validate", str(path), *settings]) == exits.OK, capsys.readouterr().err


def test_the_path_of_the_data_is_relative_to_the_file(scan, tmp_path):
    assert main(["init", str(scan), "-o", "jobs/first.toml"]) == exits.OK
    text = (tmp_path / "jobs" / "first.toml").read_text(encoding="utf-8")
    experiment = tomllib.loads(text)["experiment"]
    assert experiment["data_path"] == "../raw/scan.h5"
    assert experiment["output_folder"] == "first_results"


def test_a_file_is_replaced_only_on_demand(scan, tmp_path, capsys):
    (tmp_path / "scan.toml").write_text("precious")
    assert main(["init", str(scan)]) == exits.INPUT
    assert "--force" in capsys.readouterr().err
    assert (tmp_path / "scan.toml").read_text() == "precious"
    assert main(["init", str(scan), "--force"]) == exits.OK
    assert "precious" not in (tmp_path / "scan.toml").read_text(encoding="utf-8")


def test_the_screen_instead_of_a_file(scan, tmp_path, capsys):
    assert main(["init", str(scan), "-o", "-"]) == exits.OK
    assert tomllib.loads(capsys.readouterr().out)["experiment"]["acc_voltage"] == 80
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


@pytest.mark.parametrize(("name", "key"), [("multislice", "wedge_mu"), ("low_dose", "ml_floor")])
def test_the_preset_is_written_out(name, key, scan, capsys):
    main(["init", str(scan), "-o", "-", "--preset", name])
    assert key in tomllib.loads(capsys.readouterr().out)["preset"]


def test_what_else_the_file_knows_is_a_comment(scan, capsys):
    with h5py.File(scan, "r+") as file:
        del file["data"], file.attrs["acc_voltage"]
        stack = file.create_dataset("data", data=np.ones((15, *SHAPE[2:]), np.uint8))
        stack.attrs["note"] = "C:\\raw 'one'"
    main(["init", str(scan), "-o", "-"])
    text = capsys.readouterr().out
    experiment = tomllib.loads(text)["experiment"]
    assert "scan_size" not in experiment
    assert "# scan_size = ?" in text
    assert "# acc_voltage = ?" in text
