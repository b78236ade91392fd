"""NumPy files and archives, with and without the metadata of Nion Swift."""

import json
import zipfile

import numpy as np
import pytest

from pyptyx import load_data
from pyptyx.errors import DataError

SCAN = (3, 5)
PATTERN = (4, 7)


@pytest.fixture
def stack():
    return np.random.default_rng(1).integers(0, 900, (*SCAN, *PATTERN)).astype(np.uint16)


def patterns(file):
    """Every pattern on its own, so that a wrong order cannot hide."""
    return np.concatenate([file.source.read([n]) for n in range(len(file.source))])


NION = {
    "metadata": {
        "hardware_source": {"high_tension_v": 60000, "defocus": -4e-9},
        "scan": {"fov_nm": 2.5},
    },
    "dimensional_calibrations": [
        {"scale": 0.6, "units": "nm"},
        {"scale": 0.5, "units": "nm"},
        {"scale": 0.002, "units": "rad"},
        {"scale": 0.002, "units": "rad"},
    ],
}


def found(file):
    return {f.key: f for f in file.calibrations}


def write_ndata(path, stack, tree):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("data.npy", "w") as member:
            np.lib.format.write_array(member, stack)
        archive.writestr("metadata.json", json.dumps(tree))


@pytest.mark.parametrize("kind", ["npy", "stored", "compressed", "ndata", "fortran"])
def test_every_pattern_is_where_it_belongs(kind, stack, tmp_path):
    path = tmp_path / {"npy": "a.npy", "ndata": "a.ndata"}.get(kind, "a.npz")
    if kind == "npy":
        np.save(path, stack)
    elif kind == "ndata":
        write_ndata(path, stack, {})
    elif kind == "compressed":
        np.savez_compressed(path, stack=stack)
    else:
        np.savez(path, stack=np.asfortranarray(stack) if kind == "fortran" else stack)
    with load_data(path) as file:
        assert file.shape == stack.shape
        assert file.scan_size == SCAN
        assert file.compression == ("deflate" if kind == "compressed" else "")
        np.testing.assert_array_equal(patterns(file), stack.reshape(-1, *PATTERN))


def test_a_stored_archive_is_mapped_and_not_read(stack, tmp_path, monkeypatch):
    np.savez(tmp_path / "a.npz", small=np.zeros(2), stack=stack)

    def read_array(*_, **__):
        raise AssertionError("the whole array was read")

    monkeypatch.setattr(np.lib.format, "read_array", read_array)
    with load_data(tmp_path / "a.npz") as file:
        np.testing.assert_array_equal(file.source.read([7])[0], stack[1, 2])


def test_members_are_chosen_by_name_or_listed(stack, tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, first=stack, second=stack[0], small=np.zeros(2))
    with pytest.raises(DataError, match=r"first \(3, 5, 4, 7\) uint16, second \(5, 4, 7\)"):
        load_data(path)
    with pytest.raises(DataError, match=r"'third'.*second"):
        load_data(path, "third")
    with load_data(path, "second") as file:
        assert file.shape == (5, 4, 7)
        assert file.dataset == "second"


def test_metadata_beside_an_npy_file(stack, tmp_path):
    np.save(tmp_path / "a.npy", stack)
    (tmp_path / "a.json").write_text(json.dumps(NION))
    with load_data(tmp_path / "a.npy") as file:
        said = found(file)
        experiment = file.to_experiment()
    assert said["acc_voltage"].value == pytest.approx(60)
    assert said["acc_voltage"].where == "a.json: metadata.hardware_source.high_tension_v"
    assert said["defocus"].value == pytest.approx(40)
    assert said["scan_step_A"].value == pytest.approx(5.0)
    assert said["scan_step_A"].where.endswith("[1]")
    assert said["transform_axis_matrix"].value[0][0] == pytest.approx(1.2)
    assert said["rez_pixel_size_mrad"].value == pytest.approx(2)
    assert file.missing == ()
    assert "fov_nm" not in experiment
    assert experiment["scan_size"] == SCAN


def test_a_strange_file_beside_the_data_says_nothing(stack, tmp_path):
    np.save(tmp_path / "a.npy", stack)
    for text in ("[1, 2]", "{broken", '{"metadata": {"hardware_source": {"high_tension_v": "x"}}}'):
        (tmp_path / "a.json").write_text(text)
        with load_data(tmp_path / "a.npy") as file:
            assert file.calibrations == ()


def test_scan_size_of_the_metadata_divides_a_flat_stack(stack, tmp_path):
    np.save(tmp_path / "a.npy", stack.reshape(-1, *PATTERN))
    (tmp_path / "a.json").write_text(json.dumps({"metadata": {"scan": {"scan_size": [3, 5]}}}))
    with load_data(tmp_path / "a.npy") as file:
        assert file.shape == (*SCAN, *PATTERN)
    (tmp_path / "a.json").write_text(json.dumps({"metadata": {"scan": {"scan_size": [3, 6]}}}))
    with load_data(tmp_path / "a.npy") as file:
        assert file.shape == (15, *PATTERN)
        assert "scan_size" in file.missing
        assert "scan_size" not in file.to_experiment()


def test_images_and_spectra_are_refused_by_their_axes(stack, tmp_path):
    lengths = [{"scale": 1.0, "units": "nm"}] * 4
    write_ndata(tmp_path / "a.ndata", stack, {"dimensional_calibrations": lengths})
    with pytest.raises(DataError, match="images in real space"):
        load_data(tmp_path / "a.ndata")
    energies = [*lengths[:3], {"scale": 1.0, "units": "eV"}]
    write_ndata(tmp_path / "b.ndata", stack, {"dimensional_calibrations": energies})
    with pytest.raises(DataError, match="spectra"):
        load_data(tmp_path / "b.ndata")


def test_archives_that_cannot_be_read(stack, tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, stack=stack)
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(DataError, match="complete archive"):
        load_data(path)
    np.savez(path, stack=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="0 arrays with three or four axes"):
        load_data(path)
    with pytest.raises(DataError, match="never loaded"):
        load_data(path, "stack")


def test_a_large_compressed_array_is_refused(stack, tmp_path, monkeypatch):
    monkeypatch.setattr("pyptyx.data.formats.arrays._IN_MEMORY_BYTES", 100)
    np.savez_compressed(tmp_path / "a.npz", stack=stack)
    with pytest.raises(DataError, match=r"numpy\.savez"):
        load_data(tmp_path / "a.npz")


def test_a_stack_larger_than_memory_opens(tmp_path):
    path = tmp_path / "big.npy"
    shape = (400, 500, 256, 300)
    with open(path, "wb") as file:
        header = {"descr": "<f8", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        start = file.tell()
        file.truncate(start + 8 * int(np.prod(shape, dtype=np.int64)))
        file.seek(start + 8 * ((399 * 500 + 7) * 256 * 300 + 300 + 2))
        file.write(np.float64(5).tobytes())
    assert path.stat().st_size > 100e9
    with load_data(path) as file:
        assert file.shape == shape
        assert file.source.read([399 * 500 + 7])[0, 1, 2] == 5
