"""Arguments that several commands share, and what they mean."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pyptyx.params.row import Row
from pyptyx.params.schema import RUN

Settings = dict[str, Any]


def sentence(row: Row) -> str:
    """What the schema says about a key, without the marks of the reference page."""
    return row.doc.replace("`", "")


def meaning(key: str) -> str:
    """Help text of an option that stands for a key of the run."""
    return sentence(RUN[key]).replace("%", "%%")  # argparse takes a percent sign for a format


def add_file(parser: argparse.ArgumentParser) -> None:
    """``FILE`` and ``--set``, which `load` understands."""
    parser.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="TOML or JSON with the tables [experiment] and [preset], or parameters alone",
    )
    add_set(parser)


def add_set(parser: argparse.ArgumentParser) -> None:
    """``--set KEY=VALUE``."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one key of the file, for instance --set epoch_max=80 --set scan_size=64,60; "
        "may be repeated (pyptyx keys explains them)",
    )


def add_output(parser: argparse.ArgumentParser) -> None:
    """``--output DIR``."""
    parser.add_argument(
        "-o", "--output", metavar="DIR", help=f"{meaning('output_folder')} Wins over the file."
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """``--json``."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def load(arguments: argparse.Namespace) -> tuple[Settings, Settings]:
    """Experiment and preset of ``FILE``, with the changes of the command line.

    Raises
    ------
    DataError
        If the file cannot be read.
    ParamError
        With one problem for each ``--set`` that does not fit the schema.
    """
    from pyptyx.cli.settings import change
    from pyptyx.params import load_run_file

    experiment, preset = load_run_file(arguments.file)
    change(arguments.set, experiment, preset)
    output = getattr(arguments, "output", None)
    if output is not None:
        (experiment or preset)["output_folder"] = output
    return experiment, preset


def attached(experiment: Settings, preset: Settings) -> Settings:
    """Parameters of a run: the preset with the experiment, if there is one."""
    from pyptyx.engine.experiment import append_exp_params

    return append_exp_params(experiment, preset) if experiment else preset
