"""Estimated curvature of the data term, block by block: it gives the first step its length.

For the amplitude loss a change ``dψ`` of the wave in front of the detector changes the loss in
second order by at most ``2/(Mp Mo) Σ_t Σ_modes N |dψ|²`` (Gauss-Newton, Cauchy-Schwarz over
modes).  The diagonal of that bound is

==============  ===================================================================================
object          ``2 N Nz / Mo · Σ_t mean_modes |P(r - r_t)|²``, raised by 1 % of its maximum
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

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import scipy.fft

from pyptyx import trees
from pyptyx.backend import Backend
from pyptyx.engine.rings import Rings
from pyptyx.physics.detector import collect
from pyptyx.physics.kernels import reference as kernels
from pyptyx.physics.model import ModelSpec
from pyptyx.physics.optics import aberration_basis
from pyptyx.terms.data_term import DataTerm, ScanTable

Array = Any
Tree = dict[str, Array]

FLOOR = 0.01
"""Fraction of the largest illumination added everywhere, so that dark corners keep finite steps."""

CAREFUL_FLOOR = 0.05
"""The same for single steps, which no line search checks."""


_LEAST_MEASURED = 0.01
"""Part of the bound below which no measured curvature is believed."""


def curvatures(
    x: Tree,
    spec: ModelSpec,
    scan: ScanTable,
    sequence: np.ndarray,
    backend: Backend,
    names: Collection[str] | None = None,
    floor: float = FLOOR,
) -> Tree:
    """Curvature bound of the amplitude loss for every variable in `x`, or for some of them.

    Parameters
    ----------
    x : dict
        Variables, inside layout.
    spec : ModelSpec
    scan : ScanTable
    sequence : ndarray of int
        Measurements that count.
    backend : Backend
    names : collection of str, optional
        Variables wanted; by default all.
    floor : float
        Fraction of the largest curvature of the object that is added everywhere.

    Returns
    -------
    dict
        Positive arrays that broadcast against the variables.
    """
    wanted = set(x) if names is None else set(names) & set(x)
    probe = backend.to_host(x["probe"]).astype(np.complex128)
    current = x["current"][sequence] if "current" in x else np.ones(len(sequence))
    power = np.mean(np.abs(probe) ** 2, axis=1)  # (Ns, ny, nx)
    out: Tree = {}
    if "object" in wanted:
        light = _illumination(x, scan, sequence, power, current)
        light += floor * light.max()
        light *= 2 * spec.grid.size * x["object"].shape[1] / x["object"].shape[0]
        out["object"] = light.astype(x["object"].real.dtype)
    if "probe" in wanted:
        out["probe"] = _probe(x, scan, sequence, current)
    if wanted - out.keys():
        spectrum = np.mean(np.abs(np.fft.fft2(probe)) ** 2, axis=(0, 1))
        rows = _Rows(len(sequence), float(np.mean(current**2)))
        out |= _tables(x, spec, rows, spectrum, power.mean(axis=0))
    if spec.num_aberrations and "aberrations" in wanted:
        counts = np.bincount(scan.aberration_row[sequence], minlength=len(x["aberrations"]))
        out["aberrations"] = np.maximum(counts, 1)[:, None] * _aberrations(spec, spectrum, current)
    gain = _gain(spec)
    for name in out.keys() - {"background"}:
        # Above, the waves of the far field are compared with every pixel once.
        out[name] = out[name] * out[name].dtype.type(gain * spec.wave_gain / spec.grid.size)
    if "background" in out:
        out["background"] = out["background"] * out["background"].dtype.type(gain)
    return {k: _positive(v, backend, k) for k, v in out.items() if k in wanted}


def _tables(x: Tree, spec: ModelSpec, rows: _Rows, spectrum: np.ndarray, power: np.ndarray) -> Tree:
    """Curvatures of the variables with a row per measurement, and of the background."""
    out: Tree = {"positions": rows.table(x["positions"], _axes(spectrum, *_frequencies(spec)))}
    if "tilts" in x:
        out["tilts"] = rows.table(x["tilts"], _tilts(spec, power, spectrum))
    if "background" in x:
        out["background"] = np.asarray(2.0 * rows.count, x["background"].dtype)
    if "current" in x:
        out["current"] = np.full(len(x["current"]), 2 * spectrum.sum())
    return out


def _aberrations(spec: ModelSpec, spectrum: np.ndarray, current: np.ndarray) -> np.ndarray:
    """Curvature of the coefficients of one row by one measurement."""
    grid = spec.grid
    basis = aberration_basis(
        grid.q_y[:, None], grid.q_x[None, :], grid.wavelength_A, spec.num_aberrations
    )
    each = 2 * (basis**2 * spectrum * grid.mask).sum(axis=(1, 2))
    return each * float(np.mean(current**2))


def _gain(spec: ModelSpec) -> float:
    """How often a pixel is counted: once, or by all virtual detectors together."""
    return 1.0 if spec.masks is None else float(np.abs(spec.masks).sum(axis=0).max())


def measured_rows(
    term: DataTerm, x: Tree, name: str, bound: np.ndarray, row_of: np.ndarray
) -> np.ndarray:
    """Gauss-Newton curvature of a table, by finite differences of the amplitudes.

    The bound above takes the specimen for opaque to phases; where it is thin, shifting the probe
    or another phase in it hardly changes the intensities, and the true curvature is far smaller.

    Parameters
    ----------
    term : DataTerm
    x : dict
        Variables.
    name : str
        ``"positions"``, ``"tilts"`` or ``"aberrations"``.
    bound : ndarray
        What `curvatures` gave.
    row_of : ndarray of int, (N,)
        The row of every measurement.

    Returns
    -------
    ndarray
        Like the table.
    """
    table = x[name]
    # Any scale will do that makes the changes small.
    steps = np.sqrt(0.01 * float(np.max(bound)) / np.maximum(bound.max(axis=0), 1e-300))
    others = []
    for column, step in enumerate(steps):
        moved = table.copy()
        moved[:, column] += step
        others.append({**x, name: moved})
    change = term.amplitude_changes(x, others)
    sums = [np.bincount(row_of[: len(column)], column, len(table)) for column in change]
    measured = 2 * np.stack(sums, axis=1) / steps**2
    return np.maximum(measured, _LEAST_MEASURED * bound)


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

    With weights for the rings of a block ``D^-½ F⁻¹ w F D^-½`` stands in place of the quotient.

    Attributes
    ----------
    diagonal : dict
        Positive arrays that broadcast against the blocks.
    factor : float
    filters : dict of callable
        Symmetric low-pass of a block, where it has one.
    rings : dict of Rings
        Frequencies of a block, where they are weighed.
    """

    diagonal: Tree
    factor: float
    filters: dict[str, Callable[[Array], Array]]
    rings: dict[str, Rings] = field(default_factory=dict)

    def __call__(self, q: Tree, weights: Mapping[str, np.ndarray] | None = None) -> Tree:
        """``H0 q``; `weights` are those of `Rings.weigh`, for blocks in `rings`."""
        weights = weights or {}
        out = {}
        for k, v in q.items():
            keep = self.filters.get(k, lambda a: a)
            if k in weights:
                root = np.sqrt(self._curvature(k))
                out[k] = keep(self.rings[k].weigh(keep(v), weights[k], root))
            else:
                out[k] = keep(keep(v) / self._curvature(k))
        return out

    def moments(self, s: Tree, y: Tree) -> dict[str, np.ndarray]:
        """What a step and the change of the gradient say about each ring (see `Rings.moments`)."""
        return {
            k: self.rings[k].moments(s[k], y[k], np.sqrt(self._curvature(k)))
            for k in self.rings.keys() & s.keys()
        }

    def _curvature(self, name: str) -> Array:
        diagonal = self.diagonal[name]
        return diagonal * diagonal.dtype.type(self.factor)

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


