"""From parameters to the bright-field images that the direct methods work on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyptyx.engine.patterns import model_pixels, open_patterns
from pyptyx.engine.setup import make_executor
from pyptyx.engine.start import beam_wavelength_A
from pyptyx.errors import ParamError, Problem
from pyptyx.executors import Executor
from pyptyx.methods.bright_field import DEFAULT_READING, BrightField, Reading, bright_field
from pyptyx.params import resolve

Params = Mapping[str, Any]


@dataclass(frozen=True)
class ScanOptics:
    """Numbers of an experiment that every direct method needs.

    Attributes
    ----------
    dk_A : (float, float)
        Measured detector pixel ``(y, x)`` in 1/Å.
    wavelength_A, step_A : float
        Wavelength and scan step in Å.
    scan_size : (int, int)
        ``(Ny, Nx)``.
    semiangle_rad : float or None
        Convergence semi-angle.
    """

    dk_A: tuple[float, float]
    wavelength_A: float
    step_A: float
    scan_size: tuple[int, int]
    semiangle_rad: float | None


def scan_optics(params: Params) -> ScanOptics:
    """Read the numbers from calibrated parameters.

    Raises
    ------
    ParamError
        With everything that is missing.
    """
    needed = {
        "scan_step_A": "the scan step in Å of a regular scan",
        "scan_size": "(Ny, Nx)",
        "rez_pixel_size_A": "the detector pixel in 1/Å",
    }
    remedy = "append_exp_params writes it"
    problems = [
        Problem(key, expected, "nothing", remedy)
        for key, expected in needed.items()
        if params.get(key) is None
    ]
    if not (params.get("acc_voltage") or params.get("wavelength_A")):
        problems.append(Problem("acc_voltage", "the voltage in kV", "nothing", "For example 300."))
    if problems:
        raise ParamError(problems)
    # rez_pixel_size_A belongs to the pixel of the model's pattern.
    dk = float(params["rez_pixel_size_A"]) * model_pixels(params)
    mrad = params.get("conv_semiangle_mrad")
    rows, columns = params["scan_size"]
    return ScanOptics(
        dk_A=(dk, dk),
        wavelength_A=beam_wavelength_A(params),
        step_A=float(params["scan_step_A"]),
        scan_size=(int(rows), int(columns)),
        semiangle_rad=None if mrad is None else 1e-3 * float(mrad),
    )


def open_executor(params: Params) -> Executor:
    """The workers that ``backend``, ``devices`` and ``executor`` ask for; to be closed after use.

    Direct methods take seconds: they work on the devices of one process.

    Raises
    ------
    ParamError, DeviceError
        If the keys are wrong, or devices are named that do not exist.
    """
    keys = ("backend", "devices", "executor")
    given = {key: params[key] for key in keys if params.get(key) is not None}
    # Compiled kernels and planned FFTs are for windows; here whole scans are transformed.
    return make_executor(resolve(given, need=()) | {"kernels": "reference"})


def open_bright_field(
    params: Params, n_bin: int | None = 1, *, most_bins: int = 1000, reading: Reading | None = None
) -> BrightField:
    """Read the data of an experiment once.

    Parameters
    ----------
    params : mapping
        Calibrated parameters, as `append_exp_params` makes them; not modified.
    n_bin : int or None
        Edge of a bin of detector pixels; None takes the smallest that leaves about `most_bins`.
    most_bins : int
        Number of bins for ``n_bin=None``.
    reading : Reading, optional
        Threshold of the disc, memory and scratch file.

    Returns
    -------
    BrightField
        In the frame of the detector as `params` describe it (``flip_ky``, ``transpose_patterns``).

    Raises
    ------
    ParamError
        If calibrations are missing.
    DataError, ShapeError
        If the data cannot be read or have no bright-field disc.
    """
    optics = scan_optics(params)
    with open_patterns(params) as source:
        return bright_field(
            source,
            dk_A=optics.dk_A,
            wavelength_A=optics.wavelength_A,
            step_A=optics.step_A,
            scan_size=optics.scan_size,
            semiangle_rad=optics.semiangle_rad,
            n_bin=_bin_edge(params, most_bins) if n_bin is None else n_bin,
            reading=reading or DEFAULT_READING,
        )


def _bin_edge(params: Params, most_bins: int) -> int:
    mask = params.get("aperture_mask")
    if mask is None or isinstance(mask, str):
        return 1
    pixels = np.count_nonzero(mask) / model_pixels(params) ** 2
    return max(1, math.ceil(math.sqrt(pixels / most_bins) - 0.05))
