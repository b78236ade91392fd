"""Results of direct methods in a NeXus file, with a run beside them and without."""

import json

import h5py
import numpy as np
import pytest
from nexus_folders import DIRECT_PARAMS, PADDED, RUNS, SCAN, STEP_A, write_direct, write_run

import pyptyx
from pyptyx.engine import direct_run
from pyptyx.engine.direct_dpc import finish
from pyptyx.engine.export import convert_to_nxs, load_nexus_params
from pyptyx.errors import DataError
from pyptyx.output import provenance
from pyptyx.output.maps import Axis, Map
from pyptyx.params import load_params, save_params


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "results"


@pytest.fixture
def arrays(folder):
    return write_direct(folder)


@pytest.fixture
def entry(folder, arrays, tmp_path):
    with h5py.File(convert_to_nxs(folder, tmp_path / "x.nxs")) as file:
        yield file["entry"]


def test_images_are_plots_on_the_grid_of_the_scan(entry, arrays):
    for name, array, unit in (
        ("direct_mf/phase", "direct/phase_mf", "rad"),
        ("direct_joint/amplitude", "direct/amplitude_joint", None),
        ("direct_obf/phase", "direct/phase_obf", None),
        ("dpc_idpc/phase", "dpc/idpc", "rad"),
        ("dpc_iterative_dpc/phase", "dpc/iterative_dpc", "rad"),
        ("tcbf_image_0/intensity", "tcbf/tcbf_image_0", None),
    ):
        np.testing.assert_array_equal(entry[name], arrays[array], strict=True)
        assert entry[name].attrs.get("units") == unit
        plot = entry[name].parent
        assert plot.attrs["NX_class"] == "NXdata"
        np.testing.assert_allclose(plot["y"], STEP_A * np.arange(SCAN[0]))
        np.testing.assert_allclose(plot["x"], STEP_A * np.arange(SCAN[1]))
        assert plot["y"].attrs["units"] == plot["x"].attrs["units"] == "angstrom"
    assert list(entry["direct_joint"].attrs["auxiliary_signals"]) == ["amplitude"]


def test_the_wave_of_wdd_is_kept_and_shown(entry, arrays):
    wave = arrays["wdd/object"]
    np.testing.assert_allclose(entry["wdd/phase"], np.angle(wave))
    np.testing.assert_allclose(entry["wdd/amplitude"], abs(wave))
    np.testing.assert_array_equal(entry["direct/wdd/object"], wave, strict=True)


def test_spectra_have_rising_frequencies(entry, arrays):
    plot = entry["direct_mf_ssnr"]
    q_y, q_x = plot["q_y"][()], plot["q_x"][()]
    assert (np.diff(q_y) > 0).all()
    assert q_y[1] - q_y[0] == pytest.approx(1 / (PADDED[0] * STEP_A))
    assert q_x[-1] == pytest.approx(1 / (2 * STEP_A))
    assert q_x[1] == pytest.approx(1 / (PADDED[1] * STEP_A))
    assert plot["q_x"].attrs["units"] == "1/angstrom"
    zero = int(np.flatnonzero(q_y == 0)[0])
    np.testing.assert_array_equal(plot["ssnr"][zero], arrays["direct/ssnr_mf"][0])
    np.testing.assert_array_equal(plot["ssnr"][zero - 1], arrays["direct/ssnr_mf"][-1])
    np.testing.assert_array_equal(entry["direct_mf_frc/q"], arrays["direct/frc_q_A_mf"])
    np.testing.assert_array_equal(entry["direct_mf_frc/frc"], arrays["direct/frc_mf"])


def test_pixels_finer_than_the_scan(folder, arrays, tmp_path):
    fine = np.ones((12, 22))
    np.save(folder / "direct/phase_mf.npy", fine)
    info = {"method": "mf", "upsample": 2, "pixel_A": STEP_A / 2}
    (folder / "direct/info_mf.json").write_text(json.dumps(info))
    with h5py.File(convert_to_nxs(folder, tmp_path / "x.nxs")) as file:
        assert file["entry/direct_mf/x"][1] == STEP_A / 2
        assert file["entry/direct_mf_ssnr/q_x"][-1] == pytest.approx(1 / (2 * STEP_A))
        assert file["entry/tcbf_image_upsampling_2_5/y"][1] == pytest.approx(STEP_A / 2.5)


def test_a_stack_has_its_heights(entry, arrays):
    plot = entry["direct_depth_stack"]
    assert list(plot.attrs["axes"]) == ["z", "y", "x"]
    np.testing.assert_array_equal(plot["z"], [-20, 0, 30])
    assert plot["z"].attrs["units"] == "angstrom"
    np.testing.assert_array_equal(plot["phase"], arrays["direct/depth_stack"])


