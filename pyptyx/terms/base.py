"""What a term of the objective is."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Protocol

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

    name: str

    @property
    def definition(self) -> Hashable:
        """Weight and constants; another definition is another objective."""
        ...

    def __call__(self, x: Tree, g: Tree | None = None) -> float:
        """Value at `x`; gradients are *added* into `g` for the keys it has."""
        ...
