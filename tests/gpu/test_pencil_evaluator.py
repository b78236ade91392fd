"""The host side of the pencil kernels: graphs, records, sums in fixed point, what is refused."""

from dataclasses import replace

import numpy as np
import pytest

from pyptyx.errors import NumericalError, ShapeError
from pyptyx.physics.detector import DetectorGeometry, NearFieldOptics
from pyptyx.physics.grid import Grid
from pyptyx.physics.kernels.cuda import unsupported
from pyptyx.physics.kernels.cuda.layout import Layout, lit_columns, reach
from pyptyx.physics.kernels.cuda.source import TASK_TYPE, task_record
from pyptyx.physics.kernels.cuda.workspace import address, workspace_shapes
from pyptyx.physics.model import Batch
from pyptyx.physics.tilt import TiltPlan
from tests.gpu.emulator import EmulatedBackend, needs_compiler
from tests.gpu.emulator_cases import Case, relative

WANTED = ("object", "probe", "positions")


@pytest.fixture(scope="module")
def case():
    return Case(slices=2, modes=1, patterns=13)


@pytest.fixture
def backend():
    return EmulatedBackend()


def evaluate(case, backend, evaluator, batches, wanted=WANTED, data=None):
    """Losses per pattern and gradients of the variables, batch by batch."""
    state, acc = case.state(backend), case.accumulators(backend, wanted)
    losses = np.zeros(case.patterns)
    data = case.data if data is None else data
    for rows in batches:
        batch = case.batch(rows)
        loss, _ = evaluator.evaluate(state, batch, backend.asarray(data[rows]), acc, case.weight)
        losses[rows] = loss
    evaluator.collect(acc)
    return losses, case.finished(acc, backend)


def split(order, *sizes):
    return np.split(np.asarray(order), np.cumsum(sizes))


@needs_compiler
def test_batches_are_replayed_as_graphs(case, backend):
    """Four batches of three patterns and one of one; only two shapes, so two graphs at most."""
    evaluator = case.evaluator(backend)
    batches = split(range(13), 3, 3, 3, 3)
    expected = case.expected()
    for _ in range(3):
        losses, gradients = evaluate(case, backend, evaluator, batches)
        np.testing.assert_allclose(losses, expected[0], rtol=1e-6)
        for key, gradient in gradients.items():
            assert relative(gradient, expected[2][key]) < 5e-5, key
    first, last = backend.xp.stream.graphs
    assert len(first.launches) == len(last.launches) == 13
    # Twelve batches of three: one before the capture.  The last one: three in all.
    assert (first.replays, last.replays) == (11, 2)


@needs_compiler
def test_nothing_is_fetched_from_the_device_within_an_evaluation(case, backend):
    evaluator = case.evaluator(backend)
    state, acc = case.state(backend), case.accumulators(backend)
    for rows in split(range(13), 6, 6):
        data = backend.asarray(case.data[rows])
        evaluator.evaluate(state, case.batch(rows), data, acc, 1.0)
    assert backend.fetched == 0
    evaluator.collect(acc)
    # The gradients of the shifts, batch by batch.
    assert backend.fetched == 3


@needs_compiler
@pytest.mark.parametrize(
    "wanted", [(), ("object",), ("probe",), ("positions",), ("object", "positions")]
)
def test_only_what_is_wanted(wanted, case, backend):
    expected = case.expected(wanted) if wanted else case.expected()
    losses, gradients = evaluate(case, backend, case.evaluator(backend), [range(13)], wanted)
    np.testing.assert_allclose(losses, expected[0], rtol=1e-6)
    assert gradients.keys() == set(wanted)
    for key in wanted:
        assert relative(gradients[key], expected[2][key]) < 5e-5, key


