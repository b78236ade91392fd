"""Helpers under PyPty's names: aberrations, probe, patterns, slices, parameter files, alignment.

Nothing given is modified, except dictionaries that are returned.
"""

from pyptyx.engine.export import convert_to_nxs, load_nexus_params
from pyptyx.engine.resample import resample_slices
from pyptyx.methods.puzzle import position_puzzling
from pyptyx.params import change_params, delete_dataset_from_params, load_params, load_preset
from pyptyx.utils.aberrations import (
    convert_num_to_nmab,
    get_ctf,
    get_ctf_derivatives,
    get_ctf_gradient_rotation_angle,
    get_ctf_matrix,
    nmab_to_strings,
)
from pyptyx.utils.alignment import (
    fit_vector_field,
    intorplate_puzzled_obj,
    phase_cross_corr_align,
    warp_image,
)
from pyptyx.utils.parameters import (
    convert_to_string,
    lambda_to_string,
    save_params,
    string_params_to_usefull_params,
    string_to_lambda,
)
from pyptyx.utils.patterns import (
    downsample_something,
    downsample_something_3d,
    preprocess_dataset,
    upsample_something,
    upsample_something_3d,
)
from pyptyx.utils.probe import (
    apply_defocus_probe,
    generate_hermite_modes,
    get_window,
    padfft,
    padprobetodatafarfield,
    probe_modes_from_spreads,
    shift_probe_fourier,
)

__all__ = [
    "apply_defocus_probe",
    "change_params",
    "convert_num_to_nmab",
    "convert_to_nxs",
    "convert_to_string",
    "delete_dataset_from_params",
    "downsample_something",
    "downsample_something_3d",
    "fit_vector_field",
    "generate_hermite_modes",
    "get_ctf",
    "get_ctf_derivatives",
    "get_ctf_gradient_rotation_angle",
    "get_ctf_matrix",
    "get_window",
    "intorplate_puzzled_obj",
    "lambda_to_string",
    "load_nexus_params",
    "load_params",
    "load_preset",
    "nmab_to_strings",
    "padfft",
    "padprobetodatafarfield",
    "phase_cross_corr_align",
    "position_puzzling",
    "preprocess_dataset",
    "probe_modes_from_spreads",
    "resample_slices",
    "save_params",
    "shift_probe_fourier",
    "string_params_to_usefull_params",
    "string_to_lambda",
    "upsample_something",
    "upsample_something_3d",
    "warp_image",
]
