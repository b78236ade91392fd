"""Waves between slices: kept, computed again, or in half precision."""

import numpy as np
import pytest

from pyptyx import trees
from pyptyx.backend import Backend
from pyptyx.executors import SerialExecutor
from pyptyx.physics import wave_storage
from pyptyx.physics.grid import Grid
from pyptyx.physics.model import ModelSpec
from pyptyx.physics.multislice import Multislice
from pyptyx.physics.wave_storage import Halved, Segments, waves_alive
from pyptyx.terms.data_term import DataTerm, ScanTable
from tests.gradients.checks import assert_adjoint, assert_taylor, normal

GRID = Grid((10, 13), (0.31, 0.24), 0.025)
CORNERS = np.array([[0, 0], [6, 1], [2, 4]])
MODES, OBJECT_MODES = 2, 4


class Scene:
    def __init__(self, storage, slices, dtype=complex):
        rng = np.random.default_rng(slices)
        distances = 20.0 + 3 * np.arange(slices - 1)
        self.stage = Multislice(GRID, distances, Backend(), dtype, storage)
        self.wave = normal(rng, len(CORNERS), MODES, *GRID.shape).astype(dtype)
        phase = 0.3 * rng.standard_normal((OBJECT_MODES, slices, 17, 19))
        self.obj = np.exp(1j * phase).astype(dtype)
        self.tilt = 5e-3 * normal(rng, len(CORNERS), 2, real=True)
        self.w = normal(rng, len(CORNERS), MODES, OBJECT_MODES, *GRID.shape).astype(dtype)

    def forward(self, wave):
        return self.stage.forward(wave, self.obj, CORNERS, self.tilt)[0]

    def vjp(self, w):
        _out, saved = self.stage.forward(self.wave, self.obj, CORNERS, self.tilt)
        g_object = np.zeros_like(self.obj)
        return (*self.stage.vjp(saved, w.copy(), g_object, True), g_object)


@pytest.mark.parametrize("slices", [1, 2, 3, 4, 7, 9])
def test_waves_computed_again_are_the_same_waves(slices):
    got, expected = (Scene(name, slices) for name in ("recompute", "store"))
    for a, b in zip(got.vjp(got.w), expected.vjp(expected.w), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("storage", ["recompute", "store"])
def test_adjoint(storage):
    scene = Scene(storage, 5)
    v = normal(np.random.default_rng(1), *scene.wave.shape)
    assert_adjoint(scene.forward, lambda w: scene.vjp(w)[0], v, scene.w)


@pytest.mark.parametrize("slices", [2, 5, 12])
def test_half_precision(slices):
    """The wave's own gradient needs no saved wave; those of object and tilt lose a little."""
    got, expected = (Scene(name, slices, np.complex64) for name in ("half", "store"))
    wave, tilt, obj = got.vjp(got.w)
    wave_0, tilt_0, obj_0 = expected.vjp(expected.w)
    np.testing.assert_array_equal(wave, wave_0)
    error = np.linalg.norm(obj - obj_0) / np.linalg.norm(obj_0)
    assert 1e-5 < error < 5e-4
    assert np.linalg.norm(tilt - tilt_0) / np.linalg.norm(tilt_0) < 5e-3
    assert obj.dtype == np.complex64


def test_half_precision_holds_waves_of_any_strength():
    rng = np.random.default_rng(0)
    wave = normal(rng, 3, 2, 1, 6, 7) * np.array([1e-18, 3.0, 1e15])[:, None, None, None, None]
    wave[0, 1] = 0
    waves = Halved(Backend())
    for z in range(2):
        waves.put(z, wave.astype(np.complex64))
    got = waves.get(1, None)
    assert got.dtype == np.complex64
    for t in range(3):
        np.testing.assert_allclose(got[t], wave[t], atol=1e-3 * abs(wave[t]).max())
    np.testing.assert_array_equal(waves.get(0, None), wave.astype(np.complex64))


@pytest.mark.parametrize("slices", [1, 2, 3, 8, 16, 23])
def test_segments_hold_few_waves_and_compute_each_once_more(slices):
    waves, steps, most = Segments(slices), [], 0

    def advance(z, wave):
        steps.append(z)
        return wave + 1

    for z in range(slices):
        waves.put(z, z)
    for z in reversed(range(slices)):
        assert waves.get(z, advance) == z
        alive = {id_ for id_ in (*waves._kept, *waves._segment) if id_ > 0}
        most = max(most, len(alive))
    assert len(steps) == len(set(steps)) <= slices
    assert most <= waves_alive("recompute", slices) <= max(0, 2 * np.sqrt(slices) - 1)
    assert waves_alive("store", slices) == slices - 1
    assert waves_alive("half", slices) == (slices - 1) / 2


@pytest.mark.parametrize(("storage", "ratio"), [("store", 6.0), ("half", 3.0), ("recompute", 3.0)])
def test_memory_between_forward_and_adjoint(storage, ratio):
    """Whole waves that are alive once the forward pass is over, beside the illumination."""
    scene = Scene(storage, 7, np.complex64)
    _out, saved = scene.stage.forward(scene.wave, scene.obj, CORNERS, scene.tilt)
    waves = saved.incoming
    held = [w for w in getattr(waves, "_waves", None) or waves._kept.values()][1:]
    size = sum((w[0] if isinstance(w, tuple) else w).nbytes for w in held)
    assert size == ratio * scene.w.nbytes


def test_nothing_but_the_names_is_known():
    assert wave_storage.NAMES == ("store", "recompute", "half")


@pytest.mark.parametrize("storage", ["recompute", "store"])
def test_whole_model(storage):
    rng = np.random.default_rng(5)
    spec = ModelSpec(GRID, (20.0,) * 4, dtype=complex, wave_storage=storage)
    count = 4
    x = {
        "object": np.exp(0.3j * rng.standard_normal((2, 5, 21, 26))),
        "probe": normal(rng, 1, 3, *GRID.shape),
        "positions": rng.uniform(0, 9, (count, 2)),
    }
    data = 5e2 * rng.random((count, *GRID.shape))
    scan = ScanTable(np.rint(x["positions"]).astype(int))
    term = DataTerm(
        spec, scan, data.__getitem__, loss="lsq_sqrt", weight=1.0, executor=SerialExecutor(),
        batches=[np.arange(3), np.arange(3, count)],
    )  # fmt: skip
    g = trees.zeros_like(x)
    term.evaluate(x, g)
    direction = {"object": normal(rng, *x["object"].shape), "probe": normal(rng, *x["probe"].shape)}
    assert_taylor(term, g, x, direction, [1e-4, 2e-4, 4e-4])
