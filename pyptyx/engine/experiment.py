"""From what the user knows about the experiment to calibrated parameters.

The work of `append_exp_params` in order: metadata, scan, one streamed pass over the data,
calibration, rotation, positions, slices, object; then the preset is filled.  Nothing is written
into the preset before everything has been worked out.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pyptyx.engine.calibration import (
    Calibration,
    Scan,
    calibrate,
    count_slices,
    find_scan,
    positions_px,
)
from pyptyx.engine.metadata import Metadata, read_metadata
from pyptyx.engine.patterns import Survey, back_projection, open_patterns, survey
from pyptyx.engine.rotation import find_rotation
from pyptyx.engine.start import beam_wavelength_A
from pyptyx.errors import ParamError, Problem
from pyptyx.files import check_folder, make_folder, replacing
from pyptyx.params import load_params, load_preset, resolve, resolve_experiment
from pyptyx.params.schema import EXPERIMENT, EXPERIMENT_ALIASES, RUN_ALIASES

logger = logging.getLogger(__name__)


def append_exp_params(
    experimental_params: Mapping[str, Any],
    pypty_params: dict[str, Any] | str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Attach an experiment to a preset.

    Parameters
    ----------
    experimental_params : mapping
        The experiment; keys are listed on the parameters page.  Never modified.
    pypty_params : dict, path or None
        A preset, which is **modified and returned**; the path of saved parameters; or None for a
        new preset.  An object the preset carries is kept unless ``num_obj_modes`` is given, its
        probe unless ``erase_probe``.  A preset that has not been attached to an experiment before
        may hold keys of the experiment as well; those given in the experiment win.

    Returns
    -------
    dict
        Parameters ready for ``run``.

    Raises
    ------
    ParamError
        Missing or wrong keys, all at once.
    DataError
        Data or metadata that cannot be read or do not fit the scan.
    ShapeError
        Arrays that do not fit each other.
    OutputError
        An output folder that cannot be written.
    """
    preset = _preset(pypty_params)
    experimental_params = _with_keys_of(preset, experimental_params)
    exp = resolve_experiment(experimental_params)
    folder = Path(exp["output_folder"]) if exp["output_folder"] else None
    if folder is not None:
        check_folder(folder)
    # The window is that of the patterns as the run will see them.
    exp |= _data_treatment(preset)
    metadata = read_metadata(exp["path_json"]) if exp["path_json"] else Metadata()
    exp["acc_voltage"] = exp["acc_voltage"] or metadata.acc_voltage_kV
    if exp["defocus"] is None:
        exp["defocus"] = metadata.defocus_A or 0.0
    if "num_slices" not in experimental_params and "num_slices" in preset:
        exp["num_slices"] = preset["num_slices"]
    if "slice_thickness" not in experimental_params and (
        "num_slices" in experimental_params or "num_slices" in preset
    ):
        exp["slice_thickness"] = None  # the user has decided; "auto" is only a default
    if "seed" not in experimental_params:
        exp["seed"] = preset.get("seed", exp["seed"])
    scan, seen = _look_at_data(exp, metadata)

    wavelength = beam_wavelength_A(exp)
    calibration = calibrate(exp, seen.mean, wavelength)
    known = {
        **{key: exp[key] for key in _COPIED},
        **_scan_keys(exp, scan, seen),
        **_detector_keys(exp, calibration, seen.mean),
        **_data_keys(exp),
    }
    rotation = find_rotation(exp, preset | known, scan, seen.comx, seen.comy)
    positions = positions_px(exp, scan, rotation, calibration)
    num_slices = count_slices(exp, calibration, wavelength)
    keys = {
        **known,
        "PLRotation_deg": rotation,
        "positions": positions,
        **_object_keys(exp, preset, positions, calibration, num_slices),
    }
    if "aberrations" in experimental_params:
        keys["aberrations"] = experimental_params["aberrations"]
    if exp["erase_probe"] or preset.get("probe") is None:
        keys |= {"probe": None, "probe_is_aberrated": False}
    if folder is not None:
        make_folder(folder)
        if exp["plot"]:
            _save_figure(folder / "pacbed.png", seen.mean, calibration)
    for other_name in [k for k in preset if RUN_ALIASES.get(k) in keys]:
        del preset[other_name]  # or a key would have two values
    preset.update({**_PRESET, **preset, **keys})
    return preset


