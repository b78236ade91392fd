"""Constraints by hand: each against a naive formula, and in runs that switch them on."""

import numpy as np
import pytest
from scipy import ndimage

import pyptyx
from pyptyx.backend import Backend
from pyptyx.engine import setup
from pyptyx.engine.callbacks import Callback
from pyptyx.engine.constraints import after_update, before_update, enforce
from pyptyx.engine.loop import public_arrays
from pyptyx.engine.objective import Objective
from pyptyx.engine.setup import build
from pyptyx.params import evaluate
from pyptyx.terms import projections
from tests.gpu.guard import GuardArray, GuardBackend

WINDOW, OBJECT, SCAN = (12, 10), (25, 28), (4, 5)
MODES, SLICES, OBJECT_MODES = 3, 2, 1


def probe(modes=MODES):
    y, x = (np.arange(n) - n // 2 for n in WINDOW)
    y, x = y[:, None], x[None, :]
    spot = 4 * np.exp(-(y**2 + x**2) / 6 + 0.1j * (y**2 - 0.6 * x**2))
    return np.stack([spot, 0.7 * (y + 0.5) * spot, 0.4 * (x - 0.3) * spot], axis=-1)[..., :modes]


def specimen(rng):
    shape = (*OBJECT, SLICES, OBJECT_MODES)
    noise = rng.standard_normal((2, *shape))
    phase, absorption = ndimage.gaussian_filter(noise, (0, 2, 2, 0, 0))
    return np.exp(2.5j * phase - 0.3 * (absorption - absorption.min()))


def raster():
    y, x = np.indices(SCAN).reshape(2, -1)
    return np.stack([3.1 * y + 0.2 * x + 1.3, 3.4 * x - 0.1 * y + 1.6], axis=1)


@pytest.fixture(scope="module")
def params():
    physics = {
        "positions": raster(), "scan_size": SCAN, "wavelength_A": 0.025,
        "pixel_size_y_A": 0.4, "pixel_size_x_A": 0.5, "slice_distances": [15.0],
        "obj": specimen(np.random.default_rng(4)), "probe": probe(), "skip_preprocessing": True,
        "default_dtype": "double", "compute_batch": 7, "devices": 1,
    }  # fmt: skip
    data = pyptyx.simulate(physics)
    return physics | {
        "dataset": data,
        "obj": physics["obj"] ** 0.7,
        "update_probe_pos": 1,
        "output_folder": None,
        "epoch_max": 3,
        "print_flag": 0,
    }


class Watch(Callback):
    """Remembers the arrays after every epoch, their loss, and that the next begins with."""

    def __init__(self):
        self.arrays, self.reached, self.next = [], [], []

    def start(self, problem):
        self.arrays.append(public_arrays(problem))

    def epoch(self, state):
        problem = state.problem
        self.start(problem)
        values = evaluate(problem.params, state.epoch + 1)
        self.reached.append(problem.data_term_at(values)(problem.x))
        x, _changed, _reset = enforce(before_update(problem, values, state.active), problem.x)
        x, _coordinates = Objective(problem, values, state.epoch + 1).enter(x)
        self.next.append(problem.data_term_at(values)(x))


def applied(which, problem, **changes):
    """What the constraints of an epoch with other parameters make of the problem's variables."""
    values = evaluate(problem.params | changes, 0)
    return enforce(which(problem, values, ("object", "probe", "positions")), problem.x)


def by_slices(f, obj):
    """Phase and absorption of every slice through `f(phase, absorption) -> phase, absorption`."""
    out = np.empty_like(obj)
    for index in np.ndindex(obj.shape[:2]):
        phase, absorption = f(np.angle(obj[index]), -np.log(np.abs(obj[index])))
        out[index] = np.exp(-absorption + 1j * phase)
    return out


# -- projections -----------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.0, 0.1, 0.6, 1.7, 4.0])
def test_gaussian_filter_is_scipys_on_every_slice(sigma):
    a = np.random.default_rng(0).standard_normal((3, 2, 7, 11))
    expected = np.empty_like(a)
    for index in np.ndindex(3, 2):
        expected[index] = ndimage.gaussian_filter(a[index], sigma, mode="nearest")
    np.testing.assert_allclose(projections.gaussian_filter(a, sigma), expected, atol=1e-13)


def test_charge_flip_by_loops():
    a = np.random.default_rng(0).standard_normal((2, 3, 5, 7))
    out = projections.charge_flip(a, 0.2, -0.9)
    for index, value in np.ndenumerate(a):
        weak = value < 0.2 * a[index[:2]].max()
        assert out[index] == (-0.9 * value if weak else value)


def point(shape, width):
    """A normalised periodic Gaussian ``exp(-r²/s²)`` at a pixel."""
    y, x = (np.arange(n) - c for n, c in zip(shape, (11, 20), strict=True))
    g = np.exp(-(y[:, None] ** 2 + x[None, :] ** 2) / width**2)
    return g / g.sum()


def test_fancy_sigma_sharpens_flips_and_blurs():
    shape = (25, 38)
    smooth = point(shape, 2.0) + 0.5
    sharp = projections.sharp_charge_flip(smooth, -1.0, 0.0, (2.0, 0.0), Backend())
    assert sharp.max() - 0.5 > 5 * (smooth.max() - 0.5)
    assert sharp.sum() == pytest.approx(smooth.sum())
    blurred = projections.sharp_charge_flip(smooth, -1.0, 0.0, (0.0, 1.5), Backend())
    np.testing.assert_allclose(blurred - 0.5, point(shape, 2.5), atol=1e-6)
    back = projections.sharp_charge_flip(smooth, -1.0, 0.0, (2.0, 2.0), Backend())
    np.testing.assert_allclose(back, smooth, atol=2e-3 * np.ptp(smooth))
    flipped = projections.sharp_charge_flip(smooth, 0.5, 0.0, (0.0, 0.0), Backend())
    low = smooth - smooth.min() < 0.5 * np.ptp(smooth)
    np.testing.assert_allclose(flipped, np.where(low, smooth.min(), smooth), atol=1e-12)


def test_nearest_shift():
    shifts = np.array([[5.9, 4.9], [6.0, 5.0], [-6.0, -5.0], [-6.1, -17.2], [0.3, 12.0]])
    expected = [[5.9, 4.9], [-6.0, -5.0], [-6.0, -5.0], [5.9, 2.8], [0.3, 2.0]]
    np.testing.assert_allclose(projections.nearest_shift(shifts, WINDOW), expected)
    odd = projections.nearest_shift(np.array([[2.9, 3.0], [3.0, -4.1]]), (7, 7))
    np.testing.assert_allclose(odd, [[2.9, -4.0], [-4.0, 2.9]])


def test_missing_margins():
    corners = np.array([[-2, 0], [3, 4], [1, 9]])
    assert projections.missing_margins(corners, (5, 6), (7, 20)) == ((2, 1), (0, 0))
    assert projections.missing_margins(corners + 2, (5, 6), (20, 11)) == ((0, 0), (0, 6))


# -- constraints of an epoch ------------------------------------------------------------------


def test_nothing_is_on_by_default(params):
    with build(params) as problem:
        for which in (before_update, after_update):
            assert applied(which, problem) == (problem.x, False, False)


def test_charge_flip(params):
    settings = {"cf_delta_phase": 0.3, "cf_beta_phase": -0.8, "cf_delta_abs": 0.2}

    def flip(phase, absorption):
        weak = phase < 0.3 * phase.max(), absorption < 0.2 * absorption.max()
        phase = np.where(weak[0], -0.8 * phase, phase)
        return phase, np.where(weak[1], -0.95 * absorption, absorption)

    with build(params) as problem:
        x, changed, reset = applied(before_update, problem, do_charge_flip=True, **settings)
        np.testing.assert_allclose(x["object"], by_slices(flip, problem.x["object"]))
        assert changed
        assert reset


def test_charge_flip_with_widths(params):
    widths = (None, (1.2, 0.8))
    with build(params | {"fancy_sigma": widths}) as problem:
        x, _changed, _reset = applied(before_update, problem, do_charge_flip=True)
        phase, absorption = projections.phase_and_absorption(problem.x["object"])
        sharp = projections.sharp_charge_flip(absorption, 0.01, -0.95, widths[1], Backend())
        flipped = projections.charge_flip(phase, 0.1, -0.95)
        np.testing.assert_allclose(x["object"], np.exp(-sharp + 1j * flipped))


def test_gaussian_filters(params):
    def smooth(phase, absorption):
        return (
            ndimage.gaussian_filter(phase, 0.9, mode="nearest"),
            ndimage.gaussian_filter(absorption, 1.6, mode="nearest"),
        )

    with build(params) as problem:
        x, changed, reset = applied(
            after_update, problem, apply_gaussian_filter=0.9, apply_gaussian_filter_amplitude=1.6
        )
        np.testing.assert_allclose(x["object"], by_slices(smooth, problem.x["object"]))
        assert changed
        assert reset


def test_orthogonal_modes(params):
    with build(params) as problem:
        before = problem.x["probe"]
        x, changed, reset = applied(before_update, problem, keep_probe_states_orthogonal=True)
        assert changed
        assert reset
        flat = x["probe"][0].reshape(MODES, -1)
        gram = flat @ flat.conj().T
        np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-12 * abs(gram).max())
        density, expected = ((np.abs(p) ** 2).sum(axis=1) for p in (x["probe"], before))
        np.testing.assert_allclose(density, expected)
        problem.x = x
        _x, changed, _reset = applied(before_update, problem, keep_probe_states_orthogonal=True)
        assert not changed


