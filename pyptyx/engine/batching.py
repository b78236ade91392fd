"""How measurements are grouped into batches that fit caches and memory."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pyptyx.errors import DeviceError
from pyptyx.physics.wave_storage import waves_alive

WAVE_BYTES = 2 << 20
"""Waves of a CPU batch: few enough for the caches, many enough to share the cost of calls."""

WORKING_SET_BYTES = 16 << 20
"""Everything a CPU batch touches: about one core's part of the last-level cache."""


_BUSY_GPU = 32
"""Measurements of a batch below which kernels are too short for a GPU."""


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
    shift : bool
        Every measurement has a probe of its own.
    own_windows : bool
        Every measurement has windows of the object of its own (``object_band_limit="patch"``).
    wave_storage : {"store", "recompute", "half"}
    work_area : bool
        Transforms need as much again as they transform, as on a GPU.
    compiled : bool
        Kernels make no temporary arrays.
    """

    window: tuple[int, int]
    modes: int
    slices: int
    object_modes: int
    itemsize: int
    shift: bool = True
    own_windows: bool = False
    wave_storage: str = "store"
    work_area: bool = False
    compiled: bool = False

    @property
    def wave_bytes(self) -> int:
        """One wave of one mode pair."""
        return self.window[0] * self.window[1] * self.itemsize

    @property
    def data_bytes(self) -> int:
        """The data of one measurement."""
        return self.wave_bytes // 2

    @property
    def fused_bytes(self) -> int:
        """Waves of the one measurement in hand: in front of every slice, in strips, and tables."""
        return self.wave_bytes * (self.modes * (self.slices + 1) + 2)

    @property
    def pattern_bytes(self) -> int:
        """Memory one measurement takes while loss and gradient are evaluated."""
        probe_modes = self.modes // self.object_modes
        illumination = 2 * self.shift * probe_modes + probe_modes * (self.object_modes > 1)
        saved = waves_alive(self.wave_storage, self.slices) * self.modes
        converted = 2 * self.modes * (self.wave_storage == "half")
        copies = 5 if self.compiled else 3
        windows = copies * self.own_windows * self.object_modes * self.slices
        # The wave in hand, in plain array code also its squares; half a wave is the data.
        in_hand = (2 - self.compiled + self.work_area) * self.modes + 0.5
        waves = illumination + saved + converted + windows + in_hand
        return int(self.wave_bytes * waves)


def choose(sizes: Sizes, free_bytes: int, on_gpu: bool, limit: int | None = None) -> int:
    """Measurements per batch.

    On a CPU: as many as stay inside the caches, but at least two so that call overhead is shared;
    on a GPU: what the memory holds, at most 512.  Never less than one.

    Parameters
    ----------
    sizes : Sizes
    free_bytes : int
        Memory one worker may use for a batch.
    on_gpu : bool
    limit : int, optional
        Upper limit, for example the number of measurements.

    Raises
    ------
    DeviceError
        If not even one measurement fits.
    """
    fits = free_bytes // sizes.pattern_bytes
    if fits < 1:
        raise DeviceError(
            f"memory: expected {sizes.pattern_bytes / 2**20:.0f} MiB for one measurement, got "
            f"{free_bytes / 2**20:.0f} MiB that are left. Use wave_storage='recompute', fewer "
            "slices or modes, or default_dtype='single'; `pyptyx plan` shows what takes most"
        )
    in_cache = min(
        WAVE_BYTES // (sizes.wave_bytes * sizes.modes), WORKING_SET_BYTES // sizes.pattern_bytes
    )
    wanted = 512 if on_gpu else max(2, min(32, in_cache))
    return max(1, min(fits, wanted, limit or fits))


def choose_waves(sizes: Sizes, free_bytes: int, on_gpu: bool, limit: int) -> str:
    """How waves between slices are remembered where nobody says so.

    They are stored, which is fastest, unless that leaves a GPU with batches too small to keep it
    busy, or a CPU without room for two measurements; then they are computed again, which is exact.

    Parameters are those of `choose`.
    """
    wanted = min(_BUSY_GPU if on_gpu else 2, limit)
    stored = replace(sizes, wave_storage="store").pattern_bytes
    return "store" if free_bytes // stored >= wanted else "recompute"


def curve(corners: np.ndarray) -> np.ndarray:
    """Places of the windows along a Hilbert curve: neighbours on it are neighbours in the object.

    Parameters
    ----------
    corners : ndarray of int, (N, 2)

    Returns
    -------
    ndarray of int, (N,)
        Equal for equal corners.

    References
    ----------
    D. Hilbert, Math. Ann. 38 (1891) 459.
    """
    y, x = (corners - corners.min(axis=0)).T.astype(np.int64)
    place = np.zeros(len(corners), np.int64)
    bits = int(max(y.max(), x.max())).bit_length()
    for bit in reversed(range(bits)):
        right, lower = x >> bit & 1, y >> bit & 1
        place = (place << 2) + (3 * right ^ lower)
        # The curve inside a quadrant is the same one, turned so that the ends meet.
        flip = (lower == 0) & (right == 1)
        y, x = np.where(flip, ~y, y), np.where(flip, ~x, x)
        y, x = np.where(lower == 0, x, y), np.where(lower == 0, y, x)
    return place


def spread(sequence: np.ndarray, place: np.ndarray, n_workers: int) -> list[np.ndarray]:
    """Measurements of every worker: contiguous along a curve, equally many, ascending.

    Parameters
    ----------
    sequence : ndarray of int
        Measurements to share out, ascending.
    place : ndarray of int, (N,) or (1,)
        Where on the curve a measurement lies, from `curve`.
    n_workers : int
    """
    if n_workers > 1 and len(place) > 1:
        sequence = sequence[np.argsort(place[sequence], kind="stable")]
    return [np.sort(part) for part in np.array_split(sequence, n_workers)]


def distribute(
    sequence: np.ndarray, place: np.ndarray, size: int, n_workers: int
) -> list[np.ndarray]:
    """Batches of at most `size` measurements, equally many for every worker, worker by worker.

    Parameters are those of `spread`.  The last batch of a worker may be empty.
    """
    parts = spread(sequence, place, n_workers)
    count = max(1, -(-len(parts[0]) // size))
    batches = [np.array_split(part, count) for part in parts]
    return [batch for part in batches for batch in part]
