"""The forward model: the order of the stages, on one page.

    object ── patches ─────────────┐
    probe ── scenario, current, phase plate, aberrations, tilt before, shift ── multislice ──
        ── tilt after ── detector ── crop, bin, background ── virtual detectors ── data grid

A `ForwardModel` holds constants on one device and no state.  It works on an *effective* state
that `prepare` makes once per evaluation (object band-limited as a whole, probe spectrum),
accumulates gradients with respect to that state batch by batch, and `finish` takes them back to
the variables.  Everything between `prepare` and `finish` is a chain of stages, each defined
beside its adjoint in its own module.

Gradients: ``g = dL/dRe z + i dL/dIm z``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pyptyx.backend import Backend
from pyptyx.physics.detector import (
    Detector,
    DetectorGeometry,
    FarField,
    NearField,
    NearFieldOptics,
)
from pyptyx.physics.grid import Grid, disc_mask
from pyptyx.physics.kernels.reference import Loss, squared_norms
from pyptyx.physics.multislice import Multislice
from pyptyx.physics.optics import aberration_basis
from pyptyx.physics.patches import BandLimit, own_windows, own_windows_vjp
from pyptyx.physics.probe import Illumination, ProbePlan, ProbeStage
from pyptyx.physics.tilt import AFTER, BEFORE, INSIDE, TiltPlan, ramp, ramp_factor, ramp_vjp
from pyptyx.physics.virtual import VirtualDetectors

Array = Any
Tree = dict[str, Array]


@dataclass(frozen=True)
class ModelSpec:
    """What the model is made of; numbers only.

    Attributes
    ----------
    grid : Grid
        Probe window.
    distances_A : tuple of float
        The Nz - 1 gaps between slices in Å.
    tilt : TiltPlan
        Which tilts enter.
    shift : bool
        Whether fractions of a pixel move the probe.
    num_aberrations : int
        Coefficients per local aberration row; 0 switches them off.
    plates : bool
        Whether phase plates multiply the probe spectrum.
    geometry : DetectorGeometry
        Model to data pixels.
    near_field : NearFieldOptics or None
        The lens in front of a near-field detector; None is the far field.
    masks : ndarray, (Nd, ky, kx), or None
        Virtual detectors on the data grid, in the detector's order.
    patch_band_limit : bool
        Band-limit every window in every evaluation instead of the object once.
    dtype : numpy dtype
        Complex working type.
    wave_storage : {"store", "recompute", "half"}
        How waves between slices are remembered for the gradient.
    """

    grid: Grid
    distances_A: tuple[float, ...] = ()
    tilt: TiltPlan = field(default_factory=TiltPlan)
    shift: bool = True
    num_aberrations: int = 0
    plates: bool = False
    geometry: DetectorGeometry = field(default_factory=DetectorGeometry)
    near_field: NearFieldOptics | None = None
    masks: np.ndarray | None = field(default=None, compare=False)
    patch_band_limit: bool = False
    dtype: Any = np.complex64
    wave_storage: str = "store"

    @property
    def illumination(self) -> ProbePlan:
        """The elements of the illumination."""
        return ProbePlan(self.plates, self.num_aberrations > 0, self.tilt.before, self.shift)

    @property
    def data_shape(self) -> tuple[int, int]:
        """Shape of what one measurement is compared with; signals are a pattern of one row."""
        if self.masks is not None:
            return 1, len(self.masks)
        return self.geometry.data_shape(self.grid.shape)

    @property
    def wave_gain(self) -> int:
        """Counts per unit of ``Σ|W|²``: N in the far field, 1 in the near field."""
        return self.grid.size if self.near_field is None else 1


@dataclass
class Batch:
    """The measurements of one batch.

    Attributes
    ----------
    indices : ndarray of int, (B,)
        Rows of the per-measurement variables.
    corners : ndarray of int, (B, 2)
        Top-left corners of the windows.
    scenario, aberration_row : ndarray of int, (B,), or None
        Rows of the probe scenarios and of the aberration table.
    plate : array, (B or 1, ny, nx), or None
        Phase plates, zero frequency in the corner.
    """

    indices: np.ndarray
    corners: np.ndarray
    scenario: np.ndarray | None = None
    aberration_row: Any = None
    plate: np.ndarray | None = None


@dataclass
class _Saved:
    batch: Batch
    probe: Any = None
    multislice: Any = None
    ramp: Any = None
    detector: Any = None
    exit_mask: bool = False
    background: Array | None = field(default=None)


class ForwardModel:
    """The chain of stages on one device (see the module's page)."""

    def __init__(self, spec: ModelSpec, backend: Backend) -> None:
        self.spec = spec
        self.backend = backend
        grid, dtype = spec.grid, spec.dtype
        basis = None
        if spec.num_aberrations:
            basis = aberration_basis(
                grid.q_y[:, None], grid.q_x[None, :], grid.wavelength_A, spec.num_aberrations
            )
        self._limit = BandLimit(grid.mask, backend, dtype)
        self._object_limits: dict[tuple[int, int], BandLimit] = {}
        self._probe = ProbeStage(grid, spec.illumination, basis, backend, dtype)
        self._multislice = Multislice(grid, spec.distances_A, backend, dtype, spec.wave_storage)
        self._ramp = ramp_factor(grid, backend, dtype)
        self._detector = _detector(spec, backend)
        self._virtual = None
        if spec.masks is not None:
            self._virtual = VirtualDetectors(spec.masks, backend, dtype)

    # -- once per evaluation -------------------------------------------------------------------

    def prepare(self, x: Tree) -> Tree:
        """Effective state of the variables `x`: what the batches read."""
        state = dict(x)
        if not self.spec.patch_band_limit:
            state["object"] = self._object_limit(x["object"].shape[-2:])(x["object"])
        state["probe"] = self._probe.enter(x["probe"])
        return state

    def finish(self, acc: Tree) -> Tree:
        """Gradients of the variables from accumulated gradients of the effective state."""
        out = dict(acc)
        if "object" in acc and not self.spec.patch_band_limit:
            out["object"] = self._object_limit(acc["object"].shape[-2:])(acc["object"])
        if "probe" in acc:
            out["probe"] = self._probe.leave(acc["probe"])
        return out

    # -- once per batch ------------------------------------------------------------------------

    def forward(self, state: Tree, batch: Batch) -> tuple[Array, _Saved]:
        """Intensities (B, ky, kx) on the data grid, in detector order, or signals (B, 1, Nd)."""
        saved = _Saved(batch, background=state.get("background"))
        exit_wave = self._exit_wave(state, batch, saved)
        intensity, saved.detector = self._detector.forward(
            exit_wave, batch.indices, self._inside(_tilts(state, batch))
        )
        data = self._detector.to_data(intensity, saved.background)
        return (data if self._virtual is None else self._virtual.forward(data)), saved

    def loss_and_gradient(
        self, state: Tree, batch: Batch, data: Array, loss: Loss, weight: float, acc: Tree
    ) -> tuple[Array, Array]:
        """`forward`, loss and `vjp` of a batch; gradients of weight · loss are added into `acc`.

        Returns
        -------
        value, sse : array, (B,), float64
            ``Σ l(I, D)`` without the weight, and ``Σ (I - D)²``.
        """
        detector = self._detector
        if isinstance(detector, FarField) and self._is_bare(state):
            saved = _Saved(batch)
            exit_wave = self._exit_wave(state, batch, saved)
            value, sse, wave = detector.compare(exit_wave, data, loss, weight)
            self._unwind(saved, wave, None, acc)
            return value, sse
        intensity, saved = self.forward(state, batch)
        data = data.astype(intensity.dtype, copy=False)
        sse = squared_norms(intensity - data)
        value, derivative = loss(intensity, data)
        if weight != 1:
            derivative *= derivative.dtype.type(weight)
        self.vjp(saved, derivative, acc)
        return value, sse

    def _is_bare(self, state: Tree) -> bool:
        """Whether nothing lies between the detector's plane and the loss."""
        return self.spec.geometry.trivial and self._virtual is None and "background" not in state

    def exit_waves(self, state: Tree, batch: Batch) -> Array:
        """Exit waves (B, Mp, Mo, ny, nx) in front of the detector."""
        return self._exit_wave(state, batch, _Saved(batch))

    def vjp(self, saved: _Saved, g: Array, acc: Tree) -> None:
        """Add the gradients for ``g = dL/dI``, overwritten, into `acc`; its keys are wanted."""
        wants_inside = "tilts" in acc and self.spec.tilt.inside
        wave, g_lens = self._detector_vjp(saved, g, acc, wants_inside)
        self._unwind(saved, wave, g_lens, acc)

    def _unwind(self, saved: _Saved, wave: Array, g_lens: np.ndarray | None, acc: Tree) -> None:
        """From the gradient of the exit wave back; `g_lens` is that of the tilt by the lens."""
        rows = saved.batch.indices
        g_tilts = np.zeros((len(rows), 6)) if "tilts" in acc else None
        if saved.ramp is not None:
            wave, g_after = ramp_vjp(saved.ramp, wave, None if g_tilts is None else self._ramp)
            if g_tilts is not None:
                g_tilts[:, AFTER] = g_after
        if saved.exit_mask:
            wave = self._limit(wave)
        wave, g_inside = self._multislice_vjp(saved, wave, acc)
        grads = self._probe_vjp(saved, wave, acc)
        if g_tilts is not None:
            for part in (g_inside, g_lens):
                if part is not None:
                    g_tilts[:, INSIDE] += part
            g_tilts[:, BEFORE] = grads.get("tilt", 0)
            _add_rows(acc["tilts"], rows, g_tilts)
        if "shift" in grads:
            _add_rows(acc["positions"], rows, grads["shift"])
        if "current" in grads:
            acc["current"][rows] += grads["current"]
        if "aberrations" in grads:
            np.add.at(acc["aberrations"], saved.batch.aberration_row, grads["aberrations"])

    def _multislice_vjp(
        self, saved: _Saved, wave: Array, acc: Tree
    ) -> tuple[Array, np.ndarray | None]:
        """Add the object's gradient into `acc`; return those of the wave and of the tilt inside."""
        wants_inside = "tilts" in acc and self.spec.tilt.inside
        target = acc.get("object")
        if target is None or not self.spec.patch_band_limit:
            return self._multislice.vjp(saved.multislice, wave, target, wants_inside)
        stack = self.backend.xp.zeros_like(saved.multislice.obj)
        out = self._multislice.vjp(saved.multislice, wave, stack, wants_inside)
        own_windows_vjp(saved.batch.corners, stack, self._limit, target, self.backend)
        return out

    def _detector_vjp(
        self, saved: _Saved, g: Array, acc: Tree, wants_tilt: bool
    ) -> tuple[Array, np.ndarray | None]:
        """Gradients of the exit wave and of the tilt inside; that of the background into `acc`."""
        if self._virtual is not None:
            g = self._virtual.vjp(g)
        g, g_background = self._detector.to_data_vjp(g, saved.background, "background" in acc)
        if g_background is not None:
            acc["background"] += g_background
        return self._detector.vjp(saved.detector, g, wants_tilt)

    def _probe_vjp(self, saved: _Saved, wave: Array, acc: Tree) -> dict[str, np.ndarray]:
        """Add the probe's gradient into `acc`; return those of the per-pattern variables."""
        names = {"current", "aberrations"} & acc.keys()
        if "positions" in acc:
            names.add("shift")
        if "tilts" in acc and self.spec.tilt.before:
            names.add("tilt")
        if not names and "probe" not in acc:
            return {}
        return self._probe.vjp(saved.probe, wave, acc.get("probe"), names)

    def _exit_wave(self, state: Tree, batch: Batch, saved: _Saved) -> Array:
        spec, rows = self.spec, batch.indices
        tilts = _tilts(state, batch)
        obj, corners = state["object"], batch.corners
        if spec.patch_band_limit:
            obj, corners = own_windows(obj, corners, spec.grid.shape, self._limit, self.backend)
        light = Illumination(
            scenario=batch.scenario,
            current=state["current"][rows] if "current" in state else None,
            plate=batch.plate if spec.plates else None,
            aberrations=state["aberrations"][batch.aberration_row]
            if spec.num_aberrations
            else None,
            tilt=tilts[:, BEFORE] if spec.tilt.before else None,
            shift=_rows(state["positions"], rows) - batch.corners if spec.shift else None,
        )
        wave, saved.probe = self._probe.forward(state["probe"], light)
        wave, saved.multislice = self._multislice.forward(wave, obj, corners, self._inside(tilts))
        if spec.tilt.after:
            saved.exit_mask = obj.shape[1] == 1
            if saved.exit_mask:
                wave = self._limit(wave)
            wave, saved.ramp = ramp(wave, self._ramp.factor(tilts[:, AFTER]))
            # The detector overwrites its input, the adjoint of the ramp still needs it.
            wave = wave.copy()
        return wave

    def _inside(self, tilts: np.ndarray) -> np.ndarray | None:
        return tilts[:, INSIDE] if self.spec.tilt.inside else None

    def _object_limit(self, shape: tuple[int, int]) -> BandLimit:
        """Band limit of an object of `shape` (Y, X)."""
        if shape not in self._object_limits:
            grid = self.spec.grid
            mask = disc_mask(shape, grid.pixel_A, grid.q_limit)
            self._object_limits[shape] = BandLimit(mask, self.backend, self.spec.dtype)
        return self._object_limits[shape]


def _detector(spec: ModelSpec, backend: Backend) -> Detector:
    if spec.near_field is None:
        return FarField(spec.grid, spec.geometry, backend, spec.dtype)
    return NearField(spec.grid, spec.near_field, spec.geometry, backend, spec.dtype)


_UPRIGHT = np.zeros((1, 6))
"""Tilts of a model without any."""


def _tilts(state: Tree, batch: Batch) -> np.ndarray:
    return _rows(state.get("tilts", _UPRIGHT), batch.indices)


def _rows(a: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Rows of a per-measurement table; a single row serves all."""
    return a.repeat(len(rows), axis=0) if len(a) == 1 else a[rows]


def _add_rows(target: np.ndarray, rows: np.ndarray, g: np.ndarray) -> None:
    """Adjoint of `_rows`."""
    if len(target) == 1:
        target[0] += g.sum(axis=0)
    else:
        target[rows] += g
