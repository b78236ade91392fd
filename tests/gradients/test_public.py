"""Taylor tests through the params dictionary: layouts, keys and coordinates of the gradients."""

import h5py
import numpy as np
import pytest

import pyptyx
from pyptyx.physics.grid import Grid
from tests.gradients.checks import assert_taylor, normal

N, MODES, OBJECT_MODES, SLICES, COEFFICIENTS = 5, 2, 4, 3, 7
WINDOW, FIELD = (13, 18), (31, 37)
STEPS = np.geomspace(1e-3, 1e-5, 5)
SCALE = {"tilts": 2e-3, "aberrations_array": 10.0}
WAVELENGTH_A, PIXEL_A, CUTOFF = 0.025, (0.31, 0.24), 0.8


def on_probe(operate, probe):
    """Apply `operate` to the spectrum of a public probe (ny, nx, ...)."""
    return np.fft.ifft2(operate(np.fft.fft2(probe, axes=(0, 1))), axes=(0, 1))


def mask(window):
    """Band limit, broadcastable to a public probe."""
    return Grid(window, PIXEL_A, WAVELENGTH_A, CUTOFF).mask[:, :, None]


def base(rng, window=WINDOW, data_shape=None, **extra):
    """Params with a random point and random data."""
    data_shape = data_shape or window
    factors = rng.exponential(1.0, (N, *data_shape)) * (rng.random((N, *data_shape)) > 0.1)
    return {
        "dataset": 1000.0 * factors,
        "obj": normal(rng, *FIELD, SLICES, OBJECT_MODES),
        "probe": on_probe(lambda s: s * mask(window), normal(rng, *window, MODES)),
        "positions": rng.integers(1, 15, (N, 2)) + rng.uniform(-0.4, 0.4, (N, 2)),
        "wavelength_A": WAVELENGTH_A,
        "pixel_size_y_A": PIXEL_A[0],
        "pixel_size_x_A": PIXEL_A[1],
        "slice_distances": [20.0, 35.0],
        "damping_cutoff_multislice": CUTOFF,
        "update_probe_pos": 1,
        "skip_preprocessing": True,
        "apply_aberrations_to_probe": False,
        "default_dtype": "double",
        "compute_batch": 2,
        "devices": 1,
        "backend": "cpu",
        **extra,
    }


def with_everything(rng, tmp_path, **extra):
    """All refinable arrays and a plate per measurement."""
    path = tmp_path / "plates.h5"
    with h5py.File(path, "w") as file:
        file["configs"] = np.exp(1j * normal(rng, N, *WINDOW, real=True))
    return base(rng) | {
        "phase_plate_in_h5": str(path),
        "tilts": 3e-3 * normal(rng, N, 6, real=True),
        "tilt_mode": 4,
        "update_tilts": 1,
        "beam_current": rng.uniform(0.5, 1.5, N) * [1, -1, 1, 1, -1],
        "update_beam_current": 1,
        "static_background": 3 + rng.random(WINDOW),
        "update_static_background": 1,
        "aberrations_array": 2 * normal(rng, 3, COEFFICIENTS, real=True),
        "aberration_marker": [2, 2, 1, 0, 0],
        "update_aberrations_array": 1,
        **extra,
    }


def loss(params):
    return pyptyx.loss_and_gradient(params)[0]


def direction(key, value, rng):
    """A random direction; for the probe inside the band limit."""
    d = normal(rng, *value.shape, real=value.dtype.kind == "f") * SCALE.get(key, 1.0)
    return on_probe(lambda s: s * mask(value.shape[:2]), d) if key == "probe" else d


def check(params, rng, expected=None):
    """Taylor tests of all variables that have a gradient."""
    gradients = pyptyx.loss_and_gradient(params)[2]
    if expected is not None:
        assert gradients.keys() == expected
    for key, g in gradients.items():
        assert g.shape == params[key].shape, key
        x = {key: params[key]}
        d = {key: direction(key, params[key], rng)}
        assert_taylor(lambda t: loss(params | t), {key: g}, x, d, STEPS, key)


@pytest.mark.parametrize("limit", ["whole", "patch"])
@pytest.mark.parametrize("algorithm", ["lsq_sqrt", "ml", "lsq", "lsq_sqrt_2"])
def test_everything(tmp_path, algorithm, limit):
    rng = np.random.default_rng(20)
    params = with_everything(rng, tmp_path, algorithm=algorithm, object_band_limit=limit)
    check(
        params,
        rng,
        {
            "obj", "probe", "positions", "tilts", "static_background", "beam_current",
            "aberrations_array",
        },
    )  # fmt: skip


@pytest.mark.parametrize("rows", [1, N])
@pytest.mark.parametrize("mode", range(5))
def test_tilt_modes(mode, rows):
    rng = np.random.default_rng(21)
    tilts = 3e-3 * normal(rng, rows, 6, real=True)
    params = base(rng, tilts=tilts, tilt_mode=mode, update_tilts=1)
    check(params, rng, {"obj", "probe", "positions", "tilts"})
    columns = {0: [2, 3], 1: [4, 5], 2: [0, 1], 3: [2, 3, 4, 5], 4: range(6)}[mode]
    g = pyptyx.loss_and_gradient(params)[2]["tilts"]
    assert set(np.flatnonzero(g.any(axis=0))) == set(columns)


