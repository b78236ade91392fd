"""Element-wise segments between two FFTs.

`reference` is plain array code and the specification; a translation for a device has the same
names and signatures.  `select` returns the module for a backend, once, at set-up.
"""

from __future__ import annotations

from types import ModuleType

from pyptyx.backend import Backend
from pyptyx.physics.kernels import reference


def select(backend: Backend) -> ModuleType:
    """The kernel module for `backend` (today the reference serves NumPy and CuPy alike)."""
    del backend
    return reference
