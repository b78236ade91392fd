"""The fused kernels of a core against the chain of stages."""

from dataclasses import replace

import numpy as np
import pytest

from pyptyx.backend import Backend
from pyptyx.errors import ShapeError
from pyptyx.physics.detector import DetectorGeometry, NearFieldOptics
from pyptyx.physics.evaluators import Chain, fused, objection
from pyptyx.physics.grid import Grid
from pyptyx.physics.kernels.reference import Loss
from pyptyx.physics.model import Batch, ForwardModel, ModelSpec
from pyptyx.physics.tilt import TiltPlan

pytest.importorskip("numba")

ALL = ("object", "probe", "positions")
TOLERANCE = {np.complex64: 2e-5, np.complex128: 2e-13}


class Scene:
    """A model with its variables and data; every axis has another length."""

    def __init__(self, shape=(15, 12), slices=3, modes=2, shift=True, **others):
        self.cutoff = others.pop("cutoff", 2 / 3)
        self.dtype = others.pop("dtype", np.complex128)
        self.loss = others.pop("loss", Loss("lsq_sqrt"))
        geometry = others.pop("geometry", DetectorGeometry())
        behind = others.pop("behind", ())
        tilt = others.pop("tilt", TiltPlan())
        assert not others
        rng = np.random.default_rng(3)
        ny, nx = shape
        gaps = (7.0, 4.0, 7.0, 5.5)[: slices - 1]  # one distance occurs twice
        grid = Grid(shape, (0.2, 0.23), 0.03, self.cutoff)
        self.spec = ModelSpec(
            grid, gaps, tilt=tilt, shift=shift, geometry=geometry, dtype=self.dtype
        )
        self.count = 7

        def waves(*size):
            return (rng.normal(size=size) + 1j * rng.normal(size=size)).astype(self.dtype)

        self.x = {
            "object": waves(1, slices, ny + 11, nx + 17),
            "probe": waves(1, modes, ny, nx) / ny,
            "positions": rng.uniform((0.6, 0.6), (10.4, 16.4), (self.count, 2)),
        }
        real = np.empty(0, self.dtype).real.dtype
        # Beyond the band limit, too, as no light can come there.
        self.data = rng.poisson(3, (self.count, *self.spec.data_shape)).astype(real)
        if "background" in behind:
            self.x["background"] = rng.normal(size=self.spec.data_shape).astype(real)
        if "current" in behind:
            self.x["current"] = rng.normal(size=self.count)
            self.x["current"][2] = 0

        if tilt.inside:
            self.x["tilts"] = rng.normal(scale=0.01, size=(1, 6))

    def batch(self, indices):
        return Batch(indices, np.rint(self.x["positions"][indices]).astype(int))

    def model(self, kernels):
        return ForwardModel(self.spec, Backend(kernels))

    def evaluated(self, evaluator, model, wanted=ALL, size=None, data=None):
        """Losses, sse and gradients, in batches of a size."""
        data = self.data if data is None else data
        state = model.prepare(self.x)
        acc = {k: np.zeros_like(state[k]) for k in wanted}
        evaluator.reset()
        found = []
        for indices in np.array_split(np.arange(self.count), -(-self.count // (size or 7))):
            batch = self.batch(indices)
            found.append(evaluator.evaluate(state, batch, data[indices], acc, 0.7))
        evaluator.collect(acc)
        value, sse = (np.concatenate(part) for part in zip(*found, strict=True))
        return value, sse, model.finish(acc)

    def expected(self, wanted=ALL):
        model = self.model("reference")
        return self.evaluated(Chain(model, self.loss), model, wanted)

    def fused(self, wanted=ALL, size=None, data=None):
        model = self.model("auto")
        evaluator = fused(model, self.loss, self.x)
        assert evaluator is not None
        return self.evaluated(evaluator, model, wanted, size, data)

    def check(self, wanted=ALL, size=None):
        tolerance = TOLERANCE[self.dtype]
        value, sse, g = self.expected(wanted)
        fused_value, fused_sse, fused_g = self.fused(wanted, size)
        assert fused_value.dtype == fused_sse.dtype == np.float64
        np.testing.assert_allclose(fused_value, value, rtol=tolerance)
        np.testing.assert_allclose(fused_sse, sse, rtol=tolerance)
        assert fused_g.keys() == set(wanted)
        for key, expected in g.items():
            assert fused_g[key].dtype == expected.dtype
            size = abs(expected).max()
            np.testing.assert_allclose(fused_g[key], expected, rtol=0, atol=tolerance * size)


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize("slices", [1, 5])
@pytest.mark.parametrize("shape", [(15, 12), (16, 24), (9, 20), (21, 10)], ids=str)
def test_agrees_with_the_chain(shape, slices, shift, dtype):
    Scene(shape, slices, shift=shift, dtype=dtype).check()


@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize("cutoff", [0.15, 1.0, 3.0])
@pytest.mark.parametrize("shape", [(25, 32), (12, 45)], ids=str)
def test_agrees_with_any_band(shape, cutoff, shift):
    Scene(shape, slices=2, modes=3, cutoff=cutoff, shift=shift).check()


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize(
    "loss",
    [Loss("ml"), Loss("ml", 0.3), Loss("lsq"), Loss("lsq_sqrt_2"), Loss("ml_shifted", 0.4)],
    ids=str,
)
def test_agrees_with_every_loss(loss, dtype):
    Scene(loss=loss, dtype=dtype).check()


@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize(
    "wanted", [(), ("object",), ("probe",), ("positions",), ("object", "positions")], ids=str
)
def test_gradients_that_are_wanted(wanted, shift):
    Scene(slices=4, shift=shift).check(wanted)


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize("loss", [Loss("lsq_sqrt"), Loss("ml", 0.3)], ids=str)
@pytest.mark.parametrize("crop", [(0, 0), (2, 1), (3, 9), (1, 0)], ids=str)
@pytest.mark.parametrize(
    "behind", [("background",), ("current",), ("background", "current"), ()], ids=str
)
def test_agrees_about_what_surrounds_the_waves(behind, crop, loss, dtype):
    scene = Scene(
        (15, 32), 2, behind=behind, geometry=DetectorGeometry(crop), loss=loss, dtype=dtype
    )
    scene.check((*ALL, *behind), size=3)
    scene.check(behind)
    scene.check(("object",))


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize("slices", [1, 2, 5])
@pytest.mark.parametrize("shape", [(15, 12), (9, 32)], ids=str)
def test_agrees_about_a_tilted_specimen(shape, slices, shift, dtype):
    scene = Scene(shape, slices, shift=shift, tilt=TiltPlan(inside=True), dtype=dtype)
    scene.check((*ALL, "tilts"), size=3)
    scene.check(("tilts",))
    scene.check(ALL)


def test_a_tilt_that_changes_between_evaluations():
    scene = Scene(tilt=TiltPlan(inside=True))
    model = scene.model("auto")
    evaluator = fused(model, scene.loss, scene.x)
    for wanted in (ALL, (*ALL, "tilts"), ("tilts",), ()):
        scene.x["tilts"] = scene.x["tilts"] - 0.003
        got = scene.evaluated(evaluator, model, wanted)
        expected = scene.expected(wanted)
        np.testing.assert_allclose(got[0], expected[0], rtol=1e-12)
        for key in wanted:
            np.testing.assert_allclose(
                got[2][key], expected[2][key], atol=1e-12 * abs(expected[2][key]).max()
            )


def test_batches_add_up():
    scene = Scene()
    scene.check(size=3)
    whole, parts = scene.fused(), scene.fused(size=2)
    for key in ("object", "probe"):
        np.testing.assert_array_equal(whole[2][key], parts[2][key])


def test_batches_that_do_not_fit():
    """The kernels would write elsewhere."""
    scene = Scene()
    evaluator = fused(scene.model("auto"), scene.loss, scene.x)
    state = scene.model("auto").prepare(scene.x)
    with pytest.raises(ShapeError) as caught:
        evaluator.evaluate(state, Batch(np.arange(1), np.array([[12, 3]])), scene.data, {}, 1.0)
    assert "sticks out" in str(caught.value)
    assert "(1, 15, 12)" in str(caught.value)


def test_one_position_for_all():
    scene = Scene()
    scene.x["positions"] = scene.x["positions"][:1]
    scene.batch = lambda indices: Batch(
        indices, np.repeat(np.rint(scene.x["positions"]).astype(int), len(indices), 0)
    )
    scene.check()


def test_counts_of_any_type():
    scene = Scene()
    expected = scene.fused()
    for kind in (np.uint8, np.float32, ">f8"):
        got = scene.fused(data=scene.data.astype(kind))
        np.testing.assert_array_equal(got[0], expected[0])
    turned = np.asfortranarray(scene.data)
    np.testing.assert_array_equal(scene.fused(data=turned)[0], expected[0])


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_one_compilation_serves_all_models(dtype):
    from pyptyx.physics.kernels.cpu.patterns import evaluate

    Scene(dtype=dtype).fused()
    known = len(evaluate.signatures)
    for scene in (Scene(dtype=dtype, shift=False), Scene((21, 10), slices=1, dtype=dtype)):
        for wanted in (ALL, (), ("probe",)):
            for chosen in (scene, Scene(dtype=dtype, loss=Loss("ml", 0.2))):
                chosen.data.setflags(write=False)
                chosen.fused(wanted)
    assert len(evaluate.signatures) == known


def test_an_evaluation_that_was_broken_off_leaves_nothing():
    scene = Scene()
    model = scene.model("auto")
    evaluator = fused(model, scene.loss, scene.x)
    state = model.prepare(scene.x)
    acc = {k: np.zeros_like(state[k]) for k in ALL}
    evaluator.evaluate(state, scene.batch(np.arange(3)), scene.data[:3], acc, 0.7)
    expected = scene.fused()
    scene.x["object"] = scene.x["object"] * 1.5
    changed = scene.evaluated(evaluator, model)
    assert not np.allclose(changed[0], expected[0])
    np.testing.assert_array_equal(changed[0], scene.fused()[0])
    np.testing.assert_array_equal(changed[2]["object"], scene.fused()[2]["object"])


@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize("shape", [(21, 10), (10, 21)], ids=str)
def test_a_step_too_far_leaves_nothing(shape, shift):
    """Lines that do not fill a vector leave room for what is not finite."""
    scene = Scene(shape, shift=shift)
    expected = scene.fused()
    model = scene.model("auto")
    evaluator = fused(model, scene.loss, scene.x)
    kept = scene.x["object"]
    scene.x["object"] = np.full_like(kept, np.nan)
    assert np.isnan(scene.evaluated(evaluator, model)[0]).all()
    scene.x["object"] = kept
    again = scene.evaluated(evaluator, model)
    np.testing.assert_array_equal(again[0], expected[0])
    for key in ALL:
        np.testing.assert_array_equal(again[2][key], expected[2][key])


def test_no_batches_at_all():
    scene = Scene()
    evaluator = fused(scene.model("auto"), scene.loss, scene.x)
    acc = {"object": np.ones((1, 3, 4, 5), complex)}
    evaluator.collect(acc)
    np.testing.assert_array_equal(acc["object"], 1)


def test_a_dark_probe_has_the_gradients_of_the_chain():
    scene = Scene(shift=False)
    scene.x["probe"][:] = 0
    scene.check(wanted=("object", "probe"))


def test_windows_at_the_edges_of_the_object():
    scene = Scene()
    ny, nx = scene.spec.grid.shape
    y, x = scene.x["object"].shape[2:]
    corners = [(0, 0), (y - ny, x - nx), (0, x - nx), (y - ny, 0), (3, 2), (3, 2), (1, x - nx)]
    scene.x["positions"] = np.array(corners) + 0.3
    scene.check()


SUPPORTED = Scene()


@pytest.mark.parametrize(
    ("change", "variables", "reason"),
    [
        ({"near_field": NearFieldOptics()}, {}, "near field"),
        ({"geometry": DetectorGeometry(upsample=3)}, {}, "binned"),
        ({"masks": np.ones((3, 15, 12))}, {}, "virtual detectors"),
        ({"tilt": TiltPlan(before=True)}, {}, "beam is tilted"),
        ({"tilt": TiltPlan(after=True)}, {}, "beam is tilted"),
        ({"tilt": TiltPlan(inside=True)}, {"tilts": np.ones((7, 6))}, "tilt of its own"),
        ({"num_aberrations": 4}, {}, "aberrations"),
        ({"plates": True}, {}, "plates"),
        ({"patch_band_limit": True}, {}, "window of the object"),
        ({"wave_storage": "recompute"}, {}, "not to be kept"),
        ({"grid": Grid((15, 11), (0.2, 0.3), 0.02)}, {}, "prime"),
        ({"grid": Grid((15, 3), (0.2, 0.3), 0.02)}, {}, "fill a vector"),
        ({}, {"object": np.ones((2, 3, 26, 29))}, "several modes"),
        ({}, {"probe": np.ones((2, 1, 15, 12))}, "scenarios"),
    ],
    ids=str,
)
def test_what_is_left_to_the_chain(change, variables, reason):
    spec = replace(SUPPORTED.spec, **change)
    assert reason in objection(spec, "lsq_sqrt", SUPPORTED.x | variables, Backend("auto"))


def test_who_evaluates():
    spec, x = SUPPORTED.spec, SUPPORTED.x
    assert objection(spec, "lsq_sqrt", x, Backend("auto")) is None
    assert "poisson_compressed" in objection(spec, "poisson_compressed", x, Backend("auto"))
    for kernels in ("segments", "reference"):
        assert "not in use" in objection(spec, "lsq_sqrt", x, Backend(kernels))
