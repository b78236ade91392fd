"""Iterative reconstruction under PyPty's module name."""

from pyptyx.engine.run import Result, run

__all__ = ["Result", "run"]
