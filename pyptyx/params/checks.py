"""Checks between keys that need no data.  Each yields its problems; none stops at the first."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from pyptyx.errors import Problem
from pyptyx.params.schema_run import COMPRESSED_ALGORITHMS

Params = Mapping[str, Any]
Problems = Iterator[Problem]

SCAN_REGULARISERS = tuple(
    f"{kind}_reg_weight_{what}"
    for kind in ("fast_axis", "slow_axis", "deformation")
    for what in ("positions", "tilts")
)
"""Weights that act on the scan as a grid, hence need `scan_size`."""

PER_MEASUREMENT = ("positions", "tilts", "defocus_array")
"""Arrays with one row for all measurements or one for each."""

MARKERS = ("probe_marker", "aberration_marker", "beam_current")
"""Arrays with one entry for each measurement."""


def _is_on(value: Any) -> bool:
    """Whether a weight or flag is non-zero at some epoch, as far as can be known."""
    return callable(value) or bool(value)


def _measurements(p: Params) -> int:
    """Rows of the data, whose leading axes are the scan; those of a mask's signals are one more."""
    shape = tuple(p["dataset"].shape)
    detector_axes = 2 if p.get("masks") is None else 1
    return math.prod(shape[: max(len(shape) - detector_axes, 1)])


def rows_agree(p: Params) -> Problems:
    """Every array per measurement has as many rows as the scan has points."""
    counts: dict[str, int] = {}
    if p.get("dataset") is not None:
        counts["dataset"] = _measurements(p)
    if p.get("scan_size") is not None:
        counts["scan_size"] = math.prod(p["scan_size"])
    for key in (*PER_MEASUREMENT, *MARKERS):
        array = p.get(key)
        if array is not None and (key in MARKERS or len(array) > 1):
            counts[key] = len(array)
    if not counts:
        return
    reference, n = next(iter(counts.items()))
    for key, rows in counts.items():
        if rows != n and key == "scan_size":
            got = "{} x {} = {}".format(*p["scan_size"], rows)
            remedy = "Correct scan_size, or cut the data"
            yield Problem(key, f"Ny x Nx = {n}, the measurements of {reference}", got, remedy)
        elif rows != n:
            remedy = "Give one row per measurement"
            remedy += ", or one for all" * (key in PER_MEASUREMENT)
            yield Problem(key, f"{n} rows, the measurements of {reference}", f"{rows}", remedy)
    sequence = p.get("sequence")
    if isinstance(sequence, np.ndarray) and sequence.max() >= n:
        expected = f"indices from 0 to {n - 1}, as {reference} has {n} measurements"
        remedy = "Leave sequence out to use all"
        yield Problem("sequence", expected, f"index {int(sequence.max())}", remedy)


def slices_agree(p: Params) -> Problems:
    """`slice_distances` has one value, or one per gap between slices."""
    if not {"slice_distances", "num_slices", "obj"} <= p.keys():
        return
    distances, obj = p["slice_distances"], p["obj"]
    source = "obj" if isinstance(obj, np.ndarray) else "num_slices"
    slices = obj.shape[2] if isinstance(obj, np.ndarray) else p["num_slices"]
    if len(distances) in (1, slices - 1):
        return
    expected = "1 value" if slices <= 2 else f"1 or {slices - 1} values"
    got, remedy = f"{len(distances)}", "Give one distance for all, or one per gap between slices"
    yield Problem("slice_distances", f"{expected} for the {slices} slices of {source}", got, remedy)


def markers_exist(p: Params) -> Problems:
    """Markers point at scenarios of the probe and at rows of the aberrations."""
    probe, marker = p.get("probe"), p.get("probe_marker")
    if isinstance(probe, np.ndarray) and probe.ndim == 4:
        scenarios = probe.shape[3]
        if marker is None:
            remedy = "Say which scenario each measurement uses, or give a 3-D probe"
            expected = "one entry per measurement, the probe is 4-D"
            yield Problem("probe_marker", expected, "None", remedy)
        elif marker.max() >= scenarios:
            expected = f"entries below {scenarios}, the scenarios of the probe"
            remedy = "Counting starts at 0; give a probe (ny, nx, modes, scenarios)"
            yield Problem("probe_marker", expected, f"{int(marker.max())}", remedy)
    marker, rows = p.get("aberration_marker"), p.get("aberrations_array")
    if marker is None and rows is not None and len(rows) > 1:
        expected = f"one entry per measurement, aberrations_array has {len(rows)} rows"
        remedy = "Say which row each measurement uses, or give a single row for all"
        yield Problem("aberration_marker", expected, "None", remedy)
    if marker is not None and rows is not None and marker.max() >= len(rows):
        expected = f"entries below {len(rows)}, the rows of aberrations_array"
        remedy = "Counting starts at 0; give aberrations_array more rows"
        yield Problem("aberration_marker", expected, f"{int(marker.max())}", remedy)


