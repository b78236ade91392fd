"""Tilt-corrected bright field, and the faces of the direct methods on a params dictionary."""

import copy
from dataclasses import replace

import h5py
import numpy as np
import pytest
from direct_scenes import SEMIANGLE, WAVELENGTH_A, correlation, scene

import pyptyx.direct
import pyptyx.tcbf
from pyptyx import cli
from pyptyx.data import open_source
from pyptyx.engine.geometry import scan_positions_A
from pyptyx.errors import ParamError
from pyptyx.methods.bright_field import bright_field
from pyptyx.methods.gamma import Pupil, detector_frame
from pyptyx.methods.scan_spectrum import pupil_of, shifts_A
from pyptyx.methods.shift_fit import fit_shifts, measure_shifts
from pyptyx.methods.tcbf import aligned_image, scan_shifts_A

TRUTH = (350.0, 40.0, -25.0)


def opened(made, **options):
    with open_source(made.patterns) as source:
        return bright_field(
            source,
            dk_A=made.dk_A,
            wavelength_A=WAVELENGTH_A,
            step_A=made.step_A,
            semiangle_rad=SEMIANGLE,
            **options,
        )


@pytest.fixture(scope="module")
def made():
    return scene(shape=(42, 46), radius_px=10.0, limit=1.0, c10=350, c12a=40, c12b=-25, seed=1)


@pytest.fixture
def params(made, tmp_path):
    """Calibrated parameters of square detector pixels, written as an experiment would be."""
    square = scene(shape=(40, 40), radius_px=9.0, limit=1.2, c10=350, c12a=40, c12b=-25, seed=1)
    counts = np.rint(square.patterns[:34] * 2e4).astype(np.uint16)
    dk = square.dk_A[0]
    pixel = 1 / (40 * dk)
    return {
        "dataset": counts.reshape(-1, 40, 40),
        "scan_size": (34, 40),
        "scan_step_A": square.step_A,
        "wavelength_A": WAVELENGTH_A,
        "acc_voltage": 60,
        "conv_semiangle_mrad": 1e3 * SEMIANGLE,
        "rez_pixel_size_A": dk,
        "pixel_size_y_A": pixel,
        "pixel_size_x_A": pixel,
        "aberrations": np.array([300.0, 40.0, -25.0]),
        "extra_probe_defocus": 50.0,
        "PLRotation_deg": 0.0,
        "positions": scan_positions_A((34, 40), square.step_A) / pixel,
        "aperture_mask": np.ones((40, 40)),
        "output_folder": str(tmp_path / "out"),
        "save_preprocessing_files": False,
        "truth": square.phase[:34],
    }


# ---- shifts ------------------------------------------------------------------------------------


def test_the_shift_field_in_both_frames():
    """Numbers worked out by hand for 20 and 5 mrad and a rotation of 12 degrees."""
    k = np.array([[0.005, 0.020]]) / WAVELENGTH_A
    pupil = Pupil((250.0, 40.0, -25.0), WAVELENGTH_A, SEMIANGLE)
    shift = shifts_A(k, pupil)
    np.testing.assert_allclose(shift, [[0.55, 5.675]], atol=1e-9)
    scan = detector_frame(shift, -np.deg2rad(12))
    np.testing.assert_allclose(scan, [[-0.64192, 5.66534]], atol=1e-5)
    # The same field with coefficients of the scan frame.
    turned = (40 - 25j) * np.exp(-2j * np.deg2rad(12))
    assert turned.real == pytest.approx(26.3734, abs=1e-4)
    assert turned.imag == pytest.approx(-39.1081, abs=1e-4)
    own = Pupil((250.0, turned.real, turned.imag), WAVELENGTH_A, SEMIANGLE)
    np.testing.assert_allclose(shifts_A(detector_frame(k, -np.deg2rad(12)), own), scan, atol=1e-9)


def test_shifts_are_measured_and_fitted(made):
    bright = opened(made, n_bin=2)
    truth = scan_shifts_A(bright, pupil_of(bright, TRUTH), 0.0)
    measured, peak = measure_shifts(bright, 0.9 * truth)
    assert np.median(np.abs(measured - truth)) < 0.2
    assert np.abs(measured - truth).mean() < 0.8 * np.abs(0.1 * truth).mean()
    assert 0.2 < np.median(peak) < 1
    fit = fit_shifts(bright, measured, (300.0, 0.0, 0.0), 0.1)
    np.testing.assert_allclose(fit.coefficients_A, TRUTH, atol=20)
    assert abs(np.rad2deg(fit.rotation_rad)) < 1.5
    assert fit.rms_A < 0.5 * made.step_A
    kept = fit_shifts(bright, measured, (300.0, 0.0, 0.0), 0.0, fit_rotation=False)
    assert kept.rotation_rad == 0


