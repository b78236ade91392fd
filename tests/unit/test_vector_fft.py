"""Transforms in vectors: the arithmetic of short ones, and whole windows against SciPy's."""

import math

import numpy as np
import pytest
import scipy.fft

from pyptyx.physics.grid import Grid
from pyptyx.vector_fft.codelets import RADICES, Complex, dft, factors

TOLERANCE = {np.complex64: 3e-7, np.complex128: 1e-15}


@pytest.fixture
def rng():
    return np.random.default_rng(8)


@pytest.fixture(params=[np.complex64, np.complex128])
def dtype(request):
    return request.param


@pytest.fixture
def windows():
    pytest.importorskip("numba")
    from pyptyx.vector_fft import windows

    return windows


def waves(rng, dtype, *shape):
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(dtype)


def assert_same(got, expected):
    assert got.dtype == expected.dtype
    tolerance = TOLERANCE[got.dtype.type] * abs(expected).max()
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("n", [1, *RADICES])
def test_short_transforms(rng, n):
    x = rng.normal(size=n) + 1j * rng.normal(size=n)
    got = dft([Complex(float(z.real), float(z.imag)) for z in x])
    np.testing.assert_allclose([complex(z.real, z.imag) for z in got], np.fft.fft(x), atol=1e-14)


@pytest.mark.parametrize("n", [3, 8])
@pytest.mark.parametrize("step", range(-1, 10))
def test_turns(step, n):
    got = Complex(0.3, -1.1).turned(step, n)
    expected = (0.3 - 1.1j) * np.exp(-2j * np.pi * step / n)
    assert complex(got.real, got.imag) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("n", "expected"),
    [(2, [2]), (64, [8, 8]), (96, [6, 4, 4]), (128, [8, 4, 4]), (210, [7, 6, 5]), (243, [3] * 5)],
)
def test_factors(n, expected):
    assert factors(n) == expected


def test_factors_of_every_length():
    for n in range(2, 300):
        found = factors(n)
        rest = n
        for prime in (2, 3, 5, 7):
            while rest % prime == 0:
                rest //= prime
        assert (found is None) == (rest > 1)
        if found:
            assert math.prod(found) == n


# Products of every radix, lines that do not fill vectors, a single row, more rows than columns.
SHAPES = [(16, 24), (15, 12), (9, 14), (7, 9), (30, 35), (2, 60), (49, 10), (100, 18)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("forward", [False, True])
def test_windows(windows, rng, dtype, shape, forward, overwrite):
    a = waves(rng, dtype, 3, *shape)
    transforms = windows.WindowTransforms()
    assert transforms.fits(a)
    expected = scipy.fft.fft2(a) if forward else scipy.fft.ifft2(a, norm="forward")
    kept = a.copy()
    got = transforms.transform(a, forward, overwrite)
    assert_same(got, expected)
    assert (got is a) == overwrite
    if not overwrite:
        np.testing.assert_array_equal(a, kept)


@pytest.mark.parametrize("shape", [(40, 36), (21, 27), (12, 9)], ids=str)
@pytest.mark.parametrize("cutoff", [0.1, 0.4, 0.9])
@pytest.mark.parametrize("overwrite", [False, True])
def test_windows_with_a_band(windows, rng, dtype, shape, cutoff, overwrite):
    grid = Grid(shape, (0.31, 0.31 * shape[0] / shape[1]), 0.025, cutoff)
    transforms, band = windows.WindowTransforms(), grid.band
    spoilt = transforms.transform(np.full((2, *shape), 1e6, dtype), True, True)  # left in scratch
    assert np.isfinite(spoilt).all()
    a = waves(rng, dtype, 4, *shape)
    got = transforms.transform(a.copy(), True, overwrite, columns=band.columns)
    assert_same(got[:, grid.mask], scipy.fft.fft2(a)[:, grid.mask])
    assert np.isfinite(got).all()
    limited = (a * grid.mask).astype(dtype)
    got = transforms.transform(limited.copy(), False, overwrite, rows=band.rows)
    assert_same(got, scipy.fft.ifft2(limited, norm="forward"))


def test_what_does_not_fit(windows, rng, dtype):
    fits = windows.WindowTransforms().fits
    a = waves(rng, dtype, 3, 10, 14)
    assert fits(a)
    assert fits(a[0])
    assert not fits(a[..., ::2])
    assert not fits(a.real.copy())
    assert not fits(a[0, 0])
    assert not fits(waves(rng, dtype, 3, 10, 11))  # a prime
    assert not fits(waves(rng, dtype, 3, 26, 14))
    assert not fits(waves(rng, dtype, 3, 10, 2))  # narrower than a vector
    assert not fits(np.empty((2 * windows.LARGEST_SIDE, 8), dtype))
    assert not fits(np.empty((windows.LARGEST_SIDE // 2, windows.LARGEST_SIDE // 2), dtype))


def test_a_window_does_not_depend_on_those_beside_it(windows, rng, dtype):
    transforms = windows.WindowTransforms()
    a = waves(rng, dtype, 5, 9, 12)
    together = transforms.transform(a, forward=True, overwrite=False)
    for one, expected in zip(a, together, strict=True):
        np.testing.assert_array_equal(transforms.transform(one.copy(), True, True), expected)


def test_what_cannot_be_written_is_copied(windows, rng, dtype):
    a = waves(rng, dtype, 2, 9, 12)
    a.setflags(write=False)
    got = windows.WindowTransforms().transform(a, forward=True, overwrite=True)
    assert_same(got, scipy.fft.fft2(a))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stays_in_its_window(windows, rng, dtype, bad):
    a = waves(rng, dtype, 3, 9, 12)
    a[1, 4, 5] = bad
    got = windows.WindowTransforms().transform(a, forward=True, overwrite=False)
    assert np.isfinite(got).all(axis=(1, 2)).tolist() == [True, False, True]


def test_addresses(windows):
    a = windows.empty_aligned((3, 5), np.dtype(np.complex64))
    assert a.shape == (3, 5)
    assert a.ctypes.data % 64 == 0


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        (None, [[0, 45]]),
        ((slice(0, 9), slice(38, 45)), [[0, 16], [32, 45]]),
        ((slice(0, 15), slice(30, 45)), [[0, 16], [24, 45]]),
        ((slice(0, 17), slice(30, 45)), [[0, 24], [24, 45]]),
        ((slice(0, 18), slice(20, 45)), [[0, 45]]),
    ],
)
def test_strips_of_ranges(windows, ranges, expected):
    assert windows.strip_bounds(ranges, 45, 8).tolist() == expected
