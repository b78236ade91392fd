"""Frequencies in rings: sums over them, weights on them, and what L-BFGS learns from both."""

import numpy as np
import pytest

from pyptyx import trees
from pyptyx.backend import Backend
from pyptyx.engine.preconditioner import InverseDiagonal
from pyptyx.engine.rings import COUNT, Rings
from pyptyx.optim.lbfgs import LBFGS, Point
from pyptyx.optim.scaling import SPREAD, Preconditioned

PIXEL_A = (0.2, 0.3)
SHAPES = [(2, 3, 14, 11), (1, 4, 9, 16), (3, 1, 10, 13)]


def random(rng, shape, real=False):
    a = rng.normal(size=shape)
    return a if real else a + 1j * rng.normal(size=shape)


def rings_of(shape):
    return Rings(shape[-2:], PIXEL_A, Backend())


def spectrum(a):
    return np.fft.fft2(np.fft.fft(a, axis=1, norm="ortho"))


def numbers(shape):
    """Ring and frequency along the beam of every point of a spectrum, one by one."""
    _modes, depth, ny, nx = shape
    out = np.empty((2, depth, ny, nx), int)
    for z in range(depth):
        for y, q_y in enumerate(np.fft.fftfreq(ny, PIXEL_A[0])):
            for x, q_x in enumerate(np.fft.fftfreq(nx, PIXEL_A[1])):
                nyquist = 1 / (2 * 0.3)
                ring = round((q_y**2 + q_x**2) ** 0.5 / nyquist * COUNT)
                out[:, z, y, x] = z, min(ring, COUNT)
    return out


@pytest.fixture(params=SHAPES, ids=str)
def shape(request):
    return request.param


@pytest.fixture(params=[False, True], ids=["complex", "real"])
def real(request):
    return request.param


@pytest.fixture(params=[False, True], ids=["own root", "common root"])
def arrays(request, shape, real):
    """Two objects and a square root of curvatures, of all axes or of a slice."""
    rng = np.random.default_rng(0)
    root = rng.uniform(1, 3, shape[-2:] if request.param else shape)
    return random(rng, shape, real), random(rng, shape, real), root


def test_moments_are_sums_over_rings(arrays, shape):
    a, b, root = arrays
    got = rings_of(shape).moments(a, b, root)
    fa, fb = spectrum(root * a), spectrum(b / root)
    expected = np.zeros((2, shape[1], COUNT + 1))
    for mode in range(shape[0]):
        at = tuple(numbers(shape))
        np.add.at(expected[0], at, (fa[mode].conj() * fb[mode]).real)
        np.add.at(expected[1], at, np.abs(fb[mode]) ** 2)
    np.testing.assert_allclose(got, expected, atol=1e-9)


def test_weights_multiply_rings(arrays, shape, real):
    a, b, root = arrays
    before = a.copy()
    weights = np.random.default_rng(1).uniform(0.5, 2, (shape[1], COUNT + 1))
    if real:  # whose spectrum is the same at both signs of a frequency
        weights += np.roll(weights[::-1], 1, axis=0)
    rings = rings_of(shape)
    got = rings.weigh(a, weights, root)
    assert got.dtype == a.dtype
    np.testing.assert_array_equal(a, before)
    expected = spectrum(a / root) * weights[tuple(numbers(shape))]
    np.testing.assert_allclose(spectrum(root * got), expected)
    there = trees.dot(rings.weigh(b, weights, root), a)
    assert trees.dot(b, got) == pytest.approx(there, rel=1e-12)
    assert trees.dot(a, got) > 0


def test_single_precision_stays():
    a = random(np.random.default_rng(2), (1, 2, 9, 7)).astype(np.complex64)
    rings, root = rings_of(a.shape), np.full((9, 7), 2, np.float32)
    assert rings.weigh(a, np.ones((2, COUNT + 1)), root).dtype == np.complex64
    real = rings.weigh(a.real, np.ones((2, COUNT + 1)), root)
    assert real.dtype == np.float32
    np.testing.assert_allclose(real, a.real / 4, atol=1e-6)


def operator_for(shape, rng):
    diagonal = {
        "object": rng.uniform(1, 9, shape[-2:]),
        "probe": np.full((1, 1, 1, 1), 3.0),
    }
    return InverseDiagonal(diagonal, 2.0, {}, {"object": rings_of(shape)})


def pair(rng, shape):
    """A step and a change of the gradient that go the same way in every ring."""
    s = {"object": random(rng, shape), "probe": random(rng, (1, 2, 5, 4))}
    y = {k: 3 * v + 0.5 * random(rng, v.shape) for k, v in s.items()}
    return s, y


