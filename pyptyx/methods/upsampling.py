"""Factors between the grid of the scan and a finer one."""

from __future__ import annotations

from fractions import Fraction

from pyptyx.errors import ParamError, Problem

_LARGEST_DENOMINATOR = 10
"""One decimal place, and the thirds: finer steps bring nothing but more work."""


def exact_factor(upsample: float) -> Fraction:
    """The up-sampling factor as a ratio of small whole numbers.

    Parameters
    ----------
    upsample : float
        Pixels per scan step.

    Raises
    ------
    ParamError
        If it is below 1, or not a ratio of whole numbers with a denominator up to 10.
    """
    expected = "a number >= 1 that is a ratio of small whole numbers, such as 2, 1.5 or 7/3"
    try:
        value = float(upsample)
        factor = Fraction(value).limit_denominator(_LARGEST_DENOMINATOR)
    except (TypeError, ValueError, OverflowError):
        raise ParamError(Problem("upsample", expected, repr(upsample))) from None
    if factor < 1 or abs(float(factor) - value) > 1e-6 * value:
        remedy = f"Take {max(factor, Fraction(1))}" if value > 0 else ""
        raise ParamError(Problem("upsample", expected, repr(upsample), remedy))
    return factor
