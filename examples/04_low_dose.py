"""A low-dose simulated crystal, from the measured aperture, the nominal defocus and a flat object.

python examples/04_low_dose.py mos2_80kV.h5 [OUTPUT_FOLDER]

The file holds patterns [sy, sx, ky, kx] of MoS2 at 80 kV, 25 mrad, 20000 electrons per Å²; without
one a small crystal of the same kind is simulated.  Nothing is tuned: defaults and six epochs.
"""

import sys
from pathlib import Path

import h5py
import numpy as np

import pyptyx
from pyptyx.output import plots

folder = Path(sys.argv[2] if len(sys.argv) > 2 else "results_low_dose")
experiment = {
    "output_folder": folder,
    "acc_voltage": 80,
    "conv_semiangle_mrad": 25,
    "defocus": -200,  # underfocus: C10 = -200 Å
    "scan_step_A": 0.5,
    "PLRotation_deg": 0,
    "num_slices": 1,
    "print_flag": 2,
}
if len(sys.argv) > 1:
    with h5py.File(sys.argv[1]) as file:
        experiment["rez_pixel_size_A"] = float(file.attrs["dk"])
    experiment["data_path"] = sys.argv[1]
else:
    y, x = np.mgrid[:100, :104] / 2.0
    truth = np.exp(0.3j * (np.cos(y) * np.cos(0.9 * x)))[..., None, None]
    q_y, q_x = (0.05 * (np.arange(n) - n // 2) for n in (40, 44))
    aperture = np.hypot(q_y[:, None], q_x) <= 0.025 / pyptyx.wavelength_A(80)
    probe = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(aperture)))[..., None] * 100.0
    positions = np.stack(np.mgrid[:20, :22], -1).reshape(-1, 2) * [1.0, 1.1]
    beam = {"acc_voltage": 80, "pixel_size_y_A": 0.5, "pixel_size_x_A": 1 / 2.2}
    beam |= {"obj": truth, "probe": probe, "positions": positions, "extra_probe_defocus": -200}
    patterns = pyptyx.simulate(beam | {"apply_aberrations_to_probe": True})
    experiment |= {"dataset": np.random.default_rng(2).poisson(patterns), "scan_size": (20, 22)}
    experiment["rez_pixel_size_A"] = 0.05

params = pyptyx.append_exp_params(experiment, {"epoch_max": 6, "probe": "aperture"})
result = pyptyx.run(params)
print(result)
field = plots.scanned_field(result.positions, result.probe.shape[:2])
plots.plot_phase(result.object, result.pixel_size_A, field=field).savefig(folder / "phase.png")
