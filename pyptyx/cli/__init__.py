"""The command line ``pyptyx``: a small program, and one module for each group of commands.

`registry` lists the commands.  A group's module is imported when one of its commands is called, and
the engine below it when the command runs, so that ``pyptyx --help`` is there at once.  This is the
one package that prints.
"""

from pyptyx.cli.program import main

__all__ = ["main"]
