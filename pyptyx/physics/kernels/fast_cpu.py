"""Translations of `reference` for the CPU by numba: one pass per pattern, nothing stored between.

Every function works on one batch in the order of its patterns; NaN and infinity keep their meaning
(only the order of additions is free).  Arrays are contiguous, as the stages make them.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from pyptyx.physics.kernels import reference

Array = Any

_FAST = {"contract", "arcp", "nsz", "reassoc"}
_compile = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)

_CODES = {"lsq_sqrt": 0, "ml": 1, "lsq": 2, "lsq_sqrt_2": 3}
"""The losses that `compare` knows; others go through the reference."""


def transmit(incoming: Array, obj: Array, z: int, corners: np.ndarray) -> Array:
    """See `reference.transmit`."""
    shape = (len(corners), incoming.shape[1], len(obj), *incoming.shape[-2:])
    out = np.empty(shape, incoming.dtype)
    _transmit(incoming, obj, z, corners, out)
    return out


@_compile
def _transmit(incoming, obj, z, corners, out):  # type: ignore[no-untyped-def]
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


@_compile
def _pull_back(obj, z, corners, g):  # type: ignore[no-untyped-def]
    batch, modes, object_modes, ny, nx = g.shape
    for b in range(batch):
        y0, x0 = corners[b, 0], corners[b, 1]
        for p in range(modes):
            for o in range(object_modes):
                for y in range(ny):
                    row = obj[o, z, y0 + y, x0 : x0 + nx]
                    for x in range(nx):
                        g[b, p, o, y, x] *= np.conj(row[x])


@_compile
def _transmit_vjp(incoming, obj, z, corners, g, g_object):  # type: ignore[no-untyped-def]
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
    spectrum: Array, data: Array, mask: Array, loss: reference.Loss, weight: float
) -> tuple[Array, Array]:
    """See `reference.compare`."""
    if loss.name not in _CODES:
        return reference.compare(spectrum, data, mask, loss, weight)
    batch, modes, object_modes, ny, nx = spectrum.shape
    value, sse = np.zeros(batch), np.zeros(batch)
    real = mask.dtype.type
    _compare(
        spectrum.reshape(batch, modes * object_modes, ny, nx),
        data,
        mask,
        (_CODES[loss.name], real(loss.floor), real(weight)),
        value,
        sse,
    )
    return value, sse


@_compile
def _compare(spectrum, data, mask, setting, value, sse):  # type: ignore[no-untyped-def]
    batch, modes, ny, nx = spectrum.shape
    code, floor, weight = setting
    one = mask.dtype.type(1)
    mean, double = one / modes, (one + one) * weight / modes
    intensity, derivative = np.empty(nx, mask.dtype), np.empty(nx, mask.dtype)
    for b in range(batch):
        for y in range(ny):
            for x in range(nx):
                intensity[x] = 0
            for p in range(modes):
                for x in range(nx):
                    wave = spectrum[b, p, y, x]
                    intensity[x] += wave.real * wave.real + wave.imag * wave.imag
            squares = one - one
            for x in range(nx):
                intensity[x] *= mask[y, x] * mean
                difference = intensity[x] - data[b, y, x]
                squares += difference * difference
            sse[b] += squares
            value[b] += _row_loss(intensity, data[b, y], code, floor, derivative)
            for x in range(nx):
                derivative[x] *= mask[y, x] * double
            for p in range(modes):
                for x in range(nx):
                    spectrum[b, p, y, x] *= derivative[x]


@_compile
def _row_loss(intensity, data, code, floor, derivative):  # type: ignore[no-untyped-def]
    """Loss of one row in the working precision, and its derivative (see the reference losses)."""
    zero = intensity.dtype.type(0)
    one = intensity.dtype.type(1)
    half = one / 2
    total = zero
    n = len(intensity)
    if code == 0:
        for x in range(n):
            amplitude = np.sqrt(intensity[x])
            residual = amplitude - np.sqrt(intensity.dtype.type(data[x]))
            total += residual * residual
            derivative[x] = residual / (amplitude if amplitude > zero else one)
    elif code == 1:
        for x in range(n):
            i, d = intensity[x], intensity.dtype.type(data[x])
            safe = max(i, floor)
            if safe == zero:
                safe = one
            if i > zero:
                logarithm = np.log(safe)
                if floor > zero:
                    logarithm += (i - safe) / floor
                total += i - d * logarithm
                derivative[x] = one - d / safe
            else:
                derivative[x] = -d
                total += i
    elif code == 2:
        for x in range(n):
            residual = intensity[x] - intensity.dtype.type(data[x])
            total += residual * residual
            derivative[x] = residual + residual
    else:
        for x in range(n):
            i, d = intensity[x], intensity.dtype.type(data[x])
            if d > half:
                derivative[x] = (i - d) / d
                total += half * (i - d) * derivative[x]
            else:
                derivative[x] = one
                total += i
    return total


def imag_marginals(a: Array, g: Array) -> tuple[Array, Array]:
    """See `reference.imag_marginals`."""
    batch, ny, nx = len(g), *g.shape[-2:]
    modes = g.size // (batch * ny * nx)
    rows, columns = np.zeros((batch, ny)), np.zeros((batch, nx))
    _imag_marginals(
        a.reshape(len(a), modes, ny, nx), g.reshape(batch, modes, ny, nx), rows, columns
    )
    return rows, columns


@_compile
def _imag_marginals(a, g, rows, columns):  # type: ignore[no-untyped-def]
    batch, modes, ny, nx = g.shape
    for b in range(batch):
        for p in range(modes):
            wave = a[b if a.shape[0] > 1 else 0, p]
            for y in range(ny):
                total = 0.0
                for x in range(nx):
                    u, v = wave[y, x], g[b, p, y, x]
                    w = u.real * v.imag - u.imag * v.real
                    total += w
                    columns[b, x] += w
                rows[b, y] += total


def modulate(a: Array, rows: np.ndarray, e_y: Array, e_x: Array) -> Array:
    """See `reference.modulate`."""
    out = np.empty((len(rows), *a.shape[1:]), a.dtype)
    _modulate(a, rows, e_y, e_x, out)
    return out


@_compile
def _modulate(a, rows, e_y, e_x, out):  # type: ignore[no-untyped-def]
    batch, modes, ny, nx = out.shape
    for b in range(batch):
        for p in range(modes):
            for y in range(ny):
                factor = e_y[b, y]
                for x in range(nx):
                    out[b, p, y, x] = a[rows[b], p, y, x] * (factor * e_x[b, x])


def modulate_vjp(g: Array, rows: np.ndarray, e_y: Array, e_x: Array, target: Array) -> None:
    """See `reference.modulate_vjp`."""
    _modulate_vjp(g, rows, e_y, e_x, target)


@_compile
def _modulate_vjp(g, rows, e_y, e_x, target):  # type: ignore[no-untyped-def]
    batch, modes, ny, nx = g.shape
    for b in range(batch):
        for p in range(modes):
            for y in range(ny):
                factor = e_y[b, y]
                for x in range(nx):
                    target[rows[b], p, y, x] += g[b, p, y, x] * np.conj(factor * e_x[b, x])
