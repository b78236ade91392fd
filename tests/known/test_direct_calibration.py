"""Rotation, handedness and aberrations of simulated scans are found, with honest errors."""

import json
import tomllib
from dataclasses import replace

import numpy as np
import pytest
from bright_scene import Scene, chi, experiment_of, white_phase

import pyptyx
from pyptyx.backend import Backend
from pyptyx.cli import main
from pyptyx.data import open_source
from pyptyx.engine.calibrate import apply_optics, calibrate
from pyptyx.engine.direct_data import open_bright_field
from pyptyx.errors import ParamError
from pyptyx.executors import ThreadExecutor
from pyptyx.methods.aberration_fit import FitOptions, Optics, fit_aberrations
from pyptyx.methods.bright_field import bright_field
from pyptyx.methods.gamma import gamma
from pyptyx.methods.orientation import find_orientation
from pyptyx.methods.varpro import Profile, sample

ASTIGMATIC = (130.0, 30.0, -20.0)


def view(scene, patterns):
    return bright_field(
        open_source(patterns),
        dk_A=(scene.dk, scene.dk),
        wavelength_A=scene.lam,
        step_A=scene.step,
        semiangle_rad=scene.semiangle,
    )


def specimen(scene, rms=0.05, q_max=0.55):
    return white_phase((130, 141), scene.pixel, q_max, rms)


@pytest.fixture(scope="module")
def scene():
    return Scene(rotation_deg=12.0, aberrations=ASTIGMATIC)


@pytest.fixture(scope="module")
def clean(scene):
    return scene.patterns(specimen(scene))


@pytest.fixture(scope="module")
def samples(scene, clean):
    radius = scene.semiangle / scene.lam
    counts = np.random.default_rng(3).poisson(300 * clean)
    return sample(view(scene, counts), (0.05 * radius, 1.5 * radius), 300)


def near(angle_deg, wanted_deg, tolerance):
    return abs((angle_deg - wanted_deg + 180) % 360 - 180) < tolerance


# ---------------------------------------------------------------------------------------------
# The double-overlap function, against the formulas of the simulation
# ---------------------------------------------------------------------------------------------


def test_gamma_identities():
    lam, semiangle = 0.0486606, 0.030
    rng = np.random.default_rng(0)
    k = rng.uniform(-0.2, 0.2, (9, 2))
    q = rng.uniform(-0.2, 0.2, (11, 2))
    c = [250, 40, -25, 800, -300, 500, 900, 3e5]
    g = gamma(k, q, c, lam, semiangle)[2]
    np.testing.assert_allclose(gamma(k, -q, c, lam, semiangle)[2], -g.conj(), atol=1e-12)
    reversed_ = gamma(k, -q, [-x for x in c], lam, semiangle)[2]
    np.testing.assert_allclose(reversed_, -g, atol=1e-12)
    by_hand = [
        np.exp(1j * (own - chi(*(kk - q).T, c, lam)))
        - np.exp(1j * (chi(*(kk + q).T, c, lam) - own))
        for kk, own in zip(k, chi(*k.T, c, lam), strict=True)
    ]
    np.testing.assert_allclose(g, by_hand, atol=1e-9)
    shift = lam * 250 * k
    aligned = gamma(k, q, [250], lam, semiangle)[2] * np.exp(-2j * np.pi * shift @ q.T)
    wanted = -2j * np.sin(np.pi * lam * 250 * (q**2).sum(axis=1))
    np.testing.assert_allclose(aligned, np.broadcast_to(wanted, aligned.shape), atol=1e-9)


# ---------------------------------------------------------------------------------------------
# The likelihood
# ---------------------------------------------------------------------------------------------


