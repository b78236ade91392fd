"""Reconstructions of independently simulated data, from what a microscopist knows at the start.

The probe starts from the aperture and the nominal defocus, the object flat; no step is tuned.
"""

import numpy as np
import pytest

import pyptyx
from tests.known.simulated import correlation, lowpass, thin_crystal

WAVELENGTH_A = 0.0417571


def reconstruct(experiment, epochs, preset=None, **changes):
    about = {
        "dataset": experiment.patterns,
        "acc_voltage": experiment.energy_kV,
        "rez_pixel_size_A": experiment.rez_pixel_A,
        "conv_semiangle_mrad": experiment.semiangle_mrad,
        "defocus": experiment.defocus_A,
        "scan_step_A": experiment.step_A,
        "PLRotation_deg": 0.0,
        "num_slices": 1,
        "output_folder": None,
        "print_flag": 0,
        **changes,
    }
    preset = {"epoch_max": epochs, "probe": "aperture", "devices": 1, **(preset or {})}
    return pyptyx.run(pyptyx.append_exp_params(about, preset))


def agreement(result, experiment):
    """Correlation with the truth in the scanned field, low-passed at twice the aperture."""
    q_max = 2 * experiment.semiangle_mrad * 1e-3 / WAVELENGTH_A
    pixel = result.pixel_size_A[0]
    scale = experiment.pixel_A / pixel
    fine = lowpass(result.phase, pixel, q_max)
    truth = lowpass(experiment.phase, experiment.pixel_A, q_max)
    # The truth's pixel (n//2, n//2) is the first scan position; ours is the window's centre.
    first = np.array(result.positions[0]) + np.array(result.probe.shape[:2]) // 2
    extent = result.positions.max(axis=0) - result.positions[0]
    rows, columns = (np.arange(0, e, scale) for e in extent)
    take = np.ix_(np.rint(first[0] + rows).astype(int), np.rint(first[1] + columns).astype(int))
    ours = fine[take]
    oy, ox = experiment.origin_px
    return correlation(ours, truth[oy : oy + len(rows), ox : ox + len(columns)])


@pytest.fixture(scope="module")
def experiment():
    return thin_crystal()


def test_low_dose_in_ten_evaluations(experiment):
    result = reconstruct(experiment, 5)
    assert result.evaluations <= 10
    assert agreement(result, experiment) > 0.9


@pytest.mark.parametrize("algorithm", ["ml", "lsq_sqrt_2"])
def test_other_losses_reach_it_too(experiment, algorithm):
    result = reconstruct(experiment, 6, {"algorithm": algorithm, "probe": None})
    assert agreement(result, experiment) > 0.9


def test_poisson_from_a_hard_aperture(experiment):
    """Outside the disc the start predicts nothing where electrons were counted."""
    poisson = {"algorithm": "ml", "warm_start_epochs": 0}
    result = reconstruct(experiment, 10, poisson)
    assert result.evaluations <= 14
    assert agreement(result, experiment) > 0.9
    bare = reconstruct(experiment, 10, {**poisson, "ml_floor": 0})
    assert bare.evaluations > 20
    assert agreement(bare, experiment) < 0.5


def test_wrong_defocus_sign_and_transposition_fit_worse(experiment):
    right = reconstruct(experiment, 6).final_loss
    assert reconstruct(experiment, 6, defocus=-experiment.defocus_A).final_loss > 1.03 * right
    assert reconstruct(experiment, 6, transpose_patterns=True).final_loss > 1.03 * right


def test_rotation_sign():
    turned = thin_crystal(scan=(13, 15), rotation_deg=25.0)
    right = reconstruct(turned, 6, PLRotation_deg=25.0).final_loss
    wrong = reconstruct(turned, 6, PLRotation_deg=-25.0).final_loss
    assert wrong > 1.03 * right


def test_wrong_positions_are_refined():
    """At a high dose random position errors of up to 0.6 pixels shrink tenfold.

    What an affine map explains is left out: it is nearly degenerate with the object's scale.
    """
    experiment = thin_crystal(scan=(13, 15), dose=2e6)
    true = reconstruct(experiment, 0).positions
    start = true + np.random.default_rng(5).uniform(-0.6, 0.6, true.shape)
    start -= start.min(axis=0)
    pixel_A = 1 / (experiment.rez_pixel_A * 72)  # 48 measured and 2 x 12 padded pixels
    schedule = {"update_probe_pos": "lambda epoch: epoch >= 5"}
    result = reconstruct(experiment, 25, schedule, special_postions_A=start * pixel_A)

    def error(positions):
        difference = positions - true
        design = np.column_stack([true, np.ones(len(true))])
        fitted = design @ np.linalg.lstsq(design, difference, rcond=None)[0]
        return np.std(difference - fitted)

    assert error(start) > 0.3
    assert error(result.positions) < 0.1 * error(start) + 0.02
