"""Packing of counts, feeds that read from files, reading ahead."""

import threading

import h5py
import numpy as np
import pytest

from pyptyx.backend import Backend
from pyptyx.data.packing import Packing, common_gain, find_packing, typed_packing
from pyptyx.data.prepare import Preparation
from pyptyx.data.source import open_source
from pyptyx.data.stream import PatternFeed, ReadAhead, SignalFeed
from pyptyx.errors import DataError
from tests.gpu.guard import GuardArray, GuardBackend

COUNT, SHAPE = 23, (6, 9)


def counts(most=200, seed=0):
    return np.random.default_rng(seed).integers(0, most + 1, (COUNT, *SHAPE))


# -- packing -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "gain", [np.float32(0.1), np.float32(1), np.float32(37.25), np.float32(1e-7)]
)
@pytest.mark.parametrize("steps", [[1, 2, 5, 1000], [2, 3, 65535], [6, 10, 15, 40001], [7]])
def test_the_gain_of_floats_is_found(gain, steps):
    values = (np.array([0, *steps], np.float32) * gain).astype(np.float32)
    found = common_gain(values)
    multiples = np.rint(values / found)
    np.testing.assert_array_equal((multiples * found).astype(np.float32), values)
    assert multiples.max() <= 65535


def test_a_gain_that_was_multiplied_in_double_precision():
    steps = np.arange(0, 900, 7)
    values = (steps * np.float64(1 / 3)).astype(np.float32)
    packing = Packing(np.dtype(np.uint16), common_gain(values))
    restored = packing.unpack(packing.pack(values), np.float32)
    np.testing.assert_array_equal(restored, values)


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(0).random(50),
        np.array([0.0, 0.0]),
        np.array([-1.0, 2.0]),
        np.array([1.0, 65537.0]),
        np.zeros(0),
    ],
    ids=["continuous", "zeros", "negative", "too many steps", "none"],
)
def test_other_floats_have_no_gain(values):
    assert common_gain(values.astype(np.float32)) is None


@pytest.mark.parametrize(
    ("stack", "dtype"),
    [
        (counts(255), np.uint8),
        (counts(256), np.uint16),
        (counts(255).astype(np.int32), np.uint8),
        (counts(3000).astype(np.float32) * np.float32(0.25), np.uint16),
        (counts(255) > 100, np.uint8),
    ],
    ids=["bytes", "words", "signed", "gain", "bool"],
)
def test_packed_feeds_lose_nothing(stack, dtype):
    stack[..., -1, -1] = stack.max()
    source = open_source(stack)
    preparation = Preparation(shift=(1, -2), multiplier=1.5, pad=(2, 1))
    packing = find_packing(source, preparation)
    assert packing.dtype == dtype
    packed = PatternFeed(source, preparation, True, packing)
    assert packed.raw(slice(0, 2)).dtype == dtype
    plain = PatternFeed(source, preparation, True)
    for indices in (np.arange(3, 9), np.array([4, 0, 11]), slice(2, 5)):
        np.testing.assert_array_equal(packed(indices), plain(indices))
        assert packed(indices).dtype == np.float32
        np.testing.assert_array_equal(packed.counts(indices), packed(indices))
        assert packed.counts(indices).dtype == np.float32


def test_counts_with_a_gain_become_floats():
    source = open_source(counts(3000).astype(np.float32) * np.float32(0.25))
    preparation = Preparation(pad=(2, 1))
    packed = PatternFeed(source, preparation, True, find_packing(source, preparation))
    assert packed.raw(slice(0, 2)).dtype == np.uint16
    np.testing.assert_array_equal(packed.counts(np.arange(3)), packed(np.arange(3)))


def test_counts_that_need_no_factor_stay_whole():
    source = open_source(counts(256))
    preparation = Preparation(shift=(1, -2), pad=(2, 1))
    packed = PatternFeed(source, preparation, True, find_packing(source, preparation))
    plain = PatternFeed(source, preparation, True)
    for indices in (np.arange(3, 9), np.array([4, 0, 11])):
        assert packed.counts(indices).dtype == np.uint16
        np.testing.assert_array_equal(packed.counts(indices), plain.counts(indices))
        assert plain.counts(indices).dtype == np.float32