@needs_compiler
def test_loss_alone_runs_no_backward_kernel(case, backend):
    evaluator = case.evaluator(backend)
    for _ in range(2):
        evaluate(case, backend, evaluator, [range(13)], wanted=())
    (graph,) = backend.xp.stream.graphs
    names = [arguments[1] for arguments in graph.launches]
    assert names == [
        "ramps", "illuminate", "transmit", "propagate", "transmit", "detect", "sum_losses",
    ]  # fmt: skip


@needs_compiler
def test_a_larger_batch_after_a_smaller_one(case, backend):
    evaluator = case.evaluator(backend)
    expected = case.expected()
    for batches in (split(range(13), 4, 4), [range(13)], split(range(13), 4, 4)):
        losses, gradients = evaluate(case, backend, evaluator, batches)
        np.testing.assert_allclose(losses, expected[0], rtol=1e-6)
        assert relative(gradients["probe"], expected[2]["probe"]) < 5e-5


@needs_compiler
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float64])
def test_data_as_they_were_counted(kind, case, backend):
    """Integers are scaled in the kernel; other floats become single precision."""
    counts = np.minimum(case.data, 60).astype(kind)
    scaled = replace(case)
    scaled.data = counts * np.float32(0.25)
    evaluator = scaled.evaluator(backend, data_scale=0.25)
    losses, gradients = evaluate(case, backend, evaluator, [range(13)], data=counts)
    expected = scaled.expected()
    np.testing.assert_allclose(losses, expected[0], rtol=1e-6)
    assert relative(gradients["object"], expected[2]["object"]) < 5e-5


@needs_compiler
def test_one_position_for_all_patterns(backend):
    case = Case(slices=1, modes=1, patterns=3)
    case.variables["positions"] = case.variables["positions"][:1]
    table = np.rint(case.variables["positions"]).astype(int)
    batch = Batch(np.arange(3), np.broadcast_to(table, (3, 2)))
    case.batch = lambda indices=None: batch
    expected = case.expected(("positions",))
    _, gradients = evaluate(case, backend, case.evaluator(backend), [range(3)], ("positions",))
    assert gradients["positions"].shape == (1, 2)
    assert relative(gradients["positions"], expected[2]["positions"]) < 5e-5


@needs_compiler
def test_fixed_point_gives_the_same_bits_in_any_order(case, backend):
    orders = (range(13), np.random.default_rng(3).permutation(13), range(12, -1, -1))
    evaluator = case.evaluator(backend, deterministic=True)
    results = []
    for order, sizes in zip(orders, [(5, 5), (4, 6), (13,)], strict=True):
        batches = [b for b in split(order, *sizes) if len(b)]
        results.append(evaluate(case, backend, evaluator, batches)[1]["object"])
        # Chosen once, by the first batch of all.
        assert evaluator.quanta == 2.0 ** np.round(np.log2(evaluator.quanta))
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])
    assert relative(results[0], case.expected()[2]["object"]) < 5e-5


@needs_compiler
def test_atomic_additions_depend_on_the_order(case, backend):
    """Otherwise the test above shows nothing."""
    evaluator = case.evaluator(backend)
    first, second = (
        evaluate(case, backend, evaluator, [np.arange(13)[::step]])[1]["object"] for step in (1, -1)
    )
    assert not np.array_equal(first, second)


@needs_compiler
@pytest.mark.parametrize("weight", [1e-20, 1.0, 1e15])
def test_the_fixed_point_finds_its_unit(weight, backend):
    case = Case(slices=1, modes=1, weight=weight)
    state = case.state(backend)
    acc = {"object": backend.asarray(np.zeros((1, 1, 29, 35), np.complex64))}
    evaluator = case.evaluator(backend, deterministic=True)
    evaluator.evaluate(state, case.batch(), backend.asarray(case.data), acc, weight)
    evaluator.collect(acc)
    gradient = case.model().finish({"object": backend.to_host(acc["object"])})["object"]
    assert relative(gradient, case.expected(("object",))[2]["object"]) < 5e-5
    largest = abs(backend.to_host(acc["object"])).max()
    assert 30 < np.log2(largest * evaluator.quanta) < 38


