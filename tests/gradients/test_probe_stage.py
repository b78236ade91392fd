"""The probe stage: every element alone and in company, argument by argument."""

import numpy as np
import pytest

from pyptyx.backend import Backend
from pyptyx.physics.grid import Grid
from pyptyx.physics.optics import aberration_basis
from pyptyx.physics.probe import Illumination, ProbePlan, ProbeStage
from tests.gradients.checks import assert_adjoint, assert_derivative, inner, normal

BACKEND = Backend()
GRIDS = [Grid((9, 12), (0.31, 0.24), 0.025), Grid((10, 7), (0.22, 0.35), 0.037)]
BATCH, MODES, SCENARIOS, COEFFICIENTS = 5, 2, 3, 4
STEPS = {"current": 1e-3, "aberrations": 1e-2, "tilt": 1e-5, "shift": 1e-3}

CASES = {
    "nothing": (),
    "shift": ("shift",),
    "tilt": ("tilt",),
    "tilt shift": ("tilt", "shift"),
    "current": ("current",),
    "current shift": ("current", "shift"),
    "plate": ("plate",),
    "common plate": ("common_plate",),
    "common plate current": ("common_plate", "current"),
    "plate shift": ("plate", "shift"),
    "aberrations": ("aberrations",),
    "aberrations shift": ("aberrations", "shift"),
    "aberrations tilt": ("aberrations", "tilt"),
    "plate tilt shift": ("plate", "tilt", "shift"),
    "scenario": ("scenario",),
    "scenario shift": ("scenario", "shift"),
    "scenario common plate": ("scenario", "common_plate"),
    "all but tilt": ("scenario", "current", "plate", "aberrations", "shift"),
    "all": ("scenario", "current", "plate", "aberrations", "tilt", "shift"),
}


class Scene:
    """A probe stage at a random point."""

    def __init__(self, grid, names):
        rng = np.random.default_rng(len(names))
        basis = aberration_basis(
            grid.q_y[:, None], grid.q_x[None, :], grid.wavelength_A, COEFFICIENTS
        )
        plates = bool({"plate", "common_plate"} & set(names))
        plan = ProbePlan(plates, *(k in names for k in ("aberrations", "tilt", "shift")))
        self.stage = ProbeStage(grid, plan, basis, BACKEND, complex)
        self.rng, self.shape = rng, grid.shape
        values = {
            "scenario": np.array([2, 0, 1, 0, 2]),
            "current": np.array([1.3, -0.7, 0.9, -1.1, 0.4]),
            "plate": np.exp(1j * normal(rng, BATCH, *grid.shape, real=True)),
            "common_plate": normal(rng, 1, *grid.shape),
            # Two patterns share a row, so that the plates are found once and used twice.
            "aberrations": 3.0 * normal(rng, 3, COEFFICIENTS, real=True)[[0, 1, 0, 2, 1]],
            "tilt": 1e-2 * normal(rng, BATCH, 2, real=True),
            "shift": rng.uniform(-0.5, 0.5, (BATCH, 2)),
        }
        self.given = {("plate" if k == "common_plate" else k): values[k] for k in names}
        self.n_scenarios = SCENARIOS if "scenario" in names else 1
        self.probe = normal(rng, self.n_scenarios, MODES, *grid.shape)

    def forward(self, probe, **changed):
        light = Illumination(**{**self.given, **changed})
        return self.stage.forward(self.stage.enter(probe), light)

    def vjp(self, w, wanted=frozenset()):
        """Gradients of the probe in real space and of the settings."""
        _wave, saved = self.forward(self.probe)
        g_probe = np.zeros_like(self.probe)
        grads = self.stage.vjp(saved, w.copy(), g_probe, set(wanted))
        return self.stage.leave(g_probe), grads

    def cotangent(self):
        """One per pattern: the patterns may share a wave but not its gradient."""
        return normal(self.rng, BATCH, MODES, *self.shape)


@pytest.fixture(params=GRIDS, ids=["9x12", "10x7"])
def grid(request):
    return request.param


@pytest.mark.parametrize("case", CASES)
def test_probe_argument(grid, case):
    scene = Scene(grid, CASES[case])
    like = np.empty((BATCH, MODES, *grid.shape))
    assert_adjoint(
        lambda v: np.broadcast_to(scene.forward(v)[0], like.shape),
        lambda w: scene.vjp(w)[0],
        normal(scene.rng, *scene.probe.shape),
        scene.cotangent(),
    )


@pytest.mark.parametrize(
    ("case", "name"), [(c, n) for c, names in CASES.items() for n in names if n in STEPS]
)
def test_settings(grid, case, name):
    scene = Scene(grid, CASES[case])
    w = scene.cotangent()
    _g_probe, grads = scene.vjp(w, {name})
    assert grads.keys() == {name}

    def value(setting):
        wave = scene.forward(scene.probe, **{name: setting})[0]
        return inner(w, np.ascontiguousarray(np.broadcast_to(wave, w.shape)))

    for pattern in range(BATCH):  # a gradient that lands in another pattern's row is wrong
        d = np.zeros_like(scene.given[name])
        d[pattern] = normal(scene.rng, *d.shape[1:], real=True)
        assert_derivative(value, scene.given[name], grads[name], d, step=STEPS[name])


def test_gradient_is_independent_of_what_else_is_wanted(grid):
    scene = Scene(grid, CASES["all"])
    w = scene.cotangent()
    g_probe, together = scene.vjp(w, set(STEPS))
    for name in STEPS:
        np.testing.assert_array_equal(scene.vjp(w, {name})[1][name], together[name])
    np.testing.assert_array_equal(scene.vjp(w)[0], g_probe)


def test_without_an_accumulator_only_the_settings_come_back(grid):
    scene = Scene(grid, CASES["all"])
    w = scene.cotangent()
    _wave, saved = scene.forward(scene.probe)
    grads = scene.stage.vjp(saved, w.copy(), None, {"shift"})
    np.testing.assert_array_equal(grads["shift"], scene.vjp(w, {"shift"})[1]["shift"])


def test_order_of_the_elements(grid):
    """Scenario, plate, aberrations, tilt, shift, current, written out pattern by pattern."""
    scene = Scene(grid, CASES["all"])
    given, stage_grid = scene.given, grid
    basis = aberration_basis(grid.q_y[:, None], grid.q_x[None, :], grid.wavelength_A, COEFFICIENTS)
    got = scene.forward(scene.probe)[0]
    for t in range(BATCH):
        tilt, shift = given["tilt"][t], given["shift"][t]
        wave = scene.probe[given["scenario"][t]]
        a = np.exp(-1j * np.tensordot(given["aberrations"][t], basis, axes=1)) * grid.mask
        wave = np.fft.ifft2(np.fft.fft2(wave) * given["plate"][t] * a)
        slope_A = grid.y_A[:, None] * tilt[0] + grid.x_A[None, :] * tilt[1]
        wave = wave * np.exp(2j * np.pi / stage_grid.wavelength_A * slope_A)
        phase = grid.f_y[:, None] * shift[0] + grid.f_x[None, :] * shift[1]
        wave = np.fft.ifft2(np.fft.fft2(wave) * np.exp(-2j * np.pi * phase) * grid.mask)
        np.testing.assert_allclose(got[t], abs(given["current"][t]) * wave, atol=1e-12)
