"""The warm start: sweeps over the data in mini-batches, before the first epoch.

Far from the solution a step on a few per cent of the measurements brings nearly as much as one on
all of them.  Each mini-batch takes one scaled gradient step on object and probe,

    u <- u - α H0 g,        α = 1, in the last sweep 1/2 (probe: 0 in the first sweep, then α/2)

with gradient and curvature `H0⁻¹` (see `pyptyx.engine.preconditioner`) of its own measurements, so
with one measurement it is ePIE, with several its parallel form.  The probe follows slowly, and not
before the object has some form: it is nearly known, and where it moves as fast as the object it
takes up what belongs to the object.  Some runs never leave the plateau that this leads to.

What the noise of one mini-batch brings in stays in the object where the data hardly determine it.
The last sweep therefore takes, for mini-batch b of B, the gradient of all measurements as far as
it is known (SAGA),

    g = g_b - g_b' + Σ_c g_c' / B,        g' = what was found when the mini-batch came last,

whose noise goes away as the steps become small.  Where that would take more memory than the pairs
of L-BFGS, which come later, the steps are halved from sweep to sweep instead.

The residuals are those of amplitudes whatever the loss of the run is, because most others are
without bounds where a start predicts nothing.  Only before a Poisson loss of less than a count per
pixel, where amplitudes would make phases too weak, are they those of ``"ml_shifted"``, which are as
tame there.  Regularisers wait for the first epoch; band limits, the support of the probe, a fixed
modulus and the like hold.  Slices, modes, shifts and the near field need nothing of their own.

References
----------
A. Maiden, J. Rodenburg, Ultramicroscopy 109 (2009) 1256 (ePIE);  A. Defazio, F. Bach, S.
Lacoste-Julien, Adv. Neural Inf. Process. Syst. 27 (2014) (SAGA).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from pyptyx import trees
from pyptyx.engine import batching
from pyptyx.engine.objective import Objective, active_variables
from pyptyx.engine.preconditioner import CAREFUL_FLOOR
from pyptyx.engine.problem import Reconstruction
from pyptyx.engine.variables import UPDATE_KEYS
from pyptyx.optim.sharding import Ranks, Shards
from pyptyx.terms.data_term import DataTerm

logger = logging.getLogger(__name__)

Tree = dict[str, Any]

MOVED = {"object": 1.0, "probe": 0.5}
"""Variables that a mini-batch says enough about, and factors on their steps."""

MINI_BATCHES = 12
"""Mini-batches per sweep, if the parameters leave it open.

