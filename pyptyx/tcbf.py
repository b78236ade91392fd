"""Tilt-corrected bright field under PyPty's names: alignment fits, and images finer than the scan.

Aberrations are in the frame of the detector, unlike PyPty's: what a fit returns is what the probe
is made of.  Parameters come back as a copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pyptyx.engine import direct_align, direct_run
from pyptyx.files import write_array

__all__ = ["run_tcbf_alignment", "run_tcbf_compressed_alignment", "upsampled_tcbf"]

Params = dict[str, Any]


def run_tcbf_alignment(  # noqa: PLR0913 - PyPty's signature
    params: Params,
    binning_for_fit: Sequence[int] = (8,),
    save: bool = True,
    optimize_angle: bool = True,
    aberrations: Sequence[float] | None = None,
    n_aberrations_to_fit: int = 12,
    reference_type: str = "bf",
    ctf_sign_flip: bool = False,
    refine_box_dim: int = 10,
    upsample: int = 3,
    cross_corr_type: str = "phase",
    cancel_large_shifts: float | None = None,
    pattern_blur_width: float | None = None,
    scan_pad: int | None = None,
    aperture: np.ndarray | None = None,
    subscan_region: Sequence[int] | None = None,
    compensate_lowfreq_drift: float | bool = False,
    append_lowfreq_shifts_to_params: bool = True,
    interpolate_scan_factor: int = 1,
    binning_cross_corr: int = 1,
    phase_cross_corr_formula: bool = False,
    f_scale_lsq: float = 1,
    x_scale_lsq: float = 1,
    loss_lsq: str = "linear",
    tol_ctf: float = 1e-8,
    *,
    method: str = "varpro",
) -> Params:
    """Fit aberrations and scan rotation to the images of the bright-field pixels.

    Parameters
    ----------
    params : dict
        Calibrated parameters; not modified.
    binning_for_fit : sequence of int
        Edge of the detector bins of each round.
    save : bool
        Write ``tcbf/``; ``save_preprocessing_files`` overrules.
    optimize_angle : bool
        Fit the rotation too.
    aberrations : sequence of float, optional
        Start values in Å, detector frame; by default those of the parameters with their defocus.
        From zero, ``method="varpro"`` searches, and ``"xcorr"`` needs a small defocus.
    n_aberrations_to_fit : int
        Number of coefficients if neither argument nor parameters start with more.
    reference_type : {"bf", "zero"}
        Reference of the correlation: the aligned sum or the central image.
    ctf_sign_flip : bool
        Save images without contrast reversals.
    cross_corr_type : {"phase", "abs"}
        Phase-only or full correlation.
    cancel_large_shifts : float, optional
        Use only this fraction of the shifts, those closest to the expected ones.
    f_scale_lsq, loss_lsq
        Scale in scan points and loss of the robust fit.
    method : {"varpro", "xcorr"}
        Profile likelihood of a weak phase object, or cross-correlation.
    refine_box_dim, upsample, pattern_blur_width, scan_pad, aperture, subscan_region
        Without effect, like the next ones: peaks are found to 0.02 scan points, images are padded
        as needed, and the disc is that of the data.
    compensate_lowfreq_drift, append_lowfreq_shifts_to_params, interpolate_scan_factor
    binning_cross_corr, phase_cross_corr_formula, x_scale_lsq, tol_ctf

    Returns
    -------
    dict
        A copy with ``aberrations``, ``PLRotation_deg`` and ``positions``; ``extra_probe_defocus``
        is 0, ``probe`` and ``beam_ctf`` are None.

    Raises
    ------
    ParamError
        If calibrations are missing or the method is unknown.
    DataError
        If the images do not determine the aberrations.
    """
    rounds = direct_align.binned_bright_fields(params, binning_for_fit)
    options = direct_align.AlignOptions(
        method=method,
        fit_rotation=bool(optimize_angle),
        phase_only=cross_corr_type == "phase",
        reference=reference_type,
        keep=cancel_large_shifts,
        loss=loss_lsq,
        scale_px=f_scale_lsq,
        flip=bool(ctf_sign_flip),
    )
    start = _start(params, aberrations, n_aberrations_to_fit)
    folder = direct_run.output_folder(params, "tcbf", save)
    return direct_align.align(params, rounds, start, options, folder)


def run_tcbf_compressed_alignment(  # noqa: PLR0913 - PyPty's signature
    params: Params,
    num_iterations: int,
    save: bool = True,
    optimize_angle: bool = True,
    aberrations: Sequence[float] | None = None,
    n_aberrations_to_fit: int = 12,
    reference_type: str = "bf",
    ctf_sign_flip: bool = False,
    refine_box_dim: int = 10,
    upsample: int = 3,
    cross_corr_type: str = "phase",
    cancel_large_shifts: float | None = None,
    pattern_blur_width: float | None = None,
    scan_pad: int | None = None,
    aperture: np.ndarray | None = None,
    subscan_region: Sequence[int] | None = None,
    compensate_lowfreq_drift: float | bool = False,
    append_lowfreq_shifts_to_params: bool = True,
    interpolate_scan_factor: int = 1,
    binning_cross_corr: int = 1,
    phase_cross_corr_formula: bool = False,
    f_scale_lsq: float = 1,
    x_scale_lsq: float = 1,
    loss_lsq: str = "linear",
    tol_ctf: float = 1e-8,
    *,
    method: str = "xcorr",
) -> Params:
    """`run_tcbf_alignment` for compressed data: every mask in the disc is a pixel at its centroid.

    Needs ``masks`` and ``aperture_mask``; `num_iterations` rounds are made.
    """
    options = direct_align.AlignOptions(
        method=method,
        fit_rotation=bool(optimize_angle),
        phase_only=cross_corr_type == "phase",
        reference=reference_type,
        keep=cancel_large_shifts,
        loss=loss_lsq,
        scale_px=f_scale_lsq,
        flip=bool(ctf_sign_flip),
    )
    rounds = [direct_align.compressed_bright_field(params)] * int(num_iterations)
    start = _start(params, aberrations, n_aberrations_to_fit)
    folder = direct_run.output_folder(params, "tcbf", save)
    return direct_align.align(params, rounds, start, options, folder)


def upsampled_tcbf(  # noqa: PLR0913 - PyPty's signature
    pypty_params: Params,
    upsample: float = 5,
    pad: int = 10,
    compensate_lowfreq_drift: bool = False,
    ctf_sign_flip: bool = False,
    default_float: int = 64,
    round_shifts: bool = False,
    xp: Any = np,
    save: bool | int = 0,
    max_parallel_fft: int = 100,
    bin_fac: int = 1,
) -> tuple[np.ndarray, float]:
    """Tilt-corrected bright field with pixels finer than the scan step.

    Parameters
    ----------
    pypty_params : dict
        Calibrated parameters with ``aberrations`` (detector frame); not modified.
    upsample : float
        Pixels per scan step, a ratio of small whole numbers such as 5, 2.5 or 7/3.
    pad : int
        Scan points added on each side; the result includes them.
    ctf_sign_flip : bool
        Correct contrast reversals.
    round_shifts : bool
        Shift by whole pixels.
    save : bool
        Write ``tcbf/tcbf_image_upsampling_{upsample}.npy``.
    bin_fac : int
        Edge of the detector bins.
    compensate_lowfreq_drift, default_float, xp, max_parallel_fft
        Without effect.

    Returns
    -------
    image : ndarray ((Ny + 2 pad) upsample, (Nx + 2 pad) upsample), float64
        1 is the mean of the scan; sizes are rounded up.
    px_size : float
        Å.

    Raises
    ------
    ParamError
        If calibrations are missing, or the factor is below 1 or no ratio of small whole numbers.
    DataError, ShapeError
        If the data cannot be read or have no bright-field disc.
    """
    image, pixel_A = direct_run.upsampled_bright_field(
        pypty_params,
        upsample,
        int(pad),
        n_bin=int(bin_fac),
        flip=bool(ctf_sign_flip),
        whole_pixels=bool(round_shifts),
    )
    folder = direct_run.output_folder(pypty_params, "tcbf", save)
    if folder:
        write_array(folder / f"tcbf_image_upsampling_{upsample:.4g}.npy", image)
    return image, pixel_A


def _start(params: Params, given: Sequence[float] | None, number: int) -> np.ndarray:
    values = direct_run.beam_optics(params)[0] if given is None else given
    start = np.zeros(max(number, len(values)))
    start[: len(values)] = values
    return start
