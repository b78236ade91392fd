"""A script as PyPty's documentation shows it, on data simulated with geometry worked out here."""

import csv
import logging

import numpy as np
import pytest

import pyptyx as pypty
from pyptyx.engine import feeding
from pyptyx.engine.callbacks import Callback
from pyptyx.engine.loop import iterate
from pyptyx.engine.setup import build

SCAN = (7, 6)
WINDOW = (22, 26)
REZ_A = 0.1  # 1/Å per detector pixel
WAVELENGTH_A = 0.0250793  # 200 kV
STEP_A = 0.9
ROTATION_DEG = 20.0
C10_A = 100.0
DISC_A = 0.45  # radius of the aperture in 1/Å
COUNTS = 1e4
PIXEL_A = np.array([1 / (REZ_A * n) for n in WINDOW])

COLUMNS = ["epoch", "time / s", "loss", "sse", "initial step", "matching step"]
COLUMNS += ["N linesearch iterations", "dir. derivative", "new dir. derivative"]
COLUMNS += ["Constraints contribution", "Free GiB", "Total GiB", "Warnings"]
"""The header of PyPty's loss.csv."""


# ---- the experiment, simulated -----------------------------------------------------------------


def scan_positions() -> np.ndarray:
    """Positions (y, x) in px, smallest 0: the grid is turned clockwise, y pointing down."""
    phi = np.deg2rad(ROTATION_DEG)
    points = [
        (
            STEP_A * (ix * np.sin(phi) + iy * np.cos(phi)),
            STEP_A * (ix * np.cos(phi) - iy * np.sin(phi)),
        )
        for iy in range(SCAN[0])
        for ix in range(SCAN[1])
    ]
    return (np.array(points) - np.min(points, axis=0)) / PIXEL_A


