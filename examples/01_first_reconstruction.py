"""From a 4D-STEM file to a phase image: virus particles in ice, real data that come with pyptyx.

python examples/01_first_reconstruction.py [OUTPUT_FOLDER]
"""

import sys
from pathlib import Path

import h5py

import pyptyx
from pyptyx.output import plots

here = Path(__file__).parent
data = here / "data" / "cryo_rotavirus.h5"
folder = Path(sys.argv[1] if len(sys.argv) > 1 else "results_first")

with h5py.File(data) as file:
    about = dict(file.attrs)

# What is known about the experiment.  Lengths in Å; positive defocus is overfocus.
experiment = {
    "data_path": data,
    "output_folder": folder,
    "acc_voltage": float(about["acc_voltage"]),
    "rez_pixel_size_A": float(about["rez_pixel_size_A"]),
    "conv_semiangle_mrad": float(about["conv_semiangle_mrad"]),
    "defocus": float(about["C10_A"]),
    "scan_step_A": float(about["scan_step_A"]),
    "PLRotation_deg": float(about["PLRotation_deg"]),
    "num_slices": 1,
}
# How to reconstruct.
preset = {"epoch_max": 10, "probe": "aperture", "print_flag": 1}

params = pyptyx.append_exp_params(experiment, preset)
print(pyptyx.describe(params))
result = pyptyx.run(params)
print(result)

field = plots.scanned_field(result.positions, result.probe.shape[:2])
plots.plot_phase(result.object, result.pixel_size_A, field=field).savefig(folder / "phase.png")
