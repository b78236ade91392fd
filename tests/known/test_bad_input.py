"""Bad input of every known kind: one clear error, nothing written, nothing executed.

A case is a name, a function that prepares its files in a folder and returns what to call, the
error, the key or file the message starts with, and words the message must contain.
"""

import copy
import os
import pickle
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import pyptyx
from pyptyx import cli
from pyptyx.errors import (
    DataError,
    DeviceError,
    NumericalError,
    OutputError,
    ParamError,
    ProblemError,
    PyptyxError,
    ShapeError,
)
from pyptyx.params import load_run_file

SCAN = (2, 3)
N = 6
PATTERN = (8, 10)
WITHOUT = object()
"""Stands for a key that is taken out."""


def counts(**changed: float) -> np.ndarray:
    """Patterns; ``changed`` replaces one value."""
    patterns = 0.1 + np.random.default_rng(1).random((N, *PATTERN), dtype=np.float32)
    for value in changed.values():
        patterns[2, 3, 4] = value
    return patterns


def positions() -> np.ndarray:
    return np.indices(SCAN).reshape(2, N).T * (1.3, 2.1)


def with_entry(array: np.ndarray, index: tuple[int, ...], value: Any) -> np.ndarray:
    array = array.copy()
    array[index] = value
    return array


@dataclass(frozen=True)
class Made:
    """A value that needs a file: ``make(folder)`` writes it and returns the value."""

    make: Callable[[Path], Any]


@dataclass(frozen=True)
class Case:
    name: str
    prepare: Callable[[Path], Callable[[], Any]]
    error: type[PyptyxError]
    key: str
    words: tuple[str, ...] = field(default=())


def good_run(folder: Path) -> dict[str, Any]:
    return {
        "dataset": counts(),
        "acc_voltage": 200,
        "pixel_size_y_A": 0.5,
        "pixel_size_x_A": 0.4,
        "positions": positions(),
        "output_folder": str(folder / "results"),
        "epoch_max": 3,
        "print_flag": 0,
        "backend": "cpu",
        "devices": 1,
    }


def good_experiment(folder: Path) -> dict[str, Any]:
    return {
        "dataset": counts().reshape(*SCAN, *PATTERN),
        "acc_voltage": 200,
        "rez_pixel_size_A": 0.05,
        "scan_step_A": 0.7,
        "PLRotation_deg": 20,
        "output_folder": str(folder / "results"),
        "data_pad": 0,
    }


def changed(params: dict[str, Any], changes: dict[str, Any], folder: Path) -> dict[str, Any]:
    made = {k: v.make(folder) if isinstance(v, Made) else v for k, v in changes.items()}
    return {k: v for k, v in (params | made).items() if v is not WITHOUT}


def run(**changes: Any) -> Callable[[Path], Callable[[], Any]]:
    def prepare(folder: Path) -> Callable[[], Any]:
        params = changed(good_run(folder), changes, folder)
        return lambda: pyptyx.run(params)

    return prepare


def experiment(preset: Any = None, **changes: Any) -> Callable[[Path], Callable[[], Any]]:
    def prepare(folder: Path) -> Callable[[], Any]:
        params = changed(good_experiment(folder), changes, folder)
        return lambda: pyptyx.append_exp_params(params, preset)

    return prepare


