"""Direct phase retrieval: images of thin specimens without iterations.

`direct_image` is the linear reconstruction with optimal weights (and SSB, OBF, tilt-corrected
bright field, integrated centre of mass), `wdd` the deconvolution for strong phases.  `live_image`
shows the former while the scan is running.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pyptyx.engine import direct_run
from pyptyx.engine.direct_live import LiveImage
from pyptyx.engine.direct_run import DirectImage
from pyptyx.files import write_array

__all__ = ["DirectImage", "LiveImage", "depth_sections", "direct_image", "live_image", "wdd"]

Params = dict[str, Any]


def direct_image(
    pypty_params: Params,
    kernel: str = "mf",
    upsample: float = 1,
    *,
    n_bin: int = 1,
    wiener: float | str | None = "halves",
    save: bool = False,
) -> DirectImage:
    """Phase image of a thin, weak specimen; see `pyptyx.engine.direct_run.reconstruct`.

    Files go to ``direct/`` in the output folder: ``phase_{kernel}.npy`` (rad) and ``.png``,
    ``ssnr_{kernel}.npy``, ``transfer_{kernel}.npy``, ``frc_{kernel}.npy``, ``info_{kernel}.json``.
    """
    image = direct_run.reconstruct(
        pypty_params, kernel, upsample=upsample, n_bin=n_bin, wiener=wiener
    )
    folder = direct_run.output_folder(pypty_params, "direct", save)
    if folder:
        direct_run.save_image(folder, image)
    return image


def depth_sections(
    pypty_params: Params,
    heights_A: Sequence[float],
    kernel: str = "mf",
    *,
    n_bin: int = 1,
    save: bool = False,
) -> np.ndarray:
    """Phases ``(Nz, Ny, Nx)`` in rad focused at several heights in Å (positive downstream).

    Saved as ``direct/depth_stack.npy``, the heights as ``direct/depth_stack_heights_A.npy``.
    """
    stack = direct_run.depth_stack(pypty_params, heights_A, kernel, n_bin)
    folder = direct_run.output_folder(pypty_params, "direct", save)
    if folder:
        write_array(folder / "depth_stack.npy", stack)
        write_array(folder / "depth_stack_heights_A.npy", np.asarray(heights_A, np.float64))
    return stack


def live_image(
    pypty_params: Params,
    kernel: str = "mf",
    *,
    reference: np.ndarray | None = None,
    n_bin: int = 1,
) -> LiveImage:
    """An image that is fed while the scan is running.

    The complete scan gives what `direct_image` gives of the file, with the same disc.

    Parameters
    ----------
    pypty_params : dict
        Calibrated parameters with ``scan_size``; no data are needed.  Not modified.
    kernel : {"mf", "ssb", "obf", "tcbf", "icom"}
        See `pyptyx.methods.linear`.
    reference : ndarray (ky, kx), optional
        Where the bright-field disc is: the mean pattern of an earlier scan or of vacuum, oriented
        like the patterns that will come; NaN where a pixel must not be used.  By default
        ``mean_pattern``.
    n_bin : int
        Edge of the bins of detector pixels; 2 to 4 keep up with fast scans.

    Returns
    -------
    LiveImage
        With ``add(patterns, points)``, ``add_row(row, patterns)``, ``image()`` and ``close()``.

    Raises
    ------
    ParamError
        If calibrations or the reference are missing, or the kernel is unknown.
    DataError
        If the reference has no bright-field disc.

    Examples
    --------
    >>> with pyptyx.live_image(params, reference=vacuum) as live:
    ...     for row, patterns in enumerate(detector):
    ...         live.add_row(row, patterns)
    ...         show(live.image().phase)
    """
    return LiveImage(pypty_params, kernel, reference=reference, n_bin=n_bin)


def wdd(
    pypty_params: Params,
    eps_wiener: float | str = 1e-3,
    thresh: float | None = None,
    save: bool | int = 0,
    *,
    damping: float = 1e-2,
    n_bin: int = 1,
) -> np.ndarray:
    """Complex object by Wigner distribution deconvolution.

    Parameters
    ----------
    pypty_params : dict
        Calibrated parameters; not modified.
    eps_wiener : float or "auto"
        Wiener constant relative to the largest transfer; ``"auto"`` takes it from the counts.
        About 1e-3 for 1e5 counts per pattern, 0.1 for 3e3, 1 for 300.
    thresh : float, optional
        Instead of the Wiener filter: use transfers above this fraction of the largest only.
    save : bool
        Write ``wdd/object.npy``; ``save_preprocessing_files`` overrules.
    damping : float
        Relative transfer at which a frequency is damped by half.
    n_bin : int
        Edge of the bins of detector pixels.

    Returns
    -------
    ndarray (Ny, Nx), complex128
        On the grid of the scan; modulus near 1 for a phase object, unlike PyPty's.

    Raises
    ------
    ParamError
        If calibrations are missing.
    DataError, ShapeError
        If the data cannot be read or have no bright-field disc.
    """
    image = direct_run.deconvolve(
        pypty_params, eps_wiener, threshold=thresh, damping=damping, n_bin=n_bin
    )
    folder = direct_run.output_folder(pypty_params, "wdd", save)
    if folder:
        write_array(folder / "object.npy", image)
    return image
