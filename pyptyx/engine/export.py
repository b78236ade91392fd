"""An output folder as one NeXus file, and parameters back from such a file."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from pyptyx.engine import export_folder
from pyptyx.engine.export_direct import DirectResults
from pyptyx.engine.export_results import PathLike, Results, open_results
from pyptyx.engine.start import beam_wavelength_A
from pyptyx.errors import DataError, ParamError, Problem
from pyptyx.output import provenance
from pyptyx.output.nexus import Content, write_nexus
from pyptyx.output.nexus_direct import DirectContent
from pyptyx.output.nexus_origin import DataFile, Sample
from pyptyx.output.nexus_params import read_parameters, read_pypty_parameters
from pyptyx.output.nexus_run import RunContent
from pyptyx.params.codec import from_json, plain, restore_tables, to_json
from pyptyx.params.kinds import Mismatch
from pyptyx.params.row import Row
from pyptyx.params.schema import ACCEPTED_IN_RUN, EXPERIMENT

logger = logging.getLogger(__name__)

_MISSING = "auto"
"""What PyPty writes for None, NaN and empty text."""

_NO_DATE = "preparation_date is not known; the time given is that of the reconstruction."


def convert_to_nxs(
    folder_path: PathLike, output_file: PathLike, flip_y: bool = False, checksum: bool = True
) -> Path:
    """Write an output folder as one NeXus file.

    Phase, amplitude, probe and the images of direct methods can be looked at in any NeXus viewer;
    all arrays, the loss log and the parameters are in the file without loss.
    `pyptyx.output.nexus` describes the layout, which is that of ``NXem``.

    Parameters
    ----------
    folder_path : path
        Of a run, with ``co.npy``, ``cp.npy``, ``cg.npy`` and the parameters; or of direct methods.
    output_file : path
        The file to write, by custom with the ending ``.nxs``.
    flip_y : bool
        Write the rows of object and probe from the last to the first, as PyPty does; the
        coordinates go with them.
    checksum : bool
        Read the measured data once more, if they are still what the run has read, for their
        checksum.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    DataError
        With one problem for each file that is missing or damaged.
    ParamError
        If the parameters do not fit the arrays.
    OutputError
        If the file cannot be written.
    """
    target, results = Path(output_file), open_results(folder_path)
    params, known = results.params, results.known
    start, end = export_folder.time_span(results.newest, results.loss)
    parameter_arrays: dict[str, np.ndarray] = {}
    sessions = provenance.sessions(results.newest.parent)
    newest = sessions[-1] if sessions else {}
    ours = bool(sessions) or (results.folder / "params.json").is_file()
    content = Content(
        title=str(params.get("sample_name") or results.folder.resolve().name),
        start_time=start.isoformat(timespec="seconds"),
        end_time=end.isoformat(timespec="seconds"),
        sample=_sample(params, start),
        program="pyptyx" if ours else "PyPty",
        version=newest.get("version", ""),
        document=to_json(plain(params, epochs=0), parameter_arrays),
        parameter_arrays=parameter_arrays,
        exporter=provenance.software(),
        run=_run_content(results, flip_y) if results.arrays else None,
        direct=[_direct_content(one) for one in results.direct],
        data_file=_data_file(newest.get("data"), params, checksum),
        sessions=sessions,
        energy_eV=known["acc_voltage"] and 1e3 * known["acc_voltage"],
        wavelength_A=_wavelength_A(known),
    )
    write_nexus(target, content)
    logger.info("wrote %s", target)
    return target


def load_nexus_params(path: PathLike) -> dict[str, Any]:
    """Parameters from a NeXus file of pyptyx or of PyPty.

    A file of pyptyx gives back exactly what `load_params` gives for the folder it was made from.
    In a file of PyPty types have been lost; each value becomes what its key takes, and what PyPty
    writes for None, NaN and empty text is None or left out.  Text is never evaluated.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    dict

    Raises
    ------
    DataError
        If the file is missing, damaged or holds no parameters.
    """
    path = Path(path)
    written_by_us = read_parameters(path)
    if written_by_us is None:
        return _from_pypty(read_pypty_parameters(path))
    document, arrays = written_by_us
    params = from_json(document, arrays)
    if not isinstance(params, dict):
        raise DataError(Problem(str(path), "a table of parameters", type(params).__name__))
    return restore_tables(params)


def _sample(params: Mapping[str, Any], start: datetime) -> Sample:
    given = params.get("preparation_date")
    thickness = params.get("total_thickness")
    if not given:
        logger.warning("%s Give preparation_date in the experiment.", _NO_DATE)
    return Sample(
        name=str(params.get("sample_name") or ""),
        chemical_formula=str(params.get("chemical_formula") or ""),
        preparation_date=_date(str(given)) if given else start.isoformat(timespec="seconds"),
        description="" if given else _NO_DATE,
        is_simulation=bool(params.get("is_simulation")),
        # The default is there for the propagation of a single slice; nobody has measured it.
        thickness_A=None
        if thickness in (None, EXPERIMENT["total_thickness"].default)
        else float(thickness),
    )


def _date(text: str) -> str:
    """A date with time and zone; the zone is that of this machine if none is given."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        expected = "a date as 2026-03-01 or 2026-03-01T14:30:00+01:00"
        raise ParamError(Problem("preparation_date", expected, repr(text))) from error
    return (found if found.tzinfo else found.astimezone()).isoformat(timespec="seconds")


