"""The errors a user can meet.  Each says what was expected, what came, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


class PyptyxError(Exception):
    """Base class of every error raised on purpose by pyptyx."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong with the input.

    Attributes
    ----------
    key : str
        Name of the parameter, or of the file, as the user knows it.
    expected, got, remedy : str
        What was expected, what came, and what the user can do.
    """

    key: str
    expected: str
    got: str
    remedy: str = ""

    def __str__(self) -> str:
        text = f"{self.key}: expected {self.expected}, got {self.got}"
        return f"{text}. {self.remedy}" if self.remedy else text


class ProblemError(PyptyxError, ValueError):
    """An error that carries one or several `Problem` entries, reported together."""

    def __init__(self, problems: Problem | Iterable[Problem]):
        self.problems: tuple[Problem, ...] = (
            (problems,) if isinstance(problems, Problem) else tuple(problems)
        )
        lines = [str(p) for p in self.problems]
        if len(lines) == 1:
            message = lines[0]
        else:
            message = f"{len(lines)} problems:\n" + "\n".join(f"  - {line}" for line in lines)
        super().__init__(message)


class Gathering:
    """Runs steps one after the other and raises the problems of all of them together.

    >>> gathering = Gathering()
    >>> with gathering.step():
    ...     check_one_thing()
    >>> with gathering.step():
    ...     check_another()
    >>> gathering.raise_any()
    """

    def __init__(self) -> None:
        self._errors: list[ProblemError] = []

    @contextmanager
    def step(self) -> Iterator[None]:
        """Context whose `ProblemError` is kept for `raise_any`; other errors pass."""
        try:
            yield
        except ProblemError as error:
            self._errors.append(error)

    def raise_any(self) -> None:
        """Raise what was kept, as an error of the kind that came first."""
        if self._errors:
            problems = [problem for error in self._errors for problem in error.problems]
            raise type(self._errors[0])(problems) from self._errors[0]


class ParamError(ProblemError):
    """Parameters that are missing, misspelt, of the wrong type or out of bounds."""


class ShapeError(ProblemError):
    """Arrays whose shapes do not fit together."""


class DataError(ProblemError):
    """A data file that is missing, unreadable, truncated or does not hold what is needed."""


class DeviceError(PyptyxError, RuntimeError):
    """A device that cannot do what is asked, or arrays of two devices in one call."""


class WorkerError(PyptyxError, RuntimeError):
    """A worker failed; the message names the worker and the batch, the cause is chained."""


class NumericalError(PyptyxError, ArithmeticError):
    """A value became NaN or infinite; the message names the epoch and the term."""


class OutputError(PyptyxError, OSError):
    """A result that could not be written; the last complete files stay in place."""
