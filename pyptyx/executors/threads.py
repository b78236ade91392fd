"""One persistent thread per device, or per share of the measurements on a CPU.

NumPy and SciPy release the GIL inside FFTs and large element-wise operations, so threads over
chunks of measurements scale where threads inside one small FFT do not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

from pyptyx.backend import Backend
from pyptyx.executors.base import Executor, Finish, fold, share


class ThreadExecutor(Executor):
    """A fixed set of worker threads; worker w always runs on thread w."""

    def __init__(self, backends: Sequence[Backend]) -> None:
        self.backends = list(backends)
        # One pool of one thread each: the thread keeps its device, FFT plans and caches.
        self._pools = [
            ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"pyptyx-{b.name}-{i}")
            for i, b in enumerate(self.backends)
        ]

    def map_reduce(
        self,
        start: Callable[[int], Any],
        work: Callable[[int, Any, Any], Any],
        items: Sequence[Any],
        merge: Callable[[Any, Any], Any],
        sums: Callable[[Any], Sequence[Any]],
        finish: Finish | None = None,
    ) -> Any:
        shares = share(len(items), len(self.backends))
        futures = [
            # In a copy of the caller's context: which numbers NumPy warns of is part of it.
            pool.submit(copy_context().run, fold, w, backend, start, work, items[part], finish)
            for w, (pool, backend, part) in enumerate(
                zip(self._pools, self.backends, shares, strict=True)
            )
        ]
        errors = [f.exception() for f in futures]  # waits for all, so no worker is left running
        for error in errors:
            if error is not None:
                raise error
        total = futures[0].result()
        with self.backends[0].context():
            for future in futures[1:]:
                total = merge(total, future.result())
        return total

    def close(self) -> None:
        for pool in self._pools:
            pool.shutdown(wait=True)
