"""Acquisition metadata from the JSON files of Nion Swift.

Where each quantity is looked up is written in `pyptyx.data.formats.nion`; the place of each hit is
logged, so that the user can see where each number came from.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyptyx.data.formats import nion
from pyptyx.errors import DataError, Problem

logger = logging.getLogger(__name__)

_MAX_BYTES = 64 << 20
"""A metadata file is small; anything larger is not one."""


@dataclass(frozen=True)
class Metadata:
    """What an acquisition file says; None where it says nothing.

    Attributes
    ----------
    acc_voltage_kV : float or None
        Accelerating voltage.
    scan_size : tuple of int or None
        ``(Ny, Nx)``.
    fov_nm : float or None
        Field of view along the fast axis.
    defocus_A : float or None
        Defocus in Å with the sign of pyptyx (overfocus > 0).
    """

    acc_voltage_kV: float | None = None
    scan_size: tuple[int, int] | None = None
    fov_nm: float | None = None
    defocus_A: float | None = None


_FIELDS = {
    "acc_voltage": "acc_voltage_kV",
    "scan_size": "scan_size",
    "fov_nm": "fov_nm",
    "defocus": "defocus_A",
}
"""Keys of the experiment and the fields of `Metadata` that hold them."""


def read_metadata(path: str | Path) -> Metadata:
    """Read a Nion Swift JSON file.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    Metadata

    Raises
    ------
    DataError
        If the file is missing, too large, or not a JSON object.
    """
    file = Path(path)
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise DataError(Problem("path_json", "a metadata file of at most 64 MiB", str(file)))
        tree = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        reason = getattr(error, "strerror", None) or error
        got = f"{file} ({reason})"
        problem = Problem("path_json", "a readable JSON file", got, "Check the path.")
        raise DataError(problem) from error
    if not isinstance(tree, Mapping):
        raise DataError(Problem("path_json", "a JSON object", f"{file}: {type(tree).__name__}"))
    found: dict[str, Any] = {}
    for entry in nion.calibrations(tree, file.name):
        if entry.key in _FIELDS:
            found[_FIELDS[entry.key]] = entry.value
            logger.info("%s = %s from %s", _FIELDS[entry.key], entry.value, entry.where)
    return Metadata(**found)
