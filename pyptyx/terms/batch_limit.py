"""How many measurements are computed at once, once memory has run out."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

import numpy as np

from pyptyx.backend import Backend
from pyptyx.errors import DeviceError

logger = logging.getLogger(__name__)


class Clearable(Protocol):
    """Sums that can be begun again."""

    def clear(self) -> None:
        """Set everything to zero."""
        ...


Sums = TypeVar("Sums", bound=Clearable)
Work = Callable[[int, Sums, np.ndarray], Sums]


class BatchLimit:
    """The largest batch that is tried: without a limit at first, halved whenever memory runs out.

    One limit serves all workers of a process; it may be asked and lowered from any of them.
    """

    def __init__(self) -> None:
        self._most: int | None = None
        self._warnings: list[str] = []
        self._lock = threading.Lock()

    def split(self, batches: Iterable[np.ndarray]) -> list[np.ndarray]:
        """The batches in their order, those above the limit in parts of nearly equal size."""
        most = self._most
        if most is None:
            return list(batches)
        parts = (np.array_split(batch, max(1, -(-len(batch) // most))) for batch in batches)
        return [part for some in parts for part in some]

    def guard(self, work: Work[Sums], backends: Sequence[Backend]) -> Work[Sums]:
        """`work` that goes on with smaller batches when memory runs out, for one evaluation.

        A batch that fails has left part of its gradients behind.  So the worker begins again with
        its first batch: that is the rare case, and the others cost nothing.

        Parameters
        ----------
        work : callable
            ``work(worker, sums, indices) -> sums``.
        backends : sequence of Backend
            One per worker.
        """
        done: list[list[np.ndarray]] = [[] for _ in backends]

        def guarded(worker: int, sums: Sums, indices: np.ndarray) -> Sums:
            todo = [indices]
            while not self._succeeds(work, worker, sums, todo, backends[worker]):
                sums.clear()
                todo = [*done[worker], indices]
            done[worker].append(indices)
            return sums

        return guarded

    def _succeeds(
        self, work: Work[Sums], worker: int, sums: Sums, todo: list[np.ndarray], backend: Backend
    ) -> bool:
        """Whether all batches could be computed; if not, the limit is lower than before."""
        failed = 0
        for part in self.split(todo):
            try:
                work(worker, sums, part)
            except Exception as error:
                if not backend.ran_out_of_memory(error):
                    raise
                failed = len(part)
            if failed:  # here the error is gone, and with it all that its frames held
                backend.release_memory()
                self.halve(failed, backend)
                return False
        return True

    def halve(self, count: int, backend: Backend) -> None:
        """A batch of `count` measurements did not fit: take half as many from now on.

        Raises
        ------
        DeviceError
            If it was a single measurement.
        """
        free = backend.free_bytes() / 2**20
        if count <= 1:
            raise DeviceError(
                f"memory of {backend.name}: expected room for one measurement, got {free:.0f} MiB "
                "that are free. Use wave_storage='recompute', a smaller hist_length, fewer slices "
                "or modes, data_bin, or default_dtype='single'; `pyptyx plan` shows what takes most"
            )
        with self._lock:
            if self._most is not None and self._most < count:
                return  # another worker has lowered it since this batch was made
            self._most = count // 2
            text = (
                f"out of memory on {backend.name} with {count} measurements at once: "
                f"from now on {self._most}"
            )
            self._warnings.append(text)
        logger.warning("%s", text)

    def take_warnings(self) -> list[str]:
        """What happened since the last call, in words."""
        with self._lock:
            taken, self._warnings = self._warnings, []
        return taken
