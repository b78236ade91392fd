"""Checkpoints in PyPty's file names, each written atomically, with a sidecar that names the epoch.

``co cp cg ct cs ca cb .npy``: object, probe, positions, tilts, static background (root),
aberrations, beam current, in the public layouts; numbered copies are
``checkpoint_<name>_epoch_N.npy``.
"""

from __future__ import annotations

import json
import logging
import math
import re
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pyptyx.errors import DataError, Problem
from pyptyx.files import write_array, write_bytes
from pyptyx.output.losslog import read_loss_csv

logger = logging.getLogger(__name__)

CURRENT = {
    "obj": "co.npy",
    "probe": "cp.npy",
    "positions": "cg.npy",
    "tilts": "ct.npy",
    "static_background": "cs.npy",
    "aberrations_array": "ca.npy",
    "beam_current": "cb.npy",
}
"""Key of the params dictionary -> file that is overwritten."""

NUMBERED = {
    "obj": "checkpoint_obj_epoch_{}.npy",
    "probe": "checkpoint_probe_epoch_{}.npy",
    "positions": "checkpoint_positions_epoch_{}.npy",
    "tilts": "checkpoint_tilts_epoch_{}.npy",
    "static_background": "checkpoint_stback_epoch_{}.npy",
    "aberrations_array": "checkpoint_aberrations_epcoh_{}.npy",
    "beam_current": "checkpoint_beam_current_epoch_{}.npy",
}
"""Key -> numbered file; the spelling of the aberrations' name is part of the format."""

SIDECAR = "checkpoint.json"


def save_current(folder: Path, arrays: Mapping[str, np.ndarray], epoch: int, loss: float) -> None:
    """Overwrite the current checkpoint.

    Parameters
    ----------
    folder : Path
    arrays : mapping
        Public arrays by key of the params dictionary.
    epoch : int
        Epochs completed.
    loss : float
        Loss of this state; NaN if it is not known yet.
    """
    for key, array in arrays.items():
        write_array(folder / CURRENT[key], array)
    record = {
        "epoch": epoch,
        "loss": loss if math.isfinite(loss) else None,
        "files": {key: CURRENT[key] for key in arrays},
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    write_bytes(folder / SIDECAR, json.dumps(record, indent=1).encode())


def save_numbered(folder: Path, arrays: Mapping[str, np.ndarray], epoch: int) -> None:
    """Write numbered copies of `arrays` (public, by key of the params dictionary)."""
    for key, array in arrays.items():
        write_array(folder / NUMBERED[key].format(epoch), array)


def discard_sidecar(folder: Path) -> None:
    """Forget which epoch the current files belong to: they are those of another run."""
    (folder / SIDECAR).unlink(missing_ok=True)


def newest(
    folder: Path, every: int, epochs: tuple[int, int]
) -> tuple[int, dict[str, np.ndarray]] | None:
    """The newest arrays of a folder, be it one of PyPty.

    Current files belong to the epoch of ``checkpoint.json``, or else, if PyPty wrote them, to the
    last epoch of the loss log at which they were due.  A quantity without a numbered copy is taken
    from an older one, or from the current file.

    Parameters
    ----------
    folder : Path
    every : int
        ``save_inter_checkpoints`` of the run.
    epochs : tuple of int
        ``epoch_prev`` and ``epoch_max`` of the run.

    Returns
    -------
    epoch : int
        Number of the next epoch.
    arrays : dict
        Public arrays by key of the params dictionary.

    None is returned where there are no arrays.
    """
    logged = _last_logged(folder)
    candidates: list[tuple[int, dict[str, Path]]] = []
    current = {k: folder / name for k, name in CURRENT.items() if (folder / name).is_file()}
    known = _sidecar_epoch(folder)
    if known is None and not (folder / "params.json").exists():
        known = _due_epoch(logged, every, epochs)
    if "obj" in current and known is not None:
        candidates.append((known, current))
    numbered = _numbered(folder)
    for n in sorted({n for copies in numbered.values() for n in copies}, reverse=True):
        if logged is None or n <= logged:  # later ones are left over from another run
            files = dict(current)
            for key, copies in numbered.items():
                older = [m for m in copies if m <= n]
                if older:
                    files[key] = copies[max(older)]
            candidates.append((n + 1, files))
    for epoch, files in sorted(candidates, key=lambda c: -c[0]):
        try:
            return epoch, {key: _load(path) for key, path in files.items()}
        except DataError as error:
            logger.warning("passed over: %s", error)
    return None


def _numbered(folder: Path) -> dict[str, dict[int, Path]]:
    """Key -> number -> file."""
    found: dict[str, dict[int, Path]] = {key: {} for key in NUMBERED}
    for key, template in NUMBERED.items():
        pattern = re.compile(re.escape(template).replace(r"\{\}", r"(\d+)"))
        for path in folder.glob(template.format("*")):
            match = pattern.fullmatch(path.name)
            if match:
                found[key][int(match[1])] = path
    return found


def _sidecar_epoch(folder: Path) -> int | None:
    try:
        return int(json.loads((folder / SIDECAR).read_text())["epoch"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _last_logged(folder: Path) -> int | None:
    """The last epoch of the loss log; -1 if it has none, None without a log."""
    try:
        rows = read_loss_csv(folder / "loss.csv")
        return int(float(rows[-1]["epoch"])) if rows else -1
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _due_epoch(logged: int | None, every: int, epochs: tuple[int, int]) -> int:
    """The epoch after the last one at which PyPty has written its current files."""
    first, last = epochs
    if logged is None or logged < first:
        return first
    if logged >= last - 1 or every == 1:
        return logged + 1
    return logged - logged % every + 1 if every else first


def _load(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(Problem(str(path), "a complete .npy file", str(error))) from error
