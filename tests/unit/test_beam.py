"""Vacuum probe, conjugation, alignment and local tilts."""

import numpy as np
import pytest

import pyptyx.initialize as face
from pyptyx.constants import wavelength_A
from pyptyx.engine.start_probe import detector_to_probe, probe_to_detector
from pyptyx.errors import ParamError, ShapeError
from pyptyx.physics.grid import Grid
from pyptyx.physics.optics import aberration_phase, apply_phase


def soft_disc(shape, centre, radius=3.0):
    y, x = (np.arange(n) - n // 2 - c for n, c in zip(shape, centre, strict=True))
    return 1 / (1 + np.exp(2 * (np.hypot(y[:, None], x) - radius)))


def wave(shape, aberrations):
    grid = Grid(shape, (0.4, 0.5), 0.02)
    focused = detector_to_probe(np.sqrt(soft_disc(shape, (0, 0))))
    chi = aberration_phase(aberrations, grid.q_y[:, None], grid.q_x, grid.wavelength_A)
    return apply_phase(focused, chi)


@pytest.mark.parametrize("shape", [(16, 14), (15, 14), (17, 13)])
def test_conjugation_negates_aberrations(shape):
    """Acceptance (j); BUG-4 of PyPty deleted a list. Odd sizes work too."""
    aberrations = [60.0, 20, -15, 400, 300]
    probe = np.stack([wave(shape, aberrations)] * 3, -1)
    copy = probe.copy()
    given = {"aberrations": aberrations, "extra_probe_defocus": 12.0, "probe": probe}
    out = face.conjugate_beam(given)
    assert out is given
    np.testing.assert_allclose(out["aberrations"], [-60, -20, 15, -400, -300])
    assert out["extra_probe_defocus"] == -12
    expected = wave(shape, [-c for c in aberrations])
    np.testing.assert_allclose(out["probe"], np.stack([expected] * 3, -1), atol=1e-12)
    np.testing.assert_array_equal(probe, copy)
    array = face.conjugate_beam({"aberrations": np.array(aberrations)})
    np.testing.assert_array_equal(array["aberrations"], out["aberrations"])


@pytest.mark.parametrize("upsample", [1, 2])
def test_vacuum_probe_has_the_counts(upsample):
    """BUG-9 of PyPty: 4.27 times too many at upsample 2."""
    pattern = 100 * soft_disc((12, 8), (0, 0), 2.5)
    out = face.get_focussed_probe_from_vacscan(
        {"data_pad": 4, "upsample_pattern": upsample}, pattern
    )
    probe = out["probe"]
    assert probe.shape == (12 * upsample + 8, 8 * upsample + 8, 1)
    size = probe.shape[0] * probe.shape[1]
    assert size * (np.abs(probe) ** 2).sum() == pytest.approx(pattern.sum())
    mask = face.append_aperture_to_params({"data_pad": 4, "upsample_pattern": upsample}, pattern)[
        "aperture_mask"
    ]
    np.testing.assert_allclose(mask, np.abs(probe_to_detector(probe[..., 0])) ** 2, atol=1e-10)


@pytest.mark.parametrize("scenarios", [(), (2,)])
@pytest.mark.parametrize(("align", "tolerance"), [("com", 0.02), ("correlation", 0.15)])
@pytest.mark.parametrize("shift", [(2.3, -1.7), (-2.3, 1.7), (3.0, 2.0)])
def test_beam_is_tilted_onto_the_data(align, tolerance, shift, scenarios):
    """BUG-12 of PyPty: the sub-pixel part had the wrong sign on one side."""
    shape, pad = (30, 26), 5
    amplitude = np.pad(np.sqrt(soft_disc(shape, (0, 0), 4)), pad)
    probe = np.multiply.outer(detector_to_probe(amplitude), np.ones((3, *scenarios)))
    params = {
        "probe": probe,
        "data_pad": pad,
        "upsample_pattern": 1,
        "mean_pattern": soft_disc(shape, shift, 4),
    }
    face.tiltbeamtodata(params, align)
    assert params["probe"].shape == probe.shape
    moved = params["probe"].reshape(*probe.shape[:2], -1)[..., 0]
    footprint = np.abs(probe_to_detector(moved)) ** 2
    y, x = (np.arange(n) - n // 2 for n in footprint.shape)
    found = np.array([footprint.sum(1) @ y, footprint.sum(0) @ x]) / footprint.sum()
    np.testing.assert_allclose(found, shift, atol=tolerance)


def test_tilting_with_upsampling():
    shape, u = (20, 24), 2
    amplitude = np.sqrt(soft_disc((40, 48), (0.5, 0.5), 6))
    pattern = soft_disc(shape, (2, -3), 3)
    params = {
        "probe": detector_to_probe(amplitude)[..., None],
        "data_pad": 0,
        "upsample_pattern": u,
        "mean_pattern": pattern,
    }
    face.tiltbeamtodata(params)
    footprint = np.abs(probe_to_detector(params["probe"][..., 0])) ** 2
    binned = footprint.reshape(20, 2, 24, 2).sum((1, 3))
    y, x = (np.arange(n) - n // 2 for n in shape)
    found = np.array([binned.sum(1) @ y, binned.sum(0) @ x]) / binned.sum()
    np.testing.assert_allclose(found, (2, -3), atol=0.02)


def test_tilting_errors():
    with pytest.raises(ParamError, match="probe"):
        face.tiltbeamtodata({"probe": None, "mean_pattern": np.ones((4, 5))})
    with pytest.raises(ShapeError, match="probe"):
        face.tiltbeamtodata({"probe": np.ones((3, 4, 1)), "mean_pattern": np.ones((4, 5))})


@pytest.fixture
def tilted(tmp_path):
    """A scan of 5 x 6 whose disc wanders quadratically; stored on disk."""
    iy, ix = (v.ravel() for v in np.mgrid[:5, :6])
    shifts = np.stack([3 + 0.2 * iy - 0.05 * ix**2, 2 - 0.1 * ix + 0.03 * iy * ix], 1)
    patterns = np.stack([soft_disc((24, 22), s, 3) for s in shifts])
    path = tmp_path / "tilted.npy"
    np.save(path, patterns)
    params = {
        "data_path": str(path),
        "scan_size": (5, 6),
        "positions": np.stack([iy, ix], 1) * 3.0,
        "rez_pixel_size_A": 0.02,
        "upsample_pattern": 2,
        "acc_voltage": 60,
    }
    return params, shifts * 0.04 * wavelength_A(60)


@pytest.mark.parametrize("power", [3, np.inf, "inf"])
@pytest.mark.parametrize("binary", [False, 0.5])
def test_local_tilts(tilted, power, binary):
    """BUG-13 of PyPty: crashed for data on disk; upsampling was forgotten."""
    params, expected = tilted
    out = face.get_approx_beam_tilt(params, power, binary)
    assert out is params
    assert out["tilt_mode"] == 1
    assert out["tilts"].shape == (30, 6)
    px = 0.04 * wavelength_A(60)
    np.testing.assert_allclose(out["tilts"][:, 4:], expected, atol=(0.3 if binary else 0.01) * px)
    assert not out["tilts"][:, :4].any()


def test_local_tilts_of_low_power_and_filter(tilted):
    params, expected = tilted
    mean = face.get_approx_beam_tilt(dict(params), 1)["tilts"][:, 4:]
    np.testing.assert_allclose(mean, np.broadcast_to(expected.mean(0), (30, 2)), rtol=1e-2)
    few = face.get_approx_beam_tilt(params | {"sequence": [0, 1]}, 1)["tilts"][:, 4:]
    np.testing.assert_allclose(few[7], expected[:2].mean(0), rtol=1e-2)
    shifts = {"aperture_shifts_y": np.arange(30.0), "aperture_shifts_x": np.zeros(30)}
    out = face.get_approx_beam_tilt(params | shifts, np.inf, False, 50, 3)["tilts"]
    assert out[8, 4] == pytest.approx(8 * 0.04 * wavelength_A(60))
