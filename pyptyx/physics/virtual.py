"""Virtual detectors: what is left of a pattern when only weighted sums of it are recorded.

``c_d = Σ_k m_d(k) I(k)`` with masks ``m_d``, real and of any sign.  The signals travel as patterns
of one row, (B, 1, Nd), so that everything behind this stage treats them like patterns.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pyptyx.backend import Backend

Array = Any


class VirtualDetectors:
    """The masks on one device.

    Parameters
    ----------
    masks : ndarray, (Nd, ky, kx)
        On the data grid, in the detector's order.
    backend : Backend
    dtype : dtype
        Complex working type.
    """

    def __init__(self, masks: np.ndarray, backend: Backend, dtype: Any) -> None:
        self._shape = masks.shape[1:]
        real = np.empty(0, dtype).real.dtype
        self._masks = backend.asarray(masks.reshape(len(masks), -1).astype(real))

    def forward(self, intensity: Array) -> Array:
        """Signals (B, 1, Nd) of intensities (B, ky, kx)."""
        return (intensity.reshape(len(intensity), -1) @ self._masks.T)[:, None]

    def vjp(self, g: Array) -> Array:
        """Adjoint of `forward`: (B, ky, kx)."""
        return (g[:, 0] @ self._masks).reshape(len(g), *self._shape)
