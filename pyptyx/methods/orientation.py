"""Scan rotation and handedness of the detector from centres of mass, in closed form.

Notation: in focus the centre of mass is a gradient field, turned by the scan rotation φ.  With its
spectrum ``(X, Y)``, ``T = (q_x Y - q_y X) / |q|`` is what a gradient has not, and
``L = (q_x X + q_y Y) / |q|`` what it has.  Turned by t, ``T' = T cos t + L sin t``, and ``φ = -t``
where its power ``a cos² t + 2b sin t cos t + c sin² t`` is least, with ``a = Σ|T|²``,
``b = Re Σ T L*``, ``c = Σ|L|²``.  All this holds up to half a turn, which reverses the contrast.

Far out of focus the estimate says little: use `pyptyx.methods.aberration_fit` there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.fft

from pyptyx.errors import Problem, ShapeError
from pyptyx.methods.bright_field import edge_taper


@dataclass(frozen=True)
class Orientation:
    """What the centres of mass say about one handedness of the detector.

    Attributes
    ----------
    rotation_rad : float
        Scan rotation φ in (-π/2, π/2]; ``φ + π`` is as good, with reversed contrast.
    curl_ratio : float
        Power that is no gradient over power that is: 0 is perfect, 1 says nothing.
    """

    rotation_rad: float
    curl_ratio: float


def find_orientation(comx: np.ndarray, comy: np.ndarray) -> tuple[Orientation, Orientation]:
    """Orientation if the detector axes are as given, and if they have to be exchanged.

    Parameters
    ----------
    comx, comy : ndarray (Ny, Nx)
        Centre of mass along detector x and y, in any common unit.

    Returns
    -------
    given, transposed : Orientation
        The one with the smaller `curl_ratio` is the likelier.

    Raises
    ------
    ShapeError
        If the images differ in shape or have an axis of less than two points.
    """
    comx, comy = np.asarray(comx, dtype=np.float64), np.asarray(comy, dtype=np.float64)
    if comx.shape != comy.shape or comx.ndim != 2 or min(comx.shape) < 2:
        expected = "two images of the same shape with at least 2 x 2 scan points"
        raise ShapeError(Problem("comx, comy", expected, f"{comx.shape} and {comy.shape}"))
    rows, columns = edge_taper((comx.shape[0], comx.shape[1]))
    window = np.outer(rows, columns)
    x, y = (scipy.fft.fft2((c - c.mean()) * window) for c in (comx, comy))
    qy, qx = scipy.fft.fftfreq(comx.shape[0])[:, None], scipy.fft.fftfreq(comx.shape[1])
    size = np.hypot(qy, qx)
    size[0, 0] = np.inf
    unit = (qy / size, qx / size)
    return _least_curl(x, y, unit), _least_curl(y, x, unit)


def _least_curl(x: np.ndarray, y: np.ndarray, unit: tuple[np.ndarray, np.ndarray]) -> Orientation:
    across, along = unit[1] * y - unit[0] * x, unit[1] * x + unit[0] * y
    a, c = (float((np.abs(part) ** 2).sum()) for part in (across, along))
    b = float((across * along.conj()).real.sum())
    mean, swing = (a + c) / 2, math.hypot((a - c) / 2, b)
    # a cos² + 2b sin cos + c sin² = mean + swing · cos(2t - const).
    turn = 0.5 * (math.atan2(b, (a - c) / 2) + math.pi)
    ratio = max(mean - swing, 0.0) / (mean + swing) if mean + swing > 0 else 1.0
    return Orientation(math.remainder(-turn, math.pi), ratio)


def scan_frame(comx: np.ndarray, comy: np.ndarray, rotation_rad: float) -> tuple[np.ndarray, ...]:
    """Vectors measured on the detector, as ``(y, x)`` components along the scan axes."""
    c, s = math.cos(rotation_rad), math.sin(rotation_rad)
    return comy * c - comx * s, comx * c + comy * s


def curl_deviation(comx: np.ndarray, comy: np.ndarray, turn_rad: float) -> float:
    """Standard deviation of the curl of the field after turning it by `turn_rad`."""
    y, x = scan_frame(np.asarray(comx, dtype=float), np.asarray(comy, dtype=float), -turn_rad)
    return float(np.std(np.gradient(x, axis=0) - np.gradient(y, axis=1)))
