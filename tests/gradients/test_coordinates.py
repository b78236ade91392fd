"""Coordinates of the optimiser: pullbacks, what is held fixed, what has no gradient."""

import numpy as np
import pytest

from pyptyx.backend import Backend
from pyptyx.engine.variables import (
    identity,
    phase_at_fixed_modulus,
    spectrum_modulus,
    spectrum_phase,
)
from pyptyx.physics.grid import disc_mask
from tests.gradients.checks import assert_derivative, inner, normal

BACKEND = Backend()
COORDINATES = {
    "plain": identity(),
    "phase": phase_at_fixed_modulus(),
    "spectrum phase": spectrum_phase(BACKEND),
    "spectrum modulus": spectrum_modulus(BACKEND),
}
SHAPES = [(3, 2, 13, 18), (2, 4, 10, 7)]


@pytest.fixture(params=SHAPES, ids=["13x18", "10x7"])
def scene(request):
    """Generator, present variable z0 and cotangent."""
    rng = np.random.default_rng(6)
    return rng, normal(rng, *request.param), normal(rng, *request.param)


@pytest.mark.parametrize("kind", COORDINATES)
def test_there_and_back(kind, scene):
    _rng, z0, _w = scene
    coordinate = COORDINATES[kind]
    assert coordinate.kind == kind
    np.testing.assert_allclose(coordinate.to_model(coordinate.from_model(z0), z0), z0, atol=1e-12)


@pytest.mark.parametrize("kind", COORDINATES)
def test_pullback(kind, scene):
    rng, z0, w = scene
    coordinate = COORDINATES[kind]
    u = coordinate.from_model(z0)
    real = u.dtype.kind == "f"
    # Away from z0, with moduli of both signs.
    u = u + 0.5 * np.abs(u).max() * normal(rng, *u.shape, real=real)
    assert not real or kind != "spectrum modulus" or (u < 0).any()
    g = coordinate.pullback(u, coordinate.to_model(u, z0), w)
    assert g.dtype == u.dtype
    d = normal(rng, *u.shape, real=real)
    assert_derivative(lambda a: inner(w, coordinate.to_model(a, z0)), u, g, d, tolerance=1e-9)


@pytest.mark.parametrize("kind", ["phase", "spectrum phase", "spectrum modulus"])
def test_what_is_held_fixed(kind, scene):
    rng, z0, _w = scene
    coordinate = COORDINATES[kind]
    u = coordinate.from_model(z0)
    z = coordinate.to_model(u * (1 + 0.1 * rng.random(u.shape)), z0)
    transform = (lambda a: a) if kind == "phase" else np.fft.fft2
    held = np.angle if kind == "spectrum modulus" else np.abs
    np.testing.assert_allclose(held(transform(z)), held(transform(z0)), atol=1e-10)
    assert np.abs(z - z0).max() > 1e-3


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize("kind", COORDINATES)
def test_precision_is_kept(kind, dtype, scene):
    _rng, z0, w = scene
    z0, w, coordinate = z0.astype(dtype), w.astype(dtype), COORDINATES[kind]
    u = coordinate.from_model(z0)
    assert coordinate.to_model(u, z0).dtype == dtype
    assert coordinate.pullback(u, z0, w).real.dtype == z0.real.dtype


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize("kind", ["spectrum phase", "spectrum modulus"])
def test_an_empty_spectrum_pixel_has_no_gradient(kind, dtype, scene):
    """Outside an aperture the spectrum is rounding noise, and so is its phase."""
    _rng, z0, w = scene
    aperture = disc_mask(z0.shape[-2:], (1.0, 1.0), 0.2)
    z0 = np.fft.ifft2(np.fft.fft2(z0) * aperture).astype(dtype)
    coordinate = COORDINATES[kind]
    u = coordinate.from_model(z0)
    g = coordinate.pullback(u, coordinate.to_model(u, z0), w.astype(dtype))
    assert np.abs(g[..., aperture]).min() > 1e-7
    np.testing.assert_allclose(g[..., ~aperture], 0, atol=1e-5)
