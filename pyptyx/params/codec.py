"""Parameters as plain builtins, as JSON, and back, without loss of type.

Three steps keep each idea in one place: `plain` turns schedules, paths and dtypes into their text
and tabulates callables; `to_json` tags what JSON cannot express and moves arrays into a separate
dict; `from_json` undoes `to_json`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pyptyx.errors import DataError, ParamError, Problem
from pyptyx.params.kinds import describe
from pyptyx.params.schedule import Schedule, Table, freeze

TABLE_KEY = "$table"
"""Key of the dict that stands for a `Table` in plain parameters."""

_SAVABLE = "biufcSU"


def plain(params: Mapping[str, Any], epochs: int) -> dict[str, Any]:
    """Parameters as builtins, NumPy scalars and NumPy arrays.

    Schedules, paths and dtypes become their text; a callable becomes its source text if that can be
    trusted, otherwise a table over the epochs.

    Parameters
    ----------
    params : mapping
        The parameters; not modified.
    epochs : int
        Number of epochs a table covers.

    Raises
    ------
    ParamError
        With one problem for each value that cannot be saved.
    """
    result: dict[str, Any] = {}
    problems: list[Problem] = []
    for key, value in params.items():
        try:
            result[key] = _plain(value, epochs, key)
        except ParamError as error:
            problems.extend(error.problems)
    if problems:
        raise ParamError(problems)
    return result


def _plain(value: Any, epochs: int, key: str) -> Any:
    if value is None or isinstance(value, bool | int | float | complex | str):
        return _without_subclass(value)
    if isinstance(value, np.generic | np.ndarray):
        return _plain_numpy(value, key)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, np.generic)):
        return np.dtype(value).name
    if isinstance(value, list | tuple):
        items = [_plain(item, epochs, key) for item in value]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, Mapping):
        return {_plain(k, epochs, key): _plain(v, epochs, key) for k, v in value.items()}
    if callable(value):
        return _plain_callable(value, epochs, key)
    raise _cannot_save(key, value)


def _without_subclass(value: Any) -> Any:
    """A NumPy scalar that is also a Python number stays one; other subclasses lose their class."""
    if isinstance(value, np.str_):
        return str(value)
    if value is None or isinstance(value, np.generic):
        return value
    bases: tuple[Callable[[Any], Any], ...] = (bool, int, float, complex, str)
    for base in bases:
        if isinstance(value, base):  # type: ignore[arg-type]
            return base(value)
    return value


def _plain_numpy(value: Any, key: str) -> Any:
    if value.dtype.kind not in _SAVABLE:
        raise _cannot_save(key, value)
    return np.asarray(value) if isinstance(value, np.ndarray) else value


def _plain_callable(value: Callable[[int], Any], epochs: int, key: str) -> Any:
    frozen = freeze(value, epochs, key)
    if isinstance(frozen, Schedule):
        return frozen.source
    return {TABLE_KEY: [_plain(item, epochs, key) for item in frozen.values]}


def _cannot_save(key: str, value: Any) -> ParamError:
    expected = "numbers, strings, lists, dicts, numeric arrays or a schedule"
    return ParamError(Problem(key, expected, describe(value), "Leave it out of what is saved"))


def restore_tables(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters with each ``{"$table": values}`` as the `Table` it stands for."""
    return {
        key: Table(tuple(value[TABLE_KEY]))
        if isinstance(value, dict) and value.keys() == {TABLE_KEY}
        else value
        for key, value in params.items()
    }


def to_json(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """A plain value as JSON types; its arrays are added to `arrays` under new names."""
    if isinstance(value, np.ndarray):
        name = f"a{len(arrays)}"
        arrays[name] = value
        return {"$array": name}
    if isinstance(value, np.generic):
        return _scalar_to_json(value, arrays)
    if isinstance(value, complex):
        return {"$complex": [repr(value.real), repr(value.imag)]}
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": repr(value)}
    if isinstance(value, tuple):
        return {"$tuple": [to_json(item, arrays) for item in value]}
    if isinstance(value, list):
        return [to_json(item, arrays) for item in value]
    if isinstance(value, dict):
        items = [(k, to_json(v, arrays)) for k, v in value.items()]
        if all(isinstance(k, str) and not k.startswith("$") for k in value):
            return dict(items)
        return {"$dict": [[to_json(k, arrays), v] for k, v in items]}
    return value


def _scalar_to_json(value: np.generic, arrays: dict[str, np.ndarray]) -> Any:
    item = value.item()
    if isinstance(item, bool | int | float | complex):
        return {"$scalar": [value.dtype.str, to_json(item, arrays)]}
    return {"$scalar": [value.dtype.str, to_json(np.asarray(value), arrays)]}


def from_json(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """The plain value of a JSON document written by `to_json`.

    Raises
    ------
    DataError
        If a tag is unknown or its content is wrong.
    """
    if isinstance(value, list):
        return [from_json(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    tag = next(iter(value), "")
    if len(value) != 1 or not tag.startswith("$"):
        return {key: from_json(item, arrays) for key, item in value.items()}
    try:
        return _TAGS[tag](value[tag], arrays)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        got = f"{tag} {describe(value[tag])} ({type(error).__name__})"
        raise DataError(Problem("params.json", "a value written by pyptyx", got)) from error


def _scalar_from_json(content: list[Any], arrays: Mapping[str, np.ndarray]) -> Any:
    dtype, value = content
    if np.dtype(dtype).kind not in _SAVABLE:
        raise ValueError("not a numeric dtype")
    return np.asarray(from_json(value, arrays), dtype=np.dtype(dtype))[()]


def _complex_from_json(content: list[str]) -> complex:
    real, imag = map(_float_from_json, content)
    return complex(real, imag)


def _float_from_json(content: str) -> float:
    if not isinstance(content, str):
        raise TypeError("not the text of a number")
    return float(content)


_TAGS: dict[str, Callable[[Any, Mapping[str, np.ndarray]], Any]] = {
    "$array": lambda content, arrays: arrays[content],
    "$scalar": _scalar_from_json,
    "$complex": lambda content, _: _complex_from_json(content),
    "$float": lambda content, _: _float_from_json(content),
    "$tuple": lambda content, arrays: tuple(from_json(item, arrays) for item in content),
    "$dict": lambda content, arrays: {
        from_json(k, arrays): from_json(v, arrays) for k, v in content
    },
}
