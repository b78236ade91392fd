"""What the pencil kernels are compiled for: window, stored columns, modes, loss, kind of data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pyptyx.physics.kernels.cuda.transforms import FEW_SLOTS, MAX_RADIX, Transform, plan

LOSSES = {"lsq_sqrt": "LSQ_SQRT", "ml": "ML", "lsq": "LSQ", "lsq_sqrt_2": "LSQ_SQRT_2"}
"""The losses of `loss.cu`."""

DATA_TYPES = {"uint8": "unsigned char", "uint16": "unsigned short", "float32": "float"}
"""How measured data may lie in memory, and its name in CUDA."""

CHUNK = 4
"""Patterns whose gradients of the probe one block sums in its registers."""

SUM_THREADS = 256
"""Threads of the blocks that only add."""

_TEAM_THREADS = 128
"""Threads of a block of pencils, about."""

_PITCH = 4
"""Rows in mixed space begin at multiples of it: 32 bytes, a sector of the memory."""


@dataclass(frozen=True)
class Layout:
    """Compile-time constants of the kernels.

    Attributes
    ----------
    shape : tuple of int
        Window ``(ny, nx)``.
    low, high : int
        Columns kx that waves in mixed space store: the first and the last ones of the nx.
    modes : int
        Probe modes.
    loss : str
        A key of `LOSSES`.
    data_type : str
        A key of `DATA_TYPES`.
    shift : bool
        Whether the probe enters through its spectrum and moves by fractions of a pixel.
    deterministic : bool
        Whether the object's gradient is summed in fixed point.
    crop : tuple of int
        Pixels of the window beyond each edge of a pattern, (y, x).
    background : bool
        Whether the same background is added to every pattern.
    light : bool
        Whether every pattern has a factor of its own on its intensity.
    tilt : bool
        Whether the specimen is tilted.
    """

    shape: tuple[int, int]
    low: int
    high: int
    modes: int
    loss: str
    data_type: str = "float32"
    shift: bool = True
    deterministic: bool = False
    crop: tuple[int, int] = (0, 0)
    background: bool = False
    light: bool = False
    tilt: bool = False

    @property
    def data_shape(self) -> tuple[int, int]:
        """Shape of a pattern ``(ky, kx)``."""
        (ny, nx), (cy, cx) = self.shape, self.crop
        return ny - 2 * cy, nx - 2 * cx

    @property
    def stored(self) -> int:
        """Stored columns."""
        return self.low + self.high

    @property
    def pitch(self) -> int:
        """Complex values from one row in mixed space to the next."""
        return -(-self.stored // _PITCH) * _PITCH

    @cached_property
    def along_y(self) -> Transform:
        """Plan of the columns."""
        return plan(self.shape[0])

    @cached_property
    def along_x(self) -> Transform:
        """Plan of the rows; with several modes three waves are in the registers, not two."""
        return plan(self.shape[1], MAX_RADIX if self.modes == 1 else FEW_SLOTS)

    @property
    def rows(self) -> int:
        """Rows of a block."""
        return min(max(1, _TEAM_THREADS // self.along_x.threads), self.shape[0])

    @property
    def columns(self) -> int:
        """Columns of a block: at least a sector, at most a full line of the memory."""
        return min(max(4, min(16, _TEAM_THREADS // self.along_y.threads)), self.pitch)

    @property
    def row_groups(self) -> int:
        """Blocks for the rows of a pattern."""
        return math.ceil(self.shape[0] / self.rows)

    @property
    def lit_groups(self) -> int:
        """Blocks for the stored columns of a pattern."""
        return math.ceil(self.stored / self.columns)

    @property
    def dark_groups(self) -> int:
        """Blocks for the columns of the data that no wave reaches."""
        return math.ceil((self.shape[1] - self.stored) / self.columns)

    @property
    def probe_width(self) -> int:
        """Columns of a gradient of the probe before it is summed over the chunks."""
        return self.stored if self.shift else self.shape[1]

    def stored_columns(self) -> np.ndarray:
        """Stored values of kx, (stored,) int64."""
        nx = self.shape[1]
        return np.concatenate([np.arange(self.low), np.arange(nx - self.high, nx)])


def lit_columns(mask: np.ndarray, prune: bool = True) -> tuple[int, int]:
    """How many columns at the low and at the high end hold something within the band limit.

    Parameters
    ----------
    mask : ndarray of bool, (ny, nx)
        Band limit, zero frequency in the corner.
    prune : bool
        False keeps every column.
    """
    nx = mask.shape[1]
    positive = (nx + 1) // 2
    lit = np.flatnonzero(mask.any(axis=0))
    low, high = lit[lit < positive], lit[lit >= positive]
    if not prune:
        return positive, nx - positive
    return int(low.max(initial=-1)) + 1, nx - int(high.min(initial=nx))


def reach(mask: np.ndarray, layout: Layout) -> np.ndarray:
    """Largest ``|ky|`` within the band limit of every stored column, -1 for none: (stored,) int32.

    The band limit is a disc, so this number says all about a column.
    """
    ny = mask.shape[0]
    k = np.minimum(np.arange(ny), ny - np.arange(ny))
    largest = np.where(mask, k[:, None], -1).max(axis=0)
    return largest[layout.stored_columns()].astype(np.int32)
