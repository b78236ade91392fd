"""The exit wave from a focal series: one field of view, images at several defoci.

python examples/11_focal_series.py [OUTPUT_FOLDER]
"""

import sys
from pathlib import Path

import numpy as np

import pyptyx
from pyptyx.output import plots

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "results_focal_series")
rng = np.random.default_rng(2)
ny, nx, pixel_A = 90, 80, 0.2

# A thin crystal with a vacancy now and then.
y, x = np.mgrid[:ny, :nx]
phase = np.zeros((ny, nx))
for cy in np.arange(5, ny, 10):
    for cx in np.arange(5, nx, 8) + (cy % 20 > 9) * 4:
        if rng.random() > 0.1:
            phase += 0.6 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 6)
truth = np.exp(1j * phase)[..., None, None]

microscope = {
    "recon_type": "near_field",
    "acc_voltage": 300,
    "pixel_size_y_A": pixel_A,
    "pixel_size_x_A": pixel_A,
    "defocus_array": np.linspace(-700, 500, 9),  # Å, one for each image
    "Cs": 1e6,  # Å
    "alpha_near_field": 2e-4,  # rad
    "positions": [[0, 0]],  # one row serves all images
    "probe": np.full((ny, nx, 1), 40.0 + 0j),  # a plane wave of 1600 counts per pixel
}
images = pyptyx.simulate(microscope | {"obj": truth})
how = {"epoch_max": 30, "output_folder": folder, "print_flag": 1}
known = {"dataset": rng.poisson(images), "update_probe": 0}
result = pyptyx.run(microscope | known | how)

correlation = np.corrcoef(result.phase.ravel(), phase.ravel())[0, 1]
plots.plot_phase(result.object, pixel_A).savefig(folder / "phase.png")
print(result)
print(f"correlation of the phase with the truth: {correlation:.3f}")
