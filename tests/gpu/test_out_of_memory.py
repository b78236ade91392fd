"""Memory that runs out: smaller batches, the same result, nothing left of what was begun."""

import csv

import numpy as np
import pytest

import pyptyx
from pyptyx import trees
from pyptyx.engine import setup
from pyptyx.errors import DeviceError
from pyptyx.executors import SerialExecutor, ThreadExecutor
from pyptyx.physics.grid import Grid
from pyptyx.physics.model import ModelSpec
from pyptyx.terms.data_term import DataTerm, ScanTable
from tests.golden import closed_form as cf
from tests.gpu.guard import GuardBackend

WINDOW, MODES, COUNT = (9, 12), 2, 13
WAVE = MODES * WINDOW[0] * WINDOW[1] * 16


class TightBackend(GuardBackend):
    """A device that refuses transforms above a budget, after some it has let pass."""

    def __init__(self, budget, passes=0):
        super().__init__()
        self.budget = budget
        self.passes = passes
        self.released = 0

    def release_memory(self):
        self.released += 1

    def _transform(self, transform, a, **kwargs):
        if a.ndim > 4 and a.nbytes > self.budget:
            self.passes -= 1
            if self.passes < 0:
                raise MemoryError(f"{a.nbytes} of {self.budget} bytes")
        return GuardBackend._transform(transform, a, **kwargs)


@pytest.fixture
def problem():
    """A multislice data term over given backends, and its variables."""
    rng = np.random.default_rng(3)
    spec = ModelSpec(Grid(WINDOW, (0.3, 0.2), 0.025), (20.0, 30.0), dtype=np.complex128)

    def numbers(*shape):
        return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)

    x = {
        "object": numbers(1, 3, 21, 26),
        "probe": numbers(1, MODES, *WINDOW),
        "positions": rng.uniform(0, 11, (COUNT, 2)),
    }
    data = 1e4 * rng.random((COUNT, *WINDOW))
    scan = ScanTable(np.rint(x["positions"]).astype(int))

    def term(*backends, size=8):
        executor = SerialExecutor(*backends) if len(backends) == 1 else ThreadExecutor(backends)
        return DataTerm(
            spec,
            scan,
            data.__getitem__,
            loss="lsq_sqrt",
            weight=0.5,
            executor=executor,
            batches=np.split(np.arange(COUNT), range(size, COUNT, size)),
        )

    return term, x


def evaluate(term, x):
    backend = term._models[0].backend
    placed = {k: backend.asarray(v) if k != "positions" else v for k, v in x.items()}
    g = trees.zeros_like(placed)
    value = term.evaluate(placed, g)
    return value, {k: np.array(backend.to_host(v)) for k, v in g.items()}


def assert_same(got, expected):
    assert got[0].value == pytest.approx(expected[0].value, rel=1e-13)
    assert got[0].sse == pytest.approx(expected[0].sse, rel=1e-13)
    for name, g in expected[1].items():
        np.testing.assert_allclose(got[1][name], g, rtol=0, atol=1e-12 * np.abs(g).max())


# Two batches of 8 and 5 measurements; ten transforms of exit waves each, of which the first ones
# run forward and the last ones come after the gradient of the last slice has been added.
@pytest.mark.parametrize("passes", range(20))
def test_the_result_is_the_same_wherever_memory_runs_out(problem, passes):
    term, x = problem
    expected = evaluate(term(GuardBackend()), x)
    backend = TightBackend(4 * WAVE, passes)
    tight = term(backend)
    assert_same(evaluate(tight, x), expected)
    assert backend.released == 1
    assert tight.take_warnings() == [
        f"out of memory on guard:0 with {8 if passes < 10 else 5} measurements at once: "
        f"from now on {4 if passes < 10 else 2}"
    ]
    assert tight.take_warnings() == []


def test_the_limit_stays(problem):
    term, x = problem
    expected = evaluate(term(GuardBackend()), x)
    backend = TightBackend(WAVE)
    tight = term(backend)
    assert_same(evaluate(tight, x), expected)
    assert [w[-1] for w in tight.take_warnings()] == ["4", "2", "1"]
    released = backend.released
    # A term with another weight and other batches is the same term.
    again = tight.replace(0.5, tight.batches)
    assert_same(evaluate(again, x), expected)
    assert backend.released == released
    assert again.take_warnings() == []


def test_workers_run_out_one_by_one(problem):
    term, x = problem
    expected = evaluate(term(GuardBackend()), x)
    roomy, tight = GuardBackend(), TightBackend(2 * WAVE)
    both = term(roomy, tight, size=4)
    assert_same(evaluate(both, x), expected)
    assert len(both.take_warnings()) == 1


def test_a_single_measurement_that_does_not_fit(problem):
    term, x = problem
    with pytest.raises(DeviceError, match=r"memory of guard:0: expected room for one .*plan"):
        evaluate(term(TightBackend(WAVE - 1)), x)


def test_other_failures_pass(problem):
    term, x = problem

    class Broken(TightBackend):
        def ran_out_of_memory(self, error):
            return False

    with pytest.raises(RuntimeError, match="MemoryError"):
        evaluate(term(Broken(WAVE)), x)


def test_a_run_goes_on_and_says_so(tmp_path, monkeypatch, caplog):
    params = {
        "dataset": cf.patterns(9, 15),
        "obj": cf.specimen(2, 1),
        "probe": cf.probe(2, 15),
        "positions": cf.positions(9),
        "wavelength_A": cf.WAVELENGTH_A,
        "pixel_size_x_A": cf.PIXEL_A,
        "pixel_size_y_A": cf.PIXEL_A,
        "skip_preprocessing": True,
        "default_dtype": "double",
        "compute_batch": 6,
        "epoch_max": 2,
        "print_flag": 0,
    }
    losses = []
    for backend in (GuardBackend(), TightBackend(3 * 2 * 15 * 15 * 16)):
        monkeypatch.setattr(setup, "make_backends", lambda *_, b=backend, **__: [b])
        result = pyptyx.run(params | {"output_folder": tmp_path / str(len(losses))})
        losses.append([record.loss_after for record in result.losses])
    assert losses[1] == pytest.approx(losses[0], rel=1e-9)
    with open(tmp_path / "1" / "loss.csv", newline="") as file:
        warnings = [row["Warnings"] for row in csv.DictReader(file)]
    assert "out of memory on guard:0 with 5 measurements at once: from now on 2" in warnings[0]
    assert warnings[1] == ""
    assert "out of memory" in caplog.text
