"""``doctor``, ``bench`` and ``completion``: commands about this machine."""

from __future__ import annotations

import argparse
import json
import logging
from dataclasses import asdict
from typing import TYPE_CHECKING

from pyptyx.cli import exits
from pyptyx.cli.options import add_json, meaning

if TYPE_CHECKING:
    from pyptyx.engine.bench import Timing

_SHELLS = ("bash", "zsh", "fish")


def doctor_options(parser: argparse.ArgumentParser) -> None:
    """``doctor`` takes no arguments."""


def doctor(_: argparse.Namespace) -> int:
    """Show versions, memory, workers and caches."""
    from pyptyx.doctor import report

    print("\n".join(report()))
    return exits.OK


def bench_options(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bench``."""
    parser.add_argument("--devices", type=int, metavar="N", help=meaning("devices"))
    parser.add_argument(
        "--dtype",
        choices=("single", "double"),
        default="single",
        metavar="TYPE",
        help="single or double (default: %(default)s)",
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=5,
        metavar="N",
        help="of which the median counts (default: %(default)s)",
    )
    add_json(parser)


def bench(arguments: argparse.Namespace) -> int:
    """Time one loss and gradient."""
    from pyptyx.engine.bench import HEADING
    from pyptyx.engine.bench import bench as timings

    if not arguments.verbose:  # what a run says about its data and batches is of no interest here
        logging.getLogger("pyptyx").setLevel(logging.WARNING)
    devices = "auto" if arguments.devices is None else arguments.devices
    found: list[Timing] = []
    for timing in timings(devices, arguments.repeats, arguments.dtype):
        if not arguments.json:
            if not found:
                size = " x ".join(map(str, timing.window))
                print(f"{timing.device}, {timing.workers} workers, {arguments.dtype} precision")
                print(f"loss and gradient of a pattern of {size} pixels\n\n{HEADING}")
            print(timing, flush=True)
        found.append(timing)
    if arguments.json:
        print(json.dumps([asdict(timing) for timing in found], indent=1))
    return exits.OK


def completion_options(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``completion``."""
    parser.add_argument("shell", choices=_SHELLS, metavar="SHELL", help=", ".join(_SHELLS))


def completion(arguments: argparse.Namespace) -> int:
    """Print the script that completes commands, options, files and keys in a shell."""
    from pyptyx.cli.completion import script

    print(script(arguments.shell))
    return exits.OK
