"""The direct methods against numbers that were worked out beforehand.

Predictions are spelt out here from the definitions; of the package only what is tested is used.
"""

import inspect
from dataclasses import replace

import numpy as np
import pytest
from bright_scene import Scene
from bright_scene import white_phase as spots
from direct_scenes import (
    SEMIANGLE,
    WAVELENGTH_A,
    aperture,
    correlation,
    frequencies,
    pixel_of,
    scan,
    scene,
    white_phase,
)

import pyptyx
from pyptyx.data import open_source
from pyptyx.engine.calibrate import calibrate
from pyptyx.engine.geometry import scan_positions_A
from pyptyx.methods.aberration_fit import FitOptions, Optics, fit_aberrations
from pyptyx.methods.bright_field import bright_field
from pyptyx.methods.disc import Disc
from pyptyx.methods.dpc import transfer_function
from pyptyx.methods.gamma import Pupil, gamma, half_plane_A
from pyptyx.methods.linear import linear_image
from pyptyx.methods.wdd import Regularisation, read_box, wdd

RADIUS_A = SEMIANGLE / WAVELENGTH_A


def opened(patterns, step_A, dk_A):
    with open_source(patterns) as source:
        return bright_field(
            source,
            dk_A=dk_A,
            wavelength_A=WAVELENGTH_A,
            step_A=step_A,
            semiangle_rad=SEMIANGLE,
        )


