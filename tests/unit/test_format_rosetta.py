"""Formats read through RosettaSciIO: our side with a stand-in, and real files where it is there."""

import sys
import types

import numpy as np
import pytest

from pyptyx import load_data
from pyptyx.data.source import open_source
from pyptyx.errors import DataError

SCAN = (3, 5)
PATTERN = (4, 7)


class Lazy:
    """The part of a Dask array that is used: slices that are computed when asked."""

    def __init__(self, array, chunksize, computed):
        self.array, self.chunksize, self.computed = array, chunksize, computed
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim

    def __getitem__(self, key):
        return Lazy(self.array[key], self.chunksize, self.computed)

    def compute(self, scheduler):
        assert scheduler == "synchronous"
        self.computed.append(self.shape)
        return self.array


@pytest.fixture
def stack():
    return np.random.default_rng(5).integers(0, 900, (*SCAN, *PATTERN)).astype(np.uint16)


def axis(scale=1.0, units=""):
    return {"scale": scale, "units": units}


CALIBRATED = [axis(0.5, "nm"), axis(0.4, "nm"), axis(0.25, "1/nm"), axis(0.25, "1/nm")]


@pytest.fixture
def plugin(monkeypatch):
    """A stand-in for a plug-in: give it signals, it tells what was computed and which blocks."""
    module = types.ModuleType("rsciio.digitalmicrograph")
    module.signals, module.computed, module.chunks = [], [], []

    def file_reader(filename, lazy=False, chunks="auto"):
        assert lazy
        module.chunks.append(chunks)
        return [
            {
                "data": Lazy(array, array.shape if chunks == "auto" else chunks, module.computed),
                "axes": axes,
                "metadata": metadata,
            }
            for array, axes, metadata in module.signals
        ]

    module.file_reader = file_reader
    monkeypatch.setitem(sys.modules, "rsciio", types.ModuleType("rsciio"))
    monkeypatch.setitem(sys.modules, "rsciio.digitalmicrograph", module)
    return module


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.dm4"
    path.write_bytes(b"\0\0\0\4")
    return path


def test_patterns_are_computed_when_read(plugin, path, stack):
    plugin.signals = [(stack, CALIBRATED, {})]
    with load_data(path) as file:
        assert plugin.computed == []
        assert file.shape == stack.shape
        for n in range(15):
            np.testing.assert_array_equal(file.source.read([n])[0], stack[divmod(n, 5)])
        plugin.computed.clear()
        np.testing.assert_array_equal(
            file.source.read([11, 3, 4, 5, 3]), stack.reshape(-1, *PATTERN)[[11, 3, 4, 5, 3]]
        )
    # Patterns 3 to 5 are the end of one row and the start of the next; 11 stands alone.
    assert plugin.computed == [(2, *PATTERN), (1, *PATTERN), (1, *PATTERN)]
    # Blocks hold whole patterns of one row.
    assert plugin.chunks == ["auto", (1, 5, *PATTERN)]


def test_a_flat_stack_and_its_turning(plugin, path, stack):
    plugin.signals = [(stack[1], [axis(), *CALIBRATED[2:]], {})]
    with open_source(path, flip_ky=True, transpose=True, scan_size=(1, 5)) as source:
        np.testing.assert_array_equal(source.read([3])[0], stack[1, 3, ::-1].T)
        assert source.scan_size == (1, 5)


def test_calibrations_of_axes_and_metadata(plugin, path, stack):
    microscope = {"beam_energy": 80.0, "convergence_angle": 20.0, "camera_length": 115}
    metadata = {"Acquisition_instrument": {"TEM": microscope}}
    plugin.signals = [(stack, CALIBRATED, metadata)]
    with load_data(path) as file:
        said = {f.key: f.value for f in file.calibrations}
        assert said == {
            "scan_step_A": pytest.approx(4),
            "transform_axis_matrix": ((pytest.approx(1.25), 0), (0, 1)),
            "rez_pixel_size_A": pytest.approx(0.025),
            "acc_voltage": 80,
            "conv_semiangle_mrad": 20,
            "camera_length_mm": 115,
        }
        assert file.missing == ()


def test_a_scale_of_one_is_no_calibration(plugin, path, stack):
    plugin.signals = [(stack, [axis(), axis(), axis(1, "1/nm"), axis(1, "1/nm")], {})]
    with load_data(path) as file:
        assert file.calibrations == ()
        assert "exactly 1 1/nm" in file.notes[0]


