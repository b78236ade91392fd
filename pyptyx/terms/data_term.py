"""The data term: ``L = w Σ_t Σ_pixels l(I_t, D_t)`` over batches of measurements and workers.

Each worker owns a backend, a copy of the model's constants and an accumulator; it takes a
contiguous share of the batches in order.  Losses are kept per measurement and added in that order;
accumulators are added in the order of the workers, so a given number of workers gives the same
bits every time.  A deterministic term (see `pyptyx.terms.exact`) gives them for any number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pyptyx import trees
from pyptyx.backend import Backend, MapReduce
from pyptyx.data.stream import ReadAhead
from pyptyx.physics.evaluators import Chain, Evaluator, fused
from pyptyx.physics.kernels.reference import Loss, squared_norms
from pyptyx.physics.model import Batch, ForwardModel, ModelSpec
from pyptyx.terms.batch_limit import BatchLimit
from pyptyx.terms.exact import ExactSums

Array = Any
Tree = dict[str, Array]


@dataclass(frozen=True)
class ScanTable:
    """Everything the batches need to know about the measurements.

    Attributes
    ----------
    corners : ndarray of int, (N, 2) or (1, 2)
        Window corners; one row serves all measurements.
    scenario, aberration_row : ndarray of int, (N,), or None
    plates : callable or None
        ``plates(indices) -> (B or 1, ny, nx)`` complex, zero frequency in the corner.
    """

    corners: np.ndarray
    scenario: np.ndarray | None = None
    aberration_row: Any = None
    plates: Callable[[np.ndarray], np.ndarray] | None = None

    def batch(self, indices: np.ndarray) -> Batch:
        """The rows of `indices`."""
        corners = self.corners
        corners = (
            np.broadcast_to(corners, (len(indices), 2)) if len(corners) == 1 else corners[indices]
        )
        return Batch(
            indices,
            corners,
            None if self.scenario is None else self.scenario[indices],
            None if self.aberration_row is None else self.aberration_row[indices],
            None if self.plates is None else self.plates(indices),
        )


@dataclass
class DataValue:
    """Value of the data term and the unweighted ``Σ(I - D)²``."""

    value: float
    sse: float


@dataclass
class Partial:
    """What one worker has got together.

    Attributes
    ----------
    table : ndarray, (2 or more, N)
        Loss and Σ(I - D)² of every measurement, 0 where another worker computes it.
    state : dict
        What the model reads, on the worker's device.
    acc : dict
        Sums of gradients.
    evaluator : Evaluator or None
        Who adds to them; it may keep something back until the worker's last batch.
    pending : list
        Measurements with their losses and Σ(I - D)², still on the device: fetching them batch by
        batch would make the host wait for it every time.
    """

    table: np.ndarray
    state: Tree
    acc: Tree
    evaluator: Evaluator | None = None
    pending: list[tuple[np.ndarray, Array, Array]] = field(default_factory=list)

    def clear(self) -> None:
        """Begin again."""
        self.pending.clear()
        if self.evaluator is not None:
            self.evaluator.reset()
        for a in (self.table, *self.acc.values()):
            a[...] = 0

    def complete(self, backend: Backend) -> Partial:
        """Fetch what has been kept back, after the last batch."""
        if self.evaluator is not None:
            self.evaluator.collect(self.acc)
        for indices, *values in self.pending:
            for row, value in zip(self.table, values, strict=False):
                row[indices] = backend.to_host(value)
        self.pending.clear()
        return self


class DataTerm:
    """Data fidelity over all measurements of a sequence.

    Parameters
    ----------
    spec : ModelSpec
    scan : ScanTable
    feed : callable
        ``feed(indices) -> (B, ky, kx)`` prepared data in corner order (see `pyptyx.data.prepare`).
    loss : str
        A key of `pyptyx.physics.kernels.reference.LOSSES`.
    weight : float
        ``w``.
    executor : MapReduce
    batches : sequence of ndarray of int
        Measurement indices, batch by batch.
    floor : float
        Counts below which the Poisson term continues along its tangent (see the kernel `ml`).
    """

    name = "data"

    def __init__(
        self,
        spec: ModelSpec,
        scan: ScanTable,
        feed: Callable[[np.ndarray], np.ndarray],
        *,
        loss: str,
        weight: float,
        executor: MapReduce,
        batches: Sequence[np.ndarray],
        floor: float = 0.0,
    ) -> None:
        self.spec = spec
        self.weight = float(weight)
        self.batches = list(batches)
        self._scan = scan
        self._feed = feed
        self._executor = executor
        self._models = [ForwardModel(spec, b) for b in executor.backends]
        self._loss = Loss(loss, floor)
        self._evaluators: dict[tuple[int, Loss], Evaluator] = {}
        self._limit = BatchLimit()
        self._deterministic = False

    def replace(self, weight: float, batches: Sequence[np.ndarray]) -> DataTerm:
        """The same term with another weight and other measurements; constants are shared."""
        other = object.__new__(DataTerm)
        other.__dict__.update(self.__dict__, weight=float(weight), batches=list(batches))
        return other

    def with_loss(self, loss: str, floor: float = 0.0) -> DataTerm:
        """The same term with another loss; constants are shared."""
        other = object.__new__(DataTerm)
        other.__dict__.update(self.__dict__, _loss=Loss(loss, floor))
        return other

    @property
    def loss(self) -> str:
        """Name of the loss."""
        return self._loss.name

    def exactly(self) -> DataTerm:
        """The same term with the same bits for any number of workers (see `pyptyx.terms.exact`)."""
        other = object.__new__(DataTerm)
        other.__dict__.update(self.__dict__, _deterministic=True)
        return other

    def relocated(self, scan: ScanTable) -> DataTerm:
        """The same term with other windows; constants are shared."""
        other = object.__new__(DataTerm)
        other.__dict__.update(self.__dict__, _scan=scan)
        return other

    def __call__(self, x: Tree, g: Tree | None = None) -> float:
        """Value at `x`; gradients are added into `g` for the keys it has."""
        return self.evaluate(x, g).value

    def evaluate(self, x: Tree, g: Tree | None = None) -> DataValue:
        """Value and sse at `x`; gradients are added into `g` for the keys it has."""
        main = self._models[0]
        state = main.prepare(x)
        like = {k: state[k] for k in (() if g is None else g)}
        table, acc = self._exact(state, like) if self._deterministic else self._sums(state, like)
        if g is not None:
            trees.add_into(g, main.finish(acc))
        loss, sse = table[:2].sum(axis=1).tolist()
        return DataValue(self.weight * loss, sse)

    def _sums(self, state: Tree, like: Tree) -> tuple[np.ndarray, Tree]:
        """Losses per measurement, and gradients of the effective state that look like `like`."""

        def start(worker: int) -> Partial:
            local = _to_worker(state, self._models[worker].backend)
            acc = trees.zeros_like({k: local[k] for k in like})
            evaluator = self._evaluator(worker, local)
            evaluator.reset()
            return Partial(np.zeros((2, self._rows)), local, acc, evaluator)

        def finish(worker: int, partial: Partial) -> Partial:
            return partial.complete(self._models[worker].backend)

        backends = [model.backend for model in self._models]
        with ReadAhead(self._feed, self._limit.split(self.batches), backends) as data:

            def work(worker: int, partial: Partial, indices: np.ndarray) -> Partial:
                return self._work(partial, indices, data.get(worker, indices))

            total = self._executor.map_reduce(
                start, self._limit.guard(work, backends), self.batches, self._merge, summed, finish
            )
        return total.table, total.acc

    def _exact(self, state: Tree, like: Tree) -> tuple[np.ndarray, Tree]:
        """As `_sums`, with integers in place of the sums."""
        sums = ExactSums(self._models, self._loss, self.weight, self._scan, self._feed)

        def start(worker: int) -> Partial:
            local = _to_worker(state, self._models[worker].backend)
            acc = sums.zeros({k: local[k] for k in like})
            return Partial(np.zeros((2 + len(like), self._rows)), local, acc)

        sequence = np.sort(np.concatenate(self.batches))
        sums.choose_units(_to_worker(state, self._models[0].backend), like, sequence)
        while True:
            total = self._executor.map_reduce(start, sums.work, self.batches, self._merge, summed)
            if sums.suffice(total.table[2:], like):
                return total.table, sums.values(total.acc, like)

    @property
    def _rows(self) -> int:
        """Rows of the tables of measurements."""
        return 1 + max(int(indices.max()) for indices in self.batches if len(indices))

    def take_warnings(self) -> list[str]:
        """What the user should know of the evaluations since the last call."""
        return self._limit.take_warnings()

    def amplitude_changes(self, x: Tree, others: Sequence[Tree]) -> np.ndarray:
        """``Σ_pixels (√I(x') - √I(x))²`` per measurement for each of the other states.

        Parameters
        ----------
        x : dict
            Variables.
        others : sequence of dict
            The variables changed in one way or another.

        Returns
        -------
        ndarray, (len(others), N)
            Up to the last measurement of the batches; 0 for those that are in none.
        """
        main = self._models[0]
        states = [main.prepare(tree) for tree in (x, *others)]
        rows = self._rows

        def start(worker: int) -> tuple[list[Tree], np.ndarray]:
            backend = self._models[worker].backend
            local = [_to_worker(state, backend) for state in states]
            return local, np.zeros((len(others), rows))

        def work(
            worker: int, partial: tuple[list[Tree], np.ndarray], indices: np.ndarray
        ) -> tuple[list[Tree], np.ndarray]:
            model = self._models[worker]
            for some in np.split(indices, len(indices)) if self._deterministic else [indices]:
                batch = self._scan.batch(some)
                amplitudes = (abs(model.forward(state, batch)[0]) ** 0.5 for state in partial[0])
                first = next(amplitudes)
                for row, amplitude in zip(partial[1], amplitudes, strict=True):
                    change = squared_norms(amplitude - first)
                    row[some] = model.backend.to_host(change)
            return partial

        return self._executor.map_reduce(
            start, work, self.batches, lambda a, b: (a[0], a[1] + b[1]), lambda a: [a[1]]
        )[1]

    def simulate(self, x: Tree, exit_waves: bool = False) -> np.ndarray:
        """Model intensities (N, ky, kx) of all measurements, zero frequency in the corner.

        With `exit_waves` the exit waves (N, Mp, Mo, ny, nx) instead.
        """
        model = self._models[0]
        with model.backend.context():
            state = model.prepare(x)
            out = []
            for indices in filter(len, self.batches):
                batch = self._scan.batch(indices)
                image = (
                    model.exit_waves(state, batch) if exit_waves else model.forward(state, batch)[0]
                )
                out.append(model.backend.to_host(image))
        order = np.argsort(np.concatenate(self.batches))
        return np.concatenate(out)[order]

    def _work(self, partial: Partial, indices: np.ndarray, data: Array) -> Partial:
        """Loss and gradient of one batch, added to the worker's sums."""
        assert partial.evaluator is not None
        value, sse = partial.evaluator.evaluate(
            partial.state, self._scan.batch(indices), data, partial.acc, self.weight
        )
        partial.pending.append((indices, value, sse))
        return partial

    def _evaluator(self, worker: int, state: Tree) -> Evaluator:
        """The fused kernels where they know the model, the chain of stages everywhere else."""
        key = worker, self._loss
        if key not in self._evaluators:
            model = self._models[worker]
            found = fused(model, self._loss, state)
            self._evaluators[key] = Chain(model, self._loss) if found is None else found
        return self._evaluators[key]

    def _merge(self, total: Partial, other: Partial) -> Partial:
        backend = self._models[0].backend
        total.table += other.table
        trees.add_into(total.acc, {k: _local(v, backend, k) for k, v in other.acc.items()})
        return total


def summed(partial: Partial) -> list[Array]:
    """The arrays of a partial result that are added over processes."""
    return [partial.table, *partial.acc.values()]


_ON_DEVICE = {"object", "probe", "background"}
"""Variables that live on the device; the small tables stay on the host."""


def _local(a: Array, backend: Backend, key: str) -> Array:
    return backend.asarray(a) if key in _ON_DEVICE else a


def _to_worker(state: Tree, backend: Backend) -> Tree:
    return {k: _local(v, backend, k) for k, v in state.items()}