def _look_at_data(exp: Mapping[str, Any], metadata: Metadata) -> tuple[Scan, Survey]:
    """Scan, mean pattern ``(ky, kx)`` and centres of mass ``(Ny, Nx)``, in one pass."""
    with open_patterns(exp) as source:
        scan = find_scan(exp, metadata, source.shape[0], source.scan_size)
        possible = len(source.shape) == 3 and min(scan.size) > 1
        seen = survey(source, with_com=possible and exp["PLRotation_deg"] in (None, "auto"))
    mean = seen.mean if exp["masks"] is None else back_projection(exp["masks"], seen.mean)
    if seen.comx is None or seen.comy is None:
        return scan, Survey(mean, None, None)
    # The mean over the scan is where the detector was put, not a property of the specimen.
    comx, comy = ((c - c.mean()).reshape(scan.size) for c in (seen.comx, seen.comy))
    return scan, Survey(mean, comx, comy)


def _scan_keys(exp: Mapping[str, Any], scan: Scan, seen: Survey) -> dict[str, Any]:
    return {
        "scan_size": scan.size,
        "scan_step_A": scan.step_A,
        "fov_nm": scan.fov_nm,
        "transform_axis_matrix": exp["transform_axis_matrix"],
        "comx": seen.comx,
        "comy": seen.comy,
    }


def _detector_keys(
    exp: Mapping[str, Any], calibration: Calibration, mean: np.ndarray
) -> dict[str, Any]:
    masks = exp["masks"]
    if masks is not None:
        edge = calibration.data_pad // exp["upsample_pattern"]
        masks = np.pad(masks, ((0, 0), (edge, edge), (edge, edge)))
    pixel_y, pixel_x = calibration.pixel_A
    return {
        "pixel_size_x_A": pixel_x,
        "pixel_size_y_A": pixel_y,
        "rez_pixel_size_A": calibration.rez_A,
        "aperture_mask": calibration.aperture,
        "data_pad": calibration.data_pad,
        "mean_pattern": mean,
        "masks": masks,
        "extra_probe_defocus": exp["defocus"],
    }


_COPIED = (
    "output_folder",
    "acc_voltage",
    "wavelength_A",
    "seed",
    "save_preprocessing_files",
    "upsample_pattern",
    "conv_semiangle_mrad",
    "bright_threshold",
    "plot",
    "print_flag",
    "total_thickness",
    "chemical_formula",
    "sample_name",
    "preparation_date",
    "is_simulation",
    "aberrations",
)
"""Keys that go from the experiment to the parameters as they are."""

_PRESET = {"probe": None, "probe_is_aberrated": False, "epoch_prev": 0, "epoch_max": 200}
"""What a preset receives where it says nothing."""


_ALTERNATIVES = (
    {"dataset", "data_path", "h5_key"},
    {"rez_pixel_size_A", "rez_pixel_size_mrad"},
    {"scan_step_A", "fov_nm", "special_postions_A"},
    {"acc_voltage", "wavelength_A"},
    {"num_slices", "slice_thickness"},
    {"aperture", "bright_threshold"},
)
"""Keys that say the same in different ways: one in the experiment replaces all in the preset."""


