"""Saving, loading, presets, and what is refused."""

import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pyptyx.errors import DataError, ParamError
from pyptyx.params import (
    evaluate,
    legacy_pickle,
    load_params,
    load_preset,
    load_run_file,
    resolve,
    save_params,
)
from pyptyx.params.schedule import Table, parse

NUMBERS = st.booleans() | st.integers() | st.floats() | st.complex_numbers()
TEXTS = st.text() | st.sampled_from(["lambda x: max(x, [1, 2][0])", "$array", "none"])
ARRAYS = hnp.arrays(
    st.sampled_from(["f4", ">f8", "c8", "c16", "i2", "u1", "?", "U3"]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
)
SCALARS = st.sampled_from(
    [np.float32(0.1), np.float64("inf"), np.int8(-3), np.bool_(True), np.complex64(1 + 2j)]
)
VALUES = st.recursive(
    st.none() | NUMBERS | TEXTS | ARRAYS | SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(TEXTS | st.integers(), inner, max_size=2)
    ),
    max_leaves=6,
)


def assert_same(a, b):
    """Equality of value and of type, also inside containers and for NaN."""
    assert type(a) is type(b)
    if isinstance(a, np.ndarray | np.generic):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b, strict=True)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key, value in a.items():
            assert_same(value, b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert repr(a) == repr(b)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(params=st.dictionaries(TEXTS, VALUES, max_size=4))
def test_round_trip(tmp_path, params):
    params = {key: value for key, value in params.items() if key != "epoch_max"}
    save_params(tmp_path, params)
    assert_same(load_params(tmp_path), params)


def test_round_trip_of_the_pickle(tmp_path):
    params = {
        **{"a": (1, 2.5, None), "b": [True, 1j], "c": np.ones((2, 3), "c8"), "d": float("inf")},
        **{"e": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "f": {"g": np.zeros((0, 4))}},
        **{"h": np.array("text"), "i": np.arange(3, dtype=">i2"), "j": "lambda x: x"},
    }
    save_params(tmp_path, params)
    assert_same(load_params(tmp_path / "params.pkl"), params)


def test_what_becomes_text(tmp_path):
    params = {"p": Path("a/b"), "t": np.float32, "d": np.dtype("u2"), "s": parse("lambda x: x*2")}
    save_params(tmp_path, params)
    expected = {"p": "a/b", "t": "float32", "d": "uint16", "s": "lambda x: x*2"}
    assert load_params(tmp_path) == expected
    assert load_params(tmp_path / "params.pkl") == expected


@pytest.mark.parametrize("file", ["params.json", "params.pkl"])
def test_callables_are_never_lost(tmp_path, file):
    base = 3
    params = {
        "atv_weight": lambda x: max(x, 1),
        "wedge_mu": lambda x: base * x,
        "sequence": lambda x: [x, 0],
        "epoch_max": 4,
    }
    save_params(tmp_path, params)
    loaded = load_params(tmp_path / file)
    assert loaded["atv_weight"] == "lambda x: max(x, 1)"
    assert loaded["wedge_mu"] == Table((0, 3, 6, 9, 12))
    for epoch in range(5):
        before = evaluate(resolve(params, need=()), epoch)
        after = evaluate(resolve(loaded, need=()), epoch)
        assert after["wedge_mu"] == before["wedge_mu"] == 3 * epoch
        assert after["sequence"].tolist() == [epoch, 0]
    save_params(tmp_path, loaded)
    assert load_params(tmp_path / file) == loaded


def test_the_dataset_is_left_out_on_request(tmp_path):
    params = {"dataset": np.ones((2, 3, 4)), "seed": 1}
    save_params(tmp_path, params)
    assert load_params(tmp_path) == {"seed": 1}
    save_params(tmp_path, params, strip_dataset=False)
    assert load_params(tmp_path)["dataset"].shape == (2, 3, 4)
    assert "dataset" in params


def test_file_names(tmp_path):
    assert save_params(tmp_path / "new" / "run.pkl", {"seed": 1}).name == "run.json"
    assert {p.name for p in (tmp_path / "new").iterdir()} == {"run.json", "run.npz", "run.pkl"}
    assert load_params(str(tmp_path / "new" / "run.pkl")) == {"seed": 1}


def test_what_cannot_be_saved_is_named_and_leaves_the_old_files(tmp_path):
    save_params(tmp_path, {"seed": 1})
    with pytest.raises(ParamError) as info:
        save_params(tmp_path, {"obj": np.array([{}]), "x": {1, 2}, "y": [object()], "seed": 2})
    assert {p.key for p in info.value.problems} == {"obj", "x", "y"}
    assert load_params(tmp_path) == {"seed": 1}


def test_an_interrupted_save_leaves_the_old_files(tmp_path, monkeypatch):
    save_params(tmp_path, {"seed": 1})
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def full(*args, **kwargs):
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="no space"):
        save_params(tmp_path, {"seed": 2})
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", ["params.json", "params.npz", "params.pkl"])
@pytest.mark.parametrize("keep", [0, 0.3, 0.9])
def test_truncated_files(tmp_path, name, keep):
    save_params(tmp_path, {"obj": np.ones((2, 3, 4, 1)), "text": "abc"})
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(DataError) as info:
        load_params(tmp_path / name if name.endswith("pkl") else tmp_path)
    assert len(info.value.problems) == 1
    assert name in info.value.problems[0].key


