"""Line searches: they see only ``phi(t) -> (value, slope)`` along a direction of descent.

Wolfe conditions, with ``φ(0)`` and ``φ'(0) < 0``:
``W1: φ(t) <= φ(0) + c1 t φ'(0)`` and ``W2: φ'(t) >= c2 φ'(0)`` (the weak curvature condition).
The step that is returned is always one that was evaluated.

References
----------
J. Nocedal, S. Wright, Numerical Optimization, 2nd ed., section 3.5;  A. Lewis, M. Overton, Math.
Program. 141 (2013) 135 (bracketing for the weak conditions).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

Phi = Callable[[float], tuple[float, float]]


@dataclass(frozen=True)
class SearchOptions:
    """Settings of a line search (PyPty's keys and defaults).

    Attributes
    ----------
    c1, c2 : float
        Wolfe constants (``wolfe_c1_constant, wolfe_c2_constant``).
    shrink, grow : float
        Factors ``reduce_factor`` and ``optimism``.
    max_count : int or None
        At most ``max_count + 2`` evaluations, and one more if `weak_wolfe` then returns to an
        earlier step; None is unlimited.
    min_step : float
        Steps below are given up.
    """

    c1: float = 0.1
    c2: float = 0.9
    shrink: float = 0.1
    grow: float = 3.0
    max_count: int | None = 20
    min_step: float = 1e-20


@dataclass(frozen=True)
class SearchResult:
    """Outcome of a line search.

    Attributes
    ----------
    step : float
        An evaluated step; the one to take if `accepted`.
    slope : float
        ``φ'(step)``.
    evaluations : int
    accepted : bool
        W1 holds at `step`.
    """

    step: float
    slope: float
    evaluations: int
    accepted: bool


@dataclass(frozen=True)
class _Trial:
    t: float
    value: float
    slope: float


def weak_wolfe(phi: Phi, f0: float, slope0: float, t0: float, opt: SearchOptions) -> SearchResult:
    """Bracketing with safeguarded cubic interpolation; deterministic.

    A trial that violates W1 (or is not finite) bounds the bracket from above, one that violates
    only W2 from below; without an upper bound the step grows by extrapolation, at least by
    ``grow``.  When the evaluations run out the lowest trial that satisfied W1 is returned.
    """
    low, high = _Trial(0.0, f0, slope0), None
    best: _Trial | None = None
    t, last, count = t0, t0, 0
    while True:
        value, slope = phi(t)
        count, last = count + 1, t
        trial = _Trial(t, value, slope)
        fine = math.isfinite(value) and math.isfinite(slope)
        if fine and value <= f0 + opt.c1 * t * slope0:
            if best is None or value < best.value:
                best = trial
            if slope >= opt.c2 * slope0:
                return SearchResult(t, slope, count, True)
            previous, low = low, trial
            t = _between(low, high, opt) if high else _beyond(previous, low, opt)
        else:
            high = trial if fine else _Trial(t, math.inf, math.inf)
            t = _between(low, high, opt)
        exhausted = opt.max_count is not None and count >= opt.max_count + 2
        if exhausted or t < opt.min_step or t in (low.t, high.t if high else None):
            break
    if best is None:
        return SearchResult(last, slope, count, False)
    if best.t != last:
        _value, slope = phi(best.t)  # so that the caller holds the point it is told to take
        return SearchResult(best.t, slope, count + 1, True)
    return SearchResult(best.t, best.slope, count, True)


def pypty_search(phi: Phi, f0: float, slope0: float, t0: float, opt: SearchOptions) -> SearchResult:
    """PyPty's rule: times ``shrink`` while W1 fails, times ``grow`` while only W2 fails.

    Where both fail PyPty draws a random step; here the step shrinks.  The step reported is the
    evaluated one also when the count or the smallest step ends the search.
    """
    t, count = t0, 0
    while True:
        value, slope = phi(t)
        count += 1
        w1 = math.isfinite(value) and value <= f0 + opt.c1 * t * slope0
        w2 = slope >= opt.c2 * slope0
        if w1 and w2:
            break
        following = t * (opt.grow if w1 else opt.shrink)
        if opt.max_count is not None and count > opt.max_count + 1:
            break
        if following < opt.min_step:
            break
        t = following
    return SearchResult(t, slope, count, w1)


def _between(low: _Trial, high: _Trial, opt: SearchOptions) -> float:
    """Minimiser of the cubic through both ends, kept inside the bracket."""
    width = high.t - low.t
    if not math.isfinite(high.value):
        return low.t + opt.shrink * width
    t = _cubic_minimum(low, high)
    # A first trial can be orders of magnitude too long: the lower guard is loose.
    return min(max(t, low.t + 1e-3 * width), low.t + 0.9 * width)


def _beyond(previous: _Trial, low: _Trial, opt: SearchOptions) -> float:
    """A longer step: secant on the slopes, ``grow`` to ``10 grow`` times the last one."""
    bend = low.slope - previous.slope
    t = low.t - low.slope * (low.t - previous.t) / bend if bend > 0 else math.inf
    return min(max(t, opt.grow * low.t), 10 * opt.grow * low.t)


def _cubic_minimum(a: _Trial, b: _Trial) -> float:
    """Minimiser of the cubic with the values and slopes of two trials, or their middle."""
    d1 = a.slope + b.slope - 3 * (a.value - b.value) / (a.t - b.t)
    square = d1 * d1 - a.slope * b.slope
    if not square >= 0:
        return 0.5 * (a.t + b.t)
    d2 = math.copysign(math.sqrt(square), b.t - a.t)
    denominator = b.slope - a.slope + 2 * d2
    if denominator == 0:
        return 0.5 * (a.t + b.t)
    return b.t - (b.t - a.t) * (b.slope + d2 - d1) / denominator
