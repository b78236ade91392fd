"""Differential phase contrast from parameters: centres of mass, orientation, integration, files."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy.stats import skew

from pyptyx.engine.direct_data import scan_optics
from pyptyx.engine.direct_run import output_folder
from pyptyx.engine.patterns import open_patterns, survey
from pyptyx.errors import ParamError, Problem, ShapeError
from pyptyx.files import write_array
from pyptyx.methods import dpc
from pyptyx.methods.gamma import Pupil
from pyptyx.methods.orientation import find_orientation, scan_frame
from pyptyx.output.direct_plots import plot_image

logger = logging.getLogger(__name__)

Params = Mapping[str, Any]
Solve = Callable[[np.ndarray, np.ndarray], np.ndarray]

METHODS = ("dct", "fft", "wiener", "masked")

_CLEARLY_LESS = 0.8
"""Ratio of curls below which the other handedness of the detector is worth a warning."""


class CentreOfMass:
    """Centre-of-mass images in the frame of the detector, and the way to a phase.

    Parameters
    ----------
    params : mapping
        Calibrated parameters; not modified.
    comx, comy : ndarray, optional
        In measured pixels, ``(Ny, Nx)`` or one value per chosen point; by default those of the
        parameters, or computed from the data.
    select : ndarray of bool, optional
        The points of a grid that were measured.
    step_A : float, optional
        Instead of ``scan_step_A``.
    keep_offset : bool
        Keep the mean, which is a plane of the phase; otherwise it is taken for descan.

    Raises
    ------
    ParamError, ShapeError
        If calibrations are missing, or the images do not fit the scan.
    """

    def __init__(
        self,
        params: Params,
        comx: Any = None,
        comy: Any = None,
        *,
        select: Any = None,
        step_A: float | None = None,
        keep_offset: bool = False,
    ):
        if step_A is not None:
            params = {**params, "scan_step_A": step_A}
        if select is not None:
            params = {**params, "scan_size": np.shape(select)}
        elif params.get("scan_size") is None and np.ndim(comx) == 2:
            params = {**params, "scan_size": np.shape(comx)}
        if not (params.get("acc_voltage") or params.get("wavelength_A")):
            params = {**params, "wavelength_A": math.nan}  # asked for only where it is needed
        self.params, self.optics = params, scan_optics(params)
        if comx is None or comy is None:
            comx, comy = params.get("comx"), params.get("comy")
        if comx is None or comy is None:
            comx, comy = _measured(params)
        self.used = None if select is None else np.asarray(select, dtype=bool)
        self.x, self.y = (self._on_grid(c, keep_offset) for c in (comx, comy))

    def _on_grid(self, com: Any, keep_offset: bool) -> np.ndarray:
        values = np.asarray(com, dtype=np.float64)
        if not keep_offset:
            values = values - values.mean()
        if self.used is not None and values.ndim == 1 and values.size == self.used.sum():
            grid = np.zeros(self.used.shape)
            grid[self.used] = values
            return grid
        if values.size != math.prod(self.optics.scan_size):
            expected = f"shape {self.optics.scan_size}, that of the scan"
            if self.used is not None:
                expected += f", or {int(self.used.sum())} values, those of `select`"
            raise ShapeError(Problem("comx, comy", expected, str(values.shape)))
        return values.reshape(self.optics.scan_size)

    def gradient(self, rotation_rad: float) -> tuple[np.ndarray, np.ndarray]:
        """Gradient of the phase ``(y, x)`` in rad/Å along the scan."""
        dky, dkx = self.optics.dk_A
        gy, gx = scan_frame(2 * np.pi * dkx * self.x, 2 * np.pi * dky * self.y, rotation_rad)
        return gy, gx

    def phase(self, solve: Solve) -> tuple[np.ndarray, float]:
        """Phase in rad, and the rotation in degrees, which is looked for where it is not known.

        Parameters
        ----------
        solve : callable
            From a gradient ``(y, x)`` to a phase.
        """
        given = self.params.get("PLRotation_deg")
        if given not in (None, "auto"):
            return solve(*self.gradient(math.radians(float(given)))), float(given)
        plain, exchanged = find_orientation(self.x, self.y)
        if exchanged.curl_ratio < _CLEARLY_LESS * plain.curl_ratio:
            logger.warning(
                "The centre of mass has less curl with the detector axes exchanged (%.2f, not "
                "%.2f): see transpose_patterns",
                exchanged.curl_ratio,
                plain.curl_ratio,
            )
        angle = plain.rotation_rad
        phase = solve(*self.gradient(angle))
        if skew(phase.ravel()) < 0:
            angle, phase = angle + math.pi, -phase
        logger.info(
            "PLRotation_deg = %.2f from the centre of mass (curl ratio %.2f); half a turn more or "
            "less reverses the contrast, this one makes atoms bright",
            math.degrees(angle),
            plain.curl_ratio,
        )
        return phase, math.degrees(math.remainder(angle, 2 * math.pi))


def integrate_com(com: CentreOfMass, method: str) -> tuple[np.ndarray, float]:
    """Phase in rad and rotation in degrees by one of `METHODS`.

    Raises
    ------
    ParamError
        For another method, or missing optics of ``"wiener"``.
    """
    if method not in METHODS:
        raise ParamError(Problem("method", f"one of {', '.join(METHODS)}", repr(method)))
    step = com.optics.step_A
    if method == "fft":
        return com.phase(lambda gy, gx: dpc.integrate_periodic(gy, gx, step))
    if method == "wiener":
        pupil = _pupil(com)

        def deconvolve(gy: np.ndarray, gx: np.ndarray) -> np.ndarray:
            mirrored = (2 * gy.shape[0], 2 * gy.shape[1])
            rotation = math.radians(float(com.params.get("PLRotation_deg") or 0))
            otf = dpc.transfer_function(mirrored, step, pupil, rotation)
            return dpc.deconvolve(gy, gx, step, otf, dpc.noise_variance(gy, gx)).phase

        return com.phase(deconvolve)
    if method == "masked" or com.used is not None:
        weight = np.ones(com.x.shape) if com.used is None else com.used
        return com.phase(lambda gy, gx: dpc.integrate_weighted(gy, gx, step, weight))
    return com.phase(lambda gy, gx: dpc.integrate(gy, gx, step))


def finish(params: Params, name: str, phase: np.ndarray, save: bool, plot: bool) -> None:
    """Save a phase as ``dpc/NAME.npy`` and show it, as the parameters and the arguments say."""
    folder = output_folder(params, "dpc", save)
    if folder:
        write_array(folder / f"{name}.npy", phase)
    if plot:
        plot_image(phase, float(params.get("scan_step_A") or 1.0), "phase / rad")


def _measured(params: Params) -> tuple[np.ndarray, np.ndarray]:
    with open_patterns(params) as source:
        seen = survey(source, with_com=True)
    if seen.comx is None or seen.comy is None:
        raise ParamError(Problem("comx, comy", "centres of mass, or patterns", "neither"))
    return seen.comx, seen.comy


def _pupil(com: CentreOfMass) -> Pupil:
    semiangle, wavelength = com.optics.semiangle_rad, com.optics.wavelength_A
    problems = []
    if semiangle is None:
        problems.append(Problem("conv_semiangle_mrad", "the convergence semi-angle", "nothing"))
    if math.isnan(wavelength):
        problems.append(Problem("acc_voltage", "the voltage in kV", "nothing"))
    if problems or semiangle is None:
        raise ParamError(problems)
    given = com.params.get("aberrations")
    aberrations = [0.0] if given is None or len(given) == 0 else [float(c) for c in given]
    aberrations[0] += float(com.params.get("extra_probe_defocus") or 0.0)
    return Pupil(tuple(aberrations), wavelength, semiangle)