def test_files_of_two_saves(tmp_path):
    save_params(tmp_path / "a", {"obj": np.ones(3)})
    save_params(tmp_path / "b", {"obj": np.zeros(3)})
    os.replace(tmp_path / "b" / "params.npz", tmp_path / "a" / "params.npz")
    with pytest.raises(DataError, match="another save"):
        load_params(tmp_path / "a")


@pytest.mark.parametrize(
    "value",
    [
        {"$array": "none"},
        {"$array": 3},
        {"$scalar": ["O", 1]},
        {"$scalar": ["f8"]},
        {"$complex": ["1"]},
        {"$float": "one"},
        {"$float": None},
        {"$tuple": 3},
        {"$dict": [[1]]},
        {"$python": "os.system"},
    ],
)
def test_damaged_values(tmp_path, value):
    file = save_params(tmp_path, {"seed": 1})
    document = json.loads(file.read_text())
    document["params"]["seed"] = value
    file.write_text(json.dumps(document))
    with pytest.raises(DataError):
        load_params(file)


def test_object_arrays_in_an_archive_are_refused(tmp_path):
    file = save_params(tmp_path, {"obj": np.ones(3)})
    save_id = np.load(tmp_path / "params.npz")["save_id"]
    evil = np.array([Reduces(os.system, ("false",))], dtype=object)
    np.savez(tmp_path / "params.npz", a0=evil, save_id=save_id)
    with pytest.raises(DataError):
        load_params(file)


def test_oversized_files(tmp_path, monkeypatch):
    file = save_params(tmp_path, {"obj": np.zeros(10_000)})
    monkeypatch.setattr("pyptyx.params.files.MAX_BINARY_BYTES", 30_000)
    with pytest.raises(DataError, match="at most 30000"):
        load_params(file)
    with zipfile.ZipFile(tmp_path / "params.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a0.npy", bytes(100_000))
    assert (tmp_path / "params.npz").stat().st_size < 30_000
    with pytest.raises(DataError, match="of arrays"):
        load_params(file)
    monkeypatch.setattr("pyptyx.params.files.MAX_TEXT_BYTES", 10)
    with pytest.raises(DataError, match="at most 10"):
        load_params(file)


@pytest.mark.parametrize("name", ["missing.pkl", "missing.json", "missing.toml", "missing", "."])
def test_missing_files(tmp_path, name):
    for load in (load_params, load_preset, load_run_file):
        with pytest.raises(DataError):
            load(tmp_path / name)