def test_vacuum(params):
    with build(params) as problem:
        x, changed, reset = applied(before_update, problem, restart_from_vacuum=True)
        assert changed
        assert reset
        np.testing.assert_array_equal(x["object"], np.ones((1, SLICES, *OBJECT)))
        assert x["object"].dtype == problem.x["object"].dtype
        problem.x = x
        assert not applied(before_update, problem, restart_from_vacuum=True)[1]


# -- windows ----------------------------------------------------------------------------------


def test_windows_follow_positions(params):
    with build(params) as problem:
        assert not applied(after_update, problem, dynamically_resize_yx_object=1)[1]
        start, obj = problem.x["positions"].copy(), problem.x["object"]
        moved = start.copy()
        moved[3] += [0.9, -3.4]  # out of the window by less than the object's border
        moved[0] -= [4.2, 2.6]  # beyond the top and the left
        moved[7, 0] += WINDOW[0]  # the probe is periodic: it has not moved
        problem.x = problem.x | {"positions": moved}
        assert not applied(after_update, problem, dynamically_resize_yx_object=13)[1]
        x, changed, reset = applied(after_update, problem, dynamically_resize_yx_object=4)
        assert changed
        assert reset
        margin = np.array([3, 1])  # rows and columns: 1.3 - 4.2 and 1.6 - 2.6, rounded
        moved[7] = start[7]
        np.testing.assert_allclose(x["positions"], moved + margin)
        np.testing.assert_array_equal(problem.scan.corners, np.rint(moved) + margin)
        np.testing.assert_allclose(problem.start_positions, start + margin)
        widths = ((0, 0), (0, 0), (3, 0), (1, 0))
        np.testing.assert_array_equal(x["object"], np.pad(obj, widths, mode="edge"))
        problem.x = x
        x, _changed, reset = applied(before_update, problem, reset_positions=True)
        assert reset
        np.testing.assert_allclose(x["positions"], start + margin)
        np.testing.assert_array_equal(problem.scan.corners, np.rint(start + margin))
        problem.x = x
        assert not applied(before_update, problem, reset_positions=True)[1]


