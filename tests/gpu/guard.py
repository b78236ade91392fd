"""A fake device: arrays that live on the CPU but refuse to meet host arrays.

`GuardArray` allows NumPy functions between guard arrays and scalars only; meeting a plain array,
or being turned into one without `GuardBackend.to_host`, raises.  Running the engine on
`GuardBackend` shows that the device code never mixes host and device, which CuPy would refuse as
well.
"""

import types

import numpy as np
import scipy.fft

from pyptyx.backend import Backend


class HostDeviceMix(TypeError):
    """A host array met a device array."""


class GuardArray(np.ndarray):
    """An array that pretends to lie on a device."""

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **kwargs):
        """Compute on the plain arrays, after checking where all operands lie."""
        _check((*inputs, *(out or ())), ufunc.__name__)
        plain = [_plain(a) for a in inputs]
        if out is not None:
            kwargs["out"] = tuple(_plain(a) for a in out)
        if "where" in kwargs:
            kwargs["where"] = _plain(kwargs["where"])
        result = getattr(ufunc, method)(*plain, **kwargs)
        if out is not None and method != "reduce":
            return out[0]
        return _guard(result)

    def __array_function__(self, func, types, args, kwargs):
        """Compute on the plain arrays, after checking where all operands lie."""
        _check((*args, *kwargs.values()), func.__name__)
        result = func(*_plain(args), **_plain(kwargs))
        out = kwargs.get("out")
        return out if out is not None else _guard(result)

    def __float__(self):
        return float(self.view(np.ndarray))

    def __setitem__(self, key, value):
        _check((value,), "assignment")
        super().__setitem__(_plain(key), _plain(value))

    def __getitem__(self, key):
        _check_index(key)
        return _guard(self.view(np.ndarray)[_plain(key)])


def _plain(a):
    if isinstance(a, GuardArray):
        return a.view(np.ndarray)
    if isinstance(a, tuple | list):
        return type(a)(_plain(x) for x in a)
    if isinstance(a, dict):
        return {k: _plain(v) for k, v in a.items()}
    return a


def _guard(a):
    if isinstance(a, np.ndarray):
        return a.view(GuardArray)
    if isinstance(a, np.generic) and not isinstance(a, np.bool_):
        # CuPy returns 0-d device arrays from reductions.
        return np.asarray(a).view(GuardArray)
    if isinstance(a, tuple):  # named tuples of numpy.linalg become plain ones
        return tuple(_guard(x) for x in a)
    if isinstance(a, list):
        return [_guard(x) for x in a]
    return a


def _check(operands, name):
    for a in operands:
        if isinstance(a, tuple | list):
            _check(a, name)
        elif isinstance(a, np.ndarray) and not isinstance(a, GuardArray) and a.ndim > 0:
            raise HostDeviceMix(f"{name}: a host array of shape {a.shape} met a device array")


def _check_index(key):
    for part in key if isinstance(key, tuple) else (key,):
        if isinstance(part, np.ndarray) and not isinstance(part, GuardArray):
            raise HostDeviceMix(f"indexing a device array with a host array of shape {part.shape}")


class GuardNamespace:
    """NumPy as the namespace of the device: what its functions make lies there."""

    def __init__(self, module=np):
        self._module = module

    def __getattr__(self, name):
        """The function `name`, refusing host arrays."""
        value = getattr(self._module, name)
        if isinstance(value, types.ModuleType):
            return GuardNamespace(value)
        if isinstance(value, type) or not callable(value):
            return value

        def function(*args, **kwargs):
            _check((*args, *kwargs.values()), name)
            result = value(*args, **kwargs)
            return result if kwargs.get("out") is not None else _guard(result)

        return function


class GuardBackend(Backend):
    """A device whose arrays are `GuardArray`."""

    name = "guard:0"

    def __init__(self):
        super().__init__()
        self.xp = GuardNamespace()

    def asarray(self, a, dtype=None):
        """Send to the device."""
        return np.array(_plain(a), dtype).view(GuardArray)

    def to_host(self, a):
        """Fetch from the device; arrays of the host pass, as with CuPy."""
        return a.view(np.ndarray).copy() if isinstance(a, GuardArray) else a

    def fft2(self, a, overwrite=False, band=None):
        """Forward DFT of a device array."""
        return self._transform(scipy.fft.fft2, a)

    def ifft2(self, a, overwrite=False):
        """Inverse DFT of a device array."""
        return self._transform(scipy.fft.ifft2, a)

    def fft2_adjoint(self, a, overwrite=False, band=None):
        """Adjoint of the forward DFT of a device array."""
        return self._transform(scipy.fft.ifft2, a, norm="forward")

    def rfft2(self, a, shape):
        """Forward DFT of real device arrays."""
        return self._transform(scipy.fft.rfft2, a, s=shape)

    @staticmethod
    def _transform(transform, a, **kwargs):
        if not isinstance(a, GuardArray):
            raise HostDeviceMix("FFT of a host array on the device")
        return transform(a.view(np.ndarray), axes=(-2, -1), **kwargs).view(GuardArray)
