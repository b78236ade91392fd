"""Loss and gradient of a batch: by the chain of stages, or by kernels that fuse it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from pyptyx.physics.kernels.reference import Loss, squared_norms
from pyptyx.physics.model import Batch, ForwardModel

Array = Any
Tree = dict[str, Array]


class Evaluator(Protocol):
    """What the data term needs from either."""

    def evaluate(
        self, state: Tree, batch: Batch, data: Array, acc: Tree, weight: float
    ) -> tuple[Array, Array]:
        """See `ForwardModel.loss_and_gradient`; without accumulators the losses alone."""
        ...

    def collect(self, acc: Tree) -> None:
        """Add what has been kept back into `acc`, after the last batch."""
        ...

    def reset(self) -> None:
        """Forget what has been kept back: an evaluation begins, perhaps once more."""
        ...


class Chain:
    """The stages one after the other, for every model on every device."""

    def __init__(self, model: ForwardModel, loss: Loss) -> None:
        self._model = model
        self._loss = loss

    def evaluate(
        self, state: Tree, batch: Batch, data: Array, acc: Tree, weight: float
    ) -> tuple[Array, Array]:
        """See `Evaluator`."""
        if acc:
            return self._model.loss_and_gradient(state, batch, data, self._loss, weight, acc)
        intensity = self._model.forward(state, batch)[0]
        return self._loss(intensity, data)[0], squared_norms(intensity - data)

    def collect(self, acc: Tree) -> None:
        """See `Evaluator`; nothing is kept back."""

    def reset(self) -> None:
        """See `Evaluator`; nothing is kept back."""


def fused(model: ForwardModel, loss: Loss, variables: Mapping[str, Array]) -> Evaluator | None:
    """The fused evaluator for a model, or None where the chain has to do.

    Parameters
    ----------
    model : ForwardModel
    loss : Loss
    variables : mapping
        The variables of the model; only their names and shapes count.
    """
    spec, backend = model.spec, model.backend
    if not backend.fuses:
        return None
    if backend.runs_cuda:
        from pyptyx.physics.kernels import cuda

        if cuda.unsupported(spec, loss.name, variables) is not None:
            return None
        return cuda.PencilEvaluator(spec, loss.name, loss.floor, backend)
    from pyptyx.physics.kernels import cpu

    if cpu.unsupported(spec, loss.name, variables) is not None:
        return None
    return cpu.StripEvaluator(spec, loss, backend)
