"""Loss and gradient of batches by the pencil kernels, in place of the chain of stages.

The kernels fuse everything between two one-dimensional FFTs: rows carry what happens in real
space, columns what happens in Fourier space, and only waves in mixed space go through memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyptyx.backend import Backend
from pyptyx.physics.detector import collect
from pyptyx.physics.kernels.cuda.batches import BatchRunner
from pyptyx.physics.kernels.cuda.fixed_point import FixedPoint
from pyptyx.physics.kernels.cuda.launches import OF_WAVES
from pyptyx.physics.kernels.cuda.layout import DATA_TYPES, LOSSES, Layout, lit_columns
from pyptyx.physics.kernels.cuda.transforms import can_transform
from pyptyx.physics.kernels.cuda.workspace import address
from pyptyx.physics.kernels.fusion import check_batch, current_factor, objections
from pyptyx.physics.kernels.reference import Loss
from pyptyx.physics.model import Batch, ModelSpec
from pyptyx.physics.tilt import INSIDE

Array = Any
Tree = dict[str, Array]


def unsupported(spec: ModelSpec, loss: str, variables: Mapping[str, Array]) -> str | None:
    """Why the pencil kernels cannot evaluate a model, in words, or None if they can.

    See `pyptyx.physics.kernels.fusion.objections`.
    """
    single = np.dtype(spec.dtype) == np.complex64
    reasons = {
        "the working precision is not single": not single,
    } | objections(spec, loss, variables, losses=LOSSES, transforms=can_transform)
    return next((reason for reason, applies in reasons.items() if applies), None)


VARIABLES = OF_WAVES | {"background", "current"}
"""Variables whose gradients the kernels know."""


@dataclass
class _Background:
    """A background during an evaluation; arrays (ky, kx), float32, on the device."""

    roots: Array
    added: Array
    slopes: Array

    @classmethod
    def of(cls, roots: Array) -> _Background:
        """That of the root `roots`, which is zero beyond the band limit."""
        roots = roots.astype(np.float32)
        return cls(roots, roots * roots, 0 * roots)


@dataclass
class _Rows:
    """What makes the gradients of a table's rows, in pairs of numbers on the device."""

    name: str
    indices: np.ndarray
    pairs: Array
    convert: Callable[[np.ndarray], np.ndarray]

    def fetched(self, backend: Backend) -> np.ndarray:
        """The gradients, one row per measurement or one for all of them."""
        return self.convert(backend.to_host(self.pairs))