def _with_keys_of(
    preset: Mapping[str, Any], experimental_params: Mapping[str, Any]
) -> Mapping[str, Any]:
    """The experiment, completed by its keys that stand in a preset without an experiment.

    In a preset that has one they may come from the experiment before.
    """
    if "positions" in preset or not isinstance(experimental_params, Mapping):
        return experimental_params
    given = {EXPERIMENT_ALIASES.get(key, key) for key in experimental_params}
    for group in _ALTERNATIVES:
        if given & group:
            given |= group
    named = {EXPERIMENT_ALIASES.get(key, key): value for key, value in preset.items()}
    taken = EXPERIMENT.keys() - given
    wished = {k: v for k, v in named.items() if k in taken and v is not None}
    return {**experimental_params, **wished}


def _data_treatment(preset: Mapping[str, Any]) -> dict[str, Any]:
    """What the preset does to the patterns before they are compared with the model's."""
    keys = ("data_bin", "data_shift_vector")
    resolved = resolve({key: preset[key] for key in keys if key in preset}, need=())
    return {key: resolved[key] for key in keys}


def _preset(given: dict[str, Any] | str | os.PathLike[str] | None) -> dict[str, Any]:
    if given is None:
        return {"epoch_max": 1000}
    if isinstance(given, dict):
        return given
    if not isinstance(given, str | os.PathLike):
        expected, remedy = "a dictionary, a path or None", "Leave it out for a new preset"
        raise ParamError(Problem("pypty_params", expected, repr(given), remedy))
    return load_params(given) if Path(given).is_dir() else load_preset(given)


def _data_keys(exp: Mapping[str, Any]) -> dict[str, Any]:
    """How to find the data again.  An array is turned here, a file when it is read."""
    keys = {
        "data_path": exp["data_path"],
        "flip_ky": exp["flip_ky"],
        "transpose_patterns": exp["transpose_patterns"],
        "h5_key": exp["h5_key"],
    }
    data = exp["dataset"]
    if data is None:
        return keys
    compressed = exp["masks"] is not None
    data = data.reshape(-1, data.shape[-1]) if compressed else data.reshape(-1, *data.shape[-2:])
    if exp["flip_ky"]:
        data = data[:, ::-1]
    if exp["transpose_patterns"]:
        data = data.swapaxes(1, 2)
    return keys | {"dataset": data, "flip_ky": False, "transpose_patterns": False}


def _object_keys(
    exp: Mapping[str, Any],
    preset: Mapping[str, Any],
    positions: np.ndarray,
    calibration: Calibration,
    num_slices: int,
) -> dict[str, Any]:
    """Object, number of slices and their distance."""
    modes, carried = exp["num_obj_modes"], preset.get("obj")
    if carried is not None and np.shape(carried)[:2] == (1, 1):
        carried = None  # a placeholder that the engine would have grown
    if modes is None and carried is not None:
        obj = np.asarray(carried)
        if obj.shape[2] != num_slices:
            logger.warning("num_slices = %d, that of the object of the preset", obj.shape[2])
            num_slices = obj.shape[2]
        logger.info("The object of the preset, %s, is kept", obj.shape)
    elif modes is None:
        obj = np.ones((1, 1, num_slices, 1), dtype=np.complex128)
    else:
        rng = np.random.default_rng(exp["seed"])
        height, width = np.ceil(np.ptp(positions, axis=0) + calibration.aperture.shape).astype(int)
        phase = exp["obj_phase_sigma"] * rng.random((height, width, num_slices, int(modes)))
        obj = np.exp(1j * phase)
    return {
        "obj": obj,
        "num_slices": num_slices,
        "slice_distances": np.array([exp["total_thickness"] / num_slices]),
    }


def _save_figure(path: Path, mean: np.ndarray, calibration: Calibration) -> None:
    """Mean pattern and bright-field disc side by side."""
    from matplotlib.figure import Figure  # slow to import, and needed here only

    figure = Figure(figsize=(10, 5))
    panels = [("Mean pattern", mean), ("Bright-field disc", calibration.aperture)]
    for index, (title, image) in enumerate(panels, 1):
        axes = figure.add_subplot(1, 2, index)
        axes.imshow(image, cmap="gray")
        axes.set_title(title)
        axes.axis("off")
    with replacing(path) as temporary:
        figure.savefig(temporary)
