"""Closed-form inputs of the golden numbers, and their checksums.

The numbers were measured with PyPty 2.2 in double precision.  Gradients there are ``dL/dz*``,
half of the package's ``dL/dRe z + i dL/dIm z``, hence the factor in `checksum`.
"""

import numpy as np

N = 16
PIXEL_A = 0.3
WAVELENGTH_A = 12.398 / np.sqrt(1082.0 * 60.0)


def h(shape, a, b, c):
    """The scalar field ``sin(a s + b) cos(c s²/(1 + s))`` of the golden inputs."""
    s = np.zeros(shape)
    for k, index in enumerate(np.indices(shape)):
        s = s + (k + 1) * (0.37 + 0.11 * k) * index
    return np.sin(a * s + b) * np.cos(c * s**2 / (1 + s))


def probe(modes, n=N):
    """Probe (n, n, modes)."""
    y, x = np.mgrid[:n, :n] - n // 2
    g = np.exp(-(x**2 + y**2) / (2 * (n / 6) ** 2))
    return np.stack(
        [
            3
            * g
            * np.exp(1j * (0.3 * (k + 1) * (0.2 * x + 0.13 * y) + 0.05 * (x**2 + y**2)))
            * (1 + 0.2 * k * x)
            for k in range(modes)
        ],
        axis=-1,
    )


def specimen(slices, modes):
    """Object (24, 24, slices, modes)."""
    shape = (24, 24, slices, modes)
    return (1 + 0.1 * h(shape, 0.9, 0.3, 0.7)) * np.exp(0.4j * h(shape, 1.3, 0.1, 0.4))


def positions(count=5, fraction=True):
    """Positions (count, 2): integer corners plus the golden fractions."""
    corners = [(0, 0), (1, 3), (4, 2), (5, 6), (7, 8), (3, 7), (6, 1), (2, 2), (8, 5)]
    p = np.array(corners[:count], float)
    return p + 0.31 * h((count, 2), 2.1, 0.2, 0.9) * fraction


def patterns(count=5, n=N):
    """Data (count, n, n), centred."""
    return np.abs(30 * h((count, n, n), 0.21, 0.5, 0.13)) + 1


def std_tilts(count=5):
    """Tilt rows ``1e-4 j + 3e-4 t``."""
    t, j = np.mgrid[:count, :6]
    return 1e-4 * j + 3e-4 * t


def checksum(g):
    """``(C, Nrm)`` of a gradient in the package's convention, expressed as PyPty's."""
    g = np.asarray(g)
    flat = (g / 2 if g.dtype.kind == "c" else g).ravel()
    return (flat * np.cos(1 + 0.1 * np.arange(flat.size))).sum(), (np.abs(flat) ** 2).sum()