def test_gradient_agrees_with_differences(samples):
    c = np.array([240, 35, -20, 700, -500, 300, 900, 2e5, 1e5, -2e5, 3e5, 1e5])
    profile = Profile(samples, len(c))
    found = profile.gain(c, 0.25)
    assert found.value == pytest.approx(profile.value(c, 0.25), rel=1e-5)
    widths = 0.01 * np.maximum(np.abs(c), 50)
    for j, h in enumerate(widths):
        step = h * np.eye(len(c))[j]
        numeric = (profile.value(c + step, 0.25) - profile.value(c - step, 0.25)) / (2 * h)
        scale = abs(found.by_coefficient[j]) + 1e-3 * found.value / h
        assert abs(numeric - found.by_coefficient[j]) < 0.02 * scale
    numeric = (profile.value(c, 0.252) - profile.value(c, 0.248)) / 0.004
    assert numeric == pytest.approx(found.by_rotation, rel=0.02)


def test_likelihood_has_the_half_turn_ambiguity_and_no_other(samples):
    profile = Profile(samples, 3)
    best = profile.value(ASTIGMATIC, np.deg2rad(12))
    opposite = profile.value([-c for c in ASTIGMATIC], np.deg2rad(192))
    assert opposite == pytest.approx(best, rel=1e-4)
    assert profile.value([-c for c in ASTIGMATIC], np.deg2rad(12)) < 0.8 * best
    assert Profile(samples.transposed(), 3).value(ASTIGMATIC, np.deg2rad(12)) < 0.8 * best


def test_order_of_pixels_and_threads_do_not_matter(samples):
    order = np.random.default_rng(0).permutation(len(samples.k_A))
    one = Profile(samples, 3).gain(ASTIGMATIC, 0.3)
    with ThreadExecutor([Backend() for _ in range(3)]) as executor:
        other = Profile(samples.rows(order), 3, executor).gain(ASTIGMATIC, 0.3)
    assert other.value == pytest.approx(one.value, rel=1e-5)
    np.testing.assert_allclose(other.by_coefficient, one.by_coefficient, rtol=1e-3)
    assert other.by_rotation == pytest.approx(one.by_rotation, rel=1e-3)


# ---------------------------------------------------------------------------------------------
# The fit
# ---------------------------------------------------------------------------------------------


def test_everything_is_found_without_noise(scene, clean):
    found = fit_aberrations(
        view(scene, clean), FitOptions(num=3, largest_defocus_A=180, frequencies=400)
    )
    assert not found.best.transposed
    np.testing.assert_allclose(found.best.coefficients_A, ASTIGMATIC, atol=1.25)
    assert near(np.rad2deg(found.best.rotation_rad), 12, 0.1)
    assert found.handedness_sigmas > 20
    assert found.skewness > 0


def test_everything_is_found_at_300_electrons():
    scene = Scene(rotation_deg=-70.0, aberrations=(-150.0, 30.0, 10.0), transposed=True)
    patterns = scene.patterns(specimen(scene), dose=300)
    found = fit_aberrations(
        view(scene, patterns), FitOptions(num=3, overfocus=False, largest_defocus_A=180)
    )
    assert found.best.transposed
    error = found.best.coefficients_A - scene.aberrations
    assert abs(error[0]) < 5
    assert (np.abs(error) < 3.5 * found.sigma_A).all()
    turn = np.rad2deg(found.best.rotation_rad) + 70
    assert abs(turn) < 1
    assert abs(turn) < 3.5 * np.rad2deg(found.rotation_sigma_rad)
    assert found.dispersion == pytest.approx(1, abs=0.05)


def test_errors_are_those_of_repeated_experiments(scene, clean):
    start = Optics(np.array(ASTIGMATIC), np.deg2rad(12), False)
    rng = np.random.default_rng(8)
    fits = [
        fit_aberrations(
            view(scene, rng.poisson(800 * clean)), FitOptions(num=3, frequencies=300), start=start
        )
        for _ in range(5)
    ]
    rotation = np.rad2deg([f.best.rotation_rad for f in fits])
    values = np.stack([[*f.best.coefficients_A, r] for f, r in zip(fits, rotation, strict=True)])
    sigma = np.stack([[*f.sigma_A, np.rad2deg(f.rotation_sigma_rad)] for f in fits]).mean(axis=0)
    ratio = sigma / values.std(axis=0, ddof=1)
    assert (ratio > 1 / 3).all()
    assert (ratio < 3).all()


