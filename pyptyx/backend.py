"""The one door to the GPU: array namespace, transfer, FFT and scatter-add for NumPy and CuPy.

Nothing else in the package imports CuPy.  A `Backend` belongs to one device and is used by one
worker thread at a time.  FFTs act on the last two axes, forward transforms carry no factor and
inverse ones ``1/N``, as in ``numpy.fft``; complex64 stays complex64.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import scipy.fft

from pyptyx.errors import DeviceError
from pyptyx.fftw import WindowTransforms

logger = logging.getLogger(__name__)

Array = Any


class Backend:
    """NumPy on the host; also the description of what a device backend must offer.

    Attributes
    ----------
    name : str
        ``"cpu"`` or ``"cuda:0"`` and so on.
    xp : module
        The array namespace.
    compiled : bool
        Whether kernels compiled for the CPU serve this backend.

    Parameters
    ----------
    fast : bool
        Use numba and FFTW, as far as they are installed.
    """

    name: str = "cpu"
    compiled: bool = False

    def __init__(self, fast: bool = False) -> None:
        self.xp: Any = np
        self.compiled = fast and _installed("numba")
        self._windows = WindowTransforms() if fast and _installed("pyfftw") else None

    def context(self) -> AbstractContextManager[Any]:
        """Context in which the device of this backend is the current one."""
        return nullcontext()

    def asarray(self, a: Array, dtype: Any = None) -> Array:
        """`a` as an array of this device; no copy when it lies there already."""
        if not isinstance(a, np.ndarray) and hasattr(a, "get"):
            a = a.get()
        return np.asarray(a, dtype)

    def to_host(self, a: Array) -> np.ndarray:
        """`a` as a NumPy array."""
        return np.asarray(a)

    def fft2(self, a: Array, overwrite: bool = False) -> Array:
        """Forward DFT over the last two axes, no factor."""
        if self._windows is not None and self._windows.fits(a):
            return self._windows.transform(a, forward=True, overwrite=overwrite)
        return scipy.fft.fft2(a, axes=(-2, -1), overwrite_x=overwrite, workers=1)

    def ifft2(self, a: Array, overwrite: bool = False) -> Array:
        """Inverse DFT over the last two axes, factor ``1/N``."""
        return scipy.fft.ifft2(a, axes=(-2, -1), overwrite_x=overwrite, workers=1)

    def fft2_adjoint(self, a: Array, overwrite: bool = False) -> Array:
        """Adjoint of `fft2`: the inverse DFT without its factor."""
        if self._windows is not None and self._windows.fits(a):
            return self._windows.transform(a, forward=False, overwrite=overwrite)
        return scipy.fft.ifft2(a, axes=(-2, -1), overwrite_x=overwrite, workers=1, norm="forward")

    def free_bytes(self) -> int:
        """Memory that can still be taken, in bytes."""
        try:
            return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (ValueError, OSError, AttributeError):  # not offered on this system
            return 4 << 30

    def synchronize(self) -> None:
        """Wait until all work of this device is done."""

    @property
    def array(self) -> type:
        """The type of this device's arrays."""
        return self.xp.ndarray

    @property
    def group_id(self) -> str | None:
        """Name of the device among those that exchange arrays directly; None if it cannot."""
        return None

    def group_key(self) -> Any:
        """What one process sends to all that form a `group`."""
        raise DeviceError(f"{self.name}: expected a device with NCCL, got none")

    def group(self, key: Any, rank: int, size: int) -> DeviceGroup:
        """This device as number `rank` of `size` that got the same key."""
        raise DeviceError(f"{self.name}: expected a device with NCCL, got none")


