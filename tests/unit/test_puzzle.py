"""Repair of scans whose blocks have jumped: scans and objects are not square."""

import numpy as np
import pytest

from pyptyx.methods import puzzle

SCAN = (13, 17)


def raster(noise=0.05):
    """A sheared, slightly bent scan with noise: (scan_y, scan_x, 2)."""
    y, x = np.indices(SCAN).astype(float)
    field = np.stack([2.3 * y + 0.2 * x + 0.004 * y * x, 2.1 * x - 0.3 * y], axis=-1)
    return field + noise * np.random.default_rng(5).standard_normal(field.shape)


def repaired(field):
    worked, points = puzzle.position_puzzling(field.reshape(-1, 2), SCAN)
    return worked, points.reshape(field.shape)


def test_two_blocks_come_back():
    """A corner and a band jump by different vectors; the largest block stays."""
    true = raster()
    jumped = true.copy()
    jumped[:5, :6] += [3.0, -2.0]
    jumped[9:] += [1.5, 6.0]
    before = jumped.copy()
    worked, out = repaired(jumped)
    assert worked
    assert np.abs(out - true).max() < 0.35
    np.testing.assert_array_equal(jumped, before)
    np.testing.assert_allclose(out[6, 10:], true[6, 10:])  # inside the largest block


def test_exact_grids_are_restored_exactly():
    y, x = np.indices(SCAN)
    true = np.stack([1.9 * y - 0.1 * x, 2.4 * x + 0.2 * y], axis=-1)
    jumped = true + np.where(x[..., None] < 5, [-2.0, 4.0], 0.0)
    worked, out = repaired(jumped)
    assert worked
    np.testing.assert_allclose(out, true, atol=1e-10)


@pytest.mark.parametrize(
    "field",
    [raster(), raster(0.0), np.zeros((*SCAN, 2)), raster(1.0)],
    ids=["noise", "smooth", "one point", "strong noise"],
)
def test_scans_without_a_jump_are_left_alone(field):
    worked, out = repaired(field)
    assert not worked
    np.testing.assert_array_equal(out, field)


def test_small_jumps_are_left_alone():
    y, x = np.indices(SCAN)
    field = np.stack([1.9 * y + 0.3 * (x >= 7), 2.4 * x], axis=-1)
    assert not repaired(field)[0]


def test_one_point_alone_is_no_block():
    field = raster(0.0)
    field[6, 8] += 5.0
    assert not repaired(field)[0]


@pytest.mark.parametrize("scan", [(1, 12), (2, 6), (12, 1)])
def test_lines_are_left_alone(scan):
    points = np.random.default_rng(0).standard_normal((12, 2))
    assert puzzle.position_puzzling(points, scan)[0] is False


def test_shifts_solve_their_equations():
    """Three regions in a row without noise: shifts relative to the largest."""
    y, x = np.indices(SCAN)
    labels = np.where(x < 4, 1, np.where(x < 13, 2, 3))
    labels[:, [3, 12]] = 0
    offsets = np.array([[0, 0], [2.0, -1.0], [0.0, 0.0], [0.5, 4.0]])
    field = np.stack([2.0 * y, 2.5 * x], axis=-1) + offsets[labels]
    np.testing.assert_allclose(puzzle.block_shifts(field, labels), -offsets, atol=1e-10)


def test_regions_between_edges():
    edges = np.zeros(SCAN)
    edges[4] = edges[5] = edges[:, 9] = 3.0
    labels = puzzle.segment_regions(edges, sigma=0.4)
    assert (labels[edges > 0] == 0).all()
    assert sorted(set(labels.ravel())) == [0, 1, 2, 3, 4]
    for quarter in (labels[:4, :9], labels[:4, 10:], labels[6:, :9], labels[6:, 10:]):
        assert len(set(quarter.ravel()) - {0}) == 1  # the corner may belong to the edges


def test_the_object_moves_with_the_positions():
    """Defect BUG-25: PyPty transposes the field.  The lower part moves along x only."""
    obj = np.random.default_rng(1).standard_normal((2, 3, 40, 27)) + 1j
    before = 2.0 * np.indices((15, 8)).reshape(2, -1).T + 0.3
    after = before + np.where(before[:, :1] >= 14, [0.0, 3.0], 0.0)
    window = (10, 12)
    out = puzzle.moved_object(obj, before, after, window)
    np.testing.assert_allclose(out[..., :18, :20], obj[..., :18, :20])
    np.testing.assert_allclose(out[..., 20:, 9:], obj[..., 20:, 6:-3])
