"""Files that travel with the package: presets and a small data set."""

from __future__ import annotations

from pathlib import Path

from pyptyx.errors import DataError, Problem

_PACKAGE = Path(__file__).resolve().parent

_IN_WHEEL = {"presets": "_presets", "examples/data": "_demo"}
"""Where a folder of the repository lies in an installed package."""


def shipped(name: str) -> Path:
    """A file that travels with the package, from the wheel or from a checkout.

    Parameters
    ----------
    name : str
        Its path in the repository, below ``presets`` or ``examples/data``.

    Returns
    -------
    Path

    Raises
    ------
    DataError
        If it is missing.
    """
    folder, _, file = name.rpartition("/")
    path = _place(folder) / file
    if path.is_file():
        return path
    remedy = "Install pyptyx again, or use a complete checkout"
    raise DataError(Problem(name, "a file that comes with pyptyx", "no such file", remedy))


def preset_names() -> list[str]:
    """Names of the presets that come with the package, in alphabetical order."""
    return sorted(path.stem for path in _place("presets").glob("*.toml"))


def _place(folder: str) -> Path:
    installed = _PACKAGE / _IN_WHEEL[folder]
    return installed if installed.is_dir() else _PACKAGE.parent / folder
