"""Results of PtyRAD, py4DSTEM and phaser as a start: layouts, positions, counts."""

import h5py
import numpy as np
import pytest

import pyptyx
from pyptyx.errors import DataError, ParamError

MO, NZ, Y, X = 2, 3, 14, 19
MP, NY, NX = 4, 6, 9
N = 5


@pytest.fixture
def rng():
    return np.random.default_rng(8)


def waves(rng, *shape):
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


def intensity(probe, orthonormal):
    """Sum over modes of what the other program calls the pattern; probe (Mp, ny, nx)."""
    return (np.abs(np.fft.fft2(probe, norm="ortho" if orthonormal else None)) ** 2).sum(axis=0)


def our_intensity(probe):
    """Mean over modes of our pattern; probe (ny, nx, Mp)."""
    return (np.abs(np.fft.fft2(probe, axes=(0, 1))) ** 2).mean(axis=2)


def test_ptyrad(rng, tmp_path):
    amplitude, phase = rng.uniform(0.5, 1, (MO, NZ, Y, X)), rng.normal(size=(MO, NZ, Y, X))
    probe = waves(rng, MP, NY, NX)
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        tensors = file.create_group("optimizable_tensors")
        tensors["obja"], tensors["objp"], tensors["probe"] = amplitude, phase, probe
        tensors["probe_pos_shifts"] = np.full((N, 2), (0.25, -0.5))
        tensors["slice_thickness"] = 10.0
        attributes = file.create_group("model_attributes")
        attributes["crop_pos"] = np.arange(2 * N).reshape(N, 2)
        attributes["dx"] = 0.15
        attributes["omode_occu"] = np.array([0.25, 0.75])
        file["params/init_params/probe_kv"] = 80
    params = pyptyx.load_result(tmp_path / "a.hdf5")
    expected = (amplitude * np.exp(1j * phase)).transpose(2, 3, 1, 0)
    np.testing.assert_allclose(params["obj"][:, :, :-1], expected[:, :, :-1])
    # Weights of the object modes: our mean must give their weighted sum.
    np.testing.assert_allclose(params["obj"][:, :, -1], expected[:, :, -1] * np.sqrt([0.5, 1.5]))
    np.testing.assert_allclose(our_intensity(params["probe"]), intensity(probe, True))
    corners = np.arange(10).reshape(5, 2) + np.array([0.25, -0.5])
    np.testing.assert_allclose(params["positions"], corners)
    assert (params["num_slices"], params["slice_distances"]) == (NZ, [10])
    assert (params["pixel_size_y_A"], params["acc_voltage"]) == (0.15, 80)
    assert params["probe_is_aberrated"] is True


def test_ptyrad_probe_as_pairs_and_counts(rng, tmp_path):
    probe = waves(rng, MP, NY, NX)
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        tensors = file.create_group("optimizable_tensors")
        tensors["obja"] = tensors["objp"] = np.ones((1, 1, Y, X))
        tensors["probe"] = np.stack([probe.real, probe.imag], axis=-1)
        tensors["probe_pos_shifts"] = np.zeros((N, 2))
        file["model_attributes/crop_pos"] = np.zeros((N, 2))
    params = pyptyx.load_result(tmp_path / "a.hdf5", counts=321.0)
    assert our_intensity(params["probe"]).sum() == pytest.approx(321)
    ratio = params["probe"] / probe.transpose(1, 2, 0)
    np.testing.assert_allclose(ratio, ratio[0, 0, 0])
    assert "slice_distances" not in params
    with pytest.raises(ParamError, match="counts"):
        pyptyx.load_result(tmp_path / "a.hdf5", counts=0)


def write_py4dstem(path, obj, probe):
    with h5py.File(path, "w") as file:
        group = file.create_group("ptychography_root/ptychography")
        group["_object_emd/data"] = obj
        group["_object_iterations_emd/data"] = np.stack([obj, obj])
        group["_probe_emd/data"] = probe
        made = group.create_group("metadatabundle/instantiation_metadata")
        made["energy"] = 3e5
        for i, gap in enumerate((7.0, 8.0)):
            made[f"slice_thicknesses/{i}"] = gap
        setup = group.create_group("metadatabundle/preprocess_metadata")
        setup["data_transpose"] = True
        setup["sampling"] = np.array([0.2, 0.3])
        setup["positions_px"] = np.arange(2.0 * N).reshape(N, 2) + 20.5


