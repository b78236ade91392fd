"""Line searches and L-BFGS: the properties they promise, not the steps they happen to take."""

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from pyptyx import trees
from pyptyx.backend import Backend
from pyptyx.engine import preconditioner
from pyptyx.engine.objective import Objective
from pyptyx.engine.setup import EVALUATION_NEEDS, build
from pyptyx.executors import SerialExecutor
from pyptyx.optim.lbfgs import LBFGS, Point
from pyptyx.optim.linesearch import SearchOptions, pypty_search, weak_wolfe
from pyptyx.optim.scaling import EqualSlopes, Preconditioned
from pyptyx.params import evaluate
from pyptyx.physics.grid import Grid, disc_mask
from pyptyx.physics.model import ModelSpec
from pyptyx.physics.tilt import TiltPlan
from pyptyx.terms.data_term import DataTerm, ScanTable

# -- line searches -----------------------------------------------------------------------------


class Curve:
    """A function of the step that remembers what was asked."""

    def __init__(self, value, slope):
        self._value, self._slope = value, slope
        self.asked = []

    def __call__(self, t):
        self.asked.append(t)
        return float(self._value(t)), float(self._slope(t))

    def search(self, method, t0, **options):
        """Run a search from 0; returns result, options, value and slope at 0."""
        options = SearchOptions(**options)
        f0, slope0 = float(self._value(0.0)), float(self._slope(0.0))
        return method(self, f0, slope0, t0, options), options, f0, slope0


CURVES = {
    "parabola": lambda: Curve(lambda t: (t - 1) ** 2, lambda t: 2 * (t - 1)),
    "steep wall": lambda: Curve(lambda t: -t + 1e3 * t**4, lambda t: -1 + 4e3 * t**3),
    "kink": lambda: Curve(lambda t: abs(t - 1) + 0.01 * t, lambda t: np.sign(t - 1) + 0.01),
    "waves": lambda: Curve(
        lambda t: 0.1 * t**2 - np.sin(3 * t) / 3, lambda t: 0.2 * t - np.cos(3 * t)
    ),
    "far minimum": lambda: Curve(lambda t: (t / 1e4 - 1) ** 2, lambda t: 2e-4 * (t / 1e4 - 1)),
    "bent twice": lambda: Curve(
        lambda t: np.sqrt(1 + t**2) - 3 * np.tanh(t),
        lambda t: t / np.sqrt(1 + t**2) - 3 / np.cosh(min(t, 300.0)) ** 2,
    ),
}  # fmt: skip


def assert_wolfe(curve, found, options, f0, slope0):
    value, slope = curve(found.step)
    assert found.accepted
    assert found.slope == slope
    assert value <= f0 + options.c1 * found.step * slope0, "W1"
    assert slope >= options.c2 * slope0, "W2"


@pytest.mark.parametrize("t0", [1e-6, 1e-2, 1.0, 30.0, 1e6])
@pytest.mark.parametrize("name", CURVES)
def test_weak_wolfe_finds_a_step_that_satisfies_both_conditions(name, t0):
    curve = CURVES[name]()
    found, *rest = curve.search(weak_wolfe, t0)
    assert found.evaluations == len(curve.asked) <= 22
    assert found.step == curve.asked[-1], "the caller holds the last evaluated point"
    assert_wolfe(curve, found, *rest)


@pytest.mark.parametrize(("c1", "c2"), [(1e-4, 0.1), (0.3, 0.5), (0.1, 0.9)])
@pytest.mark.parametrize("name", ["parabola", "waves", "bent twice"])
def test_weak_wolfe_with_other_constants(name, c1, c2):
    curve = CURVES[name]()
    found, *rest = curve.search(weak_wolfe, 5.0, c1=c1, c2=c2)
    assert_wolfe(curve, found, *rest)


def test_a_first_step_that_fits_costs_one_evaluation():
    curve = CURVES["parabola"]()
    found, *_rest = curve.search(weak_wolfe, 1.0)
    assert (found.step, found.evaluations, found.accepted) == (1.0, 1, True)


