"""PyPty's `utils` and `fft` against formulas of their own, on arrays with unequal axes."""

import math

import numpy as np
import pytest

import pyptyx
from pyptyx import fft, utils
from pyptyx.constants import wavelength_A
from pyptyx.errors import ParamError, ShapeError
from pyptyx.params.schedule import Schedule

LAM = 0.0197
NAMES_OF_12 = "C10 C12a C12b C21a C21b C23a C23b C30 C32a C32b C34a C34b".split()


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def waves(rng, *shape):
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


def angles():
    kx = np.linspace(-0.021, 0.018, 9)[None, :]
    ky = np.linspace(-0.013, 0.024, 7)[:, None]
    return np.broadcast_arrays(kx, ky)


# --- import surface ----------------------------------------------------------------------------


@pytest.mark.parametrize("face", ["initialize", "utils", "se", "vaa"])
def test_public_names_are_at_top_level(face):
    module = getattr(pyptyx, face)
    for name in module.__all__:
        if face != "utils" or name not in ("fit_vector_field", "warp_image"):
            assert getattr(pyptyx, name) is getattr(module, name)


def test_at_top_level_the_names_of_se_win():
    assert pyptyx.warp_image is pyptyx.se.warp_image
    assert pyptyx.fit_vector_field is pyptyx.se.fit_vector_field
    assert {"utils", "se", "vaa", "fft", "iterative", "get_ctf"} <= set(dir(pyptyx))


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = pyptyx.no_such_name


# --- aberrations -------------------------------------------------------------------------------


def chi_by_angle(coefficients, kx, ky, offset=0.0):
    """The textbook sum, with angles."""
    n, m, suffix = utils.convert_num_to_nmab(len(coefficients))
    k, phi = np.hypot(kx, ky), np.arctan2(ky, kx) + offset
    turns = {"": lambda a: 1 + 0 * a, "a": np.cos, "b": np.sin}
    return sum(
        2 * np.pi / LAM * c * k ** (i + 1) / (i + 1) * turns[s](j * phi)
        for c, i, j, s in zip(coefficients, n, m, suffix, strict=True)
    )


def test_names_of_aberrations():
    n, m, suffix = utils.convert_num_to_nmab(12)
    assert utils.nmab_to_strings(n, m, suffix) == NAMES_OF_12
    assert (n[4], m[4], suffix[4]) == (2, 1, "b")


@pytest.mark.parametrize("offset", [0.0, 0.7])
def test_ctf_is_the_textbook_sum(rng, offset):
    kx, ky = angles()
    c = rng.normal(size=12) * 1e3
    expected = chi_by_angle(c, kx, ky, offset)
    np.testing.assert_allclose(utils.get_ctf(c, kx, ky, LAM, offset), expected, atol=1e-9)
    if not offset:
        basis = utils.get_ctf_matrix(kx, ky, 12, LAM)
        assert basis.shape == (12, 7, 9)
        np.testing.assert_allclose(np.tensordot(c, basis, 1), expected, atol=1e-9)


@pytest.mark.parametrize("offset", [0.0, -0.4])
def test_ctf_derivatives_in_the_rotated_frame(rng, offset):
    """Turn the angles, differentiate there."""
    kx, ky = angles()
    c, h = rng.normal(size=12) * 1e3, 1e-7
    rx = kx * math.cos(offset) - ky * math.sin(offset)
    ry = kx * math.sin(offset) + ky * math.cos(offset)
    dx, dy = utils.get_ctf_derivatives(c, kx, ky, LAM, offset)
    by_x = (chi_by_angle(c, rx + h, ry) - chi_by_angle(c, rx - h, ry)) / (2 * h)
    by_y = (chi_by_angle(c, rx, ry + h) - chi_by_angle(c, rx, ry - h)) / (2 * h)
    np.testing.assert_allclose(dx, by_x, rtol=1e-5, atol=1e-3 * np.abs(dx).max() * 1e-3)
    np.testing.assert_allclose(dy, by_y, rtol=1e-5, atol=1e-3 * np.abs(dy).max() * 1e-3)


def test_rotation_gradient_of_every_term():
    """Each coefficient alone: a-terms and the y part of b-terms were wrong in PyPty."""
    kx, ky = angles()
    offset, h = 0.3, 1e-6
    for index in range(12):
        c = np.zeros(12)
        c[index] = 1e3
        ends = [utils.get_ctf_derivatives(c, kx, ky, LAM, offset + s * h) for s in (1, -1)]
        found = utils.get_ctf_gradient_rotation_angle(c, kx, ky, LAM, offset)
        for plus, minus, value in zip(*ends, found, strict=True):
            expected = (plus - minus) / (2 * h) * LAM / (2 * np.pi)
            np.testing.assert_allclose(value, expected, atol=1e-6 * 1e3 * 0.03 + 1e-12)


