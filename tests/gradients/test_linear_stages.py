"""Windows, band limit, separable factors, ramps, detector: adjoints argument by argument."""

import numpy as np
import pytest

from pyptyx.backend import Backend
from pyptyx.physics.detector import DetectorGeometry, FarField, collect, collect_vjp
from pyptyx.physics.grid import Grid, disc_mask
from pyptyx.physics.kernels import reference as kernels
from pyptyx.physics.patches import BandLimit, own_windows, own_windows_vjp
from pyptyx.physics.tilt import Separable, ramp, ramp_factor, ramp_vjp
from tests.gradients.checks import assert_adjoint, assert_derivative, inner, normal

BACKEND = Backend()
GRIDS = [Grid((9, 12), (0.31, 0.24), 0.025), Grid((10, 7), (0.22, 0.35), 0.037)]
CORNERS = np.array([[0, 0], [3, 5], [4, 5], [11, 4]])


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(params=GRIDS, ids=["9x12", "10x7"])
def grid(request):
    return request.param


def test_own_windows(rng, grid):
    limit = BandLimit(grid.mask, BACKEND, complex)

    def back(w):
        out = np.zeros((2, 3, 23, 29), complex)
        own_windows_vjp(CORNERS, w, limit, out, BACKEND)
        return out

    assert_adjoint(
        lambda v: own_windows(v, CORNERS, grid.shape, limit, BACKEND)[0],
        back,
        normal(rng, 2, 3, 23, 29),
        normal(rng, 2, 3, 4 * grid.shape[0], grid.shape[1]),
    )


def test_own_windows_are_cut_out_and_band_limited(rng, grid):
    obj, limit = normal(rng, 2, 3, 23, 29), BandLimit(grid.mask, BACKEND, complex)
    ny, nx = grid.shape
    stack, corners = own_windows(obj, CORNERS, grid.shape, limit, BACKEND)
    for (y, x), (row, column) in zip(CORNERS, corners, strict=True):
        window = limit(obj[..., y : y + ny, x : x + nx])
        np.testing.assert_allclose(stack[..., row : row + ny, column : column + nx], window)


def test_own_windows_vjp_adds_to_what_is_there(rng, grid):
    limit = BandLimit(grid.mask, BACKEND, complex)
    w, before = normal(rng, 2, 3, 4 * grid.shape[0], grid.shape[1]), normal(rng, 2, 3, 23, 29)
    once, onto = np.zeros_like(before), before.copy()
    own_windows_vjp(CORNERS, w, limit, once, BACKEND)
    own_windows_vjp(CORNERS, w, limit, onto, BACKEND)
    np.testing.assert_allclose(onto, before + once, atol=1e-14)


@pytest.mark.parametrize("shape", [(13, 18), (14, 11)])
def test_band_limit_is_its_own_adjoint_and_a_projection(rng, shape):
    mask = disc_mask(shape, (0.3, 0.2), 0.8)
    limit = BandLimit(mask, BACKEND, complex)
    v = normal(rng, 2, *shape)
    assert_adjoint(limit, limit, v, normal(rng, 2, *shape))
    once = limit(v)
    np.testing.assert_allclose(limit(once), once, atol=1e-13)
    np.testing.assert_allclose(once, np.fft.ifft2(mask * np.fft.fft2(v)), atol=1e-13)


def test_separable_gradient(rng):
    stage = Separable(normal(rng, 5, real=True), normal(rng, 8, real=True), BACKEND, complex)
    v, d = normal(rng, 3, 2, real=True), normal(rng, 3, 2, real=True)
    wave, w = normal(rng, 3, 5, 8), normal(rng, 3, 5, 8)
    g = stage.gradient(*kernels.imag_marginals(wave * stage.factor(v), w))
    assert_derivative(lambda a: inner(w, wave * stage.factor(a)), v, g, d, tolerance=1e-10)


def test_separable_factor_is_the_exponential_of_its_docstring(rng):
    a_y, a_x, v = rng.random(5), rng.random(8), normal(rng, 3, 2, real=True)
    expected = np.exp(
        1j * (v[:, 0, None, None] * a_y[:, None] + v[:, 1, None, None] * a_x[None, :])
    )
    np.testing.assert_allclose(Separable(a_y, a_x, BACKEND, complex).factor(v), expected)


