"""The one door to the GPU: array namespace, transfer, FFT and scatter-add for NumPy and CuPy.

Nothing else in the package imports CuPy.  A `Backend` belongs to one device and is used by one
worker thread at a time.  FFTs act on the last two axes, forward transforms carry no factor and
inverse ones ``1/N``, as in ``numpy.fft``; complex64 stays complex64.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import numpy as np
import scipy.fft

from pyptyx.device_group import DeviceGroup
from pyptyx.errors import DeviceError
from pyptyx.machine import available_cores, free_memory_bytes, physical_bytes
from pyptyx.uploads import Unpack, Upload, UploadRing

logger = logging.getLogger(__name__)

Array = Any


class Band(Protocol):
    """The rows and columns of a spectrum that are not known to be zero, as slices."""

    @property
    def rows(self) -> Sequence[slice]:
        """Pieces of the first axis."""
        ...

    @property
    def columns(self) -> Sequence[slice]:
        """Pieces of the second axis."""
        ...


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
    fuses : bool
        Whether kernels with the FFTs inside may serve it.
    runs_cuda : bool
        Whether this backend compiles and runs CUDA source.

    Parameters
    ----------
    kernels : {"auto", "segments", "reference"}
        See `make_backends`.
    """

    name: str = "cpu"
    compiled: bool = False
    runs_cuda: bool = False
    fuses: bool = False

    def __init__(self, kernels: str = "reference") -> None:
        self.xp: Any = np
        self.compiled = kernels != "reference" and _usable("numba")
        self.fuses = kernels == "auto" and self.compiled
        self._windows = _window_transforms() if self.compiled else None

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

    def fft2(self, a: Array, overwrite: bool = False, band: Band | None = None) -> Array:
        """Forward DFT over the last two axes, no factor; outside a `band` undefined but finite."""
        if self._windows is not None and self._windows.fits(a):
            lit = band.columns if band else None
            return self._windows.transform(a, forward=True, overwrite=overwrite, columns=lit)
        if band is None:
            return scipy.fft.fft2(a, axes=(-2, -1), overwrite_x=overwrite, workers=1)
        out = scipy.fft.fft(a, axis=-1, overwrite_x=overwrite)
        for columns in band.columns:
            _in_place(scipy.fft.fft, out[..., columns], axis=-2)
        return out

    def ifft2(self, a: Array, overwrite: bool = False) -> Array:
        """Inverse DFT over the last two axes, factor ``1/N``."""
        if self._windows is not None and self._windows.fits(a):
            out = self._windows.transform(a, forward=False, overwrite=overwrite)
            out /= a.shape[-2] * a.shape[-1]
            return out
        return scipy.fft.ifft2(a, axes=(-2, -1), overwrite_x=overwrite, workers=1)

    def fft2_adjoint(self, a: Array, overwrite: bool = False, band: Band | None = None) -> Array:
        """Adjoint of `fft2`: the inverse DFT without its factor; `a` is zero outside a `band`."""
        if self._windows is not None and self._windows.fits(a):
            lit = band.rows if band else None
            return self._windows.transform(a, forward=False, overwrite=overwrite, rows=lit)
        if band is None:
            return scipy.fft.ifft2(a, axes=(-2, -1), overwrite_x=overwrite, norm="forward")
        out = a if overwrite else a.copy()
        for rows in band.rows:
            _in_place(scipy.fft.ifft, out[..., rows, :], axis=-1, norm="forward")
        return scipy.fft.ifft(out, axis=-2, overwrite_x=True, norm="forward")

    def rfft2(self, a: Array, shape: tuple[int, int]) -> Array:
        """Forward DFT of real images, zero-padded to `shape` at the high ends, no factor."""
        return scipy.fft.rfft2(a, s=shape, axes=(-2, -1), workers=1)

    def free_bytes(self) -> int:
        """Memory that can still be taken, in bytes."""
        return free_memory_bytes() or 4 << 30

    def total_bytes(self) -> int:
        """Memory of the device, in bytes; 0 where the system does not tell."""
        return physical_bytes("SC_PHYS_PAGES")

    def ran_out_of_memory(self, error: BaseException) -> bool:
        """Whether that is what an error says; CuPy's own error is a `MemoryError` too."""
        return isinstance(error, MemoryError)

    def release_memory(self) -> None:
        """Give memory back that is kept for later."""

    def begin_upload(self, a: np.ndarray, unpack: Unpack) -> Any:
        """Start to bring a host array here, from any thread; see `end_upload`.

        Parameters
        ----------
        a : ndarray
        unpack : callable
            ``unpack(array, xp)``: what becomes of it on this device, always a new array.
        """
        return unpack(self.asarray(a), self.xp)

    def end_upload(self, sent: Any) -> Array:
        """What `begin_upload` has brought, in the thread that works with this device."""
        return sent

    def synchronize(self) -> None:
        """Wait until all work of this device is done."""

    def raw_module(self, source: str, options: tuple[str, ...] = ("--std=c++17",)) -> Any:
        """CUDA source compiled for this device, whose `get_function` gives kernels; kept."""
        raise DeviceError(f"{self.name}: expected a CUDA device for a CUDA kernel, got none")

    @property
    def array(self) -> Any:
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
        """The group in which this device is number `rank` of `size` that got the same key."""
        raise DeviceError(f"{self.name}: expected a device with NCCL, got none")


