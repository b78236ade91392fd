"""An output folder as one NeXus file, and parameters back from such a file."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from pyptyx.engine.setup import slice_gaps_A
from pyptyx.engine.start import beam_wavelength_A
from pyptyx.errors import DataError, ParamError, Problem
from pyptyx.output import checkpoints
from pyptyx.output.losslog import read_loss_csv
from pyptyx.output.nexus import Content, write_nexus
from pyptyx.output.nexus_params import read_parameters, read_pypty_parameters
from pyptyx.params import load_params, resolve
from pyptyx.params.codec import from_json, plain, restore_tables, to_json
from pyptyx.params.files import read_json
from pyptyx.params.kinds import Mismatch
from pyptyx.params.row import Row
from pyptyx.params.schema import ACCEPTED_IN_RUN

logger = logging.getLogger(__name__)

PathLike = str | os.PathLike[str]

_DIMENSIONS = {"obj": (4,), "probe": (3, 4), "positions": (2,)}
"""Arrays every folder has, and how many axes they may have."""

_DESCRIPTION = (
    *("acc_voltage", "wavelength_A", "pixel_size_y_A", "pixel_size_x_A"),
    *("slice_distances", "edge_slice_thickness"),
)
"""Parameters that give the arrays their coordinates."""

_MISSING = "auto"
"""What PyPty writes for None, NaN and empty text."""


def convert_to_nxs(folder_path: PathLike, output_file: PathLike, flip_y: bool = False) -> Path:
    """Write an output folder as one NeXus file.

    Phase, amplitude and probe can be looked at in any NeXus viewer; all arrays, the loss log and
    the parameters are in the file without loss.  `pyptyx.output.nexus` describes the layout.

    Parameters
    ----------
    folder_path : path
        With ``co.npy``, ``cp.npy``, ``cg.npy`` and the parameters.
    output_file : path
        The file to write, by custom with the ending ``.nxs``.
    flip_y : bool
        Write the rows of object and probe from the last to the first, as PyPty does; the
        coordinates go with them.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    DataError
        With one problem for each file that is missing or damaged.
    ParamError
        If the parameters do not fit the arrays.
    OutputError
        If the file cannot be written.
    """
    folder, target = Path(folder_path), Path(output_file)
    arrays = _current_arrays(folder)
    params = load_params(folder)
    known = resolve(
        {k: params[k] for k in _DESCRIPTION if k in params}
        | {"num_slices": arrays["obj"].shape[2]},
        need=(),
    )
    parameter_arrays: dict[str, np.ndarray] = {}
    loss = _loss_columns(folder / "loss.csv")
    end = _end_time(folder)
    content = Content(
        title=str(params.get("sample_name") or folder.resolve().name),
        start_time=(end - timedelta(seconds=_duration_s(loss))).isoformat(timespec="seconds"),
        end_time=end.isoformat(timespec="seconds"),
        arrays=arrays,
        numbered=_numbered_arrays(folder),
        pixel_A=(known["pixel_size_y_A"], known["pixel_size_x_A"]),
        depths_A=np.cumsum([0.0, *slice_gaps_A(known, arrays["obj"].shape[2])]),
        loss=loss,
        document=to_json(plain(params, epochs=0), parameter_arrays),
        parameter_arrays=parameter_arrays,
        sample={
            "name": params.get("sample_name"),
            "chemical_formula": params.get("chemical_formula"),
            "thickness_A": params.get("total_thickness"),
        },
        energy_eV=known["acc_voltage"] and 1e3 * known["acc_voltage"],
        wavelength_A=_wavelength_A(known),
        flip_y=flip_y,
    )
    write_nexus(target, content)
    logger.info("wrote %s", target)
    return target


def load_nexus_params(path: PathLike) -> dict[str, Any]:
    """Parameters from a NeXus file of pyptyx or of PyPty.

    A file of pyptyx gives back exactly what `load_params` gives for the folder it was made from.
    In a file of PyPty types have been lost; each value becomes what its key takes, and what PyPty
    writes for None, NaN and empty text is None or left out.  Text is never evaluated.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    dict

    Raises
    ------
    DataError
        If the file is missing, damaged or holds no parameters.
    """
    path = Path(path)
    written_by_us = read_parameters(path)
    if written_by_us is None:
        return _from_pypty(read_pypty_parameters(path))
    document, arrays = written_by_us
    params = from_json(document, arrays)
    if not isinstance(params, dict):
        raise DataError(Problem(str(path), "a table of parameters", type(params).__name__))
    return restore_tables(params)


def _current_arrays(folder: Path) -> dict[str, np.ndarray]:
    """The current checkpoint; all that is wrong with it at once."""
    arrays: dict[str, np.ndarray] = {}
    problems: list[Problem] = []
    for key, name in checkpoints.CURRENT.items():
        path = folder / name
        if not path.is_file():
            if key in _DIMENSIONS:
                remedy = "Give the output folder of a run"
                problems.append(Problem(str(path), "a saved array", "no such file", remedy))
            continue
        try:
            arrays[key] = _load(path)
        except DataError as error:
            problems.extend(error.problems)
            continue
        allowed = _DIMENSIONS.get(key)
        if allowed and arrays[key].ndim not in allowed:
            expected = f"an array with {' or '.join(map(str, allowed))} axes"
            problems.append(Problem(str(path), expected, f"shape {arrays[key].shape}"))
    if problems:
        raise DataError(problems)
    return arrays


def _load(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        got = f"one that cannot be read ({error})"
        raise DataError(Problem(str(path), "a complete .npy file", got)) from error


def _numbered_arrays(folder: Path) -> dict[int, dict[str, np.ndarray]]:
    """The numbered checkpoints by epoch, in the order of the epochs."""
    found: dict[int, dict[str, np.ndarray]] = {}
    for key, name in checkpoints.NUMBERED.items():
        pattern = re.compile(re.escape(name).replace(r"\{\}", r"(\d+)"))
        for path in folder.iterdir():
            match = pattern.fullmatch(path.name)
            if match:
                found.setdefault(int(match[1]), {})[key] = _load(path)
    return dict(sorted(found.items()))


def _loss_columns(path: Path) -> dict[str, list[Any]]:
    """Columns of the loss log, numbers where all cells are numbers; empty if there is no log."""
    rows = read_loss_csv(path) if path.is_file() else []
    if rows and not {"epoch", "loss"} <= rows[0].keys():
        logger.warning("%s has no header and is left out", path)
        return {}
    return {name: _numbers([row[name] for row in rows]) for name in rows[0]} if rows else {}


def _numbers(cells: list[str]) -> list[Any]:
    try:
        return [float(cell or "nan") for cell in cells] if any(cells) else cells
    except ValueError:
        return cells


def _duration_s(loss: Mapping[str, list[Any]]) -> float:
    last = loss.get("time / s", [0.0])[-1]
    return last if isinstance(last, float) and np.isfinite(last) else 0.0


def _end_time(folder: Path) -> datetime:
    """When the checkpoint was written, with the time zone."""
    try:
        return datetime.fromisoformat(read_json(folder / checkpoints.SIDECAR)["time"])
    except (DataError, KeyError, TypeError, ValueError):
        return datetime.fromtimestamp(
            (folder / checkpoints.CURRENT["obj"]).stat().st_mtime
        ).astimezone()


def _wavelength_A(known: Mapping[str, Any]) -> float | None:
    return beam_wavelength_A(known) if known["acc_voltage"] or known["wavelength_A"] else None


def _from_pypty(found: Mapping[str, Any]) -> dict[str, Any]:
    """What PyPty stored, in the types its keys take."""
    params: dict[str, Any] = {}
    for key, value in found.items():
        row = ACCEPTED_IN_RUN.get(key)
        missing = isinstance(value, str) and value == _MISSING
        if not missing or (row is not None and value in row.choices):
            params[key] = _fitting(row, value)
        elif row is None or (row.accepts_none and row.default != ""):
            params[key] = None  # where empty text is the default, that is what it was
    return params


def _fitting(row: Row | None, value: Any) -> Any:
    """The value, or the only element of an array, or the number in a text: what the row takes."""
    candidates = [value]
    if isinstance(value, np.ndarray) and value.size == 1:
        candidates.append(value.item())
    if isinstance(value, str):
        candidates.extend(_number_in(value))
    if row is None:
        return candidates[-1] if isinstance(value, np.ndarray) else value
    for candidate in candidates:
        try:
            row.convert(candidate)
        except (Mismatch, ParamError):
            continue
        return candidate
    return value


def _number_in(text: str) -> Iterator[int | float]:
    for kind in (int, float):
        try:
            yield kind(text)
        except ValueError:
            continue
