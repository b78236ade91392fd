"""Whole runs against PyPty's logged trajectories: same steps, same evaluation counts, same losses.

``optimizer="pypty"`` follows PyPty's step rule; the default rule is compared for what it is meant
to be: better in fewer evaluations.
"""

from itertools import pairwise

import numpy as np
import pytest

import pyptyx
from tests.golden import closed_form as cf
from tests.golden.trajectories import TRAJECTORIES

VARIANTS = {
    "A": {},
    "B": {"hist_length": 0},
    "C": {"hist_length": 1},
    "D": {"algorithm": "ml", "ml_floor": 0, "update_probe": 0},
    "E": {"algorithm": "lsq", "hist_length": 3, "wolfe_c2_constant": 0.5},
    "F": {"atv_weight": 1.0},
}


@pytest.fixture(scope="module")
def problem():
    y, x = np.mgrid[:6, :6]
    physics = {
        "positions": 2.3 * np.stack([y.ravel(), x.ravel()], axis=1),
        "wavelength_A": cf.WAVELENGTH_A,
        "pixel_size_x_A": cf.PIXEL_A,
        "pixel_size_y_A": cf.PIXEL_A,
        "object_band_limit": "patch",
        "default_dtype": "double",
        "compute_batch": 12,
        "devices": 1,
    }
    truth = np.exp(0.3j * cf.h((30, 30, 1, 1), 0.5, 0.2, 0.3))
    data = pyptyx.simulate(
        physics | {"obj": truth, "probe": cf.probe(1), "skip_preprocessing": True}
    )
    assert data.sum() == pytest.approx(1852860.6758061836, rel=1e-12)
    return physics | {
        "dataset": data,
        "probe": 1.05 * cf.probe(1),
        "scan_size": (6, 6),
        "epoch_max": 6,
        "output_folder": None,
        "print_flag": 0,
    }


@pytest.mark.parametrize("variant", VARIANTS)
def test_pypty_rule(problem, variant):
    result = pyptyx.run(problem | VARIANTS[variant] | {"optimizer": "pypty"})
    assert result.object.shape == (28, 28, 1, 1)
    for record, expected in zip(result.losses, TRAJECTORIES[variant], strict=True):
        loss, sse, step, evaluations, slope, new_slope = expected
        assert record.loss == pytest.approx(loss, rel=1e-5)
        assert record.sse == pytest.approx(sse, rel=1e-5)
        assert record.step == pytest.approx(step, rel=1e-12)
        assert record.evaluations == evaluations
        assert record.slope == pytest.approx(slope, rel=1e-5)
        assert record.new_slope == pytest.approx(new_slope, rel=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_default_rule_needs_fewer_evaluations(problem, variant):
    reference = TRAJECTORIES[variant]
    result = pyptyx.run(problem | VARIANTS[variant])
    assert result.losses[-1].loss < reference[-1][0]
    assert sum(r.evaluations for r in result.losses) < sum(row[3] for row in reference)
    losses = [r.loss for r in result.losses] + [result.final_loss]
    assert all(b < a for a, b in pairwise(losses))


def test_history_length_inf(problem):
    """Defect O6: PyPty raises."""
    result = pyptyx.run(problem | {"hist_length": np.inf, "print_flag": 0})
    assert result.final_loss < result.losses[-1].loss
