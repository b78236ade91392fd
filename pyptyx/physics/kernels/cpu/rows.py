"""Rows of a window, in real space: into it, through the object, and out of it.

A block of rows is transformed back, multiplied with the object and transformed again before the
next one begins.
"""

from __future__ import annotations

from pyptyx.compiled import inlined, part
from pyptyx.physics.kernels.cpu import points
from pyptyx.vector_fft.vectors import load_square, store_square, vector_size
from pyptyx.vector_fft.windows import transform_block

_load = load_square(strips=True)


@inlined
def _rows_to_real_space(strips, constants, scratch, row):
    """Some rows of a wave, from strips to the block, with their parts exchanged."""
    ny, nx = constants.size
    lit, source = constants.lit, scratch.source
    width = vector_size(strips)
    size = 2 * width
    dark = 0
    for strip in lit:
        for place in range(dark * width * size, strip * width * size):
            source[place] = 0
        _load(source, strips, strip * width * size, row, ny - 1, size, strip * ny * size)
        dark = strip + 1
    for place in range(dark * width * size, nx * size):
        source[place] = 0
    transform_block(scratch.block, source, constants.line_x, 0, width)


@inlined
def _rows_to_strips(strips, constants, scratch, row):
    """Transform rows in real space, from the source to strips."""
    ny, nx = constants.size
    width = vector_size(strips)
    size = 2 * width
    block, lit = scratch.block, constants.lit
    transform_block(block, scratch.source, constants.line_x, 0, 0)
    for place in range(nx * size, -(-nx // width) * width * size):
        block[place] = 0  # what is left there might not be finite
    for strip in lit:
        start = strip * ny * size
        store_square(block, strips, strip * width * size, row, ny - 1, size, start)


@part
def transmit(place, obj, probe, constants, scratch):
    """Through a slice: rows of the wave in strips, or of the probe itself, to rows in strips.

    `place` is the number of the slice, that of the mode, and the corner of the window.
    """
    z, mode, top, left = place
    ny, nx = constants.size
    pitch, imag = obj.shape[3], obj.shape[2] * obj.shape[3]
    flat, waves, strips = obj[z].reshape(-1), scratch.waves[z, mode], scratch.strips[mode]
    source, block = scratch.source, scratch.block
    width = vector_size(strips)
    size = 2 * width
    for row in range(0, ny, width):
        at = left * pitch + top + row
        wave = row // width * nx * size
        if z > 0 or len(probe) == 0:
            _rows_to_real_space(strips, constants, scratch, row)
            for x in range(nx):
                point, here = x * size, at + x * pitch
                points.transmit_and_keep(
                    source, block, flat, waves, point, here, imag, wave + point, width
                )
        else:
            for x in range(nx):
                point, here = x * size, at + x * pitch
                points.transmit(source, probe, flat, point, wave + point, here, imag)
        _rows_to_strips(strips, constants, scratch, row)


@part
def transmit_vjp(place, obj, probe, gradients, constants, scratch):
    """Adjoint of `transmit`.

    The gradients are that of the object, to which is added unless it is empty; that of the probe;
    and whether the wave's is wanted at all.  That replaces the strips, or is added to that of the
    probe where the wave is the probe itself.
    """
    z, mode, top, left = place
    g_object, g_probe, g_wave = gradients
    ny, nx = constants.size
    pitch, imag = obj.shape[3], obj.shape[2] * obj.shape[3]
    flat, strips = obj[z].reshape(-1), scratch.strips[mode]
    source, block, rows = scratch.source, scratch.block, constants.rows
    own = z > 0 or len(probe) == 0
    waves = scratch.waves[z, mode] if own else probe
    width = vector_size(strips)
    size = 2 * width
    for row in range(0, ny, width):
        at = left * pitch + top + row
        wave = row // width * nx * size
        _rows_to_real_space(strips, constants, scratch, row)
        if g_object.size:
            target = g_object[z].reshape(-1)
            for x in range(nx):
                point, here = x * size, at + x * pitch
                points.add_to_object(
                    target, block, waves, rows, point, here, imag, wave + point, row, width
                )
        if not g_wave:
            continue
        for x in range(nx):
            points.pull_back(source, block, flat, x * size, at + x * pitch, imag, width)
        if own:
            _rows_to_strips(strips, constants, scratch, row)
        else:
            for x in range(nx):
                points.add(g_probe, source, wave + x * size, x * size)