def test_bins_make_larger_numbers():
    source = open_source(counts(100)[:, :, :8])
    preparation = Preparation(bin=2)
    packing = find_packing(source, preparation)
    assert packing.dtype == np.uint16
    np.testing.assert_array_equal(
        PatternFeed(source, preparation, True, packing)(slice(None)),
        PatternFeed(source, preparation, True)(slice(None)),
    )
    assert typed_packing(source, preparation) is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda a: a.astype(float) + 0.5 * (np.arange(COUNT) == 22)[:, None, None] * 1e-3,
        lambda a: np.where(np.arange(COUNT)[:, None, None] == 22, -1, a),
        lambda a: np.where(np.arange(COUNT)[:, None, None] == 22, 70000, a),
        lambda a: np.where(np.arange(COUNT)[:, None, None] == 22, np.nan, a),
    ],
    ids=["fraction", "negative", "too large", "nan"],
)
def test_a_single_number_in_the_last_pattern_prevents_packing(spoil):
    stack = spoil(counts())
    assert find_packing(open_source(stack), Preparation(), limit=5) is not None
    assert find_packing(open_source(stack), Preparation()) is None


def test_an_empty_first_piece_decides_nothing(monkeypatch):
    stack = counts(9).astype(np.float32)
    stack[0] = 0
    source = open_source(stack)
    monkeypatch.setattr(source, "iter_chunks", lambda limit=None: ((None, p[None]) for p in stack))
    assert find_packing(source, Preparation()).dtype == np.uint8


# -- reading from files ------------------------------------------------------------------------


