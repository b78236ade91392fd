"""Columns of a window, in Fourier space: the shifted probe, propagation, and the detector.

A strip is transformed, multiplied or compared, and transformed back before the next one begins.
"""

from __future__ import annotations

import numpy as np

from pyptyx.compiled import inlined, part
from pyptyx.physics.kernels.cpu import points
from pyptyx.physics.kernels.fast_cpu import dark_loss, row_loss
from pyptyx.vector_fft.vectors import vector_size
from pyptyx.vector_fft.windows import transform_block


@inlined
def _columns_to_real_space(strips, strip, constants, scratch):
    """Transform one strip back, from the source to its place."""
    ny = constants.size[0]
    width = vector_size(strips)
    size = 2 * width
    block, start = scratch.block, strip * ny * size
    transform_block(block, scratch.source, constants.line_y, 0, width)
    for place in range(0, ny * size, size):
        points.copy(strips, block, start + place, place, width)


@part
def illuminate(strips, spectrum, constants, scratch):
    """The shifted probe of one mode, from its spectrum to strips."""
    ny, lit = constants.size[0], constants.lit
    source, ramp_y, ramp_x = scratch.source, scratch.ramp_y, scratch.ramp_x
    size = 2 * vector_size(strips)
    for strip in lit:
        for y in range(ny):
            at, place = (strip * ny + y) * size, y * size
            points.modulate(source, spectrum, ramp_y, ramp_x, place, at, 2 * y, strip * size)
        _columns_to_real_space(strips, strip, constants, scratch)


@part
def propagate(strips, table, kept, constants, scratch):
    """From slice to slice; the spectrum behind the gap is kept, if there is a place for it."""
    ny, lit = constants.size[0], constants.lit
    source, block = scratch.source, scratch.block
    size = 2 * vector_size(strips)
    for strip in lit:
        start = strip * ny * size
        transform_block(block, strips, constants.line_y, start, 0)
        for place in range(0, ny * size, size):
            points.multiply(source, block, table, place, start + place)
        if len(kept):
            for place in range(0, ny * size, size):
                points.copy(kept, source, start + place, place, 0)
        _columns_to_real_space(strips, strip, constants, scratch)


@part
def propagate_vjp(strips, table, kept, marginals, constants, scratch):
    """Adjoint of `propagate`.

    If the spectrum has been kept, the sums of ``Im(a* g)`` over columns and over rows, from which
    the gradient of the tilt follows, are added to the `marginals`.
    """
    ny, lit = constants.size[0], constants.lit
    source, block = scratch.source, scratch.block
    size = 2 * vector_size(strips)
    for strip in lit:
        start = strip * ny * size
        transform_block(block, strips, constants.line_y, start, 0)
        if len(kept):
            _add_marginals(kept, start, strip, marginals, constants, scratch)
        for place in range(0, ny * size, size):
            points.multiply_conjugate(source, block, table, place, start + place)
        _columns_to_real_space(strips, strip, constants, scratch)


