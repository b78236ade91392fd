"""The upload buffers, on a stand-in for CuPy that notes the order of what is asked of it."""

from types import SimpleNamespace

import numpy as np
import pytest

from pyptyx.uploads import UploadRing


class Memory(np.ndarray):
    """An array that knows which allocation it lies in, as CuPy's do."""

    @property
    def data(self):
        base = self
        while base.base is not None:
            base = base.base
        return SimpleNamespace(mem=base)

    def set(self, host, stream):
        stream.log.append("copy")
        self[...] = host


class Stream:
    def __init__(self, log):
        self.log = log

    def wait_event(self, event):
        self.log.append(f"work waits for {event.name}")


class Event:
    def __init__(self, log, name):
        self.log, self.name = log, name

    def record(self, stream):
        self.log.append(f"{self.name} recorded")

    def synchronize(self):
        self.log.append(f"host waits for {self.name}")


class FakeCupy:
    """As much of CuPy as the buffers use."""

    def __init__(self):
        self.log = []
        self.allocated = []
        self._names = iter(f"{kind} {i}" for i in range(99) for kind in ("arrived", "consumed"))
        self.cuda = SimpleNamespace(
            Stream=lambda non_blocking: Stream(self.log),
            Event=lambda disable_timing: Event(self.log, next(self._names)),
            Memory=lambda size: self.allocated.append(size),
            MemoryPointer=lambda memory, offset: None,
            alloc_pinned_memory=bytearray,
        )

    @staticmethod
    def ndarray(shape, dtype, memptr):
        return np.empty(shape, dtype).view(Memory)


@pytest.fixture
def ring():
    cupy = FakeCupy()
    return UploadRing(cupy, Stream(cupy.log)), cupy


def as_float(a, xp):
    return a.astype(np.float32)


def test_what_arrives_is_what_was_sent(ring):
    ring, cupy = ring
    rng = np.random.default_rng(0)
    stacks = [rng.integers(0, 99, (n, 3, 5)).astype(np.uint16) for n in (4, 4, 2, 7, 1, 7)]
    for stack in stacks:
        got = ring.end(ring.begin(stack, as_float))
        np.testing.assert_array_equal(got, stack)
    assert cupy.allocated == [120, 120, 60, 210, 210]  # each buffer, and those grown later


def test_buffers_in_use_are_left_alone(ring):
    ring, _ = ring
    stacks = [np.full((2, 3), i, np.uint8) for i in range(8)]
    begun = [ring.begin(s, as_float) for s in stacks[:2]]
    for i, stack in enumerate(stacks):
        np.testing.assert_array_equal(ring.end(begun.pop(0)), stack)
        if i + 2 < len(stacks):
            begun.append(ring.begin(stacks[i + 2], as_float))


def test_no_buffer_is_filled_before_it_was_consumed(ring):
    ring, cupy = ring
    for _ in range(4):
        ring.end(ring.begin(np.ones((2, 3), np.uint8), as_float))
    fourth = cupy.log[cupy.log.index("consumed 2 recorded") + 1 :]
    assert fourth == [
        "host waits for arrived 0",
        "host waits for consumed 0",
        "copy",
        "arrived 0 recorded",
        "work waits for arrived 0",
        "consumed 0 recorded",
    ]


def test_the_result_never_lies_in_a_buffer(ring):
    ring, _ = ring
    stack = np.ones((2, 3), np.float32)
    upload = ring.begin(stack, lambda a, xp: a)
    got = ring.end(upload)
    upload.device[...] = 0
    np.testing.assert_array_equal(got, stack)


def test_arrays_in_any_memory_order_can_be_sent(ring):
    ring, _ = ring
    stack = np.arange(24, dtype=np.uint16).reshape(2, 3, 4).transpose(0, 2, 1)[:, ::-1]
    np.testing.assert_array_equal(ring.end(ring.begin(stack, as_float)), stack)
