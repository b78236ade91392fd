"""Element-wise segments between two FFTs.

`reference` is plain array code and the specification; a translation has the same names and
signatures for the segments that are worth one.  `select` returns the one for a backend, once, at
set-up.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

from pyptyx.backend import Backend
from pyptyx.physics.kernels import reference

if TYPE_CHECKING:
    from pyptyx.physics.kernels.cuda_segments import CudaSegments


def select(backend: Backend) -> ModuleType | CudaSegments:
    """The kernels for `backend`: a module, or an object that knows its device."""
    if backend.runs_cuda:
        from pyptyx.physics.kernels.cuda_segments import CudaSegments

        return CudaSegments(backend)
    if backend.compiled:
        from pyptyx.physics.kernels import fast_cpu

        return fast_cpu
    return reference
