"""What the kernels of one core work with: constants of a model, and memory of a worker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from pyptyx.physics.detector import collect
from pyptyx.physics.kernels.cpu.layout import real_strips, to_strips
from pyptyx.physics.model import ModelSpec
from pyptyx.physics.multislice import fresnel_propagator
from pyptyx.vector_fft.vectors import block_order, vector_length
from pyptyx.vector_fft.windows import Line, empty_aligned, line, strip_bounds


class Places(NamedTuple):
    """Where the pixels of the window are in a pattern, which may be smaller; -1 is nowhere.

    Attributes
    ----------
    rows : ndarray of int64, (ny,)
    columns : ndarray of int64, (strips * width,)
    runs : ndarray of int64, (strips,)
        Where a strip begins that has all its columns side by side in a pattern.
    """

    rows: np.ndarray
    columns: np.ndarray
    runs: np.ndarray


class Constants(NamedTuple):
    """What stays from one evaluation to the next; all sizes are in numbers.

    Attributes
    ----------
    size : tuple of int
        ``ny, nx`` of the window.
    lit : ndarray of int64
        Strips that the band limit touches.
    mask : ndarray, (strips * ny * width,)
        1 within the band limit where a pattern has a pixel.
    propagators : ndarray, (distances, strips * ny * 2 * width)
    gaps : ndarray of int64, (slices - 1,)
        Which of the propagators follows a slice.
    rows : ndarray, (blocks * width,)
        1 for rows that the window has.
    order : ndarray of int64, (width,)
        Which column every element of a vector of a strip is.
    places : Places
    line_y, line_x : Line
    """

    size: tuple[int, int]
    lit: np.ndarray
    mask: np.ndarray
    propagators: np.ndarray
    gaps: np.ndarray
    rows: np.ndarray
    order: np.ndarray
    places: Places
    line_y: Line
    line_x: Line


class Scratch(NamedTuple):
    """Memory of one worker.

    Attributes
    ----------
    strips : ndarray, (modes, strips * ny * 2 * width)
    waves : ndarray, (slices, modes, blocks * nx * 2 * width)
        Waves in front of the slices.
    spectra : ndarray, (modes, ny * 2 * width)
        Every mode in one strip of the detector.
    source, block : ndarray
        Lines before and after a transform.
    intensity, counts, derivative : ndarray, (ny * width,)
    between : ndarray, (slices - 1, modes, strips * ny * 2 * width or 0)
        Spectra behind the gaps, if they are wanted.
    ramp_y, ramp_x : ndarray
        Factors that shift the probe: per row, and in strips.
    turns : ndarray of complex128, (max(ny, nx) // 2 + 1,)
        Powers of the phase from one frequency to the next.
    """

    strips: np.ndarray
    waves: np.ndarray
    spectra: np.ndarray
    source: np.ndarray
    block: np.ndarray
    intensity: np.ndarray
    counts: np.ndarray
    derivative: np.ndarray
    between: np.ndarray
    ramp_y: np.ndarray
    ramp_x: np.ndarray
    turns: np.ndarray


def constants_of(spec: ModelSpec, real: np.dtype[Any]) -> Constants:
    """Constants of a model in a real type."""
    grid = spec.grid
    ny, nx = grid.shape
    width = vector_length(real)
    bounds = strip_bounds(grid.band.columns, nx, width)
    lit = [k for first, last in bounds for k in range(first // width, -(-last // width))]
    distances = distances_of(spec)
    blocks = -(-ny // width)
    places = _places(spec, width)
    measured = (places.rows[:, None] >= 0) & (places.columns[:nx] >= 0)
    return Constants(
        size=(ny, nx),
        lit=np.array(lit, np.int64),
        mask=real_strips((grid.mask & measured).astype(real)).reshape(-1),
        propagators=propagators_of(spec, real),
        gaps=np.array([distances.index(d) for d in spec.distances_A], np.int64),
        rows=(np.arange(blocks * width) < ny).astype(real),
        order=np.array(block_order(width), np.int64),
        places=places,
        line_y=line(ny, real),
        line_x=line(nx, real),
    )


def distances_of(spec: ModelSpec) -> list[float]:
    """The distances in Å that occur between slices."""
    return sorted(set(spec.distances_A))


def propagators_of(
    spec: ModelSpec, real: np.dtype[Any], turns: Sequence[np.ndarray] | None = None
) -> np.ndarray:
    """Propagators of all distances in strips, times a factor (ny, nx) each for a tilt."""
    distances = distances_of(spec)
    # 1/N belongs to the inverse transform, which leaves it out.
    factors = [fresnel_propagator(spec.grid, d) / spec.grid.size for d in distances]
    if turns is not None:
        factors = [factor * turn for factor, turn in zip(factors, turns, strict=True)]
    tables = [to_strips(factor.astype(spec.dtype)).reshape(-1) for factor in factors]
    return np.array(tables or np.zeros((0, 0)), real)


def _places(spec: ModelSpec, width: int) -> Places:
    """Places of patterns that are cropped, not binned."""
    ny, nx = spec.grid.shape
    pixels = collect(np.arange(ny * nx).reshape(1, ny, nx), spec.geometry)[0]
    rows, columns = np.full(ny, -1), np.full(-(-nx // width) * width, -1)
    rows[pixels[:, 0] // nx] = np.arange(len(pixels))
    columns[pixels[0] % nx] = np.arange(len(pixels[0]))
    strips = columns.reshape(-1, width)
    together = (strips >= 0).all(axis=1) & (np.diff(strips, axis=1) == 1).all(axis=1)
    runs = np.where(together, strips[:, 0], -1)
    return Places(*(a.astype(np.int64) for a in (rows, columns, runs)))


def scratch_for(
    shape: tuple[int, int], slices: int, modes: int, real: np.dtype[Any], keep: bool
) -> Scratch:
    """Memory for patterns of a model with so many slices and modes, all zero at first.

    Only to `keep` spectra behind the gaps is there a place for them.
    """
    width = vector_length(real)
    (ny, nx), (high, wide) = shape, (-(-n // width) * width for n in shape)

    def zeros(*size: int) -> np.ndarray:
        out = empty_aligned(size, real)
        out[...] = 0
        return out

    line = 2 * width * max(high, wide)
    return Scratch(
        strips=zeros(modes, 2 * ny * wide),
        waves=zeros(slices, modes, 2 * high * nx),
        spectra=zeros(modes, 2 * width * ny),
        source=zeros(line),
        block=zeros(line),
        intensity=zeros(ny * width),
        counts=zeros(ny * width),
        derivative=zeros(ny * width),
        between=zeros(slices - 1, modes, 2 * ny * wide * keep),
        ramp_y=zeros(2 * ny),
        ramp_x=zeros(2 * wide),
        turns=np.zeros(max(shape) // 2 + 1, np.complex128),
    )
