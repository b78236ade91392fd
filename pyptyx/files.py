"""Atomic files: written under a temporary name in the same folder, then renamed."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pyptyx.errors import OutputError

_PART = ".part"


@contextmanager
def replacing(target: Path, previous: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path that takes the place of `target` on success and vanishes on failure.

    Parameters
    ----------
    target : Path
        The file to write; its ending is kept by the temporary name.
    previous : Path, optional
        Where an older file goes; at any moment one of the two names is that of a complete file.

    Raises
    ------
    OutputError
        If the file cannot be written; an older file stays as it was.
    """
    temporary = target.with_name(f".{target.stem}.{uuid.uuid4().hex[:8]}{_PART}{target.suffix}")
    try:
        yield temporary
        # On disk before the name points to it, so that a power cut cannot leave an empty file.
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        if previous is not None and target.exists():
            os.replace(target, previous)
        os.replace(temporary, target)
    except OSError as error:
        raise OutputError(
            f"could not write {target}: {error.strerror or error}. An older file stays as it was; "
            "check free space and permissions of the folder"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Remove temporary files that a killed process has left."""
    for path in folder.glob(f".*.????????{_PART}*"):
        path.unlink(missing_ok=True)


def write_bytes(target: Path, content: bytes) -> None:
    """Write `content` atomically."""
    with replacing(target) as temporary:
        temporary.write_bytes(content)


def write_array(target: Path, array: np.ndarray) -> None:
    """Write an ``.npy`` file atomically; object arrays are refused."""
    with replacing(target) as temporary:
        np.save(temporary, array, allow_pickle=False)


def scratch_array(
    shape: tuple[int, ...], dtype: Any, in_memory: bool, folder: str | Path | None = None
) -> np.ndarray:
    """An empty array in memory, or in a file of `folder` that has no name and vanishes with it."""
    if in_memory:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile(dir=folder, prefix="pyptyx-") as file:
        return np.memmap(file, dtype=dtype, mode="w+", shape=shape)


def obstacle(folder: Path) -> str:
    """What keeps files from being written in a folder that may not exist yet; empty if nothing."""
    try:
        existing = next(p for p in (folder, *folder.parents) if p.exists())
    except OSError as error:
        return error.strerror or str(error)
    if not existing.is_dir():
        return f"{existing} is a file"
    return "" if os.access(existing, os.W_OK) else f"no permission to write in {existing}"


def check_folder(folder: Path) -> None:
    """Check that an output folder can be made and written to, without making it.

    Raises
    ------
    OutputError
        Naming ``output_folder``.
    """
    reason = obstacle(folder)
    if reason:
        raise _not_writable(folder, reason)


def make_folder(folder: Path) -> None:
    """Create an output folder and check that files can be written there.

    Raises
    ------
    OutputError
        Naming ``output_folder``.
    """
    check_folder(folder)
    probe = folder / f".trial.{uuid.uuid4().hex[:8]}{_PART}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise _not_writable(folder, error.strerror or str(error)) from error


def _not_writable(folder: Path, reason: str) -> OutputError:
    return OutputError(
        f"output_folder: expected a folder that can be written, got {folder} ({reason}). "
        "Give another folder, or output_folder=None to keep results in memory"
    )