@pytest.mark.parametrize("method", [weak_wolfe, pypty_search])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_values_that_are_not_finite_beyond_a_radius(method, bad):
    def outside(t, inside):
        return inside if t < 0.9 else bad

    curve = Curve(lambda t: outside(t, (t - 1) ** 2), lambda t: outside(t, 2 * (t - 1)))
    found, *rest = curve.search(method, 1e5, c2=0.95)
    assert_wolfe(curve, found, *rest)
    assert 0 < found.step < 0.9


def test_a_slope_that_is_not_finite_is_never_accepted():
    curve = Curve(lambda t: -t, lambda t: math.nan if t > 0.5 else -1.0)
    found, *_rest = curve.search(weak_wolfe, 1.0, max_count=5)
    assert found.step <= 0.5
    assert math.isfinite(found.slope)


@pytest.mark.parametrize("method", [weak_wolfe, pypty_search])
@pytest.mark.parametrize("max_count", [0, 1, 4])
@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("t0", [1e-3, 1.0, 1e3])
def test_the_step_is_always_the_last_evaluated_one(method, max_count, name, t0):
    """Defect O4: PyPty reports a step it never evaluated when the count runs out."""
    curve = CURVES[name]()
    found, options, f0, slope0 = curve.search(method, t0, max_count=max_count)
    assert found.step == curve.asked[-1]
    assert found.evaluations == len(curve.asked)
    # One more than PyPty's number only to return to the best of the steps.
    returned = found.step in curve.asked[:-1]
    assert len(curve.asked) <= max_count + 2 + returned
    value, slope = curve(found.step)
    assert found.slope == slope
    assert found.accepted == (value <= f0 + options.c1 * found.step * slope0)


def test_out_of_evaluations_the_lowest_value_is_taken():
    curve = CURVES["far minimum"]()
    found, *_rest = curve.search(weak_wolfe, 1e-3, max_count=3, c2=1e-6)
    assert found.accepted
    assert found.step == max(curve.asked), "the curve falls all the way"


@pytest.mark.parametrize("method", [weak_wolfe, pypty_search])
def test_a_function_that_only_rises_is_refused(method):
    curve = Curve(lambda t: t, lambda t: -1.0)  # a wrong gradient
    found, *_rest = curve.search(method, 1.0, max_count=None)
    assert not found.accepted
    assert found.step == curve.asked[-1]
    assert found.step < 1e-19


@pytest.mark.parametrize("method", [weak_wolfe, pypty_search])
def test_searches_are_deterministic(method):
    asked = []
    for _ in range(2):
        curve = CURVES["waves"]()
        curve.search(method, 40.0)
        asked.append(curve.asked)
    assert asked[0] == asked[1]


def test_pypty_search_shrinks_and_grows_by_its_factors():
    curve = CURVES["parabola"]()
    found, *rest = curve.search(pypty_search, 100.0)
    np.testing.assert_allclose(curve.asked, [100, 10, 1], rtol=1e-15)
    assert_wolfe(curve, found, *rest)
    curve = CURVES["parabola"]()
    found, *rest = curve.search(pypty_search, 0.01, c2=0.5)
    np.testing.assert_allclose(curve.asked, 0.01 * 3.0 ** np.arange(5), rtol=1e-15)
    assert_wolfe(curve, found, *rest)


def test_pypty_search_counts_like_pypty():
    """At most ``max_count + 2`` evaluations; W1 at the last one decides."""
    curve = Curve(lambda t: -t, lambda t: -1.0)
    found, *_rest = curve.search(pypty_search, 1.0, max_count=3)
    assert len(curve.asked) == 5
    assert found.accepted
    assert found.step == 81.0


# -- L-BFGS ------------------------------------------------------------------------------------


