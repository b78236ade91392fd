"""Taylor tests of the whole model through the data term, variable by variable."""

import numpy as np
import pytest

from pyptyx import trees
from pyptyx.physics.detector import DetectorGeometry
from pyptyx.physics.kernels.reference import LOSSES
from tests.gradients.checks import assert_taylor
from tests.gradients.scenes import data_term, direction, spec_for, variables

STEPS = np.geomspace(1e-3, 1e-5, 5)
EVERYTHING = {"scenario": True, "background": True, "current": True}

CASES = {
    "bare": ({"shift": False}, {}),
    "one slice": ({"slices": 1}, {}),
    "four slices": ({"slices": 4}, {}),
    "window by window": ({"slices": 4, "patch": True}, {}),
    "even by odd": ({"window": (14, 11)}, {"scenario": True}),
    "plates": ({"plates": True}, {}),
    "plates without shift": ({"plates": True, "shift": False}, {"current": True}),
    "aberrations": ({"aberrations": True}, {}),
    "aberrations without shift": ({"aberrations": True, "shift": False}, {}),
    "background": ({}, {"background": True}),
    "crop": ({"geometry": DetectorGeometry((2, 3))}, {"background": True}),
    "up-sampled": ({"window": (12, 18), "geometry": DetectorGeometry((0, 0), 3)}, EVERYTHING),
    "crop and up-sampled": (
        {"window": (14, 20), "geometry": DetectorGeometry((1, 4), 2)},
        EVERYTHING,
    ),
    "all": ({"slices": 4, "tilt_mode": 4, "aberrations": True, "plates": True}, EVERYTHING),
    "all, window by window": (
        {"slices": 4, "tilt_mode": 4, "aberrations": True, "plates": True, "patch": True},
        EVERYTHING,
    ),
    **{f"tilt mode {mode}": ({"tilt_mode": mode}, {}) for mode in range(5)},
    **{
        f"common tilt, mode {mode}": ({"tilt_mode": mode, "slices": 4}, {"common_tilt": True})
        for mode in range(5)
    },
    "tilt, one slice": ({"tilt_mode": 4, "slices": 1}, {}),
    "tilt without shift": ({"tilt_mode": 4, "shift": False}, {}),
}


def check(spec, x, rng, **options):
    """Taylor tests of all variables of `x` that `spec` uses."""
    term = data_term(spec, x, rng, **options)
    g = trees.zeros_like(x)
    value = term(x, g)
    assert value == pytest.approx(term(x), rel=1e-14)
    names = [k for k in x if spec.shift or k != "positions"]
    for name in names:
        d = {name: direction(name, x, rng)}
        assert_taylor(term, g, x, d, STEPS, name)
    if not spec.shift:
        assert not g["positions"].any()


@pytest.mark.parametrize("case", CASES)
def test_every_variable(case):
    model, point = CASES[case]
    spec, rng = spec_for(**model), np.random.default_rng(7)
    check(spec, variables(spec, rng, **point), rng)


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss(loss):
    spec, rng = spec_for(tilt_mode=3, aberrations=True), np.random.default_rng(8)
    check(spec, variables(spec, rng, **EVERYTHING), rng, loss=loss)


def test_gradient_is_added_to_the_accumulator():
    spec, rng = spec_for(), np.random.default_rng(9)
    x = variables(spec, rng)
    term = data_term(spec, x, rng)
    once, twice = trees.zeros_like(x), trees.zeros_like(x)
    term(x, once)
    term(x, twice)
    term(x, twice)
    for name in x:
        np.testing.assert_allclose(twice[name], 2 * once[name], rtol=1e-12)


@pytest.mark.parametrize(
    "wanted", ["object", "probe", "positions", "tilts", "background", "current"]
)
def test_a_variable_alone_has_the_same_gradient(wanted):
    """Switching a variable off is leaving it out of the tree; the others do not notice."""
    spec, rng = spec_for(tilt_mode=4), np.random.default_rng(10)
    x = variables(spec, rng, **EVERYTHING)
    term = data_term(spec, x, rng)
    together, alone = trees.zeros_like(x), trees.zeros_like({wanted: x[wanted]})
    term(x, together)
    term(x, alone)
    np.testing.assert_array_equal(alone[wanted], together[wanted])


def test_variables_are_left_alone():
    spec, rng = spec_for(tilt_mode=4, aberrations=True, plates=True), np.random.default_rng(11)
    x = variables(spec, rng, **EVERYTHING)
    before = trees.copy(x)
    data_term(spec, x, rng)(x, trees.zeros_like(x))
    for name, value in before.items():
        np.testing.assert_array_equal(x[name], value)


def test_sse_is_unweighted_and_the_value_is_weighted():
    spec, rng = spec_for(), np.random.default_rng(13)
    x = variables(spec, rng, background=True)
    term = data_term(spec, x, rng, loss="lsq", weight=0.25)
    got = term.evaluate(x)
    assert got.value == pytest.approx(0.25 * got.sse, rel=1e-12)


@pytest.mark.parametrize("batch", [1, 3, 5])
def test_batches_change_nothing_but_rounding(batch):
    spec = spec_for(tilt_mode=4, aberrations=True, plates=True)
    results = []
    for size in (2, batch):
        rng = np.random.default_rng(14)
        x = variables(spec, rng, **EVERYTHING)
        g = trees.zeros_like(x)
        results.append((data_term(spec, x, rng, batch=size)(x, g), g))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-13)
    for name, expected in results[0][1].items():
        atol = 1e-12 * np.abs(expected).max()
        np.testing.assert_allclose(results[1][1][name], expected, rtol=0, atol=atol)
