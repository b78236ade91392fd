"""Is the orientation right?  A wrong sign of the defocus or a transposed detector fits worse.

python examples/02_orientation.py [FILE.h5]

FILE may be the complete data set (64 x 64 patterns of 128 x 128 pixels) of which the shipped file
is a part; without one the shipped file is used.  Printed is Σ(√I - √D)² / ΣD.
"""

import sys
from pathlib import Path

import h5py
import numpy as np

import pyptyx

shipped = Path(__file__).parent / "data" / "cryo_rotavirus.h5"
path = Path(sys.argv[1]) if len(sys.argv) > 1 else shipped
with h5py.File(path) as file:
    patterns = file["data"]
    counts = sum(float(row.sum(dtype=np.float64)) for row in patterns)
    detector = patterns.shape[-1]

# The shipped patterns are summed over 2 x 2 pixels of the complete ones.
rez_pixel_size_A = 0.0016801075 * (2 if detector == 36 else 1)
epochs = 6 if detector == 36 else 15


def error(defocus_A, transpose):
    """Normalised error after a few epochs."""
    experiment = {
        "data_path": path,
        "output_folder": None,
        "acc_voltage": 300,
        "rez_pixel_size_A": rez_pixel_size_A,
        "conv_semiangle_mrad": 1.03,
        "defocus": defocus_A,
        "scan_step_A": 31.25,
        "PLRotation_deg": 126,
        "transpose_patterns": transpose,
        "num_slices": 1,
        "print_flag": 0,
    }
    params = pyptyx.append_exp_params(experiment, {"epoch_max": epochs, "probe": "aperture"})
    return pyptyx.run(params).final_loss / counts


for defocus_A in (-135_000, 135_000):
    for transpose in (False, True):
        text = f"{error(defocus_A, transpose):.5f}"
        print(f"defocus {defocus_A:+8d} Å, transposed {transpose!s:5}: {text}", flush=True)
