"""The data term on a CUDA device: fused kernels where they know the model, the chain elsewhere."""

import numpy as np
import pytest

from pyptyx import trees
from pyptyx.backend import Backend
from pyptyx.executors import SerialExecutor, ThreadExecutor
from pyptyx.physics.evaluators import Chain
from pyptyx.physics.kernels.cuda import PencilEvaluator
from pyptyx.terms.data_term import DataTerm, ScanTable
from tests.gpu.emulator import FakeCupy, needs_compiler
from tests.gpu.emulator_cases import ON_DEVICE, Case, relative
from tests.gpu.test_segments import EmulatedDevice

pytestmark = needs_compiler


class Namespace:
    """A device namespace with the streams and modules of the fake CuPy."""

    def __init__(self, functions):
        self._functions = functions
        fake = FakeCupy()
        self.RawModule, self.cuda = fake.RawModule, fake

    def __getattr__(self, name):
        return getattr(self._functions, name)


class Device(EmulatedDevice):
    """A CUDA device for all kernels; its memory may run out after some patterns."""

    def __init__(self, largest_batch=1000):
        super().__init__()
        self.fuses = True
        self.xp = Namespace(self.xp)
        self.largest_batch = largest_batch

    def asarray(self, a, dtype=None):
        """Send to the device."""
        if np.ndim(a) == 3 and len(a) > self.largest_batch:
            raise MemoryError
        return super().asarray(a, dtype)


@pytest.fixture(
    scope="module",
    params=[{}, {"behind": ("background", "current"), "crop": (1, 3), "slices": 1}],
    ids=["waves", "background and current"],
)
def case(request):
    return Case(**{"slices": 2, "modes": 3, "patterns": 13} | request.param)


def term_of(case, devices, loss="lsq_sqrt", size=5):
    data = case.data
    executor = SerialExecutor(devices[0]) if len(devices) == 1 else ThreadExecutor(devices)
    return DataTerm(
        case.spec(),
        ScanTable(case.batch().corners),
        lambda indices: data[indices],
        loss=loss,
        weight=case.weight,
        executor=executor,
        batches=np.array_split(np.arange(case.patterns), -(-case.patterns // size)),
    )


def evaluate(case, devices, wanted=None, **settings):
    """The term, its value, and gradients on the host; of all variables unless some are wanted."""
    wanted = case.variables if wanted is None else wanted
    x = {
        k: devices[0].asarray(v.astype(ON_DEVICE[k])) if k in ON_DEVICE else v
        for k, v in case.variables.items()
    }
    term = term_of(case, devices, **settings)
    g = trees.zeros_like({k: x[k] for k in wanted})
    value = term.evaluate(x, g)
    return term, value, {k: devices[0].to_host(v) for k, v in g.items()}


@pytest.mark.parametrize("workers", [1, 2])
def test_fused_kernels_are_used_and_agree(case, workers):
    _term, expected, gradients = evaluate(case, [Backend()])
    term, value, got = evaluate(case, [Device() for _ in range(workers)])
    assert {type(e) for e in term._evaluators.values()} == {PencilEvaluator}
    assert value.value == pytest.approx(expected.value, rel=1e-6)
    assert value.sse == pytest.approx(expected.sse, rel=1e-5)
    for name, gradient in gradients.items():
        assert relative(got[name], gradient) < 5e-5, name


def test_a_batch_that_did_not_fit_leaves_nothing_behind(case):
    """Positions wait on the device for the last batch: they too begin again."""
    _term, expected, gradients = evaluate(case, [Backend()])
    device = Device()
    device.largest_batch = 3
    device.release_memory = lambda: None
    term, value, got = evaluate(case, [device])
    assert "from now on 2" in term.take_warnings()[0]
    assert value.value == pytest.approx(expected.value, rel=1e-6)
    for name, gradient in gradients.items():
        assert relative(got[name], gradient) < 5e-5, name


def test_the_chain_takes_what_the_kernels_do_not_know(case):
    term, value, got = evaluate(case, [Device()], loss="ml_shifted")
    assert {type(e) for e in term._evaluators.values()} == {Chain}
    _term, expected, gradients = evaluate(case, [Backend()], loss="ml_shifted")
    assert value.value == pytest.approx(expected.value, rel=1e-6)
    for name, gradient in gradients.items():
        assert relative(got[name], gradient) < 5e-5, name


def test_a_value_alone(case):
    term, value, _got = evaluate(case, [Device()], wanted=())
    assert {type(e) for e in term._evaluators.values()} == {PencilEvaluator}
    expected = evaluate(case, [Backend()], wanted=())[1]
    assert value.value == pytest.approx(expected.value, rel=1e-6)
    assert value.sse == pytest.approx(expected.sse, rel=1e-5)
