"""Parameter files and schedules under PyPty's names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyptyx import params as library
from pyptyx.errors import ParamError, Problem
from pyptyx.params.schedule import Schedule, describe_callable, is_schedule_text, parse

Params = dict[str, Any]


def save_params(path: Any, params: Params, strip_dataset_from_params: bool = True) -> Path:
    """Save parameters; see `pyptyx.params.save_params`."""
    return library.save_params(path, params, strip_dataset_from_params)


def string_to_lambda(string: str) -> Schedule:
    """A schedule from ``"lambda x: ..."``; arithmetic is interpreted and nothing is executed.

    Raises
    ------
    ParamError
        If the text is not such a formula.
    """
    return parse(string, "string_to_lambda")


def lambda_to_string(function: Any) -> str:
    """The text of a schedule or of a lambda written in a file.

    Raises
    ------
    ParamError
        If the callable has no text that could be read back; `save_params` stores a table then.
    """
    text = function.source if isinstance(function, Schedule) else describe_callable(function)
    if text is None:
        remedy = "Write it as a string, or let save_params store its values."
        got = getattr(function, "__name__", repr(function))
        raise ParamError(Problem("lambda_to_string", "a lambda of one formula", got, remedy))
    return text


def string_params_to_usefull_params(params: Params) -> Params:
    """Turn the texts of schedules in a dictionary, and in its lists, into schedules.

    The same dictionary, changed.  Only strings that start with ``lambda`` are touched.
    """
    for key, value in params.items():
        params[key] = _with_schedules(value, key)
    return params


def _with_schedules(value: Any, key: str) -> Any:
    if isinstance(value, list):
        return [_with_schedules(item, key) for item in value]
    return parse(value, key) if is_schedule_text(value) else value


def convert_to_string(params: Params) -> Params:
    """A copy of a dictionary with the texts of its schedules, the reverse of the above."""
    return {key: _with_texts(value) for key, value in params.items()}


def _with_texts(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_texts(item) for item in value]
    return lambda_to_string(value) if callable(value) else value
