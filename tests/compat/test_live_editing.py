"""`change_params` on a job that is running: at the next epoch, for every key that may change."""

import threading
from contextlib import contextmanager

import numpy as np
import pytest

import pyptyx as pypty
from pyptyx.engine.callbacks import Callback
from pyptyx.engine.live import LiveEdit
from pyptyx.engine.setup import build
from pyptyx.params import change_params, load_params, save_params
from pyptyx.params.schema import RUN

SCAN, WINDOW = (3, 4), (10, 12)
N = SCAN[0] * SCAN[1]
FILES = ["", "params.json", "params.pkl"]
RNG = np.random.default_rng(2)
POSITIONS = 1.9 * np.stack(np.mgrid[: SCAN[0], : SCAN[1]], -1).reshape(-1, 2)


def probe():
    qy, qx = (np.fft.fftfreq(n) for n in WINDOW)
    aperture = np.hypot(qy[:, None], qx) < 0.25
    return np.fft.fftshift(np.fft.ifft2(30.0 * aperture))[..., None]


@pytest.fixture(scope="module")
def patterns():
    truth = np.exp(0.4j * RNG.random((15, 19, 2, 1)))
    model = {"acc_voltage": 80, "positions": POSITIONS, "obj": truth, "probe": probe()}
    return pypty.simulate(model)


@pytest.fixture
def params(patterns, tmp_path):
    """A run whose model holds every variable."""
    return {
        "output_folder": tmp_path / "run",
        "acc_voltage": 80,
        "scan_size": SCAN,
        "dataset": patterns,
        "positions": POSITIONS,
        "obj": np.ones((1, 1, 2, 1)),
        "probe": probe(),
        "tilts": np.full((N, 6), 1e-3),
        "tilt_mode": 4,
        "static_background": 0.5,
        "beam_current": np.ones(N),
        "aberration_marker": np.arange(N) % 2,
        "aberrations_array": np.ones((2, 3)),
        "aperture_mask": np.ones(WINDOW),
        "window": np.ones(WINDOW),
        "beta_wedge": 0.3,
        "epoch_max": 6,
        "print_flag": 0,
        "backend": "cpu",
        "devices": 1,
    }


class Turnstile(Callback):
    """Stops the run after every epoch until it is let through, and notes what was refined."""

    def __init__(self):
        self.arrived, self.pass_on = threading.Semaphore(0), threading.Semaphore(0)
        self.active, self.losses = [], []

    def epoch(self, state):
        self.active.append(state.active)
        self.losses.append((state.record.loss, state.record.loss_after))
        self.arrived.release()
        assert self.pass_on.acquire(timeout=60)


@contextmanager
def running(params):
    """A run in the background; the context begins after its first epoch."""
    turnstile, errors = Turnstile(), []

    def work():
        try:
            pypty.run(params, [turnstile])
        except BaseException as error:
            errors.append(error)
            turnstile.arrived.release()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert turnstile.arrived.acquire(timeout=60)
        yield turnstile
    finally:
        turnstile.pass_on.release(params["epoch_max"])
        thread.join(60)
    assert not thread.is_alive()
    assert not errors, errors


def step(turnstile):
    """One more epoch."""
    turnstile.pass_on.release()
    assert turnstile.arrived.acquire(timeout=60)


@pytest.mark.parametrize("file", FILES)
def test_a_change_takes_effect_at_the_next_epoch(params, file):
    folder = params["output_folder"]
    with running(params) as job:
        change_params(folder / file, ["update_probe", "loss_weight"], [False, 3.0])
        step(job)
        change_params(folder / file, "update_obj", "lambda epoch: epoch >= 3")
        change_params(folder / file, "update_probe", True)
        step(job)
        step(job)
    assert job.active[:4] == [("object", "probe"), ("object",), ("probe",), ("object", "probe")]
    assert job.losses[1][0] == pytest.approx(3 * job.losses[0][1], rel=1e-5)
    assert len(job.active) == params["epoch_max"]


