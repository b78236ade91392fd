"""Loss and gradients against PyPty's numbers, through the public face, for every far-field row.

PyPty's rows that contain one of its defects are compared where it is right: tilt modes 1 and 2
secretly tilt the propagator with row 0 (F10), which mode 4 says openly; the background gradient
is compared inside the band limit only.  PyPty hard-codes approximations of π, hence the tolerance
of 1e-7.
"""

import numpy as np
import pytest

import pyptyx
from pyptyx.physics.grid import Grid
from tests.golden import closed_form as cf
from tests.golden.values import VALUES

RELATIVE = 1e-7


def base(slices=1, modes=1, object_modes=1, n=cf.N, count=5, fraction=True):
    """The standard params of the golden numbers."""
    return {
        "dataset": cf.patterns(count, n),
        "obj": cf.specimen(slices, object_modes),
        "probe": cf.probe(modes, n),
        "positions": cf.positions(count, fraction),
        "wavelength_A": cf.WAVELENGTH_A,
        "pixel_size_x_A": cf.PIXEL_A,
        "pixel_size_y_A": cf.PIXEL_A,
        "slice_distances": [20.0],
        "update_probe_pos": 1,
        "skip_preprocessing": True,
        "object_band_limit": "patch",
        "default_dtype": "double",
        "compute_batch": 3,
        "devices": 1,
    }


def with_tilts(params, mode, rows=None):
    rows = cf.std_tilts() if rows is None else rows
    return params | {"tilts": rows, "tilt_mode": mode, "update_tilts": 1}


def only(rows, *columns):
    out = np.zeros_like(rows)
    out[:, columns] = rows[:, columns]
    return out


def inside_from_row_0(*columns):
    """Tilts of mode 4 that do what PyPty does in modes 1 and 2: row 0 inside for all."""
    rows = only(cf.std_tilts(), *columns)
    rows[:, 2:4] = cf.std_tilts()[0, 2:4]
    return rows


def currents(modes, **extra):
    params = base(slices=2, modes=modes) | {"update_beam_current": 1, **extra}
    return params | {"beam_current": 1 + 0.2 * np.arange(5)}


def background(modes, object_modes):
    root = 0.5 + 0.3 * np.abs(cf.h((16, 16), 0.3, 0.2, 0.1))
    return base(modes=modes, object_modes=object_modes) | {
        "static_background": root,
        "update_static_background": 1,
    }


def scenario():
    params = base(slices=2, modes=2)
    first = params["probe"]
    second = 1.1 * first[::-1]
    return params | {"probe": np.stack([first, second], -1), "probe_marker": [0, 1, 1, 0, 1]}


def single_position():
    params = base(slices=2) | {"positions": [[2.2, 2.7]]}
    # The fraction of 2.7 is -0.3 from 3; the row wants (2, 3) with (0.2, -0.3).
    return params | {"compute_batch": 1}


def aberrations():
    table = [[30, 10, -20, 7, 8, 9, 10, 1000], [-25, 5, 15, 3, 2, 1, 0, -500]]
    return base(slices=2, modes=2, fraction=False) | {
        "update_probe_pos": 0,
        "aberrations_array": table,
        "aberration_marker": [0, 1, 0, 1, 1],
        "update_aberrations_array": 1,
    }


def padded(**extra):
    return base() | {"dataset": cf.patterns()[:, 4:-4, 4:-4], "data_pad": 4, **extra}


