"""Checks of derivatives: adjoint identity, central differences, Taylor test.

Convention: ``<u, v> = Re Σ conj(u) v``.  A gradient ``g`` is right if ``dL = <g, dx>`` for every
change dx, and ``vjp`` is the adjoint of ``jvp`` if ``<w, jvp(v)> = <vjp(w), v>`` for all v, w.
"""

import numpy as np

from pyptyx import trees

TAYLOR_SLOPE = 2.0
TAYLOR_TOLERANCE = 0.05


def inner(u, v):
    """``Re Σ conj(u) v``."""
    assert u.shape == v.shape, f"shapes {u.shape} and {v.shape}"
    return trees.dot(np.ascontiguousarray(u) + 0j, np.ascontiguousarray(v) + 0j)


def size(u):
    """Euclidean norm."""
    return np.sqrt(inner(u, u))


def normal(rng, *shape, real=False):
    """Standard normal numbers, complex unless `real`."""
    a = rng.standard_normal(shape)
    return a if real else a + 1j * rng.standard_normal(shape)


def assert_adjoint(jvp, vjp, v, w, tolerance=1e-12):
    """``<w, jvp(v)> = <vjp(w), v>`` for a stage that is linear in the argument tested."""
    out, back = jvp(v), vjp(w)
    left, right = inner(w, out), inner(back, v)
    scale = size(w) * size(out)
    assert scale > 0, "the stage maps the test vector to zero"
    assert abs(left - right) <= tolerance * scale, f"<w, J v> = {left!r}, <Jᴴ w, v> = {right!r}"


def central_difference(f, step):
    """Derivative at 0 of the real function `f` of one number, fourth order in `step`."""
    near, far = f(step) - f(-step), f(2 * step) - f(-2 * step)
    return (8 * near - far) / (12 * step)


def assert_derivative(f, x, g, d, step=1e-3, tolerance=1e-8):
    """``<g, d>`` is the derivative of ``f(x + t d)`` at 0, to `tolerance` times ``|g| |d|``."""
    expected, got = central_difference(lambda t: f(x + t * d), step), inner(g, d)
    scale = size(g) * size(d)
    assert scale > 0, "gradient or direction vanishes"
    assert abs(got - expected) <= tolerance * scale, f"<g, d> = {got!r}, difference {expected!r}"


def taylor_slope(f, g, x, direction, steps):
    """Slope of ``log|f(x + h d) - f(x) - h <g, d>|`` over ``log h``: 2 if the gradient is right.

    Parameters
    ----------
    f : callable
        ``f(tree) -> float``.
    g, x, direction : dict of array
        Gradient at `x`, the point, the direction; keys missing in `direction` stay.
    steps : sequence of float
    """
    value, slope = f(x), trees.vdot(direction, g)
    remainders = [abs(f(x | trees.axpy(h, direction, x)) - value - h * slope) for h in steps]
    assert min(remainders) > 0, (
        "the remainder vanishes: the function does not depend on the direction"
    )
    return float(np.polyfit(np.log(steps), np.log(remainders), 1)[0])


def assert_taylor(f, g, x, direction, steps, name=""):
    """`taylor_slope` is 2."""
    slope = taylor_slope(f, g, x, direction, steps)
    assert abs(slope - TAYLOR_SLOPE) <= TAYLOR_TOLERANCE, f"{name}: slope {slope:.3f}, expected 2"