@needs_compiler
@pytest.mark.parametrize("factor", [1e6, np.nan])
def test_what_leaves_the_fixed_point_is_said(factor, case, backend):
    evaluator = case.evaluator(backend, deterministic=True)
    state, acc = case.state(backend), case.accumulators(backend, ("object",))
    data = backend.asarray(case.data)
    evaluator.evaluate(state, case.batch(), data, acc, 1.0)
    evaluator.evaluate(state, case.batch(), data, acc, factor)
    with pytest.raises(NumericalError, match="fixed point"):
        evaluator.collect(acc)
    assert evaluator.quanta is None
    if np.isfinite(factor):
        acc = case.accumulators(backend, ("object",))
        evaluator.evaluate(state, case.batch(), data, acc, factor)
        evaluator.collect(acc)
        gradient = case.finished(acc, backend)["object"] / factor
        assert relative(gradient, case.expected(("object",))[2]["object"] / case.weight) < 5e-5


@needs_compiler
@pytest.mark.parametrize("deterministic", [False, True])
def test_an_evaluation_that_was_broken_off_leaves_nothing(deterministic, case, backend):
    evaluator = case.evaluator(backend, deterministic=deterministic)
    data = backend.asarray(case.data)
    acc = case.accumulators(backend)
    evaluator.evaluate(case.state(backend), case.batch(), data, acc, case.weight)
    evaluator.reset()
    expected = case.expected()[2]
    _, gradients = evaluate(case, backend, evaluator, [range(13)])
    assert relative(gradients["positions"], expected["positions"]) < 5e-5
    assert relative(gradients["object"], expected["object"]) < 5e-5


@needs_compiler
def test_a_batch_that_did_not_fit_is_followed_by_a_smaller_one(case, backend, monkeypatch):
    evaluator = case.evaluator(backend)
    evaluate(case, backend, evaluator, [range(4)], wanted=("object",))
    with monkeypatch.context() as patch:
        patch.setattr(backend.xp, "empty", too_large(backend.xp.empty), raising=False)
        with pytest.raises(MemoryError):
            evaluate(case, backend, evaluator, [range(13)], wanted=("object",))
    evaluator.reset()
    batches = split(range(13), 4, 4, 4)
    gradient = evaluate(case, backend, evaluator, batches, wanted=("object",))[1]["object"]
    assert relative(gradient, case.expected(("object",))[2]["object"]) < 5e-5


def too_large(empty):
    """An allocator that refuses the waves of a large batch."""

    def allocate(shape, dtype):
        if np.prod(shape) > 5000:
            raise MemoryError
        return empty(shape, dtype)

    return allocate


@needs_compiler
def test_a_view_of_an_accumulator_is_refused(case, backend):
    acc = case.accumulators(backend, ("probe",))
    acc["probe"] = acc["probe"][..., ::2]
    with pytest.raises(ValueError, match="contiguous"):
        case.evaluator(backend).evaluate(
            case.state(backend), case.batch(), backend.asarray(case.data), acc, 1.0
        )


@needs_compiler
def test_a_window_outside_the_object_never_reaches_the_device(case, backend):
    batch = case.batch()
    batch.corners[3] = (9, 12)
    evaluator = case.evaluator(backend)
    with pytest.raises(ShapeError, match="2 problems") as error:
        evaluator.evaluate(case.state(backend), batch, backend.asarray(case.data[:5]), {}, 1.0)
    assert [p.key for p in error.value.problems] == ["positions", "data"]


REFUSED = {
    "single": dict(dtype=np.complex128),
    "near field": dict(near_field=NearFieldOptics()),
    "binned": dict(geometry=DetectorGeometry(upsample=2)),
    "virtual": dict(masks=np.ones((2, 20, 24))),
    "beam is tilted": dict(tilt=TiltPlan(before=True)),
    "aberrations": dict(num_aberrations=3),
    "plates": dict(plates=True),
    "every window": dict(patch_band_limit=True),
    "prime factor": dict(grid=Grid((22, 24), (0.2, 0.17), 0.025)),
}
VARIABLES = {"object": np.empty((1, 2, 30, 31)), "probe": np.empty((1, 3, 20, 24))}


