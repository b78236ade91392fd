"""Devices of several processes that exchange arrays directly, through NCCL."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = Any


class DeviceGroup:
    """Devices of several processes that add arrays among themselves, through NCCL."""

    def __init__(self, nccl: Any, communicator: Any, stream: Any) -> None:
        self._types = {
            np.dtype(np.float32): nccl.NCCL_FLOAT32,
            np.dtype(np.float64): nccl.NCCL_FLOAT64,
            np.dtype(np.int64): nccl.NCCL_INT64,
        }
        self._sum = nccl.NCCL_SUM
        self._communicator = communicator
        self._stream = stream

    def sum_into(self, flat: Array) -> None:
        """Replace a contiguous real array by its sum over the devices."""
        kind, pointer = self._types[flat.dtype], flat.data.ptr
        self._communicator.allReduce(pointer, pointer, flat.size, kind, self._sum, self._stream.ptr)
        self._stream.synchronize()
