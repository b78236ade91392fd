"""Loss and gradient of patterns, one after the other, compiled by numba.

A pattern goes through all stages before the next one begins, so its waves stay in the second cache.
`rows` is what happens in real space, `columns` what happens in Fourier space; between the two,
waves are kept in strips.
"""

from __future__ import annotations

from typing import NamedTuple

from pyptyx.compiled import compile_for_cpu, part
from pyptyx.physics.kernels.cpu.columns import (
    detect,
    fill_ramps,
    illuminate,
    illuminate_vjp,
    propagate,
    propagate_vjp,
)
from pyptyx.physics.kernels.cpu.rows import transmit, transmit_vjp


class Wanted(NamedTuple):
    """Which gradients."""

    object: bool
    probe: bool
    positions: bool
    tilt: bool


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
        ``loss``, ``sse`` (B,), the marginals ``rows (B or 0, ny)``, ``columns``, ``pull (B or
        0,)``, the sum of ``l'(I)`` times what the waves have in I, and the marginals of tilted
        propagation, ``rows (distances, ny)``, ``columns``, to which is added; float64.
    constants : Constants
    scratch : Scratch
    """
    corners, shifts, light, data = batch
    obj, probe, spectrum, background = state
    values, sse, _rows, _columns, pull, _turned_rows, _turned_columns = results
    code, constant, share, weight = loss
    slices, strips = len(obj), scratch.strips
    behind = background, gradients[3], len(pull) + len(gradients[3]) > 0
    back = wanted.object or wanted.probe or wanted.positions or wanted.tilt
    for k in range(len(corners)):
        top, left = corners[k]
        if len(shifts):
            fill_ramps(shifts[k], constants, scratch)
        if len(light):
            loss = code, constant, share * light[k], weight
        for mode in range(len(strips)):
            if len(shifts):
                illuminate(strips[mode], spectrum[mode], constants, scratch)
            for z in range(slices):
                transmit((z, mode, top, left), obj, probe[mode], constants, scratch)
                if z < slices - 1:
                    table, kept = constants.propagators[constants.gaps[z]], scratch.between[z, mode]
                    propagate(strips[mode], table, kept, constants, scratch)
        values[k], sse[k], total = detect(data[k], loss, behind, back, constants, scratch)
        if len(pull):
            pull[k] = total
        if back:
            _pull_back(k, batch, state, wanted, gradients, results, constants, scratch)


@part
def _pull_back(k, batch, state, wanted, gradients, results, constants, scratch):
    """Gradients of a pattern, from those of the waves on the detector in the strips."""
    corners, shifts, _light, _data = batch
    obj, probe, spectrum, _background = state
    g_object, g_probe, g_spectrum, _g_background = gradients
    _values, _sse, rows, columns, _pull, turned_rows, turned_columns = results
    strips = scratch.strips
    top, left = corners[k]
    for mode in range(len(strips)):
        for z in range(len(obj) - 1, -1, -1):
            goes_on = z > 0 or wanted.probe or wanted.positions
            g = g_object, g_probe[mode], goes_on
            transmit_vjp((z, mode, top, left), obj, probe[mode], g, constants, scratch)
            if z > 0:
                distance, kept = constants.gaps[z - 1], scratch.between[z - 1, mode]
                marginals = turned_rows[distance], turned_columns[distance]
                table = constants.propagators[distance]
                propagate_vjp(strips[mode], table, kept, marginals, constants, scratch)
        if len(shifts) and (wanted.probe or wanted.positions):
            marginals = (rows[k], columns[k]) if len(rows) else (shifts[0, :0], shifts[0, :0])
            illuminate_vjp(
                strips[mode], spectrum[mode], g_spectrum[mode], marginals, constants, scratch
            )
