"""How much light falls on the object: added up window by window, or convolved."""

import numpy as np
import pytest

from pyptyx.engine import preconditioner
from pyptyx.terms.data_term import ScanTable


@pytest.mark.parametrize("scenarios", [1, 3])
def test_convolved_as_added_up(monkeypatch, scenarios):
    rng = np.random.default_rng(2)
    count, shape, window = 40, (31, 27), (8, 11)
    room = np.subtract(shape, window)
    corners = rng.integers(0, room, (count, 2), endpoint=True)
    corners[:3] = [room, (0, 0), (room[0], 0)]
    corners[:, 1] = np.minimum(corners[:, 1], 9)  # columns on the right stay dark
    scenario = None if scenarios == 1 else rng.integers(0, scenarios, count)
    x = {"object": np.ones((2, 4, *shape), complex)}
    power = rng.uniform(0.1, 1, (scenarios, *window))
    current = rng.uniform(0.5, 2, 17)
    sequence = np.sort(rng.permutation(count)[:17])
    light = []
    for many in (0, np.inf):
        monkeypatch.setattr(preconditioner, "_MANY", many)
        table = ScanTable(corners, scenario)
        light.append(preconditioner._illumination(x, table, sequence, power, current))
    convolved, added = light
    np.testing.assert_allclose(convolved, added, atol=1e-12 * added.max())
    np.testing.assert_array_equal(convolved == 0, added == 0)
    assert (added == 0).any()