def test_only_windows_that_were_held_are_held(params):
    """Points outside the sequence may lie outside the object; it does not grow for them."""
    with build(params) as problem:
        problem.relocate(problem.scan.corners - [[0, 40]] * (np.arange(20) == 11)[:, None], (0, 0))
        moved = problem.scan.corners + 0.1
        moved[2] += [2.0, 0.0]
        problem.x = problem.x | {"positions": moved}
        x, changed, _reset = applied(after_update, problem, dynamically_resize_yx_object=2)
        assert changed
        assert x["object"] is problem.x["object"]
        np.testing.assert_allclose(x["positions"], moved)


def test_the_loss_survives_a_relocation(params):
    """Cut elsewhere, the same probe positions give nearly the same patterns."""
    with build(params) as problem:
        values = evaluate(problem.params, 0)
        before = problem.data_term_at(values)(problem.x)
        shift = np.where(np.arange(20)[:, None] == 6, [-0.7, -0.95], 0.0)
        apart = problem.x | {"positions": problem.x["positions"] + shift}
        wrong = problem.data_term_at(values)(apart)
        problem.x = apart
        x, changed, _reset = applied(after_update, problem, dynamically_resize_yx_object=1)
        assert changed
        after = problem.data_term_at(values)(x)
    assert abs(wrong - before) > 5 * abs(after - wrong)


