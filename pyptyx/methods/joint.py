"""Amplitude and phase of a weak object together.

With transmission ``1 - μ + iφ`` the spectrum of bright-field pixel ``k`` is ``F_k = G⁺ u + G⁻ v``,
where ``u = iφ̃ - μ̃`` and ``v = -iφ̃ - μ̃``.  Both are found at every frequency by weighted least
squares, a system of two equations.

References
----------
J. M. Rodenburg, B. C. McCallum, P. D. Nellist, Ultramicroscopy 48 (1993) 304-314.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pyptyx.backend import Backend, MapReduce
from pyptyx.methods.bright_field import BrightField
from pyptyx.methods.gamma import Coefficients, Overlaps
from pyptyx.methods.scan_spectrum import chunk_spectra, pixel_chunks, pupil_of, spectrum_of
from pyptyx.methods.shared_sums import Work, summed

Array = Any


def joint_image(
    bright: BrightField,
    coefficients_A: Coefficients,
    rotation_rad: float = 0.0,
    *,
    damping: float = 1e-3,
    periodic: bool = False,
    executor: MapReduce | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Phase and amplitude of a weak object.

    Parameters
    ----------
    bright : BrightField
        The images of the bright-field pixels.
    coefficients_A : sequence of float
        Krivanek coefficients in Å, detector frame.
    rotation_rad : float
        Scan rotation φ.
    damping : float
        Added to the diagonal of the normal equations, as a fraction of its largest value: what the
        data do not determine, such as slow phases in focus, becomes zero.
    periodic, executor
        As for `pyptyx.methods.linear.linear_images`.

    Returns
    -------
    phase, amplitude : ndarray (Ny, Nx)
        Phase in rad, mean zero; modulus of the transmission, mean one.
    """
    pupil = pupil_of(bright, coefficients_A)
    spectrum = spectrum_of(bright, [pupil], rotation_rad, periodic)
    overlaps = Overlaps(spectrum.q_A, pupil, relative=True)
    fraction = np.asarray(bright.mean_fraction, dtype=np.float32)[:, None]

    def prepare(backend: Backend) -> Work:
        here, pairs_of = spectrum.on(backend), overlaps.on(backend)

        def work(piece: slice) -> list[Array]:
            share = backend.asarray(fraction[piece])
            spectra = chunk_spectra(bright, here, piece, backend) * share
            plus, minus = pairs_of(bright.k_A[piece])
            to_plus, to_minus = plus.conj(), minus.conj()
            weighted = (plus * share, minus * share)
            pairs = (
                (to_plus, weighted[0]),
                (to_plus, weighted[1]),
                (to_minus, weighted[1]),
                (to_plus, spectra),
                (to_minus, spectra),
            )
            sums = (backend.xp.einsum("kq,kq->q", *pair) for pair in pairs)
            return [a.astype(np.complex128) for a in sums]

        return work

    pieces = pixel_chunks(len(fraction), spectrum, executor)
    a, b, c, to_u, to_v = summed(prepare, pieces, executor)
    floor = damping * max(a.real.max(initial=0.0), c.real.max(initial=0.0))
    a, c = a.real + floor, c.real + floor
    determinant = a * c - np.abs(b) ** 2
    u, v = (c * to_u - b * to_v) / determinant, (a * to_v - b.conj() * to_u) / determinant
    return spectrum.image((u - v) / 2j), 1 + spectrum.image((u + v) / 2)
