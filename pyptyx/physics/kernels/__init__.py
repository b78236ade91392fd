"""Element-wise segments between two FFTs.

`reference` is plain array code and the specification; a translation has the same names and
signatures for the segments that are worth one.  `select` returns the module for a backend, once,
at set-up.
"""

from __future__ import annotations

from types import ModuleType

from pyptyx.backend import Backend
from pyptyx.physics.kernels import reference


def select(backend: Backend) -> ModuleType:
    """The kernel module for `backend`."""
    if backend.compiled:
        from pyptyx.physics.kernels import fast_cpu

        return fast_cpu
    return reference
