"""Virtual detectors: their formula and adjoint, and the whole model through them."""

import dataclasses

import numpy as np
import pytest

import pyptyx
from pyptyx.backend import Backend
from pyptyx.errors import PyptyxError
from pyptyx.physics.detector import DetectorGeometry, NearFieldOptics
from pyptyx.physics.virtual import VirtualDetectors
from tests.gradients.checks import assert_adjoint, normal
from tests.gradients.scenes import spec_for, variables
from tests.gradients.test_model import EVERYTHING, check

COUNT, DETECTORS, SHAPE = 4, 6, (9, 7)
LOSSES = ["lsq_compressed", "gauss_compressed", "poisson_compressed"]


@pytest.fixture
def rng():
    return np.random.default_rng(6)


def test_signals_are_weighted_sums(rng):
    masks, intensity = normal(rng, DETECTORS, *SHAPE, real=True), rng.random((COUNT, *SHAPE))
    got = VirtualDetectors(masks, Backend(), complex).forward(intensity)
    expected = np.einsum("dyx,byx->bd", masks, intensity)
    np.testing.assert_allclose(got, expected[:, None], rtol=1e-12)


def test_adjoint(rng):
    stage = VirtualDetectors(normal(rng, DETECTORS, *SHAPE, real=True), Backend(), complex)
    v = normal(rng, COUNT, *SHAPE, real=True)
    assert_adjoint(stage.forward, stage.vjp, v, normal(rng, COUNT, 1, DETECTORS, real=True))


MODELS = {
    "far field": {},
    "crop and up-sampled": {"window": (14, 20), "geometry": DetectorGeometry((1, 4), 2)},
    "near field": {"geometry": DetectorGeometry(corner=False)},
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("model", MODELS)
def test_every_variable(rng, model, loss):
    spec = spec_for(tilt_mode=4, **MODELS[model])
    masks = rng.random((DETECTORS, *spec.geometry.data_shape(spec.grid.shape)))
    optics = NearFieldOptics((150.0,)) if model == "near field" else None
    spec = dataclasses.replace(spec, masks=masks, near_field=optics)
    check(spec, variables(spec, rng, **EVERYTHING), rng, loss=loss)


# ---- the public face --------------------------------------------------------------------------

NY, NX, SCAN = 8, 10, (2, 3)


def params(rng, **extra):
    """Patterns and masks of 8 x 10 pixels, four detectors, six measurements."""
    masks = rng.random((4, NY, NX))
    patterns = 90 * rng.random((6, NY, NX))
    return {
        "dataset": np.einsum("dyx,tyx->td", masks, patterns),
        "masks": masks,
        "algorithm": "lsq_compressed",
        "positions": rng.integers(0, 5, (6, 2)).astype(float),
        "obj": np.exp(1j * rng.random((NY + 9, NX + 11, 1, 1))),
        "probe": normal(rng, NY, NX, 2),
        "skip_preprocessing": True,
        "acc_voltage": 80,
        "default_dtype": "double",
        **extra,
    }


def test_loss_is_that_of_the_signals_of_the_simulated_patterns(rng):
    """Background included, before the masks."""
    p = params(rng, static_background=rng.random((NY, NX)))
    patterns = pyptyx.simulate({k: v for k, v in p.items() if k not in ("masks", "dataset")}
                               | {"algorithm": "lsq"})  # fmt: skip
    signals = np.einsum("dyx,tyx->td", p["masks"], patterns)
    np.testing.assert_allclose(pyptyx.simulate(p), signals, rtol=1e-10)
    loss, sse, _g = pyptyx.loss_and_gradient(p)
    assert loss == pytest.approx(((signals - p["dataset"]) ** 2).sum())
    assert sse == pytest.approx(loss)


def test_scan_layout_is_the_flat_one(rng):
    """The documented layout (Ny, Nx, Nd); BUG-30 of PyPty."""
    p = params(rng)
    scan = p | {"dataset": p["dataset"].reshape(*SCAN, 4)}
    assert pyptyx.loss_and_gradient(scan)[0] == pyptyx.loss_and_gradient(p)[0]


@pytest.mark.parametrize("told_by", ["probe", "mean_pattern", "aperture_mask", "nothing"])
@pytest.mark.parametrize("padded_intensity", [True, False])
def test_masks_are_padded_like_the_pattern(rng, told_by, padded_intensity):
    """Masks on the measured pattern get the border; on the padded one they have it (BUG-30)."""
    window = (NY + 4, NX + 4)
    p = params(rng, probe=normal(rng, *window, 2), data_pad=2, skip_preprocessing=True)
    p["use_padded_intensity"] = padded_intensity
    p["masks"] = padded = np.pad(p["masks"], ((0, 0), (2, 2), (2, 2)))
    expected, _sse, g = pyptyx.loss_and_gradient(p)
    assert g["probe"].shape == (*window, 2)
    if told_by != "nothing":
        p["masks"] = padded[:, 2:-2, 2:-2]
        arrays = {"mean_pattern": np.ones((NY, NX)), "aperture_mask": np.ones(window, bool)}
        p |= {told_by: arrays[told_by]} if told_by in arrays else {}
    assert pyptyx.loss_and_gradient(p)[0] == pytest.approx(expected, rel=1e-12)


def test_shift_moves_the_masks_as_it_would_have_moved_the_patterns(rng):
    p = params(rng)
    p["masks"][:, -1], p["masks"][:, :, :2] = 0, 0
    moved = p | {"masks": np.roll(p["masks"], (1, -2), (1, 2))}
    shifted = p | {"data_shift_vector": (1, -2)}
    assert pyptyx.loss_and_gradient(shifted)[0] == pyptyx.loss_and_gradient(moved)[0]


@pytest.mark.parametrize(
    ("extra", "key"),
    [
        ({"algorithm": "lsq_sqrt"}, "algorithm"),
        ({"masks": np.ones((3, NY, NX))}, "masks"),
        ({"masks": -np.ones((4, NY, NX)), "algorithm": "poisson_compressed"}, "masks"),
        ({"data_bin": 2}, "data_bin"),
        ({"dataset": np.ones((1, 6, 4, NY, NX))}, "dataset"),
    ],
)
def test_what_does_not_fit_is_named(rng, extra, key):
    with pytest.raises(PyptyxError) as info:
        pyptyx.loss_and_gradient(params(rng, **extra))
    assert key in {problem.key for problem in info.value.problems}


def test_signals_of_signed_masks_may_be_negative(rng):
    masks = normal(rng, 4, NY, NX, real=True)
    p = params(rng, masks=masks, dataset=-100 * rng.random((6, 4)))
    assert np.isfinite(pyptyx.loss_and_gradient(p)[0])


def test_signed_signals_run_with_positions(rng):
    """The measured curvature of the positions takes roots of signals."""
    masks = normal(rng, 4, NY, NX, real=True)
    p = params(rng, masks=masks, dataset=30 * normal(rng, 6, 4, real=True), update_probe_pos=1)
    result = pyptyx.run(p | {"epoch_max": 2, "output_folder": None, "print_flag": 0})
    assert result.final_loss < result.losses[0].loss
