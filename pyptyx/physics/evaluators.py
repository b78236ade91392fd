"""Loss and gradient of a batch: by the chain of stages, or by kernels that fuse it on a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from pyptyx.physics.kernels.reference import Loss
from pyptyx.physics.model import Batch, ForwardModel

Array = Any
Tree = dict[str, Array]


class Evaluator(Protocol):
    """What the data term needs from either."""

    def evaluate(
        self, state: Tree, batch: Batch, data: Array, acc: Tree, weight: float
    ) -> tuple[Array, Array]:
        """See `ForwardModel.loss_and_gradient`."""
        ...

    def collect(self, acc: Tree) -> None:
        """Add what has been kept back into `acc`, after the last batch."""
        ...

    def reset(self) -> None:
        """Forget what has been kept back: an evaluation that was broken off begins again."""
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
        return self._model.loss_and_gradient(state, batch, data, self._loss, weight, acc)

    def collect(self, acc: Tree) -> None:
        """See `Evaluator`; nothing is kept back."""

    def reset(self) -> None:
        """See `Evaluator`; nothing is kept back."""


def fused(model: ForwardModel, loss: Loss, variables: Mapping[str, Array]) -> Evaluator | None:
    """The fused evaluator for a model on a GPU, or None where the chain has to do.

    Parameters
    ----------
    model : ForwardModel
    loss : Loss
    variables : mapping
        The variables of the model; only their names and shapes count.
    """
    if not model.backend.fuses:
        return None
    from pyptyx.physics.kernels.cuda import PencilEvaluator, unsupported

    if unsupported(model.spec, loss.name, variables) is not None:
        return None
    return PencilEvaluator(model.spec, loss.name, loss.floor, model.backend)
