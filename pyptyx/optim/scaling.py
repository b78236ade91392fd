"""Initial inverse Hessians ``H0`` of L-BFGS: where the first step gets its length and its balance.

`Preconditioned` applies a given operator (an estimate of the inverse Gauss-Newton diagonal, see
`pyptyx.engine.preconditioner`) and scales it with the last pair: ``γ = <s,y>/<y,H0 y>``.
`EqualSlopes` is PyPty's rule: at first every block contributes the same slope, later every block
has its own Barzilai-Borwein factor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from pyptyx import trees

Tree = dict[str, Any]


class Scaling(Protocol):
    """What L-BFGS needs of ``H0``."""

    def initial(self, g: Tree) -> Tree:
        """``H0 g`` before any step was accepted."""
        ...

    def apply(self, q: Tree) -> Tree:
        """``H0 q`` once steps were accepted."""
        ...

    def update(self, s: Tree, y: Tree) -> None:
        """Learn from an accepted step."""
        ...

    def reset(self) -> None:
        """Forget accepted steps."""
        ...

    def state(self) -> dict[str, Any]:
        """Everything learnt, as numbers and trees that are never changed in place."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned."""
        ...


class Preconditioned:
    """``γ H0`` with a fixed symmetric positive operator ``H0``.

    Parameters
    ----------
    operator : callable, optional
        ``operator(tree) -> tree``; identity if None.  Its ``state()``, if it has one, becomes part
        of the state; whoever restores gives an equal operator to the constructor.
    """

    def __init__(self, operator: Callable[[Tree], Tree] | None = None) -> None:
        self._operator = operator or (lambda q: q)
        self._gamma = 1.0

    def initial(self, g: Tree) -> Tree:
        """``H0 g`` before any step was accepted."""
        return self._operator(g)

    def apply(self, q: Tree) -> Tree:
        """``H0 q`` once steps were accepted."""
        return trees.scale(self._gamma, self._operator(q))

    def update(self, s: Tree, y: Tree) -> None:
        """Learn from an accepted step."""
        curvature = trees.vdot(y, self._operator(y))
        gamma = trees.vdot(s, y) / curvature if curvature > 0 else math.nan
        if math.isfinite(gamma) and gamma > 0:
            self._gamma = gamma

    def reset(self) -> None:
        """Forget accepted steps."""
        self._gamma = 1.0

    def state(self) -> dict[str, Any]:
        """``gamma``, and the state of the operator under ``operator``."""
        return {"gamma": self._gamma, "operator": getattr(self._operator, "state", dict)()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over ``gamma``."""
        self._gamma = state["gamma"]


class EqualSlopes:
    """PyPty's block scaling, without its divisions by zero.

    First step: with ``D = ½ |g_object|²`` (1 without an object), ``½ g`` for the object and ``g
    D/|g|²`` for every other block, zero for a block with zero gradient.  Later ``γ_b =
    <y,s>_b/|y|²_b``, doubled for complex blocks as in PyPty; blocks without a finite positive γ
    use 1.
    """

    def __init__(self) -> None:
        self._gamma: dict[str, float] = {}

    def initial(self, g: Tree) -> Tree:
        """``H0 g`` before any step was accepted."""
        squares = {k: trees.dot(v, v) for k, v in g.items()}
        target = 0.5 * squares.get("object", 0.0) or 1.0
        if "object" in g and g["object"].dtype.kind != "c":
            target *= 2  # phase-only object: PyPty counts a real block once
        return {
            k: trees.scale(target / squares[k] if squares[k] > 0 else 0.0, {k: v})[k]
            for k, v in g.items()
        }

    def apply(self, q: Tree) -> Tree:
        """``H0 q`` once steps were accepted."""
        return {k: trees.scale(self._gamma.get(k, 1.0), {k: v})[k] for k, v in q.items()}

    def update(self, s: Tree, y: Tree) -> None:
        """Learn from an accepted step."""
        for k in s:
            square = trees.dot(y[k], y[k])
            gamma = trees.dot(y[k], s[k]) / square if square > 0 else math.nan
            if math.isfinite(gamma) and gamma > 0:
                self._gamma[k] = gamma * (2 if s[k].dtype.kind == "c" else 1)

    def reset(self) -> None:
        """Forget accepted steps."""
        self._gamma = {}

    def state(self) -> dict[str, Any]:
        """``gamma`` of every block."""
        return {"gamma": dict(self._gamma)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over ``gamma``."""
        self._gamma = dict(state["gamma"])
