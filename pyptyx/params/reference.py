"""The reference page of the parameters, written from the tables of the schema."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from pyptyx.params.kinds import FINITE
from pyptyx.params.row import Row
from pyptyx.params.schema import EXPERIMENT, EXPERIMENT_ALIASES, INFO, RUN, RUN_ALIASES

_INTRODUCTION = """\
# Parameters

This page is generated from the tables in `pyptyx/params`; edit those.

A run takes the keys of the first part; the keys of the second part describe the experiment for
`append_exp_params`, and a run carries them along as metadata. A key marked *per epoch* also takes a
callable of the epoch number or a string such as `"lambda epoch: 1e-3 if epoch > 20 else 0"`. Such a
string may hold one parameter, numbers, arithmetic, comparisons, `and`, `or`, `not`, conditional
expressions, `min`, `max`, `abs`, `int`, `float`, `round`, and `exp`, `log`, `sqrt`, `sin`, `cos`,
`floor`, `ceil`, `pi`, `inf` of `np` or `math`, and `np.where`. In a TOML file the string `"none"`
stands for `None`."""

_HEADER = "| key | default | type | unit | per epoch | meaning |\n|---|---|---|---|---|---|"


def markdown() -> str:
    """The page as Markdown: a table for each group, then the aliases."""
    parts = [_INTRODUCTION, "## Keys of a run", *_groups(RUN.values())]
    rows = [row for row in EXPERIMENT.values() if row.scope == "experiment"]
    shared = ", ".join(f"`{row.name}`" for row in EXPERIMENT.values() if row.scope == "both")
    parts += ["## Keys of an experiment", f"These keys of a run belong here too: {shared}."]
    parts += [*_groups(rows), "## Other keys", *_groups(INFO.values())]
    parts += ["## Other names", "These names are accepted for the keys on the right.", _aliases()]
    return "\n\n".join(parts) + "\n"


def _groups(rows: Iterable[Row]) -> list[str]:
    """Heading and table of each group, in the order of first appearance."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    return [
        block
        for group, members in groups.items()
        for block in (f"### {group}", "\n".join([_HEADER, *map(_line, members)]))
    ]


def _line(row: Row) -> str:
    kind = row.kind.label
    if row.choices:
        kind += ": " + ", ".join(f"`{c!r}`" for c in row.choices)
    if row.bounds not in (None, FINITE):
        kind += f", in {row.bounds}"
    if row.accepts_none:
        kind += ", or None"
    cells = (f"`{row.name}`", _default(row.default), kind, row.unit)
    return "| " + " | ".join((*cells, "yes" * row.schedulable, row.doc)) + " |"


def _default(value: Any) -> str:
    if isinstance(value, float) and math.isclose(value, 2 / 3):
        return "2/3"
    return f"`{value!r}`"


def _aliases() -> str:
    lines = ["| name | in a run | in an experiment |", "|---|---|---|"]
    for name in dict.fromkeys([*RUN_ALIASES, *EXPERIMENT_ALIASES]):
        targets = (RUN_ALIASES.get(name), EXPERIMENT_ALIASES.get(name))
        lines.append(f"| `{name}` | " + " | ".join(f"`{t}`" if t else "-" for t in targets) + " |")
    return "\n".join(lines)
