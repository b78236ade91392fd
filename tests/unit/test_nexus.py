"""The NeXus file of a run: its plot, its coordinates, its arrays, and parameters without loss."""

import json
from datetime import datetime

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_params_files import TEXTS, VALUES, assert_same

import pyptyx
from pyptyx.engine.export import convert_to_nxs, load_nexus_params
from pyptyx.errors import DataError, OutputError, ParamError
from pyptyx.output.losslog import EpochRecord, LossLog
from pyptyx.params import load_params, save_params

Y, X, NZ, MO, NY, NX, MP, N = 19, 23, 3, 2, 8, 7, 4, 5
GAPS = [4.0, 6.5]
PIXEL = (0.25, 0.4)


def complex_array(rng, *shape):
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        "co": complex_array(rng, Y, X, NZ, MO).astype(np.complex64),
        "cp": complex_array(rng, NY, NX, MP),
        "cg": rng.uniform(0, 11, (N, 2)),
        "ct": rng.normal(size=(N, 6)),
        "cs": rng.random((NY, NX)),
        "ca": rng.normal(size=(2, 9)),
        "cb": rng.random(N),
    }


PARAMS = {
    "acc_voltage": 80,
    "pixel_size_y_A": PIXEL[0],
    "pixel_size_x_A": PIXEL[1],
    "slice_distances": GAPS,
    "num_slices": NZ,
    "total_thickness": 15.0,
    "sample_name": "1",
    "chemical_formula": "MoS2",
    "update_probe": "lambda x: x > max(2, 1)",
    "positions": np.arange(2.0 * N).reshape(N, 2),
    "aberrations": (np.float32(0.1), float("inf"), None, 1j),
    "probe_marker": np.array([[True, False, True]]),
    "sequence": [3, 1],
    "window": np.array(["text", "ü"]),
    "obj": np.ones((1, 1, 3, 1), ">c16"),
}


@pytest.fixture
def folder(tmp_path, arrays):
    path = tmp_path / "the run"
    path.mkdir()
    for name, array in arrays.items():
        np.save(path / f"{name}.npy", array)
    save_params(path, PARAMS)
    log = LossLog(path / "loss.csv")
    for epoch in range(3):
        warning = "step rejected" if epoch == 1 else ""
        log.append(
            EpochRecord(epoch, 50.0 * (epoch + 1), 9.0 - epoch, 2.0, 1.0, 0.5, 4, -1.0, -0.1,
                        8.5 - epoch, warnings=warning)
        )  # fmt: skip
    sidecar = {"epoch": 3, "loss": 6.5, "time": "2026-03-01T12:00:00+0200"}
    (path / "checkpoint.json").write_text(json.dumps(sidecar))
    return path


@pytest.fixture
def nxs(folder, tmp_path):
    return convert_to_nxs(folder, tmp_path / "result.nxs")


def test_the_default_plot_is_the_phase_in_float32(nxs, arrays):
    with h5py.File(nxs) as file:
        entry = file[file.attrs["default"]]
        plot = entry[entry.attrs["default"]]
        assert [file.attrs["NX_class"], entry.attrs["NX_class"], plot.attrs["NX_class"]] == [
            "NXroot", "NXentry", "NXdata",
        ]  # fmt: skip
        assert entry["definition"].asstr()[()] == "NXem"
        phase, amplitude = plot[plot.attrs["signal"]], plot[plot.attrs["auxiliary_signals"][0]]
        expected = arrays["co"].transpose(3, 2, 0, 1)
        assert phase.dtype == amplitude.dtype == np.float32
        assert phase.attrs["units"] == "rad"
        assert (phase.compression, phase.chunks) == ("gzip", (1, 1, Y, X))
        np.testing.assert_allclose(phase, np.angle(expected), rtol=1e-6)
        np.testing.assert_allclose(amplitude, abs(expected), rtol=1e-6)
        assert list(plot.attrs["axes"]) == ["mode", "z", "y", "x"]
        for index, axis in enumerate(plot.attrs["axes"]):
            assert plot.attrs[f"{axis}_indices"] == index
            assert plot[axis].shape == (phase.shape[index],)
        np.testing.assert_allclose(plot["z"], [0, 4.0, 10.5])
        np.testing.assert_allclose(plot["y"], PIXEL[0] * np.arange(Y))
        np.testing.assert_allclose(plot["x"], PIXEL[1] * np.arange(X))
        assert {plot[a].attrs["units"] for a in "zyx"} == {"angstrom"}