def _illumination(
    x: Tree, scan: ScanTable, sequence: np.ndarray, power: np.ndarray, current: np.ndarray
) -> np.ndarray:
    """Light on every pixel of the object: ``Σ_t mean_modes |P(r - r_t)|²``."""
    light = np.zeros(x["object"].shape[-2:])
    # Phase plates may fill a disk and do not change how much light there is.
    batch = replace(scan, plates=None).batch(sequence)
    scenario = np.zeros(len(sequence), int) if batch.scenario is None else batch.scenario
    if len(sequence) * power[0].size > _MANY * len(power) * light.size:
        counts = np.zeros((len(power), *light.shape))
        np.add.at(counts, (scenario, *batch.corners.T), current**2)
        for weights, probe in zip(counts, power, strict=True):
            light += _convolved(weights, probe)
        return light
    for corner, which, c in zip(batch.corners, scenario, current, strict=True):
        kernels.scatter_add(light, corner[None], (c**2 * power[which])[None])
    return light


_MANY = 8
"""Windows, in areas of the object, that take longer to add up than to convolve."""


def _convolved(weights: np.ndarray, probe: np.ndarray) -> np.ndarray:
    """Sum of shifted copies of a small image, nowhere negative, and 0 where none is."""
    fast = [scipy.fft.next_fast_len(n, real=True) for n in weights.shape]
    product = scipy.fft.rfft2(weights, fast) * scipy.fft.rfft2(probe, fast)
    y, x = weights.shape
    light = scipy.fft.irfft2(product, fast)[:y, :x]
    return np.where(light > 1e-12 * light.max(), light, 0.0)


def _probe(x: Tree, scan: ScanTable, sequence: np.ndarray, current: np.ndarray) -> np.ndarray:
    shape = x["probe"].shape
    weights = current**2
    if scan.scenario is None:
        per_scenario = np.array([weights.sum()])
    else:
        per_scenario = np.bincount(scan.scenario[sequence], weights, minlength=shape[0])
    mean_object = trees.dot(x["object"], x["object"]) / x["object"].size
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
