"""Physical constants of the electron and the few quantities that follow from them.

Units: energies in kV, lengths in Å.  The wavelength used anywhere in the package comes from
`wavelength_A`.
"""

from __future__ import annotations

import math

HC_keV_A = 12.398419843320026
"""Planck constant times speed of light in keV Å (CODATA 2018)."""

ELECTRON_REST_keV = 510.99895000
"""Electron rest energy in keV (CODATA 2018)."""


def wavelength_A(energy_kV: float) -> float:
    """Relativistic electron wavelength ``hc / sqrt(E (E + 2 m c²))``.

    Parameters
    ----------
    energy_kV : float
        Accelerating voltage in kV, positive.

    Returns
    -------
    float
        Wavelength in Å.

    Raises
    ------
    ValueError
        If the voltage is not a positive finite number.
    """
    if not (math.isfinite(energy_kV) and energy_kV > 0):
        raise ValueError(f"acc_voltage: expected a positive voltage in kV, got {energy_kV!r}")
    return HC_keV_A / math.sqrt(energy_kV * (energy_kV + 2 * ELECTRON_REST_keV))


def interaction_constant(energy_kV: float) -> float:
    """Phase shift per projected potential, ``σ = 2π m e λ / h²`` with the relativistic mass.

    Returns
    -------
    float
        rad / (V Å).
    """
    lam = wavelength_A(energy_kV)
    total = ELECTRON_REST_keV + energy_kV
    return 2 * math.pi / (lam * energy_kV * 1e3) * total / (total + ELECTRON_REST_keV)