def test_the_old_paths_hold_complex_object_probe_and_positions(nxs, arrays):
    with h5py.File(nxs) as file:
        np.testing.assert_array_equal(
            file["entry/object/data"], arrays["co"].transpose(3, 2, 0, 1), strict=True
        )
        np.testing.assert_array_equal(
            file["entry/instrument/probe/data"], arrays["cp"].transpose(2, 0, 1), strict=True
        )
        positions = file["entry/instrument/scan/positions"]
        np.testing.assert_allclose(positions, arrays["cg"] * PIXEL)
        assert positions.attrs["units"] == "angstrom"
        assert file["entry/object/data"].id == file["entry/checkpoint/obj"].id
        assert file["entry/sample/name"].asstr()[()] == PARAMS["sample_name"]


def test_the_probe_is_centred(nxs, arrays):
    with h5py.File(nxs) as file:
        probe = file["entry/probe"]
        np.testing.assert_allclose(
            probe["intensity"], abs(arrays["cp"].transpose(2, 0, 1)) ** 2, rtol=1e-6
        )
        assert probe["y"][NY // 2] == probe["x"][NX // 2] == 0
        assert probe["y"][1] - probe["y"][0] == pytest.approx(PIXEL[0])
        assert list(probe.attrs["axes"]) == ["mode", "y", "x"]


def test_a_probe_with_scenarios(folder, tmp_path):
    probe = complex_array(np.random.default_rng(1), NY, NX, MP, 2)
    np.save(folder / "cp.npy", probe)
    with h5py.File(convert_to_nxs(folder, tmp_path / "s.nxs")) as file:
        plot = file["entry/probe"]
        assert list(plot.attrs["axes"]) == ["mode", "scenario", "y", "x"]
        np.testing.assert_array_equal(
            file["entry/instrument/probe/data"], probe.transpose(2, 3, 0, 1)
        )
        assert plot["scenario"].shape == (2,)


def test_flipped_rows_keep_their_coordinates(folder, nxs, tmp_path):
    flipped = convert_to_nxs(folder, tmp_path / "flipped.nxs", flip_y=True)
    with h5py.File(nxs) as down, h5py.File(flipped) as up:
        for name in ("transmission", "probe"):
            a, b = down["entry"][name], up["entry"][name]
            np.testing.assert_array_equal(b["y"], a["y"][()][::-1])
            np.testing.assert_array_equal(b["phase"], a["phase"][()][..., ::-1, :])
        np.testing.assert_array_equal(up["entry/scan/positions"], down["entry/scan/positions"])
        states = (down["entry/checkpoint/obj"], up["entry/checkpoint/obj"])
        assert [state.attrs["y_axis_direction"] for state in states] == ["down", "up"]


def test_every_array_of_the_folder_is_inside(folder, tmp_path, arrays):
    np.save(folder / "checkpoint_obj_epoch_7.npy", arrays["co"] * 2)
    np.save(folder / "checkpoint_aberrations_epcoh_12.npy", arrays["ca"] * 3)
    with h5py.File(convert_to_nxs(folder, tmp_path / "all.nxs")) as file:
        state = file["entry/checkpoint"]
        for key, name in (
            ("positions", "cg"), ("tilts", "ct"), ("static_background", "cs"),
            ("aberrations_array", "ca"), ("beam_current", "cb"),
        ):  # fmt: skip
            np.testing.assert_array_equal(state[key], arrays[name], strict=True)
        np.testing.assert_array_equal(
            state["epoch_7/obj"], 2 * arrays["co"].transpose(3, 2, 0, 1), strict=True
        )
        np.testing.assert_array_equal(state["epoch_12/aberrations_array"], 3 * arrays["ca"])


def test_the_loss_log_can_be_plotted(nxs):
    with h5py.File(nxs) as file:
        loss = file["entry/loss"]
        assert loss.attrs["signal"] == "loss"
        np.testing.assert_array_equal(loss["loss"], [9, 8, 7])
        np.testing.assert_array_equal(loss["loss_after_update"], [8.5, 7.5, 6.5])
        np.testing.assert_array_equal(loss["epoch"], [0, 1, 2])
        assert loss["time_s"].attrs["units"] == "s"
        assert file["entry/checkpoint/loss_warnings"].asstr()[1] == "step rejected"
        for name in loss.attrs["auxiliary_signals"]:
            assert loss[name].shape == (3,)
        assert "sse" in loss.attrs["auxiliary_signals"]


def test_times_have_a_zone_and_span_the_run(nxs):
    with h5py.File(nxs) as file:
        start, end = (
            datetime.fromisoformat(file[f"entry/{name}"].asstr()[()])
            for name in ("start_time", "end_time")
        )
    assert end.isoformat() == "2026-03-01T12:00:00+02:00"
    assert (end - start).total_seconds() == 150


def test_the_beam_and_the_sample(nxs):
    with h5py.File(nxs) as file:
        entry = file["entry"]
        assert entry["instrument/source/voltage"][()] == 80_000
        assert entry["instrument/beam/incident_wavelength"][()] == pytest.approx(
            pyptyx.wavelength_A(80)
        )
        sample = entry["sampleID"]
        assert sample["name"].asstr()[()] == entry["title"].asstr()[()] == "1"
        assert sample["chemical_formula"].asstr()[()] == "MoS2"
        assert sample["atom_types"].asstr()[()] == "Mo, S"
        assert sample["thickness"][()] == 15.0
        assert sample["is_simulation"].dtype == bool
        assert not sample["is_simulation"][()]
        assert entry["reconstruction/program"].asstr()[()] == "pyptyx"


@pytest.mark.parametrize(
    ("given", "zone"), [("2026-02-27T08:30:00+09:00", "+09:00"), ("2026-02-27T08:30:00", None)]
)
def test_the_preparation_of_the_sample(folder, tmp_path, given, zone):
    save_params(folder, {**PARAMS, "preparation_date": given, "is_simulation": True})
    with h5py.File(convert_to_nxs(folder, tmp_path / "x.nxs")) as file:
        sample = file["entry/sampleID"]
        written = sample["preparation_date"].asstr()[()]
        assert sample["is_simulation"][()]
        assert "description" not in sample
    assert written.startswith("2026-02-27T08:30:00")
    assert datetime.fromisoformat(written).tzinfo is not None
    assert zone is None or written.endswith(zone)


def test_an_unknown_preparation_is_said_to_be_unknown(nxs):
    with h5py.File(nxs) as file:
        sample = file["entry/sampleID"]
        assert sample["preparation_date"][()] == file["entry/start_time"][()]
        assert "not known" in sample["description"].asstr()[()]


def test_a_date_that_is_none_is_refused(folder, tmp_path):
    save_params(folder, {**PARAMS, "preparation_date": "last week"})
    with pytest.raises(ParamError, match="preparation_date"):
        convert_to_nxs(folder, tmp_path / "x.nxs")


def test_nothing_is_claimed_about_a_thickness_nobody_gave(folder, tmp_path):
    save_params(folder, {**PARAMS, "total_thickness": 1.0})
    with h5py.File(convert_to_nxs(folder, tmp_path / "x.nxs")) as file:
        assert "thickness" not in file["entry/sampleID"]


def test_a_beam_that_is_not_of_electrons_is_no_electron_microscopy(folder, tmp_path):
    save_params(folder, {**PARAMS, "acc_voltage": None, "wavelength_A": 1.4})
    with h5py.File(convert_to_nxs(folder, tmp_path / "x.nxs")) as file:
        assert "definition" not in file["entry"]
        assert file["entry/instrument/beam/incident_wavelength"][()] == 1.4


def test_parameters_come_back_with_their_types(folder, nxs):
    loaded = load_nexus_params(nxs)
    assert_same(loaded, load_params(folder))
    assert_same(loaded["sample_name"], "1")
    assert_same(loaded["slice_distances"], GAPS)
    assert_same(loaded["update_probe"], PARAMS["update_probe"])


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(params=st.dictionaries(TEXTS | st.sampled_from(["beam", "a_b"]), VALUES, max_size=4))
def test_any_parameters_come_back(folder, tmp_path, params):
    save_params(folder, params)
    assert_same(load_nexus_params(convert_to_nxs(folder, tmp_path / "p.nxs")), params)


def test_parameters_are_there_to_look_at(nxs):
    with h5py.File(nxs) as file:
        values = file["entry/reconstruction/values"]
        assert values["acc_voltage"][()] == 80
        assert values["update_probe"].asstr()[()] == PARAMS["update_probe"]
        np.testing.assert_array_equal(values["positions"], PARAMS["positions"])


def test_nothing_in_a_file_is_evaluated(folder, tmp_path, monkeypatch):
    text = "lambda x: __import__('os').system('true')"
    save_params(folder, {"atv_weight": text, "sample_name": "(1+2j)"})
    loaded = load_nexus_params(convert_to_nxs(folder, tmp_path / "e.nxs"))
    assert loaded == {"atv_weight": text, "sample_name": "(1+2j)"}
    with pytest.raises(ParamError, match="atv_weight"):
        pyptyx.params.resolve(loaded, need=())


def test_a_saved_table_stays_a_schedule(folder, tmp_path):
    weight = 2
    save_params(folder, {"atv_weight": lambda x: weight * x, "epoch_max": 3})
    loaded = load_nexus_params(convert_to_nxs(folder, tmp_path / "t.nxs"))
    assert [loaded["atv_weight"](epoch) for epoch in range(4)] == [0, 2, 4, 6]


@pytest.fixture
def pypty_file(tmp_path):
    """A file as PyPty lays it out."""
    values = {
        "acc_voltage": 60,
        "slice_distances": np.array([10.0]),
        "epoch_max": np.array([30]),
        "positions": np.arange(6.0).reshape(3, 2),
        "sample_name": np.array(["1"], object),
        "compute_batch": np.array(["auto"], object),
        "aperture_mask": np.array(["auto"], object),
        "output_folder": np.array(["auto"], object),
        "update_probe": np.array(["lambda x: x > 3"], object),
        "hist_length": np.array(["inf"], object),
        "somebody_elses": np.array([2.5]),
        "software": np.array(["PyPty"], object),
        "dataset": np.array(["data.h5"], object),
    }
    path = tmp_path / "pypty.nxs"
    with h5py.File(path, "w") as file:
        group = file.create_group("entry/reconstruction/reconstruction parameters")
        for key, value in values.items():
            text = isinstance(value, np.ndarray) and value.dtype == object
            group.create_dataset(key, data=value, dtype=h5py.string_dtype() if text else None)
    return path


def test_files_of_pypty_are_read(pypty_file):
    params = load_nexus_params(pypty_file)
    assert_same(params.pop("slice_distances"), np.array([10.0]))
    assert_same(params.pop("positions"), np.arange(6.0).reshape(3, 2))
    assert params == {
        "acc_voltage": 60,
        "epoch_max": 30,
        "sample_name": "1",
        "compute_batch": "auto",
        "aperture_mask": None,
        "update_probe": "lambda x: x > 3",
        "hist_length": float("inf"),
        "somebody_elses": 2.5,
    }
    pyptyx.params.resolve({k: v for k, v in params.items() if k != "somebody_elses"}, need=())


def test_what_is_missing_is_said_at_once(tmp_path):
    np.save(tmp_path / "cp.npy", np.ones((3, 4)))
    with pytest.raises(DataError) as info:
        convert_to_nxs(tmp_path, tmp_path / "x.nxs")
    text = str(info.value)
    assert all(name in text for name in ("co.npy", "cg.npy", "3 or 4 axes"))
    assert not (tmp_path / "x.nxs").exists()


def test_a_cut_array_is_named(folder, tmp_path):
    path = folder / "ct.npy"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(DataError, match=r"ct\.npy"):
        convert_to_nxs(folder, tmp_path / "x.nxs")


def test_slices_that_do_not_fit_are_refused(folder, tmp_path):
    save_params(folder, {**PARAMS, "slice_distances": [1.0, 2.0, 3.0]})
    with pytest.raises(ParamError, match="slice_distances"):
        convert_to_nxs(folder, tmp_path / "x.nxs")


@pytest.mark.parametrize("content", [b"", b"no HDF5", None])
def test_a_file_that_is_no_nexus_file(tmp_path, content):
    path = tmp_path / "x.nxs"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"x\.nxs"):
        load_nexus_params(path)


