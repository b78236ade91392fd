"""How much of the changes a model explains: right, half right and wrong models, noise that is not
that of electrons."""

import numpy as np
import pytest

from pyptyx.engine.variation import Variation

KY, KX, N = 22, 27, 400
Y, X = (np.arange(n) - n // 2 for n in (KY, KX))
RADIUS = np.hypot(Y[:, None], X[None, :])
RING = np.rint(RADIUS).astype(int)


def intensities(contrast, seed, mean=3.0):
    """Patterns (N, KY, KX) that differ inside a disc, as bright fields do, around a weak rim."""
    rng = np.random.default_rng(seed)
    changes = 1 + contrast * rng.normal(size=(N, KY, KX)) * (RADIUS < 8)
    return mean * np.where(RADIUS < 8, 1.0, 0.05) * np.maximum(changes, 0)


def explained(data, model, pieces=7, ring=RING):
    variation = Variation(ring)
    for some in np.array_split(np.arange(len(data)), pieces):
        variation.add(data[some].astype(float), model[some])
    return variation.explained()


@pytest.fixture(scope="module")
def truth():
    return intensities(0.3, 0)


@pytest.fixture(scope="module")
def counts(truth):
    return np.random.default_rng(1).poisson(truth)


def test_the_truth_explains_all(truth, counts):
    found = explained(counts, truth)
    assert found.noise == 1
    assert found.error < 0.1
    assert abs(found.share - 1) < 3 * found.error


def test_the_error_is_the_scatter_of_repeated_experiments(truth):
    rng = np.random.default_rng(11)
    found = [explained(rng.poisson(truth), truth) for _ in range(16)]
    scatter = np.std([f.share for f in found])
    assert 0.5 < np.mean([f.error for f in found]) / scatter < 2


def test_scale_and_mean_pattern_of_the_model_do_not_matter(truth, counts):
    offset = np.random.default_rng(2).uniform(0, 2, (KY, KX))
    assert explained(counts, 0.7 * truth + offset).share == pytest.approx(
        explained(counts, truth).share
    )


def test_half_the_variance_is_half_explained(truth, counts):
    other = truth.mean(axis=0) + intensities(0.3, 7) - intensities(0.3, 7).mean(axis=0)
    found = explained(counts, truth + other)
    assert abs(found.share - 0.5) < 3 * found.error


def test_a_wrong_model_explains_nothing(counts):
    assert explained(counts, intensities(0.3, 7)).share < 0.02


def test_the_sum_does_not_depend_on_pieces(truth, counts):
    one, many = explained(counts, truth, 1), explained(counts, truth, 31)
    assert one.share == pytest.approx(many.share, rel=1e-9)


@pytest.mark.parametrize("gain", [0.4, 1.9])
def test_noise_of_a_detector_with_a_gain_is_found_at_the_rim(truth, gain):
    counts = gain * np.random.default_rng(3).poisson(truth / gain)
    found = explained(counts, truth)
    assert found.noise == pytest.approx(gain, rel=0.03)
    assert abs(found.share - 1) < 3 * found.error
    assert explained(counts, intensities(0.3, 7)).share < 0.1


def test_too_little_is_said_to_be_unknown(truth, counts):
    faint = np.random.default_rng(4).poisson(0.01 * truth)
    assert explained(faint, truth).share is None
    assert explained(counts[:9], truth[:9]).share is None
    assert explained(counts, np.repeat(truth[:1], N, axis=0)).share is None


def test_without_a_quiet_part_noise_and_failure_are_not_mixed_up(truth, counts):
    """One ring, as in the near field: a large remainder may be either, a small one is electrons."""
    one = np.zeros_like(RING)
    assert abs(explained(counts, truth, ring=one).share - 1) < 0.2
    wrong = intensities(0.3, 7)
    weak = truth.mean(axis=0) + 0.38 * (truth - truth.mean(axis=0))
    few = np.random.default_rng(5).poisson(weak)
    assert abs(explained(few, weak, ring=one).share - 1) < 0.3
    assert explained(few, wrong, ring=one).share < 0.02
    assert explained(counts, wrong, ring=one).share is None
    gained = 1.9 * np.random.default_rng(3).poisson(truth / 1.9)
    assert explained(gained, truth, ring=one).share is None
