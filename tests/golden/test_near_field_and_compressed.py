"""Loss and gradients against PyPty's numbers: near field and data of virtual detectors.

PyPty computes its multi-defocus row only with one measurement per batch (F5); ours uses three.
"""

import numpy as np
import pytest

import pyptyx
from tests.golden import closed_form as cf
from tests.golden.test_evaluation import RELATIVE, base, with_tilts


def near_field(**extra):
    """Two slices and a focus of 300 Å."""
    return base(slices=2) | {"recon_type": "near_field", "defocus_array": [300.0], **extra}


def compressed(algorithm):
    """Signals of four virtual detectors."""
    masks = np.abs(cf.h((4, 16, 16), 0.3, 0.1, 0.2))
    signals = np.einsum("dyx,tyx->td", masks, cf.patterns())
    return base() | {"dataset": signals, "masks": masks, "algorithm": algorithm}


CASES = {
    "nf": near_field(),
    "nf Cs": near_field(Cs=1e7),
    "nf tilts tm3 mp2": with_tilts(near_field(probe=cf.probe(2)), 3),
    "nf defocus list": near_field(defocus_array=[100.0, 150.0, 200.0, 250.0, 300.0]),
    **{name: compressed(f"{name}_compressed") for name in ("lsq", "gauss", "poisson")},
}

VALUES = {
    "nf": (
        1.1217171744291e04, 2.9120971776596e05,
        {
            "obj": (-7.859036069062e01 + 5.786423466528e01j, 1.165852980461e05),
            "probe": (-3.565892721194e01 - 3.171399810300e01j, 4.329245459575e04),
            "positions": (2.092823197426e01, 2.128130163080e03),
        },
    ),
    "nf Cs": (
        1.1566115236479e04, 2.8797422889423e05,
        {
            "obj": (5.314517708717e01 - 1.353751607717e02j, 9.133345553942e04),
            "probe": (-2.225860505451e00 + 1.406729263604e01j, 4.072062086551e04),
            "positions": (1.341814406733e01, 9.562653650306e02),
        },
    ),
    "nf tilts tm3 mp2": (
        1.1003703295506e04, 2.8946966413401e05,
        {
            "obj": (-6.869041816621e01 + 4.193809349485e01j, 1.198159527904e05),
            "probe": (3.025869685069e00 + 2.722818264629e00j, 1.994006060527e04),
            "positions": (1.822700489706e01, 1.476769091550e03),
            "tilts": (-1.744484902431e04, 1.284200542224e09),
        },
    ),
    "nf defocus list": (
        1.1138916205100e04, 2.9107370366922e05,
        {
            "obj": (3.846700893192e01 - 2.236419741681e01j, 1.132241202875e05),
            "probe": (-1.004144074163e00 - 2.529592719181e01j, 3.397307397287e04),
            "positions": (2.086429405734e01, 1.596739099997e03),
        },
    ),
    "lsq": (
        1.0161606893525e09, 1.0161606893525e09,
        {
            "obj": (-1.658243579661e05 - 1.841314567424e05j, 5.860828546046e16),
            "probe": (-5.268705461397e06 - 7.226862023071e05j, 3.956470901349e16),
            "positions": (-1.037090200229e07, 1.485624196514e15),
        },
    ),
    "gauss": (
        6.3583003803597e04, 1.0161606893525e09,
        {
            "obj": (-6.534103674752e00 - 6.864938187587e00j, 1.091559800800e08),
            "probe": (-2.242214617237e02 - 2.674801931295e01j, 7.381694275649e07),
            "positions": (-4.308155672439e02, 2.982851557437e06),
        },
    ),
    "poisson": (
        -5.3580824796386e04, 1.0161606893525e09,
        {
            "obj": (-8.878820196632e00 - 9.255303255897e00j, 2.081185322811e08),
            "probe": (-3.090390641839e02 - 3.531347498977e01j, 1.408037752761e08),
            "positions": (-5.823368105493e02, 5.755036615084e06),
        },
    ),
}  # fmt: skip


def test_every_row_is_here():
    assert CASES.keys() == VALUES.keys()


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradients(case):
    loss, sse, gradients = VALUES[case]
    got_loss, got_sse, got = pyptyx.loss_and_gradient(CASES[case])
    assert got_loss == pytest.approx(loss, rel=RELATIVE)
    assert got_sse == pytest.approx(sse, rel=RELATIVE)
    for name, (c, norm) in gradients.items():
        got_c, got_norm = cf.checksum(got[name])
        assert got_norm == pytest.approx(norm, rel=2 * RELATIVE), name
        assert abs(got_c - c) <= RELATIVE * np.sqrt(norm * got[name].size), name


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("batch", "devices"), [(1, 1), (5, 1), (2, 2)])
def test_batches_and_workers_change_nothing(case, batch, devices):
    """Defect F5: several defoci work in batches of any size."""
    loss, _sse, gradients = VALUES[case]
    params = CASES[case] | {"compute_batch": batch, "devices": devices}
    got_loss, _sse, got = pyptyx.loss_and_gradient(params)
    assert got_loss == pytest.approx(loss, rel=RELATIVE)
    for name, (_c, norm) in gradients.items():
        assert cf.checksum(got[name])[1] == pytest.approx(norm, rel=2 * RELATIVE), name
