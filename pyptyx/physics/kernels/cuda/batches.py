"""Batches of one layout: constants, memory, and the record that is sent before every batch."""

from __future__ import annotations

from typing import Any

import numpy as np

from pyptyx.backend import Backend
from pyptyx.physics.grid import Grid
from pyptyx.physics.kernels.cuda.launches import OF_WAVES, Schedule
from pyptyx.physics.kernels.cuda.layout import Layout, reach
from pyptyx.physics.kernels.cuda.program import Program, Replay
from pyptyx.physics.kernels.cuda.source import TASK_TYPE, task_record
from pyptyx.physics.kernels.cuda.workspace import Workspace, address

Array = Any


def separable_propagator(
    grid: Grid, distances_A: tuple[float, ...], columns: np.ndarray, tilt: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Factors of ``exp(-iπ d (λ q² + 2 q·τ))/N`` along y, (gaps, ny), and x, (gaps, stored).

    For slopes τ (y, x) of the specimen; complex64.
    """
    phase = -1j * np.pi * np.reshape(distances_A, (-1, 1))

    def factor(q: np.ndarray, slope: float) -> np.ndarray:
        return np.exp(phase * (grid.wavelength_A * q**2 + 2 * slope * q))

    p_y, p_x = factor(grid.q_y, tilt[0]), factor(grid.q_x[columns], tilt[1]) / grid.size
    return p_y.astype(np.complex64), p_x.astype(np.complex64)


class BatchRunner:
    """Runs batches of any size for one layout.

    Parameters
    ----------
    layout : Layout
    grid : Grid
    distances_A : tuple of float
        The gaps between slices.
    backend : Backend
        A CUDA device.
    """

    def __init__(
        self, layout: Layout, grid: Grid, distances_A: tuple[float, ...], backend: Backend
    ) -> None:
        self.program = Program(layout, backend)
        self._layout = layout
        self._backend = backend
        self._slices = len(distances_A) + 1
        self._workspace = Workspace(layout, self._slices, backend)
        self._replays: dict[tuple[int, frozenset[str]], Replay] = {}
        self._records: dict[tuple[int, frozenset[str]], np.ndarray] = {}
        self._grid = grid
        self._distances_A = distances_A
        self._tilt = 0.0, 0.0
        p_y, p_x = self._propagators()
        self._constants = {
            "reach": backend.asarray(reach(grid.mask, layout)),
            "propagator_y": p_y,
            "propagator_x": p_x,
        }

    def turn(self, tilt: tuple[float, float]) -> None:
        """Tilt the specimen by slopes (y, x) from the next batch on."""
        if tilt != self._tilt:
            self._tilt = tilt
            for name, a in zip("yx", self._propagators(), strict=True):
                self._constants[f"propagator_{name}"][...] = a

    def _propagators(self) -> list[Array]:
        columns = self._layout.stored_columns()
        factors = separable_propagator(self._grid, self._distances_A, columns, self._tilt)
        return [self._backend.asarray(factor) for factor in factors]

    def run(
        self,
        wanted: frozenset[str],
        fields: dict[str, Any],
        corners: np.ndarray,
        shifts: np.ndarray | None,
        light: np.ndarray | None,
    ) -> None:
        """Enqueue one batch.

        Parameters
        ----------
        wanted : frozenset of str
            The gradients.
        fields : dict
            Fields of the record beside those of the constants, the workspace and the tables.
        corners : ndarray of int, (B, 2)
        shifts : ndarray, (B, 2), or None
            Fractions of a pixel.
        light : ndarray, (B,), or None
            Factors on the intensity.
        """
        batch = len(corners)
        if self._workspace.reserve(batch):
            self._records.clear()
        replay = self._replay(batch, wanted)
        record = self._record(batch, wanted, replay)
        for name, value in fields.items():
            record[name] = value
        moved = np.zeros((batch, 2)) if shifts is None else np.ascontiguousarray(shifts, np.float64)
        factors = np.ones(batch) if light is None else np.ascontiguousarray(light, np.float64)
        message = (record.reshape(1), moved, factors, np.ascontiguousarray(corners, np.int32))
        host = np.concatenate([part.reshape(-1).view(np.uint8) for part in message])
        replay.task[...] = self._backend.asarray(host)
        replay.run()

    def _record(self, batch: int, wanted: frozenset[str], replay: Replay) -> np.ndarray:
        """The record with everything that stays from one batch to the next of the same shape."""
        key = batch, wanted
        if key not in self._records:
            tables = address(replay.task) + TASK_TYPE.itemsize
            self._records[key] = task_record(
                **{name: address(a) for name, a in self._constants.items() if a.size},
                **self._workspace.addresses(),
                batch=batch,
                wants_gradient=bool(wanted & OF_WAVES),
                shifts=tables,
                light=tables + 16 * batch,
                corners=tables + 24 * batch,
            )
        return self._records[key].copy()

    def _replay(self, batch: int, wanted: frozenset[str]) -> Replay:
        key = batch, wanted
        if key not in self._replays:
            launches = Schedule(self._layout, batch, self._slices).launches(wanted)
            # Three float64 and two int32 per pattern follow the record.
            task = self._backend.xp.empty(TASK_TYPE.itemsize + 32 * batch, np.uint8)
            self._replays[key] = Replay(self.program, launches, task, self._backend)
        return self._replays[key]
