"""The sums behind the profile likelihood of `pyptyx.methods.varpro`, for a block of frequencies.

Notation as there: ``F`` spectra, ``Γ' = G⁺ - G⁻`` overlaps over the aperture, ``w`` weights,
``N = Σ_k w Γ'* F``, ``D = Σ_k w |Γ'|²``, ``L = Σ_q |N|² / D``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pyptyx.backend import Backend
from pyptyx.methods.gamma import Overlaps, Pupil, detector_frame

Array = Any


@dataclass(frozen=True)
class Model:
    """Overlaps of a block.

    Attributes
    ----------
    q_A, turn_A : ndarray (Q, 2)
        Frequencies on the detector in 1/Å and their change with the rotation, on the host.
    plus, minus, gamma : array (K, Q)
        ``G⁺``, ``G⁻`` and ``Γ'``.
    """

    q_A: np.ndarray
    turn_A: np.ndarray
    plus: Array
    minus: Array
    gamma: Array


@dataclass(frozen=True)
class BlockSums:
    """Sums over the bins for blocks of frequencies, on one device.

    Attributes
    ----------
    k_A, q_A : ndarray (K, 2), (Q, 2)
        Bins on the detector, and frequencies in the frame of the scan, in 1/Å, on the host.
    spectra : array (K, Q)
        ``F``.
    own, weight : array (K, 1)
        Aperture at the bins, and ``w``.
    taylor : array (J, K, M)
        Taylor coefficients of every basis function of χ about every bin.
    floor : float
        Smallest ``D``.
    backend : Backend
    """

    k_A: np.ndarray
    q_A: np.ndarray
    spectra: Array
    own: Array
    weight: Array
    taylor: Array
    floor: float
    backend: Backend

    def model(self, block: slice, pupil: Pupil, rotation_rad: float) -> Model:
        """The overlaps for given optics."""
        q_A = detector_frame(self.q_A[block], rotation_rad)
        plus, minus = Overlaps(q_A, pupil).on(self.backend)(self.k_A)
        plus /= self.own
        minus /= self.own
        turn_A = np.stack([q_A[:, 1], -q_A[:, 0]], axis=1)  # d(y, x)/dφ = (x, -y)
        return Model(q_A, turn_A, plus, minus, plus - minus)

    def fit(self, model: Model, block: slice) -> tuple[Array, Array]:
        """``N`` and ``D``, ``(Q,)``."""
        xp = self.backend.xp
        weighted = self.weight * model.gamma.conj()
        numerator = xp.einsum("kq,kq->q", weighted, self.spectra[:, block])
        power = xp.einsum("kq,kq->q", weighted, model.gamma).real
        return numerator.astype(complex), xp.maximum(power.astype(float), self.floor)

    def value(self, block: slice, pupil: Pupil, rotation_rad: float) -> Array:
        """``L`` of the block."""
        numerator, power = self.fit(self.model(block, pupil, rotation_rad), block)
        return (abs(numerator) ** 2 / power).sum()

    def gain(self, block: slice, pupil: Pupil, rotation_rad: float, total: Array) -> list[Array]:
        """``L``, its derivatives ``(K, M)`` by Taylor coefficients of χ, and by the rotation.

        `total (K, M)` are these Taylor coefficients.
        """
        model = self.model(block, pupil, rotation_rad)
        numerator, power = self.fit(model, block)
        wave = (numerator / power).astype(np.complex64)
        pull = self.spectra[:, block] - wave * model.gamma
        pull *= 2 * self.weight * wave.conj()
        plus, minus = model.plus.conj() * pull, model.minus.conj() * pull
        mono, parity, turned = self._monomials(pupil, model)
        moments = -(plus.imag @ mono.T) * parity - minus.imag @ mono.T
        rim_plus, rim_minus = self._rim(model, pupil)
        turn = (plus.real * rim_plus - minus.real * rim_minus).sum(dtype=float)
        turn -= (turned * (parity[:, None] * (total.T @ plus.imag) + total.T @ minus.imag)).sum()
        return [(abs(numerator) ** 2 / power).sum(), moments, turn]

    def information(
        self, block: slice, pupil: Pupil, rotation_rad: float, total: Array, dispersion: float
    ) -> list[Array]:
        """Curvature of ``-L`` and covariance of its slope, ``(J + 1, J + 1)`` each."""
        xp = self.backend.xp
        model = self.model(block, pupil, rotation_rad)
        numerator, power = self.fit(model, block)
        found = abs(numerator / power) ** 2
        slopes = self._slopes(model, pupil, total)
        # What the object can imitate says nothing about the optics.
        shared = (self.weight * model.gamma.conj() * slopes).sum(axis=1) / power
        slopes -= model.gamma * shared.astype(np.complex64)[:, None, :]
        cross = xp.einsum("ikq,jkq->ijq", (self.weight * slopes).conj(), slopes).real
        signal = xp.maximum(found - dispersion / power, 0)
        return [2 * cross @ signal, 2 * cross @ found]

    def _slopes(self, model: Model, pupil: Pupil, total: Array) -> Array:
        """``dΓ'`` for every coefficient and the rotation, ``(J + 1, K, Q)``."""
        mono, parity, turned = self._monomials(pupil, model)
        slopes = [
            -1j * ((t * parity) @ mono * model.plus + t @ mono * model.minus) for t in self.taylor
        ]
        rim_plus, rim_minus = self._rim(model, pupil)
        slopes.append(
            (rim_plus - 1j * ((total * parity) @ turned)) * model.plus
            - (rim_minus + 1j * (total @ turned)) * model.minus
        )
        return self.backend.xp.stack(slopes).astype(np.complex64)

    def _monomials(self, pupil: Pupil, model: Model) -> tuple[Array, Array, Array]:
        """Monomials of q ``(M, Q)``, their parity, and their derivatives by the rotation."""
        mono, parity = pupil.monomials(model.q_A)
        # A step along the imaginary axis differentiates polynomials without rounding.
        turned = pupil.monomials(model.q_A + 1e-30j * model.turn_A)[0].imag * 1e30
        send = self.backend.asarray
        return send(mono), send(parity), send(turned)

    def _rim(self, model: Model, pupil: Pupil) -> tuple[Array, Array]:
        """Relative change of the moduli of ``G⁺`` and ``G⁻`` with the rotation."""
        xp, send = self.backend.xp, self.backend.asarray
        k_A, q_A, turn_A = send(self.k_A), send(model.q_A), send(model.turn_A)
        along = k_A @ turn_A.T
        square, cross = (k_A**2).sum(axis=1)[:, None] + (q_A**2).sum(axis=1), 2 * k_A @ q_A.T
        changes = []
        for sign, distance2 in ((1, square - cross), (-1, square + cross)):
            modulus = pupil.amplitude(distance2)
            rim = (modulus > 0) & (modulus < 1)
            slope = xp.zeros_like(along)
            r = xp.sqrt(distance2[rim])
            slope[rim] = sign * along[rim] / (pupil.soft_edge_A * r * modulus[rim])
            changes.append(slope)
        return changes[0], changes[1]
