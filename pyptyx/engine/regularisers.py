"""Which regularisers an epoch has, from the values of its parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyptyx.engine.problem import Reconstruction
from pyptyx.terms.base import Term


def make_terms(
    problem: Reconstruction, values: Mapping[str, Any], active: Sequence[str]
) -> list[Term]:
    """The regularisers of an epoch in PyPty's order of contributions.

    Parameters
    ----------
    problem : Reconstruction
    values : mapping
        Schedulable parameters of the epoch.
    active : sequence of str
        Variables that are refined; terms on positions, tilts and probe count only while these are.

    Returns
    -------
    list of Term
    """
    del problem, values, active
    return []
