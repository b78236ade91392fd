"""Near field and virtual detectors against answers known without the package."""

import numpy as np
import pytest

import pyptyx
from pyptyx.backend import Backend
from pyptyx.data import Preparation, check_counts
from pyptyx.engine import preconditioner, setup
from pyptyx.engine.patterns import back_projection

NY, NX, PIXEL_A = 24, 30, (0.5, 0.4)
VOLTAGE_KV = 200
WAVELENGTH_A = pyptyx.wavelength_A(VOLTAGE_KV)


def optics(**more):
    """A window of 24 x 30 pixels, one position, a plane wave."""
    return {
        "recon_type": "near_field",
        "acc_voltage": VOLTAGE_KV,
        "pixel_size_y_A": PIXEL_A[0],
        "pixel_size_x_A": PIXEL_A[1],
        "damping_cutoff_multislice": 1.0,
        "default_dtype": "double",
        "probe": np.ones((NY, NX, 1), complex),
        "output_folder": None,
        "print_flag": 0,
        **more,
    }


def public(phase):
    """Object (Y, X, 1, 1) of a phase."""
    return np.exp(1j * phase)[..., None, None]


def grating(cycles_y, cycles_x):
    """Cosine with so many periods in the window, and its frequency in 1/Å."""
    y, x = np.mgrid[:NY, :NX]
    q = np.hypot(cycles_y / (NY * PIXEL_A[0]), cycles_x / (NX * PIXEL_A[1]))
    return np.cos(2 * np.pi * (cycles_y * y / NY + cycles_x * x / NX)), q


@pytest.mark.parametrize("alpha", [0.0, 3e-3])
@pytest.mark.parametrize("Cs_A", [0.0, 2e7])
def test_contrast_of_a_weak_phase_grating(alpha, Cs_A):
    """``I = 1 + 2 φ sin χ``, ``χ = πλΔq² + ½πC_sλ³q⁴``, damped by the divergence."""
    defocus_A, strength = 130.0, 1e-5
    wave, q = grating(2, 3)
    chi = np.pi * WAVELENGTH_A * defocus_A * q**2 + np.pi / 2 * Cs_A * WAVELENGTH_A**3 * q**4
    contrast = 2 * strength * np.sin(chi) * np.exp(-((q * np.pi * alpha * defocus_A) ** 2))
    params = optics(defocus_array=[defocus_A], Cs=Cs_A, alpha_near_field=alpha)
    image = pyptyx.simulate(params | {"obj": public(strength * wave)})[0]
    np.testing.assert_allclose(image - 1, contrast * wave, atol=1e-3 * abs(contrast))


def test_talbot_self_image():
    """A periodic wave repeats itself after ``2/(λq²)``, not after a quarter of it."""
    wave, q = grating(0, 3)
    length_A = 2 / (WAVELENGTH_A * q**2)
    rows = np.array([0.0, 0.25, 1.0]) * length_A
    amplitude = (1 + 0.3 * wave)[..., None, None] + 0j
    images = pyptyx.simulate(optics(defocus_array=rows, obj=amplitude))
    np.testing.assert_allclose(images[2], images[0], rtol=1e-9)
    assert np.abs(images[1] - images[0]).max() > 0.3


def test_tilt_inside_moves_the_image():
    """By ``+Δτ``: two pixels down and three to the left."""
    defocus_A = 200.0
    tilts = np.zeros((1, 6))
    tilts[0, 2:4] = 2 * PIXEL_A[0] / defocus_A, -3 * PIXEL_A[1] / defocus_A
    blob = public(0.5 * np.exp(-(((np.mgrid[:NY, :NX].T - [9, 13]) ** 2).sum(-1).T) / 8))
    upright = pyptyx.simulate(optics(defocus_array=[defocus_A], obj=blob))[0]
    tilted = pyptyx.simulate(optics(defocus_array=[defocus_A], obj=blob, tilts=tilts))[0]
    limited = {"atol": 1e-3 * np.ptp(upright)}  # no pixel beyond the band limit
    np.testing.assert_allclose(tilted, np.roll(upright, (2, -3), (0, 1)), **limited)


def test_probe_focused_backwards_arrives_as_it_was():
    """Positive defocus propagates forwards, and counts are those of the beam."""
    y, x = np.mgrid[:NY, :NX]
    beam = np.exp(-((y - 11) ** 2 / 18 + (x - 16) ** 2 / 11))[..., None] + 0j
    params = optics(probe=beam, extra_probe_defocus=-90.0, defocus_array=[90.0])
    image = pyptyx.simulate(params)[0]
    np.testing.assert_allclose(image, np.abs(beam[..., 0]) ** 2, atol=3e-5)
    assert image.sum() == pytest.approx((np.abs(beam) ** 2).sum(), rel=1e-5)


