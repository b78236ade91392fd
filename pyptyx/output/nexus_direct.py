"""Results of direct methods in a NeXus file: every map as a plot, all else in a collection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import h5py
import numpy as np

from pyptyx.output import nexus_fields as nx
from pyptyx.output.maps import Map
from pyptyx.output.nexus_params import write_parameters


@dataclass
class DirectContent:
    """What one direct method leaves in the file.

    Attributes
    ----------
    name : str
        Of its folder.
    maps : sequence of Map
    others : dict of ndarray or str
        What is no map, by name.
    document : dict or None
        The parameters as JSON types, None if they are not known.
    parameter_arrays : dict of ndarray
        The arrays `document` refers to.
    """

    name: str
    maps: Sequence[Map]
    others: Mapping[str, np.ndarray | str]
    document: Mapping[str, Any] | None = None
    parameter_arrays: Mapping[str, np.ndarray] = field(default_factory=dict)


def write_direct(entry: h5py.Group, contents: Sequence[DirectContent]) -> None:
    """Write maps as NXdata groups of the entry, all else below ``direct``.

    Parameters
    ----------
    entry : h5py.Group
    contents : sequence of DirectContent
    """
    collection = nx.group(entry, "direct", "NXcollection")
    for content in contents:
        for one in content.maps:
            _write_map(entry, one)
        group = nx.group(collection, content.name, "NXcollection")
        for name, value in content.others.items():
            if isinstance(value, str):
                group[name] = value
            else:
                nx.write_array(group, name, np.asarray(value))
        if content.document is not None:
            write_parameters(group, content.document, content.parameter_arrays)


def _write_map(entry: h5py.Group, one: Map) -> None:
    signal, *auxiliary = one.signals
    group = nx.plot(entry, one.name, signal, auxiliary, [axis.name for axis in one.axes])
    for axis in one.axes:
        nx.field(group, axis.name, axis.values, axis.unit)
    for name, values in one.signals.items():
        dataset = nx.write_array(group, name, np.asarray(values))
        if name in one.units:
            dataset.attrs["units"] = one.units[name]
