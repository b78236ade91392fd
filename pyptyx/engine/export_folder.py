"""What a run has left in its output folder, read for an export."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from pyptyx.errors import DataError, Gathering, Problem
from pyptyx.output import checkpoints
from pyptyx.output.losslog import read_loss_csv
from pyptyx.params.files import read_json

_DIMENSIONS = {"obj": (4,), "probe": (3, 4), "positions": (2,)}
"""Arrays every run leaves, and how many axes they may have."""


def current_arrays(folder: Path) -> dict[str, np.ndarray]:
    """The current checkpoint as memory maps, by key of the params dictionary.

    Raises
    ------
    DataError
        With one problem for each file that is missing or damaged.
    """
    arrays: dict[str, np.ndarray] = {}
    gathering = Gathering()
    for key, name in checkpoints.CURRENT.items():
        path = folder / name
        with gathering.step():
            if path.is_file():
                arrays[key] = _checked(key, path)
            elif key in _DIMENSIONS:
                remedy = "Give the output folder of a run, or of a direct method"
                raise DataError(Problem(str(path), "a saved array", "no such file", remedy))
    gathering.raise_any()
    return arrays


def has_run(folder: Path) -> bool:
    """Whether there is any array of a run."""
    return any((folder / name).is_file() for name in checkpoints.CURRENT.values())


def _checked(key: str, path: Path) -> np.ndarray:
    array = load_array(path)
    allowed = _DIMENSIONS.get(key)
    if allowed and array.ndim not in allowed:
        expected = f"an array with {' or '.join(map(str, allowed))} axes"
        raise DataError(Problem(str(path), expected, f"shape {array.shape}"))
    return array


def load_array(path: Path) -> np.ndarray:
    """A saved array as a memory map.

    Raises
    ------
    DataError
        If it is damaged.
    """
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        got = f"one that cannot be read ({error})"
        raise DataError(Problem(str(path), "a complete .npy file", got)) from error


def numbered_arrays(folder: Path) -> dict[int, dict[str, np.ndarray]]:
    """The numbered checkpoints by epoch, in the order of the epochs.

    Raises
    ------
    DataError
        If one is damaged.
    """
    found: dict[int, dict[str, np.ndarray]] = {}
    for key, name in checkpoints.NUMBERED.items():
        pattern = re.compile(re.escape(name).replace(r"\{\}", r"(\d+)"))
        for path in folder.iterdir():
            match = pattern.fullmatch(path.name)
            if match:
                found.setdefault(int(match[1]), {})[key] = load_array(path)
    return dict(sorted(found.items()))


def loss_columns(path: Path) -> dict[str, list[Any]]:
    """Columns of the loss log, numbers where all cells are numbers; empty if there is none.

    A log without a header, as PyPty can leave it, counts as none.
    """
    rows = read_loss_csv(path) if path.is_file() else []
    if not rows or not {"epoch", "loss"} <= rows[0].keys():
        return {}
    return {name: _numbers([row[name] for row in rows]) for name in rows[0]}


def _numbers(cells: list[str]) -> list[Any]:
    try:
        return [float(cell or "nan") for cell in cells] if any(cells) else cells
    except ValueError:
        return cells


def time_span(newest: Path, loss: Mapping[str, list[Any]]) -> tuple[datetime, datetime]:
    """When the results were begun and finished, with the time zone.

    Parameters
    ----------
    newest : Path
        A result.  The end is that of ``checkpoint.json`` beside it, or when the file was written.
    loss : mapping
        Columns of the loss log, whose times give the duration.
    """
    try:
        end = datetime.fromisoformat(read_json(newest.with_name(checkpoints.SIDECAR))["time"])
    except (DataError, KeyError, TypeError, ValueError):
        end = datetime.fromtimestamp(newest.stat().st_mtime).astimezone()
    last = loss.get("time / s", [0.0])[-1]
    known = isinstance(last, float) and np.isfinite(last)
    return end - timedelta(seconds=last if known else 0.0), end
