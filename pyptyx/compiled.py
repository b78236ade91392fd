"""Functions that numba compiles for the CPU."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from contextlib import suppress
from functools import cache
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
_HOMES = ("vector_fft", "physics/kernels")
"""Folders whose modules are parts of each other."""

_INTERNAL: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
try:
    from pyptyx.lowering import PartCompiler

    _INTERNAL["pipeline_class"] = PartCompiler
except ImportError:  # a numba that is made in another way: parts become machine code, too
    logger.debug("compiling takes longer with numba %s", numba.__version__)


def compile_for_cpu(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled at its first call, and kept for the next process where there is a place for it.

    NaN and infinity keep their meaning; only the order of additions is free.  Nothing compiled
    can make arrays: what it needs is given to it.
    """
    try:
        compiled = numba.njit(cache=True, **_HOW)(function)
    except RuntimeError:  # neither this folder nor the user's can be written to
        return numba.njit(**_HOW)(function)
    kept: Any = getattr(compiled, "_cache", None)
    if hasattr(kept, "_cache_file"):
        kept._cache_file = _Files(kept._cache_file)
    return compiled


def part(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled as a part of others, which halves the time that compiling takes."""
    return numba.njit(**_HOW, **_INTERNAL)(function)


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """As `part`, written out where it is called: for short ones with many arguments."""
    return numba.njit(inline="always", **_HOW, **_INTERNAL)(function)


def announce(function: Any) -> None:
    """Tell the user if a function of `compile_for_cpu` is going to be compiled."""
    kept = getattr(getattr(function, "_cache", None), "_cache_file", None)
    if not function.signatures and not (isinstance(kept, _Files) and kept.present()):
        # A warning, as less is not seen by those who set up no log and wait for half a minute.
        logger.warning("compiling the kernels, which takes half a minute, once on a machine")


class _Files:
    """Compiled code in files that are named by everything it was made of.

    Numba looks at the source of a function only, not at that of its parts, and numbers the files:
    processes that compile it for different types at the same time find the same number, and then
    one gets the code of the other.

    Parameters
    ----------
    files : numba.core.caching.IndexDataCacheFile
        What numba would use.
    """

    def __init__(self, files: Any) -> None:
        self._files = files
        self._folder = Path(files._cache_path)
        stem = Path(files._index_name).stem  # module.function-line.python
        made_of = (files._version, files._source_stamp, _sources(Path(__file__).parent))
        self._origin = f"{stem}.{_digest(repr(made_of))}"
        function, place = stem.rsplit("-", 1)
        self._any_origin = f"{function}-*{Path(place).suffix}.*nb[ci]"

    def load(self, key: Any) -> Any:
        """The code for a signature on this processor, or None."""
        try:
            return self._files._load_data(self._name(key))
        except OSError:
            return None

    def save(self, key: Any, data: Any) -> None:
        """Keep it if there is room, and remove what was made of other sources."""
        try:
            self._files._save_data(self._name(key), data)
        except OSError as error:
            logger.warning("compiled kernels cannot be kept in %s: %s", self._folder, error)
        for old in self._folder.glob(self._any_origin):
            if not old.name.startswith(self._origin):
                with suppress(OSError):
                    old.unlink()

    def present(self) -> list[Path]:
        """Files of the function as it is now."""
        return list(self._folder.glob(f"{self._origin}.*.nbc"))

    def _name(self, key: Any) -> str:
        return f"{self._origin}.{_digest(repr(key))}.nbc"


@cache
def _sources(package: Path) -> str:
    """Changes with any module that may be a part of what is compiled."""
    files = [p for home in _HOMES for p in sorted((package / home).rglob("*.py"))]
    return _digest("".join(p.read_text(encoding="utf-8") for p in (*files, Path(__file__))))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