@pytest.mark.parametrize("upsample", [1, 2, 3])
def test_aligned_images_show_the_phase(upsample):
    coarse = scene(
        shape=(42, 48), radius_px=10.0, limit=1.0, every=upsample, c10=350, c12a=40, c12b=-25
    )
    bright = opened(coarse)
    image = aligned_image(bright, TRUTH, upsample=upsample, flip=True)
    assert image.shape == coarse.phase.shape
    assert image.mean() == pytest.approx(1, abs=2e-3)
    inner = (slice(8, -8),) * 2
    assert correlation(image[inner], coarse.phase[inner]) > 0.7
    assert correlation(aligned_image(bright, TRUTH, upsample=upsample), coarse.phase) < 0.5
    padded = aligned_image(bright, TRUTH, upsample=upsample, pad=3, whole_pixels=True)
    assert padded.shape == tuple(n + 6 * upsample for n in image.shape)


def test_an_impulse_lands_where_its_feature_is():
    """One bright scan point in one pixel moves by the shift of that pixel."""
    flat = scene(shape=(30, 34), radius_px=7.0, rms=1e-9, c10=200)
    bright = opened(flat)
    shifts = scan_shifts_A(bright, pupil_of(bright, (200.0,)), 0.0) / bright.step_A
    number = int(np.argmax(shifts[:, 0]))
    images = np.array(bright.images)
    images[:] = images.mean(axis=(1, 2), keepdims=True)
    images[number, 13, 20] *= 50
    moved = aligned_image(replace(bright, images=images), (200.0,), upsample=4, whole_pixels=True)
    peak = np.unravel_index(moved.argmax(), moved.shape)
    expected = np.rint((np.array([13, 20]) * 4) + 4 * shifts[number])
    np.testing.assert_array_equal(peak, expected)
    bright = replace(bright, images=images)
    for factor, pad in ((2.5, 0), (7 / 3, 2), (1.0, 3)):
        moved = aligned_image(bright, (200.0,), upsample=factor, pad=pad)
        assert moved.shape == tuple(
            int(np.ceil(round((n + 2 * pad) * factor, 6))) for n in (30, 34)
        )
        bump = moved - np.median(moved)
        corner = np.unravel_index(bump.argmax(), bump.shape)
        near = tuple(slice(c - 1, c + 2) for c in corner)
        weight = np.where(bump[near] > 0.02 * bump.max(), bump[near], 0)
        place = [(weight * g).sum() / weight.sum() for g in np.mgrid[near]]
        expected = factor * (np.array([13, 20]) + pad + shifts[number])
        np.testing.assert_allclose(place, expected, atol=0.25)


# ---- faces -------------------------------------------------------------------------------------


def test_results_are_saved_and_inputs_left_alone(params, tmp_path):
    params["save_preprocessing_files"] = True
    before = copy.deepcopy(params)
    image = pyptyx.direct.direct_image(params, "mf", wiener=None)
    waves = pyptyx.direct.wdd(params, eps_wiener="auto")
    sections = pyptyx.direct.depth_sections(params, [0.0, 40.0])
    fine, pixel = pyptyx.tcbf.upsampled_tcbf(params, upsample=2, pad=1, ctf_sign_flip=True)
    both = pyptyx.direct.direct_image(params, "joint")
    assert both.amplitude is not None
    assert correlation(image.phase[6:-6, 6:-6], params["truth"][6:-6, 6:-6]) > 0.9
    assert waves.shape == sections.shape[1:] == (34, 40)
    assert fine.shape == (72, 84)
    assert pixel == pytest.approx(params["scan_step_A"] / 2)
    out = tmp_path / "out"
    names = {p.relative_to(out).as_posix() for p in out.rglob("*.*")}
    assert names >= {
        "direct/phase_mf.npy", "direct/phase_mf.png", "direct/ssnr_mf.npy", "direct/info_mf.json",
        "direct/transfer_mf.npy", "direct/frc_mf.npy", "direct/depth_stack.npy",
        "direct/amplitude_joint.npy", "wdd/object.npy", "tcbf/tcbf_image_upsampling_2.npy",
    }  # fmt: skip
    np.testing.assert_array_equal(np.load(out / "wdd/object.npy"), waves)
    assert params.keys() == before.keys()
    for key, value in before.items():
        np.testing.assert_array_equal(params[key], value)