def test_weighted_operator_is_symmetric_and_one_with_weights_of_one():
    rng, shape = np.random.default_rng(3), SHAPES[0]
    operator = operator_for(shape, rng)
    (u, v), w = pair(rng, shape), rng.uniform(0.5, 2, (3, COUNT + 1))
    weights = {"object": w}
    there, back = operator(v, weights), operator(u, weights)
    assert trees.vdot(u, there) == pytest.approx(trees.vdot(back, v), rel=1e-12)
    assert trees.vdot(u, back) > 0
    np.testing.assert_array_equal(there["probe"], operator(v)["probe"])
    same = operator(v, {"object": np.ones_like(w)})
    np.testing.assert_allclose(same["object"], operator(v)["object"])


def test_every_part_has_its_own_factor():
    rng, shape = np.random.default_rng(4), SHAPES[0]
    operator = operator_for(shape, rng)
    scaling = Preconditioned(operator)
    pairs = [pair(rng, shape) for _ in range(3)]
    products, powers = np.zeros((2, 3, COUNT + 1))
    for age, (s, y) in zip((2, 1, 0), pairs, strict=True):
        scaling.update(s, y)
        root = np.sqrt(2 * operator.diagonal["object"])
        product, power = rings_of(shape).moments(s["object"], y["object"], root)
        products += 0.8**age * product / power.sum()
        powers += 0.8**age * power / power.sum()
    mean = products.sum() / powers.sum()
    factors = np.where(powers > 0, products / np.where(powers > 0, powers, 1), mean)
    factors = factors.clip(mean / SPREAD, mean * SPREAD)
    got = scaling.apply(s)
    np.testing.assert_allclose(got["object"], operator(s, {"object": factors})["object"])
    gamma = trees.vdot(s, y) / trees.vdot(y, operator(y))
    np.testing.assert_allclose(got["probe"], gamma * operator(s)["probe"])


def test_a_scaling_goes_on_from_its_state_and_forgets():
    rng, shape = np.random.default_rng(5), SHAPES[1]
    operator = operator_for(shape, rng)
    first, second = Preconditioned(operator), Preconditioned(operator)
    s, y = pair(rng, shape)
    first.update(s, y)
    second.restore(first.state())
    np.testing.assert_array_equal(second.apply(s)["object"], first.apply(s)["object"])
    state = first.state()
    first.update(y, s)
    second.restore({k: v for k, v in state.items() if k != "moments"})  # of an older version
    np.testing.assert_allclose(
        second.apply(s)["object"], state["gamma"] * operator(s)["object"], rtol=1e-12
    )
    first.reset()
    np.testing.assert_array_equal(first.apply(s)["object"], operator(s)["object"])


@pytest.mark.parametrize("bad", [np.nan, 0.0, -1.0])
def test_pairs_that_teach_nothing_leave_the_common_factor(bad):
    rng, shape = np.random.default_rng(6), SHAPES[2]
    operator = operator_for(shape, rng)
    scaling = Preconditioned(operator)
    s, y = pair(rng, shape)
    s["probe"] *= 100  # keeps the factor of all blocks positive
    y["probe"] = 3 * s["probe"]
    y["object"] = y["object"] * bad
    scaling.update(s, y)
    got = scaling.apply(s)
    assert np.isfinite(got["object"]).all()
    ratio = got["object"] / operator(s)["object"]
    np.testing.assert_allclose(ratio, ratio.flat[0], rtol=1e-9)
    assert ratio.flat[0].real > 0


class ByFrequency:
    """A quadratic function whose curvature depends on place and on frequency, minimum at 0."""

    def __init__(self, shape, rng):
        self.light = rng.uniform(1, 9, shape[-2:])
        ring = numbers(shape)[1] / COUNT
        self.stiffness = 1 / (1 + 30 * ring)
        self.start = {"object": random(rng, shape)}

    def __call__(self, x):
        root = np.sqrt(self.light)
        spread = np.fft.ifft2(self.stiffness * np.fft.fft2(root * x["object"]))
        g = {"object": root * spread}
        return Point(x, 0.5 * trees.vdot(x, g), g)


def test_fewer_steps_where_the_curvature_depends_on_the_frequency():
    shape = (1, 3, 18, 13)
    problem = ByFrequency(shape, np.random.default_rng(7))
    spent = {}
    for name, rings in (("one factor", {}), ("rings", {"object": rings_of(shape)})):
        operator = InverseDiagonal({"object": problem.light}, 1.0, {}, rings)
        optimizer = LBFGS(memory=3, scaling=Preconditioned(operator))
        point, spent[name] = problem(problem.start), 0
        goal = 1e-8 * point.value
        while point.value > goal:
            step = optimizer.step(problem, point)
            assert step.accepted
            point, spent[name] = step.point, spent[name] + step.evaluations
    assert 2 * spent["rings"] < spent["one factor"]
