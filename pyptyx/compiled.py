"""Functions that numba compiles for the CPU."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

logger = logging.getLogger(__name__)

_HOW: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",
    "fastmath": {"contract", "arcp", "nsz", "reassoc"},
    # Arrays belong to the caller: to count references to them takes a tenth of the time.
    "_nrt": False,
}
_HOMES = ("pyptyx.vector_fft", "pyptyx.physics.kernels")
"""Packages whose modules are parts of each other."""

_INTERNAL: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def compile_for_cpu(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled at its first call, and kept for the next process where there is a place for it.

    NaN and infinity keep their meaning; only the order of additions is free.  Nothing compiled
    can make arrays: what it needs is given to it.
    """
    try:
        compiled = numba.njit(cache=True, **_HOW)(function)
    except RuntimeError:  # neither this folder nor the user's can be written to
        return numba.njit(**_HOW)(function)
    _drop_what_is_old(compiled)
    return compiled


def part(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled as a part of others, which halves the time that compiling takes."""
    return numba.njit(**_HOW, **_INTERNAL)(function)


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """As `part`, written out where it is called: for short ones with many arguments."""
    return numba.njit(inline="always", **_HOW, **_INTERNAL)(function)


def announce(function: Any) -> None:
    """Tell the user if a function of `compile_for_cpu` is going to be compiled."""
    if not (function.signatures or _kept(function)):
        logger.info("compiling the kernels, which takes half a minute, once on a machine")


def _kept(function: Any) -> list[Path]:
    """Files that tell what has been compiled of a function before."""
    folder = getattr(function.stats, "cache_path", None)
    return list(Path(folder).glob(f"*.{function.py_func.__qualname__}-*.nbi")) if folder else []


def _drop_what_is_old(function: Any) -> None:
    """Numba looks at the file of a function only, not at those of its parts."""
    parts = [m for name, m in list(sys.modules.items()) if name.startswith(_HOMES)]
    files = [Path(m.__file__) for m in parts if m.__file__]
    newest = max((f.stat().st_mtime for f in files if f.exists()), default=0.0)
    for index in _kept(function):
        try:
            if index.stat().st_mtime < newest:
                index.unlink()
        except OSError as error:  # another process was faster, or it is not ours to remove
            logger.debug("%s stays: %s", index, error)