def test_what_is_supported(case):
    assert unsupported(case.spec(), "ml", VARIABLES | {"positions": np.empty((5, 2))}) is None


@pytest.mark.parametrize("word", REFUSED)
def test_a_model_that_is_refused(word, case):
    assert word in unsupported(replace(case.spec(), **REFUSED[word]), "ml", VARIABLES)


@pytest.mark.parametrize(
    ("word", "extra"),
    [
        ("object has several", {"object": np.empty((2, 2, 30, 31))}),
        ("scenarios", {"probe": np.empty((4, 3, 20, 24))}),
    ],
)
def test_variables_that_are_refused(word, extra, case):
    assert word in unsupported(case.spec(), "ml", VARIABLES | extra)


def test_a_tilt_per_measurement_is_refused(case):
    spec = replace(case.spec(), tilt=TiltPlan(inside=True))
    assert unsupported(spec, "ml", VARIABLES | {"tilts": np.empty((1, 6))}) is None
    assert "tilt of its own" in unsupported(spec, "ml", VARIABLES | {"tilts": np.empty((5, 6))})


@needs_compiler
def test_a_tilt_that_changes(backend):
    case = Case(slices=3, modes=1, patterns=5, tilt=True)
    evaluator = case.evaluator(backend)
    for _ in range(3):
        case.variables["tilts"] = case.variables["tilts"] - 0.01
        for wanted in (("tilts",), ("object", "tilts"), ()):
            expected = case.expected(wanted)
            losses, gradients = evaluate(case, backend, evaluator, split(range(5), 3), wanted)
            np.testing.assert_allclose(losses, expected[0], rtol=1e-6)
            for key in wanted:
                assert relative(gradients[key], expected[2][key]) < 5e-5, key


def test_a_loss_that_is_refused(case):
    assert "poisson_compressed" in unsupported(case.spec(), "poisson_compressed", VARIABLES)


@pytest.mark.parametrize("shape", [(20, 24), (21, 25), (45, 30)])
@pytest.mark.parametrize("cutoff", [0.2, 2 / 3, 1.0])
def test_stored_columns_and_their_reach_are_the_band_limit(shape, cutoff):
    mask = Grid(shape, (0.2, 0.17), 0.025, cutoff).mask
    low, high = lit_columns(mask)
    layout = Layout(shape, low, high, 1, "lsq")
    columns = layout.stored_columns()
    assert np.array_equal(columns, np.flatnonzero(mask.any(axis=0)))
    ny = shape[0]
    k = np.minimum(np.arange(ny), ny - np.arange(ny))
    assert np.array_equal(k[:, None] <= reach(mask, layout), mask[:, columns])
    low, high = lit_columns(mask, prune=False)
    everything = Layout(shape, low, high, 1, "lsq")
    assert np.array_equal(everything.stored_columns(), np.arange(shape[1]))
    assert np.array_equal(k[:, None] <= reach(mask, everything), mask)


def test_memory_of_a_batch():
    layout = Layout((20, 24), 8, 7, 3, "lsq")
    shapes = workspace_shapes(layout, 9, 4)
    assert shapes["wave"] == (9, 3, 20, 16)
    assert shapes["incoming"] == (4, 9, 3, 20, 16)
    assert shapes["probe_parts"] == (3, 3, 20, 15)
    assert shapes["ramp_x"] == (9, 15)


def test_the_record_is_that_of_the_kernels():
    assert all(TASK_TYPE[name].itemsize == 8 for name in TASK_TYPE.names)
    a = np.arange(3)
    record = task_record(data=address(a), batch=4, weight=0.25)
    assert (record["data"], record["batch"], record["weight"]) == (a.ctypes.data, 4, 0.25)
    assert record["overflow"] == address(None) == 0
