"""How well a state explains the patterns: by measurement, by ring of the detector, by pixel.

Notation: ``D`` are counts, ``I`` the model's intensities.  Counts of a perfect model scatter with
variance ``I`` (Poisson), so ``χ² = Σ(D - I)² / ΣI`` is 1 over whatever it is summed; it needs no
lower limit where next to nothing is expected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyptyx.data import PatternSource
from pyptyx.engine.feeding import preparation_of
from pyptyx.engine.patterns import open_patterns
from pyptyx.engine.problem import Reconstruction
from pyptyx.engine.setup import SIMULATION_NEEDS, build
from pyptyx.engine.variation import Variation
from pyptyx.physics.detector import collect

_CHUNK = 32
"""Patterns that are read and compared at a time."""

_PILE, _PILE_RATIO = 40, 3
"""So many pixels must share the largest value, and so many times those with the next one."""

_TINY = np.finfo(np.float64).tiny


@dataclass(frozen=True)
class Residuals:
    """Comparison of some measurements with the model.

    Attributes
    ----------
    numbers : ndarray of int (P,)
        The measurements, ascending.
    chi2_per_pattern : ndarray (P,)
        χ² of every measurement.
    counts, predicted : ndarray (P,)
        Sums of D and I of every measurement, inside the band limit of the model.
    ring_per_A, chi2_per_ring, counts_per_ring : ndarray (R,)
        Middle of every ring in 1/Å, its χ² and its mean counts per pixel; the numbers of the
        virtual detectors if there are any; empty in the near field.
    deviation : ndarray (ky, kx)
        ``Σ(D - I) / √ΣI`` of every pixel over all measurements, in the public layout; of order 1
        for a perfect model.
    chi2, chi2_error : float
        χ² of everything and its standard deviation for a perfect model.
    explained, explained_error : float or None
        Part of what differs from pattern to pattern, beyond noise, that the model explains, and
        its error (see `pyptyx.engine.variation`).
    noise : float
        Variance per count that noise has; 1 for electrons.
    beyond_band : float
        Part of all counts that lies outside the band limit, where the model has none.
    saturated : float
        Part of the pixels that hold the largest number their type can, or one that so many share
        that it must be a limit.
    """

    numbers: np.ndarray
    chi2_per_pattern: np.ndarray
    counts: np.ndarray
    predicted: np.ndarray
    ring_per_A: np.ndarray
    chi2_per_ring: np.ndarray
    counts_per_ring: np.ndarray
    deviation: np.ndarray
    chi2: float
    chi2_error: float
    explained: float | None
    explained_error: float | None
    noise: float
    beyond_band: float
    saturated: float


class Comparison:
    """The model of a state beside its patterns, on the CPU; only patterns asked for are read.

    Parameters
    ----------
    params : mapping
        Resolved parameters with the arrays of the state, to be taken as they are.

    Raises
    ------
    ParamError, ShapeError, DataError
        If there are no data, or they do not fit.
    """

    def __init__(self, params: Mapping[str, Any]) -> None:
        alone = {"dataset": None, "data_path": "", "sequence": None, "output_folder": None}
        self._source: PatternSource = open_patterns(params)
        try:
            # Built as for a simulation: a build with data would read and keep them all.
            on_cpu = {"backend": "cpu", "devices": 1, "executor": "serial"}
            self._problem = build({**params, **alone, **on_cpu}, need=SIMULATION_NEEDS)
        except BaseException:
            self._source.close()
            raise
        real = np.empty(0, self._problem.spec.dtype).real.dtype
        self._preparation = preparation_of(params, real)

    @property
    def measurements(self) -> int:
        """Number of measurements of the data."""
        return int(self._source.shape[0])

    def of(self, numbers: np.ndarray) -> Residuals:
        """Compare some measurements, given by their numbers in ascending order."""
        sums = _Sums(self._problem)
        term = self._problem.data_term
        for start in range(0, len(numbers), _CHUNK):
            some = numbers[start : start + _CHUNK]
            raw = self._source.read(some)
            data = self._preparation(raw).reshape(len(some), *self._problem.spec.data_shape)
            sums.add(raw, data, term.replace(1.0, [some]).simulate(self._problem.x))
        return sums.result(numbers)

    def close(self) -> None:
        """Close the files and stop the workers."""
        self._problem.close()
        self._source.close()

    def __enter__(self) -> Comparison:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()


def fitted_numbers(params: Mapping[str, Any], measurements: int) -> np.ndarray:
    """Ascending numbers of the measurements that take part in any epoch of a run.

    Parameters
    ----------
    params : mapping
        Resolved parameters.
    measurements : int
        How many there are.
    """
    sequence = params["sequence"]
    if sequence is None:
        return np.arange(measurements)
    given = [sequence]
    if callable(sequence):
        given = [sequence(epoch) for epoch in range(max(1, int(params["epoch_max"])))]
    if any(some is None for some in given):
        return np.arange(measurements)
    return np.unique(np.concatenate([np.asarray(some, np.int64) for some in given]))


def spread_out(numbers: np.ndarray, limit: int) -> np.ndarray:
    """At most `limit` of the numbers, ascending; the same ones every time.

    They are drawn at random: equal distances would fall on few columns of a raster.
    """
    if len(numbers) <= limit:
        return numbers
    return np.sort(np.random.default_rng(0).choice(numbers, limit, replace=False))


class _Sums:
    """What is added up pattern by pattern."""

    def __init__(self, problem: Reconstruction) -> None:
        self._geometry = problem.spec.geometry
        self._band = _band(problem)
        self._ring, self._ring_per_A = _rings(problem)
        self._squares = np.zeros(problem.spec.data_shape)
        self._variation = Variation(self._ring)
        self._rows: list[np.ndarray] = []
        self._outside = 0.0
        self._ceiling = _Ceiling()

    def add(self, raw: np.ndarray, data: np.ndarray, model: np.ndarray) -> None:
        """Take in a batch: stored patterns, prepared ones, and intensities (B, ky, kx)."""
        data, model = data.astype(np.float64), model.astype(np.float64)
        self._outside += float(data[:, ~self._band].sum())
        data, model = data * self._band, model * self._band
        self._variation.add(data, model)
        squares = (data - model) ** 2
        self._squares += squares.sum(axis=0)
        self._rows.append(np.stack([a.sum(axis=(1, 2)) for a in (squares, data, model)]))
        self._ceiling.add(raw)

    def result(self, numbers: np.ndarray) -> Residuals:
        """The quotients."""
        measured, predicted = self._variation.data, self._variation.model
        squares, data, model = np.concatenate(self._rows, axis=1)
        rings = len(self._ring_per_A)
        ring = self._ring[self._band]
        by_ring = [
            np.bincount(ring, a[self._band], rings)[:rings]
            for a in (self._squares, predicted, measured, np.ones(self._ring.shape))
        ]
        filled = by_ring[3] > 0
        expected = max(model.sum(), _TINY)
        # Var (D - I)² = 2 I² + I for Poisson counts of mean I.
        variance = 2 * (predicted**2).sum() / len(numbers) + expected
        deviation = np.divide(
            measured - predicted,
            np.sqrt(predicted),
            out=np.zeros(predicted.shape),
            where=predicted > 0,
        )
        explained = self._variation.explained()
        return Residuals(
            numbers=numbers,
            chi2_per_pattern=squares / np.maximum(model, _TINY),
            counts=data,
            predicted=model,
            ring_per_A=self._ring_per_A[filled],
            chi2_per_ring=(by_ring[0] / np.maximum(by_ring[1], _TINY))[filled],
            counts_per_ring=(by_ring[2] / np.maximum(by_ring[3], 1))[filled] / len(numbers),
            deviation=self._geometry.to_public(deviation),
            chi2=float(squares.sum() / expected),
            chi2_error=float(np.sqrt(variance) / expected),
            explained=explained.share,
            explained_error=explained.error,
            noise=explained.noise,
            beyond_band=float(self._outside / max(self._outside + data.sum(), _TINY)),
            saturated=self._ceiling.share,
        )


class _Ceiling:
    """Finds pixels at the upper limit of the detector."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._pixels = 0
        self._largest = 0

    def add(self, raw: np.ndarray) -> None:
        """Take in stored patterns; only whole numbers have a limit."""
        if raw.dtype.kind not in "iu":
            return
        self._largest = int(np.iinfo(raw.dtype).max)
        self._pixels += raw.size
        values, counts = np.unique(raw, return_counts=True)
        for value, count in zip(values[-2:].tolist(), counts[-2:].tolist(), strict=True):
            self._counts[value] = self._counts.get(value, 0) + count

    @property
    def share(self) -> float:
        """Part of the pixels that hold the largest value, if that is a limit."""
        if not self._counts:
            return 0.0
        (top, count), *lower = sorted(self._counts.items(), reverse=True)
        below = lower[0][1] if lower else 0
        # Counts thin out towards large values unless something cuts them off.
        piled_up = count >= _PILE and count > _PILE_RATIO * below
        return count / self._pixels if piled_up or top == self._largest else 0.0


