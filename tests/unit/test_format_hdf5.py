"""HDF5 files of other programs: orientation of the axes, calibrations, refusals."""

import json

import h5py
import numpy as np
import pytest

from pyptyx import load_data
from pyptyx.data.source import open_source
from pyptyx.errors import DataError

SCAN = (3, 5)
PATTERN = (4, 7)


@pytest.fixture
def stack():
    return np.random.default_rng(2).integers(0, 900, (*SCAN, *PATTERN)).astype(np.uint16)


def patterns(file):
    return np.concatenate([file.source.read([n]) for n in range(len(file.source))])


def found(file):
    return {f.key: f.value for f in file.calibrations}


def places(file):
    return {f.key: f.where for f in file.calibrations}


# ---- any HDF5 ----------------------------------------------------------------------------------


def test_storage_and_own_attributes(stack, tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("data", data=stack, chunks=(1, 5, 4, 7), compression="gzip")
        data.attrs["scan_step_A"] = 0.5
        file.attrs.update({"acc_voltage": 80, "scan_step_A": 9.0, "conv_semiangle_mrad": -1})
    with load_data(path) as file:
        assert (file.chunks, file.compression) == ((1, 5, 4, 7), "deflate")
        assert found(file) == {"scan_step_A": 0.5, "acc_voltage": 80}
        assert places(file)["acc_voltage"] == "a.h5: /@acc_voltage"
        assert file.missing == ("rez_pixel_size_mrad",)
        np.testing.assert_array_equal(patterns(file), stack.reshape(-1, *PATTERN))


def test_the_data_set_is_named_where_there_are_several(stack, tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["first"], file["deep/second"] = stack, stack[0]
    with pytest.raises(DataError, match=r"/deep/second \(5, 4, 7\).*/first \(3, 5, 4, 7\)"):
        load_data(path)
    with load_data(path, "deep/second") as file:
        assert file.to_experiment()["h5_key"] == "/deep/second"


def test_a_missing_filter_names_the_extra(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        creation.set_chunk((1, 4, 7))
        creation.set_filter(32099, h5py.h5z.FLAG_OPTIONAL)
        space = h5py.h5s.create_simple((6, 4, 7))
        h5py.h5d.create(file.id, b"data", h5py.h5t.NATIVE_INT32, space, creation)
    with pytest.raises(DataError, match=r"32099.*pyptyx\[io\]"):
        load_data(path)


def test_a_data_set_larger_than_memory_opens(tmp_path):
    path = tmp_path / "big.h5"
    shape = (2048, 500, 256, 300)
    with h5py.File(path, "w") as file:
        data = file.create_dataset("data", shape, "u2", chunks=(1, 2, 256, 300))
        data[2047, 3] = 7
        assert data.nbytes > 150e9
    with load_data(path) as file:
        assert file.shape == shape
        assert (file.source.read([2047 * 500 + 3]) == 7).all()


# ---- MATLAB ------------------------------------------------------------------------------------


def write_matlab(path, array, name="dp"):
    """As MATLAB does: its array with all axes in reverse."""
    with h5py.File(path, "w") as file:
        file[name] = array.transpose()
        file[name].attrs["MATLAB_class"] = np.bytes_(b"uint16")


def test_matlab_axes_are_put_in_order(stack, tmp_path):
    flat = stack.reshape(-1, *PATTERN)
    write_matlab(tmp_path / "flat.mat", flat.transpose(1, 2, 0))
    with load_data(tmp_path / "flat.mat") as file:
        np.testing.assert_array_equal(patterns(file), flat)
        np.testing.assert_array_equal(file.source.read([4, 1, 4]), flat[[4, 1, 4]])
    write_matlab(tmp_path / "scan.mat", stack.transpose(2, 3, 0, 1), "cbed")
    with load_data(tmp_path / "scan.mat") as file:
        assert file.shape == stack.shape
        assert file.format == "MATLAB v7.3"
        np.testing.assert_array_equal(patterns(file), flat)
        np.testing.assert_array_equal(file.source.mean(), flat.mean(axis=0))


def test_matlab_patterns_are_turned_after_that(stack, tmp_path):
    write_matlab(tmp_path / "a.mat", stack.transpose(2, 3, 0, 1))
    with open_source(tmp_path / "a.mat", flip_ky=True, transpose=True, scan_size=SCAN) as source:
        assert source.scan_size == SCAN
        assert source.shape == (15, 7, 4)
        np.testing.assert_array_equal(source.read([6])[0], stack[1, 1, ::-1].T)
    with pytest.raises(DataError, match="scan_size"):
        open_source(tmp_path / "a.mat", scan_size=SCAN[::-1])


def test_the_same_file_from_python_is_read_as_stored(stack, tmp_path):
    with h5py.File(tmp_path / "a.mat", "w") as file:
        file["dp"] = stack[0]
    with load_data(tmp_path / "a.mat") as file:
        np.testing.assert_array_equal(patterns(file), stack[0])
        assert "fold_slice" in file.notes[0]


# ---- EMD, HyperSpy, Nion, CXI ------------------------------------------------------------------


def write_emd(path, stack, *, first=0, units=("nm", "nm", "A^-1", "A^-1"), group="tree/cube"):
    with h5py.File(path, "w") as file:
        file[f"{group}/data"] = stack
        for i, (unit, step) in enumerate(zip(units, (0.25, 0.25, 0.04, 0.04), strict=True)):
            file[f"{group}/dim{i + first}"] = np.arange(2) * step
            file[f"{group}/dim{i + first}"].attrs["units"] = unit
    return path


@pytest.mark.parametrize(
    ("first", "units"),
    [(0, ("nm", "nm", "A^-1", "A^-1")), (1, ("[n_m]", "[n_m]", "[A^-1]", "[A^-1]"))],
)
def test_emd_axes(first, units, stack, tmp_path):
    with load_data(write_emd(tmp_path / "a.emd", stack, first=first, units=units)) as file:
        assert found(file) == {
            "scan_step_A": pytest.approx(2.5),
            "rez_pixel_size_A": pytest.approx(0.04),
        }
        assert places(file)["scan_step_A"] == f"a.emd: /tree/cube/dim{1 + first}"
        np.testing.assert_array_equal(patterns(file), stack.reshape(-1, *PATTERN))


def test_py4dstem_calibration_wins_over_its_axes(stack, tmp_path):
    path = write_emd(tmp_path / "a.h5", stack)
    with h5py.File(path, "a") as file:
        group = file.create_group("tree/metadatabundle/calibration")
        group["R_pixel_size"], group["R_pixel_units"] = 3.0, "A"
        group["Q_pixel_size"], group["Q_pixel_units"] = 0.7, "mrad"
        group["QR_rotation"] = np.pi / 6
        group["QR_flip"] = "not a number"
    with load_data(path) as file:
        said = found(file)
        assert said["scan_step_A"] == 3.0
        assert said["rez_pixel_size_mrad"] == 0.7
        assert said["scan_rotation_deg"] == pytest.approx(30)
        assert "detector_flip" not in said
        assert "PLRotation_deg" not in file.to_experiment()
    with h5py.File(path, "a") as file:
        group = file["tree/metadatabundle/calibration"]
        del group["Q_pixel_units"]
        group["Q_pixel_units"] = "nm^-1"
    with load_data(path) as file:
        assert found(file)["rez_pixel_size_A"] == pytest.approx(0.07)


def test_prismatic_labels_are_corrected_by_its_own_step(stack, tmp_path):
    units = ("[n_m]", "[n_m]", "[n_m^-1]", "[n_m^-1]")
    place = "4DSTEM_simulation/metadata/metadata_0/original/simulation_parameters"
    path = write_emd(tmp_path / "a.emd", stack, first=1, units=units)
    with h5py.File(path, "a") as file:
        file.create_group(place).attrs.update({"E": 100.0, "sa": 30.0, "ry": 0.25})
    with load_data(path) as file:
        assert found(file) == {
            "acc_voltage": 100,
            "conv_semiangle_mrad": 30,
            "scan_step_A": pytest.approx(0.25),
            "rez_pixel_size_A": pytest.approx(0.04),
        }
    with h5py.File(path, "a") as file:
        file[place].attrs["ry"] = 2.5  # now the labels are right
    with load_data(path) as file:
        assert found(file)["scan_step_A"] == pytest.approx(2.5)


def test_images_in_emd_are_refused(stack, tmp_path):
    path = write_emd(tmp_path / "a.emd", stack, units=("s", "s", "nm", "nm"))
    with pytest.raises(DataError, match="images in real space"):
        load_data(path)


def test_hyperspy(stack, tmp_path):
    path = tmp_path / "a.hspy"
    with h5py.File(path, "w") as file:
        group = file.create_group("Experiments/scan")
        group["data"] = stack
        for i, (scale, unit) in enumerate([(2, "nm"), (2, "nm"), (0.1, "1/nm"), (0.2, "1/nm")]):
            group.create_group(f"axis-{i}").attrs.update({"scale": scale, "units": unit})
        microscope = group.create_group("metadata/Acquisition_instrument/TEM")
        microscope.attrs.update({"beam_energy": 200.0, "convergence_angle": 1.5})
    with load_data(path) as file:
        assert file.format == "HyperSpy"
        assert found(file) == {
            "scan_step_A": 20.0,
            "detector_pixel_per_A": (pytest.approx(0.01), pytest.approx(0.02)),
            "acc_voltage": 200,
            "conv_semiangle_mrad": 1.5,
        }
        # Unequal pixels are told, but no one number is made of them; the semi-angle serves.
        assert "rez_pixel_size_A" not in file.to_experiment()
        assert file.missing == ()


def test_nion_hdf5(stack, tmp_path):
    path = tmp_path / "a.h5"
    tree = {
        "metadata": {"instrument": {"high_tension": 1e5}},
        "dimensional_calibrations": [{"scale": 0.3, "units": "nm"}] * 2
        + [{"scale": 1.5, "units": "mrad"}] * 2,
    }
    with h5py.File(path, "w") as file:
        file["data"] = stack
        file["data"].attrs["properties"] = json.dumps(tree)
    with load_data(path) as file:
        assert file.format == "Nion Swift HDF5"
        assert found(file) == {
            "acc_voltage": pytest.approx(100),
            "scan_step_A": pytest.approx(3),
            "rez_pixel_size_mrad": 1.5,
        }
    with h5py.File(path, "a") as file:
        file["data"].attrs["properties"] = "{broken"
    with load_data(path) as file:
        assert found(file) == {}


def test_cxi(stack, tmp_path):
    path = tmp_path / "a.cxi"
    with h5py.File(path, "w") as file:
        file["cxi_version"] = 160
        group = file.create_group("entry_1/instrument_1")
        group["source_1/wavelength"] = 1.5e-10
        group["detector_1/distance"] = 2.0
        group["detector_1/x_pixel_size"] = group["detector_1/y_pixel_size"] = 4e-5
        group["detector_1/data"] = stack[0]
        file["entry_1/data_1/data"] = h5py.SoftLink("/entry_1/instrument_1/detector_1/data")
    with load_data(path) as file:
        assert found(file) == {
            "wavelength_A": pytest.approx(1.5),
            "rez_pixel_size_mrad": pytest.approx(0.02),
        }
        assert file.missing == ("scan_size", "scan_step_A")
        np.testing.assert_array_equal(patterns(file), stack[0])
