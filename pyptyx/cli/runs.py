"""``demo``, ``run`` and ``resume``: commands that reconstruct."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pyptyx.cli import exits
from pyptyx.cli.options import add_file, add_output, add_set, attached, load, meaning

if TYPE_CHECKING:
    from pyptyx.engine.run import Result


def demo_options(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``demo``."""
    parser.add_argument(
        "-o", "--output", default="demo_output", metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument(
        "--epochs", type=int, metavar="N", help=f"{meaning('epoch_max')} Default: the preset's."
    )


def demo(arguments: argparse.Namespace) -> int:
    """Reconstruct the shipped data set."""
    from pyptyx.demo import run_demo

    report = run_demo(arguments.output, arguments.epochs)
    _print_result(report.result)
    for picture in report.pictures:
        print(f"picture   {picture}")
    return exits.OK


def run_options(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``run``."""
    add_file(parser)
    add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Reconstruct what a file describes."""
    from pyptyx.iterative import run as reconstruct

    _print_result(reconstruct(attached(*load(arguments))))
    return exits.OK


def resume_options(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``resume``."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="output folder of the run")
    parser.add_argument("-o", "--output", metavar="DIR", help="continue in another folder")
    add_set(parser)


def resume(arguments: argparse.Namespace) -> int:
    """Continue a run."""
    from pyptyx.cli.settings import change
    from pyptyx.initialize import prepare_restart
    from pyptyx.iterative import run as reconstruct

    params = prepare_restart(arguments.folder, arguments.output)
    change(arguments.set, None, params)
    _print_result(reconstruct(params))
    return exits.OK


def _print_result(result: Result) -> None:
    from pyptyx.executors import world

    if not world().is_main:
        return
    if result.losses:
        first, last = result.losses[0].loss, result.final_loss
        print(f"epochs    {len(result.losses)}, loss {first:.6g} -> {last:.6g}")
    print(f"stopped   {result.stop_reason}")
    print(f"folder    {result.folder or 'none: the result was not saved'}")
    if result.losses:
        _print_judgement(result)


def _print_judgement(result: Result) -> None:
    """What a report would say about the result."""
    from pyptyx.engine.report import report_on

    report = report_on(result, patterns=None)
    facts = report.content.facts
    if facts.explained is not None:
        share = f"{min(facts.explained, 1):.0%} ± {facts.explained_error:.1%}"
        print(f"explained {share} of what differs from pattern to pattern")
    for finding in report.findings:
        print(f"warning   {finding.title}: {finding.observation}")
    if report.findings and result.folder:
        print(f"remedies  pyptyx report {result.folder}")
