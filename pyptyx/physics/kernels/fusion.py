"""Which models the fused evaluators know, and batches they can read without looking."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from pyptyx.errors import Problem, ShapeError
from pyptyx.physics.model import ModelSpec


def objections(
    spec: ModelSpec,
    loss: str,
    variables: Mapping[str, Any],
    *,
    losses: Collection[str],
    transforms: Callable[[int], bool],
) -> dict[str, bool]:
    """What a fused evaluator may not find in a model, in words, and whether it is there.

    Parameters
    ----------
    spec : ModelSpec
    loss : str
        A key of `pyptyx.physics.kernels.reference.LOSSES`.
    variables : mapping
        The variables of the model; only their names and shapes count.
    losses : collection of str
        The losses it knows.
    transforms : callable
        Whether it can transform so many points.
    """
    return {
        "the detector is in the near field": spec.near_field is not None,
        "the patterns are binned": spec.geometry.upsample != 1,
        "virtual detectors are compared, not patterns": spec.masks is not None,
        "the beam is tilted": spec.tilt.before or spec.tilt.after,
        "every measurement has a tilt of its own": spec.tilt.inside
        and len(variables["tilts"]) != 1,
        "the probe has local aberrations": spec.num_aberrations > 0,
        "phase plates multiply the probe": spec.plates,
        "every window of the object is band-limited": spec.patch_band_limit,
        f"the loss {loss!r} is not one of {', '.join(losses)}": loss not in losses,
        "a side of the window has a prime factor above 7, or is too long": not all(
            transforms(n) for n in spec.grid.shape
        ),
        "the object has several modes": len(variables["object"]) != 1,
        "the probe has several scenarios": len(variables["probe"]) != 1,
    }


def current_factor(current: np.ndarray, weight: float) -> np.ndarray:
    """What makes the gradient of the current of ``Σ l'(I) (I - b)``; 0 where there is no current.

    Both the intensity of the waves and this sum have a factor of current².
    """
    return np.divide(2 * weight, current, out=np.zeros(len(current)), where=current != 0)


def check_batch(
    spec: ModelSpec, extent: tuple[int, int], corners: np.ndarray, data_shape: tuple[int, ...]
) -> None:
    """Raise `ShapeError` unless all windows lie in the object and each has a pattern.

    Kernels would read and write elsewhere.
    """
    problems, window = [], spec.grid.shape
    if (corners < 0).any() or (corners + window > extent).any():
        inside = f"windows of {window} pixels inside the object of {extent}"
        problems.append(Problem("positions", inside, "one that sticks out", "Pad the object."))
    expected = (len(corners), *spec.data_shape)
    if data_shape != expected:
        problems.append(Problem("data", f"the shape {expected}", f"{data_shape}"))
    if problems:
        raise ShapeError(problems)
