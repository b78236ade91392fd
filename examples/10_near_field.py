"""Near-field ptychography: a large beam, a few images behind the specimen, diverging illumination.

python examples/10_near_field.py [OUTPUT_FOLDER]
"""

import sys
from pathlib import Path

import numpy as np

import pyptyx
from pyptyx.output import plots

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "results_near_field")
rng = np.random.default_rng(1)
ny, nx, pixel_A = 72, 64, (10.0, 11.0)

# Positions are scattered: a regular grid would leave its own pattern in the result.
positions = 5.0 * np.stack(np.mgrid[:5, :6], axis=-1).reshape(-1, 2) + rng.uniform(0, 4, (30, 2))
size = np.ceil(positions.max(axis=0)).astype(int) + np.array([ny, nx])
y, x = np.mgrid[: size[0], : size[1]]
phase = np.zeros(size)
for cy, cx in rng.uniform(0, 1, (400, 2)) * size:
    phase += 0.5 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 8)
truth = np.exp(1j * phase)[..., None, None]

# A soft disk behind a diffuser: without structure in the beam slow phases would not show.
rows, columns = np.mgrid[:ny, :nx] - np.array([ny // 2, nx // 2])[:, None, None]
disk = 1 / (1 + np.exp(np.hypot(rows, columns) - 24))
spectrum = np.fft.fft2(rng.standard_normal((ny, nx)))
spectrum[np.hypot(*np.meshgrid(np.fft.fftfreq(ny), np.fft.fftfreq(nx), indexing="ij")) > 0.2] = 0
diffuser = np.fft.ifft2(spectrum).real
probe = (30 * disk * np.exp(1.5j * diffuser / diffuser.std()))[..., None]

known = {
    "recon_type": "near_field",
    "defocus_array": [50_000.0],  # Å from the specimen to the plane of the images
    "alpha_near_field": 1e-4,  # rad; the beam is not quite parallel
    "acc_voltage": 300,
    "pixel_size_y_A": pixel_A[0],
    "pixel_size_x_A": pixel_A[1],
    "positions": positions,
}
images = pyptyx.simulate(known | {"obj": truth, "probe": probe})
how = {"epoch_max": 100, "output_folder": folder, "print_flag": 1}
# The start of the probe is the mean image, propagated back to the specimen.
start = {"dataset": rng.poisson(images), "extra_probe_defocus": -known["defocus_array"][0]}
result = pyptyx.run(known | start | how)

lit = (slice(16, size[0] - 16), slice(12, size[1] - 12))
found, expected = (plots.remove_ramp(a[lit]) for a in (result.phase, phase))
correlation = np.corrcoef(found.ravel(), expected.ravel())[0, 1]
plots.plot_phase(result.object, pixel_A, field=lit).savefig(folder / "phase.png")
print(result)
print(f"correlation of the phase with the truth: {correlation:.3f}")
