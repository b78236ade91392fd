"""One NeXus file for everything a run leaves behind, in the structure of ``NXem``.

Every section of it is one function of this module or of its neighbours.

::

    / @default=entry
    entry:NXentry @default=transmission
      definition="NXem" title start_time end_time
      sampleID:NXsample               is_simulation preparation_date atom_types name thickness
      note_data:NXnote                file_name checksum algorithm of the measured data
      transmission:NXdata             phase amplitude (mode, z, y, x) float32
      probe:NXdata                    intensity phase (mode[, scenario], y, x) float32
      scan:NXdata                     positions (N, 2) in Å, top-left corners of the windows
      loss:NXdata                     the columns of loss.csv over the epoch
      direct_..., wdd, dpc_..., tcbf_...:NXdata     results of direct methods
      instrument:NXinstrument         beam, source; probe/data and scan/positions are links
      reconstruction:NXprocess        program version date
        parameters:NXnote             the parameters as JSON
        arrays:NXcollection           the arrays the JSON refers to
        values:NXcollection           the same parameters as typed datasets, to look at
      checkpoint:NXcollection         every saved array; obj and probe with the image axes last
      direct:NXcollection             all that is no image: waves, coefficients, parameters
      provenance:NXcollection         programs, machines and data of every session
      object:NXcollection             data: link to checkpoint/obj
      sample                          link to sampleID

``entry/object/data``, ``entry/instrument/probe/data``, ``entry/instrument/scan/positions`` and
``entry/sample`` are where PyPty keeps object, probe, positions and sample.  Complex arrays have no
place in an NXdata group, which is why the plot of the object has another name.  ``y`` points down,
unless the rows were asked to be flipped as in PyPty; coordinates are written beside the pixels, so
both say the same.  NeXus is that of Könnecke et al., J. Appl. Cryst. 48, 301 (2015).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pyptyx import __version__
from pyptyx.files import replacing
from pyptyx.output import nexus_fields as nx
from pyptyx.output.nexus_direct import DirectContent, write_direct
from pyptyx.output.nexus_origin import (
    DataFile,
    Sample,
    write_data_file,
    write_provenance,
    write_sample,
)
from pyptyx.output.nexus_params import write_parameters
from pyptyx.output.nexus_run import PLOT, RunContent, write_run

DEFINITION = "NXem"
DEFINITION_VERSION = "v2026.01"
"""Of the NeXus definitions the structure was checked against."""


@dataclass
class Content:
    """What goes into a file.

    Attributes
    ----------
    title : str
    start_time, end_time : str
        ISO 8601 with time zone.
    sample : Sample
    program, version : str
        What computed the results; the version may be empty.
    document : dict
        The parameters as JSON types.
    parameter_arrays : dict of ndarray
        The arrays `document` refers to.
    exporter : dict
        Session that writes the file; see `pyptyx.output.provenance`.
    run : RunContent or None
    direct : sequence of DirectContent
        Results of direct methods; there is a run or one of them with a map.
    data_file : DataFile or None
    sessions : sequence of dict
        Those that made the results, oldest first.
    energy_eV : float or None
        Of the electrons; None if the beam is of another kind.
    wavelength_A : float or None
    """

    title: str
    start_time: str
    end_time: str
    sample: Sample
    program: str
    version: str
    document: Mapping[str, Any]
    parameter_arrays: Mapping[str, np.ndarray]
    exporter: Mapping[str, Any]
    run: RunContent | None = None
    direct: Sequence[DirectContent] = ()
    data_file: DataFile | None = None
    sessions: Sequence[Mapping[str, Any]] = ()
    energy_eV: float | None = None
    wavelength_A: float | None = None

    @property
    def default_plot(self) -> str:
        """Name of the group a viewer opens."""
        if self.run:
            return PLOT
        return next(one.name for content in self.direct for one in content.maps)


def write_nexus(target: Path, content: Content) -> None:
    """Write the file, complete or not at all.

    Parameters
    ----------
    target : Path
    content : Content

    Raises
    ------
    OutputError
        If the file cannot be written; an older file stays as it was.
    """
    with replacing(target) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update(
            NX_class="NXroot",
            default="entry",
            creator=f"pyptyx {__version__}",
            file_name=target.name,
            file_time=content.exporter["time"],
        )
        entry = nx.group(file, "entry", "NXentry")
        entry.attrs["default"] = content.default_plot
        if content.energy_eV or not content.wavelength_A:
            entry["definition"] = DEFINITION
            entry["definition"].attrs["version"] = DEFINITION_VERSION
        for name in ("title", "start_time", "end_time"):
            entry[name] = getattr(content, name)
        write_sample(entry, content.sample)
        if content.data_file:
            write_data_file(entry, content.data_file)
        _write_instrument(entry, content)
        if content.run:
            write_run(entry, content.run)
        if content.direct:
            write_direct(entry, content.direct)
        _write_reconstruction(entry, content)
        write_provenance(entry, content.sessions, content.exporter)


def _write_instrument(entry: h5py.Group, content: Content) -> None:
    group = nx.group(entry, "instrument", "NXinstrument")
    beam = nx.group(group, "beam", "NXbeam")
    if content.energy_eV:
        source = nx.group(group, "source", "NXsource")
        source["probe"] = "electron"
        nx.field(source, "voltage", content.energy_eV, "V")
        nx.field(beam, "incident_energy", content.energy_eV, "eV")
    if content.wavelength_A:
        nx.field(beam, "incident_wavelength", content.wavelength_A, "angstrom")


def _write_reconstruction(entry: h5py.Group, content: Content) -> None:
    group = nx.group(entry, "reconstruction", "NXprocess")
    group["program"] = content.program
    if content.version:
        group["version"] = content.version
    group["date"] = content.end_time
    group["sequence_index"] = 1
    write_parameters(group, content.document, content.parameter_arrays)
