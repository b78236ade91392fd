"""One worker in the calling thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pyptyx.backend import Backend
from pyptyx.executors.base import Executor, Finish, fold


class SerialExecutor(Executor):
    """Everything in the calling thread, on one backend."""

    def __init__(self, backend: Backend | None = None) -> None:
        self.backends = [backend or Backend()]

    def map_reduce(
        self,
        start: Callable[[int], Any],
        work: Callable[[int, Any, Any], Any],
        items: Sequence[Any],
        merge: Callable[[Any, Any], Any],
        sums: Callable[[Any], Sequence[Any]],
        finish: Finish | None = None,
    ) -> Any:
        return fold(0, self.backends[0], start, work, items, finish)