# -- runs -------------------------------------------------------------------------------------

SWITCHES = {
    "do_charge_flip": "lambda e: e >= 1",
    "keep_probe_states_orthogonal": "lambda e: e >= 1",
    "restart_from_vacuum": "lambda e: e == 1",
    "reset_positions": "lambda e: e == 1",
    "apply_gaussian_filter": "lambda e: 0.8 * (e >= 1)",
    "apply_gaussian_filter_amplitude": "lambda e: 0.8 * (e >= 1)",
    "dynamically_resize_yx_object": "lambda e: e >= 1",
    "probe_reg_constraint_weight": "lambda e: np.inf if e >= 1 else 0",
    "puzzle_positions": "lambda e: e >= 1",
}


@pytest.mark.parametrize("key", SWITCHES)
def test_losses_belong_to_the_present_state(params, key):
    """Defect O2: PyPty goes on with the loss and gradient from before the constraint."""
    watch = Watch()
    switched = params | {key: SWITCHES[key], "epoch_max": 4, "aperture_mask": 0.6}
    records = pyptyx.run(switched, [watch]).losses
    assert [r.loss_after for r in records] == pytest.approx(watch.reached, rel=1e-9)
    assert [r.loss for r in records[1:]] == pytest.approx(watch.next[:-1], rel=1e-9)
    free = pyptyx.run(params | {"epoch_max": 4}).losses
    assert records[0].loss_after == free[0].loss_after
    harmless = key in ("puzzle_positions", "dynamically_resize_yx_object")
    assert harmless or records[-1].loss_after != free[-1].loss_after


def test_projection_of_the_probe(params):
    """From the epoch of an infinite weight on the probe stays inside its support."""
    watch = Watch()
    settings = {"probe_reg_constraint_weight": "lambda e: np.inf if e >= 1 else 0"}
    mask = np.zeros(WINDOW)
    mask[3:10, 2:8] = 0.5
    result = pyptyx.run(params | settings | {"probe_constraint_mask": mask}, [watch])
    outside = np.fft.ifftshift(mask) == 0

    def leak(probe):
        power = np.abs(np.fft.fft2(probe, axes=(0, 1))) ** 2
        return power[outside].sum() / power.sum()

    free, *kept = (leak(arrays["probe"]) for arrays in watch.arrays[1:])
    assert free > 1e-6
    assert max(kept) < 1e-25
    assert result.losses[-1].loss_after < result.losses[1].loss
    slopes = [r.slope for r in result.losses]
    assert all(s < 0 for s in slopes)


def test_projection_of_a_probe_of_fixed_modulus(params):
    settings = {"probe_reg_constraint_weight": np.inf, "aperture_mask": 0.5}
    result = pyptyx.run(params | settings | {"tune_only_probe_phase": True})
    f = [np.fft.fftfreq(n) for n in WINDOW]
    outside = np.hypot(*np.meshgrid(*f, indexing="ij")) > 0.25
    assert np.abs(np.fft.fft2(result.probe, axes=(0, 1))[outside]).max() < 1e-10
    assert result.final_loss < result.losses[0].loss


