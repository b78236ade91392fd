"""Linear reconstructions against closed forms, exact simulations and counting statistics."""

import numpy as np
import pytest
from direct_scenes import (
    SEMIANGLE,
    WAVELENGTH_A,
    chi,
    correlation,
    pixel_of,
    scan,
    scene,
    white_phase,
)
from scipy.special import jv

from pyptyx.backend import Backend
from pyptyx.data import open_source
from pyptyx.errors import ParamError
from pyptyx.executors import ThreadExecutor
from pyptyx.methods.bright_field import BrightField, Reading, bright_field
from pyptyx.methods.gamma import gamma, half_plane_A
from pyptyx.methods.joint import joint_image
from pyptyx.methods.linear import KERNELS, depth_sections, linear_image
from pyptyx.methods.tcbf import aligned_image
from pyptyx.methods.unalias import unaliased_image, upsampling_limits

RADIUS_A = SEMIANGLE / WAVELENGTH_A
MANY = (150.0, 40.0, -25.0, 400.0)


def opened(patterns, step_A, dk_A, **options):
    with open_source(patterns) as source:
        return bright_field(
            source,
            dk_A=dk_A,
            wavelength_A=WAVELENGTH_A,
            step_A=step_A,
            semiangle_rad=SEMIANGLE,
            **options,
        )


def bright_of(scene, **options):
    return opened(scene.patterns, scene.step_A, scene.dk_A, **options)


def gain(image, truth):
    return (image * truth).sum() / (truth**2).sum()


@pytest.fixture(scope="module")
def aberrated():
    return scene(c10=150, c12a=40, c12b=-25, c21a=400)


# ---- the double overlap ------------------------------------------------------------------------


def test_gamma_is_made_of_the_pupil_and_has_its_symmetries():
    rng = np.random.default_rng(1)
    k, q = rng.uniform(-0.6, 0.6, (7, 2)), rng.uniform(-0.6, 0.6, (5, 3, 2))
    optics = (WAVELENGTH_A, SEMIANGLE, 0.1)
    plus, minus, g = gamma(k, q, MANY, *optics)

    def pupil(v):
        rim = np.clip((RADIUS_A - np.hypot(v[..., 0], v[..., 1])) / 0.1 + 0.5, 0, 1)
        return rim * np.exp(-1j * chi(v[..., 0], v[..., 1], 150, 40, -25, 400))

    centre = k[:, None, None]
    np.testing.assert_allclose(plus, pupil(centre).conj() * pupil(centre - q), atol=1e-12)
    np.testing.assert_allclose(minus, pupil(centre) * pupil(centre + q).conj(), atol=1e-12)
    assert np.abs(g).max() > 0.5
    np.testing.assert_allclose(gamma(k, -q, MANY, *optics)[2], -g.conj(), atol=1e-12)
    reverse = tuple(-c for c in MANY)
    np.testing.assert_allclose(gamma(k, -q, reverse, *optics)[2], -g, atol=1e-12)


def test_defocus_turns_the_triple_overlap_into_one_sine():
    k, q = np.array([[0.05, -0.1], [0.0, 0.08]]), np.array([[0.2, 0.1], [-0.13, 0.24]])
    g = gamma(k, q, (250.0,), WAVELENGTH_A, SEMIANGLE)[2]
    shift = 250.0 * WAVELENGTH_A * k
    aligned = g * np.exp(-2j * np.pi * shift @ q.T)
    expected = -2j * np.sin(chi(q[:, 0], q[:, 1], 250.0))
    np.testing.assert_allclose(aligned, np.tile(expected, (2, 1)), atol=1e-12)


# ---- quantitative ------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ["mf", "ssb", "icom"])
@pytest.mark.parametrize(("coefficients", "aberrations"), [((0.0,), {}), (MANY, None)])
def test_a_weak_phase_is_recovered_in_rad(kernel, coefficients, aberrations, aberrated):
    made = aberrated if aberrations is None else scene(seed=4)
    image = linear_image(bright_of(made), coefficients, kernel=kernel, wiener=None, periodic=True)
    assert correlation(image.phase, made.phase) > (0.99 if kernel == "icom" else 0.999)
    assert gain(image.phase, made.phase) == pytest.approx(1, abs=5e-3)


