"""A reconstruction problem: everything that is constant during a run, and the present variables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

import numpy as np

from pyptyx.backend import Backend
from pyptyx.data.base import PatternSource
from pyptyx.engine import batching
from pyptyx.engine.state import Snapshot
from pyptyx.errors import ParamError, Problem
from pyptyx.executors import Communicator, Executor
from pyptyx.physics.model import ModelSpec
from pyptyx.terms.data_term import DataTerm, ScanTable

Tree = dict[str, Any]


@dataclass
class Reconstruction:
    """A reconstruction problem: what is constant during a run, and the start values.

    Attributes
    ----------
    params : dict
        Resolved parameters.
    x : dict
        Start values, inside layout, on the main backend.
    spec : ModelSpec
    scan : ScanTable
    executor : Executor
    source : PatternSource or None
        None in a pure simulation.
    batch_size : int
    measurements : int
        Number of measurements N.
    data_term : DataTerm
        Over all measurements with weight 1; `DataTerm.replace` makes the one of an epoch.
    place : ndarray of int, (N,) or (1,)
        Where on a curve through the scan a measurement lies; workers get contiguous parts of it.
    start_positions : ndarray (N, 2)
        Positions before the first epoch, in the frame of the present object.
    resumed : Snapshot or None
        Where a continued run stands; the loop goes on from there.
    """

    params: dict[str, Any]
    x: Tree
    spec: ModelSpec
    scan: ScanTable
    executor: Executor
    source: PatternSource | None
    batch_size: int
    measurements: int
    data_term: DataTerm
    place: np.ndarray
    _resources: list[Any] = field(default_factory=list)
    start_positions: np.ndarray = field(init=False)
    resumed: Snapshot | None = None

    def __post_init__(self) -> None:
        """Remember where the scan started."""
        self.start_positions = self.x["positions"].copy()

    @property
    def backend(self) -> Backend:
        """Where the variables live."""
        return self.executor.backends[0]

    @property
    def communicator(self) -> Communicator:
        """The processes that work on it."""
        return self.executor.communicator

    @property
    def first_epoch(self) -> int:
        """Number of the first epoch of this run, or of this part of it."""
        return int(self.params["epoch_prev"]) if self.resumed is None else self.resumed.epoch

    def data_term_at(self, values: Mapping[str, Any]) -> DataTerm:
        """The data term of an epoch whose schedulable keys are `values`."""
        sequence = self.sequence_at(values)
        workers = self.executor.workers
        batches = batching.distribute(sequence, self.place, self.batch_size, workers)
        return self.data_term.replace(self._weight(values["loss_weight"]), batches)

    def sequence_at(self, values: Mapping[str, Any]) -> np.ndarray:
        """Sorted measurement indices of an epoch."""
        given = values["sequence"]
        if given is None:
            return np.arange(self.measurements)
        sequence = np.unique(np.asarray(given, np.int64))
        if len(sequence) == 0 or sequence[-1] >= self.measurements or sequence[0] < 0:
            got = "an empty list" if len(sequence) == 0 else f"{sequence[0]} to {sequence[-1]}"
            expected, remedy = f"indices from 0 to {self.measurements - 1}", "Correct the sequence"
            raise ParamError(Problem("sequence", expected, got, remedy))
        return sequence

    def relocate(self, corners: np.ndarray, margin: tuple[int, int]) -> None:
        """Cut the windows elsewhere from now on; the caller sees to the variables.

        Parameters
        ----------
        corners : ndarray of int (N, 2)
            Window corners in the object to come.
        margin : tuple of int
            Rows and columns that object has more at its top and left.
        """
        self.scan = replace(self.scan, corners=corners)
        self.data_term = self.data_term.relocated(self.scan)
        self.start_positions = self.start_positions + margin

    def position(self, epoch: int) -> Snapshot:
        """The variables when `epoch` begins, without anything an optimiser knows."""
        return Snapshot(epoch, dict(self.x), self.scan.corners, self.start_positions)

    def go_to(self, snapshot: Snapshot) -> None:
        """Take over variables and window corners of another moment of the run."""
        self.relocate(snapshot.corners, (0, 0))
        self.start_positions = snapshot.start_positions
        self.x = dict(snapshot.x)

    def close(self) -> None:
        """Stop the workers and close the files."""
        self.executor.close()
        for resource in self._resources:
            resource.close()

    def __enter__(self) -> Reconstruction:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def _weight(self, value: float | str) -> float:
        """``loss_weight``: a number, or one over the measurements or over all measured values."""
        if value == "mean":
            return 1.0 / self.measurements
        if value == "mean_full":
            if self.source is None:
                raise ParamError(
                    Problem("loss_weight", "a number", "'mean_full'", "There are no data.")
                )
            return 1.0 / float(np.prod(self.source.shape))
        return float(value)
