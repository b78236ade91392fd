"""Multislice is linear in the wave and in every slice: adjoints argument by argument."""

import numpy as np
import pytest

from pyptyx.backend import Backend
from pyptyx.physics.grid import Grid
from pyptyx.physics.multislice import Multislice, fresnel_propagator
from tests.gradients.checks import assert_adjoint, assert_derivative, inner, normal

BACKEND = Backend()
GRIDS = [Grid((9, 12), (0.31, 0.24), 0.025), Grid((10, 7), (0.22, 0.35), 0.037)]
BATCH, MODES, OBJECT_MODES = 5, 2, 3
CORNERS = np.array([[0, 0], [6, 1], [2, 4], [3, 2], [2, 4]])
DISTANCES = {"one slice": (), "common": (20.0,) * 3, "individual": (20.0, 35.0, 12.0)}


class Scene:
    """A multislice stage at a random point."""

    def __init__(self, grid, distances, tilted, shared=False):
        self.rng = rng = np.random.default_rng(4)
        self.stage = Multislice(grid, distances, BACKEND, complex)
        slices = len(distances) + 1
        self.wave = normal(rng, 1 if shared else BATCH, MODES, *grid.shape)
        self.obj = normal(rng, OBJECT_MODES, slices, grid.shape[0] + 6, grid.shape[1] + 4)
        self.tilt = 5e-3 * normal(rng, BATCH, 2, real=True) if tilted else None
        self.w = normal(rng, BATCH, MODES, OBJECT_MODES, *grid.shape)

    def forward(self, **changed):
        values = {"wave": self.wave, "obj": self.obj, "tilt": self.tilt} | changed
        return self.stage.forward(corners=CORNERS, **values)[0]

    def vjp(self, w, wants_tilt=False):
        """Gradients of the wave, the object and the tilt."""
        _out, saved = self.stage.forward(self.wave, self.obj, CORNERS, self.tilt)
        g_object = np.zeros_like(self.obj)
        g_wave, g_tilt = self.stage.vjp(saved, w.copy(), g_object, wants_tilt)
        return g_wave, g_object, g_tilt


@pytest.fixture(params=GRIDS, ids=["9x12", "10x7"])
def grid(request):
    return request.param


@pytest.mark.parametrize("tilted", [False, True], ids=["straight", "tilted"])
@pytest.mark.parametrize("distances", DISTANCES)
def test_wave(grid, distances, tilted):
    scene = Scene(grid, DISTANCES[distances], tilted)
    v = normal(scene.rng, *scene.wave.shape)
    assert_adjoint(lambda a: scene.forward(wave=a), lambda w: scene.vjp(w)[0], v, scene.w)


def test_wave_shared_by_all_patterns(grid):
    """The gradient keeps the pattern axis; who made the wave sums over it."""
    scene = Scene(grid, DISTANCES["individual"], tilted=True, shared=True)
    v = normal(scene.rng, *scene.wave.shape)
    assert_adjoint(
        lambda a: scene.forward(wave=a),
        lambda w: scene.vjp(w)[0].sum(axis=0, keepdims=True),
        v,
        scene.w,
    )


@pytest.mark.parametrize("tilted", [False, True], ids=["straight", "tilted"])
@pytest.mark.parametrize("distances", DISTANCES)
def test_each_slice(grid, distances, tilted):
    scene = Scene(grid, DISTANCES[distances], tilted)
    for z in range(scene.obj.shape[1]):

        def with_slice(a, z=z):
            obj = scene.obj.copy()
            obj[:, z] = a
            return scene.forward(obj=obj)

        v = normal(scene.rng, *scene.obj[:, z].shape)
        assert_adjoint(with_slice, lambda w, z=z: scene.vjp(w)[1][:, z], v, scene.w)


@pytest.mark.parametrize("distances", ["common", "individual"])
def test_tilt(grid, distances):
    scene = Scene(grid, DISTANCES[distances], tilted=True)
    g = scene.vjp(scene.w, wants_tilt=True)[2]
    for pattern in range(BATCH):
        d = np.zeros_like(scene.tilt)
        d[pattern] = normal(scene.rng, 2, real=True)
        assert_derivative(lambda t: inner(scene.w, scene.forward(tilt=t)), scene.tilt, g, d, 1e-5)


def test_one_slice_has_no_tilt_gradient(grid):
    scene = Scene(grid, (), tilted=True)
    assert not scene.vjp(scene.w, wants_tilt=True)[2].any()


@pytest.mark.parametrize(("modes", "object_modes"), [(1, 1), (1, 3), (2, 1)])
def test_one_mode(grid, modes, object_modes):
    """The code does not sum over axes of length one; the result is the same."""
    scene = Scene(grid, DISTANCES["individual"], tilted=True)
    scene.wave, scene.obj = scene.wave[:, :modes], scene.obj[:object_modes]
    w = scene.w[:, :modes, :object_modes]
    v = normal(scene.rng, *scene.wave.shape)
    assert_adjoint(lambda a: scene.forward(wave=a), lambda b: scene.vjp(b)[0], v, w)
    d = normal(scene.rng, *scene.obj.shape)
    assert_derivative(lambda a: inner(w, scene.forward(obj=a)), scene.obj, scene.vjp(w)[1], d)


def test_without_an_accumulator_the_wave_still_comes_back(grid):
    scene = Scene(grid, DISTANCES["common"], tilted=True)
    _out, saved = scene.stage.forward(scene.wave, scene.obj, CORNERS, scene.tilt)
    g_wave, g_tilt = scene.stage.vjp(saved, scene.w.copy(), None, False)
    np.testing.assert_array_equal(g_wave, scene.vjp(scene.w)[0])
    assert g_tilt is None


def test_forward_is_the_formula(grid):
    """Mode by mode and gap by gap, the way the module's page writes it."""
    distances = DISTANCES["individual"]
    scene = Scene(grid, distances, tilted=True)
    got = scene.forward()
    for t in range(BATCH):
        tau = grid.q_y[:, None] * scene.tilt[t, 0] + grid.q_x[None, :] * scene.tilt[t, 1]
        for p in range(MODES):
            for o in range(OBJECT_MODES):
                y, x = CORNERS[t]
                windows = scene.obj[o, :, y : y + grid.shape[0], x : x + grid.shape[1]]
                wave = scene.wave[t, p] * windows[0]
                for z, d in enumerate(distances, start=1):
                    propagator = fresnel_propagator(grid, d) * np.exp(-2j * np.pi * d * tau)
                    wave = np.fft.ifft2(np.fft.fft2(wave) * propagator) * windows[z]
                np.testing.assert_allclose(got[t, p, o], wave, atol=1e-10)
