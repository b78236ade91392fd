"""Keys that describe the experiment; in a run they are metadata."""

from __future__ import annotations

from pyptyx.params.kinds import (
    BOOL,
    COUNT,
    FLOAT,
    INT,
    NON_NEGATIVE,
    ONE_OR_MORE,
    PATH,
    POSITIVE,
    TEXT,
    Bounds,
    array,
    either,
)
from pyptyx.params.row import Row, table

SAMPLE = table(
    "Experiment: files and sample", "experiment",
    Row("path_json", "", PATH,
        "Metadata file of the microscope (Nion); fills what is not given here."),
    Row("chemical_formula", "", TEXT, "Formula of the sample, for the NeXus file."),
    Row("sample_name", "", TEXT, "Name of the sample, for the NeXus file."),
    Row("preparation_date", "", TEXT,
        "When the sample was prepared, in the manner of ISO 8601, for the NeXus file."),
    Row("is_simulation", False, BOOL, "Whether the data are simulated, for the NeXus file."),
    Row("plot", False, BOOL, "Show the mean pattern and the bright-field disk."),
    Row("print_flag", 1, COUNT, "Verbosity, 0 says nothing.", bounds=Bounds.parse("[0, 4]")),
    Row("save_preprocessing_files", True, BOOL, "Let the direct methods save their results."),
    Row("erase_probe", False, BOOL, "Drop the probe of the preset."),
)  # fmt: skip

CALIBRATION = table(
    "Experiment: calibration", "experiment",
    Row("rez_pixel_size_A", None, FLOAT,
        "Measured detector pixel in reciprocal length, before `data_bin`.", "1/Å", POSITIVE),
    Row("rez_pixel_size_mrad", None, FLOAT,
        "Measured detector pixel as an angle, before `data_bin`; wins over the other calibrations.",
        "mrad", POSITIVE),
    Row("conv_semiangle_mrad", None, FLOAT,
        "Convergence semi-angle; calibrates the detector when neither pixel size is given.", "mrad",
        POSITIVE),
    Row("aperture", None, array(("ky", "kx"), dtype="mask"),
        "Bright-field disk on the binned and upsampled pattern; None thresholds the mean pattern."),
    Row("bright_threshold", 0.1, FLOAT,
        "Threshold of the disk as a fraction of the brightest pixel.",
        bounds=Bounds.parse("(0, 1)")),
    Row("data_pad", None, INT,
        "Upsampled pixels added on each side of the pattern; None adds a quarter of its width, and "
        "up to half as much again for a window that transforms fast.",
        "px",
        NON_NEGATIVE),
    Row("aberrations", (0.0,) * 8, array(("coefficients",)),
        "Aberrations of the probe in Krivanek order.", "Å", nullable=True),
    Row("defocus", 0.0, FLOAT, "Defocus of the probe; None takes it from `path_json`.", "Å",
        nullable=True),
)  # fmt: skip

SCAN = table(
    "Experiment: scan", "experiment",
    Row("scan_step_A", None, FLOAT, "Scan step; None derives it from `fov_nm`.", "Å", POSITIVE),
    Row("fov_nm", None, FLOAT, "Field of view along the fast axis (x).", "nm", NON_NEGATIVE),
    Row("fov_convention", "pixels", TEXT,
        "Whether `fov_nm` spans the number of scan points or of the intervals between them.",
        choices=("pixels", "intervals")),
    Row("special_postions_A", None, array(("n", 2)),
        "Positions (y, x) given directly; rotation and matrix do not apply to them.", "Å"),
    Row("transform_axis_matrix", ((1.0, 0.0), (0.0, 1.0)), array((2, 2)),
        "Matrix in (y, x) order applied to the scan grid before its rotation."),
    Row("PLRotation_deg", "auto", either(TEXT, FLOAT),
        'Rotation between scan and detector; None and "auto" estimate it from the data.', "deg",
        choices=("auto",), nullable=True),
)  # fmt: skip

SPECIMEN = table(
    "Experiment: specimen", "experiment",
    Row("total_thickness", 1.0, FLOAT, "Thickness of the specimen.", "Å", POSITIVE),
    Row("slice_thickness", "auto", either(TEXT, FLOAT),
        'Thickness of a slice; "auto" follows the depth of field, None uses `num_slices`.', "Å",
        POSITIVE, ("auto",), nullable=True),
    Row("num_obj_modes", None, INT,
        "Modes of a random-phase object of full size; None starts from vacuum.",
        bounds=ONE_OR_MORE),
    Row("obj_phase_sigma", 1.0, FLOAT, "Largest phase of the random object.", "rad", NON_NEGATIVE),
)  # fmt: skip

INFO = table(
    "Information", "info",
    Row("comx", None, array(("y", "x")), "Centre of mass of the patterns along x, written by us.",
        "px"),
    Row("comy", None, array(("y", "x")), "Centre of mass of the patterns along y, written by us.",
        "px"),
    Row("aberration_sigma", None, array(("coefficients",)),
        "Standard deviations of `aberrations`, written by the calibration.", "Å"),
    Row("pyptyx_version", None, TEXT, "Version that wrote the parameters."),
)  # fmt: skip