@pytest.mark.parametrize(("a", "expected"), [(0.01, 1.0), (0.3, 0.9667), (1.0, 0.6735)])
def test_a_strong_grating_beyond_the_aperture_has_its_bessel_amplitude(a, expected):
    shape, cycles = (34, 40), 13
    dx, dk = pixel_of(shape, 9.0)
    grating = a * np.sin(2 * np.pi * cycles * np.arange(shape[1]) / shape[1])
    assert 1 < cycles / (shape[1] * dx) / RADIUS_A < 2
    row = scan(np.exp(1j * np.tile(grating, (shape[0], 1))), dx, rows=1, c10=100)
    bright = opened(np.repeat(row, 5, axis=0), dx, dk)
    assert expected == pytest.approx(2 * jv(0, a) * jv(1, a) / a, abs=1e-4)
    # Images are divided by their mean: where two beams overlap that is J0² + J1².
    mean = jv(0, a) ** 2 + jv(1, a) ** 2
    for kernel in ("mf", "ssb"):
        image = linear_image(bright, (100.0,), kernel=kernel, wiener=None, periodic=True)
        amplitude = 2 * abs(np.fft.fft2(image.phase)[0, cycles]) / image.phase.size
        assert amplitude * mean / a == pytest.approx(expected, rel=2e-3 + 0.02 * a**2)


def test_beyond_twice_the_aperture_there_is_nothing(aberrated):
    bright = bright_of(aberrated)
    q = half_plane_A(bright.scan_size, bright.step_A)
    outside = np.hypot(q[..., 0], q[..., 1]) > 2 * RADIUS_A
    assert outside.any()
    for kernel in KERNELS:
        image = linear_image(bright, MANY, kernel=kernel, wiener=None, periodic=True)
        assert np.isfinite(image.phase).all()
        assert np.abs(np.fft.rfft2(image.phase)[outside]).max() < 1e-9
        assert not image.transfer[outside].any()


def test_the_scan_rotation_is_that_of_the_parameters():
    """A scan turned by 90° visits the same points in another order."""
    made = scene(shape=(36, 40), c10=120, c12a=60, seed=6)
    turned = np.rot90(made.patterns, -1, axes=(0, 1))
    bright = opened(turned, made.step_A, made.dk_A)
    # Row i, column j of the turned scan is at x = i, y = -j of the detector.
    truth = np.rot90(made.phase, -1)
    right, wrong = (
        linear_image(bright, (120.0, 60.0), angle, wiener=None, periodic=True).phase
        for angle in (-np.pi / 2, np.pi / 2)
    )
    assert correlation(right, truth) > 0.999
    assert correlation(wrong, truth) < 0.9


def test_joint_images_tell_amplitude_from_phase():
    shape = (36, 40)
    dx, dk = pixel_of(shape, 9.0)
    phase = white_phase(shape, dx, 0.02, seed=1)
    absorption = white_phase(shape, dx, 0.01, seed=2)
    patterns = scan((1 - absorption) * np.exp(1j * phase), dx, c10=250)
    found, amplitude = joint_image(opened(patterns, dx, dk), (250.0,), damping=1e-5, periodic=True)
    assert correlation(found, phase) > 0.99
    assert correlation(amplitude, 1 - absorption) > 0.97
    assert amplitude.mean() == pytest.approx(1)


def test_depth_sections_focus_each_plane():
    made = scene(c10=300, seed=2)
    bright = bright_of(made)
    heights = (-300.0, -150.0, 0.0)
    planes = depth_sections(bright, (300.0,), heights, wiener=None, periodic=True)
    matches = [correlation(p.phase, made.phase) for p in planes]
    assert np.argmax(matches) == 2
    alone = linear_image(bright, (150.0,), wiener=None, periodic=True)
    np.testing.assert_allclose(planes[1].phase, alone.phase, atol=1e-12)


# ---- noise -------------------------------------------------------------------------------------