@pytest.fixture
def chunked(tmp_path):
    """A file of chunks of five patterns, and how often patterns are read from it."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data", data=counts(), chunks=(5, *SHAPE))
    with open_source(tmp_path / "a.h5") as source:
        reads = []
        read = source.read
        source.read = lambda indices: reads.append(indices) or read(indices)
        yield source, reads


@pytest.mark.parametrize("size", [1, 3, 5, 8, 23])
def test_every_chunk_is_read_once(chunked, size):
    source, reads = chunked
    feed = PatternFeed(source, Preparation(), resident=False)
    got = [feed(batch) for batch in np.split(np.arange(COUNT), range(size, COUNT, size))]
    np.testing.assert_array_equal(np.concatenate(got), np.fft.ifftshift(counts(), axes=(1, 2)))
    assert all(r.start % 5 == 0 for r in reads)
    assert sum(r.stop - r.start for r in reads) == COUNT


def test_batches_in_any_order_are_right(chunked):
    source, _ = chunked
    feed = PatternFeed(source, Preparation(corner=False), resident=False)
    rng = np.random.default_rng(1)
    for _ in range(80):
        first = rng.integers(0, COUNT - 4)
        batch = np.arange(first, first + 4) if rng.random() < 0.7 else rng.permutation(COUNT)[:4]
        np.testing.assert_array_equal(feed(batch), counts()[batch])
    assert len(feed._source._left) <= 64


def test_own_measurements_are_kept_and_others_read():
    source = open_source(counts())
    own = np.array([2, 3, 4, 11, 20])
    reads = []
    for packing in (None, typed_packing(open_source(counts().astype(np.uint8)), Preparation())):
        feed = PatternFeed(source, Preparation(multiplier=2), True, packing, own=own)
        assert feed._stack.shape == (5, *SHAPE)
        whole = PatternFeed(source, Preparation(multiplier=2), True)
        read = feed._source.read
        feed._source.read = lambda indices, read=read: reads.append(1) or read(indices)
        for indices in (own, own[1:3], np.array([20, 2])):
            np.testing.assert_array_equal(feed(indices), whole(indices))
        assert not reads
        np.testing.assert_array_equal(feed(np.array([2, 5])), whole(np.array([2, 5])))
        assert len(reads) == 1
        reads.clear()


# -- reading ahead -----------------------------------------------------------------------------


def batches(size=4):
    return np.split(np.arange(COUNT), range(size, COUNT, size))


@pytest.mark.parametrize("backend", [Backend(), GuardBackend()], ids=["cpu", "guard"])
@pytest.mark.parametrize("resident", [False, True])
def test_the_data_are_those_of_the_feed(backend, resident):
    source = open_source(counts().astype(np.uint8))
    packing = typed_packing(source, Preparation()) if resident else None
    feed = PatternFeed(source, Preparation(multiplier=3), resident, packing)
    with ReadAhead(feed, batches(), [backend]) as ahead:
        for batch in batches():
            got = ahead.get(0, batch)
            assert isinstance(got, GuardArray) == (backend.name != "cpu")
            np.testing.assert_array_equal(np.array(backend.to_host(got)), feed(batch))


def test_the_next_batches_are_read_while_one_is_computed():
    """The consumer waits for the read of the batch behind, which without a thread never comes."""
    feed = PatternFeed(open_source(counts()), Preparation(), resident=False)
    begun = [threading.Event() for _ in batches()]
    read = feed._source.read

    def noting(indices):
        begun[int(indices[0]) // 4].set()
        return read(indices)

    feed._source.read = noting
    main = threading.get_ident()
    threads = set()
    unpack = feed.unpack
    feed.unpack = lambda raw, xp: threads.add(threading.get_ident()) or unpack(raw, xp)
    with ReadAhead(feed, batches(), [Backend()]) as ahead:
        for i, batch in enumerate(batches()):
            ahead.get(0, batch)
            for later in begun[i : i + 3]:
                assert later.wait(10)
            assert not any(b.is_set() for b in begun[i + 3 :])
    assert threads
    assert main not in threads


def test_each_worker_reads_ahead_of_itself():
    feed = PatternFeed(open_source(counts()), Preparation(), resident=False)
    parts = batches()
    with ReadAhead(feed, parts, [Backend(), Backend()]) as ahead:
        for a, b in ((0, 3), (1, 4), (2, 5)):
            for worker, i in ((0, a), (1, b)):
                np.testing.assert_array_equal(ahead.get(worker, parts[i]), feed(parts[i]))


def test_parts_of_batches_and_repetitions_are_served_too():
    feed = PatternFeed(open_source(counts()), Preparation(), resident=False)
    with ReadAhead(feed, batches(), [Backend()]) as ahead:
        for indices in (
            np.arange(4),
            np.arange(4, 6),
            np.arange(6, 8),
            np.arange(4),
            np.arange(4, 8),
        ):
            np.testing.assert_array_equal(ahead.get(0, indices), feed(indices))


def test_a_failure_in_the_thread_arrives():
    source = open_source(counts())
    feed = PatternFeed(source, Preparation(), resident=False)
    with ReadAhead(feed, batches(), [Backend()]) as ahead:
        source.close()
        with pytest.raises(DataError, match="closed"):
            ahead.get(0, batches()[0])


def test_no_thread_is_left():
    before = threading.active_count()
    feed = PatternFeed(open_source(counts()), Preparation(), resident=False)
    with ReadAhead(feed, batches(), [Backend()]) as ahead:
        ahead.get(0, batches()[0])
        assert threading.active_count() > before
    assert threading.active_count() == before


def test_data_in_memory_need_no_thread():
    feed = PatternFeed(open_source(counts()), Preparation(), resident=True)
    before = threading.active_count()
    with ReadAhead(feed, batches(), [Backend()]) as ahead:
        assert np.shares_memory(ahead.get(0, batches()[2]), feed._stack)
        assert threading.active_count() == before


def test_a_device_keeps_what_it_was_sent():
    feed = PatternFeed(open_source(counts()), Preparation(), True, on_device=True)
    backend = GuardBackend()
    sent = []
    asarray = backend.asarray
    backend.asarray = lambda a, dtype=None: sent.append(len(a)) or asarray(a, dtype)
    for size in (4, 4, 5):
        with ReadAhead(feed, batches(size), [backend]) as ahead:
            for batch in batches(size):
                np.testing.assert_array_equal(np.array(ahead.get(0, batch)), feed(batch))
        held = sum(a.nbytes for a in feed._kept[backend.name].values())
        assert held <= feed._stack.nbytes
    assert sent == [4, 4, 4, 4, 4, 3, 5, 5, 5, 5, 3]


def test_signals_are_patterns_of_one_row():
    source = open_source(np.arange(12.0).reshape(4, 3))
    feed = SignalFeed(source, Preparation(), resident=False)
    assert feed(np.array([1, 3])).shape == (2, 1, 3)
