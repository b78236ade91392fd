"""A measured file before the first reconstruction: what it holds, says, and does not say."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pyptyx.data.base import PatternSource
from pyptyx.data.formats.base import Found, Request
from pyptyx.data.formats.registry import open_path
from pyptyx.data.source import existing_file

PARAMETER_KEYS = (
    "acc_voltage",
    "wavelength_A",
    "scan_size",
    "scan_step_A",
    "fov_nm",
    "transform_axis_matrix",
    "rez_pixel_size_mrad",
    "rez_pixel_size_A",
    "conv_semiangle_mrad",
    "defocus",
)
"""Keys of the experiment that are filled from files; everything else found is for the reader.

A rotation is not among them: files do not say between which axes and in which sense they count.
"""

NEEDED = (
    ("acc_voltage", ("acc_voltage", "wavelength_A"), "300    # kV"),
    ("scan_size", ("scan_size",), "[64, 64]    # rows, columns"),
    ("scan_step_A", ("scan_step_A", "fov_nm"), "0.5    # or fov_nm, or special_postions_A"),
    (
        "rez_pixel_size_mrad",
        ("rez_pixel_size_mrad", "rez_pixel_size_A", "conv_semiangle_mrad"),
        "1.0    # or rez_pixel_size_A in 1/Å, or conv_semiangle_mrad",
    ),
)
"""What an experiment needs: key to ask for, keys any of which will do, an example."""

ASSUMED = {
    "PLRotation_deg": "estimated from centres of mass or bright-field images",
    "defocus": "0 Å",
    "conv_semiangle_mrad": "the disc is found by a threshold",
}
"""What pyptyx does where neither the file nor the user says anything."""

_LOOKED_AT = 16
"""Patterns that a quick look reads, spread over the scan."""

_LOOK_BYTES = 256 << 20


@dataclass(frozen=True)
class DataFile:
    """A file of diffraction patterns, open for reading.  A context manager.

    Attributes
    ----------
    path : Path
        The file.
    format : str
        Name of its format.
    source : PatternSource
        The patterns, read lazily.
    dataset : str or None
        Data set inside the file.
    calibrations : tuple of Found
        What the file says, in our units, each with the place it comes from.
    chunks : tuple of int or None
        Storage chunks.
    compression : str
        Names of the storage filters; empty if there are none.
    notes : tuple of str
        What to know about this file.
    files : tuple of Path
        The files with the patterns, where they are others than `path`.
    """

    path: Path
    format: str
    source: PatternSource
    dataset: str | None
    calibrations: tuple[Found, ...]
    chunks: tuple[int, ...] | None
    compression: str
    notes: tuple[str, ...]
    files: tuple[Path, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """``(sy, sx, ky, kx)`` where the scan size is known, else ``(N, ky, kx)``."""
        return (*(self.scan_size or self.source.shape[:1]), *self.source.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        """The stored dtype."""
        return self.source.dtype

    @property
    def scan_size(self) -> tuple[int, int] | None:
        """Rows and columns of the scan, if the data or the metadata give ones that fit."""
        if self.source.scan_size is not None:
            return self.source.scan_size
        size = next((f.value for f in self.calibrations if f.key == "scan_size"), None)
        return size if size is not None and math.prod(size) == self.source.shape[0] else None

    @property
    def bytes_on_disk(self) -> int:
        """Bytes of the files with the patterns."""
        return sum(path.stat().st_size for path in self.files or (self.path,))

    @property
    def missing(self) -> tuple[str, ...]:
        """Keys that an experiment needs and this file does not give."""
        known = self._known()
        return tuple(key for key, any_of, _ in NEEDED if not any(k in known for k in any_of))

    def to_experiment(self) -> dict[str, Any]:
        """Experiment for `pyptyx.append_exp_params`; the keys of `missing` are to be added.

        Returns
        -------
        dict
            ``data_path``, ``h5_key`` where it was needed, and what the file says.
        """
        experiment: dict[str, Any] = {"data_path": str(self.path)}
        if self.dataset is not None:
            experiment["h5_key"] = self.dataset
        return experiment | self._known()

    def close(self) -> None:
        """Close the file."""
        self.source.close()

    def __enter__(self) -> DataFile:
        """Return the file itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()

    def _known(self) -> dict[str, Any]:
        known = {f.key: f.value for f in self.calibrations if f.key in PARAMETER_KEYS}
        known.pop("scan_size", None)
        if self.scan_size is not None:
            known["scan_size"] = self.scan_size
        if "scan_step_A" in known:
            known.pop("fov_nm", None)
        return known


