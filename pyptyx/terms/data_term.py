"""The data term: ``L = w Σ_t Σ_pixels l(I_t, D_t)`` over batches of measurements and workers.

Each worker owns a backend, a copy of the model's constants and an accumulator; it takes a
contiguous share of the batches in order.  Accumulators are added in the order of the workers, so
a given number of workers gives the same bits every time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from pyptyx import trees
from pyptyx.backend import Backend
from pyptyx.physics.kernels.reference import Loss, squared_norms
from pyptyx.physics.model import Batch, ForwardModel, ModelSpec

Array = Any
Tree = dict[str, Array]


class MapReduce(Protocol):
    """What the data term needs from an executor (see `pyptyx.executors`)."""

    backends: Sequence[Backend]

    def map_reduce(
        self,
        start: Callable[[int], Any],
        work: Callable[[int, Any, Any], Any],
        items: Sequence[Any],
        merge: Callable[[Any, Any], Any],
    ) -> Any:
        """Reduce `items` over the workers in a fixed order."""
        ...


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
class _Partial:
    """Sums of one worker."""

    loss: float
    sse: float
    state: Tree
    acc: Tree


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

    def replace(self, weight: float, batches: Sequence[np.ndarray]) -> DataTerm:
        """The same term with another weight and other measurements; constants are shared."""
        other = object.__new__(DataTerm)
        other.__dict__.update(self.__dict__, weight=float(weight), batches=list(batches))
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
        wanted = [] if g is None else list(g)

        def start(worker: int) -> _Partial:
            local = _to_worker(state, self._models[worker].backend)
            return _Partial(0.0, 0.0, local, trees.zeros_like({k: local[k] for k in wanted}))

        total: _Partial = self._executor.map_reduce(start, self._work, self.batches, self._merge)
        if g is not None:
            trees.add_into(g, main.finish(total.acc))
        return DataValue(self.weight * total.loss, total.sse)

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
            N is the number of measurements, whether they are in the batches (0 if not) or not.
        """
        main = self._models[0]
        states = [main.prepare(tree) for tree in (x, *others)]
        total = 1 + max(int(indices.max()) for indices in self.batches)

        def start(worker: int) -> tuple[list[Tree], np.ndarray]:
            backend = self._models[worker].backend
            local = [_to_worker(state, backend) for state in states]
            return local, np.zeros((len(others), total))

        def work(
            worker: int, partial: tuple[list[Tree], np.ndarray], indices: np.ndarray
        ) -> tuple[list[Tree], np.ndarray]:
            model = self._models[worker]
            batch = self._scan.batch(indices)
            amplitudes = (abs(model.forward(state, batch)[0]) ** 0.5 for state in partial[0])
            first = next(amplitudes)
            for row, amplitude in zip(partial[1], amplitudes, strict=True):
                change = squared_norms(amplitude - first)
                row[indices] = model.backend.to_host(change)
            return partial

        return self._executor.map_reduce(
            start, work, self.batches, lambda a, b: (a[0], a[1] + b[1])
        )[1]

    def simulate(self, x: Tree, exit_waves: bool = False) -> np.ndarray:
        """Model intensities (N, ky, kx) of all measurements, zero frequency in the corner.

        With `exit_waves` the exit waves (N, Mp, Mo, ny, nx) instead.
        """
        model = self._models[0]
        with model.backend.context():
            state = model.prepare(x)
            out = []
            for indices in self.batches:
                batch = self._scan.batch(indices)
                image = (
                    model.exit_waves(state, batch) if exit_waves else model.forward(state, batch)[0]
                )
                out.append(model.backend.to_host(image))
        return np.concatenate(out)

    def _work(self, worker: int, partial: _Partial, indices: np.ndarray) -> _Partial:
        """Loss and gradient of one batch, added to the worker's sums."""
        model = self._models[worker]
        data = model.backend.asarray(self._feed(indices))
        batch = self._scan.batch(indices)
        if partial.acc:
            value, sse = model.loss_and_gradient(
                partial.state, batch, data, self._loss, self.weight, partial.acc
            )
        else:
            intensity = model.forward(partial.state, batch)[0]
            value, sse = self._loss(intensity, data)[0], squared_norms(intensity - data)
        partial.loss += float(value.sum())
        partial.sse += float(sse.sum())
        return partial

    def _merge(self, total: _Partial, other: _Partial) -> _Partial:
        backend = self._models[0].backend
        total.loss += other.loss
        total.sse += other.sse
        trees.add_into(total.acc, {k: _local(v, backend, k) for k, v in other.acc.items()})
        return total


_ON_DEVICE = {"object", "probe", "background"}
"""Variables that live on the device; the small tables stay on the host."""


def _local(a: Array, backend: Backend, key: str) -> Array:
    return backend.asarray(a) if key in _ON_DEVICE else a


def _to_worker(state: Tree, backend: Backend) -> Tree:
    return {k: _local(v, backend, k) for k, v in state.items()}
