"""Estimated curvature of the data term, block by block: it gives the first step its length.

For the amplitude loss a change ``dψ`` of the wave in front of the detector changes the loss in
second order by at most ``2/(Mp Mo) Σ_t Σ_modes N |dψ|²`` (Gauss-Newton, Cauchy-Schwarz over
modes).  The diagonal of that bound is

==============  ===================================================================================
object          ``2 N Nz / Mo · Σ_t mean_modes |P(r - r_t)|²``, raised by 5 % of its maximum
probe           ``2 N / Mp · N_t · mean |O|²``
positions       ``2 · mean_modes Σ_k (2π f)² |P̂|²`` per measurement, per axis
tilts           the same with ``2π q d`` per gap (inside) and ``2π r/λ`` (before, after)
background      ``2 N_t``
current         ``2 · counts``
aberrations     ``2 · mean_modes Σ_k B_j² |P̂|²`` times the measurements of the row
==============  ===================================================================================

Without the N in the near field; times ``max_k Σ_d |m_d|`` for virtual detectors m.  Other losses
multiply it: 2 for the Poisson ones, 4 times the typical intensity for the quadratic ones.  The
inverse is the initial inverse Hessian of L-BFGS, whose pairs then correct it.  Idea of the
illumination weights: ePIE and its parallel forms (A. Maiden, J. Rodenburg, Ultramicroscopy 109
(2009) 1256).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pyptyx.backend import Backend
from pyptyx.physics.detector import collect
from pyptyx.physics.kernels import reference as kernels
from pyptyx.physics.model import ModelSpec
from pyptyx.physics.optics import aberration_basis
from pyptyx.terms.data_term import DataTerm, ScanTable

Array = Any
Tree = dict[str, Array]

FLOOR = 0.05
"""Fraction of the largest illumination added everywhere, so that dark corners keep finite steps."""


def curvatures(
    x: Tree, spec: ModelSpec, scan: ScanTable, sequence: np.ndarray, backend: Backend
) -> Tree:
    """Curvature bound of the amplitude loss for every variable in `x`.

    Parameters
    ----------
    x : dict
        Variables, inside layout.
    spec : ModelSpec
    scan : ScanTable
    sequence : ndarray of int
        Measurements that count.
    backend : Backend

    Returns
    -------
    dict
        Positive arrays that broadcast against the variables.
    """
    probe = backend.to_host(x["probe"]).astype(np.complex128)
    current = x["current"][sequence] if "current" in x else np.ones(len(sequence))
    power = np.mean(np.abs(probe) ** 2, axis=1)  # (Ns, ny, nx)
    spectrum = np.mean(np.abs(np.fft.fft2(probe)) ** 2, axis=(0, 1))
    out: Tree = {}
    out["object"] = _object(x, spec, scan, sequence, power, current, backend)
    out["probe"] = _probe(x, scan, sequence, current, backend)
    sequence_rows = _Rows(len(sequence), float(np.mean(current**2)))
    out["positions"] = sequence_rows.table(x["positions"], _axes(spectrum, *_frequencies(spec)))
    if "tilts" in x:
        out["tilts"] = sequence_rows.table(x["tilts"], _tilts(spec, power.mean(axis=0), spectrum))
    if "background" in x:
        out["background"] = np.asarray(2.0 * len(sequence), backend.to_host(x["background"]).dtype)
    if "current" in x:
        out["current"] = np.full(len(x["current"]), 2 * spectrum.sum())
    if spec.num_aberrations:
        grid = spec.grid
        basis = aberration_basis(
            grid.q_y[:, None], grid.q_x[None, :], grid.wavelength_A, spec.num_aberrations
        )
        each = 2 * (basis**2 * spectrum * grid.mask).sum(axis=(1, 2))
        rows = np.bincount(scan.aberration_row[sequence], minlength=len(x["aberrations"]))
        out["aberrations"] = np.maximum(rows, 1)[:, None] * each * sequence_rows.power
    gain = _gain(spec)
    for name in out.keys() - {"background"}:
        # Above, the waves of the far field are compared with every pixel once.
        out[name] = out[name] * out[name].dtype.type(gain * spec.wave_gain / spec.grid.size)
    if "background" in out:
        out["background"] = out["background"] * out["background"].dtype.type(gain)
    return {k: _positive(v, backend, k) for k, v in out.items()}


def _gain(spec: ModelSpec) -> float:
    """How often a pixel is counted: once, or by all virtual detectors together."""
    return 1.0 if spec.masks is None else float(np.abs(spec.masks).sum(axis=0).max())


def measured_rows(term: DataTerm, x: Tree, name: str, bound: np.ndarray) -> np.ndarray:
    """Gauss-Newton curvature of a per-measurement table, by finite differences of the amplitudes.

    The bound above takes the specimen for opaque to phases; where it is thin, shifting the probe
    hardly changes the intensities and the true curvature is far smaller.

    Parameters
    ----------
    term : DataTerm
    x : dict
        Variables.
    name : str
        ``"positions"`` or ``"tilts"``.
    bound : ndarray
        What `curvatures` gave; nothing falls below 1 % of it.

    Returns
    -------
    ndarray
        Like the table.
    """
    table = x[name]
    rows = max(1, sum(len(b) for b in term.batches)) if len(table) == 1 else 1
    counts = 0.5 * float(np.max(bound)) / rows  # any scale will do that makes the change small
    steps = np.sqrt(0.02 * counts / np.maximum(bound.max(axis=0) / rows, 1e-300))
    others = []
    for column, step in enumerate(steps):
        moved = table.copy()
        moved[:, column] += step
        others.append({**x, name: moved})
    change = term.amplitude_changes(x, others)
    curvature = 2 * change.T / steps**2
    out = bound.copy()
    if len(table) == 1:
        out[0] = curvature.sum(axis=0)
    else:
        out[: len(curvature)] = curvature
    return np.maximum(out, 0.01 * bound)


def loss_factor(loss: str, x: Tree, spec: ModelSpec, backend: Backend) -> float:
    """Curvature of `loss` relative to the amplitude loss, at the intensities of the bare probe."""
    if loss in ("lsq_sqrt", "gauss_compressed"):
        return 1.0
    if loss not in ("lsq", "lsq_compressed"):
        return 2.0
    probe = backend.to_host(x["probe"]).astype(np.complex128)
    wave = np.fft.fft2(probe) if spec.near_field is None else probe
    intensity = collect((np.abs(wave) ** 2).mean(axis=1), spec.geometry)
    if spec.masks is not None:
        intensity = np.abs(np.tensordot(intensity, spec.masks, axes=((1, 2), (1, 2))))
    return float(4 * (intensity**2).sum() / max(intensity.sum(), np.finfo(float).tiny))


@dataclass(frozen=True)
class InverseDiagonal:
    """``H0``: ``filter · 1/(factor · diagonal) · filter`` per block; symmetric and positive.

    Attributes
    ----------
    diagonal : dict
        Positive arrays that broadcast against the blocks.
    factor : float
    filters : dict of callable
        Symmetric low-pass of a block, where it has one.
    """

    diagonal: Tree
    factor: float
    filters: dict[str, Callable[[Array], Array]]

    def __call__(self, q: Tree) -> Tree:
        """``H0 q``."""
        out = {}
        for k, v in q.items():
            keep = self.filters.get(k, lambda a: a)
            diagonal = self.diagonal[k]
            out[k] = keep(keep(v) / (diagonal * diagonal.dtype.type(self.factor)))
        return out

    def state(self) -> dict[str, Any]:
        """What makes the operator again, together with the filters."""
        return {"diagonal": self.diagonal, "factor": self.factor}


class _Rows:
    """Per-measurement tables, or one common row that gathers all measurements."""

    def __init__(self, count: int, power: float) -> None:
        self.count = count
        self.power = power

    def table(self, like: np.ndarray, per_row: np.ndarray) -> np.ndarray:
        share = self.count if len(like) == 1 and self.count > 1 else 1
        return np.broadcast_to(per_row * share * self.power, like.shape).copy()


def _object(
    x: Tree,
    spec: ModelSpec,
    scan: ScanTable,
    sequence: np.ndarray,
    power: np.ndarray,
    current: np.ndarray,
    backend: Backend,
) -> np.ndarray:
    shape = x["object"].shape
    light = np.zeros(shape[-2:])
    # Phase plates may fill a disk and do not change how much light there is.
    batch = replace(scan, plates=None).batch(sequence)
    for t, (corner, c) in enumerate(zip(batch.corners, current, strict=True)):
        scenario = 0 if batch.scenario is None else batch.scenario[t]
        kernels.scatter_add(light, corner[None], (c**2 * power[scenario])[None])
    light = light + FLOOR * light.max()
    light = light * (2 * spec.grid.size * shape[1] / shape[0])
    return light.astype(x["object"].real.dtype)


def _probe(
    x: Tree, scan: ScanTable, sequence: np.ndarray, current: np.ndarray, backend: Backend
) -> np.ndarray:
    shape = x["probe"].shape
    weights = current**2
    if scan.scenario is None:
        per_scenario = np.array([weights.sum()])
    else:
        per_scenario = np.bincount(scan.scenario[sequence], weights, minlength=shape[0])
    mean_object = float((backend.to_host(x["object"]).real.astype(np.float64) ** 2).mean())
    mean_object += float((backend.to_host(x["object"]).imag.astype(np.float64) ** 2).mean())
    size = shape[-1] * shape[-2]
    value = 2 * size / shape[1] * mean_object * np.maximum(per_scenario, weights.min())
    return value[:, None, None, None].astype(x["probe"].real.dtype)


def _frequencies(spec: ModelSpec) -> tuple[np.ndarray, np.ndarray]:
    return 2 * np.pi * spec.grid.f_y, 2 * np.pi * spec.grid.f_x


def _axes(weight: np.ndarray, a_y: np.ndarray, a_x: np.ndarray) -> np.ndarray:
    """``2 Σ a² w`` along y and x: (2,)."""
    return 2 * np.array([(a_y**2) @ weight.sum(axis=1), (a_x**2) @ weight.sum(axis=0)])


def _tilts(spec: ModelSpec, power: np.ndarray, spectrum: np.ndarray) -> np.ndarray:
    """Six curvatures: before, inside, after; the specimen is taken as thin."""
    grid = spec.grid
    k = 2 * np.pi / grid.wavelength_A
    ramp = _axes(power * grid.size, k * grid.y_A, k * grid.x_A)
    depth = 2 * np.pi * (sum(spec.distances_A) + _focus_A(spec))
    inside = _axes(spectrum, depth * grid.q_y, depth * grid.q_x)
    return np.concatenate([ramp, inside, ramp])


def _focus_A(spec: ModelSpec) -> float:
    """Typical distance to a detector in the near field, which tilts turn as well."""
    if spec.near_field is None:
        return 0.0
    return float(np.sqrt(np.mean(np.square(spec.near_field.defocus_A))))


def _positive(a: np.ndarray, backend: Backend, key: str) -> Array:
    """Zeros (a variable without influence) become 1, so that its zero gradient stays zero."""
    a = np.where(a > 0, a, np.asarray(1, a.dtype))
    return backend.asarray(a) if key in ("object", "probe", "background") else a