@part
def fill_ramps(shift, constants, scratch):
    """Factors ``exp(-2πi (f_y δ_y + f_x δ_x))`` of one pattern."""
    ny, nx = constants.size
    order = constants.order
    turns = scratch.turns
    _fill_powers(shift[0] / ny, turns[: ny // 2 + 1])
    for y in range(ny):
        factor = turns[y] if 2 * y < ny else np.conj(turns[ny - y])
        scratch.ramp_y[2 * y], scratch.ramp_y[2 * y + 1] = factor.real, factor.imag
    _fill_powers(shift[1] / nx, turns[: nx // 2 + 1])
    width = len(order)
    for strip in constants.lit:
        for k in range(width):
            x = min(strip * width + order[k], nx - 1)
            factor = turns[x] if 2 * x < nx else np.conj(turns[nx - x])
            place = 2 * strip * width + k
            scratch.ramp_x[place], scratch.ramp_x[place + width] = factor.real, factor.imag


@part
def _fill_powers(fraction, out):
    """``exp(-2πi k fraction)`` by products of earlier ones, of which each has few."""
    angle = -2 * np.pi * fraction
    out[0] = 1
    out[1] = complex(np.cos(angle), np.sin(angle))
    for k in range(2, len(out)):
        out[k] = out[k // 2] * out[k - k // 2]


@part
def illuminate_vjp(strips, spectrum, target, marginals, constants, scratch):
    """Adjoint of `illuminate`, added to the target unless that is empty.

    The sums of ``Im(a* g)`` over columns and over rows, from which the gradient of the shift
    follows, are added to the `marginals` unless those are empty.
    """
    wants_shift = len(marginals[0]) > 0
    ny, lit = constants.size[0], constants.lit
    source, block = scratch.source, scratch.block
    ramp_y, ramp_x = scratch.ramp_y, scratch.ramp_x
    size = 2 * vector_size(strips)
    for strip in lit:
        start = strip * ny * size
        transform_block(block, strips, constants.line_y, start, 0)
        for y in range(ny):
            at, place = start + y * size, y * size
            if len(target):
                points.modulate_vjp(target, block, ramp_y, ramp_x, at, place, 2 * y, strip * size)
            if wants_shift:
                points.modulate(source, spectrum, ramp_y, ramp_x, place, at, 2 * y, strip * size)
        if wants_shift:
            _add_marginals(source, 0, strip, marginals, constants, scratch)


@part
def _add_marginals(spectrum, start, strip, marginals, constants, scratch):
    """Of one strip of a spectrum and the gradient in the block; what reaches beyond nx is 0."""
    rows, columns = marginals
    ny, nx = constants.size
    order, gradient, sums = constants.order, scratch.block, scratch.counts
    width = len(order)
    for k in range(width):
        sums[k] = 0
    for y in range(ny):
        real, place = start + 2 * y * width, 2 * y * width
        total = sums.dtype.type(0)
        for k in range(width):
            v = spectrum[real + k] * gradient[place + width + k]
            v -= spectrum[real + width + k] * gradient[place + k]
            sums[k] += v
            total += v
        rows[y] += total
    for k in range(width):
        x = strip * width + order[k]
        if x < nx:
            columns[x] += sums[k]


@part
def detect(data, loss, behind, back, constants, scratch):
    """Loss of a pattern, ``Σ(I - D)²``, and ``Σ l'(I) (I - b)`` if that is wanted.

    The strips become the gradient of the waves, if that is wanted (`back`).  `behind` is the
    background b; its gradient, to which is added unless it is empty; and whether that or the last
    sum is wanted.
    """
    nx = constants.size[1]
    width = vector_size(scratch.strips)
    pixels, counts = data.reshape(-1), scratch.counts
    lit, i = constants.lit, 0
    value, sse, pull = 0.0, 0.0, 0.0
    for strip in range(-(-nx // width)):
        _take_strip(data, pixels, strip, constants, counts)
        if i < len(lit) and strip == lit[i]:
            more = _compare(strip, counts, loss, behind, back, constants, scratch)
            i += 1
        else:
            more = _dark(counts, loss)
        value += more[0]
        sse += more[1]
        pull += more[2]
    return value, sse, pull


@part
def _compare(strip, counts, loss, behind, back, constants, scratch):
    """`detect` in one strip."""
    ny, n = constants.size[0], len(counts)
    code, floor, mean, weight = loss
    strips, source = scratch.strips, scratch.source
    intensity, derivative = scratch.intensity, scratch.derivative
    mask = constants.mask[strip * n : (strip + 1) * n]
    width = vector_size(strips)
    size = 2 * width
    for k in range(n):
        intensity[k] = 0
    for mode in range(len(strips)):
        wave = scratch.spectra[mode]
        transform_block(wave, strips[mode], constants.line_y, strip * ny * size, 0)
        for y in range(ny):
            points.add_intensity(intensity, wave, y * width, y * size)
    squares, pull = mean - mean, mean - mean
    for k in range(n):
        intensity[k] *= mean * mask[k]
        difference = intensity[k] - counts[k]
        squares += difference * difference
    if len(behind[0]):
        squares = _add_background(strip, counts, behind[0], intensity)
    value = row_loss(intensity, counts, code, floor, derivative)
    if behind[2]:
        pull = _take_slopes(strip, weight, behind, intensity, derivative)
    if back:
        double = 2 * mean * weight
        for k in range(n):
            derivative[k] *= double * mask[k]
        for mode in range(len(strips)):
            wave = scratch.spectra[mode]
            for y in range(ny):
                points.scale(source, wave, derivative, y * size, y * width)
            _columns_to_real_space(strips[mode], strip, constants, scratch)
    return value, squares, pull


@part
def _add_background(strip, counts, background, intensity):
    """Add a background to what the waves have in a strip; ``Σ(I - D)²`` with it."""
    n = len(counts)
    squares = background[0] - background[0]
    for k in range(n):
        intensity[k] += background[strip * n + k]
        difference = intensity[k] - counts[k]
        squares += difference * difference
    return squares


@part
def _take_slopes(strip, weight, behind, intensity, derivative):
    """Gradient of the background in a strip, if that is wanted, and ``Σ l'(I) (I - b)``."""
    background, g_background, _wanted = behind
    n = len(intensity)
    first, pull = strip * n, weight - weight
    for k in range(n):
        pull += derivative[k] * intensity[k]
    if len(background):
        for k in range(n):
            pull -= derivative[k] * background[first + k]
    if len(g_background):
        for k in range(n):
            g_background[first + k] += weight * derivative[k]
    return pull


@part
def _dark(counts, loss):
    """`detect` where no light can be; patterns end there, as a rule."""
    nothing = loss[2] - loss[2]
    squares = nothing
    for k in range(len(counts)):
        squares += counts[k] * counts[k]
    return dark_loss(counts, loss[0]) if squares > 0 else nothing, squares, nothing


@part
def _take_strip(data, pixels, strip, constants, counts):
    """One strip of a pattern; 0 where it has no pixel."""
    order, rows, columns = constants.order, constants.places.rows, constants.places.columns
    width, run, kx = len(order), constants.places.runs[strip], data.shape[1]
    for y in range(len(rows)):
        row = rows[y]
        if row >= 0 and run >= 0:
            points.take_counts(counts, pixels, y * width, row * kx + run)
            continue
        for k in range(width):
            column = columns[strip * width + order[k]]
            counts[y * width + k] = data[row, column] if row >= 0 and column >= 0 else 0
