"""Sums over detector pixels and other work in chunks, shared among the workers of an executor.

Work is written once, for the arrays of any backend: ``prepare(backend)`` places on the device what
all chunks need and returns ``work(chunk)``.  Data are read on the host and sent chunk by chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import iadd
from typing import Any

import numpy as np

from pyptyx.backend import Backend, MapReduce

Array = Any
Work = Callable[[slice], Any]

_DEVICE_CHUNKS = 16
"""Chunks are so much larger on a device, which is idle between small kernels, than in a cache."""


class Alone:
    """The one worker of sums that are given no executor: the calling thread.

    Parameters
    ----------
    backend : Backend, optional
        Where it works; by default NumPy.
    """

    def __init__(self, backend: Backend | None = None):
        self.backends = [backend or Backend()]

    def map_reduce(
        self,
        start: Callable[[int], Any],
        work: Callable[[int, Any, Any], Any],
        items: Sequence[Any],
        merge: Callable[[Any, Any], Any],
        sums: Callable[[Any], Sequence[Any]],
        finish: Callable[[int, Any], Any] | None = None,
    ) -> Any:
        """Fold all items; `merge` and `sums` have nothing to do."""
        partial = start(0)
        for item in items:
            partial = work(0, partial, item)
        return partial if finish is None else finish(0, partial)


def chunks(count: int, size: int) -> list[slice]:
    """Slices of an even number of elements, near `size`, that cover ``range(count)``."""
    size = max(2, size - size % 2)
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def cache_bytes(number: int, executor: MapReduce | None) -> int:
    """Size of the arrays of a chunk: `number` on a CPU, where they stay in the cache, else more."""
    on_cpu = executor is None or executor.backends[0].name == "cpu"
    return number if on_cpu else _DEVICE_CHUNKS * number


@dataclass
class _Partial:
    """What one worker does, and what it has added up so far."""

    work: Work
    sums: list[Array]


def summed(
    prepare: Callable[[Backend], Work],
    pieces: Sequence[slice],
    executor: MapReduce | None = None,
) -> list[np.ndarray]:
    """``Σ work(piece)``, array by array.

    The order of summation, and with it the rounding, depends on nothing but the number of workers.

    Parameters
    ----------
    prepare : callable
        From a backend to the work of its worker: from a slice to arrays of that device, which may
        be kept and whose shapes do not depend on the slice.
    pieces : sequence of slice
        At least one.
    executor : MapReduce, optional
        By default the calling thread works alone.

    Returns
    -------
    list of ndarray
        On the host.
    """
    executor = executor or Alone()
    backends = executor.backends

    def start(worker: int) -> _Partial:
        return _Partial(prepare(backends[worker]), [])

    def add(worker: int, partial: _Partial, item: range) -> _Partial:
        return _added(partial, list(partial.work(slice(item.start, item.stop))))

    def merge(total: _Partial, other: _Partial) -> _Partial:
        return _added(total, [backends[0].asarray(a) for a in other.sums])

    total = executor.map_reduce(start, add, _items(pieces), merge, lambda total: total.sums)
    with backends[0].context():
        return [backends[0].to_host(a) for a in total.sums]


def _added(partial: _Partial, arrays: list[Array]) -> _Partial:
    """`arrays` added, in place where they are no scalars; a worker without work has none."""
    if partial.sums and arrays:
        partial.sums = [iadd(a, b) for a, b in zip(partial.sums, arrays, strict=True)]
    else:
        partial.sums = partial.sums or arrays
    return partial


def spread(
    prepare: Callable[[Backend], Work],
    pieces: Sequence[slice],
    executor: MapReduce | None = None,
) -> None:
    """Do the work of every piece for its effect: what it writes on the host, no other piece does.

    Parameters are those of `summed`.
    """
    executor = executor or Alone()

    def start(worker: int) -> Work:
        return prepare(executor.backends[worker])

    def do(worker: int, work: Work, item: range) -> Work:
        work(slice(item.start, item.stop))
        return work

    executor.map_reduce(start, do, _items(pieces), lambda total, other: total, lambda total: ())


def _items(pieces: Sequence[slice]) -> list[range]:
    """As executors want them: with a length."""
    return [range(piece.start, piece.stop) for piece in pieces]
