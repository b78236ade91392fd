"""The command line: what it hands on, what it prints, and its exit codes."""

import logging
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest

import pyptyx.params
from pyptyx import cli, demo, doctor
from pyptyx.cli import exits
from pyptyx.cli.registry import COMMANDS
from pyptyx.engine.findings import Facts, Finding
from pyptyx.errors import (
    DataError,
    DeviceError,
    NumericalError,
    OutputError,
    ParamError,
    Problem,
    WorkerError,
)
from pyptyx.shipped import preset_names, shipped


@pytest.fixture
def pieces(monkeypatch):
    """Stand-ins for the layers below, which record what they receive."""
    seen = SimpleNamespace(
        experiment={"acc_voltage": 80}, preset={"epoch_max": 7, "obj": "ones"}, file=None, ran=None
    )
    seen.result = SimpleNamespace(
        losses=[SimpleNamespace(loss=12.5), SimpleNamespace(loss=6.0)],
        final_loss=3.25,
        stop_reason="epoch_max reached",
        folder=None,
    )

    def load_run_file(path):
        seen.file = path
        return dict(seen.experiment), dict(seen.preset)

    def append_exp_params(experiment, preset):
        return {**preset, **experiment, "appended": True}

    def run(params):
        seen.ran = params
        return seen.result

    def module(name, **members):
        fake = ModuleType(name)
        fake.__dict__.update(members)
        monkeypatch.setitem(sys.modules, name, fake)

    monkeypatch.setattr(pyptyx.params, "load_run_file", load_run_file, raising=False)
    module("pyptyx.engine.experiment", append_exp_params=append_exp_params)
    module("pyptyx.engine.validate", validate=lambda _, preset: {"checked": preset["epoch_max"]})
    module("pyptyx.engine.describe", describe=lambda p: f"described {p}")
    module("pyptyx.iterative", run=run)
    seen.facts, seen.findings = Facts(explained=1.04, explained_error=0.031), []
    module("pyptyx.engine.report", report_on=lambda _, patterns: report(patterns))

    def report(patterns):
        assert patterns is None
        return SimpleNamespace(content=SimpleNamespace(facts=seen.facts), findings=seen.findings)

    return seen


def test_run_appends_the_experiment_and_reports(pieces, capsys):
    assert cli.main(["run", "some.toml"]) == 0
    assert str(pieces.file) == "some.toml"
    assert pieces.ran == {"acc_voltage": 80, "epoch_max": 7, "obj": "ones", "appended": True}
    out = capsys.readouterr().out
    assert "epochs    2, loss 12.5 -> 3.25" in out
    assert "epoch_max reached" in out
    assert "not saved" in out
    assert "explained 100% ± 3.1% of what differs" in out
    assert "warning" not in out


def test_run_says_what_a_report_would(pieces, capsys):
    pieces.facts, pieces.result.folder = Facts(), "results"
    pieces.findings = [Finding("drift", "The scan drifts", "By 3 px.", "Use the positions.")]
    assert cli.main(["run", "some.toml"]) == 0
    out = capsys.readouterr().out
    assert "explained" not in out
    assert "warning   The scan drifts: By 3 px." in out
    assert "remedies  pyptyx report results" in out


def test_run_of_parameters_alone_appends_nothing(pieces):
    pieces.experiment = {}
    assert cli.main(["run", "some.toml", "--output", "here"]) == 0
    assert pieces.ran == {"epoch_max": 7, "obj": "ones", "output_folder": "here"}


def test_output_wins_over_the_file(pieces):
    pieces.experiment["output_folder"] = "there"
    cli.main(["run", "some.toml", "--output", "here"])
    assert pieces.ran["output_folder"] == "here"


def test_set_changes_the_experiment_or_the_preset(pieces):
    settings = ["experiment.acc_voltage=300", "epoch_max=1", "update_probe=lambda e: e >= 3"]
    cli.main(["run", "f.toml", *(word for text in settings for word in ("--set", text))])
    assert pieces.ran["acc_voltage"] == 300
    assert pieces.ran["epoch_max"] == 1
    assert pieces.ran["update_probe"] == "lambda e: e >= 3"


def test_all_wrong_settings_are_refused_at_once(pieces, capsys):
    assert cli.main(["run", "f.toml", "--set", "epoch_max", "--set", "epoch_mx=3"]) == exits.INPUT
    err = capsys.readouterr().err
    assert "2 problems" in err
    assert "Did you mean 'epoch_max'?" in err
    assert pieces.ran is None


def test_validate_describes(pieces, capsys):
    assert cli.main(["validate", "some.toml", "--set", "epoch_max=3"]) == 0
    assert capsys.readouterr().out.startswith("described {'checked': 3}")
    assert pieces.ran is None


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ParamError(Problem("seed", "an int", "'a'")), 1),
        (NumericalError("loss became nan in epoch 3"), 3),
        (DeviceError("no room for one measurement"), 4),
        (MemoryError("Unable to allocate 3 TiB"), 4),
        (OutputError("could not write co.npy"), 5),
    ],
)
def test_what_users_can_mend_is_one_message(pieces, capsys, monkeypatch, error, code):
    def fail(params):
        raise error

    monkeypatch.setattr(sys.modules["pyptyx.iterative"], "run", fail)
    assert cli.main(["run", "some.toml"]) == code
    err = capsys.readouterr().err
    assert err == f"pyptyx: {error}\n"
    for argv in (["-v", "run", "some.toml"], ["run", "-v", "some.toml"]):
        assert cli.main(argv) == code
        assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("cause", "code"),
    [(DataError(Problem("a.h5", "data", "none")), 1), (MemoryError(), 4), (KeyError("x"), 4)],
)
def test_a_worker_fails_with_the_code_of_its_cause(cause, code):
    error = WorkerError("worker 1 failed")
    error.__cause__ = cause
    outer = WorkerError("rank 2 failed")
    outer.__cause__ = error
    assert exits.code_of(outer) == code


