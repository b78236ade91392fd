"""Loss and gradient of batches by the pencil kernels, in place of the chain of stages.

The kernels fuse everything between two one-dimensional FFTs: rows carry what happens in real
space, columns what happens in Fourier space, and only waves in mixed space go through memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pyptyx.backend import Backend
from pyptyx.physics.kernels.cuda.batches import BatchRunner
from pyptyx.physics.kernels.cuda.fixed_point import FixedPoint
from pyptyx.physics.kernels.cuda.layout import DATA_TYPES, LOSSES, Layout, lit_columns
from pyptyx.physics.kernels.cuda.transforms import can_transform
from pyptyx.physics.kernels.cuda.workspace import address
from pyptyx.physics.kernels.fusion import check_batch, objections
from pyptyx.physics.kernels.reference import Loss
from pyptyx.physics.model import Batch, ModelSpec

Array = Any
Tree = dict[str, Array]


def unsupported(spec: ModelSpec, loss: str, variables: Mapping[str, Array]) -> str | None:
    """Why the pencil kernels cannot evaluate a model, in words, or None if they can.

    See `pyptyx.physics.kernels.fusion.objections`.
    """
    single = np.dtype(spec.dtype) == np.complex64
    reasons = {
        "the working precision is not single": not single,
        "the patterns are cropped": not spec.geometry.trivial,
        "a static background is added": variables.get("background") is not None,
        "the beam current varies": variables.get("current") is not None,
    } | objections(spec, loss, variables, losses=LOSSES, transforms=can_transform)
    return next((reason for reason, applies in reasons.items() if applies), None)


VARIABLES = frozenset({"object", "probe", "positions"})
"""Variables whose gradients the kernels know."""


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
        self._shifts: list[tuple[np.ndarray, Array]] = []

    def evaluate(
        self, state: Tree, batch: Batch, data: Array, acc: Tree, weight: float
    ) -> tuple[Array, Array]:
        """Loss and ``Σ(I - D)²`` of a batch; the gradients are added into `acc`.

        Those of the positions, and in fixed point that of the object, stay on the device until
        `collect`.

        Parameters
        ----------
        state : dict
            The effective state (see `ForwardModel.prepare`): ``object`` (1, Nz, Y, X) and
            ``probe`` (1, Mp, ny, nx) complex64 on the device, ``positions`` (N or 1, 2) on the
            host.
        batch : Batch
            B measurements.
        data : array, (B, ny, nx)
            Patterns with zero frequency in the corner: uint8, uint16 or real.
        acc : dict
            Accumulators of the wanted gradients: any of ``object, probe, positions``.
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
        runner = self._runner(probe.shape[1], kind)
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
        tables = batch.corners, self._fractions(state, batch)
        if "object" in wanted and self._deterministic:
            fixed = self._fixed_point(runner, obj.shape[1:])
            if fixed.quanta is None:
                only = frozenset({"object"})
                fixed.choose(lambda: runner.run(only, fields | fixed.fields(), *tables))
                self.quanta = fixed.quanta
            fields |= fixed.fields()
        runner.run(wanted, fields | self._targets(wanted, batch, acc), *tables)
        return result[:, 0], result[:, 1]

    def collect(self, acc: Tree) -> None:
        """Add into `acc` what is still on the device; to be called after the last batch.

        Raises
        ------
        NumericalError
            If the gradient of the object left the range of the fixed point.
        """
        for indices, gradient in self._shifts:
            g, target = self._backend.to_host(gradient), acc["positions"]
            if len(target) == 1:
                target[0] += g.sum(axis=0)
            else:
                target[indices] += g
        self._shifts.clear()
        if self._fixed is not None and "object" in acc:
            try:
                self._fixed.collect(acc["object"])
            finally:
                self.quanta = self._fixed.quanta

    def reset(self) -> None:
        """Forget what is still on the device: an evaluation that was broken off begins again."""
        self._shifts.clear()
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
            gradient = self._backend.xp.empty((len(batch.indices), 2), np.float64)
            targets["shift_gradient"] = address(gradient)
            self._shifts.append((batch.indices, gradient))
        return targets

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

    def _runner(self, modes: int, data_type: str) -> BatchRunner:
        layout = self._layout(modes, data_type)
        if layout not in self._runners:
            grid, gaps = self._spec.grid, self._spec.distances_A
            self._runners[layout] = BatchRunner(layout, grid, gaps, self._backend)
        return self._runners[layout]

    def _layout(self, modes: int, data_type: str) -> Layout:
        low, high = self._columns
        return Layout(
            shape=self._spec.grid.shape,
            low=low,
            high=high,
            modes=modes,
            loss=self._loss,
            data_type=data_type,
            shift=self._spec.shift,
            deterministic=self._deterministic,
        )
