"""Gradients of the data term that do not depend on how the measurements are shared out.

Every measurement is evaluated by itself, on its own window of the object, so that nothing depends
on the batch it is in; what it contributes to the shared variables is added in fixed point (see
`pyptyx.terms.fixed_point`).  Rows of per-measurement tables have one contribution each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pyptyx import trees
from pyptyx.physics.kernels.reference import Loss
from pyptyx.physics.model import ForwardModel
from pyptyx.terms import fixed_point

if TYPE_CHECKING:
    from pyptyx.terms.data_term import Partial, ScanTable

Array = Any
Tree = dict[str, Array]

_TABLES = ("positions", "tilts", "current")
"""Variables with a row per measurement, unless one row serves all."""

_SAMPLES = 4
"""Measurements from which the units are chosen."""


class ExactSums:
    """Sums over measurements during one evaluation.

    Parameters
    ----------
    models : sequence of ForwardModel
        One per worker.
    loss : Loss
    weight : float
    scan : ScanTable
    feed : callable
        ``feed(indices) -> (B, ky, kx)``.
    """

    def __init__(
        self,
        models: Sequence[ForwardModel],
        loss: Loss,
        weight: float,
        scan: ScanTable,
        feed: Callable[[np.ndarray], np.ndarray],
    ) -> None:
        self._models = models
        self._loss = loss
        self._weight = weight
        self._scan = scan
        self._feed = feed
        self._count = 0
        self._units: dict[str, float] = {}
        self._peaks: dict[str, float] = {}

    def zeros(self, like: Tree) -> Tree:
        """Empty sums for gradients that look like `like`."""
        tables = trees.zeros_like({k: v for k, v in like.items() if _is_table(k, v)})
        return {k: tables[k] if k in tables else fixed_point.zeros(v) for k, v in like.items()}

    def choose_units(self, state: Tree, like: Tree, sequence: np.ndarray) -> None:
        """Take the units from some of the measurements `sequence`, on the first worker."""
        self._count = len(sequence)
        peaks = dict.fromkeys((k for k, v in like.items() if not _is_table(k, v)), 0.0)
        for t in sequence[np.linspace(0, self._count - 1, _SAMPLES).astype(int)]:
            found = self._evaluate(0, state, trees.zeros_like(like), int(t))[2]
            peaks = {k: max(peak, fixed_point.peak(found[k])) for k, peak in peaks.items()}
        self._units = fixed_point.units(peaks, self._count)

    def work(self, worker: int, partial: Partial, indices: np.ndarray) -> Partial:
        """Add the measurements of a batch to the worker's sums."""
        table = partial.table
        for t in indices.tolist():
            value, sse, found, (row, *corner) = self._evaluate(
                worker, partial.state, partial.acc, t
            )
            table[:2, t] = float(value[0]), float(sse[0])
            for i, name in enumerate(partial.acc, start=2):
                if name not in self._units:
                    continue
                table[i, t] = peak = fixed_point.peak(found[name])
                if not peak <= self._limit(name):
                    continue  # the sums are of no use, and integers hold no NaN
                target, place = partial.acc[name], (0, 0)
                if name == "object":
                    place = (corner[0], corner[1])
                elif name == "probe":
                    target = target[row : row + 1]
                fixed_point.add(target, found[name], self._units[name], place)
        return partial

    def suffice(self, peaks: np.ndarray, like: Tree) -> bool:
        """Whether no contribution was too large for its unit; otherwise there are other units.

        Parameters
        ----------
        peaks : ndarray, (len(like), N)
            Largest contribution of every measurement to every variable.
        like : dict
        """
        highest = dict(zip(like, peaks.max(axis=1).tolist(), strict=True))
        self._peaks = {k: highest[k] for k in self._units}
        too_large = [k for k, peak in self._peaks.items() if self._limit(k) < peak < math.inf]
        larger = fixed_point.units({k: self._peaks[k] for k in too_large}, self._count)
        self._units |= larger
        return not too_large

    def values(self, acc: Tree, like: Tree) -> Tree:
        """The sums as gradients; NaN where a contribution was not finite."""
        out = dict(acc)
        for k, unit in self._units.items():
            finite = math.isfinite(self._peaks[k])
            out[k] = fixed_point.value(acc[k], unit if finite else math.nan, like[k].dtype)
        return out

    def _limit(self, name: str) -> float:
        return math.ldexp(self._units[name], fixed_point.largest_bits(self._count))

    def _evaluate(
        self, worker: int, state: Tree, acc: Tree, t: int
    ) -> tuple[Array, Array, Tree, tuple[int, int, int]]:
        """One measurement on its window.

        Returns
        -------
        value, sse : array, (1,)
        found : dict
            Gradients of the window and of the other variables; those of tables are in `acc`.
        place : tuple of int
            Scenario, and corner (y, x) of the window.
        """
        model, indices = self._models[worker], np.array([t])
        batch = self._scan.batch(indices)
        (y, x), (ny, nx) = batch.corners[0].tolist(), model.spec.grid.shape
        row = 0 if batch.scenario is None else int(batch.scenario[0])
        local = {
            **state,
            "object": state["object"][..., y : y + ny, x : x + nx].copy(),
            "probe": state["probe"][row : row + 1],
        }
        if "positions" in state:
            every = state["positions"]
            local["positions"] = (every if len(every) == 1 else every[indices]) - batch.corners
        found = {
            k: a if _is_table(k, a) else trees.zeros_like({k: local[k]})[k] for k, a in acc.items()
        }
        alone = replace(batch, corners=np.zeros_like(batch.corners), scenario=None)
        data = model.backend.asarray(self._feed(indices))
        value, sse = model.loss_and_gradient(local, alone, data, self._loss, self._weight, found)
        return value, sse, found, (row, y, x)


def _is_table(name: str, a: Array) -> bool:
    return name in _TABLES and len(a) > 1
