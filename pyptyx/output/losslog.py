"""The log of a run: one record per epoch, and ``loss.csv`` in PyPty's columns.

``loss``, ``sse`` and the constraints are those at the *start* of the epoch, as in PyPty; the
additional last column holds the loss after the epoch's update.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pyptyx.files import write_bytes

HEAD = (
    "epoch",
    "time / s",
    "loss",
    "sse",
    "initial step",
    "matching step",
    "N linesearch iterations",
    "dir. derivative",
    "new dir. derivative",
)
TOTAL = ("Constraints contribution",)
EACH = (
    "F-axis postions reg.",
    "Deformation positons reg.",
    "Deformation tilts reg.",
    "F-axis tilts reg.",
    "l1 object reg. (phase)",
    "l1 object reg. (abs)",
    "Q-space probe reg.",
    "R-space probe reg.",
    "TV object reg.",
    "V-object reg.",
    "MW-object reg.",
    "S-axis postions reg",
    "S-axis tilts reg",
    "Probe-Modulation",
)
TAIL = ("Free GiB", "Total GiB", "Warnings", "loss after update")


@dataclass(frozen=True)
class EpochRecord:
    """One epoch.

    Attributes
    ----------
    epoch : int
    time_s : float
        Since the start of the run.
    loss, sse : float
        At the start of the epoch; the loss includes all terms.
    initial_step, step : float
        First and final step of the line search.
    evaluations : int
        Loss and gradient evaluations of the line search.
    slope, new_slope : float
        Directional derivative before and after.
    loss_after : float
        Loss after the update.
    contributions : dict
        Value of every term at the start of the epoch.
    free_GiB, total_GiB : float
        Device memory, 0 on a CPU.
    warnings : str
    sweeps : int
        Sweeps of mini-batches before the epoch; `loss` is the one after them.
    """

    epoch: int
    time_s: float
    loss: float
    sse: float
    initial_step: float
    step: float
    evaluations: int
    slope: float
    new_slope: float
    loss_after: float
    contributions: dict[str, float] = field(default_factory=dict)
    free_GiB: float = 0.0
    total_GiB: float = 0.0
    warnings: str = ""
    sweeps: int = 0

    def row(self, detailed: bool) -> list[object]:
        """The values in the order of `columns`."""
        head = [self.epoch, f"{self.time_s:.3f}", self.loss, self.sse, self.initial_step, self.step]
        head += [self.evaluations, self.slope, self.new_slope]
        constraints = {k: v for k, v in self.contributions.items() if k != "data"}
        middle = (
            [constraints.get(name, 0.0) for name in EACH]
            if detailed
            else [sum(constraints.values())]
        )
        return [*head, *middle, self.free_GiB, self.total_GiB, self.warnings, self.loss_after]


def columns(detailed: bool) -> list[str]:
    """Column names; `detailed` is PyPty's ``save_loss_log=2``."""
    return [*HEAD, *(EACH if detailed else TOTAL), *TAIL]


class LossLog:
    """``loss.csv``, rewritten as a whole and renamed, so that it is complete at any moment.

    Parameters
    ----------
    path : Path
    detailed : bool
        One column per regulariser.
    first_epoch : int
        Above 0, rows of earlier epochs are kept from an existing file.
    earlier : sequence of EpochRecord, optional
        The earlier epochs, where they are known better than from a file.
    """

    def __init__(
        self,
        path: Path,
        detailed: bool = False,
        first_epoch: int = 0,
        earlier: Sequence[EpochRecord] | None = None,
    ) -> None:
        self._path = path
        self._detailed = detailed
        self._rows: list[list[object]] = []
        if earlier is not None:
            self._rows = [record.row(detailed) for record in earlier]
        elif first_epoch > 0 and path.exists():
            kept = [r for r in read_loss_csv(path) if int(r["epoch"]) < first_epoch]
            self._rows = [[row.get(name, "") for name in columns(detailed)] for row in kept]
        self._write()

    def append(self, record: EpochRecord) -> None:
        """Add an epoch and write the file."""
        self._rows.append(record.row(self._detailed))
        self._write()

    def _write(self) -> None:
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns(self._detailed))
        writer.writerows(self._rows)
        write_bytes(self._path, text.getvalue().encode())


def read_loss_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a ``loss.csv`` as dictionaries by column name."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_records(path: Path) -> list[EpochRecord]:
    """The epochs of a ``loss.csv``, be it one of PyPty; NaN where a column is missing or empty."""

    def number(row: dict[str, str], name: str) -> float:
        try:
            return float(row.get(name) or "nan")
        except ValueError:
            return float("nan")

    return [
        EpochRecord(
            epoch=int(float(row["epoch"])),
            time_s=number(row, "time / s"),
            loss=number(row, "loss"),
            sse=number(row, "sse"),
            initial_step=number(row, "initial step"),
            step=number(row, "matching step"),
            evaluations=int(float(row.get("N linesearch iterations") or 0)),
            slope=number(row, "dir. derivative"),
            new_slope=number(row, "new dir. derivative"),
            loss_after=number(row, "loss after update"),
            warnings=row.get("Warnings") or "",
        )
        for row in read_loss_csv(path)
        if row.get("epoch")
    ]
