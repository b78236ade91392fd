"""Spatial frequencies in rings: what the last steps say about the curvature at each of them.

The light on the specimen says how strongly a place is determined, not how strongly a spatial
frequency is.  With partly overlapping discs on the detector the curvature at low and at high
frequencies differs several times over.  Slices that are close together are determined by their sum
alone, unless the frequency is high: along the beam, too, the frequency counts.  No weight in real
space can express either.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import numpy as np

from pyptyx.backend import Backend

Array = Any

COUNT = 64
"""Rings up to the lower of the two Nyquist frequencies; what lies beyond belongs to the last."""


class Rings:
    """Rings of equal width around the zero frequency, for every frequency along the beam.

    Parameters
    ----------
    shape : tuple of int
        ``(Y, X)`` of a slice.
    pixel_A : tuple of float
        ``(y, x)`` pixel size in Å: rings are round in 1/Å.
    backend : Backend
    """

    def __init__(
        self, shape: tuple[int, int], pixel_A: tuple[float, float], backend: Backend
    ) -> None:
        self._shape = shape
        self._pixel_A = pixel_A
        self._backend = backend

    @cached_property
    def _ring(self) -> np.ndarray:
        """Number of the ring of every point, (Y, X); made only when it is needed."""
        q_y, q_x = (np.fft.fftfreq(n, d) for n, d in zip(self._shape, self._pixel_A, strict=True))
        edge = 0.5 / max(self._pixel_A)
        ring = np.rint(np.hypot(q_y[:, None], q_x[None, :]) * (COUNT / edge))
        return np.minimum(ring, COUNT).astype(np.int32)

    @cached_property
    def _ring_there(self) -> Array:
        return self._backend.asarray(self._ring)

    def moments(self, s: Array, y: Array, root: Array) -> np.ndarray:
        """``Σ Re(conj(u) v)`` and ``Σ |v|²`` over each ring and all object modes.

        ``u = F root s`` and ``v = F y / root``.

        Parameters
        ----------
        s, y : array, (Mo, Nz, Y, X)
            A step and the change of the gradient, real or complex.
        root : array, broadcasts against (Mo, Nz, Y, X)
            Square root of the curvature in real space.

        Returns
        -------
        ndarray of float64, (2, Nz, COUNT + 1)
            The second axis is the frequency along the beam.
        """
        sums = np.zeros((2, s.shape[1], COUNT + 1))
        for step, change, r in zip(s, y, np.broadcast_to(root, s.shape), strict=True):
            spectra = self._transform(step * r), self._transform(change / r)
            for z, (u, v) in enumerate(zip(*spectra, strict=True)):
                sums[0, z] += self._sums(u.real * v.real + u.imag * v.imag)
                sums[1, z] += self._sums(v.real * v.real + v.imag * v.imag)
        return sums

    def weigh(self, a: Array, weights: np.ndarray, root: Array) -> Array:
        """``root⁻¹ F⁻¹ w F root⁻¹ a``; symmetric.

        Parameters
        ----------
        a : array, (Mo, Nz, Y, X)
            Real or complex.
        weights : ndarray, (Nz, COUNT + 1)
            ``w``.
        root : array, broadcasts against `a`
        """
        out = self._backend.xp.empty_like(a)
        roots = np.broadcast_to(root, a.shape)
        for mode, stack in enumerate(a):
            spectrum = self._transform(stack / roots[mode])
            for plane, w in zip(spectrum, weights, strict=True):
                plane *= self._backend.asarray(w.astype(a.real.dtype))[self._ring_there]
            image = self._backend.ifft2(self._along_beam(spectrum, +1), overwrite=True)
            out[mode] = image if a.dtype.kind == "c" else image.real
        out /= root
        return out

    def _sums(self, plane: Array) -> np.ndarray:
        """Sums of (Y, X) over the rings, on the host, where they are the same every time."""
        return np.bincount(self._ring.ravel(), self._backend.to_host(plane).ravel(), COUNT + 1)

    def _transform(self, stack: Array) -> Array:
        """Spectrum of (Nz, Y, X), which may be overwritten: plain in the plane, unitary along z."""
        complex_type = np.result_type(stack.dtype, np.complex64)
        spectrum = self._backend.fft2(stack.astype(complex_type, copy=False), overwrite=True)
        return self._along_beam(spectrum, -1)

    def _along_beam(self, a: Array, sign: int) -> Array:
        """Unitary DFT over the first axis, as a product of matrices: slices are few."""
        n = len(a)
        if n == 1:
            return a
        angle = np.outer(np.arange(n), np.arange(n)) * (2 * np.pi / n)
        matrix = np.exp(sign * 1j * angle) / math.sqrt(n)
        flat = self._backend.asarray(matrix.astype(a.dtype)) @ a.reshape(n, -1)
        return flat.reshape(a.shape)
