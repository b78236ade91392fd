"""Where exported results come from: data, programs and machines."""

import hashlib
import json
import os
import shutil
import subprocess

import h5py
import numpy as np
import pytest

import pyptyx
from pyptyx.engine.export import convert_to_nxs
from pyptyx.output import provenance
from pyptyx.params import save_params

Y, X, NY, NX, N = 13, 17, 5, 7, 3
CONTENT = b"counts of electrons"


@pytest.fixture
def folder(tmp_path):
    """What a run leaves at least."""
    path = tmp_path / "results"
    path.mkdir()
    np.save(path / "co.npy", np.ones((Y, X, 1, 1), complex))
    np.save(path / "cp.npy", np.ones((NY, NX, 2), complex))
    np.save(path / "cg.npy", np.arange(2.0 * N).reshape(N, 2))
    save_params(path, {"acc_voltage": 60, "data_path": str(tmp_path / "scan.h5")})
    (tmp_path / "scan.h5").write_bytes(CONTENT)
    return path


def record(folder, further=False, workers=("cpu",)):
    provenance.record(folder, folder.parent / "scan.h5", workers, further)


def note(folder, **options):
    """Texts of the note about the data."""
    target = convert_to_nxs(folder, folder.parent / "x.nxs", **options)
    with h5py.File(target) as file:
        group = file["entry"].get("note_data")
        return group and {name: field.asstr()[()] for name, field in group.items()}


def test_the_data_are_named_with_their_checksum(folder):
    record(folder)
    found = note(folder)
    assert found["file_name"] == "scan.h5"
    assert found["algorithm"] == "sha256"
    assert found["checksum"] == hashlib.sha256(CONTENT).hexdigest()


def test_data_that_have_changed_get_no_checksum(folder, caplog):
    record(folder)
    (folder.parent / "scan.h5").write_bytes(CONTENT + b"!")
    assert "checksum" not in note(folder)
    assert "not what the run has read" in caplog.text


def test_data_touched_since_get_no_checksum(folder):
    record(folder)
    os.utime(folder.parent / "scan.h5", (1, 1))
    assert "checksum" not in note(folder)


def test_data_that_are_gone_get_no_checksum(folder):
    record(folder)
    (folder.parent / "scan.h5").unlink()
    assert note(folder)["file_name"] == "scan.h5"
    assert "checksum" not in note(folder)


def test_the_data_need_not_be_read(folder, monkeypatch):
    monkeypatch.setattr(provenance, "checksum", None)
    assert "checksum" not in note(folder, checksum=False)


def test_a_folder_of_pypty_has_the_checksum_of_what_is_there(folder):
    assert note(folder)["checksum"] == hashlib.sha256(CONTENT).hexdigest()


def test_data_in_memory_are_no_file(folder):
    save_params(folder, {"acc_voltage": 60})
    provenance.record(folder, None, ["cpu"], further=False)
    assert note(folder) is None


def test_sessions_add_up_until_another_run_begins(folder):
    record(folder)
    record(folder, further=True, workers=["cuda:0", "cuda:1"])
    assert [s["workers"] for s in provenance.sessions(folder)] == [["cpu"], ["cuda:0", "cuda:1"]]
    record(folder)
    assert len(provenance.sessions(folder)) == 1


@pytest.mark.parametrize("text", ["", "{", "3", '["a"]'])
def test_a_damaged_record_is_none(folder, text):
    (folder / provenance.FILE).write_text(text)
    assert provenance.sessions(folder) == []
    record(folder, further=True)
    assert len(provenance.sessions(folder)) == 1


