"""Saving and loading parameters: ``params.json`` with ``params.npz``, and ``params.pkl``.

The JSON document holds what can be read by eye, the NPZ archive the arrays; together they give
every value back with its type.  The pickle holds the same as plain builtins and arrays, for
scripts that pass its path around.  Each file appears complete or not at all.
"""

from __future__ import annotations

import json
import os
import pickle
import uuid
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from pyptyx import __version__
from pyptyx.errors import DataError, ParamError, Problem
from pyptyx.files import replacing
from pyptyx.params import legacy_pickle
from pyptyx.params.codec import from_json, plain, restore_tables, to_json
from pyptyx.params.resolve import resolve
from pyptyx.params.schema import RUN, RUN_ALIASES

FORMAT = "pyptyx-params"
MAX_TEXT_BYTES = 64 << 20
"""Largest JSON or TOML file that is read."""
MAX_BINARY_BYTES = 16 << 30
"""Largest pickle or NPZ archive that is read, and largest size of its arrays."""

_STEM = "params"
_ID = "save_id"
_PICKLE_PROTOCOL = 4

PathLike = str | os.PathLike[str]


def save_params(path: PathLike, params: dict[str, Any], strip_dataset: bool = True) -> Path:
    """Save parameters.

    Schedules, paths and dtypes are saved as their text, callables without a text as a table over
    the epochs.  The dictionary is not modified.

    Parameters
    ----------
    path : path
        A folder, which receives ``params.json``, ``params.npz`` and ``params.pkl``; or a file
        ending in ``.json`` or ``.pkl``, whose name replaces ``params``.  Folders are created.
    params : dict
        The parameters.
    strip_dataset : bool
        Leave out `dataset`.

    Returns
    -------
    Path
        The JSON file.

    Raises
    ------
    ParamError
        With one problem for each value that cannot be saved.
    """
    base = _base(Path(path))
    kept = {k: v for k, v in params.items() if not (strip_dataset and k == "dataset")}
    content = plain(kept, _epochs(params))
    arrays: dict[str, np.ndarray] = {}
    document = {
        "format": FORMAT,
        "version": __version__,
        _ID: uuid.uuid4().hex,
        "params": to_json(content, arrays),
    }
    text = json.dumps(document, indent=1, allow_nan=False)
    members: dict[str, Any] = {**arrays, _ID: document[_ID]}
    base.parent.mkdir(parents=True, exist_ok=True)
    portable = _without_scalars(content)
    # All are written before the first takes its place, in the reverse order of these lines: the
    # pickle, which is complete by itself while the others do not yet agree, then the arrays, so
    # that a reader who meets the new document finds those that belong to it.
    with (
        _writing(base.with_suffix(".json")) as document_file,
        _writing(base.with_suffix(".npz")) as arrays_file,
        _writing(base.with_suffix(".pkl")) as pickle_file,
    ):
        document_file.write(text.encode())
        np.savez(arrays_file, **members)
        pickle.dump(portable, pickle_file, protocol=_PICKLE_PROTOCOL)
    return base.with_suffix(".json")


def load_params(path: PathLike) -> dict[str, Any]:
    """Load saved parameters.

    Parameters
    ----------
    path : path
        A folder (its ``params.json``, or else its ``params.pkl``), or one of these files.  Pickles
        of PyPty are read too; names outside a short list are refused.

    Raises
    ------
    DataError
        If the file is missing, damaged, too large or not made of plain parameters.
    """
    path = Path(path)
    if path.is_dir():
        files = [path / f"{_STEM}{ending}" for ending in (".json", ".pkl")]
        found = [file for file in files if file.exists()]
        if not found:
            expected = f"a folder with {files[0].name} or {files[1].name}"
            raise DataError(Problem(str(path), expected, "neither", "Check the path"))
        path = found[0]
    _require_file(path, MAX_BINARY_BYTES if path.suffix == ".pkl" else MAX_TEXT_BYTES)
    if path.suffix == ".pkl":
        return restore_tables(legacy_pickle.load(path))
    if path.suffix != ".json":
        got = path.suffix or "no ending"
        raise DataError(Problem(str(path), "a folder, .json or .pkl file", got))
    document = read_json(path)
    if document.get("format") != FORMAT:
        remedy = "Load a preset written by hand with load_preset"
        raise DataError(Problem(str(path), "parameters saved by pyptyx", "another file", remedy))
    return decode(document, path)


def change_params(
    path: PathLike, keys: str | Sequence[str], new_values: Any | Sequence[Any]
) -> Path:
    """Change saved parameters; a run that is going on takes schedulable ones at its next epoch.

    Of ``params.json`` and ``params.pkl`` the one written last is read, and both are written anew.

    Parameters
    ----------
    path : path
        The folder of a run, or one of its two files.
    keys : str or sequence of str
        One key or several.
    new_values : object or sequence
        The value of the one key, or as many values as keys; schedules are allowed.

    Returns
    -------
    Path
        The JSON file.

    Raises
    ------
    ParamError
        If the change makes the parameters wrong; nothing is written then.
    DataError
        If there is nothing to change, or it cannot be read.
    """
    names = [keys] if isinstance(keys, str) else list(keys)
    values = [new_values] if isinstance(keys, str) else list(new_values)
    if len(names) != len(values):
        raise ParamError(Problem("new_values", f"{len(names)} values", f"{len(values)}"))
    newest = _newest(path)
    params = load_params(newest)
    changes = {RUN_ALIASES.get(k, k): v for k, v in zip(names, values, strict=True)}
    before, after = _problems(params), _problems(params | changes)
    problems = [p for p in after if p not in before or p.key in changes]
    if problems:
        raise ParamError(problems)
    return save_params(newest, params | changes, strip_dataset=False)


