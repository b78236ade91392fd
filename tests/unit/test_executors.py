"""Executors: fixed order, the same result for any number of workers, failures that speak."""

import threading

import numpy as np
import pytest

from pyptyx import trees
from pyptyx.backend import Backend
from pyptyx.errors import WorkerError
from pyptyx.executors import SerialExecutor, ThreadExecutor, share
from pyptyx.physics.grid import Grid
from pyptyx.physics.model import ModelSpec
from pyptyx.terms.data_term import DataTerm, ScanTable


def make(workers):
    return ThreadExecutor([Backend() for _ in range(workers)])


def batches(count=7, size=3):
    return [np.arange(i * size, (i + 1) * size) for i in range(count)]


def nothing(partial):
    """The arrays to be added over processes."""
    return []


# -- shares ------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
@pytest.mark.parametrize("items", [0, 1, 4, 11])
def test_shares_are_contiguous_balanced_and_complete(items, workers):
    parts = [list(range(items))[s] for s in share(items, workers)]
    assert len(parts) == workers
    assert [i for part in parts for i in part] == list(range(items))
    sizes = [len(p) for p in parts]
    assert max(sizes) - min(sizes) <= 1


# -- map_reduce --------------------------------------------------------------------------------


def record(executor, items):
    """The order in which items are folded and partial results merged, as nested tuples."""
    return executor.map_reduce(
        lambda worker: (worker,),
        lambda worker, partial, item: (*partial, int(item[0])),
        items,
        lambda total, other: (*total, "merge", *other),
        nothing,
    )


def test_serial_folds_in_order():
    assert record(SerialExecutor(), batches(3)) == (0, 0, 3, 6)


def test_threads_fold_their_share_in_order_and_merge_in_the_order_of_the_workers():
    with make(3) as executor:
        expected = (0, 0, 3, 6, "merge", 1, 9, 12, "merge", 2, 15, 18)
        assert record(executor, batches()) == expected


