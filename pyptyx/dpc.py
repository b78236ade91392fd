"""Differential phase contrast under PyPty's names, and `idpc`.

Centres of mass are in measured detector pixels, as `append_exp_params` writes them; phases are in
rad.  No dictionary or array given is modified.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pyptyx.engine.direct_dpc import CentreOfMass, finish, integrate_com
from pyptyx.methods import dpc
from pyptyx.methods.orientation import curl_deviation, find_orientation

__all__ = [
    "GetPLRotation",
    "fft_based_dpc",
    "get_curl",
    "idpc",
    "iterative_dpc",
    "iterative_poisson_solver",
]

Params = Mapping[str, Any]


def get_curl(angle: float, dpcx: np.ndarray, dpcy: np.ndarray) -> float:
    """Standard deviation of the curl of a field turned by `angle` (rad).

    Parameters
    ----------
    angle : float
        rad; a field recorded at the scan rotation φ has least curl at ``-φ``.
    dpcx, dpcy : ndarray (Ny, Nx)
        Centre of mass along x and y.
    """
    return curl_deviation(dpcx, dpcy, angle)


def GetPLRotation(dpcx: np.ndarray, dpcy: np.ndarray) -> float:
    """Scan rotation (``PLRotation_deg``) in rad, up to half a turn, that leaves the least curl.

    In closed form.  PyPty returns the opposite angle.

    Parameters
    ----------
    dpcx, dpcy : ndarray (Ny, Nx)
        Centre of mass along x and y, any unit.

    Raises
    ------
    ShapeError
        If the images differ in shape.
    """
    return find_orientation(dpcx, dpcy)[0].rotation_rad


def idpc(
    pypty_params: Params,
    method: str = "dct",
    *,
    comx: Any = None,
    comy: Any = None,
    select: Any = None,
    band_A: tuple[float, float] = (0.0, 0.0),
    remove_offset: bool = True,
    save: bool = False,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Phase of a scan from its centres of mass.

    Parameters
    ----------
    pypty_params : mapping
        Calibrated parameters.  Without ``PLRotation_deg`` the rotation is looked for.
    method : str
        ``"dct"`` (free boundaries, exact), ``"fft"`` (periodic), ``"wiener"`` (free boundaries, the
        blur of the probe is undone, needs ``conv_semiangle_mrad``), ``"masked"`` (`select`).
    comx, comy : ndarray, optional
        In measured pixels; by default those of the parameters, or from the data.
    select : ndarray of bool, optional
        Points of a grid that were measured; the others get 0.
    band_A : (float, float)
        Highpass and lowpass in 1/Å, 0 for none.
    remove_offset : bool
        Take the mean centre of mass for descan, else for a plane of the phase.
    save : bool
        Write ``dpc/idpc.npy``; ``save_preprocessing_files`` of the parameters wins.

    Returns
    -------
    phase : ndarray (Ny, Nx)
        rad, zero mean.
    params : dict
        A copy with ``comx, comy, PLRotation_deg``.
    """
    com = CentreOfMass(pypty_params, comx, comy, select=select, keep_offset=not remove_offset)
    phase, rotation = integrate_com(com, method)
    if any(band_A):
        phase = dpc.band_pass(phase, com.optics.step_A, *band_A)
    finish(pypty_params, "idpc", phase, save, plot=False)
    return phase, {**pypty_params, "comx": com.x, "comy": com.y, "PLRotation_deg": rotation}