def companions_given(p: Params) -> Problems:
    """Keys that are useless without another one."""
    weights = (*SCAN_REGULARISERS, "puzzle_positions")
    needs_scan = [key for key in weights if _is_on(p.get(key))]
    if needs_scan and p.get("scan_size") is None:
        yield _missing("scan_size", ", ".join(needs_scan), "Give (Ny, Nx)")
    if p.get("algorithm") in COMPRESSED_ALGORITHMS and p.get("masks") is None:
        yield _missing("masks", f"algorithm {p['algorithm']!r}", "Give the virtual detectors")
    aperture = p.get("aperture_mask")
    if isinstance(p.get("probe"), str) and not isinstance(aperture, np.ndarray):
        yield _missing("aperture_mask", "probe 'aperture'", "Give it as an array")
    if _is_on(p.get("probe_reg_constraint_weight")):
        if aperture is None and p.get("probe_constraint_mask") is None:
            remedy = "Give it, or aperture_mask"
            yield _missing("probe_constraint_mask", "probe_reg_constraint_weight", remedy)
    if _is_on(p.get("window_weight")) and p.get("window") is None:
        yield _missing("window", "window_weight", "Give an array or [inner, outer] radii")
    if _is_on(p.get("probe_mod_reg_weight")) and p.get("scan_step_A", 1) is None:
        yield _missing("scan_step_A", "probe_mod_reg_weight", "Give the scan step in Å")


def _missing(key: str, needed_by: str, remedy: str) -> Problem:
    return Problem(key, f"a value, needed by {needed_by}", "None", remedy)


def numbers_agree(p: Params) -> Problems:
    """Numbers that must stand in a certain order or range together."""
    c1, c2 = p.get("wolfe_c1_constant", 0), p.get("wolfe_c2_constant", 1)
    if isinstance(c1, float) and isinstance(c2, float) and c1 >= c2:
        expected = f"a number above wolfe_c1_constant = {c1:g}"
        yield Problem("wolfe_c2_constant", expected, f"{c2:g}", "The defaults are 0.1 and 0.9")
    devices = p.get("devices")
    if isinstance(devices, int) and devices < 1:
        remedy = "Give how many, 'auto', or a list of device numbers"
        yield Problem("devices", "at least one worker", f"{devices}", remedy)
    window = p.get("window")
    if isinstance(window, np.ndarray) and window.shape == (2,) and window[0] >= window[1]:
        got = f"[{window[0]:g}, {window[1]:g}]"
        yield Problem("window", "an inner radius below the outer one", got, "Swap them")
    pad, upsample = p.get("data_pad", 0), p.get("upsample_pattern", 1)
    if p.get("use_padded_intensity", True) and pad % upsample:
        expected = f"a multiple of upsample_pattern = {upsample}"
        remedy = f"Use {-(-pad // upsample) * upsample}, or use_padded_intensity=False"
        yield Problem("data_pad", expected, f"{pad}", remedy)


def _none_given(p: Params, *keys: str) -> bool:
    """Whether every key is empty; a key that is absent was given, but wrongly, and is reported."""
    return all(key in p and _is_empty(p[key]) for key in keys)


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str | float) and not value)


def calibration_given(p: Params) -> Problems:
    """An experiment calibrates the detector somehow; a metadata file may do it."""
    keys = ("rez_pixel_size_A", "rez_pixel_size_mrad", "conv_semiangle_mrad")
    if not p.get("path_json") and _none_given(p, *keys):
        remedy = "Give the detector pixel in 1/Å or mrad, or the convergence semi-angle in mrad"
        yield Problem(keys[0], f"one of {', '.join(keys)}", "none of them", remedy)


def scan_given(p: Params) -> Problems:
    """An experiment with more than one measurement tells where they are."""
    dataset, size = p.get("dataset"), p.get("scan_size")
    single = math.prod(size) == 1 if size is not None else False
    single = single or (dataset is not None and _measurements(p) == 1)
    keys = ("scan_step_A", "fov_nm", "special_postions_A")
    if not (single or p.get("path_json")) and _none_given(p, *keys):
        expected = f"one of {', '.join(keys)}"
        remedy = "Give the scan step in Å, the field of view in nm, or the positions in Å"
        yield Problem("scan_step_A", expected, "none of them", remedy)


def data_given(p: Params) -> Problems:
    """There are data, in memory or in a file."""
    if _none_given(p, "dataset", "data_path"):
        remedy = "Give data_path, or dataset in memory"
        yield Problem("data_path", "a file of patterns", "nothing", remedy)


def output_folder_given(p: Params) -> Problems:
    """The output folder is named, or renounced by None."""
    if p.get("output_folder") == "":
        remedy = "Give a folder, or output_folder=None to keep results in memory only"
        yield Problem("output_folder", "a folder", "nothing", remedy)


def wavelength_given(p: Params) -> Problems:
    """The voltage or the wavelength is given; a metadata file may do it."""
    if not p.get("path_json") and _none_given(p, "acc_voltage", "wavelength_A"):
        remedy = "Give the voltage in kV (for example 300); none is assumed"
        yield Problem("acc_voltage", "the accelerating voltage", "nothing", remedy)


Check = Callable[[Params], Problems]


def simulation_has_a_file(params: Params) -> Problems:
    """PyPty's manual calls ``data_simulation_flag`` a switch; it is the file to write."""
    if params.get("data_simulation_flag") is True:
        yield Problem(
            "data_simulation_flag", "the name of a .npy file", "True", "Name the file to write."
        )


RUN_CHECKS: tuple[Check, ...] = (
    rows_agree,
    slices_agree,
    markers_exist,
    companions_given,
    numbers_agree,
    simulation_has_a_file,
)
EXPERIMENT_CHECKS: tuple[Check, ...] = (calibration_given, scan_given)
REQUIREMENTS: tuple[tuple[str, Check], ...] = (
    ("data", data_given),
    ("output_folder", output_folder_given),
    ("acc_voltage", wavelength_given),
)
"""What a caller of `resolve` may demand by name."""
