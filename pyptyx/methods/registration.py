"""Finding the shift between two images."""

from __future__ import annotations

import numpy as np

_DARK = 1e-9
"""Relative size below which a frequency carries no phase."""


def _phase_only(reference: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Cross-spectrum of modulus one, zero where it carries no phase."""
    cross = reference * image.conj()
    size = np.abs(cross)
    lit = size > _DARK * size.max()
    return np.where(lit, cross / np.where(lit, size, 1.0), 0.0)


def spectral_shift(
    reference: np.ndarray,
    image: np.ndarray,
    f_y: np.ndarray,
    f_x: np.ndarray,
    *,
    box_px: float = 1.0,
    upsample: int = 1,
) -> tuple[float, float]:
    """Shift that moves an image onto a reference, by phase correlation of their spectra.

    The whole-pixel peak of the correlation is refined on a grid of ``1 / upsample`` px around it,
    computed by a matrix product instead of a large transform.

    Parameters
    ----------
    reference, image : ndarray (ny, nx), complex
        Spectra in the same order as the frequencies.
    f_y, f_x : ndarray (ny,), (nx,)
        Frequencies in cycles per pixel.
    box_px : float
        Half the width of the refined region in px.
    upsample : int
        Steps per pixel of the refinement.

    Returns
    -------
    tuple of float
        ``(y, x)`` in px, to be applied to the image.

    References
    ----------
    M. Guizar-Sicairos, S. T. Thurman, J. R. Fienup, Opt. Lett. 33 (2008) 156-158.
    """
    cross = _phase_only(reference, image)
    ny, nx = cross.shape
    whole_y, whole_x = np.arange(ny) - ny // 2, np.arange(nx) - nx // 2
    y, x = _peak(cross, f_y, f_x, whole_y, whole_x)
    if upsample > 1:
        reach = int(np.ceil(box_px * upsample))
        fine = np.arange(-reach, reach + 1) / upsample
        y, x = _peak(cross, f_y, f_x, y + fine, x + fine)
    return y, x


def nearby_shift(
    reference: np.ndarray,
    image: np.ndarray,
    f_y: np.ndarray,
    f_x: np.ndarray,
    *,
    reach_px: float,
    upsample: int,
) -> tuple[float, float]:
    """Shift of at most `reach_px` that moves an image onto a reference, by cross-correlation.

    Unlike `spectral_shift` it cannot be led to another cell of a lattice.

    Parameters
    ----------
    reference, image, f_y, f_x
        As in `spectral_shift`.
    reach_px : float
        Largest shift along each axis.
    upsample : int
        Steps per pixel.

    Returns
    -------
    tuple of float
        ``(y, x)`` in px, to be applied to the image.
    """
    reach = int(np.ceil(reach_px * upsample))
    fine = np.arange(-reach, reach + 1) / upsample
    return _peak(reference * image.conj(), f_y, f_x, fine, fine)


def _peak(
    cross: np.ndarray, f_y: np.ndarray, f_x: np.ndarray, y: np.ndarray, x: np.ndarray
) -> tuple[float, float]:
    """Where among the points ``y x x`` the correlation is largest."""
    along_y = np.exp(2j * np.pi * np.outer(y, f_y))
    along_x = np.exp(2j * np.pi * np.outer(f_x, x))
    correlation = (along_y @ cross @ along_x).real
    row, column = np.unravel_index(int(correlation.argmax()), correlation.shape)
    return float(y[row]), float(x[column])


def whole_shift(reference: np.ndarray, image: np.ndarray) -> tuple[int, int]:
    """Shift ``(y, x)`` in whole pixels that moves a real image onto a reference (circular)."""
    correlation = np.fft.ifft2(_phase_only(np.fft.fft2(reference), np.fft.fft2(image))).real
    peak = np.unravel_index(int(correlation.argmax()), correlation.shape)
    y, x = (
        int(at) - n if at > n // 2 else int(at)
        for at, n in zip(peak, correlation.shape, strict=True)
    )
    return y, x


def roll_onto(reference: np.ndarray, images: np.ndarray) -> None:
    """Move each of the images ``(..., ny, nx)`` onto a reference, by whole pixels and in place.

    What leaves an image comes in at the other side.
    """
    for index in np.ndindex(images.shape[:-2]):
        images[index] = np.roll(images[index], whole_shift(reference, images[index]), axis=(0, 1))


def shift_ramp(f_y: np.ndarray, f_x: np.ndarray, shift: tuple[float, float]) -> np.ndarray:
    """Factor on a spectrum that moves its image by ``(y, x)`` px towards larger indices."""
    return np.exp(-2j * np.pi * (f_y * shift[0] + f_x * shift[1]))
