"""Commands on the output folder of a run."""

from __future__ import annotations

import argparse
from pathlib import Path

from pyptyx.cli import exits


def export_options(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``export``."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="output folder of a run")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="default: FOLDER.nxs beside the folder"
    )


def export(arguments: argparse.Namespace) -> int:
    """Write an output folder as one NeXus file."""
    from pyptyx.engine.export import convert_to_nxs

    folder = arguments.folder.resolve()
    target = arguments.output or folder.with_name(f"{folder.name}.nxs")
    print(f"file      {convert_to_nxs(folder, target)}")
    return exits.OK
