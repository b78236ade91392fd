"""Patterns in HDF5 files: any data set path, any chunk layout, no more than is asked for."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import math
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np

from pyptyx.data.base import AS_STORED, Orientation, PatternSource, Stored, describe
from pyptyx.errors import DataError, Problem

DEFAULT_KEY = "data"
"""Data set at the root that is taken when no path is given."""

_BLOCK_BYTES = 64 << 20
_CACHE_BYTES = 32 << 20


class Hdf5Source(PatternSource):
    """Patterns of an HDF5 data set.

    Scattered patterns are read in blocks: neighbours along the fast scan axis go together, and so
    do all patterns that share storage chunks, so that no chunk is decompressed twice in one call.

    Parameters
    ----------
    file : h5py.File
        Open for reading; closed with the source.
    dataset : h5py.Dataset
        Data set of that file.
    stored : Stored
        Division of its axes.
    orientation : Orientation
    """

    def __init__(
        self, file: h5py.File, dataset: h5py.Dataset, stored: Stored, orientation: Orientation
    ):
        super().__init__(f"{file.filename}:{dataset.name}", stored, orientation)
        self._file = file
        self._dataset = dataset
        self._lock = threading.Lock()
        self._rows, self._columns = _two(stored.scan_shape)
        chunks = dataset.chunks or (1,) * dataset.ndim
        self._band, self._cell = _two(chunks[: len(stored.scan_shape)])

    def _read(self, indices: np.ndarray) -> np.ndarray:
        out = np.empty((len(indices), *self._stored.pattern_shape), dtype=self.dtype)
        row, column = np.divmod(indices, self._columns)
        with self._lock:
            if not self._file:
                raise self._closed()
            for members in self._blocks(row, column):
                self._read_block(out, members, row[members], column[members])
        return out

    def _blocks(self, row: np.ndarray, column: np.ndarray) -> Iterator[np.ndarray]:
        """Groups of places in the request whose bounding boxes share no chunk."""
        band, cell = row // self._band, column // self._cell
        order = np.lexsort((cell, band))
        band, cell = band[order], cell[order]
        cell_bytes = self._band * self._cell * self._stored.pattern_bytes
        piece = cell // max(1, _BLOCK_BYTES // cell_bytes)
        new = (np.diff(band) != 0) | (np.diff(cell) > 1) | (np.diff(piece) != 0)
        yield from np.split(order, np.flatnonzero(new) + 1)

    def _read_block(
        self, out: np.ndarray, members: np.ndarray, row: np.ndarray, column: np.ndarray
    ) -> None:
        if len(members) == 0:
            return
        top, left = row.min(), column.min()
        box: tuple[slice, ...] = (slice(left, column.max() + 1),)
        if len(self._stored.scan_shape) == 2:
            box = (slice(top, row.max() + 1), *box)
        try:
            block = self._dataset[box]
        except OSError as error:
            raise DataError(
                Problem(
                    self.name,
                    "readable patterns",
                    f"{error}",
                    "The file may be damaged, or its compression needs a plug-in "
                    "(import hdf5plugin first).",
                )
            ) from error
        width = int(column.max()) + 1 - left
        flat = block.reshape(-1, *self._stored.pattern_shape)
        out[members] = flat[(row - top) * width + (column - left)]

    @property
    def chunk_patterns(self) -> int:
        return self._cell if self._band == 1 else self._band * self._columns

    @property
    def _granule(self) -> int:
        return self._cell if self._rows == 1 else self._band * self._columns

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()


def _two(shape: Sequence[int]) -> tuple[int, int]:
    """Scan axes as (rows, columns); a flat scan is one row."""
    return (1, shape[0]) if len(shape) == 1 else (shape[0], shape[1])


def open_h5(path: Path) -> h5py.File:
    """An HDF5 file, open for reading.

    Raises
    ------
    DataError
        If the file is not HDF5 or damaged.
    """
    try:
        return h5py.File(path, "r", rdcc_nbytes=_CACHE_BYTES)
    except OSError as error:
        remedy = "Copy or write the file again; MATLAB files must be saved with -v7.3"
        fault = hdf5_fault(path, error)
        raise DataError(Problem(str(path), "a complete HDF5 file", fault, remedy)) from error


def stored_dataset(
    dataset: h5py.Dataset,
    scan_size: Sequence[int] | None = None,
    orientation: Orientation = AS_STORED,
) -> Stored:
    """How a data set divides into scan and detector.

    Parameters
    ----------
    dataset : h5py.Dataset
        The patterns.
    scan_size : (Ny, Nx), optional
        Rows and columns of the scan.  Without it, an attribute ``scan_size`` of a data set
        [N, ky, kx] is taken if it fits.
    orientation : Orientation

    Raises
    ------
    DataError
        If it is not a stack of patterns.
    """
    if scan_size is None:
        scan_size = _noted_scan_size(dataset)
    name = f"{dataset.file.filename}:{dataset.name}"
    return describe(name, dataset.shape or (), dataset.dtype, scan_size, orientation)


def check_filters(dataset: h5py.Dataset) -> str:
    """Names of the storage filters of a data set, empty if there are none.

    Raises
    ------
    DataError
        If a filter is missing here; the plug-ins of ``hdf5plugin`` are loaded first.
    """
    creation = dataset.id.get_create_plist()
    filters = [creation.get_filter(i) for i in range(creation.get_nfilters())]
    if any(not h5py.h5z.filter_avail(code) for code, *_ in filters):
        with contextlib.suppress(ImportError):
            importlib.import_module("hdf5plugin")  # importing it registers its filters
    names = [name.decode("utf-8", "replace").split(";")[0] for *_, name in filters]
    missing = [
        f"{name or 'unnamed'} ({code})"
        for (code, *_), name in zip(filters, names, strict=True)
        if not h5py.h5z.filter_avail(code)
    ]
    if missing:
        raise DataError(
            Problem(
                f"{dataset.file.filename}:{dataset.name}",
                "compression that can be undone here",
                f"the HDF5 filter {', '.join(missing)}, which is not installed",
                'Install hdf5plugin: pip install "pyptyx[io]"',
            )
        )
    return ", ".join(name or str(code) for (code, *_), name in zip(filters, names, strict=True))


def hdf5_fault(path: Path, error: OSError) -> str:
    """Why a file could not be opened, in words."""
    if not path.exists():
        return "no such file"
    if path.is_dir():
        return "a folder"
    faults = {
        "truncated file": "one that ends too early",
        "file signature not found": "a file of another format",
    }
    return next((words for sign, words in faults.items() if sign in str(error)), str(error))


def _noted_scan_size(dataset: h5py.Dataset) -> tuple[int, int] | None:
    noted = np.asarray(dataset.attrs.get("scan_size", ())).ravel()
    fits = (
        dataset.ndim in (2, 3)
        and noted.size == 2
        and noted.dtype.kind in "iu"
        and math.prod(int(n) for n in noted) == dataset.shape[0]
    )
    return (int(noted[0]), int(noted[1])) if fits else None


def find_dataset(file: h5py.File, key: str | None) -> h5py.Dataset:
    """The data set that holds the patterns.

    Parameters
    ----------
    file : h5py.File
        An open file.
    key : str or None
        Path of the data set.  None takes ``data`` at the root, else the only data set of numbers
        with three or four axes.

    Raises
    ------
    DataError
        If it is missing or ambiguous; the data sets there are, are listed.
    """
    if key is None:
        default = file.get(DEFAULT_KEY)
        return default if isinstance(default, h5py.Dataset) else _only_candidate(file)
    try:
        found = file[key]
    except (KeyError, ValueError):
        found = None
    if isinstance(found, h5py.Dataset):
        return found
    paths = dict(_datasets(file))
    inside = [p for p in paths if isinstance(found, h5py.Group) and p.startswith(found.name + "/")]
    near = inside or difflib.get_close_matches("/" + key.strip("/"), paths, n=3, cutoff=0.5)
    remedy = f"Did you mean {' or '.join(near)}?" if near else _listing(paths)
    got = f"{key!r}, which is a group" if inside or found is not None else f"{key!r}, not there"
    raise DataError(Problem("h5_key", f"a data set of {file.filename}", got, remedy))


def _only_candidate(file: h5py.File) -> h5py.Dataset:
    paths = dict(_datasets(file))
    candidates = {
        p: d for p, d in paths.items() if d.ndim in (3, 4) and d.dtype.kind in "buif" and d.size
    }
    if len(candidates) == 1:
        return next(iter(candidates.values()))
    if candidates:
        got = f"{len(candidates)} data sets with three or four axes and none called /{DEFAULT_KEY}"
    else:
        got = "no data set of numbers with three or four axes"
    raise DataError(
        Problem(
            file.filename,
            "one data set of patterns, or its path in h5_key",
            got,
            _listing(candidates or paths),
        )
    )


def _listing(datasets: dict[str, h5py.Dataset], most: int = 20) -> str:
    if not datasets:
        return "The file holds no data sets."
    lines = [f"{p} {d.shape} {d.dtype}" for p, d in list(datasets.items())[:most]]
    more = f" and {len(datasets) - most} more" if len(datasets) > most else ""
    return f"Data sets: {', '.join(lines)}{more}."


def _datasets(
    group: h5py.Group, prefix: str = "", seen: set | None = None
) -> Iterator[tuple[str, h5py.Dataset]]:
    """All data sets below a group, each once, through soft and external links that hold."""
    seen = set() if seen is None else seen
    for key in group:
        try:
            item = group[key]
        except (KeyError, OSError):
            continue  # A broken link is not a data set.
        info = h5py.h5o.get_info(item.id)
        if (info.fileno, info.addr) in seen:
            continue
        seen.add((info.fileno, info.addr))
        path = f"{prefix}/{key}"
        if isinstance(item, h5py.Dataset):
            yield path, item
        elif isinstance(item, h5py.Group):
            yield from _datasets(item, path, seen)