def _band(problem: Reconstruction) -> np.ndarray:
    """Where the model can have counts, on the data grid in the detector's order."""
    spec = problem.spec
    if spec.masks is not None or spec.near_field is not None:
        return np.ones(spec.data_shape, bool)
    part = collect(spec.grid.mask[None].astype(np.float64), spec.geometry)[0]
    return part > 0.5 * spec.geometry.upsample**2


def _rings(problem: Reconstruction) -> tuple[np.ndarray, np.ndarray]:
    """Number of the ring of every data pixel, and what the rings are called on an axis."""
    spec = problem.spec
    shape = spec.data_shape
    if spec.masks is not None:
        return np.arange(shape[1])[None], np.arange(shape[1], dtype=np.float64)
    if spec.near_field is not None:
        return np.zeros(shape, int), np.zeros(0)
    window, pixel = spec.grid.shape, spec.grid.pixel_A
    step_y, step_x = (spec.geometry.upsample / (n * d) for n, d in zip(window, pixel, strict=True))
    q_y = np.fft.fftfreq(shape[0]) * shape[0] * step_y
    q_x = np.fft.fftfreq(shape[1]) * shape[1] * step_x
    width = max(step_y, step_x)
    ring = np.rint(np.hypot(q_y[:, None], q_x[None, :]) / width).astype(int)
    return ring, np.arange(ring.max() + 1) * width
