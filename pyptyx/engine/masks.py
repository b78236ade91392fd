"""Virtual detectors at set-up: the masks on the grid of the model, and what must fit them.

Masks in the parameters are in the public layout ``(Nd, ky, kx)``, zero frequency at ``n // 2`` (far
field), on the data grid with its padding; masks on the measured pattern are padded with zeros.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from pyptyx.data import PatternSource
from pyptyx.data.pixels import shift_whole
from pyptyx.errors import Problem
from pyptyx.params.schema_run import COMPRESSED_ALGORITHMS

Params = Mapping[str, Any]


def data_edge(params: Params) -> int:
    """Data pixels on each side that stand for ``data_pad``; 0 if the model is cropped instead.

    Masks say themselves where nothing is recorded, so with them nothing needs to be cropped.
    """
    if params["masks"] is None and not params["use_padded_intensity"]:
        return 0
    return int(params["data_pad"]) // int(params["upsample_pattern"])


def model_masks(params: Params) -> np.ndarray | None:
    """Masks (Nd, ky, kx) on the data grid with its padding, centred, float64; None without any.

    ``data_shift_vector`` moves them as it would have moved the patterns.
    """
    if params["masks"] is None:
        return None
    shift_y, shift_x = params["data_shift_vector"]
    masks = shift_whole(np.asarray(params["masks"], np.float64), (int(shift_y), int(shift_x)))
    edge = data_edge(params)
    if edge and _on_measured_grid(params, masks.shape[-2:]):
        masks = np.pad(masks, ((0, 0), (edge, edge), (edge, edge)))
    return masks


def _on_measured_grid(params: Params, shape: tuple[int, ...]) -> bool:
    """Whether masks lack the padding, as told by an array whose grid is known."""
    if np.shape(params["mean_pattern"]) == shape:
        return True
    upsample, pad = int(params["upsample_pattern"]), int(params["data_pad"])
    window = tuple(upsample * n + 2 * pad for n in shape)
    return any(np.shape(params[key])[:2] == window for key in ("probe", "aperture_mask"))


def mask_problems(params: Params, source: PatternSource | None) -> Iterator[Problem]:
    """What does not fit between masks, signals and the data term."""
    masks, algorithm = params["masks"], params["algorithm"]
    if masks is None:
        return
    if source is not None:
        yield from _signal_problems(masks, algorithm, source)
    if algorithm in ("gauss_compressed", "poisson_compressed") and np.min(masks) < 0:
        remedy = "Use algorithm='lsq_compressed'"
        expected = f"no negative weight with algorithm {algorithm!r}"
        yield Problem("masks", expected, f"{np.min(masks):.3g}", remedy)
    if params["data_bin"] > 1:
        remedy = "Give the masks on the pattern as it was summed up"
        yield Problem("data_bin", "1 with masks", f"{params['data_bin']}", remedy)
    if params["data_pad"] % params["upsample_pattern"]:
        expected = f"a multiple of upsample_pattern = {params['upsample_pattern']}, with masks"
        remedy = "Masks have whole data pixels on every side"
        yield Problem("data_pad", expected, f"{params['data_pad']}", remedy)


def _signal_problems(masks: np.ndarray, algorithm: str, source: PatternSource) -> Iterator[Problem]:
    if len(source.shape) != 2:
        expected = f"signals [N, {len(masks)}] of the virtual detectors in masks"
        remedy = "Leave masks out for patterns; for signals [Ny, Nx, Nd] in a file give scan_size"
        yield Problem(source.name, expected, f"shape {source.shape}", remedy)
    elif source.shape[1] != len(masks):
        expected = f"{source.shape[1]} masks, the signals per measurement of {source.name}"
        yield Problem("masks", expected, f"{len(masks)}", "One mask belongs to each signal")
    if algorithm not in COMPRESSED_ALGORITHMS:
        expected = f"{' or '.join(map(repr, COMPRESSED_ALGORITHMS))}, as there are masks"
        remedy = "The data are signals of virtual detectors, not patterns"
        yield Problem("algorithm", expected, repr(algorithm), remedy)