def load_data(path: str | os.PathLike[str], dataset: str | None = None) -> DataFile:
    """Open a file of diffraction patterns of any known format, without reading the patterns.

    Parameters
    ----------
    path : path
        The file; `docs/howto/formats.md` lists the formats.
    dataset : str, optional
        Data set inside the file, where there are several.

    Returns
    -------
    DataFile
        Patterns, calibrations with the places they come from, and the keys still missing.

    Raises
    ------
    DataError
        If the file is missing, damaged, of no known format, needs a package that is not
        installed, or holds images, spectra or a single pattern.
    """
    file = existing_file(path)
    opened = open_path(Request(file, dataset))
    return DataFile(
        path=file,
        format=opened.format,
        source=opened.source,
        dataset=opened.key,
        calibrations=opened.found,
        chunks=opened.chunks,
        compression=opened.compression,
        notes=opened.notes,
        files=opened.files,
    )


@dataclass(frozen=True)
class Look:
    """Counts of a few patterns spread over the scan.

    Attributes
    ----------
    patterns : int
        How many were read.
    lowest, highest, mean : float
        Of all their finite pixels.
    dose : float
        Mean of the sums of a pattern.
    not_finite, negative : int
        Pixels that are NaN or infinite, and below zero, in all of them together.
    saturated : int
        Pixels at the largest count of the detector, in all of them together.
    always_zero : int
        Pixels that are zero in every one.
    centre : tuple of float or None
        Centre of mass ``(ky, kx)`` of their mean in px, where it has counts.
    """

    patterns: int
    lowest: float
    highest: float
    mean: float
    dose: float
    not_finite: int
    negative: int
    saturated: int
    always_zero: int
    centre: tuple[float, ...] | None