class Quadratic:
    """``½ <x - x*, A (x - x*)>`` over complex and real blocks, with the dense real matrix A."""

    SHAPES = (("object", (3, 2), complex), ("probe", (2,), complex), ("tilts", (5,), float))

    def __init__(self, seed=0, condition=30.0):
        rng = np.random.default_rng(seed)
        self.size = 6 * 2 + 2 * 2 + 5
        basis = np.linalg.qr(rng.standard_normal((self.size, self.size)))[0]
        eigenvalues = np.geomspace(1, condition, self.size)
        self.matrix = basis @ np.diag(eigenvalues) @ basis.T
        self.minimum = rng.standard_normal(self.size)
        self.start = self.tree(rng.standard_normal(self.size))
        self.calls = 0

    def tree(self, v):
        out, at = {}, 0
        for name, shape, dtype in self.SHAPES:
            n = math.prod(shape) * (2 if dtype is complex else 1)
            out[name] = v[at : at + n].copy().view(dtype).reshape(shape)
            at += n
        return out

    @staticmethod
    def vector(tree):
        return np.concatenate(
            [trees.real_view(tree[name]) for name, _shape, _dtype in Quadratic.SHAPES]
        )

    def __call__(self, x):
        self.calls += 1
        away = self.vector(x) - self.minimum
        g = self.matrix @ away
        return Point(x, 0.5 * float(away @ g), self.tree(g))


def dense_bfgs(pairs, h):
    """Inverse Hessian, from `h`, by ``H⁺ = V H Vᵀ + ρ s sᵀ`` with ``V = 1 - ρ s yᵀ``."""
    n = len(h)
    for s, y in pairs:
        rho = 1 / (y @ s)
        v = np.eye(n) - rho * np.outer(s, y)
        h = v @ h @ v.T + rho * np.outer(s, s)
    return h


def walk(problem, optimizer, steps):
    """Some steps; the points visited."""
    points = [problem(problem.start)]
    for _ in range(steps):
        step = optimizer.step(problem, points[-1])
        assert step.accepted
        points.append(step.point)
    return points


@pytest.mark.parametrize("memory", [1, 4, math.inf])
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.1, 2.0, 0.5)], ids=["plain", "weighted"])
def test_direction_is_that_of_the_dense_inverse_bfgs_matrix(memory, weights):
    problem = Quadratic()
    blocks = dict(zip(problem.start, weights, strict=True))
    operator = Preconditioned(lambda q: {k: blocks[k] * v for k, v in q.items()})
    optimizer = LBFGS(memory=memory, scaling=operator)
    points = walk(problem, optimizer, 6)
    vectors = [(problem.vector(p.x), problem.vector(p.g)) for p in points]
    pairs = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(vectors)]
    h0 = np.diag(
        np.concatenate(
            [np.full(trees.real_view(a).size, blocks[k]) for k, a in problem.start.items()]
        )
    )
    s, y = pairs[-1]
    kept = pairs[-int(min(memory, len(pairs))) :]
    h = dense_bfgs(kept, (s @ y) / (y @ h0 @ y) * h0)
    g = points[-1].g
    np.testing.assert_allclose(
        problem.vector(optimizer.direction(g)), -h @ problem.vector(g), rtol=1e-9
    )


def test_memory_0_is_steepest_descent_with_the_last_scale():
    problem = Quadratic()
    optimizer = LBFGS(memory=0)
    points = walk(problem, optimizer, 3)
    s, y = (
        problem.vector(points[-1].x) - problem.vector(points[-2].x),
        problem.vector(points[-1].g) - problem.vector(points[-2].g),
    )
    got = problem.vector(optimizer.direction(points[-1].g))
    np.testing.assert_allclose(got, -(s @ y) / (y @ y) * problem.vector(points[-1].g), rtol=1e-12)


def descend(problem, optimizer, most=500):
    """Steps until the gradient is small; the number of steps and the last point."""
    point = problem(problem.start)
    for count in range(most):
        if trees.norm(point.g) < 1e-5:
            return count, point
        step = optimizer.step(problem, point)
        assert step.accepted
        assert step.point.value < point.value
        point = step.point
    raise AssertionError(f"not converged: |g| = {trees.norm(point.g):g}")