CASES = {
    **{name: base() | {"algorithm": name} for name in ("lsq_sqrt", "lsq", "lsq_sqrt_2")},
    "ml": base() | {"algorithm": "ml", "ml_floor": 0},
    "nz3": base(slices=3),
    "nz3 odd": base(slices=3, n=15),
    "nz3 mp2 mo3 w.3": base(slices=3, modes=2, object_modes=3) | {"loss_weight": 0.3},
    "dists": base(slices=3) | {"slice_distances": [20.0, 30.0]},
    "edge2": base(slices=3) | {"edge_slice_thickness": 40.0},
    "aniso": base(slices=2) | {"pixel_size_y_A": 0.35},
    "pad": padded(),
    "pad crop": padded(use_padded_intensity=False),
    "up2 pad4": padded(upsample_pattern=2) | {"dataset": 4 * cf.patterns()[:, 4:-4:2, 4:-4:2]},
    "tilts mp2 tm0": with_tilts(base(3, 2, 2), 0),
    "tilts mp2 tm1": with_tilts(base(3, 2, 2), 4, inside_from_row_0(4, 5)),
    "tilts mp2 tm2": with_tilts(base(3, 2, 2), 4, inside_from_row_0(0, 1)),
    "tilts mp2 tm3": with_tilts(base(3, 2, 2), 3),
    "tilts mp2 tm4": with_tilts(base(3, 2, 2), 4),
    "tilts dists edge": with_tilts(base(3, 2), 4)
    | {"slice_distances": [20.0, 30.0], "edge_slice_thickness": 40.0},
    "single tilt tm2": with_tilts(base(3, 2), 4, only(cf.std_tilts()[1:2], 0, 1, 2, 3)),
    "bc mp2": currents(2),
    "bc mp1 one batch": currents(1, compute_batch=5),
    "ab noshift": aberrations(),
    "sb mp1": background(1, 1),
    "sb mp2 mo2": background(2, 2),
    "scenario": scenario(),
    "single pos B1": single_position(),
    "no shift": base(slices=2, fraction=False) | {"update_probe_pos": 0},
}

TILT_COLUMNS = {"tilts mp2 tm1": (4, 5), "tilts mp2 tm2": (0, 1), "single tilt tm2": (0, 1)}
"""Columns whose gradient PyPty computes in modes 1 and 2."""


def comparable(case, name, gradient):
    """The part of a gradient that PyPty computes rightly."""
    if name == "tilts" and case in TILT_COLUMNS:
        return only(gradient, *TILT_COLUMNS[case])
    return gradient


def test_every_far_field_row_is_here():
    assert CASES.keys() == VALUES.keys()


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradients(case):
    loss, sse, gradients = VALUES[case]
    got_loss, got_sse, got = pyptyx.loss_and_gradient(CASES[case])
    assert got_loss == pytest.approx(loss, rel=RELATIVE)
    assert got_sse == pytest.approx(sse, rel=RELATIVE)
    for name, (c, norm) in gradients.items():
        g = comparable(case, name, got[name])
        if name == "static_background":
            continue  # PyPty's is not masked: see below
        got_c, got_norm = cf.checksum(g)
        assert got_norm == pytest.approx(norm, rel=2 * RELATIVE), name
        assert abs(got_c - c) <= RELATIVE * np.sqrt(norm * g.size), name


def test_background_gradient_is_masked_and_otherwise_pyptys():
    """Outside the band limit ours is zero, PyPty's is ``Σ_t 2b dl/dI`` at I = 0."""
    params = CASES["sb mp1"]
    _loss, _sse, got = pyptyx.loss_and_gradient(params)
    g = got["static_background"]
    grid = Grid((16, 16), (cf.PIXEL_A, cf.PIXEL_A), cf.WAVELENGTH_A)
    outside = ~np.fft.fftshift(grid.mask)
    assert np.all(g[outside] == 0)
    # There I = b² M = 0, so that dl/dI = -√D.
    full = g.copy()
    root = params["static_background"]
    full[outside] = (-2 * root * np.sqrt(params["dataset"]).sum(axis=0))[outside]
    c, norm = VALUES["sb mp1"][2]["static_background"]
    got_c, got_norm = cf.checksum(full)
    assert got_norm == pytest.approx(norm, rel=2 * RELATIVE)
    assert abs(got_c - c) <= RELATIVE * np.sqrt(norm * g.size)


@pytest.mark.parametrize(("batch", "devices"), [(1, 1), (2, 1), (5, 1), (2, 2), (1, 3)])
def test_batches_and_workers_change_nothing(batch, devices):
    """Defects F2, F3: PyPty's result depends on the batch size, with currents most of all."""
    params = currents(1) | {"compute_batch": batch, "devices": devices}
    loss, _sse, got = pyptyx.loss_and_gradient(params)
    assert loss == pytest.approx(VALUES["bc mp1 one batch"][0], rel=RELATIVE)
    _c, norm = VALUES["bc mp1 one batch"][2]["probe"]
    assert cf.checksum(got["probe"])[1] == pytest.approx(norm, rel=2 * RELATIVE)


def test_inputs_are_left_alone():
    params = CASES["bc mp1 one batch"]
    before = {k: np.array(v, copy=True) for k, v in params.items() if isinstance(v, np.ndarray)}
    pyptyx.loss_and_gradient(params)
    for key, value in before.items():
        np.testing.assert_array_equal(params[key], value)
