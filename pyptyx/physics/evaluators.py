"""Loss and gradient of a batch: by the chain of stages, or by kernels that fuse it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from pyptyx.backend import Backend
from pyptyx.physics.kernels.reference import Loss, squared_norms
from pyptyx.physics.model import Batch, ForwardModel, ModelSpec

Array = Any
Tree = dict[str, Array]


class Evaluator(Protocol):
    """What the data term needs from either."""

    def evaluate(
        self, state: Tree, batch: Batch, data: Array, acc: Tree, weight: float
    ) -> tuple[Array, Array]:
        """See `ForwardModel.loss_and_gradient`; without accumulators the losses alone.

        `data` may be whole numbers.
        """
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
        data = data.astype(intensity.dtype, copy=False)
        return self._loss(intensity, data)[0], squared_norms(intensity - data)

    def collect(self, acc: Tree) -> None:
        """See `Evaluator`; nothing is kept back."""

    def reset(self) -> None:
        """See `Evaluator`; nothing is kept back."""


def objection(
    spec: ModelSpec, loss: str, variables: Mapping[str, Array], backend: Backend
) -> str | None:
    """Why the chain has to do for a model on a backend, in words; None if it is fused.

    Parameters
    ----------
    spec : ModelSpec
    loss : str
        A key of `pyptyx.physics.kernels.reference.LOSSES`.
    variables : mapping
        The variables of the model; only their names and shapes count.
    backend : Backend
    """
    if not backend.fuses:
        return "kernels that fuse the stages are not in use"
    unsupported, _ = _kernels(backend)
    return unsupported(spec, loss, variables)


def fused(model: ForwardModel, loss: Loss, variables: Mapping[str, Array]) -> Evaluator | None:
    """The fused evaluator for a model, or None where the chain has to do (see `objection`)."""
    spec, backend = model.spec, model.backend
    if objection(spec, loss.name, variables, backend) is not None:
        return None
    _, make = _kernels(backend)
    return make(spec, loss, backend)


def _kernels(
    backend: Backend,
) -> tuple[Callable[..., str | None], Callable[[ModelSpec, Loss, Backend], Evaluator]]:
    """Why they cannot evaluate a model, and what makes an evaluator."""
    if backend.compiled:
        from pyptyx.physics.kernels import cpu

        return cpu.unsupported, cpu.StripEvaluator
    from pyptyx.physics.kernels import cuda

    return cuda.unsupported, cuda.PencilEvaluator
