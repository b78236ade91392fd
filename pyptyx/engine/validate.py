"""Everything wrong with an experiment and a preset, found without running or writing anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pyptyx.engine.experiment import append_exp_params
from pyptyx.engine.patterns import open_patterns
from pyptyx.errors import ParamError, Problem, ProblemError
from pyptyx.params import resolve
from pyptyx.params.checks import rows_agree
from pyptyx.params.resolve import NEED

Settings = Mapping[str, Any]

_OF_DATA = ("dataset", "data_path", "h5_key", "masks")
"""Keys of an experiment that open its data."""


def attach(experiment: Settings, preset: Settings) -> dict[str, Any]:
    """Parameters of a run, as `append_exp_params` makes them, without making the output folder.

    Parameters
    ----------
    experiment : mapping
        May be empty: then the preset is all there is.
    preset : mapping
        Not modified.

    Raises
    ------
    ParamError, DataError, ShapeError
        As `append_exp_params`.
    """
    params = dict(preset)
    if experiment:
        nowhere = {"output_folder": None}
        params = append_exp_params({**experiment, **nowhere}, params | nowhere)
    return params | {"output_folder": {**preset, **experiment}.get("output_folder", "")}


def validate(experiment: Settings, preset: Settings) -> dict[str, Any]:
    """Parameters of a run, or all problems at once.

    A mistake in the experiment does not hide those in the preset, nor data that are missing or do
    not fit the scan.

    Parameters
    ----------
    experiment, preset : mapping
        As for `attach`.

    Returns
    -------
    dict
        Parameters for `pyptyx.run`.

    Raises
    ------
    ParamError
        With every problem.
    """
    problems: dict[Problem, None] = {}  # a set that keeps the order
    params: dict[str, Any] = {**preset}
    known: set[str] = set()
    need: tuple[str, ...] = ()
    try:
        params = attach(experiment, preset)
        need = NEED
    except ProblemError as error:
        problems.update(dict.fromkeys(error.problems))
        known = {problem.key for problem in problems}
        problems.update(dict.fromkeys(p for p in _of_data(experiment) if p.key not in known))
    try:
        resolve(params, need=need)
    except ProblemError as error:
        # Without the experiment's part only what the preset itself says can be judged.
        judged = (p for p in error.problems if need or p.key in preset)
        problems.update(dict.fromkeys(p for p in judged if p.key not in known))
    if problems:
        raise ParamError(problems)
    return params


def _of_data(experiment: Settings) -> Iterator[Problem]:
    """What can be said about the data although the rest of the experiment is wrong."""
    named = {key: experiment[key] for key in _OF_DATA if experiment.get(key) is not None}
    try:
        with open_patterns(named) as source:
            size = experiment.get("scan_size")
            if source.scan_size is None and _is_size(size):
                yield from rows_agree({"dataset": source, "scan_size": size, "masks": None})
    except ProblemError as error:
        yield from error.problems


def _is_size(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(isinstance(n, int) for n in value)
    )
