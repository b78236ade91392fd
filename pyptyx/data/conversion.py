"""The steps of a conversion of raw 4D-STEM data, bound to a source and walked in pieces.

Notation: a pattern has axes (ky, kx); its centre of mass is counted from index N//2, where the
model has its zero frequency.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from pyptyx.data.base import PatternSource
from pyptyx.data.pixels import shift_linear, sum_bin
from pyptyx.errors import DataError, ParamError, Problem

logger = logging.getLogger(__name__)

PIECE_BYTES = 8 << 20
"""Size of the pieces in the working dtype, in bytes."""


@dataclass(frozen=True)
class Conversion:
    """The steps of `create_pypty_data`, named and defined as its arguments."""

    swap_axes: bool = False
    flip_ky: bool = False
    flip_kx: bool = False
    flip_y: bool = False
    flip_x: bool = False
    comcalc_len: int | None = 1000
    comx: float | None = None
    comy: float | None = None
    bin: int = 1
    crop_left: int = 0
    crop_right: int = 0
    crop_top: int = 0
    crop_bottom: int = 0
    normalize: bool = False
    cutoff_ratio: float | None = None
    pad_k: int = 0
    data_dtype: str | None = "float32"
    rescale: float = 1.0
    subpixel: bool = False

    def __post_init__(self) -> None:
        """Check the settings; all problems are named at once."""
        counts = ("crop_left", "crop_right", "crop_top", "crop_bottom", "pad_k")
        checks = [
            (key, _at_least(getattr(self, key), 0), "a whole number of pixels, not negative")
            for key in counts
        ]
        checks += [
            ("bin", _at_least(self.bin, 1), "a positive integer"),
            (
                "comcalc_len",
                self.comcalc_len is None or _at_least(self.comcalc_len, 1),
                "a positive integer, or None for all patterns",
            ),
            *(
                (key, value is None or math.isfinite(value), "a finite number of px or None")
                for key, value in (("comx", self.comx), ("comy", self.comy))
            ),
            ("rescale", self.rescale != 0 and math.isfinite(self.rescale), "a finite divisor"),
            (
                "cutoff_ratio",
                self.cutoff_ratio is None or self.cutoff_ratio > 0,
                "a positive number or None",
            ),
            ("data_dtype", _is_real_dtype(self.data_dtype), "a dtype of real numbers or None"),
        ]
        problems = [
            Problem(key, wanted, f"{getattr(self, key)!r}")
            for key, fine, wanted in checks
            if not fine
        ]
        if problems:
            raise ParamError(problems)


class Converter:
    """A conversion bound to a source: what is measured once, and what is done to each piece.

    Parameters
    ----------
    source : PatternSource
        Patterns [N, ky, kx]; the scan size must be known if a scan axis is flipped.
    conversion : Conversion

    Attributes
    ----------
    shape : (int, int)
        Of a finished pattern.
    dtype : numpy.dtype
        Of a finished pattern.

    Raises
    ------
    ParamError
        If the conversion does not fit the source.
    """

    def __init__(self, source: PatternSource, conversion: Conversion):
        self._source = source
        self._set = conversion
        problems = list(_source_problems(source, conversion))
        if problems:
            raise ParamError(problems)
        self._pattern = _turned_shape(source, conversion)
        self._crop = _crop_slices(self._pattern, conversion)
        cropped = [s.stop - s.start for s in self._crop]
        self.shape = tuple(n // conversion.bin + 2 * conversion.pad_k for n in cropped)
        self._warn_if_off_centre()
        # float32 holds integers up to 2^24 exactly: enough for 8 and 16 bit counts.
        self._work = np.result_type(source.dtype, np.float32)
        scales = conversion.normalize or conversion.rescale != 1 or conversion.subpixel
        keep = self._work if scales else source.dtype
        self.dtype = np.dtype(conversion.data_dtype or keep)
        self._order = _scan_order(source, conversion)
        self._com = (0.0, 0.0)
        self._divisor = float(conversion.rescale)

    def measure(self) -> None:
        """Measure centre of mass, then mean counts, on the leading patterns.

        Raises
        ------
        DataError
            If counts are not finite, or zero where they should normalise.
        """
        self._com = self._centre_of_mass()
        if self._set.normalize:
            total, count = 0.0, 0
            for _, patterns in self._walk(self._centred, self._set.comcalc_len):
                total += float(patterns.sum(dtype=np.float64))
                count += len(patterns)
            if total == 0:
                raise DataError(Problem(self._source.name, "counts to normalise by", "zeros only"))
            self._divisor *= total / count

    def chunks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Walk through the finished patterns; call `measure` before.

        Yields
        ------
        where : slice
            Pattern numbers.
        patterns : ndarray, shape (B, *shape)

        Raises
        ------
        DataError
            If values do not fit the dtype asked for.
        """
        return self._walk(lambda patterns: self._finished(self._centred(patterns)), None)

    def _centre_of_mass(self) -> tuple[float, float]:
        y, x = self._set.comy, self._set.comx
        if y is None or x is None:
            measured = self._measured_com()
            y = measured[0] if y is None else y
            x = measured[1] if x is None else x
        logger.info("%s: centre of mass (y, x) (%g, %g) px from N//2", self._source.name, y, x)
        return (y, x) if self._set.subpixel else (_round_away(y), _round_away(x))

    def _measured_com(self) -> tuple[float, float]:
        """Sum of moments over sum of counts: empty patterns weigh nothing."""
        image = np.zeros(self._pattern)
        for _, patterns in self._walk(self._cleaned, self._set.comcalc_len):
            image += patterns.sum(axis=0, dtype=np.float64)
        total = image.sum()
        if not np.isfinite(total):
            raise DataError(
                Problem(self._source.name, "finite counts", "NaN or infinite", "Mask or repair.")
            )
        if total == 0:
            logger.warning("%s: the leading patterns are empty, no centring", self._source.name)
            return 0.0, 0.0
        y, x = (np.arange(n) - n // 2 for n in self._pattern)
        return float(image.sum(axis=1) @ y / total), float(image.sum(axis=0) @ x / total)

    def _warn_if_off_centre(self) -> None:
        centre = [
            (n // 2 - crop.start) // self._set.bin + self._set.pad_k
            for n, crop in zip(self._pattern, self._crop, strict=True)
        ]
        if centre != [n // 2 for n in self.shape]:
            logger.warning(
                "crop and bin put the zero frequency at index %s of patterns of %s; "
                "the model expects it at N//2",
                tuple(centre),
                self.shape,
            )

    def _walk(
        self, step: Callable[[np.ndarray], np.ndarray], limit: int | None
    ) -> Iterator[tuple[slice, np.ndarray]]:
        count = len(self._order) if limit is None else min(limit, len(self._order))
        pattern_bytes = math.prod(self._pattern) * self._work.itemsize
        size = max(1, PIECE_BYTES // pattern_bytes)
        for start in range(0, count, size):
            where = slice(start, min(start + size, count))
            yield where, step(self._source.read(self._order[where]))

    def _cleaned(self, patterns: np.ndarray) -> np.ndarray:
        """Turned, without negative counts, in the working dtype."""
        if self._set.flip_ky:
            patterns = patterns[:, ::-1]
        if self._set.flip_kx:
            patterns = patterns[:, :, ::-1]
        if self._set.swap_axes:
            patterns = patterns.swapaxes(1, 2)
        return np.maximum(patterns, 0, dtype=self._work)

    def _centred(self, patterns: np.ndarray) -> np.ndarray:
        patterns = shift_linear(self._cleaned(patterns), (-self._com[0], -self._com[1]))
        if self._set.cutoff_ratio is not None:
            y, x = np.ogrid[tuple(slice(-(n // 2), n - n // 2) for n in self._pattern)]
            patterns *= np.hypot(y, x) < self._set.cutoff_ratio * self._pattern[1] / 2
        return patterns

    def _finished(self, patterns: np.ndarray) -> np.ndarray:
        patterns = patterns[:, self._crop[0], self._crop[1]]
        if self._divisor != 1:
            patterns = patterns / self._work.type(self._divisor)
        patterns = sum_bin(patterns, self._set.bin, self._work)
        pad = self._set.pad_k
        if pad:
            patterns = np.pad(patterns, ((0, 0), (pad, pad), (pad, pad)))
        return _cast(patterns, self.dtype)


def _source_problems(source: PatternSource, conversion: Conversion) -> Iterator[Problem]:
    if len(source.shape) != 3:
        yield Problem(source.name, "[sy, sx, ky, kx] or [N, ky, kx]", f"shape {source.shape}")
        return
    if source.scan_size is None and (conversion.flip_y or conversion.flip_x):
        yield Problem("flip_y/flip_x", "4-D data", f"shape {source.shape} without a scan size")
    for axis, crop in enumerate(_crop_slices(_turned_shape(source, conversion), conversion)):
        if crop.stop <= crop.start:
            yield Problem(
                ("crop_top/crop_bottom/bin", "crop_left/crop_right/bin")[axis],
                "at least one pixel left",
                f"none of {_turned_shape(source, conversion)[axis]}",
            )


def _turned_shape(source: PatternSource, conversion: Conversion) -> tuple[int, ...]:
    return source.shape[:0:-1] if conversion.swap_axes else source.shape[1:]


def _crop_slices(pattern: tuple[int, ...], conversion: Conversion) -> tuple[slice, slice]:
    """Rows and columns kept: the crop, less the remainder of the bin at the far edges."""
    ky = pattern[0] - conversion.crop_top - conversion.crop_bottom
    kx = pattern[1] - conversion.crop_left - conversion.crop_right
    return (
        slice(conversion.crop_top, conversion.crop_top + ky // conversion.bin * conversion.bin),
        slice(conversion.crop_left, conversion.crop_left + kx // conversion.bin * conversion.bin),
    )


def _scan_order(source: PatternSource, conversion: Conversion) -> np.ndarray:
    """Stored pattern numbers in the order they are written."""
    order = np.arange(source.shape[0])
    if source.scan_size is None:
        return order
    grid = order.reshape(source.scan_size)
    if conversion.flip_y:
        grid = grid[::-1]
    if conversion.flip_x:
        grid = grid[:, ::-1]
    return grid.ravel()


def _cast(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Cast non-negative values, rounding to integers, or say that they do not fit."""
    if values.dtype == dtype or dtype.kind == "b":
        return values.astype(dtype, copy=False)
    largest = values.max()
    if not largest <= (np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)).max:
        raise DataError(
            Problem(
                "data_dtype",
                f"a dtype that holds the largest value {largest:g}",
                f"{dtype}",
                "Choose a wider one, such as float32.",
            )
        )
    return (np.rint(values) if dtype.kind in "iu" else values).astype(dtype)


def _round_away(value: float) -> int:
    """Round to the nearest integer, halves away from zero."""
    return int(math.copysign(math.floor(abs(value) + 0.5), value))


def _at_least(value: object, least: int) -> bool:
    return isinstance(value, int) and value >= least


def _is_real_dtype(name: str | None) -> bool:
    return name is None or np.dtype(name).kind in "iuf"
