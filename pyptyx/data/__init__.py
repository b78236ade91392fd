"""Measured patterns: lazy sources, their preparation for the engine, and conversion of raw data."""

from pyptyx.data.convert import create_pypty_data
from pyptyx.data.prepare import (
    CountChecks,
    Preparation,
    check_counts,
    fits_in_memory,
)
from pyptyx.data.selection import Selection
from pyptyx.data.source import PatternSource, open_source
from pyptyx.data.stream import PatternFeed, ReadAhead, SignalFeed

__all__ = [
    "CountChecks",
    "PatternFeed",
    "PatternSource",
    "Preparation",
    "ReadAhead",
    "Selection",
    "SignalFeed",
    "check_counts",
    "create_pypty_data",
    "fits_in_memory",
    "open_source",
]