def test_an_hdf5_file_without_parameters(tmp_path):
    with h5py.File(tmp_path / "x.nxs", "w") as file:
        file["data"] = np.ones(3)
    with pytest.raises(DataError, match="without parameters"):
        load_nexus_params(tmp_path / "x.nxs")


def test_a_damaged_document_is_refused(nxs):
    with h5py.File(nxs, "a") as file:
        del file["entry/reconstruction/parameters/data"]
        file["entry/reconstruction/parameters/data"] = np.bytes_(b"{")
    with pytest.raises(DataError, match="cannot be read"):
        load_nexus_params(nxs)


def test_a_failed_write_leaves_the_old_file(folder, tmp_path, nxs, monkeypatch):
    before = nxs.read_bytes()

    def full(*args, **kwargs):
        raise OSError("no space left")

    monkeypatch.setattr("pyptyx.output.nexus.write_parameters", full)
    with pytest.raises(OutputError, match="no space"):
        convert_to_nxs(folder, nxs)
    assert nxs.read_bytes() == before
    assert not list(tmp_path.glob(".*part*"))


def test_a_folder_without_log_and_sidecar(folder, tmp_path):
    for name in ("loss.csv", "checkpoint.json"):
        (folder / name).unlink()
    with h5py.File(convert_to_nxs(str(folder), str(tmp_path / "x.nxs"))) as file:
        assert "loss" not in file["entry"]
        assert datetime.fromisoformat(file["entry/end_time"].asstr()[()]).tzinfo is not None
