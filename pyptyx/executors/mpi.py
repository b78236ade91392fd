"""Many processes: one per GPU or per share of the cores, on one machine or on many.

Every rank holds the variables; the measurements and the history of the optimiser are shared out.
Sums over the ranks are made by their owners in the order of the ranks: rank r receives the r-th
part of every rank's array, adds, and hands the total to all.  That moves as many bytes as a ring,
and gives the bits that as many threads would.
"""

from __future__ import annotations

import functools
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from pyptyx import errors
from pyptyx.backend import Backend
from pyptyx.device_group import DeviceGroup
from pyptyx.errors import DeviceError, ProblemError, WorkerError
from pyptyx.executors.base import Executor, Finish, share
from pyptyx.executors.communicator import Communicator
from pyptyx.trees import real_view

logger = logging.getLogger(__name__)

Array = Any
T = TypeVar("T")

_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
"""Where launchers say how many processes they have started."""

_PIECE = 1 << 26
"""Numbers that travel at once; the counts of an exchange have 32 bits."""

_PATIENCE_S = 20.0
"""How long a rank that has failed waits for the others before it ends the job."""

_POLL_S = 0.005


def launched_ranks() -> int:
    """How many processes a launcher has started, as far as the environment tells."""
    return max((int(v) for name in _SIZES if (v := os.environ.get(name, "")).isdigit()), default=1)


def world(executor: str = "auto") -> Communicator:
    """The processes that were started together.

    Parameters
    ----------
    executor : {"auto", "mpi", "threads", "serial"}
        ``"auto"`` asks MPI only under a launcher of several processes; ``"threads"`` and
        ``"serial"`` make every process work by itself.

    Raises
    ------
    DeviceError
        If there are several processes, but mpi4py is missing or belongs to another MPI.
    """
    launched = launched_ranks()
    if executor not in ("auto", "mpi") or (executor == "auto" and launched < 2):
        return Communicator()
    group = _group()
    if group is None or group.size < launched:
        seen = "no mpi4py" if group is None else f"one that sees {group.size} of {launched}"
        raise DeviceError(
            f"executor: expected mpi4py of the MPI that started the processes, got {seen}. "
            "Install pyptyx[mpi] with that MPI, or start a single process"
        )
    return group if group.size > 1 else Communicator()


@functools.cache
def _group() -> MpiCommunicator | None:
    """All ranks, connected once per process; None without mpi4py."""
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # RuntimeError: no MPI library is found
        logger.debug("mpi4py: %s", error)
        return None
    return MpiCommunicator(MPI.COMM_WORLD)


@dataclass
class _Fate:
    """What has befallen this process: waited in vain for the others, was interrupted."""

    deserted: bool = False
    interrupted: bool = False


