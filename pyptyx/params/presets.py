"""Presets and run files: TOML and JSON written by hand, and saved or legacy parameters.

A file has the tables ``[experiment]`` and ``[preset]``, or is flat, which means a preset.  TOML has
no null, so the string ``"none"`` stands for None.  Paths in such a file are relative to the file.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyptyx.errors import DataError, Problem
from pyptyx.params.files import (
    FORMAT,
    PathLike,
    damaged,
    decode,
    load_params,
    read_json,
    read_text,
    save_params,
)
from pyptyx.shipped import preset_names, shipped

__all__ = ["load_params", "load_preset", "load_run_file", "save_params"]

PATH_KEYS = ("data_path", "output_folder", "path_json", "phase_plate_in_h5")
"""Keys that are relative to the file they stand in."""

_TABLES = ("experiment", "preset")


def load_preset(path: PathLike) -> dict[str, Any]:
    """The preset of a file: its ``[preset]`` table, or all of a flat file.

    Parameters
    ----------
    path : path
        A ``.toml`` or ``.json`` file, saved parameters, a ``params.pkl`` of PyPty, or the name of a
        preset that comes with the package, such as ``"low_dose"``.

    Raises
    ------
    DataError
        If the file is missing, damaged, too large, of another type, or has unknown tables.
    """
    return load_run_file(path)[1]


def load_run_file(path: PathLike) -> tuple[dict[str, Any], dict[str, Any]]:
    """Experiment and preset of a file; the experiment of a flat file is empty.

    Parameters
    ----------
    path : path
        As for `load_preset`.

    Raises
    ------
    DataError
        If the file is missing, damaged, too large, of another type, or has unknown tables.
    """
    path = Path(path)
    if path.suffix == ".pkl" or path.is_dir():
        return {}, load_params(path)
    if path.suffix == ".json":
        document = read_json(path)
        if document.get("format") == FORMAT:
            return {}, decode(document, path)
    elif path.suffix == ".toml":
        document = _read_toml(path)
    elif str(path) in preset_names():
        path = shipped(f"presets/{path}.toml")
        document = _read_toml(path)
    else:
        raise DataError(_unknown(path))
    experiment, preset = _tables(document, path)
    folder = path.resolve().parent
    return _absolute(experiment, folder), _absolute(preset, folder)


def _unknown(path: Path) -> Problem:
    """What to say of a file without a known ending that is no shipped preset either."""
    if path.suffix:
        return Problem(str(path), "a .toml, .json or .pkl file", path.suffix)
    names = preset_names()
    close = difflib.get_close_matches(str(path), names, n=1)
    remedy = f"Did you mean {close[0]!r}?" if close else ""
    expected = f"a .toml, .json or .pkl file, or one of the presets {', '.join(names)}"
    return Problem(str(path), expected, "no ending", remedy)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        document = tomllib.loads(read_text(path))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise damaged(path, error) from error
    return {key: _with_none(value) for key, value in document.items()}


def _with_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_none(item) for key, item in value.items()}
    return None if value == "none" else value


def _tables(document: Mapping[str, Any], path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    if not any(isinstance(document.get(name), dict) for name in _TABLES):
        return {}, dict(document)
    stray = [key for key in document if key not in _TABLES or not isinstance(document[key], dict)]
    if stray:
        remedy = "Move these keys below [experiment] or [preset]"
        got = ", ".join(stray)
        raise DataError(Problem(str(path), "the tables experiment and preset only", got, remedy))
    return dict(document.get("experiment", {})), dict(document.get("preset", {}))


def _absolute(params: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The parameters with the paths of `PATH_KEYS` taken from `folder`; empty ones stay empty."""
    paths = {key: params[key] for key in PATH_KEYS if params.get(key)}
    return params | {key: str(folder / p) for key, p in paths.items() if isinstance(p, str)}
