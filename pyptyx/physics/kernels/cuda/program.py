"""Compiled kernels on one device, and the replay of their launches as CUDA graphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pyptyx.backend import Backend
from pyptyx.physics.kernels.cuda.launches import KERNELS, Launch
from pyptyx.physics.kernels.cuda.layout import Layout
from pyptyx.physics.kernels.cuda.source import cuda_source

Array = Any

OPTIONS = ("--std=c++17",)
"""Options of the compiler."""


class Program:
    """The kernels of one layout.

    Parameters
    ----------
    layout : Layout
    backend : Backend
        A CUDA device; the source is compiled at once.
    """

    def __init__(self, layout: Layout, backend: Backend) -> None:
        module = backend.xp.RawModule(code=cuda_source(layout), options=OPTIONS)
        self._kernels = {name: module.get_function(name) for name in KERNELS}

    def launch(self, launches: Sequence[Launch], task: Array) -> None:
        """Enqueue `launches` on the current stream; `task` is a record on the device."""
        for launch in launches:
            kernel = self._kernels[launch.kernel]
            kernel(launch.grid, (launch.threads, 1, 1), (task, np.int32(launch.number)))


class Replay:
    """The launches of batches of one shape.

    The first batch is launched kernel by kernel, which also loads the kernels; the second is
    captured, and from then on every batch is one launch of the graph.

    Parameters
    ----------
    program : Program
    launches : sequence of Launch
    task : array of bytes
        The record on the device; its address stays, its contents change from batch to batch.
    backend : Backend
    """

    def __init__(
        self, program: Program, launches: Sequence[Launch], task: Array, backend: Backend
    ) -> None:
        self._program = program
        self._launches = tuple(launches)
        self._cuda = backend.xp.cuda
        self._warm = False
        self._graph: Any = None
        self.task = task

    def run(self) -> None:
        """Enqueue the batch that the record describes."""
        stream = self._cuda.get_current_stream()
        if not self._warm:
            self._program.launch(self._launches, self.task)
            self._warm = True
            return
        if self._graph is None:
            stream.begin_capture()
            self._program.launch(self._launches, self.task)
            self._graph = stream.end_capture()
        self._graph.launch(stream)
