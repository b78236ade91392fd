"""From the host to a CUDA device beside the work: buffers and a stream of their own."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = Any
Unpack = Callable[[Array, Any], Array]

_BUFFERS = 3
"""One is worked with while two are filled."""


@dataclass
class Upload:
    """An array on its way.

    Attributes
    ----------
    pinned, device : array of uint8
        Page-locked memory of the host and memory of the device.
    arrived, consumed : cupy.cuda.Event
        When the device holds the array, and when it is no longer needed there.
    shape, dtype
        Of the array.
    unpack : callable or None
        ``unpack(array, xp)``: what becomes of it.
    """

    pinned: np.ndarray
    device: Array
    arrived: Any
    consumed: Any
    shape: tuple[int, ...] = ()
    dtype: Any = None
    unpack: Unpack | None = None


class UploadRing:
    """Buffers that are filled in turn; one thread begins uploads, another ends them in that order.

    The buffers stay and are none of the memory pool's, which could hand them out again before the
    other stream is done with them.

    Parameters
    ----------
    cupy : module
    work : cupy.cuda.Stream
        The stream that works with the arrays.
    """

    def __init__(self, cupy: Any, work: Any) -> None:
        self._cupy = cupy
        self._work = work
        self._copies = cupy.cuda.Stream(non_blocking=True)
        self._uploads: deque[Upload] = deque()

    def begin(self, a: np.ndarray, unpack: Unpack) -> Upload:
        """Start to send `a`, in the buffer that has waited longest."""
        a = np.ascontiguousarray(a)
        upload = self._uploads.popleft() if len(self._uploads) == _BUFFERS else None
        if upload is not None:
            upload.arrived.synchronize()
            upload.consumed.synchronize()
        if upload is None or upload.pinned.nbytes < a.nbytes:
            upload = self._allocate(a.nbytes)
        upload.shape, upload.dtype, upload.unpack = a.shape, a.dtype, unpack
        upload.pinned[: a.nbytes] = a.reshape(-1).view(np.uint8)
        upload.device[: a.nbytes].set(upload.pinned[: a.nbytes], stream=self._copies)
        upload.arrived.record(self._copies)
        self._uploads.append(upload)
        return upload

    def end(self, upload: Upload) -> Array:
        """Unpack on the working stream, into memory of its own."""
        assert upload.unpack is not None
        self._work.wait_event(upload.arrived)
        size = math.prod(upload.shape) * upload.dtype.itemsize
        raw = upload.device[:size].view(upload.dtype).reshape(upload.shape)
        out = upload.unpack(raw, self._cupy)
        if out.data.mem is upload.device.data.mem:
            out = out.copy()
        upload.consumed.record(self._work)
        return out

    def _allocate(self, size: int) -> Upload:
        cuda = self._cupy.cuda
        memory = cuda.MemoryPointer(cuda.Memory(size), 0)
        device = self._cupy.ndarray((size,), np.uint8, memptr=memory)
        pinned = np.frombuffer(cuda.alloc_pinned_memory(size), np.uint8, size)
        arrived, consumed = (cuda.Event(disable_timing=True) for _ in range(2))
        return Upload(pinned, device, arrived, consumed)
