"""Sums of the object's gradient in 64-bit integers, which no order of additions changes.

A contribution c becomes the integer nearest to ``c · quanta``; quanta is a power of two, so the
product is exact.  It is chosen by trial so that the largest sum of a batch is about 2³⁴: that
leaves a factor of 2¹² for larger contributions and 2¹⁶ for their number, and resolves 10⁻¹⁰ of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from pyptyx.backend import Backend
from pyptyx.errors import NumericalError
from pyptyx.physics.kernels.cuda.launches import decoding
from pyptyx.physics.kernels.cuda.program import Program
from pyptyx.physics.kernels.cuda.source import task_record
from pyptyx.physics.kernels.cuda.workspace import address

Array = Any

_TARGET, _LEAST, _MOST = 34, 20, 44
"""Binary logarithms of the largest sum: wished for, and the range in which quanta is kept."""

_STEP, _TRIALS = 24, 12
"""Exponent by which a trial without a usable answer moves quanta, and how many are made."""


class FixedPoint:
    """Words of the object's gradient on one device.

    Parameters
    ----------
    program : Program
    shape : tuple of int
        The object, (slices, rows, columns).
    backend : Backend

    Attributes
    ----------
    quanta : float or None
        Integers per unit; None until it has been chosen.
    """

    def __init__(self, program: Program, shape: tuple[int, int, int], backend: Backend) -> None:
        self.shape = shape
        self.quanta: float | None = None
        self._program = program
        self._backend = backend
        self._words = backend.xp.zeros((*shape, 2), np.int64)
        self._overflow = backend.xp.zeros(1, np.int64)
        self._largest = backend.xp.zeros(1, np.uint64)

    def fields(self) -> dict[str, Any]:
        """What the kernels have to know."""
        return {
            "object_words": address(self._words),
            "overflow": address(self._overflow),
            "largest": address(self._largest),
            "quanta": self.quanta,
            "object_rows": self.shape[1],
            "object_columns": self.shape[2],
        }

    def choose(self, trial: Callable[[], None]) -> None:
        """Choose `quanta`; ``trial()`` adds the gradient of a batch with the quanta of the time.

        Waits for the device.
        """
        exponent = 0
        for _ in range(_TRIALS):
            self.quanta = 2.0**exponent
            trial()
            overflow, largest = self._decode(None)
            if not overflow and largest >= 2**_LEAST:
                exponent += _TARGET - round(math.log2(largest))
                break
            exponent += -_STEP if overflow else _STEP
        self.quanta = 2.0**exponent

    def collect(self, target: Array) -> None:
        """Add the sums to `target`, an object's gradient, and clear them; waits for the device.

        Raises
        ------
        NumericalError
            If a contribution left the range; `quanta` is chosen anew then.
        """
        overflow, largest = self._decode(target)
        if overflow or not 2**_LEAST <= largest <= 2**_MOST:
            self.quanta = None
        if overflow:
            raise NumericalError(
                "the gradient of the object left the range of its fixed point: it is not finite, "
                "or thousands of times larger than in the first batch. Evaluate again"
            )

    def clear(self) -> None:
        """Forget the sums."""
        for a in (self._words, self._overflow, self._largest):
            a[...] = 0

    def _decode(self, target: Array | None) -> tuple[bool, int]:
        """Whether a contribution was too large, and the largest sum; everything is cleared."""
        fields = self.fields()
        if target is not None:
            fields["object_gradient"] = address(target)
        task = self._backend.asarray(task_record(**fields).reshape(1).view(np.uint8))
        self._program.launch([decoding(self.shape)], task)
        overflow = bool(self._backend.to_host(self._overflow)[0])
        largest = int(self._backend.to_host(self._largest)[0])
        self._overflow[...] = 0
        self._largest[...] = 0
        return overflow, largest
