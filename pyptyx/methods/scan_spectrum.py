"""Spectra over the scan of bright-field images, at the frequencies a disc can transfer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.fft

from pyptyx.backend import Backend, MapReduce
from pyptyx.methods.bright_field import BrightField
from pyptyx.methods.gamma import Coefficients, Pupil, detector_frame, half_plane_A
from pyptyx.methods.shared_sums import cache_bytes, chunks
from pyptyx.physics.optics import aberration_gradient

Array = Any

MARGIN_PX = 16
"""Least padding of a scan: kernels are a few points wide even in focus."""

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
    index: Array
    q_A: Array
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

    def on(self, backend: Backend) -> Spectrum:
        """The same, with `index` and `q_A` on the device of `backend`."""
        index, q_A = backend.asarray(self.index), backend.asarray(self.q_A)
        return replace(self, index=index, q_A=q_A)

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


def unit_phase(phase_rad: Array, xp: Any = np) -> Array:
    """``exp(i phase)`` as complex64, without the slow complex exponential."""
    out = xp.empty(phase_rad.shape, np.complex64)
    # Reduced in double precision, because large phases lose digits in single.
    turns = phase_rad / (2 * np.pi)
    small = (2 * np.pi * (turns - xp.rint(turns))).astype(np.float32)
    xp.cos(small, out=out.real)
    xp.sin(small, out=out.imag)
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
    bright: BrightField,
    pupils: Sequence[Pupil],
    rotation_rad: float,
    periodic: bool = False,
    multiple: int = 1,
) -> Spectrum:
    """The frequencies to work with.

    Unless the scan is `periodic`, it is padded for the largest displacement, to a size that
    `multiple` divides.
    """
    size = bright.scan_size
    if periodic:
        shape = size
    else:
        reach = max(np.abs(shifts_A(bright.k_A, pupil)).max() for pupil in pupils)
        # A larger displacement than the scan leaves nothing to see anyway.
        more = max(min(math.ceil(2 * reach / bright.step_A), 2 * max(size)), MARGIN_PX)
        shape = (good_size(size[0] + more, multiple), good_size(size[1] + more, multiple))
    spectrum = Spectrum.of(shape, size, bright.step_A, rotation_rad, 2 * pupils[0].radius_A)
    # Around a padded scan there is nothing: a taper would only weaken the image near its edges.
    return replace(spectrum, taper_px=0)


def good_size(n: int, multiple: int = 1) -> int:
    """The next length that transforms fast and that 2 and `multiple` divide."""
    unit = math.lcm(2, multiple)
    return unit * scipy.fft.next_fast_len(-(-n // unit), real=True)


def pixel_chunks(number: int, spectrum: Spectrum, executor: MapReduce | None = None) -> list[slice]:
    """Chunks of so many pixels that the workers have their arrays at hand."""
    size = cache_bytes(_CHUNK_BYTES, executor) // (8 * max(1, len(spectrum.index)))
    return chunks(number, size)


def chunk_spectra(bright: BrightField, spectrum: Spectrum, piece: slice, backend: Backend) -> Array:
    """``F_k(q)``, ``(B, Q)`` complex64, of a chunk of pixels; `spectrum` lies on the device."""
    planes = bright.spectra(
        piece, shape=spectrum.shape, taper_px=spectrum.taper_px, backend=backend
    )
    return planes.reshape(len(planes), -1).take(spectrum.index, axis=1)


def ratio(numerator: Array, denominator: Array) -> Array:
    """Quotient, 0 where the denominator is 0."""
    usable = denominator != 0
    return np.where(usable, numerator / np.where(usable, denominator, 1), 0)
