"""Fixed point: sums that do not know an order, and gradients that do not know how many compute."""

import numpy as np
import pytest

from pyptyx import trees
from pyptyx.backend import Backend
from pyptyx.engine import batching
from pyptyx.executors import SerialExecutor, ThreadExecutor
from pyptyx.physics.grid import Grid
from pyptyx.physics.model import ModelSpec
from pyptyx.physics.tilt import TiltPlan
from pyptyx.terms import fixed_point
from pyptyx.terms.data_term import DataTerm, ScanTable

COUNT, WINDOW = 11, (9, 12)


# -- fixed point -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.complex64, np.complex128])
def test_any_order_gives_the_same_bits(dtype):
    rng = np.random.default_rng(0)
    a = rng.standard_normal((40, 2, 3, 5)) * 10.0 ** rng.integers(-6, 1, (40, 1, 1, 1))
    a = (a + 1j * rng.standard_normal(a.shape)).astype(dtype) if dtype != np.float32 else a
    a = a.astype(dtype)
    unit = fixed_point.units({"a": max(map(fixed_point.peak, a))}, len(a))["a"]

    def total(order):
        out = fixed_point.zeros(np.zeros((2, 4, 7), dtype))
        for i in order:
            fixed_point.add(out, a[i], unit, (1, 2))
        return fixed_point.value(out, unit, np.dtype(dtype))

    expected = total(range(40))
    for _ in range(4):
        np.testing.assert_array_equal(total(rng.permutation(40)), expected)
    np.testing.assert_allclose(
        expected[:, 1:, 2:], a.sum(axis=0, dtype=np.complex128 if dtype != np.float32 else None),
        rtol=1e-5, atol=1e-6,
    )  # fmt: skip
    assert not expected[:, 0].any()
    assert not expected[:, :, :2].any()


def test_as_many_contributions_as_announced_do_not_overflow():
    count = 1000
    largest = np.full((1, 1), float(1 << fixed_point.largest_bits(count)))
    out = fixed_point.zeros(largest)
    for _ in range(count):
        fixed_point.add(out, largest, 1.0)
    assert fixed_point.value(out, 1.0, largest.dtype)[0, 0] == count * largest[0, 0]


def test_contributions_are_rounded_to_the_nearest_unit():
    out = fixed_point.zeros(np.zeros((1, 2), np.complex64))
    fixed_point.add(out, np.array([[0.74 - 0.74j, 0.26 - 0.2j]], np.complex64), 0.5)
    assert fixed_point.value(out, 0.5, np.dtype(np.complex64)).tolist() == [[0.5 - 0.5j, 0.5]]


# -- the data term -----------------------------------------------------------------------------


def scene(dtype=np.complex64, **settings):
    """Everything is refined; several modes and slices, scenarios and a common tilt."""
    rng = np.random.default_rng(0)

    def numbers(*shape):
        return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype)

    real = np.empty(0, dtype).real.dtype
    x = {
        "object": numbers(3, 2, 21, 26),
        "probe": numbers(2, 4, *WINDOW),
        "positions": rng.uniform(0, 11, (COUNT, 2)),
        "tilts": rng.normal(scale=1e-3, size=(1, 6)),
        "current": rng.uniform(0.5, 1.5, COUNT),
        "background": rng.random(WINDOW).astype(real),
        "aberrations": rng.normal(size=(5, 3)),
    }
    spec = ModelSpec(
        Grid(WINDOW, (0.3, 0.2), 0.025), (20.0,), dtype=dtype, num_aberrations=3,
        tilt=TiltPlan.from_mode(3), **settings,
    )  # fmt: skip
    scan = ScanTable(
        np.rint(x["positions"]).astype(int), rng.integers(0, 2, COUNT), rng.integers(0, 5, COUNT)
    )
    data = (1e4 * rng.random((COUNT, *WINDOW))).astype(real)
    return x, spec, scan, data


