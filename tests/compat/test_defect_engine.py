"""Defects of PyPty's engine that no other test would notice; see docs/explanation/defects.md."""

import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

import pyptyx as pypty
from pyptyx.engine import batching
from pyptyx.engine.objective import Objective
from pyptyx.engine.setup import build
from pyptyx.errors import DeviceError
from pyptyx.params import evaluate

SCAN, WINDOW, NZ = (2, 3), (12, 14), 3
N = SCAN[0] * SCAN[1]
POSITIONS = 2.3 * np.stack(np.mgrid[: SCAN[0], : SCAN[1]], -1).reshape(-1, 2)
OBJECT_SHAPE = (15, 19)
COMPLEX_PROBE = np.fft.fftshift(
    np.fft.ifft2(40.0 * (np.hypot(*np.meshgrid(*map(np.fft.fftfreq, WINDOW), indexing="ij")) < 0.2))
)[..., None]


def specimen(slices=1):
    rng = np.random.default_rng(4)
    return np.exp(0.3j * rng.random((*OBJECT_SHAPE, slices, 1)))


def model(**changes):
    """Everything but the data."""
    return {
        "acc_voltage": 60,
        "pixel_size_y_A": 0.3,
        "pixel_size_x_A": 0.4,
        "positions": POSITIONS,
        "obj": specimen(),
        "probe": COMPLEX_PROBE,
        "skip_preprocessing": True,
        "default_dtype": "double",
        "backend": "cpu",
        "executor": "serial",
        "output_folder": None,
        "print_flag": 0,
    } | changes


def problem(shape=WINDOW, **changes):
    """A model with data of its magnitude that it does not fit."""
    rng = np.random.default_rng(5)
    n = changes.pop("measurements", N)
    params = model(**changes)
    mean = (np.abs(COMPLEX_PROBE) ** 2).sum()
    return {"dataset": mean * rng.exponential(1.0, (n, *shape))} | params


def assert_same_loss_and_gradients(first, second):
    (loss, sse, gradients), (loss_2, sse_2, gradients_2) = map(
        pypty.loss_and_gradient, (first, second)
    )
    assert loss == pytest.approx(loss_2, rel=1e-12)
    assert sse == pytest.approx(sse_2, rel=1e-12)
    assert gradients.keys() == gradients_2.keys()
    for key, gradient in gradients.items():
        scale = np.abs(gradient).max()
        np.testing.assert_allclose(gradients_2[key], gradient, atol=1e-11 * scale, err_msg=key)


# ---- the forward model -------------------------------------------------------------------------

BATCHES = {
    "whole pixels": {"allow_subPixel_shift": False},
    "currents": {"beam_current": np.linspace(-1, 2, N), "update_beam_current": True},
    "one position": {"positions": [[1.0, 2.0]]},
    "one inside tilt": {
        "tilts": [[0, 0, 2e-3, -1e-3, 0, 0]],
        "update_tilts": True,
        "obj": specimen(NZ),
        "slice_distances": [9.0],
    },
    "several defoci": {
        "recon_type": "near_field",
        "defocus_array": np.linspace(100, 900, N),
    },
}


@pytest.mark.parametrize("case", BATCHES)
def test_a_batch_of_one_changes_nothing(case):
    params = problem(**BATCHES[case])
    assert_same_loss_and_gradients(params | {"compute_batch": 1}, params | {"compute_batch": N})


def test_aberrations_act_although_positions_are_fractions():
    marker = {"aberration_marker": np.arange(N) % 2, "update_probe_pos": True}
    without, with_them = (
        pypty.simulate(model(aberrations_array=a * np.array([[0, 9.0], [30.0, 0]]), **marker))
        for a in (0, 1)
    )
    assert np.abs(with_them - without).max() > 0.01 * without.max()


BACKGROUNDS = {
    "upsampled": ({"upsample_pattern": 2}, (6, 7), (6, 7)),
    "padded": ({"data_pad": 2}, (8, 10), WINDOW),
    "cropped": ({"data_pad": 2, "use_padded_intensity": False}, (8, 10), (8, 10)),
    "near field": ({"recon_type": "near_field", "defocus_array": [300.0]}, WINDOW, WINDOW),
}


