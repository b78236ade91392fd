"""How measurements are grouped into batches that fit caches and memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pyptyx.errors import DeviceError

WAVE_BYTES = 1 << 20
"""Waves of a CPU batch: about the second-level cache of one core."""

WORKING_SET_BYTES = 16 << 20
"""Everything a CPU batch touches: about one core's part of the last-level cache."""


@dataclass(frozen=True)
class Sizes:
    """Sizes that decide about a batch.

    Attributes
    ----------
    window : tuple of int
        ``(ny, nx)``.
    modes : int
        Probe modes times object modes.
    slices : int
    object_modes : int
    itemsize : int
        Bytes of one complex number.
    """

    window: tuple[int, int]
    modes: int
    slices: int
    object_modes: int
    itemsize: int

    @property
    def wave_bytes(self) -> int:
        """One wave of one mode pair."""
        return self.window[0] * self.window[1] * self.itemsize

    @property
    def pattern_bytes(self) -> int:
        """Memory one measurement takes while loss and gradient are evaluated."""
        saved_waves = self.modes * self.slices
        windows = 2 * self.object_modes * self.slices
        temporaries = 4 * self.modes + 3
        return self.wave_bytes * (saved_waves + windows + temporaries)


def choose(sizes: Sizes, free_bytes: int, on_gpu: bool, limit: int | None = None) -> int:
    """Measurements per batch.

    On a CPU: as many as stay inside the caches, but at least two so that call overhead is shared;
    on a GPU: what a quarter of the free memory holds, at most 512.  Never less than one.

    Parameters
    ----------
    sizes : Sizes
    free_bytes : int
        Memory available to one worker.
    on_gpu : bool
    limit : int, optional
        Upper limit, for example the number of measurements.

    Raises
    ------
    DeviceError
        If not even one measurement fits.
    """
    fits = int(free_bytes * (0.25 if on_gpu else 0.5)) // sizes.pattern_bytes
    if fits < 1:
        raise DeviceError(
            f"memory: expected {sizes.pattern_bytes / 2**20:.0f} MiB for one measurement, got "
            f"{free_bytes / 2**20:.0f} MiB that are free. Use fewer slices or modes, or "
            "default_dtype='single'"
        )
    in_cache = min(
        WAVE_BYTES // (sizes.wave_bytes * sizes.modes), WORKING_SET_BYTES // sizes.pattern_bytes
    )
    wanted = 512 if on_gpu else max(2, min(32, in_cache))
    return max(1, min(fits, wanted, limit or fits))


def split(sequence: np.ndarray, size: int, n_workers: int = 1) -> list[np.ndarray]:
    """Batches of at most `size` consecutive entries, if possible a multiple of `n_workers`."""
    count = max(1, -(-len(sequence) // size))
    if len(sequence) >= n_workers:
        count = -(-count // n_workers) * n_workers
    return [np.asarray(b) for b in np.array_split(sequence, min(count, max(1, len(sequence))))]
