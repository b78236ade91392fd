"""Data terms: derivative against central differences, documented values at zero intensity."""

import math

import numpy as np
import pytest

from pyptyx.physics.kernels.reference import LOSSES, Loss, ml, squared_norms
from tests.gradients.checks import central_difference

SHAPE = (3, 5, 8)

FORMULAS = {
    "lsq_sqrt": lambda i, d: (np.sqrt(i) - np.sqrt(d)) ** 2,
    "ml": lambda i, d: i - d * np.log(i),
    "lsq": lambda i, d: (i - d) ** 2,
    "lsq_sqrt_2": lambda i, d: np.where(d > 0.5, 0.5 * (i - d) ** 2 / np.maximum(d, 0.5), i),
    "lsq_compressed": lambda c, d: (c - d) ** 2,
    "gauss_compressed": lambda c, d: (np.sqrt(c) - np.sqrt(d)) ** 2,
    "poisson_compressed": lambda c, d: c - d * np.log(c),
    "ml_shifted": lambda i, d: i - (d + 0.2) * np.log1p(5 * i),
}


@pytest.fixture
def counts():
    """Model intensities away from zero; data with zeros and values around the threshold 0.5."""
    rng = np.random.default_rng(5)
    data = rng.choice([0.0, 0.3, 0.5, 0.7, 4.0, 90.0], SHAPE)
    return rng.uniform(0.2, 50.0, SHAPE), data


def test_poisson_with_a_floor_continues_along_its_tangent():
    """Value and slope of ``-D ln I`` at the floor, and a straight line below it."""
    floor = 0.2
    intensity = np.array([[[1e-12, 0.05, 0.2, 0.3, 4.0]]])
    data = np.array([[[3.0, 2.0, 1.0, 0.0, 5.0]]])
    value, derivative = ml(intensity, data, floor)
    at = np.maximum(intensity, floor)
    expected = intensity - data * (np.log(at) + (intensity - at) / floor)
    np.testing.assert_allclose(value, expected.sum(axis=(1, 2)), rtol=1e-13)
    np.testing.assert_allclose(derivative, 1 - data / at, rtol=1e-13)
    value, derivative = ml(np.zeros((1, 2, 3)), np.full((1, 2, 3), 7.0), floor)
    assert value == 0
    assert np.all(derivative == -7)


def test_the_floor_is_for_the_poisson_term_only():
    intensity, data = np.full((1, 2, 3), 0.1), np.ones((1, 2, 3))
    np.testing.assert_array_equal(
        Loss("lsq", 0.3)(intensity, data)[1], LOSSES["lsq"](intensity, data)[1]
    )
    bare, floored = (Loss("ml", f)(intensity, data) for f in (0.0, 0.3))
    assert bare[1][0, 0, 0] == pytest.approx(-9)
    assert floored[1][0, 0, 0] == pytest.approx(1 - 1 / 0.3)


@pytest.mark.parametrize("mean", [0.03, 0.4, 6.0])
def test_the_shifted_poisson_term_is_unbiased_at_any_dose(mean):
    """The expected slope is zero at the true intensity; the amplitude loss pulls it down."""
    counts = np.arange(60.0)
    chance = np.exp(counts * np.log(mean) - mean - [math.lgamma(n + 1) for n in counts])
    intensity = np.full((1, 1, 60), mean)
    for shift in (0.05, 0.2, 3.0):
        slope = Loss("ml_shifted", shift)(intensity, counts[None, None])[1]
        assert abs(slope[0, 0] @ chance) < 1e-12
    assert Loss("lsq_sqrt")(intensity, counts[None, None])[1][0, 0] @ chance > 0.01


def test_every_loss_is_tested():
    assert FORMULAS.keys() == LOSSES.keys()


@pytest.mark.parametrize("name", LOSSES)
def test_value_is_the_sum_of_the_formula_per_pattern(name, counts):
    intensity, data = counts
    value, _derivative = LOSSES[name](intensity.copy(), data.copy())
    np.testing.assert_allclose(value, FORMULAS[name](intensity, data).sum(axis=(1, 2)), rtol=1e-13)


@pytest.mark.parametrize("name", LOSSES)
def test_derivative(name, counts):
    intensity, data = counts
    _value, derivative = LOSSES[name](intensity.copy(), data.copy())
    expected = central_difference(lambda h: FORMULAS[name](intensity + h, data), 1e-3)
    np.testing.assert_allclose(derivative, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", LOSSES)
def test_inputs_are_left_alone(name, counts):
    intensity, data = counts
    before = intensity.copy(), data.copy()
    LOSSES[name](intensity, data)
    np.testing.assert_array_equal(intensity, before[0])
    np.testing.assert_array_equal(data, before[1])


@pytest.mark.parametrize(
    ("name", "value", "derivative"),
    [
        ("lsq_sqrt", [9.0, 0.0], [-3.0, 0.0]),
        ("ml", [0.0, 0.0], [-9.0, 0.0]),
        ("lsq", [81.0, 0.0], [-18.0, 0.0]),
        ("lsq_sqrt_2", [4.5, 0.0], [-1.0, 1.0]),
        ("gauss_compressed", [9.0, 0.0], [-3.0, 0.0]),
        ("poisson_compressed", [1.0, 1.0], [-9.0, 0.0]),
        ("ml_shifted", [0.0, 0.0], [-45.0, 0.0]),
    ],
)
def test_zero_intensity(name, value, derivative):
    """Data of 9 and of 0 counts where the model has none: finite, as documented."""
    got_value, got = LOSSES[name](np.zeros((2, 1, 1)), np.array([[[9.0]], [[0.0]]]))
    np.testing.assert_allclose(got_value, value, atol=1e-15)
    np.testing.assert_allclose(got.ravel(), derivative, atol=1e-15)


@pytest.mark.parametrize("name", LOSSES)
def test_single_precision_stays_single_but_sums_double(name, counts):
    intensity, data = (a.astype(np.float32) for a in counts)
    value, derivative = LOSSES[name](intensity, data)
    assert value.dtype == np.float64
    assert derivative.dtype == np.float32


@pytest.mark.parametrize("shape", [(3, 97, 60), (2, 85, 90), (4, 1, 2500), (0, 6, 7)])
def test_squares_of_many_numbers_are_added_exactly_enough(shape):
    """In strips of rows; one row where their number is prime or a row is long."""
    a = np.random.default_rng(2).normal(size=shape).astype(np.float32)
    expected = (a.astype(np.float64) ** 2).sum(axis=(1, 2))
    got = squared_norms(a)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_squares_that_overflow_are_infinite_without_a_warning():
    a = np.full((2, 5, 8), 1e30, np.float32)
    a[0] = 2
    assert squared_norms(a).tolist() == [160, np.inf]


def test_an_amplitude_that_is_known_changes_nothing():
    rng = np.random.default_rng(3)
    intensity = rng.random((3, 7, 10))
    intensity[:, 2] = 0
    data = rng.poisson(2.0, intensity.shape).astype(np.float64)
    for loss in (Loss("lsq_sqrt"), Loss("gauss_compressed"), Loss("ml", 0.3), Loss("lsq")):
        expected = loss(intensity, data)
        for got, one in zip(loss(intensity, data, np.sqrt(intensity)), expected, strict=True):
            np.testing.assert_array_equal(got, one)
