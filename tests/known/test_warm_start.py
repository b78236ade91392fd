"""The warm start: what it gains, what it leaves alone, and that it can be repeated."""

import numpy as np
import pytest

import pyptyx
from pyptyx.engine import batching
from pyptyx.engine.loop import iterate
from pyptyx.engine.setup import build
from pyptyx.engine.warm_start import _Gradients, mini_batches, planned_sweeps, warm_start
from pyptyx.executors.communicator import Communicator
from pyptyx.params import evaluate
from tests.known.restart_scene import equal, outcome

SCAN, WINDOW = (8, 9), (20, 24)


def scene(slices=1, modes=1, near_field=False, height=4.0, **changes):
    """A simulated experiment and parameters that start from a flat object and a wrong probe."""
    rng = np.random.default_rng(1)
    positions = 2.3 * np.stack(np.mgrid[: SCAN[0], : SCAN[1]], axis=-1).reshape(-1, 2)
    phase = rng.normal(size=(20 + 20, 24 + 22, slices, 1))
    for axis in (0, 1):
        phase = phase + np.roll(phase, 1, axis) + np.roll(phase, 2, axis)
    y, x = np.mgrid[: WINDOW[0], : WINDOW[1]] - np.array(WINDOW)[:, None, None] // 2
    bell = np.exp(-(y**2 + x**2) / 24 + 0.05j * (y**2 + x**2))
    probe = height * np.stack([bell * (x / 4) ** m for m in range(modes)], axis=-1)
    common = {
        "positions": positions,
        "wavelength_A": 0.04,
        "pixel_size_x_A": 0.5,
        "pixel_size_y_A": 0.45,
        "slice_distances": np.array([15.0]),
        "skip_preprocessing": True,
        "default_dtype": "double",
        "devices": 1,
        "backend": "cpu",
    }
    if near_field:
        common |= {"recon_type": "near_field", "defocus_array": np.array([900.0])}
    truth = {"obj": np.exp(0.04j * phase), "probe": probe}
    data = rng.poisson(pyptyx.simulate(common | truth))
    ramp = np.exp(0.006j * (y**2 + 0.7 * x**2))[..., None]
    start = {"probe": probe * ramp, "num_slices": slices, "dataset": data, "scan_size": SCAN}
    return common | start | {"output_folder": None, "print_flag": 0, **changes}


def records(params, passes):
    """Records of the epochs that a number of passes over the data, or one more, are enough for."""
    out = []
    with build(params, need=("data",)) as problem:
        for state in iterate(problem):
            out.append(state.record)
            if 1 + sum(r.evaluations + r.sweeps for r in out) >= passes:
                return out
    raise AssertionError


@pytest.mark.parametrize(
    ("kind", "passes"),
    [
        ({}, 6),
        ({"slices": 3}, 6),
        ({"modes": 2}, 6),
        # A weak object in a parallel beam is nearly a linear problem, which L-BFGS solves as fast.
        ({"near_field": True}, 14),
        ({"algorithm": "ml"}, 6),
        ({"algorithm": "ml_shifted"}, 6),
    ],
    ids=["plain", "multislice", "modes", "near field", "poisson", "shifted poisson"],
)
def test_it_saves_passes_over_the_data(kind, passes):
    params = scene(**kind)
    warm = records(params, passes)
    cold = records(params | {"warm_start_epochs": 0}, passes)
    assert warm[-1].loss_after < cold[-1].loss_after
    assert (warm[0].sweeps, cold[0].sweeps) == (3, 0)
    assert "warm start: 3 sweeps of 12 mini-batches" in warm[0].warnings


def test_the_seed_decides():
    params = scene(epoch_max=1, warm_start_epochs=1)
    one, again = (outcome(pyptyx.run(params)) for _ in range(2))
    assert equal(one, again)
    assert not equal(one, outcome(pyptyx.run(params | {"seed": 5})))


@pytest.mark.parametrize("epochs", [0, 1, 3])
def test_a_run_that_was_stopped_goes_on_bit_by_bit(epochs, tmp_path):
    params = scene(epoch_max=4, warm_start_epochs=2, strip_dataset_from_params=False)
    whole = pyptyx.run(params)
    pyptyx.run(params | {"epoch_max": epochs, "output_folder": tmp_path})
    rest = pyptyx.prepare_restart(tmp_path) | {"epoch_max": 4}
    assert equal(outcome(whole), outcome(pyptyx.run(rest)))


def swept(params, sweeps=2):
    """Variables before and after the sweeps of the first epoch."""
    with build(params, need=("data",)) as problem:
        values = evaluate(problem.params, 0)
        x, message = warm_start(problem, values, 0, sweeps)
        return problem.x, x, message


@pytest.mark.parametrize(
    ("height", "algorithm", "residuals"),
    [
        (0.05, "ml", "ml_shifted per measurement"),
        (0.05, "ml_shifted", "ml_shifted per measurement"),
        (0.05, "lsq_sqrt", "lsq_sqrt per measurement"),
        (0.2, "ml", "lsq_sqrt per measurement"),
        (4.0, "ml_shifted", "lsq_sqrt per measurement"),
        (4.0, "lsq", "lsq_sqrt per measurement"),
    ],
)
def test_few_counts_need_care(height, algorithm, residuals):
    """The probe has 64 pixels' worth of light: 0.2, 3 and 1000 counts per pixel."""
    _, _, message = swept(scene(height=height, algorithm=algorithm), 1)
    assert residuals in message


