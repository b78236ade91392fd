"""Sums over detector pixels and other work in chunks, shared among threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from typing import Any

import numpy as np

from pyptyx.backend import available_cores

Array = Any
Sums = Sequence[Array]


def chunks(count: int, size: int) -> list[slice]:
    """Slices of an even number of elements, near `size`, that cover ``range(count)``."""
    size = max(2, size - size % 2)
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def summed(
    work: Callable[[slice], Sums], pieces: Sequence[slice], workers: int | None = None
) -> list[Array]:
    """``Σ work(piece)``, array by array.

    Every thread takes every n-th piece, so that the order of summation, and with it the rounding,
    does not depend on who is faster.

    Parameters
    ----------
    work : callable
        From a slice to arrays whose shapes do not depend on it; must be safe to run in threads.
    pieces : sequence of slice
    workers : int, optional
        Number of threads; by default one per core.

    Returns
    -------
    list of ndarray
    """
    workers = max(1, min(workers or available_cores(), len(pieces)))

    def share(first: int) -> list[Array]:
        own = pieces[first::workers]
        total = [np.array(a) for a in work(own[0])]
        for piece in own[1:]:
            for t, part in zip(total, work(piece), strict=True):
                t += part
        return total

    if workers == 1:
        return share(0)
    with ThreadPoolExecutor(workers) as pool:
        shares = list(pool.map(share, range(workers)))
    return [reduce(np.add, parts) for parts in zip(*shares, strict=True)]


def mapped(
    work: Callable[[slice], Any], pieces: Sequence[slice], workers: int | None = None
) -> list[Any]:
    """``[work(piece) for piece in pieces]``, by threads; parameters as for `summed`."""
    with ThreadPoolExecutor(workers or available_cores()) as pool:
        return list(pool.map(work, pieces))