@pytest.mark.parametrize("scaling", [Preconditioned, EqualSlopes])
@pytest.mark.parametrize("memory", [0, 1, 5, math.inf])
def test_every_memory_reaches_the_minimum(memory, scaling):
    problem = Quadratic()
    _steps, point = descend(problem, LBFGS(memory=memory, scaling=scaling()))
    np.testing.assert_allclose(problem.vector(point.x), problem.minimum, atol=1e-5)


def test_more_memory_needs_fewer_steps():
    steps = [descend(Quadratic(condition=100), LBFGS(memory=m))[0] for m in (0, 3, math.inf)]
    assert steps[2] < steps[1] < steps[0] / 1.5


def test_accepted_steps_satisfy_wolfe():
    problem, optimizer = Quadratic(condition=1e3), LBFGS()
    point = problem(problem.start)
    for _ in range(10):
        before = problem.vector(point.x)
        step = optimizer.step(problem, point, first_step=7.0)
        moved = problem.vector(step.point.x) - before
        slope = moved @ problem.vector(point.g) / step.step
        assert step.slope == pytest.approx(slope, rel=1e-9)
        assert step.point.value <= point.value + 0.1 * step.step * step.slope
        assert step.new_slope >= 0.9 * step.slope
        point = step.point


def test_a_pair_without_curvature_is_not_kept():
    """Along a concave stretch ``<y, s> < 0``: the pair would make H indefinite (defect O9)."""

    def fun(x):  # concave around 0, confined far out
        a = x["a"]
        return Point(x, float(np.sum(-(a**2) + a**4 / 200)), {"a": -2 * a + a**3 / 50})

    point = fun({"a": np.array([0.1, -0.2, 0.3])})
    optimizer = LBFGS(search=pypty_search, options=SearchOptions(max_count=0))
    step = optimizer.step(fun, point, first_step=0.5)
    assert step.accepted
    y, s = step.point.g["a"] - point.g["a"], step.point.x["a"] - point.x["a"]
    assert y @ s < 0
    direction = optimizer.direction(step.point.g)["a"]
    np.testing.assert_allclose(direction, -step.point.g["a"], rtol=1e-15)  # no pair: the gradient
    optimizer.options = SearchOptions()
    for _ in range(20):
        step = optimizer.step(fun, step.point)
        if not step.slope < 0:
            break
        assert step.accepted
    np.testing.assert_allclose(np.abs(step.point.x["a"]), 10, rtol=1e-5)


def test_a_rejected_step_leaves_the_point_and_drops_the_history():
    problem = Quadratic()
    optimizer = LBFGS()
    point = walk(problem, optimizer, 4)[-1]
    before = trees.copy(point.x)

    def rising(x):
        return Point(x, point.value + 1.0, problem(x).g)

    step = optimizer.step(rising, point)
    assert not step.accepted
    assert not step.fresh, "the direction came with history"
    assert step.point is point
    for name, value in before.items():
        np.testing.assert_array_equal(point.x[name], value)
    fresh = LBFGS().direction(point.g)
    for name, value in optimizer.direction(point.g).items():
        np.testing.assert_array_equal(value, fresh[name])
    again = optimizer.step(rising, point)
    assert not again.accepted
    assert again.fresh


def test_no_descent_is_reported_without_an_evaluation():
    problem = Quadratic()
    there = problem(problem.tree(problem.minimum))
    still = Point(there.x, there.value, trees.zeros_like(there.g))
    calls = problem.calls
    step = LBFGS().step(problem, still)
    assert (step.accepted, step.fresh, step.evaluations) == (False, True, 0)
    assert problem.calls == calls