def test_only_object_and_probe_move():
    before, after, _ = swept(scene(update_probe_pos=1, beam_current=np.ones(72)))
    assert before.keys() == after.keys()
    same = {k for k in before if np.array_equal(before[k], after[k])}
    assert same == before.keys() - {"object", "probe"}


@pytest.mark.parametrize("alone", [False, True])
def test_the_probe_waits_for_the_object_in_the_first_sweep(alone):
    for sweeps in (1, 2):
        before, after, _ = swept(scene(update_obj=not alone), sweeps)
        change = np.abs(after["probe"] - before["probe"]).max() / np.abs(before["probe"]).max()
        # The band limit takes half a per cent of it.
        assert (change > 0.01) == (alone or sweeps == 2)


def test_what_is_held_stays_and_a_fixed_modulus_too():
    held = {"update_probe": 0, "phase_only_obj": True, "warm_start_batch": 6}
    before, after, _ = swept(scene(**held))
    assert np.array_equal(before["probe"], after["probe"])
    np.testing.assert_allclose(np.abs(after["object"]), 1, rtol=1e-12)
    assert np.angle(after["object"]).std() > 0.01


def test_the_corrected_gradient_is_that_of_all_measurements_where_nothing_moves():
    rng = np.random.default_rng(3)
    found = [{"object": rng.normal(size=(2, 3, 4, 5))} for _ in range(6)]
    known = _Gradients(Communicator())
    for place, g in enumerate(found):
        assert known(place, g) is g
    groups = known.correct([np.array([b]) for b in range(6)], rng)
    mean = sum(g["object"] for g in found) / 6
    for place, (b,) in enumerate(groups):
        np.testing.assert_allclose(known(place, found[b])["object"], mean, rtol=1e-12, atol=1e-12)
    known = _Gradients(Communicator())
    for place, g in enumerate(found):
        known(place, g)
    (b, *_), (c, *_) = known.correct([np.array([b]) for b in range(6)], np.random.default_rng(0))[
        :2
    ]
    moved = {"object": found[b]["object"] + 6.0}
    np.testing.assert_allclose(known(0, moved)["object"], mean + 6.0)
    np.testing.assert_allclose(known(1, found[c])["object"], mean + 1.0)


def test_many_mini_batches_are_not_remembered(monkeypatch):
    """24 gradients are more than the 20 arrays of ten pairs."""
    corrected = []
    monkeypatch.setattr(
        _Gradients, "correct", lambda self, groups, rng: corrected.append(1) or groups
    )
    swept(scene(warm_start_batch=3))
    assert not corrected
    swept(scene(warm_start_batch=4, hist_length=9))
    assert corrected


@pytest.mark.parametrize("growth", [6.0, 1e9])
@pytest.mark.parametrize(("step", "pairs"), [("_SHRINK", 5), ("_LAST", 10)])
def test_sweeps_that_do_not_help_are_taken_back(growth, step, pairs, monkeypatch):
    """Steps far too long, and so long that the loss is no number any more."""
    monkeypatch.setattr(f"pyptyx.engine.warm_start.{step}", growth)
    with np.errstate(all="ignore"):
        before, after, message = swept(scene(default_dtype="single", hist_length=pairs))
    assert after is before
    assert message.endswith("start values kept")


@pytest.mark.parametrize(
    ("changes", "sweeps"),
    [
        ({}, 3),
        ({"warm_start_epochs": 5}, 5),
        ({"sequence": np.arange(47)}, 0),
        ({"sequence": np.arange(47), "warm_start_epochs": 2}, 2),
        ({"warm_start_epochs": 0}, 0),
        ({"optimizer": "pypty"}, 0),
        ({"obj": np.exp(0.1j * np.mgrid[:40, :46][1])[..., None, None]}, 0),
        ({"update_obj": 0, "update_probe": 0, "update_probe_pos": 1}, 0),
    ],
)
def test_when_it_is_done(changes, sweeps):
    with build(scene(**changes), need=("data",)) as problem:
        assert planned_sweeps(problem, evaluate(problem.params, 0), 0) == sweeps
        assert planned_sweeps(problem, evaluate(problem.params, 1), 1) == 0


def test_the_size_of_a_mini_batch():
    _, _, message = swept(scene(warm_start_batch=10))
    assert "of 8 mini-batches" in message


@pytest.mark.parametrize("count", [1, 5, 7, 500])
def test_mini_batches_are_spread_over_the_scan(count):
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 200, (150, 2))
    place = batching.curve(corners)
    sequence = np.arange(3, 150, 2)
    groups = mini_batches(sequence, place, count, rng)
    assert len(groups) == min(count, len(sequence))
    assert np.array_equal(np.sort(np.concatenate(groups)), sequence)
    sizes = [len(group) for group in groups]
    assert max(sizes) - min(sizes) <= 1
    order = sequence[np.argsort(place[sequence], kind="stable")]
    rank = {int(t): r for r, t in enumerate(order)}
    for group in groups:
        assert np.array_equal(group, np.sort(group))
        cells = [rank[int(t)] // len(groups) for t in group]
        assert len(set(cells)) == len(cells), "at most one of each cell"


def test_mini_batches_are_drawn_at_random():
    place, sequence = np.arange(60), np.arange(60)
    rng = np.random.default_rng(0)
    first, second = (mini_batches(sequence, place, 6, rng) for _ in range(2))
    assert any(not np.array_equal(a, b) for a, b in zip(first, second, strict=True))
