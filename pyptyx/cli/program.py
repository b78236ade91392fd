"""From the arguments to the exit code; `pyptyx.cli.exits` lists the codes."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import traceback
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pyptyx import __version__
from pyptyx.cli import exits
from pyptyx.cli.registry import COMMANDS, Command

if TYPE_CHECKING:
    from pyptyx.executors import Communicator

_EPILOG = """\
pyptyx COMMAND --help explains a command, pyptyx keys the keys of a file.

exit codes: 0 done, 1 something in the input to mend, 2 wrong usage, 3 the loss became NaN,
4 device or memory, 5 results could not be written, 70 a defect of pyptyx, 130 interrupted"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; by default those of the process.

    Returns
    -------
    int
        The exit code.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    arguments = parser(words).parse_args(words)
    with _messages_on_stderr(arguments.verbose):
        return _guarded(arguments)


def parser(names: Collection[str] | None = None) -> argparse.ArgumentParser:
    """The parser of the program.

    Parameters
    ----------
    names : collection of str, optional
        Commands that get their own arguments, by default all; fetching them costs an import.
    """
    # Without SUPPRESS the default of a command would overwrite a -v given before it.
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        default=argparse.SUPPRESS,
        help="details while working, and the traceback of an error",
    )
    program = argparse.ArgumentParser(
        prog="pyptyx",
        description="Gradient-based ptychography for electron microscopy.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    program.add_argument("--version", action="version", version=f"pyptyx {__version__}")
    program.add_argument("-v", "--verbose", action="store_true", help="details and tracebacks")
    chosen = program.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        text = f"{command.summary[0].upper()}{command.summary[1:]}."
        one = chosen.add_parser(
            command.name, parents=[common], help=command.summary, description=text
        )
        one.set_defaults(command=command)
        if names is None or command.name in names:
            command.add_options(one)
    return program


def _guarded(arguments: argparse.Namespace) -> int:
    """Run the command and turn what it raises into a message and an exit code."""
    from pyptyx.executors import Communicator, world

    processes = Communicator()
    try:
        processes = world()
        with processes.guard():
            code = _in_processes(arguments, processes)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.OK
    except KeyboardInterrupt:
        print("pyptyx: interrupted", file=sys.stderr)
        return exits.INTERRUPTED
    except Exception as error:
        _explain(error, arguments.verbose, processes.is_main)
        return exits.code_of(error)


def _in_processes(arguments: argparse.Namespace, processes: Communicator) -> int:
    """Run a command; of many processes the first one speaks, and all share a reconstruction."""
    command: Command = arguments.command
    if not processes.is_main:
        logging.getLogger("pyptyx").setLevel(logging.ERROR)
        if not command.parallel:
            return exits.OK
    return command.execute(arguments)


def _explain(error: Exception, verbose: bool, is_main: bool) -> None:
    expected = exits.is_expected(error)
    if verbose or not expected:
        traceback.print_exception(error)
    if not expected:
        text = f"a defect of pyptyx {__version__}; please report it with the lines above"
    else:
        text = str(error) or "out of memory"
    if is_main:
        print(f"pyptyx: {text}", file=sys.stderr)


@contextmanager
def _messages_on_stderr(verbose: bool) -> Iterator[None]:
    """Show the package's log on stderr for the duration of one command."""
    logger = logging.getLogger("pyptyx")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
