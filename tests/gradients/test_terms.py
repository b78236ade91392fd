"""Every regulariser: Taylor tests, values against naive formulas, and the same on a device.

Every axis has another length; probes have scenarios (defect F16: PyPty's terms raise for these).
"""

import itertools

import numpy as np
import pytest

from pyptyx.backend import Backend
from pyptyx.physics.grid import Grid
from pyptyx.terms import object_priors, probe_priors, scan_priors
from pyptyx.terms.base import Prior
from tests.gpu.guard import GuardArray, GuardBackend
from tests.gradients.checks import assert_taylor, normal

MODES, SLICES, Y, X = 2, 4, 9, 14
SCENARIOS, PROBE_MODES, WINDOW = 3, 2, (13, 18)
SCAN = (5, 7)
PIXEL_A = (0.31, 0.24)
GRID = Grid(WINDOW, PIXEL_A, 0.025, 0.8)
STEP_A, SLICE_A, SIGMA, BETA = 1.7, 12.0, 0.4, 1.5
STEPS = np.geomspace(1e-2, 1e-4, 5)
TAYLOR_WEIGHT = 0.7

SUPPORT = probe_priors.reciprocal_support(0.5, WINDOW)
RIM = probe_priors.window_weight(WINDOW, 0.3, 0.9)
NEAR = probe_priors.scan_frequency_mask(GRID, STEP_A, 0.35)
LOW_PASS = object_priors.gaussian_low_pass((Y, X), SIGMA)
WEDGE = object_priors.wedge_weight((SLICES, Y, X), PIXEL_A, SLICE_A, BETA)


def variables():
    """A point away from the kinks of the l1 norms."""
    rng = np.random.default_rng(3)
    shape = (MODES, SLICES, Y, X)
    sign = np.where(rng.random((2, *shape)) < 0.5, -1, 1)
    phase, logarithm = sign * rng.uniform(0.2, 2.5, (2, *shape))
    table = np.indices(SCAN).reshape(2, -1).T
    return {
        "object": np.exp(0.2 * logarithm + 1j * phase),
        "probe": normal(rng, SCENARIOS, PROBE_MODES, *WINDOW),
        "positions": table * 2.3 + rng.standard_normal((len(table), 2)),
        "tilts": rng.standard_normal((len(table), 6)),
    }


def functions(backend):
    """Name -> variable, function; constants lie on `backend`."""
    at = backend.asarray
    op, pp, sp = object_priors, probe_priors, scan_priors
    outside, rim, near = at(1.0 - SUPPORT), at(RIM), at(NEAR + 0.0)
    low_pass, wedge = at(LOW_PASS), at(WEDGE)
    table = {
        "total variation": ("object", lambda o: op.total_variation(o, p=2.0, q=1.0)),
        "total variation, other powers": (
            "object",
            lambda o: op.total_variation(o, p=1.5, q=0.7),
        ),
        "phase norm": ("object", op.phase_norm),
        "absorption norm": ("object", op.absorption_norm),
        "mode variance": ("object", lambda o: op.mode_variance(o, low_pass, backend)),
        "missing wedge": ("object", lambda o: op.missing_wedge(o, wedge, backend)),
        "outside support": ("probe", lambda p: pp.outside_support(p, outside, backend)),
        "outside window": ("probe", lambda p: pp.outside_window(p, rim)),
        "scan frequencies": ("probe", lambda p: pp.scan_frequency_roughness(p, near, backend)),
    }
    for name, f in (
        ("fast axis", sp.fast_axis), ("slow axis", sp.slow_axis), ("deformation", sp.deformation),
    ):  # fmt: skip
        for variable in ("positions", "tilts"):
            table[f"{name} of {variable}"] = (variable, lambda v, f=f: f(v, SCAN))
    return table


HOST = functions(Backend())


@pytest.mark.parametrize("name", HOST)
def test_taylor(name):
    variable, function = HOST[name]
    term, x = Prior(name, variable, TAYLOR_WEIGHT, function), variables()
    g = {variable: np.zeros_like(x[variable])}
    assert term(x, g) == pytest.approx(TAYLOR_WEIGHT * function(x[variable])[0])
    real = x[variable].dtype.kind == "f"
    direction = {variable: normal(np.random.default_rng(8), *x[variable].shape, real=real)}
    assert_taylor(term, g, x, direction, STEPS, name)