def test_coma_is_added_only_if_it_is_there(scene, clean):
    start = Optics(np.array(ASTIGMATIC), np.deg2rad(12), False)
    rng = np.random.default_rng(2)
    without = fit_aberrations(
        view(scene, rng.poisson(500 * clean)), FitOptions(num=7, frequencies=300), start=start
    )
    assert len(without.best.coefficients_A) == 3
    comatic = Scene(rotation_deg=12.0, aberrations=(*ASTIGMATIC, 3000.0, -2000.0))
    patterns = rng.poisson(500 * comatic.patterns(specimen(comatic)))
    found = fit_aberrations(
        view(comatic, patterns), FitOptions(num=7, frequencies=300), start=start
    )
    np.testing.assert_allclose(found.best.coefficients_A[3:5], (3000, -2000), atol=600)


def test_known_rotation_is_kept(scene, clean):
    start = Optics(np.array([115.0, 0, 0]), np.deg2rad(12), False)
    found = fit_aberrations(view(scene, clean), FitOptions(num=3), start=start, fit_rotation=False)
    assert found.best.rotation_rad == pytest.approx(start.rotation_rad, abs=1e-12)
    assert found.rotation_sigma_rad == 0
    assert found.rival is None
    np.testing.assert_allclose(found.best.coefficients_A, ASTIGMATIC, atol=2.5)


def test_scale_of_the_counts_does_not_matter(scene, clean):
    start = Optics(np.array(ASTIGMATIC), np.deg2rad(12), False)
    fits = [
        fit_aberrations(view(scene, clean * s), FitOptions(num=3, frequencies=200), start=start)
        for s in (1.0, 1e6)
    ]
    np.testing.assert_allclose(*(f.best.coefficients_A for f in fits), atol=0.02)
    np.testing.assert_allclose(*(f.sigma_A for f in fits), rtol=0.1)
    np.testing.assert_allclose(*(f.phase for f in fits), atol=1e-3)


def test_complaints():
    with pytest.raises(ParamError, match="n_aberrations"):
        fit_aberrations(None, FitOptions(num=2))
    with pytest.raises(ParamError, match="PLRotation_deg"):
        fit_aberrations(None, fit_rotation=False)


# ---------------------------------------------------------------------------------------------
# Orientation in focus
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rotation", [25.0, -40.0])
def test_rotation_of_a_focused_scan_and_slope_of_the_phase(rotation):
    scene = Scene(scan=(26, 31), rotation_deg=rotation)
    phase = specimen(scene, rms=0.4, q_max=0.25)
    patterns = scene.patterns(phase)
    bright = view(scene, patterns)
    given, exchanged = find_orientation(bright.comx, bright.comy)
    assert abs((np.rad2deg(given.rotation_rad) - rotation + 90) % 180 - 90) < 2
    assert given.curl_ratio < 0.5 * exchanged.curl_ratio

    params = parameters(scene, patterns, PLRotation_deg=rotation)
    np.testing.assert_allclose(
        params["positions"] * (params["pixel_size_y_A"], params["pixel_size_x_A"]),
        scene.positions() - scene.positions().min(axis=0),
        atol=1e-9,
    )
    found, _ = pyptyx.dpc.idpc(params, "wiener")
    at = np.rint(scene.positions() / scene.pixel).astype(int)
    truth = phase[at[:, 0] % len(phase), at[:, 1] % phase.shape[1]].reshape(scene.scan)
    inner = (slice(4, -4), slice(4, -4))
    f, t = found[inner].ravel(), truth[inner].ravel()
    slope, _ = np.polyfit(t, f, 1)
    assert np.corrcoef(f, t)[0, 1] > 0.9
    assert slope == pytest.approx(1, abs=0.1)


# ---------------------------------------------------------------------------------------------
# From parameters to parameters
# ---------------------------------------------------------------------------------------------