def test_programs_and_machine_are_in_the_file(folder, monkeypatch):
    monkeypatch.setattr(provenance, "commit", lambda: "0123abcd-dirty")
    record(folder, workers=["cuda:0"])
    with h5py.File(convert_to_nxs(folder, folder.parent / "x.nxs")) as file:
        session, export = (file["entry/provenance"][name] for name in ("session_0", "export"))
        for group in (session, export):
            assert group["version"].asstr()[()] == pyptyx.__version__
            assert group["commit"].asstr()[()] == "0123abcd-dirty"
            assert group["packages/numpy"].asstr()[()] == np.__version__
            assert group["machine/cores"][()] >= 1
            assert group["machine/system"].asstr()[()]
        assert session["workers"].asstr()[0] == "cuda:0"
        assert session["data/bytes"][()] == len(CONTENT)
        assert "data" not in export
        assert file["entry/reconstruction/version"].asstr()[()] == pyptyx.__version__


def test_the_version_is_that_of_the_run(folder):
    record(folder)
    path = folder / provenance.FILE
    path.write_text(
        path.read_text().replace(f'"version": "{pyptyx.__version__}"', '"version": "7"')
    )
    with h5py.File(convert_to_nxs(folder, folder.parent / "x.nxs")) as file:
        assert file["entry/reconstruction/version"].asstr()[()] == "7"


def test_results_of_pypty_are_not_claimed(folder):
    (folder / "params.json").unlink()
    with h5py.File(convert_to_nxs(folder, folder.parent / "x.nxs")) as file:
        assert file["entry/reconstruction/program"].asstr()[()] == "PyPty"
        assert "version" not in file["entry/reconstruction"]


def fake_package(tmp_path, monkeypatch):
    """The module in another checkout."""
    module = tmp_path / "checkout" / "pyptyx" / "output" / "provenance.py"
    module.parent.mkdir(parents=True)
    module.touch()
    monkeypatch.setattr(provenance, "__file__", str(module))
    return module.parents[2]


def git(folder, *words):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *identity, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_commit_of_a_checkout(tmp_path, monkeypatch):
    checkout = fake_package(tmp_path, monkeypatch)
    git(checkout, "init", "-q")
    git(checkout, "add", ".")
    git(checkout, "commit", "-q", "-m", "x")
    head = git(checkout, "rev-parse", "HEAD")
    assert provenance.commit.__wrapped__() == head
    (checkout / "pyptyx/output/provenance.py").write_text("changed")
    assert provenance.commit.__wrapped__() == f"{head}-dirty"


@pytest.mark.parametrize(
    ("text", "expected"),
    [(json.dumps({"vcs_info": {"commit_id": "abc"}}), "abc"), ("{}", None), (None, None)],
)
def test_the_commit_of_an_installation(tmp_path, monkeypatch, text, expected):
    fake_package(tmp_path, monkeypatch)

    class Distribution:
        def read_text(self, name):
            return text

    monkeypatch.setattr(provenance.metadata, "distribution", lambda name: Distribution())
    assert provenance.commit.__wrapped__() == expected


def test_a_checkout_without_git_has_no_commit(tmp_path, monkeypatch):
    (fake_package(tmp_path, monkeypatch) / ".git").mkdir()

    def missing(*args, **kwargs):
        raise FileNotFoundError("git")

    monkeypatch.setattr(provenance.subprocess, "run", missing)
    assert provenance.commit.__wrapped__() is None


def test_a_run_writes_down_where_it_happens(tmp_path):
    rng = np.random.default_rng(0)
    params = {
        "dataset": rng.random((N, NY, NX)),
        "positions": np.array([[0.0, 1], [2, 4], [3, 6]]),
        "probe": np.ones((NY, NX, 1), complex),
        "acc_voltage": 60,
        "pixel_size_y_A": 0.3,
        "pixel_size_x_A": 0.2,
        "backend": "cpu",
        "devices": 1,
        "epoch_max": 1,
        "print_flag": 0,
        "output_folder": str(tmp_path),
    }
    pyptyx.run(params)
    (session,) = provenance.sessions(tmp_path)
    assert session["workers"] == ["cpu"]
    assert session["data"] is None
    assert session["version"] == pyptyx.__version__
    again = pyptyx.prepare_restart(tmp_path)
    pyptyx.run({**again, "epoch_max": 2, "dataset": params["dataset"]})
    assert len(provenance.sessions(tmp_path)) == 2
