"""Everything an output folder holds, with the parameters that describe it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pyptyx.engine import export_folder
from pyptyx.engine.export_direct import DirectResults, direct_results, has_maps
from pyptyx.engine.setup import slice_gaps_A
from pyptyx.output import checkpoints
from pyptyx.params import load_params, resolve

PathLike = str | os.PathLike[str]

_DESCRIPTION = (
    *("acc_voltage", "wavelength_A", "pixel_size_y_A", "pixel_size_x_A"),
    *("slice_distances", "edge_slice_thickness"),
)
"""Parameters that give the arrays their coordinates."""


@dataclass(frozen=True)
class Results:
    """Everything an output folder holds.

    Attributes
    ----------
    folder : Path
    params : dict
        As they were saved: of the run, or else of the first direct method.
    known : dict
        Those that describe the arrays, complete and checked.
    arrays : dict of ndarray
        Current checkpoint in the public layouts, as memory maps; empty without a run.
    loss : dict of list
        Columns of the loss log.
    direct : list of DirectResults
    """

    folder: Path
    params: dict[str, Any]
    known: dict[str, Any]
    arrays: dict[str, np.ndarray]
    loss: dict[str, list[Any]]
    direct: list[DirectResults]

    @property
    def pixel_A(self) -> tuple[float, float]:
        """Pixel of the object ``(y, x)`` in Å."""
        return self.known["pixel_size_y_A"], self.known["pixel_size_x_A"]

    @property
    def gaps_A(self) -> tuple[float, ...]:
        """Distances of the slices in Å."""
        return tuple(slice_gaps_A(self.known, self.arrays["obj"].shape[2]))

    @property
    def newest(self) -> Path:
        """A file that was written last."""
        if self.arrays:
            return self.folder / checkpoints.CURRENT["obj"]
        return max(self.direct[0].folder.glob("*.npy"), key=lambda path: path.stat().st_mtime)


def open_results(folder_path: PathLike) -> Results:
    """Read what an output folder holds.

    Parameters
    ----------
    folder_path : path
        Of a run, with ``co.npy``, ``cp.npy``, ``cg.npy`` and the parameters, or of direct methods,
        with their folders.

    Raises
    ------
    DataError
        With one problem for each file that is missing or damaged.
    ParamError
        If the parameters do not fit the arrays.
    """
    folder = Path(folder_path)
    only_direct = not export_folder.has_run(folder) and has_maps(folder)
    arrays = {} if only_direct else export_folder.current_arrays(folder)
    params = {} if only_direct else load_params(folder)
    direct = direct_results(folder, params)
    params = params or next((results.params for results in direct if results.params), {})
    slices = {"num_slices": arrays["obj"].shape[2]} if arrays else {}
    known = resolve({k: params[k] for k in _DESCRIPTION if k in params} | slices, need=())
    loss = export_folder.loss_columns(folder / "loss.csv") if arrays else {}
    return Results(folder, params, known, arrays, loss, direct)
