"""Which reader opens which file: by its ending, or by its first bytes."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py

from pyptyx.data.formats.base import Opened, Request
from pyptyx.errors import DataError, Problem


@dataclass(frozen=True)
class Format:
    """One row of the registry.

    Attributes
    ----------
    name : str
        Name of the format.
    suffixes : tuple of str
        File name endings, small letters.
    module : str
        Module of this package whose ``open_file`` reads it.
    extra : str
        Optional extra of pyptyx it needs; empty for none.
    """

    name: str
    suffixes: tuple[str, ...]
    module: str
    extra: str = ""


HDF5 = Format("HDF5", (".h5", ".hdf5", ".hdf", ".nxs", ".emd", ".cxi", ".mat", ".hspy"), "hdf5")
NPY = Format("NumPy array", (".npy",), "arrays")

FORMATS = (
    HDF5,
    NPY,
    Format("NumPy archive", (".npz",), "arrays"),
    Format("Nion ndata", (".ndata",), "arrays"),
    Format("EMPAD", (".raw", ".xml"), "empad"),
    Format("Gatan DigitalMicrograph", (".dm3", ".dm4"), "rosetta", "io"),
    Format("Quantum Detectors Merlin", (".mib",), "rosetta", "io"),
    Format("NanoMEGAS blockfile", (".blo",), "rosetta", "io"),
    Format("TVIPS", (".tvips",), "rosetta", "io"),
    Format("TIA", (".ser", ".emi"), "rosetta", "io"),
    Format("MRC", (".mrc",), "rosetta", "io"),
    Format("PantaRhei", (".prz",), "rosetta", "io"),
)
"""Every format that can be read."""


def find_format(path: Path) -> Format:
    """Format of an existing file, by its ending, else by its first bytes.

    Raises
    ------
    DataError
        If the file is of no known format; the known endings are listed.
    """
    suffix = path.suffix.lower()
    for row in FORMATS:
        if suffix in row.suffixes:
            # A file of any name may be HDF5, also one named .raw.
            return HDF5 if h5py.is_hdf5(path) else row
    if h5py.is_hdf5(path):
        return HDF5
    with open(path, "rb") as file:
        if file.read(6) == b"\x93NUMPY":
            return NPY
    known = " ".join(s for row in FORMATS for s in row.suffixes)
    raise DataError(
        Problem(
            str(path),
            f"a file of a known format ({known})",
            f"the ending {path.suffix!r} and no signature that is known",
            "Rename the file, or write it as HDF5 or .npy",
        )
    )


def open_path(request: Request) -> Opened:
    """Open a file with the reader of its format.

    Raises
    ------
    DataError
        If the format is unknown, needs a package that is missing, or the file does not hold
        diffraction patterns.
    """
    module = importlib.import_module(f"{__package__}.{find_format(request.path).module}")
    open_file: Callable[[Request], Opened] = module.open_file
    return open_file(request)
