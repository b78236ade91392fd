"""``validate``, ``describe``, ``plan`` and ``keys``: commands that compute nothing."""

from __future__ import annotations

import argparse
import json
import textwrap

from pyptyx.cli import exits
from pyptyx.cli.options import add_file, add_json, load, sentence
from pyptyx.errors import DataError, Problem
from pyptyx.params.row import Row
from pyptyx.params.schema import ACCEPTED_IN_RUN, EXPERIMENT

_WIDTH, _INDENT = 96, "    "


def validate_options(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``validate``."""
    add_file(parser)


def validate(arguments: argparse.Namespace) -> int:
    """Report everything wrong with a file at once, or describe it."""
    from pyptyx.engine.describe import describe as described
    from pyptyx.engine.validate import validate as validated

    print(described(validated(*load(arguments))))
    return exits.OK


def describe_options(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``describe``."""
    add_file(parser)


def describe(arguments: argparse.Namespace) -> int:
    """One screen about what a file means."""
    from pyptyx.engine.describe import describe as described
    from pyptyx.engine.validate import attach

    print(described(attach(*load(arguments))))
    return exits.OK


def plan_options(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``plan``."""
    add_file(parser)
    add_json(parser)


def plan(arguments: argparse.Namespace) -> int:
    """Estimate what a run needs."""
    from pyptyx.engine.plan import plan as planned
    from pyptyx.engine.validate import attach

    found = planned(attach(*load(arguments)))
    print(json.dumps(found.as_dict(), indent=1) if arguments.json else found)
    return exits.OK


def keys_options(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``keys``."""
    parser.add_argument(
        "words", nargs="*", metavar="WORD", help="show keys with all these words in name or text"
    )


def keys(arguments: argparse.Namespace) -> int:
    """Explain keys from the schema."""
    words = [word.lower() for word in arguments.words]
    rows = [row for row in ACCEPTED_IN_RUN.values() if _mentions(row, words)]
    if not rows:
        remedy = "Use fewer or other words; without words all keys are shown"
        raise DataError(Problem(" ".join(words), "words that occur", "no key with them", remedy))
    print("\n".join(_explained(row) for row in rows))
    return exits.OK


def _mentions(row: Row, words: list[str]) -> bool:
    text = f"{row.name} {row.doc}".lower()
    return all(word in text for word in words)


def _explained(row: Row) -> str:
    table = "[experiment]" if row.name in EXPERIMENT else "[preset]"
    unit = "" if row.unit == "-" else f", in {row.unit}"
    text = f"{sentence(row)} Takes {row.expected}{unit}; default {row.default!r}."
    body = textwrap.fill(text, _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT)
    return f"{row.name}  {table}\n{body}"
