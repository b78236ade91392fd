"""The near-field detector: its formula, its adjoints, and the whole model through it."""

import dataclasses

import numpy as np
import pytest

import pyptyx
from pyptyx.backend import Backend
from pyptyx.physics.detector import DetectorGeometry, NearField, NearFieldOptics
from pyptyx.physics.grid import Grid
from tests.gradients.checks import assert_adjoint, assert_derivative, inner, normal
from tests.gradients.scenes import MEASUREMENTS, spec_for, variables
from tests.gradients.test_model import EVERYTHING, check

BACKEND = Backend()
GRID = Grid((9, 12), (0.31, 0.24), 0.025, 0.9)
COUNT = 4
ROWS = np.array([2, 0, 5, 3])
COMMON = (170.0,)
LIST = (100.0, -20.0, 170.0, 60.0, 230.0, 310.0)
IMAGE = DetectorGeometry(corner=False)


def stage(optics, geometry=IMAGE):
    return NearField(GRID, optics, geometry, BACKEND, complex)


def transfer(defocus_A, Cs_A, tilt):
    """H, written out."""
    q_y, q_x = GRID.q_y[:, None], GRID.q_x[None, :]
    phase = (GRID.wavelength_A * GRID.q2 + 2 * (q_x * tilt[1] + q_y * tilt[0])) * defocus_A
    phase = phase + 0.5 * Cs_A * GRID.wavelength_A**3 * GRID.q2**2
    return np.exp(-1j * np.pi * phase) * GRID.mask


@pytest.fixture
def rng():
    return np.random.default_rng(3)


@pytest.mark.parametrize("defocus", [COMMON, LIST])
@pytest.mark.parametrize("divergence", [0.0, 2e-3])
def test_image_against_the_formula(rng, defocus, divergence):
    optics = NearFieldOptics(defocus, 3e6, divergence)
    wave, tilt = normal(rng, COUNT, 2, 3, *GRID.shape), 2e-3 * normal(rng, COUNT, 2, real=True)
    got, _saved = stage(optics).forward(wave.copy(), ROWS, tilt)
    for t, row in enumerate(ROWS):
        d = defocus[0] if len(defocus) == 1 else defocus[row]
        image = np.fft.ifft2(transfer(d, 3e6, tilt[t]) * np.fft.fft2(wave[t]))
        expected = (np.abs(image) ** 2).mean(axis=(0, 1))
        envelope = np.exp(-GRID.q2 * (np.pi * divergence * d) ** 2)
        expected = np.fft.ifft2(envelope * np.fft.fft2(expected)).real
        np.testing.assert_allclose(got[t], np.maximum(expected, 0), rtol=1e-12, atol=1e-12)


def test_divergence_keeps_the_counts_and_lowers_the_contrast(rng):
    wave = 5 + normal(rng, COUNT, 2, 3, *GRID.shape)
    sharp, _ = stage(NearFieldOptics(COMMON)).forward(wave.copy(), ROWS)
    blurred, _ = stage(NearFieldOptics(COMMON, 0.0, 2e-3)).forward(wave.copy(), ROWS)
    np.testing.assert_allclose(blurred.sum((1, 2)), sharp.sum((1, 2)), rtol=1e-12)
    assert np.all(blurred.std((1, 2)) < 0.8 * sharp.std((1, 2)))


@pytest.mark.parametrize("defocus", [COMMON, LIST])
@pytest.mark.parametrize("divergence", [0.0, 2e-3])
def test_gradients_of_wave_and_tilt(rng, defocus, divergence):
    detector = stage(NearFieldOptics(defocus, 3e6, divergence))
    shape = (COUNT, 2, 3, *GRID.shape)
    wave, tilt = 4 + normal(rng, *shape), 2e-3 * normal(rng, COUNT, 2, real=True)
    w = normal(rng, COUNT, *GRID.shape, real=True)
    saved = detector.forward(wave.copy(), ROWS, tilt)[1]
    g, g_tilt = detector.vjp(saved, w.copy(), wants_tilt=True)

    def value(wave, tilt):
        return inner(w, detector.forward(wave.copy(), ROWS, tilt)[0])

    assert_derivative(lambda a: value(a, tilt), wave, g, normal(rng, *shape), tolerance=1e-9)
    d = 1e-3 * normal(rng, COUNT, 2, real=True)
    assert_derivative(lambda a: value(wave, a), tilt, g_tilt, d, step=1e-2, tolerance=1e-7)
    alone, none = detector.vjp(detector.forward(wave.copy(), ROWS, tilt)[1], w.copy())
    assert none is None
    np.testing.assert_array_equal(alone, g)


