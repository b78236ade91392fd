"""Spectra over the scan of bright-field images, at the frequencies a disc can transfer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.fft

from pyptyx.methods.bright_field import BrightField
from pyptyx.methods.gamma import Coefficients, Pupil, detector_frame, half_plane_A
from pyptyx.methods.shared_sums import chunks
from pyptyx.physics.optics import aberration_gradient

Array = Any

_CHUNK_BYTES = 3 << 20
"""Size of one array of a chunk of pixels: larger ones leave the cache."""


@dataclass(frozen=True)
class Spectrum:
    """The frequencies a bright-field disc can transfer.

    Attributes
    ----------
    shape : (int, int)
        Padded scan ``(Py, Px)``.
    image_shape : (int, int)
        Scan ``(Ny, Nx)``.
    index : ndarray (Q,)
        Flat indices into the half plane ``(Py, Px // 2 + 1)`` with ``0 < |q| <= 2α/λ``.
    q_A : ndarray (Q, 2)
        Rows (y, x) in 1/Å, detector frame.
    taper_px : int or None
        See `BrightField.spectra`.
    """

    shape: tuple[int, int]
    image_shape: tuple[int, int]
    index: np.ndarray
    q_A: np.ndarray
    taper_px: int | None = None

    @classmethod
    def of(
        cls,
        shape: tuple[int, int],
        image_shape: tuple[int, int],
        step_A: float,
        rotation_rad: float,
        q_max_A: float,
    ) -> Spectrum:
        """The frequencies ``0 < |q| <= q_max_A`` of a scan with this step and rotation."""
        q_A = detector_frame(half_plane_A(shape, step_A), rotation_rad).reshape(-1, 2)
        q2 = (q_A**2).sum(axis=1)
        index = np.flatnonzero((q2 > 0) & (q2 <= q_max_A**2))
        return cls(shape, image_shape, index, q_A[index])

    @property
    def half_shape(self) -> tuple[int, int]:
        """Shape of the half plane."""
        return self.shape[0], self.shape[1] // 2 + 1

    def half_plane(self, values: Array) -> np.ndarray:
        """Values ``(Q,)`` in the half plane, 0 elsewhere."""
        plane = np.zeros(math.prod(self.half_shape), dtype=values.dtype)
        plane[self.index] = values
        return plane.reshape(self.half_shape)

    def image(self, values: Array) -> np.ndarray:
        """Image ``(Ny, Nx)`` of a spectrum ``(Q,)``."""
        image = scipy.fft.irfft2(self.half_plane(values), s=self.shape)
        return image[: self.image_shape[0], : self.image_shape[1]]


def unit_phase(phase_rad: Array) -> np.ndarray:
    """``exp(i phase)`` as complex64, without the slow complex exponential."""
    out = np.empty(phase_rad.shape, np.complex64)
    # Reduced in double precision, because large phases lose digits in single.
    turns = phase_rad / (2 * np.pi)
    small = (2 * np.pi * (turns - np.rint(turns))).astype(np.float32)
    np.cos(small, out=out.real)
    np.sin(small, out=out.imag)
    return out


def shifts_A(k_A: Array, pupil: Pupil) -> np.ndarray:
    """Displacements ``s(k) = ∇χ / 2π`` in Å, rows (y, x), detector frame.

    A feature at ``r`` is seen by detector pixel ``k`` when the probe is at ``r - s(k)``.
    """
    dx, dy = aberration_gradient(pupil.coefficients_A, k_A[:, 0], k_A[:, 1], pupil.wavelength_A)
    return np.stack([dy, dx], axis=-1) * pupil.wavelength_A / (2 * np.pi)


def pupil_of(bright: BrightField, coefficients_A: Coefficients) -> Pupil:
    """The pupil of an experiment; its rim is as soft as one bin of the detector."""
    return Pupil(
        tuple(float(c) for c in coefficients_A),
        bright.wavelength_A,
        bright.semiangle_rad,
        float(np.max(bright.dk_A)) * bright.n_bin,
    )


def spectrum_of(
    bright: BrightField, pupils: Sequence[Pupil], rotation_rad: float, periodic: bool = False
) -> Spectrum:
    """The frequencies to work with; without `periodic` the largest displacement is padded."""
    size = bright.scan_size
    if periodic:
        shape = size
    else:
        reach = max(np.abs(shifts_A(bright.k_A, pupil)).max() for pupil in pupils)
        # A larger displacement than the scan leaves nothing to see anyway.
        more = min(math.ceil(2 * reach / bright.step_A), 2 * max(size))
        shape = (good_size(size[0] + more), good_size(size[1] + more))
    spectrum = Spectrum.of(shape, size, bright.step_A, rotation_rad, 2 * pupils[0].radius_A)
    return replace(spectrum, taper_px=0 if periodic else None)


def good_size(n: int) -> int:
    """The next even length that transforms fast."""
    return 2 * scipy.fft.next_fast_len((n + 1) // 2, real=True)


def pixel_chunks(bright: BrightField, spectrum: Spectrum) -> list[slice]:
    """Chunks of pixels that keep their arrays in the cache."""
    return chunks(len(bright.k_A), _CHUNK_BYTES // (8 * max(1, len(spectrum.index))))


def chunk_spectra(bright: BrightField, spectrum: Spectrum, piece: slice) -> np.ndarray:
    """``F_k(q)``, ``(B, Q)`` complex64, of a chunk of pixels."""
    planes = bright.spectra(piece, shape=spectrum.shape, taper_px=spectrum.taper_px)
    return planes.reshape(len(planes), -1).take(spectrum.index, axis=1)


def ratio(numerator: Array, denominator: Array) -> Array:
    """Quotient, 0 where the denominator is 0."""
    usable = denominator != 0
    return np.where(usable, numerator / np.where(usable, denominator, 1), 0)
