"""Wigner distribution deconvolution against the exact spectra of strong phase objects."""

import numpy as np
import pytest
from direct_scenes import SEMIANGLE, WAVELENGTH_A, pixel_of, scan, scene
from scipy.special import jv

from pyptyx.data import open_source
from pyptyx.errors import ParamError
from pyptyx.methods.disc import Disc
from pyptyx.methods.gamma import Pupil
from pyptyx.methods.wdd import Regularisation, automatic_epsilon, read_box, wdd

RADIUS_A = SEMIANGLE / WAVELENGTH_A


def box_of(patterns, dk_A, reach, **options):
    ky, kx = patterns.shape[2:]
    disc = Disc((ky // 2, kx // 2), RADIUS_A, dk_A)
    with open_source(patterns) as source:
        return read_box(source, disc, patterns.shape[:2], reach=reach, **options)


def pupil_of(dk_A, coefficients):
    return Pupil(tuple(coefficients), WAVELENGTH_A, SEMIANGLE, max(dk_A))


@pytest.mark.parametrize("a", [0.01, 0.3, 1.0])
@pytest.mark.parametrize("cycles", [6, 20])
@pytest.mark.parametrize("aberrations", [{}, {"c10": 150.0, "c12a": 40.0, "c21a": 300.0}])
def test_a_strong_grating_is_exact(a, cycles, aberrations):
    shape = (50, 64)
    dx, dk = pixel_of(shape, 14.0)
    grating = a * np.sin(2 * np.pi * cycles * np.arange(shape[1]) / shape[1])
    # All rows of the scan are equal.
    row = scan(np.exp(1j * np.tile(grating, (shape[0], 1))), dx, rows=1, **aberrations)
    patterns = np.repeat(row, 5, axis=0)
    coefficients = [aberrations.get(name, 0.0) for name in ("c10", "c12a", "c12b", "c21a")]
    image = wdd(
        box_of(patterns, dk, 2.4), pupil_of(dk, coefficients), dx,
        regularisation=Regularisation(1e-5, damping=0), periodic=True,
    )  # fmt: skip
    spectrum = np.fft.fft2(image)
    for sign in (1, -1):
        ratio = abs(spectrum[0, sign * cycles] / spectrum[0, 0])
        assert ratio == pytest.approx(jv(1, a) / jv(0, a), rel=0.016)


@pytest.fixture(scope="module")
def strong():
    return scene(rms=1.0, limit=1.0, c10=150, seed=7)


def test_a_phase_of_a_radian_is_quantitative(strong):
    box = box_of(strong.patterns, strong.dk_A, 2.4)
    exact = {"regularisation": Regularisation(1e-6, damping=0), "periodic": True}
    image = wdd(box, pupil_of(strong.dk_A, [150.0]), strong.step_A, **exact)
    truth = np.exp(1j * strong.phase)
    overlap = np.vdot(truth, image) / np.linalg.norm(truth) ** 2
    fidelity = abs(np.vdot(truth, image)) / (np.linalg.norm(truth) * np.linalg.norm(image))
    assert fidelity > 0.99
    assert abs(overlap) == pytest.approx(1, abs=0.03)
    other = wdd(box, pupil_of(strong.dk_A, [0.0]), strong.step_A, **exact)
    assert abs(np.vdot(truth, other)) / (np.linalg.norm(truth) * np.linalg.norm(other)) < 0.9


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_the_scale_of_the_counts_does_not_matter(strong, factor):
    pupil = pupil_of(strong.dk_A, [150.0])
    one, other = (
        wdd(box_of(patterns, strong.dk_A, 1.6), pupil, strong.step_A)
        for patterns in (strong.patterns, strong.patterns * np.float32(factor))
    )
    np.testing.assert_allclose(other, one, atol=1e-4)


def test_file_bins_and_rotation(strong, tmp_path):
    counts = np.rint(strong.patterns * 2e5).astype(np.uint16)
    kept = counts.copy()
    pupil = pupil_of(strong.dk_A, [150.0])
    box = box_of(counts, strong.dk_A, 1.6, memory_bytes=0, scratch=tmp_path)
    assert isinstance(box.images, np.memmap)
    assert box.images.dtype == np.uint16
    memory = wdd(box_of(counts.astype(np.float32), strong.dk_A, 1.6), pupil, strong.step_A)
    np.testing.assert_allclose(wdd(box, pupil, strong.step_A), memory, atol=1e-5)
    assert np.array_equal(counts, kept)
    assert memory.shape == strong.phase.shape

    # Row i, column j of the turned scan is at x = i, y = -j of the detector.
    turned = np.rot90(counts, -1, axes=(0, 1))
    same = wdd(box_of(turned, strong.dk_A, 1.6), pupil, strong.step_A, -np.pi / 2)
    np.testing.assert_allclose(same, np.rot90(memory, -1), atol=1e-3)

    binned = box_of(counts, strong.dk_A, 1.6, n_bin=2)
    assert binned.shape[0] * 2 <= counts.shape[2]
    centre = binned.k_A.reshape(*binned.shape, 2)
    step = centre[1, 1] - centre[0, 0]
    np.testing.assert_allclose(step, np.array(strong.dk_A) * 2)
    rows = [round(v / strong.dk_A[0] - 0.5) + 18 for v in np.unique(binned.k_A[:, 0])]
    cols = [round(v / strong.dk_A[1] - 0.5) + 20 for v in np.unique(binned.k_A[:, 1])]
    expected = sum(
        counts[:, :, rows[2] + i, cols[1] + j].astype(float) for i in (0, 1) for j in (0, 1)
    )
    np.testing.assert_array_equal(binned.images[2 * binned.shape[1] + 1], expected)


def test_thresholds_and_noise():
    assert automatic_epsilon(300) == pytest.approx(1)
    assert automatic_epsilon(1e5) == pytest.approx(1e-3, rel=0.1)
    weak = scene(rms=0.05, limit=1.5, seed=3)
    box = box_of(weak.patterns, weak.dk_A, 1.6)
    pupil = pupil_of(weak.dk_A, [0.0])
    hard = Regularisation(threshold=0.02)
    image = wdd(box, pupil, weak.step_A, regularisation=hard, periodic=True)
    assert np.corrcoef(np.angle(image).ravel(), weak.phase.ravel())[0, 1] > 0.97
    with pytest.raises(ParamError, match="n_bin"):
        box_of(weak.patterns, weak.dk_A, 1.6, n_bin=30)
