"""Reading pickled parameters without running what they contain.

A pickle is a program that may call anything it can name.  Here it can name a short list: a few
builtins, NumPy scalar types, and the four names NumPy arrays are made of.  The latter are
stand-ins, because the real ``ndarray.__setstate__`` and ``dtype.__setstate__`` trust their input;
the stand-ins check shape, dtype and length before NumPy sees them.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np

from pyptyx.errors import DataError, Problem

_DTYPE_CODE = re.compile(r"[<>|=]?(?:[?bBhHiIlLqQefdgFDG]|[biufc]\d{1,2}|[SU]\d{1,6})")
_BYTE_ORDERS = ("<", ">", "|", "=")
_NDARRAY = object()  # stands for the class, which a pickle only hands back to `_reconstruct`


class _Dtype:
    """Stand-in for ``numpy.dtype``: numbers and fixed-length strings only."""

    def __init__(self, code: str, align: bool = False, copy: bool = False):
        if not isinstance(code, str) or not _DTYPE_CODE.fullmatch(code):
            raise pickle.UnpicklingError(f"dtype {code!r} is not allowed")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        """Take over the byte order; fields, sub-arrays and flags are refused or ignored."""
        _version, order, subarray, names, fields, *_ = state
        if order not in _BYTE_ORDERS or (subarray, names, fields) != (None, None, None):
            raise pickle.UnpicklingError("structured dtypes are not allowed")
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """Stand-in for ``numpy.ndarray`` while its state is being read."""

    value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        """Build the array, if shape, dtype and number of bytes agree."""
        _version, shape, dtype, is_fortran, raw = state
        if not isinstance(dtype, _Dtype) or not isinstance(raw, bytes):
            raise pickle.UnpicklingError("arrays of Python objects are not allowed")
        if not all(isinstance(n, int) and n >= 0 for n in shape):
            raise pickle.UnpicklingError("an array has a wrong shape")
        if math.prod(shape) * dtype.dtype.itemsize != len(raw):
            raise pickle.UnpicklingError("an array has a wrong number of bytes")
        flat = np.frombuffer(raw, dtype.dtype) if raw else np.empty(0, dtype.dtype)
        if is_fortran:
            self.value = flat.reshape(shape, order="F").copy(order="F")
        else:
            self.value = flat.reshape(shape).copy()


def _reconstruct(cls: Any, shape: Any, code: Any) -> _Array:
    if cls is not _NDARRAY:
        raise pickle.UnpicklingError("only numpy.ndarray is allowed")
    return _Array()


def _scalar(dtype: _Dtype, raw: bytes) -> Any:
    if not isinstance(dtype, _Dtype) or not isinstance(raw, bytes):
        raise pickle.UnpicklingError("scalars of Python objects are not allowed")
    if len(raw) != dtype.dtype.itemsize:
        raise pickle.UnpicklingError("a scalar has a wrong number of bytes")
    return np.frombuffer(raw, dtype.dtype)[0]


_SCALAR_TYPES = (
    *("bool", "bool_", "float16", "float32", "float64", "complex64", "complex128"),
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
)
_ALLOWED: dict[tuple[str, str], Any] = {
    **{("builtins", t.__name__): t for t in (complex, range, slice, set, bytearray)},
    **{("numpy", name): getattr(np, name) for name in _SCALAR_TYPES},
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Dtype,
}
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):
    _ALLOWED[_module, "_reconstruct"] = _reconstruct
    _ALLOWED[_module, "scalar"] = _scalar


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """The object behind a name of the list; anything else is refused."""
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed") from None

    def persistent_load(self, pid: Any) -> Any:
        """References to outside objects are refused."""
        raise pickle.UnpicklingError("persistent references are not allowed")


class _Unwrapper:
    """Replaces stand-ins by what they stand for; shared containers stay shared."""

    def __init__(self) -> None:
        self._done: dict[int, Any] = {}
        self._open: set[int] = set()

    def __call__(self, value: Any) -> Any:
        if isinstance(value, _Dtype):
            return value.dtype
        if isinstance(value, _Array):
            if value.value is None:
                raise pickle.UnpicklingError("an array without content")
            return value.value
        if isinstance(value, type) and issubclass(value, np.generic):
            return value
        if callable(value) or value is _NDARRAY:
            raise pickle.UnpicklingError("a name is not a value")
        if not isinstance(value, list | tuple | dict):
            return value
        if id(value) in self._open:
            raise pickle.UnpicklingError("a container holds itself")
        if id(value) not in self._done:
            self._open.add(id(value))
            self._done[id(value)] = self._rebuilt(value)
            self._open.discard(id(value))
        return self._done[id(value)]

    def _rebuilt(self, value: list[Any] | tuple[Any, ...] | dict[Any, Any]) -> Any:
        if isinstance(value, dict):
            return {key: self(item) for key, item in value.items()}
        return type(value)(self(item) for item in value)


def loads(data: bytes, name: str = "pickle") -> dict[str, Any]:
    """Parameters from the bytes of a pickle.

    Parameters
    ----------
    data : bytes
        Content of the file.
    name : str
        Name of the file, for messages.

    Returns
    -------
    dict
        Builtins, NumPy scalars, dtypes and arrays of numbers or text.

    Raises
    ------
    DataError
        If the pickle is damaged, names anything outside the list, or holds no dict of parameters.
    """
    remedy = "Save it again with pyptyx, as TOML or JSON, if you trust where it comes from"
    try:
        params = _Unwrapper()(_Unpickler(io.BytesIO(data)).load())
    except Exception as error:  # damaged pickles raise nearly anything
        got = f"one that is refused ({error})"
        expected = "a pickle of plain parameters"
        raise DataError(Problem(name, expected, got, remedy)) from error
    if not isinstance(params, dict) or not all(isinstance(key, str) for key in params):
        got = type(params).__name__
        raise DataError(Problem(name, "a pickled dict with strings as keys", got, remedy))
    return params


def load(path: Path) -> dict[str, Any]:
    """Parameters from a pickle file; see `loads`."""
    return loads(path.read_bytes(), str(path))
