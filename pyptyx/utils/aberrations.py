"""Aberrations under PyPty's names; angles ``kx, ky`` are in rad, y down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pyptyx.physics import optics

Array = Any


def convert_num_to_nmab(num_abs: int) -> tuple[list[int], list[int], list[str]]:
    """Orders n, multiplicities m and suffixes of the first `num_abs` Krivanek coefficients."""
    entries = optics.krivanek_order(num_abs)
    return [n for n, _, _ in entries], [m for _, m, _ in entries], [s for _, _, s in entries]


def nmab_to_strings(n: Sequence[int], m: Sequence[int], ab: Sequence[str]) -> list[str]:
    """Names such as ``"C12a"`` from the result of `convert_num_to_nmab`."""
    return [f"C{i}{j}{suffix}" for i, j, suffix in zip(n, m, ab, strict=True)]


def get_ctf(
    aberrations: Sequence[float], kx: Array, ky: Array, wavelength: float, angle_offset: float = 0
) -> Array:
    """Aberration function χ in rad at angles ``(kx, ky)``; the beam is multiplied by ``exp(-iχ)``.

    Parameters
    ----------
    aberrations : sequence of float
        Krivanek coefficients in Å.
    kx, ky : array
        Angles in rad, y down; any shapes that broadcast.
    wavelength : float
        Å.
    angle_offset : float
        Added to the azimuth, in rad.
    """
    c, s = np.cos(angle_offset), np.sin(angle_offset)
    qx, qy = (kx * c - ky * s) / wavelength, (kx * s + ky * c) / wavelength
    return optics.aberration_phase(aberrations, qy, qx, wavelength)


def get_ctf_matrix(kx: Array, ky: Array, num_abs: int, wavelength: float, xp: Any = np) -> Array:
    """Basis of `get_ctf`: ``(num_abs, H, W)`` in rad per Å of coefficient."""
    return optics.aberration_basis(ky / wavelength, kx / wavelength, wavelength, num_abs, xp)


def get_ctf_derivatives(
    aberrations: Sequence[float], kx: Array, ky: Array, wavelength: float, angle_offset: float = 0
) -> tuple[Array, Array]:
    """``(∂χ/∂kx, ∂χ/∂ky)`` per rad; parameters as for `get_ctf`.

    Times ``λ / 2π`` it is the displacement in Å of the bright-field image of a detector pixel.
    """
    return optics.aberration_gradient(
        aberrations, ky / wavelength, kx / wavelength, wavelength, angle_offset
    )


def get_ctf_gradient_rotation_angle(
    aberrations: Sequence[float], kx: Array, ky: Array, wavelength: float, angle_offset: float = 0
) -> tuple[Array, Array]:
    """Derivative of ``λ / 2π`` times `get_ctf_derivatives` by `angle_offset`, in Å/rad.

    As in PyPty it lacks the factor ``2π / λ`` of `get_ctf_derivatives`.
    """
    along_x, along_y = optics.aberration_gradient_rotation(
        aberrations, ky / wavelength, kx / wavelength, wavelength, angle_offset
    )
    scale = wavelength / (2 * np.pi)
    return along_x * scale, along_y * scale