def test_values_that_are_not_finite_shorten_the_step():
    problem = Quadratic()

    def fenced(x):
        away = np.linalg.norm(problem.vector(x) - problem.vector(problem.start))
        if away > 1e-3:
            nothing = {k: np.full_like(v, np.nan) for k, v in x.items()}
            return Point(x, math.nan, nothing)
        return problem(x)

    step = LBFGS().step(fenced, problem(problem.start), first_step=1e3)
    assert step.accepted
    assert step.point.value < problem(problem.start).value


def test_frozen_variables_stay():
    problem = Quadratic()

    def fun(x):
        point = problem(x)
        return Point(x, point.value, {k: point.g[k] for k in ("probe", "tilts")})

    step = LBFGS().step(fun, fun(problem.start))
    assert step.accepted
    assert step.point.x["object"] is problem.start["object"]
    assert step.point.g.keys() == {"probe", "tilts"}


def test_watch_sees_every_evaluation():
    problem, seen = Quadratic(condition=1e3), []
    step = LBFGS().step(
        problem,
        problem(problem.start),
        50.0,
        lambda t, trial, slope: seen.append((t, trial, slope)),
    )
    assert len(seen) == step.evaluations > 1
    assert seen[-1][0] == step.step
    assert seen[-1][1] is step.point
    assert seen[-1][2] == step.new_slope


# -- scaling -----------------------------------------------------------------------------------


def test_equal_slopes_gives_every_block_the_slope_of_the_object():
    g = Quadratic().tree(np.random.default_rng(1).standard_normal(21))
    first = EqualSlopes().initial(g)
    np.testing.assert_allclose(first["object"], 0.5 * g["object"])
    slopes = {k: trees.dot(g[k], first[k]) for k in g}
    assert slopes == pytest.approx(dict.fromkeys(g, slopes["object"]))


def test_equal_slopes_without_an_object_and_with_one_of_zero_gradient():
    g = Quadratic().tree(np.random.default_rng(2).standard_normal(21))
    rest = {k: g[k] for k in ("probe", "tilts")}
    for tree in (rest, rest | {"object": 0 * g["object"]}):
        first = EqualSlopes().initial(tree)
        assert trees.dot(tree["probe"], first["probe"]) == pytest.approx(1.0)
        assert trees.dot(tree["tilts"], first["tilts"]) == pytest.approx(1.0)


@pytest.mark.filterwarnings("error")
def test_a_block_with_zero_gradient_makes_no_nan():
    """Defect O5: PyPty divides by its squared norm."""
    problem = Quadratic()

    def fun(x):
        point = problem(x | {"tilts": problem.start["tilts"]})
        return Point(x, point.value, point.g | {"tilts": np.zeros(5)})

    optimizer = LBFGS(scaling=EqualSlopes(), search=pypty_search)
    point = fun(problem.start)
    for _ in range(5):
        step = optimizer.step(fun, point)
        assert step.accepted
        point = step.point
        np.testing.assert_array_equal(point.x["tilts"], problem.start["tilts"])
        assert all(trees.is_finite(optimizer.direction(point.g)).values())


def test_equal_slopes_later_is_barzilai_borwein_per_block():
    rng = np.random.default_rng(3)
    s, y = (
        {"object": rng.random(3) + 1j * rng.random(3), "tilts": rng.random(5)} for _ in range(2)
    )
    scaling = EqualSlopes()
    scaling.update(s, y)
    got = scaling.apply({"object": np.ones(3, complex), "tilts": np.ones(5)})
    expected = {k: trees.dot(y[k], s[k]) / trees.dot(y[k], y[k]) for k in s}
    np.testing.assert_allclose(got["object"], 2 * expected["object"])
    np.testing.assert_allclose(got["tilts"], expected["tilts"])
    # Negative and undefined factors are not learnt.
    scaling.update({k: -v for k, v in s.items()}, y)
    scaling.update(trees.zeros_like(s), trees.zeros_like(y))
    np.testing.assert_allclose(scaling.apply(s)["tilts"], expected["tilts"] * s["tilts"])
    scaling.reset()
    np.testing.assert_array_equal(scaling.apply(s)["tilts"], s["tilts"])


