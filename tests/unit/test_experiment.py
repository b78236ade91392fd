"""`append_exp_params`, metadata, object guess, and `describe`."""

import json
import logging
import math

import h5py
import numpy as np
import pytest

import pyptyx
import pyptyx.initialize as face
from pyptyx.engine.calibration import slice_thickness_A
from pyptyx.engine.describe import describe
from pyptyx.engine.direct_data import _bin_edge, scan_optics
from pyptyx.engine.geometry import scan_positions_A
from pyptyx.engine.metadata import read_metadata
from pyptyx.errors import DataError, ParamError, ShapeError

SCAN, DETECTOR = (3, 5), (12, 8)


def disc(shape, radius):
    y, x = (np.arange(n) - n // 2 for n in shape)
    return (np.hypot(y[:, None], x) <= radius).astype(float)


@pytest.fixture
def data():
    """15 patterns 12 x 8: a disc with a little of everything outside."""
    rng = np.random.default_rng(0)
    pattern = 100 * disc(DETECTOR, 2.5) + 1
    return rng.poisson(pattern, size=(15, *DETECTOR)).astype(np.float32)


@pytest.fixture
def exp(data):
    return {
        "dataset": data,
        "output_folder": None,
        "acc_voltage": 60,
        "rez_pixel_size_A": 0.08,
        "scan_size": SCAN,
        "scan_step_A": 0.7,
        "PLRotation_deg": 20,
    }


# ---- sampling ---------------------------------------------------------------------------------


def test_pixel_sizes_and_positions_per_axis(exp):
    """PIT-21 of PyPty: equal pixel sizes for patterns that are not square."""
    params = face.append_exp_params(exp)
    assert params["data_pad"] == 3
    assert params["aperture_mask"].shape == (18, 14)
    assert params["aperture_mask"].dtype == bool
    np.testing.assert_array_equal(params["aperture_mask"][3:-3, 3:-3], disc(DETECTOR, 2.5) > 0)
    assert params["pixel_size_y_A"] == pytest.approx(1 / (0.08 * 18))
    assert params["pixel_size_x_A"] == pytest.approx(1 / (0.08 * 14))
    in_A = params["positions"] * [params["pixel_size_y_A"], params["pixel_size_x_A"]]
    np.testing.assert_allclose(in_A, scan_positions_A(SCAN, 0.7, 20.0), atol=1e-12)


def test_default_padding():
    """Acceptance (e): W 32, rez 0.08 → 8 px, 0.26042 Å."""
    data = np.broadcast_to(disc((32, 32), 5), (6, 32, 32)) * 10
    exp = {"dataset": data, "output_folder": None, "acc_voltage": 60, "scan_size": (2, 3)}
    exp |= {"rez_pixel_size_A": 0.08, "scan_step_A": 1.0, "PLRotation_deg": 0}
    params = face.append_exp_params(exp)
    assert params["data_pad"] == 8
    assert params["pixel_size_x_A"] == pytest.approx(0.26042, abs=1e-5)
    # The default stays comparable with the upsampled data.
    params = face.append_exp_params(exp | {"upsample_pattern": 3})
    assert params["data_pad"] % 3 == 0


@pytest.mark.parametrize(
    ("shape", "upsample", "pad"),
    [
        ((124, 120), 1, 36),  # 196 x 192 instead of 186 x 182, 186 = 2 · 3 · 31
        ((31, 32), 2, 18),  # 98 x 100 instead of 94 x 96, whole pixels of the data
        ((93, 95), 1, 24),  # no two fast lengths that differ by two are near
    ],
)
def test_automatic_padding_looks_for_fast_transforms(shape, upsample, pad):
    data = np.broadcast_to(disc(shape, 9), (6, *shape)) * 10
    exp = {"dataset": data, "output_folder": None, "acc_voltage": 60, "scan_size": (2, 3)}
    exp |= {"rez_pixel_size_A": 0.08, "scan_step_A": 1.0, "PLRotation_deg": 0}
    params = face.append_exp_params(exp | {"upsample_pattern": upsample})
    assert params["data_pad"] == pad


def test_slow_windows_are_named_with_a_padding_that_helps(caplog):
    data = np.broadcast_to(disc((62, 58), 9), (6, 62, 58)) * 10
    exp = {"dataset": data, "output_folder": None, "acc_voltage": 60, "scan_size": (2, 3)}
    exp |= {"rez_pixel_size_A": 0.08, "scan_step_A": 1.0, "PLRotation_deg": 0}
    said = []
    for pad in (2, 11, 1):  # 66 x 62, 84 x 80, and 64 x 60, which is fast
        caplog.clear()
        pyptyx.loss_and_gradient(face.append_exp_params(exp | {"data_pad": pad}))
        said.append([m for m in caplog.messages if "two to four times as long" in m])
    assert "data_pad=11 makes 84 x 80" in said[0][0]
    assert said[1:] == [[], []]


def binned(data, shift=(0, 0)):
    moved = np.roll(data, shift, axis=(1, 2))
    return moved.reshape(len(data), DETECTOR[0] // 2, 2, DETECTOR[1] // 2, 2).sum(axis=(2, 4))


@pytest.mark.parametrize("upsample", [1, 3])
def test_binned_data_are_calibrated_as_if_they_came_binned(exp, data, upsample):
    exp |= {"upsample_pattern": upsample}
    # No light reaches the edge, so that a shift loses and wraps nothing.
    exp["dataset"] = data = data * (disc(DETECTOR, 2.5) > 0)
    preset = {"data_bin": 2, "data_shift_vector": (2, -1)}
    found = face.append_exp_params(exp, dict(preset))
    same = exp | {"dataset": binned(data, (2, -1)), "rez_pixel_size_A": 0.16}
    wanted = face.append_exp_params(same, {})
    for key in ("pixel_size_y_A", "pixel_size_x_A", "rez_pixel_size_A", "data_pad"):
        assert found[key] == pytest.approx(wanted[key]), key
    for key in ("positions", "aperture_mask"):
        np.testing.assert_allclose(found[key], wanted[key], err_msg=key)
    # Both describe the same run, although the first one bins while it reads.
    losses = []
    for params in (found, wanted):
        params |= {"print_flag": 0, "default_dtype": "double", "backend": "cpu"}
        losses.append(pyptyx.loss_and_gradient(params)[0])
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


def test_direct_methods_and_tilts_keep_the_measured_pixel_of_binned_data(exp, data):
    plain, halved = (face.append_exp_params(dict(exp), {"data_bin": b}) for b in (1, 2))
    assert scan_optics(halved) == scan_optics(plain)
    # Every pixel of the binned disc stands for four measured ones.
    measured = halved["aperture_mask"].sum() * 4
    assert _bin_edge(halved, 7) == math.ceil(math.sqrt(measured / 7) - 0.05)
    moved = face.append_exp_params(dict(exp), {"data_shift_vector": (2, -1)})
    every = (plain, halved, moved)
    tilts = [face.get_approx_beam_tilt(p, power=np.inf)["tilts"] for p in every]
    assert np.abs(tilts[0]).max() > 0
    np.testing.assert_allclose(tilts[1], tilts[0])
    # A run sees the patterns where they are moved to.
    wavelength = 12.3984198 / np.sqrt(60 * (60 + 1021.998))
    shift = np.array([2, -1]) * 0.08 * wavelength
    np.testing.assert_allclose(
        tilts[2][:, 4:] - tilts[0][:, 4:], np.tile(shift, (15, 1)), rtol=1e-6
    )


def test_measured_patterns_are_binned_for_the_probe_window(exp, data):
    params = face.append_exp_params(exp, {"data_bin": 2})
    window = params["aperture_mask"].shape
    vacuum = data.mean(axis=0)
    face.append_aperture_to_params(params, vacuum)
    assert params["aperture_mask"].shape == window
    assert params["aperture_mask"].sum() == pytest.approx(vacuum.sum())
    face.get_focussed_probe_from_vacscan(params, vacuum)
    assert params["probe"].shape == (*window, 1)
    before = params["probe"]
    face.tiltbeamtodata(params)
    assert np.abs(params["probe"] - before).max() < 1e-2 * np.abs(before).max()


def test_calibration_priority(exp):
    lam = 12.3984198 / np.sqrt(60 * (60 + 1021.998))
    by_angle = face.append_exp_params(exp | {"rez_pixel_size_mrad": 5.0, "upsample_pattern": 2})
    assert by_angle["rez_pixel_size_A"] == pytest.approx(5e-3 / lam / 2, rel=1e-6)
    by_length = face.append_exp_params(exp | {"conv_semiangle_mrad": 15, "upsample_pattern": 2})
    assert by_length["rez_pixel_size_A"] == pytest.approx(0.04)
    del exp["rez_pixel_size_A"]
    exp |= {"conv_semiangle_mrad": 15, "aperture": 7 * disc(DETECTOR, 2.5)}
    by_disc = face.append_exp_params(exp)
    radius = np.sqrt((disc(DETECTOR, 2.5) > 0).sum() / np.pi)
    assert by_disc["rez_pixel_size_A"] == pytest.approx(15e-3 / (radius * lam), rel=1e-6)


@pytest.mark.parametrize("upsample", [1, 2])
def test_a_halo_does_not_count_as_disc(exp, upsample):
    """The threshold of the mask lies below the light that ice scatters around the disc."""
    shape, radius = (50, 44), 13.4
    distance = np.hypot(*np.meshgrid(*(np.arange(n) - n // 2 for n in shape), indexing="ij"))
    light = np.clip(radius + 0.5 - distance, 0, 1)
    light += np.where(light < 1, 0.3 * np.exp(-np.maximum(distance - radius, 0) / 3), 0)
    del exp["rez_pixel_size_A"]
    exp |= {"dataset": np.broadcast_to(1000 * light, (15, *shape)), "conv_semiangle_mrad": 15}
    params = face.append_exp_params(exp | {"upsample_pattern": upsample})
    lam = params["wavelength_A"] or 12.3984198 / np.sqrt(60 * (60 + 1021.998))
    found = 15e-3 / lam / params["rez_pixel_size_A"] / upsample
    assert found == pytest.approx(radius, rel=0.025)
    by_threshold = np.sqrt(params["aperture_mask"].sum() / np.pi) / upsample
    assert by_threshold > 1.15 * radius


def test_upsampled_aperture_is_replicated(exp):
    params = face.append_exp_params(exp | {"upsample_pattern": 2, "data_pad": 4})
    inner = params["aperture_mask"][4:-4, 4:-4]
    assert inner.shape == (24, 16)
    np.testing.assert_array_equal(inner, np.kron(disc(DETECTOR, 2.5), np.ones((2, 2))) > 0)
    assert params["mean_pattern"].shape == DETECTOR


def test_given_aperture(exp):
    aperture = disc(DETECTOR, 3)
    params = face.append_exp_params(exp | {"aperture": aperture, "data_pad": 0})
    np.testing.assert_array_equal(params["aperture_mask"], aperture > 0)
    drawn = aperture * np.linspace(0.5, 1, DETECTOR[1])
    params = face.append_exp_params(exp | {"aperture": drawn, "data_pad": 0})
    np.testing.assert_array_equal(params["aperture_mask"], drawn)
    with pytest.raises(ShapeError, match="aperture"):
        face.append_exp_params(exp | {"aperture": aperture[:-1]})


def test_special_positions_are_taken_as_they_are(exp):
    points = np.random.default_rng(1).uniform(5, 9, (15, 2))
    del exp["scan_step_A"]
    for key in ("special_postions_A", "special_positions_A"):
        params = face.append_exp_params(exp | {key: points})
        in_A = params["positions"] * [params["pixel_size_y_A"], params["pixel_size_x_A"]]
        np.testing.assert_allclose(in_A, points - points.min(0), atol=1e-12)
    with pytest.raises((ParamError, ShapeError), match="special_postions_A"):
        face.append_exp_params(exp | {"special_postions_A": points[:-1], "scan_size": SCAN})


def test_step_from_the_field_of_view(exp):
    """BUG-7 of PyPty: the fast axis has five points here, not three."""
    del exp["scan_step_A"]
    params = face.append_exp_params(exp | {"fov_nm": 2.0})
    assert params["scan_step_A"] == pytest.approx(4.0)
    params = face.append_exp_params(exp | {"fov_nm": 2.0, "fov_convention": "intervals"})
    assert params["scan_step_A"] == pytest.approx(5.0)


def test_transform_matrix(exp):
    matrix = np.array([[1.1, 0.2], [-0.1, 0.9]])
    params = face.append_exp_params(exp | {"transform_axis_matrix": matrix})
    in_A = params["positions"] * [params["pixel_size_y_A"], params["pixel_size_x_A"]]
    expected = scan_positions_A(SCAN, 0.7, 20.0, transform=matrix)
    np.testing.assert_allclose(in_A, expected, atol=1e-12)


# ---- slices and object ------------------------------------------------------------------------


def test_automatic_slice_thickness():
    """Acceptance (d)."""
    assert slice_thickness_A(20e-3, 0.08, 32) == pytest.approx(19.53, abs=0.01)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, 2),  # 1 / (20e-3 * 0.08 * 12) = 52.1 Å per slice
        ({"num_slices": 7}, 7),
        ({"num_slices": 7, "slice_thickness": "auto"}, 2),
        ({"num_slices": 7, "slice_thickness": None}, 7),
        ({"num_slices": 7, "slice_thickness": 10}, 10),
        ({"slice_thickness": 100 / 3}, 3),
    ],
)
def test_number_of_slices(exp, given, expected):
    """PIT-1 of PyPty: num_slices was ignored."""
    exp |= {"total_thickness": 100, "conv_semiangle_mrad": 20}
    params = face.append_exp_params(exp | given)
    assert params["num_slices"] == expected
    assert params["obj"].shape == (1, 1, expected, 1)
    np.testing.assert_allclose(params["slice_distances"], [100 / expected])


@pytest.mark.parametrize(
    ("given", "preset", "expected"),
    [({}, {"num_slices": 4}, 4), ({"num_slices": 3}, {"num_slices": 4}, 3)],
    ids=["of the preset", "of the experiment"],
)
def test_number_of_slices_may_be_the_presets(exp, given, preset, expected):
    params = face.append_exp_params(exp | {"total_thickness": 60} | given, preset)
    assert params["num_slices"] == params["obj"].shape[2] == expected
    assert params["slice_distances"] == [60 / expected]


def test_random_object_is_seeded_and_covers_the_scan(exp):
    exp |= {"num_obj_modes": 2, "obj_phase_sigma": 0.3, "num_slices": 4}
    params = face.append_exp_params(exp)
    obj = params["obj"]
    needed = np.rint(params["positions"]).max(0) + np.array([18, 14])
    assert obj.shape[2:] == (4, 2)
    assert np.all(obj.shape[:2] >= needed)
    np.testing.assert_allclose(np.abs(obj), 1)
    assert 0 <= np.angle(obj).min() < np.angle(obj).max() < 0.3
    np.testing.assert_array_equal(obj, face.append_exp_params(exp)["obj"])
    other = face.append_exp_params(exp, {"seed": 7})
    assert other["seed"] == 7
    assert np.abs(other["obj"] - obj).max() > 0.01
    same = face.append_exp_params(exp | {"seed": 7})
    np.testing.assert_array_equal(same["obj"], other["obj"])


def test_given_wavelength_wins(exp):
    del exp["acc_voltage"]
    params = face.append_exp_params(exp | {"wavelength_A": 0.03, "rez_pixel_size_mrad": 3.0})
    assert params["wavelength_A"] == 0.03
    assert params["rez_pixel_size_A"] == pytest.approx(0.1)
    assert "voltage not given, wavelength 0.030000 Å" in describe(params)


# ---- preset -----------------------------------------------------------------------------------


def test_preset_is_filled_and_returned(exp, data):
    before = {k: np.copy(v) if isinstance(v, np.ndarray) else v for k, v in exp.items()}
    preset = {"algorithm": "lsq_sqrt", "probe": np.ones((18, 14, 1), complex), "epoch_prev": 4}
    result = face.append_exp_params(exp, preset)
    assert result is preset
    assert result["epoch_prev"] == 4
    assert result["epoch_max"] == 200
    assert result["probe"].shape == (18, 14, 1)
    assert result["probe_is_aberrated"] is False
    assert exp.keys() == before.keys()
    for key, value in before.items():
        np.testing.assert_array_equal(exp[key], value)
    fresh = face.append_exp_params(exp)
    assert (fresh["epoch_prev"], fresh["epoch_max"], fresh["probe"]) == (0, 1000, None)
    assert face.append_exp_params(exp | {"erase_probe": True}, preset)["probe"] is None


def test_keys_of_pyptys_set_up(exp):
    keys = """data_path output_folder positions obj acc_voltage slice_distances pixel_size_x_A
        pixel_size_y_A aperture_mask extra_probe_defocus data_pad masks flip_ky
        save_preprocessing_files aberrations mean_pattern upsample_pattern rez_pixel_size_A
        conv_semiangle_mrad scan_size scan_step_A fov_nm PLRotation_deg bright_threshold plot comx
        comy print_flag num_slices total_thickness chemical_formula sample_name
        transform_axis_matrix dataset probe epoch_prev epoch_max""".split()
    params = face.append_exp_params(exp | {"aberrations": [5.0, 0, 1], "defocus": 30})
    assert set(keys) <= params.keys()
    assert params["aberrations"] == [5.0, 0, 1]
    assert params["extra_probe_defocus"] == 30


def test_object_of_a_preset_is_kept(exp):
    obj = np.full((40, 35, 3, 1), 1j)
    kept = face.append_exp_params(exp | {"num_slices": 2}, {"obj": obj})
    np.testing.assert_array_equal(kept["obj"], obj)
    assert kept["num_slices"] == 3
    replaced = face.append_exp_params(exp | {"num_slices": 2, "num_obj_modes": 1}, {"obj": obj})
    assert replaced["obj"].shape[2:] == (2, 1)
    # The placeholder of an earlier call is not an object.
    again = face.append_exp_params(exp | {"num_slices": 5}, face.append_exp_params(exp))
    assert again["obj"].shape == (1, 1, 5, 1)


def test_keys_of_the_experiment_may_stand_in_the_preset(exp):
    hand = {"data_pad": 6, "upsample_pattern": 2, "defocus": -70, "print_flag": 0, "seed": 4}
    hand |= {"PLRotation_deg": 11, "scan_step_A": 3.0, "fov_nm": 2.0, "aberrations": [1.0, 2.0]}
    params = face.append_exp_params(exp, dict(hand))
    assert (params["data_pad"], params["upsample_pattern"]) == (6, 2)
    assert params["aperture_mask"].shape == (2 * DETECTOR[0] + 12, 2 * DETECTOR[1] + 12)
    assert params["extra_probe_defocus"] == -70
    assert (params["print_flag"], params["seed"], params["aberrations"]) == (0, 4, [1.0, 2.0])
    # What the experiment says wins, in whatever way it says it.
    assert params["PLRotation_deg"] == 20
    assert params["scan_step_A"] == 0.7
    assert params["fov_nm"] == pytest.approx(0.07 * SCAN[1])
    again = face.append_exp_params(exp | {"defocus": 30, "data_pad": 2}, dict(hand))
    assert (again["extra_probe_defocus"], again["data_pad"]) == (30, 2)
    assert "defocus" not in again
    # A preset that has an experiment holds that one's keys: they are not a wish.
    other = face.append_exp_params(exp, params)
    assert other["data_pad"] == face.append_exp_params(exp)["data_pad"] != 6


def test_data_of_the_experiment_replace_those_of_the_preset(exp, data):
    preset = {"data_path": "of_last_week.h5", "h5_key": "entry/data"}
    params = face.append_exp_params(exp, preset)
    np.testing.assert_array_equal(params["dataset"], data)
    assert not params["data_path"]
    assert not params["h5_key"]


def test_a_failing_call_leaves_the_preset_alone(exp):
    preset = {"algorithm": "lsq_sqrt"}
    with pytest.raises(DataError):
        face.append_exp_params(exp | {"scan_size": (4, 4)}, preset)
    assert not preset.keys() & {"positions", "dataset", "obj"}


# ---- data -------------------------------------------------------------------------------------


def test_four_dimensional_array_sets_the_scan_size(exp, data):
    del exp["scan_size"]
    four = data.reshape(*SCAN, *DETECTOR)
    params = face.append_exp_params(exp | {"dataset": four, "flip_ky": True})
    assert params["scan_size"] == SCAN
    np.testing.assert_array_equal(params["dataset"], data[:, ::-1])
    assert not params["flip_ky"]
    np.testing.assert_allclose(params["mean_pattern"], data[:, ::-1].mean(0), rtol=1e-5)


def test_file_is_read_in_pieces(exp, data, tmp_path, monkeypatch):
    path = tmp_path / "patterns.h5"
    with h5py.File(path, "w") as file:
        file["data"] = data
    del exp["dataset"]
    monkeypatch.setattr("pyptyx.engine.patterns._CHUNK_BYTES", 4 * data[0].nbytes)
    folder = tmp_path / "out"
    exp |= {"data_path": str(path), "PLRotation_deg": None, "plot": True, "flip_ky": True}
    params = face.append_exp_params(exp | {"output_folder": str(folder)})
    assert params["flip_ky"]
    assert "dataset" not in params
    assert params["data_path"] == str(path)
    flipped = data[:, ::-1].astype(float)
    np.testing.assert_allclose(params["mean_pattern"], flipped.mean(0))
    counts = flipped.sum((1, 2))
    comy = flipped.sum(2) @ np.arange(12) / counts
    comx = flipped.sum(1) @ np.arange(8) / counts
    np.testing.assert_allclose(params["comy"], (comy - comy.mean()).reshape(SCAN), atol=1e-10)
    np.testing.assert_allclose(params["comx"], (comx - comx.mean()).reshape(SCAN), atol=1e-10)
    assert (folder / "pacbed.png").stat().st_size > 1000
    assert [p.name for p in folder.iterdir()] == ["pacbed.png"]


def test_an_empty_pattern_does_no_harm(exp, data):
    """BUG-6 of PyPty: the centre of mass of nothing is not a number."""
    data[4] = 0
    params = face.append_exp_params(exp | {"PLRotation_deg": "auto"})
    assert np.isfinite(params["comx"]).all()
    assert params["comx"].ravel()[4] == pytest.approx(0, abs=1e-12)
    assert np.isfinite(params["PLRotation_deg"])


def test_compressed_data(exp):
    """BUG-30 of PyPty: [Sy, Sx, Nmask] failed."""
    rng = np.random.default_rng(2)
    masks = rng.random((4, *DETECTOR))
    truth = 50 * disc(DETECTOR, 2.5)
    signals = np.broadcast_to(np.tensordot(masks, truth, 2), (*SCAN, 4))
    del exp["scan_size"]
    exp |= {"dataset": signals, "masks": masks, "aperture": disc(DETECTOR, 2.5), "data_pad": 2}
    params = face.append_exp_params(exp)
    assert params["scan_size"] == SCAN
    assert params["dataset"].shape == (15, 4)
    assert params["masks"].shape == (4, 16, 12)
    np.testing.assert_array_equal(params["masks"][:, 2:-2, 2:-2], masks)
    seen = np.tensordot(masks, params["mean_pattern"], 2)
    assert seen @ signals[0, 0] / (seen @ seen) == pytest.approx(1)
    with pytest.raises(ParamError, match="PLRotation_deg"):
        face.append_exp_params(exp | {"PLRotation_deg": "auto"})


def test_single_shot_needs_no_scan(data):
    exp = {"dataset": data[:1], "output_folder": None, "acc_voltage": 60, "rez_pixel_size_A": 0.08}
    params = face.append_exp_params(exp | {"scan_size": (1, 1), "scan_step_A": 1.0})
    np.testing.assert_array_equal(params["positions"], [[0, 0]])
    assert params["PLRotation_deg"] == 0


# ---- errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["acc_voltage", "scan_step_A", "rez_pixel_size_A", "dataset"])
def test_missing_keys_are_named(exp, missing):
    """BUG-8 and PIT-3 of PyPty: 60 kV and a step of zero were assumed."""
    del exp[missing]
    with pytest.raises((ParamError, DataError), match=missing):
        face.append_exp_params(exp)


def test_scan_size_must_fit_the_data(exp):
    with pytest.raises(DataError, match="scan_size"):
        face.append_exp_params(exp | {"scan_size": (4, 4)})
    with pytest.raises(ParamError, match="scan_size"):
        face.append_exp_params({k: v for k, v in exp.items() if k != "scan_size"})


# ---- metadata ---------------------------------------------------------------------------------


def write_json(path, tree):
    path.write_text(json.dumps(tree))
    return str(path)


def test_metadata_fills_what_is_missing(exp, tmp_path, caplog):
    tree = {
        "metadata": {
            "scan": {"scan_size": list(SCAN), "fov_nm": 3.5},
            "hardware_source": {"high_tension_v": 60000, "defocus": -4e-9},
        }
    }
    for key in ("acc_voltage", "scan_size", "scan_step_A"):
        del exp[key]
    exp |= {"path_json": write_json(tmp_path / "a.json", tree), "defocus": None}
    with caplog.at_level(logging.INFO, "pyptyx"):
        params = face.append_exp_params(exp)
    assert params["acc_voltage"] == 60
    assert params["scan_size"] == SCAN
    assert params["scan_step_A"] == pytest.approx(7.0)
    assert params["extra_probe_defocus"] == pytest.approx(40)
    assert "metadata.scan.fov_nm" in caplog.text
    # What the user says wins, and the defocus is only looked up when asked for.
    params = face.append_exp_params(exp | {"scan_step_A": 2.0, "acc_voltage": 80, "defocus": 0})
    assert (params["scan_step_A"], params["acc_voltage"]) == (2.0, 80)
    assert params["extra_probe_defocus"] == 0


def test_metadata_fallbacks(tmp_path):
    tree = {
        "metadata": {"instrument": {"high_tension": 2e5, "ImageScanned": {"C10": 55.0}}},
        "data_shape": [7, 9, 4, 4],
        "dimensional_calibrations": [{"scale": 1, "units": "nm"}, {"scale": 0.5, "units": "nm"}],
    }
    found = read_metadata(write_json(tmp_path / "b.json", tree))
    assert found.acc_voltage_kV == pytest.approx(200)
    assert found.fov_nm == pytest.approx(4.5)
    assert found.defocus_A == -55.0
    assert found.scan_size is None


def test_metadata_of_strange_types_is_ignored(tmp_path):
    tree = {"metadata": {"scan": {"scan_size": "big", "fov_nm": -3}, "hardware_source": [1]}}
    found = read_metadata(write_json(tmp_path / "c.json", tree))
    assert (found.scan_size, found.fov_nm, found.acc_voltage_kV) == (None, None, None)


@pytest.mark.parametrize("text", ["{not json", "[1, 2]", ""])
def test_unreadable_metadata_is_an_error(tmp_path, text):
    path = tmp_path / "d.json"
    path.write_text(text)
    with pytest.raises(DataError, match="path_json"):
        read_metadata(path)
    with pytest.raises(DataError, match="path_json"):
        read_metadata(tmp_path / "absent.json")


# ---- object guess -----------------------------------------------------------------------------


@pytest.fixture
def guess_params():
    positions = scan_positions_A((6, 7), 4.0)
    return {
        "positions": positions,
        "pixel_size_y_A": 0.5,
        "pixel_size_x_A": 0.25,
        "aperture_mask": np.ones((11, 8), bool),
        "num_slices": 3,
        "total_thickness": 60.0,
    }


def test_guess_reproduces_the_samples_and_is_clear_outside(guess_params):
    """BUG-10 of PyPty: opaque outside the scan."""
    rng = np.random.default_rng(0)
    phase, modulus = rng.uniform(0, 2, (6, 7)), rng.uniform(0.5, 1, (6, 7))
    out = face.get_ptycho_obj_from_scan(guess_params, None, phase, modulus)
    obj = out["obj"]
    assert out is guess_params
    assert obj.shape == (20 + 11, 24 + 8, 3, 1)
    total = obj[..., 0].prod(axis=2)
    y, x = (out["positions"].astype(int) + np.array([5, 4])).T
    np.testing.assert_allclose(total[y, x], (modulus * np.exp(1j * phase)).ravel(), atol=1e-10)
    np.testing.assert_allclose(obj[0, 0], 1)
    np.testing.assert_allclose(out["slice_distances"], [20.0])


def test_guess_options(guess_params):
    phase = np.linspace(0, 10, 42).reshape(6, 7)
    out = face.get_ptycho_obj_from_scan(
        dict(guess_params), "auto", phase, scale_phase=0.5, scale_abs=2, fill_value_type="median"
    )
    assert out["num_slices"] == 5
    np.testing.assert_allclose(np.abs(out["obj"]), 2)
    assert np.angle(out["obj"][0, 0, 0, 0]) == pytest.approx(0.5 * 5 / 5)
    in_A = guess_params["positions"] * [0.5, 0.25]
    same = face.get_ptycho_obj_from_scan(dict(guess_params), 1, phase, scan_array_A=in_A)
    np.testing.assert_allclose(
        same["obj"], face.get_ptycho_obj_from_scan(dict(guess_params), 1, phase)["obj"]
    )
    part = face.get_ptycho_obj_from_scan(
        guess_params | {"sequence": [8, 17], "use_full_FOV": False}, 1, phase
    )
    assert part["obj"].shape == (4 + 11, 8 + 8, 1, 1)


def test_guess_errors(guess_params):
    with pytest.raises(ParamError, match="array_phase"):
        face.get_ptycho_obj_from_scan(guess_params)
    with pytest.raises(ShapeError, match="array_abs"):
        face.get_ptycho_obj_from_scan(guess_params, 1, None, np.ones((3, 4)))


# ---- describe ---------------------------------------------------------------------------------


def test_describe(exp):
    params = face.append_exp_params(exp | {"num_slices": 4, "defocus": 20})
    text = describe(params)
    lines = dict(line.split("  ", 1) for line in text.splitlines())
    assert lines["energy"].strip().startswith("60 kV, wavelength 0.0486")
    assert "3 x 5 points, mean step 0.700 Å" in lines["scan"]
    assert "18 x 14 px" in lines["window (y, x)"]
    assert "15 x 12 x 8 float32" in lines["data"]
    assert "4 slices" in lines["object"]
    assert 0 < float(lines["overlap ratio"]) < 1
    assert len(text.splitlines()) < 20
    assert "remark" not in text
    idle = describe(params | {"Cs": 1e6, "data_pad": 3, "update_tilts": True})
    assert [line.split()[1] for line in idle.splitlines() if line.startswith("remark")] == ["Cs"]
    more = describe(params | {"extra_probe_defocus": 300.0})
    assert (
        dict(line.split("  ", 1) for line in more.splitlines())["beam diameter"]
        != lines["beam diameter"]
    )