def test_py4dstem(rng, tmp_path, caplog):
    obj, probe = waves(rng, NZ, Y, X), waves(rng, MP, NY, NX)
    write_py4dstem(tmp_path / "a.h5", obj, probe)
    params = pyptyx.load_result(tmp_path / "a.h5")
    assert "transpose_patterns" in caplog.text
    np.testing.assert_array_equal(params["obj"][..., 0], obj.transpose(1, 2, 0))
    # The corner of their probe is the centre of ours.
    np.testing.assert_allclose(params["probe"][NY // 2, NX // 2], 2 * probe[:, 0, 0])
    np.testing.assert_allclose(our_intensity(params["probe"]), intensity(probe, False))
    np.testing.assert_allclose(params["positions"][0], [20.5 - 3, 21.5 - 4])
    np.testing.assert_array_equal(params["slice_distances"], [7, 8])
    assert (params["pixel_size_y_A"], params["pixel_size_x_A"]) == (0.2, 0.3)
    assert params["acc_voltage"] == 300


def test_py4dstem_potential_of_one_slice(rng, tmp_path):
    potential, probe = rng.normal(size=(Y, X)), waves(rng, NY, NX)
    write_py4dstem(tmp_path / "a.h5", potential, probe)
    params = pyptyx.load_result(tmp_path / "a.h5")
    np.testing.assert_allclose(params["obj"][:, :, 0, 0], np.exp(1j * potential))
    assert params["probe"].shape == (NY, NX, 1)


@pytest.mark.parametrize("version", ["0.1", "0.2"])
def test_phaser(version, rng, tmp_path):
    obj, probe = waves(rng, NZ, Y, X), waves(rng, MP, NY, NX)
    centres = rng.uniform(-1, 2, (1, N, 2))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["type"], file["version"] = "phaser_state", version
        file["wavelength"] = 0.0486606
        file["object/data"], file["object/thicknesses"] = obj, np.array([5.0, 6.0, 7.0])
        file["object/sampling"], file["object/corner"] = np.array([0.2, 0.3]), np.array([-4.0, -5])
        file["probe/data"] = probe
        file["scan" if version == "0.1" else "scan/data"] = centres
    params = pyptyx.load_result(tmp_path / "a.h5")
    np.testing.assert_array_equal(params["obj"][..., 0], obj.transpose(1, 2, 0))
    np.testing.assert_allclose(our_intensity(params["probe"]), intensity(probe, True))
    corner = (centres[0] - [-4, -5]) / [0.2, 0.3] - [2.5, 4]
    np.testing.assert_allclose(params["positions"], corner)
    np.testing.assert_array_equal(params["slice_distances"], [5, 6])
    assert params["acc_voltage"] == pytest.approx(60, rel=1e-4)


def test_what_is_no_result(rng, tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = np.zeros((3, 4, 5))
    with pytest.raises(DataError, match=r"groups data.*load_data"):
        pyptyx.load_result(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["type"] = "phaser_state"
    with pytest.raises(DataError, match="cannot be read"):
        pyptyx.load_result(tmp_path / "a.h5")
    (tmp_path / "a.h5").write_bytes(b"no")
    with pytest.raises(DataError, match="complete HDF5 file"):
        pyptyx.load_result(tmp_path / "a.h5")


def test_a_run_starts_from_a_result(rng, tmp_path):
    """A result that explains the data exactly leaves no loss: layouts, positions and counts fit."""
    ny, nx, scan = 8, 10, (3, 4)
    probe = waves(rng, 2, ny, nx)
    obj = np.exp(1j * rng.normal(scale=0.3, size=(1, 17, 22)))
    corners = np.indices(scan).reshape(2, -1).T * [3, 4]
    patches = np.stack([obj[0, y : y + ny, x : x + nx] for y, x in corners])
    waves_out = np.fft.fft2(probe * patches[:, None], norm="ortho")
    data = np.fft.fftshift((np.abs(waves_out) ** 2).sum(axis=1), axes=(-2, -1))
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        tensors = file.create_group("optimizable_tensors")
        tensors["obja"], tensors["objp"] = np.abs(obj)[None], np.angle(obj)[None]
        tensors["probe"], tensors["probe_pos_shifts"] = probe, np.zeros((12, 2))
        file["model_attributes/crop_pos"] = corners
    params = pyptyx.append_exp_params(
        {
            "dataset": data, "scan_size": scan, "scan_step_A": 1.0, "acc_voltage": 80,
            "rez_pixel_size_A": 0.05, "data_pad": 0, "PLRotation_deg": 0.0, "output_folder": None,
        }
    )  # fmt: skip
    params.update(pyptyx.load_result(tmp_path / "a.hdf5"))
    params |= {
        "damping_cutoff_multislice": 10.0,
        "algorithm": "lsq",
        "default_dtype": "double",
        "output_folder": None,
    }
    _, value, _ = pyptyx.loss_and_gradient(params)
    params["probe"] = params["probe"] * 1.1
    _, wrong, _ = pyptyx.loss_and_gradient(params)
    assert value < 1e-15 * wrong