def test_positions_are_reset_to_those_before_the_run(params):
    watch = Watch()
    start = params["positions"]
    off = start + np.random.default_rng(2).uniform(-0.5, 0.5, start.shape)
    switched = params | {"positions": off, "reset_positions": "lambda e: e == 2"}
    switched |= {"update_probe_pos": "lambda e: e < 2", "dynamically_resize_yx_object": 1}
    pyptyx.run(switched, [watch])
    assert np.abs(watch.arrays[2]["positions"] - off).max() > 0.01
    np.testing.assert_allclose(watch.arrays[3]["positions"], off, atol=1e-12)


def test_a_scan_with_a_jump_is_puzzled(params):
    """A block of positions that is off comes back, and the object moves along."""
    jumped = params["positions"].reshape(*SCAN, 2).copy()
    jumped[:, 3:] += [0.0, 7.0]
    wide = np.pad(params["obj"], ((0, 0), (0, 7), (0, 0), (0, 0)), mode="edge")
    with build(params | {"positions": jumped.reshape(-1, 2), "obj": wide}) as problem:
        x, changed, reset = applied(after_update, problem, puzzle_positions=True)
        assert changed
        assert reset
        np.testing.assert_allclose(x["positions"], params["positions"], atol=1e-10)
        np.testing.assert_array_equal(problem.scan.corners, np.rint(params["positions"]))
        before = problem.x["object"]
        np.testing.assert_allclose(x["object"][..., :14], before[..., :14], atol=1e-12)
        np.testing.assert_allclose(x["object"][..., 20:28], before[..., 27:35], atol=1e-12)
        problem.x = x
        assert not applied(after_update, problem, puzzle_positions=True)[1]


def test_constraints_on_a_device(params, monkeypatch):
    """No host array meets a device array, and the result is that of the host."""
    settings = {
        "do_charge_flip": True, "fancy_sigma": ((1.0, 0.7), None), "apply_gaussian_filter": 0.6,
        "apply_gaussian_filter_amplitude": 0.4, "keep_probe_states_orthogonal": True,
        "dynamically_resize_yx_object": 1, "restart_from_vacuum": "lambda e: e == 1",
        "reset_positions": "lambda e: e == 2", "probe_reg_constraint_weight": np.inf,
        "aperture_mask": 0.7, "puzzle_positions": True, "atv_weight": 1e-3,
        "mixed_variance_weight": 1e-3, "wedge_mu": 1e-3, "beta_wedge": 1.0, "window_weight": 1e-3,
        "window": [0.4, 0.9], "phase_norm_weight": 1e-3, "probe_mod_reg_weight": 1e-6,
        "deformation_reg_weight_positions": 0.1, "kernels": "reference",
    }  # fmt: skip
    expected = pyptyx.run(params | settings)
    monkeypatch.setattr(setup, "make_backends", lambda devices, prefer, kernels: [GuardBackend()])
    with build(params | settings) as problem:
        assert isinstance(problem.x["object"], GuardArray)
    got = pyptyx.run(params | settings)
    for record, other in zip(got.losses, expected.losses, strict=True):
        assert record.loss_after == pytest.approx(other.loss_after, rel=1e-6)
    np.testing.assert_allclose(got.object, expected.object, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("key", ["window", "probe_constraint_mask"])
def test_masks_of_another_shape_are_refused(params, key):
    weights = {"window_weight": 1.0, "probe_reg_constraint_weight": 1.0}
    masks = {"window": np.ones(WINDOW), "probe_constraint_mask": np.ones(WINDOW)}
    masks[key] = np.ones((WINDOW[1], WINDOW[0]))
    with pytest.raises(pyptyx.errors.ShapeError, match=rf"{key}.*probe, \(12, 10\).*\(10, 12\)"):
        pyptyx.run(params | weights | masks)
