"""The commands in the order in which ``pyptyx --help`` shows them."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes
    ----------
    name : str
        What the user types.
    summary : str
        One line for ``--help``.
    group : str
        Module of this package with the functions ``NAME(arguments)``, which does it and returns the
        exit code, and ``NAME_options(parser)``, which adds its arguments.
    parallel : bool
        Whether all processes of an MPI job take part; otherwise only the first one does.
    """

    name: str
    summary: str
    group: str
    parallel: bool = False

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments of the command."""
        self._member(f"{self.name}_options")(parser)

    def execute(self, arguments: argparse.Namespace) -> int:
        """Do it, and return the exit code."""
        return self._member(self.name)(arguments)

    def _member(self, name: str) -> Callable:
        return getattr(importlib.import_module(f"pyptyx.cli.{self.group}"), name)


COMMANDS = (
    Command("demo", "reconstruct the shipped data set", "runs"),
    Command("inspect", "show what a file of measured patterns holds and says", "data"),
    Command("init", "write a file to complete, from a file of measured patterns", "data"),
    Command("validate", "check a file, run nothing", "checks"),
    Command("describe", "say what a file means: sampling, fields of view, overlap", "checks"),
    Command("plan", "estimate memory, disk and time of a run, run nothing", "checks"),
    Command("keys", "explain the keys of a file", "checks"),
    Command("calibrate", "find rotation, detector axes and aberrations from the data", "images"),
    Command("direct", "image a thin specimen without iterations", "images"),
    Command("run", "reconstruct what a file describes", "runs", parallel=True),
    Command("resume", "continue a run, also one that was killed", "runs", parallel=True),
    Command("report", "show a run on one page, also while it goes on", "results"),
    Command("export", "write an output folder as one NeXus file or as images", "results"),
    Command("bench", "time one loss and gradient on this machine", "machine"),
    Command("doctor", "show what this machine offers", "machine"),
    Command("completion", "print the completion script of a shell", "machine"),
)
