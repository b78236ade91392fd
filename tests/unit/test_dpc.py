"""Integration of centres of mass, orientation, and PyPty's names for both."""

import numpy as np
import pytest

import pyptyx
from pyptyx import dpc as face
from pyptyx.errors import ParamError, ShapeError
from pyptyx.methods import dpc
from pyptyx.methods.gamma import Pupil
from pyptyx.methods.orientation import find_orientation

STEP = 0.7


def fields(shape, seed=0):
    """A smooth periodic phase and its exact gradient (y, x)."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(shape) * STEP
    size = np.array(shape) * STEP
    phase, gy, gx = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for _ in range(12):
        ny, nx = rng.integers(-3, 4, 2)
        a, shift = rng.normal(), rng.uniform(0, 6)
        ky, kx = 2 * np.pi * ny / size[0], 2 * np.pi * nx / size[1]
        argument = ky * y + kx * x + shift
        phase += a * np.cos(argument)
        gy -= a * ky * np.sin(argument)
        gx -= a * kx * np.sin(argument)
    return phase - phase.mean(), gy, gx


def quadratic(shape):
    y, x = np.indices(shape) * STEP
    phase = 0.002 * x**2 - 0.001 * x * y + 0.0015 * y**2 + 0.02 * x
    return phase - phase.mean(), -0.001 * x + 0.003 * y, 0.004 * x - 0.001 * y + 0.02


@pytest.mark.parametrize("shape", [(32, 44), (31, 45)])
def test_periodic_phase_is_exact_with_the_periodic_solver(shape):
    phase, gy, gx = fields(shape)
    found = dpc.integrate_periodic(gy, gx, STEP)
    np.testing.assert_allclose(found, phase, atol=1e-8 * np.abs(phase).max())


@pytest.mark.parametrize("shape", [(32, 44), (31, 45)])
def test_quadratic_phase_is_exact_with_free_boundaries(shape):
    phase, gy, gx = quadratic(shape)
    found = dpc.integrate(gy, gx, STEP)
    np.testing.assert_allclose(found, phase, atol=1e-12 * np.abs(phase).max() * phase.size)


def test_weighted_integral_ignores_what_has_no_weight():
    phase, gy, gx = quadratic((24, 29))
    weight = np.ones(phase.shape)
    weight[8:14, 10:17] = 0
    gy[8:14, 10:17] = np.nan
    found = dpc.integrate_weighted(gy, gx, STEP, weight)
    used = weight > 0
    np.testing.assert_allclose(found[used], (phase - phase[used].mean())[used], atol=1e-8)
    assert not found[~used].any()


def test_poisson_solver_has_the_right_sign_and_is_finite():
    y, x = np.indices((26, 33))
    wave = np.sin(2 * np.pi * 2 * y / 26) * np.cos(2 * np.pi * 3 * x / 33)
    eigen = -4 * np.pi**2 * ((2 / 26) ** 2 + (3 / 33) ** 2) / STEP**2
    found = dpc.solve_poisson(eigen * wave + 5.0, STEP)
    np.testing.assert_allclose(found, wave, atol=1e-12)


def test_filters_attenuate_as_documented():
    y = np.indices((40, 30))[0]
    q = 4 / 40
    gy, gx = 2 * np.pi * q * np.cos(2 * np.pi * q * y), np.zeros((40, 30))
    plain = dpc.integrate_periodic(gy, gx, 1.0)
    high = dpc.integrate_periodic(gy, gx, 1.0, highpass=0.03)
    low = dpc.integrate_periodic(gy, gx, 1.0, lowpass=50.0)
    np.testing.assert_allclose(high, plain * q**2 / (q**2 + 0.03), atol=1e-12)
    np.testing.assert_allclose(low, plain / (1 + 50 * q**2), atol=1e-12)


def test_butterworth_halves_at_its_edge():
    # A cosine with free ends is an eigenfunction.
    y = np.indices((36, 25))[0] + 0.5
    wave = np.cos(np.pi * 6 * y / 36)
    q = 6 / (2 * 36 * STEP)
    np.testing.assert_allclose(dpc.band_pass(wave, STEP, highpass_A=q), wave / 2, atol=1e-12)
    np.testing.assert_allclose(dpc.band_pass(wave, STEP, lowpass_A=q), wave / 2, atol=1e-12)


def test_transfer_function_of_a_perfect_probe_is_the_overlap_of_two_discs():
    pupil = Pupil((0.0,), 0.0486606, 0.030)
    otf = dpc.transfer_function((50, 64), 0.4, pupil, 0.3)
    qy, qx = np.fft.fftfreq(50, 0.4)[:, None], np.fft.rfftfreq(64, 0.4)
    u = np.minimum(np.hypot(qy, qx) / pupil.radius_A, 2)
    exact = 2 / np.pi * (np.arccos(u / 2) - u / 2 * np.sqrt(1 - u**2 / 4))
    np.testing.assert_allclose(otf, exact, atol=3e-3)


def test_deconvolution_undoes_the_probe():
    pupil = Pupil((0.0,), 0.0486606, 0.030)
    _, gy, gx = fields((40, 46))
    phase = fields((40, 46))[0]
    otf = dpc.transfer_function((40, 46), STEP, pupil)
    blurred = [np.fft.irfft2(np.fft.rfft2(g) * otf, s=g.shape) for g in (gy, gx)]
    otf = dpc.transfer_function((80, 92), STEP, pupil)
    found = dpc.deconvolve(*blurred, STEP, otf, 1e-10).phase
    plain = dpc.integrate(*blurred, STEP)
    inner = (slice(6, -6), slice(6, -6))
    error = [np.std((f - phase)[inner]) / phase.std() for f in (found, plain)]
    assert error[0] < 0.05
    assert error[1] > 3 * error[0]


# ---------------------------------------------------------------------------------------------
# Orientation
# ---------------------------------------------------------------------------------------------


def on_detector(gy, gx, rotation_deg, transposed=False):
    """Centres of mass (comx, comy) that a detector records if the scan is turned by +rotation."""
    c, s = np.cos(np.deg2rad(rotation_deg)), np.sin(np.deg2rad(rotation_deg))
    comx, comy = gx * c - gy * s, gx * s + gy * c
    return (comy, comx) if transposed else (comx, comy)


@pytest.mark.parametrize("rotation", [25.0, -40.0, 88.0])
@pytest.mark.parametrize("transposed", [False, True])
def test_orientation_is_found_up_to_half_a_turn(rotation, transposed):
    _, gy, gx = fields((37, 42))
    noise = np.random.default_rng(1).normal(scale=0.1 * gx.std(), size=(2, 37, 42))
    comx, comy = on_detector(gy, gx, rotation, transposed) + noise
    found = find_orientation(comx, comy)
    right, wrong = found[int(transposed)], found[1 - int(transposed)]
    assert abs((np.rad2deg(right.rotation_rad) - rotation + 90) % 180 - 90) < 1.5
    assert right.curl_ratio < 0.1 < 0.3 < wrong.curl_ratio


def test_pypty_name_returns_the_scan_rotation():
    _, gy, gx = fields((37, 42))
    for rotation in (25.0, -40.0):
        comx, comy = on_detector(gy, gx, rotation)
        angle = face.GetPLRotation(comx, comy)
        assert abs((np.rad2deg(angle) - rotation + 90) % 180 - 90) < 1
        assert face.get_curl(-angle, comx, comy) < 0.1 * face.get_curl(-angle + 1, comx, comy)


# ---------------------------------------------------------------------------------------------
# PyPty's functions
# ---------------------------------------------------------------------------------------------

REZ = 0.05


def params(shape, rotation=25.0, **more):
    """Parameters with centres of mass in px, and the phase they belong to."""
    phase, gy, gx = fields(shape)
    comx, comy = on_detector(gy, gx, rotation)
    rez_px = 2 * np.pi * REZ * 2  # rad/Å per measured px: the model's pixel is half of it
    return phase, {
        "comx": comx / rez_px + 3.0,
        "comy": comy / rez_px - 1.0,
        "scan_size": shape,
        "scan_step_A": STEP,
        "rez_pixel_size_A": REZ,
        "upsample_pattern": 2,
        "PLRotation_deg": rotation,
        "acc_voltage": 60.0,
        **more,
    }


def test_fft_based_dpc_is_in_radians_and_finite_at_its_defaults():
    phase, given = params((30, 41))
    before = {k: np.copy(v) for k, v in given.items()}
    found, after = face.fft_based_dpc(given)
    np.testing.assert_allclose(found, phase, atol=1e-8 * np.abs(phase).max())
    assert after["PLRotation_deg"] == 25.0
    assert given.keys() == before.keys()
    assert all(np.array_equal(given[k], before[k]) for k in before)


def test_fft_based_dpc_finds_the_rotation():
    phase, given = params((30, 41), PLRotation_deg=None)
    found, after = face.fft_based_dpc(given)
    assert abs((after["PLRotation_deg"] - 25 + 90) % 180 - 90) < 1
    assert abs(np.corrcoef(found.ravel(), phase.ravel())[0, 1]) > 0.999
    slope = (found * phase).sum() / (phase**2).sum()
    assert abs(slope) == pytest.approx(1, abs=0.01)


def test_idpc_keeps_what_the_periodic_solver_loses():
    phase, gy, gx = quadratic((28, 33))
    given = params((28, 33))[1]
    comx, comy = (c / (2 * np.pi * 2 * REZ) for c in on_detector(gy, gx, 25.0))
    found, _ = face.idpc(given, comx=comx, comy=comy, remove_offset=False)
    np.testing.assert_allclose(found, phase, atol=1e-9)


@pytest.mark.parametrize("function", ["iterative_dpc", "idpc"])
def test_region_of_measurements(function):
    phase, given = params((30, 41))
    select = np.zeros((30, 41), dtype=bool)
    select[4:27, 5:36] = True
    inside = {k: given[k][select] for k in ("comx", "comy")}
    if function == "iterative_dpc":
        found = face.iterative_dpc(
            given, COMx=inside["comx"], COMy=inside["comy"], select=select, plot=False
        )
    else:
        found, _ = face.idpc(given, method="masked", select=select, **inside)
    difference = (found - phase)[select]
    y, x = np.nonzero(select)
    # The mean of the centre of mass is unknown: a plane is free.
    plane = np.stack([y, x, np.ones_like(y)], axis=1)
    difference -= plane @ np.linalg.lstsq(plane, difference, rcond=None)[0]
    assert difference.std() < 0.03 * phase.std()


def test_iterative_poisson_solver():
    phase, gy, gx = fields((30, 41))
    y, x = (np.fft.fftfreq(n, STEP) for n in phase.shape)
    spectra = np.fft.fft2(gy) * y[:, None] + np.fft.fft2(gx) * x
    laplacian = np.fft.ifft2(2j * np.pi * spectra).real
    found = face.iterative_poisson_solver(laplacian, px_size=STEP)
    np.testing.assert_allclose(found, phase, atol=1e-8)


def test_results_are_saved(tmp_path):
    _, given = params((30, 41), output_folder=str(tmp_path), save_preprocessing_files=True)
    found, _ = face.fft_based_dpc(given)
    np.testing.assert_array_equal(np.load(tmp_path / "dpc" / "idpc.npy"), found)
    phase = face.iterative_dpc(given, plot=False)
    np.testing.assert_array_equal(np.load(tmp_path / "dpc" / "iterative_dpc.npy"), phase)


def test_complaints_name_what_is_missing():
    with pytest.raises(ParamError, match="rez_pixel_size_A") as caught:
        face.fft_based_dpc({"comx": np.ones((5, 6)), "comy": np.ones((5, 6))})
    assert "scan_step_A" in str(caught.value)
    with pytest.raises(ShapeError):
        dpc.integrate(np.ones((4, 5)), np.ones((5, 4)), 1.0)


def test_face_is_reachable_from_the_package():
    assert pyptyx.dpc.fft_based_dpc is face.fft_based_dpc