def aperture() -> np.ndarray:
    qy, qx = ((np.arange(n) - n // 2) * REZ_A for n in WINDOW)
    return np.hypot(*np.meshgrid(qy, qx, indexing="ij")) <= DISC_A


def overfocused_probe() -> np.ndarray:
    qy, qx = ((np.arange(n) - n // 2) * REZ_A for n in WINDOW)
    chi = np.pi * WAVELENGTH_A * C10_A * (qy[:, None] ** 2 + qx**2)
    wave = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(aperture() * np.exp(-1j * chi))))
    return (wave * np.sqrt(COUNTS / (wave.size * np.sum(np.abs(wave) ** 2))))[..., None]


def object_phase() -> np.ndarray:
    """Atoms at random places, smooth enough for the band limit."""
    rng = np.random.default_rng(5)
    shape = np.rint(scan_positions().max(axis=0)).astype(int) + WINDOW
    y, x = np.indices(shape) * PIXEL_A[:, None, None]
    phase = np.zeros(shape)
    for cy, cx, height in rng.random((25, 3)):
        distance = np.hypot(y - cy * shape[0] * PIXEL_A[0], x - cx * shape[1] * PIXEL_A[1])
        phase += (0.2 + 0.4 * height) * np.exp(-((distance / 1.0) ** 2))
    return phase


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    return np.exp(1j * object_phase())[..., None, None]


@pytest.fixture(scope="module")
def patterns(truth) -> np.ndarray:
    """Patterns (7, 6, 22, 26)."""
    simulated = pypty.simulate(
        {
            "acc_voltage": 200,
            "pixel_size_y_A": PIXEL_A[0],
            "pixel_size_x_A": PIXEL_A[1],
            "positions": scan_positions(),
            "obj": truth,
            "probe": overfocused_probe(),
            "skip_preprocessing": True,
            "default_dtype": "double",
            "backend": "cpu",
            "devices": 1,
        }
    )
    return simulated.reshape(*SCAN, *WINDOW).astype(np.float32)


def experiment(folder, **changes):
    """The dictionary of the documentation."""
    return {
        "output_folder": folder,
        "acc_voltage": 200,
        "rez_pixel_size_A": REZ_A,
        "scan_size": SCAN,
        "scan_step_A": STEP_A,
        "PLRotation_deg": ROTATION_DEG,
        "defocus": C10_A,
        "data_pad": 0,
        "total_thickness": 1,
        "num_slices": 1,
        "print_flag": 0,
    } | changes


def preset(**changes):
    return {"epoch_max": 4, "backend": "cpu", "devices": 1, **changes}


@pytest.fixture
def calibrated(patterns, tmp_path):
    """Parameters of the experiment with the data in memory: ``calibrated(**preset)``."""

    def make(experiment_changes=None, **changes):
        given = experiment(tmp_path / "results", dataset=patterns) | (experiment_changes or {})
        params = pypty.initialize.append_exp_params(given, preset(**changes))
        return params | changes

    return make


def read_log(folder):
    with open(folder / "loss.csv", newline="") as log:
        return list(csv.DictReader(log))


# ---- the script --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["npy", "h5"])
def test_the_documented_script(kind, patterns, tmp_path):
    np.save(tmp_path / "raw.npy", patterns)
    data_path = tmp_path / f"raw.{kind}"
    if kind == "h5":
        pypty.initialize.create_pypty_data(str(tmp_path / "raw.npy"), str(data_path))
    folder = tmp_path / "results"

    experimental_params = experiment(str(folder) + "/", data_path=str(data_path))
    pypty_params = {"epoch_max": 30, "backend": "cpu", "devices": 1}
    params = pypty.initialize.append_exp_params(experimental_params, pypty_params)
    assert params is pypty_params
    result = pypty.iterative.run(params)

    files = {path.name for path in folder.iterdir()}
    assert {"co.npy", "cp.npy", "cg.npy", "loss.csv", "params.pkl", "params.json"} <= files
    np.testing.assert_array_equal(np.load(folder / "co.npy"), result.object)
    np.testing.assert_array_equal(np.load(folder / "cp.npy"), result.probe)
    np.testing.assert_allclose(np.load(folder / "cg.npy"), scan_positions(), atol=1e-9)
    assert result.probe.shape == (*WINDOW, 1)

    with open(folder / "loss.csv", newline="") as log:
        header = next(csv.reader(log))
    assert header[:13] == COLUMNS
    rows = read_log(folder)
    assert [int(row["epoch"]) for row in rows] == list(range(30))
    losses = [float(row["loss"]) for row in rows]
    assert losses[-1] < 0.02 * losses[0]
    assert losses[1:] == pytest.approx([float(r["loss after update"]) for r in rows[:-1]], rel=1e-5)

    scanned = tuple(
        slice(n // 2, n // 2 + int(last))
        for n, last in zip(WINDOW, scan_positions().max(axis=0), strict=True)
    )
    found, true = result.phase[scanned].ravel(), object_phase()[scanned].ravel()
    assert np.corrcoef(found, true)[0, 1] > 0.95


def test_only_the_true_signs_of_rotation_and_defocus_explain_the_data(calibrated, truth):
    def loss(rotation, defocus):
        geometry = {"PLRotation_deg": rotation, "defocus": defocus, "aperture": aperture()}
        params = calibrated(geometry, obj=truth, probe="aperture", default_dtype="double")
        return pypty.loss_and_gradient(params)[0]

    at_truth = loss(ROTATION_DEG, C10_A)
    for rotation, defocus in ((-1, 1), (1, -1), (-1, -1)):
        assert loss(rotation * ROTATION_DEG, defocus * C10_A) > 100 * at_truth


# ---- the run -----------------------------------------------------------------------------------


class Edit(Callback):
    """Changes the saved parameters after one epoch, as a user at another terminal would."""

    def __init__(self, folder, after, **changes):
        self._folder, self._after, self._changes = folder, after, changes
        self.active = []

    def epoch(self, state):
        self.active.append(state.active)
        if state.epoch == self._after:
            params = pypty.load_params(self._folder) | self._changes
            pypty.save_params(self._folder, params)


def test_saved_parameters_can_be_edited_during_the_run(calibrated, tmp_path):
    edit = Edit(tmp_path / "results", 1, update_probe=False, loss_weight=3.0)
    result = pypty.run(calibrated(), [edit])
    assert edit.active == [("object", "probe")] * 2 + [("object",)] * 2
    losses = [record.loss for record in result.losses]
    assert losses[2] == pytest.approx(3 * result.losses[1].loss_after, rel=1e-5)


def test_a_broken_edit_is_ignored_with_a_warning(calibrated, tmp_path, caplog):
    edit = Edit(tmp_path / "results", 1, update_probe="lambda x: open('executed', 'w')")
    with caplog.at_level(logging.WARNING, logger="pyptyx"):
        result = pypty.run(calibrated(), [edit])
    assert len(result.losses) == 4
    assert edit.active == [("object", "probe")] * 4
    assert "update_probe" in caplog.text
    assert not (tmp_path / "executed").exists()


def test_numbered_checkpoints(calibrated, tmp_path):
    states = {}

    class Keep(Callback):
        def epoch(self, state):
            states[state.epoch] = np.array(state.problem.x["object"])

    pypty.run(calibrated(epoch_max=5, save_checkpoints_every_epoch=2), [Keep()])
    folder = tmp_path / "results"
    for what in ("obj", "probe"):
        found = {path.name for path in folder.glob(f"checkpoint_{what}_epoch_*.npy")}
        assert found == {f"checkpoint_{what}_epoch_{epoch}.npy" for epoch in (0, 2, 4)}
    saved = np.load(folder / "checkpoint_obj_epoch_2.npy")
    np.testing.assert_array_equal(saved, states[2].transpose(2, 3, 1, 0))
    assert not np.array_equal(saved, np.load(folder / "co.npy"))


def test_runs_side_by_side_do_not_touch_each_other(calibrated):
    settings = [
        {"output_folder": None, "epoch_max": 3},
        {"output_folder": None, "epoch_max": 3, "algorithm": "lsq"},
    ]
    alone = [pypty.run(calibrated(**s)) for s in settings]
    with build(calibrated(**settings[0])) as first, build(calibrated(**settings[1])) as second:
        together = list(zip(iterate(first), iterate(second), strict=True))
    for run, result in enumerate(alone):
        losses = [states[run].record.loss_after for states in together]
        assert losses == [record.loss_after for record in result.losses]
    assert alone[0].final_loss != alone[1].final_loss


@pytest.mark.parametrize("level", range(5))
def test_nothing_is_printed_to_the_output(level, calibrated, capsys):
    pypty.run(calibrated(output_folder=None, epoch_max=2, print_flag=level))
    printed = capsys.readouterr()
    assert printed.out == ""
    assert bool(printed.err) == (level > 0)
    # Level 1 is a progress bar; without a terminal, as here, a few plain lines.
    assert ("epoch 1: loss" in printed.err) == (level > 0)
    assert ("slope" in printed.err) == (level > 2)
    assert ("data: 100" in printed.err) == (level > 3)


def test_no_epoch_saves_the_start(calibrated, tmp_path):
    params = calibrated(epoch_max=0)
    result = pypty.run(params)
    assert result.losses == []
    np.testing.assert_array_equal(np.load(tmp_path / "results" / "cp.npy"), result.probe)
    assert read_log(tmp_path / "results") == []


def test_no_folder_writes_nothing(calibrated, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = calibrated({"output_folder": None})
    result = pypty.run(params)
    assert result.folder is None
    assert len(result.losses) == 4
    assert list(tmp_path.iterdir()) == []


def test_data_that_do_not_fit_in_memory_are_streamed(calibrated, patterns, tmp_path, monkeypatch):
    np.save(tmp_path / "raw.npy", patterns)
    source = {"data_path": tmp_path / "raw.npy", "dataset": None, "output_folder": None}
    params = calibrated(source, compute_batch=5)
    resident = pypty.run(params)
    asked = []
    monkeypatch.setattr(feeding, "fits_in_memory", lambda *_: asked.append(1))
    streamed = pypty.run(params)
    assert asked
    np.testing.assert_array_equal(streamed.object, resident.object)
    assert [r.loss for r in streamed.losses] == [r.loss for r in resident.losses]
