"""Files of detectors: EMPAD, DECTRIS master files, Velox."""

import json

import h5py
import numpy as np
import pytest

from pyptyx import load_data
from pyptyx.data.source import open_source
from pyptyx.errors import DataError

FRAME = (130, 128)


def found(file):
    return {f.key: f.value for f in file.calibrations}


# ---- EMPAD -------------------------------------------------------------------------------------

XML = """<root><raw_file filename="{raw}"/><exposure_time>1</exposure_time>
<scan_parameters mode="search"><scan_resolution_y>9</scan_resolution_y>
<scan_resolution_x>9</scan_resolution_x></scan_parameters>
<scan_parameters mode="acquire"><scan_resolution_y>3</scan_resolution_y>
<scan_resolution_x>2</scan_resolution_x></scan_parameters>
<iom_measurements><scan_rotation>12.5</scan_rotation>
<full_scan_field_of_view><x>1.2e-06</x></full_scan_field_of_view>
<nominal_camera_length>0.369</nominal_camera_length><high_voltage>300000.0</high_voltage>
</iom_measurements></root>"""


@pytest.fixture
def frames():
    return np.random.default_rng(3).normal(size=(6, *FRAME)).astype("<f4")


def test_empad_with_its_xml(frames, tmp_path):
    frames.tofile(tmp_path / "scan_1.raw")
    (tmp_path / "EMPAD_a.xml").write_text(XML.format(raw="C:\\data\\scan_1.raw"))
    (tmp_path / "other.xml").write_text("<broken")
    for name in ("scan_1.raw", "EMPAD_a.xml"):
        with load_data(tmp_path / name) as file:
            assert file.shape == (3, 2, 128, 128)
            assert found(file) == {
                "acc_voltage": 300,
                "camera_length_mm": pytest.approx(369),
                "scan_rotation_deg": 12.5,
                "field_of_view_nm": pytest.approx(1200),
                "exposure_time_ms": 1,
            }
            assert file.missing == ("scan_step_A", "rez_pixel_size_mrad")
            assert file.bytes_on_disk == frames.nbytes
            for n in range(6):
                np.testing.assert_array_equal(file.source.read([n])[0], frames[n, :128])


def test_empad_without_xml(frames, tmp_path):
    frames.tofile(tmp_path / "scan_x2_y3.raw")
    with load_data(tmp_path / "scan_x2_y3.raw") as file:
        assert file.scan_size == (3, 2)
    frames.tofile(tmp_path / "plain.raw")
    with load_data(tmp_path / "plain.raw") as file:
        assert file.shape == (6, 128, 128)
        assert "scan_size" in file.missing
    with open_source(tmp_path / "scan_x2_y3.raw", scan_size=(2, 3), transpose=True) as source:
        assert source.scan_size == (2, 3)
        np.testing.assert_array_equal(source.read([4])[0], frames[4, :128].T)


def test_empad_files_that_do_not_fit(frames, tmp_path):
    path = tmp_path / "scan_x2_y3.raw"
    path.write_bytes(frames.tobytes()[:-4])
    with pytest.raises(DataError, match=r"130 x 128 float32.*5 frames and 66556 bytes more"):
        load_data(path)
    frames[:5].tofile(path)
    with pytest.raises(DataError, match=r"scan_size: expected Ny x Nx = 5.*3 x 2 = 6"):
        load_data(path)
    (tmp_path / "a.xml").write_text(XML.format(raw="gone.raw"))
    with pytest.raises(DataError, match=r"no gone\.raw beside it"):
        load_data(tmp_path / "a.xml")
    (tmp_path / "a.xml").write_text("<html/>")
    with pytest.raises(DataError, match="XML file of EMPAD"):
        load_data(tmp_path / "a.xml")


def test_an_empad_scan_larger_than_memory_opens(tmp_path):
    path = tmp_path / "scan_x1200_y1400.raw"
    count = 1200 * 1400
    with open(path, "wb") as file:
        file.truncate(count * 130 * 128 * 4)
        file.seek((count - 2) * 130 * 128 * 4 + 4 * (128 + 5))
        file.write(np.float32(3).tobytes())
    assert path.stat().st_size > 100e9
    with load_data(path) as file:
        assert file.shape == (1400, 1200, 128, 128)
        assert file.source.read([count - 2])[0, 1, 5] == 3


# ---- DECTRIS -----------------------------------------------------------------------------------


@pytest.fixture
def stack():
    return np.random.default_rng(4).integers(0, 900, (10, 4, 7)).astype(np.uint32)


def write_master(folder, stack, lengths, *, microscope=None):
    start = 0
    with h5py.File(folder / "a_master.h5", "w") as master:
        for i, length in enumerate(lengths, 1):
            name = f"a_data_{i:06}.h5"
            with h5py.File(folder / name, "w") as file:
                part = stack[start : start + length]
                file.create_dataset(
                    "entry/data/data", data=part, chunks=(1, *stack.shape[1:]), compression="gzip"
                )
            start += length
            master[f"entry/data/data_{i:06}"] = h5py.ExternalLink(name, "entry/data/data")
        detector = master.create_group("entry/instrument/detector")
        detector["detectorSpecific/photon_energy"] = 2e5
        detector["saturation_value"] = 800
        master["entry/instrument/detector/flatfield"] = np.ones((3, 4, 7))
    if microscope is not None:
        with h5py.File(folder / "a.h5", "w") as file:
            group = file.create_group("STEM Metadata")
            group.attrs.update({key: np.array([value]) for key, value in microscope.items()})
    return folder / "a_master.h5"


