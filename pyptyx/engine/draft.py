"""The first version of a run file, written from a file of patterns: known, missing, assumed."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyptyx.engine.inspect import ASSUMED, NEEDED, PARAMETER_KEYS, DataFile, toml_value
from pyptyx.params.schema import EXPERIMENT

BLANK = "FILL IN"
"""What marks a value that only the user knows."""

_WIDTH = 96


def draft(file: DataFile, target: Path, preset: str) -> str:
    """Text of a TOML file that describes a run on these patterns.

    What the file says is written with the place it comes from.  What an experiment needs besides is
    left blank behind ``FILL IN``; what may be left out is commented out.

    Parameters
    ----------
    file : DataFile
        The patterns.
    target : Path
        Where the text will lie; the path of the data is written relative to it.
    preset : str
        Text of a preset, with its line ``[preset]``.

    Returns
    -------
    str
    """
    blocks = [
        *_heading(file, target),
        "[experiment]",
        *_data(file, target),
        *_known(file),
        *_blanks(file),
        *_assumed(file),
        _entry("output_folder", f"{target.stem}_results"),
        *_also(file),
    ]
    return "\n\n".join([*blocks, preset.strip()]) + "\n"


def _heading(file: DataFile, target: Path) -> Iterator[str]:
    yield _comment(
        f"Written by `pyptyx init` from {file.path.name} ({file.format}). The text 'none' stands "
        "for None; `pyptyx keys WORD` explains keys."
    )
    steps = [f"pyptyx {word} {target.name}" for word in ("validate", "calibrate", "run")]
    if file.missing:
        yield _comment(
            f"Lines below {BLANK} need a value that only you know: write it instead of the "
            "question mark and remove the # in front."
        )
    yield "\n".join(["# Then:", *(f"#     {step}" for step in steps)])


def _data(file: DataFile, target: Path) -> Iterator[str]:
    path = file.path.resolve()
    try:
        name = os.path.relpath(path, target.resolve().parent)
    except ValueError:  # on another drive
        name = str(path)
    yield _entry("data_path", name, "Relative to this file.")
    if file.dataset is not None:
        yield _entry("h5_key", file.dataset)


def _known(file: DataFile) -> Iterator[str]:
    places = {found.key: found.where for found in reversed(file.calibrations)}
    for key, value in file.to_experiment().items():
        if key in PARAMETER_KEYS:
            yield _entry(key, value, f"From {places.get(key, 'the shape of the data')}.")


def _blanks(file: DataFile) -> Iterator[str]:
    for key, any_of, _ in NEEDED:
        if key in file.missing:
            choice = " one of these" if len(any_of) > 1 else ""
            lines = [f"# {BLANK}{choice}:"]
            for name in any_of:
                lines += [_comment(f"  {_meaning(name)}"), f"# {name} = ?"]
            yield "\n".join(lines)


def _assumed(file: DataFile) -> Iterator[str]:
    known = file.to_experiment()
    for key, assumption in ASSUMED.items():
        if key not in known:
            comment = _comment(f"Optional. {_meaning(key)} If left out: {assumption}.")
            yield f"{comment}\n# {key} = ?"


def _also(file: DataFile) -> Iterator[str]:
    others = [found for found in file.calibrations if found.key not in PARAMETER_KEYS]
    if others:
        lines = [
            f"#     {found.key} = {found.value} {found.unit}".rstrip() + f", from {found.where}"
            for found in others
        ]
        yield "\n".join(["# The file also says:", *lines])
    if file.notes:
        yield "\n".join(_comment(note) for note in file.notes)


def _entry(key: str, value: Any, remark: str = "") -> str:
    """A key with its value, below what it means."""
    return f"{_comment(f'{_meaning(key)} {remark}')}\n{key} = {toml_value(value)}"


def _meaning(key: str) -> str:
    row = EXPERIMENT[key]
    unit = "" if row.unit == "-" else f" Unit: {row.unit}."
    return f"{row.doc}{unit}".replace("`", "")


def _comment(text: str) -> str:
    indent = "# " + " " * (len(text) - len(text.lstrip()))
    return textwrap.fill(text.strip(), _WIDTH, initial_indent=indent, subsequent_indent=indent)
