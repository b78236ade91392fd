"""What every reader is asked and what it answers: the patterns, and what the file says of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pyptyx.data.base import AS_STORED, Orientation, PatternSource, Stored
from pyptyx.errors import DataError, Problem

IO_EXTRA = 'Install it with: pip install "pyptyx[io]"'
"""Remedy where a package of the optional extra is missing."""


@dataclass(frozen=True)
class Request:
    """A file to open.

    Attributes
    ----------
    path : Path
        The file.
    key : str or None
        Data set or member inside it.
    scan_size : (Ny, Nx) or None
        Rows and columns of the scan, if the user gave them.
    orientation : Orientation
        How patterns are turned on reading.
    """

    path: Path
    key: str | None = None
    scan_size: Sequence[int] | None = None
    orientation: Orientation = AS_STORED


@dataclass(frozen=True)
class Found:
    """One thing a file says about the experiment.

    Attributes
    ----------
    key : str
        Key of the experiment, or a plain name for what no key takes.
    value : object
        Number, pair or text, in `unit`.
    unit : str
        Unit of `value`; empty for counts and text.
    where : str
        Where it was found: file, and path or attribute in it.
    """

    key: str
    value: Any
    unit: str
    where: str


@dataclass(frozen=True)
class Opened:
    """An opened file.

    Attributes
    ----------
    source : PatternSource
        The patterns.
    format : str
        Name of the format.
    found : tuple of Found
        What the file says; the first of a key counts.
    key : str or None
        Data set that was opened.
    chunks : tuple of int or None
        Storage chunks.
    compression : str
        Names of the storage filters, empty if none.
    notes : tuple of str
        What the user should know about this file.
    files : tuple of Path
        The files with the patterns; empty for the one that was named.
    """

    source: PatternSource
    format: str
    found: tuple[Found, ...] = ()
    key: str | None = None
    chunks: tuple[int, ...] | None = None
    compression: str = ""
    notes: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()


class RunSource(PatternSource):
    """Patterns that a function hands out in runs of consecutive numbers.

    Parameters
    ----------
    name : str
        Name for messages.
    stored : Stored
        Division of the stored axes.
    orientation : Orientation
    fetch : callable
        ``fetch(start, stop)`` gives patterns ``[start, stop)`` as ``(B, ky, kx)``.
    granule : int
        Number of consecutive patterns best read together.
    release : callable
        Called once by `close`.
    """

    def __init__(
        self,
        name: str,
        stored: Stored,
        orientation: Orientation,
        fetch: Callable[[int, int], np.ndarray],
        *,
        granule: int = 1,
        release: Callable[[], Any] = lambda: None,
    ):
        super().__init__(name, stored, orientation)
        self._fetch: Callable[[int, int], np.ndarray] | None = fetch
        self._run = granule
        self._release = release
        self._lock = threading.Lock()

    def _read(self, indices: np.ndarray) -> np.ndarray:
        out = np.empty((len(indices), *self._stored.pattern_shape), dtype=self.dtype)
        wanted, place = np.unique(indices, return_inverse=True)
        with self._lock:
            if self._fetch is None:
                raise self._closed()
            for run in np.split(np.arange(len(wanted)), np.flatnonzero(np.diff(wanted) > 1) + 1):
                if len(run):
                    first, last = int(run[0]), int(run[-1])
                    patterns = self._fetch(int(wanted[first]), int(wanted[last]) + 1)
                    members = np.flatnonzero((place >= first) & (place <= last))
                    out[members] = patterns[place[members] - first]
        return out

    @property
    def _granule(self) -> int:
        return self._run

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            if self._fetch is not None:
                self._fetch = None
                self._release()


def first_of_each(found: Iterable[Found]) -> tuple[Found, ...]:
    """The first entry of every key, in order."""
    kept: dict[str, Found] = {}
    for entry in found:
        kept.setdefault(entry.key, entry)
    return tuple(kept.values())


def at(tree: Any, dotted: str) -> Any:
    """Value at a dotted path of nested mappings, or None."""
    for name in dotted.split("."):
        tree = tree.get(name) if isinstance(tree, Mapping) else None
    return tree


def number(value: Any) -> float | None:
    """A finite number, also from text or an array of one element; None for anything else."""
    if isinstance(value, bool | np.bool_) or value is None:
        return None
    try:
        result = float(np.asarray(value).reshape(()) if np.size(value) == 1 else value)
    except (TypeError, ValueError):
        return None
    return result if np.isfinite(result) else None


def positive(value: Any, factor: float = 1.0) -> float | None:
    """A positive finite number times `factor`, or None."""
    result = number(value)
    return result * factor if result is not None and result > 0 else None


def entries(
    rows: Iterable[tuple[str, float | None, str, str]],
) -> Iterator[Found]:
    """Rows ``(key, value, unit, where)`` that have a value."""
    return (Found(*row) for row in rows if row[1] is not None)


def refusal(path: Path, got: str, remedy: str, expected: str = "diffraction patterns") -> DataError:
    """The error for a file that is not what it should be."""
    return DataError(Problem(str(path), expected, got, remedy))
