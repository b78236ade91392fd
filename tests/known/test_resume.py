"""Runs that are interrupted, killed or out of disk continue as if nothing had happened."""

import errno
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pyptyx
from pyptyx import cli
from pyptyx.engine import callbacks, loop, setup
from pyptyx.engine.callbacks import Callback
from pyptyx.engine.constraints import Constraint
from pyptyx.engine.resize import relocated
from pyptyx.errors import DataError, OutputError
from pyptyx.output import store
from tests.gpu.guard import GuardBackend
from tests.known.restart_scene import equal, log_rows, outcome, parameters

REPOSITORY = Path(__file__).parents[2]


class StopAfter(Callback):
    """Interrupts a run after an epoch."""

    def __init__(self, epoch):
        self._epoch = epoch

    def epoch(self, state):
        if state.epoch == self._epoch:
            raise KeyboardInterrupt


class Crash(BaseException):
    """The process is gone."""


@pytest.fixture(autouse=True)
def no_power_cuts(monkeypatch):
    """Waiting for the disk protects from power cuts only, and takes most of the time."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def always_saved(monkeypatch):
    """The state is written whenever it is due, however long that takes."""
    monkeypatch.setattr(callbacks, "_SHARE", np.inf)


def interrupted(params, folder, epoch):
    with pytest.raises(KeyboardInterrupt):
        pyptyx.run(params | {"output_folder": str(folder)}, [StopAfter(epoch)])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "pypty"},
        {"default_dtype": "single", "hist_length": 2},
        {"preconditioner": False, "sequence": lambda e: [0, 2, 3, 5, 8] if e < 4 else None},
        {"phase_only_obj": True, "tune_only_probe_phase": "lambda e: e > 4"},
        {
            "tilts": np.full((1, 6), 1e-4),
            "tilt_mode": 4,
            "update_tilts": True,
            "static_background": 50.0,
            "update_static_background": "lambda e: e > 2",
            "update_beam_current": True,
            "n_hermite_probe_modes": (1, 2),
        },
        # A search that cannot succeed for some epochs: rejections, and positions held for a while.
        {
            "update_probe_pos": True,
            "wolfe_c1_constant": "lambda e: 0.999998 if 2 <= e < 4 else 0.1",
            "wolfe_c2_constant": "lambda e: 0.999999 if 2 <= e < 4 else 0.9",
        },
    ],
    ids=["default", "pypty", "single", "sequence", "phases", "everything", "rejections"],
)
def test_same_bits_after_an_interruption(changes, tmp_path):
    params = parameters(**changes)
    whole = pyptyx.run(params | {"output_folder": str(tmp_path / "whole")})
    for epoch in (0, 4):
        folder = tmp_path / f"cut{epoch}"
        interrupted(params, folder, epoch)
        result = pyptyx.run(pyptyx.prepare_restart(folder))
        assert equal(outcome(result), outcome(whole))
        assert result.stop_reason == whole.stop_reason
        assert log_rows(folder) == log_rows(tmp_path / "whole")


def test_same_bits_after_the_object_has_grown(tmp_path, monkeypatch):
    def grow(problem, values, active):
        # A schedule that has no other effect tells which epoch it is.
        away = [Constraint("grow", lambda x: relocated(problem, x, x["positions"] - (4, 5)))]
        return away if values["mixed_variance_sigma"] == 1 else []

    monkeypatch.setattr(loop, "after_update", grow)
    params = parameters(
        mixed_variance_sigma="lambda e: 1 if e == 2 else 0.5", reset_positions="lambda e: e == 6"
    )
    whole = pyptyx.run(params | {"output_folder": str(tmp_path / "whole")})
    for epoch in (1, 3):
        folder = tmp_path / f"cut{epoch}"
        interrupted(params, folder, epoch)
        result = pyptyx.run({"resume_from": folder})
        assert result.object.shape == (28, 34, 1, 1)
        assert equal(outcome(result), outcome(whole))


def test_same_bits_on_a_device(tmp_path, monkeypatch):
    monkeypatch.setattr(setup, "make_backends", lambda devices, prefer, kernels: [GuardBackend()])
    params = parameters(phase_only_obj=True, static_background=50.0, update_static_background=True)
    whole = pyptyx.run(params | {"output_folder": str(tmp_path / "whole")})
    interrupted(params, tmp_path / "cut", 4)
    assert equal(outcome(pyptyx.run({"resume_from": tmp_path / "cut"})), outcome(whole))


def test_threads_agree_to_rounding(tmp_path):
    params = parameters(executor="threads", devices=3)
    whole = pyptyx.run(params | {"output_folder": str(tmp_path / "whole")})
    interrupted(params, tmp_path / "cut", 4)
    result = pyptyx.run({"resume_from": tmp_path / "cut"})
    for a, b in zip(outcome(result), outcome(whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize("key", ["frequency_scaling", "preconditioner"])
@pytest.mark.parametrize("value", [True, False])
def test_another_optimiser_goes_on_without_the_history(key, value, tmp_path, caplog):
    interrupted(parameters(**{key: value}), tmp_path, 4)
    before = store.load(tmp_path)["records"][-1]
    result = pyptyx.run(pyptyx.prepare_restart(tmp_path) | {key: not value})
    assert f"without the history of the optimiser: {key} changed" in caplog.text
    assert len(result.losses) == 5
    assert result.final_loss < before["loss_after"]


def test_the_command_line_continues(tmp_path, capsys):
    params = parameters()
    whole = pyptyx.run(params | {"output_folder": str(tmp_path / "whole")})
    interrupted(params, tmp_path / "cut", 5)
    assert cli.main(["resume", str(tmp_path / "cut"), "--set", "save_loss_log=2"]) == 0
    assert "epochs    10" in capsys.readouterr().out
    assert np.array_equal(np.load(tmp_path / "cut" / "co.npy"), whole.object)
    assert cli.main(["resume", str(tmp_path / "nowhere")]) == 1


def test_a_finished_run_gives_its_result_again(tmp_path):
    params = parameters(convergence_tol=0.9, convergence_patience=2, output_folder=str(tmp_path))
    whole = pyptyx.run(params)
    assert "converged" in whole.stop_reason
    again = pyptyx.run({"resume_from": tmp_path})
    assert equal(outcome(again), outcome(whole))
    assert again.stop_reason == whole.stop_reason
    # A changed criterion lets it go on.
    longer = pyptyx.run({"resume_from": tmp_path, "convergence_tol": 0.0})
    assert len(longer.losses) == params["epoch_max"]


def test_another_folder_gets_a_log_of_its_own(tmp_path):
    params = parameters()
    whole = pyptyx.run(params | {"output_folder": str(tmp_path / "whole")})
    interrupted(params, tmp_path / "cut", 4)
    restart = pyptyx.prepare_restart(f"{tmp_path / 'cut'}{os.sep}", tmp_path / "new")
    assert len(log_rows(tmp_path / "new")) == 1
    first = pyptyx.run(restart, [])
    assert [r.epoch for r in first.losses] == [5, 6, 7, 8, 9]
    assert np.array_equal(first.object, whole.object)
    assert log_rows(tmp_path / "new")[1:] == log_rows(tmp_path / "whole")[6:]
    assert len(log_rows(tmp_path / "cut")) == 6
    assert pyptyx.run({"resume_from": tmp_path / "new"}).stop_reason.startswith("no epoch")


def test_changes_that_make_it_another_run_start_the_history_anew(tmp_path, caplog):
    interrupted(parameters(), tmp_path, 4)
    restart = pyptyx.prepare_restart(tmp_path)
    obj = 0.9 * restart["obj"]
    result = pyptyx.run(restart | {"obj": obj, "epoch_max": 5})
    np.testing.assert_array_equal(result.object, obj)
    assert "without the history of the optimiser: obj changed" in caplog.text


def test_more_epochs_and_other_weights_keep_the_history(tmp_path, caplog):
    interrupted(parameters(), tmp_path, 4)
    result = pyptyx.run(pyptyx.prepare_restart(tmp_path) | {"epoch_max": 12, "loss_weight": 2.0})
    assert [r.epoch for r in result.losses] == list(range(12))
    assert result.losses[5].loss == pytest.approx(2 * result.losses[4].loss_after, rel=1e-9)
    assert "history" not in caplog.text


def test_data_in_memory_have_to_be_given_again(tmp_path):
    params = parameters(strip_dataset_from_params=True)
    whole = pyptyx.run(params | {"output_folder": str(tmp_path / "whole")})
    interrupted(params, tmp_path / "cut", 4)
    restart = pyptyx.prepare_restart(tmp_path / "cut")
    with pytest.raises(DataError, match=r"dataset: .*in memory.*strip_dataset_from_params=False"):
        pyptyx.run(restart)
    result = pyptyx.run(restart | {"dataset": params["dataset"]})
    assert equal(outcome(result), outcome(whole))


def test_a_relative_data_path_is_found_from_elsewhere(tmp_path, monkeypatch):
    params = parameters(epoch_max=3)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    np.save("patterns.npy", params.pop("dataset"))
    interrupted(params | {"data_path": "patterns.npy"}, "results", 1)
    monkeypatch.chdir(tmp_path)
    assert len(pyptyx.run(pyptyx.prepare_restart("here/results")).losses) == 3


@pytest.mark.parametrize(
    ("share", "every", "writes"),
    [(np.inf, 1, 11), (np.inf, 4, 5), (0.0, 1, 3), (np.inf, 0, 2)],
    ids=["always", "every fourth", "no time for it", "at the end only"],
)
def test_how_often_the_state_is_written(share, every, writes, tmp_path, monkeypatch):
    """At the start, when it is due unless that takes too long, and at the end if still needed."""
    saved = []
    monkeypatch.setattr(callbacks, "_SHARE", share)
    monkeypatch.setattr(store, "save", lambda _, content: saved.append(content["epoch"]))
    pyptyx.run(parameters(output_folder=str(tmp_path), save_inter_checkpoints=every))
    assert len(saved) == writes
    assert (saved[0], saved[-1]) == (0, 10)


@pytest.mark.usefixtures("always_saved")
@pytest.mark.parametrize("damage", ["truncated", "changed", "missing"])
def test_a_damaged_state_gives_way_to_the_previous_one(damage, tmp_path, caplog):
    params = parameters()
    whole = pyptyx.run(params | {"output_folder": str(tmp_path / "whole")})
    folder = tmp_path / "cut"
    interrupted(params, folder, 4)
    spoil(folder / store.CURRENT, damage)
    assert store.load(folder)["epoch"] == 4
    assert equal(outcome(pyptyx.run({"resume_from": folder})), outcome(whole))
    assert ("passed over" in caplog.text) == (damage != "missing")


def spoil(path, damage):
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "changed":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    else:
        path.unlink()


def test_without_a_state_the_arrays_are_continued(tmp_path):
    """Nothing acts on the probe again, and the positions keep their margin."""
    params = parameters(extra_probe_defocus=30.0, n_hermite_probe_modes=(1, 2))
    interrupted(params, tmp_path, 4)
    store.discard(tmp_path)
    restart = pyptyx.prepare_restart(tmp_path)
    assert restart["epoch_prev"] == 5
    result = pyptyx.run(restart | {"epoch_max": 5})
    for array, name in ((result.object, "co"), (result.probe, "cp"), (result.positions, "cg")):
        np.testing.assert_array_equal(array, np.load(tmp_path / f"{name}.npy"))


def test_a_new_run_forgets_the_old_one(tmp_path):
    pyptyx.run(parameters(output_folder=str(tmp_path)))
    interrupted(parameters(epoch_max=8, save_inter_checkpoints=0), tmp_path, 0)
    assert pyptyx.prepare_restart(tmp_path)["epoch_prev"] == 1


@pytest.mark.usefixtures("always_saved")
def test_a_full_disk_ends_the_run_and_keeps_what_was_saved(tmp_path, monkeypatch):
    params = parameters()
    whole = pyptyx.run(params | {"output_folder": str(tmp_path / "whole")})
    savez, count = np.savez, []

    def full(file, **arrays):
        if "header" in arrays:
            count.append(file)
        if len(count) > 4:
            Path(file).write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        savez(file, **arrays)

    folder = tmp_path / "cut"
    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full)
        with pytest.raises(OutputError, match="No space left"):
            pyptyx.run(params | {"output_folder": str(folder)})
    assert store.load(folder)["epoch"] == 3
    assert not list(folder.glob(".*"))
    assert equal(outcome(pyptyx.run({"resume_from": folder})), outcome(whole))


def test_a_folder_that_became_read_only(tmp_path, monkeypatch):
    params = parameters(output_folder=str(tmp_path))

    class Lock(Callback):
        def epoch(self, state):
            if state.epoch == 2:
                monkeypatch.setattr(os, "replace", refuse)

    def refuse(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with pytest.raises(OutputError, match="Permission denied"):
        pyptyx.run(params, [Lock()])
    monkeypatch.undo()
    assert len(pyptyx.run({"resume_from": tmp_path}).losses) == params["epoch_max"]


class Disk:
    """Lets a process die before its n-th file operation; afterwards nothing reaches the disk."""

    def __init__(self, monkeypatch, dies_before):
        self.operations = 0
        self._dies_before = dies_before
        for owner, name in ((os, "replace"), (np, "savez"), (np, "save"), (Path, "unlink")):
            monkeypatch.setattr(owner, name, self._guarded(getattr(owner, name)))

    def _guarded(self, operation):
        def run(*args, **kwargs):
            self.operations += 1
            if self.operations > self._dies_before:
                raise Crash
            return operation(*args, **kwargs)

        return run


@pytest.mark.slow
@pytest.mark.usefixtures("always_saved")
@pytest.mark.parametrize("resumed", [False, True], ids=["fresh", "resumed"])
def test_a_crash_before_any_file_operation(resumed, tmp_path, caplog):
    caplog.set_level(logging.ERROR)
    params = parameters(epoch_max=2, save_checkpoints_every_epoch=1)
    whole = outcome(pyptyx.run(params | {"output_folder": str(tmp_path / "whole")}))
    rows = log_rows(tmp_path / "whole")
    number, crashed = 0, True
    while crashed:
        folder = tmp_path / str(number)
        first = params | {"output_folder": str(folder)}
        if resumed:
            interrupted(params, folder, 0)
            first = {"resume_from": folder}
        with pytest.MonkeyPatch.context() as patch:
            Disk(patch, number)
            try:
                pyptyx.run(first)
                crashed = False
            except Crash:
                pass
        begun = any((folder / name).exists() for name in ("params.json", "params.pkl"))
        again = {"resume_from": folder} if begun else params | {"output_folder": str(folder)}
        assert equal(outcome(pyptyx.run(again)), whole), number
        assert log_rows(folder) == rows
        number += 1
    assert number > 20


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_runs_killed_at_random_moments_end_as_if_uninterrupted(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    server = REPOSITORY / "tests" / "known" / "kill_server.py"
    done = subprocess.run(
        [sys.executable, str(server), str(tmp_path), "30"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout)
    assert len(report) == 30
    assert all(all(run["ok"]) for run in report), report
    assert sum(n for run in report for n in run["writing"]) > 0, "no kill met a file being written"