class PencilEvaluator:
    """Loss and gradient on one CUDA device, batch by batch (see the module's page).

    Nothing here waits for the device, but for the first batch in fixed point and for `collect`.
    Both `evaluate` and `collect` are called within the context of the backend, whose stream is
    captured into graphs.

    Parameters
    ----------
    spec : ModelSpec
        One for which `unsupported` has no objection.
    loss : Loss
    backend : Backend
        A CUDA device.
    deterministic : bool
        Sum the object's gradient in 64-bit fixed point: any order of the patterns gives the same
        bits.  Otherwise by atomic additions in single precision.
    prune : bool
        Leave out the columns beyond the band limit, which are zero.
    data_scale : float
        Counts per unit of the data, for data that are stored as integers.

    Attributes
    ----------
    quanta : float or None
        Integers per unit of the fixed point; chosen by the first batch unless it is given.
    """

    def __init__(
        self,
        spec: ModelSpec,
        loss: Loss,
        backend: Backend,
        *,
        deterministic: bool = False,
        prune: bool = True,
        data_scale: float = 1.0,
    ) -> None:
        self.quanta: float | None = None
        self._spec = spec
        self._backend = backend
        self._loss = loss.name
        self._deterministic = deterministic
        self._columns = lit_columns(spec.grid.mask, prune)
        self._numbers = {"floor": loss.floor, "data_scale": data_scale}
        self._runners: dict[Layout, BatchRunner] = {}
        self._fixed: FixedPoint | None = None
        self._rows: list[_Rows] = []
        self._lit = backend.asarray(collect(spec.grid.mask[None] + np.float32(0), spec.geometry)[0])
        self._background: _Background | None = None

    def evaluate(
        self, state: Tree, batch: Batch, data: Array, acc: Tree, weight: float
    ) -> tuple[Array, Array]:
        """Loss and ``Σ(I - D)²`` of a batch; the gradients are added into `acc`.

        Only those of the probe and, unless in fixed point, of the object; the others stay on the
        device until `collect`.

        Parameters
        ----------
        state : dict
            The effective state (see `ForwardModel.prepare`): ``object`` (1, Nz, Y, X) and
            ``probe`` (1, Mp, ny, nx) complex64 and ``background`` (ky, kx) on the device,
            ``positions`` (N or 1, 2), ``current`` (N,) and ``tilts`` (1, 6) on the host.
        batch : Batch
            B measurements.
        data : array, (B, ky, kx)
            Patterns with zero frequency in the corner: uint8, uint16 or real.
        acc : dict
            Accumulators of the wanted gradients: any of ``object, probe, positions, current,
            background, tilts``.
        weight : float
            Of the gradients; the loss is returned without it.

        Returns
        -------
        loss, sse : array, (B,), float64
            Of every pattern, on the device.

        Raises
        ------
        ShapeError
            If a window sticks out of the object or the data are not a pattern per window: the
            device would read and write elsewhere.
        """
        xp = self._backend.xp
        data = self._backend.asarray(data)
        kind = data.dtype.name
        if kind not in DATA_TYPES:
            kind, data = "float32", data.astype(np.float32)
        obj, probe = xp.ascontiguousarray(state["object"]), xp.ascontiguousarray(state["probe"])
        data, result = xp.ascontiguousarray(data), xp.empty((len(data), 2), np.float64)
        check_batch(self._spec, obj.shape[2:], batch.corners, data.shape)
        runner = self._runner(state, kind)
        if self._spec.tilt.inside:
            slope_y, slope_x = state["tilts"][0, INSIDE].tolist()
            runner.turn((slope_y, slope_x))
        wanted = VARIABLES.intersection(acc)
        fields = {
            "object": address(obj),
            "probe": address(probe),
            "data": address(data),
            "result": address(result),
            "object_rows": obj.shape[2],
            "object_columns": obj.shape[3],
            "weight": weight,
            **self._numbers,
        }
        if "background" in state:
            if self._background is None:
                self._background = _Background.of(state["background"] * self._lit)
            fields["background"] = address(self._background.added)
        current = state["current"][batch.indices] if "current" in state else None
        tables = (
            batch.corners,
            self._fractions(state, batch),
            None if current is None else current**2,
        )
        if "object" in wanted and self._deterministic:
            fixed = self._fixed_point(runner, obj.shape[1:])
            if fixed.quanta is None:
                only = frozenset({"object"})
                fixed.choose(lambda: runner.run(only, fields | fixed.fields(), *tables))
                self.quanta = fixed.quanta
            fields |= fixed.fields()
        fields |= self._targets(wanted, batch, acc)
        if "current" in wanted:
            assert current is not None
            factor = current_factor(current, weight)
            fields["pull"] = self._keep("current", batch.indices, lambda a: a[:, 0] * factor)
        runner.run(wanted, fields, *tables)
        return result[:, 0], result[:, 1]

    def collect(self, acc: Tree) -> None:
        """Add into `acc` what is still on the device; to be called after the last batch.

        Raises
        ------
        NumericalError
            If the gradient of the object left the range of the fixed point.
        """
        for rows in self._rows:
            g, target = rows.fetched(self._backend), acc[rows.name]
            if len(target) == 1:
                target[0] += g.sum(axis=0)
            else:
                target[rows.indices] += g
        self._rows.clear()
        if self._background is not None and "background" in acc:
            acc["background"] += 2 * self._background.roots * self._background.slopes
        self._background = None
        if self._fixed is not None and "object" in acc:
            try:
                self._fixed.collect(acc["object"])
            finally:
                self.quanta = self._fixed.quanta

    def reset(self) -> None:
        """Forget what is still on the device: an evaluation that was broken off begins again."""
        self._rows.clear()
        self._background = None
        if self._fixed is not None:
            self._fixed.clear()

    def _targets(self, wanted: frozenset[str], batch: Batch, acc: Tree) -> dict[str, int]:
        """Addresses of what the kernels add gradients to."""
        targets = {}
        if "object" in wanted and not self._deterministic:
            targets["object_gradient"] = address(acc["object"])
        if "probe" in wanted:
            targets["probe_gradient"] = address(acc["probe"])
        if "positions" in wanted and self._spec.shift:
            targets["shift_gradient"] = self._keep("positions", batch.indices)
        gaps = len(self._spec.distances_A)
        if "tilts" in wanted and gaps:
            targets["tilt_gradient"] = self._keep("tilts", batch.indices, self._by_tilt, gaps)
        if "background" in wanted:
            assert self._background is not None
            targets["slope_sum"] = address(self._background.slopes)
        return targets

    def _keep(
        self,
        name: str,
        indices: np.ndarray,
        convert: Callable[[np.ndarray], np.ndarray] = np.asarray,
        *more: int,
    ) -> int:
        """Address of pairs, (*more, B, 2), that become gradients of `name` after the last batch."""
        pairs = self._backend.xp.empty((*more, len(indices), 2), np.float64)
        self._rows.append(_Rows(name, indices, pairs, convert))
        return address(pairs)

    def _by_tilt(self, sums: np.ndarray) -> np.ndarray:
        """Gradient (1, 6) of the common tilt from the kernels' sums (gaps, B, 2)."""
        grid = self._spec.grid
        steps = 1 / np.multiply(grid.shape, grid.pixel_A)
        moments = self._spec.distances_A @ sums.sum(axis=1)
        g = np.zeros((1, 6))
        g[0, INSIDE] = -2 * np.pi / grid.shape[0] * steps * moments  # they are ny times too large
        return g

    def _fractions(self, state: Tree, batch: Batch) -> np.ndarray | None:
        if not self._spec.shift:
            return None
        positions = state["positions"]
        return (positions if len(positions) == 1 else positions[batch.indices]) - batch.corners

    def _fixed_point(self, runner: BatchRunner, shape: tuple[int, int, int]) -> FixedPoint:
        if self._fixed is None or self._fixed.shape != shape:
            self._fixed = FixedPoint(runner.program, shape, self._backend)
        self._fixed.quanta = self.quanta
        return self._fixed

    def _runner(self, state: Tree, data_type: str) -> BatchRunner:
        layout = self._layout(state, data_type)
        if layout not in self._runners:
            grid, gaps = self._spec.grid, self._spec.distances_A
            self._runners[layout] = BatchRunner(layout, grid, gaps, self._backend)
        return self._runners[layout]

    def _layout(self, state: Tree, data_type: str) -> Layout:
        low, high = self._columns
        return Layout(
            shape=self._spec.grid.shape,
            low=low,
            high=high,
            modes=state["probe"].shape[1],
            loss=self._loss,
            data_type=data_type,
            shift=self._spec.shift,
            deterministic=self._deterministic,
            crop=self._spec.geometry.crop,
            background="background" in state,
            light="current" in state,
            tilt=self._spec.tilt.inside,
        )
