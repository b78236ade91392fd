"""Start values of the variables: object, positions, background, beam current, and the probe.

Public layouts come in (object ``(Y, X, Nz, Mo)``, detector arrays centred), inside layouts go out
(object ``(Mo, Nz, Y, X)``, detector arrays with zero frequency in the corner).  User arrays are
never modified.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pyptyx.backend import free_memory_bytes
from pyptyx.constants import wavelength_A
from pyptyx.engine.masks import data_edge
from pyptyx.engine.start_probe import initial_probe
from pyptyx.engine.variables import ever
from pyptyx.errors import ParamError, Problem, ShapeError
from pyptyx.physics.grid import fast_length

__all__ = [
    "beam_wavelength_A",
    "first_sequence",
    "initial_background",
    "initial_current",
    "initial_object",
    "initial_positions",
    "initial_probe",
]

Params = Mapping[str, Any]


def beam_wavelength_A(params: Params) -> float:
    """Wavelength in Å: ``wavelength_A`` if given, else from ``acc_voltage`` (kV)."""
    given = params.get("wavelength_A")
    if given:
        return float(given)
    if not params.get("acc_voltage"):
        raise ParamError(
            Problem("acc_voltage", "the accelerating voltage in kV", "nothing", "For example 300.")
        )
    return wavelength_A(float(params["acc_voltage"]))


def first_sequence(params: Params) -> np.ndarray | slice:
    """Measurements used in the first epoch, as an index."""
    sequence = params["sequence"]
    if callable(sequence):
        sequence = sequence(0)
    return slice(None) if sequence is None else np.sort(np.asarray(sequence, dtype=np.int64))


def _measured(params: Params, positions: np.ndarray) -> np.ndarray:
    """Positions the object must cover."""
    if params["use_full_FOV"] or len(positions) == 1:
        return positions
    return positions[first_sequence(params)]


def initial_positions(params: Params) -> np.ndarray:
    """Start positions in px, ``(N, 2)`` float64, columns (y, x), of the top-left window corner.

    The smallest coordinate becomes ``extra_space_on_side_px`` along each axis, over all positions
    or, without ``use_full_FOV``, over those of the sequence; all move together.
    ``skip_preprocessing`` leaves them as they are.
    """
    positions = np.array(params["positions"], dtype=np.float64)
    if params["skip_preprocessing"]:
        return positions
    smallest = _measured(params, positions).min(axis=0)
    return positions - smallest + params["extra_space_on_side_px"]


def initial_object(params: Params, positions_px: np.ndarray, window: tuple[int, int]) -> np.ndarray:
    """Start object.

    No object, or a placeholder of 1 x 1 pixels, becomes as large as needed.  A given object is
    extended where it is too small: ``extra_space_on_side_px`` rows and columns at the top and left
    with its mean, the bottom and right with its largest modulus.  With ``skip_preprocessing`` it is
    used exactly as given.

    Parameters
    ----------
    params : mapping
        Resolved parameters.
    positions_px : ndarray (N, 2)
        Result of `initial_positions`.
    window : tuple of int
        ``(ny, nx)``.

    Returns
    -------
    ndarray (Mo, Nz, Y, X), complex128

    Raises
    ------
    ShapeError
        If the object is not 4-D, or must stay as given and does not cover all windows.
    """
    obj = params["obj"]
    if obj is None:
        obj = np.ones((1, 1, int(params["num_slices"]), 1))
    if obj.ndim != 4:
        raise ShapeError(Problem("obj", "shape (Y, X, Nz, Mo)", str(obj.shape), "Add axes."))
    inside = np.ascontiguousarray(obj.transpose(3, 2, 0, 1), dtype=np.complex128)
    corners = np.rint(_measured(params, positions_px))
    _check_memory(corners.max(axis=0) + window, inside)
    corners = corners.astype(np.int64)
    needed = corners.max(axis=0) + window
    if corners.min() < 0:
        raise ShapeError(
            Problem(
                "positions",
                "no negative coordinate",
                f"{corners.min()} px",
                "skip_preprocessing keeps positions as they are; without it they are shifted.",
            )
        )
    placeholder = inside.shape[-2:] == (1, 1)
    if params["skip_preprocessing"] and not placeholder:
        if np.any(inside.shape[-2:] < needed):
            raise ShapeError(
                Problem(
                    "obj",
                    f"at least {needed[0]} x {needed[1]} pixels to cover all positions",
                    f"{inside.shape[-2]} x {inside.shape[-1]}",
                    "skip_preprocessing keeps an object as it is; without it, it is extended.",
                )
            )
        return inside
    extra = 0 if params["skip_preprocessing"] else int(params["extra_space_on_side_px"])
    before = 0 if placeholder else extra
    inside = _extend(inside, ((before, 0), (before, 0)), inside.mean())
    size = _covering(needed + extra, placeholder)
    missing = np.maximum(size - inside.shape[-2:], 0)
    return _extend(inside, ((0, missing[0]), (0, missing[1])), np.abs(inside).max())


def object_shape(
    params: Params, positions_px: np.ndarray, window: tuple[int, int]
) -> tuple[int, ...]:
    """Shape ``(Mo, Nz, Y, X)`` of what `initial_object` returns, without making it."""
    obj = params["obj"]
    y, x, slices, modes = (1, 1, int(params["num_slices"]), 1) if obj is None else obj.shape
    placeholder = (y, x) == (1, 1)
    extra = 0 if params["skip_preprocessing"] else int(params["extra_space_on_side_px"])
    needed = np.rint(_measured(params, positions_px)).max(axis=0).astype(int) + window
    if not placeholder and params["skip_preprocessing"]:
        return modes, slices, y, x
    before = 0 if placeholder else extra
    size = np.maximum(_covering(needed + extra, placeholder), np.array([y, x]) + before)
    return modes, slices, int(size[0]), int(size[1])


def _covering(needed: np.ndarray, own: bool) -> np.ndarray:
    """Size of an object; one that nobody gave gets a few pixels more, for fast transforms."""
    return np.array([fast_length(int(n)) for n in needed]) if own else needed


def _check_memory(needed: np.ndarray, obj: np.ndarray) -> None:
    """Positions that are not in pixels ask for an object that no machine can hold."""
    size = float(np.prod(needed)) * obj.shape[0] * obj.shape[1] * obj.itemsize
    free = free_memory_bytes()
    if free and size > free:
        raise ShapeError(
            Problem(
                "positions",
                f"an object that fits in the {free / 2**30:.3g} GiB that are free",
                f"{needed[0]:.4g} x {needed[1]:.4g} px, {size / 2**30:.3g} GiB",
                "Positions are in pixels: check scan_step_A and the pixel sizes.",
            )
        )


def _extend(obj: np.ndarray, widths: tuple[tuple[int, int], ...], value: complex) -> np.ndarray:
    return np.pad(obj, ((0, 0), (0, 0), *widths), constant_values=value)


def dark_level(params: Params, mean: np.ndarray) -> float:
    """Counts per pixel that a background may have, where one is refined that nobody gave.

    From a wave that has learnt to explain a background the way back is long; from a background as
    bright as the darkest part of the patterns it is short.

    Parameters
    ----------
    params : mapping
        Resolved parameters.
    mean : ndarray (ky, kx)
        Mean pattern of the prepared data; of virtual detectors, what they say of it.

    Returns
    -------
    float
        The level below which 5 % of the pixels of a far field lie, if it has a dark part at all;
        otherwise, and at least, 0.1 % of the mean.
    """
    least = _LEAST_BACKGROUND * float(mean.mean())
    if params["recon_type"] != "far_field" or params["masks"] is not None:
        return least
    level = float(np.quantile(mean, _DARK_PIXELS))
    return max(level, least) if level < _DARK * mean.max() else least


_LEAST_BACKGROUND = 1e-3
_DARK_PIXELS = 0.05
_DARK = 0.1
"""Part of the brightest pixel up to which a pixel is dark."""


def initial_background(
    params: Params, window: tuple[int, int], dark: float | None = None
) -> np.ndarray | None:
    """Start value of the static background amplitude ``b``; the model adds ``b²``.

    Parameters
    ----------
    params : mapping
        Resolved parameters; ``static_background`` is None or 0 (none), the total number of counts
        ``Σ b²``, or the array ``b`` itself.
    window : tuple of int
        ``(ny, nx)`` of the probe.
    dark : float, optional
        Counts per pixel of the background if none is given.

    Returns
    -------
    ndarray or None
        float64 on the grid of the prepared data, zero frequency in the corner (far field).

    Raises
    ------
    ShapeError
        If an array does not have the shape of the data grid.
    """
    given = params["static_background"]
    pad, upsample = int(params["data_pad"]), int(params["upsample_pattern"])
    edge = data_edge(params)
    inner = tuple((n - 2 * pad) // upsample for n in window)
    if given is None or (np.ndim(given) == 0 and given == 0):
        if dark is None:
            return None
        background = np.pad(np.full(inner, np.sqrt(dark)), edge)
    elif np.ndim(given) == 0:
        background = np.pad(_random_background(params, float(given), inner), edge)
    else:
        background = np.array(given, dtype=np.float64)
        expected = tuple(n + 2 * edge for n in inner)
        if background.shape == inner != expected:
            background = np.pad(background, edge)
        if background.shape != expected:
            raise ShapeError(
                Problem(
                    "static_background",
                    f"shape {expected}, that of the prepared patterns",
                    str(background.shape),
                    "Give a number for a random start with as many counts.",
                )
            )
    return np.fft.ifftshift(background) if params["recon_type"] == "far_field" else background


def _random_background(params: Params, counts: float, shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(params["seed"])
    background = 0.1 + 0.9 * rng.random(shape)
    if params["recon_type"] == "far_field":
        cutoff = params["damping_cutoff_multislice"]
        radius = (cutoff if cutoff >= 0 else 2 / 3) / 2
        fy, fx = (np.fft.fftshift(np.fft.fftfreq(n)) for n in shape)
        background[fy[:, None] ** 2 + fx[None, :] ** 2 > radius**2] = 0.0
    return background * np.sqrt(counts / (background**2).sum())


def aberration_rows(params: Params, n: int) -> np.ndarray | None:
    """Row of ``aberrations_array`` for each of `n` measurements; None if none has any.

    A single row that is not zero, or is refined, belongs to all.
    """
    marker = params["aberration_marker"]
    if marker is not None:
        return np.asarray(marker)
    used = np.any(params["aberrations_array"]) or ever(params, "update_aberrations_array")
    return np.zeros(n, np.int64) if used else None


def initial_current(params: Params, n_patterns: int) -> np.ndarray:
    """Amplitude factor of each measurement, ``(N,)`` float64; ones if none is given.

    Raises
    ------
    ShapeError
        If there is not one value per pattern.
    """
    given = params["beam_current"]
    if given is None:
        return np.ones(n_patterns)
    current = np.array(given, dtype=np.float64)
    if current.shape != (n_patterns,):
        raise ShapeError(
            Problem(
                "beam_current",
                f"shape ({n_patterns},), one per pattern",
                str(current.shape),
                "Leave it out for a constant current.",
            )
        )
    return current
