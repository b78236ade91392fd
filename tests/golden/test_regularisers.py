"""Every regulariser alone against PyPty's numbers, through the public face (loss weight 0)."""

import numpy as np
import pytest

import pyptyx
from pyptyx.output.losslog import EACH, read_loss_csv
from pyptyx.params.schema import RUN
from tests.golden import closed_form as cf
from tests.golden.test_evaluation import RELATIVE, base, with_tilts

Y, X = np.mgrid[:16, :16] - 8
DISC = Y**2 + X**2 <= 5
RIM = (np.hypot(Y, X) > 5).astype(float)


def on_object(slices=1, object_modes=1, **weights):
    return base(slices, 1, object_modes) | weights


def on_probe(**weights):
    return base(modes=2) | weights


def on_positions(key):
    return base(count=9) | {"scan_size": (3, 3), key: 0.3}


def on_tilts(key):
    tilts = 1e-2 * cf.h((9, 6), 0.7, 0.1, 0.3)
    params = with_tilts(base(modes=2, count=9), 4, tilts)
    return params | {"scan_size": (3, 3), key: 0.3}


WEDGE = {"wedge_mu": 0.3, "beta_wedge": 2.0, "wedge_column": "pypty"}
STEP = {"scan_step_A": 1.2, "probe_mod_tol": 0.3}

CASES = {
    "TV object reg.": (
        on_object(2, 2, atv_weight=0.7),
        374.27582113791, "obj", -7.498121177333e-01 + 1.978232733761e00j, 7.306218665281e02,
    ),
    "TV object reg., q .5 p 1.5": (
        on_object(2, 2, atv_weight=0.7, atv_q=0.5, atv_p=1.5),
        778.36034008427, "obj", -6.674062620532e-01 + 5.061914505563e00j, 1.218531154062e03,
    ),
    "l1 object reg. (phase)": (
        on_object(2, phase_norm_weight=0.3),
        55.699578275526, "obj", 1.665210461922e-01 - 5.127577432895e-01j, 2.671891071115e01,
    ),
    "l1 object reg. (abs)": (
        on_object(2, abs_norm_weight=0.3),
        13.993155335261, "obj", 1.362466185364e00 - 1.199347573836e-01j, 2.671891071115e01,
    ),
    "V-object reg.": (
        on_object(2, 3, mixed_variance_weight=0.3, mixed_variance_sigma=0.5),
        8.6335703305487, "obj", -1.141424489000e-03 + 1.847086348301e-04j, 6.346647289494e-01,
    ),
    "MW-object reg.": (
        on_object(4, 2, **WEDGE),
        272.52651274687, "obj", -5.791277864587e00 - 6.084396161199e00j, 1.147798097658e03,
    ),
    "Q-space probe reg.": (
        on_probe(probe_reg_constraint_weight=0.3, aperture_mask=DISC),
        67.760542781183, "probe", 1.082467809831e00 + 5.839279314982e-01j, 552.96,
    ),
    "Q-space probe reg., radius": (
        on_probe(probe_reg_constraint_weight=0.3, aperture_mask=0.4),
        16.878051603262, "probe", 1.058244362805e00 + 1.899390567312e00j, 368.64,
    ),
    "R-space probe reg.": (
        on_probe(window_weight=0.3, window=RIM),
        4.4352408911741, "probe", -1.917158507553e-02 + 7.103841134173e-04j, 9.640457838746e-01,
    ),
    "Probe-Modulation": (
        on_probe(probe_mod_reg_weight=0.3, **STEP),
        19781.281104833, "probe", -9.678941027601e01 - 9.153728788284e02j, 1.266988160975e07,
    ),
    "F-axis postions reg.": (
        on_positions("fast_axis_reg_weight_positions"),
        49.620866456886, "positions", 1.688517541264e-01, 3.572702384896e02,
    ),
    "S-axis postions reg": (
        on_positions("slow_axis_reg_weight_positions"),
        278.34085754335, "positions", -7.060519882728e00, 6.012162522936e03,
    ),
    "Deformation positons reg.": (
        on_positions("deformation_reg_weight_positions"),
        27.648087406327, "positions", -2.552845623005e-01, 3.317770488759e01,
    ),
    "F-axis tilts reg.": (
        on_tilts("fast_axis_reg_weight_tilts"),
        1.1856088720279e-06, "tilts", -5.261291139754e-05, 8.536383878601e-06,
    ),
    "S-axis tilts reg": (
        on_tilts("slow_axis_reg_weight_tilts"),
        2.3588467014970e-04, "tilts", -4.235863456986e-02, 5.095108875233e-03,
    ),
    "Deformation tilts reg.": (
        on_tilts("deformation_reg_weight_tilts"),
        2.4252856298893e-05, "tilts", -3.961785164226e-03, 2.910342755867e-05,
    ),
}  # fmt: skip
"""Column, with a remark where there are two -> params, R, variable, C, Nrm."""