@pytest.mark.parametrize("upsample", [1, 3])
def test_cropping_and_binning_leave_an_image_in_its_order(rng, upsample):
    geometry = DetectorGeometry((1, 3) if upsample == 1 else (0, 0), upsample, corner=False)
    detector, data_shape = stage(NearFieldOptics(COMMON), geometry), geometry.data_shape(GRID.shape)
    a = rng.random((COUNT, *GRID.shape))
    got = detector.to_data(a, None)
    (ny, nx), (cy, cx) = data_shape, geometry.crop
    expected = a[:, cy : GRID.shape[0] - cy, cx : GRID.shape[1] - cx]
    expected = expected.reshape(COUNT, ny, upsample, nx, upsample).sum(axis=(2, 4))
    np.testing.assert_allclose(got, expected, rtol=1e-13)
    assert_adjoint(
        lambda v: detector.to_data(v, None),
        lambda w: detector.to_data_vjp(w, None, False)[0],
        normal(rng, COUNT, *GRID.shape, real=True),
        normal(rng, COUNT, *data_shape, real=True),
    )


def test_background_is_an_image_without_band_limit(rng):
    """Defect F6: PyPty masks a real-space background with the band limit."""
    detector, root = stage(NearFieldOptics(COMMON)), rng.random(GRID.shape)
    a, w = rng.random((COUNT, *GRID.shape)), normal(rng, COUNT, *GRID.shape, real=True)
    np.testing.assert_allclose(detector.to_data(a, root), a + root**2, rtol=1e-14)
    g_root = detector.to_data_vjp(w, root, True)[1]
    d = rng.random(GRID.shape)
    assert_derivative(lambda b: inner(w, detector.to_data(a, b)), root, g_root, d)


DEFOCI = (120.0, 40.0, 300.0, -70.0, 210.0)
MODEL_CASES = {
    "one focus": ({}, NearFieldOptics((150.0,)), {}),
    "focal series": ({"slices": 1}, NearFieldOptics(DEFOCI), {}),
    "Cs and divergence": ({}, NearFieldOptics(DEFOCI, 1e6, 1e-3), EVERYTHING),
    "common divergence": ({"slices": 4}, NearFieldOptics((150.0,), 0.0, 2e-3), {}),
    "crop": (
        {"geometry": DetectorGeometry((2, 3), corner=False)},
        NearFieldOptics(DEFOCI),
        EVERYTHING,
    ),
    "up-sampled": (
        {"window": (12, 18), "geometry": DetectorGeometry((0, 0), 3, corner=False)},
        NearFieldOptics(DEFOCI),
        EVERYTHING,
    ),
    **{
        f"tilt mode {mode}": ({"tilt_mode": mode}, NearFieldOptics(DEFOCI, 1e6, 1e-3), {})
        for mode in range(5)
    },
    "common tilt": ({"tilt_mode": 3}, NearFieldOptics(DEFOCI), {"common_tilt": True}),
    "all": (
        {"slices": 4, "tilt_mode": 4, "aberrations": True, "plates": True, "patch": True},
        NearFieldOptics(DEFOCI, 1e6, 1e-3),
        EVERYTHING,
    ),
}


@pytest.mark.parametrize("case", MODEL_CASES)
def test_every_variable(case):
    model, optics, point = MODEL_CASES[case]
    spec = spec_for(**({"geometry": IMAGE} | model))
    spec = dataclasses.replace(spec, near_field=optics)
    rng = np.random.default_rng(7)
    assert len(optics.defocus_A) in (1, MEASUREMENTS)
    check(spec, variables(spec, rng, **point), rng)


def test_data_and_background_are_not_rolled():
    """The public face: a measured image is compared with the model's in its own order."""
    rng, ny, nx = np.random.default_rng(8), 12, 15
    image, root = 50 * rng.random((1, ny, nx)), rng.random((ny, nx))
    params = {
        "dataset": image,
        "obj": np.ones((ny, nx, 1, 1), complex),
        "probe": np.zeros((ny, nx, 1), complex),
        "static_background": root,
        "update_static_background": 1,
        "algorithm": "lsq",
        "recon_type": "near_field",
        "acc_voltage": 80,
        "default_dtype": "double",
    }
    loss, _sse, got = pyptyx.loss_and_gradient(params)
    residual = root**2 - image[0]
    assert loss == pytest.approx((residual**2).sum())
    np.testing.assert_allclose(got["static_background"], 4 * residual * root, rtol=1e-10)
    np.testing.assert_allclose(pyptyx.simulate(params)[0], root**2, rtol=1e-12)
