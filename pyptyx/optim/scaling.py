"""Initial inverse Hessians ``H0`` of L-BFGS: where the first step gets its length and its balance.

`Preconditioned` applies a given operator (an estimate of the inverse Gauss-Newton diagonal, see
`pyptyx.engine.preconditioner`) and scales it with the last pair: ``γ = <s,y>/<y,H0 y>``.  Where
the operator resolves a block into parts (rings of spatial frequencies), each part has its own γ.
`EqualSlopes` is PyPty's rule: at first every block contributes the same slope, later every block
has its own Barzilai-Borwein factor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from pyptyx import trees

Tree = dict[str, Any]

MEMORY = 0.8
"""Weight of a pair in the sums over pairs when the next one comes."""

SPREAD = 4.0
"""Largest ratio of a part's factor to that of its block."""


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
    """``γ H0`` with a symmetric positive operator ``H0``.

    ``γ = <s,y>/<y,H0 y>`` of the last pair (S. Oren, D. Luenberger, Manage. Sci. 20 (1974) 845).  A
    part p of a block has ``γ_p = Σ <s,y>_p / Σ <y,H0 y>_p``, the sums over all pairs, of which an
    older one counts less; at most `SPREAD` times more or less than the whole block.

    Parameters
    ----------
    operator : callable, optional
        ``operator(tree) -> tree``; identity if None.  Its ``state()``, if it has one, becomes part
        of the state; whoever restores gives an equal operator to the constructor.  If it has
        ``moments(s, y) -> {block: (2, parts)}``, the two sums above for each part of some blocks,
        ``operator(tree, {block: γ (parts,)})`` weighs the parts of these blocks.
    """

    def __init__(self, operator: Callable[..., Tree] | None = None) -> None:
        self._operator: Callable[..., Tree] = operator or (lambda q: q)
        self._gamma = 1.0
        self._moments: dict[str, np.ndarray] = {}

    def initial(self, g: Tree) -> Tree:
        """``H0 g`` before any step was accepted."""
        return self._operator(g)

    def apply(self, q: Tree) -> Tree:
        """``H0 q`` once steps were accepted."""
        weights = {k: w for k, m in self._moments.items() if (w := _part_factors(m)) is not None}
        h = self._operator(q, weights) if weights else self._operator(q)
        return {k: v if k in weights else trees.scale(self._gamma, {k: v})[k] for k, v in h.items()}

    def update(self, s: Tree, y: Tree) -> None:
        """Learn from an accepted step."""
        curvature = trees.vdot(y, self._operator(y))
        gamma = trees.vdot(s, y) / curvature if curvature > 0 else math.nan
        if math.isfinite(gamma) and gamma > 0:
            self._gamma = gamma
        resolve = getattr(self._operator, "moments", None)
        for name, found in resolve(s, y).items() if resolve else ():
            total = found[1].sum()
            if np.isfinite(found).all() and total > 0:
                # All pairs count alike, however long their steps were.
                before = self._moments.get(name, np.zeros_like(found))
                self._moments[name] = found / total + MEMORY * before

    def reset(self) -> None:
        """Forget accepted steps."""
        self._gamma = 1.0
        self._moments = {}

    def state(self) -> dict[str, Any]:
        """``gamma``, ``moments``, and the state of the operator under ``operator``."""
        known: dict[str, Any] = getattr(self._operator, "state", dict)()
        return {"gamma": self._gamma, "moments": dict(self._moments), "operator": known}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over ``gamma`` and ``moments``, which older checkpoints do not have."""
        self._gamma = state["gamma"]
        self._moments = dict(state.get("moments", {}))


def _part_factors(moments: np.ndarray) -> np.ndarray | None:
    """Positive factors of the parts of a block; None where the block as a whole has none."""
    products, powers = moments
    mean = products.sum() / powers.sum()
    if not mean > 0:
        return None
    known = powers > 0
    factors = np.divide(products, powers, out=np.full_like(products, mean), where=known)
    return np.clip(factors, mean / SPREAD, mean * SPREAD)


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