def gradient(setting, executor, size, deterministic=True, data=None):
    x, spec, scan, measured = setting
    data = measured if data is None else data
    with executor:
        batches = batching.distribute(
            np.arange(COUNT), batching.curve(scan.corners), size, executor.workers
        )
        term = DataTerm(
            spec, scan, data.__getitem__, loss="lsq_sqrt", weight=0.5, executor=executor,
            batches=batches,
        )  # fmt: skip
        term = term.exactly() if deterministic else term
        g = trees.zeros_like(x)
        value = term.evaluate(x, g)
        others = [{**x, "positions": x["positions"] + 0.1}]
        return value, g, term.amplitude_changes(x, others)


def threads(count, kernels="reference"):
    return ThreadExecutor([Backend(kernels) for _ in range(count)])


@pytest.mark.parametrize("kernels", ["reference", "segments"])
@pytest.mark.parametrize("patch_band_limit", [False, True])
def test_workers_and_batches_change_no_bit(patch_band_limit, kernels):
    setting = scene(patch_band_limit=patch_band_limit)
    expected = gradient(setting, SerialExecutor(Backend(kernels)), 4)
    others = SerialExecutor(Backend(kernels)), threads(2, kernels), threads(3, kernels)
    for executor, size in zip(others, (3, 2, 5), strict=True):
        got = gradient(setting, executor, size)
        assert got[0] == expected[0]
        np.testing.assert_array_equal(got[2], expected[2])
        for name, g in expected[1].items():
            np.testing.assert_array_equal(got[1][name], g, err_msg=name)
            assert np.abs(g).max() > 0


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_they_are_the_gradients(dtype):
    setting = scene(dtype)
    rounding = 1e-5 if dtype == np.complex64 else 1e-12
    expected = gradient(setting, SerialExecutor(), 4, deterministic=False)
    got = gradient(setting, SerialExecutor(), 4)
    assert got[0].value == pytest.approx(expected[0].value, rel=rounding)
    assert got[0].sse == pytest.approx(expected[0].sse, rel=rounding)
    for name, g in expected[1].items():
        atol = rounding * np.abs(g).max()
        np.testing.assert_allclose(got[1][name], g, rtol=0, atol=atol, err_msg=name)


def test_a_measurement_that_outshines_the_samples():
    """The units are chosen from the first, the last and two others; this one is none of them."""
    x, spec, scan, data = scene()
    for t, factor in ((5, 1e12), (5, np.nan)):
        bright = data.copy()
        bright[t] *= factor
        setting = x, spec, scan, bright
        expected = gradient(setting, SerialExecutor(), 4, deterministic=False)[1]["object"]
        one, two = (gradient(setting, e, 4)[1]["object"] for e in (SerialExecutor(), threads(2)))
        np.testing.assert_array_equal(one, two)
        if np.isnan(factor):
            assert np.isnan(one).all()
        else:
            np.testing.assert_allclose(one, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


# -- who gets what -----------------------------------------------------------------------------


def test_the_curve_keeps_neighbours_together():
    y, x = np.mgrid[:16, :16]
    corners = 3 * np.stack([y.ravel(), x.ravel()], axis=1) - 7
    place = batching.curve(corners)
    assert len(set(place.tolist())) == 256
    grid = np.stack([y.ravel(), x.ravel()], axis=1)
    assert sorted(batching.curve(grid).tolist()) == list(range(256))
    walk = grid[np.argsort(batching.curve(grid))]
    assert (np.abs(np.diff(walk, axis=0)).sum(axis=1) == 1).all()  # Hilbert's curve has no jumps
    for part in batching.spread(np.arange(256), batching.curve(grid), 4):
        assert np.ptp(grid[part], axis=0).tolist() == [7, 7]  # a quadrant


@pytest.mark.parametrize("count", [1, 2, 7, 20])
@pytest.mark.parametrize("size", [1, 3, 50])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_batches_are_complete_small_and_equally_many(count, size, workers):
    sequence = 2 * np.arange(count)
    corners = np.stack([sequence % 5, sequence % 7], axis=1)
    place = np.repeat(batching.curve(corners), 2)
    batches = batching.distribute(sequence, place, size, workers)
    assert len(batches) % workers == 0
    assert max(map(len, batches)) <= size
    assert sorted(np.concatenate(batches).tolist()) == sequence.tolist()
    if workers == 1:
        assert np.concatenate(batches).tolist() == sequence.tolist()
