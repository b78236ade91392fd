"""Direct methods on a params dictionary: read, reconstruct, save.

Images are on the grid of the scan (row-major scan points, y down), in rad, which is what
`pyptyx.get_ptycho_obj_from_scan` takes.  Parameters are never modified.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pyptyx.engine.direct_data import open_bright_field, open_executor, scan_optics
from pyptyx.engine.patterns import open_patterns
from pyptyx.errors import ParamError, Problem
from pyptyx.executors import Executor
from pyptyx.files import make_folder, write_array, write_bytes
from pyptyx.methods import linear, unalias
from pyptyx.methods.bright_field import BrightField
from pyptyx.methods.disc import find_disc
from pyptyx.methods.gamma import Pupil
from pyptyx.methods.joint import joint_image
from pyptyx.methods.tcbf import aligned_image
from pyptyx.methods.wdd import Regularisation, automatic_epsilon, read_box, wdd
from pyptyx.output import provenance
from pyptyx.output.direct_plots import plot_image
from pyptyx.output.images import save_figure
from pyptyx.params import save_params
from pyptyx.physics.optics import aberration_names

Params = Mapping[str, Any]


@dataclass(frozen=True)
class DirectImage:
    """Result of a direct method.

    Attributes
    ----------
    phase : ndarray (ny, nx)
        rad.
    amplitude : ndarray (ny, nx) or None
        Modulus of the transmission, if it was asked for.
    pixel_A : float
        Pixel size in Å: the scan step, or a fraction of it.
    info : dict
        Numbers: method, aberrations in Å, rotation in degrees, resolution in Å, noise in rad.
    maps : dict of ndarray
        ``ssnr`` and ``transfer`` over the frequencies of the scan, ``frc`` with ``frc_q_A``, or
        ``condition``.
    figure : Figure
    """

    phase: np.ndarray
    amplitude: np.ndarray | None
    pixel_A: float
    info: dict[str, Any]
    maps: dict[str, np.ndarray]
    figure: Figure


def beam_optics(params: Params) -> tuple[tuple[float, ...], float]:
    """Krivanek coefficients in Å, defocus included, and the scan rotation in rad."""
    given = params.get("aberrations")
    coefficients = [0.0] if given is None else [float(c) for c in np.ravel(given)] or [0.0]
    coefficients[0] += float(params.get("extra_probe_defocus") or 0.0)
    return tuple(coefficients), math.radians(float(params.get("PLRotation_deg") or 0.0))


def reconstruct(
    params: Params,
    kernel: str = "mf",
    *,
    upsample: float = 1,
    n_bin: int = 1,
    wiener: float | str | None = "halves",
    bright: BrightField | None = None,
) -> DirectImage:
    """Phase image of a thin, weak specimen.

    Parameters
    ----------
    params : mapping
        Calibrated parameters, as `append_exp_params` or a calibration makes them.
    kernel : {"mf", "ssb", "obf", "tcbf", "icom", "joint"}
        See `pyptyx.methods.linear`; ``"joint"`` gives amplitude and phase.
    upsample : float
        Pixels per scan step, a ratio of small whole numbers; above 1 aliases are resolved by
        `pyptyx.methods.unalias`, for which `kernel` must be ``"mf"``.
    n_bin : int
        Edge of the bins of detector pixels; larger ones are faster and limit the defocus.
    wiener : "halves", float or None
        See `pyptyx.methods.linear.linear_images`; a number is the damping of other methods.
    bright : BrightField, optional
        Images read before, for several reconstructions of the same data.

    Returns
    -------
    DirectImage

    Raises
    ------
    ParamError
        If calibrations are missing, or kernel, filter and factor do not go together.
    DataError, ShapeError
        If the data cannot be read or have no bright-field disc.
    """
    if upsample != 1 and kernel != "mf":
        remedy = "Take upsampled_tcbf for finer tilt-corrected bright field"
        raise ParamError(Problem("upsample", f"1 with kernel {kernel!r}", str(upsample), remedy))
    if bright is None:
        bright = open_bright_field(params, n_bin)
    with open_executor(params) as executor:
        if kernel == "joint":
            return _joint(params, bright, wiener, executor)
        if upsample != 1:
            return _unaliased(params, bright, upsample, wiener, executor)
        return _linear(params, bright, kernel, wiener, executor)


Wiener = float | str | None


def _linear(
    params: Params, bright: BrightField, kernel: str, wiener: Wiener, executor: Executor
) -> DirectImage:
    coefficients, rotation = beam_optics(params)
    image = linear.linear_image(
        bright, coefficients, rotation, kernel=kernel, wiener=wiener, executor=executor
    )
    return finished(image, kernel, coefficients, rotation, bright.step_A)


def finished(
    image: linear.LinearImage,
    kernel: str,
    coefficients_A: Sequence[float],
    rotation_rad: float,
    step_A: float,
) -> DirectImage:
    """A linear image with its numbers, maps and figure."""
    info = _info(kernel, coefficients_A, rotation_rad)
    info |= {"resolution_A": image.resolution_A, "noise_rad": image.noise_rad}
    maps = {
        "ssnr": image.ssnr,
        "transfer": image.transfer,
        "frc": image.frc,
        "frc_q_A": image.frc_q_A,
    }
    figure = plot_image(image.phase, step_A, "phase / rad", frc=(image.frc_q_A, image.frc))
    return DirectImage(image.phase, None, step_A, info, maps, figure)


def _joint(params: Params, bright: BrightField, wiener: Wiener, executor: Executor) -> DirectImage:
    coefficients, rotation = beam_optics(params)
    damping = wiener if isinstance(wiener, float) else 1e-3
    phase, amplitude = joint_image(
        bright, coefficients, rotation, damping=damping, executor=executor
    )
    figure = plot_image(phase, bright.step_A, "phase / rad")
    info = _info("joint", coefficients, rotation)
    return DirectImage(phase, amplitude, bright.step_A, info, {}, figure)


def _unaliased(
    params: Params, bright: BrightField, upsample: float, wiener: Wiener, executor: Executor
) -> DirectImage:
    coefficients, rotation = beam_optics(params)
    damping = wiener if isinstance(wiener, float) else 1e-3
    fine = unalias.unaliased_image(
        bright, coefficients, rotation, upsample=upsample, damping=damping, executor=executor
    )
    info = _info("mf", coefficients, rotation)
    info |= {"upsample": upsample, "limits": unalias.upsampling_limits(bright)}
    figure = plot_image(fine.phase, fine.pixel_A, "phase / rad")
    maps = {"condition": fine.condition}
    return DirectImage(fine.phase, None, fine.pixel_A, info, maps, figure)


def depth_stack(
    params: Params, heights_A: Sequence[float], kernel: str = "mf", n_bin: int = 1
) -> np.ndarray:
    """Phases ``(Nz, Ny, Nx)`` in rad focused at heights in Å, positive downstream."""
    coefficients, rotation = beam_optics(params)
    bright = open_bright_field(params, n_bin)
    with open_executor(params) as executor:
        planes = linear.depth_sections(
            bright, coefficients, heights_A, rotation, kernel=kernel, executor=executor
        )
    return np.stack([plane.phase for plane in planes])


def upsampled_bright_field(
    params: Params, upsample: float, pad: int, *, n_bin: int, flip: bool, whole_pixels: bool
) -> tuple[np.ndarray, float]:
    """Tilt-corrected bright field on a finer grid, and its pixel in Å."""
    coefficients, rotation = beam_optics(params)
    bright = open_bright_field(params, n_bin)
    with open_executor(params) as executor:
        image = aligned_image(
            bright,
            coefficients,
            rotation,
            upsample=upsample,
            pad=pad,
            whole_pixels=whole_pixels,
            flip=flip,
            executor=executor,
        )
    return image, bright.step_A / upsample


def deconvolve(
    params: Params,
    epsilon: float | str = "auto",
    *,
    threshold: float | None = None,
    damping: float = 1e-2,
    reach: float = 1.6,
    n_bin: int = 1,
) -> np.ndarray:
    """Complex transmission ``(Ny, Nx)`` by Wigner distribution deconvolution.

    Parameters
    ----------
    params : mapping
        Calibrated parameters.
    epsilon : float or "auto"
        Relative Wiener constant; ``"auto"`` takes it from the counts.
    threshold, damping
        See `pyptyx.methods.wdd.Regularisation`.
    reach, n_bin
        See `pyptyx.methods.wdd.read_box`.

    Raises
    ------
    ParamError, DataError, ShapeError
        As `reconstruct`.
    """
    optics = scan_optics(params)
    coefficients, rotation = beam_optics(params)
    with open_patterns(params) as source:
        given = params.get("mean_pattern")
        pattern = source.mean() if given is None else np.asarray(given)
        disc = find_disc(pattern, optics.dk_A)
        box = read_box(source, disc, optics.scan_size, reach=reach, n_bin=n_bin)
    semiangle = optics.semiangle_rad or disc.radius_A * optics.wavelength_A
    pupil = Pupil(coefficients, optics.wavelength_A, semiangle, max(box.dk_A))
    value = automatic_epsilon(float(pattern.sum())) if isinstance(epsilon, str) else epsilon
    with open_executor(params) as executor:
        return wdd(
            box,
            pupil,
            optics.step_A,
            rotation,
            regularisation=Regularisation(value, threshold, damping),
            executor=executor,
        )


# ---------------------------------------------------------------------------------------------
# Saving
# ---------------------------------------------------------------------------------------------


def output_folder(params: Params, name: str, save: bool | int) -> Path | None:
    """The folder for results, made, or None if nothing is to be saved.

    ``save_preprocessing_files`` overrules `save`, as in PyPty.  The parameters go in first: without
    them nobody knows the pixel of an image.
    """
    wanted = params.get("save_preprocessing_files", save)
    folder = params.get("output_folder")
    if not (wanted and folder):
        return None
    path = Path(folder) / name
    make_folder(path)
    save_params(path, dict(params))
    provenance.record(path, params.get("data_path"), workers=(), further=False)
    return path


def save_image(folder: Path, image: DirectImage) -> None:
    """Write phase, amplitude, maps, figure and numbers of `image` into ``direct/``."""
    method = image.info["method"]
    write_array(folder / f"phase_{method}.npy", image.phase)
    if image.amplitude is not None:
        write_array(folder / f"amplitude_{method}.npy", image.amplitude)
    for name, values in image.maps.items():
        write_array(folder / f"{name}_{method}.npy", values)
    text = json.dumps({**image.info, "pixel_A": image.pixel_A}, indent=1)
    write_bytes(folder / f"info_{method}.json", text.encode())
    save_figure(folder / f"phase_{method}.png", image.figure)


def _info(method: str, coefficients_A: Sequence[float], rotation_rad: float) -> dict[str, Any]:
    names = aberration_names(len(coefficients_A))
    return {
        "method": method,
        "aberrations_A": dict(zip(names, map(float, coefficients_A), strict=True)),
        "PLRotation_deg": math.degrees(rotation_rad),
    }