def vacuum(counts, shape=(64, 58), radius_px=14.0):
    """A bright field without specimen: the transfer depends on nothing else."""
    dx, dk = pixel_of(shape, radius_px)
    y, x = np.indices(shape)
    k = np.stack([(y - shape[0] // 2) * dk[0], (x - shape[1] // 2) * dk[1]], axis=-1)
    share = np.clip((RADIUS_A - np.hypot(k[..., 0], k[..., 1])) / max(dk) + 0.5, 0, 1) ** 2
    share /= share.sum()
    used = share > 0.1 * share.max()
    size = (46, 64)
    rng = np.random.default_rng(0)
    images = rng.poisson(counts * share[used][:, None, None] * np.ones(size)).astype(np.float32)
    empty = np.zeros(size)
    return BrightField(
        images, k[used], share[used], empty + counts, empty, empty, empty, share, used,
        (shape[0] // 2, shape[1] // 2), radius_px, dx, WAVELENGTH_A, SEMIANGLE, dk,
    )  # fmt: skip


RINGS = ((0.2, 0.4), (0.5, 0.7), (0.9, 1.1))


@pytest.mark.parametrize(
    ("kernel", "c10", "expected"),
    [
        ("mf", 0.0, (0.100, 0.185, 0.207)),
        ("ssb", 0.0, (0.082, 0.166, 0.191)),
        ("icom", 0.0, (0.059, 0.146, 0.166)),
        ("mf", 200.0, (0.520, None, 0.211)),
        ("ssb", 200.0, (0.477, 0.296, 0.195)),
        ("tcbf", 200.0, (0.441, 0.222, 0.082)),
    ],
)
def test_quantum_efficiency_of_the_kernels(kernel, c10, expected):
    bright = vacuum(500.0)
    image = linear_image(bright, (c10,), kernel=kernel, periodic=True)
    q = half_plane_A(bright.scan_size, bright.step_A)
    size = np.hypot(q[..., 0], q[..., 1]) / RADIUS_A
    for (low, high), value in zip(RINGS, expected, strict=True):
        ring = (size > low) & (size < high)
        if value is not None:
            assert image.transfer[ring].mean() == pytest.approx(value, rel=0.1)
    best = linear_image(bright, (c10,), kernel="mf", periodic=True).transfer
    assert (image.transfer <= best * 1.001 + 1e-9).all()


def test_noise_of_counts_is_what_is_predicted():
    made = scene(rms=0.05, c10=150, seed=8)
    rng = np.random.default_rng(5)
    noisy = [
        opened(rng.poisson(made.patterns * 2000).astype(np.uint16), made.step_A, made.dk_A)
        for _ in range(2)
    ]
    one, other = (linear_image(b, (150.0,), wiener=1e-2, periodic=True) for b in noisy)
    scatter = (one.phase - other.phase).std() / np.sqrt(2)
    assert one.noise_rad == pytest.approx(scatter, rel=0.1)
    bright, image = noisy[0], linear_image(noisy[0], (150.0,), periodic=True)
    raw = linear_image(bright, (150.0,), wiener=None, periodic=True)
    assert (image.phase - made.phase).std() < 0.7 * (raw.phase - made.phase).std()
    # The two halves agree as the signal-to-noise ratio says.
    size = np.hypot(*np.moveaxis(half_plane_A(bright.scan_size, bright.step_A), -1, 0))
    expected = []
    for q in image.frc_q_A[2:-1]:
        snr = image.ssnr[(np.abs(size - q) < 0.02) & (image.ssnr > 0)].mean()
        expected.append(snr / (snr + 2))
    assert np.ptp(expected) > 0.6
    assert np.abs(image.frc[2:-1] - expected).mean() < 0.08


# ---- un-aliasing -------------------------------------------------------------------------------


@pytest.mark.parametrize("upsample", [1, 2, 3, 4])
@pytest.mark.parametrize("c10", [0.0, 300.0])
def test_a_coarse_scan_gives_a_fine_image(upsample, c10):
    made = scene(shape=(36, 48), radius_px=9.5, every=upsample, limit=1.8, c10=c10, seed=3)
    bright = bright_of(made)
    options = {"damping": 1e-7, "periodic": True}
    image = unaliased_image(bright, (c10,), upsample=upsample, **options)
    assert image.phase.shape == made.phase.shape
    assert image.pixel_A == pytest.approx(made.step_A / upsample)
    assert correlation(image.phase, made.phase) > 0.99
    assert image.condition.max() > 0.99
    if upsample == 1:
        same = linear_image(bright, (c10,), wiener=1e-7, periodic=True)
        np.testing.assert_allclose(image.phase, same.phase, atol=1e-4 * made.phase.std())
    limits = upsampling_limits(bright)
    assert limits["2 alpha"] == pytest.approx(4 * RADIUS_A * made.step_A)
    assert limits["bright field"] < limits["2 alpha"]


@pytest.mark.parametrize(("upsample", "every", "limit"), [(2.5, 2, 1.8), (5 / 3, 3, 1.4)])
def test_pixels_may_divide_the_scan_step_unevenly(upsample, every, limit):
    """The scan takes every fifth pixel of the object, the image every second or third."""
    made = scene(shape=(60, 90), radius_px=9.5, every=5, limit=limit, c10=300, seed=3)
    bright = bright_of(made)
    image = unaliased_image(bright, (300.0,), upsample=upsample, damping=1e-7, periodic=True)
    truth = made.phase[::every, ::every]
    assert image.phase.shape == truth.shape
    assert image.pixel_A == pytest.approx(made.step_A / upsample)
    assert correlation(image.phase, truth) > 0.99
    assert gain(image.phase, truth) == pytest.approx(1, abs=0.02)
    # Padded, the field need not be a whole number of pixels; nor need the scan be periodic.
    part = opened(made.patterns[:11, :17], made.step_A, made.dk_A)
    cut = unaliased_image(part, (300.0,), upsample=upsample, damping=1e-3)
    rows, columns = (int(np.ceil(n * upsample)) for n in (11, 17))
    assert cut.phase.shape == (rows, columns)
    inner = (slice(6, rows - 6), slice(6, columns - 6))
    assert correlation(cut.phase[inner], truth[:rows, :columns][inner]) > 0.75


@pytest.mark.parametrize("upsample", [0, 0.5, 1.4142, "2.5x", np.nan, np.inf, None])
def test_factors_that_are_not_possible(upsample, aberrated):
    bright = bright_of(aberrated)
    with pytest.raises(ParamError, match="upsample: expected a number >= 1 that is a ratio"):
        unaliased_image(bright, (0.0,), upsample=upsample)
    with pytest.raises(ParamError, match="upsample"):
        aligned_image(bright, (0.0,), upsample=upsample)


def test_a_periodic_scan_needs_whole_pixels(aberrated):
    with pytest.raises(ParamError, match="whole pixels of the 36 x 40 points"):
        unaliased_image(bright_of(aberrated), (0.0,), upsample=1.9, periodic=True)


# ---- robustness --------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_the_scale_of_the_data_does_not_matter(factor, aberrated):
    bright = bright_of(aberrated)
    scaled = opened(aberrated.patterns * np.float32(factor), aberrated.step_A, aberrated.dk_A)
    for kernel in KERNELS:
        one, other = (linear_image(b, MANY, kernel=kernel).phase for b in (bright, scaled))
        np.testing.assert_allclose(other, one, atol=2e-3 * one.std())


def test_threads_dtypes_and_memory_do_not_matter(aberrated, tmp_path):
    counts = np.rint(aberrated.patterns * 2e4)
    original = counts.astype(np.uint8)
    kept = original.copy()
    stored = Reading(memory_bytes=0, scratch=tmp_path)
    first = linear_image(opened(original, 0.5, aberrated.dk_A), MANY)
    assert np.array_equal(original, kept)
    for dtype, options in ((np.uint16, {}), (np.float32, {"reading": stored})):
        bright = opened(original.astype(dtype), 0.5, aberrated.dk_A, **options)
        with ThreadExecutor([Backend() for _ in range(3)]) as executor:
            other = linear_image(bright, MANY, executor=executor)
        np.testing.assert_allclose(other.phase, first.phase, atol=1e-5 * first.phase.std())


def test_odd_sizes_bins_and_dark_patterns():
    made = scene(shape=(33, 39), radius_px=8.5, c10=100, seed=9)
    patterns = made.patterns * 1e4
    patterns[5, 7] = 0
    image = linear_image(opened(patterns, made.step_A, made.dk_A, n_bin=2), (100.0,))
    assert image.phase.shape == (33, 39)
    assert np.isfinite(image.phase).all()


def test_what_leaves_the_scan_does_not_come_back():
    """A blob near one edge, shifted out by many pixels, has no ghost at the other edge."""
    shape = (40, 64)
    dx, dk = pixel_of(shape, 13.0)
    y, x = np.indices(shape)
    blob = 0.2 * np.exp(-((y - 20) ** 2 + (x - 48) ** 2) / 8.0)
    patterns = scan(np.exp(1j * blob), dx, c10=500)[:, 10:52]
    image = linear_image(opened(patterns, dx, dk), (500.0,), wiener=1e-2).phase
    peak = image[18:23, 35:41].max()
    assert np.abs(image[:, :8]).max() < 0.1 * peak


def test_an_unknown_kernel_is_named(aberrated):
    with pytest.raises(ParamError, match="kernel: expected one of mf, ssb"):
        linear_image(bright_of(aberrated), (0.0,), kernel="best")
    with pytest.raises(ParamError, match="wiener"):
        linear_image(bright_of(aberrated), (0.0,), wiener="auto")
