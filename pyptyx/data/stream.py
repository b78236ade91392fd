"""Patterns on their way to the workers: kept in memory or in their file, read ahead, prepared.

`PatternFeed` answers ``feed(indices)``; `ReadAhead` asks it for the next batch while the present
one is computed.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from types import TracebackType
from typing import Any, Self

import numpy as np

from pyptyx.backend import Backend
from pyptyx.data.base import Indices, PatternSource
from pyptyx.data.packing import Packing
from pyptyx.data.prepare import Preparation, prepared_shape
from pyptyx.data.selection import Selection
from pyptyx.errors import DataError, Problem

Array = Any
Feed = Callable[[np.ndarray], np.ndarray]


class PatternFeed:
    """Prepared patterns by number, kept in memory or prepared anew for every batch.

    Parameters
    ----------
    source : PatternSource
        The stored patterns.
    preparation : Preparation
        Their treatment.
    resident : bool
        Prepare everything once, in pieces, and keep it.
    packing : Packing, optional
        Keep whole numbers of one or two bytes; they become floats batch by batch.
    on_device : bool
        Keep what a device has been sent there, too.
    own : ndarray of int, optional
        Measurements that are kept, if not all; others are read when they are asked for.
    look : callable, optional
        Is shown all stored patterns that are kept, piece by piece.

    Attributes
    ----------
    shape : tuple of int
        ``(N, Y, X)`` or ``(N, Nmask)`` of all prepared patterns.
    streamed : bool
        Whether a batch has to be read from the source.
    packing : Packing or None

    Raises
    ------
    ShapeError
        If the preparation does not fit the patterns.
    DataError
        If the patterns are to be kept and do not fit in memory.
    """

    def __init__(
        self,
        source: PatternSource,
        preparation: Preparation,
        resident: bool,
        packing: Packing | None = None,
        on_device: bool = False,
        own: np.ndarray | None = None,
        look: Callable[[np.ndarray], None] | None = None,
    ):
        self.shape = prepared_shape(source, preparation)
        self.streamed = not resident
        self._source = _WholeChunks(source)
        self._preparation = preparation
        self.packing = packing
        self._places: np.ndarray | None = None
        self._stack: np.ndarray | None = None
        if resident and own is None:
            self._stack = self._prepare_all(source, look)
        elif resident and own is not None:
            self._stack = self._prepare_all(Selection(source, own), look)
            self._places = np.full(self.shape[0], -1)
            self._places[own] = np.arange(len(own))
        self._kept: dict[str, dict[bytes, Array]] | None = {} if on_device else None

    def __call__(self, indices: Indices) -> np.ndarray:
        """Prepared patterns on the host, shape (B, Y, X) or (B, Nmask); treat them as read-only.

        Raises
        ------
        DataError
            If the source cannot be read.
        """
        return self.unpack(self.raw(indices), np)

    def counts(self, indices: Indices) -> np.ndarray:
        """As when called, but whole numbers that are the patterns stay whole: uint8 or uint16."""
        packing = self.packing
        whole = packing is not None and packing.gain == 1 and self._preparation.multiplier == 1
        return self.raw(indices) if whole else self(indices)

    def raw(self, indices: Indices) -> np.ndarray:
        """The patterns as they lie in memory or in the file, which `unpack` understands."""
        if self._stack is None:
            return self._source.read(indices)
        if isinstance(indices, slice):
            indices = np.arange(*indices.indices(self.shape[0]))
        places = np.asarray(indices, dtype=np.intp)
        if self._places is not None:
            places = self._places[places]
            if (places < 0).any():
                return self._as_kept(self._source.read(indices))
        return self._stack[slice(places[0], places[-1] + 1) if _is_run(places) else places]

    def unpack(self, raw: Array, xp: Any) -> Array:
        """Prepared patterns of what `raw` returned, as arrays of the namespace `xp`."""
        if self._stack is None:
            return self._preparation(raw, xp=xp)
        if self.packing is None:
            return raw
        patterns = self.packing.unpack(raw, self._preparation.dtype)
        if self._preparation.multiplier != 1:
            patterns *= self._preparation.multiplier
        return patterns

    def kept(self, backend: Backend, indices: np.ndarray) -> Array | None:
        """`raw` on a device that keeps it for the next time; None if devices keep nothing."""
        if self._kept is None or backend.name == "cpu":
            return None
        arrays = self._kept.setdefault(backend.name, {})
        key = indices.tobytes()
        if key not in arrays:
            raw = self.raw(indices)
            if sum(a.nbytes for a in arrays.values()) + raw.nbytes > self._raw_bytes:
                arrays.clear()  # those of another sequence of measurements
            arrays[key] = backend.asarray(raw)
        return arrays[key]

    @property
    def _raw_bytes(self) -> int:
        if self._stack is not None:
            return self._stack.nbytes
        return math.prod(self._source.source.shape) * self._source.source.dtype.itemsize

    def _prepare_all(
        self, source: PatternSource, look: Callable[[np.ndarray], None] | None
    ) -> np.ndarray:
        dtype = np.dtype(self._preparation.dtype if self.packing is None else self.packing.dtype)
        shape = (len(source), *self.shape[1:])
        try:
            stack = np.empty(shape, dtype)
        except MemoryError as error:
            raise DataError(
                Problem(
                    source.name,
                    "patterns that fit in memory",
                    f"{math.prod(shape) * dtype.itemsize / 2**30:.1f} GiB",
                    "Leave them on disk.",
                )
            ) from error
        for where, patterns in source.iter_chunks(_PIECE_BYTES):
            if look is not None:
                look(patterns)
            stack[where] = self._as_kept(patterns)
        stack.flags.writeable = False
        return stack

    def _as_kept(self, patterns: np.ndarray) -> np.ndarray:
        """Stored patterns as they are kept in memory."""
        if self.packing is None:
            return self._preparation(patterns)
        # The multiplier comes when they are unpacked.
        counts = replace(self._preparation, multiplier=1.0)(self.packing.pack(patterns))
        return counts.astype(self.packing.dtype)


class SignalFeed(PatternFeed):
    """Signals of virtual detectors, as patterns of one row: (B, 1, Nmask)."""

    def unpack(self, raw: Array, xp: Any) -> Array:
        return super().unpack(raw, xp)[:, None]


class _WholeChunks:
    """Reads whole storage chunks, so that none is decompressed for two batches.

    What a batch leaves over of its last chunk waits for the batch that goes on there.
    """

    def __init__(self, source: PatternSource) -> None:
        self.source = source
        self._left: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    def read(self, indices: Indices) -> np.ndarray:
        """As `PatternSource.read`."""
        chunk = self.source.chunk_patterns
        numbers = np.asarray(indices) if not isinstance(indices, slice) else np.zeros(0)
        if chunk == 1 or not _is_run(numbers):
            return self.source.read(indices)
        first, last = int(numbers[0]), int(numbers[-1]) + 1
        with self._lock:
            begun = self._left.pop(first, None)
        start = first if begun is None else first + len(begun)
        stop = max(start, min(-(-last // chunk) * chunk, self.source.shape[0]))
        parts = [] if begun is None else [begun]
        if stop > start:
            parts.append(self.source.read(slice(start, stop)))
        patterns = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if len(patterns) > len(numbers):
            with self._lock:
                # A reader that will not go on there must not leave more and more behind.
                if len(self._left) >= _LEFT_OVERS:
                    self._left.pop(next(iter(self._left)))
                self._left[last] = patterns[len(numbers) :]
        return patterns[: len(numbers)]


_LEFT_OVERS = 64
"""Parts of chunks that are kept at most: one per worker is enough."""

_PIECE_BYTES = 8 << 20
"""Stored patterns that are prepared at once."""


def _is_run(indices: np.ndarray) -> bool:
    """Whether consecutive numbers are asked for, so that a view serves."""
    return len(indices) > 0 and bool((indices[1:] - indices[:-1] == 1).all())


_AHEAD = 2
"""Batches that are read ahead; a second one bridges the moments a busy machine takes away."""


class _Lane:
    """What is read ahead for one worker, in one thread, in the order of the batches."""

    def __init__(
        self, feed: PatternFeed, following: dict[int, np.ndarray], backend: Backend
    ) -> None:
        self._feed = feed
        self._following = following
        self._backend = backend
        self._begun: deque[tuple[np.ndarray, Future[Any]]] = deque()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="pyptyx-read")

    def get(self, indices: np.ndarray) -> Array:
        """See `ReadAhead`."""
        if not (self._begun and np.array_equal(self._begun[0][0], indices)):
            self._drop()
            self._begin(indices)
        sent = self._begun.popleft()[1].result()
        last = self._begun[-1][0] if self._begun else indices
        while len(self._begun) < _AHEAD and int(last[0]) in self._following:
            last = self._following[int(last[0])]
            self._begin(last)
        return self._backend.end_upload(sent)

    def close(self) -> None:
        """Stop the thread."""
        self._drop()
        self._pool.shutdown(wait=True)

    def _begin(self, indices: np.ndarray) -> None:
        def send() -> Any:
            return self._backend.begin_upload(self._feed.raw(indices), self._feed.unpack)

        self._begun.append((indices, self._pool.submit(send)))

    def _drop(self) -> None:
        while self._begun:
            future = self._begun.popleft()[1]
            if not future.cancel():
                future.exception()  # wait: one upload at a time


class ReadAhead:
    """The data of the batches of one evaluation on the workers' devices.

    While a worker computes a batch, a thread reads, prepares and sends the next ones.
    Patterns that lie ready where they are needed are taken by the worker itself.

    Parameters
    ----------
    feed : PatternFeed or callable
        ``feed(indices) -> (B, ky, kx)`` on the host.  The patterns of a `PatternFeed` travel to a
        device as they are stored and are prepared there.
    batches : sequence of ndarray of int
        In the order in which they will be asked for; a worker asks for a contiguous part.
    backends : sequence of Backend
        One per worker.
    """

    def __init__(
        self, feed: Feed, batches: Sequence[np.ndarray], backends: Sequence[Backend]
    ) -> None:
        self._feed = feed
        self._backends = backends
        self._lanes: list[_Lane] = []
        away = any(backend.name != "cpu" for backend in backends)
        if isinstance(feed, PatternFeed) and (feed.streamed or away):
            filled = [batch for batch in batches if len(batch)]
            following = {int(batch[0]): then for batch, then in pairwise(filled)}
            self._lanes = [_Lane(feed, following, backend) for backend in backends]

    def get(self, worker: int, indices: np.ndarray) -> Array:
        """Prepared patterns of a batch, perhaps as whole numbers; those behind it are begun.

        Raises
        ------
        DataError
            If the patterns cannot be read.
        """
        backend = self._backends[worker]
        if not isinstance(self._feed, PatternFeed):
            return backend.asarray(self._feed(indices))
        kept = self._feed.kept(backend, indices)
        if kept is not None:
            return self._feed.unpack(kept, backend.xp)
        return self._lanes[worker].get(indices) if self._lanes else self._feed.counts(indices)

    def close(self) -> None:
        """Drop what was begun and is not wanted."""
        for lane in self._lanes:
            lane.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()
