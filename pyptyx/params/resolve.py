"""From what the user wrote to complete, checked parameters, reporting everything wrong at once."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from pyptyx.errors import ParamError, Problem
from pyptyx.params.checks import EXPERIMENT_CHECKS, REQUIREMENTS, RUN_CHECKS, Check
from pyptyx.params.kinds import Mismatch, describe
from pyptyx.params.row import Row
from pyptyx.params.schedule import value_at
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
    resolved = _converted(given, ACCEPTED_IN_RUN, problems)
    _complete(resolved, given, RUN)
    _cross_check(resolved, (*RUN_CHECKS, *_requirements(need)), problems)
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
    resolved = _converted(given, EXPERIMENT, problems)
    _complete(resolved, given, EXPERIMENT)
    _cross_check(resolved, (*EXPERIMENT_CHECKS, *_requirements(need)), problems)
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
        if not row.schedulable or row.name not in resolved:
            continue
        value = resolved[row.name]
        try:
            if callable(value):
                value = row.convert_constant(value_at(value, epoch, row.name))
        except ParamError as error:
            problems.extend(error.problems)
        except Mismatch as mismatch:
            expected = f"{mismatch.expected} at epoch {epoch}"
            problems.append(Problem(row.name, expected, mismatch.got, "Correct the schedule"))
        values[row.name] = value
    _raise_any(problems)
    return values


def _canonical(
    params: Mapping[str, Any], aliases: Mapping[str, str], problems: list[Problem]
) -> dict[str, Any]:
    """The dictionary under the canonical names of its keys."""
    result: dict[str, Any] = {}
    for key, value in params.items():
        if not isinstance(key, str):
            problems.append(Problem(repr(key), "a string as key", describe(key)))
            continue
        name = aliases.get(key, key)
        if name in result and not _same(result[name], value):
            expected = "one value, under one of its names"
            problems.append(Problem(name, expected, "different values under two names"))
        result.setdefault(name, value)
    return result


def _same(a: Any, b: Any) -> bool:
    try:
        return a is b or bool(np.array_equal(a, b))
    except (TypeError, ValueError):
        return False


def _converted(given: Mapping[str, Any], schema: Schema, problems: list[Problem]) -> dict[str, Any]:
    """The keys of the schema in their normal form; problems are added for the others."""
    converted: dict[str, Any] = {}
    for key, value in given.items():
        row = schema.get(key)
        if row is None:
            problems.extend(_unknown(key, schema))
            continue
        try:
            converted[key] = row.convert(value)
        except ParamError as error:
            problems.extend(error.problems)
        except Mismatch as mismatch:
            problems.append(Problem(key, mismatch.expected, mismatch.got, _remedy(row)))
    return converted


def _remedy(row: Row) -> str:
    unit = "" if row.unit == "-" else f" in {row.unit}"
    return f"Meaning{unit}: {row.doc}"


def _unknown(key: str, schema: Schema) -> list[Problem]:
    """A problem if the key looks like a misspelt one, otherwise only a warning."""
    close = difflib.get_close_matches(key, schema, n=1, cutoff=_SIMILAR)
    if close:
        return [Problem(key, "a known key", "an unknown one", f"Did you mean {close[0]!r}?")]
    log.warning("%s is not a key of pyptyx; ignored", key)
    return []


def _complete(resolved: dict[str, Any], given: Mapping[str, Any], schema: Schema) -> None:
    """Add the defaults of keys that were not given; a wrong value is not covered by its default."""
    for name, row in schema.items():
        if name not in given and name not in resolved:
            resolved[name] = row.default_value()


def _requirements(need: Iterable[str]) -> tuple[Check, ...]:
    known = dict(REQUIREMENTS)
    return tuple(known[name] for name in need)


def _cross_check(
    resolved: Mapping[str, Any], checks: Iterable[Check], problems: list[Problem]
) -> None:
    """Run the checks and raise everything found so far.

    A check may complain about a key that has been reported already, only because its wrong value is
    not in `resolved`; such echoes are left out.
    """
    reported = {problem.key for problem in problems}
    for check in checks:
        problems.extend(p for p in check(resolved) if p.key not in reported)
    _raise_any(problems)


def _raise_any(problems: list[Problem]) -> None:
    if problems:
        raise ParamError(problems)