@pytest.mark.parametrize("name", HOST)
def test_a_term_adds_and_leaves_its_input_alone(name):
    variable, function = HOST[name]
    term, x = Prior(name, variable, TAYLOR_WEIGHT, function), variables()
    before = x[variable].copy()
    once = {variable: np.zeros_like(before)}
    value = term(x, once)
    twice = {variable: once[variable].copy(), "other": np.zeros(3)}
    assert term(x, twice) == term(x) == term(x, {}) == value
    np.testing.assert_allclose(twice[variable], 2 * once[variable])
    np.testing.assert_array_equal(x[variable], before)


ON_DEVICE = [name for name, (variable, _) in HOST.items() if variable in ("object", "probe")]


@pytest.mark.parametrize("name", ON_DEVICE)
def test_device_and_single_precision(name):
    variable, function = HOST[name]
    value, gradient = function(variables()[variable])
    backend = GuardBackend()
    single = backend.asarray(variables()[variable].astype(np.complex64))
    constants = GuardSingle()
    got, got_gradient = functions(constants)[name][1](single)
    assert got == pytest.approx(value, rel=1e-5)
    assert isinstance(got_gradient, GuardArray)
    assert got_gradient.dtype == np.complex64
    error = np.abs(backend.to_host(got_gradient) - gradient).max()
    assert error <= 1e-4 * np.abs(gradient).max()


class GuardSingle(GuardBackend):
    """Constants arrive in single precision, as the engine sends them."""

    def asarray(self, a, dtype=None):
        """Send to the device."""
        a = np.asarray(a)
        return super().asarray(a.astype("c8" if a.dtype.kind == "c" else "f4"))


def pairs(n):
    """Every index with its predecessor, periodic."""
    return [(i, (i - 1) % n) for i in range(n)]


def test_total_variation_by_loops():
    o = variables()["object"]
    total = 0.0
    for m, z in np.ndindex(MODES, SLICES):
        for (i, above), (j, left) in itertools.product(pairs(Y), pairs(X)):
            dy, dx = o[m, z, above, j] - o[m, z, i, j], o[m, z, i, left] - o[m, z, i, j]
            total += (abs(dy) ** 1.5 + abs(dx) ** 1.5) ** (0.7 / 1.5)
    assert HOST["total variation, other powers"][1](o)[0] == pytest.approx(total)


def test_mode_variance_by_definition():
    o = variables()["object"]
    f_y, f_x = np.meshgrid(np.fft.fftfreq(Y), np.fft.fftfreq(X), indexing="ij")
    b = np.fft.ifft2(np.exp(-(f_y**2 + f_x**2) / SIGMA**2) * np.fft.fft2(o))
    expected = sum((np.abs(b[m] - b.mean(axis=0)) ** 2).sum() for m in range(MODES)) / MODES
    assert HOST["mode variance"][1](o)[0] == pytest.approx(expected)


def test_missing_wedge_by_definition():
    o = variables()["object"]
    total = 0.0
    q_z, q_y, q_x = (
        np.fft.fftfreq(n, d) for n, d in zip(o.shape[1:], (SLICE_A, *PIXEL_A), strict=True)
    )
    power = (np.abs(np.fft.fftn(o, axes=(1, 2, 3))) ** 2).sum(axis=0)
    for z, y, x in np.ndindex(o.shape[1:]):
        across = q_y[y] ** 2 + q_x[x] ** 2
        along = BETA**2 * q_z[z] ** 2
        kappa = 2 / np.pi * np.arctan(along / across) if across else float(along > 0)
        total += kappa * power[z, y, x]
    assert HOST["missing wedge"][1](o)[0] == pytest.approx(total)


def test_pyptys_column_is_almost_free():
    weight = object_priors.wedge_weight((SLICES, Y, X), PIXEL_A, SLICE_A, BETA, "pypty")
    q_z = np.fft.fftfreq(SLICES, SLICE_A)
    np.testing.assert_allclose(weight[:, 0, 0], 2 / np.pi * np.arctan(BETA**2 * q_z**2))
    weight[:, 0, 0] = WEDGE[:, 0, 0]
    np.testing.assert_array_equal(weight, WEDGE)


def test_probe_terms_by_definition():
    p = variables()["probe"]
    spectrum = np.abs(np.fft.fft2(p))
    f_y, f_x = np.meshgrid(*(np.fft.fftfreq(n) for n in WINDOW), indexing="ij")
    far = np.hypot(f_y, f_x) > 0.25
    assert HOST["outside support"][1](p)[0] == pytest.approx(spectrum[..., far].sum())
    centred = np.fft.fftshift(spectrum, axes=(-2, -1))
    laplacian = np.zeros_like(centred)
    for i, j in np.ndindex(WINDOW):
        around = ((i - 1, j), ((i + 1) % WINDOW[0], j), (i, j - 1), (i, (j + 1) % WINDOW[1]))
        laplacian[..., i, j] = sum(centred[..., a, b] for a, b in around) - 4 * centred[..., i, j]
    expected = (laplacian[..., np.fft.fftshift(NEAR)] ** 2).sum()
    assert HOST["scan frequencies"][1](p)[0] == pytest.approx(expected)
    assert HOST["outside window"][1](p)[0] == pytest.approx((RIM * np.abs(p) ** 2).sum())


