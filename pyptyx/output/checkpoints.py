"""Checkpoints in PyPty's file names, each written atomically, with a sidecar that names the epoch.

``co cp cg ct cs ca cb .npy``: object, probe, positions, tilts, static background (root),
aberrations, beam current, in the public layouts; numbered copies are
``checkpoint_<name>_epoch_N.npy``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pyptyx.files import write_array, write_bytes

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
        Loss of this state.
    """
    for key, array in arrays.items():
        write_array(folder / CURRENT[key], array)
    record = {
        "epoch": epoch,
        "loss": loss,
        "files": {key: CURRENT[key] for key in arrays},
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    write_bytes(folder / SIDECAR, json.dumps(record, indent=1).encode())


def save_numbered(folder: Path, arrays: Mapping[str, np.ndarray], epoch: int) -> None:
    """Write numbered copies of `arrays` (public, by key of the params dictionary)."""
    for key, array in arrays.items():
        write_array(folder / NUMBERED[key].format(epoch), array)
