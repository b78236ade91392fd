"""A part of a large scan first, then the whole scan with another quarter of it in every epoch.

python examples/13_sub_scan.py [OUTPUT_FOLDER]
"""

import sys
from pathlib import Path

import numpy as np

import pyptyx
from pyptyx.output import plots

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "results_sub_scan")
rng = np.random.default_rng(4)
ny, nx, scan, step_px, pixel_A = 36, 32, (16, 20), 3.0, 0.3

positions = step_px * np.stack(np.mgrid[: scan[0], : scan[1]], axis=-1).reshape(-1, 2)
size = np.ceil(positions.max(axis=0)).astype(int) + np.array([ny, nx])
y, x = np.mgrid[: size[0], : size[1]]
phase = np.zeros(size)
for cy, cx in rng.uniform(0, 1, (200, 2)) * size:
    phase += 0.4 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 6)

q = np.hypot(*np.meshgrid(np.fft.fftfreq(ny, pixel_A), np.fft.fftfreq(nx, pixel_A), indexing="ij"))
disc = np.fft.fftshift(np.fft.ifft2(q <= 0.022 / pyptyx.wavelength_A(80)))
known = {
    "acc_voltage": 80,
    "pixel_size_y_A": pixel_A,
    "pixel_size_x_A": pixel_A,
    "scan_size": scan,
    "positions": positions,
    "extra_probe_defocus": 120.0,
    "probe": disc[..., None] * np.sqrt(5e4 / (np.sum(abs(disc) ** 2) * ny * nx)),
}
patterns = pyptyx.simulate(known | {"obj": np.exp(1j * phase)[..., None, None]})
common = known | {"dataset": rng.poisson(patterns), "output_folder": None, "print_flag": 1}


def correlation(result, start=(0, 0)):
    """With the truth, whose part begins at pixel `start`."""
    mask = plots.scanned_mask(result.positions[used], (ny, nx), result.object.shape[:2])
    truth = np.pad(phase, (0, 8))[start[0] :, start[1] :][: mask.shape[0], : mask.shape[1]]
    found, expected = (plots.remove_ramp(a, mask)[mask] for a in (result.phase, truth))
    return np.corrcoef(found, expected)[0, 1]


# A rectangle of 9 columns and 7 rows; the object is only as large as they need.
part = pyptyx.create_sub_sequence(dict(common), left=5, top=4, width=9, height=7, sub=1)
used = part["sequence"]
result = pyptyx.run(part | {"use_full_FOV": False, "epoch_max": 25})
print(f"correlation of the part with the truth: {correlation(result, (12, 15)):.3f}")

# Everything, a quarter at a time: the sequence may depend on the epoch.
used = np.arange(len(positions))
quarters = {"sequence": lambda epoch: np.arange(epoch % 4, len(positions), 4)}
result = pyptyx.run(common | quarters | {"epoch_max": 24, "output_folder": folder})
plots.plot_phase(result.object, pixel_A).savefig(folder / "phase.png")
print(f"correlation of the whole with the truth: {correlation(result):.3f}")
