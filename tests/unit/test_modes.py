"""Generators of probe modes, and orthogonalisation."""

import numpy as np
import pytest

from pyptyx.errors import ShapeError
from pyptyx.physics import modes, optics
from pyptyx.physics.grid import Grid

GRID = Grid((18, 13), (0.4, 0.5), 0.0197)


@pytest.fixture
def wave():
    """A defocused beam, a little off the axis."""
    qy, qx = GRID.q_y[:, None], GRID.q_x[None, :]
    chi = optics.aberration_phase([60.0, 20.0], qy, qx, GRID.wavelength_A)
    spectrum = (np.hypot(qy - 0.1, qx) < 0.6) * np.exp(-1j * chi)
    return np.fft.fftshift(np.fft.ifft2(spectrum)) * 30


def power(waves):
    return (np.abs(waves) ** 2).sum(axis=(-2, -1))


def generate(kind, wave):
    if kind == "defocus":
        return modes.defocus_spread_modes(wave, [-30.0, 0.0, 40.0], GRID)
    if kind == "hermite":
        return modes.hermite_modes(wave, 1, 2)
    return modes.coherence_modes(
        wave,
        4,
        np.random.default_rng(3),
        grid=GRID,
        source_sigma_A=(0.5, 0.3),
        focal_spread_A=20.0,
        n_samples=60,
    )


@pytest.mark.parametrize(("kind", "count"), [("defocus", 3), ("hermite", 6), ("coherence", 4)])
def test_mean_over_modes_carries_the_counts(kind, count, wave):
    """BUG-26 of PyPty: Hermite and Monte-Carlo modes carried 1/Mp of them."""
    before = wave.copy()
    made = generate(kind, wave)
    assert made.shape == (count, 18, 13)
    assert power(made).mean() == pytest.approx(power(wave), rel=1e-12)
    np.testing.assert_array_equal(wave, before)


def test_defocus_spread_modes_are_the_defocused_wave(wave):
    made = modes.defocus_spread_modes(wave, [-30.0, 0.0], GRID)
    np.testing.assert_allclose(made[1], wave, atol=1e-12)
    chi = -np.pi * GRID.wavelength_A * 30 * GRID.q2
    np.testing.assert_allclose(
        np.fft.fft2(made[0]), np.fft.fft2(wave) * np.exp(-1j * chi), atol=1e-9
    )


def test_hermite_order_is_y_outermost(wave):
    """Mode 1 of (n_y=1, n_x=2) is the first power along x, mode 3 the first along y."""
    made = modes.hermite_modes(wave, 1, 2)
    np.testing.assert_allclose(made[0], wave)
    intensity = np.abs(wave) ** 2
    x_c = np.linspace(-1, 1, 13) @ intensity.sum(0) / intensity.sum()
    y_c = np.linspace(-1, 1, 18) @ intensity.sum(1) / intensity.sum()
    right = np.linspace(-1, 1, 13) > x_c
    below = np.linspace(-1, 1, 18) > y_c
    sign_x = np.sign((made[1] / wave).real)
    sign_y = np.sign((made[3] / wave).real)
    np.testing.assert_array_equal(sign_x, np.broadcast_to(np.where(right, 1, -1), (18, 13)))
    np.testing.assert_array_equal(
        sign_y, np.broadcast_to(np.where(below, 1, -1)[:, None], (18, 13))
    )
    assert len(modes.hermite_modes(wave, 0, 2)) == 3


def test_hermite_modes_need_an_extent():
    point = np.zeros((6, 5), complex)
    point[2, 3] = 1
    with pytest.raises(ShapeError, match="n_hermite_probe_modes"):
        modes.hermite_modes(point, 1, 1)


def test_coherence_modes_are_orthogonal_sorted_and_reproducible(wave):
    """BUG-27 of PyPty: seed ignored, order rolled."""
    made = generate("coherence", wave)
    np.testing.assert_array_equal(made, generate("coherence", wave))
    assert np.all(np.diff(power(made)) < 0)
    gram = np.einsum("myx,nyx->mn", made.conj(), made)
    np.testing.assert_allclose(gram - np.diag(np.diag(gram)), 0, atol=1e-9 * power(wave))


def test_all_coherence_modes_reproduce_the_sampled_mixed_state(wave):
    """With as many modes as samples the mean intensity is that of the samples themselves."""
    samples = 7
    made = modes.coherence_modes(
        wave, samples, np.random.default_rng(5), grid=GRID, source_sigma_A=(0.9, 0.4), n_samples=7
    )
    rng = np.random.default_rng(5)
    shifts = rng.multivariate_normal([0, 0], np.diag([0.9**2, 0.4**2]), size=samples)
    q = GRID.q_y[:, None] * shifts[:, 0, None, None] + GRID.q_x * shifts[:, 1, None, None]
    drawn = np.fft.ifft2(np.fft.fft2(wave) * np.exp(-2j * np.pi * q))
    np.testing.assert_allclose(
        (np.abs(made) ** 2).mean(0), (np.abs(drawn) ** 2).mean(0), atol=1e-9 * power(wave)
    )


def test_source_size_widens_along_its_own_axis(wave):
    def widths(sigma):
        made = modes.coherence_modes(
            wave, 5, np.random.default_rng(2), grid=GRID, source_sigma_A=sigma, n_samples=100
        )
        intensity = (np.abs(made) ** 2).sum(0)
        intensity /= intensity.sum()
        return [
            (np.arange(n) ** 2 @ p) - (np.arange(n) @ p) ** 2
            for n, p in ((18, intensity.sum(1)), (13, intensity.sum(0)))
        ]

    still, along_y, along_x = widths((0, 0)), widths((0.6, 0)), widths((0, 0.6))
    assert along_y[0] > still[0] + 1
    assert along_y[1] == pytest.approx(still[1], rel=0.1)
    assert along_x[1] > still[1] + 0.5
    assert along_x[0] == pytest.approx(still[0], rel=0.1)


def test_too_many_coherence_modes_are_refused(wave):
    with pytest.raises(ShapeError, match="mc_n_modes"):
        modes.coherence_modes(wave, 9, np.random.default_rng(0), grid=GRID, n_samples=8)


def test_orthogonalise_keeps_the_incoherent_intensity():
    rng = np.random.default_rng(4)
    probe = rng.normal(size=(2, 3, 8, 5)) + 1j * rng.normal(size=(2, 3, 8, 5))
    out = modes.orthogonalise(probe)
    assert out.shape == probe.shape
    np.testing.assert_allclose((np.abs(out) ** 2).sum(1), (np.abs(probe) ** 2).sum(1), rtol=1e-12)
    gram = np.einsum("smyx,snyx->smn", out.conj(), out)
    for g in gram:
        np.testing.assert_allclose(g, np.diag(np.diag(g)), atol=1e-10)
        assert np.all(np.diff(np.diag(g).real) < 0)


def test_orthogonalise_leaves_orthogonal_sorted_modes_alone():
    rng = np.random.default_rng(4)
    probe = rng.normal(size=(3, 8, 5)) + 1j * rng.normal(size=(3, 8, 5))
    once = modes.orthogonalise(probe)
    np.testing.assert_allclose(modes.orthogonalise(once), once, atol=1e-10)
    np.testing.assert_allclose(modes.orthogonalise(probe[:1]), probe[:1], atol=1e-12)
