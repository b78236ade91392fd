"""Functions that numba compiles for the CPU."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

logger = logging.getLogger(__name__)

_HOW: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",
    "fastmath": {"contract", "arcp", "nsz", "reassoc"},
}
_INTERNAL: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def compile_for_cpu(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled at its first call, and kept for the next process where there is a place for it.

    NaN and infinity keep their meaning; only the order of additions is free.
    """
    try:
        return numba.njit(cache=True, **_HOW)(function)
    except RuntimeError:  # neither this folder nor the user's can be written to
        return numba.njit(**_HOW)(function)


def part(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled as a part of others, which halves the time that compiling takes."""
    return numba.njit(**_HOW, **_INTERNAL)(function)


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """As `part`, written out where it is called: for short ones with many arguments."""
    return numba.njit(inline="always", **_HOW, **_INTERNAL)(function)


def announce(function: Any) -> None:
    """Tell the user if a function of `compile_for_cpu` is going to be compiled."""
    folder = getattr(function.stats, "cache_path", None)
    kept = folder and any(Path(folder).glob(f"*.{function.py_func.__qualname__}-*.nbi"))
    if not (function.signatures or kept):
        logger.info("compiling the kernels, which takes half a minute, once on a machine")
