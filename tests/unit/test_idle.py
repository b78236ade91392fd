"""Parameters that change nothing are named."""

import numpy as np
import pytest

import pyptyx

SCAN, WINDOW = (3, 4), (10, 14)


def parameters(**changes):
    return {
        "dataset": np.random.default_rng(0).poisson(9, (12, *WINDOW)).astype(np.uint8),
        "positions": 1.7 * np.indices(SCAN).reshape(2, -1).T,
        "scan_size": SCAN,
        "acc_voltage": 80,
        "pixel_size_y_A": 0.3,
        "pixel_size_x_A": 0.4,
        "backend": "cpu",
        "devices": 1,
        **changes,
    }


def idle(caplog, **changes):
    """Keys that a set-up says are without effect."""
    caplog.clear()
    pyptyx.loss_and_gradient(parameters(**changes))
    marked = [m.split(" has no effect: ") for m in caplog.messages if "has no effect" in m]
    assert all(len(parts) == 2 for parts in marked)
    return {key for key, _why in marked}


TWO_SLICES = {"num_slices": 2, "slice_distances": [4.0]}
LATER = "lambda epoch: epoch > 4"


@pytest.mark.parametrize(
    ("key", "value", "cure"),
    [
        ("Cs", 1e6, {"recon_type": "near_field"}),
        ("alpha_near_field", 1e-4, {"recon_type": "near_field"}),
        ("defocus_array", [300.0], {"recon_type": "near_field"}),
        ("focal_spread", 20.0, {"mc_n_modes": 2}),
        ("spatial_coh_x_A", 0.3, {"mc_n_modes": 2}),
        ("update_probe_pos", LATER, None),
        ("update_tilts", LATER, {"tilt_mode": 1}),
        ("update_tilts", True, TWO_SLICES),
        ("fast_axis_reg_weight_positions", 0.1, {"update_probe_pos": LATER}),
        ("deformation_reg_weight_tilts", LATER, {"update_tilts": True, "tilt_mode": 2}),
        ("mixed_variance_weight", 0.1, {"obj": np.ones((1, 1, 1, 2))}),
        ("wedge_mu", 0.1, TWO_SLICES | {"beta_wedge": 1.0}),
    ],
)
def test_what_has_no_effect_is_named(caplog, key, value, cure):
    off = {"allow_subPixel_shift": False} if cure is None else {}
    assert idle(caplog, **{key: value}, **off) == {key}
    assert idle(caplog, **{key: value}, **(cure or {})) == set()


def test_slices_alone_do_not_make_a_wedge(caplog):
    assert idle(caplog, **TWO_SLICES, wedge_mu=0.1) == {"wedge_mu"}


def test_defaults_are_not_idle(caplog):
    assert idle(caplog) == set()
