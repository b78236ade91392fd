"""``inspect`` and ``init``: from a file of measured patterns to a file that describes a run."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pyptyx.cli import exits
from pyptyx.cli.options import add_json
from pyptyx.errors import ParamError, Problem

_PRESETS = ("thin_2d", "low_dose", "mixed_state", "multislice")
"""Shipped presets that need nothing but an experiment."""


def inspect_options(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``inspect``."""
    _add_data(parser)
    add_json(parser)


def inspect(arguments: argparse.Namespace) -> int:
    """Show what a data file holds and says."""
    from pyptyx.engine.inspect import as_dict, load_data, quick_look, report

    with load_data(arguments.data, arguments.dataset) as file:
        look = quick_look(file)
        print(json.dumps(as_dict(file, look), indent=1) if arguments.json else report(file, look))
    return exits.OK


def init_options(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``init``."""
    _add_data(parser)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="the file to write, - for the screen (default: the name of DATA with .toml, here)",
    )
    parser.add_argument(
        "--preset",
        choices=_PRESETS,
        default=_PRESETS[0],
        metavar="NAME",
        help=f"how to reconstruct: {', '.join(_PRESETS)} (default: %(default)s)",
    )
    parser.add_argument("--force", action="store_true", help="replace the file if there is one")


def init(arguments: argparse.Namespace) -> int:
    """Write a commented run file: what a data file says, and blanks for what it does not."""
    from pyptyx.engine.draft import BLANK, draft
    from pyptyx.engine.inspect import load_data
    from pyptyx.files import make_folder, write_bytes

    on_screen = arguments.output == Path("-")
    target = arguments.output
    if target is None or on_screen:
        target = Path(arguments.data.stem).with_suffix(".toml")
    with load_data(arguments.data, arguments.dataset) as file:
        text = draft(file, target, _preset(arguments.preset))
        missing = ", ".join(file.missing)
    if on_screen:
        print(text, end="")
        return exits.OK
    if target.exists() and not arguments.force:
        remedy = "Give another name with --output, or --force to replace it"
        raise ParamError(Problem(str(target), "a new file", "one that exists", remedy))
    make_folder(target.parent)
    write_bytes(target, text.encode())
    print(f"file      {target}")
    print(f"missing   {missing}: see {BLANK} in the file" if missing else "missing   nothing")
    print(f"next      pyptyx validate {target}")
    return exits.OK


def _preset(name: str) -> str:
    """The text of a shipped preset, headed by the names of the others."""
    from pyptyx.shipped import shipped

    others = ", ".join(other for other in _PRESETS if other != name)
    heading = f"# How to reconstruct: the preset {name}; others for --preset are {others}."
    return f"{heading}\n{shipped(f'presets/{name}.toml').read_text(encoding='utf-8')}"


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path, metavar="DATA", help="patterns in any known format")
    parser.add_argument("--dataset", metavar="NAME", help="data set inside the file")
