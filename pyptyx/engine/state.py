"""The state of a run between two epochs: everything the next epoch depends on.

A `Snapshot` refers to arrays that are never changed in place, so taking one costs nothing.  The
loop goes back to one when an epoch fails; `pyptyx.engine.resume` writes and reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pyptyx.output.losslog import EpochRecord

Tree = dict[str, Any]


@dataclass(frozen=True)
class Evaluation:
    """Objective and gradient at the present point; the point itself follows from the variables.

    Attributes
    ----------
    value : float
    g : dict
        Gradient in the coordinates of the optimiser.
    sse : float
    contributions : dict
        Value of every term.
    """

    value: float
    g: Tree
    sse: float
    contributions: dict[str, float]


@dataclass(frozen=True)
class Snapshot:
    """What an epoch finds when it begins.

    Attributes
    ----------
    epoch : int
        The epoch that comes next.
    x : dict
        Variables, inside layout.
    corners : ndarray of int, (N, 2) or (1, 2)
        Window corners.
    start_positions : ndarray, (N, 2)
        Positions before the first epoch, in the frame of the present object.
    evaluation : Evaluation or None
        What is known at `x`; None if it has to be evaluated anew.
    optimizer : mapping or None
        State of `pyptyx.optim.lbfgs.LBFGS`.
    identity, weights : str
        Fingerprints of the objective that `evaluation` and `optimizer` belong to.
    best : float
        Lowest loss of this objective so far.
    quiet_epochs : int
        Consecutive epochs without progress.
    rescue : mapping
        State of `pyptyx.engine.rescue.Rescue`.
    elapsed_s : float
        Time since the start of the run.
    refined : tuple of str
        Variables that were refined in any epoch.
    stop_reason : str
        Why the run ended by itself; empty while it goes on.
    records : tuple of EpochRecord
        The log so far.
    """

    epoch: int
    x: Tree
    corners: np.ndarray
    start_positions: np.ndarray
    evaluation: Evaluation | None = None
    optimizer: Mapping[str, Any] | None = None
    identity: str = ""
    weights: str = ""
    best: float = float("inf")
    quiet_epochs: int = 0
    rescue: Mapping[str, Any] = field(default_factory=dict)
    elapsed_s: float = 0.0
    refined: tuple[str, ...] = ()
    stop_reason: str = ""
    records: tuple[EpochRecord, ...] = ()
