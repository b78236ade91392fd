"""Scan geometry, rotation from the centre of mass, chunks and sequences."""

import numpy as np
import pytest

import pyptyx.initialize as face
from pyptyx.engine import geometry
from pyptyx.errors import ParamError, ShapeError

# ---- positions --------------------------------------------------------------------------------


def test_positions_of_a_rotated_grid():
    """Acceptance (a): φ = 30°, 2 x 2, step 1 Å."""
    positions = geometry.scan_positions_A((2, 2), 1.0, 30.0)
    expected = [(0, 0.5), (0.5, 1.366025), (0.866025, 0), (1.366025, 0.866025)]
    np.testing.assert_allclose(positions, expected, atol=1e-6)


def test_transform_matrix_acts_on_y_x_columns():
    """Acceptance (b)."""
    positions, pixel = face.get_positions_pixel_size(
        2, 2, 1.0, 0.25, (4, 4), transform_axis_matrix=[[1, 0], [0.3, 2]]
    )
    assert pixel == 1.0
    np.testing.assert_allclose(positions, [(0, 0), (0, 2), (1, 0.3), (1, 2.3)], atol=1e-12)


def test_transform_acts_before_the_rotation():
    matrix = np.array([[1.1, 0.2], [-0.1, 0.9]])
    made = geometry.scan_positions_A((3, 4), 2.0, 25.0, transform=matrix)
    plain = geometry.scan_positions_A((3, 4), 2.0, 0.0, transform=matrix)
    np.testing.assert_allclose(made, geometry.rotated_positions(plain, 25.0, (1, 1)), atol=1e-12)


def test_flip_reverses_the_scan():
    plain = geometry.scan_positions_A((3, 4), 1.0).reshape(3, 4, 2)
    flipped = geometry.scan_positions_A((3, 4), 1.0, flip=(False, True)).reshape(3, 4, 2)
    np.testing.assert_allclose(flipped, plain[:, ::-1])


def test_positions_of_unequal_pixels():
    """Window 8 x 5: y pixels are 1/(rez 8), x pixels 1/(rez 5)."""
    positions, pixel = face.get_positions_pixel_size(3, 2, 2.0, 0.1, (99, 8, 5))
    assert pixel == pytest.approx(2.0)
    np.testing.assert_allclose(positions[:, 1], [0, 1, 2, 0, 1, 2], atol=1e-12)
    np.testing.assert_allclose(positions[:, 0], [0, 0, 0, 1.6, 1.6, 1.6], atol=1e-12)


def test_offset_is_in_angstrom():
    """Acceptance (c): x_range 5, y_range 4, step 2 Å, ψ = -30°."""
    off = face.get_offset(4, 5, 2.0, 0.1, (8, 6), rot_angle_deg=-30)
    np.testing.assert_allclose(off, (0, 4.0), atol=1e-12)
    off = face.get_offset(5, 4, 2.0, 0.1, (8, 6), rot_angle_deg=-30)
    np.testing.assert_allclose(off, (0, 3.0), atol=1e-12)


@pytest.mark.parametrize("matrix", [None, [[1.1, 0.2], [-0.1, 0.9]]])
def test_image_on_the_scan_points_gives_the_positions(matrix):
    params = {
        "scan_size": (4, 5),
        "scan_step_A": 1.5,
        "PLRotation_deg": 35.0,
        "transform_axis_matrix": matrix,
    }
    grid = face.get_grid_for_upsampled_image(params, np.zeros((4, 5)), 1.5)
    expected = geometry.scan_positions_A((4, 5), 1.5, 35.0, transform=matrix)
    np.testing.assert_allclose(grid, expected, atol=1e-12)
    moved = face.get_grid_for_upsampled_image(params, np.zeros((6, 8)), 1.5, 2, 1).reshape(6, 8, 2)
    np.testing.assert_allclose(moved[1:5, 2:7].reshape(-1, 2), expected, atol=1e-12)


@pytest.mark.parametrize("pixel", [(1.0, 1.0), (0.4, 0.3)])
def test_rotating_the_grid_equals_making_it_anew(pixel):
    """Acceptance (f); BUG-2 of PyPty turned the other way."""

    def params(angle):
        positions = geometry.scan_positions_A((4, 6), 1.2, angle) / pixel
        return {
            "positions": positions,
            "PLRotation_deg": angle,
            "pixel_size_y_A": pixel[0],
            "pixel_size_x_A": pixel[1],
        }

    start, goal = params(10.0), params(15.0)
    before = start["positions"]
    copy = before.copy()
    turned = face.rotate_scan_grid(start, angle_deg=5.0)
    assert turned is start
    assert turned["PLRotation_deg"] == 15.0
    np.testing.assert_allclose(turned["positions"], goal["positions"], atol=1e-12)
    np.testing.assert_array_equal(before, copy)
    again = face.rotate_scan_grid(params(10.0), new_pl_rot=15.0)
    np.testing.assert_allclose(again["positions"], goal["positions"], atol=1e-12)


# ---- rotation estimate ------------------------------------------------------------------------


