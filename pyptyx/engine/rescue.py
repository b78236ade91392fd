"""Help for a run that got stuck, with PyPty's thresholds, and what counts as having failed.

After epochs in a row whose step was rejected, the variables that are hardest to refine are held
for a while, the most delicate first, so that the others can move on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

FREEZE_AFTER = {"positions": 2, "tilts": 3, "background": 4, "aberrations": 5, "probe": 6}
"""Variable -> rejected epochs in a row after which it is held."""

FROZEN_EPOCHS = 10
"""Epochs for which a variable is held, counted from the last rejection."""

RETRIES = 3
"""Shorter steps that are tried when an epoch ends in NaN or with an exploded loss."""

_STALLED_AFTER = 2
"""Consecutive steepest-descent searches without success that end a run."""

_EXPLODED = 1e3
"""Multiple of the best loss that counts as an explosion."""


class Rescue:
    """Counts rejected epochs and says which variables are to be held."""

    def __init__(self) -> None:
        self._failures = 0
        self._fresh_failures = 0
        self._until: dict[str, int] = {}

    def frozen(self, epoch: int, wanted: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
        """Variables to hold in an epoch.

        Parameters
        ----------
        epoch : int
        wanted : sequence of str
            Variables that the parameters switch on.  The last one of them is never held.

        Returns
        -------
        frozen : tuple of str
        messages : list of str
            What was newly decided.
        """
        messages = []
        for name, threshold in FREEZE_AFTER.items():
            held = name in wanted and self._is_held(name, epoch)
            if self._failures >= threshold and (held or name in self._candidates(epoch, wanted)):
                if not held:
                    messages.append(
                        f"{self._failures} steps rejected in a row: {name} held for "
                        f"{FROZEN_EPOCHS} epochs"
                    )
                self._until[name] = epoch + FROZEN_EPOCHS
        return tuple(n for n in wanted if self._is_held(n, epoch)), messages

    def observe(self, epoch: int, active: Sequence[str], accepted: bool, fresh: bool) -> None:
        """Count the outcome of an epoch.

        Parameters
        ----------
        epoch : int
        active : sequence of str
            Variables that were refined.
        accepted : bool
            Whether the step was taken.
        fresh : bool
            The direction was the steepest descent: the same search would fail again.
        """
        if accepted or not active:
            self._failures = self._fresh_failures = 0
            return
        self._failures += 1
        self._fresh_failures = self._fresh_failures + 1 if fresh else 0
        thresholds = [FREEZE_AFTER[n] for n in self._candidates(epoch, active)]
        if self._fresh_failures >= _STALLED_AFTER and thresholds:
            # A threshold without a variable would only repeat a search that cannot succeed.
            self._failures = max(self._failures, min(thresholds))

    def is_stalled(self, epoch: int, active: Sequence[str]) -> bool:
        """Whether the steepest descent fails and nothing is left that could be held."""
        stuck = self._fresh_failures >= _STALLED_AFTER
        return stuck and not self._candidates(epoch, active)

    def state(self) -> dict[str, Any]:
        """Counters and held variables, as plain values."""
        return {
            "failures": self._failures,
            "fresh_failures": self._fresh_failures,
            "until": dict(self._until),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned; an empty mapping is the beginning."""
        self._failures = state.get("failures", 0)
        self._fresh_failures = state.get("fresh_failures", 0)
        self._until = dict(state.get("until", {}))

    def _is_held(self, name: str, epoch: int) -> bool:
        return epoch < self._until.get(name, epoch)

    def _candidates(self, epoch: int, names: Sequence[str]) -> list[str]:
        """Variables among `names` that could be held, in order; never the last free one."""
        free = [n for n in names if not self._is_held(n, epoch)]
        return [n for n in FREEZE_AFTER if n in free] if len(free) > 1 else []


def has_exploded(value: float, best: float) -> bool:
    """Whether a loss is above 1000 times the best one (or as far above a negative best one)."""
    return best != 0 and value - best > (_EXPLODED - 1) * abs(best)


def explosion(epoch: int, before: Mapping[str, float], after: Mapping[str, float]) -> str:
    """What to say about an exploded loss, given the terms before and after the constraints."""
    worst = max(after, key=lambda term: after[term] - before.get(term, 0.0))
    return (
        f"epoch {epoch}: the term '{worst}' exploded from {before.get(worst, 0.0):.3g} to "
        f"{after[worst]:.3g} when the constraints were applied after the step. Weaken them, or "
        "apply them in fewer epochs"
    )