def box_of(patterns, dk_A):
    disc = Disc((patterns.shape[2] // 2, patterns.shape[3] // 2), RADIUS_A, dk_A)
    with open_source(patterns) as source:
        return read_box(source, disc, patterns.shape[:2], reach=1.4)


def grating_rows(a, cycles, shape, **aberrations):
    """Bright field of ``a sin(2πq·x)``; all its scan rows are equal."""
    dx, dk = pixel_of(shape, 14.0)
    grating = a * np.sin(2 * np.pi * cycles * np.arange(shape[1]) / shape[1])
    row = scan(np.exp(1j * np.tile(grating, (shape[0], 1))), dx, rows=1, **aberrations)
    return opened(np.repeat(row, 5, axis=0), dx, dk), cycles / (shape[1] * dx)


# ---- gratings ----------------------------------------------------------------------------------


@pytest.mark.parametrize("a", [0.01, 0.3, 1.0])
def test_centre_of_mass_of_a_grating_of_any_strength(a):
    bright, q_A = grating_rows(a, 6, (50, 64))
    assert q_A / RADIUS_A == pytest.approx(0.43, abs=2e-3)
    transfer = overlaps((50, 64), bright.step_A, (0, 6))[0].sum().real
    assert transfer == pytest.approx(0.744, abs=0.01)
    found = 2 * abs(np.fft.fft(bright.comx[0])[6]) / 64
    assert found / (a * q_A * transfer) == pytest.approx(1, abs=2e-3)
    hard = transfer_function((5, 64), bright.step_A, Pupil((0.0,), WAVELENGTH_A, SEMIANGLE))
    assert hard[0, 6].real == pytest.approx(transfer, abs=0.03)  # its rim is sharp
    assert np.abs(bright.comy - bright.comy.mean()).max() < 1e-6


@pytest.mark.parametrize("cycles", [5, 11, 17, 25])
def test_a_weak_grating_is_exact_at_every_frequency_the_disc_transfers(cycles):
    bright, q_A = grating_rows(0.01, cycles, (50, 64), c10=120, c12a=40, c12b=-25, c30=2e5)
    assert q_A < 2 * RADIUS_A
    given = (120.0, 40.0, -25.0, 0.0, 0.0, 0.0, 0.0, 2e5)
    for kernel in ("mf", "ssb"):
        image = linear_image(bright, given, kernel=kernel, wiener=None, periodic=True)
        amplitude = 2 * abs(np.fft.fft2(image.phase)[0, cycles]) / image.phase.size
        assert amplitude == pytest.approx(0.01, rel=5e-3)


@pytest.mark.parametrize("c10", [0.0, 200.0])
@pytest.mark.parametrize("u", [0.3, 0.8, 1.3])
def test_overlaps_are_areas_of_discs(c10, u):
    """``Σ|Γ|²`` is the area of single overlap plus ``4 sin²χ`` that of triple overlap."""

    def common(distance):
        d = min(distance, 2)
        return 2 / np.pi * (np.arccos(d / 2) - d / 2 * np.sqrt(1 - d**2 / 4))

    grid = (np.arange(241) + 0.5) / 120.5 - 1
    k = RADIUS_A * np.stack(np.meshgrid(grid, grid, indexing="ij"), axis=-1).reshape(-1, 2)
    k = k[np.hypot(*k.T) <= RADIUS_A]
    q = np.array([[0.6 * u, 0.8 * u]]) * RADIUS_A
    power = (np.abs(gamma(k, q, (c10,), WAVELENGTH_A, SEMIANGLE)[2]) ** 2).mean()
    single, triple = 2 * (common(u) - common(2 * u)), common(2 * u)
    sine = np.sin(np.pi * WAVELENGTH_A * c10 * (u * RADIUS_A) ** 2)
    assert power == pytest.approx(single + 4 * triple * sine**2, rel=0.02)


# ---- noise -------------------------------------------------------------------------------------


def overlaps(shape, dx, q, **aberrations):
    """``A*(k) A(k-q)`` and ``A(k) A*(k+q)``, corner order, for q a row of whole pixels."""
    pupil = aperture(shape, dx, **aberrations)
    behind, ahead = np.roll(pupil, q, (0, 1)), np.roll(pupil, -np.asarray(q), (0, 1))
    return pupil.conj() * behind, pupil * ahead.conj()


def side_band(overlap, epsilon):
    """Weights on the pixels and transfer of one side band of the deconvolution."""
    x = np.fft.ifft2(overlap, norm="forward")
    filtered = 1 / (np.abs(x) ** 2 + epsilon)
    return np.fft.fft2(x * filtered).conj(), (np.abs(x) ** 2 * filtered).sum()


def weights(method, plus, minus, share, q_A, c10):
    """What a method multiplies the spectra of the detector pixels with."""
    both, (qy, qx) = plus - minus, q_A
    inside = share > 0.5 * share.max()  # the middle of the pixel is in the disc
    if method == "mf":
        return np.where(inside, both.conj() / np.where(inside, share, 1), 0)
    if method == "ssb":
        size = np.abs(both)
        return np.where(inside & (size > 0), both.conj() / np.where(size > 0, size, 1), 0)
    if method == "tcbf":
        ky, kx = frequencies(share.shape, DX)
        return inside * np.exp(-2j * np.pi * WAVELENGTH_A * c10 * (ky * qy + kx * qx))
    (forward, f), (backward, b) = (side_band(part, EPSILON) for part in (plus, minus))
    return 0.5 * (forward / f - backward / b)


SHAPE, EPSILON, COUNTS, C10 = (40, 46), 0.1, 800.0, 150.0
DX = pixel_of(SHAPE, 10.0)[0]
RINGS = ((0.25, 0.6), (0.6, 0.9), (0.9, 1.2), (1.2, 1.5))
HALF = (SHAPE[0], SHAPE[1] // 2 + 1)


def pixels(y, x):
    """A frequency of the half plane in detector pixels."""
    return (y + SHAPE[0] // 2) % SHAPE[0] - SHAPE[0] // 2, x


def predicted(method):
    """Half planes ``Σ W Γ``, the signal per unit phase, and ``Σ |W|² p``, its noise per count."""
    share = np.abs(aperture(SHAPE, DX)) ** 2
    q_A = half_plane_A(SHAPE, DX)
    size = np.hypot(q_A[..., 0], q_A[..., 1])
    signal, noise = np.zeros(HALF), np.full(HALF, np.inf)
    for y, x in np.argwhere((size < 1.6 * RADIUS_A) & (size > 0)):
        plus, minus = overlaps(SHAPE, DX, pixels(y, x), c10=C10)
        w = weights(method, plus, minus, share, q_A[y, x], C10)
        signal[y, x] = abs((w * (plus - minus)).sum())
        noise[y, x] = (np.abs(w) ** 2 * share).sum()
    return signal, noise


@pytest.fixture(scope="module")
def repeated():
    """The phase of a weak object, and its patterns counted ten times."""
    made = scene(SHAPE, rms=0.06, radius_px=10.0, limit=1.5, c10=C10, seed=11)
    rng = np.random.default_rng(12)
    return made, [rng.poisson(made.patterns * COUNTS).astype(np.uint8) for _ in range(10)]


def image_of(patterns, method, dk_A):
    if method == "wdd":
        pupil = Pupil((C10,), WAVELENGTH_A, SEMIANGLE, max(dk_A))
        weak = Regularisation(EPSILON, damping=0)
        box = box_of(patterns, dk_A)
        # The imaginary part is linear in the counts, the angle is not.
        return wdd(box, pupil, DX, regularisation=weak, periodic=True).imag
    bright = opened(patterns, DX, dk_A)
    options = {"wiener": None, "flip_only": False, "periodic": True}
    return linear_image(bright, (C10,), kernel=method, **options).phase


@pytest.mark.parametrize("method", ["mf", "ssb", "tcbf", "wdd"])
def test_signal_and_noise_of_every_ring_are_those_of_the_theory(method, repeated):
    made, counted = repeated
    signal, noise = predicted(method)
    found = np.stack([np.fft.rfft2(image_of(p, method, made.dk_A)) for p in counted])
    truth = np.fft.rfft2(made.phase)
    size = np.hypot(*np.moveaxis(half_plane_A(SHAPE, DX), -1, 0)) / RADIUS_A
    gain = signal if method == "wdd" else np.ones(HALF)  # the others divide by the signal
    for low, high in RINGS:
        # Where contrast reverses, tilt-corrected bright field has nothing.
        ring = (size > low) & (size < high) & (signal**2 / noise > 0.08)
        wanted = gain[ring] * truth[ring]
        overlap = (found.mean(axis=0)[ring] * wanted.conj()).real
        assert overlap.sum() / (np.abs(wanted) ** 2).sum() == pytest.approx(1, abs=0.1)
        variance = (gain[ring] / signal[ring]) ** 2 * noise[ring] * made.phase.size / COUNTS
        scatter = found.var(axis=0, ddof=1)[ring]
        assert (scatter / variance).mean() == pytest.approx(1, abs=0.1)


def test_correlation_with_the_truth_is_that_of_an_ideal_image(repeated):
    """With the ideal Wiener filter it is ``Σ P S/(1+S) / sqrt(ΣP Σ P S/(1+S))``."""
    made, counted = repeated
    signal, noise = predicted("mf")
    seen = signal > 0
    information = signal**2 / noise * COUNTS / made.phase.size
    power = np.abs(np.fft.rfft2(made.phase)) ** 2
    mean = power[seen & (power > 0)].mean()
    kept = mean * information / (1 + mean * information)
    expected = np.sqrt((power * kept).sum() / power.sum())
    bright = (opened(p, DX, made.dk_A) for p in counted[:4])
    images = [linear_image(b, (C10,), periodic=True).phase for b in bright]
    reached = np.mean([correlation(image, made.phase) for image in images])
    assert 0.5 < expected < 0.95
    assert reached == pytest.approx(expected, rel=0.04)


def test_ring_values_that_are_ratios_of_sums():
    """Spectral power over noise power of a ring weights frequencies by their transfer.

    For a matched filter that is ``ΣD² / ΣD``; the mean of D alone is 0.31 to 0.33.
    """
    shape, size = (64, 58), (46, 66)
    dx, dk = pixel_of(shape, 14.0)
    vacuum = scan(np.ones(shape), dx, rows=1)[:, :1]
    bright = opened(np.tile(vacuum, (*size, 1, 1)), dx, dk)
    share = bright.pacbed / bright.pacbed.sum()
    used = share > 0.1 * share.max()  # the soft rim, too
    k_A = (np.argwhere(used) - bright.centre_px) * dk
    images = np.ones((len(k_A), *size), np.float32)
    bright = replace(bright, images=images, k_A=k_A, mean_fraction=share[used])
    image = linear_image(bright, (200.0,), periodic=True)
    u = np.hypot(*np.moveaxis(half_plane_A(size, dx), -1, 0)) / RADIUS_A
    transfer = image.transfer[(u > 0.5) & (u < 0.7)]
    assert (transfer**2).sum() / transfer.sum() == pytest.approx(0.373, rel=0.1)
    assert transfer.mean() == pytest.approx(0.32, rel=0.05)


@pytest.mark.parametrize("method", ["mf", "wdd"])
def test_the_contrast_does_not_fade_towards_the_edges_of_the_scan(method):
    shape = (44, 50)
    dx, dk = pixel_of(shape, 9.0)
    phase = white_phase(shape, dx, 0.05, seed=1)
    inner = (slice(4, 38), slice(3, 45))
    patterns, truth = scan(np.exp(1j * phase), dx)[inner], phase[inner]
    if method == "wdd":
        pupil = Pupil((0.0,), WAVELENGTH_A, SEMIANGLE, max(dk))
        image = np.angle(wdd(box_of(patterns, dk), pupil, dx))
    else:
        image = linear_image(opened(patterns, dx, dk), (0.0,), wiener=1e-3).phase
    rim = np.ones(truth.shape, bool)
    rim[3:-3, 3:-3] = False
    for place, least in ((rim, 0.6), (~rim, 0.85)):
        assert correlation(image[place], truth[place]) > 0.92
        assert least < (image * truth)[place].sum() / (truth**2)[place].sum() < 1.03


# ---- aberrations and rotation ------------------------------------------------------------------

TABLE = (250.0, 40.0, -25.0)


@pytest.fixture(scope="module")
def table_scene():
    """60 kV, 30 mrad, 14 pixels radius, 0.8 Å steps, rotation 12°."""
    made = Scene(
        detector=(62, 60), radius_px=14.0, scan=(64, 58), rotation_deg=12.0, aberrations=TABLE
    )
    phase = spots((208, 211), made.pixel, 0.6, 0.05)
    return made, made.patterns(phase).astype(np.float32)


def fitted(made, patterns, options, start=None):
    with open_source(patterns) as source:
        bright = bright_field(
            source,
            dk_A=(made.dk, made.dk),
            wavelength_A=made.lam,
            step_A=made.step,
            semiangle_rad=made.semiangle,
        )
    return fit_aberrations(bright, options, start=start)


def test_aberrations_without_noise(table_scene):
    start = Optics(np.array([225.0, 0.0, 0.0]), np.deg2rad(7), False)
    found = fitted(*table_scene, FitOptions(num=3, frequencies=1200), start)
    np.testing.assert_allclose(found.best.coefficients_A, TABLE, atol=0.005 * TABLE[0])
    assert np.rad2deg(found.best.rotation_rad) == pytest.approx(12, abs=0.05)


def test_aberrations_at_300_electrons_from_nothing(table_scene):
    made, clean = table_scene
    counts = np.random.default_rng(0).poisson(300 * clean).astype(np.uint8)
    options = FitOptions(num=3, overfocus=True, transposed=False, frequencies=1200)
    found = fitted(made, counts, options)
    np.testing.assert_allclose(found.best.coefficients_A, TABLE, atol=0.02 * TABLE[0])
    assert np.rad2deg(found.best.rotation_rad) == pytest.approx(12, abs=0.5)
    assert (np.abs(found.best.coefficients_A - TABLE) < 3.5 * found.sigma_A).all()


def test_errors_include_that_of_a_pixel_measured_at_the_rim():
    made = Scene(scan=(22, 25), aberrations=(120.0,))
    about = {
        "dataset": made.patterns(spots((90, 97), made.pixel, 0.55, 0.05)),
        "acc_voltage": made.energy_kV,
        "scan_step_A": made.step,
        "rez_pixel_size_A": made.dk * 1.06,
        "conv_semiangle_mrad": 1e3 * made.semiangle,
        "PLRotation_deg": 0.0,
        "data_pad": 0,
        "output_folder": None,
    }
    options = FitOptions(num=3, transposed=False, overfocus=True, largest_defocus_A=150)
    found = calibrate(pyptyx.append_exp_params(about, {}), options, detector_from_disc=True)
    assert found.params["rez_pixel_size_A"] == pytest.approx(made.dk, rel=0.04)
    c10, sigma = found.fit.best.coefficients_A[0], found.fit.sigma_A[0]
    assert sigma > 0.25 * c10 / made.radius_px
    assert abs(c10 - 120) < 2 * sigma < 15


# ---- PyPty's calls -----------------------------------------------------------------------------

SIGNATURES = {
    "dpc.get_curl": "angle dpcx dpcy",
    "dpc.GetPLRotation": "dpcx dpcy",
    "dpc.fft_based_dpc": "pypty_params hpass lpass save comx comy plot",
    "dpc.iterative_dpc": "pypty_params num_iterations beta hpass lpass step_size COMx COMy px_size "
    "print_flag save select plot use_backtracking pad_width",
    "dpc.iterative_poisson_solver": "laplace num_iterations beta hpass lpass select px_size "
    "print_flag step_size use_backtracking pad_width xp",
    "tcbf.run_tcbf_alignment": "params binning_for_fit save optimize_angle aberrations "
    "n_aberrations_to_fit reference_type ctf_sign_flip refine_box_dim upsample cross_corr_type "
    "cancel_large_shifts pattern_blur_width scan_pad aperture subscan_region "
    "compensate_lowfreq_drift append_lowfreq_shifts_to_params interpolate_scan_factor "
    "binning_cross_corr phase_cross_corr_formula f_scale_lsq x_scale_lsq loss_lsq tol_ctf",
    "tcbf.upsampled_tcbf": "pypty_params upsample pad compensate_lowfreq_drift ctf_sign_flip "
    "default_float round_shifts xp save max_parallel_fft bin_fac",
    "tcbf.run_tcbf_compressed_alignment": "params num_iterations save optimize_angle aberrations "
    "n_aberrations_to_fit reference_type ctf_sign_flip refine_box_dim upsample cross_corr_type "
    "cancel_large_shifts",
    "direct.wdd": "pypty_params eps_wiener thresh save",
    "initialize.get_ptycho_obj_from_scan": "params num_slices array_phase array_abs scale_phase "
    "scale_abs scan_array_A fill_value_type",
    "initialize.get_grid_for_upsampled_image": "pypty_params image image_pixel_size "
    "left_zero_of_scan_grid top_zero_of_scan_grid",
}


@pytest.mark.parametrize(("name", "expected"), SIGNATURES.items())
def test_arguments_come_in_the_documented_order(name, expected):
    module, function = name.split(".")
    signature = inspect.signature(getattr(getattr(pyptyx, module), function))
    assert list(signature.parameters)[: len(expected.split())] == expected.split()


@pytest.fixture
def params():
    """Calibrated parameters as a script of PyPty has them; without an aperture mask."""
    made = scene(shape=(32, 32), radius_px=7.0, limit=1.2, c10=120, seed=1)
    counts = np.rint(made.patterns[:26, :29] * 2e4).astype(np.uint16)
    pixel = 1 / (32 * made.dk_A[0])
    return {
        "dataset": counts.reshape(-1, 32, 32),
        "scan_size": (26, 29),
        "scan_step_A": made.step_A,
        "acc_voltage": 60,
        "conv_semiangle_mrad": 1e3 * SEMIANGLE,
        "rez_pixel_size_A": made.dk_A[0],
        "pixel_size_y_A": pixel,
        "pixel_size_x_A": pixel,
        "aberrations": [120.0, 0.0, 0.0],
        "PLRotation_deg": 0.0,
        "positions": scan_positions_A((26, 29), made.step_A) / pixel,
        "data_pad": 0,
        "output_folder": None,
        "print_flag": 0,
    }


def test_calls_of_the_documentation_return_the_documented_shapes(params):
    phase, filled = pyptyx.dpc.fft_based_dpc(params, hpass=0.1, lpass=0, save=False)
    assert phase.shape == filled["comx"].shape == filled["comy"].shape == (26, 29)
    assert pyptyx.dpc.GetPLRotation(filled["comx"], filled["comy"]).__class__ is float
    assert pyptyx.dpc.get_curl(0.3, filled["comx"], filled["comy"]) > 0
    slow = pyptyx.dpc.iterative_dpc(params, 20, beta=0.5, hpass=0, lpass=0, plot=False)
    assert slow.shape == (26, 29)
    solved = pyptyx.dpc.iterative_poisson_solver(phase, 20, px_size=params["scan_step_A"])
    assert solved.shape == (26, 29)
    fine, pixel = pyptyx.tcbf.upsampled_tcbf(params, upsample=3, pad=4, ctf_sign_flip=False)
    assert fine.shape == (3 * 34, 3 * 37)
    assert pixel == pytest.approx(params["scan_step_A"] / 3)
    wave = pyptyx.direct.wdd(params, 1e-3, None, 0)
    assert wave.shape == (26, 29)
    assert np.iscomplexobj(wave)

    grid = pyptyx.initialize.get_grid_for_upsampled_image(params, fine, pixel, 4, 4)
    assert grid.shape == (fine.size, 2)
    model = {**params, "probe": np.ones((32, 32, 1), complex), "num_slices": 1}
    start = pyptyx.initialize.get_ptycho_obj_from_scan(
        model, num_slices=2, array_phase=phase, array_abs=None
    )
    assert start["obj"].ndim == 4
    assert start["obj"].shape[2:] == (2, 1)


def test_the_alignment_returns_parameters_of_the_same_scan(params):
    new = pyptyx.tcbf.run_tcbf_alignment(
        params, binning_for_fit=[1], aberrations=[110.0, 0.0, 0.0], n_aberrations_to_fit=3,
        cancel_large_shifts=0.9, cross_corr_type="phase", save=False,
    )  # fmt: skip
    assert new is not params
    assert new["positions"].shape == (26 * 29, 2)
    assert len(new["aberrations"]) >= 3
    assert new["aberrations"][0] == pytest.approx(120, abs=5)
    assert new["extra_probe_defocus"] == 0
    assert new["probe"] is None