@pytest.mark.parametrize("case", BACKGROUNDS)
def test_a_background_fits_every_detector(case):
    changes, shape, grid = BACKGROUNDS[case]
    y, x = np.indices(grid)
    changes = changes | {"static_background": 3.0 + y + 0.1 * x}
    plain = pypty.simulate(model(**changes | {"static_background": None}))
    np.testing.assert_allclose(
        (pypty.simulate(model(**changes)) - plain)[:, grid[0] // 2, grid[1] // 2],
        changes["static_background"][grid[0] // 2, grid[1] // 2] ** 2,
        rtol=1e-6,
    )
    params = problem(shape, **changes, update_static_background=True)
    gradient = pypty.loss_and_gradient(params)[2]["static_background"]
    assert gradient.shape == grid
    assert np.abs(gradient).max() > 0


def test_whole_numbers_can_be_binned_and_multiplied():
    rng = np.random.default_rng(6)
    counts = rng.integers(0, 255, (N, 2 * WINDOW[0], 2 * WINDOW[1]), np.uint8)
    binned = counts.astype(float).reshape(N, WINDOW[0], 2, WINDOW[1], 2).sum((2, 4))
    prepared = problem(dataset=counts, data_bin=2, data_multiplier=0.5)
    assert_same_loss_and_gradients(prepared, problem(dataset=0.5 * binned))


def test_a_common_inside_tilt_is_found():
    """PyPty keeps the propagator of the first epoch."""
    thick = {"obj": specimen(NZ), "slice_distances": [40.0], "tilt_mode": 0}
    true = np.array([[0, 0, 4e-3, -3e-3, 0, 0]])
    params = problem(
        **thick,
        dataset=pypty.simulate(model(**thick, tilts=true)),
        update_tilts=True,
        update_obj=False,
        update_probe=False,
        epoch_max=15,
    )
    result = pypty.run(params)
    np.testing.assert_allclose(result.tilts[0, 2:4], true[0, 2:4], atol=1e-6)


@pytest.mark.parametrize(("mode", "columns"), [(0, (2, 3)), (1, (4, 5)), (2, (0, 1))])
@pytest.mark.parametrize("distances", [[25.0], [25.0, 31.0]])
def test_tilts_of_another_place_do_nothing(mode, columns, distances):
    tilts = np.full((N, 6), 3e-3)
    only = np.zeros((N, 6))
    only[:, columns] = 3e-3
    thick = {"obj": specimen(NZ), "slice_distances": distances, "tilt_mode": mode}
    every, some, none = (
        pypty.simulate(model(**thick, tilts=t)) for t in (tilts, only, np.zeros((N, 6)))
    )
    np.testing.assert_allclose(every, some, rtol=1e-12)
    assert np.abs(some - none).max() > 1e-3 * none.max()


@pytest.mark.parametrize("edge", [0.0, 4.0, 26.3])
def test_the_first_slice_may_have_any_thickness(edge):
    thick = {"obj": specimen(NZ)}
    by_edge = pypty.simulate(model(**thick, slice_distances=[10.0], edge_slice_thickness=edge))
    by_list = pypty.simulate(model(**thick, slice_distances=[edge, 10.0]))
    np.testing.assert_allclose(by_edge, by_list, rtol=1e-12)


def test_one_phase_plate_serves_all(tmp_path):
    rng = np.random.default_rng(7)
    plate = np.exp(1j * rng.normal(size=(1, *WINDOW)))
    for name, plates in (("one", plate), ("each", np.repeat(plate, N, axis=0))):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["configs"] = plates
    one, each, none = (
        pypty.simulate(model(**({"phase_plate_in_h5": tmp_path / f"{name}.h5"} if name else {})))
        for name in ("one", "each", "")
    )
    np.testing.assert_allclose(one, each, rtol=1e-12)
    assert np.abs(one - none).max() > 0.01 * none.max()


def test_hermite_modes_for_several_probes():
    params = problem(n_hermite_probe_modes=(0, 1), probe_marker=np.arange(N) % 2)
    result = pypty.run(params | {"epoch_max": 2, "skip_preprocessing": False})
    assert result.probe.shape == (*WINDOW, 2, 2)
    assert result.final_loss < result.losses[0].loss


def test_a_soft_band_limit_does_not_wear_the_object_away():
    params = problem(smooth_rolloff=0.6, damping_cutoff_multislice=0.5)
    with build(params) as task:
        values = evaluate(task.params, 0)
        once, _ = Objective(task, values, 0).enter(task.x)
        task.x = once
        again, _ = Objective(task, values, 1).enter(once)
    for name in ("object", "probe"):
        np.testing.assert_allclose(again[name], once[name], rtol=0, atol=1e-12)


def test_a_field_of_more_than_32767_pixels():
    """PyPty's 16-bit positions end there."""
    far = np.array([[0.0, 1.0], [0.3, 40_000.4]])
    params = model(positions=far, obj=None, default_dtype="single")
    near, distant = pypty.simulate(params)
    np.testing.assert_allclose(distant, near, atol=1e-4 * near.max())


# ---- the run -----------------------------------------------------------------------------------


def test_a_run_with_a_frozen_object():
    result = pypty.run(problem(update_obj=False, epoch_max=4))
    assert len(result.losses) == 4
    np.testing.assert_allclose(result.object, specimen(), atol=1e-12)
    assert result.final_loss < result.losses[0].loss


def test_perfect_positions_stay():
    """PyPty scales the first step by the slopes, and that of perfect positions is zero."""
    data = pypty.simulate(model(probe=1.1 * COMPLEX_PROBE))
    params = problem(dataset=data, update_probe_pos=True, update_obj=False, epoch_max=6)
    result = pypty.run(params)
    assert all(record.step > 0 for record in result.losses)
    assert result.final_loss < 1e-3 * result.losses[0].loss
    np.testing.assert_allclose(result.positions, POSITIONS, atol=0.02)


def test_data_of_four_axes_go_straight_into_a_run():
    params = problem(epoch_max=2)
    stacked = params | {"dataset": params["dataset"].reshape(*SCAN, *WINDOW)}
    assert pypty.run(stacked).final_loss == pypty.run(params).final_loss


@pytest.mark.parametrize("folder", ["results", "results/", "my results/$(touch o); ls"])
def test_everything_lies_in_the_folder(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pypty.run(problem(output_folder=folder, epoch_max=1))
    inside = {path.name for path in (tmp_path / folder).iterdir()}
    assert {"loss.csv", "co.npy", "params.pkl"} <= inside
    assert [path.name for path in tmp_path.iterdir()] == [folder.split("/")[0]]
    header = (tmp_path / folder / "loss.csv").read_text().splitlines()[0]
    assert header.startswith("epoch,time / s,loss,sse")


def test_every_variable_is_saved(tmp_path):
    params = problem(
        output_folder=tmp_path,
        epoch_max=1,
        save_checkpoints_every_epoch=1,
        tilts=np.full((N, 6), 1e-4),
        static_background=np.ones(WINDOW),
        beam_current=np.ones(N),
        aberration_marker=np.arange(N) % 2,
        aberrations_array=np.ones((2, 3)),
        **{f"update_{name}": True for name in ("tilts", "probe_pos", "static_background",
           "beam_current", "aberrations_array")},
    )  # fmt: skip
    result = pypty.run(params)
    for current, numbered, array in (
        ("co", "obj_epoch", result.object),
        ("cp", "probe_epoch", result.probe),
        ("cg", "positions_epoch", result.positions),
        ("ct", "tilts_epoch", result.tilts),
        ("cs", "stback_epoch", result.static_background),
        ("cb", "beam_current_epoch", result.beam_current),
        ("ca", "aberrations_epcoh", result.aberrations_array),
    ):
        for name in (current, f"checkpoint_{numbered}_0"):
            np.testing.assert_array_equal(np.load(tmp_path / f"{name}.npy"), array, strict=True)


def test_a_simulation_gives_back_what_the_loss_is_made_of(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    patterns = pypty.simulate(model())
    np.testing.assert_array_equal(pypty.simulate(model(sequence=[1, 4])), patterns[[1, 4]])
    assert list(tmp_path.iterdir()) == []
    assert pypty.loss_and_gradient(problem(dataset=patterns))[0] < 1e-15 * patterns.sum()


def test_saved_paths_do_not_depend_on_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    params = problem(epoch_max=2)
    np.save(tmp_path / "here" / "data.npy", params.pop("dataset"))
    monkeypatch.chdir(tmp_path / "here")
    first = pypty.run(params | {"data_path": "data.npy", "output_folder": "out"})
    monkeypatch.chdir(tmp_path / "there")
    saved = pypty.load_params(tmp_path / "here" / "out")
    assert pypty.run(saved | {"output_folder": None}).final_loss == first.final_loss


# ---- the house ---------------------------------------------------------------------------------


def test_importing_leaves_numpy_alone():
    code = (
        "import numpy as np; before = {*dir(np)}\n"
        "import pyptyx, pyptyx.iterative, pyptyx.initialize, pyptyx.utils\n"
        "added = {*dir(np)} - before\n"
        "assert not added & {'fftback', 'ndi', 'cuda', 'get_default_memory_pool',"
        " 'get_default_pinned_memory_pool'}, added\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ})


SIZES = batching.Sizes(window=(64, 80), modes=3, slices=5, object_modes=2, itemsize=8)


@pytest.mark.parametrize("on_gpu", [False, True])
def test_a_batch_is_never_empty_and_fits(on_gpu):
    for free in (2**24, 2**27, 2**30, 2**36):
        size = batching.choose(SIZES, free, on_gpu)
        assert 1 <= size <= max(1, free // SIZES.pattern_bytes)
    with pytest.raises(DeviceError, match="memory"):
        batching.choose(SIZES, 1000, on_gpu)
