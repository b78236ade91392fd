"""A displacement field applied to a whole 4D data set, in batches, from and to files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from pyptyx.data import PatternSource, open_source
from pyptyx.errors import ParamError, Problem
from pyptyx.files import replacing
from pyptyx.methods.images import Field, turn, warp

PathLike = str | os.PathLike[str]


def unwarp_patterns(
    data: np.ndarray | PathLike,
    field: Field | None,
    *,
    output: PathLike | None = None,
    batch_size: int = 20,
    order: int = 5,
    angle_deg: float = 0.0,
    return_data: bool = False,
) -> np.ndarray | None:
    """Resample every pattern of a data set; negative values of the spline become 0.

    Parameters
    ----------
    data : ndarray or path
        [N, ky, kx] or [sy, sx, ky, kx]; not modified.
    field : tuple of ndarray (ky, kx), optional
        Displacements along rows and columns in px.
    output : path, optional
        ``.npy`` file to write.
    batch_size : int
        Patterns at a time.
    order : int
        Order of the spline, 0 to 5.
    angle_deg : float
        Rotation after that, counter-clockwise on screen.
    return_data : bool
        Whether to return the result.

    Returns
    -------
    ndarray or None
        Floating; [sy, sx, ky, kx] if the scan size is known, else [N, ky, kx].

    Raises
    ------
    ParamError
        If the result is neither written nor returned, or the batch is empty.
    """
    problems = []
    if output is None and not return_data:
        remedy = "Name a file, or set return_data=True."
        problems.append(Problem("path_numpy_new", "a file to write", "none", remedy))
    if batch_size < 1:
        problems.append(Problem("batch_size", "a positive number", str(batch_size)))
    if problems:
        raise ParamError(problems)
    with open_source(data) as source:
        leading = source.scan_size or source.shape[:1]
        shape = (*leading, *source.shape[1:])
        dtype = np.result_type(source.dtype, np.float32)
        with _array(output, shape, dtype) as out:
            flat = out.reshape(source.shape)
            for start in range(0, len(source), batch_size):
                flat[start : start + batch_size] = _unwarped(
                    source, slice(start, start + batch_size), field, order, angle_deg
                )
            result = np.array(out) if return_data else None
    return result


def _unwarped(
    source: PatternSource, where: slice, field: Field | None, order: int, angle_deg: float
) -> np.ndarray:
    patterns = source.read(where).astype(np.result_type(source.dtype, np.float32))
    if field is not None:
        patterns = warp(patterns, field, order)
    return np.maximum(turn(patterns, angle_deg, order), 0)


@contextmanager
def _array(
    output: PathLike | None, shape: tuple[int, ...], dtype: np.dtype
) -> Iterator[np.ndarray]:
    """An array in memory, or in a file that appears when it is complete."""
    if output is None:
        yield np.empty(shape, dtype)
        return
    target = Path(output)
    if target.suffix != ".npy":
        raise ParamError(Problem("path_numpy_new", "a name ending in .npy", str(target)))
    with replacing(target) as temporary:
        mapped = np.lib.format.open_memmap(temporary, mode="w+", dtype=dtype, shape=shape)
        yield mapped
        mapped.flush()