class MapReduce(Protocol):
    """What those who compute need from an executor (see `pyptyx.executors`)."""

    @property
    def backends(self) -> Sequence[Backend]:
        """One per worker."""
        ...

    def map_reduce(
        self,
        start: Callable[[int], Any],
        work: Callable[[int, Any, Any], Any],
        items: Sequence[Any],
        merge: Callable[[Any, Any], Any],
        sums: Callable[[Any], Sequence[Any]],
        finish: Callable[[int, Any], Any] | None = None,
    ) -> Any:
        """Reduce `items` over the workers in a fixed order."""
        ...


def _in_place(transform: Callable[..., Array], a: Array, **how: Any) -> None:
    """Replace `a` by its transform; SciPy works in place where it can, but does not promise it."""
    out = transform(a, overwrite_x=True, **how)
    if not np.may_share_memory(out, a):
        a[...] = out


class CupyBackend(Backend):
    """One CUDA device through CuPy, on a stream of its own."""

    def __init__(self, device_id: int, kernels: str = "auto") -> None:
        self.runs_cuda = kernels != "reference"
        self.fuses = kernels == "auto"
        self._cupy = _cupy()
        self.xp = self._cupy
        self.device_id = device_id
        self.name = f"cuda:{device_id}"
        with self._cupy.cuda.Device(device_id):
            self._stream = self._cupy.cuda.Stream(non_blocking=True)
        self._uploads: UploadRing | None = None
        self._modules: dict[tuple[str, tuple[str, ...]], Any] = {}

    def context(self) -> AbstractContextManager[Any]:
        return _DeviceContext(self._cupy.cuda.Device(self.device_id), self._stream)

    def asarray(self, a: Array, dtype: Any = None) -> Array:
        if isinstance(a, self._cupy.ndarray) and a.device.id != self.device_id:
            # Through the host: not every machine has peer access, and it is once per evaluation.
            a = a.get()
        # Constants are made outside of the context, and belong on this device and in its stream.
        with self.context():
            return self._cupy.asarray(a, dtype)

    def to_host(self, a: Array) -> np.ndarray:
        return self._cupy.asnumpy(a)

    def fft2(self, a: Array, overwrite: bool = False, band: Band | None = None) -> Array:
        return self._fft.fft2(a, axes=(-2, -1), overwrite_x=overwrite)

    def ifft2(self, a: Array, overwrite: bool = False) -> Array:
        return self._fft.ifft2(a, axes=(-2, -1), overwrite_x=overwrite)

    def fft2_adjoint(self, a: Array, overwrite: bool = False, band: Band | None = None) -> Array:
        return self._fft.ifft2(a, axes=(-2, -1), overwrite_x=overwrite, norm="forward")

    def rfft2(self, a: Array, shape: tuple[int, int]) -> Array:
        return self._fft.rfft2(a, s=shape, axes=(-2, -1))

    @property
    def _fft(self) -> Any:
        import cupyx.scipy.fft

        return cupyx.scipy.fft

    def free_bytes(self) -> int:
        with self._cupy.cuda.Device(self.device_id):
            free, _total = self._cupy.cuda.runtime.memGetInfo()
            return int(free) + self._cupy.get_default_memory_pool().free_bytes()

    def total_bytes(self) -> int:
        with self._cupy.cuda.Device(self.device_id):
            return int(self._cupy.cuda.runtime.memGetInfo()[1])

    def ran_out_of_memory(self, error: BaseException) -> bool:
        # cuFFT's work area and memory outside of the pool fail with errors of their own.
        signs = ("ALLOC_FAILED", "cudaErrorMemoryAllocation")
        return isinstance(error, MemoryError) or any(sign in str(error) for sign in signs)

    def release_memory(self) -> None:
        with self._cupy.cuda.Device(self.device_id):
            self._stream.synchronize()
            self._cupy.fft.config.get_plan_cache().clear()
            self._cupy.get_default_memory_pool().free_all_blocks()

    def begin_upload(self, a: np.ndarray, unpack: Unpack) -> Upload:
        with self._cupy.cuda.Device(self.device_id):
            if self._uploads is None:
                self._uploads = UploadRing(self._cupy, self._stream)
            return self._uploads.begin(a, unpack)

    def end_upload(self, sent: Upload) -> Array:
        assert self._uploads is not None
        return self._uploads.end(sent)

    def synchronize(self) -> None:
        self._stream.synchronize()

    def raw_module(self, source: str, options: tuple[str, ...] = ("--std=c++17",)) -> Any:
        if (source, options) not in self._modules:
            module = self._cupy.RawModule(code=source, options=options)
            self._modules[source, options] = module
        return self._modules[source, options]

    @property
    def group_id(self) -> str | None:
        device = self._cupy.cuda.Device(self.device_id)
        return device.pci_bus_id if self._cupy.cuda.nccl.available else None

    def group_key(self) -> Any:
        return self._cupy.cuda.nccl.get_unique_id()

    def group(self, key: Any, rank: int, size: int) -> DeviceGroup:
        nccl = self._cupy.cuda.nccl
        return DeviceGroup(nccl, nccl.NcclCommunicator(size, key, rank), self._stream)


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


