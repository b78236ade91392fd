"""What the program returns to the shell."""

from __future__ import annotations

from collections.abc import Iterator

from pyptyx.errors import (
    DeviceError,
    NumericalError,
    OutputError,
    ProblemError,
    PyptyxError,
    WorkerError,
)

OK = 0
INPUT = 1
"""Something in the files or parameters that the user can mend."""
USAGE = 2
"""A command line that cannot be understood; `argparse` returns it."""
NUMERICAL = 3
"""A loss that became NaN or infinite."""
DEVICE = 4
"""A device or the memory cannot do it, or a worker failed."""
OUTPUT = 5
"""Results could not be written."""
DEFECT = 70
"""A mistake of pyptyx itself, with a traceback."""
INTERRUPTED = 130

_KINDS: tuple[tuple[type[BaseException], int], ...] = (
    (ProblemError, INPUT),
    (NumericalError, NUMERICAL),
    (DeviceError, DEVICE),
    (MemoryError, DEVICE),
    (OutputError, OUTPUT),
    (KeyboardInterrupt, INTERRUPTED),
)


def code_of(error: BaseException) -> int:
    """The exit code of an error; that of a worker follows from what made it fail."""
    for link in _chain(error):
        for kind, code in _KINDS:
            if isinstance(link, kind):
                return code
    return DEVICE if isinstance(error, WorkerError) else DEFECT


def is_expected(error: BaseException) -> bool:
    """Whether the message alone says what to do, and a traceback would only be in the way."""
    return isinstance(error, PyptyxError | MemoryError)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, and if a worker reports it, what lies behind."""
    yield error
    while isinstance(error, WorkerError) and error.__cause__ is not None:
        error = error.__cause__
        yield error
