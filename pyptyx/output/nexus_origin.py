"""Where the results of a NeXus file come from: sample, measured data, programs and machines."""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from pyptyx.output import nexus_fields as nx


@dataclass(frozen=True)
class Sample:
    """What was looked at.

    Attributes
    ----------
    name, chemical_formula : str
        Empty if not known.
    preparation_date : str
        ISO 8601 with time zone.
    description : str
        What a reader has to know about the other entries.
    is_simulation : bool
    thickness_A : float or None
    """

    name: str
    chemical_formula: str
    preparation_date: str
    description: str = ""
    is_simulation: bool = False
    thickness_A: float | None = None

    @property
    def atom_types(self) -> str:
        """Symbols of the elements in the order of the formula, separated by commas."""
        return ", ".join(dict.fromkeys(re.findall(r"[A-Z][a-z]?", self.chemical_formula)))


@dataclass(frozen=True)
class DataFile:
    """The file of the measured patterns.

    Attributes
    ----------
    name : str
    checksum : str
        Hexadecimal; empty if it was not computed.
    algorithm : str
        Of the checksum.
    """

    name: str
    checksum: str = ""
    algorithm: str = ""


def write_sample(entry: h5py.Group, sample: Sample) -> None:
    """Write ``sampleID``, the name the validators want, and the link ``sample``, PyPty's name."""
    group = nx.group(entry, "sampleID", "NXsample")
    group["is_simulation"] = np.bool_(sample.is_simulation)
    group["preparation_date"] = sample.preparation_date
    group["atom_types"] = sample.atom_types
    for name in ("name", "chemical_formula", "description"):
        if getattr(sample, name):
            group[name] = getattr(sample, name)
    if sample.thickness_A is not None:
        nx.field(group, "thickness", sample.thickness_A, "angstrom")
    entry["sample"] = group


def write_data_file(entry: h5py.Group, data: DataFile) -> None:
    """Write ``note_data``: name, type and checksum of the data."""
    group = nx.group(entry, "note_data", "NXnote")
    group["type"] = mimetypes.guess_type(data.name)[0] or "application/octet-stream"
    group["file_name"] = data.name
    if data.checksum:
        group["checksum"] = data.checksum
        group["algorithm"] = data.algorithm


def write_provenance(
    entry: h5py.Group, sessions: Sequence[Mapping[str, Any]], exporter: Mapping[str, Any]
) -> None:
    """Write the sessions that made the results, and the one that writes the file.

    `pyptyx.output.provenance` says what is in them.
    """
    group = nx.group(entry, "provenance", "NXcollection")
    for index, session in enumerate(sessions):
        _write_tree(group, f"session_{index}", session)
    _write_tree(group, "export", exporter)


def _write_tree(parent: h5py.Group, name: str, tree: Mapping[str, Any]) -> None:
    group = nx.group(parent, name, "NXcollection")
    for key, value in tree.items():
        if isinstance(value, Mapping):
            _write_tree(group, nx.legal_name(key), value)
        elif value is not None and value != []:
            group[nx.legal_name(key)] = value