def focal_series(rng, count=7):
    """Images of random atoms, and their phase."""
    y, x = np.mgrid[:NY, :NX]
    phase = np.zeros((NY, NX))
    for cy, cx in rng.uniform(0, 1, (14, 2)) * [NY, NX]:
        phase += 0.4 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 4)
    known = optics(probe=np.full((NY, NX, 1), 60 + 0j), defocus_array=np.linspace(-300, 250, count))
    return known, phase, rng.poisson(pyptyx.simulate(known | {"obj": public(phase)}))


@pytest.mark.parametrize("algorithm", ["lsq_sqrt", "ml", "lsq", "lsq_sqrt_2"])
def test_focal_series_is_recovered(algorithm):
    """One position for all images, in batches of three (F5, F13); every loss."""
    known, phase, images = focal_series(np.random.default_rng(1))
    how = {"update_probe": 0, "epoch_max": 25, "compute_batch": 3, "algorithm": algorithm}
    result = pyptyx.run(known | how | {"dataset": images})
    assert np.corrcoef(result.phase.ravel(), phase.ravel())[0, 1] > 0.97
    # The estimated curvature knows that the near field has no factor N.
    assert result.losses[0].evaluations <= 3


def test_mean_image_is_not_shifted_by_tilts():
    """In the image plane a ramp of the phase moves nothing."""
    known, _phase, images = focal_series(np.random.default_rng(2))
    tilts = np.zeros((len(images), 6))
    tilts[:, 4] = 5e-3
    params = known | {"dataset": images, "tilts": tilts, "tilt_mode": 1, "probe": None}
    with setup.build(params | {"acc_voltage": VOLTAGE_KV}) as problem:
        probe = problem.x["probe"][0, 0]
    np.testing.assert_allclose(np.abs(probe) ** 2, images.mean(axis=0), rtol=1e-10)


# ---- virtual detectors ------------------------------------------------------------------------


def test_back_projection_of_overlapping_masks_keeps_the_counts():
    """BUG-30: ``Σ masks · mean`` has the counts only of orthonormal masks."""
    y, x = np.mgrid[:NY, :NX] - np.array([NY // 2, NX // 2])[:, None, None]
    masks = np.array([np.hypot(y, x) < r for r in (4, 8, 40)], float)
    pattern = 5 * masks[0] + 2 * masks[1] + 0.1
    signals = np.tensordot(masks, pattern, axes=2)
    np.testing.assert_allclose(back_projection(masks, signals), pattern, rtol=1e-8)
    assert back_projection(masks[:2] - 0.5, signals[:2]).min() >= 0


def test_curvature_counts_every_detector_that_sees_a_pixel():
    rng = np.random.default_rng(3)
    masks = rng.random((5, NY, NX))
    params = optics(recon_type="far_field", obj=public(np.zeros((NY, NX))))
    diagonals = {}
    for name, extra in {
        "far": {},
        "near": {"recon_type": "near_field"},
        "signals": {"masks": masks, "algorithm": "gauss_compressed"},
    }.items():
        with setup.build(params | extra, need=("acc_voltage",)) as p:
            sequence = np.arange(p.measurements)
            found = preconditioner.curvatures(p.x, p.spec, p.scan, sequence, Backend())
            diagonals[name] = found["object"]
    far = diagonals["far"]
    np.testing.assert_allclose(diagonals["near"], far / (NY * NX), rtol=1e-12)
    np.testing.assert_allclose(diagonals["signals"], far * masks.sum(axis=0).max(), rtol=1e-12)


def test_images_keep_their_order_in_the_preparation():
    patterns = np.arange(2 * 4 * 5).reshape(2, 4, 5)
    prepared = Preparation(pad=(1, 2), corner=False, dtype=np.float64)(patterns)
    np.testing.assert_array_equal(prepared, np.pad(patterns, ((0, 0), (1, 1), (2, 2))))


def test_negative_signals_are_no_problem_but_nan_is():
    signals = np.array([[-3.0, 2.0]])
    assert [p.expected for p in check_counts(signals)] == ["counts of zero or more"]
    assert check_counts(signals, signed=True) == []
    assert check_counts(np.array([[np.nan, 2.0]]), signed=True)