def quick_look(file: DataFile) -> Look:
    """Read a few patterns and describe their counts.

    Parameters
    ----------
    file : DataFile
        At most 16 patterns of it are read.  Its ``saturation_counts`` are the largest count;
        without them the largest value of the dtype is.

    Raises
    ------
    DataError
        If patterns cannot be read.
    """
    source = file.source
    pattern_bytes = math.prod(source.shape[1:]) * source.dtype.itemsize
    most = max(1, min(_LOOKED_AT, source.shape[0], _LOOK_BYTES // pattern_bytes))
    numbers = np.unique(np.linspace(0, source.shape[0] - 1, most).astype(int))
    patterns = source.read(numbers)
    finite = np.isfinite(patterns)
    values = np.where(finite, patterns, 0).astype(np.float64)
    full = next((f.value for f in file.calibrations if f.key == "saturation_counts"), None)
    if full is None:
        full = np.iinfo(source.dtype).max if source.dtype.kind in "iu" else np.inf
    total = values.sum(axis=0)
    counts = total.sum()
    centre = None
    if counts > 0:
        grid = np.indices(total.shape)
        centre = tuple(float((g * total).sum() / counts) for g in grid)
    return Look(
        patterns=len(numbers),
        lowest=float(values[finite].min()) if finite.any() else math.nan,
        highest=float(values[finite].max()) if finite.any() else math.nan,
        mean=float(values.sum() / max(1, finite.sum())),
        dose=float(counts / len(numbers)),
        not_finite=int((~finite).sum()),
        negative=int((values < 0).sum()),
        saturated=int((finite & (values >= full)).sum()),
        always_zero=int((total == 0).sum()),
        centre=centre,
    )


def as_dict(file: DataFile, look: Look) -> dict[str, Any]:
    """Everything `report` says, as values of JSON."""
    return {
        "path": str(file.path),
        "format": file.format,
        "dataset": file.dataset,
        "shape": list(file.shape),
        "dtype": file.dtype.name,
        "bytes_on_disk": file.bytes_on_disk,
        "bytes_in_memory": math.prod(file.source.shape) * file.dtype.itemsize,
        "chunks": None if file.chunks is None else list(file.chunks),
        "compression": file.compression,
        "calibrations": [vars(f) for f in file.calibrations],
        "missing": list(file.missing),
        "notes": list(file.notes),
        "look": vars(look),
        "experiment": file.to_experiment(),
    }


def report(file: DataFile, look: Look) -> str:
    """One screen about a file: shape, storage, calibrations, counts, and what to do next."""
    blocks = [_storage_lines(file), _calibration_lines(file), _count_lines(file, look)]
    if file.notes:
        blocks.append(["notes", *(f"  {note}" for note in file.notes)])
    blocks.append(_next_lines(file))
    return "\n\n".join("\n".join(block) for block in blocks)


def _storage_lines(file: DataFile) -> list[str]:
    size = math.prod(file.source.shape) * file.dtype.itemsize
    where = f", data set {file.dataset}" if file.dataset else ""
    layout = "contiguous" if file.chunks is None else f"chunks {file.chunks}"
    return [
        str(file.path),
        f"  format       {file.format}{where}",
        f"  shape        {file.shape}, {file.dtype.name}",
        f"  size         {_bytes(file.bytes_on_disk)} on disk, {_bytes(size)} in memory",
        f"  storage      {layout}, {file.compression or 'not compressed'}",
    ]


def _calibration_lines(file: DataFile) -> list[str]:
    if not file.calibrations:
        return ["calibrations: the file gives none"]
    lines = ["calibrations"]
    for entry in file.calibrations:
        value = f"{_value(entry.value)} {entry.unit}".strip()
        used = "" if entry.key in PARAMETER_KEYS else "  (for your information)"
        lines.append(f"  {entry.key:<20} {value:<18} {entry.where}{used}")
    return lines


def _count_lines(file: DataFile, look: Look) -> list[str]:
    lines = [
        f"counts of {look.patterns} patterns",
        f"  range        {look.lowest:.6g} to {look.highest:.6g}, mean {look.mean:.6g}",
        f"  dose         {look.dose:.6g} counts per pattern",
        f"  pixels       {look.saturated} saturated, {look.always_zero} always zero, "
        f"{look.negative} negative, {look.not_finite} not finite",
    ]
    if look.centre is not None:
        centre = ", ".join(f"{c:.1f}" for c in look.centre)
        middle = ", ".join(str(n // 2) for n in file.source.shape[1:])
        lines.append(f"  centre       ({centre}) px; zero frequency is expected at ({middle})")
    return lines


def _next_lines(file: DataFile) -> list[str]:
    known = file.to_experiment()
    lines = [f"missing: {', '.join(file.missing) or 'nothing'}"]
    assumed = [f"{key} ({words})" for key, words in ASSUMED.items() if key not in known]
    if assumed:
        lines.append(f"assumed if not given: {', '.join(assumed)}")
    lines += ["", "save as scan.toml and complete:", "", "[experiment]"]
    lines += [f"{key} = {toml_value(value)}" for key, value in known.items()]
    lines += list(_placeholders(file.missing))
    return [*lines, "", "then: pyptyx validate scan.toml"]


def _placeholders(missing: tuple[str, ...]) -> Iterator[str]:
    for key, _, example in NEEDED:
        if key in missing:
            yield f"# {key} = {example}"


def _bytes(size: int) -> str:
    power = min(4, max(0, (size.bit_length() - 1) // 10))
    return f"{size / 1024**power:.3g} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"


def _value(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def toml_value(value: Any) -> str:
    """A text, number or tuple as TOML."""
    if isinstance(value, str):
        # Windows paths have backslashes, which only literal strings of TOML keep.
        return f"'{value}'" if "'" not in value else '"' + value.replace("\\", "\\\\") + '"'
    if isinstance(value, tuple):
        return f"[{', '.join(toml_value(v) for v in value)}]"
    return f"{value:.10g}" if isinstance(value, float) else str(value)
