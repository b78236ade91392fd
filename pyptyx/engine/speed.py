"""A short measurement of how fast one worker transforms and passes over waves."""

from __future__ import annotations

import time
from collections.abc import Callable

from pyptyx.backend import Backend
from pyptyx.engine.cost import Speed, Workload

_PATIENCE_S = 0.05
_LARGEST_BYTES = 64 << 20

_CPU_PASS = 3.0
"""A pass of the model against a multiplication: roots, windows and sums cost a core more."""


def measure(backend: Backend, work: Workload) -> Speed:
    """Time transforms and multiplications of as many waves as a batch has, for a tenth of a second.

    Parameters
    ----------
    backend : Backend
        The worker, inside its context.
    work : Workload
        For the waves; of large batches a part is taken.
    """
    sizes, xp = work.sizes, backend.xp
    wanted = work.batch * sizes.modes
    count = max(1, min(wanted, _LARGEST_BYTES // sizes.wave_bytes))
    waves = xp.ones((count, *sizes.window), f"c{sizes.itemsize}")
    factor = xp.ones(sizes.window, waves.dtype)

    def transform() -> None:
        nonlocal waves
        waves = backend.fft2_adjoint(backend.fft2(waves, overwrite=True), overwrite=True)
        waves *= factor.dtype.type(1 / (sizes.window[0] * sizes.window[1]))

    def multiply() -> None:
        nonlocal waves
        waves *= factor

    once = _seconds(backend, multiply)
    both = _seconds(backend, transform)
    each = once / count * (1 if work.on_gpu else _CPU_PASS)
    return Speed(max(both - once, 0.1 * both) / (2 * count), each, True)


def _seconds(backend: Backend, function: Callable[[], None]) -> float:
    """Shortest time of a call, the first one left out."""
    function()
    backend.synchronize()
    times: list[float] = []
    begun = time.perf_counter()
    while not times or time.perf_counter() - begun < _PATIENCE_S:
        start = time.perf_counter()
        function()
        backend.synchronize()
        times.append(time.perf_counter() - start)
    return min(times)
