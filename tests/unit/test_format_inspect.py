"""`load_data`, the quick look and ``pyptyx inspect``: from an unknown file to an experiment."""

import json
import subprocess
import sys
import tomllib

import h5py
import numpy as np
import pytest

import pyptyx
from pyptyx.cli import main
from pyptyx.engine.inspect import quick_look
from pyptyx.errors import DataError

SCAN, PATTERN = (3, 5), (12, 16)


@pytest.fixture
def stack():
    """A disc a little off the middle on every pattern."""
    y, x = np.indices(PATTERN)
    disc = np.hypot(y - 5, x - 9) < 3
    return np.broadcast_to(40 * disc, (*SCAN, *PATTERN)).astype(np.uint8)


@pytest.fixture
def path(stack, tmp_path):
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=stack, chunks=(1, 5, *PATTERN))
        file.attrs.update({"acc_voltage": 80.0, "scan_step_A": 0.5, "rez_pixel_size_mrad": 2.0})
    return path


def test_the_experiment_of_a_file_can_be_attached(path):
    with pyptyx.load_data(path) as file:
        assert file.missing == ()
        experiment = file.to_experiment()
    params = pyptyx.append_exp_params(experiment | {"PLRotation_deg": 0.0, "output_folder": None})
    assert params["scan_size"] == SCAN
    assert params["scan_step_A"] == 0.5
    assert params["acc_voltage"] == 80
    assert params["h5_key"] == "/data"


def test_every_format_can_be_data_path(stack, tmp_path):
    np.savez(tmp_path / "a.npz", stack=stack)
    exp = {
        "data_path": str(tmp_path / "a.npz"), "acc_voltage": 80, "scan_step_A": 0.5,
        "rez_pixel_size_mrad": 2.0, "PLRotation_deg": 0.0, "output_folder": None,
    }  # fmt: skip
    params = pyptyx.append_exp_params(exp)
    np.testing.assert_allclose(params["mean_pattern"], stack[0, 0])
    (tmp_path / "a.xyz").write_bytes(b"something")
    with pytest.raises(DataError, match=r"\.npz.*\.dm4.*\.mib"):
        pyptyx.append_exp_params(exp | {"data_path": str(tmp_path / "a.xyz")})


def test_a_quick_look_counts_what_is_odd(stack, tmp_path):
    odd = stack.copy()
    odd[0, 0, 5, 9] = 255
    np.save(tmp_path / "a.npy", odd)
    with pyptyx.load_data(tmp_path / "a.npy") as file:
        look = quick_look(file)
    assert (look.patterns, look.lowest, look.highest) == (15, 0, 255)
    assert (look.saturated, look.negative, look.not_finite) == (1, 0, 0)
    assert look.always_zero == (stack[0, 0] == 0).sum()
    assert look.dose == pytest.approx(odd.sum() / 15)
    assert look.centre == (pytest.approx(5), pytest.approx(9))
    odd = stack.astype(np.float32)
    odd[0, 0, 0, :2] = np.nan, -1
    np.save(tmp_path / "b.npy", odd)
    with pyptyx.load_data(tmp_path / "b.npy") as file:
        look = quick_look(file)
    assert (look.saturated, look.negative, look.not_finite, look.lowest) == (0, 1, 1, -1)


def test_a_quick_look_reads_few_patterns(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((400, 3, 4)))
    with pyptyx.load_data(tmp_path / "a.npy") as file:
        read = []
        original = file.source.read
        file.source.read = lambda n: read.extend(n) or original(n)
        assert quick_look(file).patterns == 16
    assert (min(read), max(read), len(read)) == (0, 399, 16)


def test_inspect_prints_a_file_to_complete(path, capsys, monkeypatch):
    with h5py.File(path, "a") as file:
        del file.attrs["acc_voltage"]
    assert main(["inspect", str(path)]) == 0
    text = capsys.readouterr().out
    assert "(3, 5, 12, 16), uint8" in text
    assert "chunks (1, 5, 12, 16), not compressed" in text
    assert "scan.h5: /@scan_step_A" in text
    assert "missing: acc_voltage\n" in text
    assert "then: pyptyx validate scan.toml" in text
    table = text[text.index("[experiment]") : text.index("then:")]
    assert tomllib.loads(table)["experiment"] == {
        "data_path": str(path),
        "h5_key": "/data",
        "scan_step_A": 0.5,
        "rez_pixel_size_mrad": 2.0,
        "scan_size": [3, 5],
    }
    tomllib.loads(table.replace("# acc_voltage", "acc_voltage"))


def test_inspect_as_json(path, capsys):
    assert main(["inspect", str(path), "--dataset", "data", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["shape"] == [3, 5, 12, 16]
    assert said["missing"] == []
    assert said["look"]["patterns"] == 15
    assert said["experiment"]["scan_size"] == [3, 5]
    assert {c["key"]: c["where"] for c in said["calibrations"]}["acc_voltage"] == (
        "scan.h5: /@acc_voltage"
    )


def test_inspect_of_what_is_no_data(tmp_path, capsys):
    (tmp_path / "a.xyz").write_text("words")
    assert main(["inspect", str(tmp_path / "a.xyz")]) == 1
    assert "known format" in capsys.readouterr().err
    assert main(["inspect", str(tmp_path)]) == 1
    assert "a folder" in capsys.readouterr().err


def test_nothing_of_an_optional_package_is_imported_for_a_plain_file(path):
    code = (
        "import sys, pyptyx; pyptyx.load_data(sys.argv[1]).close();"
        "raise SystemExit('rsciio' in sys.modules or 'hdf5plugin' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 0
