"""Live editing: parameters changed in the output folder take effect at the next epoch."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pyptyx.engine.callbacks import Callback
from pyptyx.engine.problem import Reconstruction
from pyptyx.engine.variables import UPDATE_KEYS
from pyptyx.errors import ParamError, Problem, PyptyxError
from pyptyx.params import load_params, resolve
from pyptyx.params.kinds import describe
from pyptyx.params.schema import RUN

logger = logging.getLogger(__name__)

_Stamp = tuple[int, int]


class LiveEdit(Callback):
    """Schedulable parameters re-read when ``params.json`` or ``params.pkl`` changes during the run.

    What counts is the difference from the files as they were when the run started.  A file that is
    half written, or whose values do not check, is ignored with a warning; the run goes on with
    what it had.

    Parameters
    ----------
    folder : Path
        The output folder, into which the parameters have been saved before `start` is called.
    """

    def __init__(self, folder: Path) -> None:
        self._files = (folder / "params.json", folder / "params.pkl")
        self._problem: Reconstruction | None = None
        self._stamps: dict[Path, _Stamp] = {}
        self._saved: dict[str, Any] = {}
        self._changed: dict[str, Any] = {}

    def start(self, problem: Reconstruction) -> None:
        self._problem = problem
        self._saved = _schedulable(load_params(self._files[0]))
        self._stamps = {path: _stamp(path) for path in self._files}

    def __call__(self) -> Mapping[str, Any]:
        """Changed parameters so far; nothing before `start`."""
        for path, old in self._stamps.items():
            new = _stamp(path)
            if new != old:
                self._stamps[path] = new
                self._read(path)
        return self._changed

    def _read(self, path: Path) -> None:
        try:
            loaded = _schedulable(load_params(path))
            changed = {k: v for k, v in loaded.items() if not _equal(v, self._saved[k])}
            self._check(changed)
        except (PyptyxError, OSError, ValueError) as error:
            logger.warning("the change of %s is ignored: %s", path.name, error)
            return
        for key in changed.keys() | self._changed.keys():
            value = changed.get(key, self._saved[key])
            if not _equal(value, self._changed.get(key, self._saved[key])):
                text = describe(getattr(value, "source", value))
                logger.info("%s is now %s (from %s)", key, text, path.name)
        self._changed = changed

    def _check(self, changed: Mapping[str, Any]) -> None:
        """Raise unless the run can go on with these changes."""
        problem = self._problem
        assert problem is not None
        resolve({**problem.params, **changed}, need=())
        missing = list(_not_in_model(problem, changed))
        if missing:
            raise ParamError(missing)
        if "sequence" in changed and not callable(changed["sequence"]):
            problem.sequence_at(changed)


def _schedulable(params: Mapping[str, Any]) -> dict[str, Any]:
    """The schedulable keys in their normal form."""
    resolved = resolve(params, need=())
    return {key: resolved[key] for key, row in RUN.items() if row.schedulable}


def _not_in_model(problem: Reconstruction, changed: Mapping[str, Any]) -> Iterable[Problem]:
    """Variables that cannot be refined because the model of this run was set up without them."""
    for name, key in UPDATE_KEYS.items():
        absent = name not in problem.x or (name == "positions" and not problem.spec.shift)
        if absent and changed.get(key):
            yield Problem(
                key,
                "False, the model of this run has none",
                repr(changed[key]),
                f"Start with a schedule, for example {key}='lambda epoch: epoch > 1000'",
            )


def _stamp(path: Path) -> _Stamp:
    """What changes when a file is written; zeros if there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_size


def _equal(a: Any, b: Any) -> bool:
    """Equality of values in their normal form; arrays element by element."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and np.array_equal(a, b)
    return bool(a == b)