def delete_dataset_from_params(path: PathLike) -> Path:
    """Remove ``dataset`` from saved parameters, which may make them small.

    Parameters
    ----------
    path : path
        As for `change_params`.

    Returns
    -------
    Path
        The JSON file.

    Raises
    ------
    DataError
        If there are no parameters, or they cannot be read.
    """
    newest = _newest(path)
    return save_params(newest, load_params(newest), strip_dataset=True)


def decode(document: dict[str, Any], path: Path) -> dict[str, Any]:
    """The parameters of a JSON document written by `save_params` to `path`."""
    arrays = _read_arrays(path.with_suffix(".npz"), document.get(_ID))
    params = from_json(document.get("params"), arrays)
    if not isinstance(params, dict):
        got = type(params).__name__
        raise DataError(Problem(str(path), "a table of parameters", got))
    return restore_tables(params)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file as a dict; DataError if it is missing, damaged or too large."""
    _require_file(path, MAX_TEXT_BYTES)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise damaged(path, error) from error
    if not isinstance(document, dict):
        got = type(document).__name__
        raise DataError(Problem(str(path), "a JSON object", got))
    return document


def read_text(path: Path) -> str:
    """A text file; DataError if it is missing, not UTF-8 or too large."""
    _require_file(path, MAX_TEXT_BYTES)
    try:
        return path.read_text(encoding="utf-8")
    except ValueError as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> DataError:
    """The error for a file that cannot be read."""
    expected = f"a complete {path.suffix[1:].upper()} file"
    got = f"one with an error ({error})"
    return DataError(Problem(str(path), expected, got, "Correct it, or save it again"))


def _require_file(path: Path, max_bytes: int) -> None:
    if not path.is_file():
        got = "a folder" if path.is_dir() else "no such file"
        raise DataError(Problem(str(path), "a file", got, "Check the path"))
    size = path.stat().st_size
    if size > max_bytes:
        raise DataError(Problem(str(path), f"at most {max_bytes} bytes", f"{size} bytes"))


def _base(path: Path) -> Path:
    """The path of the JSON file, next to which the others lie."""
    return path if path.suffix in (".json", ".pkl") else path / f"{_STEM}.json"


def _newest(path: PathLike) -> Path:
    """Of the JSON and the pickle of one set of parameters, the one written last."""
    base = _base(Path(path))
    files = [base.with_suffix(ending) for ending in (".json", ".pkl")]
    found = [file for file in files if file.is_file()]
    if not found:
        got, remedy = "no such file", "Check the path"
        raise DataError(Problem(str(path), "saved parameters", got, remedy))
    return max(found, key=lambda file: file.stat().st_mtime_ns)


def _problems(params: dict[str, Any]) -> tuple[Problem, ...]:
    """What is wrong with parameters, apart from what is missing."""
    try:
        resolve(params, need=())
    except ParamError as error:
        return error.problems
    return ()


def _epochs(params: dict[str, Any]) -> int:
    """Epochs 0 to epoch_max, the span of a table."""
    epoch_max = params.get("epoch_max", RUN["epoch_max"].default)
    return int(RUN["epoch_max"].kind.convert(epoch_max)) + 1


@contextmanager
def _writing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes its place when it is complete."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        yield file


def _without_scalars(value: Any) -> Any:
    """NumPy scalars as Python scalars, for readers without NumPy's pickle names."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple):
        return type(value)(_without_scalars(item) for item in value)
    if isinstance(value, dict):
        return {key: _without_scalars(item) for key, item in value.items()}
    return value


def _read_arrays(path: Path, save_id: Any) -> dict[str, np.ndarray]:
    if not path.exists():
        expected, remedy = f"the arrays of {_STEM}.json", "Copy both files together"
        raise DataError(Problem(str(path), expected, "no such file", remedy))
    _require_file(path, MAX_BINARY_BYTES)
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > MAX_BINARY_BYTES:
            expected = f"at most {MAX_BINARY_BYTES} bytes of arrays"
            raise DataError(Problem(str(path), expected, f"{size} bytes"))
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except DataError:
        raise
    except Exception as error:  # damaged archives raise nearly anything
        raise damaged(path, error) from error
    found = arrays.pop(_ID, None)
    if found is None or str(found) != save_id:
        remedy = "A run may be saving just now; load again"
        expected = "the arrays saved together with the JSON file"
        raise DataError(Problem(str(path), expected, "those of another save", remedy))
    return arrays
