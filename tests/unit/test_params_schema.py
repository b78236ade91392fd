"""The tables of keys: every row is complete, and its converter does what its words say."""

import math
from pathlib import Path

import numpy as np
import pytest

from pyptyx.params import reference
from pyptyx.params.kinds import Mismatch
from pyptyx.params.schedule import Schedule
from pyptyx.params.schema import (
    ACCEPTED_IN_RUN,
    EXPERIMENT,
    EXPERIMENT_ALIASES,
    INFO,
    RUN,
    RUN_ALIASES,
)

ROWS = [*RUN.values(), *EXPERIMENT.values(), *INFO.values()]
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "parameters.md"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.scope}-{row.name}")
def test_row_is_complete(row):
    assert row.doc.endswith(".")
    assert row.doc[0].isupper()
    assert "|" not in row.doc
    assert row.unit
    assert row.group
    assert row.scope in {"run", "experiment", "both", "info"}
    row.convert(row.default)
    assert not row.choices or row.kind.convert(row.choices[0]) == row.choices[0]


@pytest.mark.parametrize(
    ("suffix", "unit"), [("_A", "Å"), ("_mrad", "mrad"), ("_deg", "deg"), ("_nm", "nm")]
)
def test_unit_agrees_with_the_name(suffix, unit):
    units = {row.name: row.unit for row in ROWS if row.name.endswith(suffix)}
    assert units
    reciprocal = {"rez_pixel_size_A"}
    assert {name for name, u in units.items() if u != unit} <= reciprocal


def test_shared_keys_have_one_row():
    for name in RUN.keys() & EXPERIMENT.keys():
        differs = {"data_pad", "print_flag", "aberrations", "scan_step_A"}
        assert name in differs or RUN[name] is EXPERIMENT[name]


def test_aliases_lead_to_keys_and_hide_none():
    assert set(RUN_ALIASES.values()) <= ACCEPTED_IN_RUN.keys()
    assert not RUN_ALIASES.keys() & RUN.keys()
    assert not EXPERIMENT_ALIASES.keys() & EXPERIMENT.keys()


def test_defaults_that_differ_from_pypty_are_these():
    assert RUN["default_dtype"].default == "single"
    assert RUN["acc_voltage"].default is None
    assert RUN["print_flag"].default == 3
    assert isinstance(RUN["update_step_bfgs"].default, float)
    assert math.isclose(RUN["damping_cutoff_multislice"].default, 2 / 3)


def test_array_defaults_are_not_shared():
    row = RUN["slice_distances"]
    row.default_value()[0] = 7
    assert row.default_value()[0] == 10


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("update_probe", 0, False),
        ("update_probe", np.True_, True),
        ("epoch_max", np.int16(7), 7),
        ("epoch_max", 7.0, 7),
        ("save_inter_checkpoints", True, 1),
        ("hist_length", math.inf, math.inf),
        ("probe_reg_constraint_weight", np.float32("inf"), math.inf),
        ("acc_voltage", np.float32(80), 80.0),
        ("acc_voltage", np.array(80), 80.0),
        ("atv_weight", False, 0.0),
        ("damping_cutoff_multislice", -1, 2 / 3),
        ("loss_weight", "mean", "mean"),
        ("compute_batch", 4, 4),
        ("output_folder", Path("a/b"), "a/b"),
        ("output_folder", "a/b/", "a/b"),
        ("output_folder", "/", "/"),
        ("output_folder", None, None),
        ("scan_size", [4, np.int64(5)], (4, 5)),
        ("n_hermite_probe_modes", np.array([1, 2]), (1, 2)),
        ("force_dataset_dtype", np.float32, "float32"),
        ("force_dataset_dtype", "uint16", "uint16"),
        ("fancy_sigma", (None, [1, 2]), (None, (1.0, 2.0))),
        ("obj", "ones", None),
        ("tilt_mode", 4, 4),
    ],
)
def test_accepted(key, value, expected):
    converted = RUN[key].convert(value)
    assert converted == expected
    assert type(converted) is type(expected)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("update_probe", 2),
        ("update_probe", "yes"),
        ("update_probe", None),
        ("epoch_max", True),
        ("epoch_max", 7.5),
        ("epoch_max", -1),
        ("epoch_max", math.inf),
        ("acc_voltage", 0),
        ("acc_voltage", math.nan),
        ("acc_voltage", True),
        ("acc_voltage", 10**400),
        ("acc_voltage", "80"),
        ("wolfe_c1_constant", 1),
        ("print_flag", 5),
        ("tilt_mode", 5),
        ("recon_type", "middle_field"),
        ("compute_batch", "much"),
        ("compute_batch", 0),
        ("data_path", b"x"),
        ("data_path", "a\0b"),
        ("scan_size", (4, 5, 6)),
        ("scan_size", (4, 0)),
        ("force_dataset_dtype", complex),
        ("force_dataset_dtype", "object"),
        ("obj", "twos"),
        ("fancy_sigma", (1, 2)),
        ("atv_weight", lambda: 1),
    ],
)
def test_refused(key, value):
    with pytest.raises(Mismatch):
        RUN[key].convert(value)