With more of them the loss falls faster, but the noise of each one stays in the object where the
data hardly determine it, beyond twice the aperture above all.
"""

_AUTOMATIC = 3
"""Sweeps of a run that starts from a flat object."""

_LAST = 0.5
"""Step of the last sweep, with corrected gradients."""

_SHRINK = 0.5
"""Factor on the step from sweep to sweep, if the gradients cannot be remembered."""


def planned_sweeps(problem: Reconstruction, values: Mapping[str, Any], epoch: int) -> int:
    """Sweeps to make before an epoch: `warm_start_epochs` before epoch 0, otherwise none.

    ``"auto"`` means three if the object starts flat, and none if something is known of it or the
    mini-batches would be fewer than four measurements.

    Parameters
    ----------
    problem : Reconstruction
    values : mapping
        Schedulable parameters of the epoch.
    epoch : int
    """
    params = problem.params
    asked = params["warm_start_epochs"]
    if epoch > 0 or not asked or params["optimizer"] == "pypty":
        return 0
    if params["algorithm"] == "lsq_compressed":  # its signals may be negative: no amplitudes
        return 0
    if not MOVED.keys() & set(active_variables(problem, values)):
        return 0
    if asked == "auto":
        obj = problem.x["object"]
        flat = bool((obj == obj[..., :1, :1]).all())
        several = len(problem.sequence_at(values)) >= 4 * MINI_BATCHES
        return _AUTOMATIC if flat and several else 0
    return int(asked)


def warm_start(
    problem: Reconstruction, values: Mapping[str, Any], epoch: int, sweeps: int
) -> tuple[Tree, str]:
    """Variables after some sweeps over the measurements of an epoch.

    Parameters
    ----------
    problem : Reconstruction
        Its variables are left as they are; ``params["seed"]`` chooses the mini-batches.
    values : mapping
        Schedulable parameters of the epoch.
    epoch : int
    sweeps : int

    Returns
    -------
    x : dict
        The variables; those of the problem, if the loss rises from the first sweep to the last.
    message : str
        For the log.
    """
    frozen = {key: False for name, key in UPDATE_KEYS.items() if name not in MOVED}
    objective = Objective(problem, {**values, **frozen}, epoch)
    sequence = problem.sequence_at(values)
    term = _tame(problem, objective.data)
    rng = np.random.default_rng(problem.params["seed"])
    size = problem.params["warm_start_batch"]
    count = MINI_BATCHES if size == "auto" else -(-len(sequence) // int(size))
    place = batching.curve(problem.scan.corners)
    remember = min(count, len(sequence)) <= 2 * values["hist_length"]
    known = _Gradients(problem.communicator) if remember else None
    groups: list[np.ndarray] = []
    x, means = problem.x, []
    for sweep in range(sweeps):
        if known is not None and 0 < sweep == sweeps - 1:
            groups, step = known.correct(groups, rng), _LAST
        else:
            groups = mini_batches(sequence, place, count, rng)
            step = 1.0 if known is not None else _SHRINK**sweep
        steps = {name: step * factor for name, factor in MOVED.items()}
        if sweep == 0 and "object" in objective.active:
            steps["probe"] = 0.0
        x, losses = _sweep(problem, objective, term, (x, groups, steps), known)
        means.append(float(np.mean(losses)))
        logger.info("warm start, sweep %d: mean loss per measurement %.6g", sweep + 1, means[-1])
    text = f"warm start: {sweeps} sweeps of {len(groups)} mini-batches"
    if not means[-1] <= means[0]:  # a sweep sees every measurement once, mini-batches differ
        return problem.x, f"{text} did not lower the loss, start values kept"
    return x, f"{text}, {term.loss} per measurement {means[0]:.4g} -> {means[-1]:.4g}"


def mini_batches(
    sequence: np.ndarray, place: np.ndarray, count: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Random mini-batches, each spread over the whole scan.

    Cells of `count` neighbours on the curve send one measurement to each mini-batch.

    Parameters
    ----------
    sequence : ndarray of int
        Measurements.
    place : ndarray of int, (N,) or (1,)
        Where on a curve through the scan a measurement lies, from `batching.curve`.
    count : int
        Mini-batches wanted; there are never more than measurements.
    rng : numpy.random.Generator

    Returns
    -------
    list of ndarray of int
        Every measurement is in one of them; ascending, sizes differ by at most one.
    """
    count = min(count, len(sequence))
    if len(place) > 1:
        sequence = sequence[np.argsort(place[sequence], kind="stable")]
    batch_of = np.concatenate([rng.permutation(count) for _ in range(-(-len(sequence) // count))])[
        : len(sequence)
    ]
    return [np.sort(sequence[batch_of == b]) for b in range(count)]


def _tame(problem: Reconstruction, term: DataTerm) -> DataTerm:
    """The data term with residuals that a mini-batch can follow from any start."""
    if term.loss in ("ml", "ml_shifted") and _mean_count(problem) < 1:
        return term.with_loss("ml_shifted", problem.params["ml_shift"])
    return term.with_loss("lsq_sqrt")


def _mean_count(problem: Reconstruction) -> float:
    """Counts per pixel that the bare probe predicts."""
    probe, spec = problem.x["probe"], problem.spec
    power = trees.dot(probe, probe) / (len(probe) * probe.shape[1])
    return power * spec.wave_gain / spec.grid.size


class _Gradients:
    """What each mini-batch of the sweep before said, shared out between processes."""

    def __init__(self, communicator: Ranks) -> None:
        self._shards = Shards(communicator)
        self._found: list[Tree] = []
        self._order: np.ndarray | None = None
        self._mean: Tree = {}

    def correct(self, groups: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
        """From now on gradients are corrected; the same mini-batches in another order."""
        self._order = rng.permutation(len(groups))
        total = trees.zeros_like(self._found[0])
        for g in self._found:
            trees.add_into(total, g)
        self._mean = trees.scale(1 / len(groups), total)
        return [groups[b] for b in self._order]

    def __call__(self, place: int, g: Tree) -> Tree:
        """The gradient to step along, from that of the mini-batch at a place of the sweep."""
        part = self._shards.part(g)
        if self._order is None:
            if place == 0:
                self._found = []
            self._found.append(part)
            return g
        b = self._order[place]
        change = trees.sub(part, self._found[b])
        corrected = trees.axpy(1.0, change, self._mean)
        self._mean = trees.axpy(1 / len(self._order), change, self._mean)
        return self._shards.whole(corrected)


def _sweep(
    problem: Reconstruction,
    objective: Objective,
    term: DataTerm,
    start: tuple[Tree, list[np.ndarray], dict[str, float]],
    known: _Gradients | None,
) -> tuple[Tree, list[float]]:
    """Variables after one step per mini-batch, and the losses before them, per measurement."""
    x, groups, steps = start
    x, u = objective.enter(x)
    losses = []
    for place, group in enumerate(groups):
        batches = batching.distribute(
            group, problem.place, problem.batch_size, problem.executor.workers
        )
        local = objective.on(term.replace(1.0, batches), objective.to_model(u))
        point = local.fun(u)
        losses.append(point.value / len(group))
        g = point.g if known is None else known(place, point.g)
        d = local.initial_hessian(floor=CAREFUL_FLOOR)(g)
        u = {k: trees.axpy(-steps[k], {k: d[k]}, u)[k] for k in u}
    x, _ = objective.enter(objective.to_model(u))
    return x, losses