# --- probe -------------------------------------------------------------------------------------


@pytest.mark.parametrize("extra", [(), (3,), (3, 2)])
def test_defocus_multiplies_the_spectrum_and_limits_the_band(rng, extra):
    probe = waves(rng, 12, 15, *extra)
    before = probe.copy()
    out = utils.apply_defocus_probe(probe, 140.0, 80, 0.3, 0.5)
    qy, qx = np.fft.fftfreq(12, 0.5)[:, None], np.fft.fftfreq(15, 0.3)[None, :]
    q2, lam = qy**2 + qx**2, wavelength_A(80)
    spectrum, old = (np.fft.fft2(p, axes=(0, 1)).reshape(12, 15, -1) for p in (out, probe))
    kept = np.sqrt(q2) <= 2 / 3 * min(qy.max(), qx.max())
    factor = np.exp(-1j * np.pi * 140.0 * lam * q2) * kept
    np.testing.assert_allclose(spectrum, old * factor[..., None], atol=1e-10)
    np.testing.assert_array_equal(probe, before)


def test_padfft_keeps_the_spectrum(rng):
    stack = waves(rng, 7, 10, 3)
    out = utils.padfft(stack, 2)
    assert out.shape == (11, 14, 3)
    inner = np.fft.fftshift(np.fft.fft2(out, axes=(0, 1)), axes=(0, 1))
    centre = inner[11 // 2 - 7 // 2 :][:7, 14 // 2 - 10 // 2 :][:, :10]
    expected = np.fft.fftshift(np.fft.fft2(stack, axes=(0, 1)), axes=(0, 1))
    np.testing.assert_allclose(centre, expected, atol=1e-12)
    assert np.abs(inner).sum() == pytest.approx(np.abs(expected).sum())


def test_probe_is_fitted_to_the_data_with_its_counts(rng):
    probe = waves(rng, 7, 10, 3, 2)
    out = utils.padprobetodatafarfield(probe, (40, 8, 11), 3, 2)
    assert out.shape == (8 * 2 + 6, 11 * 2 + 6, 3, 2)
    counts = [p[..., 1, 1].size * (np.abs(p) ** 2).sum(axis=(0, 1)) for p in (probe, out)]
    np.testing.assert_allclose(*counts)


def test_probe_moves_by_whole_and_broken_pixels(rng):
    probe = waves(rng, 8, 11, 3)
    moved, mask, spectrum, kx, ky = utils.shift_probe_fourier(probe, (2, -3))
    np.testing.assert_allclose(moved, np.roll(probe, (2, -3), axis=(0, 1)), atol=1e-12)
    np.testing.assert_allclose(spectrum, np.fft.fft2(probe, axes=(0, 1)))
    np.testing.assert_allclose(mask, np.exp(-2j * np.pi * (2 * ky - 3 * kx)))
    assert kx.shape == ky.shape == (8, 11)
    assert np.ptp(kx, axis=0).max() == 0
    y, x = np.indices((24, 30))
    blob = np.exp(-((y - 10) ** 2) / 8 - (x - 13) ** 2 / 10)
    moved = utils.shift_probe_fourier(blob, (0.4, 1.3))[0].real
    assert (moved * y).sum() / moved.sum() == pytest.approx(10.4, abs=1e-3)
    assert (moved * x).sum() / moved.sum() == pytest.approx(14.3, abs=1e-3)


def test_hermite_modes_each_carry_the_counts():
    y, x = np.indices((20, 26))
    wave = np.exp(-((y - 9) ** 2) / 8 - (x - 14) ** 2 / 20) * (1 + 0.2j)
    out = utils.generate_hermite_modes(wave, 2, 1)
    assert out.shape == (20, 26, 6)
    np.testing.assert_allclose((np.abs(out) ** 2).sum(axis=(0, 1)), (np.abs(wave) ** 2).sum())
    # With y outermost: x, then x² (which n_herm_x = 2 allows), then y.
    along_x, squared, along_y = ((out[..., k] / wave).real for k in (1, 2, 3))
    assert along_x[9, 8] < 0 < along_x[9, 20]
    assert min(squared[9, 8], squared[9, 20], squared[4, 20], squared[16, 20]) > 0
    assert along_y[4, 14] < 0 < along_y[16, 14]


def test_modes_from_spreads_are_seeded_sorted_and_carry_the_counts():
    y, x = np.indices((20, 26))
    wave = np.exp(-((y - 10) ** 2) / 6 - (x - 13) ** 2 / 9)
    rad = (0.002, 0.003)

    def make(seed, **spread):
        return utils.probe_modes_from_spreads(
            wave, LAM, rad, 5.0, n_modes=3, n_samples=64, seed=seed, **spread
        )

    out = make(4, spatial_coh_x_A=0.6)
    power = (np.abs(out) ** 2).sum(axis=(0, 1))
    assert out.shape == (20, 26, 3)
    assert power[0] > power[1] > power[2]
    assert power.mean() == pytest.approx((wave**2).sum())
    np.testing.assert_array_equal(out, make(4, spatial_coh_x_A=0.6))
    assert not np.allclose(out, make(5, spatial_coh_x_A=0.6))
    # The source is broad along x only: the second mode is odd along x.
    second = out[10, :, 1] * np.sign(out[10, 18, 1].real)
    assert second[8].real < 0 < second[18].real


def test_window_is_square_with_cosine_edges():
    w = utils.get_window((21, 31), 0.3, 0.8, inverted=False)
    assert w.shape == (21, 31)
    half = 10
    expected = 0.5 * (1 + math.cos(math.pi * (0.5 - 0.3) / 0.5))
    assert w[half + 5, 15] == pytest.approx(expected)
    assert w[half + 5, 20] == pytest.approx(
        expected * 0.5 * (1 + math.cos(math.pi * (1 / 3 - 0.3) / 0.5))
    )
    assert w[half + 3, 15] == 1
    assert w[half + 9, 15] == 0
    np.testing.assert_allclose(utils.get_window((21, 31), 0.3, 0.8), 1 - w)


# --- patterns ----------------------------------------------------------------------------------


def test_upsampling_shares_the_counts_and_leaves_the_input(rng):
    image = rng.integers(0, 9, (3, 5))
    kept = image.copy()
    out = utils.upsample_something(image, 2)
    assert out.shape == (6, 10)
    assert out[4, 7] == image[2, 3] / 4
    np.testing.assert_array_equal(utils.upsample_something(image, 2, scale=False)[::2, ::2], image)
    np.testing.assert_array_equal(image, kept)
    stack = rng.random((4, 3, 5))
    np.testing.assert_allclose(utils.upsample_something_3d(stack, 3).sum((1, 2)), stack.sum((1, 2)))


def test_downsampling_sums_blocks_of_each_axis(rng):
    stack = rng.random((4, 7, 11))
    out = utils.downsample_something_3d(stack, 3)
    assert out.shape == (4, 2, 3)
    np.testing.assert_allclose(out[1, 1, 2], stack[1, 3:6, 6:9].sum())
    np.testing.assert_allclose(utils.downsample_something(stack[2], 3), out[2])


def test_preprocessing_shifts_bins_scales_and_pads(rng):
    data = rng.integers(0, 50, (3, 8, 12)).astype(np.uint16)
    kept = data.copy()
    args = {"load_one_by_one": False, "algorithm_type": "lsq", "recon_type": "far_field"}
    out = utils.preprocess_dataset(
        data, **args, data_shift_vector=(1, -2), data_bin=2, data_pad=4, upsample_pattern=2,
        data_multiplier=0.5,
    )  # fmt: skip
    shifted = np.zeros((3, 8, 12))
    shifted[:, 1:, :-2] = data[:, :-1, 2:]
    expected = 0.5 * shifted.reshape(3, 4, 2, 6, 2).sum(axis=(2, 4))
    np.testing.assert_allclose(out, np.pad(expected, ((0, 0), (2, 2), (2, 2))))
    np.testing.assert_array_equal(data, kept)
    rest = ((0, 0), 1, 0, 1, 3.0)
    assert utils.preprocess_dataset(data, True, "lsq", "far_field", *rest) is data
    signals = rng.random((5, 4))
    out = utils.preprocess_dataset(signals, False, "lsq_compressed", "far_field", *rest)
    np.testing.assert_allclose(out, 3 * signals)


# --- slices ------------------------------------------------------------------------------------


def test_vacuum_before_and_after_with_several_distances(rng):
    obj = waves(rng, 4, 5, 3, 2)
    params = {"slice_distances": np.array([7.0, 9.0])}
    out, same = utils.resample_slices(obj, params, N_before=1, N_after=2)
    assert same is params
    assert out.shape == (4, 5, 6, 2)
    np.testing.assert_array_equal(out[:, :, 1:4], obj)
    np.testing.assert_array_equal(out[:, :, [0, 4, 5]], 1)
    np.testing.assert_array_equal(params["slice_distances"], [7, 7, 9, 9, 9])
    assert params["num_slices"] == 6
    assert params["total_thickness"] == pytest.approx(7 + 7 + 9 + 9 + 9 + 9)
    assert isinstance(params["total_thickness"], float)
    assert params["obj"] is out


def test_thinner_slices_keep_the_phase():
    slopes = np.linspace(0.1, 0.4, 20).reshape(4, 5)
    obj = np.repeat((0.9 * np.exp(1j * slopes))[:, :, None, None], 4, axis=2)
    params = {"slice_distances": [10.0]}
    out, _ = utils.resample_slices(obj, params, refactor_thickness=2.5)
    assert out.shape == (4, 5, 10, 1)
    np.testing.assert_allclose(np.angle(out).sum(axis=2)[..., 0], 4 * slopes)
    np.testing.assert_allclose(np.abs(out).prod(axis=2), 0.9**4)
    np.testing.assert_allclose(params["slice_distances"], [4.0])
    assert params["total_thickness"] == pytest.approx(40.0)


def test_thinner_slices_are_interpolated(rng):
    obj = np.exp(0.3j * rng.random((4, 5, 3, 1)))
    out, _ = utils.resample_slices(obj, {"slice_distances": [6.0]}, refactor_thickness=2)
    np.testing.assert_allclose(out[:, :, 1] ** 2, (obj[:, :, 0] + obj[:, :, 1]) / 2)
    np.testing.assert_allclose(out[:, :, 4] ** 2, obj[:, :, 2])
    np.testing.assert_allclose(out[:, :, 5] ** 2, 1.5 * obj[:, :, 2] - 0.5 * obj[:, :, 1])


def test_bad_slices_are_named_together():
    obj = np.ones((4, 5, 3, 1))
    with pytest.raises(ParamError, match="slice_distances") as caught:
        utils.resample_slices(obj, {"slice_distances": [1.0, 2.0]}, 2, N_before=-1)
    assert "N_before" in str(caught.value)
    with pytest.raises(ShapeError, match="Mo"):
        utils.resample_slices(obj[0], {"slice_distances": [1.0]})


# --- parameter files ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "lambda x: max(x, 3)",
        "lambda e: 1 if e < 5 else (2 if e > 7 else 0.5)",
        "lambda x: (x +\n 2) % 3",
    ],
)
def test_schedules_survive_as_text(tmp_path, text):
    schedule = utils.string_to_lambda(text)
    assert utils.lambda_to_string(schedule) == text
    params = {"update_step_bfgs": text, "defocus_spread_modes": [1.0, 2.0], "data_path": "a/lambda"}
    same = utils.string_params_to_usefull_params(params)
    assert same is params
    assert isinstance(params["update_step_bfgs"], Schedule)
    assert params["data_path"] == "a/lambda"
    utils.save_params(tmp_path / "params.pkl", params, strip_dataset_from_params=True)
    again = utils.load_params(tmp_path / "params.pkl")
    restored = utils.string_params_to_usefull_params(again)["update_step_bfgs"]
    assert [restored(e) for e in range(12)] == [schedule(e) for e in range(12)]
    assert utils.convert_to_string(params)["update_step_bfgs"] == text