@pytest.mark.parametrize("workers", [1, 3])
def test_every_worker_finishes_after_its_last_item_and_before_the_merge(workers):
    with make(workers) as executor:
        got = executor.map_reduce(
            lambda worker: ([], []),
            lambda worker, partial, item: ([*partial[0], int(item[0])], partial[1]),
            batches(6),
            lambda total, other: (total[0] + other[0], total[1] + other[1]),
            nothing,
            lambda worker, partial: (partial[0], [(worker, len(partial[0]))]),
        )
    assert got == (list(range(0, 18, 3)), [(w, 6 // workers) for w in range(workers)])


def test_fewer_batches_than_workers():
    with make(3) as executor:
        assert record(executor, batches(1)) == (0, 0, "merge", 1, "merge", 2)
        assert record(executor, []) == (0, "merge", 1, "merge", 2)


def test_empty_items_are_passed_over():
    assert record(SerialExecutor(), [np.zeros(0, int), *batches(2), np.zeros(0, int)]) == (0, 0, 3)


def test_a_worker_keeps_its_thread():
    with make(2) as executor:
        names = [
            executor.map_reduce(
                lambda worker: [],
                lambda worker, partial, item: [*partial, (worker, threading.get_ident())],
                batches(4),
                lambda total, other: total + other,
                nothing,
            )
            for _ in range(2)
        ]
    assert len(set(names[0])) == 2
    assert names[0] == names[1]
    assert threading.get_ident() not in {ident for _worker, ident in names[0]}


# -- failures ----------------------------------------------------------------------------------


def failing(where, at=9):
    """Start and work of which one fails."""

    def start(worker):
        if where == "start" and worker == 1:
            raise MemoryError("device full")
        return 0

    def work(worker, partial, item):
        if where == "work" and item[0] == at:
            raise ZeroDivisionError("no light")
        return partial + len(item)

    return start, work


def test_a_failure_names_worker_and_measurements_and_chains_the_cause():
    with make(2) as executor:
        start, work = failing("work", at=15)
        with pytest.raises(
            WorkerError, match=r"worker 1 \(cpu\).*batch 2 of 3, measurements 15 to 17"
        ) as e:
            executor.map_reduce(start, work, batches(), lambda a, b: a + b, nothing)
        assert isinstance(e.value.__cause__, ZeroDivisionError)
        assert "no light" in str(e.value)
        # The executor survives.
        assert executor.map_reduce(*failing(None), batches(), lambda a, b: a + b, nothing) == 21


def test_a_failure_at_the_start_of_a_worker_is_one_too():
    with make(2) as executor:
        with pytest.raises(WorkerError, match=r"worker 1 \(cpu\) failed at its start") as e:
            executor.map_reduce(*failing("start"), batches(), lambda a, b: a + b, nothing)
        assert isinstance(e.value.__cause__, MemoryError)


def test_a_failure_in_the_calling_thread():
    with pytest.raises(WorkerError, match=r"worker 0.*measurements 9 to 11"):
        SerialExecutor().map_reduce(*failing("work"), batches(), None, nothing)


def test_all_workers_are_done_when_the_failure_arrives():
    done = threading.Event()

    def work(worker, partial, item):
        if worker == 0:
            raise ValueError("first")
        done.wait(0.05)
        done.set()
        return partial

    with make(2) as executor:
        with pytest.raises(WorkerError, match="worker 0"):
            executor.map_reduce(lambda worker: 0, work, batches(2), lambda a, b: a, nothing)
        assert done.is_set()


def test_items_that_are_no_arrays_are_named_as_they_are():
    def work(worker, partial, item):
        raise ValueError

    with pytest.raises(WorkerError, match="'plate'"):
        SerialExecutor().map_reduce(lambda worker: 0, work, [["plate"]], None, nothing)


# -- the data term over workers ----------------------------------------------------------------


@pytest.fixture
def problem():
    """Data term over a given executor, and its variables; eleven measurements in batches of two."""
    rng = np.random.default_rng(0)
    count, window = 11, (9, 12)
    spec = ModelSpec(Grid(window, (0.3, 0.2), 0.025), (20.0,), dtype=np.complex64)

    def numbers(*shape):
        return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)

    x = {
        "object": numbers(3, 2, 21, 26),
        "probe": numbers(1, 4, *window),
        "positions": rng.uniform(0, 11, (count, 2)),
        "current": rng.uniform(0.5, 1.5, count),
        "background": rng.random(window, np.float32),
    }
    data = 1e4 * rng.random((count, *window), np.float32)
    scan = ScanTable(np.rint(x["positions"]).astype(int))

    def term(executor, count=count, feed=data.__getitem__):
        groups = np.array_split(np.arange(count), -(-count // 2))
        return DataTerm(
            spec, scan, feed, loss="lsq_sqrt", weight=0.5, executor=executor, batches=groups
        )

    return term, x


def evaluate(term, x):
    g = trees.zeros_like(x)
    return term.evaluate(x, g), g


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_change_nothing_but_rounding(problem, workers):
    term, x = problem
    expected, g_expected = evaluate(term(SerialExecutor()), x)
    with make(workers) as executor:
        got, g = evaluate(term(executor), x)
    assert got.value == pytest.approx(expected.value, rel=1e-6)
    assert got.sse == pytest.approx(expected.sse, rel=1e-6)
    for name in x:
        scale = np.abs(g_expected[name]).max()
        assert scale > 0
        np.testing.assert_allclose(g[name], g_expected[name], rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_repetition_is_bit_identical(problem, workers):
    term, x = problem
    with make(workers) as executor:
        first, again = (evaluate(term(executor), x) for _ in range(2))
    assert first[0] == again[0]
    for name in x:
        np.testing.assert_array_equal(first[1][name], again[1][name])


def test_one_thread_is_the_serial_executor(problem):
    term, x = problem
    expected, g_expected = evaluate(term(SerialExecutor()), x)
    with make(1) as executor:
        got, g = evaluate(term(executor), x)
    assert got == expected
    for name in x:
        np.testing.assert_array_equal(g[name], g_expected[name])


def test_more_workers_than_batches(problem):
    term, x = problem
    expected, _g = evaluate(term(SerialExecutor(), count=2), x)
    with make(3) as executor:
        assert evaluate(term(executor, count=2), x)[0].value == pytest.approx(
            expected.value, rel=1e-6
        )


def test_data_that_cannot_be_read_name_the_measurements(problem):
    term, x = problem

    def broken(indices):
        raise OSError("truncated")

    with make(2) as executor:
        with pytest.raises(WorkerError, match=r"worker 0.*measurements 0 to 1: OSError: truncated"):
            term(executor, feed=broken)(x)