def test_preconditioned_is_scaled_by_the_last_pair():
    rng = np.random.default_rng(4)
    s, y = ({"a": rng.random(4) + 0j, "b": rng.random(3)} for _ in range(2))
    scaling = Preconditioned(lambda q: {"a": 2 * q["a"], "b": 5 * q["b"]})
    np.testing.assert_array_equal(scaling.initial(s)["b"], 5 * s["b"])
    scaling.update(s, y)
    curvature = 2 * trees.dot(y["a"], y["a"]) + 5 * trees.dot(y["b"], y["b"])
    gamma = trees.vdot(s, y) / curvature
    np.testing.assert_allclose(scaling.apply(s)["a"], gamma * 2 * s["a"])
    scaling.reset()
    np.testing.assert_array_equal(scaling.apply(s)["a"], 2 * s["a"])


# -- preconditioner ----------------------------------------------------------------------------

COUNT = 6


def fit(probe_modes, object_modes):
    """A problem with all variables whose data are the model: the residual is zero.

    The object has modulus 1 and smooth phases, and the gaps are small, so that it is nearly the
    thin object that the bounds are made for; it is strong enough for speckle on the detector.
    """
    rng = np.random.default_rng(5)
    grid = Grid((13, 18), (0.31, 0.24), 0.025)
    spec = ModelSpec(grid, (3.0, 2.0), TiltPlan(True, True, True), num_aberrations=4, dtype=complex)
    y, x = (np.arange(n) - n // 2 for n in grid.shape)
    spot = 20 * np.exp(-(y[:, None] ** 2 + x[None, :] ** 2) / 12)
    spectrum = np.fft.fft2(np.stack([spot, 0.5 * spot * x[None, :]])[:probe_modes] + 0j)
    phase = gaussian_filter(rng.standard_normal((object_modes, 3, 23, 29)), (0, 0, 2, 2))
    variables = {
        "object": np.exp(1j * phase / phase.std()),
        "probe": np.fft.ifft2(spectrum * grid.mask)[None],
        "positions": rng.uniform(0, 9, (COUNT, 2)),
        "tilts": 1e-3 * rng.standard_normal((COUNT, 6)),
        "background": rng.uniform(30, 60, grid.shape),
        "current": rng.uniform(0.8, 1.2, COUNT),
        "aberrations": rng.standard_normal((2, 4)),
    }
    scan = ScanTable(
        np.rint(variables["positions"]).astype(int), None, np.array([0, 1, 0, 0, 1, 0])
    )
    data = np.zeros((COUNT, *grid.shape))
    term = DataTerm(
        spec, scan, data.__getitem__, loss="lsq_sqrt", weight=1.0,
        executor=SerialExecutor(), batches=[np.arange(COUNT)],
    )  # fmt: skip
    data[:] = term.simulate(variables)
    curvatures = preconditioner.curvatures(variables, spec, scan, np.arange(COUNT), Backend())
    return term, variables, curvatures, spec


@pytest.fixture(scope="module")
def fitted():
    """One mode of each kind."""
    return fit(1, 1)


@pytest.fixture(scope="module")
def fitted_modes():
    """Several modes of both kinds."""
    return fit(2, 4)


def curvature_ratios(problem, name):
    """True over estimated curvature along random directions of one block, inside the band limit."""
    term, x, curvatures, spec = problem
    assert term(x) == pytest.approx(0, abs=1e-20)
    rng, a, h = np.random.default_rng(6), x[name], 1e-4
    for _ in range(4):
        d = rng.standard_normal(a.shape)
        if a.dtype.kind == "c":
            d = d + 1j * rng.standard_normal(a.shape)
        # Entries of equal estimated weight, small enough for the quadratic range.
        d = d / np.sqrt(curvatures[name])
        if a.dtype.kind == "c":
            mask = disc_mask(a.shape[-2:], spec.grid.pixel_A, spec.grid.q_limit)
            d = np.fft.ifft2(np.fft.fft2(d) * mask)
        # Zero residual: the loss itself is half the Gauss-Newton form, to third order.
        twice = sum(term(x | {name: a + step * d}) for step in (h, -h))
        yield twice / h**2 / trees.dot(d, curvatures[name] * d)


TIGHT = {
    "object": 0.01,
    "probe": 0.02,
    "positions": 0.1,
    "tilts": 0.1,
    "background": 0.02,
    "current": 0.5,
    "aberrations": 0.1,
}
"""Smallest ratio with one mode; with several the directions of the modes are incoherent."""


@pytest.mark.parametrize("name", TIGHT)
def test_estimated_curvature_bounds_the_true_one(fitted, fitted_modes, name):
    ratios = list(curvature_ratios(fitted, name))
    assert TIGHT[name] < min(ratios)
    assert max(ratios) < 1
    assert max(curvature_ratios(fitted_modes, name)) < 1


def test_curvatures_are_positive_and_broadcast(fitted):
    _term, x, curvatures, _spec = fitted
    assert curvatures.keys() == x.keys()
    for name, value in curvatures.items():
        assert np.all(value > 0), name
        assert np.broadcast_shapes(value.shape, x[name].shape) == x[name].shape


def test_a_common_row_gathers_all_measurements(fitted):
    _term, x, _curvatures, spec = fitted
    one_row = x | {"tilts": x["tilts"][:1], "current": np.ones(COUNT)}
    scan = ScanTable(np.rint(x["positions"]).astype(int), None, np.zeros(COUNT, int))
    got = preconditioner.curvatures(one_row, spec, scan, np.arange(COUNT), Backend())
    each = preconditioner.curvatures(
        one_row | {"tilts": x["tilts"]}, spec, scan, np.arange(COUNT), Backend()
    )
    np.testing.assert_allclose(got["tilts"][0], COUNT * each["tilts"][0])


def test_curvatures_of_some_variables_with_another_floor(fitted):
    _term, x, every, spec = fitted
    scan = ScanTable(np.rint(x["positions"]).astype(int), None, np.array([0, 1, 0, 0, 1, 0]))
    rows, names = np.arange(COUNT), ("object", "current", "no variable")
    got = preconditioner.curvatures(x, spec, scan, rows, Backend(), names, 0.3)
    assert got.keys() == {"object", "current"}
    np.testing.assert_array_equal(got["current"], every["current"])
    light = every["object"] - every["object"].min()
    darkest, brightest = got["object"].min(), got["object"].max()
    assert darkest == pytest.approx(0.3 / 1.3 * brightest, rel=1e-3)
    np.testing.assert_allclose(got["object"] - darkest, light, rtol=1e-5, atol=1e-5 * light.max())


@pytest.mark.parametrize("name", ["positions", "aberrations"])
def test_measured_curvatures_are_those_of_the_loss(fitted, name):
    """Where the residual is zero the loss rises by half the curvature times the square."""
    term, x, curvatures, _spec = fitted
    row_of = np.array([0, 1, 0, 0, 1, 0]) if name == "aberrations" else np.arange(COUNT)
    bound = np.broadcast_to(curvatures[name], x[name].shape)
    got = preconditioner.measured_rows(term, x, name, bound, row_of)
    expected = np.empty_like(got)
    for place in np.ndindex(got.shape):
        step = 0.02 / np.sqrt(got[place])
        values = []
        for sign in (-1, 1):
            moved = x[name].copy()
            moved[place] += sign * step
            values.append(term.evaluate({**x, name: moved}, {}).value)
        expected[place] = sum(values) / step**2
    np.testing.assert_allclose(got, np.maximum(expected, 0.01 * bound), rtol=0.05)
    assert (got < bound).any()


def test_curvatures_of_plates_go_with_their_measurements():
    rng = np.random.default_rng(3)
    y, x = np.mgrid[-6:6, -7:8]
    params = {
        "dataset": rng.poisson(60 * np.exp(-(y**2 + x**2) / 9), (16, 12, 15)),
        "obj": np.exp(1j * gaussian_filter(rng.normal(size=(17, 32, 1, 1)), (1, 1, 0, 0))),
        "positions": 2.2 * np.indices((2, 8)).reshape(2, -1).T,
        "wavelength_A": 0.025,
        "pixel_size_y_A": 0.3,
        "pixel_size_x_A": 0.4,
        "aberration_marker": [0] * 12 + [1] * 4,
        "aberrations_array": np.zeros((2, 3)),
        "update_aberrations_array": True,
        "extra_probe_defocus": 40.0,
        "backend": "cpu",
        "devices": 1,
    }
    with build(params, need=EVALUATION_NEEDS) as problem:
        objective = Objective(problem, evaluate(problem.params, 0), 0)
        found = objective.initial_hessian().diagonal["aberrations"]
    np.testing.assert_array_less(1.5, found[0] / found[1])
    np.testing.assert_array_less(found[0] / found[1], 6)


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("kernels", ["reference", "auto"])
def test_a_step_far_too_long_is_quietly_infinite(kernels, devices):
    rng = np.random.default_rng(5)
    params = {
        "dataset": rng.poisson(9.0, (6, 12, 15)),
        "positions": 2.2 * np.indices((2, 3)).reshape(2, -1).T,
        "acc_voltage": 80,
        "pixel_size_y_A": 0.3,
        "pixel_size_x_A": 0.4,
        "num_slices": 2,
        "backend": "cpu",
        "devices": devices,
        "kernels": kernels,
    }
    with build(params, need=EVALUATION_NEEDS) as problem:
        objective = Objective(problem, evaluate(problem.params, 0), 0)
        _x, u = objective.enter(problem.x)
        point = objective.fun(u | {"object": 1e25 * u["object"]})
    assert not np.isfinite(point.value)


def test_phase_plates_are_not_read(fitted):
    _term, x, curvatures, spec = fitted

    def read(indices):
        raise AssertionError("all plates at once may not fit into memory")

    scan = ScanTable(
        np.rint(x["positions"]).astype(int), None, np.array([0, 1, 0, 0, 1, 0]), plates=read
    )
    got = preconditioner.curvatures(x, spec, scan, np.arange(COUNT), Backend())
    np.testing.assert_array_equal(got["object"], curvatures["object"])


def test_operator_is_symmetric_and_positive(fitted):
    _term, x, curvatures, spec = fitted
    mask = spec.grid.mask.astype(float)

    def keep(a):
        return np.fft.ifft2(mask * np.fft.fft2(a))

    operator = preconditioner.InverseDiagonal(curvatures, 2.0, {"probe": keep})
    rng = np.random.default_rng(7)

    def random_tree():
        factors = {k: 1 + 1j if a.dtype.kind == "c" else 1 for k, a in x.items()}
        return {k: factors[k] * rng.standard_normal(a.shape) for k, a in x.items()}

    u, v = random_tree(), random_tree()
    assert trees.vdot(u, operator(v)) == pytest.approx(trees.vdot(operator(u), v), rel=1e-10)
    assert trees.vdot(u, operator(u)) > 0
    np.testing.assert_allclose(operator(u)["tilts"], u["tilts"] / (2 * curvatures["tilts"]))


@pytest.mark.parametrize(("loss", "factor"), [("lsq_sqrt", 1.0), ("ml", 2.0), ("lsq_sqrt_2", 2.0)])
def test_loss_factor(loss, factor):
    assert preconditioner.loss_factor(loss, {}, None, Backend()) == factor


def test_loss_factor_of_the_intensity_loss_is_a_mean_intensity(fitted):
    spec = fitted[-1]
    flat = {"probe": np.zeros((1, 2, *spec.grid.shape), complex)}
    flat["probe"][..., 0, 0] = 3.0  # a point: |F p|² = 9 everywhere
    assert preconditioner.loss_factor("lsq", flat, spec, Backend()) == pytest.approx(36.0)
