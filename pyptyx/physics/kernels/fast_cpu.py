"""Translations of `reference` for the CPU by numba: one pass per pattern, nothing stored between.

Every function works on one batch in the order of its patterns; NaN and infinity keep their meaning
(only the order of additions is free).  Arrays are contiguous, as the stages make them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pyptyx.compiled import compile_for_cpu
from pyptyx.physics.grid import Band
from pyptyx.physics.kernels import reference
from pyptyx.vector_fft.windows import empty_aligned

Array = Any

LOSS_NUMBERS = {"lsq_sqrt": 0, "ml": 1, "lsq": 2, "lsq_sqrt_2": 3, "ml_shifted": 4}
"""The losses that `row_loss` knows; others go through the reference."""

add_rows, gather, scatter_add = reference.add_rows, reference.gather, reference.scatter_add


def transmit(incoming: Array, obj: Array, z: int, corners: np.ndarray) -> Array:
    """See `reference.transmit`."""
    shape = (len(corners), incoming.shape[1], len(obj), *incoming.shape[-2:])
    out = empty_aligned(shape, incoming.dtype)
    _transmit(incoming, obj, z, corners, out)
    return out


@compile_for_cpu
def _transmit(incoming, obj, z, corners, out):
    batch, modes, object_modes, ny, nx = out.shape
    shared, common = incoming.shape[0] == 1, incoming.shape[2] == 1
    for b in range(batch):
        y0, x0 = corners[b, 0], corners[b, 1]
        for p in range(modes):
            for o in range(object_modes):
                wave = incoming[0 if shared else b, p, 0 if common else o]
                for y in range(ny):
                    row = obj[o, z, y0 + y, x0 : x0 + nx]
                    for x in range(nx):
                        out[b, p, o, y, x] = wave[y, x] * row[x]


def transmit_vjp(
    incoming: Array, obj: Array, z: int, corners: np.ndarray, g: Array, g_object: Array | None
) -> None:
    """See `reference.transmit_vjp`."""
    if g_object is None:
        _pull_back(obj, z, corners, g)
    else:
        _transmit_vjp(incoming, obj, z, corners, g, g_object)


@compile_for_cpu
def _pull_back(obj, z, corners, g):
    batch, modes, object_modes, ny, nx = g.shape
    for b in range(batch):
        y0, x0 = corners[b, 0], corners[b, 1]
        for p in range(modes):
            for o in range(object_modes):
                for y in range(ny):
                    row = obj[o, z, y0 + y, x0 : x0 + nx]
                    for x in range(nx):
                        g[b, p, o, y, x] *= np.conj(row[x])


@compile_for_cpu
def _transmit_vjp(incoming, obj, z, corners, g, g_object):
    batch, modes, object_modes, ny, nx = g.shape
    shared, common = incoming.shape[0] == 1, incoming.shape[2] == 1
    for b in range(batch):
        y0, x0 = corners[b, 0], corners[b, 1]
        for p in range(modes):
            for o in range(object_modes):
                wave = incoming[0 if shared else b, p, 0 if common else o]
                for y in range(ny):
                    row = obj[o, z, y0 + y, x0 : x0 + nx]
                    target = g_object[o, z, y0 + y, x0 : x0 + nx]
                    for x in range(nx):
                        value = g[b, p, o, y, x]
                        target[x] += np.conj(wave[y, x]) * value
                        g[b, p, o, y, x] = np.conj(row[x]) * value


def compare(
    spectrum: Array, data: Array, mask: Array, band: Band, loss: reference.Loss, weight: float
) -> tuple[Array, Array]:
    """See `reference.compare`."""
    if loss.name not in LOSS_NUMBERS:
        return reference.compare(spectrum, data, mask, band, loss, weight)
    batch, ny, nx = data.shape
    n_modes = spectrum.shape[1] * spectrum.shape[2]
    value, sse = np.zeros(batch), np.zeros(batch)
    real, number = spectrum.real.dtype.type, LOSS_NUMBERS[loss.name]
    _compare(
        spectrum.reshape(batch, n_modes, ny, nx),
        data.astype(real, copy=False),
        mask,
        band.extent,
        (number, real(loss.constant), real(1 / n_modes), real(2 * weight / n_modes)),
        np.empty((2, nx), mask.dtype),
        value,
        sse,
    )
    return value, sse


@compile_for_cpu
def _compare(spectrum, data, mask, extent, setting, rows, value, sse):
    nx = data.shape[2]
    for b in range(len(data)):
        for y in range(len(mask)):
            first, last = extent[y, 0], nx - extent[y, 1]
            waves, counts = spectrum[b, :, y], data[b, y]
            for part in ((0, first), (last, nx)):
                found = _compare_lit(waves, counts, mask[y], part, setting, rows)
                value[b] += found[0]
                sse[b] += found[1]
            found = _compare_dark(waves, counts[first:last], (first, last), setting[0])
            value[b] += found[0]
            sse[b] += found[1]


@compile_for_cpu
def _compare_lit(waves, data, mask, part, setting, rows):
    """Part of a row inside the band limit: loss and ``Σ(I - D)²``, and the gradient in place."""
    first, last = part
    n = last - first
    code, floor, mean, double = setting
    intensity, derivative = rows[0, :n], rows[1, :n]
    counts, factor = data[first:last], mask[first:last]
    for x in range(n):
        intensity[x] = 0
    for p in range(len(waves)):
        wave = waves[p, first:last]
        for x in range(n):
            intensity[x] += wave[x].real * wave[x].real + wave[x].imag * wave[x].imag
    squares = mean - mean
    for x in range(n):
        intensity[x] *= factor[x] * mean
        difference = intensity[x] - counts[x]
        squares += difference * difference
    value = row_loss(intensity, counts, code, floor, derivative)
    for x in range(n):
        derivative[x] *= factor[x] * double
    for p in range(len(waves)):
        wave = waves[p, first:last]
        for x in range(n):
            wave[x] *= derivative[x]
    return value, squares


@compile_for_cpu
def _compare_dark(waves, counts, part, code):
    """Part of a row where no light can be."""
    first, last = part
    squares = counts.dtype.type(0)
    for x in range(len(counts)):
        squares += counts[x] * counts[x]
    for p in range(len(waves)):
        wave = waves[p, first:last]
        for x in range(len(wave)):
            wave[x] = 0
    return dark_loss(counts, code) if squares > 0 else squares, squares


@compile_for_cpu
def row_loss(intensity, data, code, constant, derivative):
    """Loss of one row in the working precision, and its derivative (see the reference losses)."""
    if code == 0:
        return _lsq_sqrt(intensity, data, derivative)
    if code == 1:
        return _ml(intensity, data, constant, derivative)
    if code == 2:
        return _lsq(intensity, data, derivative)
    if code == 3:
        return _lsq_sqrt_2(intensity, data, derivative)
    return _ml_shifted(intensity, data, constant, derivative)


@compile_for_cpu
def dark_loss(data, code):
    """What `row_loss` gives where the intensity is 0."""
    total = data.dtype.type(0)
    half = data.dtype.type(0.5)
    for x in range(len(data)):
        if code == 0:
            total += data[x]
        elif code == 2:
            total += data[x] * data[x]
        elif code == 3 and data[x] > half:
            total += half * data[x]
    return total


@compile_for_cpu
def _lsq_sqrt(intensity, data, derivative):
    total = intensity.dtype.type(0)
    one = intensity.dtype.type(1)
    for x in range(len(intensity)):
        amplitude = np.sqrt(intensity[x])
        residual = amplitude - np.sqrt(intensity.dtype.type(data[x]))
        total += residual * residual
        derivative[x] = residual / (amplitude if amplitude > 0 else one)
    return total


@compile_for_cpu
def _ml(intensity, data, floor, derivative):
    total = intensity.dtype.type(0)
    one = intensity.dtype.type(1)
    for x in range(len(intensity)):
        i, d = intensity[x], intensity.dtype.type(data[x])
        safe = max(i, floor)
        if safe == 0:
            safe = one
        if i > 0:
            logarithm = np.log(safe)
            if floor > 0:
                logarithm += (i - safe) / floor
            total += i - d * logarithm
            derivative[x] = one - d / safe
        else:
            derivative[x] = -d
            total += i
    return total


@compile_for_cpu
def _lsq(intensity, data, derivative):
    total = intensity.dtype.type(0)
    for x in range(len(intensity)):
        residual = intensity[x] - intensity.dtype.type(data[x])
        total += residual * residual
        derivative[x] = residual + residual
    return total


@compile_for_cpu
def _lsq_sqrt_2(intensity, data, derivative):
    total = intensity.dtype.type(0)
    one = intensity.dtype.type(1)
    half = one / 2
    for x in range(len(intensity)):
        i, d = intensity[x], intensity.dtype.type(data[x])
        if d > half:
            derivative[x] = (i - d) / d
            total += half * (i - d) * derivative[x]
        else:
            derivative[x] = one
            total += i
    return total


@compile_for_cpu
def _ml_shifted(intensity, data, shift, derivative):
    total = intensity.dtype.type(0)
    for x in range(len(intensity)):
        i, d = intensity[x], intensity.dtype.type(data[x])
        total += i - (d + shift) * np.log1p(i / shift)
        derivative[x] = (i - d) / (i + shift)
    return total


def imag_marginals(a: Array, g: Array, band: Band | None = None) -> tuple[Array, Array]:
    """See `reference.imag_marginals`."""
    batch = len(g)
    ny, nx = g.shape[-2:]
    modes = g.size // (batch * ny * nx)
    rows, columns = np.zeros((batch, ny)), np.zeros((batch, nx))
    extent = np.stack([np.full(ny, nx), np.zeros(ny, int)], 1) if band is None else band.extent
    _imag_marginals(
        a.reshape(len(a), modes, ny, nx), g.reshape(batch, modes, ny, nx), extent, rows, columns
    )
    return rows, columns


@compile_for_cpu
def _imag_marginals(a, g, extent, rows, columns):
    batch, modes, ny, nx = g.shape
    for b in range(batch):
        for p in range(modes):
            for y in range(ny):
                wave, slope, column = a[b if a.shape[0] > 1 else 0, p, y], g[b, p, y], columns[b]
                total = 0.0
                for start, stop in ((0, extent[y, 0]), (nx - extent[y, 1], nx)):
                    for x in range(start, stop):
                        v = wave[x].real * slope[x].imag - wave[x].imag * slope[x].real
                        total += v
                        column[x] += v
                rows[b, y] += total


def modulate(a: Array, rows: np.ndarray, e_y: Array, e_x: Array, band: Band) -> Array:
    """See `reference.modulate`."""
    out = empty_aligned((len(rows), *a.shape[1:]), a.dtype)
    _modulate(a, rows, e_y, e_x, band.extent, out)
    return out


@compile_for_cpu
def _modulate(a, rows, e_y, e_x, extent, out):
    batch, modes, ny, nx = out.shape
    for b in range(batch):
        ramp = e_x[b]
        for p in range(modes):
            for y in range(ny):
                factor, source, target = e_y[b, y], a[rows[b], p, y], out[b, p, y]
                first, last = extent[y, 0], nx - extent[y, 1]
                for x in range(first):
                    target[x] = source[x] * (factor * ramp[x])
                for x in range(first, last):
                    target[x] = 0
                for x in range(last, nx):
                    target[x] = source[x] * (factor * ramp[x])


def modulate_vjp(
    g: Array, rows: np.ndarray, e_y: Array, e_x: Array, target: Array, band: Band
) -> None:
    """See `reference.modulate_vjp`."""
    _modulate_vjp(g, rows, e_y, e_x, band.extent, target)


@compile_for_cpu
def _modulate_vjp(g, rows, e_y, e_x, extent, target):
    batch, modes, ny, nx = g.shape
    for b in range(batch):
        ramp = e_x[b]
        for p in range(modes):
            for y in range(ny):
                factor, slope, out = e_y[b, y], g[b, p, y], target[rows[b], p, y]
                for start, stop in ((0, extent[y, 0]), (nx - extent[y, 1], nx)):
                    for x in range(start, stop):
                        out[x] += slope[x] * np.conj(factor * ramp[x])