def fft_based_dpc(
    pypty_params: Params,
    hpass: float = 0,
    lpass: float = 0,
    save: bool = False,
    comx: Any = None,
    comy: Any = None,
    plot: bool = False,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Phase by Fourier integration on a periodic field.

    Parameters
    ----------
    pypty_params : mapping
        Calibrated parameters.  Without ``PLRotation_deg`` the rotation is looked for.
    hpass, lpass : float
        ``φ̃ ~ q·COM / (hpass + q² + lpass q⁴)`` with ``q`` in cycles per scan step.
    save : bool
        Write ``dpc/idpc.npy``; ``save_preprocessing_files`` of the parameters wins.
    comx, comy : ndarray, optional
        In measured pixels; by default those of the parameters, or from the data.
    plot : bool
        Show the phase in an interactive session.

    Returns
    -------
    phase : ndarray (Ny, Nx)
        rad, zero mean.
    params : dict
        A copy with ``comx, comy, PLRotation_deg``.
    """
    com = CentreOfMass(pypty_params, comx, comy)
    step = com.optics.step_A
    phase, rotation = com.phase(
        lambda gy, gx: dpc.integrate_periodic(gy, gx, step, highpass=hpass, lowpass=lpass)
    )
    finish(pypty_params, "idpc", phase, save, plot)
    return phase, {**pypty_params, "comx": com.x, "comy": com.y, "PLRotation_deg": rotation}


def iterative_dpc(  # noqa: PLR0913
    pypty_params: Params,
    num_iterations: int = 100,
    beta: float = 0.5,
    hpass: float = 0,
    lpass: float = 0,
    step_size: float = 0.1,
    COMx: Any = None,
    COMy: Any = None,
    px_size: float | None = None,
    print_flag: bool = False,
    save: bool = False,
    select: Any = None,
    plot: bool = True,
    use_backtracking: bool = True,
    pad_width: int = 5,
) -> np.ndarray:
    """Phase of least squares with free boundaries, by preconditioned conjugate gradients.

    Parameters
    ----------
    pypty_params : mapping
        Calibrated parameters.  Without ``PLRotation_deg`` the rotation is looked for.
    num_iterations : int
        Largest number of iterations; a full field takes one.
    hpass, lpass : float
        Filter ``q² / (hpass + q² + lpass q⁴)`` of the result, ``q`` in cycles per scan step.
    COMx, COMy : ndarray, optional
        In measured pixels, ``(Ny, Nx)`` or one value per chosen point.
    px_size : float, optional
        Å, instead of ``scan_step_A``.
    save : bool
        Write ``dpc/iterative_dpc.npy``; ``save_preprocessing_files`` of the parameters wins.
    select : ndarray of bool, optional
        Points of a larger grid that were measured.
    plot : bool
        Show the phase in an interactive session.
    beta, step_size, print_flag, use_backtracking, pad_width
        PyPty's; without effect, as there are neither steps to choose nor boundaries to pad.

    Returns
    -------
    ndarray (Ny, Nx)
        rad, zero mean.
    """
    com = CentreOfMass(pypty_params, COMx, COMy, select=select, step_A=px_size)
    weight = np.ones(com.x.shape) if com.used is None else com.used
    step = com.optics.step_A
    phase, _ = com.phase(
        lambda gy, gx: dpc.integrate_weighted(gy, gx, step, weight, num_iterations)
    )
    phase = dpc.soft_filter(phase, hpass, lpass)
    finish({**pypty_params, "scan_step_A": step}, "iterative_dpc", phase, save, plot)
    return phase


def iterative_poisson_solver(  # noqa: PLR0913
    laplace: np.ndarray,
    num_iterations: int = 100,
    beta: float = 0.5,
    hpass: float = 0,
    lpass: float = 0,
    select: Any = None,
    px_size: float = 1,
    print_flag: bool = False,
    step_size: float = 0.1,
    use_backtracking: bool = True,
    pad_width: int = 1,
    xp: Any = np,
) -> np.ndarray:
    """Solution of ``∇²φ = laplace`` on a periodic field.

    Parameters
    ----------
    laplace : ndarray (Ny, Nx), or one value per chosen point
        In units of φ per square of that of `px_size`.
    hpass, lpass : float
        ``φ̃ ~ -f̃ / (hpass + q² + lpass q⁴)`` with ``q`` in cycles per pixel.
    select : ndarray of bool, optional
        Points of a larger grid where the Laplacian is known; elsewhere it is taken as 0.
    px_size : float
        Pixel size.
    num_iterations, beta, print_flag, step_size, use_backtracking, pad_width, xp
        PyPty's; without effect, as the solution is exact.

    Returns
    -------
    ndarray (Ny, Nx)
        Zero mean.
    """
    values = np.asarray(laplace, dtype=np.float64)
    if select is not None and values.ndim == 1:
        grid = np.zeros(np.shape(select))
        grid[np.asarray(select, dtype=bool)] = values
        values = grid
    return dpc.solve_poisson(values, px_size, highpass=hpass, lowpass=lpass)