def test_files_that_are_flipped_read_the_same(params, tmp_path):
    one = pyptyx.direct.direct_image(params)
    path = tmp_path / "flipped.h5"
    with h5py.File(path, "w") as file:
        file["data"] = params.pop("dataset")[:, ::-1]
    params |= {"data_path": str(path), "flip_ky": True}
    other = pyptyx.direct.direct_image(params)
    np.testing.assert_allclose(other.phase, one.phase, atol=1e-6)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", ["varpro", "xcorr"])
def test_the_alignment_finds_the_aberrations(params, method, tmp_path):
    params["save_preprocessing_files"] = True
    before = copy.deepcopy(params)
    new = pyptyx.tcbf.run_tcbf_alignment(
        params, [2, 1], aberrations=[320.0, 30.0, -20.0], n_aberrations_to_fit=3, method=method
    )
    tolerance = 4 if method == "varpro" else 20
    np.testing.assert_allclose(new["aberrations"][:3], TRUTH, atol=tolerance)
    assert abs(new["PLRotation_deg"]) < (0.3 if method == "varpro" else 3)
    assert new["extra_probe_defocus"] == 0
    pixel = params["pixel_size_x_A"]
    points = scan_positions_A((34, 40), params["scan_step_A"], new["PLRotation_deg"]) / pixel
    np.testing.assert_allclose(new["positions"], points)
    assert new["probe"] is None
    for key, value in before.items():
        np.testing.assert_array_equal(params[key], value)
    table = np.load(tmp_path / "out/tcbf/aberrations_A.npy")
    assert table.shape == (3, 3)
    np.testing.assert_array_equal(table[0], [320.0, 30.0, -20.0])
    shifts = np.load(tmp_path / "out/tcbf/estimated_shifts_1.npy")
    assert shifts.shape[0] == 2
    assert (tmp_path / "out/tcbf/tcbf_shifts_0.png").stat().st_size > 0


def test_compressed_data_are_aligned_by_their_masks(params):
    patterns = params.pop("dataset").astype(np.float32)
    y, x = np.indices((40, 40)) - 20
    disc = np.hypot(y, x) < 9
    cell = ((y + 1) // 2) * 100 + (x + 1) // 2
    masks = np.stack([(cell == c) & disc for c in np.unique(cell[disc])]).astype(float)
    masks = masks[masks.sum(axis=(1, 2)) > 2]
    params |= {
        "dataset": np.tensordot(patterns, masks, axes=((1, 2), (1, 2))),
        "masks": masks,
        "aperture_mask": disc,
    }
    new = pyptyx.tcbf.run_tcbf_compressed_alignment(
        params, 2, aberrations=[310.0, 20.0, 0.0], n_aberrations_to_fit=3, cross_corr_type="abs"
    )
    np.testing.assert_allclose(new["aberrations"], TRUTH, atol=25)
    with pytest.raises(ParamError, match="masks"):
        pyptyx.tcbf.run_tcbf_compressed_alignment({**params, "masks": None}, 1)


def test_a_method_or_factor_that_does_not_exist(params):
    with pytest.raises(ParamError, match="method"):
        pyptyx.tcbf.run_tcbf_alignment(params, [3], method="guess")
    with pytest.raises(ParamError, match="upsample"):
        pyptyx.direct.direct_image(params, "ssb", upsample=2)


@pytest.mark.parametrize("method", ["ssb", "wdd"])
def test_the_command_line(params, method, tmp_path, capsys):
    np.save(tmp_path / "scan.npy", params["dataset"].reshape(34, 40, 40, 40))
    text = f"""
    [experiment]
    data_path = "{tmp_path / "scan.npy"}"
    wavelength_A = {WAVELENGTH_A}
    acc_voltage = 60
    scan_step_A = {params["scan_step_A"]}
    rez_pixel_size_A = {params["rez_pixel_size_A"]}
    conv_semiangle_mrad = 30.0
    PLRotation_deg = 0.0
    aberrations = [350.0, 40.0, -25.0]
    """
    (tmp_path / "run.toml").write_text(text)
    out = tmp_path / "results"
    assert cli.main(["direct", method, str(tmp_path / "run.toml"), "--output", str(out)]) == 0
    assert str(out) in capsys.readouterr().out
    name = "wdd/object.npy" if method == "wdd" else "direct/phase_ssb.npy"
    image = np.load(out / name)
    phase = np.angle(image) if method == "wdd" else image
    inner = (slice(6, -6),) * 2
    assert correlation(phase[inner], params["truth"][inner]) > 0.85
