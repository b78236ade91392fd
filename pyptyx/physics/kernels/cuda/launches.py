"""Which kernels make one batch, in which order and on which grids."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from pyptyx.physics.kernels.cuda.layout import CHUNK, SUM_THREADS, Layout


@dataclass(frozen=True)
class Launch:
    """One kernel on its grid.

    Attributes
    ----------
    kernel : str
        Its name.
    grid : tuple of int
        Blocks along x, y and z.
    threads : int
        Threads of a block.
    number : int
        The integer that the kernel takes: a slice, a gap, or nothing.
    """

    kernel: str
    grid: tuple[int, int, int]
    threads: int
    number: int = 0


KERNELS = (
    "enter", "transmit", "transmit_vjp", "enter_vjp",
    "propagate", "propagate_vjp", "propagate_tilted_vjp", "illuminate", "illuminate_vjp", "detect",
    "ramps", "sum_losses", "sum_slopes", "sum_shifts", "sum_tilts", "sum_probe", "sum_spectrum",
    "decode",
)  # fmt: skip
"""Names of all kernels."""


OF_WAVES = frozenset({"object", "probe", "positions", "tilts"})
"""Variables whose gradients follow from that of the waves."""


class Schedule:
    """The launches of batches of one size.

    Parameters
    ----------
    layout : Layout
    batch : int
        Patterns.
    slices : int
    """

    def __init__(self, layout: Layout, batch: int, slices: int) -> None:
        self._layout = layout
        self._batch = batch
        self._slices = slices
        self._row_threads = layout.rows * layout.along_x.threads
        self._column_threads = layout.columns * layout.along_y.threads

    def launches(self, wanted: frozenset[str]) -> list[Launch]:
        """All launches for the loss and the gradients of the variables `wanted`."""
        launches = list(self._forward())
        if "background" in wanted:
            launches.append(_one_per_thread("sum_slopes", math.prod(self._layout.data_shape)))
        if wanted & OF_WAVES:
            launches += self._backward(wanted)
        return launches

    def _forward(self) -> Iterator[Launch]:
        layout, batch = self._layout, self._batch
        if layout.shift:
            yield Launch("ramps", (batch, 1, 1), SUM_THREADS)
            yield self._along_columns("illuminate")
            yield self._along_rows("transmit")
        else:
            yield self._along_rows("enter")
        for z in range(1, self._slices):
            yield self._along_columns("propagate", z - 1)
            yield self._along_rows("transmit", z)
        groups = layout.lit_groups + layout.dark_groups
        yield Launch("detect", (groups, batch, 1), self._column_threads)
        yield _one_per_thread("sum_losses", batch)

    def _backward(self, wanted: frozenset[str]) -> Iterator[Launch]:
        layout, batch = self._layout, self._batch
        chunks = math.ceil(batch / CHUNK)
        back = "propagate_tilted_vjp" if "tilts" in wanted else "propagate_vjp"
        for z in range(self._slices - 1, 0, -1):
            yield Launch("transmit_vjp", (layout.row_groups, batch, 1), self._row_threads, z)
            yield self._along_columns(back, z - 1)
        if layout.shift:
            yield Launch("transmit_vjp", (layout.row_groups, batch, 1), self._row_threads)
            if wanted & {"probe", "positions"}:
                grid = (layout.lit_groups, chunks, layout.modes)
                yield Launch("illuminate_vjp", grid, self._column_threads)
        else:
            yield Launch("enter_vjp", (layout.row_groups, chunks, 1), self._row_threads)
        if "probe" in wanted:
            values = layout.modes * layout.shape[0] * layout.probe_width
            yield _one_per_thread("sum_spectrum" if layout.shift else "sum_probe", values)
        if "positions" in wanted and layout.shift:
            yield _one_per_thread("sum_shifts", batch)
        if "tilts" in wanted and self._slices > 1:
            gaps = self._slices - 1
            yield _one_per_thread("sum_tilts", gaps * batch, gaps)

    def _along_rows(self, kernel: str, z: int = 0) -> Launch:
        grid = (self._layout.row_groups, self._batch, self._layout.modes)
        return Launch(kernel, grid, self._row_threads, z)

    def _along_columns(self, kernel: str, z: int = 0) -> Launch:
        grid = (self._layout.lit_groups, self._batch, self._layout.modes)
        return Launch(kernel, grid, self._column_threads, z)


def decoding(shape: tuple[int, int, int]) -> Launch:
    """The launch of `decode` for an object (slices, rows, columns)."""
    return _one_per_thread("decode", 2 * math.prod(shape), shape[0])


def _one_per_thread(kernel: str, count: int, number: int = 0) -> Launch:
    return Launch(kernel, (math.ceil(count / SUM_THREADS), 1, 1), SUM_THREADS, number)