@pytest.mark.parametrize(
    ("window", "data_shape", "extra"),
    [
        ((13, 18), (9, 14), {"data_pad": 2}),
        ((13, 18), (9, 14), {"data_pad": 2, "use_padded_intensity": False}),
        ((14, 20), (5, 8), {"data_pad": 2, "upsample_pattern": 2}),
        ((14, 20), (5, 8), {"data_pad": 2, "upsample_pattern": 2, "use_padded_intensity": False}),
        ((15, 9), (5, 3), {"upsample_pattern": 3}),
    ],
    ids=["pad", "crop", "up-sample and pad", "up-sample and crop", "up-sample"],
)
def test_detector_sizes(window, data_shape, extra):
    rng = np.random.default_rng(27)
    upsample = extra.get("upsample_pattern", 1)
    pad = extra.get("data_pad", 0) // upsample if extra.get("use_padded_intensity", True) else 0
    root = 3 + rng.random((data_shape[0] + 2 * pad, data_shape[1] + 2 * pad))
    params = base(rng, window, data_shape, static_background=root, update_static_background=1)
    check(params | extra, rng, {"obj", "probe", "positions", "static_background"})


def test_scenarios():
    rng = np.random.default_rng(23)
    params = base(rng, probe_marker=[2, 0, 1, 0, 2])
    params["probe"] = on_probe(
        lambda s: s * mask(WINDOW)[..., None], normal(rng, *WINDOW, MODES, 3)
    )
    g = pyptyx.loss_and_gradient(params)[2]["probe"]
    d = on_probe(lambda s: s * mask(WINDOW)[..., None], normal(rng, *WINDOW, MODES, 3))
    x = {"probe": params["probe"]}
    assert_taylor(lambda t: loss(params | t), {"probe": g}, x, {"probe": d}, STEPS)


@pytest.mark.parametrize("shift", [False, True])
def test_probe_gradient_is_projected_onto_the_band_limit(shift):
    rng = np.random.default_rng(28)
    g = pyptyx.loss_and_gradient(base(rng, allow_subPixel_shift=shift))[2]["probe"]
    spectrum = np.fft.fft2(g, axes=(0, 1))
    inside = np.broadcast_to(mask(WINDOW), spectrum.shape)
    assert np.abs(spectrum[inside]).min() > 1e-3
    np.testing.assert_allclose(spectrum[~inside], 0, atol=1e-8)


# -- coordinates: the gradient is that of a phase or a modulus ---------------------------------


def test_phase_of_the_object(tmp_path):
    rng = np.random.default_rng(24)
    params = with_everything(rng, tmp_path, phase_only_obj=True)
    g = pyptyx.loss_and_gradient(params)[2]["obj"]
    assert g.dtype == np.float64
    assert g.shape == params["obj"].shape

    def f(t):
        return loss(params | {"obj": params["obj"] * np.exp(1j * t["phase"])})

    x = {"phase": np.zeros(g.shape)}
    assert_taylor(f, {"phase": g}, x, {"phase": normal(rng, *g.shape, real=True)}, STEPS)


@pytest.mark.parametrize("plate", [False, True], ids=["bare", "everything"])
@pytest.mark.parametrize("kind", ["phase", "abs"])
def test_phase_or_modulus_of_the_probe(tmp_path, kind, plate):
    """Defects G4, O7: PyPty's gradients of both are wrong."""
    rng = np.random.default_rng(25)
    params = with_everything(rng, tmp_path) if plate else base(rng)
    params[f"tune_only_probe_{kind}"] = True
    g = pyptyx.loss_and_gradient(params)[2]["probe"]
    assert g.dtype == np.float64
    assert g.shape == params["probe"].shape

    def f(t):
        def change(spectrum):
            if kind == "phase":
                return spectrum * np.exp(1j * t["u"])
            return spectrum + t["u"] * np.exp(1j * np.angle(spectrum))

        return loss(params | {"probe": on_probe(change, params["probe"])})

    d = normal(rng, *g.shape, real=True) * mask(WINDOW)
    assert_taylor(f, {"u": g}, {"u": np.zeros(g.shape)}, {"u": d}, STEPS)


def test_gradient_of_the_modulus_outside_an_aperture_is_zero():
    """There is no phase to keep: rounding noise must not choose one."""
    rng = np.random.default_rng(26)
    aperture = Grid(WINDOW, PIXEL_A, WAVELENGTH_A, 0.4).mask[:, :, None]
    params = base(rng, tune_only_probe_abs=True)
    params["probe"] = on_probe(lambda s: s * aperture, normal(rng, *WINDOW, MODES))
    g = pyptyx.loss_and_gradient(params)[2]["probe"]
    outside = np.broadcast_to(~aperture, g.shape)
    assert np.abs(g[~outside]).min() > 1e-3
    np.testing.assert_array_equal(g[outside], 0)