def simulated_com(true_deg, flip_ky=False):
    """Centres of mass of patterns of atoms under a small beam, scanned at an angle.

    Independent of the package: own scan formula, own beam, own detector.
    """
    rng = np.random.default_rng(8)
    n, (ny, nx), step = 24, (22, 19), 1.7
    y, x = np.mgrid[:90, :90]
    phase = np.zeros((90, 90))
    for cy, cx in rng.uniform(0, 90, (160, 2)):
        phase += 0.15 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * 1.8**2))
    obj = np.exp(1j * phase)
    f = np.fft.fftfreq(n)
    beam = np.fft.fftshift(np.fft.ifft2(np.hypot(f[:, None], f[None, :]) < 0.13))
    c, s = np.cos(np.radians(true_deg)), np.sin(np.radians(true_deg))
    iy, ix = (v.ravel() for v in np.mgrid[:ny, :nx])
    px, py = step * (ix * c - iy * s), step * (ix * s + iy * c)
    px, py = np.rint(px - px.min()).astype(int), np.rint(py - py.min()).astype(int)
    com = []
    k = np.arange(n) - n // 2
    for r, q in zip(py, px, strict=True):
        pattern = np.abs(np.fft.fftshift(np.fft.fft2(beam * obj[r : r + n, q : q + n]))) ** 2
        com.append([pattern.sum(1) @ k, pattern.sum(0) @ k] / pattern.sum())
    comy, comx = np.array(com).T.reshape(2, ny, nx)
    return comx, (-comy if flip_ky else comy)


@pytest.mark.parametrize("true_deg", [0, 20, -35, 60, -80, 120, 170])
def test_rotation_of_simulated_data(true_deg):
    """Acceptance (g): within 1°, modulo 180°; here atoms also fix the branch. BUG-1 of PyPty."""
    found = geometry.estimate_rotation(*simulated_com(true_deg))
    error = (found.angle_deg - true_deg + 180) % 360 - 180
    assert abs(error) < 1
    assert abs(abs(found.alternative_deg - found.angle_deg) - 180) < 1e-9
    assert found.curl_ratio < 0.2
    assert not found.flip_ky_better
    assert found.skewness > 0


def test_reversed_ky_is_noticed():
    found = geometry.estimate_rotation(*simulated_com(20, flip_ky=True))
    assert found.flip_ky_better
    assert found.flipped_curl_ratio < 0.2 < found.curl_ratio


def test_integration_recovers_a_potential():
    y, x = np.mgrid[:40, :33]
    phase = np.exp(-((y - 20) ** 2 / 60 + (x - 14) ** 2 / 40))
    back = geometry._integrate(np.gradient(phase, axis=0), np.gradient(phase, axis=1))
    np.testing.assert_allclose(back, phase - phase.mean(), atol=0.03)


@pytest.mark.parametrize("shapes", [((1, 5), (1, 5)), ((3, 4), (4, 3)), ((6,), (6,))])
def test_rotation_needs_two_dimensions(shapes):
    with pytest.raises(ShapeError, match="PLRotation_deg"):
        geometry.estimate_rotation(np.ones(shapes[0]), np.ones(shapes[1]))


# ---- chunks and sequences ---------------------------------------------------------------------


def test_chunk_labels():
    """Acceptance (h), both orientations; BUG-3 of PyPty."""
    wide = geometry.chunk_labels((4, 6), 2).reshape(4, 6)
    assert wide[0].tolist() == wide[1].tolist() == [0, 0, 1, 1, 2, 2]
    assert wide[2].tolist() == wide[3].tolist() == [3, 3, 4, 4, 5, 5]
    tall = geometry.chunk_labels((6, 4), 2)
    assert sorted(set(tall.tolist())) == list(range(6))
    ragged = geometry.chunk_labels((5, 3), 2).reshape(5, 3)
    assert ragged[4].tolist() == [4, 4, 5]
    with pytest.raises(ParamError, match="chop_size"):
        geometry.chunk_labels((4, 6), 0)


def test_chunks_in_a_dictionary():
    params = face.create_aberrations_chunks({"scan_size": (6, 4)}, 2, 5)
    assert params["aberrations_array"].shape == (6, 5)
    assert params["aberration_marker"].max() == 5
    params = face.create_probe_marker_chunks({"scan_size": (4, 6)}, 3)
    assert params["probe_marker"].reshape(4, 6)[3].tolist() == [2, 2, 2, 3, 3, 3]


def test_sub_sequence_is_clipped_to_the_scan():
    params = face.create_sub_sequence(
        {"scan_size": (4, 6)}, left=3, top=1, width=9, height=2, sub=2
    )
    assert params["sequence"] == [9, 11]
    with pytest.raises(ParamError, match="sequence"):
        geometry.rectangle_sequence((4, 6), (7, 0), (2, 2), 1)


def test_points_are_exactly_as_wide_as_asked():
    params = {"scan_size": (7, 9)}
    odd = face.create_sequence_from_points(params, [3], [4], width_roi=3)
    assert odd == [r * 9 + c for r in (2, 3, 4) for c in (3, 4, 5)]
    even = face.create_sequence_from_points(params, [3], [4], width_roi=2)
    assert even == [r * 9 + c for r in (2, 3) for c in (3, 4)]
    corner = face.create_sequence_from_points(params, [0, 0], [8, 8], width_roi=3)
    assert corner == [7, 8, 16, 17]
    assert "sequence" not in params
