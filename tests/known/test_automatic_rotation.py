"""The rotation that `append_exp_params` finds by itself, with the curl and without."""

import logging

import numpy as np
import pytest
from bright_scene import Scene, experiment_of, white_phase

import pyptyx
from pyptyx.engine.direct_data import open_bright_field
from pyptyx.methods.aberration_fit import FitOptions, fit_aberrations

DEFOCUS_A = 150.0
TURNED = 40.0


def counts(scene, dose, seed=5):
    phase = white_phase((130, 141), scene.pixel, 0.55, 0.05)
    return np.random.default_rng(seed).poisson(dose * scene.patterns(phase))


def automatic(scene, patterns, **more):
    experiment = experiment_of(scene, patterns, PLRotation_deg="auto", **more)
    return pyptyx.append_exp_params(experiment)


@pytest.fixture(scope="module")
def scene():
    return Scene(scan=(21, 24), rotation_deg=TURNED, aberrations=(DEFOCUS_A,))


@pytest.fixture(scope="module")
def defocused(scene):
    return counts(scene, 400)


def test_images_decide_where_the_curl_does_not(scene, defocused, caplog):
    with caplog.at_level(logging.INFO, logger="pyptyx"):
        params = automatic(scene, defocused, defocus=DEFOCUS_A)
    assert "The curl hardly depends on the angle" in caplog.text
    assert abs(params["PLRotation_deg"] - TURNED) < 3
    assert "is a guess" not in caplog.text
    assert "atoms are dark" not in caplog.text
    positions = params["positions"] * (params["pixel_size_y_A"], params["pixel_size_x_A"])
    np.testing.assert_allclose(
        positions, scene.positions() - scene.positions().min(axis=0), atol=0.5 * scene.step
    )


@pytest.mark.parametrize(
    "known", [{"defocus": -DEFOCUS_A}, {"defocus": 0.0, "aberrations": [-DEFOCUS_A]}]
)
def test_the_sign_of_the_defocus_chooses_the_half_turn(scene, defocused, known, caplog):
    params = automatic(scene, defocused, **known)
    assert abs(params["PLRotation_deg"] - (TURNED - 180)) < 3
    opposite = float(caplog.text.split("atoms are dark")[1].split("is then ")[1].split(".\n")[0])
    assert abs(opposite - TURNED) < 3


def test_a_grid_that_is_not_square_is_not_measured(scene, defocused, caplog):
    matrix = [[1.0, 0.1], [0.0, 1.2]]
    params = automatic(scene, defocused, defocus=DEFOCUS_A, transform_axis_matrix=matrix)
    assert f"PLRotation_deg = {params['PLRotation_deg']:.2f} is a guess" in caplog.text


def test_exchanged_axes_are_named(scene, defocused, caplog):
    params = automatic(scene, defocused, defocus=DEFOCUS_A, transpose_patterns=True)
    assert "try transpose_patterns = False" in caplog.text
    named = float(caplog.text.split("False, PLRotation_deg = ")[1].split(".\n")[0])
    assert abs(named - TURNED) < 3
    assert f"PLRotation_deg = {params['PLRotation_deg']:.2f} is a guess" in caplog.text


def test_patterns_that_do_not_belong_together_decide_nothing(scene, defocused, caplog):
    # With this order the search finds 'axes as they are', within 2.1 degrees by its own account.
    shuffled = np.random.default_rng(1).permutation(defocused.reshape(-1, *defocused.shape[-2:]))
    params = automatic(scene, shuffled.reshape(defocused.shape), defocus=DEFOCUS_A)
    assert f"PLRotation_deg = {params['PLRotation_deg']:.2f} is a guess" in caplog.text


def test_a_clear_curl_needs_no_images(caplog):
    scene = Scene(scan=(21, 24), rotation_deg=TURNED)
    phase = white_phase((130, 141), scene.pixel, 0.25, 0.4)
    with caplog.at_level(logging.INFO, logger="pyptyx"):
        params = automatic(scene, scene.patterns(phase))
    assert "bright-field images" not in caplog.text
    assert abs((params["PLRotation_deg"] - TURNED + 90) % 180 - 90) < 2


def test_chance_is_not_taken_for_a_result(scene, defocused):
    """The best place of a search in patterns without order does not stand out, a real one does."""
    order = np.random.default_rng(4).permutation(scene.scan[0] * scene.scan[1])
    shuffled = defocused.reshape(len(order), *scene.detector)[order].reshape(defocused.shape)
    options = FitOptions(num=3, frequencies=400)
    fits = [
        fit_aberrations(
            open_bright_field(pyptyx.append_exp_params(experiment_of(scene, data))), options
        )
        for data in (defocused, shuffled)
    ]
    assert [fit.is_prominent for fit in fits] == [True, False]
    assert [fit.is_decided for fit in fits] == [True, False]
