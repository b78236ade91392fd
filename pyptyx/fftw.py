"""FFTW for the windows of a run, through pyfftw; about twice as fast as SciPy's transforms.

A plan belongs to one window, not to a batch: what a pattern becomes does not depend on the patterns
beside it, and planning (0.1 s at 128², once per size) is done once.

FFTW finds its plans by timing, so two processes might choose differently and differ in the last
bits.  What it has found is therefore kept in a file, and planning waits its turn: all processes of
a machine use the same plans, this time and the next.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pyptyx.errors import OutputError
from pyptyx.files import make_folder, write_bytes

logger = logging.getLogger(__name__)

Array = Any

LARGEST_WINDOW = 1 << 20
"""Pixels above which planning takes longer than it saves: whole objects are transformed rarely."""

_ALIGNMENT = 16
_PLANNER = threading.Lock()


class WindowTransforms:
    """Transforms over the last two axes without a factor, for one thread at a time."""

    def __init__(self) -> None:
        self._plans: dict[tuple[Any, ...], Any] = {}

    @staticmethod
    def fits(a: Array) -> bool:
        """Whether `a` is what the plans are made for: complex, contiguous, of moderate size."""
        return (
            isinstance(a, np.ndarray)
            and a.ndim >= 2
            and a.dtype.kind == "c"
            and a.flags.c_contiguous
            and 0 < a.shape[-2] * a.shape[-1] <= LARGEST_WINDOW
            and a.ctypes.data % _ALIGNMENT == 0
            and (a.shape[-2] * a.shape[-1] * a.itemsize) % _ALIGNMENT == 0
        )

    def transform(self, a: Array, forward: bool, overwrite: bool) -> Array:
        """Forward or backward DFT of every window of `a`, which must fit (see `fits`)."""
        out = a if overwrite and a.flags.writeable else np.empty_like(a)
        window = a.shape[-2:]
        plan = self._plan(window, a.dtype, forward, out is a)
        for source, target in zip(a.reshape(-1, *window), out.reshape(-1, *window), strict=True):
            plan.update_arrays(source, target)
            plan.execute()
        return out

    def _plan(
        self, window: tuple[int, ...], dtype: np.dtype[Any], forward: bool, in_place: bool
    ) -> Any:
        key = window, dtype, forward, in_place
        if key not in self._plans:
            import pyfftw

            source = _aligned(window, dtype)
            target = source if in_place else _aligned(window, dtype)
            with _PLANNER, _shared_wisdom():
                self._plans[key] = pyfftw.FFTW(
                    source,
                    target,
                    axes=(0, 1),
                    direction="FFTW_FORWARD" if forward else "FFTW_BACKWARD",
                    flags=("FFTW_MEASURE",),
                )
        return self._plans[key]


def wisdom_folder() -> Path:
    """Where the plans are kept: ``pyptyx`` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pyptyx"


@contextmanager
def _shared_wisdom() -> Iterator[None]:
    """Plan with what is in the file, and leave there what is new; other processes wait."""
    import pyfftw

    files = {n: wisdom_folder() / f"fftw_wisdom_{n}" for n in ("double", "single", "long")}
    try:
        make_folder(wisdom_folder())
        lock = open(wisdom_folder() / "lock", "wb")
    except (OSError, OutputError) as error:
        logger.info("FFTW plans are not kept: %s", error)
        yield
        return
    with lock:
        _wait_for(lock)
        known = tuple(f.read_bytes() if f.exists() else b"" for f in files.values())
        pyfftw.import_wisdom(known)
        before = pyfftw.export_wisdom()
        yield
        found = pyfftw.export_wisdom()
        try:
            for file, old, new in zip(files.values(), before, found, strict=True):
                if new != old:
                    write_bytes(file, new)
        except OSError as error:
            logger.info("FFTW plans are not kept: %s", error)


def _wait_for(lock: Any) -> None:
    """Hold the lock until the file is closed; where the system has no such locks, do nothing."""
    try:
        import fcntl
    except ImportError:
        return
    fcntl.flock(lock, fcntl.LOCK_EX)


def _aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """An empty array on an address that every other array of the plan may have as well."""
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.empty(size + 4 * _ALIGNMENT, np.uint8)
    offset = (_ALIGNMENT - raw.ctypes.data) % (2 * _ALIGNMENT)
    return raw[offset : offset + size].view(dtype).reshape(shape)
