"""A tiny reconstruction for the tests of restarts: no two axes alike, a few ms an epoch."""

import numpy as np

import pyptyx

WINDOW = (14, 16)
SCAN = (4, 5)


def parameters(**changes):
    """Parameters of a run in serial mode with positions that join later and a changed weight."""
    y, x = np.mgrid[: SCAN[0], : SCAN[1]]
    physics = {
        "positions": 2.3 * np.stack([y.ravel(), x.ravel()], axis=1),
        "wavelength_A": 0.025,
        "pixel_size_x_A": 0.5,
        "pixel_size_y_A": 0.45,
        "default_dtype": "double",
        "devices": 1,
        "executor": "serial",
        "backend": "cpu",
    }
    rng = np.random.default_rng(0)
    truth = np.exp(0.3j * rng.random((32, 34, 1, 1)))
    ky, kx = np.mgrid[: WINDOW[0], : WINDOW[1]]
    probe = 20 * np.exp(-((ky - 7) ** 2 + (kx - 8) ** 2) / 12).astype(complex)[..., None]
    data = pyptyx.simulate(physics | {"obj": truth, "probe": probe, "skip_preprocessing": True})
    return physics | {
        "dataset": data,
        "probe": 1.1 * probe,
        "scan_size": SCAN,
        "extra_space_on_side_px": 3,
        "aberrations": np.array([20.0]),
        "update_probe_pos": "lambda epoch: epoch >= 3",
        "loss_weight": "lambda epoch: 1.0 if epoch < 7 else 0.5",
        "epoch_max": 10,
        "print_flag": 0,
        "strip_dataset_from_params": False,
        **changes,
    }


def outcome(result):
    """Everything of a result that must not depend on interruptions."""
    losses = [(r.epoch, r.loss, r.sse, r.step, r.evaluations, r.loss_after) for r in result.losses]
    return [result.object, result.probe, result.positions, np.array(losses)]


def equal(a, b):
    """Whether two outcomes agree bit by bit."""
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def log_rows(folder):
    """Rows of the loss log without the time."""
    lines = (folder / "loss.csv").read_text().splitlines()
    return [line.split(",")[:1] + line.split(",")[2:] for line in lines]
