"""Fourier transforms under PyPty's names, over the first two axes unless told otherwise.

Forward transforms carry no factor and inverse ones ``1/N``; complex64 stays complex64.  ``xp`` is
the array namespace, NumPy or CuPy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.fft

__all__ = ["fft2", "fftshift", "ifft2", "ifft2_ishift", "ifftshift", "shift_fft2"]

Array = Any
Axes = tuple[int, int]


def _transforms(xp: Any, overwrite_x: bool) -> tuple[Any, dict[str, Any]]:
    """The module that transforms, and its settings: only SciPy can work in place."""
    return (scipy.fft, {"overwrite_x": overwrite_x}) if xp is np else (xp.fft, {})


def fftshift(array: Array, axes: Any = None, xp: Any = np) -> Array:
    """Move the zero frequency from index 0 to ``n // 2``, along all axes by default."""
    return xp.fft.fftshift(array, axes=axes)


def ifftshift(array: Array, axes: Any = None, xp: Any = np) -> Array:
    """Move the zero frequency from index ``n // 2`` to 0, along all axes by default."""
    return xp.fft.ifftshift(array, axes=axes)


def fft2(arr: Array, axes: Axes = (0, 1), overwrite_x: bool = False, xp: Any = np) -> Array:
    """Forward transform; `overwrite_x` allows the input to be destroyed."""
    module, settings = _transforms(xp, overwrite_x)
    return module.fft2(arr, axes=axes, **settings)


def ifft2(arr: Array, axes: Axes = (0, 1), overwrite_x: bool = False, xp: Any = np) -> Array:
    """Inverse transform; `overwrite_x` allows the input to be destroyed."""
    module, settings = _transforms(xp, overwrite_x)
    return module.ifft2(arr, axes=axes, **settings)


def shift_fft2(arr: Array, axes: Axes = (0, 1), overwrite_x: bool = False, xp: Any = np) -> Array:
    """Forward transform with the zero frequency at ``n // 2`` of the result."""
    return fftshift(fft2(arr, axes, overwrite_x, xp), axes, xp)


def ifft2_ishift(arr: Array, axes: Axes = (0, 1), overwrite_x: bool = False, xp: Any = np) -> Array:
    """Inverse transform of an array whose zero frequency is at ``n // 2``."""
    return ifft2(ifftshift(arr, axes, xp), axes, overwrite_x, xp)