def test_lists_hold_schedules_too_and_nothing_is_executed():
    params = {"update_probe": ["lambda x: x > 2", "1+1", "os.sep"]}
    first, *rest = utils.string_params_to_usefull_params(params)["update_probe"]
    assert first(3) is True
    assert rest == ["1+1", "os.sep"]
    assert utils.convert_to_string(params)["update_probe"][0] == "lambda x: x > 2"
    with pytest.raises(ParamError, match="not allowed"):
        utils.string_to_lambda("lambda x: __import__('os').getcwd()")


def test_text_of_a_lambda_in_a_file():
    pair = {"other": 1, "step": lambda x: max(x, 3)}
    assert utils.lambda_to_string(pair["step"]) == "lambda x: max(x, 3)"
    with pytest.raises(ParamError, match="upper"):
        utils.lambda_to_string(str.upper)


# --- alignment ---------------------------------------------------------------------------------


def blob(y, x, shape=(40, 54)):
    rows, columns = np.indices(shape)
    return np.exp(-((rows - y) ** 2) / 18 - (columns - x) ** 2 / 8) + 0.5 * np.exp(
        -((rows - y - 6) ** 2) / 4 - (columns - x + 7) ** 2 / 6
    )


def test_phase_correlation_finds_fractions_of_a_pixel():
    spectra = [np.fft.fftshift(np.fft.fft2(i)) for i in (blob(20, 26), blob(18.4, 28.4))]
    fy, fx = (np.fft.fftshift(np.fft.fftfreq(n)) for n in (40, 54))
    x_real, y_real = np.meshgrid(fx, fy)
    out, dy, dx = utils.phase_cross_corr_align(*spectra, 2, 20, x_real, y_real)
    assert (dy, dx) == pytest.approx((1.6, -2.4), abs=0.051)
    aligned = np.fft.ifft2(np.fft.ifftshift(out)).real
    np.testing.assert_allclose(aligned, blob(20, 26), atol=0.02)
    out, dy, dx = utils.phase_cross_corr_align(*spectra, 2, 20, x_real, y_real, 3.0, 1.0)
    assert (dy, dx) == (3.0, 1.0)
    moved = np.fft.ifft2(np.fft.ifftshift(out)).real
    np.testing.assert_allclose(moved, np.roll(blob(18.4, 28.4), (3, 1), (0, 1)), atol=1e-6)


