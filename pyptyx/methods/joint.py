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

from pyptyx.methods.bright_field import BrightField
from pyptyx.methods.gamma import Coefficients, Overlaps
from pyptyx.methods.scan_spectrum import chunk_spectra, pixel_chunks, pupil_of, spectrum_of
from pyptyx.methods.shared_sums import summed

Array = Any


def joint_image(
    bright: BrightField,
    coefficients_A: Coefficients,
    rotation_rad: float = 0.0,
    *,
    damping: float = 1e-3,
    periodic: bool = False,
    workers: int | None = None,
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
    periodic, workers
        As for `pyptyx.methods.linear.linear_images`.

    Returns
    -------
    phase, amplitude : ndarray (Ny, Nx)
        Phase in rad, mean zero; modulus of the transmission, mean one.
    """
    pupil = pupil_of(bright, coefficients_A)
    spectrum = spectrum_of(bright, [pupil], rotation_rad, periodic)
    overlaps = Overlaps(spectrum.q_A, pupil, relative=True)
    share = np.asarray(bright.mean_fraction, dtype=np.float32)[:, None]

    def work(piece: slice) -> list[Array]:
        spectra = chunk_spectra(bright, spectrum, piece) * share[piece]
        plus, minus = overlaps(bright.k_A[piece])
        to_plus, to_minus = plus.conj(), minus.conj()
        weighted = (plus * share[piece], minus * share[piece])
        pairs = (
            (to_plus, weighted[0]),
            (to_plus, weighted[1]),
            (to_minus, weighted[1]),
            (to_plus, spectra),
            (to_minus, spectra),
        )
        return [np.einsum("kq,kq->q", *pair).astype(np.complex128) for pair in pairs]

    a, b, c, to_u, to_v = summed(work, pixel_chunks(bright, spectrum), workers)
    floor = damping * max(a.real.max(initial=0.0), c.real.max(initial=0.0))
    a, c = a.real + floor, c.real + floor
    determinant = a * c - np.abs(b) ** 2
    u, v = (c * to_u - b * to_v) / determinant, (a * to_v - b.conj() * to_u) / determinant
    return spectrum.image((u - v) / 2j), 1 + spectrum.image((u + v) / 2)
