"""The checks themselves: they accept what is right and refuse what is nearly right."""

import numpy as np
import pytest

from tests.gradients.checks import (
    assert_adjoint,
    assert_derivative,
    assert_taylor,
    normal,
    taylor_slope,
)

STEPS = np.geomspace(1e-2, 1e-4, 5)


@pytest.fixture
def matrix():
    return normal(np.random.default_rng(1), 4, 7)


def test_the_conjugate_transpose_is_the_adjoint(matrix):
    rng = np.random.default_rng(2)
    v, w = normal(rng, 7), normal(rng, 4)
    assert_adjoint(lambda a: matrix @ a, lambda b: matrix.conj().T @ b, v, w)
    with pytest.raises(AssertionError, match="<w, J v>"):
        assert_adjoint(lambda a: matrix @ a, lambda b: matrix.T @ b, v, w)
    with pytest.raises(AssertionError, match="<w, J v>"):
        assert_adjoint(lambda a: matrix @ a, lambda b: (1 + 1e-10) * matrix.conj().T @ b, v, w)


def test_a_wrong_factor_is_seen_by_differences_and_by_the_taylor_slope():
    rng = np.random.default_rng(3)
    x, d = normal(rng, 5), normal(rng, 5)

    def f(a):
        return float(np.sum(np.abs(a) ** 4))

    g = 4 * np.abs(x) ** 2 * x
    assert_derivative(f, x, g, d)
    with pytest.raises(AssertionError, match="difference"):
        assert_derivative(f, x, g * (1 + 1e-6), d)
    tree, direction = {"a": x, "fixed": x}, {"a": d}
    assert_taylor(lambda t: f(t["a"]), {"a": g}, tree, direction, STEPS)
    for wrong in (g / 2, g.conj(), 1.02 * g):
        assert taylor_slope(lambda t: f(t["a"]), {"a": wrong}, tree, direction, STEPS) < 1.5
