"""Waves and objects in the order in which the kernels read them (see `pyptyx.vector_fft.vectors`).

Strips: (..., strips, ny, 2, width), blocks of columns.  Row blocks: (..., blocks, nx, 2, width),
blocks of rows.  Objects: (..., 2, X, Y + width), transposed, so that rows of a column lie side by
side.  The last strip or block may reach beyond the window; what is there is 0.
"""

from __future__ import annotations

import numpy as np

from pyptyx.vector_fft.vectors import block_order, vector_length
from pyptyx.vector_fft.windows import empty_aligned


def _filled(n: int, width: int) -> int:
    """Lines that whole blocks have."""
    return -(-n // width) * width


def to_strips(a: np.ndarray) -> np.ndarray:
    """Strips of complex windows (..., ny, nx)."""
    nx, width = a.shape[-1], vector_length(a.real.dtype)
    wide = np.zeros((*a.shape[:-1], _filled(nx, width)), a.dtype)
    wide[..., :nx] = a
    blocks = wide.reshape(*a.shape[:-1], -1, width)[..., block_order(width)]
    return _planes(np.moveaxis(blocks, -2, -3))


def from_strips(strips: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The inverse of `to_strips`."""
    return from_real_strips(_complex(strips), shape)


def real_strips(a: np.ndarray) -> np.ndarray:
    """Strips (strips, ny, width) of a real window (ny, nx)."""
    return to_strips(a + 0j)[..., 0, :].copy()


def from_real_strips(strips: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The inverse of `real_strips`."""
    width = strips.shape[-1]
    blocks = np.moveaxis(strips[..., np.argsort(block_order(width))], -3, -2)
    return blocks.reshape(*blocks.shape[:-2], -1)[..., : shape[1]]


def to_row_blocks(a: np.ndarray) -> np.ndarray:
    """Row blocks of complex windows (..., ny, nx)."""
    ny, nx = a.shape[-2:]
    width = vector_length(a.real.dtype)
    high = np.zeros((*a.shape[:-2], _filled(ny, width), nx), a.dtype)
    high[..., :ny, :] = a
    return _planes(np.swapaxes(high.reshape(*a.shape[:-2], -1, width, nx), -1, -2))


def from_row_blocks(blocks: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The inverse of `to_row_blocks`."""
    a = np.swapaxes(_complex(blocks), -1, -2)
    return a.reshape(*a.shape[:-3], -1, shape[1])[..., : shape[0], :]


def to_planes(obj: np.ndarray) -> np.ndarray:
    """Transposed real and imaginary parts of an object (..., Y, X)."""
    y, x = obj.shape[-2:]
    width = vector_length(obj.real.dtype)
    out = np.zeros((*obj.shape[:-2], 2, x, y + width), obj.real.dtype)
    turned = np.swapaxes(obj, -1, -2)
    out[..., 0, :, :y] = turned.real
    out[..., 1, :, :y] = turned.imag
    return out


def add_planes(planes: np.ndarray, target: np.ndarray) -> None:
    """Add what `to_planes` would have given into an object."""
    turned = np.swapaxes(planes[..., : target.shape[-2]], -1, -2)
    target.real += turned[..., 0, :, :]
    target.imag += turned[..., 1, :, :]


def _planes(a: np.ndarray) -> np.ndarray:
    """Real and imaginary parts one before the other, on an address that vectors like."""
    real = a.real.dtype
    out = empty_aligned((*a.shape[:-1], 2, a.shape[-1]), real)
    out[..., 0, :], out[..., 1, :] = a.real, a.imag
    return out


def _complex(planes: np.ndarray) -> np.ndarray:
    return planes[..., 0, :] + 1j * planes[..., 1, :]
