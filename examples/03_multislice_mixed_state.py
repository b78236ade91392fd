"""Simulate a thick specimen with partial coherence, reconstruct it, compare with the truth.

python examples/03_multislice_mixed_state.py
"""

import numpy as np

import pyptyx

rng = np.random.default_rng(1)
ny, nx, scan = 40, 36, (12, 14)  # patterns need not be square
pixel_A, step_px = 0.25, 3.2

# Two slices of Gaussian atoms.
positions = step_px * np.stack(np.mgrid[: scan[0], : scan[1]], axis=-1).reshape(-1, 2)
size = np.ceil(positions.max(axis=0)).astype(int) + np.array([ny, nx])
y, x = np.mgrid[: size[0], : size[1]]
phase = np.zeros((2, *size))
for potential in phase:
    for cy, cx in rng.uniform(8, size - 8, (60, 2)):
        potential += 0.25 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 6)
truth = np.exp(1j * phase.transpose(1, 2, 0))[..., None]

# A defocused 20 mrad probe in two modes: the source is 0.3 Å wide.
beam = {
    "acc_voltage": 200,
    "pixel_size_y_A": pixel_A,
    "pixel_size_x_A": pixel_A * ny / nx,  # square detector pixels
    "extra_probe_defocus": 80.0,
    "mc_n_modes": 2,
    "spatial_coh_x_A": 0.3,
    "apply_aberrations_to_probe": True,
}
wavelength_A = pyptyx.wavelength_A(200)
q = np.arange(-ny // 2, ny - ny // 2) / (ny * pixel_A)
aperture = (np.hypot(q[:, None], q[None, 2:-2]) <= 0.020 / wavelength_A).astype(complex)
probe = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(aperture)))[..., None]
probe *= np.sqrt(2e4 / (np.sum(abs(probe) ** 2) * ny * nx))  # 20000 counts per pattern

common = beam | {"positions": positions, "slice_distances": [20.0], "scan_size": scan}
patterns = pyptyx.simulate(common | {"obj": truth, "probe": probe})
data = rng.poisson(patterns)

start = common | {"dataset": data, "probe": probe, "num_slices": 2, "output_folder": None}
result = pyptyx.run(start | {"epoch_max": 40, "print_flag": 1})

last_y, last_x = positions.max(axis=0).astype(int)
scanned = (slice(ny // 2, ny // 2 + last_y), slice(nx // 2, nx // 2 + last_x))
correlation = np.corrcoef(result.phase[scanned].ravel(), phase.sum(axis=0)[scanned].ravel())[0, 1]
print(result)
print(f"correlation of the projected phase with the truth: {correlation:.3f}")
