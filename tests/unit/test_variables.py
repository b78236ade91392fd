"""Public and inside layouts of the variables; their coordinates are tested in tests/gradients."""

import numpy as np
import pytest

from pyptyx.backend import Backend
from pyptyx.engine.variables import (
    PUBLIC_NAMES,
    UPDATE_KEYS,
    object_from_public,
    object_to_public,
    probe_from_public,
    probe_to_public,
    to_public,
)

BACKEND = Backend()


def numbers(*shape):
    rng = np.random.default_rng(0)
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def test_every_variable_has_a_public_name_and_a_switch():
    assert PUBLIC_NAMES.keys() == UPDATE_KEYS.keys()
    assert len(set(PUBLIC_NAMES.values())) == len(PUBLIC_NAMES)
    assert len(set(UPDATE_KEYS.values())) == len(UPDATE_KEYS)


def test_object_layout():
    inside = numbers(2, 3, 7, 11)  # Mo, Nz, Y, X
    public = object_to_public(inside)
    assert public.shape == (7, 11, 3, 2)
    assert public[4, 9, 2, 1] == inside[1, 2, 4, 9]
    np.testing.assert_array_equal(object_from_public(public), inside)


@pytest.mark.parametrize("axes", [2, 3, 4])
def test_missing_axes_of_an_object_become_one(axes):
    public = numbers(7, 11, 3, 2)[(slice(None),) * axes + (0,) * (4 - axes)]
    inside = object_from_public(public)
    assert inside.shape == (2 if axes > 3 else 1, 3 if axes > 2 else 1, 7, 11)
    np.testing.assert_array_equal(inside[0, 0], public.reshape(7, 11, -1)[..., 0])


def test_probe_layout_with_scenarios():
    inside = numbers(2, 3, 5, 8)  # Ns, Mp, ny, nx
    public = probe_to_public(inside)
    assert public.shape == (5, 8, 3, 2)
    assert public[4, 7, 2, 1] == inside[1, 2, 4, 7]
    np.testing.assert_array_equal(probe_from_public(public), inside)


def test_one_scenario_has_no_axis_of_its_own():
    inside = numbers(1, 3, 5, 8)
    public = probe_to_public(inside)
    assert public.shape == (5, 8, 3)
    np.testing.assert_array_equal(probe_from_public(public), inside)
    assert probe_from_public(public[..., 0]).shape == (1, 1, 5, 8)


@pytest.mark.parametrize("convert", [object_to_public, object_from_public, probe_from_public])
def test_layouts_are_contiguous(convert):
    assert convert(numbers(2, 3, 5, 8)).flags.c_contiguous


@pytest.mark.parametrize("shape", [(5, 8), (6, 7)])
def test_background_is_centred_in_public(shape):
    inside = numbers(*shape).real
    public = to_public("background", inside, BACKEND)
    assert public[shape[0] // 2, shape[1] // 2] == inside[0, 0]
    np.testing.assert_array_equal(np.fft.ifftshift(public), inside)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("object", (1, 1, 7, 11)),
        ("probe", (1, 1, 5, 8)),
        ("positions", (6, 2)),
        ("tilts", (7, 6)),
        ("background", (5, 8)),
        ("current", (9,)),
        ("aberrations", (2, 7)),
    ],
)
def test_public_arrays_are_copies(name, shape):
    """Layouts with axes of length one are views of the same numbers if one is not careful."""
    inside = numbers(*shape)
    public = to_public(name, inside, BACKEND)
    assert not np.shares_memory(public, inside)
    assert sorted(public.shape) == sorted(shape if name != "probe" else shape[1:])