def test_schedulable_keys_take_callables_and_text():
    function = lambda epoch: epoch > 3  # noqa: E731
    assert RUN["update_probe"].convert(function) is function
    assert RUN["update_probe"].convert(" lambda e: e > 3") == Schedule(" lambda e: e > 3")
    assert RUN["data_path"].convert("lambda/data.h5") == "lambda/data.h5"
    with pytest.raises(Mismatch):
        RUN["epoch_max"].convert(function)


@pytest.mark.parametrize(
    ("key", "value", "dtype", "shape"),
    [
        ("positions", [[1, 2], [3, 4], [5, 6]], "float64", (3, 2)),
        ("positions", np.ones((3, 2), "float32"), "float32", (3, 2)),
        ("slice_distances", 4, "float64", (1,)),
        ("probe_marker", np.array([0.0, 1.0, 2.0]), "int64", (3,)),
        ("obj", np.ones((5, 4, 3, 2)), "float64", (5, 4, 3, 2)),
        ("obj", np.ones((5, 4, 3, 2), "complex64"), "complex64", (5, 4, 3, 2)),
        ("aperture_mask", np.ones((4, 5), bool), "bool", (4, 5)),
        ("window", (0.2, 0.4), "float64", (2,)),
        ("devices", [0, 2], "int64", (2,)),
        ("sequence", range(3), "int64", (3,)),
    ],
)
def test_accepted_arrays(key, value, dtype, shape):
    converted = RUN[key].convert(value)
    assert converted.dtype == dtype
    assert converted.shape == shape


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("positions", np.ones((3, 4)), "(3, 4)"),
        ("positions", [[1, 2], [3]], "[[1, 2], [3]]"),
        ("positions", [[1, np.nan], [3, 4]], "first at (0, 1)"),
        ("positions", [[1, np.inf], [3, 4]], "inf"),
        ("positions", [["1", "2"]], "U1"),
        ("positions", np.ones((3, 2), object), "object"),
        ("positions", np.ones((3, 2), complex), "complex"),
        ("obj", np.full((2, 3, 1, 4), 1j * np.inf), "24 NaN"),
        ("obj", np.ones((2, 3)), "(2, 3)"),
        ("slice_distances", [], "empty"),
        ("probe_marker", [0.5, 1], "array"),
        ("probe_marker", [-1, 1], "-1"),
        ("dataset", np.ones(3), "(3,)"),
        ("dataset", np.ones((3, 4, 5), complex), "complex"),
    ],
)
def test_refused_arrays(key, value, word):
    with pytest.raises(Mismatch) as info:
        RUN[key].convert(value)
    assert word in info.value.got


def test_large_data_are_not_copied():
    class Lazy:
        shape, dtype = (7, 5, 4), np.dtype("uint16")

    data = Lazy()
    assert RUN["dataset"].convert(data) is data


def test_committed_page_is_the_generated_one():
    assert PAGE.read_text(encoding="utf-8") == reference.markdown()


def test_page_describes_every_key():
    page = reference.markdown()
    for row in ROWS:
        assert f"| `{row.name}` |" in page
