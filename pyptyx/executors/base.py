"""The one operation of an executor: reduce a list of items over workers, in a fixed order.

Worker w of n takes the contiguous share `share(len(items), n)[w]`, starts from ``start(w)``,
folds its items in order with ``work(w, partial, item)``, and the partial results are merged in
the order of the workers.  The result therefore depends on the number of workers only by rounding,
and for a given number not at all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise
from types import TracebackType
from typing import Any

from pyptyx.backend import Backend
from pyptyx.errors import DeviceError, WorkerError
from pyptyx.executors.communicator import Communicator

Finish = Callable[[int, Any], Any]


class Executor(ABC):
    """Workers, each with a backend of its own.

    Attributes
    ----------
    backends : sequence of Backend
        One per worker of this process.
    communicator : Communicator
        The processes that share the work.
    """

    backends: Sequence[Backend]
    communicator: Communicator = Communicator()

    @property
    def workers(self) -> int:
        """Number of workers of all processes, which have equally many."""
        return len(self.backends) * self.communicator.size

    @abstractmethod
    def map_reduce(
        self,
        start: Callable[[int], Any],
        work: Callable[[int, Any, Any], Any],
        items: Sequence[Any],
        merge: Callable[[Any, Any], Any],
        sums: Callable[[Any], Sequence[Any]],
        finish: Finish | None = None,
    ) -> Any:
        """Fold `items` as described on the module's page.

        Parameters
        ----------
        start, work, merge : callable
            ``start(worker)``, ``work(worker, partial, item)``, ``merge(total, other)``.
        items : sequence
            The same in every process; empty ones are passed over.
        sums : callable
            ``sums(total)``: the arrays of a partial result that are added over the processes, in
            place.
        finish : callable, optional
            ``finish(worker, partial)`` after the last item of a worker, on its device.

        Raises
        ------
        WorkerError
            If a worker fails; it names worker and batch and chains the cause.
        """

    def close(self) -> None:  # noqa: B027 - a worker in the calling thread has nothing to stop
        """Stop the workers."""

    def __enter__(self) -> Executor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()


def share(n_items: int, n_workers: int) -> list[slice]:
    """Contiguous, balanced shares (sizes differ by at most one)."""
    base, extra = divmod(n_items, n_workers)
    bounds = [0]
    for w in range(n_workers):
        bounds.append(bounds[-1] + base + (w < extra))
    return [slice(a, b) for a, b in pairwise(bounds)]


def fold(
    worker: int,
    backend: Backend,
    start: Callable[[int], Any],
    work: Callable[[int, Any, Any], Any],
    items: Sequence[Any],
    finish: Finish | None = None,
) -> Any:
    """Fold one worker's share on its device.

    Raises
    ------
    WorkerError
        Whatever fails, from the first copy to the device to the last synchronisation.
    DeviceError
        What a device cannot do is said as it is.
    """
    doing = "at its start"
    try:
        with backend.context():
            partial = start(worker)
            for i, item in enumerate(items):
                if len(item) == 0:
                    continue
                doing = f"in its batch {i + 1} of {len(items)}, {_name(item)}"
                partial = work(worker, partial, item)
            doing = "at its end"
            if finish is not None:
                partial = finish(worker, partial)
            backend.synchronize()
            return partial
    except DeviceError:
        raise
    except Exception as error:
        raise WorkerError(
            f"worker {worker} ({backend.name}) failed {doing}: {type(error).__name__}: {error}"
        ) from error


def _name(item: Any) -> str:
    """How a batch is named in an error."""
    try:
        return f"measurements {int(item[0])} to {int(item[-1])}"
    except (TypeError, IndexError, ValueError):
        return repr(item)
