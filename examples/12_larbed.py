"""A tilt series at one position (LARBED): the beam is tilted before and set upright after.

python examples/12_larbed.py [OUTPUT_FOLDER]
"""

import sys
from pathlib import Path

import numpy as np

import pyptyx
from pyptyx.output import plots

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "results_larbed")
rng = np.random.default_rng(3)
ny, nx, pixel_A = 64, 60, 0.25

# Two layers of atoms, 100 Å apart: the parallax between them is what the tilts show.
y, x = np.mgrid[:ny, :nx]
phase = np.zeros((2, ny, nx))
for layer in phase:
    for cy, cx in rng.uniform(0.2, 0.8, (25, 2)) * [ny, nx]:
        layer += 0.4 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 5)
truth = np.exp(1j * phase.transpose(1, 2, 0))[..., None]

# Slopes up to 20 mrad before the specimen, taken back after it but for what the optics miss.
grid = 0.02 * (np.stack(np.mgrid[:7, :6], axis=-1).reshape(-1, 2) / 3 - 1)
tilts = np.zeros((len(grid), 6))  # (y, x) before, inside and after the specimen
tilts[:, :2], tilts[:, 4:] = grid, -grid
errors = np.zeros_like(tilts)
errors[:, 4:] = 1e-4 * rng.standard_normal(grid.shape)

wavelength_A = pyptyx.wavelength_A(200)
q = np.hypot(*np.meshgrid(np.fft.fftfreq(ny, pixel_A), np.fft.fftfreq(nx, pixel_A), indexing="ij"))
disc = np.fft.fftshift(np.fft.ifft2(q <= 0.008 / wavelength_A))
known = {
    "acc_voltage": 200,
    "pixel_size_y_A": pixel_A,
    "pixel_size_x_A": pixel_A,
    "slice_distances": [100.0],
    "positions": [[0, 0]],  # one row serves all patterns
    "tilt_mode": 4,
    "extra_probe_defocus": 600.0,
    "probe": disc[..., None] * np.sqrt(1e6 / (np.sum(abs(disc) ** 2) * ny * nx)),
}
patterns = pyptyx.simulate(known | {"obj": truth, "tilts": tilts + errors})
start = {"dataset": rng.poisson(patterns), "tilts": tilts, "num_slices": 2, "update_probe": 0}
how = {"epoch_max": 80, "update_tilts": 1, "output_folder": folder, "print_flag": 1}
result = pyptyx.run(known | start | how)

lit = np.hypot(y - ny // 2, x - nx // 2) < 19  # px; 8 mrad times 600 Å
# A common error of the tilts is a ramp of the phase.
found, expected = (plots.remove_ramp(a, lit)[lit] for a in (result.phase, phase.sum(axis=0)))
correlation = np.corrcoef(found, expected)[0, 1]
plots.plot_phase(result.object, pixel_A, mask=lit).savefig(folder / "phase.png")
before, after = (1e6 * e[:, 4:].std(axis=0).mean() for e in (errors, result.tilts - tilts - errors))
print(result)
print(f"error of the tilts: {before:.1f} µrad, refined {after:.1f}")
print(f"correlation of the phase with the truth: {correlation:.3f}")