def _window_transforms() -> Any:
    from pyptyx.vector_fft.windows import WindowTransforms

    return WindowTransforms()


def _usable(package: str) -> bool:
    """Whether an optional package is there and can be imported with the NumPy that is there."""
    if not _installed(package):
        return False
    try:
        importlib.import_module(package)
    except Exception as error:  # whatever is wrong with it, there is a way without
        logger.warning("%s is installed but cannot be used: %s", package, error)
        return False
    return True


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
    devices: int | str | list[int] = "auto", prefer: str = "gpu", kernels: str = "auto"
) -> list[Backend]:
    """One backend per worker.

    Parameters
    ----------
    devices : int, "auto" or list of int
        With CUDA devices: how many, all, or which.  On a CPU: the number of worker threads,
        "auto" meaning one per core available to this process.
    prefer : {"gpu", "cpu"}
        ``"cpu"`` uses NumPy even where a GPU is present.
    kernels : {"auto", "segments", "reference"}
        The fastest there is (on a CPU by numba, if it is installed); only kernels between
        transforms; or plain array code.

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
        return [CupyBackend(d, kernels) for d in devices]
    if n_cuda:
        count = n_cuda if devices == "auto" else min(int(devices), n_cuda)
        return [CupyBackend(d, kernels) for d in range(count)]
    count = available_cores() if devices == "auto" else int(devices)
    return [Backend(kernels) for _ in range(count)]
