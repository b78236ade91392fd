"""A whole problem at a random point: every variable in the tree, every axis of another length."""

import numpy as np

from pyptyx.executors import SerialExecutor
from pyptyx.physics.detector import DetectorGeometry
from pyptyx.physics.grid import Grid
from pyptyx.physics.model import ModelSpec
from pyptyx.physics.tilt import TiltPlan
from pyptyx.terms.data_term import DataTerm, ScanTable
from tests.gradients.checks import normal

MEASUREMENTS, MODES, OBJECT_MODES, SCENARIOS, COEFFICIENTS = 5, 2, 3, 4, 7
STEPS = {
    "object": 1.0,
    "probe": 1.0,
    "positions": 1.0,
    "tilts": 2e-3,
    "background": 1.0,
    "current": 1.0,
    "aberrations": 10.0,
}
"""Length of a direction's entries for which the model is well inside its quadratic range."""


def spec_for(
    window=(13, 18),
    slices=2,
    tilt_mode=None,
    shift=True,
    aberrations=False,
    plates=False,
    geometry=DetectorGeometry(),  # noqa: B008 - frozen
    patch=False,
):
    """A `ModelSpec` in double precision with pixels that are not square."""
    return ModelSpec(
        grid=Grid(window, (0.31, 0.24), 0.025, 0.8),
        distances_A=(20.0, 35.0, 12.0)[: slices - 1],
        tilt=TiltPlan() if tilt_mode is None else TiltPlan.from_mode(tilt_mode),
        shift=shift,
        num_aberrations=COEFFICIENTS if aberrations else 0,
        plates=plates,
        geometry=geometry,
        patch_band_limit=patch,
        dtype=np.complex128,
    )


def variables(spec, rng, *, scenario=False, background=False, current=False, common_tilt=False):
    """Random variables that `spec` has a place for."""
    ny, nx = spec.grid.shape
    x = {
        "object": normal(rng, OBJECT_MODES, len(spec.distances_A) + 1, ny + 18, nx + 19),
        "probe": normal(rng, SCENARIOS if scenario else 1, MODES, ny, nx),
        "positions": rng.integers(0, 18, (MEASUREMENTS, 2))
        + rng.uniform(-0.4, 0.4, (MEASUREMENTS, 2)),
    }
    x["positions"] = np.abs(x["positions"])
    if spec.tilt != TiltPlan():
        x["tilts"] = 3e-3 * normal(rng, 1 if common_tilt else MEASUREMENTS, 6, real=True)
    if background:
        x["background"] = 3 + rng.random(spec.geometry.data_shape((ny, nx)))
    if current:
        x["current"] = rng.uniform(0.5, 1.5, MEASUREMENTS) * [1, -1, 1, 1, -1]
    if spec.num_aberrations:
        x["aberrations"] = 2 * normal(rng, 3, COEFFICIENTS, real=True)
    return x


def scan_for(spec, x, rng):
    """The table of the measurements; two of them share a row of every table."""
    plates = np.exp(1j * normal(rng, MEASUREMENTS, *spec.grid.shape, real=True))
    return ScanTable(
        np.rint(x["positions"]).astype(int),
        np.array([3, 0, 1, 0, 2]) if len(x["probe"]) > 1 else None,
        np.array([2, 2, 1, 0, 2]) if "aberrations" in x else None,
        plates.__getitem__ if spec.plates else None,
    )


def data_term(spec, x, rng, *, loss="lsq_sqrt", weight=0.7, batch=2, executor=None):
    """The data term over data of the model's magnitude with noise and some zeros."""
    scan = scan_for(spec, x, rng)
    batches = np.array_split(np.arange(MEASUREMENTS), -(-MEASUREMENTS // batch))
    shape = (MEASUREMENTS, *spec.data_shape)
    factors = rng.exponential(1.0, shape) * (rng.random(shape) > 0.1)
    data = np.zeros(shape)

    def make():
        return DataTerm(
            spec, scan, data.__getitem__, loss=loss, weight=weight,
            executor=executor or SerialExecutor(), batches=batches,
        )  # fmt: skip

    data[:] = factors * make().simulate(x).mean()
    return make()


def direction(name, x, rng):
    """A random direction for one variable."""
    a = x[name]
    return normal(rng, *a.shape, real=a.dtype.kind == "f") * STEPS[name]
