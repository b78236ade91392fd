"""The engine on a fake device: no host array ever meets a device array, and the numbers agree."""

import numpy as np
import pytest

import pyptyx
from pyptyx.backend import Backend
from pyptyx.engine import setup
from tests.golden import test_near_field_and_compressed as near_field_and_compressed
from tests.golden.test_evaluation import CASES
from tests.gpu.guard import GuardArray, GuardBackend, HostDeviceMix


@pytest.fixture
def on_device(monkeypatch):
    monkeypatch.setattr(setup, "make_backends", lambda devices, prefer, kernels: [GuardBackend()])


def test_the_guard_refuses_a_mix():
    device = GuardBackend().asarray(np.ones((2, 3)))
    assert isinstance(device + 1, GuardArray)
    with pytest.raises(HostDeviceMix):
        device + np.ones((2, 3))
    with pytest.raises(HostDeviceMix):
        np.concatenate([device, np.ones((2, 3))])
    with pytest.raises(HostDeviceMix):
        device[np.array([0, 1])]


COVERED = [
    "lsq_sqrt", "ml", "lsq", "lsq_sqrt_2", "nz3 mp2 mo3 w.3", "pad crop", "up2 pad4",
    "tilts mp2 tm4", "tilts dists edge", "bc mp2", "ab noshift", "sb mp2 mo2", "scenario",
    "single pos B1", "no shift",
]  # fmt: skip
EVALUATIONS = {
    **{case: CASES[case] for case in COVERED},
    **near_field_and_compressed.CASES,
    "nf divergence": near_field_and_compressed.near_field(alpha_near_field=1e-3),
    "nf list, divergence": near_field_and_compressed.CASES["nf defocus list"]
    | {"alpha_near_field": 1e-3},
}


@pytest.mark.parametrize("case", EVALUATIONS)
def test_evaluation(case, on_device):
    got = pyptyx.loss_and_gradient(EVALUATIONS[case])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setup, "make_backends", lambda devices, prefer, kernels: [Backend()])
        expected = pyptyx.loss_and_gradient(EVALUATIONS[case])
    assert got[0] == pytest.approx(expected[0], rel=1e-13)
    for key, value in expected[2].items():
        assert type(got[2][key]) is np.ndarray
        np.testing.assert_allclose(got[2][key], value, rtol=1e-10, atol=1e-10 * abs(value).max())


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"optimizer": "pypty"},
        {"phase_only_obj": True, "tune_only_probe_phase": True},
        {"tune_only_probe_abs": True, "smooth_rolloff": 0.2},
        {"update_static_background": 1, "static_background": 100.0},
    ],
    ids=["default", "pypty", "phases", "modulus", "background"],
)
def test_run(extra, on_device, tmp_path):
    params = CASES["nz3 mp2 mo3 w.3"] | {
        "object_band_limit": "whole",
        "default_dtype": "single",
        "epoch_max": 3,
        "output_folder": tmp_path,
        "print_flag": 0,
        **extra,
    }
    result = pyptyx.run(params)
    assert type(result.object) is np.ndarray
    assert result.final_loss < result.losses[0].loss


@pytest.mark.parametrize("case", ["nf tilts tm3 mp2", "poisson"])
def test_run_of_near_field_and_virtual_detectors(case, on_device):
    params = near_field_and_compressed.CASES[case] | {
        "object_band_limit": "whole",
        "default_dtype": "single",
        "epoch_max": 3,
        "output_folder": None,
        "print_flag": 0,
    }
    result = pyptyx.run(params)
    assert type(result.probe) is np.ndarray
    assert result.final_loss < result.losses[0].loss