@pytest.mark.parametrize("case", CASES)
def test_value_and_gradient(case):
    params, value, key, c, norm = CASES[case]
    loss, _sse, gradients = pyptyx.loss_and_gradient(params | {"loss_weight": 0.0})
    assert loss == pytest.approx(value, rel=RELATIVE)
    g = gradients[key]
    got_c, got_norm = cf.checksum(g)
    assert got_norm == pytest.approx(norm, rel=2 * RELATIVE)
    assert abs(got_c - c) <= RELATIVE * np.sqrt(norm * g.size)
    for other, gradient in gradients.items():
        assert other == key or not gradient.any()


def test_every_regulariser_is_here():
    assert {name.split(",")[0] for name in CASES} == set(EACH)


def test_each_has_its_column_from_the_epoch_it_is_switched_on(tmp_path):
    """Two epochs with every weight a schedule; the loss weight does not touch the regularisers."""
    params = on_tilts("slow_axis_reg_weight_tilts") | {
        "obj": cf.specimen(3, 2),
        "aperture_mask": DISC,
        "window": RIM,
        "beta_wedge": 1.0,
        "loss_weight": 0.01,
        "output_folder": tmp_path,
        "epoch_max": 2,
        "print_flag": 0,
        "save_loss_log": 2,
        **STEP,
    }
    weights = {key for key in RUN if "_weight" in key and key != "loss_weight"} | {"wedge_mu"}
    assert len(weights) == len(EACH)
    result = pyptyx.run(params | dict.fromkeys(weights, "lambda epoch: 1e-6 * epoch"))
    before, after = read_loss_csv(tmp_path / "loss.csv")
    assert [float(before[name]) for name in EACH] == [0.0] * len(EACH)
    assert all(float(after[name]) > 0 for name in EACH)
    data = result.losses[1].contributions["data"]
    total = data + sum(float(after[name]) for name in EACH)
    assert float(after["loss"]) == pytest.approx(total, rel=1e-12)


def test_evaluations_do_not_compound_the_window():
    """Defect F15: PyPty multiplies the window by its weight at each evaluation."""
    params = CASES["R-space probe reg."][0] | {"update_probe_pos": 0, "update_obj": 0}
    params |= {"output_folder": None, "epoch_max": 4, "print_flag": 0, "loss_weight": 0.0}
    for record in pyptyx.run(params).losses[1:]:
        assert record.loss > 0
    np.testing.assert_array_equal(params["window"], RIM)
    result = pyptyx.run(params)
    again = params | {"probe": result.probe}
    assert pyptyx.loss_and_gradient(again)[0] == pytest.approx(result.final_loss, rel=1e-12)


def test_the_column_that_is_missing_most_is_penalised():
    """Defect F21: PyPty hardly touches q_y = q_x = 0, which a tilt series never sees."""
    params = on_object(4, 2, **WEDGE) | {"loss_weight": 0.0}
    pypty = pyptyx.loss_and_gradient(params)[0]
    ours = pyptyx.loss_and_gradient(params | {"wedge_column": "missing"})[0]
    column = np.fft.fft(params["obj"].sum(axis=(0, 1)), axis=0)[1:]
    power = (np.abs(column) ** 2).sum(axis=1)
    kappa = 2 / np.pi * np.arctan(4 * np.fft.fftfreq(4, 20.0)[1:] ** 2)
    assert ours - pypty == pytest.approx(0.3 * ((1 - kappa) @ power), rel=1e-10)
