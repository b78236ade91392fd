"""Small problems for the pencil kernels, and their answer in double precision by the stages."""

from dataclasses import dataclass, field

import numpy as np

from pyptyx.backend import Backend
from pyptyx.physics.detector import DetectorGeometry
from pyptyx.physics.grid import Grid
from pyptyx.physics.kernels.cuda import PencilEvaluator
from pyptyx.physics.kernels.reference import Loss
from pyptyx.physics.model import Batch, ForwardModel, ModelSpec
from pyptyx.physics.tilt import TiltPlan

ON_DEVICE = {"object": np.complex64, "probe": np.complex64, "background": np.float32}
"""Variables on the device and their types there."""


@dataclass
class Case:
    """One problem; every axis of its arrays has another length."""

    shape: tuple[int, int] = (20, 24)
    slices: int = 2
    modes: int = 3
    shift: bool = True
    loss: str = "lsq_sqrt"
    floor: float = 0.0
    patterns: int = 7
    cutoff: float = 2 / 3
    dose: float = 1.0
    weight: float = 0.7
    crop: tuple[int, int] = (0, 0)
    behind: tuple[str, ...] = ()
    tilt: bool = False
    variables: dict = field(init=False)
    data: np.ndarray = field(init=False)

    def __post_init__(self):
        rng = np.random.default_rng(5)
        ny, nx = self.shape
        obj = 1 + 0.1 * rng.normal(size=(1, self.slices, ny + 9, nx + 11))
        obj = obj * np.exp(0.5j * rng.normal(size=obj.shape))
        probe = rng.normal(size=(1, self.modes, ny, nx, 2)) @ (1, 1j) * 0.3 * np.sqrt(self.dose)
        positions = rng.uniform(0.6, (8.4, 10.4), (self.patterns, 2))
        self.variables = {
            "object": obj.astype(np.complex64).astype(complex),
            "probe": probe.astype(np.complex64).astype(complex),
            "positions": positions,
        }
        if "background" in self.behind:
            root = rng.normal(size=self.spec().data_shape) * np.sqrt(self.dose)
            self.variables["background"] = root.astype(np.float32).astype(float)
        if "current" in self.behind:
            self.variables["current"] = rng.normal(size=self.patterns)
            self.variables["current"][2] = 0
        if self.tilt:
            self.variables["tilts"] = rng.normal(scale=0.02, size=(1, 6))
        model = self.model()
        intensity = model.forward(model.prepare(self.variables), self.batch())[0]
        spread = rng.uniform(0.5, 1.5, intensity.shape)
        # Beyond the band limit the model is dark but the data are not.
        self.data = rng.poisson(intensity * spread + 0.5).astype(np.float32)

    def spec(self, dtype=np.complex64):
        gaps = tuple(5.0 + 2 * z for z in range(self.slices - 1))
        grid = Grid(self.shape, (0.2, 0.17), 0.025, self.cutoff)
        geometry = DetectorGeometry(self.crop)
        tilt = TiltPlan(inside=self.tilt)
        return ModelSpec(grid, gaps, tilt, shift=self.shift, geometry=geometry, dtype=dtype)

    def model(self):
        return ForwardModel(self.spec(np.complex128), Backend())

    def batch(self, indices=None):
        indices = np.arange(self.patterns) if indices is None else np.asarray(indices)
        return Batch(indices, np.rint(self.variables["positions"][indices]).astype(int))

    def expected(self, wanted=("object", "probe", "positions")):
        """Loss and sse per pattern, and the gradients of the variables."""
        model = self.model()
        state = model.prepare(self.variables)
        acc = {k: np.zeros_like(state[k]) for k in wanted}
        value, sse = model.loss_and_gradient(
            state,
            self.batch(),
            self.data.astype(float),
            Loss(self.loss, self.floor),
            self.weight,
            acc,
        )
        return value, sse, model.finish(acc)

    def evaluator(self, backend, **options):
        return PencilEvaluator(self.spec(), Loss(self.loss, self.floor), backend, **options)

    def state(self, backend):
        """The effective state as the evaluator takes it."""
        state = self.model().prepare(self.variables)
        return {
            k: backend.asarray(v.astype(ON_DEVICE[k])) if k in ON_DEVICE else v
            for k, v in state.items()
        }

    def accumulators(self, backend, wanted=("object", "probe", "positions")):
        """Gradients that already hold something."""
        full = {k: np.full(self.variables[k].shape, _before(k)) for k in wanted}
        return {
            k: backend.asarray(a.astype(ON_DEVICE[k])) if k in ON_DEVICE else a
            for k, a in full.items()
        }

    def finished(self, acc, backend):
        """Gradients of the variables, on the host and without what was there before."""
        host = {k: backend.to_host(v) - _before(k) for k, v in acc.items()}
        return self.model().finish(host)


def _before(name):
    """What the accumulators hold."""
    return 1 + 2j if name in ("object", "probe") else 1.0


def relative(got, expected):
    """Distance in the Euclidean norm, relative to the expectation."""
    return np.linalg.norm(got - expected) / np.linalg.norm(expected)