@pytest.mark.parametrize("modes", [(), (2,), (2, 3)])
def test_ramp(rng, grid, modes):
    separable = ramp_factor(grid, BACKEND, complex)
    tilt, d = (1e-2 * normal(rng, 4, 2, real=True) for _ in range(2))
    wave, w = (normal(rng, 4, *modes, *grid.shape) for _ in range(2))
    saved = ramp(wave, separable.factor(tilt))[1]
    assert_adjoint(
        lambda a: ramp(a, separable.factor(tilt))[0], lambda b: ramp_vjp(saved, b, None)[0], wave, w
    )
    g, g_tilt = ramp_vjp(saved, w, separable)
    assert_derivative(
        lambda t: inner(w, ramp(wave, separable.factor(t))[0]), tilt, g_tilt, d, step=1e-5
    )
    np.testing.assert_array_equal(g, ramp_vjp(saved, w, None)[0])


GEOMETRIES = [
    ((13, 18), DetectorGeometry()),
    ((13, 18), DetectorGeometry((2, 3))),
    ((12, 18), DetectorGeometry((0, 0), 3)),
    ((10, 24), DetectorGeometry((0, 0), 2)),  # a sum reaches over the edge
    ((20, 28), DetectorGeometry((0, 0), 4)),
    ((14, 20), DetectorGeometry((1, 4), 2)),
    ((14, 20), DetectorGeometry((1, 4), 2, corner=False)),
    ((14, 15), DetectorGeometry((1, 0), 3, corner=False)),
    ((15, 21), DetectorGeometry((3, 3), 3)),
]


@pytest.mark.parametrize(("shape", "geometry"), GEOMETRIES)
def test_collect(rng, shape, geometry):
    data_shape = geometry.data_shape(shape)
    assert_adjoint(
        lambda v: collect(v, geometry),
        lambda w: collect_vjp(w, geometry, shape),
        normal(rng, 4, *shape, real=True),
        normal(rng, 4, *data_shape, real=True),
    )


@pytest.mark.parametrize(("shape", "geometry"), GEOMETRIES)
def test_collect_against_explicit_loops(rng, shape, geometry):
    a = rng.random((2, *shape))
    centred = geometry.to_public(a)
    (ny, nx), u, (cy, cx) = geometry.data_shape(shape), geometry.upsample, geometry.crop
    expected = np.empty((2, ny, nx))
    for i in range(ny):
        for j in range(nx):
            block = centred[:, cy + i * u : cy + (i + 1) * u, cx + j * u : cx + (j + 1) * u]
            expected[:, i, j] = block.sum(axis=(1, 2))
    got = geometry.to_public(collect(a, geometry))
    np.testing.assert_allclose(got, expected, rtol=1e-13)


class TestFarField:
    def stage(self, grid, geometry=None):
        return FarField(grid, geometry or DetectorGeometry(), BACKEND, complex)

    def test_intensity_is_the_masked_mean_over_modes(self, rng, grid):
        wave = normal(rng, 4, 2, 3, *grid.shape)
        expected = grid.mask * (np.abs(np.fft.fft2(wave)) ** 2).mean(axis=(1, 2))
        got, _saved = self.stage(grid).forward(wave.copy())
        np.testing.assert_allclose(got, expected, rtol=1e-12)

    def test_gradient_of_the_exit_wave(self, rng, grid):
        stage, shape = self.stage(grid), (4, 2, 3, *grid.shape)
        wave, d, w = (
            normal(rng, *shape),
            normal(rng, *shape),
            normal(rng, 4, *grid.shape, real=True),
        )
        _intensity, saved = stage.forward(wave.copy())
        g, _g_tilt = stage.vjp(saved, w.copy())
        assert_derivative(
            lambda a: inner(w, stage.forward(a.copy())[0]), wave, g, d, tolerance=1e-10
        )

    @pytest.mark.parametrize("geometry", [DetectorGeometry(), DetectorGeometry((2, 3), 2)])
    def test_background_root(self, rng, geometry):
        grid = Grid((10, 16), (0.31, 0.24), 0.025)
        stage, shape = self.stage(grid, geometry), geometry.data_shape(grid.shape)
        intensity, w = rng.random((4, *grid.shape)), normal(rng, 4, *shape, real=True)
        root, d = rng.random(shape), normal(rng, *shape, real=True)
        g_intensity, g_root = stage.to_data_vjp(w, root, True)
        assert_derivative(lambda b: inner(w, stage.to_data(intensity, b)), root, g_root, d)
        assert_adjoint(
            lambda a: stage.to_data(a, None), lambda b: stage.to_data_vjp(b, None, False)[0],
            normal(rng, 4, *grid.shape, real=True), w,
        )  # fmt: skip
        np.testing.assert_array_equal(g_intensity, stage.to_data_vjp(w, None, False)[0])

    def test_background_lies_inside_the_band_limit(self, grid):
        stage = self.stage(grid)
        out = stage.to_data(np.zeros((4, *grid.shape)), np.full(grid.shape, 3.0))
        np.testing.assert_array_equal(out, np.broadcast_to(9.0 * grid.mask, out.shape))
