"""Loss and gradient of patterns, one after the other, compiled by numba.

A pattern goes through all stages before the next one begins, so its waves stay in the second cache.
`rows` is what happens in real space, `columns` what happens in Fourier space; between the two,
waves are kept in strips.
"""

from __future__ import annotations

from typing import NamedTuple

from pyptyx.compiled import compile_for_cpu
from pyptyx.physics.kernels.cpu.columns import (
    detect,
    fill_ramps,
    illuminate,
    illuminate_vjp,
    propagate,
)
from pyptyx.physics.kernels.cpu.rows import transmit, transmit_vjp


class Wanted(NamedTuple):
    """Which gradients."""

    object: bool
    probe: bool
    positions: bool


@compile_for_cpu
def evaluate(batch, state, loss, wanted, gradients, results, constants, scratch):
    """Add up what a batch gives.

    Parameters
    ----------
    batch : tuple
        ``corners (B, 2)`` int64, ``shifts (B or 0, 2)`` float64, ``light (B or 0,)``: factors on
        the intensity of the probe, ``data (B, ky, kx)``.
    state : tuple
        ``object (slices, 2, X, Y + width)``; ``probe`` in row blocks and ``spectrum`` in strips,
        one of them of length 0, (modes, n); ``background`` in real strips, (n,) or of length 0.
    loss : tuple
        Number of the loss, its constant, ``1/modes`` and the weight of the gradients.
    wanted : Wanted
    gradients : tuple
        Like the state; what is not wanted has length 0.
    results : tuple
        ``loss``, ``sse`` (B,), the marginals ``rows (B or 0, ny)``, ``columns``, and ``pull (B or
        0,)``, the sum of ``l'(I)`` times what the waves have in I; float64.
    constants : Constants
    scratch : Scratch
    """
    corners, shifts, light, data = batch
    obj, probe, spectrum, background = state
    g_object, g_probe, g_spectrum, g_background = gradients
    loss_values, sse, rows, columns, pull = results
    code, constant, share, weight = loss
    slices, modes = len(obj), len(scratch.strips)
    strips = scratch.strips
    back = wanted.object or wanted.probe or wanted.positions
    for k in range(len(corners)):
        top, left = corners[k]
        if len(shifts):
            fill_ramps(shifts[k], constants, scratch)
        for mode in range(modes):
            if len(shifts):
                illuminate(strips[mode], spectrum[mode], constants, scratch)
            for z in range(slices):
                transmit((z, mode, top, left), obj, probe[mode], constants, scratch)
                if z < slices - 1:
                    propagate(strips[mode], z, False, constants, scratch)
        if len(light):
            loss = code, constant, share * light[k], weight
        behind = background, g_background, len(pull) > 0
        found = detect(data[k], loss, behind, back, constants, scratch)
        loss_values[k], sse[k] = found[0], found[1]
        if len(pull):
            pull[k] = found[2]
        if not back:
            continue
        for mode in range(modes):
            for z in range(slices - 1, -1, -1):
                goes_on = z > 0 or wanted.probe or wanted.positions
                g = g_object, g_probe[mode], goes_on
                transmit_vjp((z, mode, top, left), obj, probe[mode], g, constants, scratch)
                if z > 0:
                    propagate(strips[mode], z - 1, True, constants, scratch)
            if len(shifts) and (wanted.probe or wanted.positions):
                marginals = (rows[k], columns[k]) if len(rows) else (shifts[0, :0], shifts[0, :0])
                illuminate_vjp(
                    strips[mode], spectrum[mode], g_spectrum[mode], marginals, constants, scratch
                )