def test_interruption_has_its_own_code(pieces, monkeypatch):
    def interrupt(params):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["pyptyx.iterative"], "run", interrupt)
    assert cli.main(["run", "some.toml"]) == 130


def test_our_own_mistakes_are_called_so(pieces, monkeypatch, capsys):
    def fail(params):
        raise RuntimeError("an oversight")

    monkeypatch.setattr(sys.modules["pyptyx.iterative"], "run", fail)
    assert cli.main(["run", "some.toml"]) == exits.DEFECT
    err = capsys.readouterr().err
    assert "RuntimeError: an oversight" in err
    assert "a defect of pyptyx" in err.splitlines()[-1]


def test_the_log_is_shown_and_left_as_it_was(pieces, capsys, monkeypatch):
    logger = logging.getLogger("pyptyx")
    before = (logger.level, list(logger.handlers))

    def talk(params):
        logging.getLogger("pyptyx.engine").info("epoch 1 of 7")
        return pieces.result

    monkeypatch.setattr(sys.modules["pyptyx.iterative"], "run", talk)
    cli.main(["run", "some.toml"])
    assert "epoch 1 of 7" in capsys.readouterr().err
    assert (logger.level, logger.handlers) == before


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("pyptyx 0.")


@pytest.mark.parametrize("argv", [[], ["fly"], ["run"]])
def test_usage_errors(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(argv)
    assert stop.value.code == 2
    assert "usage: pyptyx" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([command.name, "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: pyptyx {command.name}")
    assert command.summary[1:] in " ".join(out.split())


def test_only_the_module_of_the_command_is_imported():
    code = "import sys; from pyptyx.cli.program import parser; parser(['plan']); "
    code += "print(*(m for m in sys.modules if m.startswith('pyptyx')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = done.stdout.split()
    assert "pyptyx.cli.checks" in modules
    assert "pyptyx.cli.images" not in modules
    assert not any(name.startswith("pyptyx.engine") for name in modules)


def test_doctor(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path / "new" / "cache"))
    monkeypatch.setitem(doctor._PACKAGES, "surely-not-installed", "extra")
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "Python" in out
    assert "not installed: pip install 'pyptyx[extra]'" in out
    assert f"{tmp_path / 'new' / 'cache'} (writable)" in out
    assert "thread" in out


def test_doctor_names_the_devices(capsys, monkeypatch):
    devices = [SimpleNamespace(name=f"cuda:{i}", free_bytes=lambda: 3 << 30) for i in (0, 1)]
    monkeypatch.setattr("pyptyx.backend.make_backends", lambda *_: devices)
    cli.main(["doctor"])
    out = capsys.readouterr().out
    assert "cuda:1" in out
    assert "3.0 GiB free" in out
    assert "2 in all" in out


def test_a_missing_shipped_file_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr("pyptyx.shipped._PACKAGE", tmp_path / "pyptyx")
    with pytest.raises(DataError, match=r"cryo_demo\.toml"):
        shipped("presets/cryo_demo.toml")


@pytest.mark.parametrize("place", ["pyptyx/_presets", "presets"])
def test_shipped_files_are_found_in_wheel_and_checkout(monkeypatch, tmp_path, place):
    (tmp_path / place).mkdir(parents=True)
    file = tmp_path / place / "cryo_demo.toml"
    file.write_text("")
    monkeypatch.setattr("pyptyx.shipped._PACKAGE", tmp_path / "pyptyx")
    assert shipped("presets/cryo_demo.toml") == file
    assert preset_names() == ["cryo_demo"]


def test_the_experiment_of_the_demo_is_the_shipped_calibration():
    experiment = demo.demo_experiment()
    assert experiment["acc_voltage"] == 300
    assert experiment["scan_size"] == (64, 64)
    # Underfocus in the authors' words is a negative C10 here.
    assert experiment["defocus"] == -135000
    disc_px = 1e-3 * experiment["conv_semiangle_mrad"] / 0.019687 / experiment["rez_pixel_size_A"]
    assert disc_px == pytest.approx(15.6, abs=0.1)


def test_the_shipped_preset_fits_the_shipped_data():
    from pyptyx.engine.experiment import append_exp_params
    from pyptyx.params import load_run_file, resolve

    _, preset = load_run_file(shipped("presets/cryo_demo.toml"))
    params = append_exp_params({**demo.demo_experiment(), "output_folder": None}, preset)
    resolved = resolve(params, need=("data", "acc_voltage"))
    assert resolved["positions"].shape == (64 * 64, 2)
    assert resolved["epoch_max"] > 0


@pytest.mark.slow
def test_the_demo_reconstructs_and_saves_its_pictures(tmp_path, capsys):
    assert cli.main(["demo", "--output", str(tmp_path), "--epochs", "4"]) == 0
    out = capsys.readouterr().out
    assert f"folder    {tmp_path}" in out
    for name in ("phase.png", "probe.png", "loss.png", "co.npy", "loss.csv"):
        assert (tmp_path / name).stat().st_size > 0, name
    first, last = (float(x) for x in out.split("loss ")[1].split("\n")[0].split(" -> "))
    assert last < first
