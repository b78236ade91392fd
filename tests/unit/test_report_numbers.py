"""The numbers of a report against known answers: χ², rings, dose, drift, ring correlation."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

import pyptyx
from pyptyx.engine.half_data import compare_halves, interleaved
from pyptyx.engine.report_facts import facts, mode_shares, scan_area_A2
from pyptyx.engine.report_material import for_comparison, from_result
from pyptyx.engine.residuals import Comparison, fitted_numbers, spread_out
from pyptyx.errors import ShapeError
from pyptyx.methods.registration import nearby_shift
from pyptyx.methods.resolution import (
    Correlation,
    Resolution,
    correlate,
    half_bit,
    resolution,
    rim_taper,
)
from pyptyx.params import resolve

NY, NX, SCAN, PIXEL_A, STEP_PX = 26, 22, (6, 7), (0.4, 0.5), 2.0
N = SCAN[0] * SCAN[1]


def disc_probe(counts):
    q_y, q_x = np.fft.fftfreq(NY, PIXEL_A[0]), np.fft.fftfreq(NX, PIXEL_A[1])
    q = np.hypot(q_y[:, None], q_x[None, :])
    probe = np.fft.fftshift(np.fft.ifft2((q <= 0.5) * np.exp(-5j * np.pi * q**2)))
    return (probe * np.sqrt(counts / (np.sum(abs(probe) ** 2) * NY * NX)))[..., None]


@pytest.fixture(scope="module")
def truth():
    """Parameters with the true object and probe, and Poisson counts of them."""
    rng = np.random.default_rng(5)
    positions = STEP_PX * np.stack(np.mgrid[: SCAN[0], : SCAN[1]], axis=-1).reshape(-1, 2)
    shape = np.ceil(positions.max(axis=0)).astype(int) + np.array([NY, NX])
    obj = np.exp(1j * rng.uniform(-0.2, 0.2, (*shape, 2, 1)))
    params = {
        "obj": obj, "probe": disc_probe(8000.0), "positions": positions, "scan_size": SCAN,
        "acc_voltage": 200, "pixel_size_y_A": PIXEL_A[0], "pixel_size_x_A": PIXEL_A[1],
        "slice_distances": [8.0], "skip_preprocessing": True, "output_folder": None,
    }  # fmt: skip
    counts = rng.poisson(pyptyx.simulate(params)).astype(np.uint16)
    return params | {"dataset": counts}


def compared(params, numbers=None):
    with Comparison(resolve(params, need=("data",))) as comparison:
        assert comparison.measurements == N
        return comparison.of(np.arange(N) if numbers is None else np.asarray(numbers))


def test_chi2_of_the_truth_is_one(truth):
    found = compared(truth)
    assert abs(found.chi2 - 1) < 3 * found.chi2_error < 0.1
    busy = found.counts_per_ring > 1
    np.testing.assert_allclose(found.chi2_per_ring[busy], 1, atol=0.2)
    np.testing.assert_allclose(found.predicted.sum() / found.counts.sum(), 1, atol=0.01)
    assert found.deviation.shape == (NY, NX)
    assert found.saturated == 0


def test_the_truth_explains_what_differs_and_an_exchange_of_patterns_does_not(truth):
    found = compared(truth)
    assert found.noise == 1
    assert abs(found.explained - 1) < 3 * found.explained_error
    order = np.random.default_rng(3).permutation(N)
    assert compared(truth | {"dataset": truth["dataset"][order]}).explained < 0.5
    assert compared(truth, range(8)).explained is None


def test_chi2_sees_what_is_wrong_and_where(truth):
    """Three times the counts in one pattern; a bright pixel off the axis in all of them."""
    data = truth["dataset"].copy()
    data[11] *= 3
    assert compared(truth | {"dataset": data}).chi2_per_pattern.argmax() == 11
    data = truth["dataset"].copy()
    data[:, NY // 2 + 5, NX // 2 - 1] += 40
    found = compared(truth | {"dataset": data})
    assert np.unravel_index(found.deviation.argmax(), (NY, NX)) == (NY // 2 + 5, NX // 2 - 1)
    radius = math.hypot(5 / (NY * PIXEL_A[0]), 1 / (NX * PIXEL_A[1]))
    width = found.ring_per_A[1]
    assert abs(found.ring_per_A[found.chi2_per_ring.argmax()] - radius) <= width / 2


def test_some_patterns_are_the_same_as_their_part_of_all(truth):
    chosen = [2, 3, 17, 40]
    every, some = compared(truth), compared(truth, chosen)
    np.testing.assert_allclose(some.chi2_per_pattern, every.chi2_per_pattern[chosen])
    np.testing.assert_allclose(some.counts, every.counts[chosen])


def test_counts_beyond_the_band_limit(truth):
    data = truth["dataset"].copy()
    data[:, 0, 0] += 1000
    added = 1000 * N / data.sum()
    found = compared(truth | {"dataset": data})
    assert found.beyond_band == pytest.approx(added, rel=0.02)
    assert found.chi2 == pytest.approx(compared(truth).chi2)


@pytest.mark.parametrize(("level", "saturated"), [(65535, True), (60, True), (None, False)])
def test_saturated_pixels(truth, level, saturated):
    data = truth["dataset"].copy()
    if level == 65535:
        data[4, 5, 6] = level
    elif level:
        data = np.minimum(data, level)
    assert (compared(truth | {"dataset": data}).saturated > 0) == saturated


def test_fitted_patterns_are_those_of_any_epoch():
    by_epoch = {"sequence": lambda epoch: np.arange(epoch, 9, 4), "epoch_max": 2}
    assert fitted_numbers(by_epoch, 9).tolist() == [0, 1, 4, 5, 8]
    assert fitted_numbers({"sequence": [5, 2], "epoch_max": 2}, 9).tolist() == [2, 5]
    assert fitted_numbers({"sequence": None, "epoch_max": 2}, 3).tolist() == [0, 1, 2]
    some = spread_out(np.arange(100, 400, 3), 7)
    assert len(set(some.tolist())) == 7
    assert (np.diff(some) > 0).all()


def test_area_of_a_raster_is_that_of_its_cells():
    raster = 1.5 * np.stack(np.mgrid[:4, :7], axis=-1).reshape(-1, 2)
    assert scan_area_A2(raster) == pytest.approx(4 * 7 * 1.5**2)
    assert scan_area_A2(raster[:5]) == pytest.approx(5 * 1.5**2)  # one line


def test_facts_of_a_state(truth):
    """Mode shares, dose, steady drift: from arrays that say them plainly."""
    params = resolve(truth, need=("data",))
    probe = np.concatenate([truth["probe"], 0.5 * truth["probe"]], axis=-1)
    moved = truth["positions"] + np.linspace(0, 1.5, N)[:, None] * [0.6, 0.8] + 3.0
    result = SimpleNamespace(
        object=np.pad(truth["obj"], ((6, 5), (6, 5), (0, 0), (0, 0)), constant_values=1),
        probe=probe, positions=moved, tilts=None, static_background=None, beam_current=None,
        aberrations_array=None, params=params, losses=[], stop_reason="done", folder=None,
    )  # fmt: skip
    material = from_result(result)
    known = facts(material, compared(truth))
    assert known.mode_shares == pytest.approx((0.8, 0.2))
    assert known.drift_px == pytest.approx(1.5)
    assert known.drift_share == pytest.approx(1.0)
    assert known.displacement_px == pytest.approx(1.5 * np.linspace(-0.5, 0.5, N).std())
    step_A = STEP_PX * np.array(PIXEL_A)
    assert known.dose_per_A2 == pytest.approx(8000 / step_A.prod(), rel=0.1)
    assert for_comparison(material)["positions"] is moved
    assert mode_shares(np.zeros((3, 4, 2, 1))) == (0.0, 0.0)


def test_interleaved_halves():
    numbers = np.arange(12)
    a, b = interleaved(numbers, (3, 4))
    assert a.tolist() == [0, 2, 5, 7, 8, 10]
    assert sorted([*a, *b]) == numbers.tolist()
    # Every other pattern of every other row has one colour of the chequerboard only.
    part = np.array([0, 2, 8, 10, 16, 18])
    assert [len(half) for half in interleaved(part, (5, 4))] == [3, 3]
    assert [half.tolist() for half in interleaved(numbers[:5])] == [[0, 2, 4], [1, 3]]


def speckle(seed, shape, largest, steps):
    """White noise below a frequency in 1/Å."""
    spectrum = np.fft.fftn(np.random.default_rng(seed).normal(size=shape))
    q = np.hypot(*np.ix_(*[np.fft.fftfreq(n, d) for n, d in zip(shape, steps, strict=True)]))
    return np.fft.ifftn(spectrum * (q <= largest)).real


def test_correlation_ends_where_the_common_part_ends():
    shape, steps = (96, 108), (0.5, 0.4)
    common = 3 * speckle(1, shape, 0.5, steps)
    noise = [np.random.default_rng(s).normal(size=shape) for s in (2, 3)]
    weight = rim_taper(np.ones(shape, bool))
    found = correlate(common + noise[0], common + noise[1], steps, weight)
    inner, outer = found.frequency_per_A < 0.45, found.frequency_per_A > 0.6
    np.testing.assert_allclose(found.value[inner], 0.9, atol=0.08)  # 9 / (9 + 1)
    np.testing.assert_allclose(found.value[outer], 0, atol=0.25)
    for threshold in (1 / 7, 0.5, half_bit(found.independent)):
        assert resolution(found, threshold).period_A == pytest.approx(1 / 0.5, rel=0.07)
    capped = correlate(common + noise[0], common + noise[1], steps, weight, 0.4)
    assert capped.frequency_per_A[-1] <= 0.4
    assert resolution(capped, 1 / 7).limited


def test_a_shift_of_part_of_a_pixel_is_found():
    shape = (60, 68)
    image = speckle(4, shape, 0.25, (1.0, 1.0))
    f_y, f_x = (np.fft.fftfreq(n) for n in shape)
    spectrum = np.fft.fft2(image)
    moved = spectrum * np.exp(-2j * np.pi * (0.35 * f_y[:, None] - 0.8 * f_x))
    shift = nearby_shift(spectrum, moved, f_y, f_x, reach_px=2, upsample=20)
    assert shift == pytest.approx((-0.35, 0.8), abs=0.03)


def test_images_that_lie_apart_correlate():
    image = speckle(7, (70, 76), 0.3, (1.0, 1.0))
    f_y, f_x = (np.fft.fftfreq(n) for n in image.shape)
    ramp = np.exp(-2j * np.pi * (1.4 * f_y[:, None] + 0.6 * f_x))
    moved = np.fft.ifft2(np.fft.fft2(image) * ramp).real
    weight = rim_taper(np.ones(image.shape, bool))
    found = correlate(image, moved, (1.0, 1.0), weight, 0.25)
    assert found.shift_px == pytest.approx((-1.4, -0.6), abs=0.06)
    assert found.value.min() > 0.97


def test_scatter_of_noise_follows_from_the_independent_numbers():
    """1 / sqrt(2 n): van Heel and Schatz halve the frequencies, real parts halve the variance."""
    weight = rim_taper(np.ones((84, 92), bool))
    rng = np.random.default_rng(8)
    scatter = []
    for _ in range(8):
        a, b = rng.normal(size=(2, *weight.shape))
        found = correlate(a, b, (1.0, 1.0), weight)
        scatter.append(found.value * np.sqrt(found.independent))
    assert np.std(scatter) == pytest.approx(math.sqrt(0.5), abs=0.13)


def test_shell_correlation_of_a_stack():
    stack = np.random.default_rng(6).normal(size=(3, 40, 46))
    weight = rim_taper(np.ones(stack.shape[1:], bool))
    same = correlate(stack, stack, (10.0, 0.5, 0.5), weight)
    np.testing.assert_allclose(same.value, 1)
    other = correlate(stack, stack[::-1], (10.0, 0.5, 0.5), weight)
    assert abs(other.value).max() < 0.8
    with pytest.raises(ShapeError, match="one step per axis"):
        correlate(stack, stack, (0.5, 0.5), weight)


def test_crossings():
    q = np.array([0.1, 0.2, 0.3, 0.4])

    def crossing(*values, level=0.5):
        return resolution(Correlation(q, np.array(values), np.ones(4), (0, 0)), level)

    assert crossing(1, 0.8, 0.3, 0.9).period_A == pytest.approx(1 / 0.26)
    assert crossing(0.2, 0.8, 0.8, 0.3).period_A == pytest.approx(1 / 0.36)  # low rings are weak
    assert crossing(0.1, 0.2, 0.1, 0).period_A == math.inf
    assert crossing(1, 1, 1, 1) == Resolution(2.5, True)


def test_half_bit_of_many_numbers():
    """It falls from 1 for a single number to 0.1716 for ever larger rings."""
    assert half_bit(np.array([1e12]))[0] == pytest.approx(0.2071 / 1.2071, abs=1e-5)
    assert half_bit(np.array([1.0]))[0] == pytest.approx(1)


def test_equal_results_correlate_everywhere(truth):
    result = SimpleNamespace(
        object=truth["obj"], probe=truth["probe"], positions=truth["positions"],
        pixel_size_A=PIXEL_A, slice_distances_A=(8.0,), params={"damping_cutoff_multislice": 0.9},
    )  # fmt: skip
    curves = compare_halves(result, result)
    assert [c.name for c in curves] == ["projected phase", "slice 0", "slice 1", "all slices (3-D)"]
    for curve in curves:
        np.testing.assert_allclose(curve.value, 1, atol=1e-6)
        assert curve.limited["0.5"]
        assert curve.frequency_per_A[-1] <= 0.9
