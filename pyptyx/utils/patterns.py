"""Patterns under PyPty's names: centred (zero frequency at ``n // 2``), never modified."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pyptyx.data import Preparation
from pyptyx.data.pixels import sum_bin
from pyptyx.engine.patterns import replicate


def preprocess_dataset(  # noqa: PLR0913 - PyPty's signature
    dataset: np.ndarray,
    load_one_by_one: bool,
    algorithm_type: str,
    recon_type: str,
    data_shift_vector: Sequence[int],
    data_bin: int,
    data_pad: int,
    upsample_pattern: int,
    data_multiplier: float,
    xp: Any = np,
    force_pad: bool = False,
) -> np.ndarray:
    """Shift, sum-bin, multiply and pad patterns as the engine does when it reads them.

    Parameters
    ----------
    dataset : array (N, ky, kx) or (N, Nmask)
        Centred; not modified.
    load_one_by_one : bool
        Then the patterns are returned as they are: the engine prepares them batch by batch.
    algorithm_type : str
        Compressed data are only multiplied.
    recon_type, force_pad
        Have no effect.
    data_shift_vector : sequence of int
        ``(y, x)`` px; what enters is zero.
    data_bin, data_pad, upsample_pattern : int
        ``data_pad // upsample_pattern`` zeros are added on each side.
    data_multiplier : float
    xp : module
        Namespace of the data.

    Returns
    -------
    array (N, Y, X) or (N, Nmask)
        Floating, centred.
    """
    if load_one_by_one:
        return dataset
    dtype = np.result_type(dataset.dtype, np.float32)
    if "compressed" in algorithm_type:
        return dataset * dtype.type(data_multiplier)
    pad = data_pad // upsample_pattern
    shift_y, shift_x = data_shift_vector
    prepare = Preparation(
        (int(shift_y), int(shift_x)), data_bin, data_multiplier, (pad, pad), dtype
    )
    return xp.fft.fftshift(prepare(dataset, xp), axes=(-2, -1))


def upsample_something(
    something: np.ndarray, upsample: int, scale: bool = True, xp: Any = np
) -> np.ndarray:
    """Split each pixel of ``(..., ky, kx)`` into ``upsample²`` equal ones.

    With `scale` they share the counts, otherwise each has the value of the pixel.
    """
    shared = replicate(xp.asarray(something), upsample)
    return shared if scale else shared * upsample**2


def upsample_something_3d(
    something: np.ndarray, upsample: int, scale: bool = True, xp: Any = np
) -> np.ndarray:
    """`upsample_something` of a stack ``(N, ky, kx)``."""
    return upsample_something(something, upsample, scale, xp)


def downsample_something_3d(something: np.ndarray, upsample: int, xp: Any = np) -> np.ndarray:
    """Sum blocks of ``upsample²`` pixels of ``(N, ky, kx)``, cutting what is left over."""
    rows, columns = (n - n % upsample for n in something.shape[-2:])
    whole = xp.asarray(something)[:, :rows, :columns]
    return sum_bin(whole, upsample, np.result_type(whole.dtype, np.float32))


def downsample_something(something: np.ndarray, upsample: int, xp: Any = np) -> np.ndarray:
    """`downsample_something_3d` of one image ``(ky, kx)``."""
    return downsample_something_3d(something[None], upsample, xp)[0]