def test_a_schedule_can_be_replaced_and_restored(params):
    limit = 0
    params["update_probe"] = lambda epoch: epoch > limit  # a closure, saved as a table
    folder = params["output_folder"]
    with running(params) as job:
        saved = load_params(folder)["update_probe"]
        change_params(folder, "update_probe", False)
        step(job)
        change_params(folder, "update_probe", saved)
        step(job)
    assert job.active[:3] == [("object",), ("object",), ("object", "probe")]


def test_a_file_that_is_half_written_counts_when_it_is_whole(params, caplog):
    folder = params["output_folder"]
    with running(params) as job:
        saved = {p: p.read_bytes() for p in folder.glob("params.*")}
        change_params(folder, "update_probe", False)
        new = {p: p.read_bytes() for p in saved}
        for path, content in new.items():
            path.write_bytes(content[: len(content) // 2])
        step(job)
        assert "params.json is ignored" in caplog.text
        assert "params.pkl is ignored" in caplog.text
        for path, content in new.items():
            path.write_bytes(content)
        step(job)
    assert job.active[:3] == [("object", "probe"), ("object", "probe"), ("object",)]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("loss_weight", -1.0),
        ("loss_weight", "lambda x: 3 - x"),
        ("update_probe", "lambda x: open('executed', 'w')"),
        ("sequence", [N]),
        ("sequence", []),
    ],
)
def test_wrong_values_are_ignored_and_the_run_goes_on(params, key, value, caplog):
    folder = params["output_folder"]
    with running(params) as job:
        edited = load_params(folder) | {key: value, "update_obj": False}
        save_params(folder, edited)
        step(job)
        assert key in caplog.text
    assert job.active == [("object", "probe")] * params["epoch_max"]


def test_a_variable_that_is_not_in_the_model_cannot_be_switched_on(params, caplog):
    tables = "tilts", "beam_current", "aberration_marker", "aberrations_array"
    for key in (*tables, "static_background"):
        del params[key]
    params["allow_subPixel_shift"] = False
    folder = params["output_folder"]
    keys = ("update_tilts", "update_beam_current", "update_static_background",
            "update_aberrations_array", "update_probe_pos")  # fmt: skip
    with running(params) as job:
        change_params(folder, keys, [True] * len(keys))
        step(job)
        assert all(key in caplog.text for key in keys)
    assert set(job.active) == {("object", "probe")}


def test_a_variable_whose_schedule_begins_later_is_in_the_model(params):
    del params["tilts"], params["beam_current"]
    params |= {key: "lambda epoch: epoch > 9" for key in ("update_tilts", "update_beam_current")}
    with running(params) as job:
        change_params(params["output_folder"], ["update_tilts", "update_beam_current"], [1, 1])
        step(job)
    assert job.active[1] == ("object", "probe", "tilts", "current")


# A value for each key that differs from its default.
OTHER = {
    "sequence": [5, 1, 7],
    "loss_weight": "mean",
    "hist_length": 3,
    "wolfe_c1_constant": 0.2,
    "wolfe_c2_constant": 0.7,
    "data_simulation_flag": "predicted.npy",
}


def other_value(row):
    if row.name in OTHER:
        return OTHER[row.name]
    if isinstance(row.default, bool):
        return not row.default
    if isinstance(row.default, float | int):
        return row.default / 2 if row.default else 1
    pytest.fail(f"give a value of {row.name} in OTHER")


@pytest.fixture
def watched(params, tmp_path):
    """A live edit on the folder of a run that has just started, and its parameters."""
    folder = tmp_path / "run"
    with build(params) as problem:
        save_params(folder, problem.params)
        live = LiveEdit(folder)
        live.start(problem)
        yield live, folder, problem.params


SCHEDULABLE = [row for row in RUN.values() if row.schedulable]


def test_every_key_that_may_change_can_be_changed(watched):
    live, folder, _start = watched
    assert live() == {}
    for row in SCHEDULABLE:
        if row.name == "propmethod":
            continue  # it has one choice, and a schedule of text is outside the grammar
        value = other_value(row)
        original = load_params(folder)[row.name]
        change_params(folder, row.name, value)
        expected = {row.name: row.convert(value)}
        found = live()
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[k], expected[k]) for k in expected), row.name
        change_params(folder, row.name, original)
        assert live() == {}, row.name
