"""Aberration function, its derivatives, defocus."""

import numpy as np
import pytest

from pyptyx.physics import optics
from pyptyx.physics.grid import Grid

GRID = Grid((10, 7), (0.31, 0.27), 0.0197)
QY, QX = GRID.q_y[:, None], GRID.q_x[None, :]
COEFFICIENTS = np.array([90.0, -40, 30, 900, -700, 500, 400, 2e4, -1e4, 8e3, 7e3, -6e3, 3e5, -2e5])


def polar_phase(names, coefficients, qy, qx, wavelength, offset=0.0):
    """χ written as in the definition, with angles."""
    k, phi = wavelength * np.hypot(qy, qx), np.arctan2(qy, qx) + offset
    chi = 0.0 * k
    for name, c in zip(names, coefficients, strict=True):
        n, m = int(name[1]), int(name[2])
        angular = np.sin(m * phi) if name.endswith("b") else np.cos(m * phi)
        chi = chi + 2 * np.pi / wavelength * c * k ** (n + 1) / (n + 1) * angular
    return chi


def test_krivanek_order_is_pyptys():
    first = "C10 C12a C12b C21a C21b C23a C23b C30 C32a C32b C34a C34b C41a C41b C43a C43b C45a"
    assert optics.aberration_names(17) == first.split()
    assert optics.krivanek_order(3) == [(1, 0, ""), (1, 2, "a"), (1, 2, "b")]
    # Complete orders end at these counts.
    assert [optics.krivanek_order(n)[-1][0] for n in (3, 7, 12, 18, 25)] == [1, 2, 3, 4, 5]
    assert [optics.krivanek_order(n + 1)[-1][0] for n in (3, 7, 12, 18)] == [2, 3, 4, 5]
    assert optics.aberration_names(0) == []
    with pytest.raises(ValueError, match="aberrations"):
        optics.krivanek_order(-1)


def test_phase_follows_its_definition():
    names = optics.aberration_names(len(COEFFICIENTS))
    chi = optics.aberration_phase(COEFFICIENTS, QY, QX, GRID.wavelength_A)
    expected = polar_phase(names, COEFFICIENTS, QY, QX, GRID.wavelength_A)
    assert chi.shape == (10, 7)
    np.testing.assert_allclose(chi, expected, rtol=1e-12, atol=1e-12)


def test_basis_is_the_phase_of_unit_coefficients():
    basis = optics.aberration_basis(QY, QX, GRID.wavelength_A, len(COEFFICIENTS))
    assert basis.shape == (14, 10, 7)
    assert basis.dtype == np.float64
    chi = optics.aberration_phase(COEFFICIENTS, QY, QX, GRID.wavelength_A)
    np.testing.assert_allclose(np.tensordot(COEFFICIENTS, basis, 1), chi, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "where", "sign"),
    [
        ("C12a", (0, 1), 1),
        ("C12a", (1, 0), -1),
        ("C12b", (1, 1), 1),
        ("C21a", (0, 1), 1),
        ("C21b", (1, 0), 1),
        ("C23a", (0, 1), 1),
        ("C23b", (1, 0), -1),
    ],
)
def test_signs_on_the_axes(name, where, sign):
    num = optics.aberration_names(7).index(name)
    qy, qx = np.array([[where[0] * 0.5]]), np.array([[where[1] * 0.5]])
    value = optics.aberration_basis(qy, qx, 0.0197, 7)[num, 0, 0]
    assert np.sign(value) == sign


def test_c10_is_free_propagation():
    chi = optics.aberration_phase([100.0], QY, QX, GRID.wavelength_A)
    np.testing.assert_allclose(chi, np.pi * GRID.wavelength_A * 100 * (QY**2 + QX**2), rtol=1e-14)
    np.testing.assert_allclose(
        chi, optics.defocus_phase(100.0, QY, QX, GRID.wavelength_A), rtol=1e-14
    )


def test_overfocused_beam_has_its_crossover_upstream():
    """Propagating a beam of C10 = +100 Å by -100 Å makes it as narrow as the focused one."""
    grid = Grid((48, 40), (0.4, 0.5), 0.0197)
    qy, qx = grid.q_y[:, None], grid.q_x[None, :]
    focused = np.fft.fftshift(np.fft.ifft2(np.hypot(qy, qx) < 0.8))
    beam = optics.apply_phase(focused, optics.aberration_phase([100.0], qy, qx, grid.wavelength_A))

    def propagated(z):
        kernel = np.exp(-1j * np.pi * grid.wavelength_A * z * (qy**2 + qx**2))
        return np.abs(np.fft.ifft2(np.fft.fft2(beam) * kernel)).max()

    assert propagated(-100) == pytest.approx(np.abs(focused).max())
    assert propagated(0) < 0.7 * propagated(-100)
    assert propagated(100) < propagated(0)


@pytest.mark.parametrize("offset", [0.0, 0.4])
def test_gradient_matches_finite_differences(offset):
    lam, h = 0.0197, 1e-4
    qy, qx = np.linspace(-0.9, 1.1, 5)[:, None], np.linspace(-0.8, 0.7, 4)[None, :]
    c, s = np.cos(offset), np.sin(offset)
    # In the rotated frame: derivative of χ at the rotated point.
    ry, rx = s * qx + c * qy, c * qx - s * qy

    def chi(y, x):
        return optics.aberration_phase(COEFFICIENTS, y, x, lam)

    d_x, d_y = optics.aberration_gradient(COEFFICIENTS, qy, qx, lam, offset)
    np.testing.assert_allclose(d_x, (chi(ry, rx + h) - chi(ry, rx - h)) / (2 * h * lam), rtol=2e-6)
    np.testing.assert_allclose(d_y, (chi(ry + h, rx) - chi(ry - h, rx)) / (2 * h * lam), rtol=2e-6)


@pytest.mark.parametrize("index", range(14))
def test_gradient_rotation_of_each_term(index):
    """BUG-18 of PyPty: wrong for every a-term and for the y part of every b-term."""
    lam, h, offset = 0.0197, 1e-5, 0.3
    qy, qx = np.linspace(-0.9, 1.1, 5)[:, None], np.linspace(-0.8, 0.7, 4)[None, :]
    one = np.zeros(14)
    one[index] = COEFFICIENTS[index]
    above = optics.aberration_gradient(one, qy, qx, lam, offset + h)
    below = optics.aberration_gradient(one, qy, qx, lam, offset - h)
    exact = optics.aberration_gradient_rotation(one, qy, qx, lam, offset)
    for e, a, b in zip(exact, above, below, strict=True):
        np.testing.assert_allclose(e, (a - b) / (2 * h), rtol=1e-6, atol=1e-7 * np.abs(e).max())


def test_apply_phase_is_exp_minus_i_chi_and_keeps_counts():
    rng = np.random.default_rng(1)
    waves = rng.normal(size=(3, 10, 7)) + 1j * rng.normal(size=(3, 10, 7))
    chi = optics.aberration_phase(COEFFICIENTS, QY, QX, GRID.wavelength_A)
    out = optics.apply_phase(waves, chi)
    ratio = np.fft.fft2(out) / np.fft.fft2(waves)
    np.testing.assert_allclose(ratio, np.broadcast_to(np.exp(-1j * chi), out.shape), atol=1e-10)
    assert (np.abs(out) ** 2).sum() == pytest.approx((np.abs(waves) ** 2).sum())