def _run_content(results: Results, flip_y: bool) -> RunContent:
    return RunContent(
        arrays=results.arrays,
        pixel_A=results.pixel_A,
        depths_A=np.cumsum([0.0, *results.gaps_A]).tolist(),
        numbered=export_folder.numbered_arrays(results.folder),
        loss=results.loss,
        flip_y=flip_y,
    )


def _direct_content(results: DirectResults) -> DirectContent:
    arrays: dict[str, np.ndarray] = {}
    document = to_json(plain(results.params, epochs=0), arrays)
    return DirectContent(results.folder.name, results.maps, results.others, document, arrays)


def _data_file(
    recorded: Mapping[str, Any] | None, params: Mapping[str, Any], checksum: bool
) -> DataFile | None:
    """Name of the measured data, with a checksum if they are what they were during the run."""
    given = recorded["path"] if recorded else params.get("data_path")
    if not given:
        return None
    path = Path(given)
    if not checksum:
        return DataFile(path.name)
    if not path.is_file() or (recorded and not provenance.is_unchanged(recorded)):
        logger.warning("%s is not what the run has read: exported without a checksum", path)
        return DataFile(path.name)
    return DataFile(path.name, provenance.checksum(path), provenance.ALGORITHM)


def _wavelength_A(known: Mapping[str, Any]) -> float | None:
    return beam_wavelength_A(known) if known["acc_voltage"] or known["wavelength_A"] else None


def _from_pypty(found: Mapping[str, Any]) -> dict[str, Any]:
    """What PyPty stored, in the types its keys take."""
    params: dict[str, Any] = {}
    for key, value in found.items():
        row = ACCEPTED_IN_RUN.get(key)
        missing = isinstance(value, str) and value == _MISSING
        if not missing or (row is not None and value in row.choices):
            params[key] = _fitting(row, value)
        elif row is None or (row.accepts_none and row.default != ""):
            params[key] = None  # where empty text is the default, that is what it was
    return params


def _fitting(row: Row | None, value: Any) -> Any:
    """The value, or the only element of an array, or the number in a text: what the row takes."""
    candidates = [value]
    if isinstance(value, np.ndarray) and value.size == 1:
        candidates.append(value.item())
    if isinstance(value, str):
        candidates.extend(_number_in(value))
    if row is None:
        return candidates[-1] if isinstance(value, np.ndarray) else value
    for candidate in candidates:
        try:
            row.convert(candidate)
        except (Mismatch, ParamError):
            continue
        return candidate
    return value


def _number_in(text: str) -> Iterator[int | float]:
    for kind in (int, float):
        try:
            yield kind(text)
        except ValueError:
            continue
