"""Output folders of every kind of result, small and made up, for the tests of the export."""

import json
from dataclasses import dataclass

import numpy as np

from pyptyx.output.losslog import EpochRecord, LossLog
from pyptyx.params import save_params

Y, X, NY, NX, N = 19, 23, 8, 7, 5
PIXEL = (0.25, 0.4)
STEP_A = 1.5
SCAN = (6, 11)
PADDED = (10, 16)

RUNS = {
    "single_slice": {"slices": 1},
    "multislice": {"slices": 3, "object_modes": 2},
    "mixed_state": {"slices": 1, "probe_modes": 4},
    "near_field": {"slices": 1, "scenarios": 2},
}
"""Kinds of runs by what is not 1."""


@dataclass
class Waves:
    """Random complex arrays."""

    rng: np.random.Generator

    def __call__(self, *shape):
        return self.rng.normal(size=shape) + 1j * self.rng.normal(size=shape)


def write_run(folder, slices=1, object_modes=1, probe_modes=1, scenarios=1):
    """What a run leaves; returns the arrays by the names of their files."""
    folder.mkdir(parents=True, exist_ok=True)
    wave = Waves(np.random.default_rng(slices + 10 * probe_modes))
    probe = wave(NY, NX, probe_modes, scenarios)
    arrays = {
        "co": wave(Y, X, slices, object_modes).astype(np.complex64),
        "cp": probe[..., 0] if scenarios == 1 else probe,
        "cg": wave.rng.uniform(0, 11, (N, 2)),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    params = {
        "acc_voltage": 80,
        "pixel_size_y_A": PIXEL[0],
        "pixel_size_x_A": PIXEL[1],
        "slice_distances": [4.0] * (slices - 1),
        "chemical_formula": "SrTiO3",
        "sample_name": "strontium titanate",
        "preparation_date": "2026-02-27T08:30:00+01:00",
        "total_thickness": 12.0,
        "recon_type": "near_field" if scenarios > 1 else "far_field",
        # As real runs have them; NeXus reserves the ending for companions of a field.
        "aperture_mask": np.eye(NY, NX),
    }
    if slices == 1:
        del params["slice_distances"]
    save_params(folder, params)
    log = LossLog(folder / "loss.csv")
    for epoch in range(3):
        log.append(EpochRecord(epoch, 2.0 * (epoch + 1), 9.0 - epoch, 2, 1, 1, 4, -1, 0, 8.0))
    sidecar = {"epoch": 3, "loss": 6.5, "time": "2026-03-01T12:00:00+0200"}
    (folder / "checkpoint.json").write_text(json.dumps(sidecar))
    return arrays


DIRECT_PARAMS = {"acc_voltage": 60, "scan_step_A": STEP_A, "PLRotation_deg": 12.5}


def write_direct(folder):
    """What the direct methods leave; returns the arrays by their paths."""
    rng = np.random.default_rng(1)
    half = (PADDED[0], PADDED[1] // 2 + 1)
    arrays = {
        "direct/phase_mf": rng.normal(size=SCAN),
        "direct/ssnr_mf": rng.random(half),
        "direct/transfer_mf": rng.random(half),
        "direct/frc_mf": rng.random(4),
        "direct/frc_q_A_mf": np.arange(4) * 0.1,
        "direct/phase_joint": rng.normal(size=SCAN),
        "direct/amplitude_joint": rng.random(SCAN),
        "direct/phase_obf": rng.normal(size=SCAN),
        "direct/depth_stack": rng.normal(size=(3, *SCAN)),
        "direct/depth_stack_heights_A": np.array([-20.0, 0, 30]),
        "wdd/object": Waves(rng)(*SCAN),
        "dpc/idpc": rng.normal(size=SCAN),
        "dpc/iterative_dpc": rng.normal(size=SCAN),
        "tcbf/tcbf_image_0": rng.random(SCAN),
        "tcbf/tcbf_image_upsampling_2.5": rng.random((20, 31)),
        "tcbf/estimated_shifts_0": rng.random((2, 9)),
        "tcbf/aberrations_0": rng.random(12),
    }
    for name in ("direct", "wdd", "dpc", "tcbf"):
        (folder / name).mkdir(parents=True)
        save_params(folder / name, DIRECT_PARAMS)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    for kernel in ("mf", "joint", "obf"):
        info = {"method": kernel, "resolution_A": 2.5, "pixel_A": STEP_A}
        (folder / f"direct/info_{kernel}.json").write_text(json.dumps(info))
    return arrays
