"""The variables: names, public layouts, and what the optimiser actually moves.

Model variables (inside layout) are a tree ``object (Mo, Nz, Y, X), probe (Ns, Mp, ny, nx),
positions, tilts, background, current, aberrations``.  The optimiser moves *coordinates*: for most
variables these are the model variables themselves, for a phase-only object the phase at fixed
modulus, for a probe tuned in phase or modulus only the phase or modulus of its spectrum.  Public
arrays are converted here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyptyx.backend import Backend
from pyptyx.physics.detector import DetectorGeometry

Array = Any
Tree = dict[str, Array]

PUBLIC_NAMES = {
    "object": "obj",
    "probe": "probe",
    "positions": "positions",
    "tilts": "tilts",
    "background": "static_background",
    "current": "beam_current",
    "aberrations": "aberrations_array",
}
"""Inside name -> key of the params dictionary."""

UPDATE_KEYS = {
    "object": "update_obj",
    "probe": "update_probe",
    "positions": "update_probe_pos",
    "tilts": "update_tilts",
    "background": "update_static_background",
    "aberrations": "update_aberrations_array",
    "current": "update_beam_current",
}
"""Inside name -> key that switches the refinement on."""


def ever(params: Mapping[str, Any], key: str) -> bool:
    """Whether something is refined in some epoch, as far as can be known."""
    return callable(params[key]) or bool(params[key])


def object_to_public(a: np.ndarray) -> np.ndarray:
    """(Mo, Nz, Y, X) -> (Y, X, Nz, Mo)."""
    return np.ascontiguousarray(a.transpose(2, 3, 1, 0))


def object_from_public(a: np.ndarray) -> np.ndarray:
    """(Y, X, Nz, Mo) -> (Mo, Nz, Y, X); missing trailing axes become 1."""
    a = a.reshape(*a.shape, *(1,) * (4 - a.ndim))
    return np.ascontiguousarray(a.transpose(3, 2, 0, 1))


def probe_to_public(a: np.ndarray) -> np.ndarray:
    """(Ns, Mp, ny, nx) -> (ny, nx, Mp), or (ny, nx, Mp, Ns) with several scenarios."""
    a = a.transpose(2, 3, 1, 0)
    return np.ascontiguousarray(a[..., 0] if a.shape[-1] == 1 else a)


def probe_from_public(a: np.ndarray) -> np.ndarray:
    """(ny, nx[, Mp[, Ns]]) -> (Ns, Mp, ny, nx)."""
    a = a.reshape(*a.shape, *(1,) * (4 - a.ndim))
    return np.ascontiguousarray(a.transpose(3, 2, 0, 1))


_TO_PUBLIC: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "object": object_to_public,
    "probe": probe_to_public,
}
_FAR_FIELD = DetectorGeometry()


def to_public(
    name: str, a: Array, backend: Backend, geometry: DetectorGeometry = _FAR_FIELD
) -> np.ndarray:
    """A variable, or its gradient, in the public layout, on the host, under `PUBLIC_NAMES`."""
    host = backend.to_host(a)
    if name == "background":
        return np.array(geometry.to_public(host))
    convert = _TO_PUBLIC.get(name)
    return host.copy() if convert is None else np.array(convert(host))


@dataclass(frozen=True)
class Coordinate:
    """How one model variable follows from its coordinate.

    Attributes
    ----------
    kind : str
        Part of the objective's identity.
    from_model : callable
        ``from_model(z) -> u``.
    to_model : callable
        ``to_model(u, z0) -> z``; `z0` is the present variable, which supplies what is held fixed.
    pullback : callable
        ``pullback(u, z, g_z) -> g_u``.
    """

    kind: str
    from_model: Callable[[Array], Array]
    to_model: Callable[[Array, Array], Array]
    pullback: Callable[[Array, Array, Array], Array]


_NOISE = 32
"""Multiple of the rounding error of the largest spectrum pixel that still counts as zero."""


def _polar(modulus: Array, phase: Array) -> Array:
    return modulus * np.exp(1j * phase).astype(np.result_type(modulus.dtype, np.complex64))


def identity() -> Coordinate:
    """The variable itself."""
    return Coordinate("plain", lambda z: z, lambda u, z0: u, lambda u, z, g: g)


def phase_at_fixed_modulus() -> Coordinate:
    """``z = |z0| exp(iφ)``: ``dL/dφ = Re(conj(i z) g)``."""
    return Coordinate(
        "phase",
        np.angle,
        lambda u, z0: _polar(np.abs(z0), u),
        lambda u, z, g: (np.conj(1j * z) * g).real.astype(u.dtype),
    )


def spectrum_phase(backend: Backend) -> Coordinate:
    """``F z = |F z0| exp(iθ)``."""

    def pull(u: Array, z: Array, g: Array) -> Array:
        spectrum, gradient = backend.fft2(z), backend.fft2(g) / _pixels(z)
        return (np.conj(1j * spectrum) * gradient).real.astype(u.dtype)

    return Coordinate(
        "spectrum phase",
        lambda z: np.angle(backend.fft2(z)),
        lambda u, z0: backend.ifft2(_polar(np.abs(backend.fft2(z0)), u)),
        pull,
    )


def spectrum_modulus(backend: Backend) -> Coordinate:
    """``F z = a exp(i arg F z0)`` with a real ``a``, which has no gradient where ``F z = 0``."""

    def pull(u: Array, z: Array, g: Array) -> Array:
        spectrum, gradient = backend.fft2(z), backend.fft2(g) / _pixels(z)
        modulus = np.abs(spectrum)
        # Rounding noise (outside an aperture, say) has no phase, so nothing can grow along it.
        empty = modulus <= _NOISE * np.finfo(modulus.dtype).eps * modulus.max()
        direction = np.exp(1j * np.angle(spectrum)) * np.where(u < 0, -1, 1)
        return np.where(empty, 0, (np.conj(direction) * gradient).real).astype(u.dtype)

    return Coordinate(
        "spectrum modulus",
        lambda z: np.abs(backend.fft2(z)),
        lambda u, z0: backend.ifft2(_polar(u, np.angle(backend.fft2(z0)))),
        pull,
    )


def _pixels(z: Array) -> int:
    return int(z.shape[-1] * z.shape[-2])