class CupyBackend(Backend):
    """One CUDA device through CuPy, on a stream of its own."""

    def __init__(self, device_id: int) -> None:
        self._cupy = _cupy()
        self.xp = self._cupy
        self.device_id = device_id
        self.name = f"cuda:{device_id}"
        with self._cupy.cuda.Device(device_id):
            self._stream = self._cupy.cuda.Stream(non_blocking=True)

    def context(self) -> AbstractContextManager[Any]:
        return _DeviceContext(self._cupy.cuda.Device(self.device_id), self._stream)

    def asarray(self, a: Array, dtype: Any = None) -> Array:
        if isinstance(a, self._cupy.ndarray) and a.device.id != self.device_id:
            # Through the host: not every machine has peer access, and it is once per evaluation.
            a = a.get()
        return self._cupy.asarray(a, dtype)

    def to_host(self, a: Array) -> np.ndarray:
        return self._cupy.asnumpy(a)

    def fft2(self, a: Array, overwrite: bool = False) -> Array:
        return self._fft.fft2(a, axes=(-2, -1), overwrite_x=overwrite)

    def ifft2(self, a: Array, overwrite: bool = False) -> Array:
        return self._fft.ifft2(a, axes=(-2, -1), overwrite_x=overwrite)

    def fft2_adjoint(self, a: Array, overwrite: bool = False) -> Array:
        return self._fft.ifft2(a, axes=(-2, -1), overwrite_x=overwrite, norm="forward")

    @property
    def _fft(self) -> Any:
        import cupyx.scipy.fft

        return cupyx.scipy.fft

    def free_bytes(self) -> int:
        with self._cupy.cuda.Device(self.device_id):
            free, _total = self._cupy.cuda.runtime.memGetInfo()
            return int(free) + self._cupy.get_default_memory_pool().free_bytes()

    def synchronize(self) -> None:
        self._stream.synchronize()

    @property
    def group_id(self) -> str | None:
        device = self._cupy.cuda.Device(self.device_id)
        return device.pci_bus_id if self._cupy.cuda.nccl.available else None

    def group_key(self) -> Any:
        return self._cupy.cuda.nccl.get_unique_id()

    def group(self, key: Any, rank: int, size: int) -> DeviceGroup:
        nccl = self._cupy.cuda.nccl
        return DeviceGroup(nccl, nccl.NcclCommunicator(size, key, rank), self._stream)


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
        self._communicator.allReduce(
            pointer, pointer, flat.size, kind, self._sum, self._stream.ptr
        )
        self._stream.synchronize()


class _DeviceContext(AbstractContextManager[Any]):
    """Device and stream entered together, left in the reverse order."""

    def __init__(self, device: Any, stream: Any) -> None:
        self._parts = (device, stream)

    def __enter__(self) -> None:
        for part in self._parts:
            part.__enter__()

    def __exit__(self, *exc: Any) -> None:
        for part in reversed(self._parts):
            part.__exit__(*exc)


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _cupy() -> Any:
    import cupy

    return cupy


def cuda_device_count() -> int:
    """Number of usable CUDA devices; 0 without CuPy or without a driver."""
    if not _installed("cupy"):
        return 0
    try:
        return int(_cupy().cuda.runtime.getDeviceCount())
    except Exception as error:  # CuPy raises its own types, which need CuPy to name
        logger.info("CuPy is installed but no CUDA device can be used: %s", error)
        return 0


def make_backends(
    devices: int | str | list[int] = "auto", prefer: str = "gpu", fast: bool = True
) -> list[Backend]:
    """One backend per worker.

    Parameters
    ----------
    devices : int, "auto" or list of int
        With CUDA devices: how many, all, or which.  On a CPU: the number of worker threads,
        "auto" meaning one per core available to this process.
    prefer : {"gpu", "cpu"}
        ``"cpu"`` uses NumPy even where a GPU is present.
    fast : bool
        On a CPU: use numba and FFTW, as far as they are installed.

    Returns
    -------
    list of Backend

    Raises
    ------
    DeviceError
        If CUDA devices are named that do not exist.
    """
    n_cuda = cuda_device_count() if prefer == "gpu" else 0
    if isinstance(devices, list):
        missing = [d for d in devices if d not in range(n_cuda)]
        if missing:
            ids = f"device numbers below {n_cuda}" if n_cuda else "no list, as no GPU is in use"
            raise DeviceError(f"devices: expected {ids}, got {missing}. Give how many, or 'auto'")
        return [CupyBackend(d) for d in devices]
    if n_cuda:
        count = n_cuda if devices == "auto" else min(int(devices), n_cuda)
        return [CupyBackend(d) for d in range(count)]
    count = available_cores() if devices == "auto" else int(devices)
    return [Backend(fast) for _ in range(count)]


def available_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