def loading(function: Callable[[Any], Any], make: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """`function` of a file or folder that `make` writes."""

    def prepare(folder: Path) -> Callable[[], Any]:
        target = make(folder)
        return lambda: function(target)

    return prepare


# ---- files -------------------------------------------------------------------------------------


class Command:
    """An object whose unpickling makes a file."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self._marker}'",)


def file(name: str, content: bytes = b"") -> Made:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return Made(make)


def npy(array: np.ndarray, cut: int = 0) -> Made:
    def make(folder: Path) -> Path:
        np.save(folder / "data.npy", array)
        os.truncate(folder / "data.npy", os.path.getsize(folder / "data.npy") - cut)
        return folder / "data.npy"

    return Made(make)


def hdf5(cut: float = 1.0, **datasets: np.ndarray) -> Made:
    def make(folder: Path) -> Path:
        with h5py.File(folder / "data.h5", "w") as out:
            for key, array in datasets.items():
                out[key] = array
        size = os.path.getsize(folder / "data.h5")
        os.truncate(folder / "data.h5", int(size * cut))
        return folder / "data.h5"

    return Made(make)


def npy_with_command(folder: Path) -> Path:
    array = np.empty((1, *PATTERN), dtype=object)
    array[...] = Command(folder / "executed")
    np.save(folder / "data.npy", array, allow_pickle=True)
    return folder / "data.npy"


def pickle_with_command(folder: Path) -> Path:
    content = {"epoch_max": Command(folder / "executed")}
    (folder / "params.pkl").write_bytes(pickle.dumps(content))
    return folder / "params.pkl"


def saved_params(folder: Path) -> Path:
    pyptyx.save_params(folder, good_run(folder))
    return folder


def half_of_json(folder: Path) -> Path:
    path = saved_params(folder) / "params.json"
    os.truncate(path, path.stat().st_size // 2)
    return folder


def json_without_arrays(folder: Path) -> Path:
    (saved_params(folder) / "params.npz").unlink()
    return folder


# ---- the cases ---------------------------------------------------------------------------------

_probe = np.ones((*PATTERN, 1))
_two_probes = np.ones((*PATTERN, 1, 2))
EXECUTE = "lambda x: __import__('os').system('touch executed')"

MISSING = [
    Case("no voltage", run(acc_voltage=WITHOUT), ParamError, "acc_voltage", ("kV", "300")),
    Case("no voltage of the experiment", experiment(acc_voltage=WITHOUT), ParamError,
         "acc_voltage", ("kV",)),
    Case("no calibration", experiment(rez_pixel_size_A=WITHOUT), ParamError,
         "rez_pixel_size_A", ("rez_pixel_size_mrad", "conv_semiangle_mrad", "1/Å")),
    Case("no scan step", experiment(scan_step_A=WITHOUT), ParamError, "scan_step_A",
         ("fov_nm", "special_postions_A", "none of them")),
    Case("no scan size", experiment(dataset=counts()), ParamError, "scan_size", ("6", "nothing")),
    Case("no folder", run(output_folder=WITHOUT), ParamError, "output_folder", ("None",)),
    Case("no folder of the experiment", experiment(output_folder=WITHOUT), ParamError,
         "output_folder", ("None",)),
    Case("no data", run(dataset=WITHOUT), ParamError, "data_path", ("dataset",)),
    Case("no data of the experiment", experiment(dataset=WITHOUT), ParamError, "data_path",
         ("dataset",)),
    Case("no probe and no data", lambda _: lambda: pyptyx.simulate({"acc_voltage": 200}),
         ParamError, "probe", ("data",)),
    Case("no parameters", lambda _: lambda: pyptyx.run(None), ParamError, "params", ("None",)),
    Case("no experiment", lambda _: lambda: pyptyx.append_exp_params(None), ParamError, "params",
         ("None",)),
    Case("a number as preset", experiment(preset=5), ParamError, "pypty_params", ("5", "path")),
    Case("a number as key", lambda folder: lambda: pyptyx.run(good_run(folder) | {3: 4}),
         ParamError, "params", ("3", "keys")),
]  # fmt: skip

FOLDERS = [
    Case("folder is a file", run(output_folder=file("results")), OutputError, "output_folder",
         ("is a file", "None")),
    Case("folder of the experiment is a file", experiment(output_folder=file("results")),
         OutputError, "output_folder", ("is a file", "None")),
    Case("folder below a file", run(output_folder=Made(lambda d: file("a").make(d) / "results")),
         OutputError, "output_folder", ("is a file", "None")),
]  # fmt: skip

NAMES = [
    Case("misspelt experiment", experiment(scan_step_A=WITHOUT, scan_stp_A=0.7), ParamError,
         "scan_stp_A", ("Did you mean 'scan_step_A'",)),
    Case("misspelt preset", run(epochs_max=3), ParamError, "epochs_max",
         ("Did you mean 'epoch_max'",)),
    Case("misspelt algorithm", run(algorithm="lsq_sqr"), ParamError, "algorithm",
         ("'ml'", "Did you mean 'lsq_sqrt'")),
    Case("misspelt detector plane", run(recon_type="nearfield"), ParamError, "recon_type",
         ("'far_field'", "Did you mean 'near_field'")),
    Case("misspelt aperture", run(probe="apertur"), ParamError, "probe",
         ("Did you mean 'aperture'",)),
    Case("misspelt auto", experiment(PLRotation_deg="autom"), ParamError, "PLRotation_deg",
         ("Did you mean 'auto'",)),
    Case("aliases at odds", run(defocus=10, extra_probe_defocus=20), ParamError,
         "extra_probe_defocus", ("defocus and extra_probe_defocus",)),
    Case("aliases of the experiment at odds",
         experiment(special_postions_A=positions(), special_positions_A=positions() + 1),
         ParamError, "special_postions_A", ("special_positions_A",)),
]  # fmt: skip

NUMBERS = [
    Case("text for a number", run(acc_voltage="200 kV"), ParamError, "acc_voltage",
         ("a number > 0", "'200 kV'")),
    Case("negative pixel", run(pixel_size_x_A=-1), ParamError, "pixel_size_x_A",
         ("> 0", "-1", "Å")),
    Case("zero detector pixel", experiment(rez_pixel_size_A=0), ParamError, "rez_pixel_size_A",
         ("> 0", "1/Å")),
    Case("negative epochs", run(epoch_max=-2), ParamError, "epoch_max", ("≥ 0", "-2")),
    Case("half an epoch", run(epoch_max=2.5), ParamError, "epoch_max", ("integer", "2.5")),
    Case("tilt mode 7", run(tilt_mode=7), ParamError, "tilt_mode", ("0, 1, 2, 3, 4", "7")),
    Case("negative history", run(hist_length=-1), ParamError, "hist_length", ("≥ 0", "-1")),
    Case("empty batch", run(compute_batch=0), ParamError, "compute_batch", ("≥ 1", "'auto'")),
    Case("no worker", run(devices=0), ParamError, "devices", ("at least one", "'auto'")),
    Case("a device that is not there", run(devices=[99]), DeviceError, "devices",
         ("[99]", "'auto'")),
    Case("padding by half a pixel", run(upsample_pattern=2, data_pad=3), ParamError, "data_pad",
         ("upsample_pattern = 2", "Use 4")),
    Case("pixels of another window", run(rez_pixel_size_A=0.125), ShapeError, "pixel_size_y_A",
         ("0.5", "1 and 0.8 Å", "8 x 10", "append_exp_params")),
    Case("bin that leaves a rest", run(data_bin=3), ShapeError, "data_bin", ("8 x 10", "3")),
    Case("shift out of the frame", run(data_shift_vector=[9, 0]), ShapeError, "data_shift_vector",
         ("8 x 10", "(9, 0)")),
    Case("conditions the wrong way round", run(wolfe_c1_constant=0.9, wolfe_c2_constant=0.5),
         ParamError, "wolfe_c2_constant", ("wolfe_c1_constant = 0.9", "0.5")),
]  # fmt: skip

TABLES = [
    Case("scan size and data", run(scan_size=(3, 4)), ParamError, "scan_size", ("6", "3 x 4 = 12")),
    Case("scan size and data in a file", run(dataset=WITHOUT, data_path=npy(counts()),
         scan_size=(3, 4), positions=WITHOUT), ShapeError, "scan_size", ("6", "3 x 4 = 12")),
    Case("scan size and data of the experiment", experiment(dataset=counts(), scan_size=(3, 4)),
         DataError, "scan_size", ("6", "3 x 4 = 12")),
    Case("three scan sizes", run(scan_size=(2, 3, 1)), ParamError, "scan_size",
         ("(Ny, Nx)", "(2, 3, 1)")),
    Case("too few positions", run(positions=positions()[:5]), ParamError, "positions",
         ("6 rows", "got 5", "one for all")),
    Case("too few positions for a file", run(dataset=WITHOUT, data_path=npy(counts()),
         positions=positions()[:5]), ShapeError, "positions", ("6 rows", "got 5", "one for all")),
    Case("window of another shape", run(window=np.ones((5, 4)), window_weight=1.0), ShapeError,
         "window", ("(5, 4)", "the shape of the probe")),
    Case("positions in space", run(positions=np.ones((N, 3))), ParamError, "positions",
         ("(n, 2)", "(6, 3)")),
    Case("a position that is not a number",
         run(positions=with_entry(positions(), (3, 1), np.nan)), ParamError, "positions",
         ("1 NaN", "(3, 1)")),
    Case("positions in metres", run(positions=positions() * 1e10), ShapeError, "positions",
         ("GiB that are free", "pixels")),
    Case("special positions", experiment(special_postions_A=positions()[:5]), ShapeError,
         "special_postions_A", ("(6, 2)", "(5, 2)", "Å")),
    Case("five tilts", run(tilts=np.ones((N, 5))), ParamError, "tilts", ("(n, 6)", "(6, 5)")),
    Case("too few tilts", run(tilts=np.ones((4, 6))), ParamError, "tilts", ("6 rows", "got 4")),
    Case("too few currents", run(beam_current=np.ones(5)), ParamError, "beam_current",
         ("6 rows", "got 5")),
    Case("too many gaps", run(num_slices=4, slice_distances=[1.0, 2.0]), ParamError,
         "slice_distances", ("1 or 3 values", "got 2")),
    Case("4-D probe without marker", run(probe=_two_probes), ParamError, "probe_marker",
         ("one entry per measurement", "4-D")),
    Case("marker beyond the probe", run(probe=_two_probes, probe_marker=[0, 1, 2, 0, 1, 0]),
         ParamError, "probe_marker", ("below 2", "got 2")),
    Case("marker beyond the aberrations", run(aberrations_array=np.ones((2, 3)),
         aberration_marker=[0, 1, 2, 0, 1, 0]), ParamError, "aberration_marker",
         ("below 2", "aberrations_array")),
    Case("sequence beyond the data", run(sequence=[0, 6]), ParamError, "sequence",
         ("0 to 5", "6")),
    Case("sequence beyond the file", run(dataset=WITHOUT, data_path=npy(counts()),
         positions=WITHOUT, sequence=[0, 6]), ShapeError, "sequence", ("0 to 5", "6")),
    Case("empty sequence", run(sequence=[]), ParamError, "sequence", ("empty",)),
]  # fmt: skip

START_VALUES = [
    Case("windows beyond the object", run(skip_preprocessing=True, probe=_probe,
         obj=np.ones((11, 12, 1, 1))), ShapeError, "obj",
         ("at least 9 x 14", "11 x 12", "skip_preprocessing")),
    Case("negative positions", run(skip_preprocessing=True, probe=_probe,
         positions=positions() - 3), ShapeError, "positions", ("-3 px", "skip_preprocessing")),
    Case("3-D object", run(obj=np.ones((12, 14, 1))), ParamError, "obj",
         ("(y, x, slices, modes)", "(12, 14, 1)")),
    Case("probe of another size", run(skip_preprocessing=True, probe=np.ones((8, 9, 1))),
         ShapeError, "probe", ("8 x 10", "8 x 9", "skip_preprocessing")),
    Case("1-D probe", run(probe=np.ones(8)), ParamError, "probe", ("(y, x, modes)", "(8,)")),
    Case("infinite probe", run(probe=with_entry(_probe, (2, 2, 0), np.inf)), ParamError, "probe",
         ("inf",)),
    Case("probe with NaN", run(probe=with_entry(_probe + 0j, (2, 2, 0), np.nan)), ParamError,
         "probe", ("1 NaN", "(2, 2, 0)")),
    Case("aperture of another shape", run(probe="aperture", aperture_mask=np.ones((8, 9))),
         ShapeError, "aperture_mask", ("(8, 10)", "(8, 9)")),
    Case("no aperture", run(probe="aperture"), ParamError, "aperture_mask", ("'aperture'",)),
    Case("aperture of the experiment", experiment(aperture=np.ones((8, 9))), ShapeError, "aperture",
         ("(8, 10)", "(8, 9)", "data_pad")),
    Case("background of another shape", run(static_background=np.ones((8, 9))), ShapeError,
         "static_background", ("(8, 10)", "(8, 9)")),
    Case("mean pattern of another shape", run(mean_pattern=np.ones((8, 9))), ShapeError,
         "mean_pattern", ("(8, 10)", "(8, 9)")),
    Case("phase of the beam of another shape", run(beam_ctf=np.ones((8, 9))), ShapeError,
         "beam_ctf", ("(8, 10)", "(8, 9)", "data_pad")),
    Case("no file of phase plates", run(phase_plate_in_h5="plates.h5"), DataError,
         "phase_plate_in_h5", ("no such file", "plates.h5")),
    Case("text as phase plates", run(phase_plate_in_h5=file("plates.h5", b"plates")), DataError,
         "phase_plate_in_h5", ("HDF5", "another format")),
    Case("no phase plates in the file", run(phase_plate_in_h5=hdf5(plates=np.ones((N, 8, 10)))),
         DataError, "phase_plate_in_h5", ("'configs'", "(6 or 1, 8, 10)")),
    Case("phase plates of another shape", run(phase_plate_in_h5=hdf5(configs=np.ones((N, 8, 9)))),
         DataError, "phase_plate_in_h5", ("(6 or 1, 8, 10)", "(6, 8, 9)")),
    Case("matrix of another shape", experiment(transform_axis_matrix=np.ones((3, 2))), ParamError,
         "transform_axis_matrix", ("(2, 2)", "(3, 2)")),
]  # fmt: skip

SCHEDULES = [
    Case("schedule that executes", run(loss_weight=EXECUTE), ParamError, "loss_weight",
         ("not allowed", "'lambda x: x < 20'")),
    Case("schedule that opens a file", run(update_probe="lambda x: open('executed', 'w')"),
         ParamError, "update_probe", ("not allowed",)),
    Case("schedule of two parameters", run(update_obj="lambda x, y: x < y"), ParamError,
         "update_obj", ("one parameter",)),
    Case("schedule that never ends", run(loss_weight="lambda x: 9**9**9"), ParamError,
         "loss_weight", ("too large",)),
    Case("schedule that fails later", run(loss_weight="lambda x: 1 / (2 - x)"), ParamError,
         "loss_weight", ("epoch 2", "division by zero", "lambda x: 1 / (2 - x)")),
    Case("schedule that leaves its bounds later", run(loss_weight="lambda x: 1 - x"), ParamError,
         "loss_weight", ("epoch 2", "-1")),
    Case("schedule of the wrong type", run(update_probe=lambda epoch: "yes"), ParamError,
         "update_probe", ("epoch 0", "'yes'")),
    Case("schedule of NaN", run(loss_weight=lambda epoch: np.nan), ParamError, "loss_weight",
         ("epoch 0", "nan")),
    Case("sequence that leaves the data later",
         run(sequence=lambda epoch: [0, 1] if epoch < 2 else [7]), ShapeError, "sequence",
         ("0 to 5 at epoch 2", "7")),
    Case("sequence that becomes empty", run(sequence=lambda epoch: [0, 1][: 2 - epoch]),
         ParamError, "sequence", ("epoch 2", "empty")),
]  # fmt: skip

COUNTS = [
    Case("negative counts", run(dataset=counts(a=-1)), DataError, "dataset", ("1 negative",)),
    Case("negative counts of the experiment", experiment(scan_size=SCAN, dataset=counts(a=-1)),
         DataError, "dataset", ("1 negative",)),
    Case("NaN counts", run(dataset=counts(a=np.nan)), DataError, "dataset", ("1 NaN",)),
    Case("NaN counts with a probe", run(dataset=counts(a=np.nan), probe=_probe), DataError,
         "dataset", ("1 NaN",)),
    Case("NaN counts of the experiment", experiment(scan_size=SCAN, dataset=counts(a=np.nan)),
         DataError, "dataset", ("1 NaN",)),
    Case("zeros only", run(dataset=counts() * 0), DataError, "dataset", ("zeros only",)),
    Case("zeros only with a probe", run(dataset=counts() * 0, probe=_probe), DataError, "dataset",
         ("zeros only",)),
    Case("zeros only of the experiment", experiment(scan_size=SCAN, dataset=counts() * 0),
         DataError, "dataset", ("zeros only",)),
    Case("complex data", run(dataset=counts() * 1j), ParamError, "dataset", ("real", "complex64")),
    Case("5-D data", run(dataset=counts()[None, None]), ParamError, "dataset",
         ("(N, ky, kx)", "(1, 1, 6, 8, 10)")),
    Case("2-D data", run(dataset=counts()[:, 0]), DataError, "dataset",
         ("[N, ky, kx]", "(6, 10)", "masks")),
    Case("2-D data of the experiment", experiment(scan_size=SCAN, dataset=counts()[:, 0]),
         DataError, "dataset", ("[N, ky, kx]", "(6, 10)", "masks")),
]  # fmt: skip

BAD_FILES = [
    ("object array", Made(npy_with_command), "data.npy", ("Python objects", "never loaded")),
    ("truncated npy", npy(counts(), cut=100), "data.npy", ("too early", "numpy.save")),
    ("empty npy", file("data.npy"), "data.npy", ("another format", "numpy.save")),
    ("complex npy", npy(counts() * 1j), "data.npy", ("real", "complex64")),
    ("2-D npy", npy(counts()[:, 0]), "data.npy", ("(6, 10)", "masks")),
    ("5-D npy", npy(counts()[None, None]), "data.npy", ("5 axes", "[N, ky, kx]")),
    ("truncated HDF5", hdf5(data=counts(), cut=0.5), "data.h5", ("complete HDF5", "too early")),
    ("text as HDF5", file("data.h5", b"patterns"), "data.h5", ("another format",)),
    ("no patterns in HDF5", hdf5(a=np.ones(3), b=np.ones((2, 5))), "data.h5",
     ("h5_key", "/b (2, 5)")),
    ("two stacks in HDF5", hdf5(a=counts(), b=counts()), "data.h5", ("h5_key", "/a", "/b")),
    ("missing file", Made(lambda folder: folder / "data.h5"), "data.h5", ("nothing there",)),
    ("folder", Made(lambda folder: folder), "inputs", ("a folder", "a file")),
    ("negative counts in HDF5", hdf5(data=counts(a=-1)), "data.h5", ("1 negative",)),
]  # fmt: skip
DATA_FILES = [
    Case(f"{name} of the {entry}", call(dataset=WITHOUT, data_path=made, scan_size=SCAN),
         DataError, key, words)
    for name, made, key, words in BAD_FILES
    for entry, call in (("run", run), ("experiment", experiment))
] + [
    Case("misspelt data set", run(dataset=WITHOUT, data_path=hdf5(scan=counts()), h5_key="scn"),
         DataError, "h5_key", ("data.h5", "/scan", "Did you mean")),
    Case("number as a path", run(dataset=WITHOUT, data_path=5), ParamError, "data_path", ("path",)),
    Case("no metadata file", experiment(path_json="meta.json"), DataError, "path_json",
         ("meta.json", "No such file")),
    Case("broken metadata file", experiment(path_json=file("meta.json", b"{")), DataError,
         "path_json", ("meta.json", "JSON")),
]  # fmt: skip

PARAM_FILES = [
    Case("malicious pickle to run", loading(pyptyx.run, pickle_with_command), DataError,
         "params.pkl", ("system is not allowed",)),
    Case("malicious pickle to load", loading(pyptyx.load_params, pickle_with_command), DataError,
         "params.pkl", ("system is not allowed",)),
    Case("malicious pickle in a folder",
         loading(lambda path: pyptyx.run(str(path.parent)), pickle_with_command), DataError,
         "params.pkl", ("system is not allowed",)),
    Case("malicious pickle as preset",
         lambda folder: experiment(pickle_with_command(folder))(folder), DataError, "params.pkl",
         ("system is not allowed",)),
    Case("damaged pickle", loading(pyptyx.load_params, file("params.pkl", b"\x80\x04]").make),
         DataError, "params.pkl", ("pickle",)),
    Case("broken JSON", loading(pyptyx.load_params, file("params.json", b"{[").make), DataError,
         "params.json", ("JSON", "line 1")),
    Case("truncated JSON", loading(pyptyx.run, half_of_json), DataError, "params.json",
         ("complete JSON",)),
    Case("JSON without arrays", loading(pyptyx.load_params, json_without_arrays), DataError,
         "params.npz", ("params.json", "no such file")),
    Case("empty folder", loading(pyptyx.load_params, lambda folder: folder), DataError, "inputs",
         ("params.json", "params.pkl")),
    Case("no such folder", loading(pyptyx.run, lambda folder: folder / "earlier"), DataError,
         "earlier", ("no such file",)),
    Case("TOML syntax", loading(load_run_file, file("run.toml", b"[preset]\nepoch_max = = 3").make),
         DataError, "run.toml", ("TOML", "line 2")),
    Case("TOML with stray keys", loading(load_run_file,
         file("run.toml", b"epoch_max = 3\n[preset]\nseed = 1").make), DataError, "run.toml",
         ("epoch_max", "[preset]")),
]  # fmt: skip

CASES = [*MISSING, *FOLDERS, *NAMES, *NUMBERS, *TABLES, *START_VALUES, *SCHEDULES, *COUNTS]
CASES += [*DATA_FILES, *PARAM_FILES]

JARGON = ("Traceback", " object at ", "<class", "Errno", "mmap", "synchronously", "<lambda>")
JARGON += ("pyptyx.", "ndarray", "Mapping", "ValueError", "TypeError", "KeyError")
"""Words of the machinery, which mean nothing to a user."""

LONGEST = 330
"""Characters of a message, its folder not counted."""


def contents(folder: Path) -> dict[Path, bytes | None]:
    return {p: p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_bad_input(case, tmp_path, monkeypatch):
    folder = tmp_path / "inputs"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    action = case.prepare(folder)
    before = contents(tmp_path)
    with pytest.raises(PyptyxError) as info:
        action()
    assert type(info.value) is case.error
    assert contents(tmp_path) == before
    message = str(info.value).replace(f"{folder}{os.sep}", "").replace(f"{tmp_path}{os.sep}", "")
    assert message.startswith(case.key)
    for word in ("expected", "got", *case.words):
        assert word in message
    assert [word for word in JARGON if word in message] == []
    assert len(message.splitlines()) == 1
    assert len(message) < LONGEST
    if isinstance(info.value, ProblemError):
        [problem] = info.value.problems
        assert all((problem.key, problem.expected, problem.got, problem.remedy))


def test_the_names_of_the_cases_differ():
    assert len({case.name for case in CASES}) == len(CASES) > 45


@pytest.mark.parametrize("call", [run(), experiment()], ids=["run", "experiment"])
def test_a_folder_without_permission(call, tmp_path, monkeypatch):
    # Permissions do not bind a superuser, so the answer of the system is given here.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(OutputError, match=r"output_folder.*no permission.*None"):
        call(tmp_path)()
    assert contents(tmp_path) == {}


def test_without_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("pyptyx.backend.Backend.free_bytes", lambda self: 1000)
    with pytest.raises(DeviceError, match=r"memory: expected .* MiB .* got .* fewer slices"):
        run()(tmp_path)()
    assert contents(tmp_path) == {}


# ---- several problems at once ------------------------------------------------------------------


def keys_of(info: pytest.ExceptionInfo) -> list[str]:
    return sorted(problem.key for problem in info.value.problems)


def test_all_wrong_parameters_are_listed(tmp_path):
    changes = {"epoch_max": -1, "tilt_mode": 7, "pixel_size_x_A": 0, "algoritm": "ml"}
    changes |= {"acc_voltage": WITHOUT, "loss_weight": EXECUTE, "positions": positions()[:4]}
    with pytest.raises(ParamError, match="7 problems") as info:
        run(**changes)(tmp_path)()
    assert keys_of(info) == sorted(changes)
    assert contents(tmp_path) == {}


def test_a_wrong_value_is_not_reported_as_missing_too(tmp_path):
    with pytest.raises(ParamError, match="4 problems") as info:
        experiment(acc_voltage="high", rez_pixel_size_A=-1, scan_step_A=0, dataset=counts() * 1j)(
            tmp_path
        )()
    assert keys_of(info) == ["acc_voltage", "dataset", "rez_pixel_size_A", "scan_step_A"]


def test_all_wrong_shapes_are_listed(tmp_path):
    with pytest.raises(ShapeError, match="3 problems") as info:
        run(
            skip_preprocessing=True,
            obj=np.ones((5, 7, 1, 1)),
            probe=np.ones((9, 10, 1)),
            static_background=np.ones((8, 9)),
        )(tmp_path)()
    assert keys_of(info) == ["obj", "probe", "static_background"]
    assert contents(tmp_path) == {}


def test_all_wrong_tables_for_a_file_are_listed(tmp_path):
    given = {"positions": np.ones((5, 2)), "tilts": np.ones((4, 6)), "scan_size": (1, 5)}
    path = npy(counts()).make(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(ProblemError) as info:
        run(dataset=WITHOUT, data_path=path, **given)(tmp_path)()
    assert "tilts" in keys_of(info)
    with pytest.raises(ShapeError, match="3 problems") as info:
        run(dataset=WITHOUT, data_path=path, **(given | {"tilts": np.ones((5, 6))}))(tmp_path)()
    assert keys_of(info) == sorted(given)
    assert contents(tmp_path) == before


def test_validate_lists_everything(tmp_path, capsys):
    text = b"[experiment]\nacc_voltage = 200\nscan_stp_A = 2\n[preset]\nepoch_max = -3\n"
    path = file("run.toml", text).make(tmp_path)
    before = contents(tmp_path)
    assert cli.main(["validate", str(path)]) == 1
    printed = capsys.readouterr()
    for key in ("scan_stp_A", "rez_pixel_size_A", "data_path", "epoch_max"):
        assert printed.err.count(f"- {key}: expected") == 1
    assert "4 problems" in printed.err
    assert printed.out == ""
    assert contents(tmp_path) == before


@pytest.mark.parametrize("command", ["validate", "run"])
@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("run.toml", b"[preset]\nepoch_max = = 3", "line 2"),
        ("run.txt", b"", "a .toml, .json or .pkl"),
    ],
)
def test_the_command_line_names_a_broken_file(command, name, content, words, tmp_path, capsys):
    path = file(name, content).make(tmp_path)
    assert cli.main([command, str(path)]) == 1
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [path]


# ---- what the caller owns, and numbers that overflow -------------------------------------------


def test_a_refused_experiment_leaves_its_dictionaries_alone(tmp_path):
    preset = {"epoch_max": 7, "obj": np.ones((3, 4, 1, 2))}
    given = good_experiment(tmp_path) | {"aperture": np.ones((8, 9))}
    before = copy.deepcopy((preset, given))
    with pytest.raises(ShapeError):
        pyptyx.append_exp_params(given, preset)
    np.testing.assert_equal((preset, given), before)


def test_a_refused_run_leaves_its_dictionary_alone(tmp_path):
    given = good_run(tmp_path) | {"sequence": [0, 6], "update_probe": "lambda x: x > 1"}
    before = copy.deepcopy(given)
    with pytest.raises(ParamError):
        pyptyx.run(given)
    np.testing.assert_equal(given, before)


@pytest.mark.parametrize("call", [pyptyx.run, pyptyx.loss_and_gradient])
@pytest.mark.parametrize(
    "changes",
    [{"probe": _probe * 1e25}, {"data_multiplier": 1e300}, {"static_background": 1e90}],
    ids=lambda changes: next(iter(changes)),
)
def test_an_overflow_names_epoch_and_term(call, changes, tmp_path):
    params = good_run(tmp_path) | {"output_folder": None, "epoch_prev": 0} | changes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of NumPy, about the overflow itself
        with pytest.raises(NumericalError) as info:
            call(params)
    message = str(info.value)
    assert message.startswith("epoch 0: ")
    assert "'data'" in message
    assert "Look for" in message
