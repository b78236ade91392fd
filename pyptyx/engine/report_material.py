"""What a report is made of: parameters, arrays and log, from a folder or from a finished run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pyptyx.engine import resume
from pyptyx.engine.setup import slice_gaps_A
from pyptyx.engine.start import initial_positions
from pyptyx.errors import DataError, Problem
from pyptyx.output import checkpoints, plots, store
from pyptyx.output.losslog import EpochRecord, read_records
from pyptyx.params import resolve

if TYPE_CHECKING:
    from pyptyx.engine.run import Result

_SILENCE = (60.0, 10.0)
"""Seconds, and mean epochs, without a sign of life after which a run is taken for dead."""


@dataclass(frozen=True)
class Material:
    """A reconstruction as it is.

    Attributes
    ----------
    title : str
        Name of the sample, or of the folder.
    folder : Path or None
        Where it lies.
    params : mapping
        Resolved parameters of the run.
    epoch : int
        Epochs done.
    arrays : mapping
        Public arrays by key of the params dictionary: ``obj``, ``probe``, ``positions`` ...
    records : tuple of EpochRecord
        The log.
    status : str
        Whether it goes on or has ended, in words.
    finished : bool
        It has ended by itself.
    alive : bool
        It goes on.
    """

    title: str
    folder: Path | None
    params: Mapping[str, Any]
    epoch: int
    arrays: Mapping[str, np.ndarray]
    records: tuple[EpochRecord, ...]
    status: str
    finished: bool
    alive: bool

    @property
    def pixel_A(self) -> tuple[float, float]:
        """Pixel size of the object (y, x) in Å."""
        return float(self.params["pixel_size_y_A"]), float(self.params["pixel_size_x_A"])

    @property
    def obj(self) -> np.ndarray:
        """Object (Y, X, Nz, Mo)."""
        return self.arrays["obj"]

    @property
    def probe(self) -> np.ndarray:
        """Probe (ny, nx, Mp, Ns)."""
        probe = self.arrays["probe"]
        return probe.reshape(probe.shape + (1,) * (4 - probe.ndim))

    @property
    def gaps_A(self) -> tuple[float, ...]:
        """Distances between the slices in Å."""
        return slice_gaps_A(self.params, self.obj.shape[2])

    @property
    def field(self) -> plots.Field:
        """Rows and columns of the object between the outermost beam centres."""
        return plots.scanned_field(self.arrays["positions"], self._window)

    @property
    def mask(self) -> np.ndarray:
        """Pixels of the object that the beam centres surround, (Y, X)."""
        return plots.scanned_mask(self.arrays["positions"], self._window, self.obj.shape[:2])

    @property
    def displacements_px(self) -> np.ndarray:
        """Shift (N, 2) of every position since the start, without the mean, which is open."""
        moved = self.arrays["positions"] - initial_positions(self.params)
        return moved - moved.mean(axis=0)

    @property
    def _window(self) -> tuple[int, int]:
        ny, nx = self.arrays["probe"].shape[:2]
        return int(ny), int(nx)


def from_folder(folder: Path) -> Material:
    """The newest state of an output folder, also while the run goes on.

    Raises
    ------
    DataError
        If the folder holds no parameters or no arrays yet, or they are damaged.
    """
    saved = resume.saved_params(folder)
    params = resolve(saved, need=())
    limits = int(params["epoch_prev"]), int(params["epoch_max"])
    found = checkpoints.newest(folder, int(params["save_inter_checkpoints"]), limits)
    missing = {"obj", "probe", "positions"} - (found[1].keys() if found else set())
    if found is None or missing:
        expected = f"arrays {', '.join(checkpoints.CURRENT[k] for k in sorted(missing))}"
        remedy = "A run saves them when it begins; try again in a moment"
        raise DataError(Problem(str(folder), expected, "none of them", remedy))
    epoch, arrays = found
    log = folder / "loss.csv"
    records = tuple(read_records(log)) if log.is_file() else ()
    status, finished, alive = _status(folder, epoch, limits[1], records)
    title = str(params.get("sample_name") or folder.resolve().name)
    _require_fit(folder, arrays)
    return Material(title, folder, params, epoch, arrays, records, status, finished, alive)


def from_result(result: Result) -> Material:
    """The state a run has returned."""
    arrays = {"obj": result.object, "probe": result.probe, "positions": result.positions}
    for key in ("tilts", "static_background", "beam_current", "aberrations_array"):
        if getattr(result, key) is not None:
            arrays[key] = getattr(result, key)
    folder = result.folder
    title = result.params.get("sample_name") or (folder.resolve().name if folder else "result")
    records = tuple(result.losses)
    epoch = records[-1].epoch + 1 if records else int(result.params.get("epoch_prev", 0))
    reason = result.stop_reason
    return Material(str(title), folder, result.params, epoch, arrays, records, reason, True, False)


def for_comparison(material: Material) -> dict[str, Any]:
    """Parameters that hold the arrays, to be taken as they are."""
    return resume.started_from(material.params, material.arrays, material.epoch)


def _status(
    folder: Path, epoch: int, last: int, records: tuple[EpochRecord, ...]
) -> tuple[str, bool, bool]:
    """In words, whether it has ended by itself, and whether it goes on."""
    reason = store.stop_reason(folder)
    if not reason and epoch >= last:
        reason = f"epoch_max={last} reached"
    if reason:
        return f"finished: {reason}", True, False
    signs = [folder / name for name in ("loss.csv", checkpoints.SIDECAR, "params.json")]
    silent_s = time.time() - max((p.stat().st_mtime for p in signs if p.exists()), default=0.0)
    per_epoch = records[-1].time_s / len(records) if records else 0.0
    seconds, epochs = _SILENCE
    if silent_s < max(seconds, epochs * (per_epoch if np.isfinite(per_epoch) else 0.0)):
        return f"running: epoch {epoch} of {last}", False, True
    return f"stopped after epoch {epoch} of {last}, perhaps killed", False, False


def _require_fit(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Arrays of one moment: files are written one after the other."""
    positions, window = arrays["positions"], arrays["probe"].shape[:2]
    last = np.rint(positions.max(axis=0)).astype(int) + window
    if arrays["obj"].ndim != 4 or np.any(last > arrays["obj"].shape[:2]):
        got = f"an object {arrays['obj'].shape} and windows that reach {tuple(last.tolist())}"
        remedy = "If the run is just being saved, try again in a moment"
        raise DataError(Problem(str(folder), "arrays of one moment", got, remedy))