def test_a_master_file_is_one_stack(stack, tmp_path):
    path = write_master(tmp_path, stack, (4, 1, 5))
    with load_data(path) as file:
        assert file.shape == (10, 4, 7)
        for n in range(10):
            np.testing.assert_array_equal(file.source.read([n])[0], stack[n])
        wanted = [9, 5, 3, 4, 5, 0]
        np.testing.assert_array_equal(file.source.read(wanted), stack[wanted])
        np.testing.assert_array_equal(file.source.read(slice(2, 8)), stack[2:8])
        assert file.source.read([]).shape == (0, 4, 7)
        assert found(file) == {"acc_voltage": 200, "saturation_counts": 800}
        assert file.bytes_on_disk > path.stat().st_size
    with pytest.raises(DataError, match="closed"):
        file.source.read([0])


def test_the_microscope_speaks_beside_the_master_file(stack, tmp_path):
    microscope = {
        "NumPixelsX": 2, "NumPixelsY": 5, "High Tension": 3e5, "Pixel Size": 0.05,
        "IsPixelSizeCalibrated": 0, "Camera Length": 0.1, "Rotation": -20.0,
    }  # fmt: skip
    path = write_master(tmp_path, stack, (10,), microscope=microscope)
    with load_data(path) as file:
        said = found(file)
        assert file.shape == (5, 2, 4, 7)
        assert said["acc_voltage"] == 300
        assert said["scan_step_A"] == pytest.approx(0.5)
        assert said["scan_rotation_deg"] == -20
        assert "not calibrated" in file.notes[0]
        assert file.missing == ("rez_pixel_size_mrad",)
    with open_source(path, scan_size=(2, 5)) as source:
        assert source.scan_size == (2, 5)


def test_only_the_frames_asked_for_are_read(stack, tmp_path, monkeypatch):
    path = write_master(tmp_path, stack, (4, 6))
    read = []
    original = h5py.Dataset.__getitem__

    def spy(dataset, key, **options):
        if dataset.ndim == 3:
            read.append((dataset.file.filename[-4:], key))
        return original(dataset, key, **options)

    with load_data(path) as file:
        monkeypatch.setattr(h5py.Dataset, "__getitem__", spy)
        file.source.read([5, 4])
    assert read == [("2.h5", slice(0, 2))]


def test_data_files_that_are_missing_or_do_not_match(stack, tmp_path):
    path = write_master(tmp_path, stack, (4, 6))
    with h5py.File(tmp_path / "a_data_000002.h5", "w") as file:
        file["entry/data/data"] = stack[:, :3]
    with pytest.raises(DataError, match=r"one shape.*\(10, 3, 7\)"):
        load_data(path)
    (tmp_path / "a_data_000002.h5").unlink()
    with pytest.raises(DataError, match=r"a_data_000002\.h5 missing"):
        load_data(path)


# ---- Velox -------------------------------------------------------------------------------------


def write_velox(path, frames, tree, *, more=()):
    text = np.zeros((500, frames.shape[2]), np.uint8)
    content = json.dumps(tree).encode()
    text[: len(content), 0] = np.frombuffer(content, np.uint8)
    with h5py.File(path, "w") as file:
        file["Version"] = "1.0"
        file["Data/Image/abc/Data"] = frames
        file["Data/Image/abc/Metadata"] = text
        for name, array in more:
            file[f"Data/Image/{name}/Data"] = array
    return path


VELOX = {
    "BinaryResult": {
        "PixelSize": {"width": "2e8", "height": "2e8"}, "PixelUnitX": "1/m", "PixelUnitY": "1/m",
    },
    "Optics": {
        "AccelerationVoltage": "200000", "BeamConvergence": "0.025", "CameraLength": "0.3",
        "Defocus": "-1e-8",
    },
    "Scan": {"ScanRotation": "0.5235987755982988"},
}  # fmt: skip


def test_velox_frames_come_first(stack, tmp_path):
    path = write_velox(
        tmp_path / "a.emd", np.moveaxis(stack, 0, 2), VELOX, more=[("img", np.ones((4, 7, 1)))]
    )
    with load_data(path) as file:
        assert file.shape == (10, 4, 7)
        assert file.dataset == "/Data/Image/abc/Data"
        for n in range(10):
            np.testing.assert_array_equal(file.source.read([n])[0], stack[n])
        assert found(file) == {
            "rez_pixel_size_A": pytest.approx(0.02),
            "acc_voltage": 200,
            "conv_semiangle_mrad": 25,
            "camera_length_mm": 300,
            "scan_rotation_deg": pytest.approx(30),
            "defocus_of_microscope_m": -1e-8,
        }
        assert file.missing == ("scan_size", "scan_step_A")
        assert "defocus" not in file.to_experiment()


def test_velox_images_are_refused(stack, tmp_path):
    frames = np.moveaxis(stack, 0, 2)
    lengths = {"BinaryResult": VELOX["BinaryResult"] | {"PixelUnitX": "nm", "PixelUnitY": "nm"}}
    with pytest.raises(DataError, match="images in real space"):
        load_data(write_velox(tmp_path / "a.emd", frames, lengths))
    with pytest.raises(DataError, match="0 series; 1 data sets of images"):
        load_data(write_velox(tmp_path / "a.emd", frames[..., :1], VELOX))
    with pytest.raises(DataError, match="a single image"):
        load_data(tmp_path / "a.emd", "Data/Image/abc/Data")
    more = [("second", frames[:, :6])]
    with pytest.raises(DataError, match=r"/Data/Image/second/Data \(4, 6, 10\)"):
        load_data(write_velox(tmp_path / "a.emd", frames, VELOX, more=more))
