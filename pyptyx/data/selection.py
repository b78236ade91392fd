"""Some patterns of a source as a source of their own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pyptyx.data.base import PatternSource


class Selection(PatternSource):
    """Patterns of another source, under new numbers.

    Parameters
    ----------
    source : PatternSource
        Stays open when the selection is closed.
    numbers : ndarray of int, (B,)
        Which patterns, in the order of their new numbers.
    """

    def __init__(self, source: PatternSource, numbers: np.ndarray) -> None:
        stored = replace(source._stored, scan_shape=(len(numbers),), scan_size=None)
        super().__init__(source.name, stored, source._orientation)
        self._source = source
        self._numbers = np.asarray(numbers)

    def _read(self, indices: np.ndarray) -> np.ndarray:
        return self._source._read(self._numbers[indices])

    def close(self) -> None:
        """Do nothing: the source belongs to somebody else."""