def parameters(scene, patterns, **more):
    return pyptyx.append_exp_params(experiment_of(scene, patterns, **more))


def test_returned_parameters_describe_the_experiment(tmp_path):
    truth = (120.0, -40.0, 25.0)
    scene = Scene(rotation_deg=30.0, aberrations=truth, transposed=True)
    patterns = scene.patterns(specimen(scene), dose=5000)
    params = parameters(scene, patterns, output_folder=str(tmp_path))
    before = {k: np.copy(v) for k, v in params.items() if isinstance(v, np.ndarray)}
    found = calibrate(params, FitOptions(num=3, largest_defocus_A=150, frequencies=400))

    new = found.params
    assert new["transpose_patterns"] is True
    np.testing.assert_allclose(new["aberrations"], truth, atol=4)
    assert near(new["PLRotation_deg"], 30, 1)
    expected = scene.positions() - scene.positions().min(axis=0)
    found_A = new["positions"] * (new["pixel_size_y_A"], new["pixel_size_x_A"])
    np.testing.assert_allclose(found_A, expected, atol=0.5)
    again = open_bright_field(new)
    assert again.pacbed.shape == scene.detector
    assert new["aperture_mask"].shape == scene.detector
    check = fit_aberrations(
        again, FitOptions(num=3, transposed=False), start=replace(found.fit.best, transposed=False)
    )
    np.testing.assert_allclose(check.best.coefficients_A, truth, atol=4)

    assert params["aberrations"] is not new["aberrations"]
    assert all(np.array_equal(params[k], v) for k, v in before.items())
    stored = json.loads((tmp_path / "direct" / "fit.json").read_text())
    assert stored["transposed"]
    assert stored["aberrations_A"]["C10"] == pytest.approx(120, abs=4)
    assert len(stored["alternatives"]) == 2
    assert (tmp_path / "direct" / "calibration.png").stat().st_size > 1000
    assert "axes exchanged" in found.report
    assert "reversed" in found.report


def test_optics_become_the_wave_of_the_engine():
    """The probe that the engine builds from the result makes the measured patterns."""
    truth = (120.0, -40.0, 25.0)
    scene = Scene(rotation_deg=30.0, aberrations=truth, scan=(4, 5))
    phase = specimen(scene, rms=0.3)
    patterns = scene.patterns(phase)
    optics = Optics(np.array(truth), np.deg2rad(30), False)
    new = apply_optics(parameters(scene, patterns), optics)
    losses = []
    for aberrations in (truth, (120.0, 40.0, -25.0), (120.0, -40.0, -25.0)):
        trial = {**new, "aberrations": list(aberrations), "epoch_max": 4, "update_probe": 0}
        losses.append(pyptyx.run(trial).final_loss)
    assert losses[0] < 0.8 * min(losses[1:])


def test_command_line_needs_no_detector_calibration(tmp_path, capsys):
    scene = Scene(scan=(20, 23), aberrations=(150.0,))
    np.save(tmp_path / "data.npy", scene.patterns(specimen(scene)))
    (tmp_path / "scan.toml").write_text(
        f"""
        [experiment]
        data_path = '{tmp_path / "data.npy"}'
        acc_voltage = 60.0
        scan_step_A = {scene.step}
        conv_semiangle_mrad = 30.0
        data_pad = 0
        """
    )
    arguments = ["calibrate", str(tmp_path / "scan.toml"), "--output", str(tmp_path / "out")]
    assert main([*arguments, "--aberrations", "3", "--largest-defocus", "180"]) == 0
    printed = capsys.readouterr().out
    keys = tomllib.loads(printed[printed.index("[experiment]") :])["experiment"]
    assert keys["rez_pixel_size_A"] == pytest.approx(scene.dk, rel=0.03)
    assert keys["aberrations"][0] == pytest.approx(150, rel=0.05)
    assert near(keys["PLRotation_deg"], 0, 1)
    assert keys["transpose_patterns"] is False
    assert "±" in printed
    assert (tmp_path / "out" / "direct" / "fit.json").exists()