class Reduces:
    """Pickles as the call of a function."""

    def __init__(self, function, args, *rest):
        self.call = (function, args, *rest)

    def __reduce__(self):
        return self.call


def _text_pickle(*lines):
    return "\n".join(lines).encode()


DTYPE_F8 = np.dtype("f8")
MALICIOUS = {
    "system": {"a": Reduces(os.system, ("false",))},
    "eval": {"a": Reduces(eval, ("1",))},
    "getattr": {"a": Reduces(getattr, (complex, "__class__"))},
    "object array": {"a": np.array([Reduces(os.system, ("false",))], dtype=object)},
    "object array of numbers": {"a": np.array([1, None], dtype=object)},
    "structured": {"a": np.zeros(2, dtype=[("x", "f4"), ("y", "O")])},
    "structured numbers": {"a": np.zeros(2, dtype=[("x", "f4"), ("y", "i2")])},
    "object scalar": {"a": np.void(b"abc")},
    "path": {"a": Path("x")},
    "function": {"a": np.sum},
    "list": [1, 2],
    "number as key": {1: 2},
}


@pytest.mark.parametrize("name", MALICIOUS)
@pytest.mark.parametrize("protocol", [2, 4])
def test_malicious_pickles(tmp_path, name, protocol):
    file = tmp_path / "params.pkl"
    file.write_bytes(pickle.dumps(MALICIOUS[name], protocol=protocol))
    with pytest.raises(DataError) as info:
        load_params(file)
    assert str(file) in str(info.value)
    with pytest.raises(DataError):
        load_preset(file)


def test_the_refused_name_is_told():
    with pytest.raises(DataError, match=r"(posix|nt)\.system is not allowed"):
        legacy_pickle.loads(pickle.dumps(MALICIOUS["system"]))


RECONSTRUCT = ("cnumpy.core.multiarray", "_reconstruct", "(cnumpy", "ndarray", "(I0", "tVb", "tR")
F8 = ("cnumpy", "dtype", "(Vf8", "I00", "I01", "tR")


@pytest.mark.parametrize(
    "lines",
    [
        # an ndarray made directly, a bare name, an array without state
        ("(dVa", "cnumpy", "ndarray", "(I3", "tRs."),
        ("(dVa", "cnumpy", "ndarray", "s."),
        ("(dVa", "cnumpy", "dtype", "s."),
        ("(dVa", *RECONSTRUCT, "s."),
        # wrong length, negative length, Python objects as content, no dtype
        ("(dVa", *RECONSTRUCT, "(I1", "(I3", "t", *F8, "I00", "Vab", "tbs."),
        ("(dVa", *RECONSTRUCT, "(I1", "(I-1", "t", *F8, "I00", "(ltbs."),
        ("(dVa", *RECONSTRUCT, "(I1", "(I1", "t", *F8, "I00", "(lNatbs."),
        ("(dVa", *RECONSTRUCT, "(I1", "(I1", "tNI00", "(ltbs."),
        # dtypes: an object one, one with a sub-array, one that is no text
        ("(dVa", "cnumpy", "dtype", "(VO8", "tRs."),
        ("(dVa", *F8, "(I3", "V<", "(VO8", "I2", "tNNI-1", "I-1", "I63", "tbs."),
        ("(dVa", "cnumpy", "dtype", "(cbuiltins", "complex", "tRs."),
        # getattr by dotted names, subclasses, a container that holds itself
        ("(dVa", "cnumpy", "ndarray.__class__", "s."),
        (
            "(dVa",
            "cnumpy.core.multiarray",
            "_reconstruct",
            "(cbuiltins",
            "set",
            "(I0",
            "tVb",
            "tRs.",
        ),
        ("(dp0", "Va", "g0", "s."),
    ],
)
def test_hand_written_pickles(lines):
    with pytest.raises(DataError):
        legacy_pickle.loads(_text_pickle(*lines))


