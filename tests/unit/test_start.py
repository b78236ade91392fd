"""Start values of the variables."""

import numpy as np
import pytest

from pyptyx.constants import wavelength_A
from pyptyx.data import open_source
from pyptyx.engine import start
from pyptyx.engine.start_probe import detector_to_probe, probe_to_detector, soft_rim
from pyptyx.errors import DataError, ParamError, ShapeError
from pyptyx.params import resolve
from pyptyx.physics.grid import Grid
from pyptyx.physics.optics import aberration_phase

N, KY, KX = 6, 12, 8


def disc(shape, radius):
    y, x = (np.arange(n) - n // 2 for n in shape)
    return (np.hypot(y[:, None], x) <= radius).astype(float)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.poisson(40 * disc((KY, KX), 2.5), size=(N, KY, KX)).astype(np.uint16)


def parameters(data, **given):
    base = {"dataset": data, "acc_voltage": 60, "pixel_size_y_A": 0.3, "pixel_size_x_A": 0.4}
    return resolve(base | given, need=("data", "acc_voltage"))


def window(params):
    u, pad = params["upsample_pattern"], params["data_pad"]
    shape = (KY // params["data_bin"] * u + 2 * pad, KX // params["data_bin"] * u + 2 * pad)
    return Grid(shape, (0.3, 0.4), wavelength_A(60))


def make_probe(data, **given):
    params = parameters(data, **given)
    grid = window(params)
    return start.initial_probe(params, open_source(data), grid), grid


def counts(probe, grid):
    """Counts of the model: mean over modes of N Σ|p|²."""
    return grid.size * (np.abs(probe) ** 2).sum((-2, -1)).mean(1)


SPREAD = {"defocus_spread_modes": np.array([-20.0, 0, 30])}
HERMITE = {"n_hermite_probe_modes": (1, 2)}
MONTE_CARLO = {"mc_n_modes": 3, "n_mc_samples": 20, "spatial_coh_x_A": 0.4, "focal_spread": 15.0}


@pytest.mark.parametrize(
    ("given", "modes"),
    [
        ({}, 1),
        ({"upsample_pattern": 2}, 1),
        ({"upsample_pattern": 3, "data_pad": 3}, 1),
        ({"data_multiplier": 2.5, "data_pad": 2}, 1),
        ({"aberrations": np.array([50.0, 10]), "extra_probe_defocus": 30.0}, 1),
        (SPREAD, 3),
        (HERMITE, 6),
        (MONTE_CARLO, 3),
        (SPREAD | HERMITE, 18),
        (HERMITE | {"probe_marker": np.array([0, 1, 0, 1, 0, 1])}, 6),
        ({"probe": "aperture", "aperture_mask": disc((KY, KX), 2.5) > 0}, 1),
        ({"probe": "aperture", "aperture_mask": disc((KY, KX), 2.5) > 0} | HERMITE, 6),
    ],
)
def test_counts_of_a_made_probe_are_those_of_the_data(data, given, modes):
    """Acceptance (k); BUG-9, BUG-16, BUG-26 and F12 of PyPty."""
    probe, grid = make_probe(data, **given)
    scenarios = 2 if "probe_marker" in given else 1
    assert probe.shape == (scenarios, modes, *grid.shape)
    assert probe.dtype == np.complex128
    expected = data.sum((1, 2)).mean() * given.get("data_multiplier", 1)
    np.testing.assert_allclose(counts(probe, grid), expected, rtol=1e-10)


def test_probe_from_the_mean_pattern(data):
    probe, grid = make_probe(data, data_pad=2)
    pattern = np.abs(probe_to_detector(probe[0, 0])) ** 2
    np.testing.assert_allclose(pattern[2:-2, 2:-2], data.mean(0), atol=1e-10)
    assert pattern.sum() == pytest.approx(data.mean(0).sum())
    # Centred in real space.
    peak = np.unravel_index(np.abs(probe[0, 0]).argmax(), grid.shape)
    assert peak == (grid.shape[0] // 2, grid.shape[1] // 2)


def covered(shape, radius, fine=20):
    """Share of every pixel that a disc covers, its centre a little off index ``n // 2``."""
    y, x = ((np.arange(fine * n) + 0.5) / fine - 0.5 - n // 2 for n in shape)
    inside = np.hypot(y[:, None] - 0.2, x + 0.1) <= radius
    return inside.reshape(shape[0], fine, shape[1], fine).mean((1, 3))


@pytest.mark.parametrize("upsample", [1, 2])
def test_rim_of_the_aperture_is_as_bright_as_measured(upsample):
    shape, pad = (24, 20), 4
    share = covered(shape, 7.3)
    # The disc has a contrast of its own, which is not the probe's.
    light = 300 * share * (1 + 0.02 * np.arange(shape[1]))
    data = np.stack([light, light])
    grow = np.ones((upsample, upsample))
    mask = np.pad(np.kron(light > 0.1 * light.max(), grow), pad) > 0
    given = {"probe": "aperture", "aperture_mask": mask, "upsample_pattern": upsample}
    params = parameters(data, data_pad=pad, **given)
    grid = Grid(mask.shape, (0.3, 0.4), wavelength_A(60))
    probe = start.initial_probe(params, open_source(data), grid)
    amplitude = np.abs(probe_to_detector(probe[0, 0]))
    expected = np.sqrt(np.pad(np.kron(share, grow), pad)) * mask
    np.testing.assert_allclose(amplitude / amplitude.max(), expected, atol=0.05)
    # What was drawn with soft edges stays as it is.
    drawn = np.where(mask, 0.3 + 0.5 * expected, 0.0)
    probe = start.initial_probe(params | {"aperture_mask": drawn}, open_source(data), grid)
    amplitude = np.abs(probe_to_detector(probe[0, 0]))
    np.testing.assert_allclose(amplitude / amplitude.max(), drawn / drawn.max(), atol=1e-12)


def test_masks_and_the_near_field_show_no_rim(data):
    mask = disc((KY, KX), 3.3) > 0
    given = {"probe": "aperture", "aperture_mask": mask}
    probe, _ = make_probe(data, recon_type="near_field", **given)
    np.testing.assert_allclose(probe[0, 0] / probe[0, 0].max(), mask, atol=1e-12)
    masks = np.random.default_rng(3).random((5, KY, KX))
    signals = np.tensordot(data, masks, ([1, 2], [1, 2]))
    params = parameters(signals, masks=masks, algorithm="lsq_compressed", **given)
    probe = start.initial_probe(params, open_source(signals), window(params))
    amplitude = np.abs(probe_to_detector(probe[0, 0]))
    np.testing.assert_allclose(amplitude / amplitude.max(), mask, atol=1e-12)


def test_rim_without_an_inside_stays():
    """A disc of a pixel or two, lone bright pixels: nothing to compare them with."""
    mask = np.zeros((15, 12), bool)
    mask[[3, 3, 9], [2, 3, 8]] = True
    for pattern in (1.0 + np.random.default_rng(0).random(mask.shape), np.zeros(mask.shape)):
        np.testing.assert_array_equal(soft_rim(mask, pattern), mask)


def test_rim_lies_in_the_mask_and_leaves_holes_and_halo():
    y, x = (np.arange(n) - n // 2 for n in (41, 36))
    distance = np.hypot(y[:, None], x)
    ring = (distance <= 12) & (distance > 4)
    halo = (distance > 12) & (distance <= 16)
    pattern = np.random.default_rng(1).poisson(400.0 * ring + 80.0 * halo)
    pattern[22, 26] = 0  # within the ring
    amplitude = soft_rim(ring | halo, pattern)
    assert not amplitude[distance <= 4].any()
    assert not amplitude[distance > 13.5].any()
    np.testing.assert_array_equal(amplitude[(distance > 6) & (distance < 10)], 1)


def test_given_mean_pattern_is_used_and_never_modified(data):
    """BUG-20 of PyPty multiplied it at every run."""
    mean = np.random.default_rng(1).random((KY, KX))
    copy = mean.copy()
    for _ in range(2):
        probe, _ = make_probe(data, mean_pattern=mean, data_multiplier=3.0)
        pattern = np.abs(probe_to_detector(probe[0, 0])) ** 2
        np.testing.assert_allclose(pattern, 3 * copy, atol=1e-10)
    np.testing.assert_array_equal(mean, copy)


def test_shift_and_bin_act_on_the_mean(data):
    probe, _ = make_probe(data, data_shift_vector=(2, -1), data_bin=2)
    shifted = np.zeros((KY, KX))
    shifted[2:, :-1] = data.mean(0)[:-2, 1:]
    binned = shifted.reshape(6, 2, 4, 2).sum((1, 3))
    np.testing.assert_allclose(np.abs(probe_to_detector(probe[0, 0])) ** 2, binned, atol=1e-10)


def test_tilted_patterns_are_moved_back(data):
    """A tilt after the specimen by +2 rows and -1 column moves the pattern there."""
    moved = np.roll(data, (2, -1), axis=(1, 2))
    tilts = np.zeros((1, 6))
    tilts[0, 4:] = np.array([2 / (KY * 0.3), -1 / (KX * 0.4)]) * wavelength_A(60)
    probe, grid = make_probe(moved, tilts=tilts, tilt_mode=1)
    pattern = np.abs(probe_to_detector(probe[0, 0])) ** 2
    np.testing.assert_allclose(pattern, data.mean(0), atol=1e-8)
    probe, grid = make_probe(moved, tilts=tilts, tilt_mode=1, estimate_aperture_based_on_binary=0.5)
    pattern = np.abs(probe_to_detector(probe[0, 0])) ** 2
    np.testing.assert_array_equal(pattern > 1, disc((KY, KX), 2.5) > 0)
    assert counts(probe, grid)[0] == pytest.approx(data.sum((1, 2)).mean())


def test_masks_give_a_probe_with_the_counts_they_see(data):
    rng = np.random.default_rng(3)
    truth = 30 * disc((KY, KX), 2.5)
    masks = np.stack([disc((KY, KX), 2.5), 2 * disc((KY, KX), 1.2), rng.random((KY, KX)) * 0.1])
    signals = np.broadcast_to(np.tensordot(masks, truth, 2), (N, 3))
    params = parameters(signals, masks=masks, algorithm="lsq_compressed")
    grid = Grid((KY, KX), (0.3, 0.4), wavelength_A(60))
    probe = start.initial_probe(params, open_source(signals), grid)
    seen = np.tensordot(masks, np.abs(probe_to_detector(probe[0, 0])) ** 2, 2)
    assert seen @ signals[0] / (seen @ seen) == pytest.approx(1)


def test_near_field_probe(data):
    probe, _ = make_probe(data, recon_type="near_field")
    np.testing.assert_allclose(np.abs(probe[0, 0]) ** 2, data.mean(0), atol=1e-10)


# ---- a probe of the user ----------------------------------------------------------------------


def user_probe(shape, modes=3, scenarios=2):
    rng = np.random.default_rng(5)
    size = (*shape, modes, scenarios)
    return rng.normal(size=size) + 1j * rng.normal(size=size)


@pytest.mark.parametrize("skip", [False, True])
def test_given_probe_is_kept(data, skip):
    """BUG-16 of PyPty rescaled with skip_preprocessing; F16 failed on four axes."""
    marker = np.array([0, 1, 1, 0, 1, 0])
    given = user_probe((KY, KX))
    probe, _ = make_probe(data, probe=given, probe_marker=marker, skip_preprocessing=skip)
    np.testing.assert_allclose(probe, given.transpose(3, 2, 0, 1))
    single, _ = make_probe(data, probe=given[..., 0], probe_marker=marker, skip_preprocessing=skip)
    assert single.shape == (2, 3, KY, KX)
    np.testing.assert_array_equal(single[0], single[1])


def test_given_probe_is_fitted_in_reciprocal_space(data):
    small = user_probe((9, 5))
    marker = np.zeros(N, int)
    probe, grid = make_probe(data, probe=small, probe_marker=marker)
    assert probe.shape == (2, 3, KY, KX)
    inside = small.transpose(3, 2, 0, 1)
    before, after = probe_to_detector(inside), probe_to_detector(probe)
    # Zero frequency 4 of 9 lies at 6 of 12, and 2 of 5 at 4 of 8.
    np.testing.assert_allclose(after[..., 2:11, 2:7], before, atol=1e-10)
    np.testing.assert_allclose(
        counts(probe, grid), 45 * (np.abs(inside) ** 2).sum((-2, -1)).mean(1), rtol=1e-12
    )
    large, _ = make_probe(data, probe=detector_last(np.pad(before, 4)[4:-4, 4:-4], 4))
    assert large.shape == (1, 3, KY, KX)
    with pytest.raises(ShapeError, match="probe"):
        make_probe(data, probe=small, probe_marker=marker, skip_preprocessing=True)


def detector_last(spectrum, pad):
    wide = np.pad(spectrum[0], ((0, 0), (pad, pad), (pad, pad)))
    return detector_to_probe(wide).transpose(1, 2, 0)


def test_when_aberrations_are_applied(data):
    """BUG-15 of PyPty: applied a second time to a probe that has them already."""
    given = user_probe((KY, KX))[..., 0]
    aberrations = np.array([50.0, 20, -10])
    grid = Grid((KY, KX), (0.3, 0.4), wavelength_A(60))
    chi = aberration_phase(aberrations, grid.q_y[:, None], grid.q_x, grid.wavelength_A)
    chi = chi + np.pi * grid.wavelength_A * 25 * grid.q2
    plain = given.transpose(2, 0, 1)[None]
    # No low-pass at 2/3 of Nyquist either: the phase is all.
    aberrated = np.fft.ifft2(np.fft.fft2(plain) * np.exp(-1j * chi))
    keys = {"probe": given, "aberrations": aberrations, "extra_probe_defocus": 25.0}
    for more, expected in (
        ({}, aberrated),
        ({"probe_is_aberrated": True}, plain),
        ({"skip_preprocessing": True}, plain),
        ({"apply_aberrations_to_probe": False}, plain),
        ({"probe_is_aberrated": True, "apply_aberrations_to_probe": True}, aberrated),
    ):
        probe, _ = make_probe(data, **keys, **more)
        np.testing.assert_allclose(probe, expected, atol=1e-10)
    # A probe made from the data cannot be aberrated yet.
    own, _ = make_probe(data, extra_probe_defocus=25.0, probe_is_aberrated=True)
    flat, _ = make_probe(data)
    assert np.abs(own - flat).max() > 0.01


def test_beam_ctf(data):
    ctf = np.random.default_rng(0).normal(size=(KY, KX))
    probe, _ = make_probe(data, beam_ctf=ctf, data_pad=3)
    flat, _ = make_probe(data, data_pad=3)
    ratio = probe_to_detector(probe[0, 0])[3:-3, 3:-3] / probe_to_detector(flat[0, 0])[3:-3, 3:-3]
    lit = disc((KY, KX), 2.5) > 0
    np.testing.assert_allclose(ratio[lit], np.exp(-1j * ctf)[lit], atol=1e-9)
    with pytest.raises(ShapeError, match="beam_ctf"):
        make_probe(data, beam_ctf=ctf[1:], data_pad=3)


def test_modes_are_reproducible(data):
    first, _ = make_probe(data, **MONTE_CARLO)
    second, _ = make_probe(data, **MONTE_CARLO)
    other, _ = make_probe(data, **MONTE_CARLO, seed=4)
    np.testing.assert_array_equal(first, second)
    assert np.abs(first - other).max() > 1e-3


def test_probe_errors(data):
    with pytest.raises(DataError, match="dataset: expected some counts"):
        make_probe(data * 0)
    with pytest.raises(ParamError, match="probe"):
        start.initial_probe(parameters(data), None, Grid((KY, KX), (0.3, 0.4), 0.02))
    with pytest.raises(ShapeError, match="aperture_mask"):
        make_probe(data, probe="aperture", aperture_mask=disc((KY, KX), 2) > 0, data_pad=1)


def test_wavelength(data):
    assert start.beam_wavelength_A({"wavelength_A": 0.03, "acc_voltage": 60}) == 0.03
    assert start.beam_wavelength_A({"acc_voltage": 300}) == pytest.approx(0.0196875, abs=1e-7)
    with pytest.raises(ParamError, match="acc_voltage"):
        start.beam_wavelength_A({})


# ---- positions and object ---------------------------------------------------------------------

POSITIONS = np.array([[3.0, 4.5], [2.5, 9], [8, 6.25], [5, 5], [6, 12], [7.4, 7]])


def test_positions_start_at_zero_plus_extra_space(data):
    given = POSITIONS.copy()
    params = parameters(data, positions=given, extra_space_on_side_px=7)
    positions = start.initial_positions(params)
    np.testing.assert_allclose(positions, POSITIONS - [2.5, 4.5] + 7)
    np.testing.assert_array_equal(given, POSITIONS)
    kept = parameters(data, positions=given, skip_preprocessing=True, extra_space_on_side_px=7)
    np.testing.assert_array_equal(start.initial_positions(kept), POSITIONS)


@pytest.mark.parametrize("sequence", [[5, 3], lambda epoch: [5, 3]])
def test_positions_of_a_sequence(data, sequence):
    params = parameters(data, positions=POSITIONS, sequence=sequence, use_full_FOV=False)
    positions = start.initial_positions(params)
    np.testing.assert_allclose(positions, POSITIONS - [5, 5])
    obj = start.initial_object(params, positions, (12, 8))
    assert obj.shape == (1, 1, 2 + 12, 2 + 8)


def test_default_object_covers_all_windows(data):
    params = parameters(data, positions=POSITIONS, num_slices=3, extra_space_on_side_px=2)
    positions = start.initial_positions(params)
    obj = start.initial_object(params, positions, (12, 8))
    # Largest corners: round(5.5 + 2), round(7.5 + 2) half to even, plus window and margin: 22 x 20.
    # Two rows more leave no prime factor above 7.
    assert obj.shape == (1, 3, 24, 20)
    np.testing.assert_array_equal(obj, 1)


def test_given_object_is_extended(data):
    """Top and left by the mean, bottom and right by the largest modulus; grown by twice E."""
    rng = np.random.default_rng(2)
    given = rng.random((17, 10, 3, 2)) * np.exp(1j * rng.random((17, 10, 3, 2)))
    copy = given.copy()
    params = parameters(data, positions=POSITIONS, obj=given, extra_space_on_side_px=2)
    positions = start.initial_positions(params)
    obj = start.initial_object(params, positions, (12, 8))
    assert obj.shape == (2, 3, 22, 20)
    np.testing.assert_array_equal(obj[:, :, 2:19, 2:12], copy.transpose(3, 2, 0, 1))
    np.testing.assert_allclose(obj[:, :, :2, :12], copy.mean())
    np.testing.assert_allclose(obj[:, :, 2:19, :2], copy.mean())
    largest = np.maximum(np.abs(copy).max(), np.abs(copy.mean()))
    np.testing.assert_allclose(obj[:, :, 19:], largest)
    np.testing.assert_allclose(obj[:, :, :, 12:], largest)
    np.testing.assert_array_equal(given, copy)
    big = np.ones((40, 30, 1, 1))
    params = parameters(data, positions=POSITIONS, obj=big)
    assert start.initial_object(params, positions, (12, 8)).shape == (1, 1, 40, 30)


def test_object_is_exact_with_skip_preprocessing(data):
    given = np.full((20, 20, 3, 2), 0.5 + 0.1j)
    params = parameters(data, positions=POSITIONS, obj=given, skip_preprocessing=True)
    positions = start.initial_positions(params)
    obj = start.initial_object(params, positions, (12, 8))
    np.testing.assert_array_equal(obj, given.transpose(3, 2, 0, 1))
    with pytest.raises(ShapeError, match=r"obj.*25 x 20"):
        start.initial_object(params, positions, (17, 8))
    params = parameters(data, positions=POSITIONS - 5, skip_preprocessing=True)
    with pytest.raises(ShapeError, match="positions"):
        start.initial_object(params, start.initial_positions(params), (12, 8))


# ---- background and current -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "shape"),
    [
        ({}, (KY, KX)),
        ({"data_pad": 4, "upsample_pattern": 2}, (KY + 4, KX + 4)),
        ({"data_pad": 4, "upsample_pattern": 2, "use_padded_intensity": False}, (KY, KX)),
    ],
)
def test_background_number_is_the_total(data, given, shape):
    """BUG-28 of PyPty scaled b, not b²."""
    params = parameters(data, static_background=50.0, **given)
    grid = window(params)
    background = start.initial_background(params, grid.shape)
    assert background.shape == shape
    assert (background**2).sum() == pytest.approx(50)
    np.testing.assert_array_equal(background, start.initial_background(params, grid.shape))
    # Zero frequency, which is lit, lies in the corner.
    assert background[0, 0] > 0
    assert background[shape[0] // 2, shape[1] // 2] == 0


def test_background_off_and_given(data):
    assert start.initial_background(parameters(data), (KY, KX)) is None
    assert start.initial_background(parameters(data, static_background=0), (KY, KX)) is None
    given = np.random.default_rng(0).random((KY, KX))
    params = parameters(data, static_background=given)
    background = start.initial_background(params, (KY, KX))
    assert background[0, 0] == given[KY // 2, KX // 2]
    assert background[1, 2] == given[KY // 2 + 1, KX // 2 + 2]
    with pytest.raises(ShapeError, match="static_background"):
        start.initial_background(params, (KX, KY))


def test_a_background_nobody_gave_is_as_bright_as_the_dark_pixels(data):
    params = parameters(data, data_pad=3)
    mean = 40 * disc((KY, KX), 2.5) + np.linspace(0.5, 1, KY * KX).reshape(KY, KX)
    level = start.dark_level(params, mean)
    assert level == np.quantile(mean, 0.05)
    background = start.initial_background(params, window(params).shape, level)
    lit = np.fft.fftshift(background)[3:-3, 3:-3]
    np.testing.assert_allclose(lit**2, level)
    assert (background**2).sum() == pytest.approx(level * KY * KX)
    # What is given comes first.
    given = parameters(data, static_background=50.0)
    assert (start.initial_background(given, (KY, KX), level) ** 2).sum() == pytest.approx(50)


@pytest.mark.parametrize(
    ("given", "mean"),
    [
        ({"recon_type": "near_field"}, np.full((KY, KX), 30.0)),
        ({}, 30 + disc((KY, KX), 2.5)),  # the disc fills the detector
        ({}, 40 * disc((KY, KX), 2.5)),  # nothing outside
    ],
)
def test_without_dark_pixels_the_background_starts_small(data, given, mean):
    assert start.dark_level(parameters(data, **given), mean) == pytest.approx(1e-3 * mean.mean())


def test_a_single_row_of_aberrations_belongs_to_all(data):
    assert start.aberration_rows(parameters(data), N) is None
    for given in ({"update_aberrations_array": 1}, {"aberrations_array": [[0.0, 3.0]]}):
        rows = start.aberration_rows(parameters(data, **given), N)
        np.testing.assert_array_equal(rows, np.zeros(N))
    marked = parameters(data, aberration_marker=np.arange(N) % 2, aberrations_array=np.ones((2, 3)))
    np.testing.assert_array_equal(start.aberration_rows(marked, N), np.arange(N) % 2)


def test_beam_current(data):
    """F17 of PyPty: short arrays were padded on both sides."""
    np.testing.assert_array_equal(start.initial_current(parameters(data), N), np.ones(N))
    given = np.linspace(0.9, 1.1, N)
    params = parameters(data, beam_current=given)
    np.testing.assert_array_equal(start.initial_current(params, N), given)
    with pytest.raises(ShapeError, match="beam_current"):
        start.initial_current(params, N + 1)
