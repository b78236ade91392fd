"""The pencil kernels against the stages: the same CUDA source on the CPU, or on a GPU."""

import numpy as np
import pytest

from pyptyx.backend import CupyBackend, cuda_device_count
from tests.gpu.emulator import EmulatedBackend, needs_compiler
from tests.gpu.emulator_cases import Case, relative

CASES = {
    "one slice, fixed probe": (dict(slices=1, modes=1, shift=False), {}),
    "one slice, three modes, fixed probe": (dict(slices=1, shift=False, loss="lsq"), {}),
    "one slice": (dict(slices=1, modes=1, loss="ml", floor=0.3), {}),
    "two slices, three modes": (dict(), {}),
    "three slices, fixed probe": (dict(slices=3, modes=1, shift=False, loss="ml"), {}),
    "three slices, all columns": (dict(slices=3, loss="lsq_sqrt_2"), dict(prune=False)),
    "all columns, fixed probe": (dict(slices=1, modes=1, shift=False), dict(prune=False)),
    "fixed point": (dict(slices=2, modes=1), dict(deterministic=True)),
    "fixed point, fixed probe": (dict(slices=1, shift=False), dict(deterministic=True)),
    "odd sides": (dict(shape=(45, 49), slices=2, modes=1, loss="ml"), {}),
    "sides of 5 and 7": (dict(shape=(70, 50), slices=1, modes=1, loss="lsq"), {}),
    "narrow band": (dict(shape=(28, 36), slices=2, modes=1, cutoff=0.25), {}),
    "wide band": (dict(shape=(30, 32), slices=2, modes=1, cutoff=1.0), {}),
    "few counts": (dict(slices=1, dose=1e-3, modes=1, loss="ml", floor=0.01), {}),
    "background": (dict(behind=("background",), crop=(1, 3)), {}),
    "current": (dict(slices=1, behind=("current",), loss="lsq", shift=False), {}),
    "cropped": (dict(crop=(3, 8), shape=(21, 30), modes=1, loss="ml"), {}),
    "background, current": (
        dict(behind=("background", "current"), crop=(2, 0), loss="ml", floor=0.1),
        dict(prune=False),
    ),
    "tilted": (dict(slices=3, tilt=True), {}),
    "tilted, fixed probe": (dict(slices=4, modes=1, tilt=True, shift=False, shape=(25, 18)), {}),
    "tilted, odd sides, wide band": (
        dict(shape=(25, 27), modes=1, tilt=True, cutoff=1.0),
        {},
    ),
    "tilted, one slice": (dict(slices=1, modes=1, tilt=True), {}),
    "128 x 96": (dict(shape=(128, 96), slices=2, modes=1, patterns=2), {}),
}


@pytest.fixture(
    params=[
        pytest.param("emulated", marks=needs_compiler),
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not cuda_device_count(), reason="needs a CUDA device"),
            ],
        ),
    ]
)
def backend(request):
    device = EmulatedBackend() if request.param == "emulated" else CupyBackend(0)
    with device.context():
        yield device


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradients_are_those_of_the_stages(name, backend):
    settings, options = CASES[name]
    case = Case(**settings)
    wanted = ("object", "probe", *(("positions",) if case.shift else ()), *case.behind)
    wanted += ("tilts",) if case.tilt else ()
    value, sse, gradients = case.expected(wanted)
    evaluator = case.evaluator(backend, **options)
    acc = case.accumulators(backend, wanted)
    got = evaluator.evaluate(
        case.state(backend), case.batch(), backend.asarray(case.data), acc, case.weight
    )
    evaluator.collect(acc)
    losses = backend.to_host(got[0])
    assert losses.sum() == pytest.approx(value.sum(), rel=1e-6)
    np.testing.assert_allclose(losses, value, rtol=5e-6)
    np.testing.assert_allclose(backend.to_host(got[1]), sse, rtol=1e-5)
    for key, gradient in case.finished(acc, backend).items():
        if key == "tilts" and case.slices == 1:
            np.testing.assert_allclose(gradient, 0, atol=1e-12)
        else:
            assert relative(gradient, gradients[key]) < 5e-5, key
