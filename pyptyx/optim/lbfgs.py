"""Limited-memory BFGS over variable trees.

Notation: ``s = x⁺ - x``, ``y = g⁺ - g``, ``ρ = 1/<y,s>``, direction ``d = -H g`` by the two-loop
recursion with an initial ``H0`` from `pyptyx.optim.scaling`.  ``memory`` pairs are kept: 0 gives
scaled gradient descent, 1 a conjugate-gradient-like method, ``inf`` all of them.

Several processes run the same iteration on the same point; each keeps its share of the pairs, and
the dot products are sums over all of them (see `pyptyx.optim.sharding`).

References
----------
D. Liu, J. Nocedal, Math. Program. 45 (1989) 503;  J. Nocedal, S. Wright, Numerical Optimization,
2nd ed., section 7.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pyptyx import trees
from pyptyx.optim.linesearch import Phi, SearchOptions, SearchResult, weak_wolfe
from pyptyx.optim.scaling import Preconditioned, Scaling
from pyptyx.optim.sharding import Ranks, Shards

Tree = dict[str, Any]


@dataclass
class Point:
    """A point with everything that was evaluated there.

    Attributes
    ----------
    x, g : dict of array
        Variables and gradient.
    value : float
        Objective.
    info : object
        Whatever the objective wants to remember (sse, contributions).
    """

    x: Tree
    value: float
    g: Tree
    info: Any = None


@dataclass
class Step:
    """Outcome of one iteration.

    Attributes
    ----------
    point : Point
        The new point, or the old one if the step was rejected.
    step, slope, new_slope : float
        Accepted (or last tried) step and the directional derivatives before and after.
    evaluations : int
        Loss and gradient evaluations spent.
    accepted : bool
    fresh : bool
        The direction came without any history: a rejection means that no descent is possible.
    """

    point: Point
    step: float
    slope: float
    new_slope: float
    evaluations: int
    accepted: bool
    fresh: bool


Search = Callable[[Phi, float, float, float, SearchOptions], SearchResult]


@dataclass
class LBFGS:
    """Optimiser state: pairs and scaling.

    Attributes
    ----------
    memory : float
        Number of pairs kept; may be ``inf``.
    scaling : Scaling
        Initial inverse Hessian.
    search : callable
        Line search.
    options : SearchOptions
    curvature : float
        A pair is kept only if ``<y,s> > curvature |y| |s|``.
    communicator : Ranks or None
        The processes that share the pairs; all of them call the same methods.
    """

    memory: float = 10
    scaling: Scaling = field(default_factory=Preconditioned)
    search: Search = weak_wolfe
    options: SearchOptions = field(default_factory=SearchOptions)
    curvature: float = 1e-10
    communicator: Ranks | None = None
    _pairs: list[tuple[Tree, Tree, float]] = field(default_factory=list)
    _fresh: bool = True

    def __post_init__(self) -> None:
        """Take part in the sharing."""
        self._shards = Shards(self.communicator)

    def reset(self) -> None:
        """Drop the history."""
        self._pairs.clear()
        self.scaling.reset()
        self._fresh = True

    def state(self) -> dict[str, Any]:
        """History and scaling: numbers, and trees that are never changed in place.

        With several processes the pairs are this one's share, and ``layout`` says of what;
        `gathered` makes them whole.
        """
        own = {} if self._shards.alone else {"layout": dict(self._shards.layout)}
        return {
            "pairs": list(self._pairs),
            "fresh": self._fresh,
            "scaling": self.scaling.state(),
            **own,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` or `shared_out` returned, with a `scaling` of the same kind."""
        self._pairs = [(s, y, rho) for s, y, rho in state["pairs"]]
        self._shards = Shards(self.communicator, state.get("layout"))
        self._fresh = state["fresh"]
        self.scaling.restore(state["scaling"])

    def step(
        self,
        fun: Callable[[Tree], Point],
        point: Point,
        first_step: float = 1.0,
        watch: Callable[[float, Point, float], None] | None = None,
    ) -> Step:
        """One iteration from `point`.

        Parameters
        ----------
        fun : callable
            ``fun(x) -> Point``, value and gradient.
        point : Point
            Where we are.
        first_step : float
            First trial step, in units of the direction.
        watch : callable, optional
            Called as ``watch(step, trial_point, slope)`` after every evaluation.

        Returns
        -------
        Step
            If no step satisfies W1 the history is dropped and `point` is returned.
        """
        d, slope, fresh = self._descent(point.g)
        if not slope < 0:
            return Step(point, 0.0, slope, slope, 0, False, True)
        trial = point

        def phi(t: float) -> tuple[float, float]:
            nonlocal trial
            trial = fun(trees.axpy(t, d, point.x) | _fixed(point.x, d))
            new_slope = self._shards.vdot(trial.g, d) if math.isfinite(trial.value) else math.nan
            if watch is not None:
                watch(t, trial, new_slope)
            return trial.value, new_slope

        found = self.search(phi, point.value, slope, first_step, self.options)
        if not found.accepted:
            self.reset()
            return Step(point, found.step, slope, found.slope, found.evaluations, False, fresh)
        self._learn(trees.scale(found.step, d), trees.sub(trial.g, point.g))
        return Step(trial, found.step, slope, found.slope, found.evaluations, True, fresh)

    def direction(self, g: Tree) -> Tree:
        """``-H g`` with the present history."""
        if self._fresh:
            return trees.scale(-1.0, self.scaling.initial(g))
        shards = self._shards
        q = trees.copy(shards.part(g))
        alphas = []
        for s, y, rho in reversed(self._pairs):
            alpha = rho * shards.vdot_parts(s, q)
            trees.add_scaled(q, -alpha, y)
            alphas.append(alpha)
        r = trees.scale(-1.0, shards.part(self.scaling.apply(shards.whole(q))))
        for (s, y, rho), alpha in zip(self._pairs, reversed(alphas), strict=True):
            trees.add_scaled(r, -(alpha + rho * shards.vdot_parts(y, r)), s)
        return shards.whole(r)

    def _descent(self, g: Tree) -> tuple[Tree, float, bool]:
        """A direction with negative slope if there is one; without history as the last resort."""
        fresh = self._fresh
        d = self.direction(g)
        slope = self._shards.vdot(g, d)
        if not (slope < 0 and np.isfinite(slope)) and not fresh:
            self.reset()
            fresh = True
            d = self.direction(g)
            slope = self._shards.vdot(g, d)
        return d, slope, fresh

    def _learn(self, s: Tree, y: Tree) -> None:
        self._fresh = False
        shards = self._shards
        ys, yy, ss = shards.vdot(y, s), shards.vdot(y, y), shards.vdot(s, s)
        if ys > self.curvature * math.sqrt(yy) * math.sqrt(ss):
            self.scaling.update(s, y)
            self._pairs.append((shards.part(s), shards.part(y), 1.0 / ys))
        while len(self._pairs) > self.memory:
            self._pairs.pop(0)


def gathered(state: Mapping[str, Any], communicator: Ranks) -> dict[str, Any]:
    """What `LBFGS.state` returned, with whole pairs; every rank has to ask for it."""
    if "layout" not in state:
        return dict(state)
    shards = Shards(communicator, state["layout"])
    pairs = [(shards.whole(s), shards.whole(y), rho) for s, y, rho in state["pairs"]]
    return {k: v for k, v in state.items() if k != "layout"} | {"pairs": pairs}


def shared_out(state: Mapping[str, Any], communicator: Ranks) -> dict[str, Any]:
    """A state with whole pairs, as this rank keeps it."""
    shards = Shards(communicator)
    pairs = [(shards.part(s), shards.part(y), rho) for s, y, rho in state["pairs"]]
    own = {} if shards.alone else {"layout": shards.layout}
    return {**state, "pairs": pairs, **own}


def _fixed(x: Tree, d: Tree) -> Tree:
    """Variables that the direction does not move."""
    return {k: v for k, v in x.items() if k not in d}
