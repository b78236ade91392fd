"""The completion scripts of the shells, made by shtab from the parser of the program."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from pyptyx.cli.program import parser
from pyptyx.errors import DataError, Problem
from pyptyx.params.schema import ACCEPTED_IN_RUN

_FILES = {"file", "data"}
_FOLDERS = {"folder"}


def script(shell: str) -> str:
    """Text that a shell evaluates to complete commands, options, files, folders and keys.

    Parameters
    ----------
    shell : {"bash", "zsh", "fish"}

    Raises
    ------
    DataError
        If shtab, the library that writes it, is not installed.
    """
    try:
        import shtab
    except ModuleNotFoundError:
        remedy = 'Install it with: pip install "pyptyx[completion]"'
        problem = Problem("completion", "the package shtab", "none", remedy)
        raise DataError(problem) from None
    program = parser()
    for action in _actions(program):
        if action.dest == "set":
            action.choices = [f"{key}=" for key in ACCEPTED_IN_RUN]
        elif action.dest in _FILES or action.metavar == "FILE":
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif action.dest in _FOLDERS or action.metavar == "DIR":
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    return shtab.complete(program, shell)


def _actions(program: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Every argument of the program and of its commands."""
    for action in program._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
        else:
            yield action
