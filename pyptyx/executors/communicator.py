"""The processes that work on one problem.  One process alone needs no communication at all.

`Communicator` is that one process, and what `pyptyx.executors.mpi` offers for many: code that calls
it reads the same in both cases.  Every method but `abort` is collective: all ranks call it, in the
same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from pyptyx.backend import Backend

Array = Any
T = TypeVar("T")


class Communicator:
    """One process alone.

    Attributes
    ----------
    rank, size : int
        Number of this process and of all.
    local_rank, local_size : int
        The same among the processes of this machine.
    """

    rank = 0
    size = 1
    local_rank = 0
    local_size = 1

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, the one that writes and prints."""
        return self.rank == 0

    def on(self, backend: Backend) -> Communicator:
        """The same processes, exchanging arrays that lie on `backend`."""
        return self

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, in their order, on every rank."""
        return [value]

    def concatenate(self, part: Array) -> Array:
        """The flat arrays of all ranks, one behind the other, on every rank."""
        return part

    def sum_into(self, arrays: Sequence[Array]) -> None:
        """Replace every array by its sum over the ranks, added in their order."""

    def on_main(self, function: Callable[[], T]) -> T:
        """What `function` returns, or raises, on rank 0; the others do not call it."""
        return function()

    def together(self, function: Callable[[], T]) -> T:
        """What `function` returns on this rank.

        If it fails on any, the error of the lowest of these ranks is raised on all.
        """
        return function()

    def assembled(self) -> bool:
        """Whether all ranks get here soon; False if one does not, because it has failed."""
        return True

    def finally_on_main(self, function: Callable[[], None]) -> None:
        """As `on_main`, and on rank 0 alone if the others do not come."""
        if self.assembled():
            self.on_main(function)
        elif self.is_main:
            function()

    def interrupt_point(self) -> None:
        """Raise KeyboardInterrupt on all ranks if one was interrupted since the last time."""

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Context which all ranks leave together, or the whole job is ended with a message."""
        yield
