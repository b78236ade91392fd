"""The state of a run in one file, checked when it is read, with the previous one kept beside it.

The content is a tree of dicts, lists, tuples, plain values and arrays.  The arrays are members of
an uncompressed NPZ archive; the member ``header`` is a JSON document with everything else and with
a checksum of every array.  Nothing is pickled.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from pyptyx import __version__
from pyptyx.errors import DataError, Problem
from pyptyx.files import replacing
from pyptyx.params.codec import from_json, to_json

logger = logging.getLogger(__name__)

CURRENT = "resume.npz"
PREVIOUS = "resume.previous.npz"

FORMAT = "pyptyx-state"
VERSION = 1
"""Raised whenever older content can no longer be understood."""

_HEADER = "header"


def save(folder: Path, content: Mapping[str, Any]) -> None:
    """Write the state atomically; the one it replaces stays as `PREVIOUS`.

    Parameters
    ----------
    folder : Path
    content : mapping
        Dicts with string keys, lists, tuples, numbers, strings, None and numeric arrays.

    Raises
    ------
    OutputError
        If it cannot be written; what was there before stays readable.
    """
    arrays: dict[str, np.ndarray] = {}
    header = {
        "format": FORMAT,
        "version": VERSION,
        "written_by": __version__,
        "content": to_json(dict(content), arrays),
        "checksums": {name: _checksum(a) for name, a in arrays.items()},
    }
    text = json.dumps(header, allow_nan=False).encode()
    members = {_HEADER: np.frombuffer(text, np.uint8), **arrays}
    with replacing(folder / CURRENT, previous=folder / PREVIOUS) as temporary:
        np.savez(temporary, **members)  # type: ignore[arg-type]


def load(folder: Path) -> dict[str, Any] | None:
    """The newest state that is undamaged, or None.

    A damaged file is mentioned in the log.
    """
    for name in (CURRENT, PREVIOUS):
        path = folder / name
        if path.is_file():
            try:
                return _read(path)
            except DataError as error:
                logger.warning("passed over: %s", error)
    return None


def stop_reason(folder: Path) -> str:
    """Why the run of a folder ended by itself; empty while it goes on or if nothing is readable.

    Arrays are not read, so it costs little.
    """
    try:
        with np.load(folder / CURRENT, allow_pickle=False) as archive:
            header = json.loads(archive[_HEADER].tobytes())
        return str(header["content"].get("stop_reason", ""))
    except Exception as error:  # damaged archives raise nearly anything
        logger.debug("%s is not readable: %s", folder / CURRENT, error)
        return ""


def discard(folder: Path) -> None:
    """Remove the states of a folder, which are those of another run."""
    for name in (CURRENT, PREVIOUS):
        (folder / name).unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            members = {name: archive[name] for name in archive.files}
        header = json.loads(members.pop(_HEADER).tobytes())
        known = header["format"] == FORMAT and header["version"] == VERSION
        checksums = {name: _checksum(a) for name, a in members.items()}
        intact = header["checksums"] == checksums
        content = from_json(header["content"], members)
    except Exception as error:  # damaged archives raise nearly anything
        got = f"one that cannot be read ({type(error).__name__}: {error})"
        raise DataError(Problem(str(path), "a complete state of a run", got)) from error
    if not (known and intact):
        got = "an array with another checksum" if known else "another format or version"
        raise DataError(Problem(str(path), "a state written by this version of pyptyx", got))
    return content


def _checksum(a: np.ndarray) -> str:
    """Of the values, the shape and the type."""
    digest = blake2b(f"{a.dtype.str}{a.shape}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(a).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
