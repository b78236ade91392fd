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
    for place in _places(folder):
        if (place / file).is_file():
            return place / file
    remedy = "Install pyptyx again, or use a complete checkout"
    raise DataError(Problem(name, "a file that comes with pyptyx", "no such file", remedy))


def preset_names() -> list[str]:
    """Names of the presets that come with the package, in alphabetical order."""
    files = {path.stem for place in _places("presets") for path in place.glob("*.toml")}
    return sorted(files)


def _places(folder: str) -> tuple[Path, Path]:
    return _PACKAGE / _IN_WHEEL[folder], _PACKAGE.parent / folder
