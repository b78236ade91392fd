"""``report`` and ``export``: commands on the output folder of a run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pyptyx.cli import exits
from pyptyx.cli.options import add_set

_REFRESH_S = 10.0


def report_options(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``report``."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="output folder of a run")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="the page; a JSON file goes beside it (default: report.html in the folder)",
    )
    parser.add_argument(
        "--patterns",
        type=int,
        metavar="N",
        help="compare at most N patterns with the model; 0 leaves the data alone",
    )
    parser.add_argument(
        "--half-data",
        type=int,
        nargs="?",
        const=0,
        metavar="EPOCHS",
        help="measure the resolution by two runs on half of the patterns: from the start, or "
        "EPOCHS from the present state, which is faster and too optimistic",
    )
    parser.add_argument(
        "--watch",
        type=float,
        nargs="?",
        const=_REFRESH_S,
        metavar="SECONDS",
        help=f"write it anew every SECONDS until the run ends (default: {_REFRESH_S:g})",
    )
    add_set(parser)


def report(arguments: argparse.Namespace) -> int:
    """Write the report of an output folder."""
    from pyptyx.cli.settings import change
    from pyptyx.engine import report as reports

    page = arguments.output or arguments.folder / "report.html"
    changes: dict[str, Any] = {}
    change(arguments.set, None, changes)
    patterns = reports.PATTERNS if arguments.patterns is None else arguments.patterns
    if arguments.half_data is not None:
        from pyptyx.engine.half_data import half_data

        half_data(arguments.folder, arguments.half_data, changes)
    if arguments.watch is not None:
        print(f"page      {page}", flush=True)
        every_s = arguments.watch
        reports.watch(arguments.folder, page, every_s, patterns=patterns, changes=changes)
        return exits.OK
    made = reports.make_report(arguments.folder, patterns=patterns, changes=changes)
    for name, path in zip(("page", "numbers"), reports.write_report(made, page), strict=True):
        print(f"{name:<9} {path}")
    for finding in made.findings:
        print(f"warning   {finding.title}: {finding.observation}")
    return exits.OK


def export_options(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``export``."""
    parser.add_argument(
        "folder", type=Path, metavar="FOLDER", help="output folder of a run or of direct methods"
    )
    parser.add_argument(
        "--format",
        choices=("nxs", "tiff", "png"),
        default="nxs",
        help="one NeXus file, numbers as float32 TIFF, or pictures (default: %(default)s)",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="PATH",
        help="the file, or the folder of the images (default: beside the folder, FOLDER.nxs, "
        "FOLDER_tiff or FOLDER_png)",
    )
    parser.add_argument(
        "--no-checksum", action="store_true", help="do not read the data for their checksum"
    )


def export(arguments: argparse.Namespace) -> int:
    """Write an output folder as one NeXus file or as images."""
    folder, form = arguments.folder.resolve(), arguments.format
    if form == "nxs":
        from pyptyx.engine.export import convert_to_nxs

        target = arguments.output or folder.with_name(f"{folder.name}.nxs")
        print(f"file      {convert_to_nxs(folder, target, checksum=not arguments.no_checksum)}")
        return exits.OK
    from pyptyx.engine.export_images import export_images

    target = arguments.output or folder.with_name(f"{folder.name}_{form}")
    for path in export_images(folder, target, form):
        print(f"image     {path}")
    return exits.OK
