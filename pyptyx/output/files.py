"""Atomic files: written under a temporary name in the same folder, then renamed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pyptyx.errors import OutputError


def write_atomically(path: Path, write: Callable[[Any], None]) -> None:
    """Let `write` fill a binary file that then takes the place of `path`.

    Raises
    ------
    OutputError
        If the file cannot be written; an older file stays as it was.
    """
    temporary = None
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise OutputError(
            f"could not write {path}: {error.strerror or error}. The previous file, if any, is intact; "
            "check space and permissions of the output folder"
        ) from error
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` atomically."""
    write_atomically(path, lambda file: file.write(content))


def write_array(path: Path, array: np.ndarray) -> None:
    """Write an ``.npy`` file atomically; object arrays are refused."""
    write_atomically(path, lambda file: np.save(file, array, allow_pickle=False))


def make_folder(path: Path) -> None:
    """Create an output folder and check that files can be written there.

    Raises
    ------
    OutputError
        Naming ``output_folder``.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise OutputError(
            f"output_folder: expected a folder that can be written, got {path}: "
            f"{error.strerror or error}. Give another folder, or output_folder=None to keep results "
            "in memory"
        ) from error
