"""What a term of the objective is, and the kind that acts on one variable."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Protocol

Array = Any
Tree = dict[str, Any]


class Term(Protocol):
    """One summand of the objective.

    Attributes
    ----------
    name : str
        Its column of the loss log.
    definition : hashable
        Weight and constants; another definition is another objective.
    """

    @property
    def name(self) -> str:
        """Its column of the loss log."""
        ...

    @property
    def definition(self) -> Hashable:
        """Weight and constants; another definition is another objective."""
        ...

    def __call__(self, x: Tree, g: Tree | None = None) -> float:
        """Value at `x`; gradients are *added* into `g` for the keys it has."""
        ...


@dataclass(frozen=True)
class Prior:
    """A weighted function of one variable: a regulariser.

    Attributes
    ----------
    name : str
        Its column of the loss log.
    variable : str
        Key of the tree it acts on.
    weight : float
        ``w`` in ``w R``.
    function : callable
        ``function(z) -> (R, dR/dRe z + i dR/dIm z)``.
    constants : hashable
        What besides the weight may differ between epochs.
    """

    name: str
    variable: str
    weight: float
    function: Callable[[Array], tuple[float, Array]]
    constants: Hashable = ()

    @property
    def definition(self) -> Hashable:
        """Weight and constants; another definition is another objective."""
        return self.weight, self.constants

    def __call__(self, x: Tree, g: Tree | None = None) -> float:
        """Value at `x`; the gradient is added into `g` if it has the variable."""
        value, gradient = self.function(x[self.variable])
        if g is not None and self.variable in g:
            gradient *= self.weight
            g[self.variable] += gradient
        return self.weight * value