def test_refusals_say_what_the_file_is(plugin, path, stack):
    reciprocal = [axis(0.2, "1/nm")] * 2
    cases = [
        ((stack[0], [axis(4, "um"), axis(3, "nm"), axis(2, "pm")], {}), "images in real space"),
        ((stack[0, 0], reciprocal, {}), "a single image of 4 x 7 pixels"),
        ((stack[0], [axis(), axis(), axis(0.5, "eV")], {}), "spectra"),
        ((stack[0], [axis()] * 3, {"Signal": {"signal_type": "EELS"}}), "spectra"),
    ]
    for signal, words in cases:
        plugin.signals = [signal]
        with pytest.raises(DataError, match=words):
            load_data(path)


def test_several_stacks_are_listed_and_numbered(plugin, path, stack):
    plugin.signals = [(stack[0, 0], [axis()] * 2, {}), (stack, CALIBRATED, {}), (stack[0], [], {})]
    with pytest.raises(DataError, match=r"1: \(3, 5, 4, 7\) uint16, 2: \(5, 4, 7\)"):
        load_data(path)
    with load_data(path, "1") as file:
        assert file.to_experiment()["h5_key"] == "1"
    with pytest.raises(DataError, match="a number below 3"):
        load_data(path, "3")


def test_what_the_library_raises_becomes_one_error(plugin, path):
    def file_reader(filename, lazy=False):
        raise KeyError("strange")

    plugin.file_reader = file_reader
    with pytest.raises(DataError, match=r"complete \.dm4 file.*KeyError"):
        load_data(path)


def test_without_the_extra_it_is_named(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rsciio.digitalmicrograph", None)
    monkeypatch.setitem(sys.modules, "rsciio", types.ModuleType("rsciio"))
    with pytest.raises(DataError, match=r'pip install "pyptyx\[io\]"'):
        load_data(path)


def merlin_frame(number, counts):
    """A frame of one chip as Merlin writes it: a header of 384 bytes, then 256 x 256 counts."""
    fields = [
        "MQ1", f"{number:06}", "00384", "01", "0256", "0256", "U08", "   1x1", "01",
        "2021-05-07 18:51:10.905800", "0.1", "0", "0", "0", "4.0E+1",
        "MQ1A", "2021-05-07T16:51:10.905800928Z", "100000000ns", "6", "",
    ]  # fmt: skip
    header = ",".join(fields).encode().ljust(384, b"\0")
    return header + counts.tobytes()


@pytest.mark.filterwarnings("ignore")
def test_a_real_merlin_file(tmp_path):
    pytest.importorskip("rsciio.quantumdetector")
    counts = np.random.default_rng(6).integers(0, 60, (3, 256, 256)).astype(np.uint8)
    path = tmp_path / "a.mib"
    path.write_bytes(b"".join(merlin_frame(i + 1, c) for i, c in enumerate(counts)))
    with load_data(path) as file:
        assert file.shape == (3, 256, 256)
        for n in range(3):
            # RosettaSciIO turns the rows, as the program of the detector shows them.
            np.testing.assert_array_equal(file.source.read([n])[0], counts[n, ::-1])
    path.write_bytes(b"not a frame of Merlin")
    with pytest.raises(DataError, match="complete"):
        load_data(path)


@pytest.mark.filterwarnings("ignore")
def test_a_real_blockfile(stack, tmp_path):
    blockfile = pytest.importorskip("rsciio.blockfile")
    patterns = np.random.default_rng(7).integers(0, 250, (3, 5, 6, 6)).astype(np.uint8)
    axes = [
        {"name": n, "size": s, "scale": 0.5, "offset": 0, "units": u, "navigate": u == "nm"}
        for n, s, u in [("y", 3, "nm"), ("x", 5, "nm"), ("dy", 6, "cm"), ("dx", 6, "cm")]
    ]
    signal = {"data": patterns, "axes": axes, "metadata": {}, "original_metadata": {}}
    signal["attributes"] = {"_lazy": False}
    blockfile.file_writer(str(tmp_path / "a.blo"), signal, intensity_scaling=None)
    with load_data(tmp_path / "a.blo") as file:
        assert file.shape == patterns.shape
        np.testing.assert_array_equal(file.source.read(slice(None)), patterns.reshape(-1, 6, 6))
        assert {f.key: f.value for f in file.calibrations} == {"scan_step_A": pytest.approx(5)}


@pytest.mark.parametrize("name", ["a.dm3", "a.dm4", "a.blo"])
def test_another_format_under_this_name(name, tmp_path):
    (tmp_path / name).write_bytes(b"MQ1,000001,00384")
    with pytest.raises(DataError, match="other first bytes"):
        load_data(tmp_path / name)
