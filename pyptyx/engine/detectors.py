"""Images of virtual detectors, and the aperture, from the data a params dictionary names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pyptyx.engine.beam import append_aperture_to_params
from pyptyx.engine.patterns import open_patterns
from pyptyx.errors import DataError, ParamError, Problem
from pyptyx.files import make_folder, replacing, write_array
from pyptyx.methods.virtual import annular_mask, detector_signal
from pyptyx.output.analysis_plots import plot_virtual_detector

_BRIGHT_THRESHOLD = 0.4
"""Of the aperture, as a fraction of the largest mean count."""

Ring = tuple[float, float, tuple[float, float]]


def virtual_image(
    params: Mapping[str, Any],
    name: str,
    *,
    ring: Ring | None = None,
    save: bool = True,
    show: bool | None = None,
) -> np.ndarray:
    """Signal of a virtual detector at every scan point.

    Parameters
    ----------
    params : mapping
        Names the data; with ``plot`` a figure is drawn.
    name : str
        Of the files ``.npy`` and, with ``plot``, ``.png`` in ``output_folder``.
    ring : tuple, optional
        Inner and outer radius and centre ``(y, x)`` of `annular_mask`.  Without one the result is
        minus the counts on the whole detector: what was scattered beyond it.
    save : bool
        Whether to write files; without an output folder nothing is written.
    show : bool, optional
        See `pyptyx.output.canvas.new_figure`.

    Returns
    -------
    ndarray (Ny, Nx), float64

    Raises
    ------
    ParamError
        If the scan size is not known, or the ring is empty.
    DataError
        If the data cannot be read, or a ring is asked of compressed data.
    """
    with open_patterns(params) as source:
        size = source.scan_size or params.get("scan_size")
        if size is None:
            remedy = "Give it, or 4-D data."
            raise ParamError(Problem("scan_size", "the numbers (Ny, Nx)", "nothing", remedy))
        if ring is not None and len(source.shape) == 2:
            expected = "patterns [N, ky, kx], to put a detector on"
            raise DataError(Problem(source.name, expected, f"compressed data {source.shape}"))
        ky_kx = (source.shape[-2], source.shape[-1])
        mask = None if ring is None else annular_mask(ky_kx, *ring)
        signal = detector_signal(source, mask)
    if signal.size != int(size[0]) * int(size[1]):
        expected = f"Ny Nx equal to the {signal.size} patterns"
        raise ParamError(Problem("scan_size", expected, f"{size[0]} x {size[1]}"))
    image = signal.reshape(int(size[0]), int(size[1]))
    image = -image if ring is None else image
    folder = params.get("output_folder") if save else None
    if folder:
        make_folder(Path(folder))
        write_array(Path(folder) / f"{name}.npy", image)
    if params.get("plot"):
        figure = plot_virtual_detector(image, mask, show=show)
        if folder:
            with replacing(Path(folder) / f"{name}.png") as temporary:
                figure.savefig(temporary)
    return image


def aperture_from_data(params: dict[str, Any]) -> dict[str, Any]:
    """Write ``aperture_mask``: where the mean pattern exceeds ``bright_threshold`` of its maximum.

    The mask is upsampled and padded like the patterns; the threshold is 0.4 if not given.

    Returns
    -------
    dict
        The same dictionary.
    """
    with open_patterns(params) as source:
        if len(source.shape) == 2:
            remedy = "Give aperture_mask."
            got = f"compressed data {source.shape}"
            raise DataError(Problem(source.name, "patterns [N, ky, kx]", got, remedy))
        mean = source.mean()
    threshold = params.get("bright_threshold")
    level = (_BRIGHT_THRESHOLD if threshold is None else threshold) * mean.max()
    append_aperture_to_params(params, (mean > level).astype(np.float64))
    params["aperture_mask"] = params["aperture_mask"] > 0
    return params
