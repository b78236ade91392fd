"""Real X-ray near-field ptychography: a Siemens star in the diverging beam behind a focus.

python examples/15_petra_near_field.py FILE.cxi [OUTPUT_FOLDER]

FILE is the near-field example data of cdtools, taken at PETRA III, beamline P25.
"""

import sys
from pathlib import Path

import h5py
import numpy as np

import pyptyx
from pyptyx.output import plots

if len(sys.argv) < 2:
    sys.exit(__doc__)
folder = Path(sys.argv[2] if len(sys.argv) > 2 else "results_petra")
PER_METRE = 1e10  # Å

with h5py.File(sys.argv[1]) as file:
    detector = file["entry_1/instrument_1/detector_1"]
    images = detector["data"][()]
    detector_pixel_A = PER_METRE * np.array([detector[f"{a}_pixel_size"][()] for a in "yx"])
    to_detector_A = PER_METRE * float(detector["distance"][()])
    wavelength_A = PER_METRE * float(file["entry_1/instrument_1/source_1/wavelength"][()])
    moved_A = PER_METRE * file["entry_1/sample_1/geometry_1/translation"][:, :2][:, ::-1]  # (y, x)

# A diverging beam magnifies: with the focus f in front of the specimen and the detector z behind
# it, the images are those of a parallel beam at the distance z/M, with pixels M times smaller.
to_focus_A = 3.65e-3 * PER_METRE  # not in the file; 3.0 and 4.3 mm fit far worse
magnification = 1 + to_detector_A / to_focus_A
pixel_A = detector_pixel_A / magnification
distance_A = to_detector_A / magnification

params = {
    "dataset": images,
    "recon_type": "near_field",
    "defocus_array": [distance_A],
    "wavelength_A": wavelength_A,
    "pixel_size_y_A": pixel_A[0],
    "pixel_size_x_A": pixel_A[1],
    "positions": moved_A / pixel_A,
    "extra_space_on_side_px": 5,
    "damping_cutoff_multislice": 1.0,
    "n_hermite_probe_modes": (1, 1),  # the source is not quite coherent
    "update_probe_pos": "lambda epoch: epoch >= 5",
    "epoch_max": 30,
    "output_folder": folder,
}
print(pyptyx.describe(params))
result = pyptyx.run(params)

counts = images.sum()
lit = (slice(15, -20), slice(15, -20))
plots.plot_phase(result.object, tuple(pixel_A), field=lit).savefig(folder / "phase.png")
print(result)
print(f"Σ(√I - √D)² / ΣD: {result.losses[0].loss / counts:.4f} -> {result.final_loss / counts:.4f}")
