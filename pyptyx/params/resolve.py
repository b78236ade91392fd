"""From what the user wrote to complete, checked parameters, reporting everything wrong at once."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from pyptyx.errors import ParamError, Problem
from pyptyx.params.checks import EXPERIMENT_CHECKS, REQUIREMENTS, RUN_CHECKS, Check
from pyptyx.params.kinds import Mismatch, describe
from pyptyx.params.row import Row
from pyptyx.params.schedule import schedule_name, value_at
from pyptyx.params.schema import (
    ACCEPTED_IN_RUN,
    EXPERIMENT,
    EXPERIMENT_ALIASES,
    RUN,
    RUN_ALIASES,
    Schema,
)

log = logging.getLogger(__name__)

NEED = tuple(name for name, _ in REQUIREMENTS)
"""Everything a run needs: ``("data", "output_folder", "acc_voltage")``."""

_SIMILAR = 0.8

_NUMBER_WITH_UNIT = re.compile(r"\s*[-+]?[\d.]+(e[-+]?\d+)?\s*[^\W\d].*", re.IGNORECASE)

_EPOCHS_CHECKED = 100_000
"""A schedule is tried this many epochs ahead; more would take seconds."""


def resolve(
    params: Mapping[str, Any],
    experiment: Mapping[str, Any] | None = None,
    *,
    need: Iterable[str] = NEED,
) -> dict[str, Any]:
    """Complete and check the parameters of a run.

    Parameters
    ----------
    params : mapping
        The user's dictionary; it is not modified, but arrays are shared with it where possible.
    experiment : mapping, optional
        Keys that win over those of `params`.
    need : iterable of {"data", "output_folder", "acc_voltage"}
        What must be given; `loss_and_gradient` for example needs no output folder.

    Returns
    -------
    dict
        Every key of `RUN` in its normal form, and the metadata that was given.

    Raises
    ------
    ParamError
        With one problem for each unknown, wrong, contradictory or missing key.
    """
    problems: list[Problem] = []
    given = _canonical(params, RUN_ALIASES, problems)
    given |= _canonical(experiment or {}, RUN_ALIASES, problems)
    resolved, wrong = _converted(given, ACCEPTED_IN_RUN, problems)
    _complete(resolved, wrong, RUN)
    every = (*RUN_CHECKS, schedules_hold, *_requirements(need))
    _cross_check(resolved, wrong, every, problems)
    return resolved


def resolve_experiment(
    experiment: Mapping[str, Any], *, need: Iterable[str] = NEED
) -> dict[str, Any]:
    """Complete and check the description of an experiment.

    `num_slices` given without `slice_thickness` is honoured: the thickness becomes None.

    Parameters
    ----------
    experiment : mapping
        The user's dictionary; it is not modified.
    need : iterable of {"data", "output_folder", "acc_voltage"}
        What must be given, besides a calibration and a scan step.  With `path_json` the voltage,
        the calibration and the scan step may be missing.

    Returns
    -------
    dict
        Every key of `EXPERIMENT` in its normal form.

    Raises
    ------
    ParamError
        With one problem for each unknown, wrong, contradictory or missing key.
    """
    problems: list[Problem] = []
    given = _canonical(experiment, EXPERIMENT_ALIASES, problems)
    for key in sorted(given.keys() & RUN.keys() - EXPERIMENT.keys()):
        log.warning("%s belongs into the parameters of the run; ignored here", key)
        del given[key]
    if "num_slices" in given:
        given.setdefault("slice_thickness", None)
    resolved, wrong = _converted(given, EXPERIMENT, problems)
    _complete(resolved, wrong, EXPERIMENT)
    _cross_check(resolved, wrong, (*EXPERIMENT_CHECKS, *_requirements(need)), problems)
    return resolved


def evaluate(resolved: Mapping[str, Any], epoch: int) -> dict[str, Any]:
    """The schedulable keys at an epoch.

    Parameters
    ----------
    resolved : mapping
        Result of `resolve`.
    epoch : int
        Epoch number.

    Raises
    ------
    ParamError
        With one problem for each schedule that fails or leaves the bounds of its key.
    """
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    for row in RUN.values():
        if row.schedulable and row.name in resolved:
            value = resolved[row.name]
            try:
                values[row.name] = _scheduled(row, value, epoch) if callable(value) else value
            except ParamError as error:
                problems.extend(error.problems)
    _raise_any(problems)
    return values


def schedules_hold(resolved: Mapping[str, Any]) -> Iterator[Problem]:
    """Every schedule gives a value of its key at every epoch; the first failure of each."""
    first, last = resolved.get("epoch_prev"), resolved.get("epoch_max")
    if first is None or last is None:
        return
    for row in RUN.values():
        schedule = resolved.get(row.name)
        if row.schedulable and callable(schedule):
            try:
                for epoch in range(first, min(max(last, first + 1), first + _EPOCHS_CHECKED)):
                    _scheduled(row, schedule, epoch)
            except ParamError as error:
                yield from error.problems


def _scheduled(row: Row, schedule: Callable[[int], Any], epoch: int) -> Any:
    """The value of a schedule at an epoch, in the normal form of its key."""
    value = value_at(schedule, epoch, row.name)
    try:
        return row.convert_constant(value)
    except Mismatch as mismatch:
        expected = f"{row.constant} at epoch {epoch}"
        remedy = f"Correct the schedule {schedule_name(schedule)!r}"
        raise ParamError(Problem(row.name, expected, mismatch.got, remedy)) from None


def _canonical(
    params: Mapping[str, Any], aliases: Mapping[str, str], problems: list[Problem]
) -> dict[str, Any]:
    """The dictionary under the canonical names of its keys."""
    if not isinstance(params, Mapping):
        remedy = "Give a dictionary, or load one with load_params"
        raise ParamError(Problem("params", "a dictionary", describe(params), remedy))
    result: dict[str, Any] = {}
    names: dict[str, str] = {}
    for key, value in params.items():
        if not isinstance(key, str):
            got = f"{describe(key)} ({type(key).__name__})"
            problems.append(Problem("params", "strings as keys", got, "Remove this key"))
            continue
        name = aliases.get(key, key)
        if name in result and not _same(result[name], value):
            got = f"different values under {names[name]} and {key}"
            problems.append(Problem(name, "one value, under one of its names", got, "Remove one"))
        result.setdefault(name, value)
        names.setdefault(name, key)
    return result


def _same(a: Any, b: Any) -> bool:
    try:
        return a is b or bool(np.array_equal(a, b))
    except (TypeError, ValueError):
        return False


def _converted(
    given: Mapping[str, Any], schema: Schema, problems: list[Problem]
) -> tuple[dict[str, Any], set[str]]:
    """The keys of the schema in their normal form, and those given wrongly or misspelt."""
    converted: dict[str, Any] = {}
    wrong: set[str] = set()
    for key, value in given.items():
        row = schema.get(key)
        if row is None:
            wrong |= _unknown(key, schema, problems)
            continue
        try:
            converted[key] = row.convert(value)
        except ParamError as error:
            problems.extend(error.problems)
            wrong.add(key)
        except Mismatch as mismatch:
            problems.append(Problem(key, mismatch.expected, mismatch.got, remedy(row, value)))
            wrong.add(key)
    return converted, wrong - converted.keys()


def remedy(row: Row, value: Any) -> str:
    """What to do about a value that a key does not take.

    Parameters
    ----------
    row : Row
        The key.
    value : object
        What was given.
    """
    if isinstance(value, str):
        words = [choice for choice in row.choices if isinstance(choice, str)]
        close = difflib.get_close_matches(value, words, n=1)
        if close:
            return f"Did you mean {close[0]!r}?"
        if row.unit != "-" and _NUMBER_WITH_UNIT.fullmatch(value):
            return f"Write the number alone, in {row.unit}"
    unit = "" if row.unit == "-" else f" Unit: {row.unit}"
    return f"Meaning: {row.doc}{unit}"


def _unknown(key: str, schema: Schema, problems: list[Problem]) -> set[str]:
    """The key that was meant, with a problem; nothing but a warning if none is similar."""
    close = difflib.get_close_matches(key, schema, n=1, cutoff=_SIMILAR)
    if close:
        remedy = f"Did you mean {close[0]!r}?"
        problems.append(Problem(key, "a known key", "an unknown one", remedy))
    else:
        log.warning("%s is not a key of pyptyx; ignored", key)
    return set(close)


def _complete(resolved: dict[str, Any], wrong: set[str], schema: Schema) -> None:
    """Add the defaults of keys that were not given; a wrong value is not covered by its default."""
    for name, row in schema.items():
        if name not in wrong and name not in resolved:
            resolved[name] = row.default_value()


def _requirements(need: Iterable[str]) -> tuple[Check, ...]:
    known = dict(REQUIREMENTS)
    return tuple(known[name] for name in need)


def _cross_check(
    resolved: Mapping[str, Any],
    wrong: set[str],
    checks: Iterable[Check],
    problems: list[Problem],
) -> None:
    """Run the checks and raise everything found so far.

    A check may complain about a key that has been reported already, only because its wrong value is
    not in `resolved`; such echoes are left out.
    """
    for check in checks:
        problems.extend(p for p in check(resolved) if p.key not in wrong)
    _raise_any(problems)


def _raise_any(problems: list[Problem]) -> None:
    if problems:
        raise ParamError(problems)
