"""Ptychography from the signals of a few virtual detectors instead of whole patterns.

python examples/14_compressed.py [OUTPUT_FOLDER]
"""

import sys
from pathlib import Path

import numpy as np

import pyptyx
from pyptyx.output import plots

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "results_compressed")
rng = np.random.default_rng(5)
ny, nx, scan, step_px, pixel_A = 40, 36, (18, 20), 2.0, 0.25

positions = step_px * np.stack(np.mgrid[: scan[0], : scan[1]], axis=-1).reshape(-1, 2)
size = np.ceil(positions.max(axis=0)).astype(int) + np.array([ny, nx])
y, x = np.mgrid[: size[0], : size[1]]
phase = np.zeros(size)
for cy, cx in rng.uniform(0, 1, (150, 2)) * size:
    phase += 0.3 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 6)

# Rings cut into eight sectors, as of a segmented detector: 40 numbers instead of 1440.
wavelength_A, aperture_rad = pyptyx.wavelength_A(80), 0.022
q = [np.fft.fftshift(np.fft.fftfreq(n, pixel_A)) for n in (ny, nx)]
angle = wavelength_A * np.hypot(q[0][:, None], q[1]) / aperture_rad
sector = np.floor((np.arctan2(q[0][:, None], q[1]) / np.pi + 1) * 4) % 8
ring = np.digitize(angle, [0.4, 0.7, 1.0, 1.4, 2.0])
masks = np.array([(ring == r) & (sector == s) for r in range(5) for s in range(8)], float)

disc = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(angle <= 1)))
known = {
    "acc_voltage": 80,
    "pixel_size_y_A": pixel_A,
    "pixel_size_x_A": pixel_A,
    "positions": positions,
    "extra_probe_defocus": 80.0,
    "probe": disc[..., None] * np.sqrt(1e6 / (np.sum(abs(disc) ** 2) * ny * nx)),
    "masks": masks,  # (detectors, ky, kx)
    "algorithm": "gauss_compressed",
}
signals = pyptyx.simulate(known | {"obj": np.exp(1j * phase)[..., None, None]})
data = rng.poisson(signals).reshape(*scan, len(masks))
how = {"epoch_max": 40, "update_probe": 0, "output_folder": folder, "print_flag": 1}
result = pyptyx.run(known | {"dataset": data} | how)

scanned = plots.scanned_field(result.positions, (ny, nx))
found, expected = (plots.remove_ramp(a[scanned]) for a in (result.phase, phase))
correlation = np.corrcoef(found.ravel(), expected.ravel())[0, 1]
plots.plot_phase(result.object, pixel_A, field=scanned).savefig(folder / "phase.png")
print(result)
print(f"{len(masks)} signals instead of {ny * nx} pixels per position")
print(f"correlation of the phase with the truth: {correlation:.3f}")