def test_a_mask_as_support_is_centred():
    mask = np.zeros(WINDOW)
    mask[WINDOW[0] // 2, WINDOW[1] // 2] = 0.5
    support = probe_priors.reciprocal_support(mask, WINDOW)
    assert support[0, 0]
    assert support.sum() == 1


def test_scan_frequencies_by_loops():
    q_y, q_x = np.fft.fftfreq(WINDOW[0], PIXEL_A[0]), np.fft.fftfreq(WINDOW[1], PIXEL_A[1])
    last = int(np.ceil(STEP_A / (2 * PIXEL_A[0])))
    orders = range(-last, last + 1)
    for i, k in np.ndindex(WINDOW):
        near = any(
            np.hypot(q_y[i] * STEP_A - a, q_x[k] * STEP_A - b) <= 0.35
            for a, b in itertools.product(orders, orders)
            if a**2 + b**2 <= (0.8 * last) ** 2
        )
        assert NEAR[i, k] == near
    assert 0 < NEAR.sum() < NEAR.size


def test_window_of_radii():
    half = [(n - 1) / 2 for n in WINDOW]
    for index in np.ndindex(WINDOW):
        expected = 1.0
        for i, h in zip(index, half, strict=True):
            r = abs(i - h) / h
            inner, outer = 0.3, 0.9
            expected *= (
                1 if r <= inner
                else 0 if r > outer
                else 0.5 * (1 + np.cos(np.pi * (r - inner) / (outer - inner)))
            )  # fmt: skip
        assert RIM[index] == pytest.approx(1 - expected)


def test_scan_terms_by_loops():
    v = variables()["tilts"]
    grid = v.reshape(*SCAN, 6)
    fast = sum(
        ((grid[i, j - 1] - 2 * grid[i, j] + grid[i, j + 1]) ** 2).sum()
        for i in range(SCAN[0])
        for j in range(1, SCAN[1] - 1)
    )
    rows = grid.sum(axis=1)
    slow = sum(
        ((rows[i - 1] - 2 * rows[i] + rows[i + 1]) ** 2).sum() for i in range(1, SCAN[0] - 1)
    )
    y, x = np.indices(SCAN).reshape(2, -1)
    design = np.stack([y, x, np.ones_like(y)], axis=1)
    residual = v - design @ np.linalg.lstsq(design, v)[0]
    assert HOST["fast axis of tilts"][1](v)[0] == pytest.approx(fast)
    assert HOST["slow axis of tilts"][1](v)[0] == pytest.approx(slow)
    assert HOST["deformation of tilts"][1](v)[0] == pytest.approx((residual**2).sum())


@pytest.mark.parametrize("scan", [(1, 6), (6, 1), (2, 3), (1, 1)])
def test_short_scans(scan):
    """Lines and pairs have no curvature; along a line the deformation is the deviation from it."""
    rng = np.random.default_rng(1)
    v = rng.standard_normal((scan[0] * scan[1], 2))
    for f, n in ((scan_priors.fast_axis, scan[1]), (scan_priors.slow_axis, scan[0])):
        value, gradient = f(v, scan)
        assert (value > 0) == (n > 2)
        assert gradient.shape == v.shape
    i = np.arange(len(v))
    if 1 in scan and len(v) > 1:
        expected = sum(((c - np.polyval(np.polyfit(i, c, 1), i)) ** 2).sum() for c in v.T)
        assert scan_priors.deformation(v, scan)[0] == pytest.approx(expected)


def test_where_there_is_no_derivative():
    """Constant objects, dark pixels and empty spectra have finite gradients."""
    flat = np.zeros((1, 2, 5, 7), complex)
    for f in (
        lambda o: object_priors.total_variation(o, p=1.0, q=1.0),
        object_priors.phase_norm,
        object_priors.absorption_norm,
        lambda o: probe_priors.outside_support(o, np.ones((5, 7)), Backend()),
    ):
        value, gradient = f(flat)
        assert np.isfinite(value)
        assert not gradient.any()