class MpiCommunicator(Communicator):
    """The ranks of an MPI communicator.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm
        Duplicated, so that messages of other libraries do not get in the way.

    Attributes
    ----------
    host : str
        Name of this machine.
    """

    def __init__(self, comm: Any) -> None:
        from mpi4py import MPI

        self._comm = comm.Dup()
        self._exits = comm.Dup()
        node = comm.Split_type(MPI.COMM_TYPE_SHARED)
        self.rank, self.size = comm.rank, comm.size
        self.local_rank, self.local_size = node.rank, node.size
        node.Free()
        self.host = MPI.Get_processor_name()
        self._backend = Backend()
        self._group: DeviceGroup | None = None
        self._fate = _Fate()

    @property
    def name(self) -> str:
        """How this rank is called in messages."""
        return f"rank {self.rank} of {self.size} on {self.host}"

    def on(self, backend: Backend) -> MpiCommunicator:
        other = object.__new__(MpiCommunicator)
        other.__dict__.update(self.__dict__, _backend=backend)
        # NCCL needs a device of its own for every rank; without it arrays travel through the host.
        devices = self.gather((self.host, backend.group_id))
        if all(device for _, device in devices) and len(set(devices)) == self.size:
            with backend.context():
                key = self.on_main(backend.group_key)
                other._group = backend.group(key, self.rank, self.size)
        return other

    def gather(self, value: T) -> list[T]:
        return self._comm.allgather(value)

    def concatenate(self, part: Array) -> Array:
        counts = self.gather(part.size)
        ends = [sum(counts[: r + 1]) for r in range(self.size)]
        if self._group is not None and isinstance(part, self._backend.array):
            whole = self._backend.xp.zeros(ends[-1], part.dtype)
            whole[ends[self.rank] - part.size : ends[self.rank]] = part
            self._group.sum_into(whole)
            return whole
        host = self._backend.to_host(part)
        joined = np.empty(ends[-1], host.dtype)
        for root, (end, count) in enumerate(zip(ends, counts, strict=True)):
            own = joined[end - count : end]
            if root == self.rank:
                own[...] = host
            for i in range(0, count, _PIECE):
                self._comm.Bcast(own[i : i + _PIECE], root)
        return self._backend.asarray(joined) if isinstance(part, self._backend.array) else joined

    def sum_into(self, arrays: Sequence[Array]) -> None:
        for a in arrays:
            if not isinstance(a, self._backend.array):
                self._sum_on_host(real_view(a))
            elif self._group is not None:
                self._group.sum_into(real_view(a))
            else:
                host = np.ascontiguousarray(self._backend.to_host(a))
                self._sum_on_host(real_view(host))
                a[...] = self._backend.asarray(host)

    def _sum_on_host(self, flat: np.ndarray) -> None:
        """Each rank adds one part of every piece, in the order of the ranks."""
        for i in range(0, flat.size, _PIECE):
            piece = flat[i : i + _PIECE]
            counts = [part.stop - part.start for part in share(piece.size, self.size)]
            mine = np.empty((self.size, counts[self.rank]), flat.dtype)
            self._comm.Alltoallv([piece, counts], [mine, [counts[self.rank]] * self.size])
            for row in mine[1:]:
                mine[0] += row
            self._comm.Allgatherv(mine[0], [piece, counts])

    def on_main(self, function: Callable[[], T]) -> T:
        value, error = _attempt(function) if self.is_main else (None, None)
        value, message = self._comm.bcast((value, _message(error)))
        if error is not None:
            raise error
        if message is not None:
            raise _error(message)
        return value

    def together(self, function: Callable[[], T]) -> T:
        value, error = _attempt(function)
        messages = self._comm.allgather(_message(error))
        for rank, message in enumerate(messages):
            if message is not None:
                raise error if error is not None and rank == self.rank else _error(message)
        return value

    def assembled(self) -> bool:
        return not self._fate.deserted and self._wait(_PATIENCE_S)

    def interrupt_point(self) -> None:
        if any(self.gather(self._fate.interrupted)):
            self._fate.interrupted = False
            raise KeyboardInterrupt

    @contextmanager
    def guard(self) -> Iterator[None]:
        failure = None
        try:
            with self._interrupts_noted():
                yield
        except BaseException as error:  # whatever it is, the others must hear of it
            failure = error
        patience = None if failure is None else _PATIENCE_S
        if self._fate.deserted or not self._wait(patience):
            self._abort(failure)
        if failure is not None:
            self._exits.allgather(self.name)
            raise failure
        failed = [name for name in self._exits.allgather("") if name]
        if failed:
            raise WorkerError(f"{failed[0]} failed after the others were done")

    @contextmanager
    def _interrupts_noted(self) -> Iterator[None]:
        """Context in which the first interruption waits for `interrupt_point`.

        Each rank is interrupted at a moment of its own, but has to stop where the others do.
        """
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread hears signals
            return
        before = signal.getsignal(signal.SIGINT)

        def note(number: int, frame: Any) -> None:
            if self._fate.interrupted and callable(before):
                before(number, frame)
            self._fate.interrupted = True

        signal.signal(signal.SIGINT, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _wait(self, patience_s: float | None) -> bool:
        """Whether all ranks get here in time; without a limit for those that can wait."""
        barrier = self._exits.Ibarrier()
        end = None if patience_s is None else time.monotonic() + patience_s
        while not barrier.Test():
            if end is not None and time.monotonic() > end:
                self._fate.deserted = True
                return False
            time.sleep(_POLL_S)
        return True

    def _abort(self, failure: BaseException | None) -> None:
        """End all processes; the other ranks wait for a message that will never come."""
        logger.error(
            "%s failed, the job is ended: %s: %s", self.name, type(failure).__name__, failure
        )
        logger.debug("the failure", exc_info=failure)
        logging.shutdown()
        sys.stderr.flush()
        self._comm.Abort(1)


class MpiExecutor(Executor):
    """The workers of all ranks; each rank runs its own.

    Parameters
    ----------
    local : Executor
        The workers of this rank; every rank has as many.
    communicator : MpiCommunicator
    """

    def __init__(self, local: Executor, communicator: MpiCommunicator) -> None:
        self._local = local
        self._name = communicator.name
        self.backends = local.backends
        self.communicator = communicator.on(local.backends[0])

    def map_reduce(
        self,
        start: Callable[[int], Any],
        work: Callable[[int, Any, Any], Any],
        items: Sequence[Any],
        merge: Callable[[Any, Any], Any],
        sums: Callable[[Any], Sequence[Array]],
        finish: Finish | None = None,
    ) -> Any:
        mine = items[share(len(items), self.communicator.size)[self.communicator.rank]]

        def local() -> Any:
            try:
                return self._local.map_reduce(start, work, mine, merge, sums, finish)
            except WorkerError as error:
                raise WorkerError(f"{self._name}, {error}") from error.__cause__

        total = self.communicator.together(local)
        with self.backends[0].context():
            self.communicator.sum_into(sums(total))
        return total

    def close(self) -> None:
        self._local.close()


Outcome = tuple[Any, BaseException | None]
Message = tuple[str, tuple[Any, ...]]


def _attempt(function: Callable[[], Any]) -> Outcome:
    """What a function returns, and what it raises."""
    try:
        return function(), None
    except BaseException as error:  # raised again on every rank
        return None, error


def _message(error: BaseException | None) -> Message | None:
    """Kind and content of an error, for the other ranks."""
    if error is None:
        return None
    content = (error.problems,) if isinstance(error, ProblemError) else (str(error),)
    return type(error).__name__, content


def _error(message: Message) -> BaseException:
    """The error that another rank speaks of."""
    name, content = message
    if name == KeyboardInterrupt.__name__:
        return KeyboardInterrupt(*content)
    kind = getattr(errors, name, None)
    return kind(*content) if kind else WorkerError(f"{name}: {content[0]}")
