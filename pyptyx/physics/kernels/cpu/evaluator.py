"""Loss and gradient of batches on one core, in place of the chain of stages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pyptyx.backend import Backend
from pyptyx.compiled import announce
from pyptyx.physics.detector import collect, collect_vjp
from pyptyx.physics.kernels.cpu.layout import (
    add_planes,
    from_real_strips,
    from_row_blocks,
    from_strips,
    real_strips,
    to_planes,
    to_row_blocks,
    to_strips,
)
from pyptyx.physics.kernels.cpu.patterns import Wanted, evaluate
from pyptyx.physics.kernels.cpu.workspace import (
    Scratch,
    constants_of,
    distances_of,
    propagators_of,
    scratch_for,
)
from pyptyx.physics.kernels.fast_cpu import LOSS_NUMBERS
from pyptyx.physics.kernels.fusion import check_batch, current_factor, objections
from pyptyx.physics.kernels.reference import Loss
from pyptyx.physics.model import Batch, ModelSpec
from pyptyx.physics.tilt import INSIDE, Separable
from pyptyx.vector_fft.vectors import vector_length
from pyptyx.vector_fft.windows import can_transform

_PLAIN: Any = ("C", "W")
"""Arrays of any other kind would have kernels of their own compiled."""

_STATE = ("object", "probe", "spectrum", "background")
"""What the kernels read, and add gradients of, in their order."""

Array = Any
Tree = dict[str, Array]


def unsupported(spec: ModelSpec, loss: str, variables: Mapping[str, Array]) -> str | None:
    """Why the kernels cannot evaluate a model, in words, or None if they can.

    See `pyptyx.physics.kernels.fusion.objections`.
    """
    reasons = objections(spec, loss, variables, losses=LOSS_NUMBERS, transforms=can_transform) | {
        "a row of the window does not fill a vector": spec.grid.shape[1]
        < vector_length(np.empty(0, spec.dtype).real.dtype),
        "waves between slices are not to be kept": spec.wave_storage != "store",
    }
    return next((reason for reason, applies in reasons.items() if applies), None)


class StripEvaluator:
    """Loss and gradient on one core, pattern by pattern (see `patterns`).

    Parameters
    ----------
    spec : ModelSpec
        One for which `unsupported` has no objection.
    loss : Loss
    backend : Backend
    """

    def __init__(self, spec: ModelSpec, loss: Loss, backend: Backend) -> None:
        grid, self._real = spec.grid, np.empty(0, spec.dtype).real.dtype
        self._spec = spec
        self._loss = loss
        self._shift = Separable(-2 * np.pi * grid.f_y, -2 * np.pi * grid.f_x, backend, spec.dtype)
        # As in Multislice; the factors are formed in double precision.
        ramps = [-2 * np.pi * d for d in distances_of(spec)] if spec.tilt.inside else []
        self._turns = [Separable(a * grid.q_y, a * grid.q_x, backend, complex) for a in ramps]
        self._turned: tuple[np.ndarray, ...] = ()
        self._constants = constants_of(spec, self._real)
        self._lit = collect(grid.mask[None].astype(self._real), spec.geometry)[0]
        self._roots = np.zeros(0, self._real)
        self._scratch: Scratch | None = None
        self._state: tuple[Array, ...] | None = None
        self._sums: dict[str, np.ndarray] = {}
        self._layout: tuple[int, ...] = ()

    def evaluate(
        self, state: Tree, batch: Batch, data: Array, acc: Tree, weight: float
    ) -> tuple[Array, Array]:
        """Loss and ``Σ(I - D)²`` of a batch; the gradients are kept until `collect`.

        Parameters
        ----------
        state : dict
            The effective state (see `ForwardModel.prepare`), the same until `collect`.
        batch : Batch
            B measurements.
        data : ndarray, (B, ky, kx)
            Patterns with zero frequency in the corner.
        acc : dict
            Accumulators of the wanted gradients: any of ``object, probe, positions, current,
            background, tilts``.
        weight : float
            Of the gradients; the loss is returned without it.

        Returns
        -------
        loss, sse : ndarray, (B,), float64

        Raises
        ------
        ShapeError
            If a window sticks out of the object or the data are not a pattern per window.
        """
        spec, real = self._spec, self._real.type
        check_batch(spec, state["object"].shape[2:], batch.corners, data.shape)
        if self._state is None:
            self._begin(state, acc)
        assert self._state is not None
        assert self._scratch is not None
        wanted = Wanted(
            object="object" in acc,
            probe="probe" in acc,
            positions="positions" in acc and spec.shift,
            tilt="tilts" in acc and spec.tilt.inside,
        )
        count, (ny, nx) = len(batch.corners), spec.grid.shape
        shifts = np.zeros((0, 2))
        marginals = np.zeros((0, ny)), np.zeros((0, nx))
        if spec.shift:
            positions = state["positions"]
            shifts = (
                positions if len(positions) == 1 else positions[batch.indices]
            ) - batch.corners
            if wanted.positions:
                marginals = np.zeros((count, ny)), np.zeros((count, nx))
        current = state["current"][batch.indices] if "current" in state else np.zeros(0)
        pull = np.zeros(len(current) if "current" in acc else 0)
        share = 1 / state["probe"].shape[1]
        number = LOSS_NUMBERS[self._loss.name], real(self._loss.constant)
        value, sse = np.empty(count), np.empty(count)
        evaluate(
            (
                np.require(batch.corners, np.int64, _PLAIN),
                np.require(shifts, np.float64, _PLAIN),
                np.require(current**2, self._real, _PLAIN),
                np.require(data, self._real, _PLAIN),
            ),
            self._state,
            (*number, real(share), real(weight)),
            wanted,
            tuple(self._sums[name] for name in _STATE),
            (value, sse, *marginals, pull, *self._turned),
            self._constants,
            self._scratch,
        )
        if len(marginals[0]):
            g, target = self._shift.gradient(*marginals), acc["positions"]
            if len(target) == 1:
                target[0] += g.sum(axis=0)
            else:
                target[batch.indices] += g
        if len(pull):
            acc["current"][batch.indices] += current_factor(current, weight) * pull
        return value, sse

    def collect(self, acc: Tree) -> None:
        """Add the gradients into `acc`; to be called after the last batch."""
        if self._state is not None:
            if "object" in acc:
                add_planes(self._sums["object"], acc["object"][0])
            if "probe" in acc:
                name = "spectrum" if self._spec.shift else "probe"
                back = from_strips if self._spec.shift else from_row_blocks
                a = self._sums[name].reshape(self._layout)
                acc["probe"][0] += back(a, self._spec.grid.shape)
            if "background" in acc:
                shape = self._spec.grid.shape
                strips = self._sums["background"].reshape(-1, shape[0], len(self._constants.order))
                g = collect(from_real_strips(strips, shape)[None], self._spec.geometry)[0]
                acc["background"] += 2 * self._roots * g
            if "tilts" in acc and self._turns:
                for turn, *marginals in zip(self._turns, *self._turned, strict=True):
                    acc["tilts"][0, INSIDE] += turn.gradient(*(m[None] for m in marginals))[0]
        self.reset()

    def reset(self) -> None:
        """Forget the evaluation that was begun."""
        self._state = None
        self._sums = {}

    def _begin(self, state: Tree, acc: Tree) -> None:
        """Bring the state into the order of the kernels."""
        probe = state["probe"][0]
        modes, slices = len(probe), state["object"].shape[1]
        name, turn = ("spectrum", to_strips) if self._spec.shift else ("probe", to_row_blocks)
        waves = turn(probe)
        self._layout = waves.shape
        empty = np.zeros((modes, 0), self._real)
        arrays = {"probe": empty, "spectrum": empty, name: waves.reshape(modes, -1)}
        arrays["object"] = to_planes(state["object"][0])
        arrays["background"] = np.zeros(0, self._real)
        if "background" in state:
            self._roots = state["background"] * self._lit
            added = collect_vjp((self._roots**2)[None], self._spec.geometry, self._spec.grid.shape)
            arrays["background"] = real_strips(added[0]).reshape(-1)
        self._state = tuple(arrays[name] for name in _STATE)
        wanted = {*acc, "spectrum"} if "probe" in acc else {*acc}
        self._sums = {
            name: np.zeros_like(a if name in wanted else a[..., :0]) for name, a in arrays.items()
        }
        if "object" not in wanted:
            self._sums["object"] = np.zeros((0, 2, 0, 0), self._real)
        shape = self._spec.grid.shape
        if self._turns:
            factors = [turn.factor(state["tilts"][:, INSIDE])[0] for turn in self._turns]
            propagators = propagators_of(self._spec, self._real, factors)
            self._constants = self._constants._replace(propagators=propagators)
        distances = len(self._constants.propagators)
        self._turned = tuple(np.zeros((distances, n)) for n in shape)
        announce(evaluate)
        self._make_room(slices, modes, bool(self._turns) and "tilts" in acc)

    def _make_room(self, slices: int, modes: int, keep: bool) -> None:
        """Memory for waves, and for spectra behind the gaps to `keep`."""
        if self._scratch is not None:
            there = self._scratch.waves.shape[:2], self._scratch.between.shape[2] > 0
            if there == ((slices, modes), keep):
                return
        self._scratch = scratch_for(self._spec.grid.shape, slices, modes, self._real, keep)