def test_shared_containers_stay_small():
    value = [1]
    for _ in range(60):
        value = [value, value]
    loaded = legacy_pickle.loads(pickle.dumps({"a": value}))["a"]
    assert loaded[0] is loaded[1]


def test_legacy_pickle_of_pypty():
    params = {
        "obj": np.ones((3, 4, 2, 1), complex),
        "loss_weight": np.float64(0.5),
        "force_dataset_dtype": np.float32,
        "default": np.dtype(">f4"),
        "ctf": 1 + 2j,
        "sequence": range(3),
        "update_probe": "lambda x: x > 3",
        "folder": "a/b/",
    }
    data = pickle.dumps(params, protocol=4)
    assert_same(legacy_pickle.loads(data), params)
    # NumPy 1 wrote the old module name, which is one character shorter
    old = pickle.dumps(params, protocol=2).replace(b"numpy._core.", b"numpy.core.")
    with pytest.raises(DataError, match=r"_codecs\.encode"):
        legacy_pickle.loads(old)
    stream = io.BytesIO()
    pickle._Pickler(stream, protocol=4).dump({"n": params["loss_weight"]})
    data = stream.getvalue().replace(
        b"\x8c\x16numpy._core.multiarray", b"\x8c\x15numpy.core.multiarray"
    )
    frame = data.index(b"\x95") + 1
    size = int.from_bytes(data[frame : frame + 8], "little") - 1
    data = data[:frame] + size.to_bytes(8, "little") + data[frame + 8 :]
    assert_same(legacy_pickle.loads(data), {"n": np.float64(0.5)})


TOML = """
[experiment]
data_path = "data/scan.h5"
path_json = ""
slice_thickness = "none"
[preset]
hist_length = inf
output_folder = "out"
phase_plate_in_h5 = "/plates/p.h5"
update_probe = "lambda x: x > 2"
"""


def test_run_file(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text(TOML)
    experiment, preset = load_run_file(file)
    folder = tmp_path.resolve()
    data_path = str(folder / "data" / "scan.h5")
    assert experiment == {"data_path": data_path, "path_json": "", "slice_thickness": None}
    assert preset["hist_length"] == float("inf")
    assert preset["output_folder"] == str(folder / "out")
    assert preset["phase_plate_in_h5"] == "/plates/p.h5"
    assert load_preset(file) == preset


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.toml", 'epoch_max = 3\noutput_folder = "none"'),
        ("p.json", '{"epoch_max": 3, "output_folder": null}'),
    ],
)
def test_flat_files_are_presets(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert load_run_file(tmp_path / name) == ({}, {"epoch_max": 3, "output_folder": None})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.toml", "epoch_max = "),
        ("p.toml", "seed = 1\n[preset]\nepoch_max = 3"),
        ("p.toml", "[preset]\nepoch_max = 3\n[extra]\na = 1"),
        ("p.json", "{"),
        ("p.json", "[1]"),
        ("p.json", '{"preset": {}, "seed": 1}'),
        ("p.yaml", "epoch_max: 3"),
        ("p.toml", b"\xff\xfe"),
        ("p.json", "[" * 100_000),
    ],
)
def test_bad_preset_files(tmp_path, name, text):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError) as info:
        load_preset(tmp_path / name)
    assert name in info.value.problems[0].key


def test_saved_parameters_serve_as_preset(tmp_path):
    file = save_params(tmp_path, {"data_path": "relative.h5", "obj": np.ones((2, 3, 1, 1))})
    assert load_preset(file)["data_path"] == "relative.h5"
    assert load_preset(tmp_path / "params.pkl")["obj"].shape == (2, 3, 1, 1)
    experiment, preset = load_run_file(tmp_path)
    assert experiment == {}
    assert preset.keys() == {"data_path", "obj"}
