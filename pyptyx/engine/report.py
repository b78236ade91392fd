"""A report on a reconstruction: one page that shows it, and a JSON file with every number of it.

Works on the output folder of a run that is going on as well as of one that has ended.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pyptyx import __version__
from pyptyx.engine import half_data, report_material
from pyptyx.engine.findings import RULES, Finding, findings
from pyptyx.engine.report_facts import facts, plain_facts
from pyptyx.engine.report_material import Material
from pyptyx.engine.report_sections import Content, overview, sections
from pyptyx.engine.residuals import Comparison, Residuals, fitted_numbers, spread_out
from pyptyx.errors import DataError, ProblemError
from pyptyx.files import make_folder, write_bytes
from pyptyx.output.report_page import Page, Section, Warned

if TYPE_CHECKING:
    from pyptyx.engine.run import Result

logger = logging.getLogger(__name__)

PATTERNS = 1024
"""So many patterns, evenly spread, are compared with the model unless more are asked for."""

_WAVE_PIXELS = 1 << 27
"""Pixels of waves, slice by slice, that a CPU computes in a few seconds."""

_FEWEST = 64
"""Patterns below which a comparison says little."""

FORMAT = "pyptyx-report"


@dataclass(frozen=True)
class Report:
    """A report.

    Attributes
    ----------
    content : Content
        Everything it is made from.
    findings : list of Finding
        What is suspicious, with remedies.
    """

    content: Content
    findings: list[Finding]

    @property
    def material(self) -> Material:
        """The reconstruction."""
        return self.content.material

    def page(self, refresh_s: float | None = None) -> Page:
        """The whole page; a browser loads it again every `refresh_s`."""
        footer = f"pyptyx {__version__}, {time.strftime('%Y-%m-%d %H:%M:%S %Z')}"
        return Page(
            title=self.material.title,
            status=self.material.status,
            cards=self._cards(),
            warnings=self._warnings(),
            checked=len(RULES),
            sections=sections(self.content),
            footer=footer,
            refresh_s=refresh_s,
        )

    def summary(self) -> Page:
        """The numbers, the warnings, the phase and the loss."""
        shown = [Section("", [overview(self.material)])]
        title, status = self.material.title, self.material.status
        return Page(title, status, self._cards(), self._warnings(), len(RULES), shown)

    def as_dict(self) -> dict[str, Any]:
        """Every number, for JSON; None stands for what is not known."""
        c, m = self.content, self.material
        return {
            "format": FORMAT,
            "version": __version__,
            "title": m.title,
            "status": m.status,
            "pixel_size_A": list(m.pixel_A),
            "object_shape": list(m.obj.shape),
            "probe_shape": list(m.probe.shape),
            "slice_distances_A": list(m.gaps_A),
            "facts": _plain(plain_facts(c.facts)),
            "findings": [vars(f) for f in self.findings],
            "log": [_plain(vars(record)) for record in m.records],
            "displacements_px": _plain(m.displacements_px),
            "beam_current": _plain(m.arrays.get("beam_current")),
            "fitted": None if c.fitted is None else _plain(vars(c.fitted)),
            "held_out": None if c.held_out is None else _plain(vars(c.held_out)),
            "note": c.note,
            "half_data": None if c.half is None else half_data.as_dict(c.half),
        }

    def _cards(self) -> list[tuple[str, str]]:
        f, records = self.content.facts, self.material.records
        cards = [("epochs", str(f.epochs))]
        optional = (
            ("loss", f.loss, "{:.5g}"),
            ("χ² fitted", f.chi2, "{:.3f}"),
            ("χ² held out", f.chi2_held_out, "{:.3f}"),
            ("explained", None if f.explained is None else min(f.explained, 1), "{:.0%}"),
            ("resolution (1/7)", f.resolution_A, "≤ " * f.resolution_limited + "{:.3g} Å"),
            ("dose", f.dose_per_A2, _DOSE),
            ("overlap", f.overlap, "{:.1%}"),
            ("time", records[-1].time_s if records else None, "{:.4g} s"),
        )
        cards += [(n, text.format(v)) for n, v, text in optional if v is not None]
        y, x, slices, modes = self.material.obj.shape
        cards.append(("object", f"{y} × {x} px"))
        cards.append(("slices, modes", f"{slices}, {modes} × {self.material.probe.shape[2]}"))
        return cards

    def _warnings(self) -> list[Warned]:
        return [Warned(f.title, f.observation, f.remedy) for f in self.findings]


def make_report(
    output_folder: str | PathLike[str],
    *,
    patterns: int = PATTERNS,
    changes: Mapping[str, Any] | None = None,
) -> Report:
    """Look at the newest state of an output folder.

    Parameters
    ----------
    output_folder : path
        Folder of a run that is going on or has ended.
    patterns : int
        Largest number of fitted patterns, and of patterns held out, that are compared with the
        model; 0 leaves the data alone.
    changes : mapping, optional
        Keys that differ from the run, for instance ``dataset`` if the data were in memory.

    Returns
    -------
    Report

    Raises
    ------
    DataError
        If the folder holds no parameters or no arrays, or they are damaged.
    """
    folder = Path(output_folder)
    return _report(report_material.from_folder(folder), patterns, changes, half_data.load(folder))


def report_on(result: Result, *, patterns: int | None = 0) -> Report:
    """Look at what a run has returned.

    Parameters
    ----------
    result : Result
    patterns : int or None
        As for `make_report`; None compares as many as takes a few seconds, or none if those are
        too few.
    """
    if patterns is None:
        modes = math.prod(result.object.shape[2:]) * result.probe.shape[2]
        affordable = _WAVE_PIXELS // (math.prod(result.probe.shape[:2]) * modes)
        patterns = min(affordable, PATTERNS) if affordable >= _FEWEST else 0
    return _report(report_material.from_result(result), patterns, None, None)


def write_report(
    report: Report, path: str | PathLike[str], refresh_s: float | None = None
) -> tuple[Path, Path]:
    """Write the page, and a JSON file with the same name beside it.

    Parameters
    ----------
    report : Report
    path : path
        Of the page, by custom ending in ``.html``.
    refresh_s : float, optional
        A browser that shows the page loads it again every so many seconds.

    Returns
    -------
    tuple of Path
        The page and the JSON file.

    Raises
    ------
    OutputError
        If one cannot be written.
    """
    page = Path(path)
    numbers = page.with_suffix(".json")
    make_folder(page.parent)
    text = json.dumps(report.as_dict(), indent=1, allow_nan=False, ensure_ascii=False)
    write_bytes(numbers, text.encode())
    write_bytes(page, report.page(refresh_s).html().encode())
    return page, numbers


def watch(
    output_folder: str | PathLike[str],
    path: str | PathLike[str],
    every_s: float,
    *,
    patterns: int = PATTERNS,
    changes: Mapping[str, Any] | None = None,
    wait: Callable[[float], None] = time.sleep,
) -> Report:
    """Write the report again and again until the run ends or stays silent.

    A state that is just being written, and a folder whose run has not begun, are tried again.

    Parameters
    ----------
    output_folder : path
        Folder of the run.
    path : path
        Of the page; a browser that shows it follows.
    every_s : float
        Seconds between two reports.
    patterns, changes
        As for `make_report`.
    wait : callable
        What passes the time.

    Returns
    -------
    Report
        The last one.

    Raises
    ------
    DataError
        If the folder is not that of a run after three tries.
    OutputError
        If the page cannot be written.
    """
    failures = 0
    while True:
        try:
            report = make_report(output_folder, patterns=patterns, changes=changes)
        except DataError as error:
            failures += 1
            if failures >= _TRIES:
                raise
            logger.warning("%s", error)
        else:
            failures = 0
            alive = report.material.alive
            write_report(report, path, every_s if alive else None)
            logger.info("epoch %d, %s", report.material.epoch, report.material.status)
            if not alive:
                return report
        wait(every_s)


_TRIES = 3

_DOSE = "{:.0f} /Å²"


def _report(
    material: Material,
    patterns: int,
    changes: Mapping[str, Any] | None,
    half: half_data.HalfData | None,
) -> Report:
    fitted, held_out, note = _compared(material, patterns, changes)
    known = facts(material, fitted, held_out, half)
    return Report(Content(material, known, fitted, held_out, note, half), findings(known))


def _compared(
    material: Material, patterns: int, changes: Mapping[str, Any] | None
) -> tuple[Residuals | None, Residuals | None, str]:
    """Fitted patterns, patterns held out, and what is to be said about that."""
    if patterns <= 0:
        return None, None, "The data were not looked at."
    params = {**report_material.for_comparison(material), **dict(changes or {})}
    try:
        with Comparison(params) as comparison:
            everything = np.arange(comparison.measurements)
            used = fitted_numbers(material.params, len(everything))
            spare = np.setdiff1d(everything, used)
            fitted = comparison.of(spread_out(used, patterns))
            held_out = comparison.of(spread_out(spare, patterns)) if len(spare) else None
    except ProblemError as error:
        # Arrays and log are worth showing without the data, which may lie on another machine.
        logger.warning("the data cannot be compared: %s", error)
        return None, None, f"The data cannot be compared with the model: {error}"
    left_out = len(used) - len(fitted.numbers)
    note = f"{left_out} more fitted patterns were left out to save time." if left_out else ""
    return fitted, held_out, note


def _plain(value: Any) -> Any:
    """Numbers, lists and texts that JSON knows; NaN and infinities become None."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


__all__ = ["PATTERNS", "Report", "make_report", "report_on", "watch", "write_report"]
