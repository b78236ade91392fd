"""Every kind of result passes the validators of others, and they see what is missing.

No single validator sees everything: nexusformat reads the application definition and the base
classes, pynxtools both with their types and units, silx what a viewer would open.
"""

import re
from importlib.util import find_spec

import h5py
import numpy as np
import pytest
from nexus_folders import RUNS, write_direct, write_run

from pyptyx.engine.export import convert_to_nxs

silx = pytest.importorskip("silx.io.nxdata")
nexusformat = pytest.importorskip("nexusformat.nexus.validate")
needs_pynxtools = pytest.mark.skipif(find_spec("pynxtools") is None, reason="needs pynxtools")

PLOTS = {
    "transmission": {"signal", "axes", "phase", "z"},
    "probe": {"signal", "intensity", "y"},
    "scan": {"signal", "positions"},
    "loss": {"signal", "loss"},
    "direct_mf": {"signal", "phase", "x"},
}


def complaints(path):
    """Which of the four checks say something against a file, the quickest first."""
    with h5py.File(path) as file:
        plot = silx.get_default(file)
        if plot is None or not plot.is_valid:
            yield "silx"
    for check in (nexusformat.validate_file, nexusformat.validate_application):
        try:
            counts = check(str(path))
        except IndexError:  # it looks for an entry and finds none
            counts = None
        if counts is None or counts[1]:  # None: there is no definition, or an unknown one
            yield check.__name__
    if find_spec("pynxtools"):  # large, so not everybody has it
        from pynxtools.dataconverter.validation import validate_hdf_group_against

        with h5py.File(path) as file:
            if not validate_hdf_group_against("NXem", file["entry"], str(path)):
                yield "pynxtools"


@pytest.fixture(autouse=True)
def _quiet(capsys):
    """The validators print."""
    yield
    capsys.readouterr()


@pytest.mark.parametrize("kind", RUNS)
def test_runs_are_valid(kind, tmp_path):
    write_run(tmp_path / kind, **RUNS[kind])
    path = convert_to_nxs(tmp_path / kind, tmp_path / "x.nxs")
    assert list(complaints(path)) == []
    with h5py.File(path) as file:
        plot = silx.get_default(file)
        assert plot.signal.name == "/entry/transmission/phase"
        assert [image.name for image in plot.auxiliary_signals] == ["/entry/transmission/amplitude"]


def test_a_run_with_everything_is_valid(tmp_path):
    arrays = write_run(tmp_path / "all", **RUNS["multislice"])
    write_direct(tmp_path / "all")
    np.save(tmp_path / "all/checkpoint_obj_epoch_7.npy", arrays["co"])
    for name, shape in (("ct", (5, 6)), ("cs", (8, 7)), ("ca", (2, 9)), ("cb", (5,))):
        np.save(tmp_path / f"all/{name}.npy", np.ones(shape))
    path = convert_to_nxs(tmp_path / "all", tmp_path / "x.nxs", flip_y=True)
    assert list(complaints(path)) == []


def test_direct_results_alone_are_valid(tmp_path):
    write_direct(tmp_path / "direct_only")
    path = convert_to_nxs(tmp_path / "direct_only", tmp_path / "x.nxs")
    assert list(complaints(path)) == []
    with h5py.File(path) as file:
        assert silx.get_default(file).group.name == "/entry/direct_joint"


def test_every_plot_can_be_shown(tmp_path):
    write_run(tmp_path / "all", **RUNS["near_field"])
    write_direct(tmp_path / "all")
    with h5py.File(convert_to_nxs(tmp_path / "all", tmp_path / "x.nxs")) as file:
        groups = [g for g in file["entry"].values() if g.attrs.get("NX_class") == "NXdata"]
        assert PLOTS.keys() <= {g.name.split("/")[-1] for g in groups}
        for group in groups:
            assert silx.NXdata(group).is_valid, group.name


def gone(path):
    """Take away a field or a group."""
    return lambda entry: entry.pop(path)


def bare(path, name):
    """Take away an attribute."""
    return lambda entry: entry[path].attrs.pop(name)


def instead(path, value):
    """Another value, or one where there was none."""

    def spoil(entry):
        if path in entry:
            del entry[path]
        entry[path] = value

    return spoil


def other_unit(path, unit):
    return lambda entry: entry[path].attrs.update(units=unit)


def shortened(plot):
    """Take one value from the last axis of a plot."""

    def spoil(entry):
        name = entry[plot].attrs["axes"][-1]
        instead(f"{plot}/{name}", entry[f"{plot}/{name}"][:-1])(entry)

    return spoil


def without_sample(entry):
    del entry["sampleID"], entry["sample"]


def complex_in_a_plot(entry):
    entry["transmission/data"] = entry["checkpoint/obj"]


def two_words(entry):
    entry.create_group("two words").attrs["NX_class"] = "NXcollection"


FAULTS = {
    "no definition": gone("definition"),
    "unknown definition": instead("definition", "NXemm"),
    "no start": gone("start_time"),
    "start that is no time": instead("start_time", "yesterday"),
    "no sample": without_sample,
    "no is_simulation": gone("sampleID/is_simulation"),
    "no preparation_date": gone("sampleID/preparation_date"),
    "no atom_types": gone("sampleID/atom_types"),
    "simulation as a number": instead("sampleID/is_simulation", 0.5),
    "no default of the file": bare("/", "default"),
    "no default of the entry": bare(".", "default"),
    "no class of the entry": bare(".", "NX_class"),
    "no class of the sample": bare("sampleID", "NX_class"),
    "no class of the plot": bare("transmission", "NX_class"),
    "no name of the data": gone("note_data/file_name"),
    "no unit of the voltage": bare("instrument/source/voltage", "units"),
    "no unit of the energy": bare("instrument/beam/incident_energy", "units"),
    "wrong unit of the wavelength": other_unit("instrument/beam/incident_wavelength", "kelvin"),
    "wrong unit of the thickness": other_unit("sampleID/thickness", "kelvin"),
    "complex in a plot": complex_in_a_plot,
    "field nobody knows": instead("reconstruction/colour", "red"),
    "name of two words": two_words,
    "no signal of the object": bare("transmission", "signal"),
    "no phase": gone("transmission/phase"),
    "no amplitude": gone("transmission/amplitude"),
    "short axis of the object": shortened("transmission"),
    "no signal of the probe": bare("probe", "signal"),
    "no intensity": gone("probe/intensity"),
    "short axis of the probe": shortened("probe"),
    "no signal of the loss": bare("loss", "signal"),
    "short axis of the loss": shortened("loss"),
    "no signal of the scan": bare("scan", "signal"),
}


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    folder = tmp_path_factory.mktemp("valid")
    write_run(folder / "run", **RUNS["multislice"])
    (folder / "run/provenance.json").write_text('[{"data": {"path": "scan.h5"}}]')
    return convert_to_nxs(folder / "run", folder / "x.nxs")


def test_the_file_to_be_spoilt_is_valid(valid):
    assert list(complaints(valid)) == []


@needs_pynxtools
@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_is_missing_or_wrong_is_found(fault, valid, tmp_path):
    path = tmp_path / "x.nxs"
    path.write_bytes(valid.read_bytes())
    with h5py.File(path, "a") as file:
        FAULTS[fault](file["entry"])
    assert next(complaints(path), None)


def test_names_are_legal(valid):
    with h5py.File(valid) as file:
        names = []
        file.visit(names.append)
    assert all(re.fullmatch(r"[A-Za-z_]\w*", part) for name in names for part in name.split("/"))
