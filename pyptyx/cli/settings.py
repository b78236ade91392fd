"""``--set KEY=VALUE``: a word of the command line becomes what its key takes."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pyptyx.errors import Gathering, ParamError, Problem
from pyptyx.params.kinds import Mismatch
from pyptyx.params.resolve import remedy
from pyptyx.params.row import Row
from pyptyx.params.schedule import is_schedule_text
from pyptyx.params.schema import (
    ACCEPTED_IN_RUN,
    EXPERIMENT,
    EXPERIMENT_ALIASES,
    RUN_ALIASES,
    Schema,
)

_WORDS = {"true": True, "false": False, "none": None}


def change(texts: Sequence[str], experiment: dict[str, Any] | None, preset: dict[str, Any]) -> None:
    """Apply settings to the tables of a run file; a key that is there is replaced.

    A key goes to the table it names (``experiment.KEY``, ``preset.KEY``).  Without a table it goes
    to the experiment if the file has one that takes the key, since that wins over the preset.

    Parameters
    ----------
    texts : sequence of str
        ``KEY=VALUE``.  The value is read as the schema wants it: JSON, ``none``, ``true``, numbers
        separated by commas, a schedule, or the text itself.
    experiment, preset : dict
        Changed in place; the experiment is empty if the file has none, and None if a run has left
        it behind.

    Raises
    ------
    ParamError
        With one problem for each setting that names no key or does not fit its key.
    """
    tables = ("preset",) if experiment is None else ("experiment", "preset")
    gathering = Gathering()
    for text in texts:
        with gathering.step():
            table, name, value = _split(text, tables)
            known = EXPERIMENT_ALIASES.get(name, name) in EXPERIMENT
            if experiment is not None and (
                table == "experiment" or (not table and experiment and known)
            ):
                _put(experiment, name, value, EXPERIMENT, EXPERIMENT_ALIASES)
            else:
                _put(preset, name, value, ACCEPTED_IN_RUN, RUN_ALIASES)
    gathering.raise_any()


def _split(text: str, tables: Sequence[str]) -> tuple[str, str, str]:
    """Table (may be empty), key and value of a setting."""
    key, equals, value = text.partition("=")
    table, _, name = key.strip().rpartition(".")
    if equals and name and (not table or table in tables):
        return table, name, value.strip()
    expected = " or ".join(["KEY=VALUE", *(f"{table}.KEY=VALUE" for table in tables)])
    raise ParamError(Problem("--set", expected, repr(text), "For instance --set epoch_max=50"))


def _put(
    target: dict[str, Any], name: str, value: str, schema: Schema, aliases: Mapping[str, str]
) -> None:
    key = aliases.get(name, name)
    if key not in schema:
        close = difflib.get_close_matches(key, schema, n=1)
        advice = f"Did you mean {close[0]!r}?" if close else "`pyptyx keys` lists them"
        raise ParamError(Problem(f"--set {name}", "a known key", "an unknown one", advice))
    found = typed(schema[key], value)
    for other in [k for k in target if aliases.get(k, k) == key]:
        del target[other]
    target[key] = found


def typed(row: Row, text: str) -> Any:
    """The first reading of a text that a key takes.

    Parameters
    ----------
    row : Row
        The key.
    text : str
        What stands behind the equals sign.

    Raises
    ------
    ParamError
        If the key takes none.
    """
    if row.schedulable and is_schedule_text(text):
        row.convert(text)  # says what is wrong with a schedule
        return text
    for value in _readings(text):
        try:
            row.convert(value)
        except (Mismatch, ParamError):
            continue
        return value
    raise ParamError(Problem(f"--set {row.name}", row.expected, repr(text), remedy(row, text)))


def _readings(text: str) -> Iterator[Any]:
    """What a text may mean, the most special first."""
    if text.lower() in _WORDS:
        yield _WORDS[text.lower()]
    for candidate in (text, f"[{text}]"):
        try:
            yield json.loads(candidate)
        except json.JSONDecodeError:
            continue
    yield text