def test_numbers_are_kept_beside_the_images(entry, arrays):
    direct = entry["direct"]
    for name in ("estimated_shifts_0", "aberrations_0"):
        np.testing.assert_array_equal(direct[f"tcbf/{name}"], arrays[f"tcbf/{name}"], strict=True)
    assert json.loads(direct["direct/info_mf"].asstr()[()])["resolution_A"] == 2.5
    assert "phase_mf" not in direct["direct"]
    document = json.loads(direct["dpc/parameters/data"][()])
    assert document["PLRotation_deg"] == 12.5


def test_without_a_run_the_parameters_are_those_of_the_method(folder, arrays, tmp_path):
    path = convert_to_nxs(folder, tmp_path / "x.nxs")
    assert load_nexus_params(path) == DIRECT_PARAMS
    with h5py.File(path) as file:
        assert file["entry"].attrs["default"] == "direct_joint"
        assert "checkpoint" not in file["entry"]
        assert file["entry/instrument/source/voltage"][()] == 60_000


def test_beside_a_run_its_object_is_shown_first(folder, tmp_path):
    write_run(folder, **RUNS["single_slice"])
    write_direct(folder)
    path = convert_to_nxs(folder, tmp_path / "x.nxs")
    np.testing.assert_equal(load_nexus_params(path), load_params(folder))
    with h5py.File(path) as file:
        assert file["entry"].attrs["default"] == "transmission"
        assert "direct_mf" in file["entry"]


def test_a_folder_of_pypty_takes_the_step_of_the_run(folder, tmp_path):
    write_run(folder, **RUNS["single_slice"])
    save_params(folder, {**load_params(folder), "scan_step_A": 3.5})
    (folder / "dpc").mkdir()
    np.save(folder / "dpc/idpc.npy", np.ones(SCAN))
    with h5py.File(convert_to_nxs(folder, tmp_path / "x.nxs")) as file:
        assert file["entry/dpc_idpc/y"][1] == 3.5


def test_an_unknown_step_is_not_invented(folder, tmp_path):
    (folder / "dpc").mkdir(parents=True)
    np.save(folder / "dpc/idpc.npy", np.ones(SCAN))
    with h5py.File(convert_to_nxs(folder, tmp_path / "x.nxs")) as file:
        assert "units" not in file["entry/dpc_idpc/y"].attrs
        np.testing.assert_array_equal(file["entry/dpc_idpc/x"], np.arange(SCAN[1]))
        assert file["entry/reconstruction/program"].asstr()[()] == "PyPty"


def test_a_folder_with_nothing_to_show(folder, tmp_path):
    (folder / "tcbf").mkdir(parents=True)
    np.save(folder / "tcbf/aberrations_0.npy", np.ones(3))
    with pytest.raises(DataError, match=r"co\.npy"):
        convert_to_nxs(folder, tmp_path / "x.nxs")


def test_a_damaged_image_is_named(folder, arrays, tmp_path):
    (folder / "dpc/idpc.npy").write_bytes(b"no array")
    with pytest.raises(DataError, match=r"idpc\.npy"):
        convert_to_nxs(folder, tmp_path / "x.nxs")


def test_direct_methods_save_their_parameters(tmp_path):
    params = {**DIRECT_PARAMS, "output_folder": str(tmp_path), "data_path": "scan.h5"}
    place = direct_run.output_folder(params, "wdd", save=True)
    assert load_params(place) == params
    (session,) = provenance.sessions(place)
    assert session["version"] == pyptyx.__version__
    finish(params, "idpc", np.ones(SCAN), save=True, plot=False)
    assert load_params(tmp_path / "dpc") == params
    assert np.load(tmp_path / "dpc/idpc.npy").shape == SCAN
    assert direct_run.output_folder(params, "tcbf", save=False) is None
    assert not (tmp_path / "tcbf").exists()


def test_the_pixel_of_a_map_is_that_of_its_rows_and_columns():
    y, x = (Axis(n, s * np.arange(3 + s), "angstrom") for n, s in (("y", 2), ("x", 5)))
    assert Map("a", {}, (Axis("z", np.arange(4)), y, x)).pixel_A == (2.0, 5.0)
    assert Map("a", {}, (y, Axis("q_x", x.values, "1/angstrom"))).pixel_A is None
    assert Map("a", {}, (y, Axis("x", x.values))).pixel_A is None