def test_vector_field_and_warp_take_rows_first(rng):
    points = np.array([[0, 0], [0, 29], [19, 0], [19, 29]], float)  # (y, x)
    u, v = points[:, 0] * 0.1 + 1, points[:, 1] * -0.05 + 2
    yi, xi = np.indices((20, 30))
    fields = utils.fit_vector_field(points[:, 1], points[:, 0], u, v, xi, yi, method="linear")
    np.testing.assert_allclose(fields[0], yi * 0.1 + 1, atol=1e-12)
    np.testing.assert_allclose(fields[1], xi * -0.05 + 2, atol=1e-12)
    nearest = utils.fit_vector_field(points[:, 1], points[:, 0], u, v, xi, yi)
    assert nearest[0][3, 5] == u[0]
    image = rng.random((20, 30))
    whole = (np.full((20, 30), 2.0), np.full((20, 30), -4.0))
    out = utils.warp_image(image, whole)
    np.testing.assert_allclose(out[:18, 4:], image[2:, :26])
    np.testing.assert_allclose(out[18:, 4:], np.broadcast_to(image[19, :26], (2, 26)))


def test_the_object_follows_its_positions(rng):
    """The rows from 10 on move: in PyPty the columns did."""
    obj = waves(rng, 20, 30, 2, 3)
    y, x = np.meshgrid(np.arange(20.0), np.arange(0.0, 30, 2), indexing="ij")
    old = np.stack([y.ravel(), x.ravel()], axis=1)
    new = old + np.where(old[:, :1] >= 10, [[0, 2]], [[0, 0]])
    out = utils.intorplate_puzzled_obj(obj, old, new, method="nearest")
    np.testing.assert_allclose(out[:10], obj[:10])
    np.testing.assert_allclose(out[10:, 2:], obj[10:, :-2])
    centred = utils.intorplate_puzzled_obj(obj, old - [3, 0], new - [3, 0], method="nearest",
                                           window=(6, 8))  # fmt: skip
    np.testing.assert_allclose(centred[:10], obj[:10])
    np.testing.assert_allclose(centred[10:, 6:], obj[10:, 4:-2])


# --- fft ---------------------------------------------------------------------------------------


def test_transforms_over_the_first_two_axes(rng):
    a = waves(rng, 5, 8, 3).astype(np.complex64)
    np.testing.assert_allclose(fft.fft2(a), np.fft.fft2(a, axes=(0, 1)), rtol=1e-4, atol=1e-4)
    assert fft.fft2(a).dtype == np.complex64
    np.testing.assert_allclose(fft.ifft2(fft.fft2(a)), a, atol=1e-5)
    shifted = fft.shift_fft2(a)
    np.testing.assert_allclose(shifted[2, 4], a.sum(axis=(0, 1)), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(fft.ifft2_ishift(shifted), a, atol=1e-5)
    np.testing.assert_allclose(fft.ifftshift(fft.fftshift(a)), a)
    np.testing.assert_allclose(fft.fft2(a, axes=(1, 2))[3], np.fft.fft2(a[3]), rtol=1e-4, atol=1e-4)
