"""Parameters that are set and change nothing in this run: said once, instead of passed over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from pyptyx.engine.variables import Tree, ever
from pyptyx.params.checks import SCAN_REGULARISERS
from pyptyx.physics.model import ModelSpec
from pyptyx.physics.tilt import TiltPlan

Params = Mapping[str, Any]

_COHERENCE = ("focal_spread", "spatial_coh_x_A", "spatial_coh_y_A", "spatial_coh_xy")


def idle_keys(params: Params, spec: ModelSpec, x: Tree) -> Iterator[str]:
    """Say of every idle parameter why, and what would make it count.

    Parameters
    ----------
    params : mapping
        Resolved parameters.
    spec : ModelSpec
    x : dict
        Start values of the variables.

    Yields
    ------
    str
        ``"KEY has no effect: ..."``
    """
    for key, why in (*_optics(params, spec), *_refinement(params, spec), *_object(params, x)):
        if _is_on(params, key):
            yield f"{key} has no effect: {why}"


def _optics(params: Params, spec: ModelSpec) -> Iterator[tuple[str, str]]:
    if spec.near_field is None:
        lens = "it belongs to the imaging lens, and recon_type is 'far_field'"
        yield "Cs", f"{lens}; aberrations of the probe are in `aberrations`"
        yield "alpha_near_field", lens
        yield "defocus_array", f"{lens}; the probe has `extra_probe_defocus`"
    if params["mc_n_modes"] is None:
        for key in _COHERENCE:
            yield key, "it makes probe modes, and mc_n_modes does not say how many"


def _refinement(params: Params, spec: ModelSpec) -> Iterator[tuple[str, str]]:
    if not params["allow_subPixel_shift"]:
        yield "update_probe_pos", "allow_subPixel_shift is off, positions stay on whole pixels"
    if spec.tilt == TiltPlan(inside=True) and not spec.distances_A and spec.near_field is None:
        mode = params["tilt_mode"]
        yield "update_tilts", f"tilt_mode={mode} tilts between slices, and there is only one"
    for key in SCAN_REGULARISERS:
        what = "update_probe_pos" if key.endswith("positions") else "update_tilts"
        if not ever(params, what):
            yield key, f"{what} is off"


def _object(params: Params, x: Tree) -> Iterator[tuple[str, str]]:
    modes, slices = x["object"].shape[:2]
    if modes == 1:
        yield "mixed_variance_weight", "it compares object modes, and there is only one"
    if slices == 1:
        yield "wedge_mu", "it acts along the beam, and there is only one slice"
    elif not ever(params, "beta_wedge"):
        yield "wedge_mu", "the sharpness of the wedge, beta_wedge, is 0"


def _is_on(params: Params, key: str) -> bool:
    value = params[key]
    return callable(value) or (value is not None and bool(np.any(value)))
